"""Tampered classes: what capture keeps for them, what the tests say, and what the page shows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dnnviz
from dnnviz.analysis import tampering as tests
from dnnviz.demo import TAMPERED_CLASS
from dnnviz.models import build
from dnnviz.settings import DEMO_RUNS
from dnnviz.store import Run, open_run
from tests.conftest import wait_idle
from tests.runs import write_run


def found(name: str) -> tuple[Run, tests.Findings]:
    run = open_run(DEMO_RUNS / name)
    return run, tests.tampering(run, run.epochs[-1])


# -- what capture keeps ------------------------------------------------------------------------------------------------


def test_capture_keeps_the_early_maps_as_they_are(tmp_path: Path) -> None:
    """Against feature maps taken by hooks, pooled and averaged at once; batches end in the middle of classes."""
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
    assert set(result.measured) == {"place", "gap", "spectral", "others"}
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


# -- what the page shows -----------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_the_page_names_the_class_and_shows_why(page: Any, live_app: Any) -> None:
    page.goto(live_app.url + "/diagnosis?run=digits-tampered&view=tampering")
    verdict = page.locator(".dv-tampering-summary")
    verdict.wait_for()
    assert f"Class “{TAMPERED_CLASS}” looks tampered with" in verdict.inner_text()
    assert "upper left corner of features.conv1" in verdict.inner_text()
    rows = page.locator("button.dv-tampering-row")
    assert rows.count() == 10
    assert rows.first.locator(".name").inner_text() == str(TAMPERED_CLASS)
    assert page.locator(".dv-tampering-row.marked").count() == 1
    evidence = page.locator("#tampering-evidence")
    assert evidence.locator(".dv-tampering-picture img").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [16, 16]
    assert page.get_by_role("link", name="Compare its train and test inputs").get_attribute("href").count(f"class%3A{TAMPERED_CLASS}") == 2
    # Another class, another run beside it: part of the address.
    rows.nth(3).click()
    name = rows.nth(3).locator(".name").inner_text()
    page.locator(f"#tampering-evidence .dv-title:has-text('“{name}”')").wait_for()
    page.get_by_label("Set against another run").select_option("digits")
    page.locator(".dv-tampering-row.head >> text=Against the other run").wait_for()
    wait_idle(page)
    assert f"suspect={name}" in page.url
    assert "against=digits" in page.url
    picture = page.evaluate("() => window.dnnviz.picture.compose()")
    assert "Evidence about" in picture["svg"]
    assert picture["svg"].count("<image") >= 20
    # An epoch without maps says so; a clean run names nothing.
    page.goto(live_app.url + "/diagnosis?run=digits&view=tampering&epoch=10")
    verdict.wait_for()
    assert "No class stands out" in verdict.inner_text()
    assert "look at epoch 25" in verdict.inner_text()
