"""Layer-wise relevance propagation through a whole network: which rule answers which call of its forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from dnnviz.explain.lrp_rules import (
    Channelwise,
    Convolution,
    Layer,
    Linear,
    alpha_beta_rule,
    box_rule,
    epsilon_rule,
    gamma_rule,
    over,
)
from dnnviz.explain.scratch import Scratch
from dnnviz.explain.signals import ELEMENTWISE, Rule, Signals, arguments, mark, marked, of_signal, ruled, signals_in

Arguments = tuple[Any, ...]
_GATES = frozenset({"sigmoid", "hardsigmoid", "tanh"})
_ATTENTION = "attention weighs signals by a softmax of other signals, which relevance cannot be split over"


@dataclass(frozen=True)
class Settings:
    """What the user chose: rule as in `dnnviz.explain.methods.lrp`, epsilon of the epsilon rule, gamma of the gamma rule."""

    rule: str
    epsilon: float
    gamma: float


class Relevance(Signals):
    """Calls answered so that what flows backward is relevance instead of a gradient; see `start`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("LRP", _RULES)
        self.settings = settings
        self.first = True
        self.room = (Scratch(), Scratch())

    def start(self, inputs: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """The network's input as a leaf; relevance that is propagated back arrives as its gradient. low, high: [C, 1, 1], bounds of a pixel."""
        leaf = inputs.detach().clone().requires_grad_()
        return marked(leaf, (low.expand_as(leaf), high.expand_as(leaf)))

    def of_layer(self, layer: Layer, bounds: tuple[torch.Tensor, ...]) -> Callable[[torch.Tensor], tuple[torch.Tensor]]:
        """The backward pass of a layer under the chosen rule; bounds: those of its input, where it is the first convolution."""
        settings = self.settings
        if bounds:
            # The same for every input of the batch.
            low, high = torch.minimum(*bounds)[:1], torch.maximum(*bounds)[:1]
            return lambda relevance: (box_rule(layer, relevance, low, high),)
        if settings.rule == "epsilon" or (isinstance(layer.map, Linear) and settings.rule != "gamma"):
            return lambda relevance: (epsilon_rule(layer, relevance, settings.epsilon),)
        if settings.rule in ("gamma", "epsilon-gamma-box"):
            return lambda relevance: (gamma_rule(layer, relevance, settings.gamma),)
        alpha = {"epsilon-plus": 1, "alpha2-beta1": 2}[settings.rule]
        return lambda relevance: (alpha_beta_rule(layer, relevance, alpha),)


def _signal(args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    return next(signals_in((args, kwargs)))


def _pass(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """Activation functions, and arithmetic with constants: relevance passes through to the signal."""
    signal = _signal(args, kwargs)
    with torch.no_grad():
        output = function(*args, **kwargs)
    shape = signal.shape
    output = ruled(output, lambda relevance: (relevance.sum_to_size(shape),), signal)
    return marked(output, mode.companions(function, args, kwargs), gate=getattr(function, "__name__", "") in _GATES)


def _proportional(signal: torch.Tensor, linear: Callable[[torch.Tensor], torch.Tensor], output: torch.Tensor | None = None) -> torch.Tensor:
    """Relevance in proportion to what each value contributes to `linear(signal)`; output: the network's own value of it."""
    inputs = signal.detach().requires_grad_()
    with torch.enable_grad():
        total = linear(inputs)
    output = total.detach() if output is None else output

    def backward(relevance: torch.Tensor) -> tuple[torch.Tensor]:
        (flowing,) = torch.autograd.grad(total, inputs, over(relevance, total.detach()))
        return (inputs.detach() * flowing,)

    return marked(ruled(output.detach(), backward, signal))


def _linear_call(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """Means, sums and other functions that are linear in one signal."""
    found = list(signals_in((args, kwargs)))
    if len(found) != 1:
        raise mode.undefined("it multiplies signals with one another, as attention does")

    return _proportional(found[0], of_signal(function, args, kwargs, found[0]))


def _add(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """Relevance in proportion to the two summands; a constant summand takes none."""
    one, other, *_ = *args, *(kwargs[key] for key in ("input", "other") if key in kwargs)
    if mark(one) is None or mark(other) is None:
        return _pass(mode, function, args, kwargs)
    name = getattr(function, "__name__", "").strip("_")
    if name == "rsub":
        one, other = other, one
    sign = 1 if name in ("add", "iadd", "radd") else -1
    first, second = one.detach(), sign * kwargs.get("alpha", 1) * other.detach()
    total = first + second

    def backward(relevance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        share = over(relevance, total)
        return (first * share).sum_to_size(first.shape), (second * share).sum_to_size(second.shape)

    return marked(ruled(total.detach(), backward, one, other))


def _multiply(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """Relevance passes to the signal, not to the gate that scales it; halves where neither of two is a gate."""
    one, other = (*args, *(kwargs[key] for key in ("input", "other") if key in kwargs))[:2]
    if mark(one) is None or mark(other) is None:
        return _pass(mode, function, args, kwargs)
    with torch.no_grad():
        output = function(*args, **kwargs)
    gated = (one.numel() < other.numel(), other.numel() < one.numel())
    if not any(gated):
        gated = (mark(one).gate, mark(other).gate)
    if gated[0] == gated[1]:
        return marked(ruled(output, lambda relevance: (relevance / 2, relevance / 2), one, other))
    return marked(ruled(output, lambda relevance: (relevance,), other if gated[0] else one))


def _divide(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """Relevance passes to the numerator; a denominator only scales it."""
    with torch.no_grad():
        output = function(*args, **kwargs)
    signal = _signal(args, kwargs)
    shape = signal.shape
    return marked(ruled(output, lambda relevance: (relevance.sum_to_size(shape),), signal), mode.companions(function, args, kwargs))


def _convolve(mode: Relevance, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    transposed = "transpose" in function.__name__
    names = ("input", "weight", "bias", "stride", "padding", *(("output_padding", "groups", "dilation") if transposed else ("dilation", "groups")))
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    signal, weight, bias = given["input"], given["weight"], given.get("bias")
    _own_weights(mode, weight)
    dims = weight.ndim - 2
    padding = given.get("padding", 0)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        # What torch pads, the odd pixel on the right.
        reach = [size * (kernel - 1) for size, kernel in zip(_each(given.get("dilation", 1), dims), weight.shape[2:], strict=True)]
        signal = mode.native(F.pad, (signal, [side for total in reversed(reach) for side in (total // 2, total - total // 2)]), {})
        padding = 0
    settings = (_each(given.get(key, default), dims) for key, default in (("stride", 1), ("dilation", 1), ("output_padding", 0)))
    stride, dilation, output_padding = settings
    kind = Convolution(stride, _each(padding, dims), dilation, transposed, output_padding, given.get("groups", 1))
    with torch.no_grad():
        output = function(*args, **kwargs)
    layer = Layer(kind, signal.detach(), weight.detach(), None if bias is None else bias.detach(), output.detach(), room=mode.room)
    bounds = mark(signal).companions if mode.first and mode.settings.rule == "epsilon-gamma-box" else ()
    mode.first = False
    return marked(ruled(output, mode.of_layer(layer, bounds), signal), layer=layer)


def _each(value: int | tuple[int, ...], dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value) if len(value) == dims else list(value) * dims


def _own_weights(mode: Signals, weight: torch.Tensor) -> None:
    if mark(weight) is not None:
        raise mode.undefined("it computes weights of a layer from the input")


def _linear(mode: Relevance, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    given = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
    signal, weight, bias = given["input"], given["weight"], given.get("bias")
    _own_weights(mode, weight)
    with torch.no_grad():
        output = function(*args, **kwargs)
    layer = Layer(Linear(), signal.detach(), weight.detach(), None if bias is None else bias.detach(), output.detach(), channels=-1, room=mode.room)
    return marked(ruled(output, mode.of_layer(layer, ()), signal), layer=layer)


def _batch_norm(mode: Relevance, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """Merged into the layer before it; by itself a layer of one factor a channel, under the rule of convolutions."""
    given = arguments(F.batch_norm, args, kwargs)
    signal, mean, variance = given["input"], given["running_mean"], given["running_var"]
    if given["training"] or mean is None:
        raise mode.undefined("its batch norm keeps no statistics and normalises by the batch itself")
    with torch.no_grad():
        output = function(*args, **kwargs)
        scale = (variance + given["eps"]).rsqrt()
        scale = scale if given["weight"] is None else scale * given["weight"]
        shift = -mean * scale if given["bias"] is None else given["bias"] - mean * scale
    layer = mark(signal).layer
    if layer is not None and layer.scale is None and (layer.channels == 1 or signal.ndim == 2):
        layer.scale, layer.shift, layer.output = scale, shift, output.detach()
        return marked(ruled(output, lambda relevance: (relevance,), signal))
    factors = scale.view(-1, *[1] * (signal.ndim - 2))
    layer = Layer(Channelwise(), signal.detach(), factors, shift, output.detach(), room=mode.room)
    return marked(ruled(output, mode.of_layer(layer, ()), signal))


def _layer_norm(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """The standard deviation is a constant; relevance in proportion to what is left, which is linear. Source: Ali et al. 2022."""
    given = arguments(F.layer_norm, args, kwargs)
    signal = given["input"]
    dims = tuple(range(-len(given["normalized_shape"]), 0))
    with torch.no_grad():
        output = function(*args, **kwargs)
        spread = (signal.var(dim=dims, correction=0, keepdim=True) + given["eps"]).rsqrt()
        weight, bias = (None if given[key] is None else given[key].detach() for key in ("weight", "bias"))
    return _normalised(signal, lambda x: x - x.mean(dim=dims, keepdim=True), spread, weight, bias, output)


def _group_norm(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """As layer norm, over groups of channels."""
    given = arguments(F.group_norm, args, kwargs)
    signal, groups = given["input"], given["num_groups"]

    def centred(x: torch.Tensor) -> torch.Tensor:
        parts = x.reshape(len(x), groups, -1)
        return (parts - parts.mean(dim=2, keepdim=True)).reshape(x.shape)

    with torch.no_grad():
        output = function(*args, **kwargs)
        parts = signal.reshape(len(signal), groups, -1)
        spread = (parts.var(dim=2, correction=0) + given["eps"]).rsqrt().repeat_interleave(signal.shape[1] // groups, dim=1)
        spread, weight, bias = (
            None if v is None else v.detach().reshape(*v.shape, *[1] * (signal.ndim - 2)) for v in (spread, given["weight"], given["bias"])
        )
    return _normalised(signal, centred, spread, weight, bias, output)


def _normalised(
    signal: torch.Tensor,
    centred: Callable[[torch.Tensor], torch.Tensor],
    spread: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    output: torch.Tensor,
) -> torch.Tensor:
    factor = spread if weight is None else spread * weight
    return _proportional(signal, lambda x: centred(x) * factor + (0 if bias is None else bias), output)


def _native(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
    """Maxima: the winner takes all, which is the derivative."""
    return mode.native(function, args, kwargs)


def _attention(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
    raise mode.undefined(_ATTENTION)


_RULES: dict[str, Rule] = {
    **dict.fromkeys((*ELEMENTWISE, "neg", "local_response_norm", "normalize"), _pass),
    **dict.fromkeys(("add", "sub", "rsub"), _add),
    "mul": _multiply,
    **dict.fromkeys(("div", "rdiv"), _divide),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolve),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _linear_call),
    **dict.fromkeys(("mean", "sum", "interpolate", "upsample", "fold", "matmul", "einsum"), _linear_call),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), _native),
    **dict.fromkeys(("max", "amax", "masked_fill", "where"), _native),
    **dict.fromkeys(("softmax", "scaled_dot_product_attention", "multi_head_attention_forward"), _attention),
}
