"""Runs by id: the only place where an id becomes a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dnnviz.errors import RunError
from dnnviz.store import MANIFEST, Run, open_run


@dataclass(frozen=True)
class Broken:
    """A folder that looks like a run and cannot be opened, with the sentence that says why."""

    id: str
    reason: str


class Catalogue:
    """The runs found in a list of folders.

    The id of a run is its folder's name; where two folders hold the same name the second is `name~2`, and so on.
    Folders are looked at again on every call, so a run appears as soon as its manifest is written.
    """

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self.folders = tuple(Path(folder) for folder in folders)
        self._opened: dict[Path, tuple[tuple[int, int], Run]] = {}

    def paths(self) -> dict[str, Path]:
        """Ids and folders of all runs, in the order of the folders and of the names."""
        found: dict[str, Path] = {}
        for folder in self.folders:
            try:
                candidates = [folder] if (folder / MANIFEST).is_file() else sorted(p for p in folder.iterdir() if (p / MANIFEST).is_file())
            except OSError:
                continue  # not there (yet), or not ours to read
            for path in candidates:
                name = path.resolve().name
                key, number = name, 2
                while key in found:
                    key, number = f"{name}~{number}", number + 1
                found[key] = path
        return found

    def ids(self) -> list[str]:
        """Ids of the runs that can be opened."""
        return [key for key in self.paths() if not isinstance(self._try(key), Broken)]

    def broken(self) -> list[Broken]:
        """Folders that hold a manifest and cannot be opened."""
        return [entry for key in self.paths() if isinstance(entry := self._try(key), Broken)]

    def open(self, key: str) -> Run:
        """Open the run with this id; the same object as long as its manifest does not change.

        Raises RunError with a sentence for an unknown id or a damaged run.
        """
        paths = self.paths()
        if key not in paths:
            known = ", ".join(paths) or "none"
            raise RunError(f"There is no run called {key!r} here (known: {known}).")
        path = paths[key]
        status = (path / MANIFEST).stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        held = self._opened.get(path)
        if held is None or held[0] != stamp:
            held = self._opened[path] = (stamp, open_run(path))
        return held[1]

    def _try(self, key: str) -> Run | Broken:
        try:
            return self.open(key)
        except (RunError, OSError) as error:
            return Broken(key, str(error))
