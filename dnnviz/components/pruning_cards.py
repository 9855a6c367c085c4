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
from dnnviz.analysis.units import THRESHOLD, Units, course
from dnnviz.components import pruning_parts as parts
from dnnviz.components.controls import empty, labelled, note, url_id
from dnnviz.components.pruning_table import layers_table
from dnnviz.endpoints import context
from dnnviz.errors import DNNVizError
from dnnviz.explain.plan import obstacle
from dnnviz.pruning import keys
from dnnviz.pruning.keys import Proposal
from dnnviz.pruning.registry import CRITERIA
from dnnviz.pruning.saved import Costs
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
AT_ONCE = 20_000  # units of snapshots that are looked at while the page waits: about a second
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
    # The selection without the units of the bench: choosing these draws nothing else anew.
    app.clientside_callback(
        ClientsideFunction("dnnviz_pruning", "asked"),
        Output("pruning-asked", "data"),
        Input("selection", "data"),
        State("pruning-asked", "data"),
    )
    app.callback(
        Output("pruning-layers", "children"),
        Output("pruning-layers-shown", "data"),
        Output("pruning-need", "data"),
        Input("pruning-asked", "data"),
        Input("pruning-heard", "data"),
        State("pruning-layers-shown", "data"),
    )(_layers)
    app.callback(Output("pruning-proposal", "children"), Input("pruning-asked", "data"), Input("pruning-heard", "data"))(_proposal)
    app.callback(
        Output("pruning-curve", "children"),
        Input("pruning-asked", "data"),
        Input("pruning-heard", "data"),
        Input("theme-store", "data"),
    )(_curve)
    app.callback(
        Output("pruning-ablation", "children"),
        Output("pruning-chosen", "data"),
        Input("selection", "data"),
        Input("pruning-heard", "data"),
    )(_ablation)
    app.clientside_callback(
        ClientsideFunction("dnnviz_pruning", "grid"),
        Output("pruning-drawn", "children"),
        Input("selection", "data"),
        Input("pruning-chosen", "data"),
    )
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
        *[dcc.Store(id=f"pruning-{name}") for name in ("asked", "heard", "need", "layers-shown", "chosen")],
        html.Div(
            [
                html.Div(
                    [
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
                                        dbc.Checklist(id=url_id("prune-by"), options=options, value=names, inline=True),
                                        role="group",
                                        **{"aria-label": "Criteria"},
                                    ),
                                    _select("Number of inputs", "prune-most", MOST, given["prune-most"]),
                                    _select("Split", "prune-on", splits, given["prune-on"]) if len(run.splits) > 1 else None,
                                ],
                                className="dv-pruning-bar",
                            ),
                            html.Div(id="pruning-curve"),
                        ),
                    ]
                ),
                html.Div([_part("Switch units off", *_bench(run, given)), _reading()]),
            ],
            className="dv-pruning",
        ),
        html.Div([html.Div(id=f"pruning-{name}") for name in ("answered", "needed", "drawn")], hidden=True),
    ]


def _bench(run: Run, given: Mapping[str, str]) -> list[Any]:
    """The ablation bench: the grid in which units are chosen, what chooses many at once, the units as a text, and what came out."""
    layers = [{"label": "every layer", "value": "*"}, *[{"label": layer.name, "value": layer.name} for layer in run.layers]]
    kinds = {"prefers": "that prefer", **{kind: f"that {text}" for kind, text in keys.KINDS.items()}, "all": "that there are"}
    classes = [{"label": name, "value": str(i)} for i, name in enumerate(run.classes)]
    field = dbc.Input(id=url_id("ablate"), value=given["ablate"], debounce=True, placeholder=f"{run.layers[0].name}:0,2-4")
    plain = [layer.name for layer in run.layers if layer.kind != "block"] or [run.layers[-1].name]
    last = plain[-2 if len(plain) > 1 else -1]  # the last one before the classes
    return [
        note(
            "Click units to choose them, drag or click with Shift for a range, click a layer's name for all of it; by keyboard: arrows, Space, Shift "
            "with arrows."
        ),
        html.Div(
            [
                html.Span("All units of", className="dv-small"),
                labelled("Layer", dbc.Select(id="pruning-of", options=layers, value=last)),
                labelled(
                    "Kind", dbc.Select(id="pruning-kind", options=[{"label": text, "value": name} for name, text in kinds.items()], value="prefers")
                ),
                html.Div(labelled("Class", dbc.Select(id="pruning-prefer", options=classes, value="0")), className="dv-pruning-prefer"),
                html.Button("Add", className="dv-btn small", type="button", **{"data-pruning-add": ""}),
                html.Button("Choose none", className="dv-btn small", type="button", **{"data-pruning-clear": ""}),
            ],
            className="dv-pruning-bar",
        ),
        html.Div(html.Div(id="pruning-grid"), id="pruning-scroll", className="dv-pruning-grid"),
        html.Div(
            [html.Span("", id="pruning-count", role="status"), html.Span(id="pruning-legend", className="dv-legend")],
            className="dv-pruning-count",
        ),
        html.Div(
            [
                html.Div(labelled("Units", field), className="field"),
                _select("Set to", "ablate-to", {name: f"set to {text}" for name, text in keys.EDITS.items()}, given["ablate-to"]),
            ],
            className="dv-pruning-bar",
        ),
        html.Div(id="pruning-ablation"),
    ]


