"""Accuracy against units removed, a line a criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from dnnviz.theme import CLASS_COLOURS, PALETTE, template


@dataclass(frozen=True)
class Curve:
    """Accuracy [P] of a criterion at `counts`; low, high: its range over the seeds of a criterion that draws (None: it does not)."""

    title: str
    accuracy: np.ndarray
    notes: Sequence[str]
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def pruning_chart(counts: np.ndarray, total: int, curves: Sequence[Curve], proposed: tuple[int, float], theme: str) -> go.Figure:
    """Lines of accuracy over the number of units removed; a control that draws is a grey line in its band, the proposal a diamond.

    total: units that may go; proposed: (units, accuracy).
    """
    colours = PALETTE.get(theme, PALETTE["light"])
    lines = iter((colours["accent"], *CLASS_COLOURS))
    figure = go.Figure()
    for curve in curves:
        if curve.low is not None and curve.high is not None:
            # Bands first: a line is not to be hidden by what it is held against.
            figure.add_trace(
                go.Scatter(
                    x=np.concatenate([counts, counts[::-1]]),
                    y=np.concatenate([curve.high, curve.low[::-1]]),
                    fill="toself",
                    fillcolor=colours["line"],
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    mode="lines",
                )
            )
    for curve in curves:
        drawn = curve.low is not None
        figure.add_trace(
            go.Scatter(
                x=counts,
                y=curve.accuracy,
                name=curve.title,
                mode="lines+markers",
                marker={"size": 5},
                line={"color": colours["muted"] if drawn else next(lines), "width": 2, "dash": "dot" if drawn else "solid"},
                customdata=list(curve.notes),
                hovertemplate="%{y:.1%}, saves %{customdata}",
            )
        )
    if proposed[0]:
        figure.add_trace(
            go.Scatter(
                x=[proposed[0]],
                y=[proposed[1]],
                name="The proposal",
                mode="markers",
                marker={"symbol": "diamond", "size": 11, "color": colours["ink"], "line": {"width": 1, "color": colours["panel"]}},
                hovertemplate="%{y:.1%}",
            )
        )
    figure.update_layout(
        template=template(theme),
        margin={"l": 44, "r": 14, "t": 8, "b": 40},
        xaxis={"title": f"units removed, of {total:,}", "rangemode": "tozero"},
        yaxis={"title": "accuracy", "range": [0, 1.03], "tickformat": ".0%", "nticks": 6},
        legend={"orientation": "h", "y": 1.04, "x": 0, "yanchor": "bottom"},
        hovermode="x unified",
    )
    return figure
