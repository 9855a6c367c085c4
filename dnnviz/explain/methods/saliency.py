"""Saliency: the gradient of the score with respect to the input's pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question


_WHY = "The gradient of the score itself, before the softmax, which would shrink it."


@register(
    "saliency",
    title="Saliency",
    family="gradient",
    summary="How strongly the score reacts to a small change of each pixel.",
    paper="Simonyan, Vedaldi, Zisserman: Deep inside convolutional networks. ICLR workshop",
    year=2014,
    parameters=(Parameter("absolute", "Absolute value", "flag", True, "the paper's map; off keeps the sign of the gradient"),),
    signed=False,
)
def saliency(question: Question, *, absolute: bool) -> Answer:
    """Gradient of the logit (absolute, [n, C, H, W]); heatmap: the channel of largest magnitude at each pixel.

    Source: Simonyan et al. 2014, section 3.1.
    """
    import torch

    from dnnviz.explain.question import Answer, gradient_note

    gradient = question.gradient()
    # Of the largest and the smallest: the search for a place along the channels costs several times as much.
    high, low = gradient.amax(dim=1), gradient.amin(dim=1)
    largest = torch.where(high >= -low, high, low)
    notes = gradient_note(gradient, "logit gradient", _WHY)
    return Answer(gradient.abs(), largest.abs(), notes) if absolute else Answer(gradient, largest, notes)
