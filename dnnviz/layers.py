"""The layers of any network, found by watching one forward pass.

A layer is a module with weights of its own (convolution, linear, attention); its value is taken after the normalisation
and the activation function that directly consume it. A block is the output of a composite module in which branches
of the data flow meet (residual block, inception, dense layer, fire, encoder block, …).
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dnnviz import operations
from dnnviz.errors import DNNVizError
from dnnviz.store import Layer
from dnnviz.taps import Tap, find_tap, units_first
from dnnviz.tracing import Call, Op, Trace, Value, permutation, trace

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINEARS = (nn.Linear, nn.Bilinear)
ATTENTIONS = (nn.MultiheadAttention,)
_LONGEST = 8  # operations that an activation function written out by hand may have
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


@dataclass(frozen=True, eq=False)
class Found:
    """A layer, where its value can be read, and the module call it comes from."""

    layer: Layer
    tap: Tap
    call: Call


@dataclass(frozen=True, eq=False)
class Layers:
    """What `find_layers` found: layers in the order in which they run, modules with weights that are none (and why), the trace."""

    found: tuple[Found, ...]
    uncovered: tuple[dict[str, Any], ...]
    trace: Trace

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(f.layer for f in self.found)

    @property
    def units(self) -> int:
        return sum(layer.units for layer in self.layers)


def find_layers(model: nn.Module, example: torch.Tensor, only: Sequence[str] | None = None) -> Layers:
    """Find the layers of a network (in eval mode) from one pass over `example` [n, C, H, W].

    only: names or shell patterns (`layer4*`) of the layers wanted, or kinds (`conv`); None = all.
    Raises DNNVizError when nothing is found or a name in `only` fits nothing.
    """
    seen = trace(model, example)
    calls = [(call, kind) for call in seen.calls if (kind := _kind(call, seen))]
    inner = {id(call) for call, _ in calls}
    # A convolution that runs inside an attention module is part of that one layer.
    calls = [(call, kind) for call, kind in calls if not _inside(call, inner)]
    found: list[tuple[int, str, str, Call, Value]] = []
    folded: set[str] = set()
    for call, kind in [*calls, *((block, "block") for block in _blocks(seen, [call for call, _ in calls]))]:
        value = call.output
        if value is None or len(value.shape) < 2:
            continue
        if kind != "block":
            value, used = _after(value, seen)
            folded.update(used)
        found.append((call.ended, _label(call), kind, call, value))
    found.sort(key=lambda item: item[0])
    result, offset, missed = [], 0, {}
    names = [(label, kind) for _, label, kind, _, _ in found]
    wanted = _select(names, only)
    for _, label, kind, call, value in found:
        if label not in wanted:
            missed[call.name] = "not among the layers asked for"
            continue
        tap = find_tap(value, seen)
        if tap is None:
            missed[call.name] = "its value passes through no module where it could be read"
            continue
        shape = _layer_shape(value, example.shape[0])
        result.append(Found(Layer(label, kind, shape[0] if len(shape) != 2 else shape[1], shape, offset), tap, call))
        offset += result[-1].layer.units
    if not result:
        raise DNNVizError(f"{type(model).__name__} has no convolution, linear or attention layer that runs in a forward pass.")
    return Layers(tuple(result), tuple(_uncovered(model, seen, result, folded, missed)), seen)


# -- what is a layer -------------------------------------------------------------------------------------------------


def _label(call: Call) -> str:
    return call.name if call.number == 1 else f"{call.name}#{call.number}"


def _inside(call: Call, others: set[int]) -> bool:
    parent = call.parent
    while parent is not None:
        if id(parent) in others:
            return True
        parent = parent.parent
    return False


def _kind(call: Call, seen: Trace) -> str | None:
    """Kind of the layer that a module call is, or None."""
    if isinstance(call.module, ATTENTIONS):
        return "attention"
    if isinstance(call.module, CONVOLUTIONS):
        return "conv"
    if isinstance(call.module, LINEARS):
        return "linear"
    if call.parent is None:
        return None
    # A module of the user's own that applies weights in its own code.
    own = [op for op in seen.ops if op.call is call]
    using = [op for op in own if op.weights and (op.name in operations.WEIGHTED or operations.is_convolution(op.name))]
    if not using:
        return None
    if any(op.name in operations.ATTENTIONS for op in own):
        return "attention"
    return "conv" if any(operations.is_convolution(op.name) for op in using) else "linear"


def _is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: one of PyTorch's, or one of that name which holds no layer (as `Conv2dNormActivation` does)."""
    if isinstance(module, NORMS):
        return True
    return "norm" in type(module).__name__.lower() and not any(isinstance(m, CONVOLUTIONS + LINEARS + ATTENTIONS) for m in module.modules())


def _after(value: Value, seen: Trace) -> tuple[Value, list[str]]:
    """Follow a value through the normalisation and the activation function that are its only consumers.

    Returns the value after them, and the names of the modules passed.
    """
    used: list[str] = []
    for step in (lambda v: _norm_step(v, seen), _activation_step):
        here: Value | None = value
        while here is not None:
            end = step(here)
            if end is not None:
                used.extend(_passed(value, end))
                value = end
                break
            here = _layout_step(here)
    return value, used


def _passed(start: Value, end: Value) -> list[str]:
    """Names of the modules whose operations lead from one value to another."""
    names: list[str] = []
    here = end
    while here is not start and here.maker is not None:
        call = here.maker.call
        if start.maker is None or not start.maker.call.within(call):
            names.append(call.name)
        here = here.maker.inputs[0]
    return names


