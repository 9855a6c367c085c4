"""What the attribution page fetches: measures of a tile, a ranking of methods, and the raw maps of a gallery as a file."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import numpy as np
from flask import Flask, Response, jsonify, request, send_file

from dnnviz.endpoints import context, publish
from dnnviz.errors import DNNVizError
from dnnviz.explain.plan import about_tile, is_missing, pace, plan_of, target_name
from dnnviz.explain.trust import keys as trust
from dnnviz.store import Run

MOST_MAPS = 600  # in one file: 120 MB for inputs of 224 × 224


def register(server: Flask, prefix: str = "/") -> None:
    """Put the endpoints under `<prefix>data/`."""
    views = {"trust.json": measures, "ranking.json": ranking, "maps.npz": maps}
    publish(server, "attribution-data", prefix + "data", {f"/<run_id>/{name}": view for name, view in views.items()}, failed=400)


def measures(run_id: str) -> Response:
    """What is known of how far to believe a tile, and what measuring it costs; query: request, as for the job `trust`."""
    run = context().catalogue.open(run_id)
    asked = _request()
    source, method, target, parameters = (asked.get(name) for name in ("source", "method", "target", "parameters"))
    if not isinstance(asked.get("epoch"), int) or not isinstance(parameters, dict):
        raise DNNVizError("The request for measures is incomplete; reload the page.")
    found = trust.tile_key(run, asked["epoch"], str(source), str(method), parameters, str(target), asked.get("layer") or None)
    return _told(run, asked["epoch"], trust.work(run, str(method), parameters), key=found, measures=trust.get_tile(context().results, found))


def ranking(run_id: str) -> Response:
    """The ranking of the methods of a gallery, and what it costs; query: request, as for the job `trust`."""
    run = context().catalogue.open(run_id)
    asked = _request()
    plan_of(run, asked)  # checks all of it
    inputs, targets = [str(source) for source in asked["inputs"]], [str(target) for target in asked["targets"]]
    found = trust.ranking_key(run, asked["epoch"], inputs, asked["methods"], targets, asked.get("layer") or None)
    cost = trust.ranking_work(run, len(inputs), asked["methods"], len(targets))
    return _told(run, asked["epoch"], cost, key=found, ranking=trust.get_ranking(context().results, found))


def maps(run_id: str) -> Response:
    """The maps of a gallery that are computed, as .npz; query: request, as for the job `attribution`.

    heatmaps: float32 [n, H, W], unscaled, in the order of the gallery. about: JSON text, a list of n objects that say what
    each map is (input, method, parameters, target, layer, score, trust mark). No pickle: np.load(file, allow_pickle=False).
    """
    run = context().catalogue.open(run_id)
    asked = _request()
    tiles = plan_of(run, asked)
    if len(tiles) > MOST_MAPS:
        raise DNNVizError(f"These are {len(tiles)} maps; a file holds up to {MOST_MAPS}. Choose fewer inputs or methods.")
    heatmaps, described = [], []
    for tile in tiles:
        about = about_tile(context().results, tile.key)
        arrays = None if is_missing(about) else context().results.get(tile.key)
        if about is None or arrays is None or "heatmap" not in arrays:
            continue
        heatmaps.append(arrays["heatmap"])
        what = {"run": run_id, "epoch": asked["epoch"], "input": tile.source, "method": tile.method, "parameters": dict(tile.parameters)}
        described.append(
            {**what, "target": about["target"], "explained": target_name(run, about["target"]), "layer": about["layer"], **_values(about)}
        )
    if not heatmaps:
        raise DNNVizError("No map of this gallery is computed yet; run it first.")
    file = tempfile.TemporaryFile()  # noqa: SIM115, the answer is read from it
    np.savez(file, heatmaps=np.stack(heatmaps), about=np.array(json.dumps(described)))
    file.seek(0)
    return send_file(file, mimetype="application/zip", as_attachment=True, download_name=f"dnnviz-{run_id}-epoch{asked['epoch']}-maps.npz", max_age=0)


def _values(about: dict[str, Any]) -> dict[str, Any]:
    return {"score": about["score"], "probability": about["probability"], "mark": about["note"]["state"], "note": about["note"]["text"]}


def _request() -> dict[str, Any]:
    try:
        found = json.loads(request.args.get("request", ""))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DNNVizError("The address says nothing that could be looked up; reload the page.")
    return found


def _told(run: Run, epoch: int, work: float, **found: Any) -> Response:
    seconds = pace(context().results, run, epoch)
    response = jsonify(**found, work=work, seconds=None if seconds is None else work * seconds)
    response.headers["Cache-Control"] = "no-store"
    return response
