"""From what one pass gave to files: a snapshot published whole, or a run replaced whole, or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnviz.errors import DNNVizError
from dnnviz.inputs import Look, Source
from dnnviz.keep import best_ranks, image_limit
from dnnviz.observe import Observed
from dnnviz.store import MANIFEST, Run, RunWriter

_STAGING, _REPLACED = ".staging", ".replaced"
_PARTS = ("inputs", "snapshots", "graph.json", MANIFEST)


def snapshot(
    writer: RunWriter,
    manifest: dict[str, Any],
    epoch: int,
    metrics: Mapping[str, Any],
    observed: Observed,
    sources: Sequence[Source],
    look: Look,
    graph: Mapping[str, Any],
    state: Mapping[str, Any] | None,
    old: Run | None,
) -> Run:
    """Write one snapshot, and before the first of a run (`old` None) its inputs and graph; returns the run.

    metrics: the user's; they win over those observed of the same name, but for those per split. state: the state_dict to store, None for none.
    """
    keeper = observed.keeper
    if old is None:
        arrays = {"images": keeper.images, "labels": keeper.labels, "splits": keeper.splits, "positions": keeper.positions}
        if not keeper.exact:
            arrays["tensors"] = keeper.tensors(look)
        writer.write_inputs(arrays, keeper.ids)
        writer.write_graph(graph)
    top_inputs, stored = _store_top_images(writer, observed, sources, look, old)
    manifest = {**manifest, "top": {**manifest["top"], "stored": stored}}

    def save(path: Path) -> None:
        assert state is not None
        content = {name: t.detach().cpu() if isinstance(t, torch.Tensor) else t for name, t in state.items()}
        try:
            with open(path, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
        except RuntimeError as error:  # torch hides the reason for a failed write
            raise OSError(errno.ENOSPC, f"weights cannot be written ({str(error).splitlines()[0]})") from error

    arrays = {**observed.arrays, "top_inputs": top_inputs}
    noted = {**observed.metrics, **metrics, "splits": observed.metrics["splits"]}
    return writer.publish(manifest, epoch, arrays, _plain(noted), None if state is None else save)


def _store_top_images(writer: RunWriter, observed: Observed, sources: Sequence[Source], look: Look, old: Run | None) -> tuple[np.ndarray, int]:
    """Store the images of top inputs that are not stored yet; returns top_inputs int32 [U, k] and the number stored in all."""
    keeper = observed.keeper
    positions = observed.arrays["top_positions"]
    folder = writer.path / "inputs"
    if old is not None and (folder / "top_labels.npy").is_file():
        images, where, labels = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("top_images", "top_positions", "top_labels"))
        # A writer killed between these files leaves the labels, written last, behind the others.
        images, where = images[: len(labels)], where[: len(labels)]
    else:
        images = np.zeros((0, *keeper.images.shape[1:]), dtype=np.uint8)
        where, labels = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    number = {int(p): i for i, p in enumerate(keeper.positions)}
    number.update({int(p): len(keeper) + i for i, p in enumerate(where)})
    ranks = best_ranks([torch.from_numpy(positions.T)])
    missing = sorted((p for p in ranks if p not in number), key=lambda p: (ranks[p], p))
    room = image_limit(keeper.size) - len(labels)
    # Half of what is left, since later snapshots of a run need room as well.
    missing = missing[: max(room if room < 64 else (room + 1) // 2, 0)]
    new = [(p, *found) for p in missing if (found := _image(p, observed, sources, look)) is not None]
    if new or old is None:
        if new:
            images = np.concatenate([images, np.stack([image for _, image, _ in new])])
            number.update({p: len(keeper) + len(labels) + i for i, (p, _, _) in enumerate(new)})
        where = np.concatenate([where, np.array([p for p, _, _ in new], dtype=np.int64)])
        labels = np.concatenate([labels, np.array([label for _, _, label in new], dtype=np.int64)])
        for name, array in (("top_images", images), ("top_positions", where), ("top_labels", labels)):
            writer.write_inputs({name: array})
    known, index = np.unique(positions, return_inverse=True)
    table = np.array([number.get(int(p), -1) for p in known], dtype=np.int32)
    return table[index.reshape(positions.shape)], len(labels)


def _image(position: int, observed: Observed, sources: Sequence[Source], look: Look) -> tuple[np.ndarray, int] | None:
    """Image uint8 [H, W, C] and label of an input, by its position in the stream; None where it cannot be had."""
    first = 0
    for source, count in zip(sources, observed.class_counts.sum(1).tolist(), strict=True):
        if position < first + count:
            if not source.again:
                return observed.keeper.held.get(position)
            tensor, label = source.pair(position - first)
            return look.images(tensor[None])[0][0], label
        first += count
    return None


def _plain(value: Any) -> Any:
    """As JSON can hold it: numbers of numpy and torch become Python's, what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, int | str) or value is None else str(value)


# -- the folder ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say in a sentence that the disk is full or may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DNNVizError(f"The disk that holds {path} is full; nothing of this snapshot was published. Make room and capture again.") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise DNNVizError(f"{path} cannot be written ({error.strerror}); nothing of this snapshot was published.") from error
        raise


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[RunWriter]:
    """A writer for a run that takes the place of the one at `path` when all of it is written; until then, and on failure, that one stays."""
    staging, replaced = path / _STAGING, path / _REPLACED
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield RunWriter(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    replaced.mkdir()
    # The manifest leaves first and comes last: a reader sees a whole run or none, and `recover` undoes what is half done.
    for name in reversed(_PARTS):
        if (path / name).exists():
            (path / name).rename(replaced / name)
    for name in _PARTS:
        (staging / name).rename(path / name)
    recover(path)
    shutil.rmtree(path / "cache", ignore_errors=True)


def recover(path: Path) -> None:
    """Undo a replacement that was killed half way, and remove what one left behind."""
    staging, replaced = path / _STAGING, path / _REPLACED
    if (replaced / MANIFEST).exists() and not (path / MANIFEST).exists():
        for name in _PARTS:
            if (replaced / name).exists():
                if (path / name).is_dir():
                    shutil.rmtree(path / name)
                (replaced / name).replace(path / name)
    shutil.rmtree(replaced, ignore_errors=True)
    shutil.rmtree(staging, ignore_errors=True)


def remove_empty(path: Path) -> None:
    """Remove a run folder in which nothing was published."""
    (path / ".lock").unlink(missing_ok=True)
    (path / ".writer.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.rmdir()
