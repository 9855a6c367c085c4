"""Compare: two of (run, epoch, data set or class or input) side by side, and how far they are apart."""

from __future__ import annotations

from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import ClientsideFunction, Input, Output, callback, clientside_callback, dcc, html

from dnnviz import components, urlstate
from dnnviz.analysis import comparison, matching, sides
from dnnviz.analysis.class_rows import ROWS
from dnnviz.analysis.comparison import LAYER_SETS
from dnnviz.analysis.matching import PAIRINGS
from dnnviz.analysis.sides import Side
from dnnviz.components import comparison_card as card
from dnnviz.components.moves_card import moves_view
from dnnviz.endpoints import context
from dnnviz.store import Run
from dnnviz.theme import GRAPH_CONFIG
from dnnviz.urlstate import Selection

dash.register_page(__name__, path="/compare", name="Compare", title="Compare · DNNViz", order=3)

DEFAULTS = {
    "split": "all",
    "split2": "all",
    "layers": "outline",
    "span": "3",
    "measure": "rms",
    "pair": "auto",
    "rows": "auto",
    "view": "units",
    "group": "",
    "group2": "",
    "mark": "",
    "fold": "",
}
SECOND = {"run2": "", "epoch2": "", "show2": ""}  # always written into the address: what they are by default depends on A
KEYS = {**SECOND, **DEFAULTS}
SPANS = {"0.5": "± 0.5", "1": "± 1", "2": "± 2", "3": "± 3", "6": "± 6"}
MEASURES = {"rms": "Distance", "cka": "Similarity (CKA)"}
VIEWS = {"units": "Units", "multiples": "Classes × epochs", "similarity": "Layers × layers", "predictions": "Predictions", "table": "Table"}
HOW = (
    "A and B: one cell a unit, both on one scale for each layer, so that they can be compared. B − A: red units are stronger in B, blue ones in A, "
    "in standard deviations of the unit over all inputs. Distance: root mean square of a layer's differences; 1 means that a typical unit is "
    "displaced by one of its standard deviations; a pale bar is no more than chance explains (permutation test). "
    "Below: one layer, a row for each class, every unit against its strongest class; "
    "or how far the training images of each class lie from those held out, which a hidden mark in one class gives away."
)
SOURCE = (
    "Differences: J. Cohen, 1988. Units of separately trained networks, paired by correlation: Y. Li et al., ICLR 2016. "
    "Similarity without pairing (CKA): S. Kornblith et al., ICML 2019; T. Nguyen et al., ICLR 2021. "
    "Permutation tests: P. Westfall and S. Young, 1993. Predictions that moved: Q. McNemar, 1947. Tampered classes: M. Alberti et al., 2018."
)


