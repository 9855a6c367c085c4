"""Health figures of layers, from the fraction of inputs on which each unit fires and the moments of its activation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dnnviz.analysis.units import dead_units
from dnnviz.store import Layer, Run

FIGURES: dict[str, str] = {
    "dead": "Share of dead units",
    "active": "Mean share of inputs on which a unit fires",
    "mean": "Mean activation",
    "saturated": "Share of units that always fire",
}


def dead_share(run: Run, epoch: int) -> np.ndarray:
    """Share of units that are dead (`dnnviz.analysis.units.dead_units`) per layer of a snapshot: float64 [len(run.layers)]."""
    return _share(dead_units(run.active(epoch), run.data_mean(epoch)), run.layers)


def _share(units: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """float64 [len(layers)]: share of units, bool [U], that are so."""
    return np.array([float(np.mean(units[layer.columns])) for layer in layers])


def layer_health(run: Run, epoch: int, figure: str) -> np.ndarray:
    """One health figure (a key of FIGURES) per layer of a snapshot: float64 [len(run.layers)]."""
    if figure == "mean":
        values = run.data_mean(epoch)
        return np.array([float(np.mean(values[layer.columns])) for layer in run.layers])
    if figure == "dead":
        return dead_share(run, epoch)
    active = run.active(epoch)
    if figure == "saturated":
        return _share(active >= 1.0, run.layers)
    if figure == "active":
        return np.array([float(np.mean(active[layer.columns])) for layer in run.layers])
    raise ValueError(f"{figure!r} is no health figure; it must be one of {', '.join(FIGURES)}")
