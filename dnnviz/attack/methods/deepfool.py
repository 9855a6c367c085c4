"""DeepFool: straight to the nearest boundary of a network taken as linear, again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.attack.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.attack.problem import Problem


@register(
    "deepfool",
    title="DeepFool",
    norm="l2",
    summary="Looks for the nearest boundary: takes the network as linear around the image, steps just over its nearest edge, and repeats.",
    paper="Moosavi-Dezfooli et al., CVPR",
    year=2016,
    parameters=(
        Parameter("steps", "Steps at most", "integer", 50, "it stops as soon as the boundary is crossed", 1, 500),
        Parameter(
            "candidates", "Classes looked at", "integer", 10, "so many classes, the likeliest first, whose boundary may be the nearest", 2, 100
        ),
        Parameter("overshoot", "Overshoot", "number", 0.02, "by which share it goes further than to the boundary", 0.0, 1.0),
    ),
    passes=lambda parameters: parameters["steps"] * (parameters["candidates"] + 1) + 1,
)
def deepfool(problem: Problem, *, steps: int, candidates: int, overshoot: float) -> None:
    """r = |f_k − f_0| / ‖∇(f_k − f_0)‖² · ∇(f_k − f_0) for the nearest class k, summed over steps (algorithm 2 of the paper).

    With a target only the target's boundary counts.
    """
    import torch

    from dnnviz.attack.problem import along, lengths

    rows = problem.every[~problem.success]
    order = problem.best_logits.argsort(dim=1, descending=True)
    if problem.targeted:
        leaving, others = problem.before, problem.classes[:, None]
    else:
        leaving = problem.classes
        others = order[order != leaving[:, None]].reshape(len(order), -1)[:, : candidates - 1]
    total = torch.zeros_like(problem.images)
    images = problem.images[rows]
    for _ in range(steps):
        if not len(rows):
            return

        def gaps(logits: torch.Tensor, rows: torch.Tensor = rows) -> list[torch.Tensor]:
            own = logits.gather(1, leaving[rows][:, None])
            return list((logits.gather(1, others[rows]) - own).unbind(dim=1))

        logits, gradients = problem.jacobian(images, rows, gaps)
        size = torch.stack([lengths(gradient, "l2") for gradient in gradients], dim=1).clamp_min(1e-8)
        # A hair further than the boundary itself, where neither class wins.
        distance = (torch.stack(gaps(logits), dim=1).abs() / size) + 1e-4
        nearest = distance.argmin(dim=1)
        pick = torch.arange(len(rows), device=rows.device)
        direction = torch.stack(gradients, dim=1)[pick, nearest] / along(size[pick, nearest])
        total[rows] += along(distance[pick, nearest]) * direction
        images = (problem.images[rows] + (1 + overshoot) * total[rows]).clamp(0, 1)
        problem.taken += 1
        logits = problem.logits(images, rows)
        problem.step(rows, logits)
        reached = problem.keep(images, rows, logits)
        images, rows = images[~reached], rows[~reached]