def layout(**query: Any) -> html.Div:
    """The page for a query."""
    catalogue = context().catalogue
    first, problems = urlstate.parse(query, catalogue, KEYS)
    if first.run is None:
        return components.page(first, problems, [])
    second, more = urlstate.parse(_second_query(first), catalogue)
    if second.run is None:
        second = first
    extra, run, other = dict(first.extra), first.run, second.run
    assert other is not None
    problems = [f"A: {text}" for text in problems] + [f"B: {text}" for text in more]
    for key, known in (("layers", LAYER_SETS), ("span", SPANS), ("measure", MEASURES), ("pair", PAIRINGS), ("rows", ROWS), ("view", VIEWS)):
        if extra[key] not in known:
            problems.append(f"“{extra[key][:40]}” is no value of “{key}” here.")
            extra[key] = DEFAULTS[key]
    for key, of in (("split", run), ("split2", other)):
        if extra[key] != "all" and extra[key] not in of.splits:
            problems.append(f"Run {of.name} has no split “{extra[key][:40]}”; all inputs are shown.")
            extra[key] = "all"
    for key, of in (("group", run), ("group2", other)):
        if extra[key] and sides.group_of(extra[key], of) is None:
            problems.append(f"“{extra[key][:40]}” does not name inputs of {of.name}: up to {sides.MOST_CHOSEN} numbers from 0 to {of.kept - 1}.")
            extra[key] = ""
    shared = matching.shared_layers(run, other)
    problems += _left_out(run, other)
    if not shared.layers and extra["view"] in ("units", "multiples"):
        extra["view"] = "similarity"
    present = {layer.kind for layer in shared.layers}
    sets = {name: text for name, text in LAYER_SETS.items() if name in ("outline", "all") or name in present}
    if "block" not in present:
        sets = {name: text for name, text in sets.items() if name != "all"} | {"outline": LAYER_SETS["all"]}
    gaps = min(len(run.splits), len(other.splits)) > 1
    differ = run is not other or len(run.epochs) > 1
    tools = [
        components.segmented(components.url_id("view"), VIEWS, extra["view"], "View"),
        html.Div(
            [
                _labelled(
                    "Layers", components.select("layers", sets, extra["layers"], "Layers shown"), True, "cmp-not-predictions cmp-not-multiples"
                ),
                _labelled(
                    "Scale",
                    components.select("span", SPANS, extra["span"], "Scale of the differences, in standard deviations"),
                    True,
                    "cmp-only-units",
                ),
                _labelled("", components.select("measure", MEASURES, extra["measure"], "Figure beside each layer"), differ, "cmp-only-units"),
                _labelled(
                    "Pairs", components.select("pair", PAIRINGS, extra["pair"], "How units are paired"), run is not other, "cmp-not-similarity"
                ),
                _labelled(
                    "Split A", components.select("split", _splits(run), extra["split"], "Split of A"), len(run.splits) > 1, "cmp-not-similarity"
                ),
                _labelled(
                    "B", components.select("split2", _splits(other), extra["split2"], "Split of B"), len(other.splits) > 1, "cmp-not-similarity"
                ),
            ],
            className="cmp-tools",
        ),
    ]
    centre = [
        html.Div(tools, className="dv-centre-bar cmp-bar"),
        html.Div(id="compare-notice", className="dv-note cmp-notice", role="status"),
        html.Div(
            [
                html.Div(id="compare-grid"),
                html.Div(
                    [
                        html.Span(id="compare-classes-title"),
                        _labelled("Rows", components.select("rows", ROWS, extra["rows"], "What the rows of classes show"), gaps),
                        html.Span(id="compare-classes-note", className="dv-small fw-normal"),
                    ],
                    className="cmp-classes-head",
                ),
                html.Div(id="compare-classes"),
            ],
            className="cmp-only-units",
        ),
        html.Div(
            [
                html.P(id="compare-similarity-note", className="dv-note cmp-notice"),
                dcc.Graph(id="compare-similarity", config=GRAPH_CONFIG, className="cmp-similarity"),
            ],
            className="cmp-only-similarity",
        ),
        html.Div(
            [
                html.Div(id="compare-moves-note"),
                dcc.Graph(id="compare-moves", config=GRAPH_CONFIG, className="cmp-flows"),
                html.Div(id="compare-moves-list"),
            ],
            className="cmp-only-predictions",
        ),
        html.Div(
            [html.Div(id="compare-multiples-title", className="cmp-notice dv-note"), html.Div(id="compare-multiples")], className="cmp-only-multiples"
        ),
        html.Div(id="compare-table", className="cmp-only-table"),
    ]
    bar = [
        html.Span("A", className="cmp-badge"),
        *_side_controls(first, "", "A", extra["group"]),
        html.Button("⇄", id="compare-swap", className="dv-btn small", type="button", title="Swap A and B", **{"aria-label": "Swap A and B"}),
        html.Span("B", className="cmp-badge"),
        *_side_controls(second, "2", "B", extra["group2"]),
        components.hidden("run2", second.run_id),
        components.hidden("mark", extra["mark"]),
        components.hidden("fold", extra["fold"]),
        html.Div(id="compare-legend", className="dv-legend cmp-legend"),
    ]
    page = components.page(first, problems, centre, None, "compare-details", bar=bar, defaults=DEFAULTS)
    page.className += " cmp-page"
    return page


