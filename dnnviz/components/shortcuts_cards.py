"""The view “Shortcuts” of the attribution page: a card a class, those first that lean on a place that their object does not explain."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import dash
import dash_bootstrap_components as dbc
import numpy as np
from dash import ClientsideFunction, Dash, Input, Output, dcc, html

from dnnviz import urlstate
from dnnviz.components.controls import empty, labelled, note, url_id
from dnnviz.components.details import image_url, number, percent
from dnnviz.components.view import register_view
from dnnviz.endpoints import SPRITE_COLUMNS, SPRITE_LIMIT, context
from dnnviz.errors import DNNVizError
from dnnviz.explain.picture import COLOURS, Look, paint, png
from dnnviz.explain.plan import obstacle, pace
from dnnviz.explain.registry import METHODS, find
from dnnviz.explain.shortcuts.keys import PER_CLASS, Asked, Shortcuts, asked, get_shortcuts, members, shortcuts_key
from dnnviz.explain.shortcuts.measures import FAR, LEAST_MAPS, LEAST_OTHERS, REGIONS
from dnnviz.store import Run
from dnnviz.urlstate import Selection

METHOD, COUNT = "shortcut", "per"  # keys of the address
FIRST_METHOD = "saliency"
COUNTS = {"8": "8 inputs a class", "16": "16 inputs a class", str(PER_CLASS): f"{PER_CLASS} inputs a class"}
MOST_CARDS = 24
MOST_MEMBERS = 10  # thumbnails of a cluster
_THUMB = 36  # side of a thumbnail
_GROUND = 128  # grey under a mean map
_UNBELIEVED = 0.25  # share of degenerate maps from which a sentence warns of them
_SHORT = ("Border", "Upper left", "Upper right", "Lower left", "Lower right")
# Keys of the page that count here as well; `dnnviz.urlstate` passes on the keys that are named.
_EXTRA = {
    "view": "gallery",
    METHOD: "",
    COUNT: "",
    "at": "",
    "overlay": "85",
    "colours": "inferno",
    "clip": "99.5",
    **{f"{m.name}-{p.name}": "" for m in METHODS.values() for p in m.parameters},
}


def register(app: Dash) -> None:
    """Put the callbacks of the view on an app; they draw into `attribution-shortcuts`."""
    register_view(app, "attribution", "shortcuts", _frame)
    app.callback(
        Output("shortcuts-cards", "children"),
        Input("selection", "data"),
        Input("shortcuts-heard", "data"),
    )(_cards)
    # What a job says goes on by way of the browser: in Dash's graph of callbacks, what hangs on a job waits until it has ended.
    app.clientside_callback(
        ClientsideFunction("dnnviz_shortcuts", "answer"),
        Output("shortcuts-answered", "children"),
        Input("job-result", "data"),
        prevent_initial_call=True,
    )


def _frame(query: dict[str, str], data: Mapping[str, str]) -> list[Any]:
    """Controls of the view and the place for its cards."""
    method, count = (data.get(name) or query.get(name) or default for name, default in ((METHOD, FIRST_METHOD), (COUNT, str(PER_CLASS))))
    options = [{"label": each.title, "value": name} for name, each in METHODS.items()]
    counts = [{"label": text, "value": value} for value, text in COUNTS.items()]
    plain = {METHOD: FIRST_METHOD, COUNT: str(PER_CLASS)}
    return [
        dcc.Store(id={"type": "url-defaults", "page": "shortcuts"}, data=plain),
        dcc.Store(id="shortcuts-heard"),
        html.Div(
            [
                labelled("Method", dbc.Select(id=url_id(METHOD), options=options, value=method if method in METHODS else FIRST_METHOD)),
                labelled("Inputs", dbc.Select(id=url_id(COUNT), options=counts, value=count if count in COUNTS else str(PER_CLASS))),
            ],
            className="dv-shortcuts-bar",
        ),
        html.Div(id="shortcuts-cards"),
        html.Div(id="shortcuts-answered", hidden=True),
    ]


def _cards(data: Mapping[str, str] | None, heard: Mapping[str, Any] | None) -> Any:
    if not data or data.get("view") != "shortcuts" or not data.get(METHOD):
        return dash.no_update  # still the selection of the view or page before
    selection = urlstate.from_data(data, context().catalogue, _EXTRA)
    if selection.run is None:
        return dash.no_update
    # A failure is told once, when it happens; another choice has nothing to do with it.
    told = heard if dash.ctx.triggered_id == "shortcuts-heard" else None
    return shortcuts_view(selection, told)


def shortcuts_view(selection: Selection, heard: Mapping[str, Any] | None = None) -> list[Any]:
    """What is known of a run's shortcuts, or what it takes to look for them.

    selection.extra: the keys of the page. heard: the answer of a job that has just ended.
    """
    run = selection.run
    assert run is not None
    try:
        want = asked(run, _params(selection))
    except DNNVizError as error:
        return [_alert(str(error))]
    found = get_shortcuts(context().results, shortcuts_key(run, want))
    alerts = [_alert(heard["error"])] if heard and heard.get("error") else []
    problem = obstacle(run, want.epoch, context().settings.allow)
    if found is None:
        if problem:
            return [*alerts, empty("Shortcuts need the network", problem)]
        return [*alerts, _offer(selection, run, want, cancelled=bool(heard and heard.get("cancelled")))]
    degenerate = [entry for entry in found.notes if entry[0] == "degenerate"]
    total = sum(entry[2] for entry in found.notes)
    bad = sum(entry[2] for entry in degenerate)
    if total and bad / total > _UNBELIEVED:
        alerts.append(_alert(f"{bad} of {total} maps are degenerate: {degenerate[0][3]} Look at another method as well."))
    shown = found.order[:MOST_CARDS]
    look = _look(selection)
    rest = len(found.order) - len(shown)
    return [
        *alerts,
        _summary(run, want, found),
        html.Div([_card(selection, want, found, int(row), look) for row in shown], className="dv-shortcuts"),
        *([note(f"{rest} more classes are not listed; none of them stands out more.")] if rest else []),
        _reading(),
    ]


def _params(selection: Selection) -> dict[str, Any]:
    """What a job would be asked for, from the keys of the page."""
    run, extra = selection.run, selection.extra
    assert run is not None
    method = find(extra.get(METHOD) or FIRST_METHOD)
    given: dict[str, Any] = {}
    for parameter in method.parameters:
        text = extra.get(f"{method.name}-{parameter.name}") or ""
        if text:
            given[parameter.name] = text.lower() == "true" if parameter.kind == "flag" else text
    count = extra.get(COUNT) or ""
    layer = extra.get("at") or ""
    return {
        "epoch": selection.epoch,
        "method": method.name,
        "parameters": given,
        "layer": layer if layer in {each.name for each in run.layers} else None,
        "per_class": int(count) if count in COUNTS else PER_CLASS,
    }


def _offer(selection: Selection, run: Run, want: Asked, cancelled: bool) -> html.Div:
    """The empty state: what would be computed, and what it costs."""
    method, shape = METHODS[want.method], tuple(run.manifest["preprocessing"]["size"])
    count = sum(len(inputs) for inputs in members(run, want.per_class).values())
    evaluations = count * method.passes(want.parameters, shape)
    seconds = pace(context().results, run, want.epoch)
    time = "" if seconds is None else f", {_duration(seconds * count * method.work(want.parameters, shape))}"
    request = {"kind": "shortcuts", "page": "/attribution", "params": want.as_params(selection.run_id)}
    button = html.Button("Look for shortcuts", className="dv-btn primary", type="button", **{"data-shortcuts-request": json.dumps(request)})
    text = (
        f"{method.title} of {count:,} inputs, each for its own class: {evaluations:,} evaluations of the network{time}. "
        "Maps that the gallery has made already are used."
    )
    return html.Div(
        [
            html.H2("Cancelled" if cancelled else "Does a class lean on something beside its object?"),
            html.P(
                "The mean map of every class, how much of its evidence lies at the border and in the corners, and groups of inputs alike.",
                className="mb-2",
            ),
            html.P(text, className="mb-3"),
            button,
        ],
        className="dv-empty",
    )


def _summary(run: Run, want: Asked, found: Shortcuts) -> html.Div:
    marked = [int(row) for row in found.order if found.marked[row].any()]
    if marked:
        row = marked[0]
        name = run.classes[int(found.classes[row])]
        region = int(np.where(found.marked[row], found.densities[row], -1).argmax())
        count = f"{len(marked)} of {len(found.classes)} classes {'stands' if len(marked) == 1 else 'stand'} out. "
        said: list[Any] = [html.B(count), html.B(f"“{name}”"), f" has {_share_text(found, row, region)}."]
    elif not np.isfinite(found.z).any():
        said = [f"To compare classes takes {LEAST_OTHERS + 1} of them with at least {LEAST_MAPS} maps each; the shares stand for themselves."]
    else:
        said = [html.B("No class stands out"), " at the border or in a corner."]
    layer = f" at {found.layer}" if found.layer else ""
    method = f"{METHODS[want.method].title}{layer}, {int(found.counts.sum())} maps"
    return html.Div([html.P(said), html.P(method, className="dv-small")], className="dv-shortcuts-summary", role="status")


def _share_text(found: Shortcuts, row: int, region: int) -> str:
    """Share of a region in words: of the evidence, relative to the area, against the other classes."""
    where = "at the border" if region == 0 else f"in the {REGIONS[region]}"
    z = float(found.z[row, region])
    text = f"{percent(float(found.shares[row, region]))} of its evidence {where}, {number(float(found.densities[row, region]))} times an even spread"
    return text + (f", {abs(z):.1f} robust deviations {'above' if z >= 0 else 'below'} the other classes" if np.isfinite(z) else "")


def _card(selection: Selection, want: Asked, found: Shortcuts, row: int, look: Look) -> html.Section:
    run = selection.run
    assert run is not None
    name = run.classes[int(found.classes[row])]
    count = int(found.counts[row])
    marks = [REGIONS[r] for r in np.flatnonzero(found.marked[row])]
    head = [html.H2(name, className="dv-title"), html.Span(_count(count, "map"), className="dv-small")]
    if marks:
        head.append(html.Span(["stands out: ", ", ".join(marks)], className="dv-shortcuts-mark"))
    clusters = np.flatnonzero(found.cluster_classes == row)
    none = found.inputs[(found.assignments < 0) & (run.labels[found.inputs] == found.classes[row])]
    parts: list[Any] = [html.Div(head, className="dv-shortcuts-head")]
    if count:
        parts.append(
            html.Div(
                [_map(found.means[row], look, f"Mean map of {name}", "mean"), _bars(found, row)],
                className="dv-shortcuts-body",
            )
        )
        together = len(clusters) == 1
        said = "Its maps form one group" if together else f"Its maps form {len(clusters)} groups"
        hint = "" if together else f"Eigengap {found.gaps[row]:.2f}; the nearer to 1, the clearer the groups"
        parts.append(html.Div(said if found.gaps[row] else "Too few maps to look for groups", className="dv-shortcuts-groups", title=hint))
        parts += [_cluster(selection, want, found, int(c), look, alone=together) for c in clusters]
    if len(none):
        parts.append(html.P(f"{_count(len(none), 'input')} without any evidence for the class.", className="dv-small"))
    return html.Section(parts, className="dv-shortcuts-card" + (" marked" if marks else ""), **{"aria-label": f"Class {name}"})


def _bars(found: Shortcuts, row: int) -> html.Div:
    """Evidence in border and corners relative to their area; the line stands at an even spread."""
    cells: list[Any] = []
    longest = max(3.0, float(found.densities.max()))
    for region, title in enumerate(_SHORT):
        density, strong = float(found.densities[row, region]), " strong" if found.marked[row, region] else ""
        said = _share_text(found, row, region)
        cells += [
            html.Span(title, className=f"name{strong}"),
            html.Div(
                [
                    html.Div(className=f"bar{strong}", style={"width": f"{100 * density / longest:.1f}%"}),
                    html.Span(className="even", style={"left": f"{100 / longest:.1f}%"}),
                ],
                className="track",
            ),
            html.Span(f"{density:.1f}×", className=f"value{strong}", title=said[:1].upper() + said[1:]),
        ]
    return html.Div(cells, className="dv-bars dv-shortcuts-bars")


def _cluster(selection: Selection, want: Asked, found: Shortcuts, cluster: int, look: Look, alone: bool) -> html.Div:
    run = selection.run
    assert run is not None
    inputs = found.inputs[found.assignments == cluster]
    splits = np.bincount(run.input_splits[inputs], minlength=len(run.splits))
    told = ", ".join(f"{count} {name}" for name, count in zip(run.splits, splits, strict=True) if count) if len(run.splits) > 1 else ""
    shown = [int(i) for i in inputs[:MOST_MEMBERS]]
    rest = len(inputs) - len(shown)
    thumbs = [
        dcc.Link(
            [_thumb(selection, i), html.Span(f"Input {i}", className="visually-hidden")],
            href=_gallery(selection, want, [i]),
            title=f"Input {i}, {run.splits[int(run.input_splits[i])]}: see it in the gallery",
        )
        for i in shown
    ]
    words = _count(len(inputs), "input") + (f": {told}" if told else "")
    more = [html.Span(f"+{rest}", className="dv-small")] if rest else []
    link = dcc.Link(words, href=_gallery(selection, want, shown), title="See them in the gallery")
    picture = [] if alone else [_map(found.cluster_means[cluster], look, f"Mean map of {len(inputs)} inputs", "group")]
    return html.Div(
        [*picture, html.Div([link, html.Div([*thumbs, *more], className="dv-shortcuts-thumbs")], className="dv-shortcuts-words")],
        className="dv-shortcuts-group",
    )


def _thumb(selection: Selection, index: int) -> Any:
    """A thumbnail cut from the sprite of all inputs, so that a page of them is one request; by itself where the sprite ends."""
    if index >= SPRITE_LIMIT:
        return html.Img(src=image_url(selection, index, 64), alt="")
    row, column = divmod(index, SPRITE_COLUMNS)
    address = dash.get_relative_path(f"/data/{selection.run_id}/sprite.png?size=64")
    look = {
        "backgroundImage": f"url({address})",
        "backgroundSize": f"{SPRITE_COLUMNS * _THUMB}px auto",
        "backgroundPosition": f"-{column * _THUMB}px -{row * _THUMB}px",
    }
    return html.Span(className="thumb", style=look)


def _gallery(selection: Selection, want: Asked, inputs: list[int]) -> str:
    """Address of the gallery with inputs, explained for their true class by the method looked at."""
    values = {"run": selection.run_id, "epoch": want.epoch, "by": "chosen", "inputs": ",".join(map(str, inputs)), "target": "true", "at": want.layer}
    other = {p.name: want.parameters[p.name] for p in METHODS[want.method].parameters if want.parameters[p.name] != p.default}
    settings = {f"{want.method}-{name}": str(value).lower() if isinstance(value, bool) else value for name, value in other.items()}
    return dash.get_relative_path("/attribution") + urlstate.query(**values, methods=want.method, **settings)


def _map(mean: np.ndarray, look: Look, text: str, kind: str) -> html.Img:
    """A mean map (float32 [h, w]) over a neutral ground, painted as the gallery paints tiles."""
    ground = np.full((*mean.shape, 3), _GROUND, dtype=np.uint8)
    data = base64.b64encode(png(paint(ground, mean, False, look))).decode()
    crisp = " small" if min(mean.shape) < 100 else ""
    return html.Img(src=f"data:image/png;base64,{data}", alt=text, className=f"dv-shortcuts-map {kind}{crisp}")


def _look(selection: Selection) -> Look:
    """Colours and clipping as the page has them; means have no sign."""
    extra = selection.extra
    try:
        return Look(float(extra["overlay"]), extra["colours"] if extra["colours"] in COLOURS else "inferno", "positive", float(extra["clip"]))
    except (DNNVizError, ValueError):
        return Look(sign="positive")


def _reading() -> html.Details:
    return html.Details(
        [
            html.Summary("How to read this"),
            html.P(
                "Every map explains the true class of its input and is scaled to a sum of 1; of signed maps what speaks for the class counts. "
                "The border is the outer eighth on each side, a corner a quarter of the width and height. Bars show evidence relative to the area: "
                "the line stands at an even spread. A place is marked where it holds at least that much and lies "
                f"{FAR:g} robust deviations (median and median absolute deviation) above the other classes. A mark there says: look at the images. "
                "An object that is itself at the edge looks the same. Groups come from spectral clustering of the maps at 16 × 16; their "
                "number is where the eigenvalues of the graph of nearest maps leave the largest gap.",
                className="dv-note",
            ),
            html.P(
                "S. Lapuschkin et al., Unmasking Clever Hans predictors and assessing what machines really learn, Nature Communications 10, 2019.",
                className="dv-small",
            ),
        ],
        className="dv-how dv-shortcuts-how",
        open=True,
    )


def _alert(text: str) -> html.Div:
    return html.Div(text, className="alert alert-warning", role="alert")


def _count(value: int, noun: str) -> str:
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "under a second"
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
