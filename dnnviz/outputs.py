"""Folders that a command writes pictures into: all of them or none, and never over what somebody else put there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from dnnviz.errors import DNNVizError


def check_folder(out: Path, overwrite: bool, option: str) -> None:
    """Raises DNNVizError where a folder cannot be written into; option: the one of the command line that named it."""
    if out.exists() and not out.is_dir():
        raise DNNVizError(f"{out} is a file; {option} names a folder.")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise DNNVizError(f"{out} holds files already; name another folder with {option}, or replace earlier pictures there with --overwrite.")


@contextlib.contextmanager
def whole_folder(out: Path, listing: str) -> Iterator[Path]:
    """A folder whose files go to `out` when all are written; until then, and on failure, what is in `out` stays as it is.

    listing: name of a JSON file among them whose `files` names them all, so that those of an earlier call can be taken away.
    """
    existed = out.is_dir()
    staging = out / f".writing-{os.getpid()}"
    staging.mkdir(parents=True)
    try:
        yield staging
        old, new = _earlier(out / listing), {path.name for path in staging.iterdir()}
        for name in sorted(new, key=lambda name: name == listing):
            os.replace(staging / name, out / name)
        for name in old - new:
            (out / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not existed and not any(out.iterdir()):
            out.rmdir()


def _earlier(listing: Path) -> set[str]:
    """Files in a folder that an earlier listing says are its own."""
    try:
        names = json.loads(listing.read_text(encoding="utf-8"))["files"]
        return {name for name in names if isinstance(name, str) and re.fullmatch(r"[\w.-]+\.(png|svg|npz|csv)", name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
