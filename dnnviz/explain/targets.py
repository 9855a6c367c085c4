"""What is explained: the score of a class, the difference of two, a unit, or a direction of a layer. No torch at import.

A target is written as text, the same in links, in keys of results and on the command line:

    predicted   true   class:3            the score (logit) of a class
    class:3-class:5   predicted-second    why the one and not the other: the difference of their scores
    unit:layer4:12                        mean activation of a unit over the image
    layer:layer4                          activation of a layer along the direction it has for this input
    direction:layer4:3                    activation of a layer along the mean of class 3, seen from the mean of all inputs

`true` and `direction:…` need a run (`dnnviz.explain.plan` resolves them); the others any network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnviz.errors import DNNVizError

PREDICTED, SECOND, NONE = -1, -2, -3


@dataclass(frozen=True)
class ClassTarget:
    """Score of class `index`, less that of class `against`; PREDICTED and SECOND stand for the best and the second best class."""

    index: int
    against: int = NONE


@dataclass(frozen=True, eq=False)
class LayerTarget:
    """Mean over the image of a layer's activation: of one unit, or along a vector [units] (None: the input's own direction)."""

    layer: str
    unit: int | None = None
    vector: np.ndarray | None = None

    @property
    def place(self) -> tuple[str, int | None, bytes | None]:
        """What tells two such targets apart."""
        return self.layer, self.unit, None if self.vector is None else self.vector.tobytes()


Target = ClassTarget | LayerTarget


def parse(text: str) -> Target:
    """The target that a text names; raises DNNVizError with the forms that there are."""
    kind, _, rest = text.partition(":")
    if kind == "unit":
        layer, _, unit = rest.rpartition(":")
        if layer and unit.isdecimal():
            return LayerTarget(layer, int(unit))
    elif kind == "layer" and rest:
        return LayerTarget(rest)
    else:
        first, minus, second = text.partition("-")
        found = _class(first, PREDICTED, "predicted"), _class(second, SECOND, "second") if minus else NONE
        if None not in found:
            return ClassTarget(*found)
    raise DNNVizError(f"The target is {text[:80]!r}; write predicted, class:3, class:3-class:5, predicted-second, unit:LAYER:12 or layer:LAYER.")


def _class(text: str, special: int, word: str) -> int | None:
    if text == word:
        return special
    kind, _, number = text.partition(":")
    return int(number) if kind == "class" and number.isdecimal() else None


def as_targets(target: Any, count: int) -> list[Target]:
    """One target an input from what a caller may give: None, a class, a text or a Target, or one of these for each input.

    Raises DNNVizError where the number does not fit, or where targets of layers and classes are mixed.
    """
    if target is None or (isinstance(target, (str, int, np.integer, ClassTarget, LayerTarget)) and not isinstance(target, bool)):
        given: Sequence[Any] = [target] * count
    else:
        given = _numbers(target)
        if len(given) not in (1, count):
            raise DNNVizError(f"There are {len(given)} targets for {count} inputs; give one, or one for each input.")
        given = list(given) * (count // len(given))
    found = [_one(each) for each in given]
    if len({each.place if isinstance(each, LayerTarget) else "class" for each in found}) > 1:
        raise DNNVizError("A unit or a direction of a layer is explained for all inputs at once; ask for one target at a time.")
    return found


def _numbers(target: Any) -> Sequence[Any]:
    if isinstance(target, (list, tuple)) and all(isinstance(each, (str, ClassTarget, LayerTarget)) for each in target):
        return target
    values = np.asarray(target.detach().cpu() if hasattr(target, "detach") else target).reshape(-1)
    if values.dtype.kind not in "iu":
        raise DNNVizError(f"The target is {target!r}; it must be the number of a class, one for each input, or None for the predicted class.")
    return values.tolist()


def _one(target: Any) -> Target:
    if target is None:
        return ClassTarget(PREDICTED)
    if isinstance(target, str):
        return parse(target)
    return target if isinstance(target, (ClassTarget, LayerTarget)) else ClassTarget(_checked(int(target)))


def _checked(index: int) -> int:
    if index < 0:
        raise DNNVizError(f"The target is class {index}; classes are numbered from 0.")
    return index
