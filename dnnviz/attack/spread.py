"""How far activations lie from what is usual for a class, layer by layer, and which units carry a difference. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dnnviz.store import Run

LEAST = 8  # inputs of a class below which nothing is said of its spread
_PRIOR = 5.0  # inputs that the spread common to all classes counts for beside the class's own
_FLOOR = 0.05  # of a layer's usual standard deviation: units that hardly ever vary must not outweigh all others
PERCENTILE = 95.0


@dataclass(frozen=True)
class Spread:
    """Where the activations of a class lie.

    centre, deviation: float64 [U]. limit: float32 [L], the 95th percentile of the distances of the run's own inputs, each measured
    against the class without it. kind: "class", or "data" where the run holds too few inputs of the class: then of all inputs.
    count: inputs that centre and deviation are of.
    """

    centre: np.ndarray
    deviation: np.ndarray
    limit: np.ndarray
    kind: Literal["class", "data"]
    count: int
    columns: tuple[slice, ...]

    def distances(self, values: np.ndarray) -> np.ndarray:
        """float32 [n, L] of activations [n, U]: root mean square over a layer's units of (value − centre) / deviation."""
        return _by_layer(((values - self.centre) / self.deviation) ** 2, self.columns)


def spread_of(run: Run, epoch: int, label: int, without: int | None = None) -> Spread:
    """The spread of a class in a snapshot, by the moments over all inputs aggregated.

    without: number of an input kept that is left out of the moments, so that it is measured like one not seen.
    """
    columns = tuple(layer.columns for layer in run.layers)
    data = run.data_std(epoch).astype(np.float64) ** 2
    floor = _floor(data, columns)
    values = run.activations(epoch)
    counts = run.class_counts.sum(axis=0)
    known = label < len(run.classes) and counts[label] >= LEAST
    right = np.flatnonzero((run.labels == label) & (run.logits(epoch).argmax(axis=1) == label)) if known else np.zeros(0, np.int64)
    if len(right) >= LEAST:
        stds = run.class_std(epoch).astype(np.float64) ** 2
        many = counts > 0
        common = np.average(stds[many], axis=0, weights=counts[many])
        count, mean, variance = int(counts[label]), run.class_mean(epoch)[label].astype(np.float64), stds[label]
        own, kind = run.labels == label, "class"
    else:
        common, count, mean, variance = data, int(counts.sum()), run.data_mean(epoch).astype(np.float64), data
        right, own = np.arange(run.kept), np.ones(run.kept, dtype=bool)
        kind = "data"

    def moments(left_out: int | None) -> tuple[np.ndarray, np.ndarray]:
        centre, spread, left = mean, variance, count
        if left_out is not None and own[left_out] and count > 1:
            centre, spread = _leave_out(mean, variance, count, values[left_out])
            left = count - 1
        return centre, np.sqrt(np.maximum((left * spread + _PRIOR * common) / (left + _PRIOR), floor))

    distances = []
    for index in right:
        centre, deviation = moments(int(index))
        distances.append(_by_layer(((values[index] - centre) / deviation)[None] ** 2, columns)[0])
    limit = np.percentile(np.stack(distances), PERCENTILE, axis=0).astype(np.float32)
    return Spread(*moments(without), limit, kind, count, columns)


def _leave_out(mean: np.ndarray, variance: np.ndarray, count: int, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (population) of count − 1 values, after one of `count` is taken away."""
    off = (value - mean) ** 2 * count / (count - 1)
    return mean - (value - mean) / (count - 1), np.maximum(count * variance - off, 0) / (count - 1)


def _floor(variance: np.ndarray, columns: Sequence[slice]) -> np.ndarray:
    """[U]: the least variance that a unit is given, a small part of its layer's."""
    floor = np.empty_like(variance)
    for part in columns:
        floor[part] = max(_FLOOR**2 * float(variance[part].mean()), 1e-12)
    return floor


def _by_layer(squares: np.ndarray, columns: Sequence[slice]) -> np.ndarray:
    return np.stack([np.sqrt(squares[:, part].mean(axis=1)) for part in columns], axis=1).astype(np.float32)


def carriers(differences: Sequence[np.ndarray], run: Run, epoch: int, share: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The fewest units of every layer that carry `share` of the squared difference: (numbers within the layer, what each carries).

    differences: of every layer, the mean over positions of a unit's squared difference, [units]. Each is set against the unit's
    variance over the data, so that loud units do not win by being loud. Strongest first; none where nothing differs.
    """
    columns = [layer.columns for layer in run.layers]
    variance = run.data_std(epoch).astype(np.float64) ** 2
    variance = np.maximum(variance, _floor(variance, columns))
    chosen, shares = [], []
    for difference, part in zip(differences, columns, strict=True):
        squares = difference / variance[part]
        total = squares.sum()
        order = np.argsort(-squares, kind="stable")
        need = 0 if total <= 0 else int(np.searchsorted(np.cumsum(squares[order]) / total, share - 1e-9)) + 1
        chosen.append(order[:need])
        shares.append((squares[order[:need]] / max(total, 1e-300)).astype(np.float32))
    return chosen, shares


def first_outside(before: np.ndarray, after: np.ndarray, limit: np.ndarray) -> int | None:
    """The first layer at which the result lies beyond the limit, and further out than the original; None where it nowhere does."""
    outside = np.flatnonzero((after > limit) & (after > before))
    return int(outside[0]) if len(outside) else None


def first_nearer(own: np.ndarray, other: np.ndarray) -> int | None:
    """The first layer from which on to the last `other` is smaller than `own`; None where it is not at the last."""
    further = np.flatnonzero(~(other < own))
    start = int(further[-1]) + 1 if len(further) else 0
    return start if start < len(own) else None
