"""What the browser fetches without a callback: arrays as raw little-endian bytes, thumbnails, images."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from flask import Blueprint, Flask, Response, current_app, jsonify, request
from PIL import Image

from dnnviz.analysis import dead_share, stages
from dnnviz.analysis.evolution import evolution
from dnnviz.catalogue import Catalogue
from dnnviz.errors import DNNVizError, RunError
from dnnviz.explain.uploads import MOST_BYTES, store_upload
from dnnviz.results import Results
from dnnviz.settings import Settings
from dnnviz.store import Run
from dnnviz.urlstate import valid_show

STATS = ("mean", "max", "active", "selectivity")
SPRITE_COLUMNS = 64
SPRITE_LIMIT = 4096  # inputs in a sprite


@dataclass(frozen=True)
class Context:
    """What every request of the web process may use."""

    settings: Settings
    catalogue: Catalogue
    results: Results


def context() -> Context:
    """The context of the app that serves the current request."""
    return current_app.config["DNNVIZ"]


def register(server: Flask, found: Context, prefix: str = "/") -> None:
    """Put the endpoints under `<prefix>data/`."""
    server.config["DNNVIZ"] = found
    server.register_blueprint(_blueprint(), url_prefix=prefix + "data")


def publish(server: Flask, name: str, address: str, views: Mapping[str, Callable[..., Response]], failed: int) -> None:
    """Put views {path: function} under an address; a DNNVizError in one of them is answered with its sentence and the status `failed`."""
    blueprint = Blueprint(name, __name__)
    for path, view in views.items():
        blueprint.add_url_rule(path, view_func=view)
    blueprint.register_error_handler(DNNVizError, lambda error: (jsonify(error=str(error)), failed))
    server.register_blueprint(blueprint, url_prefix=address)


def _blueprint() -> Blueprint:
    blueprint = Blueprint("data", __name__)
    blueprint.add_url_rule("/<run_id>/layers.json", view_func=layers)
    blueprint.add_url_rule("/<run_id>/inputs.json", view_func=inputs)
    blueprint.add_url_rule("/<run_id>/values", view_func=values)
    blueprint.add_url_rule("/<run_id>/epochs", view_func=epochs)
    blueprint.add_url_rule("/<run_id>/range", view_func=value_range)
    blueprint.add_url_rule("/<run_id>/events", view_func=events)
    blueprint.add_url_rule("/<run_id>/image/<int:index>.png", view_func=image)
    blueprint.add_url_rule("/<run_id>/thumb/<int:index>.png", view_func=thumb)
    blueprint.add_url_rule("/<run_id>/sprite.png", view_func=sprite)
    blueprint.add_url_rule("/<run_id>/upload", view_func=upload, methods=["POST"])
    blueprint.add_url_rule("/result/<key>/<name>", view_func=result)
    blueprint.add_url_rule("/result/<key>/<name>.png", view_func=result_picture)
    blueprint.register_error_handler(RunError, lambda error: (jsonify(error=str(error)), 404))
    return blueprint


def layers(run_id: str) -> Response:
    """Layers of a run with stage, offset and share of dead units at every epoch."""
    run = context().catalogue.open(run_id)
    described = [
        {"name": entry.name, "kind": entry.kind, "units": entry.units, "shape": entry.shape, "offset": entry.offset, "stage": stage}
        for entry, stage in zip(run.layers, stages([entry.name for entry in run.layers]), strict=True)
    ]
    dead = [[round(float(v), 5) for v in dead_share(run, epoch)] for epoch in run.epochs]
    return _cached(jsonify(run=run_id, units=run.units, epochs=run.epochs, classes=run.classes, kept=run.kept, layers=described, dead=dead), run)


def inputs(run_id: str) -> Response:
    """Class and predicted class of every input kept, at the epoch of the query."""
    run = context().catalogue.open(run_id)
    epoch = request.args.get("epoch", run.epochs[-1], type=int)
    predictions = run.logits(epoch).argmax(axis=1)
    return _cached(jsonify(classes=run.classes, labels=run.labels.tolist(), predictions=predictions.tolist()), run)


def values(run_id: str) -> Response:
    """float32 [U]: one value per unit at one epoch; query: epoch, show, stat, split."""
    run = context().catalogue.open(run_id)
    epoch = request.args.get("epoch", run.epochs[-1] if run.epochs else 0, type=int)
    run.snapshot(epoch)
    show, stat, split = _what(run)
    return _bytes(unit_values(run, epoch, show, stat, split), run)


def epochs(run_id: str) -> Response:
    """float32 [E, U]: the same at every epoch of the run, in order; query: show, stat, split."""
    run = context().catalogue.open(run_id)
    show, stat, split = _what(run)
    return _bytes(np.stack([unit_values(run, epoch, show, stat, split) for epoch in run.epochs]), run)


def value_range(run_id: str) -> Response:
    """float32 [L, 2]: smallest and largest value of each layer over all epochs; query: show, stat, split."""
    run = context().catalogue.open(run_id)
    show, stat, split = _what(run)
    return _bytes(_layer_range(run, _stamp(run), show, stat, split), run)


def events(run_id: str) -> Response:
    """int16 [2, E, U]: what happened to every unit since the snapshot before, and the class it prefers (dnnviz.analysis.evolution)."""
    run = context().catalogue.open(run_id)
    found = evolution(run, context().results)
    return _bytes(np.stack([found.events.astype(np.int16), found.preferred]), run, "<i2")


def image(run_id: str, index: int) -> Response:
    """A stored image at its own size."""
    run = context().catalogue.open(run_id)
    return _picture(run.images([index])[0], run)


def thumb(run_id: str, index: int) -> Response:
    """A stored image enlarged or reduced to a square of `size` pixels (query, 8 to 512)."""
    run = context().catalogue.open(run_id)
    return _picture(_resized(run.images([index])[0], min(max(request.args.get("size", 64, type=int), 8), 512)), run)


def sprite(run_id: str) -> Response:
    """All inputs kept as squares of `size` pixels (query, 8 to 64), SPRITE_COLUMNS in a row, in order, up to SPRITE_LIMIT."""
    run = context().catalogue.open(run_id)
    size = min(max(request.args.get("size", 32, type=int), 8), 64)
    return _cached(Response(_sprite(run, _stamp(run), size), mimetype="image/png"), run)


def upload(run_id: str) -> Response:
    """Keep an image of the user's own, fitted to the run's inputs: {"key": …}, or {"error": a sentence}."""
    run = context().catalogue.open(run_id)
    # Read no more than needed to know that it is too much.
    content = request.stream.read(MOST_BYTES + 1)
    try:
        return jsonify(key=store_upload(context().results, run, request.args.get("name", "The file"), content))
    except DNNVizError as error:
        return jsonify(error=str(error))


def result(key: str, name: str) -> Response:
    """An array of a derived result as float32."""
    array = _result_array(key, name)
    response = Response(np.ascontiguousarray(array, dtype="<f4").tobytes(), mimetype="application/octet-stream")
    response.headers["X-Shape"] = ",".join(map(str, array.shape))
    return _kept(response)


def result_picture(key: str, name: str) -> Response:
    """An image uint8 [H, W, C] of a derived result (an upload) as PNG."""
    array = _result_array(key, name)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3):
        raise RunError(f"{name} is no image.")
    return _kept(Response(_png(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)), mimetype="image/png"))


def _result_array(key: str, name: str) -> np.ndarray:
    try:
        arrays = context().results.get(key) or {}
    except ValueError:
        arrays = {}
    if name not in arrays or arrays[name].dtype.kind not in "fiu":
        raise RunError("This result is not, or no longer, in the cache; reload the page to compute it again.")
    return arrays[name]


def _kept(response: Response) -> Response:
    # A key names its content: what it stands for never changes.
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response


def unit_values(run: Run, epoch: int, show: str, stat: str = "mean", split: str | None = None) -> np.ndarray:
    """float32 [U]: one value per unit.

    stat: `mean` (mean activation), `max` (largest activation: of the input, of the class's inputs kept, of all inputs),
    `active` (share of inputs on which the unit fires; for a class, of its inputs kept), `selectivity` (how far the
    mean of what is shown lies above the data set's, in the unit's standard deviations).
    """
    kind, _, text = show.partition(":")
    index = int(text) if text else -1
    if stat == "selectivity":
        shown = unit_values(run, epoch, show, "mean", split)
        mean, std = run.data_mean(epoch, split=split), run.data_std(epoch, split=split)
        return np.divide(shown - mean, std, out=np.zeros_like(shown), where=std > 0)
    if stat == "mean":
        if kind == "data":
            return run.data_mean(epoch, split=split)
        return run.one_class_mean(epoch, index, split) if kind == "class" else run.input_activations(epoch, index)
    if kind == "input":
        peak = run.input_activations(epoch, index, "max")
        return peak if stat == "max" else (peak > 0).astype(np.float32)
    if kind == "data":
        return run.active(epoch, split=split) if stat == "active" else run.top_values(epoch)
    return _class_peaks(run, _stamp(run), epoch, index, stat)


@lru_cache(maxsize=64)
def _class_peaks(run: Run, stamp: str, epoch: int, label: int, stat: str) -> np.ndarray:
    """Largest activation, or share of inputs that fire, of a class's inputs kept: float32 [U]."""
    members = np.flatnonzero(run.labels == label)
    result = np.full(run.units, -np.inf if stat == "max" else 0.0, dtype=np.float32)
    for index in members:
        peak = run.input_activations(epoch, int(index), "max")
        if stat == "max":
            np.maximum(result, peak, out=result)
        else:
            result += peak > 0
    if not len(members):
        return np.full(run.units, np.nan, dtype=np.float32)
    return result if stat == "max" else result / len(members)


@lru_cache(maxsize=32)
def _layer_range(run: Run, stamp: str, show: str, stat: str, split: str | None) -> np.ndarray:
    low, high = np.full(len(run.layers), np.inf), np.full(len(run.layers), -np.inf)
    starts = [entry.offset for entry in run.layers]
    for epoch in run.epochs:
        found = unit_values(run, epoch, show, stat, split)
        low = np.fmin(low, np.fmin.reduceat(found, starts))
        high = np.fmax(high, np.fmax.reduceat(found, starts))
    return np.stack([low, high], axis=1).astype(np.float32)


@lru_cache(maxsize=16)
def _sprite(run: Run, stamp: str, size: int) -> bytes:
    count = min(run.kept, SPRITE_LIMIT)
    rows = -(-count // SPRITE_COLUMNS)
    sheet = Image.new("RGB", (SPRITE_COLUMNS * size, max(rows, 1) * size))
    for index in range(count):
        sheet.paste(_resized(run.images([index])[0], size), ((index % SPRITE_COLUMNS) * size, index // SPRITE_COLUMNS * size))
    return _png(sheet)


def _what(run: Run) -> tuple[str, str, str | None]:
    show = valid_show(request.args.get("show", "data"), run)
    stat = request.args.get("stat", "mean")
    split = None if request.args.get("split", "all") in ("", "all") else request.args["split"]
    if show is None or stat not in STATS or (split is not None and split not in run.splits):
        raise RunError(f"Run {run.name} has nothing under this address.")
    return show, stat, split


def _stamp(run: Run) -> str:
    """What changes when the run does: part of cache keys and of the ETag."""
    return str(run.manifest["created"]) + "".join(run.digest(epoch)[:8] for epoch in run.epochs)


def _resized(pixels: np.ndarray, size: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    # Small images keep their pixels when enlarged: a person wants to see what the network saw.
    method = Image.Resampling.NEAREST if size >= picture.width else Image.Resampling.LANCZOS
    if picture.width != picture.height:
        picture.thumbnail((size, size), method)
        square = Image.new("RGB", (size, size), (128, 128, 128))
        square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
        return square
    return picture.resize((size, size), method)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _picture(pixels: np.ndarray | Image.Image, run: Run) -> Response:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    return _cached(Response(_png(picture), mimetype="image/png"), run)


def _bytes(array: np.ndarray, run: Run, dtype: str = "<f4") -> Response:
    response = Response(np.ascontiguousarray(array, dtype=dtype).tobytes(), mimetype="application/octet-stream")
    response.headers["X-Shape"] = ",".join(map(str, array.shape))
    return _cached(response, run)


def _cached(response: Response, run: Run) -> Any:
    """Let the browser keep the answer and ask whether it is still true."""
    response.headers["Cache-Control"] = "private, no-cache" if "v" not in request.args else "private, max-age=31536000, immutable"
    response.add_etag()
    return response.make_conditional(request)
