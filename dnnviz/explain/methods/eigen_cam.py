"""Eigen-CAM: the strongest pattern of a layer's feature maps, whatever the class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question

_WHY = (
    "The first principal component of the layer's maps. It does not depend on the class: every target gets the same map, so it shows "
    "what stands out for the network, not what speaks for a class. The share is what it holds of the maps' sum of squares."
)


@register(
    "eigen_cam",
    title="Eigen-CAM",
    family="activation",
    summary="What stands out in the feature maps of a layer; does not depend on the class, and needs no gradient.",
    paper="Muhammad, Yeasin: Eigen-CAM. IJCNN",
    year=2020,
    parameters=(
        Parameter("centred", "Centred", "flag", False, "subtract each channel's mean first, as some libraries do; off is the paper's definition"),
    ),
    needs_layer=True,
    signed=False,
)
def eigen_cam(question: Question, *, centred: bool) -> Answer:
    """Positive part of the layer's maps projected on their first right singular vector [n, 1, h, w]; heatmap: bilinear.

    The sign of a singular vector is free: it is chosen so that the map grows with the sum of the positive activations.
    Source: Muhammad and Yeasin 2020, section III.
    """
    import torch

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.maps import feature_maps, positive_answer
    from dnnviz.explain.question import gradient_note

    maps = feature_maps(question)
    # Places as rows, channels as columns; float64, since the Gram matrix squares the range of the values.
    matrix = maps.activations.flatten(2).transpose(1, 2).double()
    if centred:
        matrix = matrix - matrix.mean(dim=1, keepdim=True)
    wide = matrix.shape[2] > matrix.shape[1]
    gram = matrix @ matrix.transpose(1, 2) if wide else matrix.transpose(1, 2) @ matrix
    squares, vectors = torch.linalg.eigh(gram)
    first = vectors[:, :, -1:]
    projected = (first * squares[:, None, -1:].clamp(min=0).sqrt() if wide else matrix @ first)[..., 0]
    total = maps.activations.relu().flatten(2).sum(dim=1)
    agreement = (projected * (total - total.mean(dim=1, keepdim=True) if centred else total)).sum(dim=1, keepdim=True)
    projected = torch.where(agreement < 0, -projected, projected).to(maps.activations.dtype)
    weighted = projected.unflatten(1, maps.activations.shape[-2:])[:, None]
    shares = (squares[:, -1] / squares.sum(dim=1).clamp(min=1e-300)).tolist()
    notes = [
        Note("good", f"of no class; holds {100 * share:.0f}\u00a0%", share, _WHY) if note.state == "good" else note
        for note, share in zip(gradient_note(weighted, ""), shares, strict=True)
    ]
    return positive_answer(question, weighted, notes, maps.layer)
