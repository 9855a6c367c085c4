"""Occlusion: cover one window after another, and see how far the score falls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

from dnnviz.explain.perturb import FILL
from dnnviz.explain.registry import Shape, register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.question import Answer, Question

    Read = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_NOTES = {
    "score": {},
    "probability": {"why": "How far the probability of the class falls at most, averaged over the windows at a pixel."},
    "class": {
        "what": "class changes at {} %",
        "why": "The share of all windows under which the network names another class than for the clear picture; the map says where.",
        "none": ("the class never changes", "Under every window the network names the same class as for the clear picture."),
    },
    "activation": {
        "why": "How far the sum of the layer's activations falls at most, averaged over the windows at a pixel.",
        "none": ("no window lowers the activation", "Covering any part of the picture does not lower the layer's total activation."),
    },
}


def _window(parameters: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    """Window and stride in pixels; 0 stands for a seventh of the shorter side, and half the window."""
    window = min(parameters["window"] or max(2, round(min(height, width) / 7)), height, width)
    return window, min(parameters["stride"] or ceil(window / 2), window)


def _count(length: int, window: int, stride: int) -> int:
    return ceil((length - window) / stride) + 1


def _passes(parameters: Mapping[str, Any], shape: Shape) -> int:
    _, height, width = shape
    window, stride = _window(parameters, height, width)
    return _count(height, window, stride) * _count(width, window, stride)


@register(
    "occlusion",
    title="Occlusion",
    family="perturbation",
    summary="How far the score falls when a window of the picture is covered; blue where it rises.",
    paper="Zeiler, Fergus: Visualizing and understanding convolutional networks. ECCV",
    year=2014,
    parameters=(
        Parameter("window", "Window", "integer", 0, "side of the cover in pixels; 0: a seventh of the picture", low=0, high=512),
        Parameter("stride", "Stride", "integer", 0, "pixels between two places of the cover; 0: half the window", low=0, high=512),
        Parameter(
            "reading",
            "Reading",
            "choice",
            "score",
            "what is watched: the score, the probability of the class, whether the predicted class changes, or a layer's total activation",
            choices=("score", "probability", "class", "activation"),
        ),
        FILL,
    ),
    passes=_passes,
    layer_if=lambda parameters: parameters["reading"] == "activation",
)
def occlusion(question: Question, *, window: int, stride: int, reading: str, fill: str) -> Answer:
    """Fall of what is read [n, 1, H, W]: at each pixel the mean over the windows that cover it.

    reading: `score`; `probability` of the explained class (paper: figure 7 d; of two classes, the difference); `class`, 1 where
    the most probable class is another than for the clear picture, whatever is explained (figure 7 e), so the map is the
    share of the windows at a pixel that change it; `activation`, the sum of the layer's activations over units and places
    (figure 7 c, there of one feature map). Coarse to fine: places far apart come first, and stand for those between them
    until these are known. Source: Zeiler and Fergus 2014, section 4.2.
    """
    import torch

    from dnnviz.explain.perturb import blocks, clear_scores, fall_notes, neutral
    from dnnviz.explain.question import Answer

    inputs, blank = question.inputs, neutral(question, fill)
    height, width = inputs.shape[-2:]
    window, stride = _window({"window": window, "stride": stride}, height, width)
    tall, wide = (_covered(length, window, stride, inputs.device) for length in (height, width))
    places = _coarse_to_fine(len(tall), len(wide))
    clear_scores(question)
    found = inputs.new_zeros(len(inputs), len(tall), len(wide))
    down, across = tall.to(inputs.dtype), wide.to(inputs.dtype)
    covers = down.sum(dim=0)[:, None] * across.sum(dim=0)
    with torch.inference_mode(), _reader(question, reading) as (read, clear, layer):
        for first, last, rows in blocks(question, len(places)):
            part = places[first:last]
            _, y, x = torch.tensor(part, device=inputs.device).T
            cover = tall[y][:, :, None] & wide[x][:, None, :]
            covered = torch.where(cover[:, None, None], blank, inputs).flatten(0, 1)
            falls = (clear[rows] - read(covered, rows)).unflatten(0, (-1, len(inputs)))
            for (step, y, x), fall in zip(part, falls.unbind(), strict=True):
                found[:, y : y + step, x : x + step] = fall[:, None, None]
            heatmap = down.T @ found @ across / covers
            question.watch(last, len(places), heatmap)
    largest = 100 * found.flatten(1).mean(dim=1) if reading == "class" else heatmap.flatten(1).amax(dim=1)
    return Answer(heatmap[:, None], heatmap, fall_notes(largest, **_NOTES[reading]), layer)


def _covered(length: int, window: int, stride: int, device: torch.device) -> torch.Tensor:
    """bool [places, length]: the pixels along one side that a window covers."""
    import torch

    starts = torch.arange(_count(length, window, stride), device=device)[:, None] * stride
    pixels = torch.arange(length, device=device)
    return (pixels >= starts) & (pixels < starts + window)


def _coarse_to_fine(rows: int, columns: int) -> list[tuple[int, int, int]]:
    """(step, row, column) of all places, each once: those at multiples of the largest step first, then of half of it, down to 1."""
    step = 1
    while 4 * step < max(rows, columns):
        step *= 2
    largest, places = step, []
    while step:
        grid = [(step, y, x) for y in range(0, rows, step) for x in range(0, columns, step)]
        places += [place for place in grid if step == largest or place[1] % (2 * step) or place[2] % (2 * step)]
        step //= 2
    return places


@contextmanager
def _reader(question: Question, reading: str) -> Iterator[tuple[Read, torch.Tensor, str | None]]:
    """(read, clear, layer): how to read altered inputs (inputs [m, …], rows [m]) → [m], what is read of the clear ones [n], the layer used."""
    import torch

    from dnnviz.errors import DNNVizError
    from dnnviz.explain.maps import locate, removed_after
    from dnnviz.explain.network import first_tensor, scores

    logits = question.logits
    if reading == "score":
        yield question.score_of, question.scores, None
    elif reading == "probability":
        weights = question.classes_only("Occlusion that reads a probability")
        yield (
            lambda x, rows: (scores(question.model, x).softmax(dim=1) * weights[rows]).sum(dim=1),
            (logits.softmax(dim=1) * weights).sum(dim=1),
            None,
        )
    elif reading == "class":
        best = logits.argmax(dim=1)
        yield lambda x, rows: (scores(question.model, x).argmax(dim=1) == best[rows]).to(x.dtype), torch.ones_like(logits[:, 0]), None
    else:
        name, module, call = locate(question)
        seen: list[torch.Tensor] = []

        def keep(_module: torch.nn.Module, _inputs: object, output: object) -> None:
            # Summed at once: an in-place ReLU may overwrite the output.
            seen.append(first_tensor(output).flatten(1).sum(dim=1))

        def read(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            seen.clear()
            scores(question.model, x)
            if len(seen) < call or len(seen[call - 1]) != len(x):
                raise DNNVizError(f"{name} does not give one activation an input in its call {call}; choose another layer.")
            return seen[call - 1]

        with removed_after(module.register_forward_hook(keep)):
            yield read, read(question.inputs, torch.arange(len(question.inputs))), name
