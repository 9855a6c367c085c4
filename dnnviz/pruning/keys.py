"""What can be asked about pruning a snapshot, checked, and the keys of the answers. No torch: pages and jobs share it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dnnviz import results
from dnnviz.analysis.units import MOST_INPUTS, THRESHOLD, Units, dead_units, even, units
from dnnviz.errors import DNNVizError
from dnnviz.pruning import criteria
from dnnviz.pruning.registry import CRITERIA, Material, find
from dnnviz.pruning.saved import Costs
from dnnviz.results import Results
from dnnviz.store import Layer, Run

VERSION = 3  # part of every key: raise it when the same question gets another answer
SEEDS = 3  # repetitions of a criterion that draws
SHARES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)  # of the units that may go, at which accuracy is measured
THRESHOLDS = (0.9, 0.95, 0.98)
WHICH = {"dead": "Dead units", "redundant": "Dead and redundant units"}  # proposals beside those by a criterion
MERGED = {"redundant", "redundancy"}  # what goes by these follows another unit, from which later layers take it
FITTED = 200  # inputs over which units are fitted to those they follow
LEAST = 1  # percent that a proposal by a criterion removes at least
KINDS = {"dead": "are dead", "redundant": "follow another one", "hyperactive": "are hyperactive", "saturated": "always fire"}  # in an ablation
EDITS = {"zero": "zero", "mean": "their mean over the data"}
FILES = {"masked": "weights with zeros", "sliced": "a smaller network"}
_PART = re.compile(r"^(?P<layer>[^\s:]+):(?P<units>.+)$")
_CLASS = re.compile(r"^(?:class|prefers)\s+(\S.*)$")


@dataclass(frozen=True)
class Proposal:
    """Units to remove. which: a key of WHICH or a criterion. share: percent of the units that may go, for a criterion."""

    which: str
    threshold: float = THRESHOLD
    share: int = 10

    def as_params(self) -> dict[str, Any]:
        return {"which": self.which, "threshold": self.threshold, "share": self.share}


def proposal(params: Mapping[str, Any]) -> Proposal:
    """Check a proposal; what it does not depend on is set to the default. Raises DNNVizError."""
    which, threshold, share = params.get("which", "redundant"), params.get("threshold", THRESHOLD), params.get("share", 10)
    if which not in WHICH:
        find(str(which))
    if threshold not in THRESHOLDS:
        raise DNNVizError(f"The threshold is {threshold!r}; it must be one of {', '.join(map(str, THRESHOLDS))}.")
    if not isinstance(share, int) or not LEAST <= share <= 90:
        raise DNNVizError(f"The share is {share!r}; it must be a whole percentage from {LEAST} to 90.")
    return Proposal(str(which), float(threshold) if which == "redundant" else THRESHOLD, share if which in CRITERIA else 10)


@lru_cache(maxsize=16)
def units_at(run: Run, digest: str, epoch: int, threshold: float) -> Units:
    """What `units` says, held for those who ask again; digest: of the snapshot (`run.digest(epoch)`)."""
    return units(run, epoch, threshold)


def epoch_of(run: Run, params: Mapping[str, Any]) -> int:
    """The epoch of a request, checked."""
    epoch = params.get("epoch")
    run.snapshot(epoch)
    return int(epoch)


# -- the network's costs ---------------------------------------------------------------------------------------------


def costs_key(run: Run, epoch: int) -> str:
    return results.key("pruning", version=VERSION, what="costs", run=run.digest(epoch))


def get_costs(cache: Results, run: Run, epoch: int) -> tuple[Costs, np.ndarray] | None:
    """(costs, magnitude of the weights of every unit float32 [U]) as a job stored them, or None."""
    arrays = cache.get(costs_key(run, epoch))
    return None if arrays is None else (Costs.from_json(unpacked(arrays["about"])), arrays["magnitude"])


# -- which units -----------------------------------------------------------------------------------------------------


def allowed(run: Run, costs: Costs) -> np.ndarray:
    """bool [U]: units of layers that can be pruned."""
    found = np.zeros(run.units, dtype=bool)
    for layer, cost in zip(run.layers, costs.layers, strict=True):
        found[layer.columns] = cost.prunable
    return found


def material(run: Run, epoch: int, magnitude: np.ndarray, seed: int = 0) -> Material:
    """What the criteria look at."""
    rows = even(run.kept, MOST_INPUTS)
    active, mean = run.active(epoch), run.data_mean(epoch)
    return Material(
        layers=run.layers,
        mean=mean,
        std=run.data_std(epoch),
        active=active,
        means=run.activations(epoch)[rows],
        peaks=run.activations(epoch, stat="max")[rows],
        magnitude=magnitude,
        dead=dead_units(active, mean),
        seed=seed,
    )


def proposed(run: Run, epoch: int, want: Proposal, costs: Costs, magnitude: np.ndarray, known: Units | None = None) -> np.ndarray:
    """int64, rising: global numbers of the units that a proposal removes; every layer keeps at least one.

    known: what `units` says of the snapshot at the proposal's threshold, where it is known already.
    """
    may = allowed(run, costs)
    if want.which in CRITERIA:
        ordered = criteria.order(find(want.which), material(run, epoch, magnitude), may)
        return np.sort(ordered[: round(int(may.sum()) * want.share / 100)])
    said = known or units(run, epoch, want.threshold)
    chosen = (said.dead if want.which == "dead" else said.dead | said.redundant) & may
    for layer in run.layers:
        if chosen[layer.columns].all():
            chosen[layer.offset] = False
    return np.flatnonzero(chosen)


def parse_units(run: Run, epoch: int, text: str, said: Callable[[], Units] | None = None) -> dict[str, np.ndarray]:
    """{layer: units int64, rising} of a text such as `layer4.1.conv2:12,40; fc:0-9; conv1:all; features.0:prefers 3; *:dead`.

    `LAYER:prefers CLASS` (a name or number) are the units whose mean over that class is the largest of all classes, and above zero;
    a key of KINDS those that `units` finds (said: gives what it says where that is held already); the layer `*` stands for all of
    them but blocks. Raises DNNVizError with a sentence for what does not exist.
    """
    found: dict[str, list[np.ndarray]] = {}
    known: list[Units] = []
    for part in (piece.strip() for piece in re.split(r"[;\n]", text)):
        if not part:
            continue
        match = _PART.match(part)
        if match is None:
            raise DNNVizError(f"“{part[:60]}” names no units; write LAYER:UNITS, for example {run.layers[0].name}:0,2-4.")
        which = match["units"].strip()
        if which in KINDS and not known:
            known.append(said() if said else units(run, epoch))
        for layer in [each for each in run.layers if each.kind != "block"] if match["layer"] == "*" else [run.layer(match["layer"])]:
            own = np.flatnonzero(getattr(known[0], which)[layer.columns]) if which in KINDS else _numbers(run, epoch, layer, which)
            found.setdefault(layer.name, []).append(own)
    if not found:
        raise DNNVizError(f"No unit is named; write LAYER:UNITS, for example {run.layers[0].name}:0,2-4.")
    merged = {layer.name: np.unique(np.concatenate(found[layer.name])) for layer in run.layers if layer.name in found}
    if not any(len(numbers) for numbers in merged.values()):
        raise DNNVizError("No unit fits: these layers have none of that kind.")
    return {name: numbers for name, numbers in merged.items() if len(numbers)}


def preferred(run: Run, epoch: int, layer: Layer) -> np.ndarray:
    """int64 [units]: the class over which the mean of each unit is largest; −1 where it is not above zero for any."""
    means = np.nan_to_num(run.class_mean(epoch, layer), nan=-np.inf)
    best = means.argmax(axis=0)
    return np.where(means.max(axis=0) > 0, best, -1)


def _numbers(run: Run, epoch: int, layer: Layer, text: str) -> np.ndarray:
    if text == "all":
        return np.arange(layer.units)
    match = _CLASS.match(text)
    if match is not None:
        name = match[1].strip()
        label = run.classes.index(name) if name in run.classes else int(name) if name.isdecimal() else -1
        if not 0 <= label < len(run.classes):
            raise DNNVizError(f"This run has no class “{name[:60]}”; classes are 0 to {len(run.classes) - 1}, or their names.")
        return np.flatnonzero(preferred(run, epoch, layer) == label)
    numbers: list[np.ndarray] = []
    for piece in text.split(","):
        first, dash, last = (side.strip() for side in piece.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            ways = f"numbers, ranges such as 3-7, “all”, “prefers {run.classes[0]}”, {', '.join(f'“{kind}”' for kind in KINDS)}"
            raise DNNVizError(f"“{piece.strip()[:40]}” is no unit; write {ways}.")
        low, high = int(first), int(last or first)
        if high >= layer.units or low > high:
            raise DNNVizError(f"{layer.name} has units 0 to {layer.units - 1}; {piece.strip()[:40]} was asked for.")
        numbers.append(np.arange(low, high + 1))
    return np.concatenate(numbers)


def units_text(chosen: Mapping[str, np.ndarray]) -> str:
    """Units as `parse_units` reads them, numbers in a row as ranges."""
    return "; ".join(f"{name}:{_ranges(numbers)}" for name, numbers in chosen.items())


def _ranges(numbers: np.ndarray) -> str:
    breaks = np.flatnonzero(np.diff(numbers) > 1)
    firsts, lasts = numbers[np.r_[0, breaks + 1]], numbers[np.r_[breaks, len(numbers) - 1]]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(firsts, lasts, strict=True))


def by_layer(run: Run, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """{layer: its units} of global numbers."""
    found = {}
    for layer in run.layers:
        own = chosen[(chosen >= layer.offset) & (chosen < layer.offset + layer.units)] - layer.offset
        if len(own):
            found[layer.name] = own
    return found


# -- which inputs ----------------------------------------------------------------------------------------------------


def inputs_of(run: Run, split: str, most: int) -> np.ndarray:
    """int64: the inputs kept of a split (`all`: of every one), at most `most` (0: all of them), evenly taken."""
    if split != "all" and split not in run.splits:
        raise DNNVizError(f"Run {run.name} has no split “{split[:40]}”; there are {', '.join(run.splits)}.")
    members = np.arange(run.kept) if split == "all" else np.flatnonzero(run.input_splits == run.splits.index(split))
    if not len(members):
        raise DNNVizError(f"Run {run.name} keeps no input of the split “{split}” one by one; choose all inputs.")
    return members[even(len(members), most or len(members))]


# -- the other answers -----------------------------------------------------------------------------------------------


def verify_key(run: Run, epoch: int, want: Proposal, names: Sequence[str], split: str, most: int) -> str:
    how = {"names": list(names), "split": split, "most": most, "shares": SHARES, "seeds": SEEDS, **want.as_params()}
    return results.key("pruning", version=VERSION, what="verify", run=run.digest(epoch), **how)


def ablation_key(run: Run, epoch: int, chosen: Mapping[str, np.ndarray], to: str, split: str) -> str:
    units_ = {name: numbers.tolist() for name, numbers in chosen.items()}
    return results.key("pruning", version=VERSION, what="ablate", run=run.digest(epoch), units=units_, to=to, split=split)


def export_key(run: Run, epoch: int, want: Proposal, kind: str) -> str:
    return results.key("pruning", version=VERSION, what="export", run=run.digest(epoch), file=kind, **want.as_params())


def packed(content: Mapping[str, Any]) -> np.ndarray:
    """JSON as an array, to be kept among the results."""
    return np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)


def unpacked(array: np.ndarray) -> dict[str, Any]:
    return json.loads(array.tobytes())
