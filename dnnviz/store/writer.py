"""Writing a run: one writer at a time, snapshots published by rename, the manifest last."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from dnnviz.errors import RunError
from dnnviz.store.run import MANIFEST, SCHEMA, STATS, Layer, Run, open_run


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".part-{path.name}-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file so that a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".part-{path.name}-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[RunWriter]:
    """Hold a run folder for writing; raises RunError naming the other writer where there is one."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run needs a folder.")
    if folder.is_dir() and not (folder / MANIFEST).exists() and any(not p.name.startswith(".") and p.name not in _OWN for p in folder.iterdir()):
        raise RunError(f"{folder} holds other files and is no run; choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made ({error.strerror}).") from None
    who = folder / ".writer.json"
    # The kernel frees the lock of a killed process; the file beside it only says who holds it.
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        holder = ""
        with contextlib.suppress(OSError, ValueError, KeyError):
            content = json.loads(who.read_text(encoding="utf-8"))
            holder = f" (process {content['pid']} on {content['host']}, since {content['since']})"
        raise RunError(f"{folder} is being written by another process{holder}; wait for it, or choose another folder.") from None
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}).") from None
    try:
        write_json(who, {"pid": os.getpid(), "host": socket.gethostname(), "since": now()})
        yield RunWriter(folder)
    finally:
        who.unlink(missing_ok=True)
        lock.release()


_OWN = {"inputs", "snapshots", "cache", "training", "graph.json", "capture.json"}


def now() -> str:
    """The time, as manifests hold it: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunWriter:
    """Writes a run that `writing` has locked.

    Order: `write_inputs`, then for each snapshot `publish`; the manifest is written after the first snapshot is
    complete and again after every further one, always last. What is not published does not exist for readers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for left in (path / "snapshots").glob(".part-*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in [*path.glob(".part-*"), *(path / "inputs").glob(".part-*")]:
            left.unlink(missing_ok=True)

    def existing(self) -> Run | None:
        """The run as it stands, with snapshots that were complete when a writer was killed before it wrote the manifest; None for a new folder."""
        if not (self.path / MANIFEST).is_file():
            return None
        run = open_run(self.path)
        known = set(run.epochs)
        found = []
        for folder in sorted((self.path / "snapshots").glob("[0-9]*")):
            if folder.name.isdigit() and int(folder.name) not in known:
                with contextlib.suppress(OSError, ValueError):
                    found.append(json.loads((folder / "snapshot.json").read_text(encoding="utf-8")))
        if found:
            run.manifest["snapshots"] = sorted([*run.manifest["snapshots"], *found], key=lambda e: e["epoch"])
            write_json(self.path / MANIFEST, run.manifest)
            run = open_run(self.path)
        return run

    def clear(self) -> None:
        """Remove everything of the run (the manifest first, so that no reader sees a run without its arrays)."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        for name in _OWN:
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def write_inputs(self, arrays: Mapping[str, np.ndarray], ids: Sequence[str] | None = None) -> None:
        """Write `inputs/<name>.npy` for each array (images, labels, splits, tensors, top_images …) and ids.json."""
        folder = self.path / "inputs"
        folder.mkdir(exist_ok=True)
        for name, array in arrays.items():
            write_array(folder / f"{name}.npy", array)
        if ids is not None:
            write_json(folder / "ids.json", list(ids))

    def write_graph(self, graph: Mapping[str, Any]) -> None:
        write_json(self.path / "graph.json", graph)

    def publish(
        self,
        manifest: Mapping[str, Any],
        epoch: int,
        arrays: Mapping[str, np.ndarray],
        metrics: Mapping[str, Any],
        save_weights: Callable[[Path], None] | None = None,
    ) -> Run:
        """Publish a snapshot: write its arrays into a hidden folder, rename it, then write the manifest.

        manifest: the manifest without `snapshots`; those already published are kept, one of the same epoch is replaced.
        arrays: the arrays of the run format by name; save_weights: called with the path where weights.pt belongs.
        """
        parent = self.path / "snapshots"
        parent.mkdir(exist_ok=True)
        part = parent / f".part-{epoch:06d}"
        final = parent / f"{epoch:06d}"
        replaced = parent / f".part-{epoch:06d}-replaced"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        content = hashlib.blake2b(digest_size=16)
        try:
            for name in sorted(arrays):
                array = np.ascontiguousarray(arrays[name])
                write_array(part / f"{name}.npy", array)
                content.update(name.encode() + str((array.shape, array.dtype.str)).encode())
                content.update(array)
            if save_weights is not None:
                save_weights(part / "weights.pt")
            entry = {
                "epoch": int(epoch),
                "created": now(),
                "metrics": dict(metrics),
                "digest": content.hexdigest(),
                "dtypes": {name: arrays[name].dtype.name for name in STATS if name in arrays},
                "weights": save_weights is not None,
            }
            write_json(part / "snapshot.json", entry)
            if final.exists():
                final.rename(replaced)
            part.rename(final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            if replaced.exists() and not final.exists():
                replaced.rename(final)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
        before = []
        if (self.path / MANIFEST).is_file():
            before = [e for e in open_run(self.path).manifest["snapshots"] if e["epoch"] != epoch]
        write_json(self.path / MANIFEST, {**manifest, "schema": SCHEMA, "snapshots": sorted([*before, entry], key=lambda e: e["epoch"])})
        return open_run(self.path)


def layer_entries(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Layers as the manifest holds them."""
    return [{**asdict(layer), "shape": list(layer.shape)} for layer in layers]
