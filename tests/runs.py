"""Small runs written with numpy alone, for tests that need a run and no network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from dnnviz import store

LAYERS = (
    store.Layer("conv1", "conv", 6, (6, 8, 8), 0),
    store.Layer("layer1.0.conv1", "conv", 8, (8, 4, 4), 6),
    store.Layer("layer1.0", "block", 8, (8, 4, 4), 14),
    store.Layer("fc", "linear", 4, (4,), 22),
)


def write_run(
    path: Path,
    *,
    epochs: Sequence[int] = (0, 1, 5),
    layers: Sequence[store.Layer] = LAYERS,
    inputs: int = 12,
    classes: int = 4,
    splits: Sequence[str] = ("train", "test"),
    size: tuple[int, int, int] = (16, 16, 3),
    top: int = 3,
    seed: int = 0,
    name: str | None = None,
) -> store.Run:
    """A run whose aggregates are those of the inputs it keeps (all inputs are kept)."""
    random = np.random.default_rng(seed)
    units = sum(layer.units for layer in layers)
    labels = np.arange(inputs) % classes
    which = np.arange(inputs) * len(splits) // inputs
    counts = np.zeros((len(splits), classes), dtype=int)
    np.add.at(counts, (which, labels), 1)
    manifest = {
        "name": name or path.name,
        "created": store.now(),
        "versions": {"numpy": np.__version__},
        "model": {"spec": None, "class": "Test", "parameters": 0},
        "data": {"spec": None},
        "preprocessing": {
            "size": [size[2], size[0], size[1]],
            "mean": [0.5] * size[2],
            "std": [0.25] * size[2],
            "exact": True,
            "description": "test",
        },
        "classes": [f"class {k}" for k in range(classes)],
        "splits": list(splits),
        "layers": store.layer_entries(layers),
        "uncovered": [],
        "inputs": {"kept": inputs, "aggregated": inputs, "class_counts": counts.tolist()},
        "top": {"k": top, "stored": 0},
    }
    with store.writing(path) as writer:
        writer.write_inputs(
            {
                "images": random.integers(0, 256, (inputs, *size), dtype=np.uint8),
                "labels": labels.astype(np.int64),
                "splits": which.astype(np.uint8),
                "positions": np.arange(inputs, dtype=np.int64),
            },
            ids=[f"image {i}" for i in range(inputs)],
        )
        nodes = [{"id": e.name, "label": e.name, "kind": e.kind, "layer": e.name, "parent": None} for e in layers]
        edges = [{"source": a.name, "target": b.name} for a, b in pairwise(layers)]
        writer.write_graph({"nodes": nodes, "edges": edges})
        for epoch in epochs:
            maximum = np.maximum(random.normal(0.3, 1.0, (inputs, units)), 0).astype(np.float16)
            mean = (maximum * np.float16(0.5)).astype(np.float16)
            arrays = _aggregates(mean.astype(np.float32), maximum.astype(np.float32), labels, which, counts, top)
            arrays |= {"mean": mean, "max": maximum, "logits": random.normal(size=(inputs, classes)).astype(np.float32)}
            accuracy = float((arrays["logits"].argmax(1) == labels).mean())
            run = writer.publish(
                manifest, epoch, arrays, {"accuracy": accuracy, "loss": 1.0, "splits": {s: {"accuracy": accuracy, "loss": 1.0} for s in splits}}
            )
    return run


def _aggregates(mean: np.ndarray, maximum: np.ndarray, labels: np.ndarray, which: np.ndarray, counts: np.ndarray, top: int) -> dict[str, np.ndarray]:
    splits, classes = counts.shape
    units = mean.shape[1]
    class_mean, class_std = np.full((2, splits, classes, units), np.nan, dtype=np.float32)
    data_mean, data_std, active = np.full((3, splits, units), np.nan, dtype=np.float32)
    for s in range(splits):
        data_mean[s], data_std[s] = mean[which == s].mean(0), mean[which == s].std(0)
        active[s] = (maximum[which == s] > 0).mean(0)
        for k in range(classes):
            rows = mean[(which == s) & (labels == k)]
            if len(rows):
                class_mean[s, k], class_std[s, k] = rows.mean(0), rows.std(0)
    order = np.argsort(-maximum, axis=0, kind="stable")[:top].T
    return {
        "class_mean": class_mean,
        "class_std": class_std,
        "data_mean": data_mean,
        "data_std": data_std,
        "active": active,
        "top_inputs": order.astype(np.int32),
        "top_positions": order.astype(np.int64),
        "top_values": np.take_along_axis(maximum, order.T, axis=0).T.astype(np.float32),
        "top_places": np.zeros_like(order, dtype=np.int32),
    }
