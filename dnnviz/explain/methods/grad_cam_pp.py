"""Grad-CAM++: feature maps of a layer, weighted by the positive gradients at each place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question

_OUTSIDE = (
    "The weights are derived for maps that are not negative (those behind a ReLU). Here the derivation breaks for some channels, "
    "which are left out; choose a layer behind a ReLU."
)


@register(
    "grad_cam_pp",
    title="Grad-CAM++",
    family="activation",
    summary="Grad-CAM that counts every place where a unit argues for the class; covers several objects of a class better.",
    paper="Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++. WACV",
    year=2018,
    needs_layer=True,
    signed=False,
)
def grad_cam_pp(question: Question) -> Answer:
    """ReLU of the weighted sum of the layer's maps [n, 1, h, w]; heatmap: bilinear to the input's size.

    With the score inside an exponential, its derivatives are powers of the gradient g, and the exponential itself is one
    factor of the whole map: alpha = g² / (2 g² + g³ Σ A) = 1 / (2 + g Σ A), weight of a channel = Σ alpha · ReLU(g).
    Source: Chattopadhay et al. 2018, equations 10 and 19.
    """
    import torch

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.maps import evidence_notes, feature_maps, positive_answer

    maps = feature_maps(question)
    gradients = maps.gradients.relu()
    below = 2 + gradients * maps.activations.sum(dim=(2, 3), keepdim=True)
    defined = below > 0
    weights = torch.where(defined, gradients / torch.where(defined, below, 1), 0).sum(dim=(2, 3), keepdim=True)
    weighted = (weights * maps.activations).sum(dim=1, keepdim=True)
    outside = (~defined).flatten(2).any(dim=2).float().mean(dim=1).tolist()
    notes = [
        Note("warning", f"undefined for {100 * share:.2g}\u00a0% of channels", share, _OUTSIDE) if share and note.state != "degenerate" else note
        for note, share in zip(evidence_notes(maps.gradients * maps.activations), outside, strict=True)
    ]
    return positive_answer(question, weighted, notes, maps.layer)
