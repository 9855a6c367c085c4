"""`dnnviz explain`: what the attribution page makes, as files: a picture a tile, the gallery, the raw maps, the trust notes. No torch at import."""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnnviz.errors import DNNVizError
from dnnviz.outputs import check_folder, whole_folder

if TYPE_CHECKING:
    from dnnviz.explain.attribution import Attribution
    from dnnviz.explain.picture import Look
    from dnnviz.explain.plan import Tile
    from dnnviz.results import Results
    from dnnviz.store import Run

EXAMPLE = "dnnviz explain data/shapes --inputs 0,3,7 --methods saliency,grad_cam --target predicted --out explained"
_GROUPS = ("wrong", "unsure", "all")
_LIST = "attributions.json"  # names every file written beside it, so that a later gallery can take their place
_COLUMNS = (
    *("file", "input", "true_class", "target", "target_name", "method", "parameters", "layer", "score", "probability"),
    *("trust", "trust_text", "trust_value", "trust_why", "seconds", "error"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Put the options of `dnnviz explain` on its parser."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--inputs",
        nargs="+",
        required=True,
        metavar="WHICH",
        help="numbers of inputs kept (0,3,7), wrong, unsure, class:3, all, or image files of your own (PNG, JPEG, …); up to 24 in all",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["quick"],
        metavar="NAME",
        help="names such as saliency,grad_cam, each with parameters where wanted (smoothgrad:samples=20,noise=0.1), quick or all (default: quick)",
    )
    parser.add_argument(
        "--target",
        action="append",
        metavar="TARGET",
        help="what is explained: predicted (default), true, class:3, class:3-class:5, predicted-second, unit:LAYER:12, layer:LAYER or "
        "direction:LAYER:3; may be given several times",
    )
    parser.add_argument("--layer", metavar="LAYER", help="layer of the methods that look at one (default: the last feature map)")
    parser.add_argument("--epoch", type=int, metavar="N", help="snapshot to explain (default: the last)")
    parser.add_argument("--limit", type=int, default=12, metavar="N", help="inputs taken of wrong, unsure, class:3 or all (default: 12)")
    parser.add_argument("--allow", nargs="+", default=[], metavar="PACKAGE", help="packages whose functions may build the network")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures and maps")
    parser.add_argument("--overwrite", action="store_true", help="write also where files are; earlier ones of this command are replaced")
    parser.add_argument("--overlay", type=float, default=85, metavar="PERCENT", help="strength of the overlay (default: 85)")
    parser.add_argument("--colours", default="inferno", metavar="NAME", help="inferno, viridis, red or grey (default: inferno)")
    parser.add_argument("--sign", default="auto", metavar="HOW", help="auto (signed where the method is), absolute or positive (default: auto)")
    parser.add_argument("--clip", type=float, default=99.5, metavar="PERCENTILE", help="where the strongest colour stands (default: 99.5)")
    parser.add_argument("--scale", type=float, default=3, metavar="N", help="resolution of gallery.png and of the tiles (default: 3)")


@dataclass
class _Made:
    """Maps as they come: key of a tile → (answer, row of the tile in it)."""

    maps: dict[str, tuple[Attribution, int]] = field(default_factory=dict)

    def keep(self, tile: Tile, answer: Attribution, row: int) -> None:
        self.maps[tile.key] = (answer, row)


def explain(given: argparse.Namespace, report: Callable[[float, float, str], object]) -> list[str]:
    """Run the command; returns the lines to print. Raises DNNVizError where something cannot be; then nothing was written."""
    from dnnviz.explain.gallery import Wish, gallery
    from dnnviz.explain.picture import Look
    from dnnviz.explain.plan import obstacle, plan
    from dnnviz.results import Results
    from dnnviz.settings import Settings
    from dnnviz.store import open_run

    look = Look(given.overlay, given.colours, given.sign, given.clip)
    if not 0.5 <= given.scale <= 16:
        raise DNNVizError(f"--scale is {given.scale:g}; it must be a number from 0.5 to 16.")
    check_folder(given.out, given.overwrite, "--out")
    run = open_run(given.run)
    epoch = run.epochs[-1] if given.epoch is None else given.epoch
    run.snapshot(epoch)
    settings = Settings.from_environment(allow=tuple(given.allow) or None)
    problem = obstacle(run, epoch, settings.allow)
    if problem:
        raise DNNVizError(problem)
    results = Results(settings.private_cache() / "results")
    names: dict[str, str] = {}
    sources = _sources(run, epoch, given.inputs, given.limit, results, names)
    methods = _methods(run, given.methods)
    targets = list(dict.fromkeys(given.target or ["predicted"]))
    tiles = plan(run, epoch, sources, methods, targets, given.layer)

    from dnnviz.explain.explainer import Explainer
    from dnnviz.explain.task import Work

    made = _Made()
    unlike = list({tile.key: tile for tile in tiles}.values())
    Work(Explainer(run, epoch, results, settings.allow), len(unlike), 0, report, made.keep).do(unlike)
    wish = Wish(run.name, epoch, "chosen", "data", tuple(sources), len(sources), methods, tuple(targets), given.layer)
    found = gallery(run, wish, results, settings.allow)
    failed = list(dict.fromkeys(tile["about"]["error"] for row in found["tiles"] for tile in row if "error" in (tile["about"] or {})))
    if not made.maps:
        raise DNNVizError(f"No map could be made. {' '.join(failed)}")
    for row in found["rows"]:
        row["name"] = names.get(row["source"], row["name"])
    with whole_folder(given.out, _LIST) as folder:
        _write(folder, given.scale, run, found, tiles, made, look, results)
    count = len(made.maps)
    lines = [f"{given.out}: {len(found['rows'])} × {len(found['columns'])} tiles ({count} maps), gallery.png, gallery.svg, maps.npz, {_LIST}"]
    return [*lines, *(f"left out: {sentence}" for sentence in failed)]


# -- what is asked for -----------------------------------------------------------------------------------------------


def _sources(run: Run, epoch: int, given: Sequence[str], limit: int, results: Results, names: dict[str, str]) -> list[str]:
    """Sources of the rows; names: filled with the file names of images that are not of the run."""
    from dnnviz.explain.gallery import choose_inputs
    from dnnviz.explain.plan import input_index
    from dnnviz.explain.uploads import store_upload

    if limit < 1:
        raise DNNVizError(f"--limit is {limit}; at least 1 input is needed.")
    found: list[str] = []
    for word in (part for text in given for part in ([text] if Path(text).is_file() else text.split(",")) if part):
        if word.isdecimal():
            found.append(str(input_index(run, word)))
        elif word in _GROUPS or re.fullmatch(r"class:\d{1,9}", word):
            if word.startswith("class:") and int(word[6:]) >= len(run.classes):
                raise DNNVizError(f"--inputs {word}: this run has classes 0 to {len(run.classes) - 1}.")
            by, show = ("class", "data" if word == "all" else word) if word not in ("wrong", "unsure") else (word, "data")
            chosen = choose_inputs(run, epoch, by, show, (), limit)
            if not chosen:
                none = "the network is right on every input kept" if word == "wrong" else f"no input of {word} is kept"
                raise DNNVizError(f"--inputs {word}: at epoch {epoch} {none}; choose other inputs.")
            found += chosen
        else:
            try:
                content = Path(word).read_bytes()
            except OSError:
                raise DNNVizError(
                    f"--inputs {word[:80]!r} is no file that can be read, no number of an input, and none of wrong, unsure, class:N and all."
                ) from None
            source = store_upload(results, run, Path(word).name, content)
            names[source] = Path(word).name
            found.append(source)
    return list(dict.fromkeys(found))


def _methods(run: Run, given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Name → parameters as far as they were given, from `saliency,smoothgrad:samples=20,noise=0.1`."""
    from dnnviz.explain.gallery import quick_methods
    from dnnviz.explain.registry import METHODS, find

    found: dict[str, dict[str, Any]] = {}
    last = ""
    for word in (part.strip() for text in given for part in text.split(",") if part.strip()):
        name, colon, first = word.partition(":")
        if "=" in name and last:
            first, colon, name = word, ":", last  # a further parameter of the method before
        elif name in ("quick", "all"):
            found.update({each: {} for each in (quick_methods(run) if name == "quick" else METHODS) if each not in found})
            continue
        else:
            find(name)
            found.setdefault(name, {})
            last = name
        if colon:
            parameter, equals, text = first.partition("=")
            if not equals:
                raise DNNVizError(f"--methods {word[:80]!r}: write parameters as {name}:parameter=value,parameter=value.")
            found[name][parameter] = {"true": True, "false": False}.get(text.lower(), text)
    return found


# -- what is written -------------------------------------------------------------------------------------------------


def _write(
    folder: Path, scale: float, run: Run, gallery: Mapping[str, Any], tiles: Sequence[Tile], made: _Made, look: Look, results: Results
) -> None:
    from dnnviz.drawing import as_image, as_svg
    from dnnviz.explain import sheet
    from dnnviz.explain.picture import enlarged, paint, png

    columns, rows = gallery["columns"], gallery["rows"]
    table = [tiles[i : i + len(columns)] for i in range(0, len(tiles), len(columns))]
    inputs = [_pixels(run, row["source"], results) for row in rows]
    painted: list[list[np.ndarray | None]] = []
    entries = []
    for r, (row, line) in enumerate(zip(rows, table, strict=True)):
        painted.append([])
        for column, tile, known in zip(columns, line, gallery["tiles"][r], strict=True):
            held, name = made.maps.get(tile.key), None
            if held is not None:
                answer, at = held
                pixels = paint(inputs[r], answer.heatmap[at], column["signed"], look)
                name = "-".join([f"{r + 1:02d}", _slug(row["name"]), _slug(tile.target), tile.method]) + ".png"
                factor = max(1, round(256 * scale / pixels.shape[1]))
                (folder / name).write_bytes(png(enlarged(pixels, pixels.shape[1] * factor, pixels.shape[0] * factor)))
            painted[-1].append(pixels if held is not None else None)
            entries.append(_entry(name, row, tile, known["about"] or {}))
    names = [_words(run, target) for target in gallery["request"]["targets"]]
    page = sheet.compose(gallery, inputs, painted, sheet.caption(run.name, gallery["epoch"], names, look))
    (folder / "gallery.svg").write_text(as_svg(page), encoding="utf-8")
    (folder / "gallery.png").write_bytes(png(as_image(page, scale)))
    about = {"run": run.name, "epoch": gallery["epoch"], "look": vars(look), "tiles": entries}
    _write_maps(folder / "maps.npz", run, rows, table, made, about)
    with (folder / "attributions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for entry in entries:
            note = entry["note"]
            flat = {"trust": note["state"], "trust_text": note["text"], "trust_value": note["value"], "trust_why": note["why"]} if note else {}
            kept = {name: value for name, value in entry.items() if name in _COLUMNS}
            writer.writerow({**kept, "parameters": json.dumps(entry["parameters"], sort_keys=True), **flat})
    files = sorted([*(path.name for path in folder.iterdir()), _LIST])
    (folder / _LIST).write_text(json.dumps({**about, "files": files}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _entry(name: str | None, row: Mapping[str, Any], tile: Tile, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a tile, as JSON."""
    known = {key: about.get(key) for key in ("score", "probability", "note", "layer", "seconds", "error")}
    return {
        "file": name,
        "input": row["name"],
        "source": tile.source,
        "true_class": row["truth"],
        "target": tile.target,
        "target_name": about.get("target", row["explained"][0]),
        "method": tile.method,
        "parameters": dict(tile.parameters),
        **known,
    }


def _write_maps(path: Path, run: Run, rows: Sequence[Mapping[str, Any]], table: Sequence[Sequence[Tile]], made: _Made, about: Any) -> None:
    """Raw maps, never scaled, float32: per method `NAME.values` [m, …], `NAME.heatmap` [m, H, W] and `NAME.rows` [m], numbers of rows.

    Where targets lie in several layers, values can differ in shape and lie one by one under `NAME.values.ROW`. Beside them
    the sources, labels (−1: not known) and targets of the rows, the names of the classes, and `about`: JSON with the notes.
    """
    arrays: dict[str, np.ndarray] = {
        "sources": np.array([row["source"] for row in rows]),
        "labels": np.array([int(run.labels[int(row["source"])]) if row["source"].isdecimal() else -1 for row in rows], dtype=np.int64),
        "targets": np.array([line[0].target for line in table]),
        "classes": np.array(run.classes),
        "about": np.array(json.dumps(about, ensure_ascii=False)),
    }
    for c, first in enumerate(table[0]):
        held = [(r, *made.maps[line[c].key]) for r, line in enumerate(table) if line[c].key in made.maps]
        if held:
            arrays[f"{first.method}.rows"] = np.array([r for r, _, _ in held], dtype=np.int64)
            values = {r: answer.values[at] for r, answer, at in held}
            if len({array.shape for array in values.values()}) == 1:
                arrays[f"{first.method}.values"] = np.stack(list(values.values()))
            else:
                arrays.update({f"{first.method}.values.{r}": array for r, array in values.items()})
            arrays[f"{first.method}.heatmap"] = np.stack([answer.heatmap[at] for _, answer, at in held])
    np.savez(path, **arrays)


def _pixels(run: Run, source: str, results: Results) -> np.ndarray:
    """uint8 [H, W, 3]: an input as a person sees it."""
    from dnnviz.explain.uploads import is_upload, load_upload

    if not is_upload(source):
        return run.images([int(source)])[0]
    image = load_upload(results, source)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:60] or "x"


def _words(run: Run, target: str) -> str:
    """A target as the caption names it."""
    from dnnviz.explain.plan import target_name

    return {"predicted": "the predicted class", "true": "the true class"}.get(target) or f"“{target_name(run, target)}”"
