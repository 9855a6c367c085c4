"""What the embedding page shows, in numbers: the question a query asks, predictions, colours, neighbours. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz.errors import DNNVizError
from dnnviz.project.keys import Wanted, get_graph, graph_key, projection_key, rows, wanted
from dnnviz.project.projection import DIMENSIONS
from dnnviz.project.registry import METHODS
from dnnviz.results import Results
from dnnviz.store import Layer, Run

COLOURS = {"class": "Class", "prediction": "Prediction", "right": "Right or wrong", "confidence": "Confidence", "unit": "A unit…"}
PARAMETERS = {parameter.name: parameter for method in METHODS.values() for parameter in method.parameters}
SEED_LIMIT = 9999


def default_layer(run: Run) -> Layer:
    """The layer that the page opens with: the last one before the network's output."""
    return run.layers[-2] if len(run.layers) > 1 else run.layers[-1]


def question(run: Run, epoch: int, layer: str | None, extra: Mapping[str, str]) -> tuple[Wanted, list[str]]:
    """(the projection that a query asks for, sentences about what in it cannot be and is replaced by the default)."""
    problems = []
    method = extra.get("method", "pca")
    if method not in METHODS:
        problems.append(f"There is no projection “{method[:40]}”; PCA is shown.")
        method = "pca"
    dims = extra.get("dims", "2")
    if dims not in {str(d) for d in DIMENSIONS}:
        problems.append(f"A picture has 2 or 3 dimensions, not “{dims[:40]}”.")
        dims = "2"
    split = None if extra.get("split") in (None, "", "all") else extra["split"]
    if split is not None and split not in run.splits:
        problems.append(f"This run has no split “{split[:40]}”; all inputs are shown.")
        split = None
    seed = extra.get("seed", "0") or "0"
    if not seed.isdecimal() or int(seed) > SEED_LIMIT:
        problems.append(f"The seed must be a whole number from 0 to {SEED_LIMIT}, not “{seed[:40]}”.")
        seed = "0"
    if method == "pca":
        seed = "0"  # nothing in it is left to chance
    given = {}
    for parameter in METHODS[method].parameters:
        try:
            given[parameter.name] = parameter.check(extra.get(parameter.name) or parameter.default)
        except DNNVizError as error:
            problems.append(f"{METHODS[method].title}: {error}")
    params = {"method": method, "dims": int(dims), "seed": int(seed), "params": given, "split": split, "epoch": epoch}
    return wanted(run, {**params, "layer": layer or default_layer(run).name}), problems


def predictions(run: Run, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """(predicted class int64 [n], its probability float32 [n]) of every input kept."""
    logits = run.logits(epoch)
    best = logits.argmax(axis=1)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return best, (shifted.max(axis=1) / shifted.sum(axis=1)).astype(np.float32)


def probabilities(run: Run, epoch: int, index: int) -> np.ndarray:
    """float32 [K]: the network's probabilities for one input kept."""
    logits = run.logits(epoch)[index]
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def unit_to_show(run: Run, want: Wanted, unit: int | None) -> int:
    """The unit asked for, or, where there is none, the one whose activation differs most between inputs."""
    if unit is not None and 0 <= unit < run.layer(want.layer).units:
        return unit
    spread = np.nan_to_num(run.activations(want.epoch, want.layer).var(axis=0), nan=-1.0)
    return int(spread.argmax())


def ready(cache: Results, run: Run, want: Wanted) -> bool:
    """Whether a projection and the neighbour graph under it are among the results."""
    return projection_key(run, want) in cache and graph_key(run, want) in cache


def as_pca(want: Wanted) -> Wanted:
    """The same inputs by PCA, which is there in no time."""
    return Wanted(want.epoch, want.layer, "pca", want.dims, 0, METHODS["pca"].resolve({}), want.split)


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours of one input in the full space: inputs (numbers of the run), rows in the picture, distances."""

    inputs: np.ndarray
    rows: np.ndarray
    distances: np.ndarray


def neighbours(cache: Results, run: Run, want: Wanted, index: int, count: int) -> Neighbours | None:
    """The nearest neighbours of an input, or None while their graph is not computed or where the input is not in the split."""
    shown = rows(run, want.split)
    place = np.flatnonzero(shown == index)
    graph = get_graph(cache, graph_key(run, want)) if len(place) else None
    if graph is None:
        return None
    found = graph.indices[place[0], :count].astype(np.int64)
    return Neighbours(shown[found], found, graph.distances[place[0], :count])


def parameters_text(want: Wanted) -> str:
    """The parameters of a projection in one line: `Neighbours 15, distance 0.1`."""
    parts: list[Any] = [f"{PARAMETERS[name].title.lower()} {value:g}" for name, value in want.parameters.items()]
    if want.method != "pca":
        parts.append(f"seed {want.seed}")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]
