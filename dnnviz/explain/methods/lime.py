"""LIME: a linear model of how the score depends on which superpixels are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.perturb import FILL, SEED, SEGMENTS
from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.question import Answer, Question

_WIDTH = 0.25  # of the exponential kernel, as the authors' code has it for images
_FIT = 0.5  # share of the variance explained below which the map is marked
_WHY = "R²: the share of the score's changes near this picture that the linear model explains, adjusted for the number of pieces."
_FEW = "There are no more samples than pieces, so the linear model fits whatever it is given; take more samples or fewer pieces."


@register(
    "lime",
    title="LIME",
    family="perturbation",
    summary="How much each piece of the picture adds to the score, by a linear model of what happens when random pieces are covered.",
    paper="Ribeiro, Singh, Guestrin: Why should I trust you? KDD",
    year=2016,
    parameters=(
        SEGMENTS,
        Parameter("samples", "Samples", "integer", 1000, "random selections of pieces that are tried", low=2, high=10000),
        Parameter("ridge", "Ridge", "number", 1, "penalty on large weights; matters only with few samples", low=1e-6, high=1000),
        FILL,
        SEED,
    ),
    passes=lambda parameters, shape: parameters["samples"],
)
def lime(question: Question, *, segments: int, samples: int, ridge: float, fill: str, seed: int) -> Answer:
    """Weight of each pixel's superpixel in a weighted ridge regression of the score [n, 1, H, W].

    Every piece is shown with probability 1/2; a sample weighs exp(−d² / (2 · 0.25²)), d its cosine distance from the whole
    picture. The note gives R² of that regression. Source: Ribeiro et al. 2016, equation 1 and section 3.4.
    """
    import numpy as np
    import torch

    from dnnviz.explain.perturb import blocks, clear_scores, neutral
    from dnnviz.explain.question import Answer
    from dnnviz.explain.superpixels import superpixels

    inputs, blank = question.inputs, neutral(question, fill)
    clear = clear_scores(question)
    pieces, counts = superpixels(question, segments)
    # A row of draws a piece: how many pieces the other pictures have does not matter.
    drawn = np.random.default_rng(seed).random((int(counts.max()), samples)) < 0.5
    shown = torch.from_numpy(drawn.T.copy()).to(inputs.device)  # [samples, pieces]
    exists = torch.arange(shown.shape[1], device=inputs.device) < counts[:, None]
    fit = _Regression(exists, ridge)
    with torch.inference_mode():
        for first, last, rows in blocks(question, samples):
            chosen = shown[first:last, None] & exists  # [samples of this pass, n, pieces]
            seen = chosen.flatten(0, 1).gather(1, pieces.flatten(1)[rows]).reshape(-1, 1, *pieces.shape[1:])
            changes = question.score_of(torch.where(seen, inputs[rows], blank[rows]), rows) - clear[rows]
            distance = 1 - (chosen.sum(dim=2) / counts).sqrt()
            fit.add(chosen, changes.unflatten(0, (-1, len(inputs))), torch.exp(-(distance**2) / (2 * _WIDTH**2)))
            heatmap = fit.weights().to(inputs.dtype).gather(1, pieces.flatten(1)).reshape(pieces.shape)
            question.watch(last, samples, heatmap)
    return Answer(heatmap[:, None], heatmap, _notes(heatmap, fit.explained(), samples, counts))


class _Regression:
    """Weighted ridge regressions of n inputs side by side, from sums over samples; exists: [n, pieces], which columns an input has."""

    def __init__(self, exists: torch.Tensor, ridge: float) -> None:
        import torch

        n, count = exists.shape
        zeros = lambda *shape: torch.zeros(shape, dtype=torch.float64, device=exists.device)  # noqa: E731
        self.weight, self.x, self.y = zeros(n), zeros(n, count), zeros(n)
        self.xx, self.xy, self.yy = zeros(n, count, count), zeros(n, count), zeros(n)
        self.penalty = ridge * torch.eye(count, dtype=torch.float64, device=exists.device)

    def add(self, shown: torch.Tensor, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """shown: [samples, n, pieces], scores and weights: [samples, n]."""
        x, y, w = shown.double().transpose(0, 1), scores.double().T, weights.double().T
        weighted = x * w[:, :, None]
        self.weight += w.sum(dim=1)
        self.x += weighted.sum(dim=1)
        self.y += (w * y).sum(dim=1)
        self.xx += weighted.transpose(1, 2) @ x
        self.xy += (weighted * y[:, :, None]).sum(dim=1)
        self.yy += (w * y * y).sum(dim=1)

    def _centred(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean_x, mean_y = self.x / self.weight[:, None], self.y / self.weight
        xx = self.xx - self.x[:, :, None] * mean_x[:, None]
        return xx, self.xy - self.x * mean_y[:, None], self.yy - self.y * mean_y

    def weights(self) -> torch.Tensor:
        """[n, pieces]; 0 for pieces that an input does not have, since they are never shown."""
        import torch

        xx, xy, _ = self._centred()
        return torch.linalg.solve(xx + self.penalty, xy)

    def explained(self) -> torch.Tensor:
        """[n]: R², the share of the weighted variance that the weights explain."""
        xx, xy, yy = self._centred()
        weights = self.weights()
        missed = yy - 2 * (weights * xy).sum(dim=1) + (weights * (xx @ weights[:, :, None])[:, :, 0]).sum(dim=1)
        return 1 - missed / yy.clamp(min=1e-300)


def _notes(heatmap: torch.Tensor, explained: torch.Tensor, samples: int, counts: torch.Tensor) -> list:
    from dnnviz.explain.attribution import Note
    from dnnviz.explain.question import gradient_note

    notes = []
    for note, share, count in zip(gradient_note(heatmap, ""), explained.tolist(), counts.tolist(), strict=True):
        if note.state != "good":
            notes.append(note)
        elif samples <= count + 1:
            notes.append(Note("warning", f"{samples} samples, {count} pieces", why=_FEW))
        else:
            adjusted = 1 - (1 - share) * (samples - 1) / (samples - count - 1)
            notes.append(Note("good" if adjusted >= _FIT else "warning", f"R² {adjusted:.2f}", adjusted, _WHY))
    return notes
