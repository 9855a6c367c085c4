"""Two things side by side: (run, epoch, data set or class or input) against another, unit by unit and class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from dnnviz.analysis import distance, permutation
from dnnviz.errors import RunError
from dnnviz.store import Layer, Run

LAYER_SETS: dict[str, str] = {
    "outline": "Overview",
    "all": "All layers",
    "conv": "Convolutions",
    "linear": "Linear",
    "attention": "Attention",
    "block": "Blocks",
}
ROWS: dict[str, str] = {"auto": "Automatic", "means": "Class means", "gap": "Training − held out"}
PAIRINGS: dict[str, str] = {"auto": "Automatic", "index": "By index", "correlation": "By correlation"}
OBSERVATIONS = 300  # inputs over which units are correlated: more change the second digit of no correlation
SIMILARITIES = 1024  # inputs over which layers are compared with layers
COMMON_ORDER = 0.3  # agreement of order above which units of the same index are the same units
MOMENTS = 6  # pictures side by side of one layer over training
MOST_CHOSEN = 200  # inputs of a group, which stand in the address
FEWEST = 4  # inputs on either side from which groups can be drawn anew
CHANCE = 0.05  # p above which a layer differs by no more than chance
CLOSE = 0.5  # layers nearer than this count as shared
STANDS_OUT = 5.0  # robust z of a class's gap; of clean classes the largest is about 2, of tampered ones 10 to 48


@dataclass(frozen=True)
class Side:
    """One of the two: a run at an epoch, what is shown of it (`data`, `class:3`, `input:17`, `group:1,5,9`), and over which split (None = all).

    id: the run's id in the catalogue, by which the screen calls it.
    """

    run: Run
    epoch: int
    show: str = "data"
    split: str | None = None
    id: str = ""

    @property
    def name(self) -> str:
        return self.id or self.run.name

    @property
    def empty_class(self) -> str | None:
        """Name of the class that is shown where the run (or the split) holds no input of it, otherwise None."""
        kind, _, index = self.show.partition(":")
        if kind != "class":
            return None
        counts = self.run.class_counts[:, int(index)]
        count = counts.sum() if self.split is None else counts[self.run.splits.index(self.split)]
        return self.run.classes[int(index)] if count == 0 else None

    @property
    def values(self) -> np.ndarray:
        """float32 [U]: mean activation of every unit; NaN for a class without inputs."""
        kind, _, index = self.show.partition(":")
        if kind == "data":
            return self.run.data_mean(self.epoch, split=self.split)
        if kind == "class":
            return self.run.one_class_mean(self.epoch, int(index), self.split)
        if kind == "group":
            return np.mean([self.run.input_activations(self.epoch, int(i)) for i in index.split(",")], axis=0, dtype=np.float32)
        return self.run.input_activations(self.epoch, int(index))

    @property
    def network(self) -> tuple[Run, int]:
        return self.run, self.epoch


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
class Gap:
    """How far each class lies apart between training and held-out inputs of one network.

    splits: the two splits. distances: float64 [K, L]; effect: float64 [K], mean size over all units, in their standard
    deviations; z: robust z of the effects.
    """

    splits: tuple[str, str]
    distances: np.ndarray
    effect: np.ndarray
    z: np.ndarray

    @property
    def outlier(self) -> int | None:
        """The class that lies much further apart than the others, or None."""
        if np.isfinite(self.z).sum() < 4:
            return None
        label = int(np.nanargmax(self.z))
        return label if self.z[label] > STANDS_OUT else None


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


def group_of(text: str, run: Run) -> str | None:
    """What a side shows for inputs chosen one by one (numbers between commas), `group:1,5,9`; None where the text names no such inputs."""
    numbers = text.split(",")
    if len(numbers) > MOST_CHOSEN or not all(each.isdecimal() and len(each) < 10 for each in numbers):
        return None
    found = sorted({int(each) for each in numbers})
    return "group:" + ",".join(map(str, found)) if found[-1] < run.kept else None


def members(side: Side) -> np.ndarray:
    """int64: the kept inputs that a side shows."""
    kind, _, index = side.show.partition(":")
    if kind in ("input", "group"):
        return np.array(sorted(int(i) for i in index.split(",")))
    kept = np.ones(side.run.kept, dtype=bool) if kind == "data" else side.run.labels == int(index)
    return np.flatnonzero(kept if side.split is None else kept & (side.run.input_splits == side.run.splits.index(side.split)))


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


@dataclass(frozen=True)
class Multiples:
    """One layer, all classes that both runs know, at several moments of training of both runs.

    titles: of each moment. values: float32 [P, K, units], class means; shades: [P, K, units], 0…1, their share of the unit's
    strongest class at any of the moments.
    """

    titles: tuple[str, ...]
    values: np.ndarray
    shades: np.ndarray


@lru_cache(maxsize=8)
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
    total, count = np.zeros(len(run.classes)), np.zeros(len(run.classes))
    distances = []
    for layer in run.layers:
        difference = _split_gap(run, epoch, layer.name)
        known = np.isfinite(difference)
        total += np.where(known, np.abs(difference), 0.0).sum(axis=1)
        count += known.sum(axis=1)
        distances.append(distance.layer_distances(difference, [slice(0, layer.units)])[:, 0])
    effect = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return Gap(splits, np.stack(distances, axis=1), effect, distance.robust_z(effect))


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


def rows_shown(first: Side, second: Side, asked: str) -> str:
    """What the rows of classes show, `means` or `gap`.

    Asked for nothing in particular: the gap for two runs that have held-out inputs, since between two networks every
    class moves, and only the gap singles one out; else the means.
    """
    possible = two_splits(first.run) is not None and two_splits(second.run) is not None
    if asked == "gap" or (asked != "means" and first.run is not second.run):
        return "gap" if possible else "means"
    return "means"


def one_network(first: Side, second: Side) -> bool:
    """Whether both sides are the same network over the same split, so that there is one picture of its classes."""
    return first.network == second.network and first.split == second.split


def shared_classes(first: Run, second: Run) -> list[tuple[int, int]]:
    """Classes that both runs know by name: (number in the first, number in the second)."""
    if first.classes == second.classes:
        return [(k, k) for k in range(len(first.classes))]
    there = {name: k for k, name in enumerate(second.classes)}
    return [(k, there[name]) for k, name in enumerate(first.classes) if name in there]


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


def same_inputs(first: Run, second: Run) -> bool:
    """Whether two runs kept the same inputs, by their names and classes (a mark in an image is no other input)."""
    if first is second:
        return True
    return first.kept == second.kept and first.classes == second.classes and np.array_equal(first.labels, second.labels) and first.ids == second.ids


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


def two_splits(run: Run) -> tuple[str, str] | None:
    """(training, held-out) split, or None where a run has one split only."""
    if len(run.splits) < 2:
        return None
    first = "train" if "train" in run.splits else run.splits[0]
    return first, next(name for name in run.splits if name != first)


def _split_gap(run: Run, epoch: int, layer: str) -> np.ndarray:
    """float32 [K, units]: class means of training less held-out inputs, in standard deviations of the unit over all."""
    splits = two_splits(run)
    if splits is None:
        raise RunError(f"Run {run.name} has one split only: there is nothing held out to compare the training inputs with.")
    trained, held_out = (run.class_mean(epoch, layer, split) for split in splits)
    std = run.data_std(epoch, layer)
    return distance.standardised_difference(held_out, trained, std, [slice(0, len(std))])


def _scale(first: Side, second: Side, shared: Shared, pairing: Pairing) -> np.ndarray:
    own = first.run.data_std(first.epoch)[shared.first]
    return distance.pooled_std(own, second.run.data_std(second.epoch)[pairing.second])


def _is_output(layer: Layer, first: Run, second: Run) -> bool:
    last = layer.name == first.layers[-1].name == second.layers[-1].name
    return last and layer.units == len(first.classes) and first.classes == second.classes


def _columns(layers: Sequence[Layer]) -> np.ndarray:
    return np.concatenate([np.arange(e.offset, e.offset + e.units) for e in layers]) if layers else np.zeros(0, dtype=np.int64)


def label(side: Side) -> str:
    """What a side shows, in the words of the screen."""
    kind, _, index = side.show.partition(":")
    if kind == "group":
        return f"{index.count(',') + 1} chosen inputs"
    shown = "all inputs" if kind == "data" else f"input {index}"
    if kind == "class":
        name = side.run.classes[int(index)]
        shown = f"class {name}" if name.isdigit() else name
    if side.split and kind == "data":
        return f"{side.split} inputs"
    return f"{shown}, {side.split}" if side.split else shown


def titles(first: Side, second: Side) -> tuple[str, str]:
    """Names of the two sides, with no more than what tells them apart: run, epoch, what is shown."""
    named = []
    for side, other in ((first, second), (second, first)):
        parts = [side.name] if side.run is not other.run else []
        parts += [f"epoch {side.epoch}"] if side.epoch != other.epoch else []
        same = (side.show, side.split) == (other.show, other.split)
        parts += [label(side)] if not same or not parts or side.show != "data" else []
        named.append(" · ".join(parts))
    return named[0], named[1]
