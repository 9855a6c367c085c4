"""Projected gradient descent from a random start within a ball: in the largest change of a pixel, and in Euclidean length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnnviz.attack.registry import Norm, register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.attack.problem import Problem


def _register(name: str, title: str, norm: Norm, summary: str, size: float, highest: float, what: str, compute: Any) -> None:
    register(
        name,
        title=title,
        norm=norm,
        summary=summary,
        paper="Madry et al., ICLR",
        year=2018,
        parameters=(
            Parameter("epsilon", "Size", "number", size, what, 0.0, highest),
            Parameter("step", "Step, share of the size", "number", 0.1, "how far a step goes, in parts of the size", 0.001, 2.0),
            Parameter("steps", "Steps", "integer", 40, "at most so many from every start", 1, 1000),
            Parameter("random_start", "Random start", "flag", True, "begin at a random place within the size, not at the image itself"),
            Parameter("restarts", "Starts", "integer", 1, "so many starts for images that withstand", 1, 10),
            Parameter("stop", "Stop when reached", "flag", True, "stop at the first step that fools the network; otherwise go on and grow surer"),
            Parameter("seed", "Seed", "integer", 0, "of the random starts", 0, 2**31 - 1),
        ),
        passes=lambda parameters: (2 * parameters["steps"] + 1) * (parameters["restarts"] if parameters["random_start"] else 1) + 1,
    )(compute)


def random_start(problem: Problem, rows: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Images [m, C, H, W] spread evenly over the ball of size `epsilon` around the originals, clipped to valid pixels."""
    import torch

    from dnnviz.attack.problem import along, unit

    originals = problem.images[rows]

    def draw(function: Any, *shape: int) -> torch.Tensor:
        return function(shape, generator=problem.generator).to(originals)

    if problem.norm == "linf":
        changes = epsilon * (2 * draw(torch.rand, *originals.shape) - 1)
    else:
        # Evenly over the volume: the radius is distributed as the root, of the order of the dimensions, of a uniform number.
        radius = draw(torch.rand, len(rows)) ** (1 / originals[0].numel())
        changes = epsilon * along(radius) * unit(draw(torch.randn, *originals.shape))
    return (originals + changes).clamp(0, 1)


def pgd(problem: Problem, *, epsilon: float, step: float, steps: int, random_start: bool, restarts: int, stop: bool, seed: int) -> None:
    """x ← Π(x + step · direction of ∇ₓ loss), Π onto the ball and valid pixels (equation 2 of the paper); the sign in L∞, g/‖g‖₂ in L2."""
    from dnnviz.attack.problem import climb, unit, within

    def move(images: torch.Tensor, gradient: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        direction = gradient.sign() if problem.norm == "linf" else unit(gradient)
        return within(images + step * epsilon * direction, problem.images[rows], epsilon, problem.norm)

    rows = problem.every[~problem.success] if stop else problem.every
    for _ in range(restarts if random_start else 1):
        if not len(rows):
            return
        start = _starts(problem, rows, epsilon) if random_start else problem.images[rows]
        climb(problem, start, rows, steps, problem.cross_entropy, move, stop)
        rows = problem.every[~problem.success]


_starts = random_start  # the parameter of `pgd` has the same name

_register(
    "pgd",
    "Projected gradient descent (PGD)",
    "linf",
    "The standard test of robustness: small steps along the sign of the gradient from a random start; no pixel leaves its budget.",
    0.03,
    1.0,
    "by how much a pixel may change at most (black is 0, white is 1)",
    pgd,
)
_register(
    "pgd_l2",
    "Projected gradient descent, L2",
    "l2",
    "The same with a budget for the Euclidean length of the whole change.",
    0.5,
    100.0,
    "Euclidean length of the change at most, with pixels from 0 to 1",
    pgd,
)
