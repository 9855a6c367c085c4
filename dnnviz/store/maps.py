"""The early feature maps that a run keeps per class and split: where in the image a class differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EarlyMap:
    """One layer whose feature maps are kept, pooled: its first `units` units, [units, height, width] values from `offset` on.

    layer: name of the layer; units: how many of its units are kept (the first ones); shape: (height, width) after pooling;
    offset: first column in `class_map_mean` and `class_map_std` [S, K, P].
    """

    layer: str
    units: int
    shape: tuple[int, int]
    offset: int

    @property
    def size(self) -> int:
        return self.units * self.shape[0] * self.shape[1]

    @property
    def columns(self) -> slice:
        return slice(self.offset, self.offset + self.size)


def map_entries(maps: Sequence[EarlyMap]) -> list[dict[str, Any]]:
    """Early maps as the manifest holds them."""
    return [{**asdict(item), "shape": list(item.shape)} for item in maps]


def read_maps(manifest: Mapping[str, Any]) -> tuple[EarlyMap, ...]:
    """The early maps that a manifest names; none for a run made before they were kept."""
    return tuple(
        EarlyMap(str(e["layer"]), int(e["units"]), (int(e["shape"][0]), int(e["shape"][1])), int(e["offset"])) for e in manifest.get("maps", [])
    )
