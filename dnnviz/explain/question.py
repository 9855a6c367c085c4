"""What every method is given and gives back: a batch of inputs, their targets, and the network that scores them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dnnviz.errors import DNNVizError
from dnnviz.explain.attribution import Note
from dnnviz.explain.registry import Method

# Pixels of one pass: 16 images of 224 × 224. More is no faster on a processor, and memory grows with it.
_PIXELS_PER_PASS = 16 * 224 * 224
_MOST_PER_PASS = 256


@dataclass
class Question:
    """A batch of inputs and the class score asked about.

    inputs: [n, C, H, W] on the network's device. targets: int64 [n]; None until `score()` finds the predicted classes.
    layer: as the user gave it. logits: [n, K], known after `score()`.
    """

    model: torch.nn.Module
    inputs: torch.Tensor
    targets: torch.Tensor | None
    layer: str | torch.nn.Module | None
    logits: torch.Tensor | None = field(default=None, init=False)

    @property
    def per_pass(self) -> int:
        """Images that a pass should hold at once."""
        height, width = self.inputs.shape[-2:]
        return max(1, min(_MOST_PER_PASS, _PIXELS_PER_PASS // (height * width)))

    def score(self, inputs: torch.Tensor | None = None) -> torch.Tensor:
        """[n]: logit of the target for each of the question's own inputs (or the same inputs with gradients to follow).

        The first call also fixes the targets, where the predicted class is asked about, and keeps the logits.
        """
        logits = scores(self.model, self.inputs if inputs is None else inputs)
        if self.logits is None:
            self.logits = logits.detach()
            self.targets = _fit_targets(self.targets, self.logits)
        return logits.gather(1, self.targets[:, None])[:, 0]

    def score_of(self, inputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[m]: logit of the target for inputs derived from the question's: inputs[j] belongs to row rows[j]. Needs `score()` first."""
        return scores(self.model, inputs).gather(1, self.targets[rows][:, None])[:, 0]

    def gradient(self) -> torch.Tensor:
        """[n, C, H, W]: gradient of each input's score with respect to that input."""
        inputs = self.inputs.detach().clone().requires_grad_()
        # The network scores each input by itself (eval mode), so the gradient of the sum is the gradient of each.
        return torch.autograd.grad(self.score(inputs).sum(), inputs)[0]


@dataclass
class Answer:
    """What a method gives back for a batch: values and heatmap as Attribution has them (tensors), a Note an input, the layer used."""

    values: torch.Tensor
    heatmap: torch.Tensor
    notes: list[Note]
    layer: str | None = None


@dataclass
class _Part:
    values: np.ndarray
    heatmap: np.ndarray
    targets: np.ndarray
    logits: np.ndarray
    notes: list[Note]
    layer: str | None


def ask(
    model: torch.nn.Module,
    inputs: torch.Tensor | np.ndarray,
    target: int | Sequence[int] | np.ndarray | torch.Tensor | None,
    layer: str | torch.nn.Module | None,
    method: Method,
    parameters: dict[str, Any],
) -> list[_Part]:
    """Put the question to a method in batches; see `dnnviz.explain.attribute`."""
    batch = _as_batch(inputs)
    targets = _as_targets(target, len(batch))
    first = next(iter(model.parameters()), None)
    device = first.device if first is not None else batch.device
    dtype = first.dtype if first is not None and first.is_floating_point() else torch.float32
    parts = []
    with undisturbed(model):
        size = Question(model, batch, None, layer).per_pass
        for start in range(0, len(batch), size):
            rows = slice(start, start + size)
            chosen = None if targets is None else targets[rows].to(device)
            question = Question(model, batch[rows].to(device, dtype), chosen, layer)
            answer: Answer = method.compute(question, **parameters)
            parts.append(
                _Part(
                    _as_numpy(answer.values),
                    _as_numpy(answer.heatmap),
                    question.targets.cpu().numpy(),
                    _as_numpy(question.logits),
                    answer.notes,
                    answer.layer,
                )
            )
            layer = answer.layer or layer
    return parts


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
        raise DNNVizError("The network does not give one row of class scores for each input; attributions explain such scores.")
    return output


def gradient_note(values: torch.Tensor, text: str, why: str = "") -> list[Note]:
    """A Note an input: `text` and `why`, or degenerate where the map is zero everywhere or not finite."""
    flat = values.detach().flatten(1)
    peaks = torch.nan_to_num(flat.abs().amax(dim=1), nan=float("inf")).tolist()
    return [
        Note("degenerate", "not finite: the score overflows")
        if peak == float("inf")
        else Note("good", text, why=why)
        if peak > 0
        else Note("degenerate", "zero everywhere: the score does not depend on the input")
        for peak in peaks
    ]


def _as_batch(inputs: torch.Tensor | np.ndarray) -> torch.Tensor:
    batch = torch.as_tensor(inputs).detach()
    if batch.ndim == 3:
        batch = batch[None]
    if batch.ndim != 4 or len(batch) == 0:
        raise DNNVizError(f"The inputs have shape {list(batch.shape)}; attributions take images of shape [n, C, H, W] with n at least 1.")
    # Tensors made in inference mode cannot take part in a gradient; a clone outside of it can.
    return batch.clone() if batch.is_inference() else batch


def _as_targets(target: int | Sequence[int] | np.ndarray | torch.Tensor | None, count: int) -> torch.Tensor | None:
    if target is None:
        return None
    targets = torch.as_tensor(target).detach().cpu().reshape(-1)
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise DNNVizError(f"The target is {target!r}; it must be the number of a class, one for each input, or None for the predicted class.")
    if len(targets) not in (1, count):
        raise DNNVizError(f"There are {len(targets)} targets for {count} inputs; give one class, or one for each input.")
    return targets.long().expand(count).clone()


def _fit_targets(targets: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor:
    if targets is None:
        return logits.argmax(dim=1)
    wrong = targets[(targets < 0) | (targets >= logits.shape[1])]
    if len(wrong):
        raise DNNVizError(f"The target is class {int(wrong[0])}; this network has classes 0 to {logits.shape[1] - 1}.")
    return targets


def _as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())
