"""Images with labels, and how they become the input of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from dnnviz.errors import DNNVizError

# (mean, std) per channel of inputs scaled to 0–1.
PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "none": ((0.0,), (1.0,)),
}
IMAGENET_CROP = 0.875  # torchvision's evaluation: resize the shorter side to 256, cut out the middle 224


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input: resize, crop, channels, normalise.

    resize: length of the shorter side after resizing (bilinear), or None; crop: side of the square cut out of the
    middle, or None; channels: 1 or 3 (grey is repeated, colour is turned to grey); mean, std: per channel, for values 0–1.
    """

    resize: int | None = None
    crop: int | None = None
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def image(self, image: Image.Image) -> np.ndarray:
        """uint8 [H, W, channels]: the image as the network sees it, before normalisation."""
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.resize is not None:
            width, height = image.size
            short, long = min(width, height), max(width, height)
            if short != self.resize:
                longer = int(self.resize * long / short)
                image = image.resize((self.resize, longer) if width <= height else (longer, self.resize), Image.Resampling.BILINEAR)
        if self.crop is not None:
            width, height = image.size
            left, top = round((width - self.crop) / 2.0), round((height - self.crop) / 2.0)
            image = image.crop((left, top, left + self.crop, top + self.crop))
        array = np.array(image, dtype=np.uint8)
        return array[:, :, None] if array.ndim == 2 else array

    def tensor(self, image: np.ndarray) -> torch.Tensor:
        """float32 [C, H, W] of an image uint8 [H, W, C]; computed as `Run.normalise` does, to the last bit."""
        mean, std = (np.broadcast_to(np.asarray(v, dtype=np.float32), (self.channels,)) for v in (self.mean, self.std))
        return torch.from_numpy(np.ascontiguousarray(((image.astype(np.float32) / 255.0 - mean) / std).transpose(2, 0, 1)))


class ImageSet(Dataset):
    """A split: (tensor float32 [C, H, W], label) by index.

    read: gives image i as a PIL image or as uint8 [H, W] or [H, W, C]; labels: int64 [n]; ids: name of every image.
    """

    def __init__(self, read: Callable[[int], Image.Image | np.ndarray], labels: np.ndarray, preprocessing: Preprocessing, ids: Sequence[str]) -> None:
        self.read = read
        self.labels = np.asarray(labels, dtype=np.int64)
        self.targets = self.labels.tolist()
        self.preprocessing = preprocessing
        self.ids = [str(name) for name in ids]

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, C]: image as the network sees it, before normalisation."""
        found = self.read(index)
        if isinstance(found, np.ndarray):
            how = self.preprocessing
            if found.ndim == 3 and found.shape[2] == how.channels and how.resize is None and how.crop is None:
                return found
            found = Image.fromarray(found[:, :, 0] if found.ndim == 3 and found.shape[2] == 1 else found)
        return self.preprocessing.image(found)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.preprocessing.tensor(self.image(index)), self.targets[index]


@dataclass
class LoadedData:
    """A data set ready for capture or training.

    splits: name → Dataset of (float32 [C, H, W], label); classes: their names; mean, std: per channel for values 0–1
    (None where a function of the user's did not say); size: (C, H, W) of the inputs; ids: name of every input by split;
    masks: uint8 [n, H, W] by split where the true objects are known: 0 background, class index + 1 elsewhere.
    """

    spec: str
    splits: dict[str, Dataset]
    classes: list[str]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    size: tuple[int, int, int]
    ids: dict[str, list[str]] = field(default_factory=dict)
    masks: dict[str, np.ndarray] | None = None

    @classmethod
    def of(cls, spec: str, splits: Mapping[str, ImageSet], classes: Sequence[str], masks: dict[str, np.ndarray] | None = None) -> LoadedData:
        """Put splits together; checks that there is something in them and that labels lie within the classes."""
        for name, split in splits.items():
            if not len(split):
                raise DNNVizError(f"{spec}: split {name} holds no images.")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(classes):
                where = int(np.flatnonzero((split.labels < 0) | (split.labels >= len(classes)))[0])
                raise DNNVizError(
                    f"{spec}: image {split.ids[where]} has label {split.labels[where]}; "
                    f"with {len(classes)} classes labels go from 0 to {len(classes) - 1}."
                )
        first = next(iter(splits.values()))
        height, width, channels = first.image(0).shape
        how = first.preprocessing
        return cls(
            spec=spec,
            splits=dict(splits),
            classes=[str(c) for c in classes],
            mean=per_channel(how.mean, channels, "mean"),
            std=per_channel(how.std, channels, "std"),
            size=(channels, height, width),
            ids={name: split.ids for name, split in splits.items()},
            masks=masks,
        )


def per_channel(values: Sequence[float], channels: int, what: str) -> tuple[float, ...]:
    """One value for each channel: one value is repeated, three are averaged for a grey image."""
    given = tuple(float(v) for v in values)
    if len(given) == channels:
        return given
    if len(given) == 1:
        return given * channels
    if channels == 1:
        return (round(sum(given) / len(given), 6),)
    raise DNNVizError(f"The {what} has {len(given)} values and the images have {channels} channels; give 1 or {channels}.")


def with_channels(how: Preprocessing, channels: int) -> Preprocessing:
    """The same preprocessing for images with this number of channels."""
    return replace(how, channels=channels, mean=per_channel(how.mean, channels, "mean"), std=per_channel(how.std, channels, "std"))
