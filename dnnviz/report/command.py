"""`dnnviz report`: what is known of a run as one HTML file that needs nothing else, and its pictures as PNG files. No torch at import."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dnnviz.errors import DNNVizError
from dnnviz.outputs import check_folder, whole_folder

if TYPE_CHECKING:
    from dnnviz.report.page import Report

EXAMPLE = "dnnviz report data/digits-tampered --against data/digits -o report.html --pictures report-pictures"
_LIST = "pictures.json"  # names the pictures beside it and what each shows, so that those of a later report can take their place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Put the options of `dnnviz report` on its parser."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the report, such as report.html")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="also write the pictures of the report, each as a PNG file")
    parser.add_argument("--scale", type=float, default=2, metavar="N", help="pixels of the pictures a pixel of the page (default: 2)")
    parser.add_argument("--epoch", type=int, metavar="N", help="snapshot that is reported on (default: the last)")
    parser.add_argument("--against", type=Path, metavar="RUN2", help="folder of a run that it is held against")
    parser.add_argument("--against-epoch", type=int, metavar="N", help="snapshot of that one (default: the same epoch, else the last)")
    parser.add_argument("--allow", nargs="+", default=[], metavar="PACKAGE", help="packages whose functions may build the network")
    parser.add_argument("--no-network", action="store_true", help="leave out what takes the network itself: other preprocessing is not tried")
    parser.add_argument("--overwrite", action="store_true", help="replace a file, and pictures of an earlier report, that are there")


def report(given: argparse.Namespace, progress: Callable[[float, float, str], object]) -> list[str]:
    """Run the command; returns the lines to print. Raises DNNVizError where something cannot be; then nothing was written."""
    from dnnviz.analysis.diagnosis import Subject
    from dnnviz.report.page import compose
    from dnnviz.results import Results
    from dnnviz.settings import Settings
    from dnnviz.store import open_run

    if not 0.5 <= given.scale <= 16:
        raise DNNVizError(f"--scale is {given.scale:g}; it must be a number from 0.5 to 16.")
    _check(given.out, given.overwrite)
    if given.pictures is not None:
        check_folder(given.pictures, given.overwrite, "--pictures")
    settings = Settings.from_environment(allow=tuple(given.allow) or None)
    results = Results(settings.private_cache() / "results")

    # A run that is held against itself, at another epoch, is one run: its units have one order.
    opened = {folder.resolve(): open_run(folder) for folder in (given.run, *([given.against] if given.against else []))}

    def snapshot(folder: Path, epoch: int | None, like: int | None = None) -> Subject:
        run = opened[folder.resolve()]
        if not run.epochs:
            raise DNNVizError(f"{folder} holds no snapshot yet; there is nothing to report on.")
        chosen = epoch if epoch is not None else like if like in run.epochs else run.epochs[-1]
        run.snapshot(chosen)
        return Subject(run, chosen, results)

    subject = snapshot(given.run, given.epoch)
    other = None if given.against is None else snapshot(given.against, given.against_epoch, subject.epoch)
    lines = []
    if given.no_network:
        subject = replace(subject, obstacle="The network was not run.")
    else:
        try:
            from dnnviz.preprocessing import known_trial

            known_trial(subject.run, subject.epoch, results, settings.allow, progress)
        except DNNVizError as error:
            subject = replace(subject, obstacle=str(error))
            lines.append(f"left out: other preprocessing was not tried. {error}")
    progress(1, 1, "Writing")
    made = compose(given.run.resolve().name, subject, None if other is None or given.against is None else (given.against.resolve().name, other))
    if given.pictures is not None:
        with whole_folder(given.pictures, _LIST) as folder:
            for name, content in files(made, given.scale):
                (folder / name).write_bytes(content)
        lines.insert(0, f"{given.pictures}: {len(made.pictures)} pictures, {_LIST}")
    _write(given.out, made.html)
    return [f"{given.out}: {len(made.html) / 1e6:.1f} MB, {subject.run.name}, epoch {subject.epoch}", *lines]


def files(made: Report, scale: float) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the pictures of a report as PNG files, and of the list that says what each of them shows."""
    listed = {f"{picture.name}.png": picture.title for picture in made.pictures}
    for picture in made.pictures:
        yield f"{picture.name}.png", picture.png(scale)
    yield _LIST, (json.dumps({"files": sorted([*listed, _LIST]), "pictures": listed}, indent=1, ensure_ascii=False) + "\n").encode()


def _check(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise DNNVizError(f"{out} is a folder; -o names a file, such as {out / 'report.html'}.")
    if not out.parent.is_dir():
        raise DNNVizError(f"There is no folder {out.parent} for the report; make it, or name another one with -o.")
    if out.exists() and not overwrite:
        raise DNNVizError(f"{out} is there already; name another file with -o, or replace it with --overwrite.")


def _write(out: Path, text: str) -> None:
    """The whole file or none of it."""
    handle, temporary = tempfile.mkstemp(dir=out.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
