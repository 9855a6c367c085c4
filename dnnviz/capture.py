"""Capture what a network does on a data set into a run: `dnnviz.capture(…)` once, `dnnviz.Recorder` while training.

The module itself can be called: `import dnnviz; dnnviz.capture(model, dataset, "runs/mine")`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import types
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import dnnviz
from dnnviz import publish
from dnnviz.errors import DNNVizError, RunError
from dnnviz.graph import build_graph
from dnnviz.inputs import Look, choose_look, sources
from dnnviz.keep import Keeper
from dnnviz.layers import Layers, find_layers
from dnnviz.observe import Observed, Progress, channels_last, observe, on_device, run_network, undisturbed
from dnnviz.specs import first_line
from dnnviz.store import MANIFEST, Run, RunWriter, distinct, layer_entries, map_entries, now, open_run, writing

TOP = 9  # inputs in each unit's list of top inputs


def capture(
    model: nn.Module | str,
    dataset: Any,
    path: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    epoch: int = 0,
    inputs: int = 200,
    batch_size: int = 64,
    layers: Sequence[str] | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    device: str | torch.device | None = None,
    model_spec: str | None = None,
    save_weights: bool = True,
    overwrite: bool = False,
    data_spec: str | None = None,
    progress: Progress | None = None,
    workers: int = 0,
    metrics: Mapping[str, Any] | None = None,
) -> Run:
    """Run a network over a data set once and write what its units did as a snapshot of a run.

    model: a module, or a model spec such as `torchvision:resnet18`; it is afterwards exactly as before.
    dataset: (image tensor [C, H, W], label) pairs, a Dataset, a DataLoader, a data spec, or a dictionary of those by split.
    path: the run's folder; a snapshot of another epoch is added to a run of the same network and data that is there.
    classes: a name for each output. inputs: how many inputs are kept one by one (aggregates cover all of them).
    layers: names, shell patterns or kinds of the layers wanted; None = all. mean, std: the normalisation of the tensors,
    for showing them as images; None = found out. device: where to compute; None = where the model is.
    model_spec: how to build the network again. overwrite: replace the epoch where it exists, or the whole run where
    that is of another network or other data; what was there is lost only when the new snapshot is complete.
    progress: called with (inputs done, inputs in all or None, text). workers: processes that read the data.
    metrics: what else to note with the snapshot, as for `Recorder.record`.
    Raises DNNVizError, or RunError where the folder is the reason, with one sentence.
    """
    job = _Job(path, dataset, classes, inputs, batch_size, layers, mean, std, device, model_spec, save_weights, data_spec, progress, workers)
    model, spec = _network(model, job.classes)
    return job.write(model, int(epoch), dict(metrics or {}), spec, "epoch" if overwrite else "no")


class Recorder:
    """Writes snapshots of a network while it trains; the same inputs are kept in all of them.

    every: record epochs that this number divides. inputs, classes: as for `capture`. overwrite: the first snapshot
    replaces a run that is there. maps: epochs whose early feature maps are kept (None: all; they take most of the
    space of small networks). options: as for `capture` (batch_size, layers, mean, std, device, model_spec,
    save_weights, data_spec, progress, workers).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: nn.Module,
        dataset: Any,
        every: int = 1,
        inputs: int = 200,
        classes: Sequence[str] | None = None,
        overwrite: bool = False,
        maps: Container[int] | None = None,
        **options: Any,
    ) -> None:
        if every < 1:
            raise DNNVizError(f"every is {every}; it must be 1 or more.")
        self.model = model
        self.every = every
        self.maps = maps
        self._job = _Job(path, dataset, classes, inputs, **options)
        self._overwrite = "run" if overwrite else "no"

    @property
    def epochs(self) -> list[int]:
        """Epochs that the run holds already."""
        return open_run(self._job.path).epochs if self._overwrite != "run" and (self._job.path / MANIFEST).is_file() else []

    def record(self, epoch: int, **metrics: Any) -> int | None:
        """Write a snapshot when `every` divides the epoch, with these metrics beside its own; returns the epoch, or None.

        `accuracy` and `loss` given here replace those measured over all inputs; those measured per split stay.
        """
        if epoch % self.every:
            return None
        self._job.write(self.model, int(epoch), metrics, None, self._overwrite, self.maps is None or epoch in self.maps)
        self._overwrite = "no"
        return int(epoch)


