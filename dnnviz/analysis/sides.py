"""What stands on either side of a comparison: a run at an epoch, and what is shown of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dnnviz.store import Run

MOST_CHOSEN = 200  # inputs of a group, which stand in the address


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


def members(side: Side) -> np.ndarray:
    """int64: the kept inputs that a side shows."""
    kind, _, index = side.show.partition(":")
    if kind in ("input", "group"):
        return np.array(sorted(int(i) for i in index.split(",")))
    kept = np.ones(side.run.kept, dtype=bool) if kind == "data" else side.run.labels == int(index)
    return np.flatnonzero(kept if side.split is None else kept & (side.run.input_splits == side.run.splits.index(side.split)))


def group_of(text: str, run: Run) -> str | None:
    """What a side shows for inputs chosen one by one (numbers between commas), `group:1,5,9`; None where the text names no such inputs."""
    numbers = text.split(",")
    if len(numbers) > MOST_CHOSEN or not all(each.isdecimal() and len(each) < 10 for each in numbers):
        return None
    found = sorted({int(each) for each in numbers})
    return "group:" + ",".join(map(str, found)) if found[-1] < run.kept else None


def one_network(first: Side, second: Side) -> bool:
    """Whether both sides are the same network over the same split, so that there is one picture of its classes."""
    return first.network == second.network and first.split == second.split


def same_inputs(first: Run, second: Run) -> bool:
    """Whether two runs kept the same inputs, by their names and classes (a mark in an image is no other input)."""
    if first is second:
        return True
    return first.kept == second.kept and first.classes == second.classes and np.array_equal(first.labels, second.labels) and first.ids == second.ids


def shared_classes(first: Run, second: Run) -> list[tuple[int, int]]:
    """Classes that both runs know by name: (number in the first, number in the second)."""
    if first.classes == second.classes:
        return [(k, k) for k in range(len(first.classes))]
    there = {name: k for k, name in enumerate(second.classes)}
    return [(k, there[name]) for k, name in enumerate(first.classes) if name in there]


def two_splits(run: Run) -> tuple[str, str] | None:
    """(training, held-out) split, or None where a run has one split only."""
    if len(run.splits) < 2:
        return None
    first = "train" if "train" in run.splits else run.splits[0]
    return first, next(name for name in run.splits if name != first)


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
