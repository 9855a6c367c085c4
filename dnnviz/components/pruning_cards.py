"""The view “Pruning” of the diagnosis page: units that a network can do without, measured; units switched off by hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import dash
import dash_bootstrap_components as dbc
import numpy as np
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from dnnviz import urlstate
from dnnviz.analysis.units import THRESHOLD, Units, units
from dnnviz.components import pruning_parts as parts
from dnnviz.components.controls import empty, labelled, note, url_id
from dnnviz.endpoints import context
from dnnviz.errors import DNNVizError
from dnnviz.explain.plan import obstacle
from dnnviz.pruning import keys
from dnnviz.pruning.keys import Proposal
from dnnviz.pruning.registry import CRITERIA
from dnnviz.store import Run
from dnnviz.urlstate import Selection

# Keys of the address, with what is not written into it.
PLAIN = {
    "prune": "redundant",
    "prune-alike": f"{THRESHOLD:g}",
    "prune-share": "10",
    "prune-by": "activation,magnitude,redundancy,random",
    "prune-on": "all",
    "prune-most": "200",
    "ablate": "",
    "ablate-to": "zero",
}
MOST = {"100": "100 inputs", "200": "200 inputs", "1000": "1,000 inputs", "0": "All inputs kept"}
SHARES = {str(share): f"{share} % of the units" for share in (1, 2, 5, 10, 15, 20, 30, 50)}
_EXTRA = {"view": "health", **PLAIN}
_NEEDS = "removals of units"


def register(app: Dash) -> None:
    """Put the callbacks of the view on an app; they draw into `diagnosis-pruning`."""
    app.callback(
        Output("diagnosis-pruning", "children"),
        Input(url_id("view"), "value"),
        State("_pages_location", "search"),
        State("selection", "data"),
    )(_frame)
    app.callback(
        Output("pruning-layers", "children"),
        Output("pruning-layers-shown", "data"),
        Output("pruning-need", "data"),
        Input("selection", "data"),
        Input("pruning-heard", "data"),
        State("pruning-layers-shown", "data"),
    )(_layers)
    app.callback(Output("pruning-proposal", "children"), Input("selection", "data"), Input("pruning-heard", "data"))(_proposal)
    app.callback(Output("pruning-curve", "children"), Input("selection", "data"), Input("pruning-heard", "data"), Input("theme-store", "data"))(
        _curve
    )
    app.callback(Output("pruning-ablation", "children"), Input("selection", "data"), Input("pruning-heard", "data"))(_ablation)
    # What a job says goes on by way of the browser: in Dash's graph of callbacks, what hangs on a job waits until it has ended.
    app.clientside_callback(
        ClientsideFunction("dnnviz_pruning", "answer"),
        Output("pruning-answered", "children"),
        Input("job-result", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("dnnviz_pruning", "need"),
        Output("pruning-needed", "children"),
        Input("pruning-need", "data"),
        prevent_initial_call=True,
    )


# -- the frame: what stands still ------------------------------------------------------------------------------------


def _frame(view: str | None, search: str | None, data: Mapping[str, str] | None) -> Any:
    """Controls of the view and the places that they fill, when the view is opened."""
    if view != "pruning":
        return dash.no_update
    query = {name: values[0] for name, values in parse_qs((search or "").lstrip("?")).items()}
    given = {name: query.get(name) or (data or {}).get(name) or plain for name, plain in PLAIN.items()}
    chosen = urlstate.from_data({**(data or {}), **query}, context().catalogue)
    run = chosen.run
    if run is None:
        return dash.no_update
    if not given["ablate"] and chosen.layer is not None and chosen.unit is not None:
        given["ablate"] = f"{chosen.layer}:{chosen.unit}"  # the unit chosen on another page
    which = {**keys.WHICH, **{name: f"Least by {c.title.lower()}" for name, c in CRITERIA.items() if not c.drawn}}
    alike = {f"{value:g}": f"alike from r = {value:g}" for value in keys.THRESHOLDS}
    splits = {"all": "of all splits", **{name: f"of {name}" for name in run.splits}} if len(run.splits) > 1 else {"all": "of the run"}
    names = [name for name in given["prune-by"].split(",") if name in CRITERIA]
    options = [{"label": criterion.title, "value": name} for name, criterion in CRITERIA.items()]
    return [
        dcc.Store(id={"type": "url-defaults", "page": "pruning"}, data=PLAIN),
        *[dcc.Store(id=f"pruning-{name}") for name in ("heard", "need", "layers-shown")],
        _part("Units of every layer", html.Div(id="pruning-layers")),
        _part(
            "What could go",
            html.Div(
                [
                    _select("Units to remove", "prune", which, given["prune"]),
                    _select("Correlation from which units are alike", "prune-alike", alike, given["prune-alike"], when="redundant"),
                    _select("Share", "prune-share", SHARES, given["prune-share"], when="criterion"),
                ],
                className="dv-pruning-bar",
            ),
            html.Div(id="pruning-proposal"),
        ),
        _part(
            "Does it hold?",
            html.Div(
                [
                    html.Div(
                        dbc.Checklist(id=url_id("prune-by"), options=options, value=names, inline=True), role="group", **{"aria-label": "Criteria"}
                    ),
                    _select("Number of inputs", "prune-most", MOST, given["prune-most"]),
                    _select("Split", "prune-on", splits, given["prune-on"]) if len(run.splits) > 1 else None,
                ],
                className="dv-pruning-bar",
            ),
            html.Div(id="pruning-curve"),
        ),
        _part("Switch units off", *_bench(run, given), html.Div(id="pruning-ablation")),
        _reading(),
        html.Div([html.Div(id="pruning-answered"), html.Div(id="pruning-needed")], hidden=True),
    ]


def _bench(run: Run, given: Mapping[str, str]) -> list[Any]:
    """The controls of the ablation bench: the units as a text, and what adds a class's units to it."""
    layers = [{"label": layer.name, "value": layer.name} for layer in run.layers]
    classes = [{"label": name, "value": str(i)} for i, name in enumerate(run.classes)]
    field = dbc.Input(id=url_id("ablate"), value=given["ablate"], debounce=True, placeholder=f"{run.layers[0].name}:0,2-4")
    last = run.layers[-2 if len(run.layers) > 1 else -1].name
    return [
        html.Div(
            [
                html.Div(labelled("Units", field), className="field"),
                _select("Set to", "ablate-to", {name: f"set to {text}" for name, text in keys.EDITS.items()}, given["ablate-to"]),
            ],
            className="dv-pruning-bar",
        ),
        html.Div(
            [
                html.Span("All units of", className="dv-small"),
                labelled("Layer", dbc.Select(id="pruning-of", options=layers, value=last)),
                html.Span("that prefer", className="dv-small"),
                labelled("Class", dbc.Select(id="pruning-prefer", options=classes, value="0")),
                html.Button("Add", className="dv-btn small", type="button", **{"data-pruning-add": ""}),
            ],
            className="dv-pruning-bar",
        ),
    ]


