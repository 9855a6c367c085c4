"""A pruned network as weights: with zeros in the original architecture, or cut out where the graph allows it (torch)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from dnnviz.errors import DNNVizError
from dnnviz.layers import Layers
from dnnviz.pruning.costs import norm_ops, weighted_op
from dnnviz.pruning.saved import Costs

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def masked(model: nn.Module, found: Layers, chosen: Mapping[str, np.ndarray]) -> nn.Module:
    """A copy of a network whose chosen units {layer: units} have weights, bias and normalisation zero.

    The masks are put on by `torch.nn.utils.prune.custom_from_mask` and made permanent by `prune.remove`, so that its state_dict
    loads into the original architecture with strict=True. found: the layers of `model`.
    """
    result = copy.deepcopy(model)
    for layer, units in chosen.items():
        for module_name, parameter in _own(model, found, layer):
            module = result.get_submodule(module_name)
            mask = torch.ones_like(getattr(module, parameter))
            mask[torch.from_numpy(units)] = 0
            prune.custom_from_mask(module, parameter, mask)
            prune.remove(module, parameter)
    return result


def sliced(model: nn.Module, found: Layers, costs: Costs, chosen: Mapping[str, np.ndarray]) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """(a copy of a network without the chosen units, the units that had to stay and are zero instead).

    A unit is cut out with its weights, bias, batch norm and the inputs of the layers that consume it where all of these are known:
    in chains, and through concatenations. What reaches an addition stays, since its channels are shared with the other branch.
    """
    cut = {cost.name for cost in costs.layers if cost.cut}
    stay = {layer: units for layer, units in chosen.items() if layer not in cut}
    result = masked(model, found, stay)
    names = [cost.name for cost in costs.layers]
    gone: dict[str, list[np.ndarray]] = {}
    for cost in costs.layers:
        for to, offset, times in cost.links if cost.name in cut and cost.name in chosen else ():
            gone.setdefault(names[to], []).append((offset + chosen[cost.name][:, None] * times + np.arange(times)).ravel())
    by_name = {item.layer.name: item for item in found.found}
    for layer, inputs in gone.items():
        module = result.get_submodule(by_name[layer].call.name)
        _keep(module, "weight", _rest(module.weight.shape[1], np.concatenate(inputs)), 1)
    for layer in cut & set(chosen):
        for module_name, parameter in _own(model, found, layer):
            module = result.get_submodule(module_name)
            rest = _rest(len(getattr(module, parameter)), chosen[layer])
            _keep(module, parameter, rest, 0)
            if isinstance(module, _BATCH_NORMS) and parameter == "weight":
                for buffer in ("running_mean", "running_var"):
                    setattr(module, buffer, getattr(module, buffer)[rest].clone())
    for module in result.modules():
        _settle(module)
    return result, stay


def load_sliced(model: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Give a network of the original architecture the shapes of a state_dict that `sliced` made, and its weights; returns it."""
    for name, tensor in state.items():
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        if own in module._parameters and module._parameters[own] is not None:
            module._parameters[own] = nn.Parameter(torch.empty_like(tensor))
        elif own in module._buffers:
            module._buffers[own] = torch.empty_like(tensor)
    for module in model.modules():
        _settle(module)
    model.load_state_dict(state, strict=True)
    return model


def _own(model: nn.Module, found: Layers, layer: str) -> list[tuple[str, str]]:
    """(path of the module, name) of the parameters with a row for every unit of a layer: weight, bias, and those of its batch norm."""
    item = next(each for each in found.found if each.layer.name == layer)
    op = weighted_op(item, found.trace)
    if op is None:
        raise DNNVizError(f"The weights of {layer} cannot be pruned: {type(item.call.module).__name__} is no convolution or linear layer.")
    pairs = [(item.call.name, name) for name, _ in item.call.module.named_parameters(recurse=False)]
    for norm in norm_ops(item, op):
        if norm.name != "batch_norm":
            raise DNNVizError(f"{layer} is normalised together with its neighbours ({norm.name}); zero weights would change them as well.")
        pairs += [tuple(name.rsplit(".", 1)) if "." in name else ("", name) for name in norm.weights]
    return [pair for pair in dict.fromkeys(pairs) if len(getattr(model.get_submodule(pair[0]), pair[1])) == item.layer.units]


def _rest(count: int, gone: np.ndarray) -> torch.Tensor:
    keep = np.ones(count, dtype=bool)
    keep[gone] = False
    return torch.from_numpy(np.flatnonzero(keep))


def _keep(module: nn.Module, name: str, rows: torch.Tensor, dimension: int) -> None:
    parameter = getattr(module, name)
    setattr(module, name, nn.Parameter(parameter.detach().index_select(dimension, rows).clone(), requires_grad=parameter.requires_grad))


def _settle(module: nn.Module) -> None:
    """Let a module's counts follow the shapes of its tensors."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, _BATCH_NORMS) and module.running_mean is not None:
        module.num_features = len(module.running_mean)
