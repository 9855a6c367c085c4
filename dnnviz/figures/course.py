"""The course of one unit over the epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dnnviz.theme import PALETTE, template


def course(epochs: Sequence[int], means: Sequence[float], shares: Sequence[float], epoch: int, theme: str) -> go.Figure:
    """Mean activation (left axis) and share of inputs on which the unit fires (right axis), with a line at `epoch`."""
    colours = PALETTE.get(theme, PALETTE["light"])
    x = np.asarray(epochs)
    figure = go.Figure(
        [
            go.Scatter(
                x=x, y=np.asarray(means), name="mean", mode="lines+markers", marker={"size": 5}, line={"color": colours["accent"], "width": 2}
            ),
            go.Scatter(
                x=x, y=np.asarray(shares), name="fires on", yaxis="y2", mode="lines", line={"color": colours["muted"], "width": 1.5, "dash": "dot"}
            ),
        ]
    )
    figure.update_layout(
        template=template(theme),
        margin={"l": 34, "r": 34, "t": 4, "b": 30},
        xaxis={"title": "epoch"},
        yaxis={"rangemode": "tozero", "nticks": 4},
        yaxis2={"overlaying": "y", "side": "right", "range": [0, 1.02], "tickformat": ".0%", "showgrid": False, "nticks": 3},
        legend={"orientation": "h", "y": 1.12, "x": 0, "yanchor": "bottom"},
        hovermode="x unified",
        shapes=[{"type": "line", "x0": epoch, "x1": epoch, "y0": 0, "y1": 1, "yref": "paper", "line": {"color": colours["muted"], "width": 1}}],
    )
    return figure
