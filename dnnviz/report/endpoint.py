"""The report of a run as the diagnosis page offers it: the same page and pictures as `dnnviz report` writes, as a download."""

from __future__ import annotations

import io
import zipfile

from flask import Flask, Response, request, send_file

from dnnviz.analysis.diagnosis import Subject
from dnnviz.analysis.diagnosis.preprocessing import TRIALS
from dnnviz.endpoints import context, publish
from dnnviz.errors import DNNVizError
from dnnviz.explain.plan import obstacle
from dnnviz.report.command import files
from dnnviz.report.page import Report, compose

_SCALE = 2  # pixels of a picture a pixel of the page


def register(server: Flask, prefix: str = "/") -> None:
    """Put the endpoint under `<prefix>data/`."""
    publish(server, "report-data", prefix + "data", {"/<run_id>/report.html": page, "/<run_id>/report.zip": archive}, 400)


def page(run_id: str) -> Response:
    """The report of a snapshot; query: epoch (default: the last), against and against_epoch (the run that it is held against, at that epoch)."""
    made, epoch = _composed(run_id)
    return _download(made.html.encode(), "text/html", f"dnnviz-{run_id}-epoch{epoch}-report.html")


def archive(run_id: str) -> Response:
    """The same with its pictures as PNG files, all of it in one ZIP file."""
    made, epoch = _composed(run_id)
    name = f"dnnviz-{run_id}-epoch{epoch}-report"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(f"{name}/report.html", made.html)
        for file, content in files(made, _SCALE):
            out.writestr(f"{name}/pictures/{file}", content)
    return _download(buffer.getvalue(), "application/zip", f"{name}.zip")


def _composed(run_id: str) -> tuple[Report, int]:
    subject = _subject(run_id, request.args.get("epoch"))
    other, at = request.args.get("against"), request.args.get("against_epoch")
    held = None
    if other:
        same = str(subject.epoch) if subject.epoch in context().catalogue.open(other).epochs else None
        held = (other, _subject(other, at or same))
    return compose(run_id, subject, held), subject.epoch


def _download(content: bytes, kind: str, name: str) -> Response:
    # A run may be called by letters that a header cannot hold as they are.
    answer = send_file(io.BytesIO(content), mimetype=kind, as_attachment=True, download_name=name)
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
    return Subject(run, chosen, context().results, obstacle(run, chosen, context().settings.allow, TRIALS))
