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
    offered = _offered()
    view = selection.extra["view"]
    if view not in offered:
        problems.append(f"“{view[:40]}” is no value of view; it must be one of {', '.join(offered)}.")
        view = next(iter(offered))
    bar = [
        components.run_select(selection),
        components.segmented(components.url_id("view"), offered, view, "View"),
        *components.epoch_controls(selection),
    ]
    centre = [
        *[html.Div(id=f"diagnosis-{name}", className="dv-diagnosis") for name in offered],
        dcc.Store(id="health-heard"),
        *[html.Div(id=name, hidden=True) for name in ("diagnosis-drawn", "health-answered", "health-asked")],
    ]
    return components.page(selection, problems, centre, bar=bar, defaults=DEFAULTS)


def _offered() -> dict[str, str]:
    """The views whose component fills its place."""
    return {name: title for name, title in VIEWS.items() if f"diagnosis-{name}.children" in dash.get_app().callback_map}


clientside_callback(
    ClientsideFunction("dnnviz_diagnosis", "view"),
    Output("diagnosis-drawn", "children"),
    Input({"type": "url", "key": "view"}, "value"),
)
