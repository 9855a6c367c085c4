"""Fixtures of all tests: test data, runs, the app in a thread, and a browser whose pages must not complain.

A browser test in three lines::

    def test_something(page, live_app):
        page.goto(live_app.url + "/evolution?run=digits")
        wait_idle(page)                       # from tests.conftest import wait_idle
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dnnviz.settings import DEMO_RUNS, ROOT, Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, BrowserType, Page
    from torch import Tensor, nn

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A test opens one page after another: one process for them, and no script compiled before it is called, saves a fifth.
    "--disable-site-isolation-trials",
    "--renderer-process-limit=1",
    "--js-flags=--max-lazy",
)
TIMEOUT = 60_000  # ms; generous, for machines with other work


# Files that take longest, most of them waiting: begun first, so that no worker is left alone with one of them at the end.
LONGEST = ("test_web_process", "test_page_attribution", "test_page_embedding", "test_jobs", "test_page_evolution", "test_page_layers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    for item in items:
        if {"page", "new_page", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.browser)


def slack() -> float:
    """How many times longer than on a quiet machine things may take: 1 where nobody else works."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) if hasattr(os, "getloadavg") else 1.0


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real images and weights; the test is skipped where it is absent, and fails where CI is set."""
    folder = Path(os.environ.get("DNNVIZ_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        sentence = f"There is no folder {folder} with real images and weights; set DNNVIZ_TEST_DATA."
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread: small operations are faster there on a machine that others use, too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def resnet20(shared_data: Path) -> nn.Module:
    """ResNet-20 trained on CIFAR-10."""
    from tests import trained

    return trained.resnet20(shared_data)


@pytest.fixture(scope="module")
def squeezenet(shared_data: Path) -> nn.Module:
    """SqueezeNet 1.1 trained on ImageNet."""
    from tests import trained

    return trained.squeezenet(shared_data)


@pytest.fixture(scope="module")
def cifar(shared_data: Path) -> Tensor:
    """Six test pictures of CIFAR-10 as `resnet20` takes them."""
    from tests import trained

    return trained.cifar(shared_data)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with an empty folder of runs and a cache of their own."""
    (tmp_path / "runs").mkdir()
    return Settings(runs=(tmp_path / "runs",), cache=tmp_path / "cache", port=0)


@dataclass(frozen=True)
class LiveApp:
    """An app that listens: url (without a slash at the end), its settings, the Dash app."""

    url: str
    settings: Settings
    app: Any


@pytest.fixture(scope="session")
def make_live_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LiveApp]]:
    """make_live_app(runs=[folder, …], **settings) → LiveApp, stopped at the end of the session."""
    from app import create_app
    from dnnviz import server

    running = []

    def make(runs: Sequence[Path] = (DEMO_RUNS,), **given: Any) -> LiveApp:
        values = {"cache": tmp_path_factory.mktemp("cache"), "port": 0, **given}
        chosen = Settings(runs=tuple(Path(run) for run in runs), **values)
        app = create_app(chosen)
        # Dash signs a job with the secret of the app made last, and checks it with that of the app which is asked.
        app.server.secret_key = "shared by all apps of this process"
        listening = server.listen(chosen, app)
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        running.append((listening, thread))
        return LiveApp(f"http://127.0.0.1:{listening.port}{chosen.prefix.rstrip('/')}", chosen, app)

    yield make
    for listening, thread in running:
        listening.shutdown()
        thread.join(5)


@pytest.fixture(scope="session")
def live_app(make_live_app: Callable[..., LiveApp]) -> LiveApp:
    """The app on the demo runs."""
    return make_live_app()


WINDOW = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"}


@pytest.fixture(scope="session")
def chromium() -> Iterator[BrowserType]:
    """What starts Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium


def _start() -> dict[str, Any]:
    """How Chromium is started: that of the system, otherwise Playwright's own."""
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    return {"executable_path": found, "args": list(CHROMIUM_FLAGS)}


