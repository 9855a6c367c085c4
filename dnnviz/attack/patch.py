"""Put the values of some units back to those of another input in the middle of a forward pass, and see what the network says. torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dnnviz.errors import DNNVizError
from dnnviz.explain.network import scores, undisturbed
from dnnviz.layers import Found, find_layers
from dnnviz.store import Layer
from dnnviz.taps import Taps, units_first
from dnnviz.tracing import retrace

_PIXELS_AT_ONCE = 64 * 32 * 32


@dataclass(frozen=True)
class Patch:
    """Which units of a layer (both by number) are put back; none of them leaves the pass as it is."""

    layer: int
    units: np.ndarray


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

    def values(self, inputs: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(scores [n, K], the value of every layer as it lies in the network) of inputs [n, C, H, W]."""
        values: list[torch.Tensor | None] = [None] * len(self.found)

        def receive(position: int, tensor: torch.Tensor) -> None:
            # A value may be overwritten by an operation in place that follows.
            values[position] = tensor.detach().clone()

        with undisturbed(self.model), torch.no_grad(), Taps([item.tap for item in self.found], receive) as taps:
            taps.reset()
            logits = scores(self.model, inputs)
        return logits, [value for value in values if value is not None]

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

    def differences(self, values: Sequence[torch.Tensor]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Of the values of two inputs: per layer the mean over positions of the squared difference [units], then both their means float32 [U]."""
        squares, means = [], []
        for item, value in zip(self.found, values, strict=True):
            pair = units_first(value, item.tap.value, 2).float()
            pair = pair.flatten(2) if pair.ndim > 2 else pair[:, :, None]
            squares.append(((pair[1] - pair[0]).double() ** 2).mean(dim=1).cpu().numpy())
            means.append(pair.mean(dim=2).cpu().numpy())
        first, second = np.concatenate(means, axis=1)
        return squares, first, second

    def patched(
        self, inputs: torch.Tensor, values: Sequence[torch.Tensor], patches: Sequence[Patch], watch: Callable[[int, int], object] | None = None
    ) -> np.ndarray:
        """float32 [m, K]: the scores of one input [1, C, H, W] for each patch, when the units' whole maps are those of `values`.

        values: of every layer as `values` gives them for one input. watch: (patches done, in all).
        """
        at_once = max(1, _PIXELS_AT_ONCE // (inputs.shape[2] * inputs.shape[3]))
        results = []
        for first in range(0, len(patches), at_once):
            rows = patches[first : first + at_once]
            places: dict[int, list[int]] = {}
            for row, patch in enumerate(rows):
                maker = self.found[patch.layer].tap.value.maker
                if maker is not None and len(patch.units):
                    places.setdefault(maker.order, []).append(row)
            written = set()

            def receive(order: int, tensors: list[torch.Tensor], rows: Sequence[Patch] = rows, places=places, written=written) -> None:
                for row in places.get(order, ()):
                    self._write(rows[row], row, tensors, values[rows[row].layer], len(rows))
                    written.add(row)

            with undisturbed(self.model):
                output = retrace(self.model, inputs.expand(len(rows), -1, -1, -1), receive)
            if written != {row for group in places.values() for row in group}:
                raise DNNVizError("The network takes another way for other inputs; the values of its layers cannot be put back.")
            logits = output if isinstance(output, torch.Tensor) else output.logits
            results.append(logits.float().cpu().numpy())
            if watch is not None:
                watch(first + len(rows), len(patches))
        return np.concatenate(results)

    def _write(self, patch: Patch, row: int, tensors: Sequence[torch.Tensor], value: torch.Tensor, count: int) -> None:
        tapped = self.found[patch.layer].tap.value
        target = tensors[tapped.maker.outputs.index(tapped)].movedim((tapped.batch, tapped.channel), (0, 1))
        source = value.movedim((tapped.batch, tapped.channel), (0, 1))
        # Windows folded into the batch belong to one input.
        windows = target.shape[0] // count
        units = torch.from_numpy(np.ascontiguousarray(patch.units)).to(target.device)
        target[row * windows : (row + 1) * windows, units] = source[:, units].to(target.dtype)


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 [n, K]: probabilities of scores."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
