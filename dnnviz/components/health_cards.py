"""The view “Health” of the diagnosis page: what a colleague should look at first in a run, ranked, each with its evidence."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import ClientsideFunction, Dash, Input, Output, dcc, html

from dnnviz import urlstate
from dnnviz.analysis.diagnosis import CHECKS, SEVERITIES, Finding, Subject, diagnose
from dnnviz.analysis.diagnosis.finding import ATTENTION, FINE, LOOK, UNKNOWN
from dnnviz.analysis.diagnosis.preprocessing import TRIALS, trial_key
from dnnviz.components.controls import how_to_read, labelled
from dnnviz.drawing import as_svg
from dnnviz.endpoints import context
from dnnviz.explain.plan import obstacle
from dnnviz.report.charts import WIDTH, draw
from dnnviz.theme import PALETTE
from dnnviz.urlstate import Selection

_TITLES = {
    ATTENTION: ("needs attention", "need attention"),
    LOOK: ("is worth a look", "are worth a look"),
    FINE: ("is fine", "are fine"),
    UNKNOWN: ("could not be checked", "could not be checked"),
}

_ALONE = "alone"  # what a report is held against: nothing


def register(app: Dash) -> None:
    """Put the callbacks of the view on an app; they draw into `diagnosis-health`."""
    app.callback(
        Output("diagnosis-health", "children"),
        Input("selection", "data"),
        Input("theme-store", "data"),
        Input("health-heard", "data"),
    )(_cards)
    # What a job says goes on by way of the browser: in Dash's graph of callbacks, what hangs on a job waits until it has ended.
    app.clientside_callback(
        ClientsideFunction("dnnviz_health", "answer"),
        Output("health-answered", "children"),
        Input("job-result", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("dnnviz_health", "against"),
        Output("health-against", "title"),
        Input("health-against", "value"),
    )
    app.clientside_callback(
        ClientsideFunction("dnnviz_health", "ask"),
        Output("health-asked", "children"),
        Input("diagnosis-health", "children"),
    )


def _cards(data: Mapping[str, str] | None, theme: str | None, heard: Mapping[str, Any] | None) -> Any:
    if not data or data.get("view") != "health":
        return dash.no_update  # still the selection of the view or page before
    selection = urlstate.from_data(data, context().catalogue)
    if selection.run is None:
        return dash.no_update
    # What a job has answered is told once; another choice has nothing to do with it.
    told = heard if dash.ctx.triggered_id == "health-heard" else None
    return health_view(selection, theme or "light", told)


def health_view(selection: Selection, theme: str = "light", heard: Mapping[str, Any] | None = None) -> list[Any]:
    """The findings of a snapshot. heard: the answer of a job that has just ended."""
    run = selection.run
    assert run is not None
    hindered = obstacle(run, selection.epoch, context().settings.allow, TRIALS)
    found = diagnose(Subject(run, selection.epoch, context().results, hindered))
    by = {severity: [each for each in found if each.severity == severity] for severity in SEVERITIES}
    named = by[ATTENTION] + by[LOOK]
    trial = [] if hindered else _trial(selection, heard)
    head = html.Div(
        [
            html.Div([html.P(_summary(by)), html.P(_what(selection), className="dv-small")], className="dv-health-said", role="status"),
            _report(selection),
        ],
        className="dv-health-head",
    )
    return [
        head,
        html.Div([_card(selection, each, theme) for each in named], className="dv-health-cards"),
        *([_listed(selection, "Fine", by[FINE], theme)] if by[FINE] else []),
        *([_listed(selection, SEVERITIES[UNKNOWN], by[UNKNOWN], theme, trial)] if by[UNKNOWN] else []),
        how_to_read(
            "Each check compares one thing with what trained, healthy networks show, and says what it found in a sentence. What needs attention "
            "likely spoils results; what is worth a look may be as it should be. Under each sentence: how it was computed, and from which paper.",
            "Calibration: C. Guo et al., ICML 2017. Preprocessing: running statistics of batch norm, S. Ioffe and C. Szegedy, ICML 2015. "
            "Every other source stands with its check.",
        ),
    ]


def _report(selection: Selection) -> html.Div:
    """Everything on one page, alone or held against another run: what it is held against goes into the links in the browser."""
    run = selection.run
    assert run is not None
    held = {
        _ALONE: "This run alone",
        **({f"{selection.run_id}|{run.epochs[0]}": f"Against epoch {run.epochs[0]}"} if selection.epoch != run.epochs[0] else {}),
    }
    held |= {name: f"Against {name}" for name in context().catalogue.ids() if name != selection.run_id}
    links = []
    for file, text, title in (
        ("report.html", "Report", "Everything on one page, to print or to pass on (HTML)"),
        ("report.zip", "With pictures", "The page and each of its pictures as a PNG file (ZIP)"),
    ):
        address = dash.get_relative_path(f"/data/{selection.run_id}/{file}") + urlstate.query(epoch=selection.epoch)
        links.append(html.A(text, href=address, download=True, className="dv-btn", title=title, **{"data-health-report": address}))
    options = [{"label": text, "value": value} for value, text in held.items()]
    # What is chosen stays when the cards are drawn again.
    chosen = dbc.Select(id="health-against", options=options, value=_ALONE, persistence=selection.run_id, persistence_type="memory")
    return html.Div([labelled("What the report is held against", chosen), *links], className="dv-health-report")


def _summary(by: Mapping[str, Sequence[Finding]]) -> list[Any]:
    parts: list[Any] = []
    for severity in (ATTENTION, LOOK):
        count = len(by[severity])
        if count:
            titles = ", ".join(CHECKS[each.check].title.lower() for each in by[severity])
            one, several = _TITLES[severity]
            parts.append(html.B(f"{count} {'thing ' + one if count == 1 else 'things ' + several}"))
            parts.append(f": {titles}. ")
    if not parts:
        checked = len(by[FINE])
        parts.append(html.B(f"Nothing stands out in {checked} checks."))
    return parts


def _what(selection: Selection) -> str:
    run = selection.run
    assert run is not None
    return f"{selection.run_id}, epoch {selection.epoch}: {len(run.layers)} layers, {int(run.class_counts.sum()):,} inputs"


def _trial(selection: Selection, heard: Mapping[str, Any] | None) -> list[Any]:
    """What stands beside a preprocessing that has not been tried: that it is being tried, or a button, or nothing."""
    run = selection.run
    assert run is not None
    if trial_key(run, selection.epoch) in context().results:
        return []
    request = {"kind": "diagnosis", "page": "/diagnosis", "params": {"run": selection.run_id, "epoch": selection.epoch}}
    stopped = bool(heard and not heard.get("ok"))
    said = [html.Span(heard["error"] + " ", role="alert")] if heard and heard.get("error") else []
    # The network runs a few inputs for a second or two: nobody has to ask for it; who cancelled it can ask again.
    given = {"data-health-request": json.dumps(request), "data-health-auto": "false" if stopped else "true"}
    return [*said, html.Button("Try it", className="dv-btn small", type="button", **given)]


def _card(selection: Selection, found: Finding, theme: str) -> html.Section:
    check = CHECKS[found.check]
    head = [html.Span(SEVERITIES[found.severity], className="dv-health-mark"), html.H2(check.title, className="dv-title")]
    return html.Section(
        [
            html.Div(head, className="dv-health-card-head"),
            html.P(found.sentence, className="dv-health-sentence"),
            *_evidence(selection, found, theme),
        ],
        className=f"dv-health-card {found.severity}",
        **{"aria-label": check.title, "data-check": found.check},
    )


def _evidence(selection: Selection, found: Finding, theme: str) -> list[Any]:
    """Picture, link and how it was computed."""
    check = CHECKS[found.check]
    parts: list[Any] = []
    if found.picture is not None:
        data = base64.b64encode(as_svg(draw(found.picture, PALETTE.get(theme, PALETTE["light"]))).encode()).decode()
        parts.append(html.Img(src=f"data:image/svg+xml;base64,{data}", alt=found.picture.title, width=WIDTH, className="dv-health-picture"))
    if found.link is not None:
        values = {"run": selection.run_id, "epoch": selection.epoch, **found.link.values}
        parts.append(
            dcc.Link(found.link.text, href=dash.get_relative_path(found.link.path) + urlstate.query(**values), className="dv-btn soft small")
        )
    parts.append(html.Details([html.Summary("How this is computed"), html.P(check.how), html.P(check.source)], className="dv-health-how"))
    return parts


def _listed(selection: Selection, title: str, found: Sequence[Finding], theme: str, trial: Sequence[Any] = ()) -> html.Section:
    """Findings that need no card: a line each, the evidence behind it."""
    rows = []
    for each in found:
        more = list(trial) if each.check == "preprocessing" and each.severity == UNKNOWN else []
        evidence = html.Details(
            [html.Summary([html.B(CHECKS[each.check].title), html.Span(each.sentence)]), html.Div(_evidence(selection, each, theme))],
            className="dv-health-row",
            **{"data-check": each.check},
        )
        rows.append(html.Div([evidence, *([html.Div(more, className="dv-health-trial")] if more else [])]))
    return html.Section([html.H2(title, className="dv-section-title"), *rows], className="dv-health-list", **{"aria-label": title})
