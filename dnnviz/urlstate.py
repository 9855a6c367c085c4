"""Query string ↔ validated selection: nothing that comes from a browser is used before it went through here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from dnnviz.catalogue import Catalogue
from dnnviz.errors import RunError
from dnnviz.store import Run

_SHOW = re.compile(r"^(data|class:(\d{1,9})|input:(\d{1,9}))$")


@dataclass(frozen=True)
class Selection:
    """What a page shows: run id, epoch, show (`data`, `class:3`, `input:17`), layer and unit (None = nothing chosen).

    `extra` holds the page's own keys, always as text; `run` is the opened run, None where there is none at all.
    """

    run_id: str
    run: Run | None
    epoch: int = 0
    show: str = "data"
    layer: str | None = None
    unit: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def show_kind(self) -> str:
        return self.show.partition(":")[0]

    @property
    def show_index(self) -> int | None:
        text = self.show.partition(":")[2]
        return int(text) if text else None


def parse(query: Mapping[str, object], catalogue: Catalogue, extra: Mapping[str, str] | None = None) -> tuple[Selection, list[str]]:
    """Read a query: (selection, sentences about what in it does not exist and what is shown instead).

    extra: the page's own query keys with their defaults. Unknown keys are ignored. Never raises.
    """
    problems: list[str] = []
    given = {name: value for name, value in query.items() if isinstance(value, str)}
    more = {name: given.get(name, default) for name, default in (extra or {}).items()}
    run_id, run = _run(given.get("run"), catalogue, problems)
    if run is None or not run.epochs:
        return Selection(run_id, None, extra=more), problems
    epoch = _epoch(given.get("epoch"), run, problems)
    show = valid_show(given.get("show", "data"), run)
    if show is None:
        problems.append(f"This run has no “{given['show']}”; the data set is shown. Try “data”, “class:0” or “input:0”.")
        show = "data"
    layer = given.get("layer") or None
    if layer is not None and layer not in {entry.name for entry in run.layers}:
        problems.append(f"This run has no layer “{layer}”.")
        layer = None
    unit = None
    text = given.get("unit", "")
    if layer is not None and text:
        if text.isdigit() and int(text) < run.layer(layer).units:
            unit = int(text)
        else:
            problems.append(f"Layer {layer} has units 0 to {run.layer(layer).units - 1}; there is no unit “{text}”.")
    return Selection(run_id, run, epoch, show, layer, unit, more), problems


def valid_show(text: object, run: Run) -> str | None:
    """`text` where it names something of this run (`data`, `class:3`, `input:17`), otherwise None."""
    match = _SHOW.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    if match[2] is not None and int(match[2]) >= len(run.classes):
        return None
    if match[3] is not None and int(match[3]) >= run.kept:
        return None
    return match[1]


def from_data(data: Mapping[str, object] | None, catalogue: Catalogue, extra: Mapping[str, str] | None = None) -> Selection:
    """The selection in the shell's store, validated as a query is (its problems were shown when the page was made)."""
    texts = {name: str(value) for name, value in (data or {}).items() if value is not None}
    return parse(texts, catalogue, extra)[0]


def query(**values: object) -> str:
    """A query string with the leading `?`; values that are None or empty are left out."""
    return "?" + urlencode({name: value for name, value in values.items() if value is not None and value != ""})


def _run(name: str | None, catalogue: Catalogue, problems: list[str]) -> tuple[str, Run | None]:
    problems.extend(entry.reason for entry in catalogue.broken() if entry.id == name)
    ids = catalogue.ids()
    if not ids:
        return "", None
    if name and name not in ids and not problems:
        problems.append(f"There is no run called “{name}” here; {ids[0]} is shown.")
    chosen = name if name in ids else ids[0]
    try:
        return chosen, catalogue.open(chosen)
    except (RunError, OSError) as error:
        problems.append(str(error))
        return chosen, None


def _epoch(text: str | None, run: Run, problems: list[str]) -> int:
    if not text:
        return run.epochs[-1]
    try:
        wanted = int(text)
    except ValueError:
        problems.append(f"“{text[:40]}” is no epoch; epoch {run.epochs[-1]} is shown.")
        return run.epochs[-1]
    if wanted in run.epochs:
        return wanted
    nearest = min(run.epochs, key=lambda epoch: abs(epoch - wanted))
    problems.append(f"This run has no snapshot of epoch {wanted}; the nearest, epoch {nearest}, is shown.")
    return nearest
