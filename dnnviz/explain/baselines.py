"""Neutral pictures that an input is compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dnnviz.errors import DNNVizError
from dnnviz.explain.question import Question


def baseline(question: Question, name: str, seed: int = 0) -> torch.Tensor:
    """[n, C, H, W]: the neutral picture called `name` for each of the question's inputs.

    mean: the data's mean colour (zero, after normalisation); black; blur: the input itself, blurred; noise: each pixel at random
    between black and white, the same picture for every input. Raises DNNVizError where there is no such name.
    """
    inputs = question.inputs
    if name == "mean":
        return torch.zeros_like(inputs)
    if name == "black":
        return question.black.expand_as(inputs).clone()
    if name == "blur":
        return blurred(inputs)
    if name == "noise":
        # Drawn on the processor, so that the picture is the same on every device.
        shares = torch.rand(inputs.shape[1:], generator=torch.Generator().manual_seed(seed)).to(inputs)
        return (question.black + shares * (question.white - question.black)).expand_as(inputs).clone()
    raise DNNVizError(f"The baseline is {name!r}; choose mean, black, blur or noise.")


def blurred(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs [n, C, H, W] under a Gaussian of a tenth of their shorter side, so that nothing in them can be recognised."""
    sigma = max(1.0, min(inputs.shape[-2:]) / 10)
    reach = min(int(2 * sigma), min(inputs.shape[-2:]) - 1)
    grid = torch.arange(-reach, reach + 1, dtype=inputs.dtype, device=inputs.device)
    kernel = torch.exp(-((grid / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(inputs.shape[1], 1, 1, -1)
    wide = F.pad(inputs, (reach, reach, reach, reach), mode="reflect")
    wide = F.conv2d(wide, kernel, groups=inputs.shape[1])
    return F.conv2d(wide, kernel.transpose(2, 3), groups=inputs.shape[1])
