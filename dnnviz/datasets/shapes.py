"""Shapes: colour scenes drawn by DNNViz, with the true mask of every object.

A scene shows one large object and two small ones of other classes on a textured background; its label is the class of
the large one. So the evidence for the label has a known place, and so has the evidence for two other classes: an
attribution can be scored against the masks.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from dnnviz.datasets.base import ImageSet, LoadedData, Preprocessing
from dnnviz.errors import DNNVizError

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")
RADII = ((0.20, 0.27), (0.09, 0.12), (0.09, 0.12))  # of the large object and the small ones
_FINE = 4  # shapes are drawn this many times larger, then reduced: smooth edges


def load(spec: str, how: Preprocessing, train: int = 3000, test: int = 600, size: int = 64, seed: int = 0) -> LoadedData:
    """Scenes uint8 [size, size, 3] in the splits train and test, classes in turn; image i depends on seed, split and i only.

    The masks (uint8 [n, size, size]: 0 background, class index + 1 on an object) are in `LoadedData.masks`; they match
    the scenes as drawn, so other sizes are had with the option `size`, not by resizing.
    """
    if not (isinstance(size, int) and 24 <= size <= 512):
        raise DNNVizError(f"{spec!r}: size is {size!r}; it must be a whole number from 24 to 512.")
    splits, masks = {}, {}
    for part, (name, count) in enumerate((("train", train), ("test", test))):
        if not isinstance(count, int) or count < 1:
            raise DNNVizError(f"{spec!r}: {name} is {count!r}; it must be a whole number above zero.")
        drawn = [draw_scene(i % len(CLASSES), size, np.random.default_rng((seed, part, i))) for i in range(count)]
        splits[name] = ImageSet([scene for scene, _ in drawn].__getitem__, np.arange(count) % len(CLASSES), how, [str(i) for i in range(count)])
        masks[name] = np.stack([mask for _, mask in drawn])
    if how.resize not in (None, size) or how.crop not in (None, size):
        masks = None
    return LoadedData.of(spec, splits, CLASSES, masks)


def draw_scene(label: int, size: int, rng: np.random.Generator, ranges: Sequence[tuple[float, float]] = RADII) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image uint8 [size, size, 3], and mask uint8 [size, size] with class index + 1 on each object.

    ranges: least and largest radius of each object as a share of the size; the first is of class `label`, the others of others.
    """
    background = _texture(size, rng)
    canvas = background.astype(np.float64)
    mask = np.zeros((size, size), dtype=np.uint8)
    others = rng.permutation([c for c in range(len(CLASSES)) if c != label])[: len(ranges) - 1]
    radii = [size * rng.uniform(*limits) for limits in ranges]
    placed: list[tuple[float, float, float]] = []
    for kind, radius in zip((label, *others), radii, strict=True):
        spot = _free_place(size, radius, placed, rng)
        if spot is None:
            continue  # no room left for a small one: the scene has one fewer
        placed.append((*spot, radius))
        cover = _coverage(CLASSES[kind], size, spot, radius, rng)
        inside = cover > 0.5
        colour = _vivid(rng)
        ys = (np.arange(size)[:, None] - spot[1]) / radius
        shade = 1.0 - 0.16 * np.clip(ys, -1, 1)  # lit from above
        paint = np.clip(colour * shade[:, :, None] + rng.normal(0, 5, (size, size, 1)), 0, 255)
        canvas = canvas * (1 - cover[:, :, None]) + paint * cover[:, :, None]
        mask[inside] = kind + 1
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), mask


def _texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [size, size, 3]: two muted colours mixed by stripes, checks, waves or clouds."""
    grey = rng.uniform(60, 190)
    one = grey + rng.normal(0, 14, 3)
    two = np.clip(one + rng.uniform(20, 50) * rng.choice((-1, 1)) + rng.normal(0, 8, 3), 0, 255)
    y, x = np.mgrid[0:size, 0:size] / size
    turn, waves = rng.uniform(0, math.pi), rng.uniform(3, 8)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    pattern = rng.integers(4)
    if pattern == 0:
        mix = 0.5 + 0.5 * np.sin(2 * math.pi * waves * u)
    elif pattern == 1:
        mix = ((np.floor(u * waves) + np.floor(v * waves)) % 2).astype(np.float64)
    elif pattern == 2:
        mix = 0.5 + 0.5 * np.sin(2 * math.pi * (waves * u + 0.35 * np.sin(2 * math.pi * 2 * v)))
    else:
        cells = int(rng.integers(4, 10))
        small = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        mix = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    light = 1 + rng.uniform(-0.2, 0.2) * (2 * u - 1)
    return np.clip((one + (two - one) * mix[:, :, None]) * light[:, :, None] + rng.normal(0, 6, (size, size, 1)), 0, 255)


def _free_place(size: int, radius: float, placed: list[tuple[float, float, float]], rng: np.random.Generator) -> tuple[float, float] | None:
    for _ in range(60):
        x, y = rng.uniform(radius + 1, size - radius - 1, 2)
        if all(math.hypot(x - px, y - py) > radius + other + 1 for px, py, other in placed):
            return float(x), float(y)
    return None


def _vivid(rng: np.random.Generator) -> np.ndarray:
    """A saturated, bright colour, such as no background has: objects stand out in every scene."""
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.75, 1.0), rng.uniform(0.85, 1.0)))


def _coverage(kind: str, size: int, spot: tuple[float, float], radius: float, rng: np.random.Generator) -> np.ndarray:
    """float64 [size, size]: share of every pixel that the object covers."""
    image = Image.new("L", (size * _FINE, size * _FINE), 0)
    pen = ImageDraw.Draw(image)
    x, y, r = spot[0] * _FINE, spot[1] * _FINE, radius * _FINE
    turn = rng.uniform(0, 2 * math.pi)

    def corners(count: int, radii: tuple[float, ...]) -> list[tuple[float, float]]:
        return [
            (
                x + radii[i % len(radii)] * math.cos(turn + 2 * math.pi * i / count),
                y + radii[i % len(radii)] * math.sin(turn + 2 * math.pi * i / count),
            )
            for i in range(count)
        ]

    if kind in ("circle", "ring"):
        outer = 0.92 * r
        pen.ellipse((x - outer, y - outer, x + outer, y + outer), fill=255)
        if kind == "ring":
            inner = 0.52 * r
            pen.ellipse((x - inner, y - inner, x + inner, y + inner), fill=0)
    elif kind == "square":
        pen.polygon(corners(4, (r,)), fill=255)
    elif kind == "triangle":
        pen.polygon(corners(3, (r,)), fill=255)
    elif kind == "star":
        pen.polygon(corners(10, (r, 0.45 * r)), fill=255)
    else:  # cross: two bars at a right angle
        arm = 0.3 * r
        for quarter in (turn, turn + math.pi / 2):
            c, s = math.cos(quarter), math.sin(quarter)
            pen.polygon([(x + a * c - b * s, y + a * s + b * c) for a, b in ((-r, -arm), (r, -arm), (r, arm), (-r, arm))], fill=255)
    return np.asarray(image.reduce(_FINE), dtype=np.float64) / 255
