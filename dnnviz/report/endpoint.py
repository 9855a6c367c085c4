"""The report of a run as the diagnosis page offers it: the same page as `dnnviz report` writes, as a download."""

from __future__ import annotations

from flask import Blueprint, Flask, Response, jsonify, request

from dnnviz.analysis.diagnosis import Subject
from dnnviz.endpoints import context
from dnnviz.errors import DNNVizError
from dnnviz.report.page import compose


def register(server: Flask, prefix: str = "/") -> None:
    """Put the endpoint under `<prefix>data/`."""
    blueprint = Blueprint("report-data", __name__)
    blueprint.add_url_rule("/<run_id>/report.html", view_func=report)
    blueprint.register_error_handler(DNNVizError, lambda error: (jsonify(error=str(error)), 400))
    server.register_blueprint(blueprint, url_prefix=prefix + "data")


def report(run_id: str) -> Response:
    """The report of a snapshot; query: epoch (default: the last), against (run that it is held against, at the same epoch or its last)."""
    subject = _subject(run_id, request.args.get("epoch"))
    other = request.args.get("against")
    held = None
    if other:
        known = context().catalogue.open(other).epochs
        held = (other, _subject(other, str(subject.epoch) if subject.epoch in known else None))
    answer = Response(compose(run_id, subject, held), mimetype="text/html")
    answer.headers["Content-Disposition"] = f'attachment; filename="dnnviz-{run_id}-epoch{subject.epoch}-report.html"'
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _subject(run_id: str, epoch: str | None) -> Subject:
    run = context().catalogue.open(run_id)
    if not run.epochs:
        raise DNNVizError(f"Run {run_id} holds no snapshot yet; there is nothing to report on.")
    if epoch is not None and not epoch.isdecimal():
        raise DNNVizError(f"“{epoch[:40]}” is no epoch.")
    chosen = run.epochs[-1] if epoch is None else int(epoch)
    run.snapshot(chosen)
    return Subject(run, chosen, context().results)
