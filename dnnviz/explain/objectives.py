"""How the score that is explained is read from a network, for the inputs of one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dnnviz.errors import DNNVizError
from dnnviz.explain.network import scores
from dnnviz.explain.targets import NONE, PREDICTED, SECOND, ClassTarget, LayerTarget
from dnnviz.layers import find_layers
from dnnviz.taps import Taps, units_first


class ClassObjective:
    """Scores of classes, or their differences, for the inputs of one batch."""

    def __init__(self, targets: Sequence[ClassTarget]) -> None:
        self.targets = targets
        self.classes: torch.Tensor | None = None  # int64 [n]: the class explained
        self.weights: torch.Tensor | None = None  # [n, K]: score = Σ logits · weights

    def fix(self, logits: torch.Tensor) -> None:
        """Put classes in the place of `predicted` and `second`, from the logits [n, K] of the batch."""
        count = logits.shape[1]
        best = logits.topk(min(2, count), dim=1).indices
        rows = []
        for row, target in enumerate(self.targets):
            first = int(best[row, 0]) if target.index == PREDICTED else target.index
            # The strongest rival of the class explained.
            second = next((int(i) for i in best[row] if int(i) != first), first) if target.against == SECOND else target.against
            for index in (first, second):
                if index >= count:
                    raise DNNVizError(f"The target is class {index}; this network has classes 0 to {count - 1}.")
            rows.append((first, second))
        self.classes = torch.tensor([first for first, _ in rows], device=logits.device)
        self.against = np.array([second for _, second in rows])
        self.weights = torch.nn.functional.one_hot(self.classes, count).to(logits.dtype)
        for row, (_, second) in enumerate(rows):
            if second != NONE:
                self.weights[row, second] -= 1

    def read(self, model: torch.nn.Module, inputs: torch.Tensor, rows: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(logits, values, weights) of inputs that belong to rows of the batch (None: the batch itself); score = Σ values · weights."""
        logits = scores(model, inputs)
        if self.weights is None:
            self.fix(logits.detach())
        return logits, logits, self.weights if rows is None else self.weights[rows]


class LayerObjective:
    """Activation of a unit, or of a layer along a direction, for the inputs of one batch."""

    def __init__(self, model: torch.nn.Module, inputs: torch.Tensor, target: LayerTarget) -> None:
        self.target = target
        self.found = find_layers(model, inputs[:1], only=[target.layer]).found[0]
        units = self.found.layer.units
        if target.unit is not None and target.unit >= units:
            raise DNNVizError(f"{target.layer} has units 0 to {units - 1}; unit {target.unit} was asked for.")
        if target.vector is not None and target.vector.shape != (units,):
            raise DNNVizError(f"The direction has shape {list(target.vector.shape)}; {target.layer} has {units} units.")
        self.classes: torch.Tensor | None = None
        self.against = np.full(len(inputs), NONE)
        self.vectors: torch.Tensor | None = None  # [n, units]

    def read(self, model: torch.nn.Module, inputs: torch.Tensor, rows: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `ClassObjective.read`; values are the layer's activations [m, units, …]."""
        held: list[torch.Tensor] = []
        with Taps([self.found.tap], lambda _, tensor: held.append(tensor)):
            logits = scores(model, inputs)
        if not held:
            raise DNNVizError(f"{self.target.layer} did not run on these inputs; choose another layer.")
        values = units_first(held[0], self.found.tap.value, len(inputs))
        if self.vectors is None:
            self.vectors = self._vectors(values.detach())
            self.classes = torch.full((len(inputs),), -1, dtype=torch.int64, device=inputs.device)
        vectors = self.vectors if rows is None else self.vectors[rows]
        places = values[0, 0].numel()
        return logits, values, (vectors / places).reshape(*vectors.shape, *[1] * (values.ndim - 2)).expand_as(values)

    def _vectors(self, values: torch.Tensor) -> torch.Tensor:
        if self.target.unit is not None:
            vectors = torch.zeros(len(values), values.shape[1], dtype=values.dtype, device=values.device)
            vectors[:, self.target.unit] = 1
            return vectors
        if self.target.vector is not None:
            vectors = torch.as_tensor(self.target.vector, dtype=values.dtype, device=values.device).expand(len(values), -1)
        else:
            vectors = values.flatten(2).mean(dim=2) if values.ndim > 2 else values
        return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)
