"""Embedding: the inputs as points, near each other where a layer's activations are alike."""

from __future__ import annotations

import uuid
from typing import Any

import dash
import dash_bootstrap_components as dbc
import numpy as np
from dash import ClientsideFunction, Input, Output, State, callback, clientside_callback, dcc, html

from dnnviz import components, urlstate
from dnnviz.components.embedding_cards import NEIGHBOURS, group_card, input_card, overview_card
from dnnviz.endpoints import context
from dnnviz.figures import embedding as figures
from dnnviz.project.keys import Wanted, get_projection, projection_key, rows
from dnnviz.project.projection import Projection
from dnnviz.project.quality import KEPT_NEIGHBOURS, SAMPLE, TRUST_NEIGHBOURS
from dnnviz.project.registry import METHODS
from dnnviz.project.view import COLOURS, SEED_LIMIT, as_pca, neighbours, parameters_text, predictions, question, ready, unit_to_show
from dnnviz.store import Run
from dnnviz.theme import GRAPH_CONFIG
from dnnviz.urlstate import Selection

dash.register_page(__name__, path="/embedding", name="Embedding", title="Embedding · DNNViz", order=5)

DEFAULTS = {
    "method": "pca",
    "dims": "2",
    "colour": "class",
    "outline": "true",
    "as": "points",
    "hide": "",
    "split": "all",
    "seed": "0",
    **{p.name: f"{p.default:g}" for method in METHODS.values() for p in method.parameters},
}
# Inputs of one callback must all be of the page or all of the shell (the shell is there first): the shell's go through `reduce`.
STORES = ("view", "picked", "look", "result", "drawing", "ready", "marks", "lasso", "request", "asked", "answered")
EMPTY = {"xaxis": {"visible": False}, "yaxis": {"visible": False}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
TITLES = {name: method.title for name, method in METHODS.items()}
_CONFIG = {**GRAPH_CONFIG, "scrollZoom": True}
_HOW = "Look first at the number below the picture: near 1, points that are neighbours here are neighbours in the full space, too. "


def layout(**query: Any) -> html.Div:
    """The page for a query."""
    selection, problems = urlstate.parse(query, context().catalogue, DEFAULTS)
    run = selection.run
    if run is None:
        return components.page(selection, problems, [])
    want, more = question(run, selection.epoch, selection.layer, selection.extra)
    extra = dict(selection.extra)
    if extra["colour"] not in COLOURS:
        more.append(f"Points cannot be coloured by “{extra['colour'][:40]}”; they are coloured by class.")
        extra["colour"] = "class"
    extra |= {"method": want.method, "dims": str(want.dims), "split": want.split or "all", "seed": str(want.seed)}
    extra |= {name: f"{value:g}" for name, value in want.parameters.items()}
    return components.page(
        selection,
        problems + more,
        _centre(),
        _left(selection, run, want, extra),
        "embedding-details",
        bar=_bar(selection, run, extra),
        defaults=DEFAULTS,
    )


def _bar(selection: Selection, run: Run, extra: dict[str, str]) -> list[Any]:
    several = len(run.epochs) > 1
    return [
        components.run_select(selection),
        components.hidden("show", selection.show),
        components.hidden("hide", extra["hide"]),
        *components.epoch_controls(selection),
        html.Div(className="dv-spring"),
        html.Button(
            "Lasso",
            className="dv-btn dv-flat-only",
            type="button",
            title="Draw around points (l)",
            **{"data-dv-embedding": "lasso", "aria-pressed": "false"},
        ),
        html.Div(
            components.segmented(components.url_id("as"), {"points": "Points", "images": "Images"}, extra["as"], "Drawn as"), className="dv-flat-only"
        ),
        *(
            [
                html.Button(
                    "▶ Epochs",
                    className="dv-btn",
                    type="button",
                    title="Play over the epochs (space)",
                    **{"data-dv-embedding": "play", "aria-pressed": "false"},
                )
            ]
            if several
            else []
        ),
    ]


def _left(selection: Selection, run: Run, want: Wanted, extra: dict[str, str]) -> list[Any]:
    names = [layer.name for layer in run.layers]
    layer = run.layer(want.layer)
    position = names.index(layer.name)
    splits = {"all": "All inputs", **{name: name for name in run.splits}}
    unit = "" if selection.unit is None else selection.unit
    depth = dbc.Input(id="embedding-depth", type="range", min=0, max=len(names) - 1, step=1, value=position, class_name="form-range")
    return [
        components.section(
            "Layer",
            components.labelled("Layer", dbc.Select(id="embedding-layer", options=[{"label": n, "value": n} for n in names], value=layer.name)),
            html.Div(components.labelled("Depth of the layer", depth), className="mt-2" if len(names) > 1 else "dv-hidden"),
            html.Div(id="embedding-layer-note", className="dv-small"),
            dcc.Store(
                id="embedding-layers", data=[[entry.name, f"{entry.kind}, {entry.units:,} unit{'s' * (entry.units != 1)}"] for entry in run.layers]
            ),
        ),
        components.section(
            "Method",
            html.Div(components.segmented(components.url_id("method"), TITLES, want.method, "Method"), className="dv-embedding-method"),
            html.Div(components.segmented(components.url_id("dims"), {"2": "2-D", "3": "3-D"}, str(want.dims), "Dimensions"), className="mt-2"),
            *[html.P(method.summary, className="dv-small mt-2", **{"data-method": name}) for name, method in METHODS.items()],
            _parameters(extra),
        ),
        *([components.section("Inputs", components.select("split", splits, extra["split"], "Split"))] if len(run.splits) > 1 else []),
        components.section(
            "Colour",
            components.radios("colour", COLOURS, extra["colour"]),
            html.Div(_field("Unit", "embedding-unit", str(unit), 0, layer.units - 1, "integer"), className="dv-when-unit"),
            dbc.Switch(id=components.url_id("outline"), label="Outline wrong ones", value=extra["outline"] != "false", class_name="mt-2"),
        ),
        html.Div(id="embedding-legend"),
    ]


def _parameters(extra: dict[str, str]) -> html.Details:
    """The parameters of all methods, each explained; the style sheet shows those of the method chosen."""
    fields = [
        html.Div(
            [
                _field(parameter.title, components.url_id(parameter.name), extra[parameter.name], parameter.low, parameter.high, parameter.kind),
                html.P(parameter.text, className="dv-small"),
            ],
            **{"data-method": name},
        )
        for name, method in METHODS.items()
        for parameter in method.parameters
    ]
    seed = [
        _field("Seed", components.url_id("seed"), extra["seed"], 0, SEED_LIMIT, "integer"),
        html.P("Another seed, another picture: what stays is in the data.", className="dv-small"),
    ]
    return html.Details([html.Summary("Parameters", id="embedding-parameters"), *fields, html.Div(seed)], className="dv-embedding-parameters")


def _field(title: str, id: Any, value: str, low: float | None, high: float | None, kind: str) -> html.Label:
    step = 1 if kind == "integer" else "any"
    control = dbc.Input(id=id, type="number", min=low, max=high, step=step, value=value, debounce=True)
    return html.Label([html.Span(title), control], className="dv-embedding-field")


def _centre() -> html.Div:
    return html.Div(
        [
            *[dcc.Store(id=f"embedding-{name}") for name in STORES],
            html.Div(
                [
                    html.Canvas(id="embedding-canvas", className="dv-embedding-canvas", **{"aria-hidden": "true"}),
                    dcc.Graph(
                        id="embedding-graph",
                        config=_CONFIG,
                        figure={"data": [], "layout": EMPTY},
                        responsive=True,
                        clear_on_unhover=True,
                    ),
                    html.Div(id="embedding-message", className="dv-embedding-message", role="status"),
                ],
                className="dv-embedding-picture",
            ),
            html.Div(id="embedding-caption", className="dv-embedding-caption"),
            html.Button(id="embedding-again", className="dv-hidden", type="button", **{"aria-hidden": "true"}),
        ],
        className="dv-embedding",
    )


clientside_callback(
    ClientsideFunction("dnnviz_embedding", "reduce"),
    Output("embedding-view", "data"),
    Output("embedding-picked", "data"),
    Output("embedding-look", "data"),
    Input("selection", "data"),
    Input("theme-store", "data"),
)
# By way of the browser, not of Dash's graph of callbacks: what hangs on a job's answer there waits until the job has ended.
clientside_callback(
    ClientsideFunction("dnnviz_embedding", "answer"), Output("embedding-answered", "data"), Input("job-result", "data"), prevent_initial_call=True
)
clientside_callback(
    ClientsideFunction("dnnviz_embedding", "ask"), Output("embedding-asked", "data"), Input("embedding-request", "data"), prevent_initial_call=True
)
clientside_callback(
    ClientsideFunction("dnnviz_embedding", "layer"),
    Output("embedding-layer", "value"),
    Output("embedding-depth", "value"),
    Output("embedding-layer-note", "children"),
    Output("embedding-unit", "max"),
    Input("embedding-layer", "value"),
    Input("embedding-depth", "value"),
    State("embedding-layers", "data"),
)
clientside_callback(
    ClientsideFunction("dnnviz_embedding", "unit"),
    Output({"type": "url", "key": "unit"}, "value", allow_duplicate=True),
    Input("embedding-unit", "value"),
    prevent_initial_call=True,
)
clientside_callback(
    ClientsideFunction("dnnviz_embedding", "compose"),
    Output("embedding-graph", "figure"),
    Input("embedding-drawing", "data"),
    Input("embedding-look", "data"),
    Input("embedding-marks", "data"),
    Input("embedding-lasso", "data"),
)
clientside_callback(
    ClientsideFunction("dnnviz_embedding", "click"),
    Output({"type": "url", "key": "show"}, "value", allow_duplicate=True),
    Input("embedding-graph", "clickData"),
    prevent_initial_call=True,
)
clientside_callback(
    ClientsideFunction("dnnviz_embedding", "hover"),
    Output("embedding-graph", "className"),
    Input("embedding-graph", "hoverData"),
    prevent_initial_call=True,
)
clientside_callback(
    ClientsideFunction("dnnviz_embedding", "select"),
    Output("embedding-lasso", "data"),
    Input("embedding-graph", "selectedData"),
    prevent_initial_call=True,
)


@callback(
    Output("embedding-drawing", "data"),
    Output("embedding-caption", "children"),
    Output("embedding-message", "children"),
    Output("embedding-ready", "data"),
    Output("embedding-request", "data"),
    Input("embedding-view", "data"),
    Input("embedding-result", "data"),
    Input("embedding-again", "n_clicks"),
)
def draw(view: dict[str, str] | None, result: dict[str, Any] | None, again: int | None) -> tuple[Any, ...]:
    """The picture where it is known; otherwise the picture by PCA meanwhile, and a request to compute what is missing."""
    nothing = (dash.no_update,) * 5
    if not view:
        return nothing
    # The answer to a job counts when it arrives; afterwards the same view may be asked for anew.
    ours = result if dash.ctx.triggered_id == "embedding-result" else None
    theme = view.get("theme", "light")
    selection = urlstate.from_data(view, context().catalogue, DEFAULTS)
    run, cache = selection.run, context().results
    if run is None:
        return nothing
    want, _ = question(run, selection.epoch, selection.layer, selection.extra)
    standin = as_pca(want)
    shown = next((each for each in (want, standin) if ready(cache, run, each)), None)
    drawing = caption = dash.no_update
    if shown is not None:
        projection = get_projection(cache, projection_key(run, shown))
        if projection is None:
            shown = None
        else:
            drawing, caption = _drawing(selection, run, shown, projection, theme), _caption(run, shown, projection)
    if shown == want:
        return drawing, caption, None, projection_key(run, want), dash.no_update
    missing = want if shown is not None else standin
    title = METHODS[want.method].title
    if ours is not None and not ours["ok"] and str(ours["nonce"]).startswith(projection_key(run, missing)):
        text = [] if ours.get("cancelled") else [str(ours.get("error"))]
        message = _message(
            f"{title} was cancelled" if ours.get("cancelled") else f"No {title} picture", text, "Compute it" if ours.get("cancelled") else "Try again"
        )
        return (drawing if shown else None), caption, message, dash.no_update, dash.no_update
    request = {"kind": "projection", "page": "/embedding", "params": missing.as_params(selection.run_id)}
    request["nonce"] = f"{projection_key(run, missing)}:{uuid.uuid4().hex}"
    text = f"{title} is being computed; meanwhile PCA." if shown else f"{METHODS[missing.method].title} is being computed."
    message = html.Div(text, className="dv-embedding-meanwhile")
    ready_now = projection_key(run, shown) if shown else dash.no_update
    return drawing, caption, message, ready_now, request


def _message(title: str, text: list[str], button: str) -> html.Div:
    return html.Div(
        [
            html.H2(title),
            *[html.P(line) for line in text],
            html.Button(button, className="dv-btn mt-2", type="button", **{"data-dv-embedding": "again"}),
        ],
        className="dv-empty dv-card",
    )


def _drawing(selection: Selection, run: Run, want: Wanted, projection: Projection, theme: str) -> dict[str, Any]:
    shown = rows(run, want.split)
    best, confidence = predictions(run, want.epoch)
    labels = run.labels
    colour = selection.extra["colour"]
    told = COLOURS.get(colour, "").lower()
    if colour == "prediction":
        colouring = figures.by_group(best[shown], run.classes, "Predicted class")
    elif colour == "right":
        colouring = figures.by_right((best == labels)[shown], theme)
    elif colour == "confidence":
        colouring = figures.by_quantity(confidence[shown], 1 / len(run.classes), 1, "Confidence", theme, red_is_low=True)
    elif colour == "unit":
        unit = unit_to_show(run, want, selection.unit)
        values = run.unit_activations(want.epoch, want.layer, unit)[shown]
        told = f"activation of unit {unit}"
        colouring = figures.by_quantity(values, min(float(values.min()), 0.0), float(values.max()), f"Activation of unit {unit}", theme)
    else:
        colour = "class"
        colouring = figures.by_group(labels[shown], run.classes, "Class")
    titles = [""] * want.dims
    if projection.explained is not None:
        titles = [f"component {i + 1}, {100 * share:.1f} % of the variance" for i, share in enumerate(projection.explained)]
    where = "|".join([selection.run_id, want.layer, want.method, str(want.dims), want.split or ""])
    figure = figures.scatter(projection.points, colouring, titles, theme, where)
    about = ", ".join(part for part in (METHODS[want.method].title, parameters_text(want).lower()) if part)
    return {
        "figure": figure.to_dict(),
        "inputs": shown.tolist(),
        "labels": labels[shown].tolist(),
        "predictions": best[shown].tolist(),
        "confidence": np.round(confidence[shown], 3).tolist(),
        "classes": run.classes,
        "colour": colour,
        "legend": colouring.legend,
        "where": where,
        "method": want.method,
        "epoch": want.epoch,
        "run": selection.run_id,
        "caption": f"{selection.run_id}, epoch {want.epoch}, layer {want.layer} ({run.layer(want.layer).units} units), {len(shown)} inputs. {about}, "
        f"coloured by {told}. Trustworthiness {projection.trustworthiness:.3f}.",
    }


def _caption(run: Run, want: Wanted, projection: Projection) -> list[Any]:
    count = len(projection.points)
    method = METHODS[want.method]
    sampled = f", measured on {SAMPLE:,} of them" if count > SAMPLE else ""
    trust = (
        f"1: each input's {TRUST_NEIGHBOURS} nearest in the picture are its nearest in the full space, too; "
        f"about 0.5: they might be anyone (Venna & Kaski 2001){sampled}."
    )
    kept = f"Of each input's {KEPT_NEIGHBOURS} nearest in the full space, this share are among its {KEPT_NEIGHBOURS} nearest in the picture."
    split = "" if want.split is None else f" of {want.split}"
    known = np.isfinite(projection.trustworthiness)
    return [
        html.Span(["Trustworthiness ", html.B(f"{projection.trustworthiness:.3f}" if known else "–")], title=trust, className="dv-num"),
        html.Span(["neighbours kept ", html.B(components.percent(projection.neighbours_kept))], title=kept, className="dv-num"),
        html.Span(f"{count:,} inputs{split}"),
        html.Span(" ".join([method.reading, *projection.notes]), className="reading"),
    ]


@callback(
    Output("embedding-details", "children"),
    Output("embedding-marks", "data"),
    Input("embedding-picked", "data"),
    Input("embedding-lasso", "data"),
    Input("embedding-ready", "data"),
)
def show_details(picked: dict[str, str] | None, lasso: list[int] | None, found: str | None) -> tuple[Any, Any]:
    """The card of what was clicked or gathered, and the points that it marks in the picture."""
    selection = urlstate.from_data(picked, context().catalogue, DEFAULTS)
    run = selection.run
    if not picked or run is None:
        return dash.no_update, dash.no_update
    want, _ = question(run, selection.epoch, selection.layer, selection.extra)
    if lasso:
        inputs = [int(i) for i in lasso if 0 <= int(i) < run.kept]
        return group_card(selection, want, inputs, f"{len(inputs)} inputs", "Gathered with the lasso.", clear=True), None
    if selection.show_kind == "input":
        index = selection.show_index or 0
        near = neighbours(context().results, run, want, index, NEIGHBOURS)
        near = near or neighbours(context().results, run, as_pca(want), index, NEIGHBOURS)
        marks = {"input": index, "rows": [] if near is None else near.rows.tolist()}
        return input_card(selection, want, index, near), marks
    if selection.show_kind == "class":
        label = selection.show_index or 0
        members = [int(i) for i in rows(run, want.split) if run.labels[i] == label]
        return group_card(selection, want, members, run.classes[label], "One class, the others faded."), {"class": label}
    method = METHODS[want.method]
    return overview_card(run, want, _HOW + method.reading, method.citation), None
