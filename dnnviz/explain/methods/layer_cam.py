"""Layer-CAM: each place of a feature map weighted by its own gradient, so that early layers give fine maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question


@register(
    "layer_cam",
    title="Layer-CAM",
    family="activation",
    summary="Where units of a layer are active and argue for the class, place by place; fine maps from early layers.",
    paper="Jiang, Zhang, Hou, Cheng, Wei: LayerCAM. IEEE Transactions on Image Processing",
    year=2021,
    needs_layer=True,
    signed=False,
)
def layer_cam(question: Question) -> Answer:
    """ReLU of Σ over channels of ReLU(gradient) · activation [n, 1, h, w]; heatmap: bilinear to the input's size.

    Source: Jiang et al. 2021, equations 6 to 8 (without the rescaling by tanh, which is a matter of display).
    """
    from dnnviz.explain.maps import evidence_notes, feature_maps, positive_answer

    maps = feature_maps(question)
    weighted = (maps.gradients.relu() * maps.activations).sum(dim=1, keepdim=True)
    return positive_answer(question, weighted, evidence_notes(maps.gradients * maps.activations), maps.layer)
