"""A network as the list of operations that a traced pass ran, so that it can be run again with units removed.

Only what lies behind the first removed unit is computed again, whatever the graph: the operations that depend on a changed value
are known, and everything else they take is held from the unchanged pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map

from dnnviz.errors import DNNVizError
from dnnviz.explain.network import scores
from dnnviz.layers import Layers, find_layers
from dnnviz.tracing import Op, Value

_MEMORY = 256 * 2**20  # bytes that the activations of a batch may take
_MOST = 128  # inputs in a batch
_SAME = 1e-4  # largest relative difference of logits at which a repeated pass counts as the same


@dataclass(frozen=True)
class Edit:
    """Units of one layer that are given another value: units int64 [k], values float32 [k] (None: zero, the unit is removed)."""

    layer: str
    units: np.ndarray
    values: np.ndarray | None = None


class Program:
    """Runs a network (in eval mode) with units edited.

    model: the network; inputs: [n, C, H, W] of what it takes, whose first batch is traced. `exact` says whether the traced
    operations give the network's own output again; where they do not (scripted parts, code that depends on the data), the whole
    network is run with hooks instead. Raises DNNVizError where a layer's value cannot be changed in either way.
    """

    def __init__(self, model: nn.Module, inputs: torch.Tensor) -> None:
        self.model = model
        self.size = _batch_size(model, inputs)
        example = inputs[: self.size]
        with torch.no_grad():
            self.found: Layers = find_layers(model, example)
            self.by_name = {item.layer.name: item for item in self.found.found}
            final = self.found.trace.root.output
            if final is None or len(final.shape) != 2:
                raise DNNVizError("The network does not give one row of class scores for each input; accuracy is counted on such scores.")
            self.final = final
            self.ops = _needed(self.found.trace.ops, final)
            self.exact = self._is_exact(example.flip(-1))

    def logits(self, inputs: torch.Tensor, variants: Sequence[Sequence[Edit]], *, whole: bool = False) -> list[np.ndarray]:
        """float32 [n, K] for each variant (a list of edits; an empty one is the network as it is), for one batch of up to `size` inputs.

        whole: run the whole network every time.
        """
        count, inputs = len(inputs), self._filled(inputs)
        with torch.no_grad():
            if whole or not self.exact:
                return [self._hooked(inputs, edits)[:count].numpy() for edits in variants]
            plans = [self._plan(edits) for edits in variants]
            wanted = {id(value): value for plan in plans for value in plan.taken}
            held = self._run(self.ops, {id(self.found.trace.input): inputs}, {}, {*wanted, id(self.final)})
            found = []
            for plan in plans:
                start = {id(value): plan.applied(value, held[id(value)]) for value in plan.taken}
                result = (
                    self._run(plan.ops, start, plan.changes, {id(self.final)})[id(self.final)] if plan.ops or plan.changes else held[id(self.final)]
                )
                found.append(result[:count].float().numpy())
        return found

    def values(self, inputs: torch.Tensor, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """The values of layers for one batch of up to `size` inputs; only where the network is `exact`."""
        wanted = {name: id(self.value(name)) for name in layers}
        with torch.no_grad():
            held = self._run(self.ops, {id(self.found.trace.input): self._filled(inputs)}, {}, set(wanted.values()))
        return {name: held[key][: len(inputs)] for name, key in wanted.items()}

    def _filled(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs and repetitions of the first one: the traced operations may hold the size of the batch."""
        missing = self.size - len(inputs)
        return torch.cat([inputs, inputs[:1].expand(missing, *inputs.shape[1:])]) if missing > 0 else inputs

    def work(self, edits: Sequence[Edit]) -> float:
        """Share of the network's operations that are run again for a variant."""
        return len(self._plan(edits).ops) / max(len(self.ops), 1) if self.exact else 1.0

    def value(self, layer: str) -> Value:
        """The value of a layer; raises DNNVizError where the network has no such layer."""
        if layer not in self.by_name:
            raise DNNVizError(f"The network has no layer {layer!r}.")
        return self.by_name[layer].tap.value

    def _plan(self, edits: Sequence[Edit]) -> _Plan:
        changes: dict[int, tuple[Value, list[Edit]]] = {}
        for edit in edits:
            if len(edit.units):
                # A block may have the value of its last layer: both are edited.
                value = self.value(edit.layer)
                changes.setdefault(id(value), (value, []))[1].append(edit)
        changed = set(changes)
        ops = []
        for op in self.ops:
            if any(id(value) in changed for value in op.inputs):
                ops.append(op)
                changed.update(id(value) for value in op.outputs)
        made = {id(value) for op in ops for value in op.outputs}
        taken = {id(value): value for op in ops for value in op.inputs if id(value) not in made}
        if id(self.final) in changes and id(self.final) not in made:
            taken[id(self.final)] = self.final
        return _Plan(ops, changes, list(taken.values()))

    def _run(
        self, ops: Sequence[Op], held: Mapping[int, torch.Tensor], changes: Mapping[int, tuple[Value, list[Edit]]], keep: set[int]
    ) -> dict[int, torch.Tensor]:
        """Run operations from the values held; returns those to keep. A value is dropped after its last use."""
        known = dict(held)
        last = {id(value): i for i, op in enumerate(ops) for value in op.inputs}
        for i, op in enumerate(ops):
            own = {id(value): known[id(value)].clone() if op.in_place else known[id(value)] for value in op.inputs}
            before = [(tensor, tensor._version) for tensor in own.values()]
            arguments, keywords = tree_map(lambda a, own=own: own[id(a)] if isinstance(a, Value) else a, (op.arguments, op.keywords))
            result = op.function(*arguments, **keywords)
            written = [tensor for tensor, version in before if tensor._version != version]
            fresh = [t for t in tree_flatten(result)[0] if isinstance(t, torch.Tensor) and not any(t is other for other in own.values())]
            for value, tensor in zip(op.outputs, [*written, *fresh], strict=False):
                change = changes.get(id(value))
                known[id(value)] = tensor if change is None else _edited(tensor, *change)
            for value in op.inputs:
                if last[id(value)] == i and id(value) not in keep:
                    known.pop(id(value), None)
        return {name: known[name] for name in keep if name in known}

    def _is_exact(self, example: torch.Tensor) -> bool:
        """Whether the operations give what the network gives, on inputs other than those traced."""
        try:
            again = self._run(self.ops, {id(self.found.trace.input): example}, {}, {id(self.final)})[id(self.final)]
        except Exception:
            # Whatever cannot be repeated outside of its module: the whole network is run then.
            return False
        true = self._hooked(example, [])
        return bool((again - true).abs().max() <= _SAME * true.abs().max().clamp(min=1e-12))

    def _hooked(self, inputs: torch.Tensor, edits: Sequence[Edit]) -> torch.Tensor:
        """The logits of the whole network, with units edited by hooks on modules."""
        handles, counts = [], {}
        try:
            for edit in edits:
                tap = self.by_name[edit.layer].tap if edit.layer in self.by_name else None
                if tap is None or tap.before or tap.rest:
                    raise DNNVizError(f"The value of {edit.layer} passes through no module of this network where its units could be changed.")

                def hook(module: nn.Module, _: object, output: object, tap: object = tap, edit: Edit = edit) -> object:
                    counts[id(edit)] = counts.get(id(edit), 0) + 1
                    if counts[id(edit)] != tap.number:
                        return None
                    tensor = output if tap.key is None else output[tap.key]
                    changed = _edited(tensor, tap.value, [edit])
                    if tap.key is None:
                        return changed
                    return (
                        {**output, tap.key: changed}
                        if isinstance(output, dict)
                        else type(output)((*output[: tap.key], changed, *output[tap.key + 1 :]))
                    )

                handles.append(tap.module.register_forward_hook(hook))
            return scores(self.model, inputs)
        finally:
            for handle in handles:
                handle.remove()


