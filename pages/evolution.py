"""Evolution: the grid of units over the epochs, with playback in the browser, events and charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import ClientsideFunction, Input, Output, State, callback, clientside_callback, dcc, html

from dnnviz import components, urlstate
from dnnviz.analysis.evolution import (
    DIED,
    FIGURES,
    NONE,
    REVIVED,
    SETTLED,
    SWITCHED,
    Event,
    Evolution,
    events_at,
    evolution,
    first_and_last,
    metric_courses,
    settled_from,
)
from dnnviz.endpoints import context
from dnnviz.figures.evolution import layers_chart, line_style, metrics_chart
from dnnviz.store import Run
from dnnviz.theme import GRAPH_CONFIG

dash.register_page(__name__, path="/evolution", name="Evolution", title="Evolution · DNNViz", order=2)

DEFAULTS = {
    "stat": "mean",
    "scale": "epochs",
    "kinds": "conv,linear,attention,block",
    "split": "all",
    "fold": "",
    "cell": "0",
    "speed": "3",
    "loop": "true",
    "smooth": "true",
    "marks": "true",
    "charts": "true",
    "figure": "change",
    "form": "heatmap",
}
SCALES = {
    "epochs": "Each layer",
    "clip": "Each layer, 98th percentile",
    "all": "All layers together",
    "layer": "Each layer and epoch by itself",
}
SWITCH = {"true": "on", "false": "off"}
FORMS = {"heatmap": "Map", "lines": "Lines"}
SPEEDS = {"1": "1 a second", "3": "3 a second", "6": "6 a second", "12": "12 a second"}
EVENTS = {DIED: "died", REVIVED: "came alive", SWITCHED: "changed class"}
CHOICES: dict[str, Mapping[str, str]] = {
    "stat": components.STATS,
    "scale": SCALES,
    "cell": components.CELLS,
    "speed": SPEEDS,
    "figure": FIGURES,
    "form": FORMS,
    **dict.fromkeys(("loop", "smooth", "marks", "charts"), SWITCH),
}
SETTLED_ROWS = 16
LISTED = 150  # events of one kind in the list

SOURCE = (
    "That the layers near the input settle first: M. Raghu et al., SVCCA, NeurIPS 2017. Dead units: V. Nair and G. Hinton, ICML 2010. "
    "What counts as a lead: small effects after J. Cohen, 1988."
)
FIGURE_NOTES = {
    "dead": "Share of the layer's units that fire on no input.",
    "mean": "Mean over units and inputs; in the map as a share of the layer's largest.",
    "change": "1 − cosine of the class profiles in two snapshots: 0 the same, 1 unrelated.",
    "remaining": "1 − cosine to the class profiles in the last snapshot: 0 has settled.",
}


def layout(**query: Any) -> html.Div:
    """The page for a query."""
    selection, problems = urlstate.parse(query, context().catalogue, DEFAULTS)
    run = selection.run
    if run is None:
        return components.page(selection, problems, [])
    if len(run.epochs) == 1:
        return components.page(selection, problems, _one_snapshot(selection, run), defaults=DEFAULTS)
    choices = {**CHOICES, "split": {"all": "All", **{name: name for name in run.splits}}}
    extra = {key: value if value in choices.get(key, {value}) else DEFAULTS[key] for key, value in selection.extra.items()}
    extra["kinds"] = ",".join(kind for kind in extra["kinds"].split(",") if kind in components.KINDS) or DEFAULTS["kinds"]
    return components.page(selection, problems, _centre(extra), _controls(run, extra), "evolution-details", strip=True, defaults=DEFAULTS)


def _one_snapshot(selection: urlstate.Selection, run: Run) -> html.Div:
    return html.Div(
        [
            html.H2("One snapshot, nothing to play yet"),
            html.P(
                f"{run.name} was captured once, at epoch {run.epochs[0]}. To watch a network learn, record it while it trains, from your own loop "
                "or from the command line:"
            ),
            html.Pre(
                'recorder = dnnviz.Recorder("runs/mine", model, dataset, every=1)\n'
                "recorder.record(0)              # before the first step\n"
                "for epoch in range(1, 21):\n"
                "    train_one_epoch(model)\n"
                "    recorder.record(epoch)"
            ),
            html.Pre("dnnviz train --model dnnviz:small_cnn --data digits \\\n    --epochs 20 --every 1 --out runs/mine"),
            html.Div(components.page_link("See its layers", "/", run=selection.run_id), className="mt-3"),
        ],
        className="dv-empty",
    )


def _controls(run: Run, extra: Mapping[str, str]) -> list[Any]:
    splits = {"all": "All", **{name: name for name in run.splits}}
    legend = [html.Span([html.I(className=f"evo-mark kind-{kind}"), text], className="evo-key") for kind, text in EVENTS.items()]
    return [
        components.section("Value", components.radios("stat", components.STATS, extra["stat"])),
        components.section("Colour, all epochs", components.radios("scale", SCALES, extra["scale"])),
        components.section(
            "Show",
            _switch("marks", "Events in the grid", extra),
            html.Div(legend, className="evo-keys"),
            _switch("charts", "Charts below it", extra),
        ),
        components.section("Layers shown", components.kinds_checklist(run, extra["kinds"])),
        components.section("Cells", components.select("cell", components.CELLS, extra["cell"], "Size of the cells")),
        *([components.section("Split", components.select("split", splits, extra["split"], "Split"))] if len(run.splits) > 1 else []),
        components.hidden("fold", extra["fold"]),
        html.Details(
            [html.Summary("How to read this"), html.P(id="evolution-how", className="dv-note"), html.P(SOURCE, className="dv-small mt-2")],
            className="dv-how",
            open=True,
        ),
    ]


def _switch(key: str, label: str, extra: Mapping[str, str]) -> dbc.Switch:
    return dbc.Switch(id=components.url_id(key), label=label, value=extra[key] == "true")


def _centre(extra: Mapping[str, str]) -> html.Div:
    def step(name: str, text: str, label: str) -> html.Button:
        return html.Button(text, id=f"evolution-{name}", className="dv-btn small", type="button", title=label, **{"aria-label": label})

    player = [
        html.Div(
            [
                step("back", "‹", "Epoch before (←)"),
                html.Button("Play", id="evolution-play", className="dv-btn small primary", type="button", title="Play and pause (space)"),
                step("forward", "›", "Epoch after (→)"),
            ],
            className="evo-transport",
        ),
        html.Div(id="evolution-timeline", className="evo-timeline", **{"aria-hidden": "true"}),
        html.Div(
            [
                components.select("speed", SPEEDS, extra["speed"], "Snapshots a second"),
                _switch("loop", "Loop", extra),
                _switch("smooth", "Smooth", extra),
            ],
            className="evo-options",
        ),
    ]
    figures = html.Div(
        [
            components.select("figure", FIGURES, extra["figure"], "Figure of the layers"),
            components.segmented(components.url_id("form"), FORMS, extra["form"], "Form of the chart"),
        ],
        className="evo-chart-head",
    )
    return html.Div(
        [
            dcc.Store(id="evolution-request"),
            html.Div(player, className="evo-player"),
            html.Div(
                [html.Div(id="evolution-title", className="evo-title"), html.Div(id="evolution-legend", className="dv-legend")],
                className="evo-caption",
            ),
            html.Div(html.Div(id="evolution-grid"), className="dv-centre evo-scroll"),
            html.Div(
                [
                    html.Div(
                        [
                            html.Div(
                                [html.Span("Accuracy and loss", className="fw-semibold"), html.Span(id="evolution-splits", className="evo-splits")],
                                className="evo-chart-head",
                            ),
                            _chart("evolution-metrics"),
                        ],
                        className="evo-chart",
                    ),
                    html.Div(
                        [figures, _chart("evolution-layers"), html.Div(id="evolution-note", className="dv-small evo-note")],
                        className="evo-chart wide",
                    ),
                ],
                className="evo-charts",
            ),
        ],
        className="evo",
        id="evolution",
    )


def _chart(name: str) -> html.Div:
    return html.Div([dcc.Graph(id=name, config=GRAPH_CONFIG, responsive=True, className="evo-graph")], className="evo-graph-box")


clientside_callback(
    ClientsideFunction("dnnviz_evolution", "draw"),
    Output("evolution-how", "children"),
    Output("evolution-request", "data"),
    Input("selection", "data"),
    Input("theme-store", "data"),
    State("evolution-grid", "id"),
)


@callback(
    Output("evolution-metrics", "figure"),
    Output("evolution-layers", "figure"),
    Output("evolution-note", "children"),
    Output("evolution-splits", "children"),
    Input("evolution-request", "data"),
    prevent_initial_call=True,
)
def draw_charts(request: dict[str, str] | None) -> tuple[Any, Any, str, list[Any]]:
    """Both charts, drawn anew when the run, the figure, the layers shown or the colours change, and not with the epoch."""
    request = request or {}
    selection = urlstate.from_data(request, context().catalogue, DEFAULTS)
    run = selection.run
    if run is None:
        return dash.no_update, dash.no_update, "", []
    theme, extra = request.get("theme", "light"), selection.extra
    figure = extra["figure"] if extra["figure"] in FIGURES else DEFAULTS["figure"]
    shown = [i for i, layer in enumerate(run.layers) if layer.kind in extra["kinds"].split(",")]
    values = getattr(evolution(run, context().results), figure)[:, shown]
    names = [run.layers[i].name for i in shown]
    layers = layers_chart(run.epochs, names, values, figure, theme, lines=extra["form"] == "lines", palette=request.get("palette", "red"))
    accuracy, loss = metric_courses(run, "accuracy"), metric_courses(run, "loss")
    splits = [html.Span([html.I(style=line_style(i, len(accuracy), theme)), name]) for i, name in enumerate(accuracy)] if len(accuracy) > 1 else []
    return metrics_chart(run.epochs, accuracy, loss, theme), layers, FIGURE_NOTES[figure], splits


def _events(run: Run, found: Evolution, epoch: int) -> list[Any]:
    events = events_at(run, found, epoch)
    title = html.H1(f"Events of epoch {epoch}", className="dv-title")
    if epoch == run.epochs[0]:
        return [title, components.note("The first snapshot: events are told from the second one on.")]
    before = run.epochs[run.epochs.index(epoch) - 1]
    counts = {kind: sum(event.kind == kind for event in events) for kind in EVENTS}
    parts: list[Any] = [
        title,
        components.note(f"Since epoch {before}: " + ", ".join(f"{counts[kind]} {text}" for kind, text in EVENTS.items()) + "."),
    ]
    rows: list[Any] = []
    for kind, text in EVENTS.items():
        same = [event for event in events if event.kind == kind]
        rows += [_event(run, event) for event in same[:LISTED]]
        if len(same) > LISTED:
            rows.append(html.Div(f"and {len(same) - LISTED} more that {text}", className="dv-small evo-more"))
    return [*parts, *([html.Div(rows, className="evo-events", tabIndex=0, role="group", **{"aria-label": "Events"})] if rows else [])]


def _summary(run: Run, found: Evolution) -> list[Any]:
    """What to look at, where nothing was clicked yet: when the layers settle, the first and the last ones to do so."""
    start = settled_from(found.remaining).tolist()
    shown = first_and_last(settled_from(found.remaining), SETTLED_ROWS)
    rows = [(run.layers[i].name, float(start[i]), f"epoch {run.epochs[start[i]]}", False, None) for i in shown]
    text = f"From this epoch on the layer stays within {SETTLED:g} of its last state (distance to the last snapshot, as in the chart)."
    if len(shown) < len(start):
        text += f" Shown are the {SETTLED_ROWS // 2} layers that settle first and the {SETTLED_ROWS // 2} that settle last."
    return [
        html.H1("When layers settle", className="dv-title"),
        components.note(text),
        html.Div(components.bars(rows), className="mt-2"),
        html.P(
            "Click a cell for its unit: the images that excite it most, its mean per class and its course over the epochs.", className="dv-note mt-3"
        ),
    ]


def _event(run: Run, event: Event) -> html.Button:
    before, after = ("–" if label == NONE else run.classes[label] for label in (event.before, event.after))
    change = "" if event.kind == DIED else f"→ {after}" if event.kind == REVIVED else f"{before} → {after}"
    return html.Button(
        [
            html.I(className=f"evo-mark kind-{event.kind}"),
            html.Span(f"{event.layer} · {event.unit}", className="name"),
            html.Span(change or f"preferred {before}", className="dv-small change"),
        ],
        className="evo-event",
        type="button",
        title=f"{event.layer}, unit {event.unit}: {EVENTS[event.kind]}, {change or 'preferred ' + before}",
        **{"data-dv-unit": f"{event.layer}|{event.unit}"},
    )


@callback(Output("evolution-details", "children"), Input("selection", "data"), Input("theme-store", "data"))
def show_details(data: dict[str, str], theme: str | None) -> list[Any]:
    """Events of the epoch, then the card of what was clicked."""
    selection = urlstate.from_data(data, context().catalogue, DEFAULTS)
    run = selection.run
    if run is None or len(run.epochs) == 1:
        return []
    found = evolution(run, context().results)
    below = components.unit_card(selection, theme or "light") if selection.layer else _summary(run, found)
    return [*_events(run, found, selection.epoch), html.Hr(), *below]
