"""Deletion and insertion: how fast the score falls and rises as pixels go and come in the order of a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dnnviz.explain.baselines import blurred
from dnnviz.explain.trust.scoring import Scorer


@dataclass(frozen=True)
class Curves:
    """Curves of m maps: shares of pixels changed [steps + 1]; deletion and insertion [m, steps + 1]; their areas [m].

    Values are probabilities of the class, or scores as a share of the way from the empty picture to the whole one: NaN where
    the whole one scores no more than the empty one.
    """

    shares: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def deletion_area(self) -> np.ndarray:
        return _area(self.deletion)

    @property
    def insertion_area(self) -> np.ndarray:
        return _area(self.insertion)


def deletion_insertion(scorer: Scorer, heatmaps: np.ndarray, steps: int) -> Curves:
    """Put pixels to the mean colour, and insert them into the blurred picture, those first that a map [m, H, W] marks most.

    The mean colour is zero after normalisation. Pixels of equal value come in a random order, the same each time.
    Source: Petsiuk, Das, Saenko: RISE, BMVC 2018, section 4.3 and algorithm 1.
    """
    maps, height, width = heatmaps.shape
    pixels = height * width
    ranks = torch.as_tensor(np.stack([_ranks(heatmap) for heatmap in heatmaps]), device=scorer.input.device).view(maps, 1, height, width)
    borders = torch.as_tensor(np.rint(np.linspace(0, pixels, steps + 1)).astype(np.int64), device=scorer.input.device)
    curves = []
    for first, second in ((scorer.input, torch.zeros_like(scorer.input)), (blurred(scorer.input), scorer.input)):

        def change(numbers: torch.Tensor, first: torch.Tensor = first, second: torch.Tensor = second) -> torch.Tensor:
            changed = ranks[numbers // (steps + 1)] < borders[numbers % (steps + 1)][:, None, None, None]
            return torch.where(changed, second, first)

        curves.append(scorer.scores(maps * (steps + 1), change, probability=scorer.of_a_class).view(maps, -1).double().cpu().numpy())
    deletion, insertion = curves
    if not scorer.of_a_class:
        deletion, insertion = _relative(deletion, deletion[:, -1:], deletion[:, :1]), _relative(insertion, insertion[:, :1], insertion[:, -1:])
    return Curves(borders.cpu().numpy() / pixels, deletion, insertion)


def random_map(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """float32 [H, W]: a map that knows nothing, for scale."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def _ranks(heatmap: np.ndarray) -> np.ndarray:
    """[H·W]: the place of each pixel in the order from the largest value to the smallest."""
    shuffled = np.random.default_rng(0).permutation(heatmap.size)
    order = shuffled[np.argsort(-heatmap.reshape(-1)[shuffled], kind="stable")]
    ranks = np.empty(heatmap.size, np.int64)
    ranks[order] = np.arange(heatmap.size)
    return ranks


def _relative(curves: np.ndarray, empty: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(curves - empty, whole - empty, out=np.full_like(curves, np.nan), where=np.broadcast_to(whole > empty, curves.shape))


def _area(curves: np.ndarray) -> np.ndarray:
    return (curves.sum(axis=1) - (curves[:, 0] + curves[:, -1]) / 2) / (curves.shape[1] - 1)
