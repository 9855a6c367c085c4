"""Guided Grad-CAM: guided backpropagation where Grad-CAM finds evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question

_WHY = (
    "The network has ReLUs and the layer has evidence for the target; the fine detail is guided backpropagation's, which depends little on the class."
)


@register(
    "guided_grad_cam",
    title="Guided Grad-CAM",
    family="activation",
    summary="Guided backpropagation's detail where Grad-CAM finds evidence for the class.",
    paper="Selvaraju et al.: Grad-CAM. ICCV",
    year=2017,
    needs_layer=True,
    signed=False,
    to_pixels=True,
)
def guided_grad_cam(question: Question) -> Answer:
    """Guided gradient × Grad-CAM brought to the input's size (bilinear) [n, C, H, W]; heatmap: the largest magnitude over channels.

    Source: Selvaraju et al. 2017, section 3.2.
    """
    from dnnviz.explain.maps import share_pass
    from dnnviz.explain.methods.grad_cam import grad_cam
    from dnnviz.explain.question import Answer, rectified_notes

    if question.shared is None:
        share_pass(question)
    guided, unchanged = question.rectified(lambda gradient: gradient.clamp(min=0))
    cam = grad_cam(question)
    values = guided * cam.heatmap[:, None]
    notes = [
        where if where.state == "degenerate" else note
        for note, where in zip(rectified_notes(values, "differs from gradient", _WHY, unchanged), cam.notes, strict=True)
    ]
    return Answer(values, values.abs().amax(dim=1), notes, cam.layer)
