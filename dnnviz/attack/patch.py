"""Put the values of some units back to those of another input in the middle of a forward pass, and see what the network says. torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dnnviz.errors import DNNVizError
from dnnviz.explain.network import scores, undisturbed
from dnnviz.layers import Found, find_layers
from dnnviz.pruning.program import Edit, Program
from dnnviz.store import Layer
from dnnviz.taps import Taps, units_first
from dnnviz.tracing import Value

_LAYERS_AT_ONCE = 16  # whose values are held at the same time


@dataclass(frozen=True)
class Within:
    """The scores float32 [n, K] of inputs, and the value of every layer as it lies in the network."""

    logits: np.ndarray
    values: list[torch.Tensor]


class Inside:
    """The layers of a network as a run has them, for reading and for writing.

    example: an input of the network, [1, C, H, W]. Raises DNNVizError where a layer of the run is not found again.
    """

    def __init__(self, model: torch.nn.Module, example: torch.Tensor, layers: Sequence[Layer]) -> None:
        self.model = model
        with undisturbed(model):
            found = {item.layer.name: item for item in find_layers(model, example).found}
        missing = [layer.name for layer in layers if layer.name not in found or found[layer.name].layer.units != layer.units]
        if missing:
            raise DNNVizError(f"The network built again has no layer {missing[0]} as the run describes it; capture the run again.")
        self.found: list[Found] = [found[layer.name] for layer in layers]

    def values(self, inputs: torch.Tensor) -> Within:
        """What goes on in the network for inputs [n, C, H, W]."""
        values: list[torch.Tensor | None] = [None] * len(self.found)

        def receive(position: int, tensor: torch.Tensor) -> None:
            # A value may be overwritten by an operation in place that follows.
            values[position] = tensor.detach().clone()

        with undisturbed(self.model), torch.no_grad(), Taps([item.tap for item in self.found], receive) as taps:
            taps.reset()
            logits = scores(self.model, inputs)
        return Within(logits.float().cpu().numpy(), [value for value in values if value is not None])

    def means(self, inputs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(scores float32 [n, K], activations float32 [n, U]: means over positions) of inputs [n, C, H, W]."""
        parts: dict[int, torch.Tensor] = {}

        def receive(position: int, tensor: torch.Tensor) -> None:
            units = units_first(tensor.detach(), self.found[position].tap.value, len(inputs))
            parts[position] = units.flatten(2).mean(dim=2) if units.ndim > 2 else units.clone()

        with undisturbed(self.model), torch.no_grad(), Taps([item.tap for item in self.found], receive) as taps:
            taps.reset()
            logits = scores(self.model, inputs)
        every = torch.cat([parts[position] for position in range(len(self.found))], dim=1)
        return logits.float().cpu().numpy(), every.float().cpu().numpy()

    def differences(self, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Of the values of two inputs: per layer the mean over positions of the squared difference [units], then both their means float32 [U]."""
        squares, means = [], []
        for item, *values in zip(self.found, first, second, strict=True):
            pair = torch.cat([units_first(value, item.tap.value, 1) for value in values]).float()
            pair = pair.flatten(2) if pair.ndim > 2 else pair[:, :, None]
            squares.append(((pair[1] - pair[0]).double() ** 2).mean(dim=1).cpu().numpy())
            means.append(pair.mean(dim=2).cpu().numpy())
        return squares, *np.concatenate(means, axis=1)

    def patched(
        self, inputs: torch.Tensor, own: Within, other: Within, sets: Sequence[Sequence[np.ndarray]]
    ) -> Iterator[tuple[int, list[np.ndarray]]]:
        """For one layer after the other: (its number, the scores float32 [K] for each of its sets).

        inputs: one input [1, C, H, W]. own, other: what `values` gives for it and for another input. sets: of every layer, sets of
        units (numbers); the scores are those when the whole maps of a set are the other input's. Only what lies behind the layer is
        computed again, and nothing where the answer is known: a layer that is the only way through gives the other's scores.
        """
        known: dict[tuple[int, bytes], np.ndarray] = {}
        most = max(map(len, sets))
        with undisturbed(self.model), torch.no_grad():
            program = Program(self.model, inputs.repeat(most, 1, 1, 1))
            batch = inputs.repeat(program.size, 1, 1, 1)
            names = [[(id(item.tap.value), np.sort(units).tobytes()) for units in each] for item, each in zip(self.found, sets, strict=True)]
            for first in range(0, len(sets), _LAYERS_AT_ONCE):
                layers = range(first, min(first + _LAYERS_AT_ONCE, len(sets)))
                wanted: dict[tuple[int, bytes], tuple[int, np.ndarray]] = {}
                for layer in layers:
                    only_way = program.exact and _only_way(program, self.found[layer].tap.value)
                    for name, units in zip(names[layer], sets[layer], strict=True):
                        if not len(units):
                            known[name] = own.logits[0]
                        elif only_way and len(units) == self.found[layer].layer.units:
                            known[name] = other.logits[0]
                        elif name not in known:
                            wanted[name] = layer, units
                # A batch holds sets of one layer, as many as fit into memory.
                batches = []
                for layer in layers:
                    rows = [name for name, (place, _) in wanted.items() if place == layer]
                    batches += [(layer, rows[i : i + program.size]) for i in range(0, len(rows), program.size)]
                edits = [[self._edit(layer, own, other, [wanted[name][1] for name in rows], program.size)] for layer, rows in batches]
                for (_, rows), logits in zip(batches, program.logits(batch, edits) if edits else [], strict=True):
                    known.update(zip(rows, logits, strict=False))
                yield from ((layer, [known[name] for name in names[layer]]) for layer in layers)

    def _edit(self, layer: int, own: Within, other: Within, sets: Sequence[np.ndarray], size: int) -> Edit:
        """The layer's value for a batch of `size` copies of an input, in each of which a set of units is another input's."""
        item = self.found[layer]
        batch, channel = item.tap.value.batch, item.tap.value.channel
        # Windows folded into the batch belong to one input.
        windows = own.values[layer].shape[batch]
        mixed = torch.cat([own.values[layer]] * size, dim=batch).movedim((batch, channel), (0, -1))
        source = other.values[layer].movedim((batch, channel), (0, -1))
        for row, units in enumerate(sets):
            chosen = torch.from_numpy(np.ascontiguousarray(units))
            mixed[row * windows : (row + 1) * windows, ..., chosen] = source[..., chosen]
        mixed = mixed.movedim((0, -1), (batch, channel)).movedim(channel, -1)
        return Edit(item.layer.name, np.arange(item.layer.units), mixed.numpy())


def _only_way(program: Program, value: Value) -> bool:
    """Whether all that the scores depend on goes through this value: then nothing behind it takes what was made beside it."""
    behind = {id(value)}
    for op in program.ops:
        inside = [id(each) in behind for each in op.inputs]
        if any(inside):
            if not all(inside):
                return False
            behind.update(id(each) for each in op.outputs)
    return id(program.final) in behind


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 [n, K]: probabilities of scores."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
