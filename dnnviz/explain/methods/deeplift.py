"""DeepLIFT: the change of the score from a baseline, split over the pixels by the rescale rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    from dnnviz.explain.question import Answer, Question

_WHY = "Completeness: the map should add up to the change of the score from the baseline; the gap is what is missing."
_GAP = 0.05  # completeness error above which the map is no split of the score's change


@register(
    "deeplift",
    title="DeepLIFT",
    family="relevance",
    summary="How much each pixel's difference from a neutral picture changes the score, in one comparison; adds up to the whole change.",
    paper="Shrikumar, Greenside, Kundaje: Learning important features through propagating activation differences. ICML",
    year=2017,
    parameters=(
        Parameter(
            "baseline",
            "Baseline",
            "choice",
            "mean",
            "the neutral picture: the data's mean colour, black, or the input blurred",
            choices=("mean", "black", "blur"),
        ),
    ),
    passes=lambda parameters, shape: 2,
)
def deeplift(question: Question, *, baseline: str) -> Answer:
    """Contributions [n, C, H, W] by the rescale rule; heatmap: their sum over channels.

    One forward pass carries the input and its baseline, one backward pass the multipliers. The note gives the completeness gap:
    |sum − (score − score of the baseline)| over |score − score of the baseline|. Source: Shrikumar et al. 2017, section 3.5.
    """
    from dnnviz.explain.attribution import Note
    from dnnviz.explain.perturb import neutral
    from dnnviz.explain.question import Answer, gradient_note, percent
    from dnnviz.explain.rescale import Rescale, reference

    inputs = question.inputs
    start = neutral(question, baseline)
    with Rescale() as mode:
        leaf = mode.start(inputs, start)
        values, weights = question.read(leaf)
    scores, before = ((each * weights).flatten(1).sum(dim=1) for each in (values.detach(), reference(values)))
    if question.scores is None:
        question.scores = scores
    found = mode.propagated(leaf, values, weights) * (inputs - start)
    change = scores - before
    gaps = ((found.flatten(1).sum(dim=1) - change).abs() / change.abs().clamp(min=1e-12)).tolist()
    notes = [
        note if note.state != "good" else Note("good" if gap <= _GAP else "degenerate", f"gap {percent(gap)}", gap, _WHY)
        for note, gap in zip(gradient_note(found, ""), gaps, strict=True)
    ]
    return Answer(found, found.sum(dim=1), notes)
