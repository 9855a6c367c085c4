"""What methods that evaluate many altered inputs share: the pictures that say nothing, passes of even size, notes. No torch at import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.question import Question

FILL = Parameter(
    "fill",
    "Cover",
    "choice",
    "mean",
    "what covered parts show: the data's mean colour, black, or the input blurred",
    choices=("mean", "black", "blur"),
)
SEGMENTS = Parameter("segments", "Superpixels", "integer", 50, "about how many pieces the picture is cut into (SLIC)", low=2, high=400)
SEED = Parameter("seed", "Seed", "integer", 0, "another number draws other random ones", low=0, high=9999)

_REPEATS = 0.5  # correlation with a map from other random numbers below which a map is marked
_WHY = "The correlation to expect with a map from other random numbers, judged from the two halves of the samples; more samples bring it nearer to 1."
_FALL = "How far the score falls at most when one part is covered; where windows overlap, the mean over those at a pixel."


def neutral(question: Question, kind: str) -> torch.Tensor:
    """A picture that says nothing, of the inputs' shape or one that spreads to it.

    kind: `mean` (zero, the data's mean colour), `black`, `blur` (the inputs, a Gaussian of a tenth of the shorter side) or
    `noise` (uniform between black and white, always the same draw).
    """
    import torch

    from dnnviz.explain.baselines import blurred

    inputs = question.inputs
    if kind == "mean":
        return torch.zeros_like(inputs)
    if kind == "black":
        return question.black.expand_as(inputs)
    if kind == "blur":
        return question.once("blurred", lambda: blurred(inputs))
    drawn = torch.rand(inputs.shape[1:], generator=torch.Generator().manual_seed(0)).to(inputs)
    return (question.black + (question.white - question.black) * drawn).expand_as(inputs)


def clear_scores(question: Question) -> torch.Tensor:
    """[n]: scores of the inputs as they are, from an earlier method where there was one."""
    import torch

    if question.scores is None:
        # Not in inference mode: what the first score fixes takes part in the gradients of later methods.
        with torch.no_grad():
            question.score()
    return question.scores


def blocks(question: Question, count: int) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Cut `count` alterations of every input into passes: (first, last, rows), rows int64 [(last − first) · n].

    A pass takes the alterations first … last − 1, each of all n inputs, inputs varying fastest, so that all maps grow evenly.
    """
    import torch

    n = len(question.inputs)
    size = max(1, question.per_pass // n)
    rows = torch.arange(n, device=question.inputs.device)
    for first in range(0, count, size):
        last = min(first + size, count)
        yield first, last, rows.repeat(last - first)


def fall_notes(
    largest: torch.Tensor,
    what: str = "falls by up to {}",
    why: str = _FALL,
    none: tuple[str, str] = ("no part supports the score", "Covering any part of the picture does not lower the score."),
) -> list[Note]:
    """A Note an input from the largest fall [n]: `what` with that number and `why`, degenerate (`none`: text and why) where nothing falls."""
    from dnnviz.explain.attribution import Note

    notes = []
    for value in largest.tolist():
        if value > 0:
            notes.append(Note("good", what.format(f"{value:.0f}" if value >= 10 else f"{value:.2g}"), value, why))
        else:
            text, reason = none if value == value else ("not finite: the score overflows", "")
            notes.append(Note("degenerate", text, why=reason))
    return notes


def repeat_notes(first: torch.Tensor, second: torch.Tensor) -> list[Note]:
    """A Note an input: how well the map would repeat, from maps [n, …] of the two halves of the samples.

    Two halves that correlate by r make wholes that correlate by 2r / (1 + r) (Spearman and Brown, 1910).
    """
    from dnnviz.explain.attribution import Note
    from dnnviz.explain.question import gradient_note

    a, b = (half.flatten(1).double() for half in (first, second))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    halves = ((a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-300)).clamp(min=0)
    return [
        note if note.state != "good" else Note("good" if value >= _REPEATS else "warning", f"repeats to {value:.2f}", value, _WHY)
        for note, value in zip(gradient_note(first.abs() + second.abs(), ""), (2 * halves / (1 + halves)).tolist(), strict=True)
    ]
