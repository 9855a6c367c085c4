"""Layer-wise relevance propagation: the score handed back, layer by layer, to what made it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.question import Answer, Question

_RULES = ("epsilon-gamma-box", "epsilon-plus", "alpha2-beta1", "gamma", "epsilon")
_PASSES = {"epsilon": 1, "epsilon-plus": 2, "gamma": 2, "epsilon-gamma-box": 2, "alpha2-beta1": 3}
_EXACT = 0.05  # share of the score that the map may miss
_LEAST, _MOST = 0.1, 2.0  # shares of the score outside of which the map is no split of it
_WHY = "Relevance should add up to the score."
_BIASES = "Relevance should add up to the score; the biases of layers, those of batch norm above all, took part of it or added to it."
_LOST = "Relevance should add up to the score. Here most of it was lost or made up on the way: do not read the map as shares of the score."
_NOTHING = "All of the score comes from biases, or it is so small that the rules' denominators swallow it."


def _passes(parameters: dict[str, Any], shape: tuple[int, int, int]) -> int:
    """The rules beside epsilon evaluate every convolution again, with other weights."""
    return _PASSES[parameters["rule"]]


@register(
    "lrp",
    title="LRP",
    family="relevance",
    summary="The score handed back layer by layer to what contributed to it, until it lies on the pixels.",
    paper="Bach, Binder, Montavon et al.: On pixel-wise explanations by layer-wise relevance propagation. PLoS ONE",
    year=2015,
    parameters=(
        Parameter(
            "rule",
            "Rules",
            "choice",
            "epsilon-gamma-box",
            "how a layer splits relevance: box at the pixels, gamma in convolutions, epsilon in linear layers; or one of the others",
            choices=_RULES,
        ),
        Parameter("epsilon", "Epsilon", "number", 1e-6, "of the epsilon rule: relevance that weak contributions lose", low=1e-9, high=1.0),
        Parameter("gamma", "Gamma", "number", 0.25, "of the gamma rule: how much more contributions of the output's sign count", low=0.0, high=10.0),
    ),
    passes=_passes,
)
def lrp(question: Question, *, rule: str, epsilon: float, gamma: float) -> Answer:
    """Relevance of every input value [n, C, H, W]; heatmap: its sum over channels.

    The note compares the sum of the map with the score. Biases take part of the relevance, and so do denominators near zero.
    Sources: Bach et al. 2015; the composite of rules: Montavon et al. 2019, section 10.3.
    """
    from dnnviz.explain.question import Answer
    from dnnviz.explain.relevance import Relevance, Settings

    with Relevance(Settings(rule, epsilon, gamma)) as mode:
        leaf = mode.start(question.inputs, question.black, question.white)
        values, weights = question.read(leaf)
    relevance = (values * weights).detach()
    if question.scores is None:
        question.scores = relevance.flatten(1).sum(dim=1)
    found = mode.propagated(leaf, values, relevance)
    return Answer(found, found.sum(dim=1), _notes(found, question.scores))


def _notes(found: torch.Tensor, scores: torch.Tensor) -> list[Note]:
    """A Note an input: which share of its score the map adds up to."""
    from dnnviz.explain.attribution import Note
    from dnnviz.explain.question import gradient_note

    shares = (found.flatten(1).sum(dim=1) / scores.where(scores != 0, 1e-12)).tolist()
    notes = []
    for note, share in zip(gradient_note(found, ""), shares, strict=True):
        text, error = f"adds up to {_percent(share)} of score", abs(share - 1)
        if note.state != "good":
            notes.append(note if not math.isfinite(share) else Note("degenerate", "zero everywhere", why=_NOTHING))
        elif error <= _EXACT:
            notes.append(Note("good", text, error, _WHY))
        elif _LEAST <= share <= _MOST:
            notes.append(Note("warning", text, error, _BIASES))
        else:
            notes.append(Note("degenerate", text, error, _LOST))
    return notes


def _percent(share: float) -> str:
    """A share of the score as text; those near all of it with a decimal."""
    if abs(share) >= 10:
        return f"{'−' if share < 0 else ''}over 1000\u00a0%"
    return f"{100 * share:.{1 if abs(share - 1) < 0.1 else 0}f}\u00a0%".replace("-0\u00a0%", "0\u00a0%").replace("-", "−")
