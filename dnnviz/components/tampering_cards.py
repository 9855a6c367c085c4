"""The view “Tampering” of the diagnosis page: a verdict, the classes by suspicion, and the evidence of the one that is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash
import dash_bootstrap_components as dbc
import numpy as np
from dash import Dash, Input, Output, dcc, html

from dnnviz import urlstate
from dnnviz.analysis import sides
from dnnviz.analysis import tampering as tests
from dnnviz.analysis.diagnosis.finding import listed
from dnnviz.analysis.tampering import FEW, TESTS, Findings
from dnnviz.components.controls import empty, hidden, labelled, note, url_id
from dnnviz.components.details import number, percent
from dnnviz.components.tampering_evidence import deviations, evidence_view, strays_text, where
from dnnviz.components.view import register_view
from dnnviz.endpoints import context
from dnnviz.errors import RunError
from dnnviz.store import Run
from dnnviz.urlstate import Selection

SUSPECT, SECOND = "suspect", "against"  # keys of the address
MOST_ROWS = 30
FURTHEST = 1.5  # share of its threshold at which a bar is full
NO_RUN = "none"
_EXTRA = {"view": "health", SUSPECT: "", SECOND: NO_RUN}


def register(app: Dash) -> None:
    """Put the callbacks of the view on an app; they draw into `diagnosis-tampering`."""
    register_view(app, "diagnosis", "tampering", _frame)
    app.callback(Output("tampering-cards", "children"), Input("selection", "data"))(_cards)


def _frame(query: dict[str, str], data: Mapping[str, str]) -> list[Any]:
    """Controls of the view and the place for what it finds."""
    run_id = query.get("run") or data.get("run") or ""
    given = urlstate.parse({**query, **({"run": run_id} if run_id else {})}, context().catalogue, _EXTRA)[0]
    options = [{"label": "No other run", "value": NO_RUN}, *({"label": f"Against {name}", "value": name} for name in _others(given))]
    chosen = given.extra[SECOND] if given.extra[SECOND] in {each["value"] for each in options} else NO_RUN
    return [
        dcc.Store(id={"type": "url-defaults", "page": "tampering"}, data={SUSPECT: "", SECOND: NO_RUN}),
        hidden(SUSPECT, given.extra[SUSPECT]),
        html.Div(
            labelled("Set against another run", dbc.Select(id=url_id(SECOND), options=options, value=chosen)),
            className="dv-tampering-bar" if len(options) > 1 else "dv-hidden",
        ),
        html.Div(id="tampering-cards"),
    ]


def _others(selection: Selection) -> list[str]:
    """Ids of the runs that share enough classes with this one, and have held-out inputs as it has."""
    run = selection.run
    if run is None or sides.two_splits(run) is None:
        return []
    found = []
    for name in context().catalogue.ids():
        try:
            other = context().catalogue.open(name)
        except (RunError, OSError):
            continue
        if name != selection.run_id and other.epochs and sides.two_splits(other) and len(sides.shared_classes(run, other)) >= FEW:
            found.append(name)
    return found


def _cards(data: Mapping[str, str] | None) -> Any:
    if not data or data.get("view") != "tampering":
        return dash.no_update  # still the selection of the view or page before
    selection = urlstate.from_data(data, context().catalogue, _EXTRA)
    return dash.no_update if selection.run is None else tampering_view(selection)


def tampering_view(selection: Selection) -> list[Any]:
    """What the tests say of a run, and the evidence about one class. selection.extra: the keys of the page."""
    run = selection.run
    assert run is not None
    other = selection.extra[SECOND]
    second = context().catalogue.open(other) if other in _others(selection) else None
    found = tests.tampering(run, selection.epoch, second, min(second.epochs, key=lambda e: abs(e - selection.epoch)) if second else 0)
    if not found.measured:
        return [empty("Nothing can be tested here", _missing(run, found)), _reading()]
    text = selection.extra[SUSPECT]
    label = int(text) if text.isdecimal() and len(text) < 10 and int(text) < len(run.classes) else int(found.order[0])
    return [
        _summary(selection, found),
        html.Div([html.Div([_ranking(selection, found, label), _reading()]), evidence_view(selection, found, label)], className="dv-tampering"),
    ]


# -- verdict -----------------------------------------------------------------------------------------------------------


def _summary(selection: Selection, found: Findings) -> html.Div:
    run = selection.run
    assert run is not None
    suspects = found.suspects
    if suspects:
        names = listed([f"“{run.classes[label]}”" for label in suspects])
        several = len(suspects) > 1
        said: list[Any] = [html.B(f"{'Classes' if several else 'Class'} {names} {'look' if several else 'looks'} tampered with: ")]
        said.append(_why(selection, found, suspects[0], f" of “{run.classes[suspects[0]]}”" if several else ""))
        said.append(_also(found, suspects[0]))
    else:
        label = int(found.order[0])
        said = [html.B("No class stands out"), f" among {len(run.classes)}. Nearest to a threshold is “{run.classes[label]}”, at "]
        said.append(f"{percent(max(float(found.score[label]), 0))} of it.")
    splits = f"Training inputs: “{found.splits[0]}”; held out and taken to be clean: “{found.splits[1]}”. " if found.splits else ""
    return html.Div([html.P(said), html.P([splits, _missing(run, found)], className="dv-small")], className="dv-tampering-summary", role="status")


def _why(selection: Selection, found: Findings, label: int, whose: str) -> str:
    """What the strongest test of a class says, in one sentence."""
    run, name = selection.run, found.strongest(label)
    assert run is not None and name is not None
    if name == "labels":
        return f"{strays_text(run, selection.epoch, label, whose)}."
    who = f"the training inputs{whose}"
    beyond = f"{deviations(found.measured[name].z[label])} robust deviations beyond the typical class (suspicious from {TESTS[name].threshold:g} on)"
    if name in ("place", "others"):
        at = tests.place(run, selection.epoch, label, name == "place")
        assert at is not None
        what = "their held-out fellows" if name == "place" else "those of all other classes"
        return f"{who} differ from {what} at one place, the {where(at)} of {at.item.layer} (most of all in unit {at.unit}), {beyond}."
    if name == "gap":
        return f"{who} lie apart from their held-out fellows over all units, {beyond}."
    if name == "spectral":
        return f"some of {who} lie apart from the others along one direction of {tests.hidden_layer(run)}, {beyond}."
    return f"{who} lie further apart from the held-out ones than in the other run, {beyond}."


def _also(found: Findings, label: int) -> str:
    """The other tests in which a class stands out."""
    names = [f"“{TESTS[name].title}”" for name, each in found.measured.items() if each.share[label] > 1 and name != found.strongest(label)]
    return f" Beyond the threshold too: {', '.join(names)}." if names else ""


def _missing(run: Run, found: Findings) -> str:
    """One sentence for each reason for which a test is left out."""
    reasons: dict[str, list[str]] = {}
    for name, reason in found.missing.items():
        reasons.setdefault(reason, []).append(f"“{TESTS[name].title}”")
    return " ".join(f"Not tested: {', '.join(names)}, since {reason}" for reason, names in reasons.items())


# -- classes -----------------------------------------------------------------------------------------------------------


def _ranking(selection: Selection, found: Findings, chosen: int) -> html.Div:
    run = selection.run
    assert run is not None
    names = list(found.measured)
    head = [html.Span("Class"), *(html.Span(TESTS[name].title, title=TESTS[name].what) for name in names)]
    rows: list[Any] = [html.Div(head, className="dv-tampering-row head")]
    shown = [int(label) for label in found.order[:MOST_ROWS]]
    for label in shown if chosen in shown else [*shown, chosen]:
        marks = ("marked " if found.score[label] > 1 else "") + ("chosen" if label == chosen else "")
        rows.append(
            html.Button(
                [html.Span(run.classes[label], className="name", title=run.classes[label]), *(_bar(found, name, label) for name in names)],
                className=f"dv-tampering-row {marks}".strip(),
                type="button",
                **{"data-tampering-class": str(label), "aria-pressed": "true" if label == chosen else "false"},
            )
        )
    rest = len(found.order) - len(shown)
    text = (
        "Robust deviations from the typical class (“Among another class”: standard deviations of what chance gives). Shaded: where most classes "
        "of any run lie (two deviations); the line: from here on a class stands out."
        + (f" {rest} classes that are less suspicious are not listed." if rest > 0 else "")
    )
    return html.Div([html.Div(rows, className="dv-tampering-rows", style={"--columns": str(len(names))}), note(text)])


def _bar(found: Findings, name: str, label: int) -> html.Span:
    test, measured = TESTS[name], found.measured[name]
    z, share = float(measured.z[label]), float(measured.share[label])
    width = 100 * min(max(share, 0.0), FURTHEST) / FURTHEST if np.isfinite(share) else 0.0
    track = [
        html.Span(className="null", style={"width": f"{100 * 2 / test.threshold / FURTHEST:.1f}%"}),
        html.Span(className="bar strong" if share > 1 else "bar", style={"width": f"{width:.1f}%"}),
        html.Span(className="limit", style={"left": f"{100 / FURTHEST:.1f}%"}),
    ]
    typical = "" if test.least is None else f", typical {number(measured.median)} ± {number(measured.spread)}"
    title = f"{test.title}: {number(float(measured.values[label]))}{typical}; {test.what}"
    return html.Span([html.Span(track, className="track"), html.Span(deviations(z), className="value")], className="cell", title=title)


def _reading() -> html.Details:
    return html.Details(
        [
            html.Summary("How to read this"),
            html.P(
                "A mark hidden in the training images of a class makes the network treat them unlike the held-out images of the class, and the "
                "class unlike the others. Each test gives every class a number, and a class stands out where its number lies far beyond "
                "what the other classes give. “At one place” compares training and held-out inputs, unit by unit and place by place, in the first "
                "convolutions (their maps are kept pooled to at most 16 × 16): it sees one pixel set in all images of a class. “Over all units” "
                "compares the means of all units. “Some of its inputs” looks for a direction along which some training inputs lie apart, as with a "
                "patch and a new label, or with wrong labels. “Among another class” asks for each training input of which class the nearest "
                "held-out inputs are in the last hidden layer, and counts those that lie among one other class: wrong labels do. What it expects "
                "comes from the held-out inputs themselves (beta-binomial distribution, all pairs of classes counted). “Against other classes” "
                "needs no held-out inputs, but classes also differ by what they show. The thresholds were set so that clean runs are not "
                "flagged. A class that stands out calls for a look at its images: training images from another source than the held-out ones "
                "look the same. Held-out images are taken to be clean.",
                className="dv-note",
            ),
            html.P(
                [
                    "M. Alberti, V. Pondenkandath, M. Würsch et al., Are You Tampering With My Data?, ECCV workshops 2018. ",
                    "B. Tran, J. Li, A. Madry, Spectral Signatures in Backdoor Attacks, NeurIPS 2018; "
                    "whitened as in J. Hayase et al., SPECTRE, ICML 2021. D. Bahri, H. Jiang, M. Gupta, Deep k-NN for Noisy Labels, ICML 2020. "
                    "C. Northcutt, L. Jiang, I. Chuang, Confident Learning, JAIR 2021.",
                ],
                className="dv-small",
            ),
        ],
        className="dv-how dv-tampering-how",
        open=True,
    )
