"""Parameters of a method as data: limits, default and a line of explanation, from which pages build their controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dnnviz.errors import DNNVizError


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


def resolve(title: str, parameters: tuple[Parameter, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of the method called `title`, checked, defaults filled in.

    Raises DNNVizError naming a parameter that is unknown or out of range.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            raise DNNVizError(f"{title} has no parameter {name!r} (it has: {', '.join(known) or 'none'}).")
    try:
        return {name: parameter.check(given.get(name, parameter.default)) for name, parameter in known.items()}
    except DNNVizError as error:
        raise DNNVizError(f"{title}: {error}") from None
