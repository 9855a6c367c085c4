"""What a network is given: reading any kind of data set in batches, and tensors as images a person can see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

from dnnviz.errors import DNNVizError
from dnnviz.specs import first_line

# Normalisations in common use, tried in this order when none is given and the values say that there is one.
KNOWN = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-10 (an older value in wide use)": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "CIFAR-100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "MNIST": ((0.1307,), (0.3081,)),
    "Fashion-MNIST": ((0.2860,), (0.3530,)),
}


@dataclass(frozen=True)
class Batch:
    """Inputs float32 [b, C, H, W], labels int64 [b], and a name for each."""

    tensors: torch.Tensor
    labels: torch.Tensor
    ids: list[str]


class Source:
    """One split of the data: batches in a fixed order where the data set has one.

    name: of the split, `data` where there is but one without a name; where: the split as sentences name it.
    length: number of inputs, or None where only reading tells.
    again: whether single inputs can be read again by their number.
    """

    def __init__(self, name: str | None, data: Any, batch_size: int, workers: int = 0) -> None:
        self.name = name if name is not None else "data"
        self.where = "" if name is None else f" of split {name!r}"
        self.batch_size = batch_size
        self.workers = workers
        self.loader: DataLoader | None = None
        if isinstance(data, DataLoader):
            inner = data.dataset
            in_order = isinstance(data.sampler, SequentialSampler | RandomSampler) and data.batch_sampler is not None
            if isinstance(inner, IterableDataset) or not in_order:
                self.loader = data
            elif data.collate_fn is not default_collate:
                self.loader = DataLoader(inner, data.batch_size, num_workers=data.num_workers, collate_fn=data.collate_fn)
            else:
                # Shuffling would show other inputs at every snapshot: read the data set itself, in its own order.
                data, self.batch_size, self.workers = inner, data.batch_size or batch_size, data.num_workers
        self.data = data
        self.again = self.loader is None and not isinstance(data, IterableDataset) and hasattr(data, "__getitem__") and isinstance(data, Sized)
        if not self.again and not isinstance(data, Iterable):
            raise DNNVizError(
                f"The data{self.where} is a {type(data).__name__}; it must be a sequence of (image tensor, label) pairs or a DataLoader."
            )
        self.length: int | None = len(data) if self.again else None
        self._names = _file_names(data) if self.again else None
        self._begun: Iterator[Batch] | None = None

    def first(self) -> Batch | None:
        """The first batch, which `batches` will give again without reading it again; None where there is nothing."""
        self._begun = None
        batches = self._read_all()
        batch = next(batches, None)
        if batch is not None:
            self._begun = chain([batch], batches)
        return batch

    def batches(self) -> Iterator[Batch]:
        """Read everything once. Raises DNNVizError naming the input that cannot be used."""
        begun, self._begun = self._begun, None
        return begun if begun is not None else self._read_all()

    def _read_all(self) -> Iterator[Batch]:
        if self.loader is not None:
            yield from self._from_loader(self.loader)
        elif self.again:
            yield from self._from_items(self._indexed())
        else:
            yield from self._from_items((i, item) for i, item in enumerate(self.data))

    def pair(self, index: int) -> tuple[torch.Tensor, int]:
        """One input read again, float32 [C, H, W], and its label; only where `again`."""
        return self._pair(index, self._read(index))

    def describe(self, index: int) -> str:
        """How to name an input in a sentence."""
        name = self._names[index] if self._names and index < len(self._names) else None
        return f"Input {index}{self.where}" + (f" ({name})" if name else "")

    def id(self, index: int) -> str:
        """File name or index of an input."""
        return self._names[index] if self._names and index < len(self._names) else str(index)

    def _read(self, index: int) -> Any:
        try:
            return self.data[index]
        except DNNVizError:
            raise  # a sentence of its own
        except Exception as error:  # a data set may raise anything for a damaged file
            raise DNNVizError(f"{self.describe(index)} cannot be read: {first_line(error)}. Remove or replace it.") from error

    def _indexed(self) -> Iterator[tuple[int, Any]]:
        if self.workers:
            reader = DataLoader(_Numbered(self.data), batch_size=None, num_workers=self.workers)
            for index, item, error in reader:
                if error is not None:
                    raise DNNVizError(f"{self.describe(int(index))} cannot be read: {error}")
                yield int(index), item
        else:
            for index in range(len(self.data)):
                yield index, self._read(index)

    def _from_items(self, items: Iterable[tuple[int, Any]]) -> Iterator[Batch]:
        tensors: list[torch.Tensor] = []
        labels: list[int] = []
        first = 0
        for index, item in items:
            tensor, label = self._pair(index, item)
            if tensors and tensor.shape != tensors[0].shape:
                self._other_size(index, tensor.shape, tensors[0].shape)
            tensors.append(tensor)
            labels.append(label)
            if len(tensors) == self.batch_size:
                yield Batch(torch.stack(tensors), torch.tensor(labels), [self.id(first + i) for i in range(len(labels))])
                first += len(labels)
                tensors, labels = [], []
        if tensors:
            yield Batch(torch.stack(tensors), torch.tensor(labels), [self.id(first + i) for i in range(len(labels))])

    def _from_loader(self, loader: DataLoader) -> Iterator[Batch]:
        first = 0
        batches = iter(loader)
        while True:
            try:
                item = next(batches)
            except StopIteration:
                return
            except DNNVizError:
                raise
            except Exception as error:  # as in _read
                raise DNNVizError(f"The data{self.where} cannot be read after input {first}: {first_line(error)}.") from error
            if not (isinstance(item, list | tuple) and len(item) >= 2 and isinstance(item[0], torch.Tensor)):
                raise DNNVizError(f"The DataLoader{self.where} gives {type(item).__name__} batches; they must be (images, labels).")
            images, labels = item[0].cpu(), torch.as_tensor(item[1]).cpu()
            if images.dim() != 4 or labels.shape != (len(images),):
                raise DNNVizError(
                    f"The DataLoader{self.where} gives images {list(images.shape)} with labels {list(labels.shape)}; [n, C, H, W] and [n] are needed."
                )
            yield Batch(images.float(), labels.long(), [self.id(first + i) for i in range(len(images))])
            first += len(images)

    def _pair(self, index: int, item: Any) -> tuple[torch.Tensor, int]:
        if not (isinstance(item, list | tuple) and len(item) >= 2):
            raise DNNVizError(f"{self.describe(index)} is a {type(item).__name__}; it must be an (image tensor, label) pair.")
        image, label = item[0], item[1]
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.ascontiguousarray(image))
        if not isinstance(image, torch.Tensor):
            raise DNNVizError(
                f"{self.describe(index)} is a {type(image).__name__}; it must be a tensor [C, H, W] (torchvision's ToTensor makes one)."
            )
        if image.dim() != 3:
            raise DNNVizError(f"{self.describe(index)} has shape {list(image.shape)}; it must be [C, H, W].")
        if isinstance(label, torch.Tensor | np.ndarray) and label.ndim and tuple(label.shape) != (1,):
            raise DNNVizError(f"{self.describe(index)} has a label of shape {list(label.shape)}; it must be one whole number.")
        try:
            return image.float(), int(label)
        except (TypeError, ValueError):
            raise DNNVizError(f"{self.describe(index)} has the label {label!r}; it must be a whole number, the class.") from None

    def _other_size(self, index: int, size: Sequence[int], expected: Sequence[int]) -> None:
        raise DNNVizError(
            f"{self.describe(index)} has size {list(size)}, those before it {list(expected)}; "
            "bring them to one size (torchvision's Resize and CenterCrop)."
        )


class _Numbered(torch.utils.data.Dataset):
    """Items with their index, errors as text: workers cannot raise a sentence that names the input."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[int, Any, str | None]:
        try:
            return index, self.data[index], None
        except DNNVizError as error:
            return index, None, f"{error}"
        except Exception as error:  # as in Source._read
            return index, None, f"{first_line(error)}. Remove or replace it."


