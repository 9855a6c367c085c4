"""A view of a page that draws into a place of its own, and only when it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import dash
from dash import Dash, Input, Output, State

from dnnviz.components.controls import url_id

Frame = Callable[[dict[str, str], Mapping[str, str]], Any]


def register_view(app: Dash, page: str, view: str, frame: Frame) -> None:
    """Fill `<page>-<view>` with what stands still in a view: `frame(query, selection)` is called when the view is opened.

    query: the keys of the address, which a link may have brought before they are part of the selection; selection: what is chosen.
    """

    def opened(name: str | None, search: str | None, data: Mapping[str, str] | None) -> Any:
        if name != view:
            return dash.no_update
        return frame({key: values[0] for key, values in parse_qs((search or "").lstrip("?")).items()}, data or {})

    app.callback(
        Output(f"{page}-{view}", "children"),
        Input(url_id("view"), "value"),
        State("_pages_location", "search"),
        State("selection", "data"),
    )(opened)
