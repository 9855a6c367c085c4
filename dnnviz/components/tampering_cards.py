"""The view “Tampering” of the diagnosis page: a verdict, the classes by suspicion, and the evidence of the one that is looked at."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import dash
import dash_bootstrap_components as dbc
import numpy as np
from dash import Dash, Input, Output, State, dcc, html

from dnnviz import urlstate
from dnnviz.analysis import comparison
from dnnviz.analysis import tampering as tests
from dnnviz.analysis.tampering import FEW, TESTS, Findings, Place
from dnnviz.components.controls import empty, hidden, labelled, note, page_link, section, url_id
from dnnviz.components.details import image_url, number
from dnnviz.endpoints import context
from dnnviz.errors import RunError
from dnnviz.explain.picture import png
from dnnviz.store import Run
from dnnviz.urlstate import Selection

SUSPECT, SECOND = "suspect", "against"  # keys of the address
MOST_ROWS = 30
IMAGES = 12  # of a class, from either split
STRANGEST = 8
FURTHEST = 1.5  # share of its threshold at which a bar is full
_LOW, _HIGH = (46, 118, 190), (208, 40, 54)  # seen on a light and on a dark ground
NO_RUN = "none"
_EXTRA = {"view": "health", SUSPECT: "", SECOND: NO_RUN}


def register(app: Dash) -> None:
    """Put the callbacks of the view on an app; they draw into `diagnosis-tampering`."""
    app.callback(
        Output("diagnosis-tampering", "children"),
        Input(url_id("view"), "value"),
        State("_pages_location", "search"),
        State("selection", "data"),
    )(_frame)
    app.callback(Output("tampering-cards", "children"), Input("selection", "data"))(_cards)


def _frame(view: str | None, search: str | None, data: Mapping[str, str] | None) -> Any:
    """Controls of the view and the place for what it finds, when it is opened."""
    if view != "tampering":
        return dash.no_update
    query = {name: values[0] for name, values in parse_qs((search or "").lstrip("?")).items()}
    run_id = query.get("run") or (data or {}).get("run") or ""
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
    if run is None or comparison.two_splits(run) is None:
        return []
    found = []
    for name in context().catalogue.ids():
        try:
            other = context().catalogue.open(name)
        except (RunError, OSError):
            continue
        if name != selection.run_id and other.epochs and comparison.two_splits(other) and len(comparison.shared_classes(run, other)) >= FEW:
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
    label = int(text) if text.isdigit() and int(text) < len(run.classes) else int(found.order[0])
    return [
        _summary(selection, found),
        html.Div([_ranking(selection, found, label), _evidence(selection, found, label)], className="dv-tampering"),
        _reading(),
    ]


# -- verdict -----------------------------------------------------------------------------------------------------------


def _summary(selection: Selection, found: Findings) -> html.Div:
    run = selection.run
    assert run is not None
    suspects = found.suspects
    if suspects:
        names = " and ".join(f"“{run.classes[label]}”" for label in suspects[:3])
        more = f" and {len(suspects) - 3} more" if len(suspects) > 3 else ""
        several = len(suspects) > 1
        said: list[Any] = [html.B(f"{'Classes' if several else 'Class'} {names}{more} {'look' if several else 'looks'} tampered with: ")]
        said.append(_why(selection, found, suspects[0], f"those of “{run.classes[suspects[0]]}”" if several else "its training inputs"))
    else:
        label = int(found.order[0])
        said = [html.B("No class stands out"), f" among {len(run.classes)}. Nearest to a threshold is “{run.classes[label]}”, at "]
        said.append(f"{max(found.score[label], 0):.0%} of it.")
    splits = f"Training inputs: “{found.splits[0]}”; held out and taken to be clean: “{found.splits[1]}”. " if found.splits else ""
    return html.Div([html.P(said), html.P([splits, _missing(run, found)], className="dv-small")], className="dv-tampering-summary", role="status")


def _why(selection: Selection, found: Findings, label: int, who: str) -> str:
    """What the strongest test of a class says, in one sentence."""
    run, name = selection.run, found.strongest(label)
    assert run is not None and name is not None
    beyond = f"{_z(found.measured[name].z[label])} robust deviations beyond the typical class"
    if name in ("place", "others"):
        at = tests.place(run, selection.epoch, label, name == "place")
        assert at is not None
        what = "their held-out fellows" if name == "place" else "those of all other classes"
        return f"{who} differ from {what} at one place, the {_where(at)} of {at.item.layer} (most of all in unit {at.unit}), {beyond}."
    if name == "gap":
        return f"{who} lie apart from their held-out fellows over all units, {beyond}."
    if name == "spectral":
        return f"some of {who} lie apart from the others along one direction of {tests.hidden_layer(run)}, {beyond}."
    return f"{who} lie further apart from the held-out ones than in the other run, {beyond}."


def _where(at: Place) -> str:
    """The place in words, for a person to look there."""
    height, width = at.item.shape
    row = ("upper", "middle", "lower")[min(3 * at.row // height, 2)]
    column = ("left", "centre", "right")[min(3 * at.column // width, 2)]
    edge = {at.row * 8 < height, (height - 1 - at.row) * 8 < height}, {at.column * 8 < width, (width - 1 - at.column) * 8 < width}
    if True in edge[0] and True in edge[1]:
        return f"{row} {column} corner"
    return "middle" if (row, column) == ("middle", "centre") else f"{row} {column}"


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
        "Robust deviations from the typical class. Shaded: where most classes of any run lie (two deviations); the line: "
        "from here on a class stands out." + (f" {rest} classes that are less suspicious are not listed." if rest > 0 else "")
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
    value = measured.values[label]
    title = f"{test.title}: {number(float(value))}, typical {number(measured.median)} ± {number(measured.spread)}; {test.what}"
    return html.Span([html.Span(track, className="track"), html.Span(_z(z), className="value")], className="cell", title=title)


def _z(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


# -- evidence ----------------------------------------------------------------------------------------------------------


def _evidence(selection: Selection, found: Findings, label: int) -> html.Div:
    run = selection.run
    assert run is not None
    name = run.classes[label]
    held_out = "place" in found.measured
    at = tests.place(run, selection.epoch, label, held_out) if {"place", "others"} & set(found.measured) else None
    parts: list[Any] = [html.H2(f"Evidence about “{name}”", className="dv-title")]
    if at is not None:
        parts.append(_place_section(selection, found, label, at, held_out))
    parts += [*_image_sections(selection, found, label, at), *_units_section(selection, found, label), *_strange_section(selection, label)]
    return html.Div(parts, className="dv-tampering-evidence dv-card", id="tampering-evidence")


def _place_section(selection: Selection, found: Findings, label: int, at: Place, held_out: bool) -> html.Div:
    measured = found.measured["place" if held_out else "others"]
    usual = measured.median + TESTS[measured.test].threshold * measured.spread
    top, unit = float(np.abs(at.map).max()), "standard errors" if held_out else "standard deviations"
    height, width = at.item.shape
    against = "held-out ones" if held_out else "those of all other classes"
    said = (
        f"The training inputs differ from {against} most at the {_where(at)}: row {at.row}, column {at.column} of the {height} × {width} places of "
        f"{at.item.layer}, where unit {at.unit} gives {number(at.own)} instead of {number(at.other)}, {_z(top)} {unit} apart. "
        f"The typical class gives {number(measured.median)} at its own largest place."
    )
    picture = html.Div(
        [
            html.Img(src=_map(at, max(top, usual)), alt=f"Differences at every place of {at.item.layer}", className="dv-tampering-map"),
            html.Span(className="spot", style=_square(at)),
        ],
        className="dv-tampering-picture",
        title=f"The largest difference of any unit at each place: red more, blue less, strongest colour at {_z(max(top, usual))} {unit}",
    )
    shown = {"run": selection.run_id, "epoch": selection.epoch, "show": f"class:{label}"}
    link = page_link(f"Unit {at.unit} of {at.item.layer}", "/", **shown, layer=at.item.layer, unit=at.unit)
    legend = html.P(f"Red: more than in {against}, blue: less; strongest colour at {_z(max(top, usual))} {unit}.", className="dv-small")
    return section(
        "Where it differs", html.Div([picture, html.Div([html.P(said), legend, html.Div(link, className="mt-2")])], className="dv-tampering-body")
    )


def _square(at: Place) -> dict[str, str]:
    height, width = at.item.shape
    return {
        "left": f"{100 * at.column / width:.2f}%",
        "top": f"{100 * at.row / height:.2f}%",
        "width": f"{100 / width:.2f}%",
        "height": f"{100 / height:.2f}%",
    }


def _centre(at: Place) -> dict[str, str]:
    height, width = at.item.shape
    return {"left": f"{100 * (at.column + 0.5) / width:.2f}%", "top": f"{100 * (at.row + 0.5) / height:.2f}%"}


def _map(at: Place, strongest: float) -> str:
    """The map of differences as an image, one pixel a place: blue below zero and red above, the stronger the less transparent."""
    share = np.clip(at.map / strongest if strongest > 0 else np.zeros_like(at.map), -1, 1)
    pixels = np.empty((*share.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(share[:, :, None] < 0, np.array(_LOW), np.array(_HIGH))
    pixels[..., 3] = np.round(255 * np.abs(share))
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def _image_sections(selection: Selection, found: Findings, label: int, at: Place | None) -> list[Any]:
    """Images of the class from the training split beside held-out ones, with the place marked."""
    run = selection.run
    assert run is not None
    parts = []
    for name in found.splits or run.splits[:1]:
        members = np.flatnonzero((run.labels == label) & (run.input_splits == run.splits.index(name)))
        if len(members):
            shown = [_thumb(selection, int(i), at) for i in members[:IMAGES]]
            title = f"Images from “{name}”" + ("" if found.splits is None or name != found.splits[1] else ", held out")
            parts.append(section(title, html.Div(shown, className="dv-tampering-thumbs")))
    return parts


def _thumb(selection: Selection, index: int, at: Place | None = None, value: str = "") -> dcc.Link:
    # A ring around the place: a square on it would hide what it points at.
    ring = [] if at is None else [html.Span(className="ring", style=_centre(at))]
    picture = html.Img(src=image_url(selection, index, 96), alt="")
    return dcc.Link(
        [picture, *ring, *([html.Span(value, className="value")] if value else []), html.Span(f"Input {index}", className="visually-hidden")],
        href=dash.get_relative_path("/") + urlstate.query(run=selection.run_id, epoch=selection.epoch, show=f"input:{index}"),
        title=f"Input {index}: what it excites in every layer",
        className="dv-thumb",
    )


def _units_section(selection: Selection, found: Findings, label: int) -> list[Any]:
    """The gap over all units, its null by shuffling the splits, and the way to the comparison page."""
    run, measured = selection.run, found.measured.get("gap")
    if run is None or measured is None or found.splits is None or not np.isfinite(measured.values[label]):
        return []
    said = (
        f"Over all units, training and held-out inputs lie {number(float(measured.values[label]))} times as far apart as sampling alone would "
        f"put them; the typical class {number(measured.median)} times."
    )
    parts: list[Any] = [html.P(said)]
    null = tests.permuted_gap(run, selection.epoch, label)
    if null is not None:
        own, gaps = null
        p = (1 + int((gaps >= own).sum())) / (1 + len(gaps))
        parts.append(_histogram(own, gaps))
        parts.append(
            note(
                f"Among the inputs kept one by one the gap is {number(own)} (line). With their splits shuffled {len(gaps)} times it is "
                f"{number(float(gaps.mean()))} on average (bars), and as large in {100 * p:.1f} % of cases. "
                "A network that has learnt its training inputs by heart gives small shares for clean classes too: compare the classes."
            )
        )
    both = {"run": selection.run_id, "epoch": selection.epoch, "show": f"class:{label}", "split": found.splits[0]}
    address = {**both, **{f"{key}2": value for key, value in both.items()}, "split2": found.splits[1]}
    parts.append(html.Div(page_link(f"Compare its {found.splits[0]} and {found.splits[1]} inputs", "/compare", **address), className="mt-2"))
    return [section("Over all units", *parts)]


def _histogram(own: float, gaps: np.ndarray, bins: int = 40) -> html.Div:
    """The null as bars, and where the class lies."""
    high = max(own, float(gaps.max())) * 1.05 or 1.0
    counts, _ = np.histogram(gaps, bins=bins, range=(0, high))
    bars = [html.Span(className="bar", style={"height": f"{100 * count / max(counts.max(), 1):.0f}%"}) for count in counts]
    return html.Div([*bars, html.Span(className="own", style={"left": f"{100 * own / high:.1f}%"})], className="dv-tampering-null")


def _strange_section(selection: Selection, label: int) -> list[Any]:
    run = selection.run
    assert run is not None
    found = tests.signature_scores(run, selection.epoch, label)
    if found is None:
        return []
    inputs, scores = found
    typical = float(np.median(scores)) or 1.0
    shown = [_thumb(selection, int(i), value=f"{number(float(s / typical))}×") for i, s in zip(inputs[:STRANGEST], scores[:STRANGEST], strict=True)]
    text = (
        f"Training inputs that lie furthest along the direction of {tests.hidden_layer(run)} in which the class spreads most, "
        "in how many times the typical squared distance. Look for a patch, or for images of another class."
    )
    return [section("Its strangest training inputs", html.Div(shown, className="dv-tampering-thumbs"), note(text))]


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
                "patch and a new label, or with wrong labels. “Against other classes” needs no held-out inputs, but classes also differ by what "
                "they show. The thresholds were set so that clean runs are not flagged. A class that stands out calls for a look at its images: "
                "training images from another source than the held-out ones look the same. Held-out images are taken to be clean.",
                className="dv-note",
            ),
            html.P(
                [
                    "M. Alberti, V. Pondenkandath, M. Würsch et al., Are You Tampering With My Data?, ECCV workshops 2018. ",
                    "B. Tran, J. Li, A. Madry, Spectral Signatures in Backdoor Attacks, NeurIPS 2018; "
                    "whitened as in J. Hayase et al., SPECTRE, ICML 2021.",
                ],
                className="dv-small",
            ),
        ],
        className="dv-how dv-tampering-how",
        open=True,
    )
