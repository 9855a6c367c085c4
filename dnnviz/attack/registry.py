"""What the project knows of each attack: its description, from which the page builds its controls. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dnnviz.errors import DNNVizError
from dnnviz.parameters import Parameter, resolve

Norm = Literal["linf", "l2"]
BUDGET = "epsilon"  # name of the parameter that bounds a perturbation, where a method has one
STOP = "stop"  # of the flag that ends an attack at its first success, where a method has it


@dataclass(frozen=True)
class Method:
    """Description of an attack.

    summary: one line in the user's terms. citation: the paper it comes from, year: when it appeared.
    norm: in which the perturbation is measured: linf (largest change of a pixel), l2 (Euclidean length), both with pixels from 0 to 1.
    passes: (parameters) → how many times at most the network is evaluated per input, forward and back.
    compute: (problem, **parameters) → None (see dnnviz.attack.problem); it runs on a batch.
    """

    name: str
    title: str
    norm: Norm
    summary: str
    citation: str
    year: int
    parameters: tuple[Parameter, ...]
    passes: Callable[[Mapping[str, Any]], int]
    compute: Callable[..., Any]

    @property
    def bounded(self) -> bool:
        """Whether it stays within a budget (parameter `epsilon`); other methods look for the smallest perturbation they can find."""
        return any(parameter.name == BUDGET for parameter in self.parameters)

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, checked, defaults filled in; raises DNNVizError naming a parameter that is unknown or out of range."""
        return resolve(self.title, self.parameters, given)


METHODS: dict[str, Method] = {}


def register(
    name: str,
    *,
    title: str,
    norm: Norm,
    summary: str,
    citation: str,
    year: int,
    parameters: tuple[Parameter, ...],
    passes: Callable[[Mapping[str, Any]], int],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the decorated function into METHODS under `name`."""

    def enter(compute: Callable[..., Any]) -> Callable[..., Any]:
        METHODS[name] = Method(name, title, norm, summary, f"{citation}, {year}", year, parameters, passes, compute)
        return compute

    return enter


def find(name: str) -> Method:
    """The attack with this name; raises DNNVizError listing those there are."""
    if name not in METHODS:
        raise DNNVizError(f"There is no attack {name!r} (there are: {', '.join(METHODS)}).")
    return METHODS[name]
