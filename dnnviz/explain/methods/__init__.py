"""One file a method; a file registers its method when it is imported, and imports torch only when the method runs."""

import importlib
import pkgutil

from dnnviz.explain.registry import METHODS

_FAMILIES = ("gradient", "activation", "relevance", "perturbation")
_USUAL_INPUT = (3, 224, 224)


def load_all() -> None:
    """Import every file of this package, then order METHODS by family and cost."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    ordered = sorted(METHODS.values(), key=lambda m: (_FAMILIES.index(m.family), m.passes(m.resolve({}), _USUAL_INPUT), m.title))
    METHODS.clear()
    METHODS.update({method.name: method for method in ordered})
