"""One file a method; a file registers its method when it is imported, and imports torch only when the method runs."""

import importlib
import pkgutil

from dnnviz.attack.registry import METHODS


def load_all() -> None:
    """Import every file of this package, then order METHODS by year."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    ordered = sorted(METHODS.values(), key=lambda m: (m.year, m.title))
    METHODS.clear()
    METHODS.update({method.name: method for method in ordered})
