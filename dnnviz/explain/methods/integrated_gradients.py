"""Integrated gradients: the gradient summed along the straight path from a baseline to the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.question import Answer, Question

_BASELINES = ("mean", "blur")
_WHY = "Completeness: the map should add up to the change of the score from the baseline; the gap is what is missing, and shrinks with more steps."
_GAP = 0.05  # completeness error above which the map is marked


@register(
    "integrated_gradients",
    title="Integrated gradients",
    family="gradient",
    summary="How much each pixel adds to the score on the way from a neutral picture to this one; adds up to the whole change.",
    citation="Sundararajan, Taly, Yan: Axiomatic attribution for deep networks. ICML",
    year=2017,
    parameters=(
        Parameter("steps", "Steps", "integer", 50, "points on the path; more make the completeness gap smaller", low=2, high=500),
        Parameter(
            "baseline", "Baseline", "choice", "mean", "the neutral picture: the data's mean colour, or the input blurred", choices=("mean", "blur")
        ),
    ),
    passes=lambda parameters, shape: parameters["steps"],
)
def integrated_gradients(question: Question, *, steps: int, baseline: str) -> Answer:
    """(input − baseline) × path integral of the gradient [n, C, H, W], by Gauss-Legendre; heatmap: its sum over channels.

    The note gives the completeness gap: |sum − (score − score of the baseline)| over |score − score of the baseline|.
    Source: Sundararajan et al. 2017, equation 1; completeness: proposition 1.
    """
    import numpy as np
    import torch

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.question import Answer, gradient_note

    inputs = question.inputs
    start = torch.zeros_like(inputs) if baseline == "mean" else _blurred(inputs)
    with torch.no_grad():
        difference = question.score() - question.score_of(start, torch.arange(len(inputs), device=inputs.device))
    points, weights = np.polynomial.legendre.leggauss(steps)
    points, weights = (points + 1) / 2, weights / 2
    total = torch.zeros_like(inputs)
    # All steps of an input are independent: take as many (input, step) pairs at once as a pass holds.
    rows = torch.arange(len(inputs), device=inputs.device).repeat(steps)
    places = torch.as_tensor(np.repeat(points, len(inputs)), dtype=inputs.dtype, device=inputs.device)
    shares = torch.as_tensor(np.repeat(weights, len(inputs)), dtype=inputs.dtype, device=inputs.device)
    for first in range(0, len(rows), question.per_pass):
        row, place, share = (v[first : first + question.per_pass] for v in (rows, places, shares))
        path = (start[row] + place[:, None, None, None] * (inputs[row] - start[row])).requires_grad_()
        gradient = torch.autograd.grad(question.score_of(path, row).sum(), path)[0]
        total.index_add_(0, row, gradient * share[:, None, None, None])
    values = (inputs - start) * total
    gaps = ((values.flatten(1).sum(dim=1) - difference).abs() / difference.abs().clamp(min=1e-12)).tolist()
    notes = [
        note if note.state != "good" else Note("good" if gap <= _GAP else "warning", f"gap {_percent(gap)}", gap, _WHY)
        for note, gap in zip(gradient_note(values, ""), gaps, strict=True)
    ]
    return Answer(values, values.sum(dim=1), notes)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%" if share < 0.1 else f"{100 * share:.0f}\u00a0%" if share < 10 else "above 1000\u00a0%"


def _blurred(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs under a Gaussian of a tenth of their shorter side, so that nothing in them can be recognised."""
    import torch
    import torch.nn.functional as F

    sigma = max(1.0, min(inputs.shape[-2:]) / 10)
    reach = min(int(2 * sigma), min(inputs.shape[-2:]) - 1)
    grid = torch.arange(-reach, reach + 1, dtype=inputs.dtype, device=inputs.device)
    kernel = torch.exp(-((grid / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(inputs.shape[1], 1, 1, -1)
    wide = F.pad(inputs, (reach, reach, reach, reach), mode="reflect")
    wide = F.conv2d(wide, kernel, groups=inputs.shape[1])
    return F.conv2d(wide, kernel.transpose(2, 3), groups=inputs.shape[1])
