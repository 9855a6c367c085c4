"""Images from the user's files: folders of pictures and `.npz` archives."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from dnnviz.datasets.base import ImageSet, LoadedData, Preprocessing, with_channels
from dnnviz.errors import DNNVizError
from dnnviz.specs import first_line

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif"}


def load_folder(spec: str, folder: Path, how: Preprocessing, names: list[str] | None) -> LoadedData:
    """Pictures in one folder a class; such folders inside train/, val/, test/ are splits; or pictures beside a labels.csv.

    Classes are numbered as torchvision's ImageFolder does it, by the sorted names of the folders, unless `names` gives
    the order. labels.csv has the columns `file` and `class_index`, `class_name` or `label`.
    """
    if not folder.is_dir():
        raise DNNVizError(f"There is no folder {folder}.")
    if (folder / "labels.csv").is_file():
        return _load_labelled(spec, folder, how, names)
    inside = _subfolders(folder)
    if not inside:
        raise DNNVizError(f"{folder} has no folders in it; put the images of each class into a folder of its own (or give a labels.csv).")
    parts = {p.name: p for p in inside} if all(p.name.lower() in SPLIT_NAMES and _subfolders(p) for p in inside) else {"data": folder}
    parts = dict(sorted(parts.items(), key=lambda item: SPLIT_NAMES.index(item[0].lower()) if item[0].lower() in SPLIT_NAMES else 0))
    found = sorted({p.name for part in parts.values() for p in _subfolders(part)})
    index, classes = _match(spec, found, names)
    splits = {}
    for name, part in parts.items():
        paths = [
            (path, index[sub.name])
            for sub in _subfolders(part)
            for path in sorted(sub.rglob("*"))
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
        ]
        if not paths:
            raise DNNVizError(f"{part} holds no images (looked for {', '.join(sorted(SUFFIXES))}).")
        splits[name] = _image_files([p for p, _ in paths], [c for _, c in paths], how, folder)
    return LoadedData.of(spec, splits, classes)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _match(spec: str, found: Sequence[str], names: list[str] | None) -> tuple[dict[str, int], list[str]]:
    """Number of every class found, and the names of all classes; a class may have two names, `n01440764|tench`."""
    if names is None:
        return {name: i for i, name in enumerate(found)}, list(found)
    aliases = {alias: i for i, name in reversed(list(enumerate(names))) for alias in (name, *name.split("|"))}
    for name in found:
        if name not in aliases:
            raise DNNVizError(f"{spec}: class {name!r} is not among the {len(names)} class names given.")
    return {name: aliases[name] for name in found}, [name.split("|")[-1] for name in names]


class _Reader:
    """Reads image files; an object, not a closure, so that worker processes can have it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __call__(self, index: int) -> Image.Image:
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                image.load()
                return image
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = "no format that Pillow knows" if isinstance(error, UnidentifiedImageError) else first_line(error)
            raise DNNVizError(f"{path} is damaged or no image ({reason}); remove or replace it.") from None


def _image_files(paths: Sequence[Path], labels: Sequence[int], how: Preprocessing, root: Path) -> ImageSet:
    return ImageSet(_Reader(paths), np.asarray(labels), how, [p.relative_to(root).as_posix() for p in paths])


def _load_labelled(spec: str, folder: Path, how: Preprocessing, names: list[str] | None) -> LoadedData:
    table = folder / "labels.csv"
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DNNVizError(f"{table} cannot be read ({first_line(error)}).") from None
    columns = set(rows[0]) if rows else set()
    if "file" not in columns or not columns & {"class_index", "class_name", "label"}:
        raise DNNVizError(f"{table} needs the columns file and class_index, class_name or label.")
    paths = [folder / row["file"] for row in rows]
    missing = next((p for p in paths if not p.is_file()), None)
    if missing is not None:
        raise DNNVizError(f"{table} names {missing.name}, which is not there.")
    if "class_index" in columns:
        try:
            labels = [int(row["class_index"]) for row in rows]
        except (TypeError, ValueError):
            raise DNNVizError(f"{table}: class_index must be a whole number in every row.") from None
        given = {i: row.get("class_name") or str(i) for i, row in zip(labels, rows, strict=True)}
        classes = [n.split("|")[-1] for n in names] if names else [given.get(i, f"class {i}") for i in range(max(labels) + 1)]
    else:
        column = "class_name" if "class_name" in columns else "label"
        index, classes = _match(spec, sorted({row[column] for row in rows}), names)
        labels = [index[row[column]] for row in rows]
    return LoadedData.of(spec, {"data": _image_files(paths, labels, how, folder)}, classes)


def load_npz(spec: str, path: Path, how: Preprocessing, native_channels: bool) -> LoadedData:
    """Arrays `images` uint8 [n, H, W, C] or [n, H, W], `labels` int [n], and perhaps `class_names`.

    `train_images`, `train_labels`, `val_images` … are splits.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DNNVizError(f"{path} is a single array; an .npz with images and labels is needed.")
            keys = set(archive.files)
            pairs = {"data": ("images", "labels")} if "images" in keys else {s: (f"{s}_images", f"{s}_labels") for s in ("train", "val", "test")}
            pairs = {name: pair for name, pair in pairs.items() if pair[0] in keys}
            for wanted in [pair[1] for pair in pairs.values()] if pairs else ["images"]:
                if wanted not in keys:
                    raise DNNVizError(f"{path} has no array {wanted!r} (it has: {', '.join(sorted(keys)) or 'none'}); images and labels are needed.")
            arrays = {name: (archive[pair[0]], archive[pair[1]]) for name, pair in pairs.items()}
            names = [str(v) for v in archive["class_names"]] if "class_names" in keys else None
    except FileNotFoundError:
        raise DNNVizError(f"There is no file {path}.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it holds pickled objects" if "pickle" in str(error) else first_line(error)
        raise DNNVizError(f"{path} cannot be read as .npz ({reason}).") from None
    splits = {}
    for name, (images, labels) in arrays.items():
        where = path if name == "data" else f"{path}, split {name}"
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
            raise DNNVizError(f"{where}: images are {images.dtype} {list(images.shape)}; uint8 [n, H, W, 3], [n, H, W, 1] or [n, H, W] is needed.")
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            raise DNNVizError(f"{where}: labels are {labels.dtype} {list(labels.shape)}; {len(images)} whole numbers are needed.")
        images = images[:, :, :, None] if images.ndim == 3 else images
        own = with_channels(how, images.shape[3]) if native_channels else how
        splits[name] = ImageSet(images.__getitem__, labels, own, [str(i) for i in range(len(images))])
    highest = max((int(s.labels.max()) for s in splits.values() if len(s)), default=0)
    return LoadedData.of(spec, splits, names if names is not None else [str(i) for i in range(highest + 1)])
