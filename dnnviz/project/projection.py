"""Project vectors to two or three dimensions, and say how far the picture may be trusted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dnnviz.errors import DNNVizError
from dnnviz.project.neighbours import GRAPH_NEIGHBOURS, Graph, check_vectors, exact_graph
from dnnviz.project.quality import quality
from dnnviz.project.registry import Report, find

DIMENSIONS = (2, 3)


@dataclass(frozen=True)
class Projection:
    """Vectors in the plane or in space.

    points: float32 [n, dims]. trustworthiness: 0 to 1, how many neighbours in the picture are neighbours in the full
    space (NaN below three inputs). neighbours_kept: share of each input's 15 nearest that stay among its 15 nearest.
    explained: share of the variance along each axis, float32 [dims], PCA only. parameters: those used.
    notes: a sentence for every parameter that had to be changed. seconds: wall time.
    """

    points: np.ndarray
    method: str
    trustworthiness: float
    neighbours_kept: float
    explained: np.ndarray | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def graph_size(method: str, params: Mapping[str, Any], count: int) -> int:
    """Neighbours per input in the graph that a method with these parameters needs: the common graph where it is enough."""
    entry = find(method)
    return min(max(GRAPH_NEIGHBOURS, entry.neighbours(entry.resolve(params))), count - 1)


def project(
    vectors: np.ndarray,
    method: str = "pca",
    dims: int = 2,
    seed: int = 0,
    progress: Report | None = None,
    graph: Graph | None = None,
    **params: Any,
) -> Projection:
    """Project vectors [n, d] by `pca`, `umap` or `tsne`; the same seed gives the same points.

    dims: 2 or 3. params: the method's own, as `METHODS` describes them. graph: nearest neighbours of these vectors
    where they are known already (at least `graph_size` of each).
    progress: called as (steps done, steps, text), with 0 steps while nothing can be counted; what it raises ends the work.
    Raises DNNVizError for an unknown method or parameter, a value out of range, and vectors that are too few, not
    finite or all the same.
    """
    entry = find(method)
    parameters = entry.resolve(params)
    if dims not in DIMENSIONS:
        raise DNNVizError(f"dims is {dims!r}; a picture has 2 or 3 dimensions.")
    report = progress or (lambda done, total, text: None)
    began = time.perf_counter()
    matrix = check_vectors(vectors)
    if len(matrix) < entry.fewest:
        raise DNNVizError(f"{entry.title} needs at least {entry.fewest} inputs and there are {len(matrix)}; use PCA.")
    # Very large or small values would overflow in single precision; no method depends on the unit of length.
    centred = matrix - matrix.mean(axis=0)
    scale = np.abs(centred).max()
    needed = min(entry.neighbours(parameters), len(matrix) - 1)
    if needed and (graph is None or graph.indices.shape[1] < needed):
        graph = exact_graph(centred, graph_size(method, params, len(matrix)), report)
    if graph is not None and len(graph.indices) != len(matrix):
        raise DNNVizError(f"The graph holds {len(graph.indices)} inputs and there are {len(matrix)} vectors.")
    scaled = None if graph is None else Graph(graph.indices, (graph.distances / scale).astype(np.float32))
    layout = entry.compute((centred / scale).astype(np.float32), scaled, dims, seed, report, **parameters)
    points = np.asarray(layout.points, dtype=np.float64)
    if layout.explained is not None:
        points = points * scale
    if not np.isfinite(points).all():
        raise DNNVizError(f"{entry.title} did not converge on these vectors; try other parameters.")
    report(0, 0, "How far to trust it")
    trust, kept = quality(centred / scale, points.astype(np.float32), seed=seed)
    return Projection(
        points=points.astype(np.float32),
        method=method,
        trustworthiness=trust,
        neighbours_kept=kept,
        explained=None if layout.explained is None else np.asarray(layout.explained, dtype=np.float32),
        parameters={**parameters, **(layout.used or {})},
        notes=layout.notes,
        seconds=time.perf_counter() - began,
    )
