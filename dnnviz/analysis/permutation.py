"""Whether two groups of inputs, or two networks on the same inputs, differ by more than chance: permutation tests for each layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ROUNDS = 999
_BLOCK = 2048  # units at once, so that memory stays small


def group_test(values: np.ndarray, first: np.ndarray, second: np.ndarray, layers: Sequence[slice], rounds: int = ROUNDS, seed: int = 0) -> np.ndarray:
    """p of each layer: how often groups of inputs drawn at random lie as far apart as the two given; float64 [L].

    values: float [n, U], activations; first, second: bool [n], the members of each group, at least one each. Groups that share no
    input are drawn anew from both together; where one lies within the other, the smaller is drawn anew from the larger.
    The distance of a layer is the root mean square over its units of the difference of the means, in standard deviations of the unit.
    p is adjusted for the number of layers, so that one of them falls below 0.05 by chance in one comparison of twenty.
    Raises ValueError where the groups overlap otherwise. Source: P. Good, Permutation Tests, 2000; adjusted as by P. Westfall and
    S. Young, Resampling-Based Multiple Testing, 1993 (least p, single step).
    """
    inner, outer = (first, second) if first.sum() <= second.sum() else (second, first)
    nested = bool((inner & outer).sum() == inner.sum())
    if not nested and bool((inner & outer).any()):
        raise ValueError("the groups share some inputs, and neither lies within the other")
    pool = np.flatnonzero(inner | outer)
    size = int(inner.sum())
    random = np.random.default_rng(seed)
    # A row a round: weights of the inputs in the difference of the means; the groups as they are come first.
    weights = np.zeros((rounds + 1, len(pool)), dtype=np.float32)
    weights[0, inner[pool]] = 1
    for row in weights[1:]:
        row[random.permutation(len(pool))[:size]] = 1
    rest = np.ones_like(weights) if nested else 1 - weights
    weights = weights / size - rest / rest.sum(axis=1, keepdims=True)
    return _adjusted(_distances(weights, values[pool], values[pool].std(axis=0), layers))


def paired_test(first: np.ndarray, second: np.ndarray, layers: Sequence[slice], rounds: int = ROUNDS, seed: int = 0) -> np.ndarray:
    """As `group_test`, of the same inputs in two networks: how often the two lie as far apart when they change places, input by input, at random.

    first, second: float [n, U], row by row the same inputs and column by column the units that stand beside each other.
    """
    random = np.random.default_rng(seed)
    signs = random.choice(np.array([-1, 1], dtype=np.float32), (rounds + 1, len(first)))
    signs[0] = 1
    spread = np.sqrt((np.var(first, axis=0, dtype=np.float64) + np.var(second, axis=0, dtype=np.float64)) / 2)
    return _adjusted(_distances(signs / len(first), second - first, spread, layers))


def _distances(weights: np.ndarray, values: np.ndarray, spread: np.ndarray, layers: Sequence[slice]) -> np.ndarray:
    """float64 [rounds + 1, L]: root mean square over a layer's units of weights · values in units of their spread; still units are left out."""
    found = np.zeros((len(weights), len(layers)))
    for i, columns in enumerate(layers):
        part, scale = np.asarray(values[:, columns], dtype=np.float32), np.asarray(spread[columns], dtype=np.float32)
        moving = np.flatnonzero(scale > 1e-6 * max(float(np.abs(part).max(initial=0.0)), 1e-30))
        for start in range(0, len(moving), _BLOCK):
            units = moving[start : start + _BLOCK]
            found[:, i] += np.square(weights @ (part[:, units] / scale[units])).sum(axis=1, dtype=np.float64)
        found[:, i] = np.sqrt(found[:, i] / max(len(moving), 1))
    return found


def _adjusted(distances: np.ndarray) -> np.ndarray:
    """p of each layer [L] from the distances of all rounds [B + 1, L], the first of which is the one that was measured."""
    # What rounding may do to sums of the same numbers in another order is no difference.
    distances = np.round(distances / np.maximum(distances.max(axis=0), 1e-30), 6)
    # Of each round and layer: the share of rounds that lie at least as far apart.
    order = np.sort(distances, axis=0)
    at_least = np.stack([len(order) - np.searchsorted(order[:, i], distances[:, i], side="left") for i in range(distances.shape[1])], axis=1)
    least = at_least.min(axis=1, initial=len(order))
    return (least[:, None] <= at_least[0]).mean(axis=0)
