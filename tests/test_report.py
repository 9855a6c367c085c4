"""The report: the file asks for nothing, opens without a complaint, and its numbers are the library's."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import dnnviz
from dnnviz import cli
from dnnviz.analysis.comparison import Side, compare
from dnnviz.analysis.diagnosis import Subject, diagnose
from dnnviz.report.charts import draw
from dnnviz.report.grids import cells
from dnnviz.results import Results
from dnnviz.settings import DEMO_RUNS, Settings
from dnnviz.theme import PALETTE
from tests.conftest import wait_for_jobs
from tests.runs import write_run


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNVIZ_CACHE", str(tmp_path / "cache"))


def numbers(text):
    """The numbers that a report holds as JSON."""
    return json.loads(re.search(r'<script type="application/json" id="numbers">(.*?)</script>', text, re.S)[1])


def test_the_file_opens_without_a_request_and_its_numbers_are_the_librarys(tmp_path, new_page, capsys):
    out = tmp_path / "report.html"
    tampered, clean = DEMO_RUNS / "digits-tampered", DEMO_RUNS / "digits"
    assert cli.main(["report", str(tampered), "--against", str(clean), "-o", str(out)]) == 0
    assert "report.html" in capsys.readouterr().out
    run, other = dnnviz.open_run(tampered), dnnviz.open_run(clean)

    page = new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: page.problems.append(f"console: {message.text}"))
    page.goto(out.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [out.as_uri()]
    assert page.locator("img").count() > 60
    assert page.locator("img").evaluate_all("images => images.every((image) => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    text = page.locator("body").inner_text()

    held = numbers(out.read_text(encoding="utf-8"))
    found = {f.check: f for f in diagnose(Subject(run, 25, Results(Settings.from_environment().private_cache() / "results")))}
    assert {name: entry["severity"] for name, entry in held["findings"].items()} == {name: f.severity for name, f in found.items()}
    assert held["findings"]["preprocessing"]["severity"] == "fine"
    for finding in found.values():
        assert finding.sentence in text
    assert held["findings"]["calibration"]["values"] == pytest.approx(dict(found["calibration"].values))
    assert held["metrics"]["25"]["splits"]["test"]["accuracy"] == run.metrics(25)["splits"]["test"]["accuracy"]
    assert f"{100 * run.metrics(25)['splits']['test']['accuracy']:.2f} %" in text

    rows = run.input_splits == run.splits.index("test")
    right = run.logits(25)[rows].argmax(1) == run.labels[rows]
    for k, name in enumerate(run.classes):
        of = run.labels[rows] == k
        assert held["classes"][name] == {"inputs": int(of.sum()), "right": int(right[of].sum())}
    distances = compare(Side(run, 25), Side(other, 25)).distances
    assert list(held["against"]["layers"].values()) == pytest.approx(distances.tolist())
    assert f"features.conv1\t{distances[0]:.3f}" in text
    worst = held["against"]["classes"][8]
    assert worst[:3] == ["8", pytest.approx(right[run.labels[rows] == 8].mean()), pytest.approx(1.0)]
    sides = [Side(each, 25, "class:8") for each in (run, other)]
    assert worst[3] == pytest.approx(float(np.sqrt(np.mean(compare(*sides).difference ** 2))))


def test_hard_names_many_classes_and_missing_things_fit(tmp_path):
    name = '<script>alert("x")</script> & a name of some length, longer than any column is wide'
    run = write_run(tmp_path / "run", epochs=(0,), inputs=60, classes=30, splits=("data",))
    manifest = json.loads((run.path / "run.json").read_text())
    manifest["classes"][0] = name
    manifest["preprocessing"] |= {"mean": None, "std": None}
    (run.path / "run.json").write_text(json.dumps(manifest))
    # Units without any activation, and outputs that are not numbers.
    folder = run.path / "snapshots" / "000000"
    for array in ("data_mean", "data_std", "active"):
        np.save(folder / f"{array}.npy", np.zeros_like(np.load(folder / f"{array}.npy")))
    out = tmp_path / "report.html"
    assert cli.main(["report", str(run.path), "-o", str(out), "--no-network"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert numbers(text)["findings"]["dead"]["severity"] in ("attention", "unknown")
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<script.*?</script>", "", text, flags=re.S))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{runs}/nothing", "-o", "{tmp}/r.html"], "is not a folder"),
        (["{runs}/digits", "-o", "{tmp}/none/r.html"], "There is no folder"),
        (["{runs}/digits", "-o", "{tmp}"], "is a folder; -o names a file"),
        (["{runs}/digits", "-o", "{tmp}/there.html"], "is there already"),
        (["{runs}/digits", "--epoch", "7", "-o", "{tmp}/r.html"], "no snapshot of epoch 7"),
        (["{runs}/digits", "--against", "{runs}/nothing", "-o", "{tmp}/r.html"], "is not a folder"),
        (["{runs}/digits", "--against", "{runs}/shapes", "--against-epoch", "99", "-o", "{tmp}/r.html"], "no snapshot of epoch 99"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(tmp_path, capsys, arguments, says):
    (tmp_path / "there.html").write_text("mine")
    assert cli.main(["report", *(part.format(runs=DEMO_RUNS, tmp=tmp_path) for part in arguments)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert (tmp_path / "there.html").read_text() == "mine"
    assert not list(tmp_path.glob("r.html*"))


def test_charts_hold_what_they_are_given():
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    for finding in diagnose(Subject(run, 25, Results(Settings.from_environment().private_cache() / "results"))):
        if finding.picture is not None:
            drawn = draw(finding.picture, PALETTE["dark"])
            assert drawn.startswith("<svg") and "nan" not in drawn
            assert all(name in drawn for name in getattr(finding.picture, "names", ()))
    assert cells(np.array([-1.0, 0.0, 3.0, np.nan])).tolist() == [0.0, 0.25, 1.0, 0.25]
    assert cells(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_the_page_offers_the_same_report(page, live_app):
    page.goto(live_app.url + "/diagnosis?run=digits&epoch=20")
    button = page.get_by_role("link", name="Report")
    button.wait_for()
    wait_for_jobs(page)
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == "dnnviz-digits-epoch20-report.html"
    text = download.value.path().read_text(encoding="utf-8")
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    assert numbers(text)["metrics"]["20"]["accuracy"] == run.metrics(20)["accuracy"]
    assert "<h1>digits, epoch 20</h1>" in text
    answer = page.request.get(live_app.url + "/data/digits/report.html?epoch=7")
    assert answer.status == 400
    assert "no snapshot of epoch 7" in answer.json()["error"]
    assert page.request.get(live_app.url + "/data/nothing/report.html").status in (400, 404)
