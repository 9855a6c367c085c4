"""The numbers of a report, computed once and shown in its sections: the same as those of the library and of the app's pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz.analysis.comparison import Comparison, compare, significance
from dnnviz.analysis.diagnosis import Finding, Subject
from dnnviz.analysis.diagnosis.classes import confusion
from dnnviz.analysis.distance import rank_units
from dnnviz.analysis.matching import layer_similarity
from dnnviz.analysis.moves import Moves, moves
from dnnviz.analysis.sides import Side, shared_classes
from dnnviz.errors import RunError
from dnnviz.store import Layer, Run

UNITS_A_LAYER = 3
LAYERS_WITH_UNITS = 4
CLASSES_COMPARED = 24
UNITS_COMPARED = 12


@dataclass(frozen=True)
class Unit:
    """A unit that tells a class: its layer, number within it, the class, and how far the class's mean activation lies above that of all
    inputs, in standard deviations of the unit."""

    layer: Layer
    number: int
    label: int
    effect: float


@dataclass(frozen=True)
class Differing:
    """A unit that differs between two networks: its layer, number in the first, that of its partner in the second, their means, and the
    difference in standard deviations."""

    layer: Layer
    number: int
    partner: int
    first: float
    second: float
    difference: float


@dataclass(frozen=True)
class Against:
    """The comparison with another snapshot.

    first, second: both sides. found: over the layers they share. p: of each of those layers, None where there is no test; tested: over
    what, or why there is none. units: those that differ most. similarity: of every layer of one with every layer of the other
    (float32 [L1, L2], over what), None where nothing is shared to compare them by. moved: how predictions moved, or why that is not known.
    judged: the inputs that those are of, in words. classes: (name, accuracy, accuracy, distance).
    """

    first: Side
    second: Side
    found: Comparison
    p: np.ndarray | None
    tested: str
    units: list[Differing]
    similarity: tuple[np.ndarray, str] | None
    moved: Moves | str
    judged: str
    classes: list[tuple[str, float | None, float | None, float | None]]


def telling_units(run: Run, epoch: int) -> list[Unit]:
    """The units that tell a class best, in a few layers evenly over the depth; none of the output layer, which tells classes by its making."""
    subject_layers = [layer for layer in run.layers if not (layer is run.layers[-1] and layer.units == run.logits(epoch).shape[1])] or list(
        run.layers
    )
    chosen = np.unique(np.linspace(0, len(subject_layers) - 1, min(LAYERS_WITH_UNITS, len(subject_layers))).round().astype(int))
    found = []
    for layer in (subject_layers[i] for i in chosen):
        mean, std = run.data_mean(epoch, layer), run.data_std(epoch, layer)
        effects = np.divide(run.class_mean(epoch, layer) - mean, std, out=np.zeros((len(run.classes), layer.units), np.float32), where=std > 0)
        effects = np.where(np.isfinite(effects), effects, -np.inf)
        best = effects.max(axis=0)
        order = [int(u) for u in np.argsort(-best, kind="stable")[:UNITS_A_LAYER] if best[u] > 0]
        found += [Unit(layer, u, int(effects[:, u].argmax()), float(best[u])) for u in order]
    return found


def class_accuracies(subject: Subject) -> dict[int, tuple[int, int]]:
    """{class: (inputs on which the network is judged, those that are right)} of classes that have any."""
    table = confusion(subject)
    return {i: (int(row.sum()), int(row[i])) for i, row in enumerate(table) if row.sum()}


def against(subject: Subject, other: Subject, names: tuple[str, str]) -> Against:
    """Compare a run's snapshot with another one, over all inputs of each; predictions over those on which the network is judged."""
    first, second = (Side(each.run, each.epoch, id=name) for each, name in zip((subject, other), names, strict=True))
    found = compare(first, second)
    p, tested = significance(first, second)
    rows, judged = subject.judged
    try:
        moved = moves(Side(subject.run, subject.epoch, "group:" + ",".join(map(str, rows)), id=names[0]), second)
    except RunError as error:
        moved = str(error)
    classes = _classes(first, second, class_accuracies(subject), class_accuracies(other), len(found.shared.layers) > 0)
    similarity = layer_similarity(*first.network, *second.network)
    return Against(first, second, found, p, tested, _differing(found), similarity, moved, judged, classes)


