"""Deconvolution: the score carried back to the pixels, and only what is positive passes each ReLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question

_WHY = "The network has ReLUs, so the map is another one than the plain gradient; it shows what excites the units, and depends little on the class."


@register(
    "deconvnet",
    title="Deconvolution",
    family="gradient",
    summary="The score projected back to the pixels through a deconvolution network; what the units look for, hardly specific to the class.",
    paper="Zeiler, Fergus: Visualizing and understanding convolutional networks. ECCV",
    year=2014,
    signed=False,
)
def deconvnet(question: Question) -> Answer:
    """Gradient [n, C, H, W] in which each ReLU passes what is positive, whether it was open or not; heatmap: the largest magnitude over channels.

    Max pooling goes back through its switches, as the gradient does. Every rectifier is seen, however the network writes
    it. Source: Zeiler and Fergus 2014, section 2.1; as a gradient: Springenberg et al. 2015, figure 1.
    """
    from dnnviz.explain.question import Answer, rectified_notes

    gradient, unchanged = question.rectified(lambda gradient: gradient.clamp(min=0), gated=False)
    return Answer(gradient, gradient.abs().amax(dim=1), rectified_notes(gradient, "differs from gradient", _WHY, unchanged))
