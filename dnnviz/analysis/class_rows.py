"""One layer over the classes of two networks, and how far classes lie apart between training and held-out inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dnnviz.analysis import distance
from dnnviz.analysis.comparison import Comparison
from dnnviz.analysis.matching import pair_units, shared_layers
from dnnviz.analysis.sides import Side, one_network, shared_classes, two_splits
from dnnviz.analysis.tampering import FEW, Measured, judged, relative_gap
from dnnviz.errors import RunError
from dnnviz.store import Layer, Run

ROWS: dict[str, str] = {"auto": "Automatic", "means": "Class means", "gap": "Training − held out"}
MOMENTS = 6  # pictures side by side of one layer over training


@dataclass(frozen=True)
class ClassLayer:
    """One layer, all classes that both runs know: float32 [K, units] each.

    first, second: means of the classes, or (rows `gap`) how far a class lies apart between the splits of each run.
    difference: second − first, in standard deviations of the unit; for one network its class means less that of all inputs,
    or its gap. first_shade, second_shade: what the cells show; of means their share of the unit's strongest class on both
    sides, of gaps the gaps themselves.
    """

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    first_shade: np.ndarray
    second_shade: np.ndarray


@dataclass(frozen=True)
class Multiples:
    """One layer, all classes that both runs know, at several moments of training of both runs.

    titles: of each moment. values: float32 [P, K, units], class means; shades: [P, K, units], 0…1, their share of the unit's
    strongest class at any of the moments.
    """

    titles: tuple[str, ...]
    values: np.ndarray
    shades: np.ndarray


@dataclass(frozen=True)
class Gap:
    """How far each class lies apart between training and held-out inputs of one network.

    splits: the two splits. distances: float64 [K, L], in standard deviations of the units. measured: the same over all units,
    relative to what drawing the inputs alone gives, and the robust z of each class (see dnnviz.analysis.tampering).
    """

    splits: tuple[str, str]
    distances: np.ndarray
    measured: Measured

    @property
    def outlier(self) -> int | None:
        """The class that lies much further apart than the others, or None."""
        share = self.measured.share
        if np.isfinite(share).sum() < FEW:
            return None
        label = int(np.nanargmax(share))
        return label if share[label] > 1 else None


def class_layer(first: Side, second: Side, layer: Layer, how: str = "auto", rows: str = "means") -> ClassLayer:
    """One shared layer, all shared classes, on two sides. layer: an entry of `shared_layers(...).layers`; rows: a key of ROWS."""
    shared = shared_layers(first.run, second.run)
    pairing = pair_units(*first.network, *second.network, how)
    labels = np.array(shared_classes(first.run, second.run), dtype=np.int64).reshape(-1, 2)
    order = pairing.second[layer.columns] - shared.second[layer.offset]
    one = one_network(first, second)
    if rows == "gap":
        a = _split_gap(*first.network, layer.name)[labels[:, 0]]
        b = _split_gap(*second.network, layer.name)[labels[:, 1]][:, order]
        return ClassLayer(a, b, a if first.network == second.network else b - a, a, b)
    a = first.run.class_mean(first.epoch, layer.name, first.split)[labels[:, 0]]
    b = second.run.class_mean(second.epoch, layer.name, second.split)[labels[:, 1]][:, order]
    base = np.broadcast_to(first.run.data_mean(first.epoch, layer.name, first.split), a.shape) if one else a
    std = distance.pooled_std(first.run.data_std(first.epoch, layer.name), second.run.data_std(second.epoch, layer.name)[order])
    difference = distance.standardised_difference(base, b, std, [slice(0, layer.units)])
    return ClassLayer(a, b, difference, *_shades(np.stack([a, b])))


@lru_cache(maxsize=2)  # with 1,000 classes one takes 100 MB
def multiples(first: Side, second: Side, name: str, how: str = "auto") -> Multiples:
    """Small multiples of a layer over classes, runs and epochs; name: that of a shared layer.

    Up to MOMENTS moments, evenly over the epochs of each run; units of the second run stand beside those of the first as at the epochs
    that are compared.
    """
    shared = shared_layers(first.run, second.run)
    layer = next(e for e in shared.layers if e.name == name)
    pairing = pair_units(*first.network, *second.network, how)
    order = pairing.second[layer.columns] - shared.second[layer.offset]
    labels = np.array(shared_classes(first.run, second.run), dtype=np.int64).reshape(-1, 2)
    one = first.run is second.run
    titles, values = [], []
    for letter, side, own, units in (("A", first, labels[:, 0], np.arange(layer.units)), *(() if one else (("B", second, labels[:, 1], order),))):
        for epoch in _moments(side, second if one else None, MOMENTS if one else MOMENTS // 2):
            titles.append(f"epoch {epoch}" if one else f"{letter} · epoch {epoch}")
            values.append(side.run.class_mean(epoch, name, side.split)[own][:, units])
    stacked = np.stack(values)
    return Multiples(tuple(titles), stacked, _shades(stacked))


@lru_cache(maxsize=16)
def gap(run: Run, epoch: int) -> Gap | None:
    """How far each class lies apart between training and held-out inputs; None for a run of one split.

    A mark hidden in all training images of a class moves that class, and no other, where the held-out images lack it;
    it needs no second network, whose units would all differ. Attack: M. Alberti et al., Are You Tampering With My
    Data?, ECCV workshops 2018.
    """
    splits = two_splits(run)
    if splits is None:
        return None
    distances = [distance.layer_distances(_split_gap(run, epoch, layer.name), [slice(0, layer.units)])[:, 0] for layer in run.layers]
    return Gap(splits, np.stack(distances, axis=1), judged("gap", relative_gap(run, epoch)))


def rows_shown(first: Side, second: Side, asked: str) -> str:
    """What the rows of classes show, `means` or `gap`.

    Asked for nothing in particular: the gap for two runs that have held-out inputs, since between two networks every
    class moves, and only the gap singles one out; else the means.
    """
    possible = two_splits(first.run) is not None and two_splits(second.run) is not None
    if asked == "gap" or (asked != "means" and first.run is not second.run):
        return "gap" if possible else "means"
    return "means"


def telling_layer(first: Side, second: Side, found: Comparison, layers: Sequence[Layer], rows: str) -> str | None:
    """Name of the layer, of those given, to show over all classes: where a class that stands out does so most, else the furthest apart."""
    index = {layer.name: i for i, layer in enumerate(found.shared.layers)}
    if not layers:
        return None
    measured = {layer.name: float(found.distances[index[layer.name]]) for layer in layers}
    for side in (first, second) if rows == "gap" else ():
        apart = gap(*side.network)
        if apart is not None and apart.outlier is not None:
            measured = {layer.name: float(d) for layer, d in zip(side.run.layers, apart.distances[apart.outlier], strict=True)}
            break
    return max((layer.name for layer in layers), key=lambda name: np.nan_to_num(measured[name]))


def _moments(side: Side, other: Side | None, count: int) -> list[int]:
    """Up to `count` epochs of a run, evenly from first to last, those that are compared among them."""
    epochs = side.run.epochs
    wanted = {side.epoch, *([other.epoch] if other else [])}
    even = [epochs[k] for k in np.unique(np.linspace(0, len(epochs) - 1, min(count, len(epochs))).round().astype(int))]
    while len(wanted | set(even)) > count:
        # What lies nearest to an epoch that is compared makes room for it.
        spare = [epoch for epoch in even if epoch not in wanted]
        even.remove(min(spare, key=lambda epoch: min(abs(epochs.index(epoch) - epochs.index(w)) for w in wanted - set(even) or wanted)))
    return sorted(wanted | set(even))


def _shades(values: np.ndarray) -> np.ndarray:
    """float32 [..., units]: what lies above zero (or the least value below it) as a share of the unit's largest."""
    rest = tuple(range(values.ndim - 1))
    low = np.minimum(np.nanmin(values, axis=rest, initial=0.0), 0.0)
    span = np.nanmax(values, axis=rest, initial=0.0) - low
    return np.where(np.isfinite(values), np.divide(values - low, span, out=np.zeros_like(values), where=span > 0), np.nan).astype(np.float32)


def _split_gap(run: Run, epoch: int, layer: str) -> np.ndarray:
    """float32 [K, units]: class means of training less held-out inputs, in standard deviations of the unit over all."""
    splits = two_splits(run)
    if splits is None:
        raise RunError(f"Run {run.name} has one split only: there is nothing held out to compare the training inputs with.")
    trained, held_out = (run.class_mean(epoch, layer, split) for split in splits)
    std = run.data_std(epoch, layer)
    return distance.standardised_difference(held_out, trained, std, [slice(0, len(std))])
