"""What happens to units and layers from snapshot to snapshot: events of units, figures of layers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from dnnviz import results
from dnnviz.analysis.units import dead_units
from dnnviz.results import Results
from dnnviz.store import Layer, Run

DIED, REVIVED, SWITCHED = 1, 2, 3

# What a layer can be followed by over the epochs, in the order of the choice on screen.
FIGURES: dict[str, str] = {
    "dead": "Share of dead units",
    "mean": "Mean activation",
    "change": "Change since the snapshot before",
    "remaining": "Distance to the last snapshot",
}

# A difference between two class means counts from a small effect on (Cohen 1988), in standard deviations within the classes …
SMALL_EFFECT = 0.2
# … and from this many standard errors on, so that classes with few inputs do not trade places by chance.
STANDARD_ERRORS = 2.0
# Means that differ by less than rounding are equal, even where a unit does not vary within its classes.
ROUNDING = 1e-4

SETTLED = 0.1  # distance to the last snapshot below which a layer counts as settled

NONE = -1  # preferred class of a dead unit


@dataclass(frozen=True)
class Evolution:
    """E snapshots of a run with U units and L layers, in the order of `run.epochs`.

    events: uint8 [E, U], what happened to a unit since the snapshot before: 0 nothing, DIED, REVIVED or SWITCHED; row 0 is 0.
    preferred: int16 [E, U], the class a unit prefers; NONE for a dead unit.
    dead, mean, change, remaining: float32 [E, L], the figures of FIGURES; the first row of `change` is NaN.
    """

    events: np.ndarray
    preferred: np.ndarray
    dead: np.ndarray
    mean: np.ndarray
    change: np.ndarray
    remaining: np.ndarray


class Event(NamedTuple):
    """What happened to a unit (DIED, REVIVED, SWITCHED), and the class it preferred before and after (NONE where it was dead)."""

    kind: int
    layer: str
    unit: int
    before: int
    after: int


def evolution(run: Run, cache: Results) -> Evolution:
    """The evolution of a run, computed once and kept in the results cache under the content of its snapshots."""
    counts = run.class_counts.tolist()
    snapshots = [run.digest(epoch) for epoch in run.epochs]
    key = results.key("evolution", version=2, snapshots=snapshots, counts=counts, layers=[e.units for e in run.layers])
    held = cache.get(key)
    if held is None:
        with cache.lock(key):
            held = cache.get(key)
            if held is None:
                found = follow(run)
                held = {field.name: getattr(found, field.name) for field in fields(Evolution)}
                cache.put(key, held)
    return Evolution(**held)


def follow(run: Run) -> Evolution:
    """The evolution of a run over all its splits; holds the class means of three snapshots at a time."""
    count = len(run.epochs)
    events = np.zeros((count, run.units), dtype=np.uint8)
    preferred = np.full((count, run.units), NONE, dtype=np.int16)
    dead, mean, change, remaining = np.full((4, count, len(run.layers)), np.nan, dtype=np.float32)
    class_sizes = run.class_counts.sum(axis=0)
    last = class_profiles(run.class_mean(run.epochs[-1]), class_sizes)
    before: np.ndarray | None = None
    for i, epoch in enumerate(run.epochs):
        class_mean = run.class_mean(epoch)
        activation = run.data_mean(epoch)
        silent = dead_units(run.active(epoch), activation)
        settled = preferred[i - 1] if i else np.full(run.units, NONE, dtype=np.int16)
        preferred[i] = np.where(silent, NONE, preferred_class(class_mean, run.class_std(epoch), class_sizes, settled))
        if i:
            events[i] = unit_events(preferred[i - 1], preferred[i])
        for j, layer in enumerate(run.layers):
            dead[i, j] = silent[layer.columns].mean()
            mean[i, j] = activation[layer.columns].mean()
        profiles = class_profiles(class_mean, class_sizes)
        if before is not None:
            change[i] = profile_distance(before, profiles, run.layers)
        remaining[i] = profile_distance(profiles, last, run.layers)
        before = profiles
    return Evolution(events, preferred, dead, mean, change, remaining)


def events_at(run: Run, found: Evolution, epoch: int) -> list[Event]:
    """What happened since the snapshot before `epoch`: units that died, came alive, changed class; each in the order of the layers."""
    i = run.epochs.index(epoch)
    before = found.preferred[max(i - 1, 0)]
    names = [(layer.name, unit) for layer in run.layers for unit in range(layer.units)]
    columns = np.concatenate([np.flatnonzero(found.events[i] == kind) for kind in (DIED, REVIVED, SWITCHED)])
    return [Event(int(found.events[i, c]), *names[c], int(before[c]), int(found.preferred[i, c])) for c in columns]


def settled_from(remaining: np.ndarray) -> np.ndarray:
    """From which snapshot on each layer stays within SETTLED of its last state: int64 [L], rows of `remaining` [E, L]."""
    away = ~(remaining <= SETTLED)
    return np.where(away.any(axis=0), len(remaining) - away[::-1].argmax(axis=0), 0)


def first_and_last(start: np.ndarray, most: int) -> list[int]:
    """At most `most` layers, in the order of the network: all of them, or the half that settles first and the half that settles last."""
    order = np.argsort(start, kind="stable")
    chosen = order if len(order) <= most else np.concatenate([order[: most // 2], order[-(most // 2) :]])
    return sorted(int(i) for i in chosen)


def metric_courses(run: Run, name: str) -> dict[str, list[float]]:
    """A metric (`accuracy`, `loss`) of every split at every epoch, NaN where it was not recorded; splits without any are left out."""
    metrics = [run.metrics(epoch) for epoch in run.epochs]
    courses = {split: [_number(entry.get("splits", {}).get(split, {}).get(name)) for entry in metrics] for split in run.splits}
    if not any(np.isfinite(course).any() for course in courses.values()):
        courses = {"all inputs": [_number(entry.get(name)) for entry in metrics]}
    return {split: course for split, course in courses.items() if np.isfinite(course).any()}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def preferred_class(mean: np.ndarray, std: np.ndarray, sizes: np.ndarray, settled: np.ndarray) -> np.ndarray:
    """The class that excites each unit most, where it leads clearly over the one that was preferred before.

    mean, std: float [K, U], mean and standard deviation of the activation within each class (NaN for a class without
    inputs); sizes: int [K], inputs of each class; settled: int [U], the class preferred so far, NONE for no preference.
    A unit leaves its class only when another one leads it by more than SMALL_EFFECT pooled standard deviations (Cohen's d;
    J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988) and by more than STANDARD_ERRORS standard errors:
    two classes that are level do not make a unit change its mind at every snapshot. Returns int16 [U].
    """
    ranked = np.where(np.isfinite(mean), mean, -np.inf)
    best = ranked.argmax(axis=0)
    old = np.where(settled == NONE, best, settled).astype(np.intp)
    units = np.arange(mean.shape[1])
    spread = np.sqrt((np.nan_to_num(std[best, units]) ** 2 + np.nan_to_num(std[old, units]) ** 2) / 2)
    error = np.sqrt(1 / np.maximum(sizes[best], 1) + 1 / np.maximum(sizes[old], 1))
    with np.errstate(invalid="ignore"):
        lead = ranked[best, units] - ranked[old, units]
        clear = (lead > np.maximum(SMALL_EFFECT, STANDARD_ERRORS * error) * spread) & (lead > ROUNDING * np.abs(ranked[best, units]))
    return np.where(clear, best, old).astype(np.int16)


def unit_events(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What happened to each unit, from its preferred class before and after (NONE = dead): uint8 [U]."""
    was_dead, is_dead = before == NONE, after == NONE
    events = np.zeros(len(after), dtype=np.uint8)
    events[~was_dead & is_dead] = DIED
    events[was_dead & ~is_dead] = REVIVED
    events[~was_dead & ~is_dead & (before != after)] = SWITCHED
    return events


