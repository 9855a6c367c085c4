"""Pictures made of texts, images, lines and marks, as SVG for print and as PNG, without a browser. numpy and Pillow only."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dnnviz.explain.picture import SMOOTH_FROM, enlarged, png

_FAMILY = "Liberation Sans, Arial, Helvetica, sans-serif"
_FONTS = {
    False: ("LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "DejaVuSans.ttf", "Helvetica.ttc"),
    True: ("LiberationSans-Bold.ttf", "Arial Bold.ttf", "arialbd.ttf", "DejaVuSans-Bold.ttf", "Helvetica.ttc"),
}
_MOST_PIXELS = 16_000  # of a side of a PNG
_FINER = 4  # lines and marks are drawn this many times as large, and reduced, so that their edges are smooth
_DASH = (3.0, 3.0)


@dataclass
class Drawing:
    """What is drawn, in order, at `width` × `height` units.

    ground: colour behind it, None for none (white in a PNG). label: what a screen reader says of it.
    """

    width: float
    height: float
    ground: str | None = None
    label: str = ""
    items: list[tuple[Any, ...]] = field(default_factory=list)

    def text(
        self, x: float, y: float, words: str, size: float, fill: str, *, bold: bool = False, anchor: str = "start", up: bool = False, title: str = ""
    ) -> None:
        """A line of text on the base line y. anchor: `start`, `middle` or `end`, which of it stands at x; up: it runs upwards from (x, y)."""
        if words:
            self.items.append(("text", x, y, words, size, fill, bold, anchor, up, title if title != words else ""))

    def image(self, x: float, y: float, width: float, height: float, pixels: np.ndarray, title: str = "") -> None:
        """pixels: uint8 [H, W, 3]."""
        self.items.append(("image", x, y, width, height, pixels, title))

    def dot(self, x: float, y: float, radius: float, fill: str, hollow: bool = False, title: str = "") -> None:
        self.items.append(("dot", x, y, radius, fill, hollow, title))

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        self.items.append(("box", x, y, width, height, fill))

    def frame(self, x: float, y: float, width: float, height: float, stroke: str) -> None:
        self.items.append(("frame", x, y, width, height, stroke))

    def line(self, points: Sequence[tuple[float, float]], stroke: str, width: float = 1, dashed: bool = False) -> None:
        self.items.append(("line", tuple(points), stroke, width, dashed))


# -- text ------------------------------------------------------------------------------------------------------------


@cache
def _font(bold: bool, size: float) -> Any:
    for name in _FONTS[bold]:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def length(text: str, size: float, bold: bool = False) -> float:
    """How broad a text is."""
    # Measured large: letters of ten pixels are rounded to whole ones.
    return _font(bold, 100.0).getlength(text) * size / 100


def fit(text: str, room: float, size: float, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it is broader than room."""
    if length(text, size, bold) <= room:
        return text
    while text and length(text + "…", size, bold) > room:
        text = text[:-1].rstrip()
    return text + "…"