def _part(title: str, *children: Any) -> html.Section:
    return html.Section([html.H2(title, className="dv-title"), *children], className="dv-pruning-part", **{"aria-label": title})


def _select(text: str, key: str, options: Mapping[str, str], value: str, when: str | None = None) -> html.Div:
    chosen = value if value in options else PLAIN[key] if PLAIN[key] in options else next(iter(options))
    select = dbc.Select(id=url_id(key), options=[{"label": label, "value": name} for name, label in options.items()], value=chosen)
    return html.Div(labelled(text, select), **({"data-when": when} if when else {}))


# -- what is filled in -----------------------------------------------------------------------------------------------


class _View:
    """What the callbacks look at: the selection with its run, and what a job has just said."""

    def __init__(self, selection: Selection, run: Run, heard: Mapping[str, Any] | None) -> None:
        self.selection, self.run, self.epoch = selection, run, selection.epoch
        # A failure is told once, when it happens; another choice has nothing to do with it.
        self.heard = (heard or {}) if dash.ctx.triggered_id == "pruning-heard" else {}
        self.problem = obstacle(run, selection.epoch, context().settings.allow, _NEEDS)
        self.threshold = _threshold(selection)
        self.digest = run.digest(selection.epoch)

    def told(self, what: str) -> bool:
        """Whether a job of this kind has just ended."""
        return self.heard.get("what") == what

    def failed(self, what: str) -> list[Any]:
        return [parts.alert(self.heard["error"])] if self.told(what) and self.heard.get("error") else []

    def asks(self, what: str, **params: Any) -> dict[str, Any]:
        return parts.request(what, run=self.selection.run_id, epoch=self.epoch, **params)

    def costs(self) -> tuple[Costs, np.ndarray] | None:
        return keys.get_costs(context().results, self.run, self.epoch)

    def units(self) -> Units:
        return keys.units_at(self.run, self.digest, self.epoch, self.threshold)

    def result(self, key: str) -> dict[str, np.ndarray] | None:
        return context().results.get(key)


def _view(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None) -> _View | None:
    """The view, where the page shows it and its controls have spoken."""
    if not data or data.get("view") != "pruning" or not data.get("prune"):
        return None
    selection = urlstate.from_data(data, context().catalogue, _EXTRA)
    return None if selection.run is None else _View(selection, selection.run, heard)


def _layers(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None, shown: str | None) -> tuple[Any, Any, Any]:
    view = _view(data, heard)
    if view is None:
        return (dash.no_update,) * 3
    costs = view.costs()
    # Small runs are followed over the epochs at once; larger ones where that is asked for.
    followed = course(view.run, context().results, view.threshold, most=AT_ONCE) if len(view.run.epochs) > 1 else None
    state = f"{view.selection.run_id} {view.digest} {view.threshold} {costs is None} {followed is None}"
    failed = [*view.failed("costs"), *view.failed("course")]
    if state == shown and not failed:
        return (dash.no_update,) * 3
    need = dash.no_update
    if costs is None and not view.heard and view.problem is None:
        # The parameters of the layers: a look at the network that takes a second, asked for without a click.
        need = view.asks("costs")
    asked = view.asks("course", threshold=view.threshold) if followed is None and len(view.run.epochs) > 1 else None
    drawn = layers_table(view.selection, view.run, view.units(), None if costs is None else costs[0], followed, asked)
    return [*failed, *drawn], state, need


def _proposal(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None) -> Any:
    view = _view(data, heard)
    if view is None:
        return dash.no_update
    if view.problem:
        return empty("Removing units needs the network", view.problem)
    known = view.costs()
    if known is None:
        return parts.look_offer(view.asks("costs")) if view.told("costs") else note("The network is being looked at …")
    try:
        want = _want(view.selection)
    except DNNVizError as error:
        return parts.alert(str(error))
    removed = _removed(view.run, view.digest, view.epoch, want)
    files = {kind: key for kind in keys.FILES if (key := keys.export_key(view.run, view.epoch, want, kind)) in context().results}
    return [*view.failed("export"), *parts.proposal_card(view.selection, view.run, want, known[0], removed, files)]


