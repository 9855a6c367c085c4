"""What the project knows of each criterion of pruning: its description, and the function that orders units by it. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dnnviz.registry import Entry, Registry
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


@dataclass(frozen=True, kw_only=True)
class Criterion(Entry):
    """A way to say which units matter least.

    citation: the paper it comes from. drawn: it draws at random and is repeated with several seeds.
    compute: material → float [U], comparable between layers; the lowest goes first.
    """

    citation: str
    drawn: bool = False


CRITERIA: Registry[Criterion] = Registry(Criterion, "criterion")
register, find = CRITERIA.register, CRITERIA.find
