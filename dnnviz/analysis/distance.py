"""How far two states of a network are apart: per unit, per layer, per class; with units matched, or without matching."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dnnviz.analysis.assignment import assign

STILL = 1e-6  # what varies less than this share of its size does not vary: what is left is rounding
BATCH = 256  # inputs whose similarities are compared at once
EXACT = 256  # units up to which pairs are the best possible ones
# No unit is measured by less than this share of its layer's standard deviation: a unit dead in one network and nearly
# constant in the other would otherwise outweigh its whole layer.
LEAST = 0.05


def pooled_std(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Standard deviation of each unit over the inputs of both sides: the root of the mean of the two variances.

    first, second: float [U], standard deviations over all inputs of each side. Returns float32 [U].
    Source: J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988 (the scale of his d).
    """
    return np.sqrt((np.square(first, dtype=np.float64) + np.square(second, dtype=np.float64)) / 2).astype(np.float32)


def standardised_difference(first: np.ndarray, second: np.ndarray, std: np.ndarray, layers: Sequence[slice]) -> np.ndarray:
    """`second − first` in standard deviations of each unit.

    first, second: float [..., U]; std: float [U]; layers: columns of each layer. Returns float32 [..., U].
    A unit that hardly varies is measured by LEAST of the root mean variance of its layer (the idea of the added constant
    in V. Tusher et al., PNAS 2001). In a layer of which no unit varies at all (STILL) the difference is 0 where both sides
    agree, and NaN where they do not: it is real but has no scale.
    """
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    result = np.full(difference.shape, np.nan)
    for columns in layers:
        scale, part = np.asarray(std[columns], dtype=np.float64), difference[..., columns]
        size = max(float(np.nanmax(np.abs(side[..., columns]), initial=0.0)) for side in (first, second))
        typical = float(np.sqrt(np.mean(np.square(scale)))) if scale.size else 0.0
        if typical > STILL * size:
            result[..., columns] = part / np.maximum(scale, LEAST * typical)
        else:
            result[..., columns] = np.where(np.abs(part) <= STILL * size, 0.0, np.nan)
    return result.astype(np.float32)


def layer_distances(difference: np.ndarray, layers: Sequence[slice]) -> np.ndarray:
    """Distance of each layer: the root mean square of its units' standardised differences.

    difference: float [..., U], as `standardised_difference` gives it; units without a scale (NaN) are left out.
    Returns float64 [..., L]; NaN for a layer of which no unit has a scale. 1 means that a typical unit is displaced by
    one standard deviation of its own. It is the standardised Euclidean distance over the root of the number of units,
    so that layers of different widths can be compared.
    """
    squares = np.square(difference, dtype=np.float64)
    if not len(layers):
        return np.zeros((*squares.shape[:-1], 0))
    known = np.isfinite(squares)
    sums = np.stack([np.where(known[..., c], squares[..., c], 0.0).sum(axis=-1) for c in layers], axis=-1)
    counts = np.stack([known[..., c].sum(axis=-1) for c in layers], axis=-1)
    return np.sqrt(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0))


def rank_units(difference: np.ndarray, count: int | None = None) -> np.ndarray:
    """Columns of the units that differ most, strongest first; units without a scale are left out. int64 [≤ count]."""
    size = np.abs(difference)
    known = np.flatnonzero(np.isfinite(size) & (size > 0))
    order = known[np.argsort(-size[known], kind="stable")]
    return order if count is None else order[:count]


def robust_z(values: np.ndarray) -> np.ndarray:
    """How far each value lies from the median, in units of the others' spread (median absolute deviation × 1.4826).

    The spread is at least 5 % of the median, since a handful of nearly equal values would make any other look far.
    Returns float64, NaN where the value is. Source: B. Iglewicz and D. Hoaglin, How to Detect and Handle Outliers, 1993.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).any():
        return np.full(values.shape, np.nan)
    middle = float(np.nanmedian(values))
    spread = max(1.4826 * float(np.nanmedian(np.abs(values - middle))), 0.05 * abs(middle), 1e-12)
    return (values - middle) / spread


# -- units that have no common order -----------------------------------------------------------------------------------


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of every unit of one side with every unit of the other over the same observations.

    first: float [n, p], second: float [n, q]; n inputs (or classes). Returns float32 [p, q]; 0 for a unit that does not vary.
    """
    return _unit_length(first).T @ _unit_length(second)


def order_agreement(correlation: np.ndarray) -> float:
    """How far units of the same index belong together: 1 for the same units, 0 for two networks trained separately.

    correlation: float [p, p], as `correlations` gives it. The mean correlation of units of equal index, less that of
    units of different index (in early layers all units follow the brightness of the image), over what is left to 1.
    NaN for fewer than two units that vary.
    """
    moving = np.flatnonzero(np.abs(correlation).max(axis=1, initial=0.0) > 0)
    moving = moving[np.abs(correlation[:, moving]).max(axis=0, initial=0.0) > 0]
    if len(moving) < 2:
        return float("nan")
    part = correlation[np.ix_(moving, moving)].astype(np.float64)
    same = float(np.trace(part)) / len(part)
    other = (float(part.sum()) - float(np.trace(part))) / (len(part) * (len(part) - 1))
    return (same - other) / max(1.0 - other, 1e-6)


