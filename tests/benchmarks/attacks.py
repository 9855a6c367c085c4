"""Attacks beside the reference library: success, size of the change, passes and seconds, on ResNet-20 and pictures of CIFAR-10.

    python -m tests.benchmarks.attacks [--pictures 40] [--searches 4] [--steps 40] [--write]

Both get the same budget: size and steps for the bounded methods (start at the picture, no early end), steps for those that look
for the smallest change. The pictures are those that the network classifies correctly; mean sizes are over those that both fool, with
pixels from 0 to 1. Passes count one forward pass of one picture, and one back again. --write puts the table into README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnviz.attack import METHODS, attack
from tests import trained
from tests.benchmarks.readme import put

DATA = Path(os.environ.get("DNNVIZ_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
LINF, L2 = 1 / 255, 0.1  # sizes at which not every attack succeeds


@dataclass(frozen=True)
class Row:
    """What attacks on n pictures did: success bool [n], size float [n], passes forward and back a picture, CPU seconds in all."""

    success: np.ndarray
    size: np.ndarray
    passes: str
    seconds: float


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

    yield "fgsm", {"epsilon": LINF}, attacks.FGSM(), LINF
    small = LINF / 5
    yield "bim", {"epsilon": LINF, "step": small, "steps": 10, "stop": False}, attacks.LinfBasicIterativeAttack(abs_stepsize=small, steps=10), LINF
    start = {"random_start": False, "stop": False, "step": 0.1, "steps": 20}
    yield "pgd", {"epsilon": LINF, **start}, attacks.LinfPGD(rel_stepsize=0.1, steps=20, random_start=False), LINF
    yield "pgd_l2", {"epsilon": L2, **start}, attacks.L2PGD(rel_stepsize=0.1, steps=20, random_start=False), L2
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
    passes = f"{model.forward_passes / len(images):.0f} + {model.back_passes / len(images):.0f}"
    return Row(success.numpy(), size.numpy(), passes, took)


def table(pictures: int, searches: int, steps: int) -> str:
    """The table as Markdown, ours beside the reference's."""
    network = trained.resnet20(DATA)
    with np.load(DATA / "cifar10" / "test_1000.npz") as file:
        # Some are misclassified without an attack.
        pixels = torch.from_numpy(file["images"][: 2 * pictures].astype(np.float32).transpose(0, 3, 1, 2) / 255)
        labels = torch.from_numpy(file["labels"][: 2 * pictures].astype(np.int64))
    mean, std = (torch.tensor(value)[None, :, None, None] for value in (trained.MEAN, trained.STD))
    right = (trained.predicted(network, (pixels - mean) / std) == labels).nonzero()[:pictures, 0]
    model = Counted(network).eval()
    lines = [
        "| method | size allowed | success | Foolbox | mean size | Foolbox | passes | Foolbox | seconds | Foolbox |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, parameters, reference, size in cases(searches, steps):
        pair = ours(model, pixels[right], labels[right], name, parameters), theirs(model, pixels[right], labels[right], name, reference, size)
        both = pair[0].success & pair[1].success
        allowed = "any" if size is None else "1/255 (L∞)" if size == LINF else f"{size:g} (L2)"
        columns = [f"{row.success.mean():.1%}" for row in pair] + [f"{row.size[both].mean():.4f}" for row in pair]
        columns += [row.passes for row in pair] + [f"{row.seconds:.1f}" for row in pair]
        lines.append(f"| {METHODS[name].title} | {allowed} | {' | '.join(columns)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    note = f"{len(right)} pictures that the network classifies correctly; one processor thread."
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--searches", type=int, default=4, help="weights that Carlini and Wagner's attack tries")
    parser.add_argument("--steps", type=int, default=40, help="steps of its optimiser for each")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = table(given.pictures, given.searches, given.steps)
    if given.write:
        put("attacks", made)
    else:
        print(made)


if __name__ == "__main__":
    main()
