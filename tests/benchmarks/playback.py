"""Frames a second of the evolution page's playback, more than 10,000 cells in view: run `python tests/benchmarks/playback.py`.

Makes a run of 10,240 units × 20 snapshots, opens it in Chromium at 1920 × 1200 (software rendering) and plays it for some
seconds, smooth and with events marked, which is the most work a frame can be. Prints frames drawn a second, the time that
drawing one takes in JavaScript, and the requests to the server during playback (there must be none).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dnnviz import server
from dnnviz.settings import Settings
from dnnviz.store import Layer
from tests.runs import write_run

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 30.0
MEASURE = """async (seconds) => {
    const grid = window.dnnviz.evolutionGrid();
    const paint = grid.paint;
    const gaps = [];
    let last = 0, spent = 0;
    grid.paint = function () {
        const before = performance.now();
        paint.call(grid);
        spent += performance.now() - before;
        if (last) gaps.push(before - last);
        last = before;
    };
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    grid.paint = paint;
    gaps.sort((a, b) => a - b);
    return {frames: gaps.length / seconds, slow: gaps[Math.floor(0.95 * gaps.length)], paint: spent / (gaps.length + 1), cells: grid.drawn};
}"""


def busy(session: CDPSession) -> float:
    """CPU seconds that the page's thread has spent on tasks."""
    return next(entry["value"] for entry in session.send("Performance.getMetrics")["metrics"] if entry["name"] == "TaskDuration")


def main() -> int:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    layers = [Layer(f"{'features' if i < 5 else 'head'}.conv{i}", "conv", 1024, (1024, 8, 8), 1024 * i) for i in range(10)]
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        write_run(runs / "large", epochs=range(given.epochs), layers=layers, inputs=40, classes=10)
        settings = Settings(runs=(runs,), cache=Path(folder) / "cache", port=0)
        listening = server.listen(settings, server.build(settings, ROOT))
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1920, "height": 1200})
            page.goto(f"http://127.0.0.1:{listening.port}/evolution?run=large&cell=7&epoch=0")
            page.wait_for_function("() => window.dnnviz?.evolutionGrid?.()?.drawn && document.querySelector('#evolution-layers .js-plotly-plot')")
            page.wait_for_timeout(3000)
            page.click("#evolution-play")
            requests: list[str] = []
            # The shell asks now and then whether the server is still there.
            page.on("request", lambda request: None if request.url.endswith("/health") else requests.append(request.url))
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            before = busy(session)
            found = page.evaluate(MEASURE, given.seconds)
            cpu = 1000 * (busy(session) - before) / max(1.0, found["frames"] * given.seconds)
            played = list(requests)
            browser.close()
        listening.shutdown()
    print(f"{found['cells']:,} cells in view, {given.epochs} snapshots, smooth, events marked, charts shown")
    print(f"frames a second   {found['frames']:6.1f}   (wanted: at least {FRAMES:.0f})")
    print(f"95 % of frames within {found['slow']:.0f} ms; drawing the cells takes {found['paint']:.2f} ms a frame")
    print(f"CPU time of the page's thread: {cpu:.1f} ms a frame, on a machine with a load of {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"requests to the server during playback: {len(played)}", *played[:3])
    return 0 if found["frames"] >= FRAMES and found["cells"] >= 10_000 and not played else 1


if __name__ == "__main__":
    sys.exit(main())
