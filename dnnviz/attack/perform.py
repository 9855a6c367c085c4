"""Attack images by one method: one function over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dnnviz.attack.registry import find
from dnnviz.errors import DNNVizError

if TYPE_CHECKING:
    import torch

    from dnnviz.attack.problem import Problem

_PIXELS_AT_ONCE = 128 * 32 * 32
_TOLERANCE = 1e-3  # by which pixels may lie outside 0 to 1 from rounding


@dataclass(frozen=True)
class Outcome:
    """What an attack did to n images.

    adversarial: float32 [n, C, H, W], valid pixels from 0 to 1; where the goal was not reached, the last image tried.
    success: bool [n]. before, after: int64 [n], classes predicted. linf, l2: float32 [n], size of the change; l0: float32 [n],
    share of the pixels that changed. probabilities: float32 [steps + 1, n, K] with history, otherwise [2, n, K], before and after.
    steps: int64 [n], after how many the result was found. evaluations, gradients: int64 [n], passes forward and back.
    """

    method: str
    parameters: dict[str, Any]
    adversarial: np.ndarray
    success: np.ndarray
    before: np.ndarray
    after: np.ndarray
    linf: np.ndarray
    l2: np.ndarray
    l0: np.ndarray
    probabilities: np.ndarray
    steps: np.ndarray
    evaluations: np.ndarray
    gradients: np.ndarray
    seconds: float


def attack(
    model: torch.nn.Module,
    images: torch.Tensor | np.ndarray,
    method: str,
    labels: Sequence[int] | np.ndarray | torch.Tensor | None = None,
    targets: int | Sequence[int] | np.ndarray | torch.Tensor | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    watch: Callable[[int, int], object] | None = None,
    history: bool = False,
    **params: Any,
) -> Outcome:
    """Look for a small change of every image after which the network names another class.

    images: [n, C, H, W], pixels from 0 to 1. labels: class of each, to be left; None for the class that the network names.
    targets: class to be reached, one for all or one for each; then labels do not count.
    mean, std: how the network's inputs are normalised, one number for each channel (or one for all); None for pixels as they are.
    watch: (steps done, steps at most), called after every step. history: keep the probabilities of every step, for few images.
    params: parameters of the method (see METHODS[method].parameters).

    The network runs in eval mode and is left as it was; chance comes from the parameter `seed` alone.
    Raises DNNVizError with a sentence where the method, a parameter, the images or the classes do not fit.
    """
    chosen = find(method)
    parameters = chosen.resolve(params)
    import torch

    from dnnviz.attack.problem import Problem
    from dnnviz.explain.network import undisturbed

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    pixels = valid_pixels(images)
    count = len(pixels)
    wanted = _classes(labels if targets is None else targets, count)
    generator = torch.Generator().manual_seed(parameters.get("seed", 0))
    at_once = max(1, _PIXELS_AT_ONCE // (pixels.shape[2] * pixels.shape[3]))
    passes = max(1, chosen.passes(parameters))
    parts: list[Problem] = []
    started = time.perf_counter()
    with undisturbed(model):
        centre, scale = (_per_channel(value, default, pixels.shape[1], device) for value, default in ((mean, 0.0), (std, 1.0)))
        for first in range(0, count, at_once):
            part = slice(first, first + at_once)
            size = len(pixels[part])

            def step(taken: int, first: int = first, size: int = size) -> None:
                if watch is not None:
                    watch(first * passes + size * min(passes, 2 * taken), count * passes)

            batch = torch.from_numpy(pixels[part]).to(device)
            goal = None if wanted is None else torch.from_numpy(wanted[part]).to(device)
            problem = Problem(model, batch, goal, targets is not None, chosen.norm, centre, scale, generator, step, history)
            parts.append(problem)
            chosen.compute(problem, **parameters)
            problem.finish()
    return _outcome(method, parameters, parts, pixels, time.perf_counter() - started)


def valid_pixels(images: torch.Tensor | np.ndarray) -> np.ndarray:
    """float32 [n, C, H, W] of images with pixels from 0 to 1, rounding errors clipped; raises DNNVizError for others."""
    array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images, dtype=np.float32)
    if array.ndim != 4 or not len(array):
        raise DNNVizError(f"Images to attack have the shape [n, C, H, W]; these have {list(array.shape)}.")
    low, high = float(array.min()), float(array.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise DNNVizError(
            f"The pixels go from {low:.3g} to {high:.3g}; an attack needs those of the picture, from 0 to 1, and the mean and std by which the "
            "network's inputs are made of them."
        )
    return array.clip(0, 1)


def _classes(given: Any, count: int) -> np.ndarray | None:
    """int64 [n] of one class for all, or one for each."""
    if given is None:
        return None
    classes = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    if classes.ndim == 0:
        classes = np.full(count, classes)
    if classes.shape != (count,) or classes.dtype.kind not in "iu":
        raise DNNVizError(f"{count} images need as many classes, whole numbers; got {list(classes.shape)} of {classes.dtype}.")
    return classes.astype(np.int64)


def _per_channel(given: Sequence[float] | None, default: float, channels: int, device: torch.device) -> torch.Tensor:
    """[1, C, 1, 1] of one number for each channel, or one for all."""
    import torch

    values = np.atleast_1d(np.asarray(default if given is None else given, dtype=np.float32))
    if values.shape not in ((1,), (channels,)):
        raise DNNVizError(f"The images have {channels} channels; mean and std need one number for each, or one for all, not {len(values)}.")
    return torch.from_numpy(np.broadcast_to(values, (channels,)).copy()).to(device)[None, :, None, None]


def _outcome(method: str, parameters: dict[str, Any], parts: list[Problem], pixels: np.ndarray, seconds: float) -> Outcome:
    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name).cpu().numpy() for part in parts])

    adversarial = joined("best")
    change = np.abs(adversarial - pixels).reshape(len(pixels), -1)
    longest = max(len(part.probabilities) for part in parts)
    # Where a part ended early, it stays as it was.
    rows = [[part.probabilities[min(i, len(part.probabilities) - 1)].cpu().numpy() for i in range(longest)] for part in parts]
    return Outcome(
        method=method,
        parameters=parameters,
        adversarial=adversarial,
        success=joined("success"),
        before=joined("before"),
        after=joined("best_logits").argmax(axis=1),
        linf=change.max(axis=1),
        l2=np.sqrt((change.astype(np.float64) ** 2).sum(axis=1)).astype(np.float32),
        # A pixel has changed when one of its channels has.
        l0=(np.abs(adversarial - pixels).max(axis=1) > 0).mean(axis=(1, 2), dtype=np.float32),
        probabilities=np.concatenate([np.stack(part) for part in rows], axis=1).astype(np.float32),
        steps=joined("best_step"),
        evaluations=joined("evaluations"),
        gradients=joined("gradients"),
        seconds=seconds,
    )
