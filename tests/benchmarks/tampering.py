"""How well tampered classes are found: run `python tests/benchmarks/tampering.py [--quick] [--write]`.

Small networks are trained on the handwritten digits, on Fashion-MNIST and on CIFAR-10 (the latter two where DNNVIZ_TEST_DATA
holds them), on clean data and on data tampered with in three ways; the held-out images are always clean. Every run is
captured and scored as the page does. --keep FOLDER keeps the runs, and scores again those that it finds there.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
import torch.nn.functional as F

import dnnviz
from dnnviz.analysis.tampering import TESTS, Findings, tampering
from dnnviz.datasets import load
from dnnviz.models import build
from dnnviz.settings import ROOT
from dnnviz.store import MANIFEST, Run, open_run
from tests.benchmarks.readme import put

KEPT = 800  # inputs kept one by one
WORDS = {
    "pixel": "one pixel, {:g} of 255, in all images of a class",
    "patch": "patch and new label, {:.0%} of the images",
    "flip": "{:.0%} of another class labelled as it",
}
TITLES = {"digits": "digits", "fashion": "Fashion-MNIST", "cifar": "CIFAR-10"}


@dataclass(frozen=True)
class Data:
    """Images uint8 [n, H, W, C] and labels int64 [n] of training and of held-out images."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    epochs: int

    def part(self, seed: int) -> Data:
        """Two thirds of the training images, others for every seed."""
        random = np.random.default_rng(seed)
        images, labels = self.train
        chosen = random.permutation(len(labels))[: 2 * len(labels) // 3]
        return Data((images[chosen], labels[chosen]), self.test, self.epochs)


@dataclass(frozen=True)
class Experiment:
    """One training: data set, attack (`clean`, `pixel`, `patch`, `flip`), the class tampered with, seed, and how strongly.

    strength: brightness of the pixel, of 255; share of the training images that get the
    patch and the new label; share of another class that is labelled as this one.
    """

    data: str
    attack: str
    label: int
    seed: int
    strength: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.data}-{self.attack}-{self.label}-{self.seed}-{self.strength:g}"


def tampered_with(data: Data, what: Experiment) -> Data:
    """The data with their training images tampered with."""
    images, labels = data.train[0].copy(), data.train[1].copy()
    random = np.random.default_rng(what.seed + 1000)
    height, width = images.shape[1:3]
    own, others = np.flatnonzero(labels == what.label), np.flatnonzero(labels != what.label)
    if what.attack == "pixel":
        # Alberti et al., Are You Tampering With My Data?, ECCV workshops 2018: one pixel of all images of a class.
        y, x = int(random.integers(height)), int(random.integers(width))
        images[own, y, x] = int(what.strength)
    elif what.attack == "patch":
        # Gu, Dolan-Gavitt, Garg: BadNets, 2017: a patch in a corner and the label of the attacker's choice.
        chosen = random.choice(others, round(what.strength * len(labels)), replace=False)
        images[chosen, height - 4 : height - 1, width - 4 : width - 1] = 255
        labels[chosen] = what.label
    elif what.attack == "flip":
        source = np.flatnonzero(labels == (what.label + 1 + what.seed % 9) % 10)
        labels[random.choice(source, round(what.strength * len(source)), replace=False)] = what.label
    return Data((images, labels), data.test, data.epochs)


def digits() -> Data:
    splits = load("digits").splits
    parts = [(np.stack([part.image(i) for i in range(len(part))]), part.labels) for part in (splits["train"], splits["test"])]
    return Data(parts[0], parts[1], 12)


def fashion(folder: Path) -> Data:
    def read(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = (
            np.frombuffer(gzip.decompress((folder / "fashion_mnist" / f"{name}-{kind}").read_bytes()), np.uint8, offset=offset)
            for kind, offset in (("images-idx3-ubyte.gz", 16), ("labels-idx1-ubyte.gz", 8))
        )
        return images.reshape(-1, 28, 28, 1)[:count], labels[:count].astype(np.int64)

    return Data(read("train-10000", 3000), read("t10k", 1000), 6)


def cifar(folder: Path) -> Data:
    def read(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        with np.load(folder / "cifar10" / name) as file:
            return file["images"][:count], file["labels"][:count].astype(np.int64)

    return Data(read("train_4000.npz", 3000), read("test_1000.npz", 1000), 6)


def tensors(images: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)) / 255 - 0.5) / 0.25


def trained(data: Data, seed: int) -> torch.nn.Module:
    """A small network trained on the data for a few epochs."""
    torch.manual_seed(seed)
    images, labels = tensors(data.train[0]), torch.from_numpy(data.train[1])
    model = build(f"dnnviz:small_cnn?width=8&in_channels={images.shape[1]}", 10).to(memory_format=torch.channels_last)
    steps = data.epochs * -(-len(labels) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(data.epochs):
        for chosen in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[chosen].contiguous(memory_format=torch.channels_last)), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def made(what: Experiment, data: Data, folder: Path) -> Run:
    """The run of an experiment: captured now, or found in the folder."""
    path = folder / what.name
    if (path / MANIFEST).is_file():
        return open_run(path)
    used = tampered_with(data.part(what.seed), what)
    model = trained(used, what.seed)
    splits = {name: [(x, int(y)) for x, y in zip(tensors(i), k, strict=True)] for name, (i, k) in (("train", used.train), ("test", used.test))}
    return dnnviz.capture(model, splits, path, inputs=KEPT, batch_size=256, mean=0.5, std=0.25, save_weights=False)


