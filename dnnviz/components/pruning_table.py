"""The table of the pruning view: what is said of the units of every layer, now and over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import dash
import numpy as np
from dash import dcc, html

from dnnviz import urlstate
from dnnviz.analysis.units import FAR, FIGURES, NEARLY_ALL, Units
from dnnviz.components.controls import note
from dnnviz.components.details import number, percent
from dnnviz.components.pruning_parts import LISTED, button, count, unit_link
from dnnviz.pruning.saved import Costs
from dnnviz.store import Layer, Run
from dnnviz.urlstate import Selection

_HEADS = (
    ("Layer", "Its value is taken after normalisation and activation function"),
    ("Units", ""),
    ("Dead", "Zero on every input and position"),
    ("Always fire", "Saturated: above zero on every input; of a convolution, somewhere on every input"),
    ("Hyperactive", f"Fire on at least {NEARLY_ALL:.0%} of the inputs with a mean {FAR:g} robust deviations above the layer's units"),
    ("Alike", "Redundant: units that follow another unit of the layer, over the inputs kept"),
    ("Effective rank", "How many directions the layer's activations fill, of those that they could (Roy and Vetterli 2007)"),
    ("Gini", "Concentration of the mean activation: 0 where all units are equally active, near 1 where a few do everything"),
    ("Parameters", "Share of the network's parameters"),
)
_LEAST = 0.1  # share of units that fills a line's height at least, so that one unit is no mountain


def layers_table(
    selection: Selection, run: Run, said: Units, costs: Costs | None, course: np.ndarray | None, asked: Mapping[str, Any] | None
) -> list[Any]:
    """A row a layer; numbers of units lead to the first of them on the layers page.

    course: float [E, len(FIGURES), L] over the run's epochs, drawn as a line in each cell; None: bars of what holds now. asked: the
    request that would compute it, where it is not there yet.
    """
    own = None if costs is None else costs.own_parameters()
    said_all = (
        f"{count(int(said.dead.sum()), 'dead unit')}, {int(said.redundant.sum()):,} that follow another one closely, of {run.units:,} in "
        f"{count(len(run.layers), 'layer')}. Correlations and ranks are over {count(said.inputs, 'input')} kept."
    )
    if course is not None:
        said_all += f" Lines go from epoch {run.epochs[0]} to {run.epochs[-1]}; the dot is epoch {selection.epoch}."
    lines = _Lines(run, selection.epoch, course)
    rows = []
    for i, layer in enumerate(run.layers):
        block = layer.kind == "block"
        rank = said.effective_rank[i] / max(said.full_rank[i], 1)
        cells: list[Any] = [
            html.Th(dcc.Link(layer.name, href=_layer_link(selection, layer), title=layer.name), scope="row"),
            html.Td(f"{layer.units:,}", className="dv-num"),
            *[_cell(selection, layer, getattr(said, name), lines.of(name, i)) for name in FIGURES[:4]],
            _barred(rank, f"{number(float(said.effective_rank[i]))} of {said.full_rank[i]}", lines.of("effective_rank", i)),
            _barred(float(said.gini[i]), f"{said.gini[i]:.2f}", lines.of("gini", i)),
            html.Td("…", className="dv-small")
            if own is None or costs is None
            else html.Td("block", className="dv-small", title="What its layers make together; it has no units of its own to remove")
            if block
            else _barred(own[i] / max(costs.parameters, 1), percent(own[i] / max(costs.parameters, 1)), None),
        ]
        rows.append(html.Tr(cells, className="block" if block else ""))
    head = html.Thead(html.Tr([html.Th(text, title=title, scope="col") for text, title in _HEADS]))
    table = html.Table([head, html.Tbody(rows)], className="dv-pruning-table")
    more = [html.Div(button(f"Follow them over the {len(run.epochs)} epochs", asked, "soft"), className="dv-actions")] if asked else []
    return [note(said_all), html.Div(table, className="dv-pruning-scroll", tabIndex=0), *more]


class _Lines:
    """The lines of a table: each figure on one scale for all layers."""

    def __init__(self, run: Run, epoch: int, course: np.ndarray | None) -> None:
        self.epochs, self.at, self.course = run.epochs, run.epochs.index(epoch), course

    def of(self, name: str, layer: int) -> html.Div | None:
        if self.course is None:
            return None
        column = self.course[:, FIGURES.index(name)]
        own = column[:, layer]
        if not own.any():
            return None
        heights = own / max(float(column.max()), _LEAST)
        across = np.linspace(0, 100, len(own))
        points = " ".join(f"{x:.1f},{19 - 18 * y:.1f}" for x, y in zip(across, heights, strict=True))
        drawing = (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 20" preserveAspectRatio="none"><polyline fill="none" stroke="#000" '
            f'stroke-width="1.5" vector-effect="non-scaling-stroke" points="{points}"/></svg>'
        )
        low, high = int(own.argmin()), int(own.argmax())
        told = f"{own[low]:.0%} at epoch {self.epochs[low]} to {own[high]:.0%} at epoch {self.epochs[high]}"
        dot = {"left": f"{across[self.at]:.1f}%", "top": f"{100 * (19 - 18 * heights[self.at]) / 20:.1f}%"}
        # The line is a mask over the colour of the theme.
        line = html.Div(className="line", style={"maskImage": f'url("data:image/svg+xml,{quote(drawing)}")'})
        return html.Div([line, html.I(style=dot)], className="course", title=told, **{"data-points": points})


def _cell(selection: Selection, layer: Layer, flags: np.ndarray, line: html.Div | None) -> html.Td:
    """How many units of a layer have a property; the number leads to the first of them."""
    numbers = np.flatnonzero(flags[layer.columns])
    if not len(numbers):
        return html.Td([html.Span("0", className="dv-small"), line] if line else "", className="dv-num counted")
    named = ", ".join(map(str, numbers[:LISTED])) + (" …" if len(numbers) > LISTED else "")
    link = dcc.Link(f"{len(numbers):,}", href=unit_link(selection, layer, int(numbers[0])), title=f"{layer.name}, units {named}")
    return html.Td([link, line or _bar(len(numbers) / layer.units)], className="dv-num counted")


def _barred(share: float, text: str, line: html.Div | None) -> html.Td:
    return html.Td([html.Span(text), line or _bar(share)], className="dv-num barred")


def _bar(share: float) -> html.Div:
    return html.Div(className="bar", style={"width": f"{100 * min(max(share, 0), 1):.0f}%"})


def _layer_link(selection: Selection, layer: Layer) -> str:
    return dash.get_relative_path("/") + urlstate.query(run=selection.run_id, epoch=selection.epoch, layer=layer.name)