@pytest.fixture(scope="session")
def browser(chromium: BrowserType) -> Iterator[Browser]:
    """Chromium without a past."""
    browser = chromium.launch(**_start())
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def visitor(chromium: BrowserType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A user who comes back: compiled scripts are in the browser's cache, which halves what opening a page takes."""
    context = chromium.launch_persistent_context(tmp_path_factory.mktemp("profile"), **_start(), **WINDOW)
    yield context
    context.close()


@pytest.fixture
def watched() -> Iterator[Callable[[Page], Page]]:
    """watched(page) → the page; the test fails when it logged an error, raised one, or got an answer of 400 or above.

    What a test provokes on purpose it removes from `page.problems` before it ends.
    """
    pages = []

    def watch(page: Page) -> Page:
        page.set_default_timeout(TIMEOUT)
        page.problems = []  # type: ignore[attr-defined]
        page.on("console", lambda message: page.problems.append(f"console: {message.text}") if message.type == "error" else None)
        page.on("pageerror", lambda error: page.problems.append(f"page error: {error}"))
        page.on("response", lambda answer: page.problems.append(f"{answer.status} from {answer.url}") if answer.status >= 400 else None)
        pages.append(page)
        return page

    yield watch
    problems = [problem for page in pages for problem in page.problems]
    assert not problems, "the browser complained:\n" + "\n".join(problems)


@pytest.fixture
def new_page(browser: Browser, watched: Callable[[Page], Page]) -> Iterator[Callable[..., Page]]:
    """new_page(**context options) → the page of a new user (its own browser context); see `watched`."""
    contexts = []

    def make(**options: Any) -> Page:
        contexts.append(browser.new_context(**{**WINDOW, **options}))
        return watched(contexts[-1].new_page())

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(visitor: BrowserContext, watched: Callable[[Page], Page]) -> Iterator[Page]:
    """One page, 1440 × 900, without anything stored by an earlier test; see `watched`."""
    page = watched(visitor.new_page())
    yield page
    if page.url.startswith("http"):
        page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
    page.close()


def wait_idle(page: Page, timeout: float = TIMEOUT) -> None:
    """Wait until the page is drawn and no callback and no background job has been under way for a tenth of a second."""
    page.wait_for_function(
        """() => {
            const store = (window.dash_stores || [])[0];
            const now = performance.now();
            const lists = store ? Object.values(store.getState().callbacks).filter(Array.isArray) : [];
            const busy = !store || document.querySelector("._dash-loading") || lists.some((list) => list.length);
            if (busy || window.dnnvizIdleSince === undefined) window.dnnvizIdleSince = busy ? undefined : now;
            return !busy && now - window.dnnvizIdleSince > 100;
        }""",
        timeout=timeout,
    )


def wait_for_jobs(page: Page, timeout: float = 2 * TIMEOUT) -> None:
    """Wait until the job panel of the shell is gone and everything that its result sets off is drawn."""
    wait_idle(page, timeout)
    page.locator("#job-panel").wait_for(state="hidden", timeout=timeout)


def store_data(page: Page, name: str) -> Any:
    """What a dcc.Store of the page holds."""
    return page.evaluate("name => window.dash_component_api.getLayout(name)?.props?.data ?? null", name)


@pytest.fixture(scope="session")
def torch_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with two runs of one snapshot each, `resnet18` and `densenet121`: torchvision networks with random weights on a few images."""
    import numpy as np
    import torch

    import dnnviz
    from dnnviz.models import build

    folder = tmp_path_factory.mktemp("torch_runs")
    classes = ["stripes", "rings", "checks", "dots"]
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:64] / 64.0
    patterns = [np.sin(20 * x), np.sin(40 * np.hypot(x - 0.5, y - 0.5)), np.sign(np.sin(20 * x) * np.sin(20 * y)), np.cos(30 * x) * np.cos(30 * y)]
    data = []
    for i in range(12):
        pattern = np.clip(0.5 + 0.3 * patterns[i % 4] + random.normal(0, 0.1, (3, 64, 64)), 0, 1)
        pixels = np.round(pattern * 255).astype(np.float32) / 255
        data.append((torch.from_numpy((pixels - 0.5) / 0.25), i % 4))
    for name in ("resnet18", "densenet121"):
        torch.manual_seed(0)
        spec = f"torchvision:{name}"
        model = build(spec, num_classes=len(classes))
        dnnviz.capture(model, data, folder / name, classes=classes, inputs=12, batch_size=4, mean=(0.5,) * 3, std=(0.25,) * 3, model_spec=spec)
    return folder
