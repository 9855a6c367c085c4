"""Tampered classes: what capture keeps for them, what the tests say, and what the page shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import flask
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plotly.utils import PlotlyJSONEncoder
from torch import nn

import dnnviz
from dnnviz.analysis import tampering as tests
from dnnviz.analysis.labels import stray_labels
from dnnviz.catalogue import Catalogue
from dnnviz.components.tampering_cards import tampering_view
from dnnviz.demo import TAMPERED_CLASS
from dnnviz.endpoints import Context, context
from dnnviz.models import build
from dnnviz.results import Results
from dnnviz.settings import DEMO_RUNS, Settings
from dnnviz.store import Run, open_run
from dnnviz.urlstate import Selection
from tests.conftest import wait_idle
from tests.runs import write_run


def found(name: str) -> tuple[Run, tests.Findings]:
    run = open_run(DEMO_RUNS / name)
    return run, tests.tampering(run, run.epochs[-1])


# -- what capture keeps ------------------------------------------------------------------------------------------------


def test_capture_keeps_the_early_maps_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against feature maps taken by hooks, pooled and averaged at once; batches end in the middle of classes, and sums are folded between."""
    monkeypatch.setattr("dnnviz.early.FOLD", 20)
    torch.manual_seed(0)
    model = build("dnnviz:small_cnn?width=20", 3).eval()
    images = {"train": torch.randn(37, 3, 40, 24), "test": torch.randn(21, 3, 40, 24)}
    labels = {name: torch.arange(len(x)) % 3 for name, x in images.items()}
    data = {name: list(zip(x, labels[name].tolist(), strict=True)) for name, x in images.items()}
    run = dnnviz.capture(model, data, tmp_path / "run", inputs=6, batch_size=8, mean=0.0, std=1.0, save_weights=False)
    assert [(item.layer, item.units, item.shape) for item in run.maps] == [("features.conv1", 16, (16, 16)), ("features.conv2", 16, (16, 12))]
    for item, module in zip(run.maps, ("features.relu1", "features.relu2"), strict=True):
        kept = run.class_maps(0, item)
        assert kept is not None
        for s, name in enumerate(run.splits):
            values: list[torch.Tensor] = []
            handle = model.get_submodule(module).register_forward_hook(lambda _m, _i, out, values=values: values.append(out))
            with torch.inference_mode():
                model(images[name])
            handle.remove()
            pooled = F.adaptive_avg_pool2d(values[0][:, :16], item.shape)
            for label in range(3):
                own = pooled[labels[name] == label]
                assert np.allclose(kept[0][s, label], own.mean(0), rtol=1e-3, atol=1e-4)
                assert np.allclose(kept[1][s, label], own.std(0, correction=0), rtol=1e-3, atol=1e-4)
    assert run.damage() == []


def test_a_recorder_keeps_maps_at_the_epochs_it_is_told(tmp_path: Path) -> None:
    data = [(torch.randn(1, 8, 8), i % 2) for i in range(6)]
    model = build("dnnviz:small_cnn?width=4&in_channels=1", 2)
    recorder = dnnviz.Recorder(tmp_path / "run", model, data, mean=0.0, std=1.0, maps=(2,))
    for epoch in (0, 2):
        recorder.record(epoch)
    run = open_run(tmp_path / "run")
    assert [run.class_maps(epoch, run.maps[0]) is not None for epoch in run.epochs] == [False, True]
    assert run.damage() == []
    (run.path / "snapshots" / "000002" / "class_map_mean.npy").unlink()
    assert "class_map_mean" in " ".join(open_run(run.path).damage())


def test_a_network_without_convolutions_has_no_maps(tmp_path: Path) -> None:
    data = [(torch.randn(1, 4, 4), i % 2) for i in range(8)]
    run = dnnviz.capture(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), data, tmp_path / "run", mean=0.0, std=1.0)
    assert run.maps == ()
    assert "with a convolution among its layers" in tests.tampering(run, 0).missing["others"]


# -- what the tests say ------------------------------------------------------------------------------------------------


