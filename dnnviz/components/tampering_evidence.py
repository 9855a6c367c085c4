"""The view “Tampering” of the diagnosis page, its right half: the evidence about one class."""

from __future__ import annotations

import base64
from typing import Any

import dash
import numpy as np
from dash import dcc, html

from dnnviz import urlstate
from dnnviz.analysis import tampering as tests
from dnnviz.analysis.labels import NEAREST
from dnnviz.analysis.tampering import TESTS, Findings, Place
from dnnviz.components.controls import note, page_link, section
from dnnviz.components.details import image_url, number, percent
from dnnviz.explain.picture import png
from dnnviz.store import Run
from dnnviz.urlstate import Selection

IMAGES = 12  # of a class, from either split
STRANGEST = 8
STRAYS = 16
_LOW, _HIGH = (46, 118, 190), (208, 40, 54)  # seen on a light and on a dark ground


def evidence_view(selection: Selection, found: Findings, label: int) -> html.Div:
    run = selection.run
    assert run is not None
    name = run.classes[label]
    held_out = "place" in found.measured
    at = tests.place(run, selection.epoch, label, held_out) if {"place", "others"} & set(found.measured) else None
    place = "place" if held_out else "others"
    rings = at if _share(found, place, label) > 1 else None
    where_it_differs = [] if at is None else [_place_section(selection, found, label, at, held_out)]
    parts = {
        place: [*where_it_differs, *_image_sections(selection, found, label, rings)],
        "gap": _units_section(selection, found, label),
        "labels": _strays_section(selection, found, label),
        "spectral": _strange_section(selection, label),
    }
    # What speaks loudest comes first; tests in which the class is like the others keep their order.
    order = sorted(parts, key=lambda test: -max(_share(found, test, label), 1))
    shown = [part for test in order for part in parts[test]]
    return html.Div(
        [html.H2(f"Evidence about “{name}”", className="dv-title"), *shown], className="dv-tampering-evidence dv-card", id="tampering-evidence"
    )


def _share(found: Findings, test: str, label: int) -> float:
    """How far a class is on the way to the threshold of a test; 0 where that could not be measured."""
    return float(np.nan_to_num(found.measured[test].share[label])) if test in found.measured else 0.0


def _place_section(selection: Selection, found: Findings, label: int, at: Place, held_out: bool) -> html.Div:
    measured = found.measured["place" if held_out else "others"]
    usual = measured.median + TESTS[measured.test].threshold * measured.spread
    top, unit = float(np.abs(at.map).max()), "standard errors" if held_out else "standard deviations"
    height, width = at.item.shape
    against = "held-out ones" if held_out else "those of all other classes"
    said = (
        f"The training inputs differ from {against} most at the {where(at)}: row {at.row}, column {at.column} of the {height} × {width} places of "
        f"{at.item.layer}, where unit {at.unit} gives {number(at.own)} instead of {number(at.other)}, {deviations(top)} {unit} apart. "
        f"The typical class gives {number(measured.median)} at its own largest place."
    )
    picture = html.Div(
        [
            html.Img(src=_map(at, max(top, usual)), alt=f"Differences at every place of {at.item.layer}", className="dv-tampering-map"),
            html.Span(className="spot", style=_square(at)),
        ],
        className="dv-tampering-picture",
        title=f"The largest difference of any unit at each place: red more, blue less, strongest colour at {deviations(max(top, usual))} {unit}",
    )
    shown = {"run": selection.run_id, "epoch": selection.epoch, "show": f"class:{label}"}
    link = page_link(f"Unit {at.unit} of {at.item.layer}", "/", **shown, layer=at.item.layer, unit=at.unit)
    legend = html.P(f"Red: more than in {against}, blue: less; strongest colour at {deviations(max(top, usual))} {unit}.", className="dv-small")
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
            parts.append(section(title, _thumbs(shown)))
    return parts


def _thumbs(shown: list[Any]) -> html.Div:
    return html.Div(shown, className="dv-tampering-thumbs")


def _thumb(selection: Selection, index: int, at: Place | None = None) -> dcc.Link:
    """An image of a class, with a ring around a place; leads to what the input excites."""
    # A ring around the place: a square on it would hide what it points at.
    ring = [] if at is None else [html.Span(className="ring", style=_centre(at))]
    address = dash.get_relative_path("/") + urlstate.query(run=selection.run_id, epoch=selection.epoch, show=f"input:{index}")
    return _linked(selection, index, ring, address, "what it excites in every layer")