def _part(title: str, *children: Any) -> html.Section:
    return html.Section([html.H2(title, className="dv-title"), *children], className="dv-pruning-part", **{"aria-label": title})


def _select(text: str, key: str, options: Mapping[str, str], value: str, when: str | None = None) -> html.Div:
    chosen = value if value in options else PLAIN[key] if PLAIN[key] in options else next(iter(options))
    select = dbc.Select(id=url_id(key), options=[{"label": label, "value": name} for name, label in options.items()], value=chosen)
    return html.Div(labelled(text, select), **({"data-when": when} if when else {}))


# -- what is filled in -----------------------------------------------------------------------------------------------


def _chosen(data: Mapping[str, str] | None) -> tuple[Selection, Run] | None:
    """The selection, where the view is this one and its controls have spoken."""
    if not data or data.get("view") != "pruning" or not data.get("prune"):
        return None
    selection = urlstate.from_data(data, context().catalogue, _EXTRA)
    return None if selection.run is None else (selection, selection.run)


def _layers(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None, shown: str | None) -> tuple[Any, Any, Any]:
    chosen = _chosen(data)
    if chosen is None:
        return (dash.no_update,) * 3
    selection, run = chosen
    threshold = _threshold(selection)
    costs = keys.get_costs(context().results, run, selection.epoch)
    state = f"{selection.run_id} {run.digest(selection.epoch)} {threshold} {costs is None}"
    failed = _failure(heard) if dash.ctx.triggered_id == "pruning-heard" and (heard or {}).get("what") == "costs" else []
    if state == shown and not failed:
        return (dash.no_update,) * 3
    need = dash.no_update
    if costs is None and dash.ctx.triggered_id != "pruning-heard" and obstacle(run, selection.epoch, context().settings.allow, _NEEDS) is None:
        # The parameters of the layers: a look at the network that takes a second, asked for without a click.
        need = parts.request("costs", run=selection.run_id, epoch=selection.epoch)
    said = _units(run, run.digest(selection.epoch), selection.epoch, threshold)
    return [*failed, *parts.layers_table(selection, run, said, None if costs is None else costs[0])], state, need


def _proposal(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None) -> Any:
    chosen = _chosen(data)
    if chosen is None:
        return dash.no_update
    selection, run = chosen
    problem = obstacle(run, selection.epoch, context().settings.allow, _NEEDS)
    if problem:
        return empty("Removing units needs the network", problem)
    try:
        want = _want(selection)
    except DNNVizError as error:
        return parts.alert(str(error))
    known = keys.get_costs(context().results, run, selection.epoch)
    if known is None and _told(heard, "costs"):
        return parts.look_offer(parts.request("costs", run=selection.run_id, epoch=selection.epoch))
    if known is None:
        return note("The network is being looked at …")
    removed = _removed(run, run.digest(selection.epoch), selection.epoch, want)
    failed = _failure(heard) if _told(heard, "export") else []
    files = {kind: key for kind in keys.FILES if (key := keys.export_key(run, selection.epoch, want, kind)) in context().results}
    return [*failed, *parts.proposal_card(selection, run, want, known[0], removed, files)]


