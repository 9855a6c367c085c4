"""Mean and deviation of the first convolutions' feature maps, per class and split, while the inputs stream by.

A mark at one place of every image of a class leaves the spatial mean of a channel as it is, but not the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from dnnviz.layers import Found
from dnnviz.statistics import Moments, compact
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
        self._moments = Moments(groups, offset)
        self._rows = torch.empty(0, offset)

    def start(self, count: int) -> None:
        """Begin a batch of `count` inputs."""
        self._rows = torch.empty(count, self._rows.shape[1])

    def receive(self, index: int, value: torch.Tensor) -> None:
        """Take in a layer's value [b, units, H, W], where it is one of those whose maps are kept."""
        item = self._index.get(index)
        if item is not None:
            self._rows[:, item.columns] = F.adaptive_avg_pool2d(value[:, : item.units].float(), item.shape).flatten(1).cpu()

    def finish(self, group: torch.Tensor) -> None:
        """The batch is complete; group: int64 [b]."""
        if self.maps:
            self._moments.update(self._rows, group)

    def arrays(self, splits: int) -> dict[str, np.ndarray]:
        """class_map_mean, class_map_std float16 (float32 where that does not fit) [S, K, P]; NaN for a class without inputs; none without maps."""
        if not self.maps:
            return {}
        columns = [item.columns for item in self.maps]
        empty = (self._moments.counts == 0).numpy()
        result = {}
        for name, values in zip(("class_map_mean", "class_map_std"), self._moments.of_groups(), strict=True):
            stored = compact(np.where(empty[:, None], np.float32(0), values), columns)
            stored[empty] = np.nan
            result[name] = stored.reshape(splits, -1, values.shape[1])
        return result
