"""Background jobs: the manager that starts, ends and watches them, and the one callback of the shell that runs them all.

A page puts {"kind", "page", "params", "nonce"} into the store `job-request`. A job process makes sure that the results
exist in the cache and the answer {"kind", "nonce", "ok", "keys", "error", "cancelled"} comes back in `job-result`;
`job-progress` holds {"kind", "nonce", "done", "total", "text", "elapsed", "remaining"} meanwhile.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import uuid
from collections.abc import Callable
from typing import Any

import dash
import dash_bootstrap_components as dbc
import diskcache
import psutil
from dash import ClientsideFunction, Input, Output, dcc, html
from dash.background_callback.managers.diskcache_manager import DiskcacheManager

from dnnviz import worker
from dnnviz.settings import ROOT, Settings

# kind of a request → "module:function" in charge; function(settings, params, report) returns the keys that now exist.
TASKS: dict[str, str] = {
    "attack": "dnnviz.attack.task:run",
    "attribution": "dnnviz.explain.task:run",
    "diagnosis": "dnnviz.preprocessing:run",
    "projection": "dnnviz.project.task:run",
    "pruning": "dnnviz.pruning.task:run",
    "shortcuts": "dnnviz.explain.shortcuts.task:run",
    "trust": "dnnviz.explain.trust.task:run",
}

KILLED = "The computation was ended by the system, most likely because memory ran out; ask for fewer inputs, or a smaller layer."

PRELOAD = ["dnnviz.preload"]  # what the process that jobs are forked from imports
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_start_lock = threading.Lock()


def warm() -> None:
    """Start the process that jobs are forked from; returns at once, its imports go on beside."""
    if _METHOD != "forkserver":
        return
    from multiprocessing import forkserver

    with _start_lock:
        multiprocessing.get_context(_METHOD).set_forkserver_preload(PRELOAD)
        before = os.environ.get("PYTHONPATH")
        # Before Python 3.13 the fork server does not learn sys.path and would import nothing without a word.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
        try:
            forkserver.ensure_running()
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


def compile_ahead() -> None:
    """Let a process of the lowest priority do once what would delay the first projection; returns at once."""

    def start() -> None:
        # Starting waits for the fork server's imports: not in the thread that serves the first page.
        _start(target=worker.compile_ahead)

    threading.Thread(target=start, daemon=True).start()


def _start(**process: Any) -> Any:
    # Daemonic: the app's exit ends it. A process of its own: nothing that the web process holds is copied.
    started = multiprocessing.get_context(_METHOD).Process(daemon=True, **process)
    with _start_lock:
        started.start()
    return started


class JobManager(DiskcacheManager):
    """Dash's manager with other processes: forked from a clean server, one key a request, deaths noticed, nothing left behind.

    A job is known to the browser by its key (signed by Dash), never by a process id.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        queue = diskcache.Cache(str(settings.private_cache() / worker.QUEUE))
        queue.expire()
        super().__init__(queue)

    def build_cache_key(self, fn: Callable, args: Any, cache_args_to_ignore: Any, triggered: Any) -> str:
        # A key made of the arguments is shared by two users who ask for the same: the second would get nothing.
        return uuid.uuid4().hex

    def make_job_fn(self, fn: Callable, progress: Any, key: str | None = None) -> None:
        """Nothing to make: every job runs `worker.main`."""

    def call_job_fn(self, key: str, job_fn: None, args: Any, context: Any) -> str:
        request = args[0] if isinstance(args[0], dict) else {}
        target = TASKS.get(str(request.get("kind")))
        if target is None:
            self.handle.set(
                key, worker.answer(request, error="This page asked for something that the app cannot compute."), expire=worker.KEEP_SECONDS
            )
            return key
        warm()
        process = _start(target=worker.main, args=(key, target, request, self.settings))
        with contextlib.suppress(psutil.NoSuchProcess):
            record = {"request": {name: request.get(name) for name in ("kind", "nonce")}, "pid": process.pid}
            record["created"] = psutil.Process(process.pid).create_time()
        self.handle.set(_record(key), record, expire=worker.KEEP_SECONDS)
        return key

    def job_running(self, job: str) -> bool:
        # Dash asks this after `get_result` and gives up a job that has ended without an answer. One that ends (or is
        # cancelled) between the two questions has its answer fetched by the next one: it runs until it was fetched.
        return _record(job) in self.handle

    def terminate_job(self, job: str | None) -> None:
        """Cancel a job: its processes are killed and no result of it is shown."""
        record = self.handle.get(_record(job)) if job else None
        if record is None:
            return
        self.handle.set(_record(job), {**record, "cancelled": True}, expire=worker.KEEP_SECONDS)
        process = _alive(record)
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(1)

    def terminate_unhealthy_job(self, job: str) -> bool:
        return False

    def get_result(self, key: str, job: str | None) -> Any:
        # First whether it runs: a job that ends between the two looks has left its answer by the second.
        running = _alive(self.handle.get(_record(key))) is not None
        if running:
            self.handle.touch(_record(key), expire=worker.KEEP_SECONDS)  # as long as somebody asks, however long it takes
        result = self.handle.get(key, self.UNDEFINED)
        if result is self.UNDEFINED:
            record = self.handle.get(_record(key))
            if running or record is None:
                return self.UNDEFINED
            cancelled = bool(record.get("cancelled"))
            result = worker.answer(record["request"], error=None if cancelled else KILLED, cancelled=cancelled)
        for name in (key, self._make_progress_key(key), _record(key)):
            self.clear_cache_entry(name)
        return result

    @staticmethod
    def _make_progress_key(key: str) -> str:
        return worker.progress_key(key)


