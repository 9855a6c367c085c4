"""What the pruning view hands out: the units of a proposal as a list, and the weights that a job made of it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
from flask import Flask, Response, jsonify, request, send_file

from dnnviz.endpoints import context, publish
from dnnviz.errors import DNNVizError
from dnnviz.pruning import keys
from dnnviz.pruning.keys import Proposal
from dnnviz.pruning.saved import Costs, counted, saving
from dnnviz.store import Run


def register(server: Flask, prefix: str = "/") -> None:
    """Put the endpoints under `<prefix>pruning-data/`."""
    views = {"units.csv": table, "units.json": listed, "weights.pt": weights, "facts.json": facts}
    publish(server, "pruning-data", prefix + "pruning-data", {f"/<run_id>/{name}": view for name, view in views.items()}, failed=404)


def table(run_id: str) -> Response:
    """The units of a proposal, a row each; query: epoch, which, threshold, share."""
    run, epoch, want = _asked(run_id)
    _, removed = _proposed(run, epoch, want)
    active, mean = run.active(epoch), run.data_mean(epoch)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["layer", "unit", "mean", "share_of_inputs_on_which_it_fires"])
    for name, numbers in keys.by_layer(run, removed).items():
        offset = run.layer(name).offset
        rows.writerows([name, int(unit), float(mean[offset + unit]), float(active[offset + unit])] for unit in numbers)
    return _file(text.getvalue().encode(), "text/csv", f"dnnviz-{run_id}-epoch{epoch}-pruned.csv")


def listed(run_id: str) -> Response:
    """The units of a proposal by layer, how they were chosen and what they save; query: epoch, which, threshold, share."""
    run, epoch, want = _asked(run_id)
    costs, removed = _proposed(run, epoch, want)
    saved = saving(costs, counted(costs, [layer.offset for layer in run.layers], removed))
    content = {
        "run": run.name,
        "epoch": epoch,
        **want.as_params(),
        "units": {name: numbers.tolist() for name, numbers in keys.by_layer(run, removed).items()},
        "parameters_saved": saved.parameters,
        "parameters": costs.parameters,
        "multiply_adds_saved": saved.macs,
        "multiply_adds": costs.macs,
    }
    return _file(json.dumps(content, indent=1).encode(), "application/json", f"dnnviz-{run_id}-epoch{epoch}-pruned.json")


def weights(run_id: str) -> Response:
    """The state_dict that a job made of a proposal; query: epoch, which, threshold, share, kind (masked, sliced)."""
    run, epoch, want = _asked(run_id)
    kind = request.args.get("kind", "")
    array = context().results.peek(keys.export_key(run, epoch, want, kind), "content")
    if array is None:
        raise DNNVizError("These weights are not, or no longer, in the cache; make them again on the pruning view.")
    return _file(array.tobytes(), "application/octet-stream", f"dnnviz-{run_id}-epoch{epoch}-{kind}.pt")


def facts(run_id: str) -> Response:
    """What is said of every unit, in lists [U]; query: epoch, threshold.

    kinds: the names of `keys.KINDS` that hold, as a sum of 1, 2, 4, … in their order. follows: the number in its layer of the unit that
    a redundant one follows, −1 for others, with `correlation`. prefers: the class over which its mean is largest, −1: none.
    """
    run, epoch, want = _asked(run_id)
    said = keys.units_at(run, run.digest(epoch), epoch, want.threshold)
    kinds = sum(getattr(said, kind).astype(int) << i for i, kind in enumerate(keys.KINDS))
    first = np.repeat([layer.offset for layer in run.layers], [layer.units for layer in run.layers])
    return jsonify(
        kinds=kinds.tolist(),
        follows=np.where(said.redundant, said.representative - first, -1).tolist(),
        correlation=np.nan_to_num(said.correlation).round(2).astype(float).tolist(),
        prefers=np.concatenate([keys.preferred(run, epoch, layer) for layer in run.layers]).tolist(),
    )


def _asked(run_id: str) -> tuple[Run, int, Proposal]:
    run = context().catalogue.open(run_id)
    values: dict[str, Any] = {"epoch": request.args.get("epoch", run.epochs[-1], type=int)}
    epoch = keys.epoch_of(run, values)
    given = {
        "which": request.args.get("which", "redundant"),
        "threshold": request.args.get("threshold", 0.95, type=float),
        "share": request.args.get("share", 10, type=int),
    }
    return run, epoch, keys.proposal(given)


def _proposed(run: Run, epoch: int, want: Proposal) -> tuple[Costs, np.ndarray]:
    known = keys.get_costs(context().results, run, epoch)
    if known is None:
        raise DNNVizError("The network was not looked at yet; open the pruning view first.")
    return known[0], keys.proposed(run, epoch, want, *known)


def _file(content: bytes, mimetype: str, name: str) -> Response:
    return send_file(io.BytesIO(content), mimetype=mimetype, as_attachment=True, download_name=name, max_age=0)
