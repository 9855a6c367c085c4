"""Carlini and Wagner's attack: the smallest change by optimisation, with a search for the weight of its two wishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.attack.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.attack.problem import Problem

_HALVINGS = 8  # of the way back towards the image


@register(
    "carlini_wagner",
    title="Carlini–Wagner",
    norm="l2",
    summary="Minimises the length of the change and the lead of the class at once, and searches the weight between the two; slow and strong.",
    paper="Carlini and Wagner, IEEE Symposium on Security and Privacy",
    year=2017,
    parameters=(
        Parameter("searches", "Weights tried", "integer", 6, "steps of the binary search for the weight", 1, 10),
        Parameter("steps", "Steps for each", "integer", 100, "steps of the optimiser at most for every weight", 1, 1000),
        Parameter("rate", "Learning rate", "number", 0.01, "of the optimiser (Adam)", 0.0001, 1.0),
        Parameter("weight", "First weight", "number", 0.1, "of fooling the network against keeping the change small", 0.00001, 1000.0),
        Parameter("confidence", "Confidence", "number", 0.0, "by how much the score of the class reached must win", 0.0, 100.0),
    ),
    passes=lambda parameters: parameters["searches"] * (2 * parameters["steps"] + 1) + _HALVINGS + 1,
)
def carlini_wagner(problem: Problem, *, searches: int, steps: int, rate: float, weight: float, confidence: float) -> None:
    """Minimise ‖x′ − x‖² + c · max(margin + κ, 0) with x′ = (tanh w + 1) / 2 by Adam (sections V and VI of the paper).

    For every c it stops early where the sum no longer falls by a part in ten thousand over a tenth of the steps. In the end each
    result goes back towards its image, on the straight line, as far as it still fools the network.
    """
    import torch

    from dnnviz.attack.problem import along, lengths

    count = len(problem.images)
    rows = problem.every
    # Black and white lie at infinity of tanh: a millionth inside.
    start = torch.atanh((2 * problem.images - 1) * 0.999999)
    origin = (torch.tanh(start) + 1) / 2
    low, high = torch.zeros_like(problem.best_length), torch.full_like(problem.best_length, torch.inf)
    weights = torch.full_like(low, weight)
    check = max(1, steps // 10)
    for _ in range(searches):
        place = start.clone()
        first, second = torch.zeros_like(place), torch.zeros_like(place)
        found = torch.zeros(count, dtype=torch.bool, device=rows.device)
        earlier = torch.full_like(low, torch.inf)
        for number in range(1, steps + 1):
            curve = torch.tanh(place)
            images = (curve + 1) / 2

            def lead(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
                return (problem.margin(logits, rows) + confidence).clamp_min(0)

            logits, gradient = problem.gradient(images, rows, lead)
            if number > 1:
                problem.step(rows, logits)
                found |= problem.keep(images, rows, logits, confidence=confidence)
            change = images - origin
            cost = lengths(change, "l2") ** 2 + weights * lead(logits, rows)
            if number % check == 0:
                if bool((cost > 0.9999 * earlier).all()):
                    break
                earlier = torch.minimum(earlier, cost)
            slope = (2 * change + along(weights) * gradient) * (1 - curve**2) / 2
            first = 0.9 * first + 0.1 * slope
            second = 0.999 * second + 0.001 * slope**2
            place = place - rate * (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
            problem.taken += 1
        else:
            images = (torch.tanh(place) + 1) / 2
            logits = problem.logits(images, rows)
            problem.step(rows, logits)
            found |= problem.keep(images, rows, logits, confidence=confidence)
        high = torch.where(found, weights, high)
        low = torch.where(found, low, weights)
        weights = torch.where(torch.isfinite(high), (low + high) / 2, 10 * weights)
    problem.shorten(_HALVINGS, confidence)