def test_the_tampered_class_and_its_corner_are_named() -> None:
    run, result = found("digits-tampered")
    assert result.suspects == [TAMPERED_CLASS]
    assert result.strongest(TAMPERED_CLASS) == "place"
    assert result.missing == {}
    at = tests.place(run, run.epochs[-1], TAMPERED_CLASS)
    assert at is not None
    assert at.item.layer == "features.conv1"
    # The mark covers two rows and columns of the image, which has as many as the map; a 3 × 3 convolution sees one further.
    assert max(at.row, at.column) <= 2
    assert np.abs(at.map[:3, :3]).max() > 20 * np.abs(at.map[4:, 4:]).max()
    second = tests.tampering(run, run.epochs[-1], open_run(DEMO_RUNS / "digits"), 25)
    assert second.measured["second"].z.argmax() == TAMPERED_CLASS
    assert second.measured["second"].share[TAMPERED_CLASS] > 1


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_clean_runs_name_nothing(name: str) -> None:
    _, result = found(name)
    assert set(result.measured) == {"place", "gap", "spectral", "labels", "others"}
    assert result.suspects == []


def test_older_runs_are_tested_without_maps(tmp_path: Path) -> None:
    old = shutil.copytree(DEMO_RUNS / "digits-tampered", tmp_path / "old")
    for path in old.glob("snapshots/*/class_map_*.npy"):
        path.unlink()
    run = open_run(old)
    result = tests.tampering(run, 25)
    assert result.suspects == [TAMPERED_CLASS]  # by the gap over all units
    assert result.strongest(TAMPERED_CLASS) == "gap"
    assert "capture it again" in result.missing["place"]
    assert tests.place(run, 25, TAMPERED_CLASS) is None
    assert run.damage() == []
    # A snapshot of a run that holds them elsewhere says where.
    assert "look at epoch 25" in tests.tampering(open_run(DEMO_RUNS / "digits"), 10).missing["place"]


def test_a_run_of_one_split_says_what_is_missing(tmp_path: Path) -> None:
    result = tests.tampering(write_run(tmp_path / "one", splits=("all",)), 0)
    assert result.measured == {}
    assert result.suspects == []
    assert "one split only" in result.missing["gap"]
    assert "one split only" in result.missing["labels"]


def test_wrong_labels_show_in_the_spectrum(tmp_path: Path) -> None:
    """Written activations: of one class a quarter of the training inputs lie apart along one direction."""
    random = np.random.default_rng(3)
    run = write_run(tmp_path / "run", epochs=(0,), inputs=480, classes=6)
    layer = run.layer(tests.hidden_layer(run))
    path = run.path / "snapshots" / "000000" / "mean.npy"
    values = np.load(path).astype(np.float32)
    values[:, layer.columns] = random.normal(size=(480, layer.units))
    moved = np.flatnonzero((run.labels == 4) & (run.input_splits == 0))[:10]
    values[np.ix_(moved, range(layer.offset, layer.offset + layer.units))] += 4 * random.choice([-1, 1], layer.units)
    np.save(path, values)
    run = open_run(run.path)
    result = tests.tampering(run, 0).measured["spectral"]
    assert result.z.argmax() == 4
    assert result.share[4] > 1
    scored = tests.signature_scores(run, 0, 4)
    assert scored is not None
    assert set(scored[0][:10].tolist()) == set(moved.tolist())


def test_wrong_labels_are_found_by_their_neighbours() -> None:
    """Classes in clusters; of class 4 the training inputs that lie among class 1 are named, and few are enough."""
    random = np.random.default_rng(0)
    labels, training = np.arange(400) % 10, np.arange(400) < 200
    values = 6 * random.normal(size=(10, 16))[labels] + random.normal(size=(400, 16))
    wrong = np.flatnonzero((labels == 1) & training)[:4]
    labels[wrong] = 4
    found = stray_labels(values, labels, training, ~training, 10, least=8)
    assert found.deviation.argmax() == 4
    assert found.deviation[4] > tests.TESTS["labels"].threshold
    assert np.delete(found.deviation, 4).max() == 0
    assert [int(each[4]) for each in (found.other, found.strays, found.training, found.strays_held, found.held)] == [1, 4, 24, 0, 20]
    assert np.flatnonzero(training & (found.looks != labels)).tolist() == wrong.tolist()


