"""Put a question to methods, batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dnnviz.errors import DNNVizError
from dnnviz.explain.attribution import Note
from dnnviz.explain.maps import share_pass
from dnnviz.explain.network import undisturbed
from dnnviz.explain.objectives import ClassObjective, LayerObjective
from dnnviz.explain.question import Answer, Question, Watch, images_per_pass
from dnnviz.explain.registry import Method
from dnnviz.explain.targets import LayerTarget, as_targets


@dataclass
class Part:
    """Answer of one method for a batch, as numpy arrays."""

    values: np.ndarray
    heatmap: np.ndarray
    targets: np.ndarray
    against: np.ndarray
    logits: np.ndarray
    scores: np.ndarray
    notes: list[Note]
    layer: str | None


def ask(
    model: torch.nn.Module,
    inputs: torch.Tensor | np.ndarray,
    target: Any,
    layer: str | torch.nn.Module | None,
    methods: Mapping[str, tuple[Method, Mapping[str, Any]]],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    watch: Callable[[str, int, int, np.ndarray | None], object] | None,
    each: Callable[[str, Part], object],
) -> None:
    """Put the question to methods in batches, and hand every part of an answer to `each`; see `dnnviz.explain.attribute_all`."""
    with undisturbed(model):
        batch, done = _as_batch(inputs), 0
        for question in questions(model, batch, target, mean, std):
            question.layer = layer
            families = {method.family for method, _ in methods.values()}
            if "gradient" in families and any(method.needs_layer for method, _ in methods.values()):
                # One forward pass serves the gradients of the input and those of the layer; where there is no layer, its methods say so.
                with contextlib.suppress(DNNVizError):
                    layer = share_pass(question)
            for name, (method, parameters) in methods.items():
                if watch is not None:
                    question.watch = _watch(watch, name, done, len(question.inputs), len(batch))
                answer: Answer = method.compute(question, **parameters)
                if question.scores is None:
                    with torch.no_grad():
                        question.score()
                each(
                    name,
                    Part(
                        _as_numpy(answer.values),
                        _as_numpy(answer.heatmap),
                        question.targets.cpu().numpy(),
                        question.objective.against,
                        _as_numpy(question.logits),
                        _as_numpy(question.scores),
                        answer.notes,
                        answer.layer,
                    ),
                )
                if method.uses_layer(parameters):
                    # The next batch looks at the same layer without searching for it.
                    layer = answer.layer or layer
            done += len(question.inputs)


def questions(
    model: torch.nn.Module,
    inputs: torch.Tensor | np.ndarray,
    target: Any,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Iterator[Question]:
    """A question for each batch that one pass holds, on the network's device; arguments as of `dnnviz.explain.attribute`."""
    batch = _as_batch(inputs)
    targets = as_targets(target, len(batch))
    first = next(iter(model.parameters()), None)
    device = first.device if first is not None else batch.device
    dtype = first.dtype if first is not None and first.is_floating_point() else torch.float32
    size = images_per_pass(batch)
    # Of all inputs, so that nothing depends on how they are cut into batches.
    ends = [end.to(device, dtype) for end in _range(batch, mean, std)]
    for start in range(0, len(batch), size):
        part, wanted = batch[start : start + size].to(device, dtype), targets[start : start + size]
        one = wanted[0]
        objective = LayerObjective(model, part, one) if isinstance(one, LayerTarget) else ClassObjective(wanted)
        yield Question(model, part, objective, None, *ends)


def _watch(watch: Callable[[str, int, int, np.ndarray | None], object], name: str, start: int, batch: int, count: int) -> Watch:
    def told(done: int, total: int, heatmap: torch.Tensor | None = None) -> object:
        return watch(name, start * total + batch * done, count * total, None if heatmap is None else _as_numpy(heatmap))

    return told


def _range(inputs: torch.Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Black and white as the network sees them, [C, 1, 1]: from the normalisation, otherwise the least and the largest value there is."""
    if mean is None or std is None:
        flat = inputs.transpose(0, 1).flatten(1)
        return flat.amin(dim=1)[:, None, None], flat.amax(dim=1)[:, None, None]
    middle, spread = (torch.as_tensor(np.asarray(v), dtype=inputs.dtype, device=inputs.device).reshape(-1, 1, 1) for v in (mean, std))
    if middle.shape[0] not in (1, inputs.shape[1]) or spread.shape[0] not in (1, inputs.shape[1]):
        raise DNNVizError(f"mean and std have {middle.shape[0]} and {spread.shape[0]} values; the inputs have {inputs.shape[1]} channels.")
    shape = (inputs.shape[1], 1, 1)
    return (-middle / spread).expand(shape), ((1 - middle) / spread).expand(shape)


def _as_batch(inputs: torch.Tensor | np.ndarray) -> torch.Tensor:
    batch = torch.as_tensor(inputs).detach()
    if batch.ndim == 3:
        batch = batch[None]
    if batch.ndim != 4 or len(batch) == 0:
        raise DNNVizError(f"The inputs have shape {list(batch.shape)}; attributions take images of shape [n, C, H, W] with n at least 1.")
    # Tensors made in inference mode cannot take part in a gradient; a clone outside of it can.
    return batch.clone() if batch.is_inference() else batch


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())
