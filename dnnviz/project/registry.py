"""What the project knows of each projection: its description, from which the page builds its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz.errors import DNNVizError
from dnnviz.parameters import Parameter, resolve

Report = Callable[[int, int, str], object]


@dataclass(frozen=True)
class Layout:
    """What a method returns: points float [n, dims]; explained, the share of the variance along each axis (PCA only);
    used, parameters that had to differ from those asked for, and notes, one sentence for each of them."""

    points: np.ndarray
    explained: np.ndarray | None = None
    used: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """Description of a projection method.

    summary: what it does, in one line. reading: what may be read in its picture and what may not.
    axes: what the axes mean. fewest: inputs it needs at least.
    neighbours: parameters → nearest neighbours that it needs of every input.
    compute: (vectors float32 [n, d], graph, dims, seed, report, **parameters) → Layout.
    """

    name: str
    title: str
    summary: str
    reading: str
    axes: str
    citation: str
    parameters: tuple[Parameter, ...]
    fewest: int
    neighbours: Callable[[Mapping[str, Any]], int]
    compute: Callable[..., Layout]

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, checked, defaults filled in; raises DNNVizError naming a parameter that is unknown or out of range."""
        return resolve(self.title, self.parameters, given)


METHODS: dict[str, Method] = {}


def register(
    name: str,
    *,
    title: str,
    summary: str,
    reading: str,
    axes: str,
    citation: str,
    parameters: tuple[Parameter, ...] = (),
    fewest: int = 2,
    neighbours: Callable[[Mapping[str, Any]], int] = lambda parameters: 0,
) -> Callable[[Callable[..., Layout]], Callable[..., Layout]]:
    """Enter the decorated function into METHODS under `name`."""

    def enter(compute: Callable[..., Layout]) -> Callable[..., Layout]:
        METHODS[name] = Method(name, title, summary, reading, axes, citation, parameters, fewest, neighbours, compute)
        return compute

    return enter


def find(name: str) -> Method:
    """The method with this name; raises DNNVizError listing those there are."""
    if name not in METHODS:
        raise DNNVizError(f"There is no projection {name!r} (there are: {', '.join(METHODS)}).")
    return METHODS[name]
