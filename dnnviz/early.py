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


class EarlyMoments:
    """Receives the values of the first convolutions and keeps mean and deviation of their pooled maps per group.

    maps: what is kept. groups: pairs of (split, class).
    """

    def __init__(self, found: Sequence[Found], groups: int) -> None:
        convolutions = [i for i, f in enumerate(found) if f.layer.kind == "conv" and len(f.layer.shape) == 3 and min(f.layer.shape[1:]) > 1]
        self._index: dict[int, EarlyMap] = {}
        offset = 0
        for i in convolutions[:LAYERS]:
            layer = found[i].layer
            height, width = (min(GRID, side) for side in layer.shape[1:])
            units = min(layer.units, UNITS, max(1, VALUES // (LAYERS * groups * height * width)))
            item = self._index[i] = EarlyMap(layer.name, units, (height, width), offset)
            offset += item.size
        self.maps = tuple(self._index.values())
        self._counts = torch.zeros(groups, dtype=torch.int64)
        self._sums = torch.zeros(groups, offset, dtype=torch.float64)
        self._squares = torch.zeros(groups, offset, dtype=torch.float64)
        self._origin = torch.zeros(0)
        self._parts: dict[int, torch.Tensor] = {}

    def receive(self, index: int, value: torch.Tensor) -> None:
        """Take in a layer's value [b, units, H, W], where it is one of those whose maps are kept."""
        item = self._index.get(index)
        if item is not None:
            self._parts[index] = _pooled(value[:, : item.units].float(), item.shape).flatten(1).cpu()

    def finish(self, group: torch.Tensor) -> None:
        """The batch is complete; group: int64 [b]."""
        if not self.maps:
            return
        rows = torch.cat([self._parts[index] for index in self._index], dim=1)
        if not len(self._origin):
            # Sums of what is left after taking away one input: exactly zero where nothing varies, and of few digits nowhere.
            self._origin = rows[0].clone()
        rows -= self._origin
        present, where, count = group.unique(return_inverse=True, return_counts=True)
        # A product with a matrix of zeros and ones adds up faster than one row after the other.
        member = torch.zeros(len(present), len(rows)).scatter_(0, where[None], 1.0)
        self._sums.index_add_(0, present, (member @ rows).double())
        self._squares.index_add_(0, present, (member @ rows.square_()).double())
        self._counts.index_add_(0, present, count)

    def arrays(self, splits: int) -> dict[str, np.ndarray]:
        """class_map_mean, class_map_std float16 (float32 where that does not fit) [S, K, P]; NaN for a class without inputs; none without maps."""
        if not self.maps:
            return {}
        columns = [item.columns for item in self.maps]
        count = self._counts.clamp(min=1)[:, None]
        mean = self._sums / count
        std = (self._squares / count - mean.square()).clamp_(min=0).sqrt_()
        empty = (self._counts == 0).numpy()
        result = {}
        for name, values in (("class_map_mean", mean + self._origin), ("class_map_std", std)):
            stored = compact(np.where(empty[:, None], np.float32(0), values.float().numpy()), columns)
            stored[empty] = np.nan
            result[name] = stored.reshape(splits, -1, values.shape[1])
        return result


def _pooled(value: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Means over a grid of `shape`; where that divides the map evenly, by the faster operation, which gives the same."""
    height, width = value.shape[2:]
    if (height, width) == shape:
        return value
    if height % shape[0] or width % shape[1]:
        return F.adaptive_avg_pool2d(value, shape)
    return F.avg_pool2d(value, (height // shape[0], width // shape[1]))
