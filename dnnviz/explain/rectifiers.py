"""See every ReLU of a forward pass, whether it is a module, shared, in place or a function call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_RECTIFIERS = {torch.relu, torch.relu_, F.relu, F.relu_, F.relu6, torch.Tensor.relu, torch.Tensor.relu_}
_CLIPPED = {F.hardtanh, F.hardtanh_}


class _Watch(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.change: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.gated = True
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if function not in _RECTIFIERS and not (function in _CLIPPED and (kwargs.get("min_val", args[1] if len(args) > 1 else -1.0) == 0)):
            return function(*args, **kwargs)
        self.count += 1
        into = args[0] if args else kwargs.pop("input")
        if not into._is_view() or not into.requires_grad:
            return self._watched(function(into, *args[1:], **kwargs))
        # A ReLU in place on a view has no node of its own in the gradient's graph; on a copy it has.
        copy = into.clone()
        output = self._watched(function(copy, *args[1:], **kwargs))
        return into.copy_(output) if output is copy else output

    def _watched(self, output: torch.Tensor) -> torch.Tensor:
        if output.requires_grad:
            # Registered after an in-place ReLU, so it sees the gradient of the ReLU's output, not of its input.
            output.register_hook(lambda gradient: None if self.change is None else self.change(gradient))
            # Behind the rectifier's derivative: what came in, as it was changed, takes the place of what the derivative let pass.
            output.grad_fn.register_hook(lambda _, changed: None if self.change is None or self.gated else changed)
        return output


@contextmanager
def after_rectifiers() -> Iterator[_Watch]:
    """Watch the rectifiers (ReLU, ReLU6) called inside: `.count` says how many, `.change` is applied to the gradient that flows back into each.

    `.change` may be set between two backward passes over one graph; a gradient passes through it and then, where `.gated`,
    through the rectifier's own derivative.
    """
    with _Watch() as watch:
        yield watch
