"""Grad-CAM: feature maps of a layer, weighted by the mean gradient of the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question


@register(
    "grad_cam",
    title="Grad-CAM",
    family="activation",
    summary="Where the feature maps of a layer argue for the class; coarse, and specific to the class.",
    paper="Selvaraju et al.: Grad-CAM. ICCV",
    year=2017,
    needs_layer=True,
    signed=False,
)
def grad_cam(question: Question) -> Answer:
    """ReLU of the weighted sum of the layer's maps [n, 1, h, w]; heatmap: bilinear to the input's size.

    Source: Selvaraju et al. 2017, equations 1 and 2. Tokens of transformers are read as maps.
    """
    from dnnviz.explain.maps import evidence_notes, feature_maps, positive_answer

    maps = feature_maps(question)
    weights = maps.gradients.mean(dim=(2, 3), keepdim=True)
    weighted = (weights * maps.activations).sum(dim=1, keepdim=True)
    return positive_answer(question, weighted, evidence_notes(weighted), maps.layer)
