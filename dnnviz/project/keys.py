"""What a projection of a run depends on, its keys in the results cache, and what is stored under them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz import results
from dnnviz.errors import DNNVizError
from dnnviz.project.neighbours import Graph
from dnnviz.project.projection import DIMENSIONS, Projection, graph_size
from dnnviz.project.registry import find
from dnnviz.results import Results
from dnnviz.store import Run

VERSION = 1  # part of every key: raise it when the same question gets another answer


@dataclass(frozen=True)
class Wanted:
    """One projection of a run: of which inputs (`split` None = all that are kept), in which layer and epoch, and how."""

    epoch: int
    layer: str
    method: str
    dims: int
    seed: int
    parameters: Mapping[str, Any]
    split: str | None = None

    def as_params(self, run_id: str) -> dict[str, Any]:
        """The parameters of the background job that computes it."""
        return {
            "run": run_id,
            "epoch": self.epoch,
            "layer": self.layer,
            "split": self.split,
            "method": self.method,
            "dims": self.dims,
            "seed": self.seed,
            "params": dict(self.parameters),
        }


def wanted(run: Run, params: Mapping[str, Any]) -> Wanted:
    """Check a job's parameters against the run: epoch, layer, method, dims, seed, params, and split (left out or None: all).

    Raises DNNVizError with a sentence for what does not exist or is out of range.
    """
    method = find(str(params.get("method", "pca")))
    dims, seed, epoch = (params.get(name, default) for name, default in (("dims", 2), ("seed", 0), ("epoch", None)))
    if dims not in DIMENSIONS:
        raise DNNVizError(f"dims is {dims!r}; a picture has 2 or 3 dimensions.")
    if not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise DNNVizError(f"seed is {seed!r}; it must be a whole number from 0 to {2**31 - 1}.")
    run.snapshot(epoch)
    layer = run.layer(str(params.get("layer"))).name
    split = params.get("split")
    if split is not None and split not in run.splits:
        raise DNNVizError(f"Run {run.name} has no split {split!r} (it has: {', '.join(run.splits)}).")
    return Wanted(int(epoch), layer, method.name, int(dims), seed, method.resolve(params.get("params") or {}), split)


def rows(run: Run, split: str | None) -> np.ndarray:
    """int64: the inputs kept that belong to a split (None: all)."""
    return np.arange(run.kept) if split is None else np.flatnonzero(run.input_splits == run.splits.index(split))


def projection_key(run: Run, want: Wanted) -> str:
    """Key of a projection."""
    how = {"method": want.method, "dims": want.dims, "seed": want.seed, "parameters": dict(want.parameters)}
    return results.key("projection", version=VERSION, **_where(run, want), **how)


def graph_key(run: Run, want: Wanted) -> str:
    """Key of the neighbour graph under a projection; projections that need no more than the common graph share it."""
    size = graph_size(want.method, want.parameters, len(rows(run, want.split)))
    return results.key("neighbours", version=VERSION, size=size, **_where(run, want))


def _where(run: Run, want: Wanted) -> dict[str, Any]:
    # Two runs may hold equal snapshots: only the run's own arrays count, not its name.
    return {"snapshot": run.digest(want.epoch), "layer": want.layer, "split": want.split}


def put_graph(cache: Results, key: str, graph: Graph) -> None:
    cache.put(key, {"indices": graph.indices, "distances": graph.distances})


def get_graph(cache: Results, key: str) -> Graph | None:
    """The graph stored under a key, in numbers of rows (of the split, where one was chosen), or None."""
    found = cache.get(key)
    return None if found is None else Graph(found["indices"], found["distances"])


def put_projection(cache: Results, key: str, projection: Projection) -> None:
    names = list(projection.parameters)
    cache.put(
        key,
        {
            "points": projection.points,
            "method": np.array(projection.method),
            "quality": np.array([projection.trustworthiness, projection.neighbours_kept]),
            "explained": np.zeros(0, dtype=np.float32) if projection.explained is None else projection.explained,
            "parameter_names": np.array(names, dtype=str),
            "parameter_values": np.array([float(projection.parameters[name]) for name in names], dtype=np.float64),
            "notes": np.array(projection.notes, dtype=str),
            "seconds": np.array(projection.seconds),
        },
    )


def get_projection(cache: Results, key: str) -> Projection | None:
    """The projection stored under a key, or None."""
    found = cache.get(key)
    if found is None:
        return None
    trust, kept = found["quality"]
    return Projection(
        points=found["points"],
        method=str(found["method"]),
        trustworthiness=float(trust),
        neighbours_kept=float(kept),
        explained=found["explained"] if found["explained"].size else None,
        parameters=dict(zip(found["parameter_names"].tolist(), found["parameter_values"].tolist(), strict=True)),
        notes=tuple(found["notes"].tolist()),
        seconds=float(found["seconds"]),
    )
