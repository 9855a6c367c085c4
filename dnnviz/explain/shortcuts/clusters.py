"""Groups of inputs that a class is recognised by in the same way: spectral clustering of their maps. scikit-learn; for the job only."""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image

GRID = 16  # maps are compared at this size: where evidence lies counts, not its single pixels
MOST = 4  # clusters of a class
LEAST = 8  # maps of a class below which there are no clusters to find


def reduced(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps [n, H, W] with sides of at most `size`, every value the mean of its area."""
    height, width = (min(side, size) for side in maps.shape[1:])
    if (height, width) == maps.shape[1:]:
        return maps
    return np.stack([np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BOX)) for each in maps.astype(np.float32)])


def spectral(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cluster of every map int64 [n], largest first, smallest eigenvalues float64 [up to MOST + 1]) of maps [n, H, W] of mass 1.

    SpRAy (Lapuschkin et al., Nature Communications 2019): maps at low resolution, the graph of their nearest neighbours by
    Euclidean distance (log₂ n of them, as von Luxburg 2007 advises), its symmetric normalised Laplacian; the number of clusters
    is where the largest gap between neighbouring eigenvalues is. One cluster where the graph holds together. No chance in it.
    """
    count = len(maps)
    if count < LEAST:
        return np.zeros(count, dtype=np.int64), np.zeros(0)
    vectors = reduced(maps, GRID).reshape(count, -1).astype(np.float64)
    squares = (vectors**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * vectors @ vectors.T, 0)
    np.fill_diagonal(distances, -1.0)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, 1 : int(np.ceil(np.log2(count))) + 1]
    graph = np.zeros((count, count))
    graph[np.arange(count)[:, None], nearest] = 1.0
    graph = np.maximum(graph, graph.T)
    degree = np.sqrt(graph.sum(axis=1))
    values = np.linalg.eigvalsh(np.eye(count) - graph / degree[:, None] / degree[None])[: MOST + 1]
    clusters = int(np.diff(values).argmax()) + 1
    if clusters == 1:
        return np.zeros(count, dtype=np.int64), values
    from sklearn.cluster import SpectralClustering

    with warnings.catch_warnings():
        # A graph in several pieces is the clearest case there is, no mistake.
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        found = SpectralClustering(clusters, affinity="precomputed", assign_labels="cluster_qr", random_state=0).fit_predict(graph)
    sizes = np.bincount(found, minlength=clusters)
    order = sorted(range(clusters), key=lambda c: (-sizes[c], int(np.flatnonzero(found == c)[0]) if sizes[c] else count))
    rank = np.empty(clusters, dtype=np.int64)
    rank[order] = np.arange(clusters)
    return rank[found], values
