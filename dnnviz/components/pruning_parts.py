"""What the pruning view draws: the table of layers, the proposal, the curve, the ablation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash
import numpy as np
from dash import dcc, html

from dnnviz import urlstate
from dnnviz.analysis.units import dead_units
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

LISTED = 16  # units of a layer that are named
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
    return html.Div([said, html.Div(button("Look at the network", asked, "soft"), className="dv-actions")])


def button(text: str, asked: Mapping[str, Any], kind: str = "primary") -> html.Button:
    return html.Button(text, className=f"dv-btn {kind}", type="button", **{"data-pruning-request": json.dumps(asked)})


def unit_link(selection: Selection, layer: Layer, unit: int) -> str:
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
        for unit in numbers[:LISTED]:
            links += [dcc.Link(str(unit), href=unit_link(selection, layer, int(unit))), " "]
        rest = len(numbers) - LISTED
        more = [html.Span(f"and {rest:,} more", className="dv-small")] if rest > 0 else []
        rows.append(
            html.Tr(
                [html.Th(name, scope="row", title=name), html.Td(f"{len(numbers)} of {layer.units}", className="dv-num"), html.Td([*links, *more])]
            )
        )
    rest = len(groups) - len(listed)
    said = [
        html.B(f"{what}: {len(removed):,} of {prunable:,} units"),
        f" that can be removed. This saves {saved.parameters:,} parameters ({_share(saved.parameter_share)}) and "
        f"{_large(saved.macs)} multiply-adds an input ({_share(saved.mac_share)}).",
    ]
    alive = ~dead_units(run.active(selection.epoch), run.data_mean(selection.epoch))
    hints = _hints(want, costs, groups, {name: int(alive[run.layer(name).columns][numbers].sum()) for name, numbers in groups.items()})
    return [
        html.P(said),
        *hints,
        html.Details(
            [
                html.Summary(f"The units, in {count(len(groups), 'layer')}"),
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
                else button("Make weights with zeros", _export(selection, want, "masked"), "soft"),
                _file("Save the smaller network", selection, want, "weights.pt", kind="sliced")
                if "sliced" in files
                else button("Make a smaller network", _export(selection, want, "sliced"), "soft"),
            ],
            className="dv-actions",
        ),
        *_told(files),
    ]


def _hints(want: Proposal, costs: Costs, groups: Mapping[str, np.ndarray], alive: Mapping[str, int]) -> list[Any]:
    """What happens to later layers, where it is not the plain case. groups: {layer: units removed}; alive: how many of them are not dead."""
    closed = [cost.name for cost in costs.layers if cost.name in groups and not cost.cut]
    given = sum(alive[cost.name] for cost in costs.layers if cost.name in groups and cost.merges)
    found = []
    if want.which in keys.MERGED and given:
        found.append(
            f"{count(given, 'unit')} of these {'is' if given == 1 else 'are'} merged: later layers take what they took from a removed unit from the "
            "one that it follows, with weights fitted on the inputs kept."
        )
    if closed:
        found.append(
            f"In {count(len(closed), 'layer')} only the units' own weights are saved: the values are added to others', normalised anew, or "
            "consumed in a way that is not known, so what comes later keeps its shape."
        )
    return [note(text) for text in found]


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
            stayed = f" {count(about['stayed'], 'unit')} had to stay, as zeros: what comes later needs their places." if about["stayed"] else ""
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
        f"Removes the proposal, and up to {keys.SHARES[-1]:.0%} of all units by {count(len(names), 'criterion', 'criteria')}, counts how many of "
        f"{count(inputs, 'input')} kept are still classified right: {sets} networks{time}."
    )
    return html.Div([note(("Cancelled. " if cancelled else "") + text), html.Div(button("Verify", asked), className="dv-actions")])


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
        html.B(f"Removing the proposal's {count(done['units'], 'unit')} {words}" if done["units"] else "The proposal removes no unit"),
        f": accuracy {before:.1%} before, {done['accuracy']:.1%} after ({_points(change)}), on {count(about['inputs'], 'input')} kept{given}.",
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
    text = f"{count(total, 'unit')} set to {to}: {named[:160]}{' …' if len(named) > 160 else ''}."
    return html.Div([note(text), html.Div(button("Switch off", asked), className="dv-actions")])


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
        html.B(f"{count(total, 'unit')} set to {keys.EDITS[about['to']]} {'changes' if total == 1 else 'change'} {count(changed, 'prediction')}"),
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


def count(value: int, noun: str, plural: str | None = None) -> str:
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def _duration(seconds: float) -> str:
    if seconds < 2:
        return "about a second"
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
