"""Where attributions point, on scenes of two objects whose masks are known, each object's class as the target in turn.

    python -m tests.benchmarks.attribution_masks [--scenes 60] [--methods saliency,lrp] [--run data/shapes]

The network is that of the demo run `shapes`. A scene counts where the two classes in it are the network's two best.
Pointing game (Zhang et al. 2018): share of maps whose largest value lies on the object of the target class, or within two
pixels of it. Mass inside: share of the map's positive part that lies on that object. `chance` is a map of noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

import dnnviz
from dnnviz.datasets.shapes import CLASSES, draw_scene
from dnnviz.errors import DNNVizError
from dnnviz.explain import METHODS, attribute

TOLERANCE = 2  # pixels, of 64
RADII = ((0.15, 0.19), (0.15, 0.19))


@dataclass(frozen=True)
class Score:
    """pointing: share of maps that point at the object; inside: share of their positive mass on it. Both over `maps` maps."""

    pointing: float
    inside: float
    maps: int


def scenes(run: dnnviz.store.Run, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """(network inputs [n, C, H, W], masks [n, H, W], the two classes of each scene), of scenes whose two classes the network sees."""
    import torch

    size = run.manifest["preprocessing"]["size"][1]
    model = run.load_model(run.epochs[-1])
    rng = np.random.default_rng(seed)
    inputs, masks, pairs = [], [], []
    while len(inputs) < count:
        image, mask = draw_scene(len(inputs) % len(CLASSES), size, rng, RADII)
        classes = tuple(int(value) - 1 for value in np.unique(mask) if value)
        row = run.normalise(image[None])
        with torch.no_grad():
            best = model(torch.from_numpy(row))[0].topk(2).indices.tolist()
        if len(classes) == 2 and set(best) == set(classes):
            inputs.append(row[0])
            masks.append(mask)
            pairs.append(classes)
    return np.stack(inputs), np.stack(masks), pairs


def score(heatmaps: np.ndarray, masks: np.ndarray) -> Score:
    """Of maps [m, H, W] and the masks of their objects [m, H, W]."""
    hits, shares = [], []
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        positive = np.maximum(heatmap, 0)
        near = binary_dilation(mask, iterations=TOLERANCE)
        # A map without evidence points nowhere.
        hits.append(bool(near.flat[heatmap.argmax()]) and positive.max() > 0)
        shares.append(float((positive * mask).sum() / positive.sum()) if positive.sum() > 0 else 0.0)
    return Score(float(np.mean(hits)), float(np.mean(shares)), len(hits))


def measure(folder: Path, count: int, names: Sequence[str]) -> dict[str, Score | str]:
    """Score of every method that is defined for the network, and of chance; a sentence for the others."""
    run = dnnviz.open_run(folder)
    model = run.load_model(run.epochs[-1])
    how = run.manifest["preprocessing"]
    inputs, masks, pairs = scenes(run, count)
    found: dict[str, Score | str] = {}
    objects = np.concatenate([[masks[i] == pair[k] + 1 for i, pair in enumerate(pairs)] for k in (0, 1)])
    found["chance"] = score(np.random.default_rng(0).random(objects.shape), objects)
    for name in names:
        try:
            maps = [attribute(model, inputs, name, [pair[k] for pair in pairs], mean=how["mean"], std=how["std"]).heatmap for k in (0, 1)]
        except DNNVizError as error:
            found[name] = str(error)
            continue
        found[name] = score(np.concatenate(maps), objects)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path(__file__).parents[2] / "data" / "shapes")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--methods", default=",".join(METHODS))
    given = parser.parse_args()
    print(f"{'method':24}{'pointing':>9}{'inside':>8}{'maps':>6}")
    for name, result in measure(given.run, given.scenes, given.methods.split(",")).items():
        print(f"{name:24}" + (result if isinstance(result, str) else f"{result.pointing:9.2f}{result.inside:8.2f}{result.maps:6}"))


if __name__ == "__main__":
    main()
