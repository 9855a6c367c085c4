"""What the project knows of each attribution method: its description, from which the page builds its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dnnviz.errors import DNNVizError

Family = Literal["gradient", "activation", "relevance", "perturbation"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    kind: integer, number, choice or flag. low, high: limits, both allowed (integer, number).
    choices: allowed values (choice). text: one line for the person who sets it.
    """

    name: str
    title: str
    kind: Literal["integer", "number", "choice", "flag"]
    default: Any
    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: Any) -> Any:
        """The value in the parameter's type; raises DNNVizError with a sentence where it is not allowed."""
        if self.kind == "choice":
            if value in self.choices:
                return value
            raise DNNVizError(f"{self.name} is {value!r}; choose one of {', '.join(self.choices)}.")
        if self.kind == "flag":
            if isinstance(value, bool):
                return value
            raise DNNVizError(f"{self.name} is {value!r}; it must be true or false.")
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not self.low <= number <= self.high or (self.kind == "integer" and number != int(number)):
            what = "a whole number" if self.kind == "integer" else "a number"
            raise DNNVizError(f"{self.name} is {value!r}; it must be {what} from {self.low:g} to {self.high:g}.")
        return int(number) if self.kind == "integer" else number


@dataclass(frozen=True)
class Method:
    """Description of an attribution method.

    summary: one line in the user's terms. citation: the paper it comes from.
    passes: (parameters, input shape (C, H, W)) → how many times the network is evaluated per input.
    needs_layer: it explains by the feature maps of one layer. signed: its map has positive and negative evidence.
    compute: (question, **parameters) → answer (see dnnviz.explain.question); it runs on a batch.
    """

    name: str
    title: str
    family: Family
    summary: str
    citation: str
    parameters: tuple[Parameter, ...]
    passes: Callable[[Mapping[str, Any], Shape], int]
    needs_layer: bool
    signed: bool
    compute: Callable[..., Any]

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, checked, defaults filled in; raises DNNVizError naming a parameter that is unknown or out of range."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                have = ", ".join(known) or "none"
                raise DNNVizError(f"{self.title} has no parameter {name!r} (it has: {have}).")
        try:
            return {name: parameter.check(given.get(name, parameter.default)) for name, parameter in known.items()}
        except DNNVizError as error:
            raise DNNVizError(f"{self.title}: {error}") from None


METHODS: dict[str, Method] = {}


def register(
    name: str,
    *,
    title: str,
    family: Family,
    summary: str,
    citation: str,
    parameters: tuple[Parameter, ...] = (),
    passes: Callable[[Mapping[str, Any], Shape], int] = lambda parameters, shape: 1,
    needs_layer: bool = False,
    signed: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the decorated function into METHODS under `name`."""

    def enter(compute: Callable[..., Any]) -> Callable[..., Any]:
        METHODS[name] = Method(name, title, family, summary, citation, parameters, passes, needs_layer, signed, compute)
        return compute

    return enter


def find(name: str) -> Method:
    """The method with this name; raises DNNVizError listing those there are."""
    if name not in METHODS:
        raise DNNVizError(f"There is no attribution method {name!r} (there are: {', '.join(METHODS)}).")
    return METHODS[name]
