"""Palette, plotly templates and the one graph configuration. The style sheet in assets/ repeats the palette for the browser."""

from __future__ import annotations

import colorsys
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

PALETTE: dict[str, dict[str, str]] = {
    "light": {
        "bg": "#fbfbfa",
        "panel": "#ffffff",
        "ink": "#1d2329",
        "muted": "#66707a",
        "line": "#e4e6e8",
        "accent": "#b2182b",
        "cell0": "#fff7f3",
        "cell1": "#cb0016",
    },
    "dark": {
        "bg": "#15181b",
        "panel": "#1c2024",
        "ink": "#e6e8ea",
        "muted": "#98a1aa",
        "line": "#2d3339",
        "accent": "#f4786a",
        "cell0": "#262b30",
        "cell1": "#ff5c4c",
    },
}

# One colour per class everywhere; ten that are told apart on white and on black, then hues that divide the circle.
CLASS_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#b07aa1", "#9c755f", "#bab0ac", "#edc948", "#3b5b92")

FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', Arial, system-ui, sans-serif"

# `showSendToCloud`: plotly.js has a button that uploads the figure to a public site; nothing here leaves the machine.
GRAPH_CONFIG: dict[str, Any] = {"displaylogo": False, "showSendToCloud": False, "responsive": True, "displayModeBar": False}


def class_colours(count: int) -> list[str]:
    """Colours `#rrggbb` of classes 0 … count − 1; the colour of a class does not depend on `count`."""
    colours = list(CLASS_COLOURS[:count])
    for index in range(len(colours), count):
        # The golden angle keeps neighbours in the list far apart on the hue circle.
        hue, level = (index * 0.381966) % 1.0, (0.45, 0.58, 0.68)[index % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, level, 0.5)
        colours.append(f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}")
    return colours


def _template(colours: dict[str, str]) -> go.layout.Template:
    axis = {
        "gridcolor": colours["line"],
        "linecolor": colours["line"],
        "zerolinecolor": colours["line"],
        "tickfont": {"size": 11, "color": colours["muted"]},
        "title": {"font": {"size": 12, "color": colours["muted"]}, "standoff": 6},
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": FONT, "size": 12, "color": colours["ink"]},
            "colorway": [colours["accent"], *CLASS_COLOURS],
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 40, "r": 12, "t": 12, "b": 32},
            "hoverlabel": {
                "bgcolor": colours["panel"],
                "bordercolor": colours["line"],
                "font": {"color": colours["ink"], "family": FONT, "size": 12},
            },
            "legend": {"font": {"size": 11, "color": colours["muted"]}, "bgcolor": "rgba(0,0,0,0)"},
            "colorscale": {"sequential": [[0, colours["cell0"]], [1, colours["cell1"]]]},
        }
    )


for _name, _colours in PALETTE.items():
    pio.templates[f"dnnviz-{_name}"] = _template(_colours)


def template(theme: str) -> go.layout.Template:
    """The plotly template of a theme, `light` or `dark` (anything else: light)."""
    return pio.templates[f"dnnviz-{theme if theme in PALETTE else 'light'}"]
