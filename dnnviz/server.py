"""The web server: builds the Dash app, guards its answers with headers, listens."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import dash
from flask import Flask, Response, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from dnnviz import attribution_endpoints, compare_endpoints, components, endpoints, jobs, pruning_endpoints
from dnnviz.catalogue import Catalogue
from dnnviz.components import health_cards, pruning_cards, shortcuts_cards, tampering_cards
from dnnviz.errors import DNNVizError
from dnnviz.report import endpoint as report_endpoint
from dnnviz.results import Results
from dnnviz.settings import Settings

RESULTS_BYTES = 4 * 1024**3  # the cache of results is trimmed to this when the app starts

INDEX = """<!DOCTYPE html>
<html lang="en">
    <head>
        {%metas%}
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>{%title%}</title>
        {%favicon%}
        {%css%}
    </head>
    <body>
        <noscript>DNNViz draws in the browser and needs JavaScript.</noscript>
        {%app_entry%}
        <footer>
            {%config%}
            {%scripts%}
            {%renderer%}
        </footer>
    </body>
</html>"""


def build(settings: Settings, root: Path) -> dash.Dash:
    """The Dash app over the pages and assets in `root`, ready to answer.

    Several may live in one process: Dash runs the pages anew for each, and everything else is registered on the app
    (never by `dash.callback` in a module, which serves the first app only).
    """
    jobs.warm()
    results = Results(settings.private_cache() / "results")
    context = endpoints.Context(settings, Catalogue(settings.runs), results)
    dash.page_registry.clear()
    app = dash.Dash(
        "app",
        use_pages=True,
        pages_folder=str(root / "pages"),
        assets_folder=str(root / "assets"),
        requests_pathname_prefix=settings.prefix,
        routes_pathname_prefix=settings.prefix,
        background_callback_manager=jobs.JobManager(settings),
        health_endpoint="health",
        index_string=INDEX,
        title="DNNViz",
        update_title=None,
        suppress_callback_exceptions=True,
        add_log_handler=False,
        serve_locally=True,
    )
    endpoints.register(app.server, context, settings.prefix)
    compare_endpoints.register(app.server, settings.prefix)
    attribution_endpoints.register(app.server, settings.prefix)
    report_endpoint.register(app.server, settings.prefix)
    pruning_endpoints.register(app.server, settings.prefix)
    _guard(app, settings)
    app.layout = components.shell
    components.register(app)
    shortcuts_cards.register(app)
    health_cards.register(app)
    tampering_cards.register(app)
    pruning_cards.register(app)
    jobs.register(app)
    if settings.debug:
        # Development bundles evaluate strings, which the policy forbids; the version check asks another site.
        app.enable_dev_tools(debug=True, dev_tools_hot_reload=False, dev_tools_serve_dev_bundles=False, dev_tools_disable_version_check=True)
    with app.server.test_request_context(settings.prefix):
        # What Dash would do at the first request, done now: the callbacks of the pages must not wait for another app to take them.
        app.server.preprocess_request()
    return app


def _guard(app: dash.Dash, settings: Settings) -> None:
    server: Flask = app.server
    names = _own_names(settings)

    def check_host() -> Response | None:
        # A page elsewhere that points its own name at 127.0.0.1 would read everything (DNS rebinding).
        name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if names is not None and name not in names and not name.endswith(".localhost"):
            return Response(f"This app does not answer to the name {name!r}; set DNNVIZ_HOSTS to allow it.\n", status=403, mimetype="text/plain")
        return None

    def add_headers(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        if response.mimetype == "text/html":
            response.headers["Content-Security-Policy"] = _policy(app)
        return response

    server.before_request_funcs.setdefault(None, []).insert(0, check_host)
    server.after_request(add_headers)


def _own_names(settings: Settings) -> set[str] | None:
    """Names that a request may call this app by; None = any (it listens to other machines)."""
    loopback = {"localhost", "127.0.0.1", "[::1]"}
    if settings.hosts:
        return {*loopback, *settings.hosts}
    return {*loopback, settings.host} if settings.host in {"localhost", "127.0.0.1", "::1"} else None


def _policy(app: dash.Dash) -> str:
    # plotly.js and Dash put style elements into the page, hence unsafe-inline for styles, and for styles only.
    parts = {
        "default-src": "'self'",
        "script-src": " ".join(["'self'", *app.csp_hashes()]),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'self'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


class _Handler(WSGIRequestHandler):
    # Keep-alive: a page loads a score of files.
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Requests are not logged; errors are, with their trace, by Flask."""


def listen(settings: Settings, app: dash.Dash) -> BaseWSGIServer:
    """A server on the host and port of the settings, one thread a request; DNNVizError where they cannot be had."""
    # Nothing heavy runs in this process, so Werkzeug's threads are enough for a team; see the README for other servers.
    try:
        bound = _bind(settings.host, settings.port)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise DNNVizError(f"Port {settings.port} is taken (another DNNViz may run there); choose another one with --port.") from None
        if error.errno == errno.EACCES:
            raise DNNVizError(f"Listening on {where} is not permitted; choose a port above 1023 with --port.") from None
        raise DNNVizError(f"Listening on {where} is not possible ({error.strerror}); check --host and --port.") from None
    return make_server(settings.host, bound.getsockname()[1], app.server, threaded=True, request_handler=_Handler, fd=bound.detach())


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise DNNVizError(f"Port {port} does not exist; ports go from 1 to 65535.")
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError:
        bound.close()
        raise
    return bound


def serve(settings: Settings, create: Callable[[Settings], dash.Dash]) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    for folder in settings.runs:
        if not folder.is_dir() and folder not in Settings().runs:
            raise DNNVizError(f"There is no folder {folder}; --runs (or DNNVIZ_RUNS) names folders that hold runs.")
    app = create(settings)
    server = listen(settings, app)
    jobs.compile_ahead()
    threading.Thread(target=Results(settings.private_cache() / "results").prune, args=(RESULTS_BYTES,), daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    count = len(Catalogue(settings.runs).ids())
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    found = f"{count} run{'' if count == 1 else 's'}" if count else "no runs yet"
    print(f"DNNViz ({found}) is at http://{name}:{server.port}{settings.prefix}   Ctrl-C ends it.", flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
    return 0


def _stop(*_: object) -> None:
    # The way of Ctrl-C: jobs are daemonic and end with the interpreter.
    raise KeyboardInterrupt
