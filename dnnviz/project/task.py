"""The background job of the embedding page: make sure that a projection and its neighbour graph are among the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnnviz.catalogue import Catalogue
from dnnviz.errors import DNNVizError
from dnnviz.project.keys import get_graph, graph_key, projection_key, put_graph, put_projection, rows, wanted
from dnnviz.project.neighbours import exact_graph
from dnnviz.project.projection import graph_size, project
from dnnviz.project.registry import Report
from dnnviz.results import Results
from dnnviz.settings import Settings


def run(settings: Settings, params: Mapping[str, Any], report: Report) -> list[str]:
    """Compute what is missing; returns the keys of the projection and of its graph.

    params: run (id), epoch, layer, split (None: all), method, dims, seed, params (the method's own).
    Raises DNNVizError, naming layer and epoch, where these activations cannot be projected.
    """
    opened = Catalogue(settings.runs).open(str(params.get("run")))
    want = wanted(opened, params)
    results = Results(settings.private_cache() / "results")
    keys = [projection_key(opened, want), graph_key(opened, want)]
    if all(key in results for key in keys):
        return keys
    report(0, 0, "Reading activations")
    vectors = opened.activations(want.epoch, want.layer)[rows(opened, want.split)]
    try:
        with results.lock(keys[1]):
            graph = get_graph(results, keys[1])
            if graph is None:
                graph = exact_graph(vectors, graph_size(want.method, want.parameters, len(vectors)), report)
                put_graph(results, keys[1], graph)
        with results.lock(keys[0]):
            if keys[0] not in results:
                put_projection(results, keys[0], project(vectors, want.method, want.dims, want.seed, report, graph, **want.parameters))
    except DNNVizError as error:
        raise DNNVizError(f"Layer {want.layer} at epoch {want.epoch}: {error}") from None
    return keys
