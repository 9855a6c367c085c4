"""The report: the file asks for nothing, opens without a complaint, and its numbers are the library's."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from flask import Flask
from PIL import Image

import dnnviz
from dnnviz import cli, endpoints
from dnnviz.analysis.comparison import compare, significance
from dnnviz.analysis.diagnosis import Subject, diagnose
from dnnviz.analysis.matching import layer_similarity
from dnnviz.analysis.moves import moves
from dnnviz.analysis.sides import Side
from dnnviz.catalogue import Catalogue
from dnnviz.drawing import as_svg
from dnnviz.report import endpoint
from dnnviz.report.charts import draw
from dnnviz.report.grids import cells
from dnnviz.results import Results
from dnnviz.settings import DEMO_RUNS, Settings
from dnnviz.theme import PALETTE
from tests.runs import LAYERS, write_run


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNVIZ_CACHE", str(tmp_path / "cache"))


def numbers(text):
    """The numbers that a report holds as JSON."""
    return json.loads(re.search(r'<script type="application/json" id="numbers">(.*?)</script>', text, re.S)[1])


def test_the_file_opens_without_a_request_and_its_numbers_are_the_librarys(tmp_path, new_page, capsys):
    out = tmp_path / "report.html"
    tampered, clean = DEMO_RUNS / "digits-tampered", DEMO_RUNS / "digits"
    pictures = tmp_path / "pictures"
    assert cli.main(["report", str(tampered), "--against", str(clean), "-o", str(out), "--pictures", str(pictures), "--scale", "1"]) == 0
    assert "report.html" in capsys.readouterr().out
    run, other = dnnviz.open_run(tampered), dnnviz.open_run(clean)

    page = new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: page.problems.append(f"console: {message.text}"))
    page.goto(out.as_uri())
    assert [url for url in asked if not url.startswith("data:")] == [out.as_uri()]
    assert page.locator("figure image").count() > 100

    # The files hold what the page shows: the same matrix, drawn by the browser and by Pillow.
    listed = json.loads((pictures / "pictures.json").read_text(encoding="utf-8"))
    names = ["health-tampering", "accuracy", "loss", "confusion", "calibration", "layers", "units"]
    names += [f"against-{name}" for name in ("layers", "units", "similarity", "predictions")]
    assert list(listed["pictures"]) == [f"{name}.png" for name in names]
    assert sorted(path.name for path in pictures.iterdir()) == listed["files"]
    label = listed["pictures"]["against-similarity.png"]
    shown = Image.open(io.BytesIO(page.get_by_role("img", name=label).screenshot())).convert("RGB")
    kept = Image.open(pictures / "against-similarity.png").crop((12, 12, 12 + shown.width, 12 + shown.height))
    coarse = [np.asarray(each.resize((each.width // 8, each.height // 8), Image.Resampling.BOX), float) for each in (shown, kept)]
    assert np.abs(coarse[0] - coarse[1]).mean() < 6 < coarse[0].std()
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
    sides = [Side(each, 25) for each in (run, other)]
    p, _ = significance(*sides)
    alike, over = layer_similarity(run, 25, other, 25)
    assert list(held["against"]["p"].values()) == p.tolist()
    assert held["against"]["similarity"]["cka"] == alike.tolist()
    assert f"features.conv1\t{distances[0]:.3f}\t{p[0]:.3f}\t{alike[0, 0]:.3f}" in text
    assert f"Linear CKA over {over}" in text
    most = int(np.abs(compare(*sides).difference).argmax())
    assert held["against"]["units"][0]["difference"] == pytest.approx(compare(*sides).difference[most])
    moved = moves(*(Side(each, 25, split="test") for each in (run, other)))
    counts = {"inputs": 120, "moved": int(moved.moved.sum()), "mended": int(moved.mended.sum()), "broken": int(moved.broken.sum())}
    assert held["against"]["predictions"] == {**counts, "p": moved.p_value()}
    assert f"{counts['moved']} of 120 inputs of test are predicted as another class" in text
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


def test_networks_that_share_no_layer_are_compared_layer_by_layer(tmp_path):
    other = write_run(tmp_path / "other", epochs=(0,), inputs=24, layers=[replace(e, name=f"other.{e.name}") for e in LAYERS[:3]])
    run = write_run(tmp_path / "run", epochs=(0,), inputs=24, seed=1)
    out, pictures = tmp_path / "report.html", tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "health-stale.png").write_bytes(b"of an earlier report")
    (pictures / "mine.png").write_bytes(b"mine")
    (pictures / "pictures.json").write_text('{"files": ["health-stale.png", "pictures.json"]}')
    arguments = ["report", str(run.path), "--against", str(other.path), "-o", str(out), "--no-network", "--pictures", str(pictures)]
    assert cli.main(arguments) == 2, "the folder holds something"
    assert cli.main([*arguments, "--overwrite"]) == 0
    held = numbers(out.read_text(encoding="utf-8"))["against"]
    assert (held["layers"], held["p"], held["units"]) == ({}, None, [])
    assert np.array(held["similarity"]["cka"]).shape == (4, 3)
    assert held["similarity"]["second"] == ["other.conv1", "other.layer1.0.conv1", "other.layer1.0"]
    assert held["predictions"]["inputs"] == 12, "those held out"
    assert "share no layer" in out.read_text(encoding="utf-8")
    assert Image.open(pictures / "against-similarity.png").width > 200
    assert not (pictures / "health-stale.png").exists() and (pictures / "mine.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{runs}/nothing", "-o", "{tmp}/r.html"], "is not a folder"),
        (["{runs}/digits", "-o", "{tmp}/none/r.html"], "There is no folder"),
        (["{runs}/digits", "-o", "{tmp}"], "is a folder; -o names a file"),
        (["{runs}/digits", "-o", "{tmp}/there.html"], "is there already"),
        (["{runs}/digits", "-o", "{tmp}/r.html", "--pictures", "{tmp}/there.html"], "--pictures names a folder"),
        (["{runs}/digits", "-o", "{tmp}/r.html", "--scale", "0"], "--scale is 0"),
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
            drawn = as_svg(draw(finding.picture, PALETTE["dark"]))
            assert drawn.startswith("<svg") and "nan" not in drawn
            assert all(name in drawn for name in getattr(finding.picture, "names", ()))
    assert cells(np.array([-1.0, 0.0, 3.0, np.nan])).tolist() == [0.0, 0.25, 1.0, 0.25]
    assert cells(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_the_app_gives_the_same_report_and_its_pictures(tmp_path):
    server = Flask("test")
    write_run(tmp_path / "runs" / "数字")
    settings = Settings(runs=(DEMO_RUNS, tmp_path / "runs"), cache=tmp_path / "cache")
    endpoints.register(server, endpoints.Context(settings, Catalogue(settings.runs), Results(tmp_path / "cache")))
    endpoint.register(server)
    with server.test_client() as client:
        answer = client.get("/data/digits/report.html?epoch=20")
        assert answer.headers["Content-Disposition"] == "attachment; filename=dnnviz-digits-epoch20-report.html"
        assert numbers(answer.text)["metrics"]["20"]["accuracy"] == dnnviz.open_run(DEMO_RUNS / "digits").metrics(20)["accuracy"]
        assert "<h1>digits, epoch 20</h1>" in answer.text
        # Held against another run at the same epoch, or at one of its own.
        answer = client.get("/data/digits/report.zip?epoch=20&against=digits-tampered")
        assert answer.headers["Content-Disposition"] == "attachment; filename=dnnviz-digits-epoch20-report.zip"
        with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
            files = {name.partition("/")[2]: name for name in archive.namelist()}
            held = numbers(archive.read(files["report.html"]).decode())
            assert (held["against"]["run"], held["against"]["epoch"]) == ("digits-tampered", 20)
            assert Image.open(io.BytesIO(archive.read(files["pictures/against-units.png"]))).width > 1000
        answer = client.get("/data/digits/report.html?against=digits&against_epoch=0")
        assert "Against digits, epoch 0" in answer.text
        # A header holds no such letters as they are; sent so, the connection breaks.
        answer = client.get("/data/数字/report.html")
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"].isascii()
        answer = client.get("/data/digits/report.html?epoch=7")
        assert (answer.status_code, "no snapshot of epoch 7" in answer.json["error"]) == (400, True)
        assert client.get("/data/nothing/report.html").status_code in (400, 404)