@dataclass(frozen=True)
class _Plan:
    """What is run again for a variant: operations, the values changed, and the values taken from the unchanged pass."""

    ops: list[Op]
    changes: dict[int, tuple[Value, list[Edit]]]
    taken: list[Value]

    def applied(self, value: Value, tensor: torch.Tensor) -> torch.Tensor:
        change = self.changes.get(id(value))
        return tensor if change is None else _edited(tensor, *change)


def _edited(tensor: torch.Tensor, value: Value, edits: Sequence[Edit]) -> torch.Tensor:
    """A copy with units given their values."""
    result = tensor.clone()
    moved = result.movedim(value.channel, -1)
    for edit in edits:
        units = torch.from_numpy(np.ascontiguousarray(edit.units))
        moved[..., units] = 0.0 if edit.values is None else torch.from_numpy(np.ascontiguousarray(edit.values)).to(result.dtype)
    return result


def _needed(ops: Sequence[Op], final: Value) -> list[Op]:
    """The operations that the final value depends on, in order."""
    wanted = {id(final)}
    found = []
    for op in reversed(ops):
        if any(id(value) in wanted for value in op.outputs):
            found.append(op)
            wanted.update(id(value) for value in op.inputs)
    return found[::-1]


def _batch_size(model: nn.Module, inputs: torch.Tensor) -> int:
    """Inputs in a batch: as many as fit with all their activations, in batches of nearly equal size."""
    seen = find_layers(model, inputs[:1]).trace
    each = 4 * sum(int(np.prod(value.shape)) for op in seen.ops for value in op.outputs)
    most = int(min(max(_MEMORY // max(each, 1), 1), _MOST, len(inputs)))
    return -(-len(inputs) // -(-len(inputs) // most))
