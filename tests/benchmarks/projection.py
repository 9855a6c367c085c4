"""What projections cost and how good they are: CPU seconds, trustworthiness, share of neighbours kept.

    python -m tests.benchmarks.projection [--inputs 10000] [--units 512] [--methods pca umap tsne]

The vectors are classes on a curved sheet with noise in all units, as in the middle of a trained network. Every method runs
twice on one graph: the first time includes imports and what numba compiles (or fetches from its cache on disk).
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from dnnviz.project import METHODS, project
from dnnviz.project.neighbours import exact_graph
from dnnviz.project.quality import quality


def vectors(inputs: int, units: int, classes: int = 10, seed: int = 0) -> np.ndarray:
    """float32 [inputs, units], never below zero."""
    random = np.random.default_rng(seed)
    labels = np.arange(inputs) % classes
    sheet = random.normal(size=(inputs, 4)) + 4 * random.normal(size=(classes, 4))[labels]
    hidden = np.tanh(sheet @ random.normal(size=(4, 32)) / 2)
    return np.maximum(hidden @ random.normal(size=(32, units)) + 0.3 * random.normal(size=(inputs, units)), 0).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    matrix = vectors(given.inputs, given.units)
    began = time.process_time()
    graph = exact_graph(matrix)
    print(f"{given.inputs:,} inputs × {given.units} units; CPU seconds")
    print(f"{'neighbours':<16}{time.process_time() - began:8.2f}   ({graph.indices.shape[1]} each, exact)")
    for name in given.methods:
        for turn in ("first", "again"):
            began = time.process_time()
            found = project(matrix, name, graph=graph)
            took = time.process_time() - began
            print(f"{name + ', ' + turn:<16}{took:8.2f}   trustworthiness {found.trustworthiness:.3f}, neighbours kept {found.neighbours_kept:.3f}")
    began = time.process_time()
    quality(matrix, found.points)
    print(f"{'quality alone':<16}{time.process_time() - began:8.2f}")


if __name__ == "__main__":
    main()
