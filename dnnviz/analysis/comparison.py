"""Two sides of a comparison unit by unit: how far layers are apart, whether by more than chance, and what is worth comparing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dnnviz.analysis import distance, permutation
from dnnviz.analysis.matching import OBSERVATIONS, Pairing, Shared, pair_units, shared_layers
from dnnviz.analysis.sides import Side, members, same_inputs
from dnnviz.store import Layer, Run

LAYER_SETS: dict[str, str] = {
    "outline": "Overview",
    "all": "All layers",
    "conv": "Convolutions",
    "linear": "Linear",
    "attention": "Attention",
    "block": "Blocks",
}
FEWEST = 4  # inputs on either side from which groups can be drawn anew
CHANCE = 0.05  # p above which a layer differs by no more than chance
CLOSE = 0.5  # layers nearer than this count as shared


@dataclass(frozen=True)
class Comparison:
    """Two sides over the layers they share; arrays are float32 [U'], in the order of the first side's units.

    difference: second − first in standard deviations of the unit over all inputs (pooled of both sides).
    distances: float64 [L], root mean square of the differences of each layer.
    """

    shared: Shared
    pairing: Pairing
    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    distances: np.ndarray

    @property
    def partners(self) -> np.ndarray:
        """int64 [U']: number of the second side's unit within its layer."""
        starts = [self.shared.second[layer.offset] for layer in self.shared.layers]
        return self.pairing.second - np.repeat(np.array(starts, dtype=np.int64), [layer.units for layer in self.shared.layers])


@lru_cache(maxsize=32)
def compare(first: Side, second: Side, how: str = "auto") -> Comparison:
    """Compare two sides over the layers they share."""
    shared = shared_layers(first.run, second.run)
    pairing = pair_units(*first.network, *second.network, how)
    a, b = first.values[shared.first], second.values[pairing.second]
    difference = distance.standardised_difference(a, b, _scale(first, second, shared, pairing), shared.columns)
    return Comparison(shared, pairing, a, b, difference, distance.layer_distances(difference, shared.columns))


@lru_cache(maxsize=32)
def significance(first: Side, second: Side, how: str = "auto") -> tuple[np.ndarray | None, str]:
    """(p of each shared layer, float64 [L]: whether it differs by more than chance; over what, in words), or (None, why there is no such test).

    The inputs kept one by one stand for those that the means are over. See `dnnviz.analysis.permutation`.
    """
    shown = [members(side) for side in (first, second)]
    if min(len(rows) for rows in shown) < FEWEST:
        return None, f"A permutation test takes at least {FEWEST} kept inputs on either side."
    shared, pairing = shared_layers(first.run, second.run), pair_units(*first.network, *second.network, how)
    if not shared.layers:
        return None, "The two share no layer."
    own = first.run.activations(first.epoch)
    if first.network == second.network:
        groups = [np.isin(np.arange(first.run.kept), rows) for rows in shown]
        if np.array_equal(*groups):
            return None, "A and B are the same inputs of the same network."
        try:
            found = permutation.group_test(own[:, shared.first], *groups, shared.columns)
        except ValueError:
            return None, "The two groups share some inputs only, so that they cannot be drawn anew."
        return found, f"{len(shown[0])} against {len(shown[1])} inputs"
    if not (same_inputs(first.run, second.run) and np.array_equal(*shown)):
        return None, "Two networks can be tested on the same inputs only."
    rows = shown[0][np.unique(np.linspace(0, len(shown[0]) - 1, min(len(shown[0]), OBSERVATIONS)).astype(int))]
    other = second.run.activations(second.epoch)
    return permutation.paired_test(own[rows][:, shared.first], other[rows][:, pairing.second], shared.columns), f"{len(rows)} inputs"


def layers_of(layers: Sequence[Layer], chosen: str) -> list[Layer]:
    """The layers of a set (a key of LAYER_SETS); an empty set, or a name that is none, gives the outline."""
    if chosen == "all":
        return list(layers)
    found = [e for e in layers if e.kind == chosen]
    if found:
        return found
    blocks = [e.name + "." for e in layers if e.kind == "block"]
    return [e for e in layers if not any(e.name.startswith(block) for block in blocks)]


def parting(distances: np.ndarray) -> int | None:
    """Index of the first layer whose distance is not CLOSE; None where all layers are close."""
    apart = np.flatnonzero(np.nan_to_num(distances) >= CLOSE)
    return int(apart[0]) if len(apart) else None


def meeting(distances: np.ndarray) -> int | None:
    """Index of the first layer from which on all are CLOSE; None where the last one is not."""
    apart = np.flatnonzero(np.nan_to_num(distances) >= CLOSE)
    first = int(apart[-1]) + 1 if len(apart) else 0
    return first if first < len(distances) else None


def nearest_class(run: Run, epoch: int, label: int) -> int:
    """The class that the network comes nearest to taking class `label` for: the highest mean logit of another class."""
    members = np.flatnonzero(run.labels == label)
    logits = run.logits(epoch)
    if not len(members) or logits.shape[1] != len(run.classes) or len(run.classes) < 2:
        return (label + 1) % max(len(run.classes), 1)
    mean = logits[members].mean(axis=0)
    mean[label] = -np.inf
    return int(np.nanargmax(mean))


def worth_comparing(first: Side, others: Mapping[str, Run]) -> tuple[str | None, int, str]:
    """What to set beside a side of which nothing else is known: (id of another run or None for the same, epoch, show).

    A class: the class that it is taken for most easily. An input: its class. The data set: a run of the same network
    and classes, best one whose id begins with the same word; else the first epoch; else a class.
    others: the other runs by id.
    """
    run, kind = first.run, first.show.partition(":")[0]
    if kind == "group":
        return None, first.epoch, "data"
    if kind == "class":
        return None, first.epoch, f"class:{nearest_class(run, first.epoch, int(first.show[6:]))}"
    if kind == "input":
        return None, first.epoch, f"class:{int(run.labels[int(first.show[6:])])}"
    alike = [name for name, other in others.items() if other.epochs and other.classes == run.classes and shared_layers(run, other).complete]
    alike.sort(key=lambda name: name.split("-")[0] != run.name.split("-")[0])
    if alike:
        epochs = others[alike[0]].epochs
        return alike[0], min(epochs, key=lambda epoch: abs(epoch - first.epoch)), "data"
    return (None, run.epochs[0], "data") if first.epoch != run.epochs[0] else (None, first.epoch, "class:0")


def _scale(first: Side, second: Side, shared: Shared, pairing: Pairing) -> np.ndarray:
    own = first.run.data_std(first.epoch)[shared.first]
    return distance.pooled_std(own, second.run.data_std(second.epoch)[pairing.second])
