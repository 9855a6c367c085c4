"""Exact nearest neighbours: one graph per layer and epoch serves UMAP, t-SNE, the measures of quality and the lookup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dnnviz.errors import DNNVizError

GRAPH_NEIGHBOURS = 90  # three times the usual perplexity of t-SNE; ninety cost no more than fifteen
_BLOCK = 1 << 23  # distances held at once (64 MB)


@dataclass(frozen=True)
class Graph:
    """Nearest neighbours of every vector, nearest first, itself left out: indices int32 [n, k], distances float32 [n, k]."""

    indices: np.ndarray
    distances: np.ndarray


def check_vectors(vectors: np.ndarray, fewest: int = 2) -> np.ndarray:
    """The vectors as float64 [n, d]; raises DNNVizError when they are too few, not numbers or all the same."""
    try:
        matrix = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError):
        raise DNNVizError("The vectors are not numbers; a matrix [inputs, units] is expected.") from None
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise DNNVizError(f"The vectors have shape {list(matrix.shape)}; a matrix [inputs, units] is expected.")
    if len(matrix) < fewest:
        raise DNNVizError(f"There {'is 1 input' if len(matrix) == 1 else f'are {len(matrix)} inputs'}; at least {fewest} are needed.")
    bad = int((~np.isfinite(matrix)).any(axis=1).sum())
    if bad:
        raise DNNVizError(f"{bad} of {len(matrix)} inputs have activations that are not numbers (NaN or infinite); they have no place in a picture.")
    if (matrix == matrix[0]).all():
        raise DNNVizError("All inputs have the same activations here, so there is nothing to tell them apart by.")
    return matrix


def nearest(vectors: np.ndarray, k: int = 15, progress: Callable[[int, int, str], object] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other vectors of each, by Euclidean distance, exact to rounding in float64.

    vectors: [n, d]. progress: called as (rows done, n, text); what it raises ends the search.
    Returns (indices int64 [n, k], distances float64 [n, k]), nearest first, equal distances by index; k is n − 1 at most.
    Raises DNNVizError for vectors that are not finite, fewer than two, or all the same.
    """
    import torch

    matrix = check_vectors(vectors)
    count = len(matrix)
    k = max(1, min(int(k), count - 1))
    centred = torch.from_numpy(matrix - matrix.mean(axis=0))
    squares = (centred * centred).sum(dim=1)
    indices = np.empty((count, k), dtype=np.int64)
    distances = np.empty((count, k), dtype=np.float64)
    rows = max(1, min(count, _BLOCK // count))
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        block = centred[start:stop]
        squared = torch.addmm(squares, block, centred.T, alpha=-2).add_(squares[start:stop, None])
        squared[torch.arange(stop - start), torch.arange(start, stop)] = torch.inf
        found, where = squared.topk(k, dim=1, largest=False)
        # |x|² + |y|² − 2xy loses its digits where x and y nearly coincide: those pairs again, from the difference.
        near, column = torch.nonzero(found < 1e-6 * (squares[start:stop, None] + squares[where]), as_tuple=True)
        for part in torch.arange(len(near)).split(max(1, _BLOCK // centred.shape[1])):
            one, other = near[part], column[part]
            found[one, other] = (block[one] - centred[where[one, other]]).square().sum(dim=1)
        where, order = where.sort(dim=1)
        found, again = found.gather(1, order).sort(dim=1, stable=True)
        indices[start:stop] = where.gather(1, again).numpy()
        distances[start:stop] = found.clamp_(min=0).sqrt_().numpy()
        if progress is not None:
            progress(stop, count, "Nearest neighbours")
    return indices, distances


def exact_graph(vectors: np.ndarray, k: int = GRAPH_NEIGHBOURS, progress: Callable[[int, int, str], object] | None = None) -> Graph:
    """The graph of `nearest` in the types that are stored."""
    indices, distances = nearest(vectors, k, progress)
    return Graph(indices.astype(np.int32), distances.astype(np.float32))
