"""torchvision's own data sets, with their own download code."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from PIL import Image

from dnnviz.datasets.base import ImageSet, LoadedData, Preprocessing, with_channels
from dnnviz.errors import DNNVizError
from dnnviz.models import import_torchvision
from dnnviz.specs import first_line

_SPLITS = ("train", "val", "valid", "test")


def load(spec: str, rest: str, how: Preprocessing, wanted: Sequence[str] | None, options: Mapping[str, Any], native_channels: bool) -> LoadedData:
    """`NAME@FOLDER`: a data set of torchvision for classification; downloaded into FOLDER where it is not there.

    Without FOLDER it lies in the user's cache. wanted: the splits to open (None: train, val and test, as there are).
    Options are passed to torchvision's class, such as `EMNIST@FOLDER?split=balanced`.
    """
    torchvision = import_torchvision()
    name, _, root = rest.partition("@")
    known = [n for n in torchvision.datasets.__all__ if inspect.isclass(getattr(torchvision.datasets, n))]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise DNNVizError(f"torchvision has no data set {name!r}{'; did you mean ' + ' or '.join(near) + '?' if near else ''}.")
    kind = getattr(torchvision.datasets, name)
    folder = Path(root) if root else Path(platformdirs.user_cache_dir("dnnviz", appauthor=False)) / "datasets"
    splits: dict[str, ImageSet] = {}
    classes: list[str] | None = None
    for split, arguments in _arguments(kind, options).items():
        if wanted is not None and split not in wanted:
            continue
        found = _open(spec, kind, folder, {**options, **arguments}, split in (wanted or ("train", "test")))
        if found is None:
            continue
        labels = _labels(spec, found)
        own = with_channels(how, len(_picture(found, 0).getbands())) if native_channels else how
        splits[split] = ImageSet(_Reader(found), labels, own, [str(i) for i in range(len(found))])
        classes = [str(c[0] if isinstance(c, tuple) else c) for c in getattr(found, "classes", [])] or classes
    if not splits:
        raise DNNVizError(f"{spec} has none of the splits {', '.join(wanted or _SPLITS)}.")
    highest = max(int(s.labels.max()) for s in splits.values() if len(s))
    return LoadedData.of(spec, splits, classes or [str(i) for i in range(highest + 1)])


def _arguments(kind: type, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arguments that select each split of a torchvision class."""
    parameters = inspect.signature(kind).parameters
    if "train" in parameters:
        return {"train": {"train": True}, "test": {"train": False}}
    if "split" in parameters and "split" not in options:
        return {name: {"split": name} for name in _SPLITS}
    return {"data": {}}


def _open(spec: str, kind: type, folder: Path, arguments: Mapping[str, Any], required: bool) -> Any | None:
    """One split, downloaded if need be; None where the class knows no such split."""
    parameters = inspect.signature(kind).parameters
    given = {"root": folder, **arguments} if "root" in parameters else dict(arguments)
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        # torchvision's check of the split's name is the one ValueError that says "Unknown value".
        if isinstance(error, ValueError) and "nknown value" in str(error) and "split" in arguments:
            return None
        raise DNNVizError(f"{spec} cannot be opened ({first_line(error)}).") from None
    except (RuntimeError, OSError) as error:
        if "download" not in parameters:
            raise DNNVizError(f"{spec} cannot be opened ({first_line(error)}); torchvision does not download this one.") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return kind(**given, download=True)
    except Exception as error:  # each class downloads in its own way, and fails in its own way
        if not required:
            return None
        raise DNNVizError(
            f"{spec} is not in {folder} and could not be downloaded ({first_line(error)}); "
            f"download it on a machine with a network and put it there as torchvision.datasets.{kind.__name__} expects it."
        ) from None


def _picture(found: Any, index: int) -> Image.Image:
    image = found[index][0]
    if not isinstance(image, Image.Image):
        raise DNNVizError(f"torchvision's {type(found).__name__} gives {type(image).__name__}, not images; it is no data set of labelled images.")
    return image


class _Reader:
    """Reads pictures; an object, not a closure, so that worker processes can have it."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def __call__(self, index: int) -> Image.Image:
        return _picture(self.found, index)


def _labels(spec: str, found: Any) -> np.ndarray:
    """int64 [n]: every label, without decoding the images where the class keeps them in a list."""
    for name in ("targets", "labels", "_labels"):
        listed = getattr(found, name, None)
        if listed is not None and len(listed) == len(found):
            labels = np.asarray(listed)
            if labels.dtype.kind in "iu" and labels.ndim == 1:
                return labels.astype(np.int64)
    try:
        return np.array([int(found[i][1]) for i in range(len(found))], dtype=np.int64)
    except (TypeError, ValueError):
        raise DNNVizError(f"{spec} has no single class a picture; a data set for classification is needed.") from None
