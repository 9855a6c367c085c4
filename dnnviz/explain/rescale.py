"""DeepLIFT through a whole network: an input and its baseline side by side, and the rescale rule for every call of the forward pass.

What is linear keeps its derivative. A function of one value gets the slope between baseline and input. Everything else is taken
apart into such functions, linear ones and products, for which the change of the output is split exactly; so the contributions
add up to the change of the score, also through layer norm and attention.
Source: Shrikumar et al. 2017, sections 3.2 and 3.3 (multipliers and their chain rule, linear and rescale rule).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from dnnviz.explain.signals import ELEMENTWISE, Rule, Signals, arguments, mapped, mark, marked, of_signal, ruled, signals_in

Arguments = tuple[Any, ...]
_SMALL = 1e-10  # change of a value below which its slope is the derivative


class Rescale(Signals):
    """Calls answered so that what flows backward is multipliers instead of a gradient; see `start`."""

    def __init__(self) -> None:
        super().__init__("DeepLIFT", _RULES)

    def start(self, inputs: torch.Tensor, baseline: torch.Tensor) -> torch.Tensor:
        """The network's input as a leaf; the multipliers arrive as its gradient. Both [n, C, H, W]."""
        return marked(inputs.detach().clone().requires_grad_(), (baseline,))


def reference(signal: torch.Tensor) -> torch.Tensor:
    """The value that a tensor of the pass has for the baseline."""
    known = mark(signal)
    return signal.detach() if known is None else known.companions[0]


