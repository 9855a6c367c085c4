"""Tasks that the tests of background jobs run; job processes import this module."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dnnviz.errors import DNNVizError
from dnnviz.results import Results, key
from dnnviz.settings import Settings

Report = Callable[..., None]


def slow(settings: Settings, params: dict[str, Any], report: Report) -> list[str]:
    """Works for `seconds` and notes in `journal` when it began and ended; returns at once where the result exists."""
    results = Results(settings.private_cache() / "results")
    name = key("slow", params=params)
    if name in results:
        return [name]
    _note(params, f"begin {os.getpid()}")
    steps = 50
    for step in range(steps):
        report(step, steps, f"Step {step}")
        time.sleep(params.get("seconds", 1) / steps)
    results.put(name, {"pid": np.array(os.getpid())})
    _note(params, f"end {os.getpid()}")
    return [name]


def killed(settings: Settings, params: dict[str, Any], report: Report) -> list[str]:
    """Is killed as the system kills a process when memory runs out."""
    report(1, 2, "About to die")
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def refused(settings: Settings, params: dict[str, Any], report: Report) -> list[str]:
    raise DNNVizError("Layer layer9 does not exist; choose another one.")


def broken(settings: Settings, params: dict[str, Any], report: Report) -> list[str]:
    raise ValueError("first line\nsecond line that nobody should have to read")


def with_children(settings: Settings, params: dict[str, Any], report: Report) -> list[str]:
    """Starts a process of its own and waits for it."""
    import subprocess

    child = subprocess.Popen(["sleep", "60"])
    _note(params, f"begin {os.getpid()} {child.pid}")
    child.wait()
    return []


def surroundings(settings: Settings, params: dict[str, Any], report: Report) -> list[str]:
    """What a job finds around it."""
    import sys

    torch_ready = "torch" in sys.modules
    import torch

    value = float((torch.ones(200, 200) @ torch.ones(200, 200)).sum())
    results = Results(settings.private_cache() / "results")
    found = {"torch_ready": torch_ready, "value": value, "threads": torch.get_num_threads(), "dash": "dash" in sys.modules}
    return [results.put(key("surroundings", params=params), {name: np.array(v) for name, v in found.items()})]


def held_projection(settings: Settings, params: dict[str, Any], report: Report) -> list[str]:
    """The projection job; all but PCA begin once there is a file `go` in the app's cache."""
    from dnnviz.project import task

    report(0, 0, "Held")
    while params["method"] != "pca" and not (settings.cache / "go").exists():
        time.sleep(0.02)
    return task.run(settings, params, report)


def held_attribution(settings: Settings, params: dict[str, Any], report: Report) -> list[str]:
    """The attribution job; it leaves half a map of its first tile, and goes on once there is a file `go` in the app's cache."""
    from dnnviz.catalogue import Catalogue
    from dnnviz.explain import plan, task

    run = Catalogue(settings.runs).open(params["run"])
    first = plan.plan_of(run, params)[0]
    size = run.manifest["preprocessing"]["size"][1:]
    plan.store_partial(Results(settings.private_cache() / "results"), first, np.arange(np.prod(size)).reshape(size), 0.5)
    report(0, 4, "Held")
    while not (settings.cache / "go").exists():
        time.sleep(0.02)
    return task.run(settings, params, report)


def _note(params: dict[str, Any], text: str) -> None:
    if "journal" in params:
        with open(Path(params["journal"]), "a", encoding="utf-8") as file:
            file.write(f"{text} {time.time()}\n")
