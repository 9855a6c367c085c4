"""The app: `python app.py`, the WSGI entry `app:server`, and `create_app(settings)`.

The processes of background jobs import this file again: nothing happens here before a function is called.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dash import Dash

    from dnnviz.settings import Settings

ROOT = Path(__file__).resolve().parent


def create_app(settings: Settings) -> Dash:
    """Build the app; several may live in one process."""
    from dnnviz import server

    return server.build(settings, ROOT)


def __getattr__(name: str) -> Any:
    """`server`, the WSGI application, is built when a WSGI server asks for it, with settings from the environment."""
    if name != "server":
        raise AttributeError(name)
    from dnnviz.settings import Settings

    globals()["server"] = built = create_app(Settings.from_environment()).server
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the app until Ctrl-C; returns the exit code, 2 for something that the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python app.py", description="Look inside captured networks in the browser.", epilog="example: python app.py --runs runs --port 8051"
    )
    parser.add_argument("--runs", nargs="+", action="extend", metavar="DIR", type=Path, help="folders that hold runs (default: runs and data)")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, help="port to listen on (default: 8050; 0 takes any free one)")
    parser.add_argument("--allow", nargs="+", action="extend", metavar="PACKAGE", help="packages whose functions may build networks and data sets")
    parser.add_argument("--debug", action="store_true", help="show errors of callbacks in the browser")
    given = parser.parse_args(argv)
    from dnnviz import server
    from dnnviz.errors import DNNVizError
    from dnnviz.settings import Settings

    try:
        settings = Settings.from_environment(
            runs=tuple(given.runs) if given.runs else None,
            host=given.host,
            port=given.port,
            allow=tuple(given.allow) if given.allow else None,
            debug=given.debug,
        )
        return server.serve(settings, create_app)
    except DNNVizError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
