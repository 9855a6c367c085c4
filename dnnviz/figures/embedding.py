"""A projection as a scatter of points: arrays in, figure out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dnnviz.theme import PALETTE, class_colours, template

# Up to here plotly draws every point, sharp on paper. Above, it keeps the points for hover and lasso and draws none of
# them (`maxdisplayed`): assets/embedding.js paints them on a canvas. plotly's own scattergl compiles code in the browser,
# which the app's content security policy forbids.
VECTOR_POINTS = 1500
_RIGHT = {"light": "#b3b9bf", "dark": "#59626b"}
_RAMP = {"light": ["#cfd4d9", "#f0b29c", "#cb0016"], "dark": ["#424a52", "#a2574d", "#ff5c4c"]}


@dataclass(frozen=True)
class Colouring:
    """Colours of points: a number each (float32 [n]), the scale that turns numbers into colours, and its legend.

    legend: {"title", "entries": [[name, colour]]} for groups, {"title", "ramp": [colours], "low", "high"} for a quantity.
    """

    values: np.ndarray
    scale: list[tuple[float, str]]
    low: float
    high: float
    legend: dict[str, Any]


def by_group(groups: np.ndarray, names: Sequence[str], title: str) -> Colouring:
    """One colour a class."""
    return _groups(groups, names, class_colours(len(names)), title)


def by_right(right: np.ndarray, theme: str) -> Colouring:
    """Grey where the prediction is right, the accent where it is wrong."""
    colours = [_RIGHT.get(theme, _RIGHT["light"]), PALETTE.get(theme, PALETTE["light"])["accent"]]
    return _groups(np.where(right, 0, 1), ["right", "wrong"], colours, "Prediction")


def by_quantity(values: np.ndarray, low: float, high: float, title: str, theme: str, *, red_is_low: bool = False) -> Colouring:
    """From grey to red, the colour that is looked for, at the upper end or the lower."""
    ramp = _RAMP.get(theme, _RAMP["light"])[:: -1 if red_is_low else 1]
    scale = [(i / (len(ramp) - 1), colour) for i, colour in enumerate(ramp)]
    legend = {"title": title, "ramp": ramp, "low": float(low), "high": float(high)}
    return Colouring(values.astype(np.float32), scale, float(low), float(high) if high > low else float(low) + 1, legend)


def _groups(groups: np.ndarray, names: Sequence[str], colours: Sequence[str], title: str) -> Colouring:
    # Numbers with a scale in steps instead of a string a point: a tenth of the bytes.
    count = len(colours)
    scale = [(edge / count, colour) for i, colour in enumerate(colours) for edge in (i, i + 1)]
    return Colouring(
        groups.astype(np.float32), scale, -0.5, count - 0.5, {"title": title, "entries": list(map(list, zip(names, colours, strict=True)))}
    )


def scatter(points: np.ndarray, colouring: Colouring, titles: Sequence[str], theme: str, view: str) -> go.Figure:
    """Points [n, 2 or 3]. titles: of the axes, empty where they mean nothing. view: while it stays the same, so does the zoom."""
    colours = PALETTE.get(theme, PALETTE["light"])
    count, dims = points.shape
    marker: dict[str, Any] = {
        "size": float(np.interp(count, [50, 1000, 5000, 20000], [10, 7.5, 5, 3.5])) * (0.6 if dims == 3 else 1),
        "color": colouring.values,
        "colorscale": colouring.scale,
        "cmin": colouring.low,
        "cmax": colouring.high,
        "showscale": False,
        "opacity": 0.85,
        "line": {"width": 0, "color": colours["ink"]},
    }
    common = {"mode": "markers", "marker": marker, "hoverinfo": "none", "showlegend": False}
    layout = {"template": template(theme), "uirevision": view, "hovermode": "closest", "dragmode": "pan", "margin": {"l": 8, "r": 8, "t": 8, "b": 8}}
    if dims == 3:
        axis = {
            "showbackground": False,
            "showticklabels": False,
            "showspikes": False,
            "gridcolor": colours["line"],
            "zerolinecolor": colours["line"],
        }
        scene = {
            name: {**axis, "title": {"text": title, "font": {"size": 11}}} for name, title in zip(("xaxis", "yaxis", "zaxis"), titles, strict=True)
        }
        figure = go.Figure(go.Scatter3d(x=points[:, 0], y=points[:, 1], z=points[:, 2], **common))
        figure.update_layout(**layout, scene={**scene, "aspectmode": "data", "uirevision": view, "dragmode": "orbit"})
        return figure
    if count > VECTOR_POINTS:
        marker["maxdisplayed"] = 1
    named = any(titles)
    axis = {"showgrid": False, "zeroline": named, "showticklabels": False, "ticks": ""}
    figure = go.Figure(go.Scatter(x=points[:, 0], y=points[:, 1], **common))
    figure.update_layout(
        **layout,
        xaxis={**axis, "title": {"text": titles[0]}},
        # One scale for both axes: a distance is the same in every direction.
        yaxis={**axis, "title": {"text": titles[1]}, "scaleanchor": "x"},
    )
    return figure
