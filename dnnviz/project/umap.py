"""UMAP, by umap-learn on the exact neighbour graph (McInnes, Healy and Melville 2018)."""

from __future__ import annotations

import io
import re
import warnings

import numpy as np

from dnnviz.parameters import Parameter
from dnnviz.project.neighbours import GRAPH_NEIGHBOURS, Graph
from dnnviz.project.pca import principal_components
from dnnviz.project.registry import Layout, Report, register

# The functions that umap-learn compiles anew in every process, the longest part of a small picture.
_COMPILED = {
    "umap.umap_": ("smooth_knn_dist", "compute_membership_strengths"),
    "umap.layouts": ("clip", "_nb_optimize_layout_euclidean_single_epoch"),
}


@register(
    "umap",
    title="UMAP",
    summary="Keeps each input beside its nearest neighbours of the full space, and lets the rest float.",
    reading="Sizes of clusters and distances between them mean little in UMAP: look at who is whose neighbour.",
    axes="The axes have no meaning.",
    citation="McInnes, Healy & Melville 2018, UMAP: Uniform Manifold Approximation and Projection, arXiv:1802.03426",
    parameters=(
        Parameter("n_neighbors", "Neighbours", "integer", 15, "How many neighbours count as near: few show detail, many show the whole.", 2, 90),
        Parameter("min_dist", "Distance", "number", 0.1, "How tightly points may be packed: 0 gives clumps, 0.9 an even spread.", 0.0, 0.99),
    ),
    fewest=5,
    neighbours=lambda parameters: int(parameters["n_neighbors"]) - 1,
)
def umap(vectors: np.ndarray, graph: Graph, dims: int, seed: int, report: Report, *, n_neighbors: int, min_dist: float) -> Layout:
    report(0, 0, "UMAP: getting ready")
    import umap as umap_learn

    _keep_compiled()
    count = len(vectors)
    used = min(n_neighbors, count - 1)
    notes = () if used == n_neighbors else (f"{n_neighbors} neighbours need more than {n_neighbors} inputs; {used} were used.",)
    # umap-learn counts a point as the first of its own neighbours.
    own = np.arange(count, dtype=np.int32)[:, None]
    indices = np.hstack([own, graph.indices[:, : used - 1]])
    distances = np.hstack([np.zeros((count, 1), dtype=np.float32), graph.distances[:, : used - 1]])
    start, _ = principal_components(vectors, dims)
    start = start / max(np.abs(start).max(), 1e-12) * 10
    start += np.random.default_rng(seed).normal(scale=1e-3, size=start.shape)
    with warnings.catch_warnings():
        # It warns that new points cannot be placed without a search index, and that a seed means one thread: both are meant.
        warnings.simplefilter("ignore", UserWarning)
        model = umap_learn.UMAP(
            n_neighbors=used,
            min_dist=min_dist,
            n_components=dims,
            init=start.astype(np.float32),
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(indices, distances),
            # By steps, not by the clock: a fast machine reports its progress too. Whoever shows it slows it down.
            tqdm_kwds={"file": _Steps(report), "disable": False, "bar_format": "{n}/{total}", "mininterval": 0, "miniters": 5},
        )
        points = model.fit_transform(np.ascontiguousarray(vectors, dtype=np.float32))
    return Layout(points, used={"n_neighbors": used}, notes=notes)


def warm() -> None:
    """Compile what umap-learn compiles on first use and leave it in numba's cache on disk; half a minute once, then seconds."""
    sample = np.random.default_rng(0).normal(size=(128, 8)).astype(np.float32)
    from dnnviz.project.neighbours import exact_graph

    umap(sample, exact_graph(sample, GRAPH_NEIGHBOURS), 2, 0, lambda done, total, text: None, n_neighbors=15, min_dist=0.1)


def _keep_compiled() -> None:
    """Let numba keep on disk what umap-learn does not ask it to keep: seconds instead of compilation in every process."""
    from importlib import import_module

    for module, names in _COMPILED.items():
        for name in names:
            function = getattr(import_module(module), name, None)
            # Only speed hangs on it: another version may have other functions, or a folder that cannot be written.
            if hasattr(function, "enable_caching") and not function.signatures:
                try:
                    function.enable_caching()
                except (RuntimeError, OSError):
                    return


class _Steps(io.TextIOBase):
    """Takes the text of umap-learn's progress bar and reports the step it names."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    def write(self, text: str) -> int:
        if found := re.search(r"(\d+)/(\d+)", text):
            self.report(int(found[1]), int(found[2]), "UMAP")
        return len(text)
