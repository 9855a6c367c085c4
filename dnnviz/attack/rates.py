"""Shares and areas under ROC curves, each with a 95 % interval that holds near 0 and 1, too. numpy only."""

from __future__ import annotations

import numpy as np

_Z = 1.959964


def wilson(count: np.ndarray | int, total: int) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) float64: the interval of `count` out of `total` (Wilson, JASA 1927)."""
    share = np.asarray(count, dtype=np.float64) / total
    middle = (share + _Z**2 / (2 * total)) / (1 + _Z**2 / total)
    half = _Z * np.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2)) / (1 + _Z**2 / total)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def area(negatives: np.ndarray, positives: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half (Mann and Whitney 1947)."""
    below, below_or_same = (np.searchsorted(np.sort(negatives), positives, side=side).sum() for side in ("left", "right"))
    return float(below + below_or_same) / (2 * len(negatives) * len(positives))


def area_interval(value: float, negatives: int, positives: int) -> tuple[float, float]:
    """(low, high) of an area under the ROC curve of so many negatives and positives (Newcombe, Statistics in Medicine 2006, method 5)."""
    half = (negatives + positives) / 2 - 1

    def reach(theta: np.ndarray) -> np.ndarray:
        variance = theta * (1 - theta) * (1 + half * (1 - theta) / (2 - theta) + half * theta / (1 + theta)) / (negatives * positives)
        return np.abs(theta - value) - _Z * np.sqrt(np.maximum(variance, 0))

    grid = np.linspace(0, 1, 10001)
    inside = grid[reach(grid) <= 0]
    return (float(min(inside.min(), value)), float(max(inside.max(), value))) if len(inside) else (value, value)


def curve(negatives: np.ndarray, positives: np.ndarray, false_rate: np.ndarray) -> np.ndarray:
    """Share of the positives above a threshold that so many of the negatives are above, float32 [P]; straight lines between the steps."""
    thresholds = np.unique(np.concatenate([negatives, positives]))[::-1]
    wrong = np.concatenate([[0.0], (negatives[:, None] >= thresholds).mean(axis=0)])
    right = np.concatenate([[0.0], (positives[:, None] >= thresholds).mean(axis=0)])
    # Where the curve rises straight up, a rate stands for its top.
    last = np.append(np.diff(wrong) > 0, True)
    return np.interp(false_rate, wrong[last], right[last]).astype(np.float32)
