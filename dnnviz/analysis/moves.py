"""How the predictions for the same inputs moved from one network, or one epoch, to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dnnviz.analysis.sides import Side, members, same_inputs
from dnnviz.errors import RunError


@dataclass(frozen=True)
class Moves:
    """What two networks predict for the same inputs.

    inputs: int64 [n], numbers of the inputs kept; truth, first, second: int64 [n], classes: the true one, and those predicted.
    """

    inputs: np.ndarray
    truth: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @property
    def mended(self) -> np.ndarray:
        """bool [n]: wrong in the first, right in the second."""
        return (self.first != self.truth) & (self.second == self.truth)

    @property
    def broken(self) -> np.ndarray:
        """bool [n]: right in the first, wrong in the second."""
        return (self.first == self.truth) & (self.second != self.truth)

    @property
    def moved(self) -> np.ndarray:
        """bool [n]: another class predicted than before."""
        return self.first != self.second

    def flows(self) -> list[tuple[int, int, np.ndarray]]:
        """(class in the first, class in the second, rows) of every pair that occurs, most inputs first."""
        pairs, owner, counts = np.unique(np.stack([self.first, self.second]), axis=1, return_inverse=True, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(pairs[0, k]), int(pairs[1, k]), np.flatnonzero(owner == k)) for k in order]

    def p_value(self) -> float:
        """Whether one of the two is right more often than chance explains: exact two-sided test of mended against broken inputs.

        1 where none changed. Source: Q. McNemar, Psychometrika 12, 1947, in its exact (binomial) form.
        """
        fewer, more = sorted((int(self.mended.sum()), int(self.broken.sum())))
        total = fewer + more
        # Logarithms of the binomial coefficients: they overflow for some hundreds of inputs.
        logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
        tail = np.exp(logs[total] - logs[: fewer + 1] - logs[total - fewer : total + 1][::-1] - total * np.log(2)).sum() if total else 0.5
        return float(min(1.0, 2 * tail))


def moves(first: Side, second: Side) -> Moves:
    """Predictions of two sides for the inputs that the first shows.

    Raises RunError with a sentence where the networks are the same, saw other inputs, or know other classes, or where A has no input kept.
    """
    if first.network == second.network:
        raise RunError("A and B are the same network, which predicts the same. Choose another epoch or another run on one side.")
    if not same_inputs(first.run, second.run):
        raise RunError(f"{first.name} and {second.name} did not keep the same inputs: capture both on the same data to see how predictions move.")
    logits = [side.run.logits(side.epoch) for side in (first, second)]
    if any(each.shape[1] != len(first.run.classes) for each in logits):
        raise RunError("The network does not give one score for each class of the run, so it predicts none of them.")
    rows = members(first)
    if not len(rows):
        raise RunError(f"{first.name} kept no input of what A shows, so that no prediction is known. Choose another class or split for A.")
    return Moves(rows, first.run.labels[rows], *(each[rows].argmax(axis=1) for each in logits))
