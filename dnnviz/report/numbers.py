"""The numbers of a report, computed once and shown in its sections: the same as those of the library and of the app's pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz.analysis.comparison import Comparison, Side, compare, shared_classes
from dnnviz.analysis.diagnosis import Finding, Subject
from dnnviz.analysis.diagnosis.classes import confusion
from dnnviz.store import Layer, Run

UNITS_A_LAYER = 3
LAYERS_WITH_UNITS = 4
CLASSES_COMPARED = 24


@dataclass(frozen=True)
class Unit:
    """A unit that tells a class: its layer, number within it, the class, and how far the class's mean activation lies above that of all
    inputs, in standard deviations of the unit."""

    layer: Layer
    number: int
    label: int
    effect: float


@dataclass(frozen=True)
class Against:
    """The comparison with another run: both sides, distances of the layers they share, classes with (accuracy, accuracy, distance)."""

    first: Side
    second: Side
    found: Comparison
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
    """Compare a run's snapshot with that of another one, over all inputs of each."""
    first, second = (Side(each.run, each.epoch, id=name) for each, name in zip((subject, other), names, strict=True))
    found = compare(first, second)
    own, theirs = class_accuracies(subject), class_accuracies(other)
    classes = []
    for a, b in shared_classes(subject.run, other.run)[:CLASSES_COMPARED]:
        sides = [Side(side.run, side.epoch, f"class:{k}", id=side.id) for side, k in ((first, a), (second, b))]
        comparable = len(found.shared.layers) > 0 and all(side.empty_class is None for side in sides)
        apart = float(np.sqrt(np.mean(compare(*sides).difference ** 2))) if comparable else None
        classes.append((subject.run.classes[a], *(table[k][1] / table[k][0] if k in table else None for table, k in ((own, a), (theirs, b))), apart))
    return Against(first, second, found, classes)


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
        layers = {layer.name: float(d) for layer, d in zip(versus.found.shared.layers, versus.found.distances, strict=True)}
        numbers["against"] = {"run": versus.second.name, "epoch": versus.second.epoch, "layers": layers, "classes": versus.classes}
    return _plain(numbers)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
