"""The network of a snapshot with its inputs as pixels: what every attack of a job works on. torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from dnnviz.attack.perform import valid_pixels
from dnnviz.explain.explainer import Explainer
from dnnviz.explain.network import scores, undisturbed

_PIXELS_AT_ONCE = 64 * 32 * 32


class Subject:
    """A network of a run, and the way from its inputs to pixels and back."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self.run, self.epoch, self.model = explainer.run, explainer.epoch, explainer.model
        channels = explainer.shape[0]
        how = {"mean": 0.0, "std": 1.0, **{name: value for name, value in explainer.normalisation.items() if value is not None}}
        self.mean, self.std = (np.broadcast_to(np.asarray(how[name], np.float32), (channels,)).copy() for name in ("mean", "std"))

    @property
    def normalisation(self) -> dict[str, Any]:
        """mean and std as `attack` takes them."""
        return {"mean": self.mean, "std": self.std}

    def pixels(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [n, C, H, W] in 0…1 of network inputs; raises DNNVizError where they are no pixels."""
        return valid_pixels(inputs * self.std[:, None, None] + self.mean[:, None, None])

    def normalised(self, pixels: np.ndarray) -> torch.Tensor:
        """What the network takes, for pixels [n, C, H, W]."""
        return torch.from_numpy((pixels - self.mean[:, None, None]) / self.std[:, None, None])

    def kept(self, indices: np.ndarray) -> np.ndarray:
        """Pixels [n, C, H, W] of inputs kept."""
        return self.pixels(self.run.network_inputs(indices))

    def source(self, source: str) -> np.ndarray:
        """Pixels [1, C, H, W] of an input kept (its number as text) or an upload (its key)."""
        return self.pixels(self.explainer.inputs([source]))

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """float32 [n, K]: the network's scores of pixels."""
        with undisturbed(self.model), torch.no_grad():
            return np.concatenate(self.in_batches(pixels, lambda batch: scores(self.model, self.normalised(batch)).float().numpy()))

    @staticmethod
    def in_batches(pixels: np.ndarray, compute: Callable[[np.ndarray], Any]) -> Sequence[Any]:
        """What `compute` gives for one batch after the other, small enough for every network."""
        size = max(1, _PIXELS_AT_ONCE // (pixels.shape[2] * pixels.shape[3]))
        return [compute(pixels[i : i + size]) for i in range(0, len(pixels), size)]