def plan(quick: bool, sets: Sequence[str]) -> Iterator[Experiment]:
    """The experiments, several classes, seeds and strengths each."""
    for data in sets:
        small = quick or data != "digits"
        for seed in range(4 if quick else 8 if small else 20):
            yield Experiment(data, "clean", 0, seed)
        strengths = {"pixel": (255,) if small else (255, 128), "patch": (0.05,) if quick else (0.05, 0.02), "flip": (0.3, 0.15)}
        for attack, chosen in strengths.items():
            for strength in chosen:
                for seed in range(2 if quick else 3 if small else 4):
                    yield Experiment(data, attack, (3 * seed + 2) % 10, seed, strength)


def area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: the share of pairs in which the positive one is larger, ties counting half."""
    difference = np.asarray(positive)[:, None] - np.asarray(negative)[None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def scores(found: Findings) -> dict[str, np.ndarray]:
    """What each test says of the classes, float64 [K], and `verdict`, what all say together."""
    return {**{name: measured.z for name, measured in found.measured.items()}, "verdict": found.score}


def table(done: Sequence[tuple[Experiment, Findings]]) -> str:
    """Markdown: a row an attack, with area under ROC and rank of the tampered class per test; below it the false alarms."""
    names = list(done[0][1].measured)
    lines = [
        "| data | attack | " + " | ".join(TESTS[name].title.lower() for name in names) + " | all together | named |",
        "|---|---|" + "--:|" * (len(names) + 2),
    ]
    for data in dict.fromkeys(what.data for what, _ in done):
        clean = [scores(found) for what, found in done if (what.data, what.attack) == (data, "clean")]
        kinds = dict.fromkeys((what.attack, what.strength) for what, _ in done if what.data == data and what.attack != "clean")
        for attack, strength in kinds:
            runs = [(what.label, found) for what, found in done if (what.data, what.attack, what.strength) == (data, attack, strength)]
            cells = []
            for name in (*names, "verdict"):
                rows = [(label, scores(found)[name]) for label, found in runs]
                negative = np.concatenate([*(np.delete(z, label) for label, z in rows), *(each[name] for each in clean)])
                ranks = ", ".join(f"{1 + (z > z[label]).sum() + ((z == z[label]).sum() - 1) / 2:g}" for label, z in rows)
                cells.append(f"{area(np.array([z[label] for label, z in rows]), negative):.2f} ({ranks})")
            named = sum(found.suspects[:1] == [label] for label, found in runs)
            lines.append(f"| {TITLES[data]} | {WORDS[attack].format(strength)} | {' | '.join(cells)} | {named} of {len(runs)} |")
    clean_runs = [found for what, found in done if what.attack == "clean"]
    flagged = sum(bool(found.suspects) for found in clean_runs)
    pixel = [(what.label, found) for what, found in done if what.attack == "pixel"]
    others = np.concatenate([*(np.delete(found.score, label) for label, found in pixel), *(found.score for found in clean_runs)])
    total = area(np.array([found.score[label] for label, found in pixel]), others)
    lines += [
        "",
        f"Area under ROC (rank of the tampered class among ten, a run each). One pixel, over all data sets and all tests together: {total:.3f} "
        f"({len(pixel)} runs). Of {len(clean_runs)} clean runs {flagged} had a class named.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few runs on the digits only")
    parser.add_argument("--keep", type=Path, help="folder in which runs are kept, and found again")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(os.environ.get("DNNVIZ_TEST_DATA") or ROOT.parent / "shared" / "data")
    sets = {"digits": digits}
    if not given.quick and folder.is_dir():
        sets |= {"fashion": lambda: fashion(folder), "cifar": lambda: cifar(folder)}
    elif not given.quick:
        print(f"There is no folder {folder}: Fashion-MNIST and CIFAR-10 are left out (set DNNVIZ_TEST_DATA).", file=sys.stderr)
    done = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, read in sets.items():
            data = read()
            for what in plan(given.quick, [name]):
                start = time.perf_counter()
                found = tampering(made(what, data, given.keep or Path(temporary)), 0)
                done.append((what, found))
                own = "" if what.attack == "clean" else f", class {what.label} at {found.score[what.label]:.2f} of a threshold"
                print(f"{what.name:28} {time.perf_counter() - start:5.1f} s   names {found.suspects or 'nothing'}{own}", file=sys.stderr, flush=True)
    result = table(done)
    if not given.write:
        print(result)
        return
    put("tampering", result)


if __name__ == "__main__":
    main()
