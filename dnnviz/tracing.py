"""One forward pass, written down: which module was called when, and which operation made which tensor from which.

Works on any module that runs, since it only watches: hooks on the modules, and a torch function mode for the
operations between them (`F.relu`, `x + y`, `torch.cat`). Tensors are followed by identity and version, so that an
in-place operation makes a new value of the same tensor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from dnnviz.operations import is_convolution


@dataclass(eq=False)
class Value:
    """What a tensor held between two writes to it; only tensors that depend on the network's input have one.

    batch, channel: dimensions of inputs and units; guessed: a reshape hid them, and they are what is usual.
    """

    shape: tuple[int, ...]
    batch: int
    channel: int
    guessed: bool = False
    maker: Op | None = None
    consumers: list[Op] = field(default_factory=list)


@dataclass(eq=False)
class Op:
    """One operation: `function(*arguments, **keywords)` with the values among them replaced by Value.

    call: the innermost module call in which it ran.
    weights: paths of the parameters among the arguments.
    """

    order: int
    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    inputs: list[Value]
    outputs: list[Value]
    call: Call
    weights: list[str]
    in_place: bool = False


@dataclass(eq=False)
class Call:
    """One call of a module: `number` counts the calls of this module in the pass, from 1."""

    module: nn.Module
    name: str
    number: int
    parent: Call | None
    inputs: dict[int | str, Value] = field(default_factory=dict)
    outputs: dict[int | str | None, Value] = field(default_factory=dict)
    ended: int = -1

    def within(self, other: Call) -> bool:
        """Whether this call is `other` or ran inside it."""
        return self is other or (self.parent is not None and self.parent.within(other))

    @property
    def output(self) -> Value | None:
        """The first tensor it returned."""
        return next(iter(self.outputs.values()), None)


@dataclass(eq=False)
class Trace:
    """Everything seen in one pass: operations in order, module calls in the order in which they began."""

    ops: list[Op]
    calls: list[Call]
    input: Value

    @property
    def root(self) -> Call:
        return self.calls[0]


def trace(model: nn.Module, example: torch.Tensor) -> Trace:
    """Run `model(example)` once (it should be in eval mode) and write down what happened; raises what the network raises."""
    # Inference tensors have no versions, by which in-place operations are noticed.
    with torch.inference_mode(False), torch.no_grad():
        example = example.clone()
        recorder = _Recorder(model, example)
        with recorder.hooks(), recorder:
            model(example)
    return Trace(recorder.ops, recorder.calls, recorder.input)


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module, example: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.ops: list[Op] = []
        self.calls: list[Call] = []
        self.clock = itertools.count()
        # Weak keys: a freed tensor's identity may be used again, and keeping all tensors would take gigabytes for large networks.
        self.values = WeakTensorKeyDictionary()
        self.stack: list[Call] = []
        self.counts: dict[nn.Module, int] = {}
        # Names of the parameters, also of what is computed from them alone (a standardised weight).
        self.weights = WeakTensorKeyDictionary()
        for name, parameter in model.named_parameters():
            self.weights[parameter] = (name,)
        self.input = Value(tuple(example.shape), 0, 1)
        self.values[example] = self.input

    def hooks(self) -> _Hooks:
        handles = []
        for name, module in self.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule) and module is not self.model:
                continue
            handles.append(module.register_forward_pre_hook(self._enter(name), with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave))
        return _Hooks(handles)

    def _enter(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            self.counts[module] = self.counts.get(module, 0) + 1
            call = Call(module, name, self.counts[module], self.stack[-1] if self.stack else None)
            for key, item in [*enumerate(arguments), *keywords.items()]:
                if isinstance(item, torch.Tensor) and item in self.values:
                    call.inputs[key] = self.values[item]
                elif isinstance(item, list | tuple):
                    # A list of tensors (DenseNet): what flows in, without a place where a hook could read it.
                    for position, part in enumerate(item):
                        if isinstance(part, torch.Tensor) and part in self.values:
                            call.inputs[f"{key}[{position}]"] = self.values[part]
            self.calls.append(call)
            self.stack.append(call)

        return enter

    def _leave(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        call = self.stack.pop()
        while call.module is not module:  # a module inside raised and the network caught it
            call = self.stack.pop()
        items: Iterator[tuple[Any, Any]]
        if isinstance(output, torch.Tensor):
            items = iter([(None, output)])
        elif isinstance(output, dict):
            items = iter(output.items())
        elif isinstance(output, list | tuple):
            items = enumerate(output)
        else:
            items = iter(())
        for key, item in items:
            if not isinstance(item, torch.Tensor):
                continue
            if item not in self.values and item.is_floating_point() and call.inputs:
                # Made where nobody can watch (a custom autograd function, scripted code).
                self._note("opaque", _nothing, (), {}, list(call.inputs.values()), [item], [], call)
            if item in self.values:
                value = call.outputs[key] = self.values[item]
                like = next((v for v in call.inputs.values() if v.shape == value.shape and not v.guessed), None)
                if value.guessed and like is not None:
                    # What comes out in the shape of what went in means the same (attention over windows).
                    value.batch, value.channel, value.guessed = like.batch, like.channel, False
        call.ended = next(self.clock)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        before = [(t, t._version) for t in tensors]
        result = func(*args, **kwargs)
        known = [self.values[t] for t in tensors if t in self.values]
        if not self.stack:
            return result
        weights = [name for t in tensors if t in self.weights for name in self.weights[t]]
        if not known:
            for tensor in tree_flatten(result)[0] if weights else ():
                if isinstance(tensor, torch.Tensor) and tensor not in self.weights:
                    self.weights[tensor] = tuple(dict.fromkeys(weights))
            return result
        name = getattr(func, "__name__", str(func))
        written = [t for t, version in before if t._version != version]
        produced = [t for t in tree_flatten(result)[0] if isinstance(t, torch.Tensor)]
        changed = written + [t for t in produced if not any(t is w for w in written) and t not in self.values]
        if changed:
            template = tree_map(lambda t: self.values[t] if isinstance(t, torch.Tensor) and t in self.values else t, (args, kwargs))
            self._note(name, func, template[0], template[1], known, changed, weights, self.stack[-1], in_place=bool(written))
        return result

    def _note(
        self,
        name: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        inputs: list[Value],
        outputs: list[torch.Tensor],
        weights: list[str],
        call: Call,
        in_place: bool = False,
    ) -> None:
        op = Op(next(self.clock), name.strip("_"), function, arguments, keywords, list(dict.fromkeys(inputs)), [], call, weights, in_place)
        for tensor in outputs:
            shape = tuple(tensor.shape)
            value = Value(shape, *_dimensions(op, shape), maker=op)
            op.outputs.append(value)
            self.values[tensor] = value
        for value in op.inputs:
            value.consumers.append(op)
        self.ops.append(op)


class _Hooks:
    def __init__(self, handles: list[Any]) -> None:
        self.handles = handles

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def _nothing(*_: object, **__: object) -> None:
    raise RuntimeError("an operation that could not be watched cannot be repeated")


def _dimensions(op: Op, shape: tuple[int, ...]) -> tuple[int, int, bool]:
    """Dimensions of inputs and units in the result of an operation, and whether they are guessed."""
    count = len(shape)
    alike = [v for v in op.inputs if len(v.shape) == count]
    source = min(alike, key=lambda v: v.guessed, default=None)
    if source is None or op.name in ("view", "reshape"):
        return 0, (count - 1 if count in (2, 3) else min(1, max(count - 1, 0))), True
    batch, channel = source.batch, source.channel
    order = permutation(op, count)
    if order is not None:
        return order.index(batch), order.index(channel), source.guessed
    if is_convolution(op.name):
        return batch, 1, False
    if op.name in ("linear", "layer_norm"):
        return batch, count - 1, False
    return batch, channel, source.guessed


def permutation(op: Op, count: int) -> list[int] | None:
    """The order of dimensions that a permute or transpose of `count` dimensions makes; None for any other operation."""
    numbers = [n for n in tree_flatten((op.arguments[1:], op.keywords))[0] if isinstance(n, int) and not isinstance(n, bool)]
    if op.name == "permute" and len(numbers) == count:
        return [n % count for n in numbers]
    if op.name in ("transpose", "swapaxes", "swapdims") and len(numbers) == 2:
        order = list(range(count))
        first, second = numbers[0] % count, numbers[1] % count
        order[first], order[second] = order[second], order[first]
        return order
    return None
