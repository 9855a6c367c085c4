"""Follow what a network computes from its input, call by call, and put rules of our own in the place of derivatives.

Methods of the relevance family redefine the backward pass of single operations. Here every call that a forward pass makes is seen
as a function with its arguments, whether the network writes it as a module, a function, a method, shared or in place; a rule
answers it out of place, and nothing in the network is replaced.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from dnnviz.errors import DNNVizError

Rule = Callable[["Signals", Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

# What only moves, copies or selects values, so that its own derivative is the rule of every method.
_SHAPES = """
    reshape reshape_as view view_as flatten unflatten ravel permute transpose swapaxes swapdims moveaxis movedim squeeze unsqueeze t T mT
    adjoint cat concat concatenate stack hstack vstack dstack split split_with_sizes tensor_split chunk unbind narrow select index_select
    getitem take_along_dim gather contiguous clone to type type_as float double half expand expand_as broadcast_to repeat repeat_interleave
    tile roll rot90 flip fliplr flipud pad pixel_shuffle pixel_unshuffle channel_shuffle unfold diagonal rename positive requires_grad get
"""
_PASSED = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout"
MOVES = frozenset(f"{_SHAPES} {_PASSED}".split())

# Functions of one value each.
_VALUES = """
    relu relu6 hardtanh leaky_relu prelu elu celu selu gelu silu mish hardswish hardsigmoid hardshrink softshrink tanhshrink sigmoid
    logsigmoid tanh softplus softsign threshold rrelu clamp clip clamp_min clamp_max exp expm1 log log1p log2 sqrt rsqrt square abs
    absolute pow float_power reciprocal erf sin cos atan arctan
