"""What a network is made of, unit by unit, and what removing units saves. No torch: pages count with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cost:
    """A layer of a run as parts that go with its units.

    prunable: its units can be removed; `why` says in words why not. outs, ins: its units, and the numbers of an input that its
    weights are for. weights, bias: their number in all. norm: parameters of the normalisation behind it, per unit.
    macs: multiply-adds for one input. links: (position of a layer, offset, times): unit u of this layer is the inputs offset +
    u·times … of that layer, for all that consume it; `cut`: these are known and end at weights, so that they go with the unit.
    merges: on the way to them nothing bends the values, so that those weights can take a unit that follows another from that one.
    """

    name: str
    prunable: bool
    why: str
    outs: int
    ins: int = 0
    weights: int = 0
    bias: int = 0
    norm: int = 0
    macs: int = 0
    cut: bool = False
    merges: bool = False
    links: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Costs:
    """The layers of a run in its order, and parameters and multiply-adds (of convolutions and linear layers) of the whole network."""

    layers: tuple[Cost, ...]
    parameters: int
    macs: int

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Costs:
        entries = [Cost(**{**entry, "links": tuple(tuple(link) for link in entry["links"])}) for entry in content["layers"]]
        return cls(tuple(entries), int(content["parameters"]), int(content["macs"]))

    def as_json(self) -> dict[str, Any]:
        return {"layers": [asdict(entry) for entry in self.layers], "parameters": self.parameters, "macs": self.macs}

    def own_parameters(self) -> np.ndarray:
        """int64 [L]: parameters of every layer with its normalisation."""
        return np.array([c.weights + c.bias + c.norm * c.outs for c in self.layers], dtype=np.int64)


@dataclass(frozen=True)
class Saving:
    """What goes with removed units: parameters and multiply-adds, in numbers and as shares of the network."""

    parameters: int
    macs: int
    parameter_share: float
    mac_share: float


def saving(costs: Costs, removed: Sequence[int] | np.ndarray) -> Saving:
    """What removing `removed` [L] units of each layer saves: their weights, biases and normalisation, and the inputs of the layers
    that consume them (of those that are `cut`). What two removed units share is counted once."""
    gone = [0] * len(costs.layers)
    for j, cost in enumerate(costs.layers):
        for i, _, times in cost.links if cost.cut else ():
            gone[i] += times * int(removed[j])
    parameters = macs = 0
    for i, cost in enumerate(costs.layers):
        left = cost.outs - int(removed[i])
        if not cost.weights or (left == cost.outs and not gone[i]):
            continue
        share = left * (cost.ins - gone[i]), cost.outs * cost.ins
        parameters += cost.weights - cost.weights * share[0] // share[1]
        macs += cost.macs - cost.macs * share[0] // share[1]
        parameters += (cost.bias // cost.outs + cost.norm) * (cost.outs - left)
    return Saving(parameters, macs, parameters / max(costs.parameters, 1), macs / max(costs.macs, 1))


def counted(costs: Costs, offsets: Sequence[int], units: np.ndarray) -> np.ndarray:
    """int64 [L]: how many of `units` (global numbers) each layer holds; offsets: first number of each layer."""
    return np.bincount(np.searchsorted(np.asarray(offsets), units, side="right") - 1, minlength=len(costs.layers))
