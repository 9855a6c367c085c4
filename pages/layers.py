"""Layers: every layer of the network, one coloured cell per unit."""

from __future__ import annotations

from typing import Any

import dash
import dash_cytoscape as cyto
from dash import ClientsideFunction, Input, Output, State, callback, clientside_callback, html

from dnnviz import components, urlstate
from dnnviz.analysis.health import FIGURES, layer_health
from dnnviz.endpoints import context
from dnnviz.figures.architecture import elements, stylesheet

dash.register_page(__name__, path="/", name="Layers", title="Layers · DNNViz", order=1)
cyto.load_extra_layouts()

DEFAULTS = {
    "stat": "mean",
    "scale": "layer",
    "kinds": "conv,linear,attention,block",
    "order": "index",
    "split": "all",
    "fold": "",
    "cell": "0",
    "view": "grid",
    "health": "dead",
    "detail": "blocks",
}
SCALES = {"layer": "Each layer", "epochs": "Each layer, all epochs", "all": "All layers together", "clip": "Each layer, 98th percentile"}
ORDERS = {"index": "Index", "value": "Value", "selectivity": "Selectivity for what is shown"}


def layout(**query: Any) -> html.Div:
    """The page for a query."""
    selection, problems = urlstate.parse(query, context().catalogue, DEFAULTS)
    if selection.run is None:
        return components.page(selection, problems, [])
    extra, run = selection.extra, selection.run
    scales = SCALES if len(run.epochs) > 1 else {name: text for name, text in SCALES.items() if name != "epochs"}
    splits = {"all": "All", **{name: name for name in run.splits}}
    left = [
        components.section("View", components.radios("view", {"grid": "Grid of units", "graph": "Architecture"}, extra["view"])),
        html.Div(
            [
                components.section("Value", components.radios("stat", components.STATS, extra["stat"])),
                components.section("Colour scale", components.radios("scale", scales, extra["scale"])),
                components.section(
                    "Layers shown",
                    components.kinds_checklist(run, extra["kinds"]),
                    html.Div(
                        [
                            html.Button("Fold all", className="dv-btn small", type="button", id="fold-all"),
                            html.Button("Unfold", className="dv-btn small", type="button", id="unfold-all"),
                        ],
                        className="d-flex gap-2 mt-2",
                    ),
                ),
                components.section("Units in order of", components.radios("order", ORDERS, extra["order"])),
                components.section("Cells", components.select("cell", components.CELLS, extra["cell"], "Size of the cells")),
                *([components.section("Split", components.select("split", splits, extra["split"], "Split"))] if len(run.splits) > 1 else []),
            ],
            className="dv-only-grid",
        ),
        html.Div(
            [
                components.section("Colour of the layers", components.radios("health", FIGURES, extra["health"])),
                components.section("Detail", components.radios("detail", {"blocks": "Blocks", "layers": "Every layer"}, extra["detail"])),
            ],
            className="dv-only-graph",
        ),
        components.hidden("fold", extra["fold"]),
        html.Details(
            [html.Summary("How to read this"), html.P(id="layers-how", className="dv-note"), html.P(SOURCE, className="dv-small mt-2")],
            className="dv-how",
            open=True,
        ),
    ]
    centre = [
        html.Div(
            [
                html.Div(
                    [html.Div([html.Span(id="layers-title", className="fw-semibold")]), html.Div(id="layers-legend", className="dv-legend")],
                    className="dv-centre-bar",
                ),
                html.Div(id="layers-grid"),
            ],
            className="dv-only-grid",
        ),
        html.Div(
            [
                html.Div(
                    [
                        html.Span("Data flow, left to right. Click a layer to bring it into view.", className="dv-note"),
                        html.Div(id="graph-legend", className="dv-legend"),
                    ],
                    className="dv-centre-bar",
                ),
                cyto.Cytoscape(
                    id="architecture",
                    elements=[],
                    layout={"name": "preset"},
                    style={"width": "100%", "height": "calc(100% - 40px)"},
                    minZoom=0.05,
                    maxZoom=1.6,
                    responsive=True,
                    boxSelectionEnabled=False,
                ),
            ],
            className="dv-only-graph",
        ),
    ]
    return components.page(selection, problems, centre, left, "layers-details", strip=True, defaults=DEFAULTS)


SOURCE = "After M. Alberti et al., DeepDIVA, ICFHR 2018, whose DNNViz first drew networks this way; dead units: V. Nair and G. Hinton, ICML 2010."

clientside_callback(
    ClientsideFunction("dnnviz_layers", "draw"),
    Output("layers-how", "children"),
    Input("selection", "data"),
    Input("theme-store", "data"),
    State("layers-grid", "id"),
)
clientside_callback(
    ClientsideFunction("dnnviz_layers", "fold"),
    Output({"type": "url", "key": "fold"}, "value"),
    Input("fold-all", "n_clicks"),
    Input("unfold-all", "n_clicks"),
    prevent_initial_call=True,
)
clientside_callback(
    ClientsideFunction("dnnviz_layers", "reveal"),
    Output({"type": "url", "key": "view"}, "value"),
    Input("architecture", "tapNodeData"),
    prevent_initial_call=True,
)


@callback(Output("layers-details", "children"), Input("selection", "data"), Input("theme-store", "data"))
def show_details(data: dict[str, str], theme: str | None) -> list[Any]:
    """The card of what was clicked."""
    return components.unit_card(urlstate.from_data(data, context().catalogue, DEFAULTS), theme or "light")


@callback(
    Output("architecture", "elements"),
    Output("architecture", "stylesheet"),
    Output("architecture", "layout"),
    Output("graph-legend", "children"),
    Input("selection", "data"),
    Input("theme-store", "data"),
)
def draw_architecture(data: dict[str, str], theme: str | None) -> tuple[list[Any], list[Any], dict[str, Any], Any]:
    """The network as a graph, coloured by a health figure."""
    selection = urlstate.from_data(data, context().catalogue, DEFAULTS)
    if selection.run is None or selection.extra["view"] != "graph":
        return (dash.no_update,) * 4
    figure = selection.extra["health"] if selection.extra["health"] in FIGURES else "dead"
    health = layer_health(selection.run, selection.epoch, figure)
    graph, (low, high) = elements(
        selection.run.graph, selection.run.layers, health, figure != "mean", theme or "light", blocks=selection.extra["detail"] != "layers"
    )
    ramp = html.Span(className="ramp", style={"background": "linear-gradient(to right, var(--dv-cell0), var(--dv-cell1))"})
    legend = [f"{FIGURES[figure]}: {low}", ramp, high]
    return graph, stylesheet(theme or "light"), {"name": "preset", "fit": True, "padding": 24}, legend
