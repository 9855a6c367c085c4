"""What the pruning view draws: the table of layers, the proposal, the curve, the ablation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash
import numpy as np
from dash import dcc, html

from dnnviz import urlstate
from dnnviz.analysis.units import FAR, NEARLY_ALL, Units
from dnnviz.components.controls import note
from dnnviz.components.details import number, percent
from dnnviz.endpoints import context
from dnnviz.explain.plan import pace
from dnnviz.figures.pruning import Curve, pruning_chart
from dnnviz.pruning import keys
from dnnviz.pruning.keys import Proposal
from dnnviz.pruning.registry import CRITERIA
from dnnviz.pruning.saved import Costs, counted, saving
from dnnviz.store import Layer, Run
from dnnviz.theme import GRAPH_CONFIG
from dnnviz.urlstate import Selection

_LISTED = 16  # units of a layer that are named
_LAYERS = 40  # layers of a proposal that are named
_LOSS = 0.01  # accuracy given up, for which the table says how far each criterion comes
_CLASSES = 40  # classes of an ablation that are listed


def request(what: str, **params: Any) -> dict[str, Any]:
    """A request for the background job, without its nonce."""
    return {"kind": "pruning", "page": "/diagnosis", "params": {"what": what, **params}}


def alert(text: str) -> html.Div:
    return html.Div(text, className="alert alert-warning", role="alert")


def look_offer(asked: Mapping[str, Any]) -> html.Div:
    """What is there after the look at the network failed or was cancelled."""
    said = note("What the units cost is not known yet: the look at the network did not come to its end.")
    return html.Div([said, html.Div(_button("Look at the network", asked, "soft"), className="dv-actions")])


def _button(text: str, asked: Mapping[str, Any], kind: str = "primary") -> html.Button:
    return html.Button(text, className=f"dv-btn {kind}", type="button", **{"data-pruning-request": json.dumps(asked)})


# -- the table of layers ---------------------------------------------------------------------------------------------

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


def layers_table(selection: Selection, run: Run, said: Units, costs: Costs | None) -> list[Any]:
    """A row a layer, with bars; numbers of units lead to the first of them on the layers page."""
    own = None if costs is None else costs.own_parameters()
    pieces = [f"{_count(int(said.dead.sum()), 'dead unit')}, {int(said.redundant.sum()):,} that follow another one closely"]
    pieces.append(f", of {run.units:,} in {_count(len(run.layers), 'layer')}. Correlations and ranks are over {_count(said.inputs, 'input')} kept.")
    rows = []
    for i, layer in enumerate(run.layers):
        block = layer.kind == "block"
        cells: list[Any] = [
            html.Th(dcc.Link(layer.name, href=_layer_link(selection, layer), title=layer.name), scope="row"),
            html.Td(f"{layer.units:,}", className="dv-num"),
            *[_cell(selection, layer, flags) for flags in (said.dead, said.saturated, said.hyperactive, said.redundant)],
            _bar(said.effective_rank[i] / max(said.full_rank[i], 1), f"{number(float(said.effective_rank[i]))} of {said.full_rank[i]}"),
            _bar(float(said.gini[i]), f"{said.gini[i]:.2f}"),
            html.Td("…", className="dv-small")
            if own is None or costs is None
            else html.Td("block", className="dv-small", title="What its layers make together; it has no units of its own to remove")
            if block
            else _bar(own[i] / max(costs.parameters, 1), percent(own[i] / max(costs.parameters, 1))),
        ]
        rows.append(html.Tr(cells, className="block" if block else ""))
    head = html.Thead(html.Tr([html.Th(text, title=title, scope="col") for text, title in _HEADS]))
    return [
        note("".join(pieces)),
        html.Div(html.Table([head, html.Tbody(rows)], className="dv-pruning-table"), className="dv-pruning-scroll", tabIndex=0),
    ]


def _cell(selection: Selection, layer: Layer, flags: np.ndarray) -> html.Td:
    """How many units of a layer have a property; the number leads to the first of them."""
    numbers = np.flatnonzero(flags[layer.columns])
    if not len(numbers):
        return html.Td("", className="dv-num")
    named = ", ".join(map(str, numbers[:_LISTED])) + (" …" if len(numbers) > _LISTED else "")
    share = len(numbers) / layer.units
    link = dcc.Link(f"{len(numbers):,}", href=_unit_link(selection, layer, int(numbers[0])), title=f"{layer.name}, units {named}")
    return html.Td([link, html.Div(className="bar", style={"width": f"{100 * share:.0f}%"})], className="dv-num counted")


def _bar(share: float, text: str) -> html.Td:
    return html.Td([html.Span(text), html.Div(className="bar", style={"width": f"{100 * min(max(share, 0), 1):.0f}%"})], className="dv-num barred")


def _layer_link(selection: Selection, layer: Layer) -> str:
    return dash.get_relative_path("/") + urlstate.query(run=selection.run_id, epoch=selection.epoch, layer=layer.name)


def _unit_link(selection: Selection, layer: Layer, unit: int) -> str:
    return dash.get_relative_path("/") + urlstate.query(run=selection.run_id, epoch=selection.epoch, layer=layer.name, unit=unit)


# -- the proposal ----------------------------------------------------------------------------------------------------


def proposal_card(selection: Selection, run: Run, want: Proposal, costs: Costs, removed: np.ndarray, files: Mapping[str, str]) -> list[Any]:
    """Which units a proposal removes and what that saves, with what can be taken away.

    files: kind of export → key, of those that are made already.
    """
    prunable = int(keys.allowed(run, costs).sum())
    what = keys.WHICH.get(want.which) or f"The {want.share} % of units that are least by {CRITERIA[want.which].title.lower()}"
    if not len(removed):
        return [html.P([html.B(f"{what}: there are none"), f" among the {prunable:,} units that can be removed."])]
    saved = saving(costs, counted(costs, [layer.offset for layer in run.layers], removed))
    groups = keys.by_layer(run, removed)
    listed = list(groups.items())[:_LAYERS]
    rows = []
    for name, numbers in listed:
        layer = run.layer(name)
        links: list[Any] = []
        for unit in numbers[:_LISTED]:
            links += [dcc.Link(str(unit), href=_unit_link(selection, layer, int(unit))), " "]
        rest = len(numbers) - _LISTED
        more = [html.Span(f"and {rest:,} more", className="dv-small")] if rest > 0 else []
        rows.append(
            html.Tr(
                [html.Th(name, scope="row", title=name), html.Td(f"{len(numbers)} of {layer.units}", className="dv-num"), html.Td([*links, *more])]
            )
        )
    rest = len(groups) - len(listed)
    closed = [cost.name for cost in costs.layers if cost.name in groups and not cost.cut]
    said = [
        html.B(f"{what}: {len(removed):,} of {prunable:,} units"),
        f" that can be removed. This saves {saved.parameters:,} parameters ({_share(saved.parameter_share)}) and "
        f"{_large(saved.macs)} multiply-adds an input ({_share(saved.mac_share)}).",
    ]
    hint = (
        [note(f"In {_count(len(closed), 'layer')} only the units' own weights count: values are added to others' there, so later weights stay.")]
        if closed
        else []
    )
    return [
        html.P(said),
        *hint,
        html.Details(
            [
                html.Summary(f"The units, in {_count(len(groups), 'layer')}"),
                html.Table(html.Tbody(rows), className="dv-pruning-units"),
                *([note(f"{rest} more layers are in the list as a file.")] if rest > 0 else []),
            ],
            open=len(removed) <= 60,
        ),
        html.Div(
            [
                _file("List as CSV", selection, want, "units.csv"),
                _file("List as JSON", selection, want, "units.json"),
                _file("Save the weights with zeros", selection, want, "weights.pt", kind="masked")
                if "masked" in files
                else _button("Make weights with zeros", _export(selection, want, "masked"), "soft"),
                _file("Save the smaller network", selection, want, "weights.pt", kind="sliced")
                if "sliced" in files
                else _button("Make a smaller network", _export(selection, want, "sliced"), "soft"),
            ],
            className="dv-actions",
        ),
        *_told(files),
    ]


def _told(files: Mapping[str, str]) -> list[Any]:
    """What was made of the exports: size, and how closely they do what was measured."""
    found = []
    for kind, key in files.items():
        array = context().results.peek(key, "about")
        if array is None:
            continue
        about = keys.unpacked(array)
        same = about["difference"] < 1e-6
        close = (
            "it gives the logits that were measured"
            if same
            else f"its logits differ from those measured by {number(about['difference'])} of the largest"
        )
        if kind == "masked":
            found.append(f"Weights with zeros: a state_dict that loads into the original architecture; {close}.")
        else:
            stayed = f" {_count(about['stayed'], 'unit')} had to stay, as zeros, where values are added." if about["stayed"] else ""
            found.append(
                f"The smaller network has {about['parameters']:,} parameters; {close}.{stayed} "
                "It loads with dnnviz.pruning.export.load_sliced(network, state)."
            )
    return [note(text) for text in found]


def _export(selection: Selection, want: Proposal, kind: str) -> dict[str, Any]:
    return request("export", run=selection.run_id, epoch=selection.epoch, proposal=want.as_params(), kind=kind)


def _file(text: str, selection: Selection, want: Proposal, name: str, **more: str) -> html.A:
    address = dash.get_relative_path(f"/pruning-data/{selection.run_id}/{name}")
    return html.A(text, href=address + urlstate.query(epoch=selection.epoch, **want.as_params(), **more), className="dv-btn soft", download="")


# -- the curve -------------------------------------------------------------------------------------------------------


def verify_offer(run: Run, epoch: int, names: Sequence[str], inputs: int, asked: Mapping[str, Any], cancelled: bool) -> html.Div:
    """What would be measured, and what it costs."""
    sets = sum((keys.SEEDS if CRITERIA[name].drawn else 1) * len(keys.SHARES) for name in names) + 2
    seconds = pace(context().results, run, epoch)
    time = "" if seconds is None else f", {_duration(seconds * inputs * sets)}"
    text = (
        f"Removes the proposal, and up to {keys.SHARES[-1]:.0%} of all units by {_count(len(names), 'criterion', 'criteria')}, counts how many of "
        f"{_count(inputs, 'input')} kept are still classified right: {sets} networks{time}."
    )
    return html.Div([note(("Cancelled. " if cancelled else "") + text), html.Div(_button("Verify", asked), className="dv-actions")])


def curve_card(arrays: Mapping[str, np.ndarray], costs: Costs | None, theme: str) -> list[Any]:
    """The chart of a verification, in words, and how far each criterion comes."""
    about = keys.unpacked(arrays["about"])
    counts, before, done = arrays["counts"], about["before"], about["proposed"]
    parameters, macs = (costs.parameters, costs.macs) if costs else (0, 0)
    curves, rows = [], []
    for i, name in enumerate(about["criteria"]):
        criterion = CRITERIA[name]
        accuracy = arrays["accuracy"][i]
        shares = arrays["parameters"][i] / max(parameters, 1), arrays["macs"][i] / max(macs, 1)
        notes = [f"{percent(float(p))} of the parameters" for p in shares[0]]
        band = (arrays["low"][i], arrays["high"][i]) if criterion.drawn else (None, None)
        curves.append(Curve(criterion.title, accuracy, notes, *band))
        far = _reach(accuracy, before)
        rows.append(
            html.Tr(
                [
                    html.Th(criterion.title, scope="row", title=f"{criterion.summary} {criterion.citation}"),
                    html.Td(f"{int(counts[far]):,}" if far else "none", className="dv-num"),
                    html.Td(percent(float(shares[0][far])), className="dv-num"),
                    html.Td(percent(float(shares[1][far])), className="dv-num"),
                ]
            )
        )
    figure = pruning_chart(counts, about["prunable"], curves, (done["units"], done["accuracy"]), theme)
    parted = ", ".join(f"{count:,} of {name}" for name, count in about["splits"].items())
    given = f" ({parted})" if len(about["splits"]) > 1 else ""
    change = done["accuracy"] - before
    words = "changes no prediction" if done["agreement"] == 1 else f"changes {percent(1 - done['agreement'])} of the predictions"
    said: list[Any] = [
        html.B(f"Removing the proposal's {_count(done['units'], 'unit')} {words}" if done["units"] else "The proposal removes no unit"),
        f": accuracy {before:.1%} before, {done['accuracy']:.1%} after ({_points(change)}), on {_count(about['inputs'], 'input')} kept{given}.",
    ]
    head = html.Thead(html.Tr([html.Th(text, scope="col") for text in ("Criterion", "Units", "Parameters", "Multiply-adds")]))
    return [
        html.P(said, role="status"),
        html.Div(
            [
                dcc.Graph(id="pruning-graph", figure=figure, config=GRAPH_CONFIG, style={"height": "330px"}),
                html.Div(
                    [
                        note(f"Most that was removed for at most {_LOSS:.0%} of accuracy, without training again:"),
                        html.Table([head, html.Tbody(rows)], className="dv-pruning-reach"),
                        note("The control draws the units; the band is the range over three draws.") if "random" in about["criteria"] else None,
                    ]
                ),
            ],
            className="dv-pruning-curve",
        ),
    ]


def _reach(accuracy: np.ndarray, before: float) -> int:
    """The last of the points up to which accuracy stays within _LOSS of the one before."""
    lost = np.flatnonzero(accuracy < before - _LOSS - 1e-9)
    return int(lost[0]) - 1 if len(lost) else len(accuracy) - 1


# -- the ablation ----------------------------------------------------------------------------------------------------


def ablation_offer(chosen: Mapping[str, np.ndarray], to: str, asked: Mapping[str, Any]) -> html.Div:
    """Which units would be set to what."""
    total = sum(len(numbers) for numbers in chosen.values())
    named = keys.units_text(chosen)
    text = f"{_count(total, 'unit')} set to {to}: {named[:160]}{' …' if len(named) > 160 else ''}."
    return html.Div([note(text), html.Div(_button("Switch off", asked), className="dv-actions")])


def ablation_card(selection: Selection, run: Run, arrays: Mapping[str, np.ndarray]) -> list[Any]:
    """Accuracy of every class before and after, those that changed most first."""
    about, labels = keys.unpacked(arrays["about"]), run.labels[arrays["inputs"]]
    before, after = arrays["before"], arrays["after"]
    total = sum(len(numbers) for numbers in about["units"].values())
    first, last = (before == labels).mean(), (after == labels).mean()
    changed = int((before != after).sum())
    rows = []
    for label in np.unique(labels):
        own = labels == label
        right = float((before[own] == label).mean()), float((after[own] == label).mean())
        wrong = after[own & (before != after) & (after != label)]
        best = int(np.bincount(wrong).argmax()) if len(wrong) else -1
        taken = "" if best < 0 else f"{run.classes[best] if best < len(run.classes) else f'class {best}'} ({int((wrong == best).sum())})"
        rows.append((right[1] - right[0], run.classes[int(label)], int(own.sum()), *right, taken))
    rows.sort(key=lambda row: (row[0], row[1]))
    # Where there are many classes, those that changed most in either direction.
    shown = sorted(sorted(rows, key=lambda row: -abs(row[0]))[:_CLASSES], key=lambda row: (row[0], row[1]))
    rest = len(rows) - len(shown)
    body = [
        html.Tr(
            [
                html.Th(name, scope="row", title=name),
                html.Td(f"{count:,}", className="dv-num"),
                html.Td(f"{old:.0%}", className="dv-num"),
                html.Td(f"{new:.0%}", className="dv-num"),
                html.Td(_points(change) if change else "", className="dv-num"),
                html.Td(
                    html.Div(className="bar low" if change < 0 else "bar high", style={"width": f"{50 * abs(change):.1f}%"}) if change else "",
                    className="signed",
                ),
                html.Td(taken, className="dv-small"),
            ]
        )
        for change, name, count, old, new, taken in shown
    ]
    heads = ("Class", "Inputs", "Before", "After", "Change", "", "Now taken for")
    said: list[Any] = [
        html.B(f"{_count(total, 'unit')} set to {keys.EDITS[about['to']]} {'changes' if total == 1 else 'change'} {_count(changed, 'prediction')}"),
        f" of {len(labels):,}: accuracy {first:.1%} before, {last:.1%} after ({_points(float(last - first))}).",
    ]
    again = "" if about["exact"] else " The whole network was run again."
    return [
        html.P(said, role="status"),
        html.Table([html.Thead(html.Tr([html.Th(text, scope="col") for text in heads])), html.Tbody(body)], className="dv-pruning-classes"),
        note(
            f"Of the inputs kept; the class that lost most stands first{f', {rest} classes that changed less are left out' if rest else ''}.{again}"
        ),
    ]


def _points(change: float) -> str:
    """A change of a share in percentage points."""
    text = f"{100 * change:+.1f}".replace("-", "−")
    return f"{'±0' if text in ('+0.0', '−0.0') else text} points"


def _share(value: float) -> str:
    return "under 0.1 %" if 0 < value < 0.001 else percent(value)


def _large(value: int) -> str:
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if value >= size:
            return f"{value / size:.{1 if value >= 10 * size else 2}f} {name}"
    return f"{value:,}"


def _count(value: int, noun: str, plural: str | None = None) -> str:
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def _duration(seconds: float) -> str:
    if seconds < 2:
        return "about a second"
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
