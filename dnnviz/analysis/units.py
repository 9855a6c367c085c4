"""What single units do for a layer: dead, always active, hyperactive and redundant ones, effective rank, concentration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnnviz import results
from dnnviz.results import Results
from dnnviz.store import Layer, Run

THRESHOLD = 0.95  # correlation from which two units say the same
MOST_INPUTS = 1000  # inputs over which units are correlated and ranks taken; more change neither in the second digit
LEAST_INPUTS = 10  # fewer say nothing about correlation
NEARLY_ALL = 0.99  # share of inputs on which a hyperactive unit fires, at least
FAR = 5.0  # robust deviations above the layer's units from which a unit is hyperactive
_LEAST_SPREAD = 0.1  # of the layer's median: below it deviations are of no interest
_BLOCK = 2048  # rows of a correlation matrix at once


@dataclass(frozen=True)
class Units:
    """What is said of the U units and L layers of a snapshot.

    dead: bool [U], as `dead_units` has it. saturated: bool [U], fires on every input (of a convolution: somewhere on it).
    hyperactive: bool [U], fires on nearly every input with a mean far above the layer's. redundant: bool [U], follows another unit
    of its layer, its `representative` (int64 [U], global numbers; a unit's own number where it stands for itself), with `correlation`
    float32 [U] (NaN for a representative). effective_rank: float64 [L] with `full_rank` int64 [L], the largest there could be.
    gini: float64 [L]. inputs: how many inputs correlations and ranks are over.
    """

    dead: np.ndarray
    saturated: np.ndarray
    hyperactive: np.ndarray
    redundant: np.ndarray
    representative: np.ndarray
    correlation: np.ndarray
    effective_rank: np.ndarray
    full_rank: np.ndarray
    gini: np.ndarray
    inputs: int


def units(run: Run, epoch: int, threshold: float = THRESHOLD) -> Units:
    """Look at all units of a snapshot; correlations and ranks are over the inputs kept (at most MOST_INPUTS, evenly taken)."""
    rows = even(run.kept, MOST_INPUTS)
    mean, peak = run.activations(epoch)[rows], run.activations(epoch, stat="max")[rows]
    active, centre = run.active(epoch), run.data_mean(epoch)
    representative, correlation = np.arange(run.units), np.full(run.units, np.nan, dtype=np.float32)
    rank, full, share = np.zeros(len(run.layers)), np.zeros(len(run.layers), dtype=np.int64), np.zeros(len(run.layers))
    for i, layer in enumerate(run.layers):
        columns = layer.columns
        own, value = redundancy(mean[:, columns], peak[:, columns], threshold)
        representative[columns], correlation[columns] = own + layer.offset, value
        rank[i], full[i] = effective_rank(mean[:, columns]), min(max(len(rows) - 1, 0), layer.units)
        share[i] = gini(np.abs(centre[columns]))
    return Units(
        dead=dead_units(active, centre),
        saturated=active >= 1.0,
        hyperactive=hyperactive(active, centre, run.layers),
        redundant=representative != np.arange(run.units),
        representative=representative,
        correlation=correlation,
        effective_rank=rank,
        full_rank=full,
        gini=share,
        inputs=len(rows),
    )


FIGURES = ("dead", "saturated", "hyperactive", "redundant", "effective_rank", "gini")  # what `course` follows, as shares


def course(run: Run, cache: Results, threshold: float = THRESHOLD, *, most: int | None = None) -> np.ndarray | None:
    """float32 [E, len(FIGURES), L]: each figure at every epoch of a run; kept in the results cache, epoch by epoch.

    Shares of the layer's units; the effective rank as a share of the largest there could be. most: units of snapshots to look at now;
    where there are more of them left, the answer is None.
    """
    wanted = [results.key("units", version=1, run=run.digest(epoch), threshold=threshold) for epoch in run.epochs]
    if most is not None and run.units * sum(key not in cache for key in wanted) > most:
        return None
    found = []
    for epoch, key in zip(run.epochs, wanted, strict=True):
        held = cache.get(key)
        if held is None:
            held = {"figures": _figures(units(run, epoch, threshold), run.layers)}
            cache.put(key, held)
        found.append(held["figures"])
    return np.stack(found)


def _figures(said: Units, layers: Sequence[Layer]) -> np.ndarray:
    shares = [[getattr(said, name)[layer.columns].mean() for layer in layers] for name in FIGURES[:4]]
    return np.array([*shares, said.effective_rank / np.maximum(said.full_rank, 1), said.gini], dtype=np.float32)


def even(count: int, most: int) -> np.ndarray:
    """int64: up to `most` of `count` numbers, evenly taken."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)) if count else np.zeros(0, np.int64)


def dead_units(active: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """bool [U]: units that are dead: zero on every input and at every position. The one definition that all views use.

    active: float [U], share of inputs on which a unit is above zero somewhere (`run.active(epoch, layer, split)`). mean: float [U],
    over the same inputs (`run.data_mean`), of the same shape. A unit that is never above zero and has mean zero is zero everywhere,
    since nothing is left that could cancel. Behind a rectifier "never above zero" is the same as dead; where there is none (a layer
    whose value is added to another's, the logits), a unit that is only ever negative speaks by being negative, and is not dead.
    """
    return (active == 0.0) & (mean == 0.0)


def hyperactive(active: np.ndarray, mean: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """bool [U]: units that fire on nearly every input with a mean FAR robust deviations above their layer's.

    The deviation is (mean − median) / (1.4826 × median absolute deviation) over the layer's units.
    """
    found = np.zeros(len(mean), dtype=bool)
    for layer in layers:
        values = mean[layer.columns].astype(np.float64)
        middle = np.median(values)
        spread = max(1.4826 * np.median(np.abs(values - middle)), _LEAST_SPREAD * abs(middle))
        if spread > 0:
            found[layer.columns] = (values - middle) / spread > FAR
    return found & (active >= NEARLY_ALL)


def correlations(mean: np.ndarray, peak: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
    """float32 [r, units]: correlation of units `rows` with all units of a layer; the smaller one of their means and of their maxima.

    mean, peak: [n, units] over the same inputs. Two units whose means agree may look at different places; their maxima then
    rarely agree as well. A unit that never changes correlates with none (0).
    """
    found: np.ndarray | None = None
    for values in (mean,) if mean is peak else (mean, peak):
        scaled = _standardised(values)
        part = scaled[:, rows].T @ scaled
        found = part if found is None else np.minimum(found, part)
    assert found is not None
    return found


def _standardised(values: np.ndarray) -> np.ndarray:
    centred = values.astype(np.float32) - values.mean(axis=0, dtype=np.float64).astype(np.float32)
    length = np.linalg.norm(centred, axis=0)
    # Rounding to half precision makes a constant unit flicker; that is no signal.
    some = length > 1e-3 * np.maximum(np.abs(values).max(axis=0), 1e-12) * np.sqrt(len(values)) * 0.5
    return np.divide(centred, length, out=np.zeros_like(centred), where=some)


def redundancy(mean: np.ndarray, peak: np.ndarray, threshold: float = THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
    """(representative int64 [units], correlation with it float32 [units], NaN for representatives) of the units of one layer.

    The unit to which most others correlate above the threshold stands for them, and so on among those left: every member of a
    group correlates with its representative, not only with a neighbour in a chain. Too few inputs: every unit stands for itself.
    """
    count = mean.shape[1]
    own, value = np.arange(count), np.full(count, np.nan, dtype=np.float32)
    if len(mean) < LEAST_INPUTS or count < 2:
        return own, value
    pairs: list[np.ndarray] = []
    for first in range(0, count, _BLOCK):
        part = correlations(mean, peak, slice(first, min(first + _BLOCK, count)))
        a, b = np.nonzero(part > threshold)
        other = a + first != b
        pairs.append(np.stack([a[other] + first, b[other]]))
        value_of = part[a[other], b[other]]
        pairs[-1] = np.vstack([pairs[-1], value_of])
    a, b, strength = np.hstack(pairs)
    a, b = a.astype(np.int64), b.astype(np.int64)
    left, spread = np.ones(count, dtype=bool), mean.std(axis=0)
    while len(a):
        degree = np.bincount(a, minlength=count)
        best = np.flatnonzero(degree == degree.max())
        chosen = int(best[spread[best].argmax()])
        member = a == chosen
        own[b[member]], value[b[member]] = chosen, strength[member]
        left[b[member]] = left[chosen] = False
        rest = left[a] & left[b]
        a, b, strength = a[rest], b[rest], strength[rest]
    return own, value


def effective_rank(values: np.ndarray) -> float:
    """Effective rank of activations [n, units], centred: the exponential of the entropy of the singular values' shares.

    From 1 (all units move together) to min(n − 1, units); 0 where nothing moves.
    O. Roy, M. Vetterli: The effective rank: a measure of effective dimensionality, EUSIPCO 2007, definition 1.
    """
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    gram = centred @ centred.T if centred.shape[0] < centred.shape[1] else centred.T @ centred
    squares = np.linalg.eigvalsh(gram)
    largest = squares[-1] if len(squares) else 0.0
    if not largest > 0:
        return 0.0
    # What is below the precision of the squares is zero.
    singular = np.sqrt(np.where(squares > 1e-12 * largest, squares, 0.0))
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def gini(values: np.ndarray) -> float:
    """Gini coefficient of values ≥ 0: 0 where all are equal, 1 − 1/n where one has everything; 0 where all are zero."""
    ordered = np.sort(values.astype(np.float64))
    total, count = ordered.sum(), len(ordered)
    if not total > 0:
        return 0.0
    return float(((2 * np.arange(1, count + 1) - count - 1) * ordered).sum() / (count * total))
