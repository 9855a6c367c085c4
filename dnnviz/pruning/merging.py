"""What later layers took from a removed unit, they take from the unit that it follows: weights in which that is done (torch).

S. Srinivas, R. V. Babu: Data-free parameter pruning for deep neural networks, BMVC 2015, there for equal units of linear layers; here
for units that follow each other on data, by least squares as in Y. He et al., Channel pruning, ICCV 2017, with one unit for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dnnviz.layers import Found
from dnnviz.pruning.costs import norm_ops, own_batch_norm, weighted_op
from dnnviz.pruning.program import Program
from dnnviz.pruning.saved import Costs

_ROWS = 20_000  # positions of a batch that moments are over; more change no digit of the fit that counts


@dataclass(frozen=True)
class Moments:
    """Mean of the values [units] of a layer, and of their products [units, units], over inputs and positions."""

    mean: np.ndarray
    products: np.ndarray

    def fit(self, gone: np.ndarray, centred: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(partner int64, slope, intercept) [k] for units `gone`: value ≈ slope · partner's value + intercept, by least squares.

        The partner is the unit still there that correlates most. A slope is never negative, so that a maximum over places goes
        through; not centred: the line goes through the origin.
        """
        stay = np.setdiff1d(np.arange(len(self.mean)), gone)
        together = self.products - np.outer(self.mean, self.mean)
        spread = np.sqrt(np.maximum(np.diag(together), 0))
        # A unit that never changes correlates with none.
        scale = np.where(spread > 1e-6 * np.sqrt(np.maximum(np.diag(self.products), 1e-30)), spread, np.inf)
        partner = stay[(together[np.ix_(gone, stay)] / scale[stay]).argmax(axis=1)]
        base = together if centred else self.products
        below = base[partner, partner]
        slope = np.divide(np.maximum(base[gone, partner], 0), below, out=np.zeros(len(gone)), where=below > 0)
        return partner, slope, self.mean[gone] - slope * self.mean[partner] if centred else np.zeros(len(gone))


def moments(program: Program, inputs: torch.Tensor, names: Sequence[str]) -> dict[str, Moments]:
    """Moments of layers over inputs as the network takes them; of many positions an even part."""
    sums: dict[str, torch.Tensor] = {}
    products: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    if not names:
        return {}
    for first in range(0, len(inputs), program.size):
        for name, value in program.values(inputs[first : first + program.size], names).items():
            rows = value.movedim(program.value(name).channel, -1).flatten(0, -2)
            rows = rows[:: 1 + len(rows) // _ROWS].double()
            sums[name] = sums.get(name, 0) + rows.sum(dim=0)
            products[name] = products.get(name, 0) + rows.T @ rows
            counts[name] = counts.get(name, 0) + len(rows)
    return {name: Moments((sums[name] / counts[name]).numpy(), (products[name] / counts[name]).numpy()) for name in sums}


def merged(
    model: nn.Module, program: Program, costs: Costs, chosen: Mapping[str, np.ndarray], known: Mapping[str, Moments]
) -> dict[str, torch.Tensor]:
    """{name in the state_dict: tensor} that differ from the network's once the chosen units {layer: units} are given to those they follow.

    The weights of a layer that takes unit u get, for its partner r, slope times what they had for u; the intercept goes into its
    bias, or into the running mean of the batch norm behind it. Where a convolution pads its input with zeros, the intercept is
    there as well; this is the approximation's own error, like what is left of the fit. Units of layers without `merges` are left.
    """
    new: dict[str, torch.Tensor] = {}
    state = model.state_dict()
    for cost in costs.layers:
        if not cost.merges or cost.name not in chosen:
            continue
        gone = chosen[cost.name]
        for to, offset, times in cost.links:
            item = program.by_name[costs.layers[to].name]
            shift = _shift(model, item, program)
            partner, slope, intercept = known[cost.name].fit(gone, centred=shift is not None)
            name = f"{item.call.name}.weight"
            taken = state[name][:, _columns(gone, offset, times)]
            new.setdefault(name, state[name].clone()).index_add_(1, _columns(partner, offset, times), _scaled(taken, slope))
            if shift is not None:
                target, sign = shift
                new.setdefault(target, state[target].clone()).add_(_scaled(taken, intercept).flatten(1).sum(dim=1), alpha=sign)
    return new


@contextmanager
def swapped(model: nn.Module, new: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let tensors of a network's state_dict have other values for a while."""
    state = model.state_dict()
    before = {name: state[name].clone() for name in new}
    try:
        for name, tensor in new.items():
            state[name].copy_(tensor)
        yield
    finally:
        for name, tensor in before.items():
            state[name].copy_(tensor)


def _columns(units: np.ndarray, offset: int, times: int) -> torch.Tensor:
    """The inputs of a layer that are these units of the one before."""
    return torch.from_numpy((offset + units[:, None] * times + np.arange(times)).ravel())


def _scaled(taken: torch.Tensor, factors: np.ndarray) -> torch.Tensor:
    """Weights [O, k · times, …] of k units, each multiplied by its factor."""
    each = torch.from_numpy(np.repeat(factors, taken.shape[1] // len(factors))).to(taken.dtype)
    return taken * each.reshape(1, -1, *[1] * (taken.dim() - 2))


def _shift(model: nn.Module, item: Found, program: Program) -> tuple[str, int] | None:
    """(name of the tensor that a constant goes into, its sign) of a layer: its bias, or the running mean behind it; None: neither."""
    if item.call.module.bias is not None:
        return f"{item.call.name}.bias", 1
    op = weighted_op(item, program.found.trace)
    norms = [] if op is None else norm_ops(item, op)
    if len(norms) != 1 or not own_batch_norm(norms[0], program.found.trace):
        return None
    path = norms[0].weights[0].rpartition(".")[0]
    return (f"{path}.running_mean", -1) if getattr(model.get_submodule(path), "running_mean", None) is not None else None
