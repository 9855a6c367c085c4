"""Small charts for the health view and the report: bars, courses over epochs, reliability diagrams. Numbers in, drawings out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dnnviz.analysis.diagnosis.finding import PERCENT, Bars, Course, Reliability
from dnnviz.drawing import Drawing, fit, length

WIDTH = 340
SIZE = 11.5  # of text
_ROW = 19  # height of a bar's row
_LETTERS = 13  # height of a name beside a line
_SIDE = 150  # of a reliability diagram


def draw(picture: Bars | Course | Reliability, colours: Mapping[str, str], width: int = WIDTH) -> Drawing:
    """A picture of a finding; colours: a palette of `dnnviz.theme`."""
    if isinstance(picture, Bars):
        return _bars(picture, colours, width)
    return _course(picture, colours, width) if isinstance(picture, Course) else _reliability(picture, colours, width)


def write(
    drawing: Drawing, x: float, y: float, words: str, fill: str, anchor: str = "start", bold: bool = False, room: float = math.inf, up: bool = False
) -> None:
    """Put a line of text of the usual size on a drawing; cut, with the whole of it as its title, where it is broader than room."""
    shown = fit(words, room, SIZE, bold) if math.isfinite(room) else words
    drawing.text(x, y, shown, SIZE, fill, bold=bold, anchor=anchor, up=up, title=words)


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


def _bars(picture: Bars, colours: Mapping[str, str], width: int) -> Drawing:
    top = 20 if picture.title else 4
    drawing = Drawing(width, top + _ROW * len(picture.names) + 4, label=picture.title)
    names = min(0.5 * width, max((length(name, SIZE, True) for name in picture.names), default=0) + 10)
    room = width - names - 56
    values = np.array(picture.values, dtype=float)
    shown = np.where(np.isfinite(values), values, 0)
    if picture.log:
        low = math.floor(np.log10(shown[shown > 0].min(initial=1))) - 0.3
        shown = np.where(shown > 0, np.log10(np.maximum(shown, 1e-300)) - low, 0)
    largest = max(float(shown.max(initial=0)), 1e-12) if picture.unit != PERCENT else max(float(shown.max(initial=0)), 0.2)
    if picture.title:
        write(drawing, 0, 12, picture.title + (", by order of magnitude" if picture.log else ""), colours["muted"])
    for row, (name, value) in enumerate(zip(picture.names, picture.values, strict=True)):
        y, strong = top + row * _ROW, row in picture.marked
        fill = colours["accent"] if strong else colours["muted"]
        write(drawing, 0, y + 13, name, colours["ink"], bold=strong, room=names - 6)
        across = max(1.0, room * float(shown[row]) / largest)
        drawing.box(names, y + 5, across, 9, fill)
        write(drawing, names + across + 6, y + 13, told(value, picture.unit), fill)
    return drawing


def _course(picture: Course, colours: Mapping[str, str], width: int, height: int = 150) -> Drawing:
    left, right, top, bottom = 42, 96, 20, 24
    drawing = Drawing(width, height, label=picture.title)
    values = np.array(list(picture.series.values()), dtype=float)
    finite = values[np.isfinite(values)]
    low, high = (min(0.0, float(finite.min())), float(finite.max())) if finite.size else (0.0, 1.0)
    high = high if high > low else low + 1
    first, last = picture.epochs[0], picture.epochs[-1]

    def x(epoch: float) -> float:
        return left + (width - left - right) * (epoch - first) / max(last - first, 1)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - low) / (high - low))

    write(drawing, 0, 12, picture.title, colours["muted"])
    for tick in (low, (low + high) / 2, high):
        drawing.line([(left, y(tick)), (width - right, y(tick))], colours["line"])
        write(drawing, left - 6, y(tick) + 4, told(tick, picture.unit), colours["muted"], "end")
    ends = dict.fromkeys((first, last))
    for tick in ends:
        write(drawing, x(tick), height - 8, str(tick), colours["muted"], "middle")
    if picture.mark is not None:
        drawing.line([(x(picture.mark), top), (x(picture.mark), height - bottom)], colours["ink"], dashed=True)
        # A number beside that of an end would be written over it.
        if all(abs(x(picture.mark) - x(tick)) > 22 for tick in ends):
            write(drawing, x(picture.mark), height - 8, str(picture.mark), colours["ink"], "middle", bold=True)
    labels: list[tuple[float, str, str, bool]] = []
    for name, line in picture.series.items():
        points = [(x(epoch), y(value)) for epoch, value in zip(picture.epochs, line, strict=True) if math.isfinite(value)]
        if not points:
            continue
        strong = name in picture.strong
        stroke = colours["accent"] if strong else colours["muted"]
        if len(points) == 1:
            drawing.dot(*points[0], 2.5, stroke)
        else:
            drawing.line(points, stroke, 2 if strong else 1.5)
        labels.append((points[-1][1] + 4, name, stroke, strong))
    # Names of lines that end close together stand below one another, the last of them above the epochs.
    labels.sort()
    places = [place for place, *_ in labels]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + _LETTERS)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], height - bottom + 4 - _LETTERS * (len(places) - 1 - i))
    for place, (_, name, stroke, strong) in zip(places, labels, strict=True):
        write(drawing, width - right + 6, place, name, stroke, bold=strong, room=right - 8)
    return drawing


def _reliability(picture: Reliability, colours: Mapping[str, str], width: int) -> Drawing:
    left, top, bottom = 42, 20, 34
    drawing = Drawing(width, top + _SIDE + bottom, label=picture.title)

    def x(value: float) -> float:
        return left + _SIDE * value

    def y(value: float) -> float:
        return top + _SIDE * (1 - value)

    write(drawing, 0, 12, picture.title, colours["muted"])
    drawing.frame(left, top, _SIDE, _SIDE, colours["line"])
    drawing.line([(x(0), y(0)), (x(1), y(1))], colours["muted"], dashed=True)
    for tick in (0, 0.5, 1):
        write(drawing, left - 6, y(tick) + 4, told(tick, PERCENT), colours["muted"], "end")
        write(drawing, x(tick), top + _SIDE + 14, told(tick, PERCENT), colours["muted"], "middle")
    write(drawing, x(0.5), top + _SIDE + 28, "confidence", colours["muted"], "middle")
    most = max(picture.counts)
    for c, a, count in zip(picture.confidence, picture.accuracy, picture.counts, strict=True):
        # How far the bin is from the line; joined points would make a peak of a bin that holds one input.
        drawing.line([(x(c), y(c)), (x(c), y(a))], colours["accent"])
        tip = f"{count} {'input' if count == 1 else 'inputs'}: {told(c, PERCENT)} sure, {told(a, PERCENT)} right"
        drawing.dot(x(c), y(a), 2 + 4 * math.sqrt(count / most), colours["accent"], title=tip)
    for line, words in enumerate(("below the line:", "surer than right;", "larger: more inputs")):
        write(drawing, left + _SIDE + 16, top + _SIDE - 34 + 15 * line, words, colours["muted"])
    return drawing
