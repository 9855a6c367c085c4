"""The criteria of pruning, each a function in the registry. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dnnviz.analysis.units import correlations
from dnnviz.pruning.registry import Criterion, Material, register
from dnnviz.store import Layer


@register(
    "activation",
    title="Activation",
    summary="Units whose mean activation is smallest beside the others of their layer go first.",
    citation="P. Molchanov et al., Pruning convolutional neural networks for resource efficient inference, ICLR 2017 (mean activation)",
)
def activation(material: Material) -> np.ndarray:
    """Root of the mean square of a unit's activations over the data, relative to its layer's mean of it."""
    return relative(np.sqrt(material.mean.astype(np.float64) ** 2 + material.std.astype(np.float64) ** 2), material.layers)


@register(
    "apoz",
    title="Share of zeros",
    summary="Units that fire on the fewest inputs go first; among equals those of the smallest mean.",
    citation="H. Hu et al., Network trimming (average percentage of zeros, here counted by input), arXiv 1607.03250, 2016",
)
def apoz(material: Material) -> np.ndarray:
    """Share of inputs on which a unit fires; ties, such as units that always fire, are broken by `activation`."""
    return material.active.astype(np.float64) + 1e-3 * np.tanh(activation(material))


@register(
    "magnitude",
    title="Magnitude of weights",
    summary="Units whose weights are smallest beside the others of their layer go first.",
    citation="H. Li et al., Pruning filters for efficient ConvNets (L1 norm of a filter), ICLR 2017",
)
def magnitude(material: Material) -> np.ndarray:
    """Sum of the absolute weights of a unit, relative to its layer's mean."""
    return relative(np.nan_to_num(material.magnitude), material.layers)


@register(
    "redundancy",
    title="Redundancy",
    summary="Units that follow another unit of their layer most closely go first, dead ones before all; later layers take them from that one.",
    citation="X. Suau et al., Filter distillation for network compression (correlation of responses), WACV 2020; S. Srinivas, R. V. Babu, "
    "Data-free parameter pruning, BMVC 2015 (weights given to the unit that is followed)",
)
def redundancy(material: Material) -> np.ndarray:
    """1 − a unit's largest correlation with a unit still there when it goes; −1 for dead units."""
    score = np.ones(len(material.mean))
    for layer in material.layers:
        columns = layer.columns
        score[columns] = _one_by_one(correlations(material.means[:, columns], material.peaks[:, columns]), material.std[columns])
    return np.where(material.dead, -1.0, score)


@register(
    "random",
    title="Random",
    summary="Units are drawn: the control. A criterion is worth something where it keeps more accuracy than this.",
    citation="D. Mittal et al., Recovering from random pruning, WACV 2018",
    drawn=True,
)
def random(material: Material) -> np.ndarray:
    """A number between 0 and 1 for every unit, drawn with the material's seed."""
    return np.random.default_rng(material.seed).uniform(size=len(material.mean))


def relative(values: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """Values [U] over the mean of their layer (a layer of zeros stays zero): layers differ in scale by orders of magnitude."""
    result = np.zeros(len(values))
    for layer in layers:
        part = values[layer.columns]
        if part.mean() > 0:
            result[layer.columns] = part / part.mean()
    return result


def order(criterion: Criterion, material: Material, allowed: np.ndarray) -> np.ndarray:
    """int64: global numbers of the units that may go (allowed: bool [U]), in the order in which they go by a criterion.

    The unit of every layer with the highest score never goes: a layer without any unit passes nothing on.
    """
    score = np.where(allowed, criterion.compute(material), np.inf)
    may = allowed.copy()
    for layer in material.layers:
        if allowed[layer.columns].all():
            may[layer.offset + int(score[layer.columns].argmax())] = False
    found = np.flatnonzero(may)
    return found[np.argsort(score[found], kind="stable")]


def _one_by_one(together: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Scores of a layer's units from their correlations [units, units]: of the closest pair the one that varies less goes first."""
    count = len(together)
    np.fill_diagonal(together, -np.inf)
    score = np.ones(count)
    best = together.max(axis=1)
    for _ in range(count - 1):
        closest = best.max()
        pair = np.flatnonzero(best == closest)
        chosen = int(pair[spread[pair].argmin()])
        score[chosen] = 1 - closest
        partner = np.flatnonzero((together[:, chosen] >= best) & (best > -np.inf))
        together[chosen, :] = together[:, chosen] = -np.inf
        best[chosen] = -np.inf
        best[partner] = together[partner].max(axis=1)
    return score