def _curve(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None, theme: str | None) -> Any:
    chosen = _chosen(data)
    if chosen is None:
        return dash.no_update
    selection, run = chosen
    if obstacle(run, selection.epoch, context().settings.allow, _NEEDS):
        return []
    names = [name for name in CRITERIA if name in selection.extra["prune-by"].split(",")]
    if not names:
        return note("Choose at least one criterion.")
    most, split = int(selection.extra["prune-most"]) if selection.extra["prune-most"] in MOST else 0, selection.extra["prune-on"]
    try:
        want = _want(selection)
        inputs = keys.inputs_of(run, split, most)
    except DNNVizError as error:
        return parts.alert(str(error))
    arrays = context().results.get(keys.verify_key(run, selection.epoch, want, names, split, most))
    failed = _failure(heard) if _told(heard, "verify") else []
    if arrays is None:
        asked = {"criteria": names, "proposal": want.as_params(), "split": split, "most": most}
        request = parts.request("verify", run=selection.run_id, epoch=selection.epoch, **asked)
        return [*failed, parts.verify_offer(run, selection.epoch, names, len(inputs), request, cancelled=_cancelled(heard, "verify"))]
    known = keys.get_costs(context().results, run, selection.epoch)
    return [*failed, *parts.curve_card(arrays, known[0] if known else None, theme or "light")]


def _ablation(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None) -> Any:
    chosen = _chosen(data)
    if chosen is None:
        return dash.no_update
    selection, run = chosen
    if obstacle(run, selection.epoch, context().settings.allow, _NEEDS):
        return []
    text, to = selection.extra["ablate"], selection.extra["ablate-to"]
    if not text.strip():
        example = f"{run.layers[0].name}:0,2-4; {run.layers[-1].name}:prefers {run.classes[0]}"
        return note(f"Name units as {example}, or add all that prefer a class; a unit chosen on the layers page is named already.")
    split = selection.extra["prune-on"]
    try:
        units_ = keys.parse_units(run, selection.epoch, text)
        keys.inputs_of(run, split, 0)
    except DNNVizError as error:
        return parts.alert(str(error))
    to = to if to in keys.EDITS else "zero"
    arrays = context().results.get(keys.ablation_key(run, selection.epoch, units_, to, split))
    failed = _failure(heard) if _told(heard, "ablate") else []
    if arrays is None:
        request = parts.request("ablate", run=selection.run_id, epoch=selection.epoch, units=keys.units_text(units_), to=to, split=split)
        return [*failed, parts.ablation_offer(units_, keys.EDITS[to], request)]
    return [*failed, *parts.ablation_card(selection, run, arrays)]


def _want(selection: Selection) -> Proposal:
    extra = selection.extra
    share = int(extra["prune-share"]) if extra["prune-share"] in SHARES else 10
    return keys.proposal({"which": extra["prune"], "threshold": _threshold(selection), "share": share})


def _threshold(selection: Selection) -> float:
    text = selection.extra["prune-alike"]
    return next((value for value in keys.THRESHOLDS if f"{value:g}" == text), THRESHOLD)


@lru_cache(maxsize=16)
def _units(run: Run, digest: str, epoch: int, threshold: float) -> Units:
    return units(run, epoch, threshold)


@lru_cache(maxsize=32)
def _removed(run: Run, digest: str, epoch: int, want: Proposal) -> np.ndarray:
    known = keys.get_costs(context().results, run, epoch)
    assert known is not None
    said = _units(run, digest, epoch, want.threshold) if want.which in keys.WHICH else None
    return keys.proposed(run, epoch, want, *known, said)


def _told(heard: Mapping[str, Any] | None, what: str) -> bool:
    # A failure is told once, when it happens; another choice has nothing to do with it.
    return dash.ctx.triggered_id == "pruning-heard" and (heard or {}).get("what") == what


def _failure(heard: Mapping[str, Any] | None) -> list[Any]:
    return [parts.alert(heard["error"])] if heard and heard.get("error") else []


def _cancelled(heard: Mapping[str, Any] | None, what: str) -> bool:
    return _told(heard, what) and bool((heard or {}).get("cancelled"))


def _reading() -> html.Details:
    """How to read the view, with the papers."""
    papers = "; ".join(criterion.citation for criterion in CRITERIA.values())
    return html.Details(
        [
            html.Summary("How to read this"),
            html.P(
                "A dead unit is zero everywhere and can go for nothing. Units are alike where their means and their maxima over the inputs kept both "
                "correlate above the threshold; the one that most others follow stays. Blocks are what several layers make together: they are looked "
                "at, and nothing of them is removed. What is removed is set to zero after its normalisation and activation function, in the network "
                "itself; nothing is trained afterwards, so each curve is a lower bound of what training again could keep. A layer always keeps one "
                "unit. Saved are a unit's weights, bias and normalisation, and the weights of later layers that take it, where the trace of "
                "the network shows them. Accuracy on inputs that were trained on falls later than on others: look at the held-out split.",
                className="dv-note",
            ),
            html.P(f"O. Roy, M. Vetterli, The effective rank, EUSIPCO 2007; {papers}.", className="dv-small"),
        ],
        className="dv-how dv-pruning-how",
        open=True,
    )
