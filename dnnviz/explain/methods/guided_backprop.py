"""Guided backpropagation: the gradient that only passes where both the unit and the gradient are positive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question


_WHY = "The network has ReLUs, so the guided map is another one than the plain gradient; it is sharp, but depends little on the class."


@register(
    "guided_backprop",
    title="Guided backprop",
    family="gradient",
    summary="The gradient along paths on which every unit argues for the class; sharp, but depends little on the class.",
    paper="Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for simplicity. ICLR workshop",
    year=2015,
    signed=False,
)
def guided_backprop(question: Question) -> Answer:
    """Guided gradient [n, C, H, W]; heatmap: the largest magnitude over channels.

    Every rectifier is seen, however the network writes it (module, shared, in place, functional, ReLU6), and nothing
    in the network is replaced. Source: Springenberg et al. 2015, figure 1.
    """
    from dnnviz.explain.question import Answer, rectified_notes

    gradient, unchanged = question.rectified(lambda gradient: gradient.clamp(min=0))
    return Answer(gradient, gradient.abs().amax(dim=1), rectified_notes(gradient, "differs from gradient", _WHY, unchanged))
