"""Thumbnails, bars and numbers: the parts of every card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash
import numpy as np
from dash import html

from dnnviz.urlstate import Selection


def image_url(selection: Selection, index: int, size: int | None = None) -> str:
    """Address of a stored image, as it is or as a square of `size` pixels."""
    name = f"image/{index}.png" if size is None else f"thumb/{index}.png?size={size}"
    return dash.get_relative_path(f"/data/{selection.run_id}/{name}")


def thumbnail(
    selection: Selection, index: int, text: str = "", *, place: tuple[float, float] | None = None, classes: str = "", size: int = 96
) -> html.Button:
    """A small image that, when clicked, becomes what is shown (images kept for top lists only are not clickable).

    place: (x, y) in shares of width and height, marked with a square.
    """
    run = selection.run
    assert run is not None
    label = run.classes[int(run.image_labels([index])[0])]
    kept = index < run.kept
    marks = [html.Span(className="place", style={"left": f"{place[0]:.1%}", "top": f"{place[1]:.1%}"})] if place else []
    return html.Button(
        [html.Img(src=image_url(selection, index, size), alt=""), *marks, *([html.Span(text, className="value")] if text else [])],
        className=f"dv-thumb {classes}".strip(),
        type="button",
        title=f"{'input ' + str(index) if kept else 'not kept one by one'}, {label}",
        **{"aria-label": f"Input {index}, {label}", **({"data-dv-show": f"input:{index}"} if kept else {})},
    )


def bars(rows: Sequence[tuple[str, float, str, bool, str | None]]) -> html.Div:
    """Horizontal bars; a row is (name, value, text of the value, emphasised, show-target of a click or None)."""
    largest = max((abs(row[1]) for row in rows if np.isfinite(row[1])), default=0.0) or 1.0
    cells: list[Any] = []
    for name, value, text, strong, target in rows:
        mark = " strong" if strong else ""
        width = f"{100 * abs(value) / largest:.1f}%" if np.isfinite(value) else "0"
        if target:
            cells.append(html.Button(name, className=f"name{mark}", title=name, type="button", **{"data-dv-show": target}))
        else:
            cells.append(html.Span(name, className=f"name{mark}", title=name))
        cells += [html.Div(html.Div(className=f"bar{mark}", style={"width": width})), html.Span(text, className="value")]
    return html.Div(cells, className="dv-bars")


def unit_bars(rows: Sequence[tuple[str, int, float, str]], *, names: bool = True, signed: bool = False) -> html.Div:
    """Bars of units, each a click from its card; a row is (layer, unit, value, text). Signed: blue below zero, red above."""
    largest = max((abs(row[2]) for row in rows), default=0.0) or 1.0
    cells: list[Any] = []
    for layer, unit, value, text in rows:
        # A long name loses its beginning, never the unit.
        name = [html.Span(html.Bdi(layer), className="layer"), html.Span(f" · {unit}")] if names else f"unit {unit}"
        kind = "" if not signed else " high" if value > 0 else " low"
        cells += [
            html.Button(name, className="name", title=f"{layer} · {unit}", type="button", **{"data-dv-unit": f"{layer}|{unit}"}),
            html.Div(html.Div(className=f"bar{kind}", style={"width": f"{100 * abs(value) / largest:.1f}%"})),
            html.Span(text, className="value"),
        ]
    return html.Div(cells, className="dv-bars units" if names else "dv-bars")


def number(value: float) -> str:
    """A value with sensible digits."""
    if not np.isfinite(value):
        return "–"
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e5):
        return f"{value:.1e}".replace("-", "−")
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}".replace("-", "−")


def percent(value: float) -> str:
    """A share as a percentage: whole where it is above 10 %, one digit below."""
    if not np.isfinite(value):
        return "–"
    return f"{100 * value:.0f} %" if value >= 0.1 or value == 0 else f"{100 * value:.1f} %"
