"""The gallery of the attribution page as data: which inputs, what is known of each, which tiles exist. No torch, no dash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz.errors import DNNVizError
from dnnviz.explain.plan import (
    TOP,
    about_tile,
    class_name,
    input_index,
    is_missing,
    obstacle,
    pace,
    plan,
    resolve_target,
    rows,
    target_class,
    target_name,
)
from dnnviz.explain.registry import METHODS, Method
from dnnviz.explain.uploads import is_upload
from dnnviz.results import Results
from dnnviz.store import Run

# Evaluations × pixels of one input up to which a method is among those shown at first (occlusion of 64 × 64, not of 224 × 224).
_QUICK = 1_000_000
# Those among them that a gallery opens with: one or two of each family, so that it fits a window.
_FIRST = ("saliency", "smoothgrad", "integrated_gradients", "grad_cam", "lrp", "occlusion")


@dataclass(frozen=True)
class Wish:
    """What a person asked for.

    by: `class` (those of `show`, or one of each class), `wrong`, `unsure` or `chosen` (`sources`). count: rows, at most.
    show: `data`, `class:3` or `input:17`. methods: name → parameters. targets, layer: as in `plan`.
    """

    run_id: str
    epoch: int
    by: str
    show: str
    sources: tuple[str, ...]
    count: int
    methods: Mapping[str, Mapping[str, Any]]
    targets: tuple[str, ...] = ("predicted",)
    layer: str | None = None


def quick_methods(run: Run) -> list[str]:
    """Names of the methods that answer at once on inputs of this run's size."""
    shape = tuple(run.manifest["preprocessing"]["size"])
    return [name for name, method in METHODS.items() if method.passes(method.resolve({}), shape) * shape[1] * shape[2] <= _QUICK]


def first_methods(run: Run) -> list[str]:
    """Names of the methods that a gallery opens with."""
    return [name for name in quick_methods(run) if name in _FIRST]


def map_layers(run: Run) -> list[str]:
    """Names of the layers with a map over the image, in order of depth."""
    return [layer.name for layer in run.layers if layer.place_shape is not None and layer.place_shape[0] * layer.place_shape[1] > 1]


def choose_inputs(run: Run, epoch: int, by: str, show: str, sources: Sequence[str], count: int) -> list[str]:
    """Sources of the rows: numbers of inputs as text, and keys of uploads."""
    if by == "chosen":
        return [s for s in dict.fromkeys(sources) if is_upload(s) or (s.isdecimal() and int(s) < run.kept)]
    if by == "wrong":
        logits = run.logits(epoch)
        wrong = np.flatnonzero(logits.argmax(axis=1) != run.labels)
        # The surest mistakes first: they say most about what the network looks at.
        order = wrong[np.argsort(-_probabilities(logits[wrong]).max(axis=1), kind="stable")]
        return [str(i) for i in order[:count]]
    if by == "unsure":
        return [str(i) for i in np.argsort(_probabilities(run.logits(epoch)).max(axis=1), kind="stable")[:count]]
    kind, _, text = show.partition(":")
    if kind == "class":
        return [str(i) for i in np.flatnonzero(run.labels == int(text))[:count]]
    firsts = np.sort(np.unique(run.labels, return_index=True)[1])
    by_class = sorted(firsts, key=lambda i: run.labels[i])
    rest = [i for i in range(run.kept) if i not in set(by_class)] if len(by_class) < count else []
    return [str(i) for i in [*by_class, *rest][:count]]


