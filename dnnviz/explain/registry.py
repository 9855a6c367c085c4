"""What the project knows of each attribution method: its description, from which the page builds its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dnnviz.errors import DNNVizError
from dnnviz.parameters import Parameter, resolve

Family = Literal["gradient", "activation", "relevance", "perturbation"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Method:
    """Description of an attribution method.

    summary: one line in the user's terms. citation: the paper it comes from, year: when it appeared.
    passes: (parameters, input shape (C, H, W)) → how many times the network is evaluated per input.
    needs_layer: it explains by the feature maps of one layer. layer_if: (parameters) → whether it looks at that layer all the same.
    signed: its map has positive and negative evidence. to_pixels: its passes go back to the input, too.
    compute: (question, **parameters) → answer (see dnnviz.explain.question); it runs on a batch.
    """

    name: str
    title: str
    family: Family
    summary: str
    citation: str
    year: int
    parameters: tuple[Parameter, ...]
    passes: Callable[[Mapping[str, Any], Shape], int]
    needs_layer: bool
    layer_if: Callable[[Mapping[str, Any]], bool]
    signed: bool
    to_pixels: bool
    compute: Callable[..., Any]

    def uses_layer(self, parameters: Mapping[str, Any]) -> bool:
        """Whether its map depends on the layer chosen."""
        return self.needs_layer or self.layer_if(parameters)

    def work(self, parameters: Mapping[str, Any], shape: Shape) -> float:
        """What one map costs, in forward passes; the way back to the pixels, without gradients of weights, costs little more than one."""
        return self.passes(parameters, shape) * (2.2 if self.to_pixels else 1)

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, checked, defaults filled in; raises DNNVizError naming a parameter that is unknown or out of range."""
        return resolve(self.title, self.parameters, given)


METHODS: dict[str, Method] = {}


def register(
    name: str,
    *,
    title: str,
    family: Family,
    summary: str,
    citation: str,
    year: int,
    parameters: tuple[Parameter, ...] = (),
    passes: Callable[[Mapping[str, Any], Shape], int] = lambda parameters, shape: 1,
    needs_layer: bool = False,
    layer_if: Callable[[Mapping[str, Any]], bool] = lambda parameters: False,
    signed: bool = True,
    to_pixels: bool | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the decorated function into METHODS under `name`; families of gradients and relevance go back to the pixels unless told otherwise."""
    back = family in ("gradient", "relevance") if to_pixels is None else to_pixels

    def enter(compute: Callable[..., Any]) -> Callable[..., Any]:
        METHODS[name] = Method(
            name, title, family, summary, f"{citation}, {year}", year, parameters, passes, needs_layer, layer_if, signed, back, compute
        )
        return compute

    return enter


def find(name: str) -> Method:
    """The method with this name; raises DNNVizError listing those there are."""
    if name not in METHODS:
        raise DNNVizError(f"There is no attribution method {name!r} (there are: {', '.join(METHODS)}).")
    return METHODS[name]