def _curve(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None, theme: str | None) -> Any:
    view = _view(data, heard)
    if view is None:
        return dash.no_update
    if view.problem:
        return []
    extra = view.selection.extra
    names = [name for name in CRITERIA if name in extra["prune-by"].split(",")]
    if not names:
        return note("Choose at least one criterion.")
    most, split = int(extra["prune-most"]) if extra["prune-most"] in MOST else 0, extra["prune-on"]
    try:
        want = _want(view.selection)
        inputs = keys.inputs_of(view.run, split, most)
    except DNNVizError as error:
        return parts.alert(str(error))
    arrays = view.result(keys.verify_key(view.run, view.epoch, want, names, split, most))
    if arrays is not None:
        known = view.costs()
        drawn = parts.curve_card(arrays, known[0] if known else None, theme or "light")
    else:
        if view.heard and not view.told("verify"):
            return dash.no_update  # what another job found changes nothing here, where this one may be under way
        asked = view.asks("verify", criteria=names, proposal=want.as_params(), split=split, most=most)
        cancelled = view.told("verify") and bool(view.heard.get("cancelled"))
        drawn = [parts.verify_offer(view.run, view.epoch, names, len(inputs), asked, cancelled=cancelled)]
    return [*view.failed("verify"), *drawn]


def _ablation(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None) -> tuple[Any, Any]:
    """(what is under the grid, the units that the text names, for the grid)."""
    view = _view(data, heard)
    if view is None:
        return dash.no_update, dash.no_update
    text, split = view.selection.extra["ablate"], view.selection.extra["prune-on"]
    to = view.selection.extra["ablate-to"] if view.selection.extra["ablate-to"] in keys.EDITS else "zero"
    chosen: dict[str, np.ndarray] = {}
    try:
        if text.strip():
            chosen = keys.parse_units(view.run, view.epoch, text, view.units)
        keys.inputs_of(view.run, split, 0)
    except DNNVizError as error:
        return parts.alert(str(error)), {"text": text, "units": {}}
    told = {"text": text, "units": {name: numbers.tolist() for name, numbers in chosen.items()}}
    if view.problem:
        return note(f"Switching units off needs the network. {view.problem}"), told
    if not chosen:
        return [], told
    arrays = view.result(keys.ablation_key(view.run, view.epoch, chosen, to, split))
    if arrays is not None:
        drawn = parts.ablation_card(view.selection, view.run, arrays)
    else:
        drawn = [parts.ablation_offer(chosen, keys.EDITS[to], view.asks("ablate", units=keys.units_text(chosen), to=to, split=split))]
    return [*view.failed("ablate"), *drawn], told


def _want(selection: Selection) -> Proposal:
    extra = selection.extra
    share = int(extra["prune-share"]) if extra["prune-share"] in SHARES else 10
    return keys.proposal({"which": extra["prune"], "threshold": _threshold(selection), "share": share})


def _threshold(selection: Selection) -> float:
    text = selection.extra["prune-alike"]
    return next((value for value in keys.THRESHOLDS if f"{value:g}" == text), THRESHOLD)


@lru_cache(maxsize=32)
def _removed(run: Run, digest: str, epoch: int, want: Proposal) -> np.ndarray:
    known = keys.get_costs(context().results, run, epoch)
    assert known is not None
    said = keys.units_at(run, digest, epoch, want.threshold) if want.which in keys.WHICH else None
    return keys.proposed(run, epoch, want, *known, said)


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
                "itself. By redundancy, the weights of later layers for a removed unit are given to the unit that it follows, by the line that "
                "fits the two best over inputs and positions; where values are added to others' (residual branches) or normalised anew this "
                "cannot be done, and the unit is zero as by the other criteria. Nothing is trained afterwards, so each curve is a lower bound of "
                "what training again could keep. A layer always keeps one unit. Saved are a unit's weights, bias and normalisation, and the "
                "weights of later layers that take it, where the trace of the network shows them. Accuracy on inputs that were trained on falls "
                "later than on others: look at the held-out split.",
                className="dv-note",
            ),
            html.P(f"O. Roy, M. Vetterli, The effective rank, EUSIPCO 2007; {papers}.", className="dv-small"),
        ],
        className="dv-how",
        open=True,
    )
