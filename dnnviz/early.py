"""Mean and deviation of the first convolutions' feature maps, per class and split, while the inputs stream by.

A mark at one place of every image of a class leaves the spatial mean of a channel as it is, but not the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from dnnviz.layers import Found
from dnnviz.statistics import compact
from dnnviz.store import EarlyMap

GRID = 16  # maps are pooled to at most this many rows and columns
LAYERS = 2  # convolutions whose maps are kept
UNITS = 16  # of each, at most
VALUES = 2**22  # of all classes and splits together, at most: 8 MB a file in float16
FOLD = 1024  # inputs that are added up in float32 at most


class EarlyMoments:
    """Receives the values of the first convolutions and keeps mean and deviation of their pooled maps per group.

    maps: what is kept. groups: pairs of (split, class).
    """

    def __init__(self, found: Sequence[Found], groups: int) -> None:
        convolutions = [i for i, f in enumerate(found) if f.layer.kind == "conv" and len(f.layer.shape) == 3 and min(f.layer.shape[1:]) > 1]
        self._layers: dict[int, _Layer] = {}
        offset = 0
        for i in convolutions[:LAYERS]:
            layer = found[i].layer
            height, width = (min(GRID, side) for side in layer.shape[1:])
            units = min(layer.units, UNITS, max(1, VALUES // (LAYERS * groups * height * width)))
            item = EarlyMap(layer.name, units, (height, width), offset)
            self._layers[i] = _Layer(item, groups)
            offset += item.size
        self.maps = tuple(layer.item for layer in self._layers.values())
        self._group = torch.zeros(0, dtype=torch.int64)

    def start(self, group: torch.Tensor) -> None:
        """Begin a batch whose inputs belong to these groups, int64 [b]."""
        self._group = group

    def receive(self, index: int, value: torch.Tensor) -> None:
        """Take in a layer's value [b, units, H, W], where it is one of those whose maps are kept."""
        layer = self._layers.get(index)
        if layer is not None:
            layer.add(value, self._group)

    def arrays(self, counts: torch.Tensor, splits: int) -> dict[str, np.ndarray]:
        """class_map_mean, class_map_std float16 (float32 where that does not fit) [S, K, P]; NaN for a class without inputs; none without maps.

        counts: inputs of every group that came.
        """
        if not self.maps:
            return {}
        moments = [layer.moments(counts) for layer in self._layers.values()]
        columns = [item.columns for item in self.maps]
        empty = (counts == 0).numpy()
        result = {}
        for name, parts in zip(("class_map_mean", "class_map_std"), zip(*moments, strict=True), strict=True):
            stored = compact(np.where(empty[:, None], np.float32(0), torch.cat(parts, dim=1).numpy()), columns)
            stored[empty] = np.nan
            result[name] = stored.reshape(splits, -1, stored.shape[1])
        return result


class _Layer:
    """Sums and sums of squares of one layer's pooled maps per group, [G, height * width * units]: the order of channels_last memory.

    Sums are of what is left after taking away one input: exactly zero where nothing varies, and of few digits nowhere.
    Batches are added in float32, which is twice as fast, and go to float64 before many inputs cost digits.
    """

    def __init__(self, item: EarlyMap, groups: int) -> None:
        self.item = item
        self._shape = (*item.shape, item.units)
        self._origin: torch.Tensor | None = None
        self._rest = torch.empty(0, *self._shape)
        self._since = 0
        self._new = torch.zeros(2, groups, item.size)
        self._sums = torch.zeros(2, groups, item.size, dtype=torch.float64)

    def add(self, value: torch.Tensor, group: torch.Tensor) -> None:
        pooled = _pooled(value[:, : self.item.units], self.item.shape).cpu().permute(0, 2, 3, 1)
        if self._origin is None:
            self._origin = pooled[0].float()
        if len(self._rest) < len(pooled):
            self._rest = torch.empty(len(pooled), *self._shape)
        if self._since + len(pooled) > FOLD:
            self.fold()
        self._since += len(pooled)
        # Into memory that is there already: fresh memory for each batch takes longer than the arithmetic.
        rest = torch.sub(pooled, self._origin, out=self._rest[: len(pooled)]).flatten(1)
        self._new[0].index_add_(0, group, rest)
        self._new[1].index_add_(0, group, rest.square_())

    def fold(self) -> None:
        self._sums += self._new
        self._new.zero_()
        self._since = 0

    def moments(self, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation float32 [G, P], units first; of groups without inputs whatever comes."""
        self.fold()
        mean, square = self._sums / counts.clamp(min=1)[:, None]
        std = (square - mean.square()).clamp_(min=0).sqrt_()
        if self._origin is not None:
            mean += self._origin.flatten()
        first, second = (rows.unflatten(1, self._shape).permute(0, 3, 1, 2).flatten(1).float() for rows in (mean, std))
        return first, second


def _pooled(value: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Means over a grid of `shape`; where that divides the map evenly, by the faster operation, which gives the same."""
    height, width = value.shape[2:]
    if (height, width) == shape:
        return value
    if height % shape[0] or width % shape[1]:
        return F.adaptive_avg_pool2d(value, shape)
    return F.avg_pool2d(value, (height // shape[0], width // shape[1]))
