"""Fast gradient sign method: one step along the sign of the loss's gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.attack.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    from dnnviz.attack.problem import Problem


@register(
    "fgsm",
    title="Fast gradient sign (FGSM)",
    norm="linf",
    summary="Changes every pixel by the same amount, up or down, whichever raises the loss: one step.",
    paper="Goodfellow et al., ICLR",
    year=2015,
    parameters=(Parameter("epsilon", "Size", "number", 0.03, "by how much every pixel changes (black is 0, white is 1)", 0.0, 1.0),),
    passes=lambda parameters: 4,
)
def fgsm(problem: Problem, *, epsilon: float) -> None:
    """x + ε · sign(∇ₓ loss) (equation in section 4 of the paper)."""
    from dnnviz.attack.problem import climb, within

    climb(
        problem,
        problem.images,
        problem.every,
        1,
        problem.cross_entropy,
        lambda images, gradient, rows: within(images + epsilon * gradient.sign(), problem.images[rows], epsilon, "linf"),
        stop=False,
    )
