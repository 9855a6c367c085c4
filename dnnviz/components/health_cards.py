"""The view “Health” of the diagnosis page: what a colleague should look at first in a run, ranked, each with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash
from dash import Dash, Input, Output, html

from dnnviz import urlstate
from dnnviz.analysis import layer_health
from dnnviz.components.details import percent
from dnnviz.endpoints import context


def register(app: Dash) -> None:
    """Put the callbacks of the view on an app; they draw into `diagnosis-health`."""
    app.callback(Output("diagnosis-health", "children"), Input("selection", "data"))(_cards)


def _cards(data: Mapping[str, str] | None) -> Any:
    if not data or data.get("view") != "health":
        return dash.no_update  # still the selection of the view or page before
    selection = urlstate.from_data(data, context().catalogue)
    if selection.run is None:
        return dash.no_update
    dead = layer_health(selection.run, selection.epoch, "dead")
    worst = int(dead.argmax())
    return html.P(f"Most dead units: {selection.run.layers[worst].name}, {percent(float(dead[worst]))}.")
