"""Occlusion: cover one window after another, and see how far the score falls."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

from dnnviz.explain.registry import Shape, register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question


_WHY = "How far the score (logit) of the class falls at most when a window is covered, averaged over the windows at a pixel."
_NONE = "Covering any part of the picture does not lower the score of the class."


def _window(parameters: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    """Window and stride in pixels; 0 stands for a seventh of the shorter side, and half the window."""
    window = min(parameters["window"] or max(2, round(min(height, width) / 7)), height, width)
    return window, min(parameters["stride"] or ceil(window / 2), window)


def _starts(length: int, window: int, stride: int) -> list[int]:
    return [i * stride for i in range(ceil((length - window) / stride) + 1)]


def _passes(parameters: Mapping[str, Any], shape: Shape) -> int:
    _, height, width = shape
    window, stride = _window(parameters, height, width)
    return len(_starts(height, window, stride)) * len(_starts(width, window, stride))


@register(
    "occlusion",
    title="Occlusion",
    family="perturbation",
    summary="How far the score falls when a window of the picture is covered; blue where it rises.",
    citation="Zeiler, Fergus: Visualizing and understanding convolutional networks. ECCV",
    year=2014,
    parameters=(
        Parameter("window", "Window", "integer", 0, "side of the cover in pixels; 0: a seventh of the picture", low=0, high=512),
        Parameter("stride", "Stride", "integer", 0, "pixels between two places of the cover; 0: half the window", low=0, high=512),
    ),
    passes=_passes,
)
def occlusion(question: Question, *, window: int, stride: int) -> Answer:
    """Fall of the score [n, 1, H, W]: at each pixel the mean over the windows that cover it.

    The cover is the data's mean colour (zero after normalisation). Source: Zeiler and Fergus 2014, section 4.2.
    """
    import torch

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.question import Answer

    inputs = question.inputs
    height, width = inputs.shape[-2:]
    window, stride = _window({"window": window, "stride": stride}, height, width)
    places = [(y, x) for y in _starts(height, window, stride) for x in _starts(width, window, stride)]
    fall = torch.zeros(len(inputs), height, width, dtype=inputs.dtype, device=inputs.device)
    covers = torch.zeros(height, width, dtype=inputs.dtype, device=inputs.device)
    for y, x in places:
        covers[y : y + window, x : x + window] += 1
    with torch.inference_mode():
        clear = question.score()
        # One pass covers as many (input, place) pairs as it holds; inputs vary fastest, so that a map grows evenly.
        pairs = [(row, y, x) for y, x in places for row in range(len(inputs))]
        for first in range(0, len(pairs), question.per_pass):
            part = pairs[first : first + question.per_pass]
            rows = torch.tensor([row for row, _, _ in part], device=inputs.device)
            covered = inputs[rows]
            for i, (_, y, x) in enumerate(part):
                covered[i, :, y : y + window, x : x + window] = 0
            drops = clear[rows] - question.score_of(covered, rows)
            for (row, y, x), drop in zip(part, drops.unbind(), strict=True):
                fall[row, y : y + window, x : x + window] += drop
    fall /= covers
    notes = []
    for largest in fall.flatten(1).amax(dim=1).tolist():
        if largest > 0:
            notes.append(Note("good", f"falls by up to {largest:.2g}", largest, _WHY))
        else:
            notes.append(Note("degenerate", "no window supports the class" if largest == largest else "not finite: the score overflows", why=_NONE))
    return Answer(fall[:, None], fall, notes)
