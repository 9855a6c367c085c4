"""Reading a run: open the folder, read slices by memory map."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnnviz.errors import RunError
from dnnviz.store.maps import EarlyMap, read_maps

if TYPE_CHECKING:
    import torch

SCHEMA = 1
MANIFEST = "run.json"
STATS = ("mean", "max")
# Held while numpy reads the header of an array: it parses it as Python, which two threads must not do at once in
# CPython 3.11 (gh-106905: "AST constructor recursion depth mismatch").
HEADERS = threading.Lock()


def distinct(names: Sequence[object]) -> list[str]:
    """Names of classes that tell them apart: a name given more than once has the number of its class behind it (ImageNet has two cranes)."""
    given = [str(name) for name in names]
    count = Counter(given)
    return [name if count[name] == 1 else f"{name} ({number})" for number, name in enumerate(given)]


@dataclass(frozen=True)
class Layer:
    """One layer of a run.

    name: path in the module tree (`#2`, `#3` … appended where one module is called again in a pass).
    kind: conv, linear, attention or block.
    units: channels of a convolution or block, neurons of a linear layer, embedding dimensions of a token layer.
    shape: output shape without the batch: (C, H, W), (F,) or (tokens, D).
    offset: first column of the layer in the arrays over all units.
    """

    name: str
    kind: str
    units: int
    shape: tuple[int, ...]
    offset: int

    @property
    def columns(self) -> slice:
        return slice(self.offset, self.offset + self.units)

    @property
    def place_shape(self) -> tuple[int, int] | None:
        """(height, width) of the feature map; None for a linear layer; (1, tokens) for tokens."""
        if len(self.shape) == 3:
            return (self.shape[1], self.shape[2])
        return (1, self.shape[0]) if len(self.shape) == 2 else None


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run folder; raises RunError with a sentence when it is not one."""
    folder = Path(path)
    file = folder / MANIFEST
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder; a run is a folder with a {MANIFEST} in it.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{folder} is no run: it has no {MANIFEST}. Make a run with `dnnviz capture`.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read ({str(error).splitlines()[0]}); the run is damaged.") from None
    if not isinstance(manifest, dict) or "schema" not in manifest:
        raise RunError(f"{file} is not the manifest of a run.")
    if manifest["schema"] != SCHEMA:
        raise RunError(
            f"{folder} has schema {manifest['schema']}; this version reads schema {SCHEMA}. Capture it again, or use the version that wrote it."
        )
    try:
        return Run(folder, manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file} lacks or garbles {str(error).splitlines()[0]}; the run is damaged.") from None


