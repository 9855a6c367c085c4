"""t-SNE, by openTSNE on the exact neighbour graph (van der Maaten and Hinton 2008; Poličar et al. 2024)."""

from __future__ import annotations

import numpy as np

from dnnviz.parameters import Parameter
from dnnviz.project.neighbours import Graph
from dnnviz.project.pca import principal_components
from dnnviz.project.registry import Layout, Report, register

_EARLY, _EARLY_EXAGGERATION = 250, 12
_FFT_FROM = 5000  # below, Barnes-Hut is faster; interpolation exists for two dimensions only


@register(
    "tsne",
    title="t-SNE",
    summary="Gives every input about the same number of near neighbours, and draws those together.",
    reading="Sizes of clusters and the gaps between them mean nothing in t-SNE: look at who is beside whom, and try another perplexity.",
    axes="The axes have no meaning.",
    citation="van der Maaten & Hinton 2008, Visualizing data using t-SNE, JMLR 9; how to use it: Wattenberg, Viégas & Johnson 2016, Distill",
    parameters=(
        Parameter("perplexity", "Perplexity", "number", 30.0, "About how many near neighbours every input gets; try several.", 2.0, 100.0),
        Parameter("iterations", "Iterations", "integer", 500, "Steps after the first 250; more where groups still move.", 100, 2000),
        Parameter("exaggeration", "Exaggeration", "number", 1.0, "Above 1 pulls each group together; 1 is t-SNE as published.", 1.0, 8.0),
    ),
    fewest=5,
    neighbours=lambda parameters: int(3 * parameters["perplexity"]),
)
def tsne(
    vectors: np.ndarray, graph: Graph, dims: int, seed: int, report: Report, *, perplexity: float, iterations: int, exaggeration: float
) -> Layout:
    report(0, 0, "t-SNE: getting ready")
    import openTSNE

    count = len(vectors)
    used = min(perplexity, max(1.0, (count - 1) / 3))
    notes = () if used == perplexity else (f"Perplexity {perplexity:g} needs {int(3 * perplexity) + 1} inputs; {used:.3g} was used.",)
    k = min(graph.indices.shape[1], max(int(3 * used), 1))
    index = openTSNE.nearest_neighbors.PrecomputedNeighbors(graph.indices[:, :k].astype(np.int64), graph.distances[:, :k].astype(np.float64))
    affinities = openTSNE.affinity.PerplexityBasedNN(perplexity=used, knn_index=index, random_state=seed)
    # From the principal components, so that the large shape of the data is kept (Kobak & Berens 2019), and small, so that points can move.
    start, _ = principal_components(vectors, dims)
    start = start / max(start.std(axis=0).max(), 1e-12) * 1e-4
    start += np.random.default_rng(seed).normal(scale=1e-6, size=start.shape)
    embedding = openTSNE.TSNEEmbedding(
        start,
        affinities,
        negative_gradient_method="fft" if dims == 2 and count >= _FFT_FROM else "bh",
        random_state=seed,
        n_jobs=1,
    )
    total = _EARLY + iterations
    phases = ((_EARLY, _EARLY_EXAGGERATION, 0.5), (iterations, exaggeration, 0.8))
    done = 0
    for steps, pull, momentum in phases:
        before = done
        embedding.optimize(
            n_iter=steps,
            exaggeration=pull,
            momentum=momentum,
            inplace=True,
            callbacks=[lambda step, error, points, before=before: report(before + step, total, "t-SNE") and False],
            callbacks_every_iters=10,
            propagate_exception=True,
        )
        done += steps
    return Layout(np.asarray(embedding), used={"perplexity": used}, notes=notes)
