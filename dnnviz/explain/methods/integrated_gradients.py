"""Integrated gradients: the gradient summed along the straight path from a baseline to the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question

_WHY = "Completeness: the map should add up to the change of the score from the baseline; the gap is what is missing, and shrinks with more steps."
_GAP = 0.05  # completeness error above which the map is marked


@register(
    "integrated_gradients",
    title="Integrated gradients",
    family="gradient",
    summary="How much each pixel adds to the score on the way from a neutral picture to this one; adds up to the whole change.",
    paper="Sundararajan, Taly, Yan: Axiomatic attribution for deep networks. ICML",
    year=2017,
    parameters=(
        Parameter("steps", "Steps", "integer", 50, "points on the path; more make the completeness gap smaller", low=2, high=500),
        Parameter(
            "baseline",
            "Baseline",
            "choice",
            "mean",
            "the neutral picture: the data's mean colour, the input blurred, black, or random colours",
            choices=("mean", "blur", "black", "noise"),
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
    from dnnviz.explain.perturb import blocks, clear_scores, neutral
    from dnnviz.explain.question import Answer, gradient_note, percent

    inputs = question.inputs
    start = neutral(question, baseline)
    with torch.no_grad():
        difference = clear_scores(question) - question.score_of(start, torch.arange(len(inputs), device=inputs.device))
    points, weights = np.polynomial.legendre.leggauss(steps)
    points, weights = (torch.as_tensor(v, dtype=inputs.dtype, device=inputs.device) for v in ((points + 1) / 2, weights / 2))
    total = torch.zeros_like(inputs)
    for first, last, rows in blocks(question, steps):
        path = (start + points[first:last].reshape(-1, 1, 1, 1, 1) * (inputs - start)).flatten(0, 1).requires_grad_()
        gradient = torch.autograd.grad(question.score_of(path, rows).sum(), path)[0].unflatten(0, (-1, len(inputs)))
        total += torch.einsum("snchw,s->nchw", gradient, weights[first:last])
        question.watch(last, steps, ((inputs - start) * total).sum(dim=1))
    values = (inputs - start) * total
    gaps = ((values.flatten(1).sum(dim=1) - difference).abs() / difference.abs().clamp(min=1e-12)).tolist()
    notes = [
        note if note.state != "good" else Note("good" if gap <= _GAP else "warning", f"gap {percent(gap)}", gap, _WHY)
        for note, gap in zip(gradient_note(values, ""), gaps, strict=True)
    ]
    return Answer(values, values.sum(dim=1), notes)
