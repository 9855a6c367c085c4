"""The view “Predictions” of the compare page: how predictions moved between A and B, and the inputs that moved."""

from __future__ import annotations

from typing import Any

import dash
import numpy as np
from dash import dcc, html

from dnnviz import urlstate
from dnnviz.analysis.moves import Moves, moves
from dnnviz.analysis.sides import Side, titles
from dnnviz.components.controls import empty, page_link
from dnnviz.components.details import image_url, percent
from dnnviz.errors import RunError
from dnnviz.figures.flows import flows
from dnnviz.urlstate import Selection

LISTED = 24  # moves listed with their images
THUMBS = 10


def moves_view(selection: Selection, first: Side, second: Side, theme: str) -> tuple[Any, dict[str, str], list[Any], list[Any]]:
    """(figure, its style, what stands above it, what stands below)."""
    try:
        found = moves(first, second)
    except RunError as error:
        return {}, {"display": "none"}, [], [empty("Predictions cannot be compared", str(error))]
    figure, nodes = flows(found, first.run.classes, titles(first, second), theme)
    style = {"height": f"{max(300, 26 * nodes + 60)}px"}
    return figure, style, [html.P(_summary(found, first, second), className="dv-note cmp-notice")], [_list(selection, found, first, second)]


def _summary(found: Moves, first: Side, second: Side) -> list[Any]:
    right = [float((side == found.truth).mean()) for side in (found.first, found.second)]
    mended, broken, p = int(found.mended.sum()), int(found.broken.sum()), found.p_value()
    said = [
        html.B(f"{int(found.moved.sum())} of {len(found.inputs)} predictions moved. "),
        f"Right are {percent(right[0])} in A and {percent(right[1])} in B: {mended} inputs are mended, {broken} broken",
    ]
    if mended + broken:
        chance = "no more than" if p > 0.05 else "more than"
        said.append(f", which is {chance} chance explains (exact McNemar test, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})")
    return [*said, ". Green bands: wrong before, right now; red: right before, wrong now; grey: unchanged."]


def _list(selection: Selection, found: Moves, first: Side, second: Side) -> html.Div:
    """Every move from one class to another with its inputs, those that broke first."""
    classes = first.run.classes
    all_moves = [(a, b, rows) for a, b, rows in found.flows() if a != b]
    # By the inputs that broke, then by how many moved.
    all_moves.sort(key=lambda each: (-int(found.broken[each[2]].sum()), -len(each[2])))
    rows = []
    for a, b, members in all_moves[:LISTED]:
        inputs = found.inputs[members]
        broken, mended = int(found.broken[members].sum()), int(found.mended[members].sum())
        said = [
            f"{count} {word}" for count, word in ((broken, "broken"), (mended, "mended"), (len(members) - broken - mended, "wrong in both")) if count
        ]
        thumbs = [_thumb(selection, second, int(i)) for i in inputs[:THUMBS]]
        more = [html.Span(f"+{len(inputs) - THUMBS}", className="dv-small align-self-center")] if len(inputs) > THUMBS else []
        kind = "broken" if broken else "mended" if mended else ""
        words = html.Div([html.Div([classes[a], " → ", html.B(classes[b])]), html.Div(", ".join(said), className=f"dv-small cmp-move {kind}")])
        rows.append(html.Li([words, html.Div([*thumbs, *more], className="cmp-move-inputs")]))
    if not rows:
        return html.Div(html.P("No prediction moved.", className="dv-note"), className="cmp-moves")
    changed = np.concatenate([found.inputs[found.broken], found.inputs[found.mended & ~found.broken]])[:24]
    links = []
    if len(changed):
        given = {"by": "chosen", "inputs": ",".join(map(str, changed))}
        links = [
            page_link(f"Explain them in {letter}", "/attribution", run=side.name, epoch=side.epoch, **given)
            for letter, side in (("A", first), ("B", second))
        ]
    rest = len(all_moves) - len(rows)
    return html.Div(
        [
            html.Div([html.H2("What moved", className="dv-title"), *links], className="cmp-moves-head"),
            html.Ul(rows, className="cmp-moves-list"),
            *([html.P(f"{rest} more moves are not listed.", className="dv-small")] if rest else []),
        ],
        className="cmp-moves",
    )


def _thumb(selection: Selection, second: Side, index: int) -> dcc.Link:
    """An input that leads to why B predicts what it does."""
    name = f"Input {index}, {second.run.classes[int(second.run.labels[index])]}"
    address = urlstate.query(run=second.name, epoch=second.epoch, show=f"input:{index}")
    image = html.Img(src=image_url(selection, index, 80), alt="")
    return dcc.Link(
        [image, html.Span(name, className="visually-hidden")],
        href=dash.get_relative_path("/attribution") + address,
        className="dv-thumb",
        title=f"{name}: why B predicts this",
    )
