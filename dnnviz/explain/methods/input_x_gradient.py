"""Input × gradient: what the pixels say, each times how strongly the score reacts to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question

_WHY = "The first-order share of each pixel in the score; it adds up to the whole score only in a network without biases."


@register(
    "input_x_gradient",
    title="Input × gradient",
    family="gradient",
    summary="How far each pixel, as far as it differs from the mean colour, pushes the score up or down.",
    paper="Shrikumar, Greenside, Shcherbina, Kundaje: Not just a black box. arXiv",
    year=2016,
)
def input_x_gradient(question: Question) -> Answer:
    """Normalised input times the gradient of the score [n, C, H, W]; heatmap: its sum over channels.

    Source: Shrikumar et al. 2016, section 3.1 (as the baseline it is compared with).
    """
    from dnnviz.explain.question import Answer, gradient_note

    values = question.inputs * question.gradient()
    return Answer(values, values.sum(dim=1), gradient_note(values, "logit gradient × input", _WHY))
