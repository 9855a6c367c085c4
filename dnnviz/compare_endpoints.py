"""What the compare page fetches: two sides over the layers they share, one layer over all classes, the table of all units."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from flask import Blueprint, Flask, Response, jsonify, request

from dnnviz.analysis import class_rows, comparison, matching, sides, stages
from dnnviz.analysis.comparison import Comparison
from dnnviz.analysis.distance import layer_distances
from dnnviz.analysis.matching import PAIRINGS
from dnnviz.analysis.sides import Side
from dnnviz.endpoints import context
from dnnviz.errors import RunError
from dnnviz.store import Layer
from dnnviz.urlstate import valid_show

CLASS_ROWS = 40


def register(server: Flask, prefix: str = "/") -> None:
    """Put the endpoints under `<prefix>compare-data/`."""
    blueprint = Blueprint("compare-data", __name__)
    blueprint.add_url_rule("/units.json", view_func=units)
    blueprint.add_url_rule("/classes.json", view_func=classes)
    blueprint.add_url_rule("/multiples.json", view_func=multiples)
    blueprint.add_url_rule("/units.csv", view_func=table)
    blueprint.register_error_handler(RunError, lambda error: (jsonify(error=str(error)), 404))
    server.register_blueprint(blueprint, url_prefix=prefix + "compare-data")


def units() -> Response:
    """Layers of the chosen set with their distances, and float32 [4, U']: first, second, difference, number of the second's unit."""
    first, second, how = _sides()
    found = comparison.compare(first, second, how)
    shown = comparison.layers_of(found.shared.layers, request.args.get("layers", "outline"))
    distances = _distances(first, second, found)
    index = {layer.name: i for i, layer in enumerate(found.shared.layers)}
    named = stages([layer.name for layer in shown]) if shown else []
    chance, tested = comparison.significance(first, second, how)
    described = [
        {
            "name": e.name,
            "kind": e.kind,
            "units": e.units,
            "offset": e.offset,
            "stage": stage,
            "distance": _plain(distances[index[e.name]]),
            "p": None if chance is None else _plain(chance[index[e.name]]),
        }
        for e, stage in zip(shown, named, strict=True)
    ]
    arrays = np.stack([found.first, found.second, found.difference, found.partners.astype(np.float32)])
    rows = class_rows.rows_shown(first, second, request.args.get("rows", "auto"))
    matched = found.pairing.how == "correlation"
    return _cached(
        jsonify(
            layers=described,
            shared=list(index),
            titles=sides.titles(first, second),
            networks=sides.titles(replace(first, show="data"), replace(second, show="data")),
            units=int(arrays.shape[1]),
            values=_packed(arrays),
            measure="cka" if request.args.get("measure") == "cka" else "rms",
            matched=matched,
            classes=len(sides.shared_classes(first.run, second.run)),
            one=sides.one_network(first, second),
            tested=tested,
            telling=class_rows.telling_layer(first, second, found, shown, rows),
            splits=sides.two_splits(first.run),
        )
    )


def classes() -> Response:
    """One layer, the classes that matter most, and float32 [5, K', units']: shades of both sides, difference, values of both sides.

    Query: layer, rows (what a row shows), and `limit`, how many units fit beside each other (those that tell most are sent, in order).
    """
    first, second, how = _sides()
    layer, labels = _layer(first, second), sides.shared_classes(first.run, second.run)
    shown = class_rows.rows_shown(first, second, request.args.get("rows", "auto"))
    part = class_rows.class_layer(first, second, layer, how, shown)
    distances = layer_distances(part.difference, [slice(0, layer.units)])[:, 0]
    rows = _rows(first, second, labels, distances)
    columns = _strongest(part.difference, max(8, request.args.get("limit", 256, type=int)))
    arrays = [part.first_shade, part.second_shade, part.difference, part.first, part.second]
    outliers = {side.run.classes[label] for side in (first, second) if (label := _outlier(side)) is not None}
    described = [
        {
            "name": first.run.classes[labels[row][0]],
            "distance": _plain(distances[row]),
            "chosen": _chosen(first, second, labels[row]),
            "outlier": first.run.classes[labels[row][0]] in outliers,
        }
        for row in rows
    ]
    one = first.network == second.network if shown == "gap" else sides.one_network(first, second)
    return _cached(
        jsonify(
            layer=layer.name,
            rows=shown,
            classes=described,
            classesInAll=int(np.isfinite(distances).sum()),
            units=columns.tolist(),
            unitsInAll=layer.units,
            one=one,
            values=_packed(np.stack([array[np.ix_(rows, columns)] for array in arrays])),
        )
    )


def multiples() -> Response:
    """One layer over classes, runs and epochs: titles of the moments, and float32 [2, P, K', units']: shades, values.

    Query: layer and `limit`, how many units fit beside each other (those that move most are sent, in order).
    """
    first, second, how = _sides()
    layer, labels = _layer(first, second), sides.shared_classes(first.run, second.run)
    found = class_rows.multiples(first, second, layer.name, how)
    seen = np.isfinite(found.values).any(axis=(0, 2))
    rows = _rows(first, second, labels, np.where(seen, np.nan_to_num(np.ptp(found.shades, axis=0)).max(axis=1), np.nan))
    columns = _strongest(np.ptp(found.shades, axis=0), max(4, request.args.get("limit", 64, type=int)))
    arrays = [array[:, rows][:, :, columns] for array in (found.shades, found.values)]
    return _cached(
        jsonify(
            layer=layer.name,
            titles=found.titles,
            classes=[{"name": first.run.classes[labels[row][0]], "chosen": _chosen(first, second, labels[row])} for row in rows],
            classesInAll=int(seen.sum()),
            units=columns.tolist(),
            unitsInAll=layer.units,
            values=_packed(np.stack(arrays)),
        )
    )


def _layer(first: Side, second: Side) -> Layer:
    """The shared layer that the query names; raises RunError where there is none, or no common class."""
    layer = next((e for e in matching.shared_layers(first.run, second.run).layers if e.name == request.args.get("layer")), None)
    if layer is None:
        raise RunError(f"The two runs share no layer {request.args.get('layer')!r}.")
    if not sides.shared_classes(first.run, second.run):
        raise RunError("The two runs have no class in common.")
    return layer


def table() -> Response:
    """All units of all shared layers as CSV, in order of the first run."""
    first, second, how = _sides()
    found = comparison.compare(first, second, how)
    names = [f"{side.name} epoch {side.epoch} {side.show}{' ' + side.split if side.split else ''}" for side in (first, second)]
    file = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in f"{first.name}-{second.name}-units.csv")
    return Response(_lines(found, names), mimetype="text/csv", headers={"Content-Disposition": f'attachment; filename="{file}"'})


def _lines(found: Comparison, names: list[str]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["layer", "kind", "unit", "unit in B", f"A: {names[0]}", f"B: {names[1]}", "B - A in standard deviations"])
    partners = found.partners
    for layer in found.shared.layers:
        for unit in range(layer.units):
            i = layer.offset + unit
            writer.writerow([layer.name, layer.kind, unit, int(partners[i]), *(f"{v[i]:.6g}" for v in (found.first, found.second, found.difference))])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _sides() -> tuple[Side, Side, str]:
    how = request.args.get("pair", "auto")
    if how not in PAIRINGS:
        raise RunError(f"{how!r} is no way to pair units.")
    return _side(""), _side("2"), how


def _side(end: str) -> Side:
    name = request.args.get("run" + end, "")
    run = context().catalogue.open(name)
    epoch = request.args.get("epoch" + end, run.epochs[-1] if run.epochs else 0, type=int)
    run.snapshot(epoch)
    show = valid_show(request.args.get("show" + end, "data"), run)
    split, group = request.args.get("split" + end, "all"), request.args.get("group" + end)
    if group:
        show, split = sides.group_of(group, run), "all"
    if show is None or split not in ("all", *run.splits):
        raise RunError(f"Run {run.name} has nothing under this address.")
    return Side(run, epoch, show, None if split == "all" else split, name)


def _distances(first: Side, second: Side, found: Comparison) -> np.ndarray:
    """What stands beside the layers: distances, or (query `measure=cka`) how alike the layers of two networks are, without pairing units."""
    if request.args.get("measure") != "cka":
        return found.distances
    similar = matching.layer_similarity(*first.network, *second.network)
    if similar is None:
        return np.full(len(found.shared.layers), np.nan)
    own, other = ({e.name: i for i, e in enumerate(run.layers)} for run in (first.run, second.run))
    return np.array([similar[0][own[e.name], other[e.name]] for e in found.shared.layers])


def _rows(first: Side, second: Side, labels: list[tuple[int, int]], distances: np.ndarray) -> list[int]:
    """Up to CLASS_ROWS classes, in order: those chosen on either side, then those of the largest distance; none without inputs (NaN)."""
    importance = distances + np.array([1e9 * _chosen(first, second, pair) for pair in labels])
    order = np.argsort(-importance, kind="stable")  # NaN comes last
    return sorted(order[np.isfinite(importance[order])][:CLASS_ROWS].tolist())


def _outlier(side: Side) -> int | None:
    found = class_rows.gap(*side.network)
    return None if found is None else found.outlier


def _chosen(first: Side, second: Side, pair: tuple[int, int]) -> bool:
    return _label(first) == pair[0] or _label(second) == pair[1]


def _label(side: Side) -> int | None:
    """Class that a side shows, or to which the input that it shows belongs."""
    kind, _, index = side.show.partition(":")
    if kind in ("data", "group"):
        return None
    return int(index) if kind == "class" else int(side.run.labels[int(index)])


def _strongest(difference: np.ndarray, limit: int) -> np.ndarray:
    size = np.nan_to_num(np.abs(difference), nan=0.0).max(axis=0)
    return np.sort(np.argsort(-size, kind="stable")[:limit])


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()


def _plain(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def _cached(response: Response) -> Any:
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    return response.make_conditional(request)
