"""Principal components: the directions in which the vectors vary most (Pearson 1901; Hotelling 1933)."""

from __future__ import annotations

import numpy as np

from dnnviz.project.neighbours import Graph
from dnnviz.project.registry import Layout, Report, register


def principal_components(vectors: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """(points float64 [n, dims], share of the variance along each axis float64 [dims]).

    By the eigenvectors of the smaller of the two product matrices. Axes beyond the rank are zero. Signs are fixed:
    the largest loading of every axis is positive, as scikit-learn has it.
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    matrix = matrix - matrix.mean(axis=0)
    count, units = matrix.shape
    wide = units > count
    values, bases = np.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    total = float(np.square(matrix).sum())
    values, bases = values[::-1][:dims].clip(min=0), bases[:, ::-1][:, :dims]
    # An eigenvalue at rounding level belongs to no direction of the data.
    values = np.where(values > total * max(count, units) * np.finfo(np.float64).eps, values, 0.0)
    if wide:
        loadings = matrix.T @ bases
        points = bases * np.sqrt(values)
    else:
        loadings = bases
        points = matrix @ bases * (values > 0)
    largest = loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])]
    points = points * np.where(largest < 0, -1.0, 1.0)
    missing = dims - points.shape[1]
    return np.pad(points, ((0, 0), (0, missing))), np.pad(values / total if total else values, (0, missing))


@register(
    "pca",
    title="PCA",
    summary="A flat shadow of the full space, turned so that the inputs spread as far as they can.",
    reading="Distances are true along the axes shown and blind to all others: inputs that overlap here may be far apart in the full space.",
    axes="Each axis is a mixture of units; its share of the variance is written on it.",
    citation="Hotelling 1933, Analysis of a complex of statistical variables into principal components",
)
def pca(vectors: np.ndarray, graph: Graph, dims: int, seed: int, report: Report) -> Layout:
    points, explained = principal_components(vectors, dims)
    return Layout(points, explained)
