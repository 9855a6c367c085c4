"""Feature ablation: cover one superpixel after another, and see how far the score falls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.perturb import FILL, SEGMENTS
from dnnviz.explain.registry import register

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question


@register(
    "feature_ablation",
    title="Superpixel ablation",
    family="perturbation",
    summary="How far the score falls when a piece of the picture that hangs together is covered; blue where it rises.",
    paper="Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk: SLIC superpixels. PAMI",
    year=2012,
    parameters=(SEGMENTS, FILL),
    passes=lambda parameters, shape: min(parameters["segments"], shape[1] * shape[2]),
)
def feature_ablation(question: Question, *, segments: int, fill: str) -> Answer:
    """Fall of the score when the superpixel of a pixel is covered [n, 1, H, W].

    As occlusion (Zeiler and Fergus 2014, section 4.2), over the superpixels of Achanta et al. instead of windows.
    """
    import torch

    from dnnviz.explain.perturb import blocks, clear_scores, fall_notes, neutral
    from dnnviz.explain.question import Answer
    from dnnviz.explain.superpixels import superpixels

    inputs, blank = question.inputs, neutral(question, fill)
    clear = clear_scores(question)
    pieces, counts = superpixels(question, segments)
    count = int(counts.max())
    falls = torch.zeros(len(inputs), count, dtype=inputs.dtype, device=inputs.device)
    heatmap = falls.new_zeros(pieces.shape)
    with torch.inference_mode():
        for first, last, rows in blocks(question, count):
            piece = torch.arange(first, last, device=inputs.device).repeat_interleave(len(inputs))
            # Pictures have different numbers of pieces.
            some = piece < counts[rows]
            piece, rows = piece[some], rows[some]
            covered = torch.where((pieces[rows] == piece[:, None, None])[:, None], blank[rows], inputs[rows])
            falls[rows, piece] = clear[rows] - question.score_of(covered, rows)
            heatmap = falls.gather(1, pieces.flatten(1)).reshape(pieces.shape)
            question.watch(last, count, heatmap)
    return Answer(heatmap[:, None], heatmap, fall_notes(heatmap.flatten(1).amax(dim=1)))
