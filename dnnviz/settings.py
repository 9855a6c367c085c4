"""One frozen object with everything that the command line and the environment can set."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

ROOT = Path(__file__).resolve().parent.parent
DEMO_RUNS = ROOT / "data"


@dataclass(frozen=True)
class Settings:
    """Settings of one DNNViz process.

    runs: folders that hold runs, searched in this order; a folder that is itself a run counts as one.
    cache: folder of derived results and of the job queue, private to the user.
    allow: packages whose model and data set builders jobs may call (torchvision and the built-ins always may).
    prefix: path under which a proxy serves the app; begins and ends with a slash.
    slots: background jobs that compute at once.
    hosts: names, beside those of this machine, by which a proxy may call the app.
    """

    runs: tuple[Path, ...] = (Path("runs"), DEMO_RUNS)
    cache: Path = field(default_factory=lambda: Path(platformdirs.user_cache_dir("dnnviz", appauthor=False)))
    host: str = "127.0.0.1"
    port: int = 8050
    debug: bool = False
    prefix: str = "/"
    allow: tuple[str, ...] = ()
    slots: int = 2
    hosts: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **given: object) -> Settings:
        """Read the variables DNNVIZ_RUNS, DNNVIZ_CACHE, DNNVIZ_HOST, DNNVIZ_PORT, DNNVIZ_PREFIX, DNNVIZ_ALLOW, DNNVIZ_SLOTS and
        DNNVIZ_HOSTS (separated by commas).

        Lists are separated as in PATH. What is `given` (not None) wins over the environment.
        """
        values: dict[str, object] = {}
        if environ.get("DNNVIZ_RUNS"):
            values["runs"] = tuple(Path(p) for p in environ["DNNVIZ_RUNS"].split(os.pathsep) if p)
        if environ.get("DNNVIZ_CACHE"):
            values["cache"] = Path(environ["DNNVIZ_CACHE"])
        if environ.get("DNNVIZ_HOST"):
            values["host"] = environ["DNNVIZ_HOST"]
        if environ.get("DNNVIZ_PREFIX"):
            values["prefix"] = "/" + environ["DNNVIZ_PREFIX"].strip("/") + "/" if environ["DNNVIZ_PREFIX"].strip("/") else "/"
        if environ.get("DNNVIZ_ALLOW"):
            values["allow"] = tuple(p for p in environ["DNNVIZ_ALLOW"].split(os.pathsep) if p)
        if environ.get("DNNVIZ_HOSTS"):
            values["hosts"] = tuple(h.strip().lower() for h in environ["DNNVIZ_HOSTS"].split(",") if h.strip())
        for name in ("port", "slots"):
            text = environ.get(f"DNNVIZ_{name.upper()}")
            if text:
                if not text.isdigit() or int(text) == 0:
                    from dnnviz.errors import DNNVizError

                    raise DNNVizError(f"DNNVIZ_{name.upper()} is {text!r}; it must be a whole number above zero.")
                values[name] = int(text)
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)  # type: ignore[arg-type]

    def private_cache(self) -> Path:
        """Create the cache folder so that only its owner can enter it, and return it.

        diskcache unpickles what it reads: whoever can write there can run code as the user.
        """
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and stat.S_IMODE(self.cache.stat().st_mode) & 0o077:
            self.cache.chmod(0o700)
        return self.cache
