"""Diagnosis: what to look at first in a run: its health, what can be pruned, and whether a class was tampered with."""

from __future__ import annotations

from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, clientside_callback, dcc, html

from dnnviz import components, urlstate
from dnnviz.endpoints import context

dash.register_page(__name__, path="/diagnosis", name="Diagnosis", title="Diagnosis · DNNViz", order=7)

VIEWS = {"health": "Health", "pruning": "Pruning", "tampering": "Tampering"}
DEFAULTS = {"view": "health"}


def layout(**query: Any) -> html.Div:
    """The page for a query."""
    selection, problems = urlstate.parse(query, context().catalogue, DEFAULTS)
    if selection.run is None:
        return components.page(selection, problems, [])
    view = selection.extra["view"]
    if view not in VIEWS:
        problems.append(f"“{view[:40]}” is no value of view; it must be one of {', '.join(VIEWS)}.")
        view = DEFAULTS["view"]
    bar = [
        components.run_select(selection),
        components.segmented(components.url_id("view"), VIEWS, view, "View"),
        *components.epoch_controls(selection),
    ]
    centre = [
        *[html.Div(id=f"diagnosis-{name}", className="dv-diagnosis") for name in VIEWS],
        dcc.Store(id="health-heard"),
        *[html.Div(id=name, hidden=True) for name in ("diagnosis-drawn", "health-answered", "health-asked")],
    ]
    return components.page(selection, problems, centre, bar=bar, defaults=DEFAULTS)


clientside_callback(
    ClientsideFunction("dnnviz_diagnosis", "view"),
    Output("diagnosis-drawn", "children"),
    Input({"type": "url", "key": "view"}, "value"),
)
