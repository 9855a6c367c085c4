"""Wrong labels: training inputs that the network sees as another class, more of them than chance puts there."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

NEAREST = 10  # held-out inputs around an input that say what it looks like
# Held-out inputs' worth of belief that a pair of classes is confused as often as the average pair. Pairs differ much: with
# more, a pair that is often confused looks like wrong labels; with 4, simulated runs without any keep to the chances stated.
BELIEF = 4.0
ROWS = 1024  # inputs whose distances are held in memory at a time
NEVER = 1e-15  # chances are not told apart below this


@dataclass(frozen=True)
class Strays:
    """What the held-out inputs around each input say; arrays over classes [K] but for looks and share.

    deviation: float64, the chance as a deviate of the normal distribution; NaN for a class that could not be judged.
    chance: float64, that any class of the run gives as much where no label is wrong. other: int64, the class that its
    training inputs are taken for. strays, training, strays_held, held: int64, how many of how many, in training and held out.
    looks: int64 [n], the class most frequent around each input; share: float64 [n], of its neighbours that are of that class.
    """

    deviation: np.ndarray
    chance: np.ndarray
    other: np.ndarray
    strays: np.ndarray
    training: np.ndarray
    strays_held: np.ndarray
    held: np.ndarray
    looks: np.ndarray
    share: np.ndarray


def stray_labels(values: np.ndarray, labels: np.ndarray, training: np.ndarray, held: np.ndarray, classes: int, least: int) -> Strays:
    """Count the inputs of each class that lie among held-out inputs of one other class, and say how likely the training ones are.

    values: float64 [n, units] of a hidden layer; labels: int64 [n]; training, held: bool [n]; least: training and held-out
    inputs that a class must have. The labels of the held-out inputs are taken to be right, and a held-out input is not its
    own neighbour. The chance is that of the beta-binomial distribution, which knows how often held-out inputs of the class are
    taken for the other one, raised (Šidák) for the number of pairs of classes. It is on the safe side: inputs that the network
    has learnt stray less than held-out ones.
    Source: nearest neighbours find wrong labels (D. Bahri, H. Jiang, M. Gupta, Deep k-NN for noisy labels, ICML 2020); counts
    of class taken for class (C. Northcutt, L. Jiang, I. Chuang, Confident learning, JAIR 2021).
    """
    looks, share = _neighbours(values, labels, held, classes)
    pairs = [np.bincount(labels[part] * classes + looks[part], minlength=classes**2).reshape(classes, classes) for part in (training, held)]
    seen, known = pairs
    n, m = seen.sum(axis=1), known.sum(axis=1)
    rate = (m.sum() - np.trace(known) + 0.5) / (m.sum() * (classes - 1) + 1)
    judged = np.flatnonzero((n >= least) & (m >= least))
    chance, other = np.full(classes, np.nan), np.full(classes, -1)
    chance[judged] = 1.0
    for label in judged:
        for second in np.flatnonzero(seen[label]):
            if second != label:
                believed = BELIEF * rate + known[label, second], BELIEF * (1 - rate) + m[label] - known[label, second]
                p = _tail(int(seen[label, second]), int(n[label]), *believed)
                if p < chance[label]:
                    chance[label], other[label] = p, second
    chance = -np.expm1(np.log1p(-np.minimum(chance, 1 - NEVER)) * len(judged) * (classes - 1))
    normal = NormalDist()
    deviation = np.array([np.nan if np.isnan(p) else max(-normal.inv_cdf(min(max(p, NEVER), 1 - NEVER)), 0.0) for p in chance])
    rows = np.arange(classes)
    return Strays(deviation, chance, other, seen[rows, other], n, known[rows, other], m, looks, share)


def _neighbours(values: np.ndarray, labels: np.ndarray, held: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [n] the class most frequent among the nearest held-out inputs, float64 [n] its share of them)."""
    known = np.flatnonzero(held)
    count = min(NEAREST, len(known) - 1)
    lengths = np.square(values[known]).sum(axis=1)
    looks, share = np.empty(len(values), dtype=np.int64), np.empty(len(values))
    for start in range(0, len(values), ROWS):
        rows = np.arange(start, min(start + ROWS, len(values)))
        # Of the squared distance only what differs between neighbours.
        distances = lengths - 2 * values[rows] @ values[known].T
        distances[rows[:, None] == known] = np.inf
        nearest = labels[known][np.argpartition(distances, count - 1, axis=1)[:, :count]]
        votes = np.bincount((np.arange(len(rows))[:, None] * classes + nearest).ravel(), minlength=len(rows) * classes).reshape(len(rows), classes)
        looks[rows], share[rows] = votes.argmax(axis=1), votes.max(axis=1) / count
    return looks, share


def _tail(x: int, n: int, a: float, b: float) -> float:
    """Chance of x or more among n where their rate follows a beta distribution with a, b."""
    i = np.arange(n)
    first = np.log(b + i).sum() - np.log(a + b + i).sum()
    logs = first + np.concatenate([[0.0], np.cumsum(np.log((n - i) * (a + i)) - np.log((i + 1) * (b + n - i - 1)))])
    return float(min(np.exp(logs[x:]).sum(), 1.0))
