"""Make the pictures of the README from the demo runs: `python tests/screenshots.py`.

Starts the app on `data/`, opens each page in Chromium, waits until it is drawn and its job has ended, and writes
`assets/screenshots/<page>.png`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

OUT = ROOT / "assets" / "screenshots"
# name → (path with query, theme)
VIEWS = {
    "layers": ("/?run=shapes&show=class:1&layer=features.conv3&unit=5", "light"),
    "architecture": ("/?run=shapes&view=graph&health=active", "light"),
    "evolution": ("/evolution?run=digits&epoch=3", "light"),
    "compare": ("/compare?run=digits&show=class:8&run2=digits-tampered&show2=class:8", "light"),
    "attribution": ("/attribution?run=shapes&n=6&methods=saliency,guided_backprop,grad_cam,guided_grad_cam,lrp,deeplift,feature_ablation", "light"),
    "embedding": ("/embedding?run=digits&method=umap&layer=classifier.hidden", "light"),
    "adversarial": ("/adversarial?run=shapes&show=input:3", "light"),
    "diagnosis": ("/diagnosis?run=digits-tampered", "light"),
    "pruning": ("/diagnosis?run=digits&view=pruning", "light"),
    "tampering": ("/diagnosis?run=digits-tampered&view=tampering", "light"),
    "dark": ("/?run=digits&show=class:3&layer=features.conv4&unit=0", "dark"),
}

CLICKS = {"adversarial": "Attack", "pruning": "Verify"}  # the button that asks for what is shown

SIZES = {"pruning": (1920, 1080)}  # what needs more room than 1440 × 900


def main() -> int:
    from playwright.sync_api import sync_playwright

    from dnnviz import server
    from dnnviz.settings import DEMO_RUNS, Settings
    from tests.conftest import wait_for_jobs

    OUT.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[1:] or list(VIEWS)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(runs=(DEMO_RUNS,), cache=Path(folder), port=0)
        listening = server.listen(settings, server.build(settings, ROOT))
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox", "--disable-gpu"])
            for name in wanted:
                address, theme = VIEWS[name]
                width, height = SIZES.get(name, (1440, 900))
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                page.goto(f"http://127.0.0.1:{listening.port}{address}")
                if name in CLICKS:
                    page.get_by_role("button", name=CLICKS[name], exact=True).click()
                # A job starts a moment after the page is drawn, and what it computed is drawn a moment after it.
                for _ in range(3):
                    page.wait_for_timeout(1500)
                    wait_for_jobs(page, 180_000)
                page.screenshot(path=OUT / f"{name}.png")
                page.close()
                print(OUT / f"{name}.png")
            browser.close()
        listening.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
