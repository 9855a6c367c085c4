"""Pictures of a report that are tables of colours: strips of units, images, the confusion table."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from dnnviz.explain.picture import enlarged, png

_ACROSS = 64  # units in a row of a strip
_CELL = 9  # pixels


def data_url(content: bytes) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def image(pixels: np.ndarray, side: int, text: str) -> str:
    """An image element of side × side pixels; pixels: uint8 [H, W, 3]."""
    return f'<img src="{data_url(png(enlarged(pixels, side, side)))}" width="{side}" height="{side}" alt="{escape(text)}" title="{escape(text)}">'


def cells(values: np.ndarray) -> np.ndarray:
    """float64 [U], 0 to 1: values of a layer shifted to be non-negative and divided by their maximum; not finite ones are 0."""
    known = np.where(np.isfinite(values), values, 0).astype(np.float64)
    shifted = known - min(0.0, float(known.min(initial=0)))
    return shifted / max(float(shifted.max(initial=0)), 1e-30)


def strip(values: np.ndarray, colours: Mapping[str, str], text: str) -> str:
    """The units of a layer as cells in rows of _ACROSS; values: float [U]."""
    share = cells(values)
    low, high, ground = (np.array([int(colours[name][i : i + 2], 16) for i in (1, 3, 5)]) for name in ("cell0", "cell1", "panel"))
    across = min(_ACROSS, len(share))
    rows = -(-len(share) // across)
    pixels = np.tile(ground, (rows * across, 1)).astype(np.float64)
    pixels[: len(share)] = low + (high - low) * share[:, None]
    shape = (rows, across, 3)
    picture = np.kron(pixels.reshape(shape), np.ones((_CELL, _CELL, 1))).round().astype(np.uint8)
    picture[_CELL - 1 :: _CELL] = picture[:, _CELL - 1 :: _CELL] = ground
    return f'<img src="{data_url(png(picture))}" width="{picture.shape[1]}" height="{picture.shape[0]}" alt="{escape(text)}">'


def confusion_table(table: np.ndarray, classes: Sequence[str]) -> str:
    """int [K, K], true class by predicted class, as a table shaded by share of the row; wrong ones red, right ones grey."""
    head = "".join(f'<th class="c">{escape(name)}</th>' for name in classes)
    rows = []
    for i, row in enumerate(table):
        total = max(int(row.sum()), 1)
        line = [_cell(int(n), float(n) / total, j == i) for j, n in enumerate(row)]
        rows.append(f"<tr><th>{escape(classes[i])}</th>{''.join(line)}</tr>")
    return f'<table class="confusion"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _cell(count: int, share: float, right: bool) -> str:
    if not count:
        return "<td></td>"
    colour = f"rgba(102, 112, 122, {0.12 + 0.5 * share:.2f})" if right else f"rgba(203, 0, 22, {0.1 + 0.6 * share:.2f})"
    return f'<td style="background: {colour}">{count}</td>'