def _classes(
    first: Side, second: Side, own: dict[int, tuple[int, int]], theirs: dict[int, tuple[int, int]], comparable: bool
) -> list[tuple[str, float | None, float | None, float | None]]:
    """(name, accuracy, accuracy, distance) of the classes that both know and either has inputs of; of many those whose accuracy differs most."""
    found = [(a, b) for a, b in shared_classes(first.run, second.run) if a in own or b in theirs]
    accuracy = {(a, b): tuple(table[k][1] / table[k][0] if k in table else None for table, k in ((own, a), (theirs, b))) for a, b in found}
    if len(found) > CLASSES_COMPARED:
        gap = {pair: -abs(x - y) if x is not None and y is not None else 0.0 for pair, (x, y) in accuracy.items()}
        found = sorted(sorted(found, key=lambda pair: gap[pair])[:CLASSES_COMPARED])
    classes = []
    for a, b in found:
        sides = [Side(side.run, side.epoch, f"class:{k}", id=side.id) for side, k in ((first, a), (second, b))]
        apart = None
        if comparable and all(side.empty_class is None for side in sides):
            difference = compare(*sides).difference
            known = difference[np.isfinite(difference)]
            apart = float(np.sqrt(np.mean(known**2))) if len(known) else None
        classes.append((first.run.classes[a], *accuracy[a, b], apart))
    return classes


def _differing(found: Comparison) -> list[Differing]:
    """The units that differ most, each with its partner."""
    owner = np.repeat(np.arange(len(found.shared.layers)), [layer.units for layer in found.shared.layers])
    units = []
    for column in rank_units(found.difference, UNITS_COMPARED).tolist():
        layer = found.shared.layers[owner[column]]
        values = (float(each[column]) for each in (found.first, found.second, found.difference))
        units.append(Differing(layer, column - layer.offset, int(found.partners[column]), *values))
    return units


def as_json(run_id: str, subject: Subject, findings: list[Finding], versus: Against | None) -> dict[str, Any]:
    """The numbers of a report as JSON can hold them; what is not finite is null."""
    run = subject.run
    numbers = {
        "run": run_id,
        "epoch": subject.epoch,
        "metrics": {epoch: run.metrics(epoch) for epoch in run.epochs},
        "classes": {run.classes[i]: {"inputs": n, "right": right} for i, (n, right) in class_accuracies(subject).items()},
        "findings": {f.check: {"severity": f.severity, "sentence": f.sentence, "values": dict(f.values)} for f in findings},
    }
    if versus is not None:
        layers = [layer.name for layer in versus.found.shared.layers]
        moved = versus.moved
        numbers["against"] = {
            "run": versus.second.name,
            "epoch": versus.second.epoch,
            "layers": dict(zip(layers, versus.found.distances.tolist(), strict=True)),
            "p": None if versus.p is None else dict(zip(layers, versus.p.tolist(), strict=True)),
            "units": [
                {"layer": u.layer.name, "unit": u.number, "partner": u.partner, "first": u.first, "second": u.second, "difference": u.difference}
                for u in versus.units
            ],
            "similarity": None
            if versus.similarity is None
            else {
                "over": versus.similarity[1],
                "first": [layer.name for layer in run.layers],
                "second": [layer.name for layer in versus.second.run.layers],
                "cka": versus.similarity[0].tolist(),
            },
            "predictions": None
            if isinstance(moved, str)
            else {
                "inputs": len(moved.inputs),
                "moved": int(moved.moved.sum()),
                "mended": int(moved.mended.sum()),
                "broken": int(moved.broken.sum()),
                "p": moved.p_value(),
            },
            "classes": versus.classes,
        }
    return _plain(numbers)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
