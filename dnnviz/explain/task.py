"""The background job of the attribution page: make sure that every tile of a gallery is among the results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from dnnviz.catalogue import Catalogue
from dnnviz.errors import DNNVizError
from dnnviz.explain import METHODS, Attribution, attribute
from dnnviz.explain.plan import TOP, Tile, about_tile, input_index, plan, store_failure, store_tile
from dnnviz.explain.uploads import is_upload, load_upload
from dnnviz.models import load_snapshot
from dnnviz.results import Results
from dnnviz.settings import Settings
from dnnviz.store import Run

Report = Callable[[float, float, str], object]

# Evaluations of the network that one call may take before its tiles are shown; then it is split input by input.
_PASSES_AT_ONCE = 64

log = logging.getLogger("dnnviz")


def run(settings: Settings, params: Mapping[str, Any], report: Report) -> list[str]:
    """Compute the tiles that are missing, cheap methods first; returns the keys of all tiles.

    params: run (id), epoch, inputs (sources of `Tile`), methods (name → parameters), target, layer. A method that fails
    leaves its sentence in its tiles and the others go on. Raises DNNVizError where the network cannot be built again.
    """
    opened = Catalogue(settings.runs).open(str(params.get("run")))
    results = Results(settings.private_cache() / "results")
    tiles = _planned(opened, params)
    missing = [tile for tile in tiles if (about_tile(results, tile.key) or {"error": ""}).get("error") is not None]
    if not missing:
        return [tile.key for tile in tiles]
    done = len(tiles) - len(missing)
    report(done, len(tiles), "Building the network")
    model = load_snapshot(opened, int(params["epoch"]), allow=settings.allow)
    shape = tuple(opened.manifest["preprocessing"]["size"])
    for part in _parts(missing, shape):
        title = METHODS[part[0].method].title
        report(done, len(tiles), title)
        try:
            inputs = np.concatenate([_network_input(results, opened, tile.source) for tile in part])
            found = attribute(
                model, inputs, part[0].method, None if part[0].target is None else [t.target for t in part], part[0].layer, **part[0].parameters
            )
        except DNNVizError as error:
            failure = str(error)
        except Exception as error:
            # One method that breaks on somebody's network must not take the others with it.
            log.exception("attribution %s of %s failed", part[0].method, opened.name)
            failure = f"{title} failed on this network ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]})."
        else:
            failure = ""
        for row, tile in enumerate(part):
            if failure:
                store_failure(results, tile, failure)
            else:
                store_tile(results, tile, found.heatmap[row], _about(found, row, opened))
            done += 1
            report(done, len(tiles), title)
    return [tile.key for tile in tiles]


def _planned(opened: Run, params: Mapping[str, Any]) -> list[Tile]:
    """The tiles asked for; what comes from the browser is checked here."""
    inputs, methods, epoch = params.get("inputs"), params.get("methods"), params.get("epoch")
    if not isinstance(inputs, list) or not isinstance(methods, dict) or not isinstance(epoch, int):
        raise DNNVizError("The request for attributions is incomplete; reload the page.")
    given = {str(name): values if isinstance(values, dict) else {} for name, values in methods.items()}
    return plan(opened, epoch, [str(source) for source in inputs], given, str(params.get("target") or "predicted"), params.get("layer") or None)


def _parts(tiles: list[Tile], shape: tuple[int, ...]) -> list[list[Tile]]:
    """Tiles that one call computes: those of one method, cheap methods first, few enough that tiles appear steadily."""

    def passes(tile: Tile) -> int:
        return METHODS[tile.method].passes(tile.parameters, shape)

    def together(tile: Tile) -> tuple[Any, ...]:
        return passes(tile), tile.method, tile.target is None

    parts = []
    for _, group in groupby(sorted(tiles, key=together), key=together):
        same = list(group)
        size = max(1, _PASSES_AT_ONCE * 32 * 32 // (passes(same[0]) * shape[1] * shape[2]))
        parts += [same[i : i + size] for i in range(0, len(same), size)]
    return parts


def _network_input(results: Results, opened: Run, source: str) -> np.ndarray:
    if is_upload(source):
        return opened.normalise(load_upload(results, source)[None])
    return opened.network_inputs(input_index(opened, source))


def _about(found: Attribution, row: int, opened: Run) -> dict[str, Any]:
    """What the page shows of a tile besides its map."""
    probabilities = found.probabilities[row]
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    note = found.notes[row]
    target = int(found.targets[row])
    return {
        "method": found.method,
        "target": target,
        "score": float(found.logits[row, target]),
        "probability": float(probabilities[target]),
        "top": [[int(index), float(probabilities[index])] for index in best],
        "layer": found.layer,
        "note": {"state": note.state, "text": note.text, "why": note.why},
        "seconds": found.seconds / len(found.targets),
    }
