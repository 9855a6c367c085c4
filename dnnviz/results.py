"""Content-addressed cache of derived arrays: a key is the hash of everything a result depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from dnnviz.store import HEADERS

FORMAT = 1  # part of every key: raise it when what is stored changes its meaning
_KEY_LENGTH = 40


def key(kind: str, **parts: Any) -> str:
    """Key of a result: `kind` and the hash of canonical JSON of `parts` (numpy arrays by their content).

    Returns a string safe as a file name, such as `projection-3f2a…`.
    """
    text = json.dumps({"format": FORMAT, "kind": kind, **parts}, sort_keys=True, separators=(",", ":"), default=_plain)
    return f"{kind}-{hashlib.blake2b(text.encode(), digest_size=_KEY_LENGTH // 2).hexdigest()}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        digest = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).hexdigest()
        return {"shape": value.shape, "dtype": value.dtype.str, "content": digest}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a cache key")


class Results:
    """Results in a folder, one `.npz` file a key, written to a temporary name and renamed.

    get(key) → dict of arrays, or None; put(key, arrays); lock(key) joins equal requests of two processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        kind, _, digest = key.rpartition("-")
        if not kind.replace("_", "").isalnum() or len(digest) != _KEY_LENGTH or not all(c in "0123456789abcdef" for c in digest):
            raise ValueError(f"{key!r} is no result key")
        return self.folder / digest[:2] / f"{key}.npz"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays stored under `key`, or None where there are none (or where the file is damaged: it is removed)."""
        path = self.path(key)
        arrays = self._read(path)
        if arrays is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # for `prune`; many disks keep no time of reading
        return arrays

    def peek(self, key: str, name: str) -> np.ndarray | None:
        """One array of a result, or None; the others are not read, and for `prune` the result counts as no more used than before."""
        return (self._read(self.path(key), {name}) or {}).get(name)

    @staticmethod
    def _read(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray] | None:
        try:
            with HEADERS, np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files if wanted is None or name in wanted}
        except FileNotFoundError:
            return None
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> str:
        """Store arrays under `key` and return the key; a reader sees all of them or none."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return key

    def lock(self, key: str) -> FileLock:
        """Lock of a key, freed by the kernel when its holder is killed."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_suffix(".lock"))

    def prune(self, max_bytes: int) -> int:
        """Remove the results used longest ago until at most `max_bytes` are left; returns the bytes removed.

        Files that killed writers left half written go after a day.
        """
        for path in self.folder.glob("*/*.part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > 86400:
                    path.unlink()
        files = []
        for path in self.folder.glob("*/*.npz"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            files.append((status.st_mtime, status.st_size, path))
        total, removed = sum(size for _, size, _ in files), 0
        for _, size, path in sorted(files):
            if total - removed <= max_bytes:
                break
            path.unlink(missing_ok=True)
            removed += size
        return removed