def _suspicious(selection: Selection, index: int, value: str) -> dcc.Link:
    """An image that stands apart, with how far; leads to what its score depends on."""
    address = dash.get_relative_path("/attribution") + _explained(selection, [index])
    return _linked(selection, index, [html.Span(value, className="value")], address, "what its score depends on")


def _linked(selection: Selection, index: int, marks: list[Any], address: str, what: str) -> dcc.Link:
    picture = html.Img(src=image_url(selection, index, 96), alt="")
    words = html.Span(f"Input {index}", className="visually-hidden")
    return dcc.Link([picture, *marks, words], href=address, title=f"Input {index}: {what}", className="dv-thumb")


def _explained(selection: Selection, inputs: list[int]) -> str:
    """The query with which the attribution page explains inputs for the class of their label."""
    return urlstate.query(run=selection.run_id, epoch=selection.epoch, by="chosen", inputs=",".join(map(str, inputs)), target="true")


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


def _strays_section(selection: Selection, found: Findings, label: int) -> list[Any]:
    """Training inputs that lie among another class, as wrong labels do, and the way to what the network sees in them."""
    run = selection.run
    inputs = [] if run is None or "labels" not in found.measured else tests.stray_inputs(run, selection.epoch, label).tolist()
    known = tests.strays(run, selection.epoch) if run is not None and inputs else None
    if run is None or known is None:
        return []
    other = run.classes[known.other[label]]
    shown = [_suspicious(selection, i, percent(float(known.share[i]))) for i in inputs[:STRAYS]]
    layer = tests.hidden_layer(run)
    address = dash.get_relative_path("/attribution") + _explained(selection, inputs[:STRAYS])
    link = dcc.Link("What their scores depend on", href=address, className="dv-btn soft")
    text = f"{strays_text(run, selection.epoch, label)}."
    rest = f" {len(inputs) - STRAYS} more are not shown." if len(inputs) > STRAYS else ""
    hint = (
        f"On each image: the share of “{other}” among the {NEAREST} held-out inputs that are nearest to it in {layer}. Where the image shows "
        f"“{other}”, its label is wrong.{rest}"
    )
    return [section(f"Training inputs that look like “{other}”", html.P(text), _thumbs(shown), note(hint), html.Div(link, className="mt-2"))]


def _strange_section(selection: Selection, label: int) -> list[Any]:
    run = selection.run
    assert run is not None
    found = tests.signature_scores(run, selection.epoch, label)
    if found is None:
        return []
    inputs, scores = found
    typical = float(np.median(scores)) or 1.0
    far = [(int(i), float(s / typical)) for i, s in zip(inputs[:STRANGEST], scores[:STRANGEST], strict=True) if s > typical]
    shown = [_suspicious(selection, i, f"{times:.1f}×") for i, times in far]
    text = (
        f"Training inputs that lie furthest along the direction of {tests.hidden_layer(run)} in which the class spreads most, "
        "in how many times the typical squared distance. Look for a patch, or for images of another class."
    )
    return [section("Its strangest training inputs", _thumbs(shown), note(text))]


# -- in words ----------------------------------------------------------------------------------------------------------


def strays_text(run: Run, epoch: int, label: int, whose: str = "") -> str:
    """How many training inputs of a class lie among those of another one, and how often chance gives as much."""
    found = tests.strays(run, epoch)
    assert found is not None
    other = run.classes[found.other[label]]
    p = float(found.chance[label])
    often = "in less than one run of a thousand" if p < 0.001 else f"in {percent(p)} of runs"
    return (
        f"{found.strays[label]} of {found.training[label]} training inputs{whose} lie among the held-out inputs of “{other}”, "
        f"as {found.strays_held[label]} of {found.held[label]} held-out ones do; chance gives as much in some class {often}"
    )


def where(at: Place) -> str:
    """The place in words, for a person to look there."""
    height, width = at.item.shape
    row = ("upper", "middle", "lower")[min(3 * at.row // height, 2)]
    column = ("left", "centre", "right")[min(3 * at.column // width, 2)]
    edge = {at.row * 8 < height, (height - 1 - at.row) * 8 < height}, {at.column * 8 < width, (width - 1 - at.column) * 8 < width}
    if True in edge[0] and True in edge[1]:
        return f"{row} {column} corner"
    return "middle" if (row, column) == ("middle", "centre") else f"{row} {column}"


def deviations(value: float) -> str:
    """A number of deviations: one digit, none where it is large."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")
