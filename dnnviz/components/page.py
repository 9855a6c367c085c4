"""The frame of a page: context bar, alerts, three columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_bootstrap_components as dbc
from dash import dcc, html

from dnnviz.components.controls import hidden, labelled, segmented
from dnnviz.endpoints import context
from dnnviz.urlstate import Selection

Children = Sequence[Any] | Any


def page(
    selection: Selection,
    problems: Sequence[str],
    centre: Children,
    left: Children | None = None,
    right: str | None = None,
    *,
    bar: Children | None = None,
    strip: bool = False,
    defaults: Mapping[str, str] | None = None,
) -> html.Div:
    """A page: context bar above three columns; `left` or `right` None leaves that column out.

    right: id of the right column, which a callback of the page fills.
    bar: children of the context bar (default: run, what is shown, epoch). defaults: values of the page's URL keys
    that are not written into the address.
    """
    if selection.run is None:
        return html.Div([alerts(problems), no_runs()], className="dv-page no-left no-right d-block overflow-auto")
    names = ["dv-page", *(["no-left"] if left is None else []), *(["no-right"] if right is None else []), *(["with-strip"] if strip else [])]
    plain = {"epoch": str(selection.run.epochs[-1]), "show": "data", **(defaults or {})}
    return html.Div(
        [
            dcc.Store(id={"type": "url-defaults", "page": "page"}, data=plain),
            hidden("run", selection.run_id),
            hidden("layer", selection.layer or ""),
            hidden("unit", "" if selection.unit is None else str(selection.unit)),
            html.Div(context_bar(selection) if bar is None else bar, className="dv-context"),
            alerts(problems),
            *([] if left is None else [html.Aside(left, className="dv-left", **{"aria-label": "Controls"})]),
            html.Section(centre, className="dv-centre", id="centre", **{"aria-label": "Picture"}),
            *([] if right is None else [html.Aside(id=right, className="dv-right", **{"aria-label": "Details"})]),
        ],
        className=" ".join(names),
    )


def alerts(problems: Sequence[str]) -> html.Div:
    """One alert a sentence."""
    return html.Div([dbc.Alert(text, color="warning", dismissable=True) for text in problems], className="dv-alerts", id="alerts")


def no_runs() -> html.Div:
    """The empty state of an app without runs."""
    folders = ", ".join(str(folder) for folder in context().catalogue.folders)
    return html.Div(
        [
            html.H2("No run to show yet"),
            html.P(f"Runs are looked for in {folders}. Capture one, and reload this page:"),
            html.Pre("dnnviz capture --model torchvision:resnet18 --weights DEFAULT \\\n    --data folder:my_images --out runs/resnet18"),
        ],
        className="dv-empty",
    )


def context_bar(selection: Selection, *, show: bool = True, more: Children = ()) -> list[Any]:
    """Run, what is shown (data set, class, input), epoch and its accuracy."""
    assert selection.run is not None
    return [run_select(selection), *(show_controls(selection) if show else []), *epoch_controls(selection), *more]


def run_select(selection: Selection) -> html.Label:
    """The choice of the run; another run opens the page anew."""
    options = [{"label": name, "value": name} for name in context().catalogue.ids()]
    return html.Label(["Run", dbc.Select(id="run-select", options=options, value=selection.run_id)], className="dv-field framed")


def show_controls(selection: Selection) -> list[Any]:
    """Data set, a class or an input."""
    run, kind, index = selection.run, selection.show_kind, selection.show_index
    assert run is not None
    classes = [{"label": name, "value": str(i)} for i, name in enumerate(run.classes)]
    number = dbc.Input(id="show-input", type="number", min=0, max=run.kept - 1, step=1, value=index if kind == "input" else 0)
    return [
        hidden("show", selection.show),
        segmented("show-kind", {"data": "Data set", "class": "Class", "input": "Input"}, kind, "What is shown"),
        html.Div(
            labelled("Class", dbc.Select(id="show-class", options=classes, value=str(index if kind == "class" else 0))), className="dv-when-class"
        ),
        html.Div(labelled("Input", number), className="dv-when-input"),
    ]


def epoch_controls(selection: Selection) -> list[Any]:
    """The epoch slider (a word where there is one snapshot only) and the accuracy of the epoch."""
    run = selection.run
    assert run is not None
    position = run.epochs.index(selection.epoch)
    one = len(run.epochs) == 1
    slider = dbc.Input(id="epoch-slider", type="range", min=0, max=len(run.epochs) - 1, step=1, value=position, class_name="form-range")
    return [
        hidden("epoch", str(selection.epoch)),
        dcc.Store(id="epoch-list", data={"epochs": run.epochs}),
        html.Div(
            [
                html.Span("Epoch", className="dv-field"),
                html.Div(labelled("Epoch", slider), className="dv-hidden" if one else ""),
                html.Span(str(selection.epoch), id="epoch-value", className="dv-epoch-value"),
            ],
            className="dv-epoch" + (" one" if one else ""),
        ),
        html.Span(id="epoch-metrics", className="dv-field"),
    ]
