"""Where a value of a traced pass can be read at run time, and hooks that read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from dnnviz import operations
from dnnviz.tracing import Call, Op, Trace, Value


@dataclass(frozen=True, eq=False)
class Tap:
    """Where a layer's value can be read at run time.

    The value is the output (or, with `before`, an argument) number `key` of call `number` of `module`; the operations
    of `rest`, none in most networks, then still have to be applied.
    """

    module: nn.Module
    number: int
    before: bool
    key: int | str | None
    rest: tuple[Op, ...]
    start: Value
    value: Value

    def finish(self, tensor: torch.Tensor) -> torch.Tensor:
        """The layer's value, from the tensor that the hook sees; the tensor itself is not written to."""
        if not self.rest:
            return tensor
        if any(op.in_place or op.keywords.get("inplace") for op in self.rest):
            tensor = tensor.clone()
        known = {id(self.start): tensor}
        result = tensor
        for op in self.rest:
            arguments, keywords = tree_map(lambda a: known[id(a)] if isinstance(a, Value) else a, (op.arguments, op.keywords))
            result = op.function(*arguments, **keywords)
            known[id(op.outputs[0])] = result
        return result


def find_tap(value: Value, seen: Trace) -> Tap | None:
    """The cheapest place where a value can be read: a module's output, a module's argument, or either with a few operations repeated."""
    rest: list[Op] = []
    here = value
    for _ in range(8):
        place = _place(here, seen)
        if place is not None:
            call, before, key = place
            return Tap(call.module, call.number, before, key, tuple(sorted(rest, key=lambda o: o.order)), here, value)
        if here.maker is None:
            return None
        back = _back(here)
        if back is None:
            return None
        ops, here = back
        rest.extend(ops)
    return None


def _back(value: Value) -> tuple[list[Op], Value] | None:
    """The operations that made a value from one single earlier value, and that one."""
    ops: list[Op] = []
    pending = [value]
    while pending:
        if len(ops) > 16:
            return None
        # The value made last cannot be an ancestor of the others.
        pending.sort(key=lambda v: v.maker.order if v.maker else -1)
        last = pending.pop()
        if ops and not pending:
            return ops, last
        op = last.maker
        if op is None or op.name == "opaque" or len(op.outputs) != 1 or op.name not in operations.POINTWISE | operations.NORMS | operations.LAYOUTS:
            return None
        ops.append(op)
        pending.extend(v for v in op.inputs if v not in pending)
    return None


def _place(value: Value, seen: Trace) -> tuple[Call, bool, int | str | None] | None:
    ending = [(c, k) for c in seen.calls for k, v in c.outputs.items() if v is value and c.ended >= 0]
    if ending:
        call, key = min(ending, key=lambda item: item[0].ended)
        return call, False, key
    for call in seen.calls:
        for key, item in call.inputs.items():
            if item is value and not (isinstance(key, str) and "[" in key):
                return call, True, key
    return None


class Taps:
    """Hooks that hand every value to `receive(position of the tap, tensor)` during forward passes.

    Use as a context manager: the hooks are gone afterwards, whatever happens. Call `reset` before every pass.
    """

    def __init__(self, taps: Sequence[Tap], receive: Callable[[int, torch.Tensor], None]) -> None:
        self.taps = taps
        self.receive = receive
        self.counts: dict[tuple[int, bool], int] = {}
        self.handles: list[Any] = []

    def reset(self) -> None:
        self.counts.clear()

    def __enter__(self) -> Taps:
        groups: dict[tuple[int, bool], list[int]] = {}
        for position, tap in enumerate(self.taps):
            groups.setdefault((id(tap.module), tap.before), []).append(position)
        for (_, before), positions in groups.items():
            module = self.taps[positions[0]].module
            if before:
                self.handles.append(module.register_forward_pre_hook(self._pre_hook(positions), with_kwargs=True))
            else:
                self.handles.append(module.register_forward_hook(self._hook(positions)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def _next(self, module: nn.Module, before: bool) -> int:
        key = (id(module), before)
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]

    def _hook(self, positions: list[int]) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            number = self._next(module, False)
            for position in positions:
                tap = self.taps[position]
                if tap.number == number:
                    self.receive(position, tap.finish(output if tap.key is None else output[tap.key]))

        return hook

    def _pre_hook(self, positions: list[int]) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            number = self._next(module, True)
            for position in positions:
                tap = self.taps[position]
                if tap.number == number:
                    self.receive(position, tap.finish(keywords[tap.key] if isinstance(tap.key, str) else arguments[tap.key]))

        return hook


def units_first(tensor: torch.Tensor, value: Value, count: int) -> torch.Tensor:
    """A tensor of `count` inputs as [count, units, positions…]: a view where that is possible."""
    moved = tensor if (value.batch, value.channel) == (0, 1) else tensor.movedim((value.batch, value.channel), (0, 1))
    if moved.shape[0] != count:
        # Windows or patches folded into the batch: they are positions of the same input.
        windows = moved.shape[0] // count
        moved = moved.reshape(count, windows, *moved.shape[1:]).transpose(1, 2)
    return moved