clientside_callback(
    ClientsideFunction("dnnviz_compare", "draw"),
    Output("compare-grid", "title"),
    Input("selection", "data"),
    Input("theme-store", "data"),
)
for end in ("", "2"):
    clientside_callback(
        ClientsideFunction("dnnviz_compare", "show"),
        Output(components.url_id("show" + end), "value", allow_duplicate=True),
        Input(f"compare-show{end}", "value"),
        Input(f"compare-input{end}", "value"),
        prevent_initial_call=True,
    )
    clientside_callback(
        ClientsideFunction("dnnviz_compare", "several"),
        Output(f"compare-several{end}", "title"),
        Input(f"compare-several{end}", "value"),
        prevent_initial_call=True,
    )
clientside_callback(
    ClientsideFunction("dnnviz_compare", "go"),
    Output("compare-swap", "title"),
    Input("compare-run", "value"),
    Input("compare-run2", "value"),
    Input("compare-swap", "n_clicks"),
    prevent_initial_call=True,
)


@callback(
    Output("compare-details", "children"),
    Output("compare-notice", "children"),
    Input("selection", "data"),
    Input("theme-store", "data"),
)
def show_details(data: dict[str, str], theme: str | None) -> tuple[list[Any], list[Any]]:
    """What differs most, or the card of the unit that was clicked; and what a careful reader must know."""
    chosen, first, second, how = _sides(data)
    note = [
        html.Details(
            [html.Summary("How to read this"), html.P(HOW, className="dv-note"), html.P(SOURCE, className="dv-small mt-2")],
            className="dv-how",
            open=True,
        )
    ]
    said = [html.Span(text) for text in card.notice(first, second, how)]
    if chosen.layer is not None and chosen.unit is not None:
        return card.unit_difference_card(chosen, first, second, how, theme or "light"), said
    return card.differences_card(first, second, how, chosen.extra["layers"]) + note, said


@callback(
    Output("compare-similarity", "figure"),
    Output("compare-similarity", "style"),
    Output("compare-similarity-note", "children"),
    Input("selection", "data"),
    Input("theme-store", "data"),
)
def show_similarity(data: dict[str, str], theme: str | None) -> tuple[Any, Any, Any]:
    """Every layer of A against every layer of B."""
    chosen, first, second, _ = _sides(data)
    if chosen.extra["view"] != "similarity":
        return (dash.no_update,) * 3
    return card.similarity_view(first, second, chosen.extra["layers"], theme or "light")


@callback(
    Output("compare-moves", "figure"),
    Output("compare-moves", "style"),
    Output("compare-moves-note", "children"),
    Output("compare-moves-list", "children"),
    Input("selection", "data"),
    Input("theme-store", "data"),
)
def show_moves(data: dict[str, str], theme: str | None) -> tuple[Any, ...]:
    """How the predictions of A moved in B."""
    chosen, first, second, _ = _sides(data)
    if chosen.extra["view"] != "predictions":
        return (dash.no_update,) * 4
    return moves_view(chosen, first, second, theme or "light")


def _sides(data: dict[str, str] | None) -> tuple[Selection, Side, Side, str]:
    chosen = urlstate.from_data(data, context().catalogue, KEYS)
    second = urlstate.from_data(_second_query(chosen), context().catalogue)
    assert chosen.run is not None and second.run is not None
    split, split2 = (chosen.extra[key] if chosen.extra[key] in run.splits else None for key, run in (("split", chosen.run), ("split2", second.run)))
    how = chosen.extra["pair"] if chosen.extra["pair"] in PAIRINGS else "auto"
    groups = [sides.group_of(chosen.extra[key], run) for key, run in (("group", chosen.run), ("group2", second.run))]
    both = [
        Side(of.run, of.epoch, group or of.show, None if group else part, of.run_id)
        for of, part, group in ((chosen, split, groups[0]), (second, split2, groups[1]))
    ]
    return chosen, *both, how


