"""Grad-CAM: feature maps of a layer, weighted by the mean gradient of the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question

_SOME = "Some places of this layer speak for the class."
_NONE = "The weighted feature maps are nowhere positive: at this layer nothing speaks for the class, and what little is left would be noise."
_NOISE = 1e-6  # evidence below this share of the map's negative part is rounding, not evidence


@register(
    "grad_cam",
    title="Grad-CAM",
    family="activation",
    summary="Where the feature maps of a layer argue for the class; coarse, and specific to the class.",
    citation="Selvaraju et al.: Grad-CAM. ICCV",
    year=2017,
    needs_layer=True,
    signed=False,
)
def grad_cam(question: Question) -> Answer:
    """ReLU of the weighted sum of the layer's maps [n, 1, h, w]; heatmap: bilinear to the input's size.

    Source: Selvaraju et al. 2017, equations 1 and 2. Tokens of transformers are read as maps.
    """
    import torch.nn.functional as F

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.maps import feature_maps
    from dnnviz.explain.question import Answer, gradient_note

    maps = feature_maps(question)
    weights = maps.gradients.mean(dim=(2, 3), keepdim=True)
    weighted = (weights * maps.activations).sum(dim=1, keepdim=True)
    values = weighted.relu()
    heatmap = F.interpolate(values, question.inputs.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    positive = values.flatten(1).amax(dim=1) > _NOISE * weighted.flatten(1).abs().amax(dim=1)
    # What is left of a map without positive evidence is rounding noise, and a viewer would stretch it.
    values, heatmap = values * positive[:, None, None, None], heatmap * positive[:, None, None]
    notes = [
        note if some or note.state != "good" else Note("degenerate", "no positive evidence at this layer", why=_NONE)
        for note, some in zip(gradient_note(weighted, "evidence found", _SOME), positive.tolist(), strict=True)
    ]
    return Answer(values, heatmap, notes, maps.layer)