def sources(data: Any, batch_size: int, workers: int = 0) -> list[Source]:
    """The splits of a data set, or of a dictionary of them."""
    if isinstance(data, Mapping):
        if not data:
            raise DNNVizError("The data set is an empty dictionary; give at least one split, for example {'test': dataset}.")
        return [Source(str(name), part, batch_size, workers) for name, part in data.items()]
    return [Source(None, data, batch_size, workers)]


def _file_names(data: Any) -> list[str] | None:
    """File names of an image folder, also behind a Subset; None where a data set has none."""
    if isinstance(data, torch.utils.data.Subset):
        inner = _file_names(data.dataset)
        return [inner[int(i)] for i in data.indices] if inner is not None else [str(int(i)) for i in data.indices]
    ids = getattr(data, "ids", None)
    if isinstance(ids, Sequence) and not isinstance(ids, str) and len(ids) == len(data):
        return [str(i) for i in ids]
    samples = getattr(data, "samples", None)
    if isinstance(samples, Sequence) and samples and isinstance(samples[0], tuple) and isinstance(samples[0][0], str):
        return [str(name) for name, *_ in samples]
    return None


# -- tensors as images -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """How tensors become images: image / 255 = tensor · std + mean, per channel.

    given: whether the user said so; otherwise `description` says how it was found out.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    description: str

    def images(self, tensors: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [n, H, W, 1 or 3] and, for each, whether they give the tensor back to 1/255 (bool [n])."""
        n, channels = tensors.shape[:2]
        if n == 0:
            return np.zeros((0, *tensors.shape[2:], 3 if channels == 3 else 1), dtype=np.uint8), np.zeros(0, dtype=bool)
        mean = torch.tensor(self.mean, dtype=torch.float32).reshape(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32).reshape(1, -1, 1, 1)
        wanted = (tensors.float() * std).add_(mean).mul_(255.0)
        rounded = wanted.round().clamp_(0, 255)
        exact = (wanted.sub_(rounded).abs_().flatten(1).amax(1) <= 1.0).numpy()
        shown = rounded.to(torch.uint8).permute(0, 2, 3, 1)
        if channels not in (1, 3):
            # No eye sees two, four or more channels: their mean in grey, and the tensor itself is stored.
            shown = shown.float().mean(3, keepdim=True).round().to(torch.uint8)
            exact[:] = False
        return np.ascontiguousarray(shown.numpy()), exact

    def tensors(self, images: np.ndarray, channels: int) -> np.ndarray:
        """Network inputs float32 [n, C, H, W] of images uint8 [n, H, W, 1 or 3], as `Run.normalise` makes them."""
        if images.shape[-1] != channels:
            return np.zeros((len(images), channels, *images.shape[1:3]), dtype=np.float32)
        mean, std = np.asarray(self.mean, dtype=np.float32), np.asarray(self.std, dtype=np.float32)
        return np.ascontiguousarray(((images.astype(np.float32) / 255.0 - mean) / std).transpose(0, 3, 1, 2))


def choose_look(tensors: torch.Tensor, data: Any, mean: Sequence[float] | float | None, std: Sequence[float] | float | None) -> Look:
    """The look of a data set: as given, else from its own Normalize, else from the values of the first batch."""
    channels = tensors.shape[1]
    if mean is not None or std is not None:
        return Look(
            _channels(mean if mean is not None else 0.0, channels, "mean"), _channels(std if std is not None else 1.0, channels, "std"), "given"
        )
    found = _normalisation(data)
    if found is not None:
        return Look(_channels(found[0], channels, "mean"), _channels(found[1], channels, "std"), "from the data set's own Normalize")
    low, high = float(tensors.min()), float(tensors.max())
    if low >= 0.0 and high <= 1.0:
        return Look((0.0,) * channels, (1.0,) * channels, "values between 0 and 1")
    if low >= 0.0 and high <= 255.0 and high > 2.0 and bool((tensors == tensors.round()).all()):
        return Look((0.0,) * channels, (1.0 / 255.0,) * channels, "whole numbers from 0 to 255")
    for name, (known_mean, known_std) in KNOWN.items():
        if len(known_mean) not in (1, channels):
            continue
        look = Look(
            _channels(known_mean, channels, "mean"), _channels(known_std, channels, "std"), f"the normalisation of {name}, found from the values"
        )
        if _on_grid(tensors, look):
            return look
    lows, highs = tensors.amin((0, 2, 3)), tensors.amax((0, 2, 3))
    spread = (highs - lows).clamp(min=1e-6)
    return Look(
        tuple((-lows / spread).tolist()),
        tuple((1.0 / spread).tolist()),
        "stretched from the smallest to the largest value of the first batch: give mean and std for true colours",
    )


def _on_grid(tensors: torch.Tensor, look: Look) -> bool:
    """Whether a look turns all values into whole numbers from 0 to 255."""
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (look.mean, look.std))
    wanted = (tensors * std + mean) * 255.0
    return bool((wanted > -0.05).all() and (wanted < 255.05).all() and ((wanted - wanted.round()).abs() < 0.02).float().mean() > 0.999)


def _channels(values: Sequence[float] | float, channels: int, what: str) -> tuple[float, ...]:
    numbers = [float(v) for v in np.atleast_1d(np.asarray(values, dtype=np.float64))]
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels:
        raise DNNVizError(f"{what} has {len(numbers)} numbers, the images have {channels} channels; give one number per channel.")
    if what == "std" and any(v <= 0 for v in numbers):
        raise DNNVizError(f"std is {numbers}; every number must be above zero.")
    return tuple(numbers)


def _normalisation(data: Any, depth: int = 0) -> tuple[Any, Any] | None:
    """Mean and std of a Normalize among a data set's transforms, also behind a Subset, a DataLoader or a dictionary of splits."""
    if depth > 6 or data is None:
        return None
    if isinstance(data, Mapping):
        return next((found for part in data.values() if (found := _normalisation(part, depth + 1))), None)
    if hasattr(data, "mean") and hasattr(data, "std") and type(data).__name__ == "Normalize":
        return data.mean, data.std
    for name in ("transform", "transforms", "dataset"):
        inner = getattr(data, name, None)
        for part in inner if isinstance(inner, list | tuple) else [inner]:
            found = _normalisation(part, depth + 1) if part is not None and part is not data else None
            if found:
                return found
    return None
