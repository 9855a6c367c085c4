"""How predictions moved: classes on the left, classes on the right, a band for the inputs that go from one to the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dnnviz.analysis.moves import Moves
from dnnviz.theme import PALETTE, class_colours, template

MOST_CLASSES = 30  # beyond, the classes of which fewest inputs moved share one place
_KEPT, _WRONG = {"light": "rgba(102,112,122,.16)", "dark": "rgba(152,161,170,.18)"}, {"light": "rgba(102,112,122,.5)", "dark": "rgba(152,161,170,.5)"}
_MENDED, _BROKEN = {"light": "rgba(26,127,75,.6)", "dark": "rgba(74,201,139,.6)"}, {"light": "rgba(178,24,43,.6)", "dark": "rgba(244,120,106,.6)"}


def flows(found: Moves, classes: Sequence[str], titles: tuple[str, str], theme: str) -> tuple[go.Figure, int]:
    """(figure, number of nodes on its longer side). titles: of A and of B.

    Bands: grey where the prediction stays, green from wrong to right, red from right to wrong, dark grey from wrong to wrong.
    """
    count = len(classes)
    # A class matters by the inputs that leave or reach it; the rest shares the place `count`.
    moved = np.bincount(found.first[found.moved], minlength=count) + np.bincount(found.second[found.moved], minlength=count)
    present = np.bincount(found.first, minlength=count) + np.bincount(found.second, minlength=count) > 0
    shown = np.flatnonzero(present)
    if len(shown) > MOST_CLASSES:
        shown = np.sort(shown[np.argsort(-moved[shown], kind="stable")[: MOST_CLASSES - 1]])
    place = np.full(count, count)
    place[shown] = shown
    rest = int(present.sum()) - len(shown)
    kinds = np.select([~found.moved, found.mended, found.broken], [0, 1, 2], 3)
    bands, counts = np.unique(np.stack([place[found.first], place[found.second], kinds]), axis=1, return_counts=True)
    sides = [np.unique(bands[side]) for side in (0, 1)]
    names = {**{int(k): classes[int(k)] for k in shown}, count: f"{rest} other classes"}
    palette, colours = PALETTE.get(theme, PALETTE["light"]), class_colours(count)
    fills = [each[theme if theme in each else "light"] for each in (_KEPT, _MENDED, _BROKEN, _WRONG)]
    said = ("the same", "wrong before, right now", "right before, wrong now", "wrong before and now")
    nodes: list[dict[str, object]] = []
    index: dict[tuple[int, int], int] = {}
    for side in (0, 1):
        sizes = np.array([counts[bands[side] == k].sum() for k in sides[side]], dtype=float)
        middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
        for k, size, at in zip(sides[side].tolist(), sizes, middle, strict=True):
            index[side, k] = len(nodes)
            colour = colours[k] if k < count else palette["muted"]
            # Plotly takes a place of exactly 0 or 1 for none.
            nodes.append({"label": f"{names[k]} ({int(size)})", "x": (0.001, 0.999)[side], "y": float(np.clip(at, 0.001, 0.999)), "color": colour})
    above = {"y": 1, "yshift": 26, "xref": "paper", "yref": "paper", "showarrow": False}
    figure = go.Figure(
        go.Sankey(
            arrangement="snap",
            node={key: [node[key] for node in nodes] for key in ("label", "x", "y", "color")} | {"pad": 9, "thickness": 12, "line": {"width": 0}},
            link={
                "source": [index[0, int(k)] for k in bands[0]],
                "target": [index[1, int(k)] for k in bands[1]],
                "value": counts.tolist(),
                "color": [fills[int(kind)] for kind in bands[2]],
                "customdata": [said[int(kind)] for kind in bands[2]],
                "hovertemplate": "%{source.label} → %{target.label}<br>%{value:.0f}: %{customdata}<extra></extra>",
            },
            textfont={"size": 12, "color": palette["ink"]},
        )
    )
    figure.update_layout(
        template=template(theme),
        margin={"l": 14, "r": 14, "t": 34, "b": 12},
        annotations=[
            {"text": f"<b>A</b>  {titles[0]}", "x": 0, "xanchor": "left", **above},
            {"text": f"<b>B</b>  {titles[1]}", "x": 1, "xanchor": "right", **above},
        ],
    )
    return figure, max(len(side) for side in sides)
