"""One pass of a network over a data set: everything that a snapshot holds, in memory that does not grow with the data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from dnnviz.early import EarlyMoments
from dnnviz.errors import DNNVizError
from dnnviz.inputs import Batch, Look, Source
from dnnviz.keep import Keeper
from dnnviz.layers import Layers
from dnnviz.statistics import Moments, Reducer, compact
from dnnviz.store import EarlyMap
from dnnviz.taps import Taps

Progress = Callable[[int, int | None, str], object]


@dataclass
class Observed:
    """What one pass gave.

    arrays: the arrays of a snapshot but for top_inputs; keeper: the inputs kept; class_counts int64 [S, K];
    metrics: accuracy and loss over all and per split; maps: whose early feature maps are among the arrays.
    """

    arrays: dict[str, np.ndarray]
    keeper: Keeper
    class_counts: np.ndarray
    metrics: dict[str, object]
    maps: tuple[EarlyMap, ...]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards modes, buffers and random number generators are as before, whatever happens."""
    flags = [(module, module.training) for module in model.modules()]
    buffers = [(m, name, b, b.detach().clone()) for m in model.modules() for name, b in m._buffers.items() if b is not None]
    generators = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 - the user's global generator
    try:
        model.eval()
        yield
    finally:
        if flags[0][1]:
            model.train()  # a network may do more in train() than set flags
        for module, flag in flags:
            module.training = flag
        with torch.no_grad():
            for module, name, buffer, content in buffers:
                module._buffers[name] = buffer
                if not torch.equal(buffer, content):
                    buffer.copy_(content)
        torch.set_rng_state(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        random.setstate(generators[2])


@contextmanager
def channels_last(model: nn.Module) -> Iterator[None]:
    """Convolution weights in channels_last order inside, the faster one on a CPU; the very same storage as before afterwards."""
    swapped: list[tuple[nn.Parameter, torch.Tensor]] = []
    try:
        for parameter in model.parameters():
            if type(parameter) is nn.Parameter and parameter.dim() == 4:
                swapped.append((parameter, parameter.data))
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for parameter, data in swapped:
            parameter.data = data


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The network on another device inside, where it is on one."""
    home = next((p.device for p in model.parameters()), device)
    try:
        if home != device:
            model.to(device)
        yield
    finally:
        if home != device:
            model.to(home)


def observe(
    model: nn.Module,
    sources: Sequence[Source],
    layers: Layers,
    keeper: Keeper,
    look: Look,
    classes: Sequence[str],
    k: int,
    device: torch.device,
    fast: bool,
    progress: Progress | None = None,
    maps: bool = True,
) -> Observed:
    """Run a network (in eval mode) over all splits.

    fast: give the network channels_last inputs. maps: keep early feature maps. Raises DNNVizError naming the input or layer at fault.
    """
    count_classes = len(classes)
    groups = len(sources) * count_classes
    early = EarlyMoments(layers.found if maps else (), groups)
    reducer = Reducer(layers.found, k, device, early.receive if early.maps else None)
    moments = Moments(groups, layers.units)
    fired = torch.zeros(len(sources), layers.units, dtype=torch.int64)
    correct, losses = np.zeros(len(sources)), np.zeros(len(sources))
    dtype = next((p.dtype for p in model.parameters() if p.dtype.is_floating_point), torch.float32)
    lengths = [source.length for source in sources]
    total = sum(n for n in lengths if n is not None) if None not in lengths else None
    position = 0
    with Taps([item.tap for item in layers.found], reducer.receive) as taps:
        for split, source in enumerate(sources):
            first = position
            for batch in source.batches():
                _check_labels(batch, source, position - first, count_classes)
                if tuple(batch.tensors.shape[1:]) != keeper.size:
                    raise DNNVizError(
                        f"{source.describe(position - first)} has size {list(batch.tensors.shape[1:])}, those before it {list(keeper.size)}; "
                        "resize them to one size (torchvision's Resize and CenterCrop)."
                    )
                group = batch.labels + split * count_classes
                reducer.start(len(batch.labels), position)
                early.start(group)
                taps.reset()
                logits = run_network(model, batch.tensors, device, dtype, fast)
                _check_values(reducer, layers, source, position - first)
                mean, peak = reducer.mean.cpu(), reducer.peak.cpu()
                logits = logits.float().cpu()
                moments.update(mean, group)
                fired[split] += (peak > 0).sum(0)
                correct[split] += int((logits.argmax(1) == batch.labels).sum())
                losses[split] += float(F.cross_entropy(logits.double(), batch.labels, reduction="sum"))
                keeper.offer(batch, split, position, mean, peak, logits, look)
                if not source.again:
                    keeper.hold(batch, position, reducer.tops, look)
                position += len(batch.labels)
                if progress is not None:
                    progress(position, total, "capturing")
            if position == first:
                raise DNNVizError(f"The data{source.where} hold no inputs; there is nothing to capture.")
    class_counts = moments.counts.reshape(len(sources), count_classes).numpy()
    per_split = class_counts.sum(1)
    class_mean, class_std = moments.of_groups()
    data_mean, data_std = moments.of_parts(len(sources))
    columns = [layer.columns for layer in layers.layers]
    keeper.finish()
    arrays = {
        "mean": compact(keeper.mean, columns),
        "max": compact(keeper.peak, columns),
        "class_mean": class_mean.reshape(len(sources), count_classes, -1),
        "class_std": class_std.reshape(len(sources), count_classes, -1),
        "data_mean": data_mean,
        "data_std": data_std,
        "active": (fired.numpy() / per_split[:, None]).astype(np.float32),
        "logits": keeper.logits,
        **reducer.top(),
        **early.arrays(moments.counts, len(sources)),
    }
    metrics = {
        "accuracy": float(correct.sum() / per_split.sum()),
        "loss": _number(losses.sum() / per_split.sum()),
        "splits": {
            source.name: {"accuracy": float(correct[i] / per_split[i]), "loss": _number(losses[i] / per_split[i])} for i, source in enumerate(sources)
        },
    }
    return Observed(arrays, keeper, class_counts, metrics, early.maps)


def run_network(model: nn.Module, tensors: torch.Tensor, device: torch.device, dtype: torch.dtype, fast: bool) -> torch.Tensor:
    """The network's output for a batch."""
    tensors = tensors.to(device=device, dtype=dtype)
    if fast:
        tensors = tensors.contiguous(memory_format=torch.channels_last)
    output = model(tensors)
    logits = getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != len(tensors):
        what = f"a tensor {list(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise DNNVizError(f"The network returns {what} for {len(tensors)} inputs; a classifier's logits [{len(tensors)}, classes] are needed.")
    return logits


def _check_labels(batch: Batch, source: Source, first: int, classes: int) -> None:
    """Raise DNNVizError naming the first input whose label is no class."""
    bad = ((batch.labels < 0) | (batch.labels >= classes)).nonzero()
    if len(bad):
        row = int(bad[0])
        raise DNNVizError(
            f"{source.describe(first + row)} has label {int(batch.labels[row])}; with {classes} classes labels go from 0 to {classes - 1}."
        )


def _check_values(reducer: Reducer, layers: Layers, source: Source, first: int) -> None:
    if len(reducer.seen) != len(layers.found):
        missing = next(f.layer.name for i, f in enumerate(layers.found) if i not in reducer.seen)
        raise DNNVizError(
            f"Layer {missing} did not run for {source.describe(first).lower()} and those after it, though it did for the first inputs; "
            "networks that take another way for each input cannot be captured: leave such layers out with layers=[…]."
        )
    # A mean is finite only when every value under it is (a sum that overflows is as bad).
    finite = reducer.mean.isfinite()
    if not bool(finite.all()):
        row, column = (int(v) for v in (~finite).nonzero()[0])
        columns = (~finite).any(0).nonzero()[:, 0]
        layer = next(f.layer for f in layers.found if f.layer.offset <= int(columns[0]) < f.layer.offset + f.layer.units)
        bad = "NaN" if bool(reducer.mean[row, column].isnan()) else "infinite values"
        raise DNNVizError(
            f"Layer {layer.name} gives {bad} for {source.describe(first + row)}; the weights or the input are broken (a diverged training?)."
        )


def _number(value: float) -> float | None:
    """JSON knows no infinity."""
    return float(value) if np.isfinite(value) else None
