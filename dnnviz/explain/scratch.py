"""Memory for short-lived values, used again: fresh memory costs as much as the light arithmetic that fills it."""

from __future__ import annotations

import torch


class Scratch:
    """One piece of memory; what is written into it lasts until the next `like`."""

    def __init__(self) -> None:
        self.held = torch.empty(0)

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Contiguous memory of a tensor's shape, type and device, its content left over."""
        if self.held.numel() < tensor.numel() or self.held.dtype != tensor.dtype or self.held.device != tensor.device:
            self.held = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        return self.held[: tensor.numel()].view(tensor.shape)
