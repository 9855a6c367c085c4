"""What every unit of a network costs, and which later weights are for it, from one traced pass (torch)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from dnnviz import operations
from dnnviz.layers import Found, Layers
from dnnviz.pruning.saved import Cost, Costs
from dnnviz.store import Run
from dnnviz.tracing import Op, Trace, Value

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Operations through which a channel of zeros stays one, by itself.
_BENDING = {"relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "tanh", "softsign"}
_KEEP_ZERO = operations.LAYOUTS | _BENDING
_FLATTEN = {"flatten", "view", "reshape", "squeeze", "mean"}


def network_costs(run: Run, model: nn.Module, found: Layers) -> tuple[Costs, np.ndarray]:
    """(costs, magnitude float32 [U]) of the layers of a run; found: its layers in a pass over ONE input of the run's size.

    magnitude: sum of the absolute weights of every unit, NaN where a layer has none of its own.
    """
    by_name = {item.layer.name: item for item in found.found}
    position = {id(by_name[layer.name].call): i for i, layer in enumerate(run.layers) if layer.name in by_name}
    magnitude = np.full(run.units, np.nan, dtype=np.float32)
    entries = []
    for layer in run.layers:
        item = by_name.get(layer.name)
        entry = Cost(layer.name, False, "the network no longer has it", layer.units) if item is None else _cost(item, found.trace, position)
        entries.append(entry)
        if entry.weights and item is not None:
            weight = item.call.module.weight.detach()
            magnitude[layer.columns] = weight.abs().flatten(1).sum(dim=1).float().numpy()
    total = sum(parameter.numel() for parameter in model.parameters())
    macs = sum(_macs(op) for op in found.trace.ops if _weight(op) is not None)
    return Costs(tuple(entries), total, macs), magnitude


def weighted_op(item: Found, seen: Trace) -> Op | None:
    """The operation that applies a layer's weight, where it is a convolution or linear layer of PyTorch, used once, and its own."""
    if not isinstance(item.call.module, _WEIGHTED) or not _used_once(item.call.module, seen):
        return None
    own = [op for op in seen.ops if op.call is item.call and _weight(op) is not None]
    return own[0] if len(own) == 1 else None


def _used_once(module: nn.Module, seen: Trace) -> bool:
    """Whether a pass takes a module's weight once: neither called again nor tied to another's."""
    weight = module.weight
    return sum(call.module is module or getattr(call.module, "weight", None) is weight for call in seen.calls) == 1


def norm_ops(item: Found, start: Op) -> list[Op]:
    """The normalisations with parameters between a layer's weights and its value."""
    found, queue, met = [], [item.tap.value], set()
    while queue:
        op = queue.pop().maker
        if op is None or op is start or op.order in met:
            continue
        met.add(op.order)
        if op.name in operations.NORMS and op.weights:
            found.append(op)
        queue.extend(op.inputs)
    return found


def own_batch_norm(norm: Op, seen: Trace) -> bool:
    """Whether a normalisation is a batch norm whose parameters are used once in a pass."""
    return norm.name == "batch_norm" and sum(op.weights == norm.weights for op in seen.ops) == 1


def _cost(item: Found, seen: Trace, position: dict[int, int]) -> Cost:
    layer = item.layer
    plain = Cost(layer.name, False, "a block: what its layers make together", layer.units)
    if layer.kind == "block":
        return plain
    op = weighted_op(item, seen)
    if op is None:
        return replace(plain, why="its weights are not those of one convolution or linear layer, used once")
    module = item.call.module
    grouped = getattr(module, "groups", 1) > 1
    counts = {
        "outs": layer.units,
        "ins": module.weight.shape[1] * getattr(module, "groups", 1),
        "weights": module.weight.numel(),
        "bias": 0 if module.bias is None else module.bias.numel(),
        "norm": sum(len(norm.weights) for norm in norm_ops(item, op)),
        "macs": _macs(op),
    }
    links, open_, straight = _links(item.tap.value, seen, position)
    if _is_output(item.tap.value, seen):
        return replace(plain, why="the network's output: a unit a class", **counts)
    cut = not open_ and not grouped and bool(links) and all(own_batch_norm(norm, seen) for norm in norm_ops(item, op))
    return replace(plain, prunable=True, why="", cut=cut, merges=cut and straight, links=tuple(links) if cut else (), **counts)


