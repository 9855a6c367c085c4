"""SmoothGrad: the gradient, averaged over noisy copies of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.perturb import SEED
from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.question import Answer, Question


@register(
    "smoothgrad",
    title="SmoothGrad",
    family="gradient",
    summary="How strongly the score reacts to each pixel on average, seen through noise; calmer than the plain gradient.",
    paper="Smilkov, Thorat, Kim, Viégas, Wattenberg: SmoothGrad. arXiv",
    year=2017,
    parameters=(
        Parameter("samples", "Samples", "integer", 25, "noisy copies of the input; more make the map calmer", low=2, high=200),
        Parameter("noise", "Noise", "number", 0.15, "standard deviation of the noise, as a share of the input's range", low=0.01, high=1),
        Parameter(
            "reduce",
            "Average",
            "choice",
            "mean",
            "of the gradients (SmoothGrad), of their squares (SmoothGrad²), or their variance (VarGrad)",
            choices=("mean", "squares", "variance"),
        ),
        SEED,
    ),
    passes=lambda parameters, shape: parameters["samples"],
    signed=False,
)
def smoothgrad(question: Question, *, samples: int, noise: float, reduce: str, seed: int) -> Answer:
    """Mean, mean square or variance of the gradients of noisy copies [n, C, H, W]; heatmap: the channel of largest magnitude.

    All inputs get the same noise, scaled by their own range (largest less least value). The note says how well
    the map would repeat with other noise. Source: Smilkov et al. 2017, section 3; VarGrad: Adebayo et al.: Local
    explanation methods for deep neural networks lack sensitivity to parameter values. ICLR workshop, 2018.
    """
    import torch

    from dnnviz.explain.perturb import blocks, clear_scores, repeat_notes
    from dnnviz.explain.question import Answer

    inputs = question.inputs
    clear_scores(question)
    flat = inputs.flatten(1)
    spread = noise * (flat.amax(dim=1) - flat.amin(dim=1)).reshape(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    halves = [_Sums(reduce, inputs) for _ in range(2)]
    for first, last, rows in blocks(question, samples):
        # One draw a sample, so that the noise depends on nothing but the seed and the size of the picture.
        drawn = torch.stack([torch.randn(inputs.shape[1:], generator=generator) for _ in range(first, last)]).to(inputs)
        noisy = (inputs + spread * drawn[:, None]).flatten(0, 1).requires_grad_()
        gradient = torch.autograd.grad(question.score_of(noisy, rows).sum(), noisy)[0].unflatten(0, (-1, len(inputs)))
        for sample in range(first, last):
            halves[sample % 2].add(gradient[sample - first])
        question.watch(last, samples, _strongest((halves[0] + halves[1]).reduced()))
    values = (halves[0] + halves[1]).reduced()
    return Answer(values, _strongest(values), repeat_notes(*(_strongest(half.reduced()) for half in halves)))


class _Sums:
    """Sums over gradients [n, C, H, W], as far as the reduction needs them."""

    def __init__(self, reduce: str, like: torch.Tensor) -> None:
        self.reduce = reduce
        self.count = 0
        self.first = like.new_zeros(like.shape)
        self.second = like.new_zeros(like.shape if reduce != "mean" else ())

    def add(self, gradient: torch.Tensor) -> None:
        self.count += 1
        self.first += gradient
        if self.reduce != "mean":
            self.second += gradient * gradient

    def __add__(self, other: _Sums) -> _Sums:
        both = _Sums(self.reduce, self.second)
        both.count, both.first, both.second = self.count + other.count, self.first + other.first, self.second + other.second
        return both

    def reduced(self) -> torch.Tensor:
        mean, square = self.first / max(self.count, 1), self.second / max(self.count, 1)
        if self.reduce == "mean":
            return mean
        return square if self.reduce == "squares" else (square - mean * mean).clamp(min=0)


def _strongest(values: torch.Tensor) -> torch.Tensor:
    return values.abs().amax(dim=1)
