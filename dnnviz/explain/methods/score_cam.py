"""Score-CAM: each feature map masks the input, and counts by the score that is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question

_USUAL = 512  # channels of the last feature maps of many networks: what `all` is taken for before the layer is known
_WHY = (
    "The softmax over the channels' scores lets a few channels decide. The number says how many channels would count as much if their weights "
    "were equal."
)
_FLAT = "Masking by one channel or another gives nearly the same score, so the map is the mean of the layer's maps and hardly depends on the target."
_EVEN = 0.95  # share of the channels from which on they count as equally weighted


def _passes(parameters: Mapping[str, Any], shape: object) -> int:
    return 1 + (parameters["channels"] or _USUAL)


@register(
    "score_cam",
    title="Score-CAM",
    family="activation",
    summary="Feature maps of a layer, weighted by the score when only what each of them covers is seen; needs no gradient.",
    paper="Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu: Score-CAM. CVPR workshop",
    year=2020,
    parameters=(
        Parameter(
            "channels",
            "Channels",
            "integer",
            128,
            "one pass each: only the most active channels of the layer are tried, all where it has no more; 0: all (the paper), counted as 512",
            low=0,
            high=4096,
        ),
    ),
    passes=_passes,
    needs_layer=True,
    signed=False,
)
def score_cam(question: Question, *, channels: int) -> Answer:
    """ReLU of the weighted sum of the layer's maps [n, 1, h, w]; heatmap: bilinear to the input's size.

    A channel's map is brought to the input's size and to the range 0 to 1, and multiplies the (normalised) input, so what it
    hides gets the data's mean colour. Its weight: softmax over the channels of the scores of the target. How many passes
    it takes is only known with the layer (one a channel tried); `passes` says the most that `channels` allows.
    Source: Wang et al. 2020, equations 6 to 8 and algorithm 1.
    """
    import torch

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.maps import feature_maps, positive_answer, upsampled
    from dnnviz.explain.question import gradient_note

    maps = feature_maps(question)
    inputs, activations = question.inputs, maps.activations
    count = min(channels or activations.shape[1], activations.shape[1])
    kept = activations.abs().mean(dim=(2, 3)).topk(count, dim=1).indices
    rows = torch.arange(len(inputs), device=inputs.device).repeat_interleave(count)
    chosen = kept.flatten()
    scores = []
    with torch.inference_mode():
        for first in range(0, len(rows), question.per_pass):
            row, channel = (v[first : first + question.per_pass] for v in (rows, chosen))
            masks = upsampled(activations[row, channel][:, None], question)
            low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
            # A map that is the same everywhere covers nothing.
            masks = torch.where(high > low, (masks - low) / (high - low), 0)
            scores.append(question.score_of(inputs[row] * masks, row))
            question.watch(min(first + question.per_pass, len(rows)), len(rows))
    weights = torch.cat(scores).view(len(inputs), count).softmax(dim=1).clone()
    picked = activations.gather(1, kept[:, :, None, None].expand(-1, -1, *activations.shape[2:]))
    weighted = (weights[:, :, None, None] * picked).sum(dim=1, keepdim=True)
    deciding = (-torch.special.xlogy(weights, weights)).sum(dim=1).exp().tolist()
    notes = []
    for note, number in zip(gradient_note(weighted, ""), deciding, strict=True):
        if note.state == "good":
            flat = count > 1 and number > _EVEN * count
            note = Note("warning" if flat else "good", f"rests on {number:.0f} of {count} channels", number, _FLAT if flat else _WHY)
        notes.append(note)
    return positive_answer(question, weighted, notes, maps.layer)
