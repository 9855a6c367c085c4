"""Gradient ascent on the score of a class: how the effect is taught, and found first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.attack.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.attack.problem import Problem


@register(
    "gradient_ascent",
    title="Gradient ascent to a class",
    norm="l2",
    summary="Steps of one length along the gradient of a class's score, until the network names the class (without a target: the runner-up).",
    paper="Szegedy et al., ICLR; in this form in Stanford's course CS231n",
    year=2014,
    parameters=(
        Parameter("step", "Length of a step", "number", 0.1, "Euclidean length of each step, with pixels from 0 to 1", 0.001, 10.0),
        Parameter("steps", "Steps at most", "integer", 100, "it stops as soon as the class is reached", 1, 1000),
    ),
    passes=lambda parameters: 2 * parameters["steps"] + 2,
)
def gradient_ascent(problem: Problem, *, step: float, steps: int) -> None:
    """x ← x + step · g / ‖g‖₂ with g the gradient of the class's logit, without a budget."""
    from dnnviz.attack.problem import climb, unit

    goal = problem.classes
    if not problem.targeted:
        goal = problem.best_logits.scatter(1, problem.classes[:, None], -float("inf")).argmax(dim=1)

    def score(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return logits.gather(1, goal[rows][:, None])[:, 0]

    rows = problem.every[~problem.success]
    climb(problem, problem.images[rows], rows, steps, score, lambda images, gradient, _: (images + step * unit(gradient)).clamp(0, 1), stop=True)
