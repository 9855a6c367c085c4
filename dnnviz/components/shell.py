"""The shell around every page: top bar, strip of inputs, stores, and the callbacks that all pages share."""

from __future__ import annotations

from typing import Any

import dash
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html

from dnnviz import jobs, urlstate
from dnnviz.endpoints import context


def shell() -> html.Div:
    """The frame around every page: top bar, page, strip of inputs, job panel, dialogs and stores."""
    pages = sorted((p for p in dash.page_registry.values() if "order" in p and p["order"] is not None), key=lambda p: p["order"])
    links = [dcc.Link(p["name"], href=p["relative_path"], id={"type": "nav", "path": p["path"]}, className="dv-nav-link") for p in pages]
    return html.Div(
        [
            dcc.Store(id="selection"),
            dcc.Store(id="theme-store"),
            html.Header(
                [
                    dcc.Link(["DNN", html.Span("Viz")], href=dash.get_relative_path("/"), className="dv-brand"),
                    html.Nav(links, className="d-flex gap-1", **{"aria-label": "Pages"}),
                    html.Div(className="dv-spring"),
                    html.Div(_tools(), className="dv-tools"),
                ],
                className="dv-top",
            ),
            html.Main([dash.page_container], className="dv-main"),
            html.Footer(id="strip", className="dv-strip"),
            jobs.panel(),
            html.Div(id="dv-toast", className="dv-toast", role="status", **{"aria-live": "polite"}),
            _help(),
        ],
        className="dv-app",
    )


def _tools() -> list[Any]:
    formats = {"svg": "SVG, for print", "png2": "PNG, 2×", "png4": "PNG, 4×"}
    return [
        html.Button("Copy link", className="dv-btn", type="button", **{"data-dv-action": "copy-link"}),
        html.Details(
            [
                html.Summary("Save picture", className="dv-btn"),
                html.Div([html.Button(text, type="button", **{"data-dv-save": name}) for name, text in formats.items()], className="dv-menu-list"),
            ],
            className="dv-menu",
            id="save-picture",
        ),
        html.Button("◐", className="dv-btn", type="button", title="Light or dark (t)", **{"data-dv-action": "theme", "aria-label": "Light or dark"}),
        html.Button(
            "◍",
            className="dv-btn",
            type="button",
            title="Colours of the cells: red, or cividis (safe for colour-blind readers)",
            **{"data-dv-action": "palette", "aria-label": "Colours of the cells"},
        ),
        html.Button("?", className="dv-btn", type="button", title="Keys (?)", **{"data-dv-action": "help", "aria-label": "Help"}),
    ]


def _help() -> html.Dialog:
    keys = {
        "← →": "epoch before, epoch after",
        "space": "play and pause (Evolution)",
        "t": "light or dark",
        "?": "this list",
        "Esc": "close",
    }
    return html.Dialog(
        [
            html.H2("Keys", className="dv-title mb-3"),
            html.Table(html.Tbody([html.Tr([html.Td(html.Kbd(key)), html.Td(text)]) for key, text in keys.items()])),
            html.P(
                "Every view is its address: copy the link, and a colleague sees what you see. "
                "A run is a folder; make one of your own network with dnnviz.capture or `dnnviz capture --help`.",
                className="dv-note mt-3",
            ),
            html.Button("Close", className="dv-btn mt-3", type="button", **{"data-dv-action": "close-dialog"}),
        ],
        id="help-dialog",
        className="dv-dialog",
    )


def register(app: Dash) -> None:
    """Put the shell's callbacks on an app."""
    app.clientside_callback(
        ClientsideFunction("dnnviz_shell", "collect"),
        Output("selection", "data"),
        Output({"type": "nav", "path": ALL}, "href"),
        Output({"type": "nav", "path": ALL}, "className"),
        Input({"type": "url", "key": ALL}, "value"),
        State({"type": "url", "key": ALL}, "id"),
        State({"type": "url-defaults", "page": ALL}, "data"),
        State({"type": "nav", "path": ALL}, "id"),
    )
    app.clientside_callback(
        ClientsideFunction("dnnviz_shell", "epoch"),
        Output({"type": "url", "key": "epoch"}, "value"),
        Output("epoch-value", "children"),
        Input("epoch-slider", "value"),
        State("epoch-list", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("dnnviz_shell", "show"),
        Output({"type": "url", "key": "show"}, "value"),
        Input("show-kind", "value"),
        Input("show-class", "value"),
        Input("show-input", "value"),
    )
    app.callback(Output("epoch-metrics", "children"), Input("selection", "data"))(_metrics)


def _metrics(data: dict[str, str] | None) -> str:
    selection = urlstate.from_data(data, context().catalogue)
    if selection.run is None:
        return ""
    metrics = selection.run.metrics(selection.epoch)
    parts = {name: found["accuracy"] for name, found in metrics.get("splits", {}).items() if found.get("accuracy") is not None}
    if len(parts) > 1:
        return "accuracy " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in parts.items())
    return f"accuracy {100 * metrics['accuracy']:.1f} %" if metrics.get("accuracy") is not None else ""