"""
ELEMENTWISE = frozenset(_VALUES.split())

_SAME = {word: name for name in ("add", "sub", "mul", "matmul", "pow") for word in (f"i{name}", f"r{name}")}
_SAME |= {"rsub": "rsub", "rpow": "rpow", "rmatmul": "rmatmul", "negative": "neg", "mm": "matmul", "bmm": "matmul", "mv": "matmul"}
_SAME |= {"multiply": "mul", "subtract": "sub", **dict.fromkeys(("divide", "true_divide", "truediv", "itruediv"), "div"), "rtruediv": "rdiv"}
_IN_PLACE_DUNDER = ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imatmul__")


@dataclass(slots=True)
class Mark:
    """What is known of a tensor that depends on the input.

    companions: what the same calls make of other inputs (a baseline, the bounds of the pixels).
    now: the tensor that an in-place call put in its place. layer: the layer whose output it is. gate: it comes from a function
    that squashes to a range, as the gates of squeeze-and-excitation do.
    """

    companions: tuple[torch.Tensor, ...] = ()
    now: torch.Tensor | None = field(default=None, repr=False)
    layer: Any = None
    gate: bool = False


def mark(value: Any) -> Mark | None:
    """The mark of a tensor that depends on the input; None for everything else."""
    return getattr(value, "_signal", None) if isinstance(value, torch.Tensor) else None


def marked(tensor: torch.Tensor, companions: tuple[torch.Tensor, ...] = (), **known: Any) -> torch.Tensor:
    """The tensor, marked as one that depends on the input."""
    tensor._signal = Mark(companions, **known)  # type: ignore[attr-defined]
    return tensor


class _Ruled(torch.autograd.Function):
    """A computed output whose backward pass is a function of ours."""

    @staticmethod
    def forward(ctx: Any, output: tuple[torch.Tensor], backward: Callable[..., Any], *inputs: torch.Tensor) -> torch.Tensor:
        ctx.rule = backward
        return output[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, flowing: torch.Tensor) -> Any:
        return (None, None, *ctx.rule(flowing))


def ruled(output: torch.Tensor, backward: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], *inputs: torch.Tensor) -> torch.Tensor:
    """`output` as a function of the inputs whose backward pass is `backward`: what flows into the output → what flows to each input.

    The output must be computed without gradients. `backward` must hold detached tensors only: a tensor of the graph may lead, by what
    an in-place call put in its place, to the graph that holds `backward`, and such a circle is never freed.
    """
    return _Ruled.apply((output,), backward, *inputs)


class Signals(TorchFunctionMode):
    """The calls made on tensors that depend on the input, answered by rules.

    rules: plain name of a function → rule(mode, function, args, kwargs), `function` being its out-of-place form.
    A call without a rule that is more than a move of values raises DNNVizError, in words that `title` begins.
    """

    def __init__(self, title: str, rules: Mapping[str, Rule]) -> None:
        super().__init__()
        self.title = title
        self.rules = rules

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        args, kwargs = mapped(_current, args), mapped(_current, kwargs or {})
        if not any(True for _ in signals_in((args, kwargs))):
            return function(*args, **kwargs)
        name, in_place = _plain(function)
        if in_place:
            function = _out_of_place(name, function)
        rule = self.rules.get(name)
        if rule is not None:
            written = args[0] if args else None
            args, kwargs, flag = _without_flag(function, args, kwargs)
            in_place = in_place or flag
            output = rule(self, function, args, kwargs)
        else:
            written = args[0] if in_place else None
            output = self.native(function, args, kwargs) if name in MOVES else self._unknown(name, function, args, kwargs)
        if in_place and (known := mark(written)) is not None:
            known.now = output
        return output

    def native(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call with its own derivative, made for the companions, too."""
        output = function(*args, **kwargs)
        others = self.companions(function, args, kwargs)
        if isinstance(output, torch.Tensor):
            # A call that gives its own argument back (dropout) leaves the mark that is there.
            return marked(output, others) if output.requires_grad and mark(output) is None else output
        if isinstance(output, (tuple, list)):
            for i, each in enumerate(output):
                if isinstance(each, torch.Tensor) and each.requires_grad:
                    marked(each, tuple(other[i] for other in others))
        return output

    def companions(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """What the call makes of the companions of its arguments; none where an argument has none."""
        count = min(len(mark(signal).companions) for signal in signals_in((args, kwargs)))
        with torch.no_grad():
            return tuple(function(*mapped(_companion(i), args), **mapped(_companion(i), kwargs)) for i in range(count))

    def propagated(self, leaf: torch.Tensor, values: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        """What arrives at the network's input where `seed` starts at `values`, both of one shape; zero where no path leads there."""
        found = torch.autograd.grad(values, leaf, seed, allow_unused=True)[0] if values.requires_grad else None
        if found is None:
            return torch.zeros_like(leaf)
        if mark(values) is None:
            raise self.undefined("a part of it is compiled, so that its operations cannot be seen")
        return found

    def undefined(self, what: str) -> DNNVizError:
        """The error that says why the method cannot explain this network."""
        return DNNVizError(f"{self.title} is not defined for this network: {what}; choose another method for it.")

    def _unknown(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A question about a tensor (its shape, a comparison) is answered; another value computed from it has no rule."""
        output = function(*args, **kwargs)
        if any(each.requires_grad for each in _tensors(output)) or name == "setitem":
            raise self.undefined(f"there is no rule for its operation {name!r}")
        return output


def signals_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a nest of arguments that depend on the input."""
    return (tensor for tensor in _tensors(value) if mark(tensor) is not None)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def of_signal(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], signal: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    """The call as a function of one of its tensors; it holds no tensor of the graph, so that a backward pass may keep it."""
    place = signal.detach()
    args, kwargs = (mapped(lambda each: place if each is signal else each, value) for value in (args, kwargs))

    def call(value: torch.Tensor) -> Any:
        return function(*mapped(lambda each: value if each is place else each, args), **mapped(lambda each: value if each is place else each, kwargs))

    return call


def mapped(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """A nest of arguments with every tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(mapped(change, each) for each in value)
    if type(value) is dict:
        return {key: mapped(change, each) for key, each in value.items()}
    return value


def _current(tensor: torch.Tensor) -> torch.Tensor:
    while (known := mark(tensor)) is not None and known.now is not None:
        tensor = known.now
    return tensor


def _companion(index: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor if (known := mark(tensor)) is None else known.companions[index]


def _plain(function: Any) -> tuple[str, bool]:
    """Name of a function without the marks of its in-place and reflected forms, and whether it works in place."""
    name = getattr(function, "__name__", str(function))
    in_place = name in _IN_PLACE_DUNDER or (name.endswith("_") and not name.endswith("__"))
    name = name.strip("_")
    return _SAME.get(name, name), in_place


def _out_of_place(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    return getattr(F, name, None) or getattr(torch, name, None) or getattr(torch.Tensor, name, function)


@functools.cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, defaults filled in; `function` is one that torch writes in Python."""
    bound = _signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


@functools.cache
def _flag(function: Callable[..., Any]) -> int | None:
    """The position of a function's `inplace` flag, None where it has none."""
    try:
        names = list(_signature(function).parameters)
    except (TypeError, ValueError):
        return None
    return names.index("inplace") if "inplace" in names else None


def _without_flag(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
    """Arguments without the `inplace` flag, and the flag."""
    position = _flag(function)
    if position is None:
        return args, kwargs, False
    flag = kwargs.pop("inplace", False)
    if len(args) > position:
        return (*args[:position], *args[position + 1 :]), kwargs, bool(args[position])
    return args, kwargs, bool(flag)