def _layout_step(value: Value) -> Value | None:
    if len(value.consumers) != 1:
        return None
    op = value.consumers[0]
    if op.name not in operations.LAYOUTS or len(op.outputs) != 1 or len(op.inputs) != 1:
        return None
    if op.name in ("permute", "transpose", "swapaxes", "swapdims") and permutation(op, len(value.shape)) is None:
        return None
    return op.outputs[0]


def _norm_step(value: Value, seen: Trace) -> Value | None:
    """The value after a normalisation that is the only consumer of this one."""
    if not value.consumers:
        return None
    for call in seen.calls:
        if value in call.inputs.values() and _is_norm(call.module) and all(op.call.within(call) for op in value.consumers):
            output = call.output
            if len(call.outputs) == 1 and output is not None and output is not value and len(output.shape) == len(value.shape):
                return output
    op = value.consumers[0]
    return op.outputs[0] if len(value.consumers) == 1 and op.name in operations.NORMS and op.outputs else None


def _activation_step(value: Value) -> Value | None:
    """The value after an activation function that consumes this one alone, be it one operation or several (x * sigmoid(x))."""
    if not value.consumers:
        return None
    made, done = [value], set()
    active = False
    queue = list(value.consumers)
    for _ in range(_LONGEST):
        # The next operation on nothing but the value and what was made of it …
        ready = [op for op in queue if op.order not in done and all(v in made for v in op.inputs)]
        op = min(ready, key=lambda o: o.order, default=None)
        if op is None or op.name not in operations.POINTWISE or len(op.outputs) != 1 or op.outputs[0].shape != value.shape:
            return None
        done.add(op.order)
        active = active or (op.name in operations.ACTIVATIONS and (op.name != "clamp" or _is_rectifier(op)))
        output = op.outputs[0]
        # … until everything has run together into one.
        if all(o.order in done for v in made for o in v.consumers):
            return output if active else None
        made.append(output)
        queue.extend(output.consumers)
    return None


def _is_rectifier(op: Op) -> bool:
    """Whether a clamp cuts at zero from below."""
    return op.keywords.get("min", op.arguments[1] if len(op.arguments) > 1 else None) == 0


def _layer_shape(value: Value, count: int) -> tuple[int, ...]:
    """Shape as the manifest holds it: (C, H, W), (F,) or (tokens, D)."""
    probe = torch.empty(value.shape, device="meta")
    moved = units_first(probe, value, count)
    units, places = moved.shape[1], tuple(moved.shape[2:])
    if not places:
        return (units,)
    if len(places) == 1:
        return (places[0], units)
    height = 1
    for size in places[:-1]:
        height *= size
    return (units, height, places[-1])


# -- blocks ----------------------------------------------------------------------------------------------------------


def _blocks(seen: Trace, layers: Sequence[Call]) -> list[Call]:
    """Calls of composite modules in whose own code branches of the data flow meet, the innermost ones.

    Where one call of a class is a block, every call of that class with a layer inside is (a residual block without its shortcut).
    """
    holders: set[int] = set()
    direct: set[int] = set()
    chosen = {id(call) for call in layers}
    for call in layers:
        parent = call.parent
        while parent is not None:
            holders.add(id(parent))
            parent = parent.parent
    for op in seen.ops:
        call = op.call
        if op.name in operations.ADDITIONS | operations.CONCATENATIONS and call.parent is not None and id(call) in holders and len(_sources(op)) > 1:
            direct.add(id(call))
    classes = {type(call.module) for call in seen.calls if id(call) in direct}
    candidates = [
        call
        for call in seen.calls
        if id(call) in holders and id(call) not in chosen and call.parent is not None and (id(call) in direct or type(call.module) in classes)
    ]
    return [c for c in candidates if not any(o is not c and o.within(c) for o in candidates)]


def _sources(op: Op) -> set[int]:
    """The different values that a join brings together, looked at through slicing and reshaping."""
    found: set[int] = set()
    for value in op.inputs:
        here = value
        while here.maker is not None and here.maker.name in operations.MOVES and len(here.maker.inputs) == 1 and here.maker.call is op.call:
            parent = here.maker.inputs[0]
            if here.maker.name in ("chunk", "split", "unbind") and len(here.maker.outputs) > 1:
                break
            here = parent
        found.add(id(here))
    return found


# -- what is none ----------------------------------------------------------------------------------------------------


def _select(names: Sequence[tuple[str, str]], only: Sequence[str] | None) -> set[str]:
    if only is None:
        return {name for name, _ in names}
    chosen: set[str] = set()
    for pattern in [only] if isinstance(only, str) else only:
        fits = {name for name, kind in names if kind == pattern or fnmatch.fnmatchcase(name, pattern)}
        if not fits:
            raise DNNVizError(f"No layer of the network fits {pattern!r}; there are {', '.join(itertools.islice((n for n, _ in names), 6))} …")
        chosen |= fits
    return chosen


def _uncovered(model: nn.Module, seen: Trace, found: Sequence[Found], folded: set[str], missed: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Modules with parameters of their own that became no layer, and why."""
    called = {call.name for call in seen.calls}
    layers = {item.call.name for item in found if item.layer.kind != "block"}
    for name, module in model.named_modules():
        own = sum(p.numel() for p in module.parameters(recurse=False))
        if not own or name in layers or name in folded or any(name.startswith(f"{layer}.") for layer in layers):
            continue
        if name in missed:
            reason = missed[name]
        elif any(name.startswith(f"{other}.") for other in missed):
            continue
        elif name not in called and name:
            reason = "not called in a forward pass in eval mode"
        elif _is_norm(module):
            reason = "a normalisation that follows no layer directly"
        else:
            parts = ", ".join(key for key, _ in module.named_parameters(recurse=False))
            reason = f"its parameters ({parts}) belong to no convolution, linear or attention"
        yield {"name": name or "(the network itself)", "type": type(module).__name__, "parameters": own, "reason": reason}
