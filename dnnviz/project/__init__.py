"""Projections: the vectors of a layer in two or three dimensions, with exact neighbours beside them.

`METHODS` can be read without importing torch, umap or sklearn; they are imported when something is computed.
A method is one file that registers itself.
"""

from dnnviz.project import pca, umap, tsne  # noqa: F401, I001  importing a method registers it, in the order that people see
from dnnviz.project.neighbours import Graph, nearest
from dnnviz.project.projection import Projection, project
from dnnviz.project.registry import METHODS, Method
from dnnviz.project.umap import warm

__all__ = ["METHODS", "Graph", "Method", "Projection", "nearest", "project", "warm"]
