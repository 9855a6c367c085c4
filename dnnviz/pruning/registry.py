"""What the project knows of each criterion of pruning: its description, and the function that orders units by it. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dnnviz.errors import DNNVizError
from dnnviz.store import Layer


@dataclass(frozen=True)
class Material:
    """What criteria look at, over all U units of a snapshot.

    layers: of the run. mean, std, active: float [U] over the data. means, peaks: float [n, U], mean and maximum activation of
    the inputs kept. magnitude: float [U], sum of the absolute weights that make a unit (NaN: not of weights of its own).
    dead: bool [U]. seed: of what is drawn at random.
    """

    layers: tuple[Layer, ...]
    mean: np.ndarray
    std: np.ndarray
    active: np.ndarray
    means: np.ndarray
    peaks: np.ndarray
    magnitude: np.ndarray
    dead: np.ndarray
    seed: int = 0


@dataclass(frozen=True)
class Criterion:
    """A way to say which units matter least.

    summary: one line in the user's terms. citation: the paper it comes from. drawn: it draws at random and is repeated with
    several seeds. score: material → float [U], comparable between layers; the lowest goes first.
    """

    name: str
    title: str
    summary: str
    citation: str
    drawn: bool
    score: Callable[[Material], np.ndarray]


CRITERIA: dict[str, Criterion] = {}


def register(
    name: str, *, title: str, summary: str, citation: str, drawn: bool = False
) -> Callable[[Callable[[Material], np.ndarray]], Callable[[Material], np.ndarray]]:
    """Enter the decorated function into CRITERIA under `name`."""

    def enter(score: Callable[[Material], np.ndarray]) -> Callable[[Material], np.ndarray]:
        CRITERIA[name] = Criterion(name, title, summary, citation, drawn, score)
        return score

    return enter


def find(name: str) -> Criterion:
    """The criterion with this name; raises DNNVizError listing those there are."""
    if name not in CRITERIA:
        raise DNNVizError(f"There is no criterion {name!r} (there are: {', '.join(CRITERIA)}).")
    return CRITERIA[name]
