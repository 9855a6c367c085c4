"""The ReLUs of a forward pass, whether they are modules, shared, in place or calls of functions, and gradients rectified at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

# What a node of the gradient's graph says of the lower end of its range; a ReLU has no choice.
_LOWER = {"Hardtanh": "_saved_min_val", "Clamp": "_saved_min", "ClampMin": "_saved_min"}
_IN_PLACE = {torch.relu_, torch.Tensor.relu_, F.relu_, F.relu, F.relu6, F.hardtanh, F.hardtanh_, torch.Tensor.clamp_, torch.Tensor.clamp_min_}

Node = torch.autograd.graph.Node


def rectifiers(score: torch.Tensor) -> tuple[list[Node], bool]:
    """(nodes of ReLU and ReLU6 in the graph of a score, whether there may be more: a call that writes into a part of a tensor hides its own)."""
    waiting, seen, found, hidden = [score.grad_fn], {score.grad_fn}, [], False
    while waiting:
        node = waiting.pop()
        kind = node.name().partition("Backward")[0]
        hidden = hidden or kind.endswith("CopySlices")
        if kind == "Relu" or (kind in _LOWER and _is_zero(getattr(node, _LOWER[kind]))):
            found.append(node)
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                waiting.append(before)
    return found, hidden


def _is_zero(bound: Any) -> bool:
    return isinstance(bound, int | float) and bound == 0


def rectified_gradient(
    score: torch.Tensor, leaf: torch.Tensor, nodes: list[Node], change: Callable[[torch.Tensor], torch.Tensor], gated: bool
) -> tuple[torch.Tensor | None, bool]:
    """(gradient of a score in which `change` is applied to what flows back into each of the nodes, whether that made a difference).

    gated: whether what was changed then passes through the rectifier's own derivative. The graph stays as it was.
    """
    altered = False

    def before(flowing: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        nonlocal altered
        changed = change(flowing[0])
        # Seen once it need not be looked for again.
        altered = altered or (gated and not torch.equal(changed, flowing[0]))
        return (changed,)

    def behind(passed: tuple[torch.Tensor, ...], changed: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        nonlocal altered
        altered = altered or not torch.equal(passed[0], changed[0])
        # What came in, as it was changed, takes the place of what the derivative let pass.
        return (changed[0], *passed[1:])

    handles = [node.register_prehook(before) for node in nodes]
    handles += [] if gated else [node.register_hook(behind) for node in nodes]
    try:
        return torch.autograd.grad(score, leaf, retain_graph=True, allow_unused=True)[0], altered
    finally:
        for handle in handles:
            handle.remove()


class OnCopies(TorchFunctionMode):
    """Rectifiers that write into a view work on a copy of it, whose node the gradient's graph then shows."""

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if function not in _IN_PLACE:
            return function(*args, **kwargs)
        into = args[0] if args else kwargs.pop("input")
        if not into._is_view() or not into.requires_grad:
            return function(into, *args[1:], **kwargs)
        copy = into.clone()
        output = function(copy, *args[1:], **kwargs)
        # What was meant to be written in place still is; a function that gave a new tensor wrote nothing.
        return into.copy_(output) if output is copy else output