class Run:
    """A run, read from its folder by memory map; opening reads the manifest only.

    Attributes: name, path, classes (list of str, no two alike), splits (list of str), epochs (list of int, rising),
    layers (tuple of Layer), units (their number), maps (tuple of EarlyMap: whose early feature maps are kept),
    manifest (the parsed run.json).
    Layers are given by name or as Layer; an unknown layer, epoch, split or input raises RunError.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = Path(path)
        self.manifest = manifest
        self.name: str = manifest["name"]
        self.classes: list[str] = distinct(manifest["classes"])
        self.splits: list[str] = [str(s) for s in manifest["splits"]]
        self.layers: tuple[Layer, ...] = tuple(
            Layer(str(e["name"]), str(e["kind"]), int(e["units"]), tuple(int(v) for v in e["shape"]), int(e["offset"])) for e in manifest["layers"]
        )
        self.units: int = sum(layer.units for layer in self.layers)
        self.maps: tuple[EarlyMap, ...] = read_maps(manifest)
        self.kept: int = int(manifest["inputs"]["kept"])
        # Which of the aggregated inputs each (split, class) holds: weights of every mean over splits.
        self.class_counts = np.asarray(manifest["inputs"]["class_counts"], dtype=np.int64).reshape(len(self.splits), len(self.classes))
        self._snapshots: dict[int, dict[str, Any]] = {int(e["epoch"]): e for e in manifest["snapshots"]}
        self.epochs: list[int] = sorted(self._snapshots)
        self._by_name = {layer.name: layer for layer in self.layers}
        self._maps: dict[str, np.ndarray] = {}

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {len(self.layers)} layers, {self.units} units, {len(self.epochs)} snapshots, {self.kept} inputs)"

    # -- what the run is about ---------------------------------------------------------------------------------------

    def layer(self, name: str | Layer) -> Layer:
        """The layer with this name."""
        if isinstance(name, Layer):
            return name
        if name not in self._by_name:
            raise RunError(f"Run {self.name} has no layer {name!r}; `dnnviz info` lists them.")
        return self._by_name[name]

    def snapshot(self, epoch: int) -> dict[str, Any]:
        """Manifest entry of a snapshot: epoch, metrics, digest (content of its arrays), dtypes."""
        if epoch not in self._snapshots:
            known = ", ".join(map(str, self.epochs)) or "none"
            raise RunError(f"Run {self.name} has no snapshot of epoch {epoch} (there are: {known}).")
        return self._snapshots[epoch]

    def metrics(self, epoch: int) -> dict[str, Any]:
        """Metrics of a snapshot: accuracy (0–1) and loss over all inputs, `splits` with the same per split, and whatever `record` was given."""
        return self.snapshot(epoch).get("metrics", {})

    def digest(self, epoch: int) -> str:
        """Hash of a snapshot's content, for keys of derived results."""
        return str(self.snapshot(epoch)["digest"])

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [n]: class of every input kept."""
        return np.asarray(self._array("inputs/labels.npy"))

    @cached_property
    def input_splits(self) -> np.ndarray:
        """uint8 [n]: index into `splits` of every input kept."""
        return np.asarray(self._array("inputs/splits.npy"))

    @cached_property
    def ids(self) -> list[str]:
        """File name or data set index of every input kept."""
        try:
            return [str(v) for v in json.loads((self.path / "inputs" / "ids.json").read_text(encoding="utf-8"))]
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / 'inputs' / 'ids.json'} cannot be read ({error}); the run is damaged.") from None

    @property
    def graph(self) -> dict[str, Any]:
        """Nodes and edges of the architecture view: {"nodes": [{"id", "label", "kind", "layer", "parent"}], "edges": [{"source", "target"}]}."""
        try:
            return json.loads((self.path / "graph.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / 'graph.json'} cannot be read ({error}).") from None

    # -- inputs ------------------------------------------------------------------------------------------------------

    @property
    def stored_images(self) -> int:
        """Number of images stored: those kept one by one, then those stored because they excite some unit most."""
        return self.kept + (len(self._array("inputs/top_labels.npy")) if (self.path / "inputs" / "top_labels.npy").is_file() else 0)

    def images(self, indices: Sequence[int] | np.ndarray | int) -> np.ndarray:
        """uint8 [m, H, W, 3]: images as a person would see them, grey repeated.

        Indices below `kept` are the inputs kept one by one; from `kept` on, those stored for the top lists.
        """
        index = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        total = self.stored_images
        if index.size and (index.min() < 0 or index.max() >= total):
            raise RunError(f"Run {self.name} stores images 0 to {total - 1}; {index[(index < 0) | (index >= total)][0]} was asked for.")
        kept = self._array("inputs/images.npy")
        result = np.empty((len(index), *kept.shape[1:]), dtype=np.uint8)
        own = index < self.kept
        result[own] = kept[index[own]]
        if not own.all():
            result[~own] = self._array("inputs/top_images.npy")[index[~own] - self.kept]
        return np.repeat(result, 3, axis=-1) if result.shape[-1] == 1 else result

    def image_labels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """int64 [m]: class of each stored image (numbering of `images`)."""
        index = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if index.size and index.max() >= self.kept:
            return np.concatenate([self.labels, np.asarray(self._array("inputs/top_labels.npy"))])[index]
        return self.labels[index]

    def network_inputs(self, indices: Sequence[int] | np.ndarray | int) -> np.ndarray:
        """float32 [m, C, H, W]: what the network was given for inputs kept one by one."""
        index = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if index.size and (index.min() < 0 or index.max() >= self.kept):
            raise RunError(f"Run {self.name} keeps inputs 0 to {self.kept - 1} one by one; {index.max()} was asked for.")
        if (self.path / "inputs" / "tensors.npy").is_file():
            return np.array(self._array("inputs/tensors.npy")[index], dtype=np.float32)
        return self.normalise(np.asarray(self._array("inputs/images.npy")[index]))

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """Network input float32 [m, C, H, W] of images uint8 [m, H, W, C] with the run's mean and standard deviation."""
        how = self.manifest["preprocessing"]
        channels = images.shape[-1]
        mean, std = (np.broadcast_to(np.asarray(how[name], dtype=np.float32), (channels,)) for name in ("mean", "std"))
        return np.ascontiguousarray(((images.astype(np.float32) / 255.0 - mean) / std).transpose(0, 3, 1, 2))

    # -- activations -------------------------------------------------------------------------------------------------

    def activations(self, epoch: int, layer: str | Layer | None = None, stat: str = "mean") -> np.ndarray:
        """float32 [n, units]: activation of every input kept; stat `mean` or `max` over positions; layer None = all units."""
        array = self._stat(epoch, stat)
        return _as_float32(array if layer is None else array[:, self.layer(layer).columns])

    def input_activations(self, epoch: int, index: int, stat: str = "mean") -> np.ndarray:
        """float32 [U]: activations of all units for one input kept."""
        if not 0 <= index < self.kept:
            raise RunError(f"Run {self.name} keeps inputs 0 to {self.kept - 1} one by one; {index} was asked for.")
        return _as_float32(self._stat(epoch, stat)[index])

    def unit_activations(self, epoch: int, layer: str | Layer, unit: int, stat: str = "mean") -> np.ndarray:
        """float32 [n]: activations of one unit for every input kept."""
        return _as_float32(self._stat(epoch, stat)[:, self._column(layer, unit)])

    def class_mean(self, epoch: int, layer: str | Layer | None = None, split: str | None = None) -> np.ndarray:
        """float32 [K, units]: mean activation per class over all inputs of `split` (None = all splits); NaN for a class without inputs."""
        return self._class_moments(epoch, layer, split)[0]

    def class_std(self, epoch: int, layer: str | Layer | None = None, split: str | None = None) -> np.ndarray:
        """float32 [K, units]: standard deviation (population) per class, as `class_mean`."""
        return self._class_moments(epoch, layer, split, want_std=True)[1]

    def data_mean(self, epoch: int, layer: str | Layer | None = None, split: str | None = None) -> np.ndarray:
        """float32 [units]: mean activation over all inputs of `split` (None = all)."""
        weights = self._split_weights(split)
        return _average(self._rows(epoch, "data_mean", layer), weights)

    def data_std(self, epoch: int, layer: str | Layer | None = None, split: str | None = None) -> np.ndarray:
        """float32 [units]: standard deviation (population) over all inputs of `split` (None = all)."""
        weights = self._split_weights(split)
        return _pooled_std(self._rows(epoch, "data_mean", layer), self._rows(epoch, "data_std", layer), weights)

    def active(self, epoch: int, layer: str | Layer | None = None, split: str | None = None) -> np.ndarray:
        """float32 [units]: fraction of inputs on which the unit fired (somewhere above zero)."""
        return _average(self._rows(epoch, "active", layer), self._split_weights(split))

    def one_class_mean(self, epoch: int, label: int, split: str | None = None) -> np.ndarray:
        """float32 [U]: mean activation of all units over one class."""
        if not 0 <= label < len(self.classes):
            raise RunError(f"Run {self.name} has classes 0 to {len(self.classes) - 1}; {label} was asked for.")
        rows = self._snapshot_array(epoch, "class_mean")
        if split is not None:
            return np.array(rows[self._split(split), label])
        return _average(np.asarray(rows[:, label]), self.class_counts[:, label])

    def class_maps(self, epoch: int, item: EarlyMap) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and population standard deviation of pooled feature maps, float32 [S, K, units, height, width] each.

        item: one of `maps`. NaN for a class without inputs; None for a snapshot that holds no maps.
        """
        if not (self.path / "snapshots" / f"{epoch:06d}" / "class_map_std.npy").is_file():
            return None
        parts = (_as_float32(self._snapshot_array(epoch, name)[..., item.columns]) for name in ("class_map_mean", "class_map_std"))
        mean, std = (part.reshape(*part.shape[:2], item.units, *item.shape) for part in parts)
        return mean, std

    def top_inputs(self, epoch: int, layer: str | Layer, unit: int, k: int = 9) -> tuple[np.ndarray, np.ndarray]:
        """The stored inputs, of all aggregated ones, whose maximum of this unit is largest: (indices int64 [k], values float32 [k]), best first.

        Indices are those of `images`. Inputs whose image is not stored (the cap on top images) are left out,
        so there may be fewer than k; `top_ranking` gives all of them.
        """
        indices, values, _ = self.top_ranking(epoch, layer, unit)
        stored = np.flatnonzero(indices >= 0)[:k]
        return indices[stored], values[stored]

    def top_ranking(self, epoch: int, layer: str | Layer, unit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(indices int64 [k], values float32 [k], places int64 [k]), best first; index −1 where the image is not stored.

        A place is the flat position of the peak in the unit's feature map (y · width + x), the token, or −1 for a linear layer.
        """
        column = self._column(layer, unit)
        values = np.asarray(self._snapshot_array(epoch, "top_values")[column], dtype=np.float32)
        found = np.isfinite(values)
        indices = np.asarray(self._snapshot_array(epoch, "top_inputs")[column], dtype=np.int64)
        places = np.asarray(self._snapshot_array(epoch, "top_places")[column], dtype=np.int64)
        return indices[found], values[found], places[found]

    def top_values(self, epoch: int) -> np.ndarray:
        """float32 [U]: the largest activation of every unit over all aggregated inputs and positions."""
        return np.array(self._snapshot_array(epoch, "top_values")[:, 0], dtype=np.float32)

    def logits(self, epoch: int) -> np.ndarray:
        """float32 [n, K]: the network's output for every input kept."""
        return np.asarray(self._snapshot_array(epoch, "logits"), dtype=np.float32)

    def load_model(self, epoch: int) -> torch.nn.Module:
        """The network of a snapshot in eval mode (imports torch).

        Raises RunError when the run holds no weights or its network cannot be built again, with what to do.
        """
        from dnnviz.models import load_snapshot

        return load_snapshot(self, epoch)

    # -- health ------------------------------------------------------------------------------------------------------

    def damage(self) -> list[str]:
        """Sentences about what is missing, truncated or of the wrong shape; empty for a healthy run. Reads headers only."""
        n, units, splits, classes = self.kept, self.units, len(self.splits), len(self.classes)
        expected: dict[str, tuple[int | None, ...]] = {
            "inputs/images.npy": (n, None, None, None),
            "inputs/labels.npy": (n,),
            "inputs/splits.npy": (n,),
        }
        per_snapshot: dict[str, tuple[int | None, ...]] = {
            "mean": (n, units),
            "max": (n, units),
            "class_mean": (splits, classes, units),
            "class_std": (splits, classes, units),
            "data_mean": (splits, units),
            "data_std": (splits, units),
            "active": (splits, units),
            "top_inputs": (units, None),
            "top_values": (units, None),
            "top_places": (units, None),
            "logits": (n, None),
        }
        for epoch in self.epochs:
            expected.update({f"snapshots/{epoch:06d}/{name}.npy": shape for name, shape in per_snapshot.items()})
            # Not in snapshots made before they were kept, nor where a training was asked to leave them out.
            both = {f"snapshots/{epoch:06d}/class_map_{stat}.npy": (splits, classes, sum(m.size for m in self.maps)) for stat in ("mean", "std")}
            expected.update(both if any((self.path / name).is_file() for name in both) else {})
        found = []
        for name, shape in expected.items():
            try:
                array = self._array(name)
            except RunError as error:
                found.append(str(error))
                continue
            if len(array.shape) != len(shape) or any(want is not None and want != have for want, have in zip(shape, array.shape, strict=False)):
                found.append(f"{self.path / name} has shape {list(array.shape)}; {list(shape)} was expected.")
        return found

    def unpublished(self) -> list[str]:
        """Names of snapshot folders that a writer left unfinished (it was killed, or is at work)."""
        folder = self.path / "snapshots"
        return sorted(p.name for p in folder.glob(".part-*")) if folder.is_dir() else []

    # -- reading -----------------------------------------------------------------------------------------------------

    def _array(self, name: str) -> np.ndarray:
        array = self._maps.get(name)
        if array is None:
            path = self.path / name
            try:
                with HEADERS:
                    array = np.load(path, mmap_mode="r", allow_pickle=False)
            except FileNotFoundError:
                raise RunError(f"{path} is missing; the run is damaged.") from None
            except (OSError, ValueError, EOFError) as error:
                raise RunError(f"{path} cannot be read ({str(error).splitlines()[0]}); the run is damaged.") from None
            self._maps[name] = array
        return array

    def _snapshot_array(self, epoch: int, name: str) -> np.ndarray:
        self.snapshot(epoch)
        return self._array(f"snapshots/{epoch:06d}/{name}.npy")

    def _stat(self, epoch: int, stat: str) -> np.ndarray:
        if stat not in STATS:
            raise ValueError(f"stat is {stat!r}; it must be one of {', '.join(STATS)}")
        return self._snapshot_array(epoch, stat)

    def _column(self, layer: str | Layer, unit: int) -> int:
        found = self.layer(layer)
        if not 0 <= unit < found.units:
            raise RunError(f"Layer {found.name} has units 0 to {found.units - 1}; {unit} was asked for.")
        return found.offset + unit

    def _split(self, split: str) -> int:
        if split not in self.splits:
            raise RunError(f"Run {self.name} has no split {split!r} (there are: {', '.join(self.splits)}).")
        return self.splits.index(split)

    def _split_weights(self, split: str | None) -> np.ndarray:
        counts = self.class_counts.sum(axis=1)
        if split is None:
            return counts
        only = np.zeros_like(counts)
        only[self._split(split)] = 1
        return only

    def _rows(self, epoch: int, name: str, layer: str | Layer | None) -> np.ndarray:
        array = self._snapshot_array(epoch, name)
        return np.asarray(array if layer is None else array[..., self.layer(layer).columns])

    def _class_moments(self, epoch: int, layer: str | Layer | None, split: str | None, want_std: bool = False) -> tuple[np.ndarray, np.ndarray]:
        mean = self._rows(epoch, "class_mean", layer)
        std = self._rows(epoch, "class_std", layer) if want_std else mean
        if split is not None or len(self.splits) == 1:
            row = 0 if split is None else self._split(split)
            return np.array(mean[row]), np.array(std[row])
        weights = self.class_counts[:, :, None]
        return _average(mean, weights), (_pooled_std(mean, std, weights) if want_std else mean)


@lru_cache(maxsize=1)
def _half_table() -> np.ndarray:
    return np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)


def _as_float32(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.float16:
        return np.array(array, dtype=np.float32)
    # numpy before 2 converts float16 an element at a time; a table of all 65,536 values is faster. Rows of a memory map
    # are gathered first, and no index can be out of bounds ("clip" spares the check): together twice as fast again.
    return np.take(_half_table(), np.ascontiguousarray(array).view(np.uint16), mode="clip")


def _average(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over axis 0, weighted; NaN where no weight; rows without weight may hold NaN."""
    if len(rows) == 1:
        return np.array(rows[0])
    weights = np.broadcast_to(weights.reshape(weights.shape + (1,) * (rows.ndim - weights.ndim)), rows.shape)
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.where(weights > 0, rows * weights, 0.0).sum(axis=0) / total).astype(np.float32)


def _pooled_std(mean: np.ndarray, std: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if len(mean) == 1:
        return np.array(std[0])
    mean, std = mean.astype(np.float64), std.astype(np.float64)
    centre = _average(mean, weights)
    return np.sqrt(_average(std**2 + (mean - centre) ** 2, weights)).astype(np.float32)