def match_units(correlation: np.ndarray) -> np.ndarray:
    """For each unit of one side its partner on the other, one to one, by correlation: int64 [p].

    correlation: float [p, p]. Up to EXACT units the pairs of the largest sum (the Hungarian method); of wider layers pairs that prefer
    each other to all that is left are joined, again and again (the greedy matching: 97 % of the best sum where there is nothing but
    noise, all of it where units have a partner; a few passes over the matrix instead of cubic time). Units that do not vary are
    paired last, in order of their index.
    Source: Y. Li, J. Yosinski et al., Convergent Learning: Do different neural networks learn the same
    representations?, ICLR 2016.
    """
    moves = np.abs(correlation) > 0
    rows, columns = np.flatnonzero(moves.any(axis=1)), np.flatnonzero(moves.any(axis=0))
    left = np.asarray(correlation)[np.ix_(rows, columns)]
    partner = np.full(len(correlation), -1, dtype=np.int64)
    if left.size and max(left.shape) <= EXACT:
        if len(rows) <= len(columns):
            partner[rows] = columns[assign(left)]
        else:
            partner[rows[assign(left.T)]] = columns
        left = left[:0]
    while left.size:
        best, chosen_by = left.argmax(axis=1), left.argmax(axis=0)
        joined = np.flatnonzero(chosen_by[best] == np.arange(len(rows)))
        partner[rows[joined]] = columns[best[joined]]
        keep, free = np.ones(len(rows), dtype=bool), np.ones(len(columns), dtype=bool)
        keep[joined], free[best[joined]] = False, False
        rows, columns, left = rows[keep], columns[free], left[np.ix_(keep, free)]
    partner[partner < 0] = np.setdiff1d(np.arange(correlation.shape[1]), partner)
    return partner


def centred_similarities(vectors: np.ndarray) -> np.ndarray:
    """What CKA compares: the similarities of all pairs of inputs in a layer, centred without bias; float32 [n · n].

    vectors: float [n, units], n ≥ 4. Zeros where the layer does not tell inputs apart.
    Source: G. Székely and M. Rizzo, Annals of Statistics 2014, eq. 3.1 (U-centring).
    """
    n = len(vectors)
    if n < 4:
        raise ValueError(f"similarities need at least 4 inputs, not {n}")
    x = np.asarray(vectors, dtype=np.float64)
    x = x - x.mean(axis=0)
    gram = x @ x.T
    trace = float(np.trace(gram))
    np.fill_diagonal(gram, 0.0)
    sums = gram.sum(axis=1)
    centred = gram - sums[:, None] / (n - 2) - sums[None, :] / (n - 2) + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return (centred.ravel() if np.linalg.norm(centred) > 1e-9 * max(trace, 1e-300) else np.zeros(n * n)).astype(np.float32)


def cka(first: Sequence[np.ndarray], second: Sequence[np.ndarray], batch: int = BATCH) -> np.ndarray:
    """Linear centred kernel alignment of every layer of one side with every layer of the other, free of bias.

    first, second: float [n, units] of each layer, the same n ≥ 4 inputs in the same order. batch: inputs whose similarities are held
    at once; the estimates of all batches are averaged before they are divided. Returns float32 [L1, L2]: 1 where two layers
    arrange the inputs alike, whatever the order, number and rotation of their units; 0 where they have nothing in
    common (small negative values are noise).
    Source: S. Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019, with the unbiased
    minibatch estimate of T. Nguyen, M. Raghu and S. Kornblith, ICLR 2021, eq. 2 and 3.
    """
    count = len(first[0])
    batches = max(1, -(-count // max(batch, 8)))
    # Layers in units of their own size, so that squares of products stay within float32.
    sides = [[(layer, max(float(np.square(layer, dtype=np.float64).mean()) ** 0.5, 1e-30)) for layer in side] for side in (first, second)]
    cross, own, other = np.zeros((len(first), len(second))), np.zeros(len(first)), np.zeros(len(second))
    for k in range(batches):
        # Every so manieth input: what is stored in order of its class is spread over the batches.
        a, b = (np.stack([centred_similarities(layer[k::batches] / size) for layer, size in side]) for side in sides)
        pairs = len(range(k, count, batches))
        weight = 1.0 / (pairs * (pairs - 3))
        cross += weight * (a @ b.T)
        own += weight * np.square(a, dtype=np.float64).sum(axis=1)
        other += weight * np.square(b, dtype=np.float64).sum(axis=1)
    size = np.sqrt(np.outer(own, other))
    return np.divide(cross, size, out=np.zeros_like(cross), where=size > 0).astype(np.float32)


def _unit_length(values: np.ndarray) -> np.ndarray:
    centred = np.asarray(values, dtype=np.float32)
    centred = centred - centred.mean(axis=0)
    length = np.sqrt(np.square(centred, dtype=np.float64).sum(axis=0))
    moving = length > STILL * max(float(np.abs(values).max(initial=0.0)), 1e-30) * np.sqrt(len(values))
    return np.where(moving, centred / np.where(moving, length, 1.0), 0.0).astype(np.float32)
