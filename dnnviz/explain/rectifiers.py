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
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if function in _RECTIFIERS or (function in _CLIPPED and (kwargs.get("min_val", args[1] if len(args) > 1 else -1.0) == 0)):
            self.count += 1
            if output.requires_grad:
                # Registered after an in-place ReLU, so it sees the gradient of the ReLU's output, not of its input.
                output.register_hook(lambda gradient: None if self.change is None else self.change(gradient))
        return output


@contextmanager
def after_rectifiers() -> Iterator[_Watch]:
    """Watch the rectifiers (ReLU, ReLU6) called inside: `.count` says how many, `.change` is applied to the gradient that flows back into each.

    `.change` may be set between two backward passes over one graph; a gradient passes through it and then through the
    rectifier's own derivative.
    """
    with _Watch() as watch:
        yield watch
