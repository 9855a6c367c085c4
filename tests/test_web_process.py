"""The web process as it runs: what it never loads, how fast it starts, how it ends, and that it works behind a proxy."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from dnnviz.settings import ROOT
from tests.conftest import slack, store_data, wait_idle
from tests.runs import write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

HEAVY = ("torch", "torchvision", "umap", "pynndescent", "numba", "llvmlite", "sklearn", "captum", "openTSNE", "scipy")
LIBRARIES = re.compile(r"libtorch|llvmlite|sklearn|numba|umap|openTSNE|libgomp")

# `python app.py` with one task more, for jobs that last; where how it starts is not the question, without what other jobs need.
WITH_TEST_TASKS = """
import runpy, sys
from dnnviz import jobs
jobs.TASKS["slow"] = "tests.tasks:slow"
if light:
    jobs.PRELOAD = []
    jobs.compile_ahead = lambda: None
sys.argv = ["app.py", *sys.argv[1:]]
runpy.run_path("app.py", run_name="__main__")
"""


class Process:
    """A started app: url, pid, stop()."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell that starts the tests in the background makes them, and what they start, deaf to Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.pid = self.process.pid
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            found = re.search(r"http://\S+", line)
            if found:
                self.greeting, self.url = line, found[0].rstrip("/")
                return
        raise AssertionError("the app did not start:\n" + "".join(lines))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    write_run(tmp_path / "runs" / "small")
    started = []

    def run(*, tasks: bool = False, light: bool = False, **environment: str) -> Process:
        command = [
            sys.executable,
            *(["-c", f"light = {light}" + WITH_TEST_TASKS] if tasks else ["app.py"]),
            "--runs",
            str(tmp_path / "runs"),
            "--port",
            "0",
        ]
        started.append(Process(command, {"DNNVIZ_CACHE": str(tmp_path / "cache"), **environment}))
        return started[-1]

    yield run
    for process in started:
        process.stop()


