"""Ask a network what a class score depends on: one function over all methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
    targets: int64 [n], the class explained for each input, -1 where it is no class. against: int64 [n], the class it is set
    against, negative where none is. logits: float32 [n, K], the network's output. scores: float32 [n], what is explained.
    notes: one Note an input. layer: name of the layer explained by, where the method uses one. seconds: time taken.
    """

    method: str
    parameters: dict[str, Any]
    values: np.ndarray
    heatmap: np.ndarray
    targets: np.ndarray
    against: np.ndarray
    logits: np.ndarray
    scores: np.ndarray
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
    target: Any = None,
    layer: str | torch.nn.Module | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    watch: Callable[[str, int, int, np.ndarray | None], object] | None = None,
    **params: Any,
) -> Attribution:
    """Explain the score (logit) of a class for every input.

    inputs: what the network takes, [n, C, H, W], or [C, H, W] for one input.
    target: a class for all inputs, one for each, or None for the class the network predicts; also a text as in
    `dnnviz.explain.targets` (`class:3-class:5`, `unit:layer4:12`, …), a ClassTarget or a LayerTarget, or a list of them.
    layer: name of a module (or the module itself) whose own output the method uses; `name#2` is its second call in a pass.
    None chooses the last feature map before pooling. Methods that use no layer ignore it.
    mean, std: normalisation of the inputs, so that methods know black and white; without it the range of the inputs counts.
    watch: (method, done, total, maps of the present batch as far as they are known) while it works.
    params: parameters of the method (see METHODS[method].parameters).

    The network runs in eval mode and is left as it was: mode, hooks, gradients and state_dict.
    Raises DNNVizError with a sentence where the method, a parameter, the target or the layer does not fit.
    """
    return attribute_all(model, inputs, {method: params}, target, layer, mean=mean, std=std, watch=watch)[method]


def attribute_all(
    model: torch.nn.Module,
    inputs: torch.Tensor | np.ndarray,
    methods: Mapping[str, Mapping[str, Any]],
    target: Any = None,
    layer: str | torch.nn.Module | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    watch: Callable[[str, int, int, np.ndarray | None], object] | None = None,
) -> dict[str, Attribution]:
    """Explain by several methods at once, {name: parameters}; those that can share a forward pass do. Otherwise as `attribute`."""
    chosen = {name: (find(name), find(name).resolve(given)) for name, given in methods.items()}
    # torch is imported here, so that the web process can read METHODS without it.
    from dnnviz.explain.ask import Part, ask

    parts: dict[str, list[Part]] = {name: [] for name in chosen}
    seconds = dict.fromkeys(chosen, 0.0)
    last = time.perf_counter()

    def keep(name: str, part: Part) -> None:
        nonlocal last
        now = time.perf_counter()
        parts[name].append(part)
        seconds[name] += now - last
        last = now

    ask(model, inputs, target, layer, chosen, mean, std, watch, keep)

    def joined(name: str, what: str) -> np.ndarray:
        return np.concatenate([getattr(part, what) for part in parts[name]])

    return {
        name: Attribution(
            method=name,
            parameters=parameters,
            **{what: joined(name, what) for what in ("values", "heatmap", "targets", "against", "logits", "scores")},
            notes=tuple(note for part in parts[name] for note in part.notes),
            layer=parts[name][0].layer,
            seconds=seconds[name],
        )
        for name, (_, parameters) in chosen.items()
    }
