"""The card of a unit, as every page shows it: images that excite it most, mean per class, course over the epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
from dash import dcc, html

from dnnviz.analysis.units import dead_units
from dnnviz.components.controls import note, page_link, section
from dnnviz.components.details import bars, number, percent, thumbnail, unit_bars
from dnnviz.figures.course import course
from dnnviz.store import Layer, Run
from dnnviz.theme import GRAPH_CONFIG
from dnnviz.urlstate import Selection

KIND_NAMES = {"conv": "Convolution", "linear": "Linear layer", "attention": "Attention", "block": "Block output"}
CLASS_ROWS = 12
EXPLAINED = 6  # inputs with which a unit is explained


def unit_card(selection: Selection, theme: str = "light", here: str = "/") -> list[Any]:
    """What is known of the unit that is chosen; of the layer where no unit is; an invitation where nothing is.

    here: path of the page that shows the card, to which it needs no link.
    """
    run = selection.run
    if run is None or selection.layer is None:
        return [
            html.H1("Details", className="dv-title"),
            note("Click a cell to see its unit here: the images that excite it most, its mean per class and its course over the epochs."),
        ]
    layer = run.layer(selection.layer)
    if selection.unit is None:
        return _layer_card(selection, run, layer)
    return _unit_card(selection, run, layer, selection.unit, theme, here)


def _unit_card(selection: Selection, run: Run, layer: Layer, unit: int, theme: str, here: str) -> list[Any]:
    active = float(run.active(selection.epoch, layer)[unit])
    life = "fires on every input" if active >= 1 else f"fires on {percent(active)} of inputs" if active > 0 else "never above zero"
    if dead_units(run.active(selection.epoch, layer), run.data_mean(selection.epoch, layer))[unit]:
        life = "dead: zero on every input"
    parts: list[Any] = [
        html.H1(f"{layer.name} · unit {unit}", className="dv-title"),
        note(f"{describe(layer)}, {life}."),
    ]
    parts.append(section("Images that excite it most", *_top_images(selection, run, layer, unit)))
    parts.append(section("Mean by class", _class_bars(selection, run, layer, unit)))
    if len(run.epochs) > 1:
        means = [float(run.data_mean(epoch, layer)[unit]) for epoch in run.epochs]
        shares = [float(run.active(epoch, layer)[unit]) for epoch in run.epochs]
        figure = course(run.epochs, means, shares, selection.epoch, theme)
        parts.append(section("Over the epochs", dcc.Graph(figure=figure, config=GRAPH_CONFIG, style={"height": "150px"})))
    links = {"/evolution": "Over the epochs", "/": "On the layers"} if len(run.epochs) > 1 else {"/": "On the layers"}
    common = {"run": selection.run_id, "epoch": selection.epoch, "layer": layer.name, "unit": unit}
    buttons = [page_link(text, path, **common) for path, text in links.items() if path != here]
    # Only inputs kept one by one can be explained, and those that excite the unit most need not be among them.
    strongest = np.argsort(-run.unit_activations(selection.epoch, layer, unit, "max"), kind="stable")[:EXPLAINED]
    target = {"target": f"unit:{layer.name}:{unit}", "by": "chosen", "inputs": ",".join(map(str, strongest))}
    buttons.append(page_link("Explain this unit", "/attribution", **common, **target))
    parts.append(html.Div(buttons, className="dv-actions"))
    return parts


def _layer_card(selection: Selection, run: Run, layer: Layer) -> list[Any]:
    active = run.active(selection.epoch, layer)
    mean = run.data_mean(selection.epoch, layer)
    dead = dead_units(active, mean)
    rows = [
        ("Units", str(layer.units)),
        ("Dead (always zero)", f"{int(dead.sum())}, {percent(float(dead.mean()))}"),
        ("Always fire", f"{int((active >= 1).sum())}, {percent(float((active >= 1).mean()))}"),
        ("Mean activation", number(float(mean.mean()))),
        ("Fires on, mean of units", percent(float(active.mean()))),
    ]
    strongest = np.argsort(-mean)[:10]
    common = {"run": selection.run_id, "epoch": selection.epoch, "layer": layer.name}
    return [
        html.H1(layer.name, className="dv-title"),
        note(f"{describe(layer)}. Click a cell for one of its units."),
        html.Table(
            html.Tbody([html.Tr([html.Td(a, className="dv-small pe-3"), html.Td(b, className="dv-num")]) for a, b in rows]), className="dv-list mt-3"
        ),
        section(
            "Strongest units, mean over the data set",
            unit_bars([(layer.name, int(u), float(mean[u]), number(float(mean[u]))) for u in strongest], names=False),
        ),
        html.Div(page_link("Explain this layer", "/attribution", **common, target=f"layer:{layer.name}"), className="dv-actions"),
    ]


def describe(layer: Layer) -> str:
    """Kind and output of a layer in words."""
    place = layer.place_shape
    if place is None:
        return f"{KIND_NAMES[layer.kind]}, {layer.units} units"
    form = f"{place[1]} tokens" if len(layer.shape) == 2 else f"{place[0]} × {place[1]} map"
    return f"{KIND_NAMES[layer.kind]}, {form}"


def _top_images(selection: Selection, run: Run, layer: Layer, unit: int) -> list[Any]:
    indices, values, places = run.top_ranking(selection.epoch, layer, unit)
    if not len(values) or values[0] <= 0:
        return [note("No input brings it above zero.")]
    thumbs = []
    for index, value, place in zip(indices, values, places, strict=True):
        if index < 0 or len(thumbs) == 9:
            continue
        mark = None
        if layer.place_shape is not None and len(layer.shape) == 3 and place >= 0:
            height, width = layer.place_shape
            mark = ((place % width + 0.5) / width, (place // width + 0.5) / height)
        thumbs.append(thumbnail(selection, int(index), number(float(value)), place=mark))
    hint = "Its largest value on each; the square marks where." if len(layer.shape) == 3 else "Its largest value on each."
    return [html.Div(thumbs, className="dv-thumbs"), html.P(hint, className="dv-small mt-1")]


def _class_bars(selection: Selection, run: Run, layer: Layer, unit: int) -> Any:
    means = run.class_mean(selection.epoch, layer)[:, unit]
    shown = np.arange(len(means)) if len(means) <= CLASS_ROWS else np.argsort(-np.nan_to_num(means, nan=-np.inf))[:CLASS_ROWS]
    best = int(np.nanargmax(means)) if np.isfinite(means).any() else -1
    return bars([(run.classes[int(i)], float(means[i]), number(float(means[i])), int(i) == best, f"class:{int(i)}") for i in shown])
