"""What the project knows of each attribution method: its description, from which the page builds its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dnnviz.registry import Published, Registry

Family = Literal["gradient", "activation", "relevance", "perturbation"]
FAMILIES: dict[Family, str] = {"gradient": "Gradient", "activation": "Activation", "relevance": "Relevance", "perturbation": "Perturbation"}
Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Method(Published):
    """Description of an attribution method.

    passes: (parameters, input shape (C, H, W)) → how many times the network is evaluated per input.
    needs_layer: it explains by the feature maps of one layer. layer_if: (parameters) → whether it looks at that layer all the same.
    signed: its map has positive and negative evidence. to_pixels: its passes go back to the input, too; None: as its family does.
    compute: (question, **parameters) → answer (see dnnviz.explain.question); it runs on a batch.
    """

    family: Family
    passes: Callable[[Mapping[str, Any], Shape], int] = lambda parameters, shape: 1
    needs_layer: bool = False
    layer_if: Callable[[Mapping[str, Any]], bool] = lambda parameters: False
    signed: bool = True
    to_pixels: bool | None = None

    @property
    def backward(self) -> bool:
        """Whether its passes go back to the input."""
        return self.family in ("gradient", "relevance") if self.to_pixels is None else self.to_pixels

    def uses_layer(self, parameters: Mapping[str, Any]) -> bool:
        """Whether its map depends on the layer chosen."""
        return self.needs_layer or self.layer_if(parameters)

    def work(self, parameters: Mapping[str, Any], shape: Shape) -> float:
        """What one map costs, in forward passes; the way back to the pixels, without gradients of weights, costs little more than one."""
        return self.passes(parameters, shape) * (2.2 if self.backward else 1)


METHODS: Registry[Method] = Registry(Method, "attribution method")
register, find = METHODS.register, METHODS.find