def gallery(run: Run, wish: Wish, results: Results, allow: Sequence[str]) -> dict[str, Any]:
    """Everything the browser draws a gallery from, as JSON.

    rows (every input for every target), columns; tiles[row][column] = {key, about} with about None where the tile is not
    computed, {"partial": share} where it is growing; request: what a job must be asked for to compute the rest; missing,
    failed: their numbers; work: evaluations still to do, pixels in them, and the seconds that they will take where that is
    known; problem: why there is nothing to compute, as a sentence.
    """
    sources = choose_inputs(run, wish.epoch, wish.by, wish.show, wish.sources, wish.count)
    shape = tuple(run.manifest["preprocessing"]["size"])
    empty = {"run": wish.run_id, "epoch": wish.epoch, "size": shape[1:], "rows": [], "columns": [], "tiles": [], "missing": 0, "failed": 0}
    try:
        asked = rows(run, wish.epoch, sources, wish.targets)
        tiles = plan(run, wish.epoch, sources, wish.methods, wish.targets, wish.layer)
    except DNNVizError as error:
        return {**empty, "problem": str(error)}
    names = list(wish.methods)
    table = [tiles[i : i + len(names)] for i in range(0, len(tiles), len(names))] if names else [[] for _ in asked]
    known = [[about_tile(results, tile.key) for tile in row] for row in table]
    missing = [tile for row, about in zip(table, known, strict=True) for tile, found in zip(row, about, strict=True) if is_missing(found)]
    seconds = pace(results, run, wish.epoch)
    forwards = sum(METHODS[tile.method].work(tile.parameters, shape) for tile in missing)
    evaluations = sum(METHODS[tile.method].passes(tile.parameters, shape) for tile in missing)
    return {
        **empty,
        "rows": [_row(run, wish, *row, next((a for a in about if a and "top" in a), None)) for row, about in zip(asked, known, strict=True)],
        "columns": [_column(name, wish.methods[name], shape, seconds) for name in names],
        "tiles": [
            [{"key": tile.key, "about": _named(run, found)} for tile, found in zip(row, about, strict=True)]
            for row, about in zip(table, known, strict=True)
        ],
        "missing": len(missing),
        "failed": sum(1 for about in known for found in about if found and "error" in found),
        "work": {
            "evaluations": evaluations,
            "pixels": evaluations * shape[1] * shape[2],
            "seconds": None if seconds is None else seconds * forwards,
        },
        "problem": obstacle(run, wish.epoch, allow),
        "request": {
            "run": wish.run_id,
            "epoch": wish.epoch,
            "inputs": sources,
            "methods": {name: dict(given) for name, given in wish.methods.items()},
            "targets": list(wish.targets),
            "layer": wish.layer,
        },
    }


def costs(run: Run, epoch: int, methods: Mapping[str, Mapping[str, Any]], results: Results) -> dict[str, dict[str, Any]]:
    """What one map of each method costs here: passes through the network, and seconds (None before anything was timed).

    methods: name → parameters that differ from the defaults; a method whose parameters make no sense is left out.
    """
    shape, seconds, found = tuple(run.manifest["preprocessing"]["size"]), pace(results, run, epoch), {}
    for name, given in methods.items():
        with suppress(DNNVizError):
            found[name] = _cost(METHODS[name], METHODS[name].resolve(given), shape, seconds)
    return found


def _cost(method: Method, parameters: Mapping[str, Any], shape: tuple[int, ...], pace: float | None) -> dict[str, Any]:
    return {"passes": method.passes(parameters, shape), "seconds": None if pace is None else pace * method.work(parameters, shape)}


def _row(run: Run, wish: Wish, source: str, target: str, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """An input and what is explained of it: its picture, its true class, what the network says; explained: (name, probability or None)."""
    if is_upload(source):
        top = about["top"] if about else []
        truth, name, picture = None, "Uploaded image", f"result/{source}/image.png"
        explained = about["target"] if about else target
        share = about["probability"] if about else None
    else:
        index = input_index(run, source)
        probabilities = _probabilities(run.logits(wish.epoch)[index][None])[0]
        top = [[int(i), float(probabilities[i])] for i in np.argsort(-probabilities, kind="stable")[:TOP]]
        truth, name, picture = int(run.labels[index]), f"Input {index}", f"{wish.run_id}/image/{index}.png"
        explained = resolve_target(run, wish.epoch, source, target)
        chosen = target_class(explained)
        share = float(probabilities[chosen]) if chosen is not None and chosen < len(probabilities) else None
    chosen = target_class(explained)
    return {
        "source": source,
        "target": target,
        "name": name,
        "picture": picture,
        "truth": None if truth is None else class_name(run, truth),
        "right": None if truth is None or not top else top[0][0] == truth,
        "top": [[class_name(run, i), p, i == chosen, i] for i, p in top],
        "explained": [target_name(run, explained), share, chosen is not None and "-" not in explained],
    }


def _column(name: str, given: Mapping[str, Any], shape: tuple[int, ...], pace: float | None) -> dict[str, Any]:
    method = METHODS[name]
    parameters = method.resolve(given)
    return {
        "name": name,
        "title": method.title,
        "signed": method.signed or parameters.get("absolute") is False,
        "summary": method.summary,
        "citation": method.citation,
        "family": method.family,
        **_cost(method, parameters, shape, pace),
        "settings": ", ".join(f"{p.title.lower()} {parameters[p.name]}" for p in method.parameters if parameters[p.name] != p.default),
    }


def _named(run: Run, about: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What is known of a tile, as the browser shows it: classes by name."""
    if about is None or "method" not in about:
        return None if about is None else dict(about)
    return {**{k: about[k] for k in ("note", "layer", "seconds", "score", "probability")}, "target": target_name(run, about["target"])}


def _probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis of logits [m, K]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True)) if logits.size else logits
    return shifted / shifted.sum(axis=1, keepdims=True) if logits.size else shifted
