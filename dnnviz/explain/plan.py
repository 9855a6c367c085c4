"""Which tiles a gallery of attributions has, under which keys their results lie, and how a tile is stored. No torch."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dnnviz.errors import DNNVizError, RunError
from dnnviz.explain.registry import find
from dnnviz.explain.targets import NONE, PREDICTED, SECOND, ClassTarget, LayerTarget, Target, parse
from dnnviz.explain.uploads import is_upload
from dnnviz.results import Results, key
from dnnviz.specs import check_allowed
from dnnviz.store import Run

FORMAT = 2  # part of every key: raise it when a method's map or what a tile holds changes
MOST_INPUTS = 24
MOST_TARGETS = 8
TOP = 5
_UNUSED = 3600  # seconds after which a look at a tile is noted


@dataclass(frozen=True)
class Tile:
    """One map of a gallery.

    source: number of an input kept, as text, or the key of an uploaded image. target: what is explained, as in
    `dnnviz.explain.targets`, with classes by number as far as they are known (only the network can tell the class it
    predicts for an uploaded image). layer: None for the last feature map, or where the method uses none.
    """

    source: str
    method: str
    parameters: Mapping[str, Any]
    target: str
    layer: str | None
    key: str


def plan(
    run: Run,
    epoch: int,
    sources: Sequence[str],
    methods: Mapping[str, Mapping[str, Any]],
    targets: Sequence[str] = ("predicted",),
    layer: str | None = None,
) -> list[Tile]:
    """The tiles of a gallery, row by row (see `rows`); raises DNNVizError with a sentence where something does not exist.

    methods: name → parameters that differ from the defaults. targets: texts as in `dnnviz.explain.targets`; an uploaded
    image has no true class, its predicted class is explained instead.
    """
    if layer is not None:
        layer = run.layer(layer).name
    resolved = {name: find(name).resolve(given) for name, given in methods.items()}
    digest = run.digest(epoch)
    tiles = []
    for source, target in rows(run, epoch, sources, targets):
        for name, parameters in resolved.items():
            used = (layer or _own_layer(run, target)) if find(name).uses_layer(parameters) else None
            found = key("attribution", tile=FORMAT, run=digest, source=source, method=name, parameters=parameters, layer=used, target=target)
            tiles.append(Tile(source, name, parameters, target, used, found))
    return tiles


def rows(run: Run, epoch: int, sources: Sequence[str], targets: Sequence[str]) -> list[tuple[str, str]]:
    """(source, target with its classes by number) of every row: the targets of an input below each other, none of them twice.

    Raises DNNVizError where there are too many, or where something does not exist.
    """
    if len(sources) > MOST_INPUTS:
        raise DNNVizError(f"A gallery holds up to {MOST_INPUTS} inputs; {len(sources)} were asked for.")
    if len(targets) > MOST_TARGETS:
        raise DNNVizError(f"A gallery explains up to {MOST_TARGETS} targets of each input; {len(targets)} were asked for.")
    return list(dict.fromkeys((source, resolve_target(run, epoch, source, target)) for source in sources for target in targets))


def plan_of(run: Run, params: Mapping[str, Any]) -> list[Tile]:
    """The tiles of a request that comes from a browser (inputs, methods, epoch, targets, layer), checked; raises DNNVizError."""
    inputs, methods, epoch, targets = (params.get(name) for name in ("inputs", "methods", "epoch", "targets"))
    if not isinstance(inputs, list) or not isinstance(methods, dict) or not isinstance(epoch, int) or not isinstance(targets, list):
        raise DNNVizError("The request for attributions is incomplete; reload the page.")
    given = {str(name): values if isinstance(values, dict) else {} for name, values in methods.items()}
    return plan(run, epoch, [str(source) for source in inputs], given, [str(target) for target in targets], params.get("layer") or None)


def resolve_target(run: Run, epoch: int, source: str, target: str) -> str:
    """The target with the classes of this input by number: `predicted` becomes `class:3`, `true-second` `class:1-class:3`.

    Where an input's class is the one it is held against, its runner-up stands in: no class differs from itself.
    Raises DNNVizError or RunError where class, layer or unit do not exist.
    """
    kind, _, rest = target.partition(":")
    if kind in ("unit", "direction"):
        name, _, number = rest.rpartition(":")
        layer = run.layer(name)
        size = layer.units if kind == "unit" else len(run.classes)
        if not number.isdecimal() or int(number) >= size:
            what = f"{layer.name} has units" if kind == "unit" else "this run has classes"
            raise DNNVizError(f"The target is {target[:80]!r}; {what} 0 to {size - 1}.")
        return f"{kind}:{layer.name}:{int(number)}"
    if kind == "layer":
        return f"layer:{run.layer(rest).name}"
    found = parse(f"predicted{target.removeprefix('true')}" if target.startswith("true") else target)
    assert isinstance(found, ClassTarget)
    for index in (found.index, found.against):
        if index >= len(run.classes):
            raise DNNVizError(f"The target is {target!r}; this run has classes 0 to {len(run.classes) - 1}.")
    if is_upload(source):
        return target.replace("true", "predicted")
    index = input_index(run, source)
    logits = run.logits(epoch)[index]
    first = int(run.labels[index]) if target.startswith("true") else int(logits.argmax()) if found.index == PREDICTED else found.index
    if found.against == NONE:
        return f"class:{first}"
    rival = next((int(i) for i in np.argsort(-logits, kind="stable") if i != first), first) if found.against in (SECOND, first) else found.against
    return f"class:{first}-class:{rival}"


def _own_layer(run: Run, target: str) -> str | None:
    """Layer by whose feature maps a unit or direction is explained unless another is chosen: its own, where that has maps."""
    explained = target_layer(target)
    if explained is None:
        return None
    shape = run.layer(explained).place_shape
    return explained if shape is not None and shape[0] * shape[1] > 1 else None


def target_layer(target: str) -> str | None:
    """Name of the layer whose unit or direction is explained; None where a class is."""
    kind, _, rest = target.partition(":")
    return rest if kind == "layer" else rest.rpartition(":")[0] if kind in ("unit", "direction") else None


def target_object(run: Run, epoch: int, target: str) -> Target:
    """What `attribute` takes for the target of a tile."""
    if not target.startswith("direction:"):
        return parse(target)
    layer, number = target_layer(target), int(target.rpartition(":")[2])
    return LayerTarget(layer, vector=run.class_mean(epoch, layer)[number] - run.data_mean(epoch, layer))


def target_name(run: Run, target: str) -> str:
    """A target as a person reads it."""
    layer, kind, number = target_layer(target), target.partition(":")[0], target.rpartition(":")[2]
    if layer is not None:
        whole = {"layer": "as a whole", "unit": f"unit {number}"}
        return f"{layer} {whole[kind]}" if kind in whole else f"{layer} towards {class_name(run, int(number))}"
    words = {"predicted": "predicted class", "true": "true class", "second": "runner-up"}
    parts = [words.get(part) or class_name(run, int(part.partition(":")[2])) for part in target.split("-")]
    return " − ".join(parts)


def class_name(run: Run, index: int) -> str:
    """Name of a class; its number where the network has more outputs than the run names."""
    return run.classes[index] if index < len(run.classes) else f"class {index}"


def target_class(target: str) -> int | None:
    """Number of the class explained; None where it is no class, or not known before the network has spoken."""
    kind, _, number = target.partition("-")[0].partition(":")
    return int(number) if kind == "class" else None


def input_index(run: Run, source: str) -> int:
    """Number of an input kept; raises RunError where the run keeps no such input."""
    if not source.isdecimal() or int(source) >= run.kept:
        raise RunError(f"Run {run.name} keeps inputs 0 to {run.kept - 1} one by one; {source[:40]!r} was asked for.")
    return int(source)


def obstacle(run: Run, epoch: int, allow: Sequence[str], what: str = "attributions") -> str | None:
    """Why the network of a snapshot cannot be built again, with what to do; None where nothing is known to stand in the way.

    what: what needs the network itself, in the plural; this answers without loading it.
    """
    spec = str(run.manifest["model"].get("spec") or "")
    if not spec:
        return (
            f"This run does not say how to build its network, and {what} need it. Capture it again with "
            "model_spec='torchvision:NAME' or model_spec='package.module:function'."
        )
    if not run.snapshot(epoch).get("weights"):
        return f"This run holds no weights for epoch {epoch}, and {what} need them. Capture it again with save_weights=True."
    if spec.partition(":")[0] not in ("dnnviz", "torchvision"):
        try:
            check_allowed(spec, allow)
        except DNNVizError as error:
            return f"{what[:1].upper()}{what[1:]} need the network of this run. {error}"
    return None


def store_tile(results: Results, tile: Tile, heatmap: np.ndarray, about: Mapping[str, Any]) -> None:
    """Store a map (float32 [H, W]) with what is known about it (JSON)."""
    results.put(tile.key, {"heatmap": np.asarray(heatmap, dtype=np.float32), "about": _packed(about)})


def store_partial(results: Results, tile: Tile, heatmap: np.ndarray, share: float) -> None:
    """Store a map (float32 [H, W]) that is still growing; share: how much of the work is done, 0 to 1."""
    results.put(tile.key, {"heatmap": np.asarray(heatmap, dtype=np.float32), "about": _packed({"partial": round(share, 4)})})


def is_missing(about: Mapping[str, Any] | None) -> bool:
    """Whether a tile of which this is known is not computed, or not to its end."""
    return about is None or "partial" in about


def store_failure(results: Results, tile: Tile, sentence: str) -> None:
    """Store why a map could not be made."""
    results.put(tile.key, {"about": _packed({"error": sentence})})


def about_tile(results: Results, found: str) -> dict[str, Any] | None:
    """What is known about the tile under a key ({"error": sentence} where it failed, {"partial": share} while it grows); None where there is none."""
    try:
        status = results.path(found).stat()
        if time.time() - status.st_mtime > _UNUSED:
            os.utime(results.path(found))  # for `Results.prune`: what is looked at is in use
        text = _about_text(results.folder, found, status.st_ino, status.st_mtime_ns, status.st_size)
        return None if text is None else json.loads(text)
    except (FileNotFoundError, ValueError):
        return None


@lru_cache(maxsize=8192)
def _about_text(folder: Path, found: str, *written: int) -> bytes | None:
    """The JSON beside a map. While a job goes on every tile is looked up again and again: a file is read once each time it is written."""
    about = Results(folder).peek(found, "about")
    return None if about is None else about.tobytes()


def _packed(content: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)


def pace(results: Results, run: Run, epoch: int) -> float | None:
    """Seconds that one forward pass of one input takes here, as measured by an earlier job; None before the first."""
    arrays = results.get(_pace_key(run, epoch))
    return None if arrays is None else float(arrays["seconds"])


def store_pace(results: Results, run: Run, epoch: int, seconds: float) -> None:
    """Remember the time of a forward pass for `pace`."""
    results.put(_pace_key(run, epoch), {"seconds": np.array(seconds)})


def _pace_key(run: Run, epoch: int) -> str:
    return key("pace", run=run.digest(epoch))
