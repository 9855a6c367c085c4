"""How fast a large run opens and gives the slices that the pages need.

    python tests/benchmarks/store.py [--folder DIR] [--inputs 10000] [--units 10000] [--epochs 20]

Makes a run of 10,000 inputs × 10,000 units × 20 snapshots and prints the time of opening it and of each read, warm (the
median of several epochs and units) and cold (the first read after the system was asked to forget the file). To stay
below 3 GB of disk only the first snapshot is written out: the large arrays of the others are hard links to it, which a
reader cannot tell apart; warm times profit from that, cold times do not, since the pages are dropped before each. The
folder is removed afterwards.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from dnnviz import store
from dnnviz.catalogue import Catalogue

OPEN_MS, SLICE_MS = 50.0, 20.0
SHARED = ("mean", "max", "class_mean", "class_std")


def make(folder: Path, inputs: int, units: int, epochs: int, classes: int = 10, top: int = 10) -> Path:
    """Write the run: 60 layers, inputs of 32 × 32 colour, random values."""
    random = np.random.default_rng(0)
    bounds = np.linspace(0, units, 61).astype(int)
    layers = [store.Layer(f"layer{i}", "conv", int(b - a), (int(b - a), 8, 8), int(a)) for i, (a, b) in enumerate(pairwise(bounds))]
    counts = [[inputs // classes] * classes]
    manifest = {
        "name": "large",
        "created": store.now(),
        "versions": {},
        "model": {"spec": None, "class": "Benchmark", "parameters": 0},
        "data": {"spec": None},
        "preprocessing": {"size": [3, 32, 32], "mean": [0.0], "std": [1.0], "exact": True, "description": ""},
        "classes": [str(k) for k in range(classes)],
        "splits": ["data"],
        "layers": store.layer_entries(layers),
        "uncovered": [],
        "inputs": {"kept": inputs, "aggregated": inputs, "class_counts": counts},
        "top": {"k": top, "stored": 0},
    }
    path = folder / "large"
    small = {
        "data_mean": random.random((1, units), dtype=np.float32),
        "data_std": random.random((1, units), dtype=np.float32),
        "active": random.random((1, units), dtype=np.float32),
        "top_inputs": random.integers(0, inputs, (units, top), dtype=np.int32),
        "top_values": random.random((units, top), dtype=np.float32),
        "top_places": random.integers(0, 64, (units, top), dtype=np.int32),
        "logits": random.random((inputs, classes), dtype=np.float32),
    }
    large = {name: random.random((inputs, units), dtype=np.float32).astype(np.float16) for name in ("mean", "max")}
    large |= {name: random.random((1, classes, units), dtype=np.float32) for name in ("class_mean", "class_std")}
    with store.writing(path) as writer:
        images = random.integers(0, 256, (inputs, 32, 32, 3), dtype=np.uint8)
        writer.write_inputs(
            {"images": images, "labels": np.arange(inputs) % classes, "splits": np.zeros(inputs, np.uint8)}, ids=[str(i) for i in range(inputs)]
        )
        writer.publish(manifest, 0, {**small, **large}, {"accuracy": 0.5, "loss": 1.0})
        for epoch in range(1, epochs):
            writer.publish(manifest, epoch, {**small, "data_mean": small["data_mean"] * (1 + epoch)}, {"accuracy": 0.5, "loss": 1.0})
            for name in SHARED:
                os.link(path / f"snapshots/000000/{name}.npy", path / f"snapshots/{epoch:06d}/{name}.npy")
    return path


def forget(path: Path) -> None:
    """Ask the system to drop its copies of the run's files."""
    for file in path.rglob("*.npy"):
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def milliseconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - began)


def measure(path: Path, epochs: int, units: int, inputs: int) -> bool:
    """Print the table; True when every target is met."""
    last = [f"layer{i}" for i in (0, 30, 59)]
    slices: dict[str, Callable[[store.Run, int], object]] = {
        "data set, all units, one epoch": lambda run, i: run.data_mean(i % epochs),
        "data set, all units, every epoch (playback)": lambda run, i: np.stack([run.data_mean(e) for e in run.epochs]),
        "share of firing inputs, every epoch": lambda run, i: np.stack([run.active(e) for e in run.epochs]),
        "one class, all units, one epoch": lambda run, i: run.one_class_mean(i % epochs, i % 10),
        "one class, all units, every epoch": lambda run, i: np.stack([run.one_class_mean(e, i % 10) for e in run.epochs]),
        "all classes, all units, one epoch": lambda run, i: run.class_mean(i % epochs),
        "all classes, one layer": lambda run, i: run.class_mean(i % epochs, last[i % 3]),
        "one input, all units, one epoch": lambda run, i: run.input_activations(i % epochs, (7919 * i) % inputs),
        "one input, all units, every epoch": lambda run, i: np.stack([run.input_activations(e, (7919 * i) % inputs) for e in run.epochs]),
        "one unit, all inputs": lambda run, i: run.unit_activations(i % epochs, last[i % 3], i % 100),
        "unit card: top inputs and their images": lambda run, i: run.images(run.top_inputs(i % epochs, last[i % 3], i % 100)[0]),
        "unit card: the unit over the epochs": lambda run, i: [run.data_mean(e, last[i % 3])[i % 100] for e in run.epochs],
        "one layer (167 units), all inputs": lambda run, i: run.activations(i % epochs, last[i % 3]),
        "logits": lambda run, i: run.logits(i % epochs),
        "64 images": lambda run, i: run.images((np.arange(64) * 131 + i) % inputs),
    }
    size = sum(file.stat().st_size for file in {f.stat().st_ino: f for f in path.rglob("*.npy")}.values())
    apparent = sum(file.stat().st_size for file in path.rglob("*.npy"))
    print(
        f"run of {inputs:,} inputs × {units:,} units × {epochs} snapshots: {apparent / 1e9:.1f} GB ({size / 1e9:.1f} GB written, the rest hard links)"
    )
    print(f"{'':48}{'warm ms':>10}{'cold ms':>10}{'target':>9}")
    catalogue = Catalogue((path.parent,))
    opening = [milliseconds(lambda: store.open_run(path)) for _ in range(20)]
    forget(path)
    cold = milliseconds(lambda: store.open_run(path))
    good = statistics.median(opening) < OPEN_MS
    print(f"{'open':48}{statistics.median(opening):10.2f}{cold:10.2f}{OPEN_MS:7.0f}{'' if good else ' missed'}")
    print(f"{'open again through the catalogue':48}{statistics.median([milliseconds(lambda: catalogue.open('large')) for _ in range(20)]):10.2f}")
    for name, read in slices.items():
        forget(path)
        fresh = store.open_run(path)
        cold = milliseconds(lambda read=read, fresh=fresh: read(fresh, 1))
        run = store.open_run(path)
        for turn in range(epochs):
            read(run, turn)
        times = [milliseconds(lambda read=read, run=run, turn=turn: read(run, turn)) for turn in range(2 * epochs)]
        met = statistics.median(times) < SLICE_MS
        good &= met
        print(f"{name:48}{statistics.median(times):10.2f}{cold:10.2f}{SLICE_MS:7.0f}{'' if met else ' missed'}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to make the run (default: a temporary folder)")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dnnviz-benchmark-", dir=given.folder))
    try:
        path = make(folder, given.inputs, given.units, given.epochs)
        return 0 if measure(path, given.epochs, given.units, given.inputs) else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