def _is_output(value: Value, seen: Trace) -> bool:
    """Whether a value reaches the network's output without passing through another layer's weights."""
    outputs = {id(v) for v in seen.root.outputs.values()}
    queue, met = [value], set()
    while queue:
        here = queue.pop()
        if id(here) in outputs:
            return True
        for op in here.consumers:
            if op.order not in met and not (op.weights and (operations.is_convolution(op.name) or op.name in operations.WEIGHTED)):
                met.add(op.order)
                queue.extend(op.outputs)
    return False


def _links(value: Value, seen: Trace, position: dict[int, int]) -> tuple[list[tuple[int, int, int]], bool, bool]:
    """(links to the layers that consume a value, whether something else does as well, whether nothing on the way bends it)."""
    links: list[tuple[int, int, int]] = []
    open_, straight = False, True
    queue = [(value, 0, 1, value.channel)]
    while queue:
        here, offset, times, channel = queue.pop()
        for op in here.consumers:
            step = _step(op, here, offset, times, channel)
            if step is not None:
                queue.append(step)
                straight = straight and op.name not in _BENDING
            # Weights that are used more than once are for other inputs as well.
            elif _takes(op, here, channel) and id(op.call) in position and _used_once(op.call.module, seen):
                links.append((position[id(op.call)], offset, times))
            else:
                open_ = True
    return links, open_, straight


def _step(op: Op, here: Value, offset: int, times: int, channel: int) -> tuple[Value, int, int, int] | None:
    """Where a unit's numbers go through an operation that leaves zeros zero and mixes no units; None for any other operation."""
    if len(op.outputs) != 1 or op.weights:
        return None
    output, rank = op.outputs[0], len(here.shape)
    if op.name in operations.CONCATENATIONS and op.name != "stack" and len(output.shape) == rank:
        parts = op.arguments[0] if op.arguments else op.keywords.get("tensors")
        axis = op.keywords.get("dim", op.arguments[1] if len(op.arguments) > 1 else 0)
        if not all(isinstance(part, Value) for part in parts) or sum(part is here for part in parts) != 1 or axis % rank != channel:
            return None
        before = 0
        for part in parts:
            if part is here:
                return output, offset + before, times, channel
            before += part.shape[channel]
    if len(op.inputs) != 1:
        return None
    if op.name in operations.LAYOUTS - {"permute", "transpose", "swapaxes", "swapdims"} or op.name in _KEEP_ZERO or "pool" in op.name:
        same = len(output.shape) == rank and output.shape[channel] == here.shape[channel]
        return (output, offset, times, channel) if same and op.name not in ("permute", "transpose", "swapaxes", "swapdims") else None
    if op.name in _FLATTEN and channel == 1 and rank > 2 and len(output.shape) == 2:
        places = int(np.prod(here.shape[2:]))
        if op.name == "mean":
            return (output, offset, times, 1) if output.shape[1] == here.shape[1] else None
        return (output, offset * places, times * places, 1) if output.shape[1] == here.shape[1] * places else None
    if op.name in ("mean", "squeeze") and channel == 1 and rank == 4 and len(output.shape) in (3, 4) and output.shape[1] == here.shape[1]:
        return output, offset, times, 1
    return None


def _takes(op: Op, here: Value, channel: int) -> bool:
    """Whether an operation applies a layer's weight, a parameter of its own, to a value, unit by unit."""
    weight = _weight(op)
    module = op.call.module
    if weight is None or not isinstance(module, _WEIGHTED) or op.inputs != [here] or getattr(module, "groups", 1) > 1:
        return False
    if not isinstance(module.weight, nn.Parameter):
        return False  # made of other parameters on every pass: what is put in its place does not last
    if isinstance(module, nn.Linear):
        return channel == len(here.shape) - 1
    return channel == 1


def _weight(op: Op) -> torch.Tensor | None:
    """The weight that an operation applies: of a convolution or linear layer."""
    if not op.weights or not (operations.is_convolution(op.name) or op.name == "linear"):
        return None
    given = op.arguments[1] if len(op.arguments) > 1 else op.keywords.get("weight")
    return given if isinstance(given, torch.Tensor) else None


def _macs(op: Op) -> int:
    """Multiply-adds of a convolution or linear layer over one input."""
    weight, output = _weight(op), op.outputs[0]
    assert weight is not None
    if "transpose" in op.name:
        return weight.numel() * int(np.prod(op.inputs[0].shape)) // weight.shape[0]
    return weight.numel() * int(np.prod(output.shape)) // weight.shape[0]
