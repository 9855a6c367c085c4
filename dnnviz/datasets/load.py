"""From a data spec to splits of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from dnnviz.datasets import digits, files, shapes, torchvision_sets
from dnnviz.datasets.base import IMAGENET_CROP, PRESETS, ImageSet, LoadedData, Preprocessing, per_channel
from dnnviz.errors import DNNVizError
from dnnviz.specs import check_allowed, first_line, import_function
from dnnviz.specs import options as parse_options

_FORMS = "torchvision:NAME@FOLDER, folder:DIR, npz:FILE, digits, shapes or package.module:function"


def load(
    spec: str,
    *,
    size: int | None = None,
    resize: int | None = None,
    preprocess: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int | None = None,
    splits: Sequence[str] | None = None,
    class_names: Sequence[str] | str | Path | None = None,
    allow: Sequence[str] | None = None,
) -> LoadedData:
    """Load a data set.

    spec: `torchvision:NAME@FOLDER` (downloaded into FOLDER where it is not there), `folder:DIR` (a folder a class, or
    train/ and test/ with such folders, or pictures with a labels.csv), `npz:FILE` (images uint8 NHWC, labels,
    class_names), `digits`, `shapes`, or `package.module:function`.
    size: side of the square input; resize: length of the shorter side before the middle is cut out. Folders default to
    224 and 256, as torchvision evaluates its networks; elsewhere the images keep their size unless told otherwise.
    preprocess: `imagenet`, `cifar10` or `none`, the mean and standard deviation; `mean`, `std` override it.
    channels: 1 or 3; None keeps what the images have (folders: 3).
    splits: names of the splits wanted; None takes all.
    class_names: names in the order of the network's outputs (list; text file, a name a line; JSON list, or
    {"0": ["n01440764", "tench"], …}); folders are matched to them by name.
    allow: packages whose functions may be called; None allows any (the user typed the spec).
    Raises DNNVizError with one sentence.
    """
    if preprocess is not None and preprocess not in PRESETS:
        raise DNNVizError(f"There is no preprocessing {preprocess!r}; there are {', '.join(PRESETS)}.")
    head, _, query = spec.partition("?")
    family, colon, rest = head.partition(":")
    how = _preprocessing(family, size, resize, preprocess, mean, std, channels)
    # A path may hold a question mark.
    options = parse_options(spec, query) if family not in ("folder", "npz") else {}
    names = _names(class_names) if class_names is not None else None
    if head in ("digits", "shapes"):
        source = {"digits": digits.load, "shapes": shapes.load}[head]
        try:
            data = source(spec, how, **options)
        except TypeError as error:
            raise DNNVizError(f"{spec!r} has an option that {head} does not know ({first_line(error)}).") from None
    elif not colon or not rest:
        raise DNNVizError(f"{spec!r} is no data set; write {_FORMS}.")
    elif family == "torchvision":
        data = torchvision_sets.load(spec, rest, how, splits, options, native_channels=channels is None)
    elif family == "folder":
        data = files.load_folder(spec, Path(spec.partition(":")[2]), how, names)
    elif family == "npz":
        data = files.load_npz(spec, Path(spec.partition(":")[2]), how, native_channels=channels is None)
    else:
        check_allowed(head, allow)
        data = _from_function(spec, import_function(head, "data set")(**options))
        if mean is not None or std is not None or preprocess is not None:
            data = replace(data, mean=per_channel(how.mean, data.size[0], "mean"), std=per_channel(how.std, data.size[0], "std"))
    if names is not None and family != "folder":
        if len(names) < len(data.classes):
            raise DNNVizError(f"{spec} has {len(data.classes)} classes; {len(names)} class names were given.")
        data = replace(data, classes=[name.split("|")[-1] for name in names])
    return data if splits is None else _only(data, splits)


def _preprocessing(
    family: str,
    size: int | None,
    resize: int | None,
    preprocess: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    channels: int | None,
) -> Preprocessing:
    for name, value in (("size", size), ("resize", resize)):
        if value is not None and value < 1:
            raise DNNVizError(f"--{name} is {value}; it must be above zero.")
    if family == "folder" and size is None and resize is None:
        size = 224
    if size is not None and resize is None:
        # Photographs: what torchvision evaluates with. Small images have no margin to give away.
        resize = round(size / IMAGENET_CROP) if family == "folder" else size
    preset = PRESETS[preprocess or {"digits": "none", "shapes": "none"}.get(family.partition("?")[0], "imagenet")]
    chosen = (tuple(mean) if mean is not None else preset[0], tuple(std) if std is not None else preset[1])
    if any(v <= 0 for v in chosen[1]):
        raise DNNVizError(f"--std is {chosen[1]}; every value must be above zero.")
    grey = channels or {"digits": 1}.get(family, 3)
    return Preprocessing(resize, size, grey, per_channel(chosen[0], grey, "mean"), per_channel(chosen[1], grey, "std"))


def _names(given: Sequence[str] | str | Path) -> list[str]:
    if not isinstance(given, str | Path):
        return [str(name) for name in given]
    path = Path(given)
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines() if line.strip()]
        if isinstance(content, Mapping):
            content = [content[str(i)] for i in range(len(content))]
        # Both names of a class in one string, so that folders named by either find it.
        return ["|".join(map(str, name)) if isinstance(name, list) else str(name) for name in content]
    except (OSError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise DNNVizError(f"{path} cannot be read as class names ({first_line(error)}); write one name a line, or a JSON list.") from None


def _only(data: LoadedData, wanted: Sequence[str]) -> LoadedData:
    missing = [name for name in wanted if name not in data.splits]
    if missing:
        raise DNNVizError(f"{data.spec} has no split {missing[0]!r} (there are: {', '.join(data.splits)}).")
    return replace(
        data,
        splits={name: data.splits[name] for name in wanted},
        ids={name: data.ids[name] for name in wanted if name in data.ids},
        masks={name: data.masks[name] for name in wanted} if data.masks is not None else None,
    )


def _from_function(spec: str, found: Any) -> LoadedData:
    """What a function of the user's returned: LoadedData, a Dataset, {split: Dataset}, or (one of these, class names)."""
    if isinstance(found, LoadedData):
        return replace(found, spec=spec)
    classes: list[str] | None = None
    if isinstance(found, tuple) and len(found) == 2:
        found, classes = found[0], [str(c) for c in found[1]]
    splits = dict(found) if isinstance(found, Mapping) else {"data": found}
    for name, split in splits.items():
        if not isinstance(split, Dataset) and not (hasattr(split, "__getitem__") and hasattr(split, "__len__")):
            raise DNNVizError(f"{spec} returned a {type(split).__name__} as {name}; it must be a Dataset of (image tensor, label) pairs.")
        if not len(split):
            raise DNNVizError(f"{spec}: split {name} holds no images.")
    first = next(iter(splits.values()))
    if classes is None:
        classes = [str(c) for c in getattr(first, "classes", [])] or None
    try:
        sample, _ = first[0]
        size = tuple(int(v) for v in sample.shape)
    except (TypeError, ValueError, AttributeError) as error:
        raise DNNVizError(f"{spec}: element 0 is no (image tensor, label) pair ({first_line(error)}).") from None
    if len(size) != 3:
        raise DNNVizError(f"{spec}: images have shape {list(size)}; [C, H, W] is needed.")
    if classes is None:
        classes = [str(i) for i in range(1 + max(int(split[i][1]) for split in splits.values() for i in range(len(split))))]
    ids = {
        name: [str(v) for v in split.ids] if isinstance(split, ImageSet) else [str(i) for i in range(len(split))] for name, split in splits.items()
    }
    return LoadedData(spec, splits, classes, None, None, size, ids)