@dataclass
class _Seen:
    """What one pass gave, and the run that it can be added to (None: it stands alone)."""

    found: Layers
    observed: Observed
    look: Look
    classes: list[str]
    size: tuple[int, ...]
    base: Run | None


class _Job:
    """What capture and Recorder share: the data, how it is read, and where the run goes."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        dataset: Any,
        classes: Sequence[str] | None,
        inputs: int,
        batch_size: int = 64,
        layers: Sequence[str] | None = None,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
        device: str | torch.device | None = None,
        model_spec: str | None = None,
        save_weights: bool = True,
        data_spec: str | None = None,
        progress: Progress | None = None,
        workers: int = 0,
    ) -> None:
        if inputs < 1:
            raise DNNVizError(f"inputs is {inputs}; at least one input must be kept.")
        if batch_size < 1:
            raise DNNVizError(f"batch_size is {batch_size}; it must be 1 or more.")
        self.path = Path(path)
        if isinstance(dataset, str):
            from dnnviz.datasets import load

            dataset = load(dataset)
        if isinstance(getattr(dataset, "splits", None), Mapping):
            # What dnnviz.datasets.load gives says all about itself.
            classes = classes if classes is not None else dataset.classes
            mean, std = mean if mean is not None else dataset.mean, std if std is not None else dataset.std
            data_spec = data_spec or dataset.spec
            dataset = dataset.splits
        self.dataset = dataset
        self.sources = sources(dataset, batch_size, workers)
        self.classes = None if classes is None else [str(c) for c in classes]
        self.inputs, self.layers, self.mean, self.std = inputs, layers, mean, std
        self.device = None if device is None else torch.device(device)
        self.model_spec, self.save_weights, self.data_spec, self.progress = model_spec, save_weights, data_spec, progress

    def write(self, model: nn.Module, epoch: int, metrics: Mapping[str, Any], spec: str | None, overwrite: str, maps: bool = True) -> Run:
        """Observe the network and publish the snapshot.

        overwrite: `no`, `epoch` (that one, or a run that does not fit) or `run`. maps: keep early feature maps.
        """
        if epoch < 0:
            raise DNNVizError(f"The epoch is {epoch}; epochs are numbered from 0.")
        model = _inside(model)
        made = not self.path.exists()
        with writing(self.path) as writer:
            try:
                with publish.disk_errors(self.path):
                    publish.recover(self.path)
                    old = _existing(writer, overwrite)
                    if old is not None and overwrite == "no" and epoch in old.epochs:
                        raise RunError(f"{self.path} holds a snapshot of epoch {epoch} already; give another epoch or folder, or overwrite it.")
                    return self._publish(writer, model, epoch, metrics, spec, self._see(model, old, overwrite, maps))
            except BaseException:
                if not (self.path / MANIFEST).exists():
                    writer.clear()
                    if made:
                        publish.remove_empty(self.path)
                raise

    def _see(self, model: nn.Module, old: Run | None, overwrite: str, maps: bool) -> _Seen:
        """Run the network over the data; raises RunError where the result does not fit the run that is there and may not replace it."""
        device = self.device or next((p.device for p in model.parameters()), torch.device("cpu"))
        # Other data are known only when they were read, and then the kept inputs must be chosen anew: a second pass.
        with undisturbed(model), torch.inference_mode(), on_device(model, device):
            first, look = self._first(old)
            size = tuple(first.shape[1:])
            with _prepared(model, first, device, self.layers) as (found, fast, outputs):
                classes = self.classes or [str(i) for i in range(outputs)]
                if len(classes) != outputs:
                    raise DNNVizError(f"The network has {outputs} outputs, but {len(classes)} class names were given; give one for each, in order.")
                reason = None if old is None else self._other_network(old, found, classes, size)
                base = None if reason or overwrite == "run" else old
                while True:
                    if reason and overwrite == "no":
                        raise RunError(f"{self.path} is a run of {reason}; give what it was begun with, or another folder, or overwrite it.")
                    keeper = self._keeper(found, size, base)
                    observed = observe(model, self.sources, found, keeper, look, classes, TOP, device, fast, self.progress, maps)
                    reason = None if base is None else _other_inputs(base, observed)
                    if not reason:
                        return _Seen(found, observed, look, classes, size, base)
                    base = None

    def _first(self, old: Run | None) -> tuple[torch.Tensor, Look]:
        """A few inputs of the first batch, and how tensors become images."""
        batch = self.sources[0].first()
        if batch is None:
            raise DNNVizError(f"The data{self.sources[0].where} hold no inputs; there is nothing to capture.")
        how = old.manifest["preprocessing"] if old is not None else {}
        if how and self.mean is None and self.std is None and how["size"][0] == batch.tensors.shape[1]:
            return batch.tensors[:2], Look(tuple(how["mean"]), tuple(how["std"]), how["description"])
        return batch.tensors[:2], choose_look(batch.tensors, self.dataset, self.mean, self.std)

    def _keeper(self, found: Layers, size: tuple[int, ...], base: Run | None) -> Keeper:
        lengths = [source.length for source in self.sources]
        count = self.inputs if None in lengths else min(self.inputs, sum(n for n in lengths if n is not None))
        positions = None if base is None else _stored(base, "positions")
        return Keeper(count, found.units, size, positions)

    def _other_network(self, old: Run, found: Layers, classes: Sequence[str], size: tuple[int, ...]) -> str | None:
        """What makes a run unfit for a further snapshot, known before any computing; None when nothing does."""
        if layer_entries(found.layers) != old.manifest["layers"]:
            return f"another network ({len(old.layers)} layers with {old.units} units; this one has {len(found.layers)} with {found.units})"
        if distinct(classes) != old.classes:
            return "other classes"
        if [source.name for source in self.sources] != old.splits:
            return f"other splits ({', '.join(old.splits)})"
        if list(size) != list(old.manifest["preprocessing"]["size"]):
            return f"inputs of another size ({old.manifest['preprocessing']['size']})"
        return None

    def _publish(self, writer: RunWriter, model: nn.Module, epoch: int, metrics: Mapping[str, Any], spec: str | None, seen: _Seen) -> Run:
        if self.progress is not None:
            total = int(seen.observed.class_counts.sum())
            self.progress(total, total, "writing")
        manifest, graph = self._manifest(model, spec, seen), build_graph(seen.found)
        state = model.state_dict() if self.save_weights else None

        def write(where: RunWriter) -> Run:
            return publish.snapshot(where, manifest, epoch, metrics, seen.observed, self.sources, seen.look, graph, state, seen.base)

        if seen.base is not None or not (self.path / MANIFEST).exists():
            return write(writer)
        with publish.replacement(self.path) as staged:
            write(staged)
        return open_run(self.path)

    def _manifest(self, model: nn.Module, spec: str | None, seen: _Seen) -> dict[str, Any]:
        before = seen.base.manifest if seen.base is not None else {}
        counts = seen.observed.class_counts
        return {
            "name": self.path.resolve().name,
            "created": before.get("created") or now(),
            "versions": {"dnnviz": dnnviz.__version__, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
            "model": {
                "spec": self.model_spec or spec or before.get("model", {}).get("spec"),
                "class": f"{type(model).__module__}.{type(model).__qualname__}",
                "parameters": sum(p.numel() for p in model.parameters()),
            },
            "data": {"spec": self.data_spec or before.get("data", {}).get("spec")},
            "preprocessing": {
                "size": [int(v) for v in seen.size],
                "mean": list(seen.look.mean),
                "std": list(seen.look.std),
                "exact": seen.observed.keeper.exact,
                "description": seen.look.description,
            },
            "classes": seen.classes,
            "splits": [source.name for source in self.sources],
            "layers": layer_entries(seen.found.layers),
            "maps": map_entries(seen.observed.maps) or before.get("maps", []),
            "uncovered": list(seen.found.uncovered),
            "inputs": {"kept": len(seen.observed.keeper), "aggregated": int(counts.sum()), "class_counts": counts.tolist()},
            "top": {"k": TOP, "stored": 0},
        }


def _existing(writer: RunWriter, overwrite: str) -> Run | None:
    try:
        return writer.existing()
    except RunError:
        if overwrite == "no":
            raise
        return None  # damaged, and to be replaced


def _stored(run: Run, name: str) -> np.ndarray:
    """An array of the inputs of a run, by memory map."""
    path = run.path / "inputs" / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise RunError(f"{path} is missing or damaged ({first_line(error)}); no snapshot can be added to this run.") from None


def _other_inputs(old: Run, observed: Observed) -> str | None:
    """What makes a run unfit for a further snapshot, known only when the data were read; None when nothing does."""
    keeper = observed.keeper
    if not np.array_equal(observed.class_counts, old.class_counts):
        return f"another data set ({int(old.class_counts.sum())} inputs, not {int(observed.class_counts.sum())}, or other labels)"
    if not np.array_equal(keeper.labels, old.labels) or not np.array_equal(keeper.images, _stored(old, "images")):
        return "other inputs (the data come in another order, or are changed at random when they are read)"
    return None


@contextlib.contextmanager
def _prepared(model: nn.Module, first: torch.Tensor, device: torch.device, only: Sequence[str] | None) -> Iterator[tuple[Layers, bool, int]]:
    """Find the layers, with the memory layout in which the network runs fastest and still runs; gives layers, layout, outputs."""
    dtype = next((p.dtype for p in model.parameters() if p.dtype.is_floating_point), torch.float32)

    def attempt(fast: bool) -> tuple[Layers, bool, int]:
        example = first.to(device=device, dtype=dtype)
        if fast:
            example = example.contiguous(memory_format=torch.channels_last)
        outputs = run_network(model, first, device, dtype, fast).shape[1]
        return find_layers(model, example, only), fast, outputs

    if device.type == "cpu":
        with channels_last(model):
            try:
                result = attempt(True)
            except DNNVizError:
                raise
            except Exception:  # code that calls `view` on feature maps cannot take channels_last
                result = None
            if result is not None:
                yield result
                return
    try:
        result = attempt(False)
    except DNNVizError:
        raise
    except Exception as error:  # a network may raise anything on inputs that it was not made for
        raise DNNVizError(f"{type(model).__name__} cannot run on inputs of size {list(first.shape[1:])}: {first_line(error)}.") from error
    yield result


def _network(model: nn.Module | str, classes: Sequence[str] | None) -> tuple[nn.Module, str | None]:
    if isinstance(model, str):
        from dnnviz.models import build

        return build(model, len(classes) if classes else None), model
    return model, None


def _inside(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of torch.compile and of training on several devices: its own names, its own weights."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = getattr(model, "_orig_mod", None) or model.module
    if isinstance(model, torch.jit.ScriptModule):
        raise DNNVizError("The model is TorchScript, inside which no layer can be watched; give the Python module that it was made from.")
    if not isinstance(model, nn.Module):
        raise DNNVizError(f"The model is a {type(model).__name__}; it must be a torch.nn.Module or a spec such as 'torchvision:resnet18'.")
    return model


class _Callable(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Run:
        return capture(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
__all__ = ["Recorder", "capture"]