def _rescale(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """A function of one value: the slope between the baseline's value and the input's."""
    found = list(signals_in((args, kwargs)))
    if len(found) != 1:
        raise mode.undefined(f"{function.__name__} takes several signals at once")
    (before,) = mode.companions(function, args, kwargs)
    signal = found[0]
    inputs = signal.detach()

    call = of_signal(function, args, kwargs, signal)
    with torch.no_grad():
        output = call(inputs)
    after = output.detach()
    start = reference(signal)

    def backward(flowing: torch.Tensor) -> tuple[torch.Tensor]:
        change = inputs - start
        slope = (after - before) / change
        small = change.abs() < _SMALL
        if bool(small.any()):
            with torch.enable_grad():
                leaf = inputs.clone().requires_grad_()
                (derivative,) = torch.autograd.grad(call(leaf).sum(), leaf)
            slope = torch.where(small, derivative, slope)
        return (flowing * slope,)

    return marked(ruled(output, backward, signal), (before,))


def _product(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """Products of all kinds: linear in each of two signals, whose part of the change is that with the other halfway."""
    found = list(signals_in((args, kwargs)))
    if len(found) == 1:
        return mode.native(function, args, kwargs)
    if len(found) != 2:
        raise mode.undefined(f"{function.__name__} multiplies more than two signals")
    (before,) = mode.companions(function, args, kwargs)
    with torch.no_grad():
        output = function(*args, **kwargs)
    # Both may be the same signal (a square): it appears once.
    signals = {id(each): each for each in found}
    halfway = {key: (each.detach() + reference(each)) / 2 for key, each in signals.items()}
    given = mapped(lambda each: halfway.get(id(each), each), (args, kwargs))

    def backward(flowing: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            leaves = {id(each): each.detach().requires_grad_() for each in halfway.values()}
            args, kwargs = mapped(lambda each: leaves.get(id(each), each), given)
            total = function(*args, **kwargs)
        return torch.autograd.grad(total, list(leaves.values()), flowing)

    return marked(ruled(output, backward, *signals.values()), (before,))


def _divide(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    one, other = args if not function.__name__.strip("_").startswith("r") else args[::-1]
    if mark(other) is None:
        return mode.native(function, args, kwargs)
    inverse = _rescale(mode, torch.reciprocal, (other,), {})
    return _product(mode, torch.mul, (one, inverse), {})


def _square(mode: Signals, signal: torch.Tensor) -> torch.Tensor:
    """x · x: as a product the slope is the sum of the two values, without a division."""
    return _product(mode, torch.mul, (signal, signal), {})


def _stretched(mode: Signals, signal: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """signal · factor, for a positive factor that is computed from the signal itself (one over its spread, its sum, its length).

    With y = x r, the change of y is Δx 2 r r₀ / (r + r₀) + Δr (y + y₀) / (r + r₀), exactly. Unlike the halves of `_product` both
    terms stay as small as the values themselves where one of the factors is huge, as that of a layer norm of a flat picture is.
    """
    with torch.no_grad():
        (before,) = mode.companions(torch.mul, (signal, factor), {})
        output = signal * factor
        now, then = factor.detach(), reference(factor)
        of_signal = 2 * now * then / (now + then)
        of_factor = (output + before) / (now + then)

    def backward(flowing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return flowing * of_signal, (flowing * of_factor).sum_to_size(now.shape)

    return marked(ruled(output, backward, signal, factor), (before,))


def _softmax(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """Exponential functions over their sum: a function of one value, a sum, an inverse and a product."""
    signal = args[0] if args else kwargs["input"]
    dim = kwargs["dim"] if "dim" in kwargs else args[1]
    peak = torch.maximum(signal.detach(), reference(signal)).amax(dim=dim, keepdim=True)
    raised = _rescale(mode, torch.exp, (mode.native(torch.sub, (signal, peak), {}),), {})
    total = mode.native(torch.sum, (raised,), {"dim": dim, "keepdim": True})
    return _stretched(mode, raised, _rescale(mode, torch.reciprocal, (total,), {}))


def _standardised(mode: Signals, signal: torch.Tensor, dims: tuple[int, ...], eps: float) -> torch.Tensor:
    """(x - mean) / standard deviation over `dims`."""
    mean = mode.native(torch.mean, (signal,), {"dim": dims, "keepdim": True})
    centred = mode.native(torch.sub, (signal, mean), {})
    variance = mode.native(torch.mean, (_square(mode, centred),), {"dim": dims, "keepdim": True})
    spread = _rescale(mode, torch.rsqrt, (mode.native(torch.add, (variance, eps), {}),), {})
    return _stretched(mode, centred, spread)


def _scaled(mode: Signals, signal: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    if weight is not None:
        signal = mode.native(torch.mul, (signal, weight), {})
    return signal if bias is None else mode.native(torch.add, (signal, bias), {})


def _layer_norm(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    given = arguments(F.layer_norm, args, kwargs)
    dims = tuple(range(-len(given["normalized_shape"]), 0))
    return _scaled(mode, _standardised(mode, given["input"], dims, given["eps"]), given["weight"], given["bias"])


def _group_norm(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    given = arguments(F.group_norm, args, kwargs)
    signal = given["input"]
    parts = mode.native(torch.unflatten, (signal, 1, (given["num_groups"], -1)), {})
    normal = _standardised(mode, parts, tuple(range(2, parts.ndim)), given["eps"])
    shape = (-1, *[1] * (signal.ndim - 2))
    weight, bias = (None if given[key] is None else given[key].view(shape) for key in ("weight", "bias"))
    return _scaled(mode, mode.native(torch.flatten, (normal, 1, 2), {}), weight, bias)


def _normalize(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """x over its Euclidean length."""
    given = arguments(F.normalize, args, kwargs)
    if given["p"] != 2:
        raise mode.undefined("it divides by a norm that is not Euclidean")
    signal = given["input"]
    total = mode.native(torch.sum, (_square(mode, signal),), {"dim": given["dim"], "keepdim": True})
    length = _rescale(mode, lambda squared: 1 / squared.sqrt().clamp(min=given["eps"]), (total,), {})
    return _stretched(mode, signal, length)


def _batch_norm(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    given = arguments(F.batch_norm, args, kwargs)
    if given["training"] or given["running_mean"] is None:
        raise mode.undefined("its batch norm keeps no statistics and normalises by the batch itself")
    return mode.native(function, args, kwargs)


def _linear(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
    """Linear in the first argument; weights that depend on the input are no constants."""
    if mark(args[1] if len(args) > 1 else kwargs["weight"]) is not None:
        raise mode.undefined("it computes weights of a layer from the input")
    return mode.native(function, args, kwargs)


def _max_pool(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    """The part of the change above the lower of the two maxima goes to where the higher one lies. Source: Captum's rule."""
    if kwargs.pop("return_indices", False):
        raise mode.undefined("it keeps the places of maxima")
    signal = args[0] if args else kwargs["input"]
    kwargs["return_indices"] = True
    with torch.no_grad():
        output, places = function(*args, **kwargs)
    ((before, places_before),) = mode.companions(function, args, kwargs)
    inputs, start = signal.detach(), reference(signal)
    after = output.detach()
    spatial = 2 if places.ndim == inputs.ndim and inputs.ndim > 2 else 1

    def spread(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        flat = torch.zeros_like(inputs).flatten(spatial)
        # Windows overlap: a place may be the maximum of several.
        return flat.scatter_add_(spatial, where.flatten(spatial), values.flatten(spatial)).view_as(inputs)

    def backward(flowing: torch.Tensor) -> tuple[torch.Tensor]:
        higher = torch.maximum(after, before)
        change = inputs - start
        parts = spread(flowing * (higher - before), places) + spread(flowing * (after - higher), places_before)
        small = change.abs() < _SMALL
        return (torch.where(small, spread(flowing, places), parts / change),)

    return marked(ruled(output, backward, signal), (before,))


def _attend(mode: Signals, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(mixed values, weights) of attention over the last two dimensions."""
    scaled = mode.native(torch.mul, (query, scale), {})
    matches = _product(mode, torch.matmul, (scaled, mode.native(torch.transpose, (key, -2, -1), {})), {})
    weights = _softmax(mode, F.softmax, (matches, -1), {})
    return _product(mode, torch.matmul, (weights, value), {}), weights


def _dot_product_attention(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> torch.Tensor:
    given = {**dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)), **kwargs}
    if given.get("attn_mask") is not None or given.get("is_causal") or given.get("enable_gqa"):
        raise mode.undefined("its attention has a mask")
    scale = given.get("scale") or 1 / math.sqrt(given["query"].shape[-1])
    return _attend(mode, given["query"], given["key"], given["value"], scale)[0]


def _multi_head_attention(
    mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention of several heads over tokens [L, N, E], written out."""
    given = arguments(F.multi_head_attention_forward, args, kwargs)
    extras = ("bias_k", "bias_v", "add_zero_attn", "key_padding_mask", "attn_mask", "use_separate_proj_weight", "static_k", "static_v")
    if any(given[key] is not None and given[key] is not False for key in extras) or given["query"].ndim != 3:
        raise mode.undefined("its attention has a mask, or keys and values of another width")
    heads, width = given["num_heads"], given["query"].shape[2]
    parts = []
    for i, name in enumerate(("query", "key", "value")):
        weight = given["in_proj_weight"][i * width : (i + 1) * width]
        bias = None if given["in_proj_bias"] is None else given["in_proj_bias"][i * width : (i + 1) * width]
        tokens = mode.native(F.linear, (given[name], weight, bias), {})
        parts.append(mode.native(lambda t: t.unflatten(2, (heads, -1)).permute(1, 2, 0, 3), (tokens,), {}))
    mixed, weights = _attend(mode, *parts, 1 / math.sqrt(width // heads))
    mixed = mode.native(lambda t: t.permute(2, 0, 1, 3).flatten(2), (mixed,), {})
    output = mode.native(F.linear, (mixed, given["out_proj_weight"], given["out_proj_bias"]), {})
    if not given["need_weights"]:
        return output, None
    return output, mode.native(torch.mean, (weights,), {"dim": 1}) if given["average_attn_weights"] else weights


def _native(mode: Signals, function: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
    return mode.native(function, args, kwargs)


_POOLS = tuple(f"{kind}_pool{d}d" for kind in ("max", "adaptive_max") for d in (1, 2, 3))
_AVERAGES = tuple(f"{kind}_pool{d}d" for kind in ("avg", "adaptive_avg") for d in (1, 2, 3))
_CONVOLUTIONS = tuple(f"{kind}{d}d" for kind in ("conv", "conv_transpose") for d in (1, 2, 3))
_RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _rescale),
    **dict.fromkeys(("neg", "add", "sub", "rsub", *_AVERAGES, "mean", "sum", "interpolate", "upsample", "fold"), _native),
    **dict.fromkeys(("linear", *_CONVOLUTIONS), _linear),
    **dict.fromkeys(("mul", "matmul", "rmatmul", "einsum"), _product),
    **dict.fromkeys(("div", "rdiv"), _divide),
    **dict.fromkeys(_POOLS, _max_pool),
    "batch_norm": _batch_norm,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
    "scaled_dot_product_attention": _dot_product_attention,
    "multi_head_attention_forward": _multi_head_attention,
}
