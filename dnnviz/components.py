"""What all pages are made of: the shell, the context bar, the three columns, cards and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash
import dash_bootstrap_components as dbc
import numpy as np
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html

from dnnviz import jobs, urlstate
from dnnviz.endpoints import context
from dnnviz.store import Run
from dnnviz.urlstate import Selection

STRIP_LIMIT = 120

Children = Sequence[Any] | Any


# -- the shell -------------------------------------------------------------------------------------------------------


def shell() -> html.Div:
    """The frame around every page: top bar, page, strip of inputs, job panel, dialogs and stores."""
    pages = sorted((p for p in dash.page_registry.values() if "order" in p and p["order"] is not None), key=lambda p: p["order"])
    links = [dcc.Link(p["name"], href=p["relative_path"], id={"type": "nav", "path": p["path"]}, className="dv-nav-link") for p in pages]
    return html.Div(
        [
            dcc.Location(id="nav", refresh="callback-nav"),
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
    app.clientside_callback(ClientsideFunction("dnnviz_shell", "run"), Output("nav", "href"), Input("run-select", "value"))
    app.callback(Output("strip", "children"), Input("selection", "data"))(_strip)
    app.callback(Output("epoch-metrics", "children"), Input("selection", "data"))(_metrics)


# -- a page ----------------------------------------------------------------------------------------------------------


def page(
    selection: Selection,
    problems: Sequence[str],
    centre: Children,
    left: Children | None = None,
    right: Children | None = None,
    *,
    bar: Children | None = None,
    strip: bool = False,
    defaults: Mapping[str, str] | None = None,
) -> html.Div:
    """A page: context bar above three columns; `left` or `right` None leaves that column out.

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
            *([] if right is None else [html.Aside(right, className="dv-right", id="details", **{"aria-label": "Details"})]),
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
            className="dv-epoch" + (" flex-grow-0" if one else ""),
            style={"minWidth": "0"} if one else {},
        ),
        html.Span(id="epoch-metrics", className="dv-field"),
    ]


# -- controls --------------------------------------------------------------------------------------------------------


def url_id(key: str) -> dict[str, str]:
    """Id of a control whose value is part of the address."""
    return {"type": "url", "key": key}


def hidden(key: str, value: str) -> dcc.Input:
    """Part of the address without a visible control."""
    return dcc.Input(id=url_id(key), type="hidden", value=value)


def segmented(id: Any, options: Mapping[str, str], value: str, label: str) -> html.Div:
    """A row of choices of which one holds."""
    choices = dbc.RadioItems(id=id, options=_options(options), value=value, class_name="dv-segment")
    return html.Div(choices, role="group", **{"aria-label": label})


def radios(key: str, options: Mapping[str, str], value: str) -> dbc.RadioItems:
    """A column of choices of which one holds, part of the address; the section around it names it."""
    return dbc.RadioItems(id=url_id(key), options=_options(options), value=value)


def checklist(key: str, options: Mapping[str, str], value: Sequence[str]) -> dbc.Checklist:
    """A column of choices that may hold together, part of the address (joined with commas)."""
    return dbc.Checklist(id=url_id(key), options=_options(options), value=list(value))


def select(key: str, options: Mapping[str, str], value: str, label: str) -> html.Label:
    """A drop-down choice, part of the address."""
    return labelled(label, dbc.Select(id=url_id(key), options=_options(options), value=value))


def labelled(text: str, control: Any) -> html.Label:
    """A control with a name that only screen readers see."""
    return html.Label([html.Span(text, className="visually-hidden"), control], className="d-block")


def _options(options: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"label": text, "value": name} for name, text in options.items()]


def section(title: str, *children: Any) -> html.Div:
    """A titled group of controls or details."""
    return html.Div([html.H2(title, className="dv-section-title"), *children], className="dv-section", role="group", **{"aria-label": title})


def note(*children: Any) -> html.P:
    """A line of explanation."""
    return html.P(list(children), className="dv-note")


def how_to_read(text: str, source: str) -> html.Details:
    """The note on every page that says how to read it, with the paper it comes from."""
    return html.Details(
        [html.Summary("How to read this"), html.P(text, className="dv-note"), html.P(source, className="dv-small")], className="dv-how", open=True
    )


def empty(title: str, *text: Any) -> html.Div:
    """A place with nothing in it, and what to do next."""
    return html.Div([html.H2(title), html.P(list(text))], className="dv-empty")


def page_link(text: str, path: str, **values: object) -> dcc.Link:
    """A button that leads to another page with a selection."""
    return dcc.Link(text, href=dash.get_relative_path(path) + urlstate.query(**values), className="dv-btn soft")


# -- pictures of inputs ----------------------------------------------------------------------------------------------


def image_url(selection: Selection, index: int, size: int | None = None) -> str:
    """Address of a stored image, as it is or as a square of `size` pixels."""
    name = f"image/{index}.png" if size is None else f"thumb/{index}.png?size={size}"
    return dash.get_relative_path(f"/data/{selection.run_id}/{name}")


