"""The right column of the embedding page: the card of an input, of a group of inputs, of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from dash import html

from dnnviz.analysis.sides import MOST_CHOSEN
from dnnviz.components.controls import note, page_link, section
from dnnviz.components.details import bars, image_url, number, thumbnail
from dnnviz.explain.plan import MOST_INPUTS
from dnnviz.project.keys import Wanted
from dnnviz.project.view import Neighbours, predictions, probabilities
from dnnviz.store import Run
from dnnviz.urlstate import Selection

NEIGHBOURS = 12
LISTED = 60  # thumbnails of a group
CLASS_ROWS = 12
PROBABILITY_ROWS = 5


def input_card(selection: Selection, want: Wanted, index: int, found: Neighbours | None) -> list[Any]:
    """An input: image, prediction, its nearest neighbours in the full space, and where to go on from it."""
    run = selection.run
    assert run is not None
    label = int(run.labels[index])
    shares = probabilities(run, want.epoch, index)
    best = int(shares.argmax())
    name = run.classes[label]
    told = "taken for what it is" if best == label else f"taken for {run.classes[best]}"
    order = list(np.argsort(-shares, kind="stable")[:PROBABILITY_ROWS])
    if label not in order:
        order[-1] = label
    rows = [(run.classes[int(i)], float(shares[i]), f"{shares[i]:.2f}", int(i) == label, f"class:{int(i)}") for i in order]
    common = {"run": selection.run_id, "epoch": want.epoch, "layer": want.layer}
    return [
        html.H1(f"Input {index}", className="dv-title"),
        note(f"{name[:1].upper() + name[1:]}, {told}."),
        html.Div(
            [html.Img(src=image_url(selection, index, 232), alt=f"Input {index}, {name}", className="dv-embedding-image"), bars(rows)],
            className="dv-embedding-head",
        ),
        section("Nearest in the full space", *_neighbours(selection, want, found)),
        html.Div(
            [
                page_link("Explain it", "/attribution", **common, show=f"input:{index}", by="chosen", inputs=index),
                page_link("Compare with its class", "/compare", **common, show=f"input:{index}", **_against(selection, want, label)),
                page_link("See its activations", "/", **common, show=f"input:{index}"),
            ],
            className="dv-actions",
        ),
    ]


def _against(selection: Selection, want: Wanted, label: int) -> dict[str, Any]:
    """Query of the compare page for its second side."""
    return {"run2": selection.run_id, "epoch2": want.epoch, "show2": f"class:{label}"}


def _neighbours(selection: Selection, want: Wanted, found: Neighbours | None) -> list[Any]:
    run = selection.run
    assert run is not None
    if found is None:
        outside = want.split is not None and run.splits[int(run.input_splits[selection.show_index or 0])] != want.split
        return [note(f"This input is not in the split “{want.split}”." if outside else "They appear as soon as they are computed.")]
    thumbs = [thumbnail(selection, int(i), number(float(d)), size=80) for i, d in zip(found.inputs, found.distances, strict=True)]
    same = int((run.labels[found.inputs] == run.labels[selection.show_index or 0]).sum())
    units = run.layer(want.layer).units
    return [
        html.Div(thumbs, className="dv-thumbs four"),
        html.P(
            f"{same} of {len(thumbs)} are of its own class. Distances in {want.layer}, {_count(units, 'dimension')}, exact.",
            className="dv-small mt-2",
        ),
    ]


def group_card(selection: Selection, want: Wanted, inputs: Sequence[int], title: str, text: str, *, clear: bool = False) -> list[Any]:
    """A group of inputs: how many of each class, how many wrong, and their images, the wrong ones first."""
    run = selection.run
    assert run is not None
    chosen = np.asarray(inputs, dtype=np.int64)
    best, confidence = predictions(run, want.epoch)
    wrong = best[chosen] != run.labels[chosen]
    order = chosen[np.lexsort((confidence[chosen], ~wrong))]
    counts = np.bincount(run.labels[chosen], minlength=len(run.classes))
    largest = [int(i) for i in np.argsort(-counts, kind="stable")[:CLASS_ROWS] if counts[i]]
    thumbs = [thumbnail(selection, int(i), classes="wrong" if best[i] != run.labels[i] else "", size=80) for i in order[:LISTED]]
    parts: list[Any] = [
        html.H1(title, className="dv-title"),
        note(f"{text} {int(wrong.sum())} of {_count(len(chosen), 'input')} are predicted wrongly.".strip()),
    ]
    if clear:
        parts.append(html.Button("Clear the selection", className="dv-btn small mt-2", type="button", **{"data-dv-embedding": "clear"}))
    if len(largest) > 1 or clear:
        rows = [(run.classes[i], float(counts[i]), str(int(counts[i])), False, f"class:{i}") for i in largest]
        parts.append(section("Of each class", bars(rows)))
    parts.append(section("The inputs", html.Div(thumbs, className="dv-thumbs four")))
    explained = [str(i) for i in order[:MOST_INPUTS]]
    invitation = "Explain these" if len(explained) == len(chosen) else f"Explain the first {len(explained)}"
    link = {"layer": want.layer, "by": "chosen", "inputs": ",".join(explained)}
    rest = len(chosen) - len(thumbs)
    parts.append(
        html.P(("Wrong ones first, outlined." if wrong.any() else "") + (f" {rest} more are not listed." if rest else ""), className="dv-small mt-2")
    )
    if explained:
        here = {"run": selection.run_id, "epoch": want.epoch}
        links = [page_link(invitation, "/attribution", **here, **link)]
        if 1 < len(chosen) <= MOST_CHOSEN:
            sides = {"group": ",".join(map(str, sorted(chosen.tolist()))), "run2": selection.run_id, "epoch2": want.epoch, "show2": "data"}
            links.append(page_link("Compare with all inputs", "/compare", **here, **sides))
        parts.append(html.Div(links, className="dv-actions"))
    return parts


def overview_card(run: Run, want: Wanted, how: str, citation: str) -> list[Any]:
    """What to do where nothing is chosen."""
    return [
        html.H1(f"{want.layer}", className="dv-title"),
        note(
            f"Every point is one input, placed by its {_count(run.layer(want.layer).units, 'activation')} in this layer. "
            "Point at one to see it, click it for its neighbours; the lasso gathers several."
        ),
        html.Details(
            [html.Summary("How to read this"), html.P(how, className="dv-note"), html.P(citation, className="dv-small")],
            className="dv-how",
            open=True,
        ),
    ]


def _count(value: int, noun: str) -> str:
    return f"{value:,} {noun}{'' if value == 1 else 's'}"
