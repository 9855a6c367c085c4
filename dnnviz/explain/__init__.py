"""Attribution: maps over an input's pixels that say what a class score depends on.

`METHODS` can be read without importing torch; `attribute` imports it when called. A method is one file in `methods`.
"""

from dnnviz.explain import methods
from dnnviz.explain.attribution import Attribution, Note, attribute, attribute_all
from dnnviz.explain.registry import FAMILIES, METHODS, Method
from dnnviz.explain.targets import ClassTarget, LayerTarget

METHODS.load(methods, lambda method: (list(FAMILIES).index(method.family), method.year, method.title))

__all__ = ["METHODS", "Attribution", "ClassTarget", "LayerTarget", "Method", "Note", "attribute", "attribute_all"]
