"""Attribution: maps over an input's pixels that say what a class score depends on.

`METHODS` can be read without importing torch; `attribute` imports it when called. A method is one file in `methods`.
"""

from dnnviz.explain.attribution import Attribution, Note, attribute
from dnnviz.explain.methods import load_all
from dnnviz.explain.registry import METHODS, Method

load_all()

__all__ = ["METHODS", "Attribution", "Method", "Note", "attribute"]
