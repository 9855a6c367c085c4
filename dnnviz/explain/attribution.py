"""Ask a network what a class score depends on: one function over all methods."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dnnviz.explain.registry import find

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Note:
    """How far to believe one map.

    state: `good`; `warning` (a promise of the method is held badly); `degenerate` (the map does not show what its name says).
    text: a few words with the number behind it. value: that number, where there is one. why: what it means, a sentence.
    """

    state: Literal["good", "warning", "degenerate"]
    text: str
    value: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Attribution:
    """Maps of one method for a batch of n inputs.

    values: float32, as the method defines it: [n, C, H, W] or [n, 1, h, w].
    heatmap: float32 [n, H, W] at the input's resolution; never scaled.
    targets: int64 [n], the class explained for each input. logits: float32 [n, K], the network's output.
    notes: one Note an input. layer: name of the layer explained by, where the method uses one. seconds: time taken.
    """

    method: str
    parameters: dict[str, Any]
    values: np.ndarray
    heatmap: np.ndarray
    targets: np.ndarray
    logits: np.ndarray
    notes: tuple[Note, ...]
    layer: str | None
    seconds: float

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [n, K]: softmax of the logits."""
        shifted = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)


def attribute(
    model: torch.nn.Module,
    inputs: torch.Tensor | np.ndarray,
    method: str,
    target: int | Sequence[int] | np.ndarray | torch.Tensor | None = None,
    layer: str | torch.nn.Module | None = None,
    **params: Any,
) -> Attribution:
    """Explain the score (logit) of a class for every input.

    inputs: what the network takes, [n, C, H, W], or [C, H, W] for one input.
    target: a class for all inputs, one for each, or None for the class the network predicts.
    layer: name of a module (or the module itself) whose own output the method uses; `name#2` is its second call in a pass.
    None chooses the last feature map before pooling. Methods that use no layer ignore it.
    params: parameters of the method (see METHODS[method].parameters).

    The network runs in eval mode and is left as it was: mode, hooks, gradients and state_dict.
    Raises DNNVizError with a sentence where the method, a parameter, the target or the layer does not fit.
    """
    description = find(method)
    parameters = description.resolve(params)
    # torch is imported here, so that the web process can read METHODS without it.
    from dnnviz.explain.question import ask

    started = time.perf_counter()
    answers = ask(model, inputs, target, layer, description, parameters)
    return Attribution(
        method=method,
        parameters=parameters,
        values=np.concatenate([answer.values for answer in answers]),
        heatmap=np.concatenate([answer.heatmap for answer in answers]),
        targets=np.concatenate([answer.targets for answer in answers]),
        logits=np.concatenate([answer.logits for answer in answers]),
        notes=tuple(note for answer in answers for note in answer.notes),
        layer=answers[0].layer,
        seconds=time.perf_counter() - started,
    )
