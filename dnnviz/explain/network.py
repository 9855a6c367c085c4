"""Run a network whose scores are explained, and leave it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from dnnviz.errors import DNNVizError


def first_tensor(output: Any) -> torch.Tensor:
    """A module's output, or the first of several (attention gives its weights, too)."""
    return output if isinstance(output, torch.Tensor) else output[0]


def with_first(output: Any, tensor: torch.Tensor) -> Any:
    """A module's output with another tensor in the place of the first."""
    return tensor if isinstance(output, torch.Tensor) else type(output)((tensor, *output[1:]))


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Run a network in eval mode with gradients allowed, and give it back in the mode it was in, each module by itself."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        # A caller may sit in inference_mode or no_grad; attributions need gradients all the same.
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module in training:
            module.training = True


def scores(model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """[n, K]: the network's logits; raises DNNVizError where it does not give one row of scores an input."""
    try:
        output = model(inputs)
    except (RuntimeError, ValueError) as error:
        raise DNNVizError(f"The network cannot take inputs of shape {list(inputs.shape)}: {str(error).splitlines()[0]}") from error
    if not isinstance(output, torch.Tensor):
        output = getattr(output, "logits", None)
    if output is None or output.ndim != 2 or len(output) != len(inputs):
        raise DNNVizError("The network does not give one row of class scores for each input, which is what is looked into here.")
    return output
