"""Background jobs as a browser sees them: users, cancelling, deaths, slots, errors, the end of the app."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from dnnviz import jobs, worker
from dnnviz.results import Results
from dnnviz.settings import Settings
from tests.conftest import LiveApp, slack, store_data, wait_for_jobs, wait_idle
from tests.runs import write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

TEST_TASKS = ("slow", "killed", "refused", "broken", "with_children", "surroundings")
_nonces = itertools.count(1)


@pytest.fixture(scope="module")
def app(make_live_app: Callable[..., LiveApp], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    runs = tmp_path_factory.mktemp("runs")
    write_run(runs / "small")
    before = dict(jobs.TASKS)
    jobs.TASKS.update({name: f"tests.tasks:{name}" for name in TEST_TASKS})
    yield make_live_app(runs=[runs], slots=2)
    jobs.TASKS.clear()
    jobs.TASKS.update(before)


def ask(page: Page, kind: str, **params: Any) -> int:
    """Put a request into the shell's store, as a page does; returns its nonce."""
    nonce = next(_nonces)
    request = {"kind": kind, "page": "/", "params": params, "nonce": nonce}
    page.evaluate("request => window.dash_clientside.set_props('job-request', {data: request})", request)
    return nonce


def result(page: Page, nonce: int, timeout: float = 60) -> dict[str, Any]:
    """The answer to the request with this nonce."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found = store_data(page, "job-result")
        if found and found["nonce"] == nonce:
            return found
        page.wait_for_timeout(50)
    raise AssertionError(f"no answer to request {nonce} after {timeout} s; the store holds {store_data(page, 'job-result')}")


def opened(new_page: Callable[..., Page], app: LiveApp) -> Page:
    page = new_page()
    page.goto(app.url + "/")
    wait_idle(page)
    return page


def journal(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(condition: Callable[[], Any], timeout: float = 60, what: str = "") -> Any:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout} s: {what or condition}")


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_job_answers_with_keys_and_shows_progress(new_page: Callable[..., Page], app: LiveApp, tmp_path: Path) -> None:
    page = opened(new_page, app)
    nonce = ask(page, "slow", seconds=2.5, journal=str(tmp_path / "j"))
    page.locator("#job-panel").wait_for(state="visible")
    page.wait_for_function("() => document.getElementById('job-time').textContent.includes('left')")
    progress = store_data(page, "job-progress")
    assert progress["kind"] == "slow" and progress["nonce"] == nonce and progress["total"] == 50
    assert page.locator("#job-text").inner_text().startswith("Step ")
    answer = result(page, nonce)
    assert answer["ok"] and answer["error"] is None and not answer["cancelled"]
    wait_for_jobs(page)
    assert page.locator("#job-text").text_content() == "Starting"
    assert answer["keys"][0] in Results(app.settings.cache / "results")


def test_jobs_start_quickly_with_torch_at_hand(new_page: Callable[..., Page], app: LiveApp) -> None:
    page = opened(new_page, app)
    result(page, ask(page, "surroundings", turn=0))
    began = time.monotonic()
    answer = result(page, ask(page, "surroundings", turn=1))
    took = time.monotonic() - began
    found = Results(app.settings.cache / "results").get(answer["keys"][0])
    assert found["torch_ready"] and not found["dash"] and found["value"] == 200.0**3
    assert took < 1.5 * slack(), took
    print(f"request to answer {took:.2f} s")


def test_two_users_with_equal_requests_both_get_the_result(new_page: Callable[..., Page], app: LiveApp, tmp_path: Path) -> None:
    first, second = opened(new_page, app), opened(new_page, app)
    params = {"seconds": 1.0, "journal": str(tmp_path / "journal")}
    nonces = ask(first, "slow", **params), ask(second, "slow", **params)
    one, two = result(first, nonces[0]), result(second, nonces[1])
    assert one["ok"] and two["ok"] and one["keys"] == two["keys"]
    assert [entry[0] for entry in journal(tmp_path / "journal")] == ["begin", "end"]


def test_two_users_get_each_their_own_result(new_page: Callable[..., Page], app: LiveApp) -> None:
    first, second = opened(new_page, app), opened(new_page, app)
    nonces = ask(first, "slow", seconds=0.5, which=1), ask(second, "refused")
    assert result(first, nonces[0])["ok"]
    assert not result(second, nonces[1])["ok"]
    assert store_data(first, "job-result")["nonce"] == nonces[0]
    assert not first.locator("#job-toast").is_visible()


def test_failures_are_sentences_and_the_page_stays_usable(new_page: Callable[..., Page], app: LiveApp) -> None:
    page = opened(new_page, app)
    toast = page.locator("#job-toast")
    answer = result(page, ask(page, "killed"))
    assert answer == {"kind": "killed", "nonce": answer["nonce"], "ok": False, "keys": [], "error": jobs.KILLED, "cancelled": False}
    toast.wait_for(state="visible")
    assert "memory" in toast.inner_text()
    wait_for_jobs(page)
    assert result(page, ask(page, "slow", seconds=0.1, after="killed"))["ok"]
    toast.wait_for(state="hidden")
    # A sentence for the user arrives as it is; of any other error the first line does, and the log has the trace.
    assert result(page, ask(page, "refused"))["error"] == "Layer layer9 does not exist; choose another one."
    toast.wait_for(state="visible")
    assert result(page, ask(page, "broken"))["error"] == "The computation failed (ValueError: first line); see the log."
    assert "cannot compute" in result(page, ask(page, "os:system"))["error"]
    # Slots that killed jobs held are free again.
    for _ in range(app.settings.slots):
        assert result(page, ask(page, "killed"))["error"] == jobs.KILLED
    assert result(page, ask(page, "slow", seconds=0.1, after="slots"))["ok"]


def test_cancel_ends_the_job_and_its_children_within_a_second(new_page: Callable[..., Page], app: LiveApp, tmp_path: Path) -> None:
    page = opened(new_page, app)
    nonce = ask(page, "with_children", journal=str(tmp_path / "journal"))
    entry = wait_until(lambda: journal(tmp_path / "journal"), what="the job begins")[0]
    page.locator("#job-panel").wait_for(state="visible")
    began = time.monotonic()
    page.locator("#job-cancel").click()
    wait_until(lambda: all(gone(int(pid)) for pid in entry[1:3]), 1.0 * slack(), "the processes end")
    print(f"cancelled in {time.monotonic() - began:.2f} s")
    answer = result(page, nonce)
    assert answer["cancelled"] and answer["error"] is None
    page.locator("#job-panel").wait_for(state="hidden")
    assert not page.locator("#job-toast").is_visible()
    assert result(page, ask(page, "slow", seconds=0.1, after="cancel"))["ok"]


def test_cancel_is_heard_before_the_server_has_said_that_the_job_started(page: Page, app: LiveApp, tmp_path: Path) -> None:
    page.goto(app.url + "/")
    wait_idle(page)
    request = {"kind": "slow", "page": "/", "params": {"seconds": 600, "journal": str(tmp_path / "journal")}, "nonce": next(_nonces)}
    page.evaluate(
        """request => {
            window.dash_clientside.set_props("job-request", {data: request});
            document.getElementById("job-cancel").click();
        }""",
        request,
    )
    assert result(page, request["nonce"])["cancelled"]
    page.locator("#job-panel").wait_for(state="hidden")


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_job_that_ends_between_two_questions_is_not_given_up(settings: Settings, cancelled: bool) -> None:
    manager = jobs.JobManager(settings)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        request = {"kind": "slow", "nonce": 1}
        manager.handle.set("key-job", {"request": request, "pid": process.pid, "created": psutil.Process(process.pid).create_time()})
        assert manager.get_result("key", "key") is manager.UNDEFINED
        manager.terminate_job("key") if cancelled else process.kill()
        process.wait()
    # Dash asks whether a job runs after it has asked for its result, and forgets one that does not.
    assert manager.job_running("key")
    assert manager.get_result("key", "key") == worker.answer(request, error=None if cancelled else jobs.KILLED, cancelled=cancelled)
    assert not manager.job_running("key")


def test_leaving_the_page_cancels(new_page: Callable[..., Page], app: LiveApp, tmp_path: Path) -> None:
    page = opened(new_page, app)
    ask(page, "slow", seconds=60, journal=str(tmp_path / "journal"))
    entry = wait_until(lambda: journal(tmp_path / "journal"), what="the job begins")[0]
    page.locator("#job-panel").wait_for(state="visible")
    page.locator("a.dv-nav-link").nth(1).click()
    wait_until(lambda: gone(int(entry[1])), 2.0 * slack(), "the process ends")
    page.locator("#job-panel").wait_for(state="hidden")
    assert not page.locator("#job-toast").is_visible()
    wait_idle(page)
    assert result(page, ask(page, "slow", seconds=0.1, after="leaving"))["ok"]


def test_a_new_request_replaces_the_one_before(new_page: Callable[..., Page], app: LiveApp, tmp_path: Path) -> None:
    page = opened(new_page, app)
    ask(page, "slow", seconds=60, journal=str(tmp_path / "journal"), which="old")
    entry = wait_until(lambda: journal(tmp_path / "journal"), what="the job begins")[0]
    page.wait_for_timeout(300)
    assert result(page, ask(page, "slow", seconds=0.1, which="new"))["ok"]
    wait_until(lambda: gone(int(entry[1])), 2.0 * slack(), "the old job ends")


def test_no_more_jobs_at_once_than_slots(new_page: Callable[..., Page], app: LiveApp, tmp_path: Path) -> None:
    pages = [opened(new_page, app) for _ in range(3)]
    nonces = [ask(page, "slow", seconds=2.0, journal=str(tmp_path / "journal"), which=i) for i, page in enumerate(pages)]
    waited = []
    while not all((store_data(page, "job-result") or {}).get("nonce") == nonce for page, nonce in zip(pages, nonces, strict=True)):
        waited += [text for page in pages if "slot" in (text := page.locator("#job-text").text_content() or "")]
        pages[0].wait_for_timeout(50)
    assert waited and waited[0] == "Waiting for a free slot"
    times = [(float(entry[2]), 1 if entry[0] == "begin" else -1) for entry in journal(tmp_path / "journal")]
    at_once = list(itertools.accumulate(step for _, step in sorted(times)))
    assert len(times) == 6 and max(at_once) == 2


def test_the_queue_keeps_nothing(new_page: Callable[..., Page], app: LiveApp) -> None:
    page = opened(new_page, app)
    result(page, ask(page, "slow", seconds=0.1, last=True))
    wait_idle(page)
    manager = app.app._background_manager
    left = [name for name in manager.handle if name != manager.SIGNING_SECRET_KEY]
    # What other tests left behind (a cancelled request is never fetched) goes when its time is over.
    for name in left:
        _, expires = manager.handle.get(name, expire_time=True)
        assert expires is not None and expires <= time.time() + worker.KEEP_SECONDS
    assert os.stat(app.settings.cache).st_mode & 0o077 == 0
