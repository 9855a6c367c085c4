"""Infidelity and sensitivity of a map: does it foretell how the score changes, and does it stay when the input hardly changes?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from dnnviz.explain.trust.scoring import Scorer


@dataclass(frozen=True)
class Infidelity:
    """plain: mean squared error of the changes of the score that a map foretells. normalised: the same when the map is scaled to fit best.

    share: normalised, relative to the mean square of the changes themselves: 0 when all are foretold, 1 when none is; NaN where
    the score never changes.
    """

    plain: float
    normalised: float
    share: float


def infidelity(scorer: Scorer, values: torch.Tensor, perturbations: torch.Tensor, changed: torch.Tensor) -> Infidelity:
    """How badly Σ perturbation · value foretells the fall of the score from the input to each changed input.

    values: [C, H, W]; perturbations, changed: [m, C, H, W]. For maps in units of the gradient a perturbation is input − changed;
    for maps in units of the score it is the part (0 to 1) of each pixel that was taken away.
    Source: Yeh, Hsieh, Suggala, Inouye, Ravikumar: On the (in)fidelity and sensitivity of explanations, NeurIPS 2019, definition 2.1;
    the scaling as in its section 4.1.
    """
    fall = scorer.whole - scorer.scores(len(changed), lambda numbers: changed[numbers]).double()
    foretold = (perturbations * values).flatten(1).double().sum(dim=1)
    square = foretold.square().mean()
    factor = (foretold * fall).mean() / square if square > 0 else 0.0
    normalised = (factor * foretold - fall).square().mean()
    changes = fall.square().mean()
    share = float(normalised / changes) if changes > 0 else float("nan")
    return Infidelity(float((foretold - fall).square().mean()), float(normalised), share)


def squares(shape: tuple[int, int], count: int, seed: int = 0) -> torch.Tensor:
    """bool [count, 1, H, W]: a square at a random place, its side from an eighth to a third of the shorter side."""
    height, width = shape
    short = min(shape)
    generator = np.random.default_rng(seed)
    masks = torch.zeros(count, 1, height, width, dtype=torch.bool)
    for mask in masks:
        side = generator.integers(max(1, short // 8), max(1, short // 3) + 1)
        y, x = generator.integers(height - side + 1), generator.integers(width - side + 1)
        mask[:, y : y + side, x : x + side] = True
    return masks


def noise(scorer: Scorer, count: int, size: float, kind: str, seed: int = 0) -> torch.Tensor:
    """[count, C, H, W]: noise whose size is a share of the range from black to white.

    kind: `gaussian` (size: standard deviation) or `uniform` (size: largest value).
    """
    # Drawn on the processor, so that it is the same on every device.
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *scorer.input.shape[1:])
    drawn = torch.randn(shape, generator=generator) if kind == "gaussian" else 2 * torch.rand(shape, generator=generator) - 1
    return drawn.to(scorer.input) * size * scorer.span


def sensitivity(scorer: Scorer, heatmap: np.ndarray, explain: Callable[[torch.Tensor], np.ndarray], noises: torch.Tensor) -> float:
    """Largest change of a map [H, W], relative to its norm, when noise [m, C, H, W] is added to the input.

    explain: inputs [m, C, H, W] → maps [m, H, W]. Source: Yeh et al. 2019, definition 4.1 (by sampling); relative to the map's norm.
    """
    change = explain(scorer.input + noises).astype(np.float64) - heatmap
    norms = np.sqrt(np.square(change).sum(axis=(1, 2)))
    return float(norms.max() / (np.sqrt(np.square(heatmap, dtype=np.float64).sum()) or 1.0))