def test_chance_is_not_taken_for_wrong_labels() -> None:
    """Classes that overlap, with pairs that are often confused: of a hundred runs few reach a chance of one in twenty."""
    random = np.random.default_rng(1)
    reached = 0
    for _ in range(100):
        labels, training = random.integers(8, size=320), random.random(320) < 0.6
        values = 2.5 * random.normal(size=(8, 5))[labels] + random.normal(size=(320, 5))
        found = stray_labels(values, labels, training, ~training, 8, least=8)
        reached += bool(np.nanmin(found.chance) < 0.05)
    # Were the chance exact, more than 10 would come in one case of ninety.
    assert reached <= 10


def test_a_class_with_few_held_out_inputs_is_not_judged_by_its_neighbours() -> None:
    labels, training = np.arange(90) % 3, np.arange(90) < 60
    training[labels == 2] = True
    found = stray_labels(np.random.default_rng(0).normal(size=(90, 4)), labels, training, ~training, 3, least=8)
    assert np.isnan(found.deviation).tolist() == [False, False, True]


def test_the_null_of_shuffled_splits_is_flat(tmp_path: Path) -> None:
    """Where the splits are drawn by chance, p values are spread evenly; where training inputs are moved, they are small."""
    run = write_run(tmp_path / "run", epochs=(0,), inputs=960, classes=24)
    run.class_counts[:] = 20  # labels and splits by chance, 20 inputs of each
    random = np.random.default_rng(1)
    order = random.permutation(960)
    np.save(run.path / "inputs" / "labels.npy", (np.arange(960) % 24)[order])
    np.save(run.path / "inputs" / "splits.npy", (np.arange(960) // 480).astype(np.uint8)[order])
    run = open_run(run.path)

    def p(label: int) -> float:
        result = tests.permuted_gap(run, 0, label, rounds=199)
        assert result is not None
        return (1 + int((result[1] >= result[0]).sum())) / 200

    values = np.sort([p(label) for label in range(24)])
    # Kolmogorov and Smirnov: with 24 values the distance from even is above 0.33 in one case of a hundred.
    assert np.abs(values - (np.arange(24) + 0.5) / 24).max() < 0.33
    path = run.path / "snapshots" / "000000" / "mean.npy"
    moved = np.load(path)
    moved[(run.labels == 2) & (run.input_splits == 0)] += 1
    np.save(path, moved)
    run = open_run(run.path)
    assert p(2) == 1 / 200


def test_the_gap_is_measured_in_what_sampling_gives(tmp_path: Path) -> None:
    """Classes of very different sizes, nothing tampered with: all near 1."""
    random = np.random.default_rng(0)
    run = write_run(tmp_path / "run", epochs=(0,), classes=4)
    counts = np.array([[400, 30, 400, 30], [100, 8, 100, 8]])
    units = run.units
    mean, std = np.ones((2, 4, units), dtype=np.float32), np.ones((2, 4, units), dtype=np.float32)
    mean += random.normal(size=mean.shape) / np.sqrt(counts)[:, :, None]
    for name, array in {"class_mean": mean, "class_std": std, "data_std": np.ones((2, units)), "data_mean": np.ones((2, units))}.items():
        np.save(run.path / "snapshots" / "000000" / f"{name}.npy", array.astype(np.float32))
    run = open_run(run.path)
    run.class_counts = counts
    assert np.all(np.abs(tests.relative_gap(run, 0) - 1) < 0.5)


def test_a_class_of_few_inputs_does_not_stand_out_by_chance(tmp_path: Path) -> None:
    """Inputs drawn alike for training and held out, 100 of each class but of the first two, of which 2 and 12 are held out."""
    random = np.random.default_rng(0)
    held = np.array([2, 12, *[100] * 10])
    data = {}
    for name, counts in (("train", np.full(12, 100)), ("test", held)):
        labels = np.repeat(np.arange(12), counts)
        data[name] = list(zip(torch.tensor(random.random((len(labels), 1, 8, 8)), dtype=torch.float32), labels.tolist(), strict=True))
    torch.manual_seed(0)
    model = build("dnnviz:small_cnn?width=8&in_channels=1", 12)
    run = dnnviz.capture(model, data, tmp_path / "run", inputs=50, mean=0.0, std=1.0, save_weights=False)
    result = tests.tampering(run, 0)
    assert result.suspects == []
    assert np.isfinite(result.measured["gap"].z).all()
    assert np.isnan(result.measured["place"].z).tolist() == [True, True, *[False] * 10]
    assert np.isfinite(result.measured["others"].z).all()


# -- what the page shows -----------------------------------------------------------------------------------------------


def test_the_view_says_what_it_could_not_test_and_that_nothing_stands_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dash.get_relative_path", lambda path: path)  # there is no app
    write_run(tmp_path / "runs" / "one", splits=("all",))
    settings = Settings(runs=(DEMO_RUNS, tmp_path / "runs"), cache=tmp_path / "cache")
    server = flask.Flask("tampering")
    server.config["DNNVIZ"] = Context(settings, Catalogue(settings.runs), Results(settings.cache))

    def shown(run: str, epoch: int, suspect: str = "") -> str:
        with server.app_context():
            selection = Selection(run, context().catalogue.open(run), epoch, extra={"suspect": suspect, "against": "none"})
            return json.dumps(tampering_view(selection), cls=PlotlyJSONEncoder, ensure_ascii=False)

    clean = shown("digits", 10)
    assert "No class stands out" in clean
    assert "look at epoch 25" in clean
    assert "Evidence about “7”" in shown("digits", 10, "7")
    # What names no class, though it is a digit to Python, is as if nothing were named.
    assert shown("digits", 10, "²") == clean
    assert "Nothing can be tested here" in shown("one", 0)


@pytest.mark.browser
def test_the_page_names_the_class_and_shows_why(page: Any, live_app: Any) -> None:
    page.goto(live_app.url + "/diagnosis?run=digits-tampered&view=tampering&against=digits")
    verdict = page.locator(".dv-tampering-summary")
    verdict.wait_for()
    assert f"Class “{TAMPERED_CLASS}” looks tampered with" in verdict.inner_text()
    assert "upper left corner of features.conv1" in verdict.inner_text()
    rows = page.locator("button.dv-tampering-row")
    assert rows.count() == 10
    assert rows.first.locator(".name").inner_text() == str(TAMPERED_CLASS)
    assert page.locator(".dv-tampering-row.marked").count() == 1
    assert "Against the other run" in page.locator(".dv-tampering-row.head").inner_text()
    evidence = page.locator("#tampering-evidence")
    # What speaks loudest comes first.
    assert evidence.locator(".dv-section-title").first.inner_text().lower() == "where it differs"
    assert evidence.locator(".dv-tampering-picture img").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [16, 16]
    assert page.get_by_role("link", name="Compare its train and test inputs").get_attribute("href").count(f"class%3A{TAMPERED_CLASS}") == 2
    strangest = page.get_by_label("Its strangest training inputs").get_by_role("link").first
    assert "/attribution?" in strangest.get_attribute("href")
    # Another class, no other run beside it: part of the address.
    name = rows.nth(3).locator(".name").inner_text()
    rows.nth(3).click()
    evidence.locator(f".dv-title:has-text('“{name}”')").wait_for()
    page.get_by_label("Set against another run").select_option("none")
    page.locator(".dv-tampering-row.head >> text=Against the other run").wait_for(state="detached")
    wait_idle(page)
    assert f"suspect={name}" in page.url
    assert "against" not in page.url
    picture = page.evaluate("() => window.dnnviz.picture.compose()")
    assert "Evidence about" in picture["svg"]
    assert picture["svg"].count("<image") >= 20
