"""Which layers two networks share, which unit of one stands beside which of the other, and how alike layers are without pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from dnnviz.analysis import distance
from dnnviz.analysis.sides import same_inputs, shared_classes
from dnnviz.store import Layer, Run

PAIRINGS: dict[str, str] = {"auto": "Automatic", "index": "By index", "correlation": "By correlation"}
OBSERVATIONS = 300  # inputs over which units are correlated: more change the second digit of no correlation
SIMILARITIES = 1024  # inputs over which layers are compared with layers
COMMON_ORDER = 0.3  # agreement of order above which units of the same index are the same units


@dataclass(frozen=True)
class Shared:
    """Layers that two runs have in common: same name, kind and number of units.

    layers: as in the first run, with offsets that count the shared units only; first, second: int64 [U'], their columns
    in either run; only_first, only_second: names of what is left out.
    """

    layers: tuple[Layer, ...]
    first: np.ndarray
    second: np.ndarray
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is left out on either side."""
        return not self.only_first and not self.only_second

    @property
    def columns(self) -> list[slice]:
        return [layer.columns for layer in self.layers]


@dataclass(frozen=True)
class Pairing:
    """Which unit of the second run stands beside which of the first.

    how: `index` or `correlation`. second: int64 [U'], columns of the second run in the order of the first's units.
    agreement: how far units of equal index belong together (1 the same, 0 strangers); None for one run, or where it
    cannot be measured. correlation: mean correlation of the pairs. over: what was correlated, in words.
    """

    how: str
    second: np.ndarray
    agreement: float | None = None
    correlation: float | None = None
    over: str = ""


@lru_cache(maxsize=16)
def shared_layers(first: Run, second: Run) -> Shared:
    """The layers that two runs have in common, and those left out."""
    there = {(e.name, e.kind, e.units): e for e in second.layers}
    common = [(e, there[e.name, e.kind, e.units]) for e in first.layers if (e.name, e.kind, e.units) in there]
    layers, offset = [], 0
    for own, _ in common:
        layers.append(replace(own, offset=offset))
        offset += own.units
    names = {own.name for own, _ in common}
    return Shared(
        tuple(layers),
        _columns([own for own, _ in common]),
        _columns([other for _, other in common]),
        tuple(e.name for e in first.layers if e.name not in names),
        tuple(e.name for e in second.layers if e.name not in names),
    )


@lru_cache(maxsize=32)
def pair_units(first: Run, epoch: int, second: Run, second_epoch: int, how: str = "auto") -> Pairing:
    """Pair the units of two networks: `index`, `correlation`, or `auto` (by correlation where the order is not common).

    The output layer of networks with the same classes keeps its order, which is that of the classes.
    """
    shared = shared_layers(first, second)
    if first is second and how != "correlation":
        return Pairing("index", shared.second)
    seen = _observations(first, epoch, second, second_epoch)
    if seen is None or not shared.layers:
        return Pairing("index", shared.second)
    own, other, over = seen
    partners, agreements, weights, matched = [], [], [], []
    for layer in shared.layers:
        columns, there = shared.first[layer.columns], shared.second[layer.columns]
        correlation = distance.correlations(own[:, columns], other[:, there])
        partner = np.arange(layer.units)
        if not _is_output(layer, first, second):
            agreement = distance.order_agreement(correlation)
            if np.isfinite(agreement):
                agreements.append(agreement)
                weights.append(layer.units)
            if how != "index":
                partner = distance.match_units(correlation)
        partners.append(partner)
        matched.append(correlation[np.arange(layer.units), partner])
    agreement = float(np.average(agreements, weights=weights)) if agreements else None
    if how == "index" or (how == "auto" and agreement is not None and agreement >= COMMON_ORDER):
        return Pairing("index", shared.second, agreement, None, over)
    if how == "auto" and agreement is None:
        return Pairing("index", shared.second)
    order = np.concatenate([shared.second[e.columns][p] for e, p in zip(shared.layers, partners, strict=True)])
    moving = np.concatenate(matched)
    return Pairing("correlation", order, agreement, float(moving[moving != 0].mean()) if (moving != 0).any() else 0.0, over)


@lru_cache(maxsize=8)
def layer_similarity(first: Run, epoch: int, second: Run, second_epoch: int) -> tuple[np.ndarray, str] | None:
    """CKA of every layer of one network with every layer of the other, whatever their units: (float32 [L1, L2], over what).

    None where the runs share neither inputs nor four classes.
    """
    seen = _observations(first, epoch, second, second_epoch, SIMILARITIES)
    if seen is None:
        return None
    own, other, over = seen
    return distance.cka(*([values[:, e.columns] for e in run.layers] for values, run in ((own, first), (other, second)))), over


def comparable(first: Run, second: Run) -> bool:
    """Whether two runs share the inputs, or four classes, over which their layers and units can be correlated."""
    return same_inputs(first, second) or len(shared_classes(first, second)) >= 4


def _observations(first: Run, epoch: int, second: Run, second_epoch: int, most: int = OBSERVATIONS) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Activations of all units of both networks over the same inputs [n, U], or the same classes, and what that is in words."""
    if same_inputs(first, second) and first.kept >= 4:
        rows = np.unique(np.linspace(0, first.kept - 1, min(first.kept, most)).astype(int))
        own, other = (np.stack([run.input_activations(e, int(i)) for i in rows]) for run, e in ((first, epoch), (second, second_epoch)))
        return own, other, f"{len(rows)} inputs that both runs kept"
    labels = shared_classes(first, second)
    if len(labels) < 4:
        return None
    own, other = first.class_mean(epoch)[[a for a, _ in labels]], second.class_mean(second_epoch)[[b for _, b in labels]]
    known = np.isfinite(own).all(axis=1) & np.isfinite(other).all(axis=1)
    return (own[known], other[known], f"the means of {known.sum()} classes") if known.sum() >= 4 else None


def _is_output(layer: Layer, first: Run, second: Run) -> bool:
    last = layer.name == first.layers[-1].name == second.layers[-1].name
    return last and layer.units == len(first.classes) and first.classes == second.classes


def _columns(layers: Sequence[Layer]) -> np.ndarray:
    return np.concatenate([np.arange(e.offset, e.offset + e.units) for e in layers]) if layers else np.zeros(0, dtype=np.int64)