def class_profiles(mean: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Class means of the classes that have inputs, each unit centred over them (with one such class: as they are): float32 [K', U]."""
    known = mean[sizes > 0]
    return known - known.mean(axis=0) if len(known) > 1 else known


def profile_distance(a: np.ndarray, b: np.ndarray, layers: tuple[Layer, ...]) -> np.ndarray:
    """How far the class profiles of each layer lie apart in two snapshots of one run: float64 [L], 0 equal, 1 unrelated, at most 2.

    a, b: float [K, U], `class_profiles`. One minus the cosine of the two K × units matrices. It does not see a layer that
    merely grows or gains an offset, and needs no matching, since the units of two snapshots of one network are the same.
    That networks settle from the input on upwards was shown with SVCCA by M. Raghu et al., SVCCA, NeurIPS 2017; where units
    have no common order, use such a measure.
    """
    dots, a_squares, b_squares = (np.einsum("ku,ku->u", x, y, dtype=np.float64) for x, y in ((a, b), (a, a), (b, b)))
    distances = np.empty(len(layers))
    for i, layer in enumerate(layers):
        dot, aa, bb = (float(values[layer.columns].sum()) for values in (dots, a_squares, b_squares))
        if aa == 0 or bb == 0:
            # A layer whose units do not tell classes apart has no profile; it is far from any that has one.
            distances[i] = 0.0 if aa == bb else 1.0
        else:
            distances[i] = 1 - np.clip(dot / np.sqrt(aa * bb), -1, 1)
    return distances
