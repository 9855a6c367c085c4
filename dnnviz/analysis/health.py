"""Health figures of layers, from the fraction of inputs on which each unit fires and the moments of its activation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dnnviz.store import Layer, Run

FIGURES: dict[str, str] = {
    "dead": "Share of dead units",
    "active": "Mean share of inputs on which a unit fires",
    "mean": "Mean activation",
    "saturated": "Share of units that always fire",
}


def dead_share(active: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """Share of units that never fire, per layer.

    active: float [U], fraction of inputs on which each unit was above zero somewhere. Returns float64 [len(layers)].
    """
    return np.array([float(np.mean(active[layer.columns] == 0.0)) for layer in layers])


def layer_health(run: Run, epoch: int, figure: str) -> np.ndarray:
    """One health figure (a key of FIGURES) per layer of a snapshot: float64 [len(run.layers)]."""
    if figure == "mean":
        values = run.data_mean(epoch)
        return np.array([float(np.mean(values[layer.columns])) for layer in run.layers])
    active = run.active(epoch)
    if figure == "dead":
        return dead_share(active, run.layers)
    if figure == "saturated":
        return np.array([float(np.mean(active[layer.columns] >= 1.0)) for layer in run.layers])
    if figure == "active":
        return np.array([float(np.mean(active[layer.columns])) for layer in run.layers])
    raise ValueError(f"{figure!r} is no health figure; it must be one of {', '.join(FIGURES)}")
