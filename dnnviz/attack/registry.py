"""What the project knows of each attack: its description, from which the page builds its controls. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dnnviz.registry import Published, Registry

Norm = Literal["linf", "l2"]
BUDGET = "epsilon"  # name of the parameter that bounds a perturbation, where a method has one
STOP = "stop"  # of the flag that ends an attack at its first success, where a method has it


@dataclass(frozen=True, kw_only=True)
class Method(Published):
    """Description of an attack.

    norm: in which the perturbation is measured: linf (largest change of a pixel), l2 (Euclidean length), both with pixels from 0 to 1.
    passes: (parameters) → how many times at most the network is evaluated per input, forward and back.
    compute: (problem, **parameters) → None (see dnnviz.attack.problem); it runs on a batch.
    """

    norm: Norm
    passes: Callable[[Mapping[str, Any]], int]

    @property
    def bounded(self) -> bool:
        """Whether it stays within a budget (parameter `epsilon`); other methods look for the smallest perturbation they can find."""
        return any(parameter.name == BUDGET for parameter in self.parameters)


METHODS: Registry[Method] = Registry(Method, "attack")
register, find = METHODS.register, METHODS.find
