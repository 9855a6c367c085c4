"""Layers of one network against layers of another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dnnviz.theme import PALETTE, template

LABELLED = 60  # rows or columns beyond which only some names fit


def similarity(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], titles: tuple[str, str], theme: str) -> go.Figure:
    """A heatmap of float [L1, L2] between 0 and 1 (negative values are noise and drawn as 0); titles: of rows and of columns."""
    colours = PALETTE.get(theme, PALETTE["light"])
    figure = go.Figure(
        go.Heatmap(
            z=np.clip(values, 0.0, 1.0),
            zmin=0,
            zmax=1,
            colorscale=[[0, colours["cell0"]], [1, colours["cell1"]]],
            xgap=1 if len(columns) <= LABELLED else 0,
            ygap=1 if len(rows) <= LABELLED else 0,
            x=list(columns),
            y=list(rows),
            hoverongaps=False,
            texttemplate="%{z:.2f}" if max(len(rows), len(columns)) <= 14 else None,
            hovertemplate="A, %{y}<br>B, %{x}<br>similarity %{z:.2f}<extra></extra>",
            colorbar={
                "thickness": 10,
                "len": 180,
                "lenmode": "pixels",
                "y": 1,
                "yanchor": "top",
                "title": {"text": "CKA", "side": "top"},
                "outlinewidth": 0,
                "tickvals": [0, 0.5, 1],
            },
        )
    )
    figure.update_layout(
        template=template(theme),
        margin={"l": 90, "r": 10, "t": 10, "b": 80},
        xaxis={
            "title": f"B, {titles[1]}",
            "type": "category",
            "tickvals": _shown(columns),
            "showgrid": False,
            "zeroline": False,
            "tickangle": -45,
        },
        yaxis={
            "title": f"A, {titles[0]}",
            "type": "category",
            "tickvals": _shown(rows),
            "showgrid": False,
            "zeroline": False,
            "autorange": "reversed",
        },
    )
    return figure


def _shown(names: Sequence[str]) -> list[str]:
    return list(names[:: max(-(-len(names) // LABELLED), 1)])