def thumbnail(
    selection: Selection, index: int, text: str = "", *, place: tuple[float, float] | None = None, classes: str = "", size: int = 96
) -> html.Button:
    """A small image that, when clicked, becomes what is shown (images kept for top lists only are not clickable).

    place: (x, y) in shares of width and height, marked with a square.
    """
    run = selection.run
    assert run is not None
    label = run.classes[int(run.image_labels([index])[0])]
    kept = index < run.kept
    marks = [html.Span(className="place", style={"left": f"{place[0]:.1%}", "top": f"{place[1]:.1%}"})] if place else []
    return html.Button(
        [html.Img(src=image_url(selection, index, size), alt=""), *marks, *([html.Span(text, className="value")] if text else [])],
        className=f"dv-thumb {classes}".strip(),
        type="button",
        title=f"{'input ' + str(index) if kept else 'not kept one by one'}, {label}",
        **{"aria-label": f"Input {index}, {label}", **({"data-dv-show": f"input:{index}"} if kept else {})},
    )


def bars(rows: Sequence[tuple[str, float, str, bool, str | None]]) -> html.Div:
    """Horizontal bars; a row is (name, value, text of the value, emphasised, show-target of a click or None)."""
    largest = max((abs(row[1]) for row in rows if np.isfinite(row[1])), default=0.0) or 1.0
    cells: list[Any] = []
    for name, value, text, strong, target in rows:
        mark = " strong" if strong else ""
        width = f"{100 * abs(value) / largest:.1f}%" if np.isfinite(value) else "0"
        if target:
            cells.append(html.Button(name, className=f"name{mark}", title=name, type="button", **{"data-dv-show": target}))
        else:
            cells.append(html.Span(name, className=f"name{mark}", title=name))
        cells += [html.Div(html.Div(className=f"bar{mark}", style={"width": width})), html.Span(text, className="value")]
    return html.Div(cells, className="dv-bars")


def unit_bars(rows: Sequence[tuple[str, int, float, str]], *, names: bool = True, signed: bool = False) -> html.Div:
    """Bars of units, each a click from its card; a row is (layer, unit, value, text). Signed: blue below zero, red above."""
    largest = max((abs(row[2]) for row in rows), default=0.0) or 1.0
    cells: list[Any] = []
    for layer, unit, value, text in rows:
        name = f"{layer} · {unit}" if names else f"unit {unit}"
        kind = "" if not signed else " high" if value > 0 else " low"
        cells += [
            html.Button(name, className="name", title=name, type="button", **{"data-dv-unit": f"{layer}|{unit}"}),
            html.Div(html.Div(className=f"bar{kind}", style={"width": f"{100 * abs(value) / largest:.1f}%"})),
            html.Span(text, className="value"),
        ]
    return html.Div(cells, className="dv-bars units" if names else "dv-bars")


def number(value: float) -> str:
    """A value with sensible digits."""
    if not np.isfinite(value):
        return "–"
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e5):
        return f"{value:.1e}".replace("-", "−")
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}".replace("-", "−")


def percent(value: float) -> str:
    """A share as a percentage: whole where it is above 10 %, one digit below."""
    if not np.isfinite(value):
        return "–"
    return f"{100 * value:.0f} %" if value >= 0.1 or value == 0 else f"{100 * value:.1f} %"


# -- callbacks of the shell ------------------------------------------------------------------------------------------


def _metrics(data: dict[str, str] | None) -> str:
    selection = urlstate.from_data(data, context().catalogue)
    if selection.run is None:
        return ""
    metrics = selection.run.metrics(selection.epoch)
    parts = {name: found["accuracy"] for name, found in metrics.get("splits", {}).items() if found.get("accuracy") is not None}
    if len(parts) > 1:
        return "accuracy " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in parts.items())
    return f"accuracy {100 * metrics['accuracy']:.1f} %" if metrics.get("accuracy") is not None else ""


def _strip(data: dict[str, str] | None) -> list[Any]:
    selection = urlstate.from_data(data, context().catalogue)
    run = selection.run
    if run is None:
        return []
    members, text = strip_inputs(run, selection)
    wrong = run.logits(selection.epoch).argmax(axis=1) != run.labels
    shown = members if len(members) <= STRIP_LIMIT else members[np.linspace(0, len(members) - 1, STRIP_LIMIT).astype(int)]
    missed = int(wrong[members].sum())
    chosen = selection.show_index if selection.show_kind == "input" else None
    thumbs = [
        thumbnail(selection, int(i), classes=" ".join([*(["wrong"] if wrong[i] else []), *(["chosen"] if i == chosen else [])]), size=64)
        for i in shown
    ]
    count = f"{len(members)} of {text}" if len(shown) == len(members) else f"{len(shown)} of {len(members)} of {text}"
    described = html.Div(
        [
            html.Div("Inputs", className="fw-semibold"),
            html.Div(count, className="dv-small text-truncate", title=count),
            html.Div(f"{missed} wrong, outlined" if missed else "all right", className="dv-small"),
        ],
        className="dv-strip-text",
    )
    return [described, html.Div(thumbs, className="dv-strip-list")]


def strip_inputs(run: Run, selection: Selection) -> tuple[np.ndarray, str]:
    """Inputs of the strip (the class that is shown, or of the input that is shown; else all) and what they are."""
    index = selection.show_index
    if index is None:
        order = np.arange(run.kept)
        return order, "the data set"
    label = index if selection.show_kind == "class" else int(run.labels[index])
    return np.flatnonzero(run.labels == label), f"“{run.classes[label]}”"