def _record(key: str | None) -> str:
    return f"{key}-job"


def _alive(record: dict[str, Any] | None) -> psutil.Process | None:
    """The process of a job while it runs; a process that took over its number is another one."""
    if record is None or "created" not in record:
        return None
    try:
        process = psutil.Process(record["pid"])
        same = process.create_time() == record["created"] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def register(app: dash.Dash) -> None:
    """Register the shell's background callback, and what shows its progress and its failures."""

    @app.callback(
        Output("job-result", "data"),
        Input("job-request", "data"),
        background=True,
        interval=250,
        prevent_initial_call=True,
        progress=[Output("job-progress", "data"), Output("job-bar", "value"), Output("job-text", "children"), Output("job-time", "children")],
        progress_default=[{}, "0", "Starting", ""],
        running=[(Output("job-panel", "hidden"), False, True)],
        cancel=[Input("job-cancel", "n_clicks"), Input("_pages_location", "pathname")],
    )
    def work(set_progress: Callable, request: dict[str, Any]) -> None:
        """Dash needs a function to know the callback by; the work is done by `worker.main`."""

    app.clientside_callback(
        ClientsideFunction("dnnviz_jobs", "failure"),
        Output("job-toast", "is_open"),
        Output("job-toast", "children"),
        Input("job-result", "data"),
        prevent_initial_call=True,
    )


def panel() -> html.Div:
    """The shell's part of jobs: stores, the panel with progress and Cancel, the toast of a failure, the banner of a lost connection."""
    return html.Div(
        [
            dcc.Store(id="job-request"),
            dcc.Store(id="job-progress", data={}),
            dcc.Store(id="job-result"),
            html.Section(
                [
                    html.H2("Computing", className="dv-section-title"),
                    html.Div("Starting", id="job-text", className="dv-job-text"),
                    html.Progress(id="job-bar", value="0", max="100", className="dv-job-bar", **{"aria-label": "Share that is done"}),
                    html.Div(id="job-time", className="dv-note"),
                    html.Button("Cancel", id="job-cancel", className="dv-btn", type="button"),
                ],
                id="job-panel",
                className="dv-job",
                hidden=True,
                **{"aria-label": "Computation in progress"},
            ),
            dbc.Toast(id="job-toast", header="The computation failed", is_open=False, dismissable=True, icon="danger", className="dv-job-toast"),
            html.Div(
                ["The app does not answer; it may have been stopped. ", html.Button("Try again", id="job-reload", className="dv-btn", type="button")],
                id="job-offline",
                className="dv-offline",
                hidden=True,
                role="alert",
            ),
        ],
        id="job-area",
    )
