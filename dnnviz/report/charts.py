"""Small charts as SVG text, for the health view and the report: bars, courses over epochs, reliability diagrams. Numbers in, text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from dnnviz.analysis.diagnosis.finding import PERCENT, Bars, Course, Reliability

WIDTH = 340
_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
_ROW = 19  # height of a bar's row
_LETTER = 6.1  # mean width of a letter at 11.5 px


def draw(picture: Bars | Course | Reliability, colours: Mapping[str, str], width: int = WIDTH) -> str:
    """A picture of a finding as a whole SVG document; colours: a palette of `dnnviz.theme`."""
    if isinstance(picture, Bars):
        return _bars(picture, colours, width)
    return _course(picture, colours, width) if isinstance(picture, Course) else _reliability(picture, colours, width)


def svg(width: float, height: float, parts: Sequence[str], label: str = "") -> str:
    """An SVG document around its parts."""
    told = f' role="img" aria-label="{escape(label)}"' if label else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
        f'font-family="{_FONT}" font-size="11.5"{told}>{"".join(parts)}</svg>'
    )


def text(x: float, y: float, words: str, fill: str, anchor: str = "start", bold: bool = False, room: float = math.inf) -> str:
    """A line of text; cut with an ellipsis, the whole of it as its title, where it is wider than room pixels."""
    letters = max(1, int(room / _LETTER)) if math.isfinite(room) else len(words)
    shown = words if len(words) <= letters else words[: max(1, letters - 1)] + "…"
    weight = ' font-weight="bold"' if bold else ""
    title = f"<title>{escape(words)}</title>" if shown != words else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" text-anchor="{anchor}"{weight}>{escape(shown)}{title}</text>'


def told(value: float, unit: str = "") -> str:
    """A value as a chart writes it."""
    if not math.isfinite(value):
        return "–"
    if unit == PERCENT:
        return f"{100 * value:.0f} %" if value >= 0.1 or value == 0 else f"{100 * value:.1f} %"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if 100 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 1 or abs(value) >= 1e6 else f"{value:.3g}"


def _bars(picture: Bars, colours: Mapping[str, str], width: int) -> str:
    top = 20 if picture.title else 4
    names = min(0.5 * width, max((len(name) for name in picture.names), default=0) * _LETTER + 10)
    room = width - names - 56
    values = np.array(picture.values, dtype=float)
    shown = np.where(np.isfinite(values), values, 0)
    if picture.log:
        low = math.floor(np.log10(shown[shown > 0].min(initial=1))) - 0.3
        shown = np.where(shown > 0, np.log10(np.maximum(shown, 1e-300)) - low, 0)
    largest = max(float(shown.max(initial=0)), 1e-12) if picture.unit != PERCENT else max(float(shown.max(initial=0)), 0.2)
    parts = [text(0, 12, picture.title + (", by order of magnitude" if picture.log else ""), colours["muted"])] if picture.title else []
    for row, (name, value) in enumerate(zip(picture.names, picture.values, strict=True)):
        y, strong = top + row * _ROW, row in picture.marked
        parts.append(text(0, y + 13, name, colours["ink"], bold=strong, room=names - 6))
        length = max(1.0, room * float(shown[row]) / largest)
        fill = colours["accent"] if strong else colours["muted"]
        parts.append(f'<rect x="{names:.1f}" y="{y + 5}" width="{length:.1f}" height="9" rx="2" fill="{fill}"/>')
        parts.append(text(names + length + 6, y + 13, told(value, picture.unit), colours["accent"] if strong else colours["muted"]))
    return svg(width, top + _ROW * len(picture.names) + 4, parts, picture.title)


def _course(picture: Course, colours: Mapping[str, str], width: int, height: int = 150) -> str:
    left, right, top, bottom = 42, 96, 20, 24
    values = np.array(list(picture.series.values()), dtype=float)
    finite = values[np.isfinite(values)]
    low, high = (min(0.0, float(finite.min())), float(finite.max())) if finite.size else (0.0, 1.0)
    high = high if high > low else low + 1
    first, last = picture.epochs[0], picture.epochs[-1]

    def x(epoch: float) -> float:
        return left + (width - left - right) * (epoch - first) / max(last - first, 1)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - low) / (high - low))

    parts = [text(0, 12, picture.title, colours["muted"])]
    for tick in (low, (low + high) / 2, high):
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{colours["line"]}"/>')
        parts.append(text(left - 6, y(tick) + 4, told(tick, picture.unit), colours["muted"], "end"))
    parts += [text(x(tick), height - 8, str(tick), colours["muted"], "middle") for tick in dict.fromkeys((first, last))]
    if picture.mark is not None:
        at = x(picture.mark)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{height - bottom}" stroke="{colours["ink"]}" stroke-dasharray="3 3"/>')
        if picture.mark not in (first, last):
            parts.append(text(at, height - 8, str(picture.mark), colours["ink"], "middle", bold=True))
    labels: list[tuple[float, str, str, bool]] = []
    for name, line in picture.series.items():
        points = [(x(epoch), y(value)) for epoch, value in zip(picture.epochs, line, strict=True) if math.isfinite(value)]
        if not points:
            continue
        strong = name in picture.strong
        stroke = colours["accent"] if strong else colours["muted"]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="{2 if strong else 1.5}"/>')
        if len(points) == 1:
            parts.append(f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5" fill="{stroke}"/>')
        labels.append((points[-1][1] + 4, name, stroke, strong))
    lowest = -math.inf
    for place, name, stroke, strong in sorted(labels):
        # Names of lines that end close together stand below one another.
        lowest = max(place, lowest + 13)
        parts.append(text(width - right + 6, lowest, name, stroke, bold=strong, room=right - 8))
    return svg(width, height, parts, picture.title)


def _reliability(picture: Reliability, colours: Mapping[str, str], width: int, size: int = 150) -> str:
    left, top, bottom = 42, 20, 34
    side = size

    def x(value: float) -> float:
        return left + side * value

    def y(value: float) -> float:
        return top + side * (1 - value)

    parts = [text(0, 12, picture.title, colours["muted"])]
    parts.append(f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="{colours["line"]}"/>')
    parts.append(f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="{colours["muted"]}" stroke-dasharray="3 3"/>')
    for tick in (0, 0.5, 1):
        parts.append(text(left - 6, y(tick) + 4, told(tick, PERCENT), colours["muted"], "end"))
        parts.append(text(x(tick), top + side + 14, told(tick, PERCENT), colours["muted"], "middle"))
    parts.append(text(x(0.5), top + side + 28, "confidence", colours["muted"], "middle"))
    points = " ".join(f"{x(c):.1f},{y(a):.1f}" for c, a in zip(picture.confidence, picture.accuracy, strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="{colours["accent"]}" stroke-width="1.5"/>')
    most = max(picture.counts)
    for c, a, count in zip(picture.confidence, picture.accuracy, picture.counts, strict=True):
        radius = 2 + 4 * math.sqrt(count / most)
        tip = f"{count} inputs: {told(c, PERCENT)} sure, {told(a, PERCENT)} right"
        parts.append(f'<circle cx="{x(c):.1f}" cy="{y(a):.1f}" r="{radius:.1f}" fill="{colours["accent"]}"><title>{escape(tip)}</title></circle>')
    note = left + side + 16
    for line, words in enumerate(("below the line:", "surer than right;", "larger: more inputs")):
        parts.append(text(note, top + side - 34 + 15 * line, words, colours["muted"]))
    return svg(width, top + side + bottom, parts, picture.title)
