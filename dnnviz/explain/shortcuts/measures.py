"""Where the evidence of a class lies: shares of border and corners, and which class stands out. numpy only."""

from __future__ import annotations

import numpy as np

REGIONS = ("border", "upper left corner", "upper right corner", "lower left corner", "lower right corner")
RING = 1 / 8  # width of the border, of the image's side
CORNER = 1 / 4  # side of a corner, of the image's side
FAR = 5.0  # robust deviations above the other classes from which a class stands out
LEAST_MAPS = 4  # of a class: fewer say nothing about it
LEAST_OTHERS = 4  # classes to compare with: with fewer only `_MOST` counts
# Times an even spread from which a region stands out whatever the other classes do: 7/8 of all evidence at the border, 1/4 in one corner.
_MOST = np.array([2.0, 4.0, 4.0, 4.0, 4.0])
_SPREAD = 0.15  # least standard deviation of the other classes, in even spreads: below it differences are of no interest


def evidence(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(maps float32 [n, H, W] of mass 1, which of them have any bool [n]) from heatmaps [n, H, W] as the methods give them.

    Of signed maps the positive part counts: what speaks for the class. A map without any is zero.
    """
    positive = np.maximum(np.nan_to_num(heatmaps.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0), 0)
    mass = positive.sum(axis=(1, 2), keepdims=True)
    some = mass[:, 0, 0] > 0
    return np.divide(positive, mass, out=np.zeros_like(positive), where=mass > 0).astype(np.float32), some


def regions(height: int, width: int) -> np.ndarray:
    """bool [5, H, W]: the border and the four corners, in the order of `REGIONS`."""
    found = np.zeros((len(REGIONS), height, width), dtype=bool)
    rows, columns = max(1, round(RING * height)), max(1, round(RING * width))
    found[0] = True
    found[0, rows : height - rows, columns : width - columns] = False
    rows, columns = max(1, round(CORNER * height)), max(1, round(CORNER * width))
    found[1, :rows, :columns] = found[2, :rows, width - columns :] = True
    found[3, height - rows :, :columns] = found[4, height - rows :, width - columns :] = True
    return found


def shares(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(share of the evidence in every region [5], the same relative to its area [5], 1 = an even spread) of a mean map [H, W]."""
    masks = regions(*mean.shape)
    found = (mean.astype(np.float64) * masks).sum(axis=(1, 2))
    return found, found / masks.mean(axis=(1, 2))


def deviations(densities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Robust deviations [K, 5] of every class from all others: (value − their median) / (1.4826 × their median absolute deviation).

    densities: evidence relative to the area [K, 5]; counts: maps of every class [K]. Others with fewer than `LEAST_MAPS` maps
    do not count; NaN where too few are left.
    """
    found = np.full(densities.shape, np.nan)
    for k in range(len(densities)):
        others = densities[(counts >= LEAST_MAPS) & (np.arange(len(densities)) != k)]
        if len(others) >= LEAST_OTHERS:
            middle = np.median(others, axis=0)
            spread = 1.4826 * np.median(np.abs(others - middle), axis=0)
            found[k] = (densities[k] - middle) / np.maximum(spread, _SPREAD)
    return found


def suspicious(densities: np.ndarray, z: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """bool [K, 5]: regions that hold far more of a class's evidence than of the others', and more than an even spread would put there.

    A Clever Hans predictor (Lapuschkin et al., Unmasking Clever Hans predictors and assessing what machines really learn,
    Nature Communications 2019) shows itself where its class leans on a place that the object does not explain.
    """
    far = (densities >= 1) & (np.nan_to_num(z, nan=0.0) >= FAR)
    return (far | (densities >= _MOST)) & (counts >= LEAST_MAPS)[:, None]


def suspicion(densities: np.ndarray, z: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Order of classes [K] as float: those with marked regions first, then by how far their evidence lies off that of the others."""
    far = np.where(densities >= 1, np.nan_to_num(z, nan=0.0), 0.0).max(axis=1)
    return marked.any(axis=1) * 1e6 + far + 1e-3 * densities.max(axis=1)