def wrap(text: str, room: float, size: float, most: int) -> list[str]:
    """Lines that fit a width; the last of `most` ends with … where more would follow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and length(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    lines, rest = lines[:most], lines[most:]
    if rest:
        lines[-1] = fit(f"{lines[-1]} {rest[0]}", room, size).rstrip("….,; ") + "…"
    return [fit(line, room, size) for line in lines]


# -- SVG -------------------------------------------------------------------------------------------------------------


def as_svg(drawing: Drawing) -> str:
    """The drawing as the text of an SVG file; its images lie inside."""
    told = f' role="img" aria-label="{escape(drawing.label)}"' if drawing.label else ""
    ground = f'<rect width="100%" height="100%" fill="{drawing.ground}"/>' if drawing.ground else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawing.width:g}" height="{drawing.height:g}" '
        f'viewBox="0 0 {drawing.width:g} {drawing.height:g}" font-family="{_FAMILY}"{told}>'
        f"{ground}{''.join(_SVG[kind](*item) for kind, *item in drawing.items)}</svg>\n"
    )


def _titled(tag: str, attributes: str, content: str, title: str) -> str:
    inside = content + (f"<title>{escape(title)}</title>" if title else "")
    return f"<{tag} {attributes}>{inside}</{tag}>" if inside else f"<{tag} {attributes}/>"


def _text_svg(x: float, y: float, words: str, size: float, fill: str, bold: bool, anchor: str, up: bool, title: str) -> str:
    style = (' font-weight="600"' if bold else "") + (f' text-anchor="{anchor}"' if anchor != "start" else "")
    style += f' transform="rotate(-90 {x:g} {y:g})"' if up else ""
    return _titled("text", f'x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{style}', escape(words), title)


def _image_svg(x: float, y: float, width: float, height: float, pixels: np.ndarray, title: str) -> str:
    crisp = ' style="image-rendering:pixelated"' if min(pixels.shape[:2]) < SMOOTH_FROM else ""
    data = base64.b64encode(png(pixels)).decode()
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{crisp} preserveAspectRatio="none"'
    return _titled("image", f'{place} href="data:image/png;base64,{data}"', "", title)


def _dot_svg(x: float, y: float, radius: float, fill: str, hollow: bool, title: str) -> str:
    look = f'fill="none" stroke="{fill}" stroke-width="2"' if hollow else f'fill="{fill}"'
    return _titled("circle", f'cx="{x:g}" cy="{y:g}" r="{radius - 1 if hollow else radius:g}" {look}', "", title)


def _box_svg(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"/>'


def _frame_svg(x: float, y: float, width: float, height: float, stroke: str) -> str:
    return f'<rect x="{x + 0.5:g}" y="{y + 0.5:g}" width="{width - 1:g}" height="{height - 1:g}" fill="none" stroke="{stroke}"/>'


def _line_svg(points: Sequence[tuple[float, float]], stroke: str, width: float, dashed: bool) -> str:
    dash = f' stroke-dasharray="{_DASH[0]:g} {_DASH[1]:g}"' if dashed else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="{width:g}"{dash}/>'


_SVG: dict[str, Callable[..., str]] = {
    "text": _text_svg,
    "image": _image_svg,
    "dot": _dot_svg,
    "box": _box_svg,
    "frame": _frame_svg,
    "line": _line_svg,
}


# -- PNG -------------------------------------------------------------------------------------------------------------


def as_image(drawings: Drawing | Sequence[Drawing], scale: float) -> Image.Image:
    """The drawing, or several below one another, as a picture of `scale` pixels a unit, less where a side would have more than 16,000 pixels."""
    column = [drawings] if isinstance(drawings, Drawing) else list(drawings)
    scale = min(scale, *(_MOST_PIXELS / size for size in (max(each.width for each in column), sum(each.height for each in column))))
    tall = [round(each.height * scale) for each in column]
    picture = Image.new("RGB", (round(max(each.width for each in column) * scale), sum(tall)), column[0].ground or "#ffffff")
    for each, top in zip(column, np.cumsum([0, *tall[:-1]]).tolist(), strict=True):
        picture.paste(_paint(each, scale), (0, top))
    return picture


def _paint(drawing: Drawing, scale: float) -> Image.Image:
    picture = Image.new("RGB", (round(drawing.width * scale), round(drawing.height * scale)), drawing.ground or "#ffffff")
    draw = ImageDraw.Draw(picture)
    for kind, *item in drawing.items:
        if kind == "text":
            x, y, words, size, fill, bold, anchor, up, _ = item
            font = _font(bold, size * scale)
            if up:
                _text_up(picture, x * scale, y * scale, words, font, fill, anchor)
            else:
                draw.text((x * scale, y * scale), words, fill=fill, font=font, anchor=f"{anchor[0].replace('e', 'r').replace('s', 'l')}s")
        elif kind == "image":
            x, y, width, height, pixels, _ = item
            left, top = round(x * scale), round(y * scale)
            picture.paste(enlarged(pixels, round((x + width) * scale) - left, round((y + height) * scale) - top), (left, top))
        elif kind == "dot":
            x, y, radius, fill, hollow = (*(v * scale for v in item[:3]), *item[3:5])
            wide = 2 * scale * _FINER if hollow else 0

            def ring(mask: ImageDraw.ImageDraw, place: Callable[[float, float], tuple[float, float]], x=x, y=y, radius=radius, wide=wide) -> None:
                ends = (*place(x - radius, y - radius), *place(x + radius, y + radius))
                mask.ellipse(ends, fill=0 if wide else 255, outline=255, width=max(round(wide), 1))

            _smooth(picture, (x - radius, y - radius, x + radius, y + radius), fill, ring)
        elif kind == "box":
            x, y, width, height = (v * scale for v in item[:4])
            draw.rectangle((round(x), round(y), max(round(x + width) - 1, round(x)), max(round(y + height) - 1, round(y))), fill=item[4])
        elif kind == "frame":
            x, y, width, height = (v * scale for v in item[:4])
            draw.rectangle((x, y, x + width - 1, y + height - 1), outline=item[4], width=max(round(scale), 1))
        else:
            points, stroke, width, dashed = item
            ends = [(x * scale, y * scale) for x, y in points]
            wide = max(round(width * scale * _FINER), 1)
            pieces = _dashes(ends, scale) if dashed else [ends]

            def strokes(mask: ImageDraw.ImageDraw, place: Callable[[float, float], tuple[float, float]], pieces=pieces, wide=wide) -> None:
                for piece in pieces:
                    mask.line([place(x, y) for x, y in piece], fill=255, width=wide, joint="curve")

            rim = width * scale
            xs, ys = [x for x, _ in ends], [y for _, y in ends]
            _smooth(picture, (min(xs) - rim, min(ys) - rim, max(xs) + rim, max(ys) + rim), stroke, strokes)
    return picture


def _smooth(picture: Image.Image, box: tuple[float, float, float, float], colour: str, paint: Callable[..., None]) -> None:
    """Put what `paint(mask, place)` draws in white into the picture, in a colour and with smooth edges; box: where, in pixels."""
    left, top = int(np.floor(box[0])), int(np.floor(box[1]))
    size = (max(int(np.ceil(box[2])) - left, 1), max(int(np.ceil(box[3])) - top, 1))
    mask = Image.new("L", (size[0] * _FINER, size[1] * _FINER))
    paint(ImageDraw.Draw(mask), lambda x, y: ((x - left) * _FINER, (y - top) * _FINER))
    mask = mask.resize(size, Image.Resampling.BOX)
    picture.paste(Image.new("RGB", size, colour), (left, top), mask)


def _text_up(picture: Image.Image, x: float, y: float, words: str, font: Any, fill: str, anchor: str) -> None:
    low, high = font.getmetrics()[1], font.getmetrics()[0]
    wide = int(np.ceil(font.getlength(words)))
    mask = Image.new("L", (max(wide, 1), low + high))
    ImageDraw.Draw(mask).text((0, high), words, fill=255, font=font, anchor="ls")
    mask = mask.transpose(Image.Transpose.ROTATE_90)
    bottom = y + {"start": 0, "middle": wide / 2, "end": wide}[anchor]
    picture.paste(Image.new("RGB", mask.size, fill), (round(x - high), round(bottom - wide)), mask)


def _dashes(points: Sequence[tuple[float, float]], scale: float) -> list[list[tuple[float, float]]]:
    """Pieces of the lines between points, with gaps between them."""
    pieces = []
    for (x0, y0), (x1, y1) in pairwise(points):
        far = float(np.hypot(x1 - x0, y1 - y0))
        starts = np.arange(0, far, sum(_DASH) * scale)
        for start in starts.tolist():
            a, b = start / far, min(start + _DASH[0] * scale, far) / far
            pieces.append([(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in (a, b)])
    return pieces
