"""Attacks beside the reference library: success, size of the change, passes and seconds, on ResNet-20 and pictures of CIFAR-10.

    python -m tests.benchmarks.attacks [--pictures 8] [--searches 4] [--steps 40]

Both get the same budget: size and steps for the bounded methods (start at the picture, no early end), steps for those that look
for the smallest change. The pictures are those that the network classifies correctly; sizes are of the attacks that succeed, with
pixels from 0 to 1. Passes count one forward pass of one picture, and one back again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnviz.attack import METHODS, attack
from tests import trained

DATA = Path(os.environ.get("DNNVIZ_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
Row = tuple[float, float, str, float]


class Counted(torch.nn.Module):
    """A network that counts the pictures it is asked about and the gradients it is asked for."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forward_passes = self.back_passes = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.forward_passes += len(inputs)
        output = self.model(inputs)
        if output.requires_grad:
            output.register_hook(self._back)
        return output

    def _back(self, gradient: torch.Tensor) -> None:
        self.back_passes += len(gradient)


def cases(searches: int, steps: int) -> Iterator[tuple[str, dict[str, Any], Any, float | None]]:
    """(our method, its parameters, the reference's attack, its budget)."""
    from foolbox import attacks

    yield "fgsm", {"epsilon": 0.01}, attacks.FGSM(), 0.01
    yield "bim", {"epsilon": 0.01, "step": 0.002, "steps": 10, "stop": False}, attacks.LinfBasicIterativeAttack(abs_stepsize=0.002, steps=10), 0.01
    start = {"random_start": False, "stop": False, "step": 0.1, "steps": 20}
    yield "pgd", {"epsilon": 0.01, **start}, attacks.LinfPGD(rel_stepsize=0.1, steps=20, random_start=False), 0.01
    yield "pgd_l2", {"epsilon": 0.2, **start}, attacks.L2PGD(rel_stepsize=0.1, steps=20, random_start=False), 0.2
    yield "deepfool", {"steps": 50, "candidates": 10}, attacks.L2DeepFoolAttack(steps=50, candidates=10), None
    weights = {"searches": searches, "steps": steps, "weight": 0.1}
    yield "carlini_wagner", weights, attacks.L2CarliniWagnerAttack(searches, steps, initial_const=0.1, abort_early=False), None


def ours(model: Counted, images: torch.Tensor, labels: torch.Tensor, name: str, parameters: dict[str, Any]) -> Row:
    model.forward_passes = model.back_passes = 0
    began = time.process_time()
    found = attack(model, images, name, labels, mean=trained.MEAN, std=trained.STD, **parameters)
    return _row(model, images, torch.from_numpy(found.adversarial), torch.from_numpy(found.success), name, began)


def theirs(model: Counted, images: torch.Tensor, labels: torch.Tensor, name: str, reference: Any, size: float | None) -> Row:
    import foolbox

    how = {"mean": list(trained.MEAN), "std": list(trained.STD), "axis": -3}
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), preprocessing=how, device="cpu")
    model.forward_passes = model.back_passes = 0
    began = time.process_time()
    found, _, success = reference(wrapped, images, foolbox.criteria.Misclassification(labels), epsilons=size)
    return _row(model, images, found, success, name, began)


def _row(model: Counted, images: torch.Tensor, found: torch.Tensor, success: torch.Tensor, name: str, began: float) -> Row:
    took = time.process_time() - began
    change = (found - images).flatten(1)
    size = change.abs().amax(dim=1) if METHODS[name].norm == "linf" else change.norm(dim=1)
    passes = f"{model.forward_passes / len(images):.1f} + {model.back_passes / len(images):.1f}"
    return float(success.float().mean()), float(size[success].mean()), passes, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--searches", type=int, default=4, help="weights that Carlini and Wagner's attack tries")
    parser.add_argument("--steps", type=int, default=40, help="steps of its optimiser for each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = trained.resnet20(DATA)
    with np.load(DATA / "cifar10" / "test_1000.npz") as file:
        # Some are misclassified without an attack.
        pixels = torch.from_numpy(file["images"][: 2 * given.pictures].astype(np.float32).transpose(0, 3, 1, 2) / 255)
        labels = torch.from_numpy(file["labels"][: 2 * given.pictures].astype(np.int64))
    mean, std = (torch.tensor(value)[None, :, None, None] for value in (trained.MEAN, trained.STD))
    right = (trained.predicted(network, (pixels - mean) / std) == labels).nonzero()[: given.pictures, 0]
    model = Counted(network).eval()
    print(f"{len(right)} pictures; passes forward + back a picture; CPU seconds in all; ours | reference")
    print(f"{'method':<34}{'success':>15}{'norm':>6}{'mean size':>19}{'passes':>29}{'seconds':>17}")
    for name, parameters, reference, size in cases(given.searches, given.steps):
        mine = ours(model, pixels[right], labels[right], name, parameters)
        other = theirs(model, pixels[right], labels[right], name, reference, size)
        shown = [f"{mine[0]:.0%} | {other[0]:.0%}", METHODS[name].norm, f"{mine[1]:.5f} | {other[1]:.5f}"]
        shown += [f"{mine[2]} | {other[2]}", f"{mine[3]:.1f} | {other[3]:.1f}"]
        print(f"{METHODS[name].title:<34}{shown[0]:>15}{shown[1]:>6}{shown[2]:>19}{shown[3]:>29}{shown[4]:>17}", flush=True)


if __name__ == "__main__":
    main()