def get(address: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.status, answer.read()


def test_the_web_process_greets_loads_nothing_that_computes_and_makes_no_noise(start: Callable[..., Process], page: Page) -> None:
    app = start()
    assert app.greeting.startswith("DNNViz (1 run) is at http://127.0.0.1:")
    assert get(app.url + "/health") == (200, b"OK")
    page.goto(app.url + "/")
    wait_idle(page)
    paths = [link.get_attribute("href") for link in page.locator("a.dv-nav-link").all()]
    for path in paths:
        page.goto(app.url + (path or "/").split("?")[0])
        wait_idle(page)
    for path in (
        "layers.json",
        "values?epoch=5",
        "values?show=class:1&stat=max",
        "epochs?show=input:3",
        "image/0.png",
        "thumb/1.png?size=64",
        "sprite.png",
    ):
        status, body = get(f"{app.url}/data/small/{path}")
        assert status == 200 and body, path
    maps = {entry.path for entry in psutil.Process(app.pid).memory_maps()}
    assert not [path for path in maps if LIBRARIES.search(path)]
    memory = psutil.Process(app.pid).memory_info().rss / 2**20
    print(f"{len(paths)} pages, web process {memory:.0f} MB")
    assert memory < 250
    app.stop()
    assert app.process.stdout is not None
    rest = app.process.stdout.read()
    assert "WARNING" not in rest and "Traceback" not in rest and "GET /health" not in rest


def test_importing_the_app_is_quick_and_loads_nothing_that_computes(tmp_path: Path) -> None:
    code = f"""
import json, sys, time
began = time.process_time()
import app
from pathlib import Path
from dnnviz.settings import Settings
app.create_app(Settings(runs=(Path({str(tmp_path)!r}),), cache=Path({str(tmp_path / "cache")!r})))
print(json.dumps([time.process_time() - began, sorted(sys.modules)]))
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(found.stdout.splitlines()[-1])
    print(f"import and create_app: {seconds:.2f} s of processor time")
    assert not set(HEAVY) & set(modules)
    # About a second on a quiet machine; twice that where others work on it.
    assert seconds < 2.5


def test_the_entry_for_wsgi_servers(tmp_path: Path) -> None:
    code = """
import sys
from importlib import import_module
module = import_module("app")
assert "dash" not in sys.modules, "importing app.py must be cheap: job processes do it"
server = getattr(module, "server")
assert server is module.server
assert server.test_client().get("/health").data == b"OK"
"""
    environment = {**os.environ, "DNNVIZ_CACHE": str(tmp_path / "cache"), "DNNVIZ_RUNS": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_a_projection_under_another_wsgi_server(tmp_path: Path, page: Page) -> None:
    """Jobs are forked from a clean process whatever serves the app; after torch in the server itself a fork would hang."""
    write_run(tmp_path / "runs" / "small", inputs=40)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "DNNVIZ_CACHE": str(tmp_path / "cache"), "DNNVIZ_RUNS": str(tmp_path / "runs")}
    process = subprocess.Popen(
        [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", "--threads=8", "app:server"], cwd=ROOT, env=environment
    )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                assert get(f"http://127.0.0.1:{port}/health")[0] == 200
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.1)
        page.goto(f"http://127.0.0.1:{port}/embedding?run=small&layer=fc&method=tsne")
        wait_idle(page)  # before the first layout is there, looking into it raises
        page.wait_for_function("() => window.dash_component_api?.getLayout('job-result')?.props?.data?.ok === true")
        assert store_data(page, "job-result")["kind"] == "projection"
        wait_idle(page)
    finally:
        process.terminate()
        process.wait(30)


def _job(page: Page, seconds: float, nonce: int) -> None:
    page.evaluate(
        "([seconds, nonce]) => window.dash_clientside.set_props('job-request', {data: {kind: 'slow', page: '/', params: {seconds}, nonce}})",
        [seconds, nonce],
    )


def _family(app: Process, page: Page) -> list[psutil.Process]:
    """Starts a job that lasts, and gives the processes beside that of the app."""
    _job(page, 60, 2)
    page.wait_for_function("() => document.getElementById('job-text').textContent.startsWith('Step')")
    family = psutil.Process(app.pid).children(recursive=True)
    # The fork server, the job, and Python's resource tracker.
    assert len(family) >= 2
    return family


def _alive(process: psutil.Process) -> bool:
    # Who adopts orphans may be slow to collect them: a zombie is gone.
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _ends(app: Process, family: list[psutil.Process], page: Page, how: signal.Signals, limit: float) -> None:
    """The end of the app is the end of its jobs, without a word, and the page says so."""
    limit *= slack()
    began = time.monotonic()
    os.kill(app.pid, how)
    app.process.wait(30)
    while (alive := [process for process in family if _alive(process)]) and time.monotonic() - began < limit:
        time.sleep(0.02)
    took = time.monotonic() - began
    for process in alive:
        process.kill()
    assert not alive, f"still there {limit:.1f} s after {how.name}: {alive}"
    print(f"{how.name}: all processes gone after {took:.2f} s")
    assert app.process.stdout is not None and "Traceback" not in app.process.stdout.read()
    page.locator("#job-offline").wait_for(state="visible")
    page.problems.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("how", "limit"), [(signal.SIGINT, 1.0), (signal.SIGKILL, 2.0)])
def test_the_end_of_the_app_is_the_end_of_its_jobs(start: Callable[..., Process], page: Page, how: signal.Signals, limit: float) -> None:
    app = start(tasks=True, light=how == signal.SIGKILL)
    page.goto(app.url + "/")
    wait_idle(page)
    _ends(app, _family(app, page), page, how, limit)


def test_behind_a_proxy_with_a_prefix_until_it_is_terminated(start: Callable[..., Process], page: Page) -> None:
    app = start(tasks=True, light=True, DNNVIZ_PREFIX="/tools/dnnviz/")
    assert app.url.endswith("/tools/dnnviz")
    page.goto(app.url + "/")
    wait_idle(page)
    assert page.locator("a.dv-nav-link").count()
    _job(page, 0.2, 1)
    page.wait_for_function("() => window.dash_component_api.getLayout('job-result')?.props?.data?.ok === true")
    for link in page.locator("a.dv-nav-link").all():
        link.click()
        wait_idle(page)
        assert page.url.startswith(app.url)
        assert not page.get_by_text("404").count()
    # The diagnosis page may have asked for a job of its own, which is part of the family as well.
    _ends(app, _family(app, page), page, signal.SIGTERM, 1.0)
