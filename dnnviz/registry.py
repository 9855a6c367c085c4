"""Registries: all ways there are to do one thing, each a description beside the function that does it. No torch."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dnnviz.errors import DNNVizError
from dnnviz.parameters import Parameter, resolve


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What every registry knows of an entry.

    name: what it is called in addresses, on the command line and in Python. title: the same on the screen.
    summary: one line in the user's terms. compute: the function; its registry's kind of entry says what goes in and comes out.
    """

    name: str
    title: str
    summary: str
    compute: Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Parametrised(Entry):
    """An entry whose function takes parameters that people set."""

    parameters: tuple[Parameter, ...] = ()

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, checked, defaults filled in; raises DNNVizError naming a parameter that is unknown or out of range."""
        return resolve(self.title, self.parameters, given)


@dataclass(frozen=True, kw_only=True)
class Published(Parametrised):
    """An entry that comes from a paper. paper: authors, title, venue; year: when it appeared."""

    paper: str
    year: int

    @property
    def citation(self) -> str:
        return f"{self.paper}, {self.year}"


E = TypeVar("E", bound=Entry)


class Registry(dict[str, E], Generic[E]):
    """Entries by name. kind: their class; what: one of them in words, for sentences about names that are none."""

    def __init__(self, kind: type[E], what: str) -> None:
        super().__init__()
        self.kind = kind
        self.what = what

    def register(self, name: str, **description: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Enter the decorated function under `name`; description: the other fields of the entry."""

        def enter(compute: Callable[..., Any]) -> Callable[..., Any]:
            self[name] = self.kind(name=name, compute=compute, **description)
            return compute

        return enter

    def find(self, name: str) -> E:
        """The entry with this name; raises DNNVizError listing those there are."""
        if name not in self:
            raise DNNVizError(f"There is no {self.what} {name!r} (there are: {', '.join(self)}).")
        return self[name]

    def load(self, package: Any, order: Callable[[E], Any]) -> None:
        """Import every file of a package, each of which registers its entries, then put them into an order (a key of sorting)."""
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
        ordered = sorted(self.values(), key=order)
        self.clear()
        self.update({entry.name: entry for entry in ordered})
