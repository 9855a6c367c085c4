"""Scores of changed versions of one input: what every measure asks of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from dnnviz.explain.ask import questions
from dnnviz.explain.network import undisturbed
from dnnviz.explain.objectives import ClassObjective
from dnnviz.explain.targets import NONE, ClassTarget, LayerTarget


class Scorer:
    """Reads the score of a target for changed versions of one input.

    model: as `dnnviz.explain.attribute` takes it, and left as it was. input: [C, H, W]. target: as `attribute` takes it; what it
    means for this input (the class predicted, the input's own direction of a layer) is fixed here, so that a changed input is asked the same.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        input: torch.Tensor | np.ndarray,
        target: object = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.model = model
        with undisturbed(model), torch.no_grad():
            [self._question] = questions(model, input, target, mean, std)
            self.whole = float(self._question.score())

    @property
    def input(self) -> torch.Tensor:
        """[1, C, H, W], on the network's device."""
        return self._question.inputs

    @property
    def span(self) -> torch.Tensor:
        """[C, 1, 1]: from black to white, as the network sees them."""
        return self._question.white - self._question.black

    @property
    def target(self) -> ClassTarget | LayerTarget:
        """The target with nothing left open that would depend on the input."""
        objective = self._question.objective
        if isinstance(objective, ClassObjective):
            return ClassTarget(int(objective.classes[0]), int(objective.against[0]))
        given = objective.target
        if given.unit is not None or given.vector is not None:
            return given
        return LayerTarget(given.layer, vector=objective.vectors[0].cpu().numpy())

    @property
    def of_a_class(self) -> bool:
        """Whether the target is one class, so that it has a probability."""
        return isinstance(self.target, ClassTarget) and self.target.against == NONE

    def scores(self, count: int, change: Callable[[torch.Tensor], torch.Tensor], probability: bool = False) -> torch.Tensor:
        """[count]: scores (or probabilities of the class) of inputs [m, C, H, W] that `change` makes from their numbers [m]."""
        found = []
        with undisturbed(self.model), torch.no_grad():
            for numbers in torch.arange(count, device=self.input.device).split(self._question.per_pass):
                rows = torch.zeros_like(numbers)
                values, weights = self._question.read(change(numbers), rows)
                if probability:
                    values = values.softmax(dim=1)
                found.append((values * weights).flatten(1).sum(dim=1))
        return torch.cat(found)
