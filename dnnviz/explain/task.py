"""The background job of the attribution page: make sure that every tile of a gallery is among the results."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from dnnviz.catalogue import Catalogue
from dnnviz.errors import DNNVizError
from dnnviz.explain import METHODS, Attribution
from dnnviz.explain.explainer import Explainer
from dnnviz.explain.plan import TOP, Tile, about_tile, is_missing, plan_of, store_failure, store_partial, store_tile
from dnnviz.results import Results
from dnnviz.settings import Settings

Report = Callable[[float, float, str], object]

# Evaluations of the network that one call may take before its tiles are shown; then it is split input by input.
_PASSES_AT_ONCE = 64
_CHEAP = 2  # evaluations an input up to which methods are asked together, so that they share their forward pass
_SHOW_EVERY = 0.5  # seconds between two states of a map that grows

log = logging.getLogger("dnnviz")


def run(settings: Settings, params: Mapping[str, Any], report: Report) -> list[str]:
    """Compute the tiles that are missing, cheap methods first; returns the keys of all tiles.

    params: run (id), epoch, inputs (sources of `Tile`), methods (name → parameters), targets (texts), layer. A method that
    fails leaves its sentence in its tiles and the others go on. Raises DNNVizError where the network cannot be built again.
    """
    opened = Catalogue(settings.runs).open(str(params.get("run")))
    results = Results(settings.private_cache() / "results")
    tiles = plan_of(opened, params)
    known = [about_tile(results, tile.key) for tile in tiles]
    missing = [tile for tile, about in zip(tiles, known, strict=True) if is_missing(about) or "error" in about]
    if not missing:
        return [tile.key for tile in tiles]
    Work(Explainer(opened, int(params["epoch"]), results, settings.allow), len(tiles), len(tiles) - len(missing), report).do(missing)
    return [tile.key for tile in tiles]


class Work:
    """Computes tiles part by part, stores them as they come and tells how far it is.

    total, done: number of tiles wanted and there already, for `report`. keep: (tile, answer, row of the tile in it), told of
    every map made. A method that fails leaves its sentence in its tiles.
    """

    def __init__(
        self, explainer: Explainer, total: int, done: int, report: Report, keep: Callable[[Tile, Attribution, int], object] | None = None
    ) -> None:
        self.explainer = explainer
        self.keep = keep
        self.total = total
        self.done = done
        self.report = report
        report(done, total, "Building the network")

    def do(self, tiles: list[Tile]) -> None:
        for part in _parts(tiles, self.explainer.shape):
            self._compute(part)

    def _compute(self, part: list[Tile]) -> None:
        methods = {tile.method: tile.parameters for tile in part}
        # Rows in order; a part holds every one of its methods for every one of its rows.
        rows = list(dict.fromkeys((tile.source, tile.target) for tile in part))
        layers = {tile.layer for tile in part if METHODS[tile.method].uses_layer(tile.parameters)}
        title = METHODS[part[0].method].title
        self.report(self.done, self.total, title)
        shown = time.monotonic()

        def watch(method: str, done: int, total: int, heatmap: np.ndarray | None) -> None:
            nonlocal shown
            self.report(self.done + len(part) * done / max(total, 1), self.total, title)
            if heatmap is not None and time.monotonic() - shown > _SHOW_EVERY and len(heatmap) == len(rows):
                shown = time.monotonic()
                for tile in part:
                    store_partial(self.explainer.results, tile, heatmap[rows.index((tile.source, tile.target))], done / max(total, 1))

        try:
            found = self.explainer.attribute([s for s, _ in rows], methods, [t for _, t in rows], next(iter(layers), None), watch)
        except Exception as error:
            if len(methods) > 1:
                # One method that is not defined here, or breaks on somebody's network, must not take the others with it.
                for name in methods:
                    self._compute([tile for tile in part if tile.method == name])
                return
            if not isinstance(error, DNNVizError):
                log.exception("attribution %s of %s failed", part[0].method, self.explainer.run.name)
            sentence = f"{title} failed on this network ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]})."
            for tile in part:
                store_failure(self.explainer.results, tile, str(error) if isinstance(error, DNNVizError) else sentence)
        else:
            for tile in part:
                row = rows.index((tile.source, tile.target))
                answer = found[tile.method]
                store_tile(self.explainer.results, tile, answer.heatmap[row], _about(answer, row, tile.target))
                if self.keep is not None:
                    self.keep(tile, answer, row)
        self.done += len(part)
        self.report(self.done, self.total, title)


def _parts(tiles: list[Tile], shape: tuple[int, int, int]) -> list[list[Tile]]:
    """Tiles that one call computes, cheap methods first, few enough that tiles appear steadily.

    The cheap methods of a row go together and share its forward pass; a costly method goes by itself, over several rows.
    """

    def passes(tile: Tile) -> int:
        return METHODS[tile.method].passes(tile.parameters, shape)

    def kind(tile: Tile) -> str:
        """Targets that may stand in one batch: all those of classes, or one of a layer."""
        return "" if tile.target.partition(":")[0] in ("class", "predicted", "true") or "predicted" in tile.target else tile.target

    def rows_at_once(cost: int) -> int:
        return max(1, _PASSES_AT_ONCE * 32 * 32 // (cost * shape[1] * shape[2]))

    rows: dict[tuple[str, str], list[Tile]] = {}
    for tile in tiles:
        if passes(tile) <= _CHEAP:
            rows.setdefault((tile.source, tile.target), []).append(tile)
    alike: dict[str, list[list[Tile]]] = {}
    for row in rows.values():
        same = json.dumps([kind(row[0]), [(t.method, t.parameters, t.layer) for t in row]], sort_keys=True)
        alike.setdefault(same, []).append(row)
    parts = []
    for group in alike.values():
        size = rows_at_once(sum(passes(tile) for tile in group[0]))
        parts += [[tile for row in group[i : i + size] for tile in row] for i in range(0, len(group), size)]

    def together(tile: Tile) -> tuple[Any, ...]:
        return METHODS[tile.method].work(tile.parameters, shape), tile.method, kind(tile)

    for _, costly in groupby(sorted((tile for tile in tiles if passes(tile) > _CHEAP), key=together), key=together):
        same_method = list(costly)
        size = rows_at_once(passes(same_method[0]))
        parts += [same_method[i : i + size] for i in range(0, len(same_method), size)]
    return parts


def _about(found: Attribution, row: int, target: str) -> dict[str, Any]:
    """What the page shows of a tile besides its map."""
    probabilities = found.probabilities[row]
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    note = found.notes[row]
    index, against = int(found.targets[row]), int(found.against[row])
    explained = target if index < 0 else f"class:{index}" if against < 0 else f"class:{index}-class:{against}"
    return {
        "method": found.method,
        "target": explained,
        "score": float(found.scores[row]),
        "probability": float(probabilities[index]) if index >= 0 else None,
        "top": [[int(i), float(probabilities[i])] for i in best],
        "layer": found.layer,
        "note": {"state": note.state, "text": note.text, "why": note.why, "value": note.value},
        "seconds": found.seconds / len(found.targets),
    }
