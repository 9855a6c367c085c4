"""What the project knows of each projection: its description, from which the page builds its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz.registry import Parametrised, Registry

Report = Callable[[int, int, str], object]


@dataclass(frozen=True)
class Layout:
    """What a method returns: points float [n, dims]; explained, the share of the variance along each axis (PCA only);
    used, parameters that had to differ from those asked for, and notes, one sentence for each of them."""

    points: np.ndarray
    explained: np.ndarray | None = None
    used: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Method(Parametrised):
    """Description of a projection method.

    reading: what may be read in its picture and what may not. axes: what the axes mean. citation: papers.
    fewest: inputs it needs at least. neighbours: parameters → nearest neighbours that it needs of every input.
    compute: (vectors float32 [n, d], graph, dims, seed, report, **parameters) → Layout.
    """

    reading: str
    axes: str
    citation: str
    fewest: int = 2
    neighbours: Callable[[Mapping[str, Any]], int] = lambda parameters: 0


METHODS: Registry[Method] = Registry(Method, "projection")
register, find = METHODS.register, METHODS.find
