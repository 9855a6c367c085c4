"""Pictures of a report that are made of cells and images: the units of a layer, what excites a unit, matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dnnviz.drawing import Drawing, length
from dnnviz.explain.picture import enlarged
from dnnviz.report.charts import SIZE, write

WIDTH = 900
_ACROSS = 64  # units in a row of a strip
_CELL = 9  # pixels
_LEFT = 262  # where cells begin, right of what they are
_SIDE = 56  # of an image
_LINE = 15
_MATRIX = 560  # side of a large matrix
_NAMES = 190  # room for names beside it
_SCALE = 90  # length of the scale of its colours


def cells(values: np.ndarray) -> np.ndarray:
    """float64 [U], 0 to 1: values of a layer shifted to be non-negative and divided by their maximum; not finite ones are 0."""
    known = np.where(np.isfinite(values), values, 0).astype(np.float64)
    shifted = known - min(0.0, float(known.min(initial=0)))
    return shifted / max(float(shifted.max(initial=0)), 1e-30)


def mix(low: str, high: str, share: np.ndarray) -> np.ndarray:
    """float64 [..., 3]: colours between two of `#rrggbb`; share: float [...], 0 to 1."""
    ends = [np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64) for colour in (low, high)]
    return ends[0] + (ends[1] - ends[0]) * np.asarray(share)[..., None]


def layer_row(name: str, about: str, values: np.ndarray, colours: Mapping[str, str]) -> Drawing:
    """The units of a layer as cells in rows of _ACROSS; values: float [U]."""
    share = cells(values)
    across = min(_ACROSS, len(share))
    rows = -(-len(share) // across)
    pixels = np.tile(mix(colours["panel"], colours["panel"], np.zeros(())), (rows * across, 1))
    pixels[: len(share)] = mix(colours["cell0"], colours["cell1"], share)
    picture = np.kron(pixels.reshape(rows, across, 3), np.ones((_CELL, _CELL, 1))).round().astype(np.uint8)
    picture[_CELL - 1 :: _CELL] = picture[:, _CELL - 1 :: _CELL] = [int(colours["panel"][i : i + 2], 16) for i in (1, 3, 5)]
    drawing = Drawing(WIDTH, max(picture.shape[0], 2 * _LINE) + 8, label=f"Mean activation of the units of {name}")
    write(drawing, 0, 12, name, colours["ink"], room=_LEFT - 12)
    write(drawing, 0, 12 + _LINE, about, colours["muted"], room=_LEFT - 12)
    drawing.image(_LEFT, 2, picture.shape[1], picture.shape[0], picture)
    return drawing


def unit_row(lines: Sequence[str], groups: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]], colours: Mapping[str, str]) -> Drawing:
    """Groups of images beside what they say; a group: (name before it, images uint8 [H, W, 3], a title each)."""
    drawing = Drawing(WIDTH, _SIDE + 10, label=". ".join(lines))
    middle = 4 + _SIDE / 2 + 4
    for i, words in enumerate(lines):
        write(drawing, 0, middle - _LINE * (len(lines) - 1) / 2 + _LINE * i, words, colours["muted" if i else "ink"], room=_LEFT - 12)
    x = float(_LEFT)
    for name, images, titles in groups:
        if name:
            write(drawing, x, middle, name, colours["muted"])
            x += length(name, SIZE) + 6
        for pixels, title in zip(images, titles, strict=True):
            # No more pixels than a screen or a printer of twice the density shows: a page of photographs would be large.
            small = np.asarray(enlarged(pixels, 2 * _SIDE, 2 * _SIDE)) if min(pixels.shape[:2]) > 2 * _SIDE else pixels
            drawing.image(x, 4, _SIDE, _SIDE, small, title)
            x += _SIDE + 6
        x += 16
    return drawing


def matrix(
    shades: np.ndarray, texts: Sequence[Sequence[str]] | None, rows: Sequence[str], columns: Sequence[str], label: str, colours: Mapping[str, str]
) -> Drawing:
    """A table of colours; shades: float64 [R, C, 3], 0 to 255; texts: what stands in the cells, None where they stay empty."""
    r, c = shades.shape[:2]
    broad = max((length(text, SIZE) for line in texts or () for text in line), default=0) + 8
    side, high = (max(22.0, broad), 22.0) if texts else (min(_MATRIX / c, 30.0), min(_MATRIX / r, 30.0))
    left, above = (min(max((length(name, SIZE) for name in names), default=0) + 10, _NAMES) for names in (rows, columns))
    up = above > side  # names of columns that are too broad to stand above their column
    above = above if up else 20.0
    drawing = Drawing(left + side * c + 4, above + high * r + 4, label=label)
    for i, name in enumerate(rows):
        if i % max(1, int(np.ceil(13 / high))) == 0:
            write(drawing, left - 8, above + high * (i + 0.5) + 4, name, colours["ink"], "end", room=left - 8)
    for j, name in enumerate(columns):
        if j % max(1, int(np.ceil(13 / side))) == 0:
            place = left + side * (j + 0.5) + (4 if up else 0)
            write(drawing, place, above - 6, name, colours["ink"], "start" if up else "middle", room=above - 6 if up else side, up=up)
    if texts is None:
        # Each cell several pixels: what is enlarged smoothly stays sharp but at its edges.
        drawing.image(left, above, side * c, high * r, np.kron(shades.round().astype(np.uint8), np.ones((5, 5, 1), dtype=np.uint8)))
        return drawing
    for i, line in enumerate(texts):
        for j, words in enumerate(line):
            x, y = left + side * j, above + high * i
            drawing.box(x, y, side - 1, high - 1, "#" + "".join(f"{round(v):02x}" for v in shades[i, j]))
            dark = shades[i, j].mean() < 130
            write(drawing, x + (side - 1) / 2, y + 15, words, colours["panel" if dark else "ink"], "middle")
    return drawing


def counts(table: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str, colours: Mapping[str, str]) -> Drawing:
    """int [K, K] inputs by two classes, shaded by share of the row: grey where both are the same class, red where they are not."""
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    empty = (table == 0)[..., None]
    shades = mix(colours["panel"], colours["cell1"], 0.1 + 0.6 * share)
    same = np.eye(*table.shape, dtype=bool)[..., None]
    shades = np.where(same, mix(colours["panel"], colours["muted"], 0.12 + 0.5 * share), shades)
    shades = np.where(empty, mix(colours["bg"], colours["bg"], share), shades)
    return matrix(shades, [[f"{n:,}" if n else "" for n in line] for line in table.tolist()], rows, columns, label, colours)


def similarities(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str, colours: Mapping[str, str]) -> Drawing:
    """float [R, C], 0 to 1 (what lies below is noise and drawn as 0), with the numbers where there are few."""
    names = [[_tail(name, _NAMES - 10) for name in each] for each in (rows, columns)]
    texts = [[f"{v:.2f}" for v in line] for line in np.maximum(values, 0).tolist()] if max(values.shape) <= 14 else None
    drawing = matrix(mix(colours["cell0"], colours["cell1"], np.clip(values, 0, 1)), texts, *names, label, colours)
    if texts is None:
        # Where no number stands in the cells, what their colours mean stands below.
        y, low = drawing.height + 8, max(drawing.width - 4 - _SCALE, 0)
        scale = mix(colours["cell0"], colours["cell1"], np.linspace(0, 1, _SCALE)[None]).repeat(10, axis=0)
        drawing.image(low, y, _SCALE, 10, scale.round().astype(np.uint8))
        write(drawing, low - 6, y + 9, "0", colours["muted"], "end")
        write(drawing, low, y + 24, "CKA", colours["muted"])
        write(drawing, low + _SCALE, y + 24, "1", colours["muted"], "end")
        drawing.height = y + 30
    return drawing


def _tail(name: str, room: float) -> str:
    """A layer's name, cut at its beginning where it is broader than room: layers of one part differ at the end."""
    while length(name, SIZE) > room:
        name = "…" + name.lstrip("…")[1:]
    return name