def _second_query(first: Selection) -> dict[str, str]:
    """The query of B; where the address says nothing of it, what is worth comparing with A."""
    given = {name.removesuffix("2"): first.extra[name] for name in SECOND if first.extra.get(name)}
    if given or first.run is None:
        return {"run": first.run_id, **given}
    catalogue = context().catalogue
    others = {name: catalogue.open(name) for name in catalogue.ids() if name != first.run_id}
    shown = sides.group_of(first.extra["group"], first.run) or first.show
    name, epoch, show = comparison.worth_comparing(Side(first.run, first.epoch, shown), others)
    return {"run": name or first.run_id, "epoch": str(epoch), "show": show}


def _left_out(run: Run, other: Run) -> list[str]:
    shared = matching.shared_layers(run, other)
    if not shared.layers:
        again = "Layers × layers compares them all the same." if matching.comparable(run, other) else "Nor do they share inputs or four classes."
        return [
            f"{run.name} and {other.name} share no layer (none has the same name, kind and number of units): nothing can be compared unit by unit. "
            f"{again} Choose the same run on both sides, at two epochs or for two classes."
        ]
    parts = [f"{_few(names)} of {of.name}" for names, of in ((shared.only_first, run), (shared.only_second, other)) if names]
    return (
        [f"Compared are the {len(shared.layers)} layers of the same name, kind and number of units; left out: {', and '.join(parts)}."]
        if parts
        else []
    )


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _side_controls(chosen: Selection, end: str, side: str, group: str) -> list[Any]:
    run, kind, index = chosen.run, chosen.show_kind, chosen.show_index
    assert run is not None
    runs = [{"label": name, "value": name} for name in context().catalogue.ids()]
    shows = [{"label": "All inputs", "value": "data"}, *({"label": f"Class: {name}", "value": f"class:{k}"} for k, name in enumerate(run.classes))]
    shows += [{"label": "Input number", "value": "input"}, {"label": "Several inputs", "value": "group"}]
    shown = "group" if group else "input" if kind == "input" else chosen.show
    several = dbc.Input(id=f"compare-several{end}", type="text", value=group, placeholder="3, 17, 20-29", debounce=True, autoComplete="off")
    number = dbc.Input(id=f"compare-input{end}", type="number", min=0, max=run.kept - 1, step=1, value=index if kind == "input" else 0)
    return [
        html.Label(
            [
                html.Span(["Run", html.Span(f" of {side}", className="visually-hidden")]),
                dbc.Select(id=f"compare-run{end}", options=runs, value=chosen.run_id),
            ],
            className="dv-field framed",
        ),
        html.Label(
            [
                html.Span(["Epoch", html.Span(f" of {side}", className="visually-hidden")]),
                dbc.Select(
                    id=components.url_id("epoch" + end), options=[{"label": str(e), "value": str(e)} for e in run.epochs], value=str(chosen.epoch)
                ),
            ],
            className="dv-field framed",
        ),
        html.Div(
            [
                components.labelled(f"What is shown of {side}", dbc.Select(id=f"compare-show{end}", options=shows, value=shown)),
                components.labelled(f"Input of {side}", number),
                components.labelled(f"Numbers of the inputs of {side}", several),
            ],
            className="cmp-show",
        ),
        components.hidden("show" + end, chosen.show),
        components.hidden("group" + end, group),
    ]


def _labelled(text: str, control: Any, shown: bool = True, only: str = "") -> html.Div:
    return html.Div([html.Span(text, **{"aria-hidden": "true"}), control], className=f"dv-field {only}" if shown else "dv-hidden")


def _splits(run: Run) -> dict[str, str]:
    return {"all": "All", **{name: name for name in run.splits}}
