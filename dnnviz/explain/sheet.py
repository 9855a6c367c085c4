"""A gallery on one sheet, laid out as the page saves it: SVG for print and PNG, with captions. numpy and Pillow only."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dnnviz.explain.picture import SMOOTH_FROM, Look, enlarged, png

# A sheet is for paper: always the light colours (assets/dnnviz.css).
_GROUND, _INK, _MUTED, _RULE = "#fbfbfa", "#1d2329", "#66707a", "#e4e6e8"
_STATES = {"good": "#2f9e62", "warning": "#b7791f", "degenerate": "#b2182b"}
_FAMILY = "Liberation Sans, Arial, Helvetica, sans-serif"
_FONTS = {
    False: ("LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "DejaVuSans.ttf", "Helvetica.ttc"),
    True: ("LiberationSans-Bold.ttf", "Arial Bold.ttf", "arialbd.ttf", "DejaVuSans-Bold.ttf", "Helvetica.ttc"),
}
# Of a tile, between tiles, of the column of text, above the rows, below a tile, of a line (as assets/attribution_save.js has them).
_SIDE, _GAP, _LEFT, _HEAD, _FOOT, _LINE = 150, 8, 190, 30, 26, 17
_NAMED = 4  # targets in a caption
_MOST_PIXELS = 16_000  # of a side of a PNG


@dataclass
class Sheet:
    """What is drawn, in order, at `width` × `height` units: texts, images and dots."""

    width: float
    height: float
    items: list[tuple[Any, ...]] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, size: float, fill: str = _INK, *, bold: bool = False, right: bool = False) -> None:
        if text:
            self.items.append(("text", x, y, text, size, fill, bold, right))

    def image(self, x: float, y: float, width: float, height: float, pixels: np.ndarray) -> None:
        self.items.append(("image", x, y, width, height, pixels))

    def dot(self, x: float, y: float, radius: float, fill: str, hollow: bool) -> None:
        self.items.append(("dot", x, y, radius, fill, hollow))

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        self.items.append(("frame", x, y, width, height))


def compose(gallery: Mapping[str, Any], inputs: Sequence[np.ndarray], painted: Sequence[Sequence[np.ndarray | None]], caption: str) -> Sheet:
    """The sheet of a gallery (`dnnviz.explain.gallery.gallery`).

    inputs: uint8 [H, W, 3] a row. painted: uint8 [H, W, 3] a tile, row by row; None where there is no map: its sentence stands there.
    """
    height, width = gallery["size"]
    tall = _SIDE * height / width
    columns, rows = gallery["columns"], gallery["rows"]
    sheet = Sheet(max(_LEFT + 24 + (len(columns) + 1) * (_SIDE + _GAP) - _GAP, 480), 0)

    def place(column: int) -> float:
        return _LEFT + 12 + column * (_SIDE + _GAP)

    for number, title in enumerate(["Input", *(column["title"] for column in columns)]):
        sheet.text(place(number), 20, _fit(title, _SIDE, 12, True), 12, bold=True)
    y = float(_HEAD)
    for r, row in enumerate(rows):
        # An input explained for several targets is shown once, above.
        first = r == 0 or rows[r - 1]["source"] != row["source"]
        beside = _beside(row, first, sum(other["source"] == row["source"] for other in rows) == 1)
        for i, (text, value, strong) in enumerate(beside):
            fill = _INK if strong else _MUTED
            sheet.text(12, y + 13 + _LINE * i, _fit(text, _LEFT - (56 if value else 16), 11.5, strong), 11.5, fill, bold=strong)
            sheet.text(_LEFT, y + 13 + _LINE * i, value, 11.5, fill, bold=strong, right=True)
        if first:
            sheet.image(place(0), y, _SIDE, tall, inputs[r])
        for c, tile in enumerate(gallery["tiles"][r]):
            _tile(sheet, place(c + 1), y, tall, tile["about"] or {}, painted[r][c])
        y += max(tall, _LINE * (len(beside) - 1)) + _FOOT
    lines = _wrap(caption, sheet.width - 24, 11.5, 8)
    for i, line in enumerate(lines):
        sheet.text(12, y + 16 + 16 * i, line, 11.5, _MUTED)
    sheet.height = y + 18 + 16 * len(lines)
    return sheet


def _tile(sheet: Sheet, x: float, y: float, tall: float, about: Mapping[str, Any], pixels: np.ndarray | None) -> None:
    if pixels is None:
        sheet.frame(x, y, _SIDE, tall)
        for i, line in enumerate(_wrap(about.get("error", "Not computed."), _SIDE - 12, 9.5, max(int((tall - 8) / 12), 1))):
            sheet.text(x + 6, y + 15 + 12 * i, line, 9.5, _MUTED)
        return
    note = about["note"]
    sheet.image(x, y, _SIDE, tall, pixels)
    sheet.dot(x + 4, y + tall + 11, 3.5, _STATES.get(note["state"], _MUTED), note["state"] == "degenerate")
    sheet.text(x + 13, y + tall + 15, _fit(note["text"], _SIDE - 14, 10.5), 10.5, _MUTED)


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


def as_svg(sheet: Sheet) -> str:
    """The sheet as the text of an SVG file; its images lie inside."""
    parts = []
    for kind, *item in sheet.items:
        if kind == "text":
            x, y, text, size, fill, bold, right = item
            style = (' font-weight="600"' if bold else "") + (' text-anchor="end"' if right else "")
            parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{style}>{escape(text)}</text>')
        elif kind == "image":
            x, y, width, height, pixels = item
            crisp = ' style="image-rendering:pixelated"' if min(pixels.shape[:2]) < SMOOTH_FROM else ""
            data = base64.b64encode(png(pixels)).decode()
            parts.append(
                f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{crisp} '
                f'preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
            )
        elif kind == "dot":
            x, y, radius, fill, hollow = item
            look = f'fill="none" stroke="{fill}" stroke-width="2"' if hollow else f'fill="{fill}"'
            parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius - 1 if hollow else radius:g}" {look}/>')
        else:
            x, y, width, height = item
            parts.append(f'<rect x="{x + 0.5:g}" y="{y + 0.5:g}" width="{width - 1:g}" height="{height - 1:g}" fill="none" stroke="{_RULE}"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{sheet.width:g}" height="{sheet.height:g}" '
        f'viewBox="0 0 {sheet.width:g} {sheet.height:g}" font-family="{_FAMILY}">'
        f'<rect width="100%" height="100%" fill="{_GROUND}"/>{"".join(parts)}</svg>\n'
    )


def as_image(sheet: Sheet, scale: float) -> Image.Image:
    """The sheet as a picture of `scale` pixels a unit, less where a side would have more than 16,000 pixels."""
    scale = min(scale, _MOST_PIXELS / sheet.width, _MOST_PIXELS / sheet.height)
    picture = Image.new("RGB", (round(sheet.width * scale), round(sheet.height * scale)), _GROUND)
    draw = ImageDraw.Draw(picture)
    for kind, *item in sheet.items:
        if kind == "text":
            x, y, text, size, fill, bold, right = item
            draw.text((x * scale, y * scale), text, fill=fill, font=_font(bold, size * scale), anchor="rs" if right else "ls")
        elif kind == "image":
            x, y, width, height, pixels = item
            left, top = round(x * scale), round(y * scale)
            picture.paste(enlarged(pixels, round((x + width) * scale) - left, round((y + height) * scale) - top), (left, top))
        elif kind == "dot":
            x, y, radius, fill, hollow = (*(v * scale for v in item[:3]), *item[3:])
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, fill=None if hollow else fill, outline=fill, width=max(round(2 * scale), 1))
        else:
            x, y, width, height = (v * scale for v in item)
            draw.rectangle((x, y, x + width - 1, y + height - 1), outline=_RULE, width=max(round(scale), 1))
    return picture


def _share(probability: float | None) -> str:
    """A probability as the page writes it."""
    if probability is None:
        return ""
    if 0 < probability < 0.001:
        return "<0.001"
    return f"{probability:.3f}" if probability < 0.0995 else f"{probability:.2f}"


@cache
def _font(bold: bool, size: float) -> Any:
    for name in _FONTS[bold]:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _length(text: str, size: float, bold: bool = False) -> float:
    # Measured large: letters of ten pixels are rounded to whole ones.
    return _font(bold, 100.0).getlength(text) * size / 100


def _fit(text: str, room: float, size: float, bold: bool = False) -> str:
    if _length(text, size, bold) <= room:
        return text
    while text and _length(text + "…", size, bold) > room:
        text = text[:-1].rstrip()
    return text + "…"


def _wrap(text: str, room: float, size: float, most: int) -> list[str]:
    """Lines that fit a width; the last of `most` ends with … where more would follow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and _length(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    lines, rest = lines[:most], lines[most:]
    if rest:
        lines[-1] = _fit(f"{lines[-1]} {rest[0]}", room, size).rstrip("….,; ") + "…"
    return [_fit(line, room, size) for line in lines]
