"""A gallery on one sheet, laid out as the page saves it, with captions. numpy and Pillow only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnnviz.drawing import Drawing, fit, wrap
from dnnviz.explain.picture import Look

# A sheet is for paper: always the light colours (assets/dnnviz.css).
_GROUND, _INK, _MUTED, _RULE = "#fbfbfa", "#1d2329", "#66707a", "#e4e6e8"
_STATES = {"good": "#2f9e62", "warning": "#b7791f", "degenerate": "#b2182b"}
# Of a tile, between tiles, of the column of text, above the rows, below a tile, of a line (as assets/attribution_save.js has them).
_SIDE, _GAP, _LEFT, _HEAD, _FOOT, _LINE = 150, 8, 190, 30, 26, 17
_NAMED = 4  # targets in a caption


def compose(gallery: Mapping[str, Any], inputs: Sequence[np.ndarray], painted: Sequence[Sequence[np.ndarray | None]], caption: str) -> Drawing:
    """The sheet of a gallery (`dnnviz.explain.gallery.gallery`).

    inputs: uint8 [H, W, 3] a row. painted: uint8 [H, W, 3] a tile, row by row; None where there is no map: its sentence stands there.
    """
    height, width = gallery["size"]
    tall = _SIDE * height / width
    columns, rows = gallery["columns"], gallery["rows"]
    sheet = Drawing(max(_LEFT + 24 + (len(columns) + 1) * (_SIDE + _GAP) - _GAP, 480), 0, _GROUND)

    def place(column: int) -> float:
        return _LEFT + 12 + column * (_SIDE + _GAP)

    for number, title in enumerate(["Input", *(column["title"] for column in columns)]):
        sheet.text(place(number), 20, fit(title, _SIDE, 12, True), 12, _INK, bold=True)
    y = float(_HEAD)
    for r, row in enumerate(rows):
        # An input explained for several targets is shown once, above.
        first = r == 0 or rows[r - 1]["source"] != row["source"]
        beside = _beside(row, first, sum(other["source"] == row["source"] for other in rows) == 1)
        for i, (text, value, strong) in enumerate(beside):
            fill = _INK if strong else _MUTED
            sheet.text(12, y + 13 + _LINE * i, fit(text, _LEFT - (56 if value else 16), 11.5, strong), 11.5, fill, bold=strong)
            sheet.text(_LEFT, y + 13 + _LINE * i, value, 11.5, fill, bold=strong, anchor="end")
        if first:
            sheet.image(place(0), y, _SIDE, tall, inputs[r])
        for c, tile in enumerate(gallery["tiles"][r]):
            _tile(sheet, place(c + 1), y, tall, tile["about"] or {}, painted[r][c])
        y += max(tall, _LINE * (len(beside) - 1)) + _FOOT
    lines = wrap(caption, sheet.width - 24, 11.5, 8)
    for i, line in enumerate(lines):
        sheet.text(12, y + 16 + 16 * i, line, 11.5, _MUTED)
    sheet.height = y + 18 + 16 * len(lines)
    return sheet


def _tile(sheet: Drawing, x: float, y: float, tall: float, about: Mapping[str, Any], pixels: np.ndarray | None) -> None:
    if pixels is None:
        sheet.frame(x, y, _SIDE, tall, _RULE)
        for i, line in enumerate(wrap(about.get("error", "Not computed."), _SIDE - 12, 9.5, max(int((tall - 8) / 12), 1))):
            sheet.text(x + 6, y + 15 + 12 * i, line, 9.5, _MUTED)
        return
    note = about["note"]
    sheet.image(x, y, _SIDE, tall, pixels)
    sheet.dot(x + 4, y + tall + 11, 3.5, _STATES.get(note["state"], _MUTED), note["state"] == "degenerate")
    sheet.text(x + 13, y + tall + 15, fit(note["text"], _SIDE - 14, 10.5), 10.5, _MUTED)


def _beside(row: Mapping[str, Any], first: bool, alone: bool) -> list[tuple[str, str, bool]]:
    """Lines left of a row, (text, number, whether bold): the input and what the network says of it, and what is explained.

    first: whether it is the first row of its input; alone: whether it is the only one.
    """
    name, probability, one_class = row["explained"]
    found = [(row["name"] + ("" if row["truth"] is None else f", true: {row['truth']}"), "", True)] if first else []
    if not alone or not one_class:
        found += [("Explained:", "", False), (name, _share(probability) if one_class else "", True)]
    if first:
        found += [(label, _share(share), explained and alone) for label, share, explained, *_ in row["top"]]
        if alone and one_class and row["top"] and not any(entry[2] for entry in row["top"]):
            found.append((name, _share(probability), True))
    return found


def caption(name: str, epoch: int, targets: Sequence[str], look: Look) -> str:
    """The line under a gallery: of what it is, and how to read its colours."""
    signs = {
        "auto": "red speaks for it, blue against it, where a method is signed",
        "absolute": "absolute values",
        "positive": "evidence for it only",
    }[look.sign]
    scale = "its largest value" if look.clip == 100 else f"its {look.clip:g}th percentile"
    what = ", ".join(targets) if len(targets) <= _NAMED else "the targets named at the left"
    return f"{name}, epoch {epoch}. What the score of {what} depends on; {signs}. Each tile on its own scale, strongest colour at {scale}."


def _share(probability: float | None) -> str:
    """A probability as the page writes it."""
    if probability is None:
        return ""
    if 0 < probability < 0.001:
        return "<0.001"
    return f"{probability:.3f}" if probability < 0.0995 else f"{probability:.2f}"
