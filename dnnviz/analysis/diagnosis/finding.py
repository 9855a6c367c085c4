"""What a check of a run's health finds, and the registry of checks: one function a check, each with how it is computed and its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dnnviz.analysis.sides import two_splits
from dnnviz.results import Results
from dnnviz.store import Run

# Severities by rank: what a colleague should look at first comes first.
ATTENTION, LOOK, FINE, UNKNOWN = "attention", "look", "fine", "unknown"
SEVERITIES: dict[str, str] = {ATTENTION: "Attention", LOOK: "Worth a look", FINE: "Fine", UNKNOWN: "Could not be checked"}

PERCENT = "%"  # unit of a picture whose values are shares, 0 to 1


@dataclass(frozen=True)
class Bars:
    """A picture of one value a name. marked: rows that the finding is about. unit: "" or PERCENT. log: bars by order of magnitude."""

    names: tuple[str, ...]
    values: tuple[float, ...]
    marked: frozenset[int] = frozenset()
    unit: str = ""
    log: bool = False
    title: str = ""


@dataclass(frozen=True)
class Course:
    """A picture of values over the epochs: name → one value an epoch (NaN: not known). mark: the epoch in question; strong: its lines."""

    epochs: tuple[int, ...]
    series: Mapping[str, tuple[float, ...]]
    mark: int | None = None
    strong: frozenset[str] = frozenset()
    unit: str = ""
    title: str = ""


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: mean confidence, accuracy and number of inputs of each bin that holds any."""

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    counts: tuple[int, ...]
    title: str = ""


@dataclass(frozen=True)
class Link:
    """Where the app shows a finding: text of the link, path of the page, and query keys beside run and epoch."""

    text: str
    path: str
    values: Mapping[str, str] = field(default_factory=dict)


UNSURE = Link("See the inputs it is least sure of", "/attribution", {"by": "unsure"})


@dataclass(frozen=True)
class Finding:
    """What a check says of a run: a severity, one sentence with its numbers, the evidence, and where to look further.

    weight: order among findings of one severity, larger first. values: the numbers behind the sentence, by name.
    check: name of the check, filled in by `diagnose`.
    """

    severity: str
    sentence: str
    values: Mapping[str, Any] = field(default_factory=dict)
    link: Link | None = None
    picture: Bars | Course | Reliability | None = None
    weight: float = 0.0
    check: str = ""


@dataclass(frozen=True)
class Subject:
    """What is checked: a snapshot of a run, with the cache that holds what jobs have computed of it; obstacle: why its network cannot run."""

    run: Run
    epoch: int
    results: Results
    obstacle: str | None = None

    @property
    def judged(self) -> tuple[np.ndarray, str]:
        """(numbers of the kept inputs on which the network is judged, which they are in words): held-out ones where there are any."""
        splits = two_splits(self.run)
        if splits is not None:
            held_out = np.flatnonzero(self.run.input_splits == self.run.splits.index(splits[1]))
            if len(held_out):
                return held_out, f"{len(held_out):,} inputs of {splits[1]}"
        return np.arange(self.run.kept), f"{self.run.kept:,} inputs"

    @property
    def output_layer(self) -> str | None:
        """Name of the layer whose units are the network's answers; None where there is none among the layers."""
        last = self.run.layers[-1]
        return last.name if last.units == self.run.logits(self.epoch).shape[1] else None


@dataclass(frozen=True)
class Check:
    """One check: its name in code, title on screen, how it is computed, the source, and the function in charge."""

    name: str
    title: str
    how: str
    source: str
    run: Callable[[Subject], Finding]


CHECKS: dict[str, Check] = {}


def check(name: str, title: str, how: str, source: str = "") -> Callable[[Callable[[Subject], Finding]], Callable[[Subject], Finding]]:
    """Register a check; the function returns what it finds, and raises DNNVizError with the reason where it cannot tell."""

    def put(function: Callable[[Subject], Finding]) -> Callable[[Subject], Finding]:
        CHECKS[name] = Check(name, title, how, source, function)
        return function

    return put


def percent(share: float) -> str:
    """A share in words: 12.5 %, 98 %."""
    value = 100 * share
    return f"{value:.0f} %" if value == 0 or abs(value) >= 10 else f"{value:.1f} %"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence: `a, b and 4 more`."""
    if len(names) <= most:
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
