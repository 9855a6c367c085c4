"""Which tiles a gallery of attributions has, under which keys their results lie, and how a tile is stored. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz.errors import DNNVizError, RunError
from dnnviz.explain.registry import find
from dnnviz.explain.uploads import is_upload
from dnnviz.results import Results, key
from dnnviz.specs import check_allowed
from dnnviz.store import Run

FORMAT = 1  # part of every key: raise it when a method's map or what a tile holds changes
MOST_INPUTS = 24
TOP = 5


@dataclass(frozen=True)
class Tile:
    """One map of a gallery.

    source: number of an input kept, as text, or the key of an uploaded image. target: class explained; None for the class
    that the network will predict for an uploaded image. layer: None for the last feature map, or where the method uses none.
    """

    source: str
    method: str
    parameters: Mapping[str, Any]
    target: int | None
    layer: str | None
    key: str


def plan(
    run: Run,
    epoch: int,
    sources: Sequence[str],
    methods: Mapping[str, Mapping[str, Any]],
    target: str = "predicted",
    layer: str | None = None,
) -> list[Tile]:
    """The tiles of a gallery, row by row; raises DNNVizError with a sentence where something asked for does not exist.

    methods: name → parameters that differ from the defaults. target: `predicted`, `true` or `class:3`; an uploaded image
    has no true class, its predicted class is explained instead.
    """
    if len(sources) > MOST_INPUTS:
        raise DNNVizError(f"A gallery holds up to {MOST_INPUTS} inputs; {len(sources)} were asked for.")
    if layer is not None:
        layer = run.layer(layer).name
    resolved = {name: find(name).resolve(given) for name, given in methods.items()}
    digest = run.digest(epoch)
    tiles = []
    for source in sources:
        explained = target_of(run, epoch, source, target)
        for name, parameters in resolved.items():
            used = layer if find(name).needs_layer else None
            found = key("attribution", tile=FORMAT, run=digest, source=source, method=name, parameters=parameters, layer=used, target=explained)
            tiles.append(Tile(source, name, parameters, explained, used, found))
    return tiles


def target_of(run: Run, epoch: int, source: str, target: str) -> int | None:
    """The class explained for a source; None where only the network can tell (the predicted class of an uploaded image)."""
    kind, _, number = target.partition(":")
    if kind == "class" and number.isdigit() and int(number) < len(run.classes):
        return int(number)
    if target not in ("predicted", "true"):
        raise DNNVizError(f"The target is {target!r}; it must be predicted, true, or class:0 to class:{len(run.classes) - 1}.")
    if is_upload(source):
        return None
    index = input_index(run, source)
    return int(run.labels[index]) if target == "true" else int(run.logits(epoch)[index].argmax())


def input_index(run: Run, source: str) -> int:
    """Number of an input kept; raises RunError where the run keeps no such input."""
    if not source.isdecimal() or int(source) >= run.kept:
        raise RunError(f"Run {run.name} keeps inputs 0 to {run.kept - 1} one by one; {source[:40]!r} was asked for.")
    return int(source)


def obstacle(run: Run, epoch: int, allow: Sequence[str]) -> str | None:
    """Why the network of a snapshot cannot be built again, with what to do; None where nothing is known to stand in the way.

    Attributions need the network itself; this answers without loading it.
    """
    spec = str(run.manifest["model"].get("spec") or "")
    if not spec:
        return (
            "This run does not say how to build its network, and attributions need it. Capture it again with "
            "model_spec='torchvision:NAME' or model_spec='package.module:function'."
        )
    if not run.snapshot(epoch).get("weights"):
        return f"This run holds no weights for epoch {epoch}, and attributions need them. Capture it again with save_weights=True."
    if spec.partition(":")[0] not in ("dnnviz", "torchvision"):
        try:
            check_allowed(spec, allow)
        except DNNVizError as error:
            return f"Attributions need the network of this run. {error}"
    return None


def store_tile(results: Results, tile: Tile, heatmap: np.ndarray, about: Mapping[str, Any]) -> None:
    """Store a map (float32 [H, W]) with what is known about it (JSON)."""
    results.put(tile.key, {"heatmap": np.asarray(heatmap, dtype=np.float32), "about": _packed(about)})


def store_failure(results: Results, tile: Tile, sentence: str) -> None:
    """Store why a map could not be made."""
    results.put(tile.key, {"about": _packed({"error": sentence})})


def about_tile(results: Results, found: str) -> dict[str, Any] | None:
    """What is known about the tile under a key ({"error": sentence} where it failed); None where there is none."""
    arrays = results.get(found)
    try:
        return None if arrays is None else json.loads(arrays["about"].tobytes())
    except (KeyError, ValueError):
        return None


def _packed(content: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)
