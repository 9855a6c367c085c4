"""What a look for shortcuts depends on, its key among the results, and what is stored under it. No torch, no scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz import results
from dnnviz.errors import DNNVizError
from dnnviz.explain.plan import FORMAT, MOST_INPUTS
from dnnviz.explain.registry import find
from dnnviz.results import Results
from dnnviz.store import Run

VERSION = 1  # part of every key: raise it when the same question gets another answer
PER_CLASS = 24


@dataclass(frozen=True)
class Asked:
    """A look for shortcuts: by which method, at which epoch, over up to `per_class` inputs kept of every class.

    layer: of methods that look at one; None for the last feature map.
    """

    epoch: int
    method: str
    parameters: Mapping[str, Any]
    layer: str | None
    per_class: int

    def as_params(self, run_id: str) -> dict[str, Any]:
        """The parameters of the background job."""
        return {
            "run": run_id,
            "epoch": self.epoch,
            "method": self.method,
            "parameters": dict(self.parameters),
            "layer": self.layer,
            "per_class": self.per_class,
        }


def asked(run: Run, params: Mapping[str, Any]) -> Asked:
    """Check a job's parameters against the run; raises DNNVizError with a sentence for what does not exist or is out of range."""
    method = find(str(params.get("method")))
    parameters = method.resolve(params.get("parameters") or {})
    epoch = params.get("epoch")
    run.snapshot(epoch)
    layer = params.get("layer") or None
    if layer is not None:
        layer = run.layer(str(layer)).name
    per_class = params.get("per_class", PER_CLASS)
    if not isinstance(per_class, int) or not 1 <= per_class <= MOST_INPUTS:
        raise DNNVizError(f"per_class is {per_class!r}; it must be a whole number from 1 to {MOST_INPUTS}.")
    return Asked(int(epoch), method.name, parameters, layer if method.uses_layer(parameters) else None, per_class)


def members(run: Run, per_class: int) -> dict[int, np.ndarray]:
    """Class → its inputs looked at, int64, up to `per_class`, taken evenly of those kept; classes without inputs are left out."""
    found = {}
    for label in np.unique(run.labels):
        inputs = np.flatnonzero(run.labels == label)
        found[int(label)] = inputs[np.unique(np.linspace(0, len(inputs) - 1, min(per_class, len(inputs))).round().astype(np.int64))]
    return found


def shortcuts_key(run: Run, want: Asked) -> str:
    """Key of the result."""
    how = {"method": want.method, "parameters": dict(want.parameters), "layer": want.layer, "per_class": want.per_class}
    return results.key("shortcuts", version=VERSION, tile=FORMAT, run=run.digest(want.epoch), **how)


@dataclass(frozen=True)
class Shortcuts:
    """What was found, over K classes with inputs and C clusters in all; regions in the order of `measures.REGIONS`.

    classes: int64 [K], their numbers. counts: int64 [K], maps with evidence. means: float32 [K, h, w], mean of the maps of mass 1
    (sides of up to 112). shares, densities, z: float32 [K, 5], evidence in border and corners: share, relative to the area, robust
    deviations from the other classes (NaN: too few of them). marked: bool [K, 5], those that stand out. order: int64 [K], rows of
    the classes, most suspicious first. inputs: int64 [m], the inputs looked at, assignments: int64 [m], the cluster of each (row of
    `cluster_means`), −1 where its map has no evidence. cluster_means: float32 [C, h, w], cluster_classes: int64 [C], the row of
    each one's class. gaps: float32 [K], the eigengap behind the number of clusters, 0 where no clusters were sought.
    notes: the trust notes of the maps, (state, text without numbers, how many, why), most frequent first. layer: the layer looked at.
    """

    classes: np.ndarray
    counts: np.ndarray
    means: np.ndarray
    shares: np.ndarray
    densities: np.ndarray
    z: np.ndarray
    marked: np.ndarray
    order: np.ndarray
    inputs: np.ndarray
    assignments: np.ndarray
    cluster_means: np.ndarray
    cluster_classes: np.ndarray
    gaps: np.ndarray
    notes: tuple[tuple[str, str, int, str], ...] = ()
    layer: str | None = None


_JSON = ("notes", "layer")


def put_shortcuts(cache: Results, key: str, found: Shortcuts) -> None:
    about = json.dumps({name: getattr(found, name) for name in _JSON}).encode()
    arrays = {name: value for name, value in vars(found).items() if name not in _JSON}
    cache.put(key, {**arrays, "about": np.frombuffer(about, dtype=np.uint8)})


def get_shortcuts(cache: Results, key: str) -> Shortcuts | None:
    """What is stored under a key, or None."""
    arrays = cache.get(key)
    if arrays is None:
        return None
    about = json.loads(arrays.pop("about").tobytes())
    return Shortcuts(**arrays, notes=tuple(tuple(note) for note in about["notes"]), layer=about["layer"])
