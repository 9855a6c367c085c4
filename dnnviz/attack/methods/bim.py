"""Basic iterative method: the fast gradient sign method in small steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.attack.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    from dnnviz.attack.problem import Problem


@register(
    "bim",
    title="Basic iterative method",
    norm="linf",
    summary="Fast gradient sign in small steps, each from where the last one led; no pixel leaves its budget.",
    paper="Kurakin et al., ICLR workshop 2017, arXiv",
    year=2016,
    parameters=(
        Parameter("epsilon", "Size", "number", 0.03, "by how much a pixel may change at most (black is 0, white is 1)", 0.0, 1.0),
        Parameter("step", "Step", "number", 0.004, "by how much every pixel changes in a step (1/255 is 0.004)", 0.00001, 1.0),
        Parameter("steps", "Steps", "integer", 20, "at most so many", 1, 1000),
        Parameter("stop", "Stop when reached", "flag", True, "stop at the first step that fools the network; otherwise go on and grow surer"),
    ),
    passes=lambda parameters: 2 * parameters["steps"] + 2,
)
def bim(problem: Problem, *, epsilon: float, step: float, steps: int, stop: bool) -> None:
    """x ← clip(x + step · sign(∇ₓ loss)) to the budget and to valid pixels (equation in section 2.2 of the paper)."""
    from dnnviz.attack.problem import climb, within

    climb(
        problem,
        problem.images,
        problem.every,
        steps,
        problem.cross_entropy,
        lambda images, gradient, rows: within(images + step * gradient.sign(), problem.images[rows], epsilon, "linf"),
        stop,
    )
