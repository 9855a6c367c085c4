"""How far a projection may be trusted: whether neighbours in the picture are neighbours in the full space."""

from __future__ import annotations

import numpy as np

TRUST_NEIGHBOURS = 5  # as scikit-learn's default
KEPT_NEIGHBOURS = 15
SAMPLE = 2000
_BLOCK = 1 << 23


def quality(
    vectors: np.ndarray,
    points: np.ndarray,
    *,
    k: int = TRUST_NEIGHBOURS,
    kept: int = KEPT_NEIGHBOURS,
    sample: int = SAMPLE,
    seed: int = 0,
) -> tuple[float, float]:
    """(trustworthiness, share of neighbours kept), each from 0 to 1; NaN where there are too few inputs for it.

    Trustworthiness (Venna & Kaski 2001, equation 1) takes away for every input that is among the k nearest in the
    picture but not in the full space, by its rank there; it is what sklearn.manifold.trustworthiness computes.
    Neighbours kept: the share of the `kept` nearest of the full space that are among as many nearest in the picture.
    vectors [n, d], points [n, dims]. Of more than `sample` inputs, that many are drawn and their ranks among all
    inputs taken: the mean over them has a standard error below 0.005.
    """
    import torch

    full = torch.from_numpy(np.asarray(vectors, dtype=np.float64))
    full = full - full.mean(dim=0)
    flat = torch.from_numpy(np.asarray(points, dtype=np.float64))
    count = len(full)
    k, kept = min(k, (count - 1) // 2), min(kept, count - 1)
    if k < 1:
        return float("nan"), float("nan")
    rows = torch.arange(count)
    if count > sample:
        rows = torch.from_numpy(np.sort(np.random.default_rng(seed).choice(count, sample, replace=False)))
    squares = full.square().sum(dim=1)
    penalty, shared = 0, 0
    for chosen in rows.split(max(1, _BLOCK // count)):
        here = torch.arange(len(chosen))
        squared = torch.addmm(squares, full[chosen], full.T, alpha=-2)
        squared[here, chosen] = torch.inf
        seen = torch.cdist(flat[chosen], flat, compute_mode="donot_use_mm_for_euclid_dist")
        seen[here, chosen] = torch.inf
        beside = seen.topk(max(k, kept), dim=1, largest=False).indices
        for column in beside[:, :k].T:
            rank = 1 + (squared < squared.gather(1, column[:, None])).sum(dim=1)
            penalty += int((rank - k).clamp(min=0).sum())
        true = squared.topk(kept, dim=1, largest=False).indices
        shared += int((true[:, :, None] == beside[:, None, :kept]).sum())
    trust = 1.0 - penalty * 2.0 / (len(rows) * k * (2.0 * count - 3.0 * k - 1.0))
    return trust, shared / (len(rows) * kept)
