"""What a background job does, in its own process: take a slot, run the task, report progress, leave one answer."""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dnnviz.errors import DNNVizError
from dnnviz.results import Results, key
from dnnviz.settings import Settings

QUEUE = "jobs"  # folder of the queue in the private cache
KEEP_SECONDS = 3600.0  # what a closed tab never fetched is removed after this time
REPORT_SECONDS = 0.2

log = logging.getLogger("dnnviz")


def answer(request: dict[str, Any] | None, keys: list[str] | None = None, error: str | None = None, cancelled: bool = False) -> dict[str, Any]:
    """The answer to a request: {kind, nonce, ok, keys, error, cancelled}."""
    request = request if isinstance(request, dict) else {}
    return {
        "kind": request.get("kind"),
        "nonce": request.get("nonce"),
        "ok": error is None and not cancelled,
        "keys": keys or [],
        "error": error,
        "cancelled": cancelled,
    }


def progress_key(job: str) -> str:
    """Where the queue holds the progress of a job."""
    return f"{job}-progress"


def main(job: str, target: str, request: dict[str, Any], settings: Settings) -> None:
    """Run `target` ("module:function") for a request and store the answer in the queue under `job`.

    This is the first function of a job's process.
    """
    import diskcache

    _live_with_the_app()
    with contextlib.suppress(OSError):
        # Where memory runs out, the system should end a job and not the app.
        Path("/proc/self/oom_score_adj").write_text("500")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(max(1, (os.cpu_count() or 1) // settings.slots))
    cache = settings.private_cache()
    with diskcache.Cache(str(cache / QUEUE)) as queue:
        progress = Progress(request, lambda shown: queue.set(progress_key(job), shown, expire=KEEP_SECONDS))
        try:
            with _turn(cache, request, settings.slots, progress):
                progress.begin()
                module, _, function = target.partition(":")
                task = getattr(importlib.import_module(module), function)
                result = answer(request, keys=[str(k) for k in task(settings, request.get("params") or {}, progress.report)])
        except DNNVizError as error:
            result = answer(request, error=str(error))
        except MemoryError:
            log.exception("job %s ran out of memory", request.get("kind"))
            result = answer(request, error="There is not enough memory for this; ask for fewer inputs at once.")
        except Exception as error:
            log.exception("job %s failed", request.get("kind"))
            first = (str(error).strip().splitlines() or [""])[0]
            result = answer(request, error=f"The computation failed ({type(error).__name__}{': ' + first if first else ''}); see the log.")
        progress.end()
        queue.set(job, result, expire=KEEP_SECONDS)


def compile_ahead() -> None:
    """Let UMAP compile what it needs and keep it on disk, so that nobody waits for it. The first function of its own process."""
    _live_with_the_app()
    with contextlib.suppress(OSError, AttributeError):
        os.nice(15)
    try:
        from dnnviz.project import warm

        warm()
    except Exception as error:
        # Only speed hangs on it; a projection that needs it reports what is wrong to the person who asked.
        log.info("UMAP could not be compiled ahead of time: %s", error)


class Progress:
    """Turns a task's reports into what the shell shows, at most five a second."""

    def __init__(self, request: dict[str, Any], send: Callable[[list[Any]], object]) -> None:
        self._request = request
        self._send = send
        self._started = time.monotonic()
        self._sent = float("-inf")
        self._text = ""
        self._late: tuple[float, float, str] | None = None
        self._lock = threading.RLock()

    def begin(self) -> None:
        """Count time from here: waiting for a turn says nothing about how long the work takes."""
        self._started = time.monotonic()

    def report(self, done: float, total: float, text: str = "") -> None:
        """Say that `done` of `total` steps are done and what is being done."""
        with self._lock:
            wait = self._sent + REPORT_SECONDS - time.monotonic()
            if wait <= 0:
                self._late = None
                self._show(done, total, text)
                return
            if wait == float("inf"):
                return
            # A long step may follow: what is said now is shown a little later, unless something newer is.
            if self._late is None:
                timer = threading.Timer(wait + 0.01, self._catch_up)
                timer.daemon = True
                timer.start()
            self._late = (done, total, text)

    def end(self) -> None:
        """Show nothing more."""
        with self._lock:
            self._sent, self._late = float("inf"), None

    def _catch_up(self) -> None:
        with self._lock:
            if self._late is not None:
                self.report(*self._late)

    def _show(self, done: float, total: float, text: str) -> None:
        now = self._sent = time.monotonic()
        self._text = text or self._text
        elapsed = now - self._started
        remaining = elapsed * (total - done) / done if 0 < done <= total else None
        data = {
            "kind": self._request.get("kind"),
            "nonce": self._request.get("nonce"),
            "done": done,
            "total": total,
            "text": self._text,
            "elapsed": round(elapsed, 1),
            "remaining": None if remaining is None else round(remaining, 1),
        }
        share = 100.0 * done / total if total else 0.0
        self._send([data, f"{min(max(share, 0.0), 100.0):.1f}", self._text, _times(elapsed, remaining)])

    def waiting(self, text: str) -> None:
        """Say what the job waits for."""
        self.report(0, 1, text)


def _times(elapsed: float, remaining: float | None) -> str:
    if remaining is None or elapsed < 1:
        return f"{duration(elapsed)} so far" if elapsed >= 1 else ""
    return f"{duration(elapsed)} so far, about {duration(remaining)} left"


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8 s`, `2 min 5 s`, `1 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def _turn(cache: Path, request: dict[str, Any], slots: int, progress: Progress) -> Iterator[None]:
    """Wait until no equal request is at work, then for one of the slots.

    Both are file locks: the kernel frees them when a job is killed. Who waits for its equal holds no slot, and finds
    the result in the cache afterwards.
    """
    same = Results(cache / "results").lock(key("job", task=request.get("kind"), params=request.get("params")))
    folder = cache / "slots"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_first_free([same], progress, "Waiting: the same is being computed for another view"))
        stack.enter_context(_first_free([FileLock(folder / f"{i}.lock") for i in range(slots)], progress, "Waiting for a free slot"))
        yield


@contextlib.contextmanager
def _first_free(locks: list[FileLock], progress: Progress, text: str) -> Iterator[None]:
    held = None
    while held is None:
        for lock in locks:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            held = lock
            break
        else:
            progress.waiting(text)
            time.sleep(0.05)
    try:
        yield
    finally:
        held.release()


def _live_with_the_app() -> None:
    # Ctrl-C reaches every process of the terminal; the app ends its jobs itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_app, daemon=True).start()


def _end_with_the_app() -> None:
    """End this process when the app's process is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)
