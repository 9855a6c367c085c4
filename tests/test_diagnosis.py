"""Health of a run: every fault is planted in a run of its own and named, and a healthy run names nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dnnviz
from dnnviz.analysis.diagnosis import Subject, diagnose
from dnnviz.analysis.diagnosis.calibration import best_temperature, calibrate, calibration_error
from dnnviz.analysis.diagnosis.preprocessing import Trial, hellinger, judge
from dnnviz.errors import DNNVizError, RunError
from dnnviz.preprocessing import known_trial, trial_of
from dnnviz.preprocessing import run as job
from dnnviz.results import Results
from dnnviz.settings import DEMO_RUNS, Settings
from tests import trained
from tests.conftest import wait_for_jobs, wait_idle
from tests.runs import LAYERS, write_run

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(done, total, text=""):
    pass


def findings(run, results, epoch=None):
    """{check: finding} of a snapshot (default: the last)."""
    return {found.check: found for found in diagnose(Subject(run, run.epochs[-1] if epoch is None else epoch, results))}


def named(found):
    return [check for check, each in found.items() if each.severity in ("attention", "look")]


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


def planted(path, change, **given):
    """A run of random numbers in which `change(name → array, …)` has rewritten arrays of its only snapshot."""
    run = write_run(path, epochs=(0,), **{"inputs": 400, **given})
    folder = path / "snapshots" / "000000"
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("data_mean", "data_std", "active", "logits", "class_mean", "class_std")}
    change(arrays, run)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return dnnviz.open_run(path)


def sure(arrays, run, size=1.0, right=0.9):
    """Logits that are right on a share of the inputs and as sure as they should be, times `size`."""
    classes = len(run.classes)
    random = np.random.default_rng(0)
    guess = np.where(random.random(run.kept) < right, run.labels, (run.labels + 1 + random.integers(0, classes - 1, run.kept)) % classes)
    arrays["logits"] = np.zeros((run.kept, classes), np.float32)
    arrays["logits"][np.arange(run.kept), guess] = size * np.log(right / (1 - right) * (classes - 1))


# -- the network's inputs ----------------------------------------------------------------------------------------------


def test_hellinger_is_that_of_the_definition():
    x = np.linspace(-40, 40, 400001)
    p = np.exp(-((x - 1) ** 2) / 8) / np.sqrt(8 * np.pi)
    q = np.exp(-((x + 2) ** 2) / 2) / np.sqrt(2 * np.pi)
    wanted = np.sqrt(1 - np.sum(np.sqrt(p * q)) * (x[1] - x[0]))
    assert hellinger(np.array([1.0]), np.array([4.0]), np.array([-2.0]), np.array([1.0]))[0] == pytest.approx(wanted, abs=1e-6)
    assert hellinger(*(np.array([v]) for v in (1.0, 4.0, 1.0, 4.0)))[0] == 0


def test_swapped_colours_and_missing_normalisation_are_named_with_what_fits(resnet20, shared_data, tmp_path, results):
    with np.load(shared_data / "cifar10" / "test_1000.npz") as file:
        images, labels = file["images"][:60], file["labels"][:60]
    right = trained._normalised(images)
    with torch.inference_mode():
        known = resnet20(right).argmax(1).numpy() == labels
    swapped = trained._normalised(images[..., ::-1])
    raw = torch.from_numpy(images[:20].transpose(0, 3, 1, 2).astype(np.float32))
    faults = {
        "bgr": (swapped, {"mean": trained.MEAN, "std": trained.STD}, "red and blue swapped"),
        "raw": (raw, {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}, "normalised as ImageNet"),
    }
    for name, (tensors, look, wanted) in faults.items():
        data = list(zip(tensors, labels.tolist(), strict=False))
        folder = tmp_path / name
        run = dnnviz.capture(resnet20, data, folder, classes=[str(i) for i in range(10)], inputs=len(data), model_spec="dnnviz:resnet20", **look)
        known_trial(run, 0, results, (), quiet)
        found = findings(run, results)["preprocessing"]
        assert named(findings(run, results))[0] == "preprocessing", "from which all else follows"
        assert found.severity == "attention", found.sentence
        assert found.values["best"] == wanted
        assert wanted in found.sentence
        assert found.values["distances"][wanted] < found.values["distances"]["as captured"]
        assert found.values["accuracy"][wanted] > found.values["accuracy"]["as captured"]
        # The accuracy it promises is that of the network on its inputs as they should be.
        mended = float(known[: len(data)].mean())
        assert found.values["accuracy"][wanted] == pytest.approx(mended, abs=0.02)


def test_a_network_without_batch_norm_is_judged_by_its_loss_and_an_untrained_one_not_at_all():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    inputs = np.zeros((60, 3, 4, 4), np.float32)
    inputs[np.arange(60), labels] = 1 + 0.1 * random.random((60, 4, 4), np.float32)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ways = {"as captured": inputs[:, ::-1].copy(), "red and blue swapped": inputs, "values 0–255": 255 * inputs[:, ::-1]}
    found = judge(trial_of(model, ways, labels, np.arange(60)), 3)
    assert (found.severity, found.values["best"], found.weight) == ("attention", "red and blue swapped", np.inf)
    assert "accuracy 100 % instead of 33 %" in found.sentence
    ways = {"as captured": inputs, "red and blue swapped": inputs[:, ::-1].copy()}
    assert judge(trial_of(model, ways, labels, np.arange(60)), 3).severity == "fine"
    untrained = trial_of(nn.Sequential(nn.BatchNorm2d(3), *model), ways, labels, np.arange(60))
    with pytest.raises(RunError, match="never trained: its first batch norm"):
        judge(untrained, 3)


def test_inputs_of_another_kind_are_worth_a_look_when_nothing_fits():
    nothing = np.full((2, 20), np.nan)
    nothing[0] = 2.0
    trial = Trial(np.array(["as captured", "values 0–1"]), np.array([0.6, 0.5]), nothing, np.zeros((2, 20)), np.arange(20), "bn1", "")
    found = judge(trial, 10)
    assert found.severity == "look"
    assert "0.60" in found.sentence and "none of 1 other kinds" in found.sentence


def test_the_job_leaves_its_result_and_says_what_is_wrong(tmp_path):
    settings = Settings(runs=(DEMO_RUNS, tmp_path), cache=tmp_path / "cache")
    (key,) = job(settings, {"run": "digits", "epoch": 25}, quiet)
    assert key in Results(settings.private_cache() / "results")
    write_run(tmp_path / "numbers")
    with pytest.raises(DNNVizError, match="does not say how to build its network"):
        job(settings, {"run": "numbers", "epoch": 5}, quiet)
    with pytest.raises(DNNVizError, match="names no epoch"):
        job(settings, {"run": "digits", "epoch": "25"}, quiet)


# -- units and layers --------------------------------------------------------------------------------------------------


def test_dead_and_constant_layers_are_named(tmp_path, results):
    def change(arrays, run):
        sure(arrays, run)
        dead, still = run.layer("layer1.0.conv1").columns, run.layer("conv1").columns
        arrays["active"][:, dead] = 0
        arrays["data_mean"][:, dead] = arrays["data_std"][:, dead] = 0
        arrays["data_mean"][:, still.start : still.start + 3] = 0.5
        arrays["data_std"][:, still.start : still.start + 3] = 1e-3

    found = findings(planted(tmp_path / "run", change), results)
    assert set(named(found)) == {"dead", "constant", "scale"}
    assert found["dead"].severity == "attention"
    assert found["dead"].values["layers"] == ["layer1.0.conv1"]
    assert "8 of 8 units of layer1.0.conv1 are zero on all 400 inputs" in found["dead"].sentence
    assert found["constant"].sentence.startswith("3 of 6 units of conv1 are alike on every input")
    # Where they are seen: the units of that layer which go when what is dead is removed.
    assert found["dead"].link.values == {"view": "pruning", "prune": "dead", "layer": "layer1.0.conv1"}
    assert "nothing gets through" in found["scale"].sentence


def test_few_inputs_do_not_make_a_unit_dead(tmp_path, results):
    found = findings(write_run(tmp_path / "run", inputs=12), results)
    assert found["dead"].severity == "unknown"
    assert "12 inputs are too few" in found["dead"].sentence


@pytest.mark.parametrize(
    ("factor", "severity", "says"), [(100, "look", "grow by a factor of"), (1e-6, "attention", "vanish"), (1e6, "attention", "explode")]
)
def test_activations_that_change_their_size_are_named(tmp_path, results, factor, severity, says):
    def change(arrays, run):
        sure(arrays, run)
        columns = slice(run.layer("layer1.0").offset, None)
        arrays["data_mean"][:, columns] *= factor
        arrays["data_std"][:, columns] *= factor

    found = findings(planted(tmp_path / "run", change), results)
    assert named(found) == ["scale"]
    assert (found["scale"].severity, says in found["scale"].sentence) == (severity, True), found["scale"].sentence


def test_values_that_are_not_finite_are_named(tmp_path, results):
    def change(arrays, run):
        sure(arrays, run)
        arrays["data_mean"][:, run.layer("conv1").columns] = np.inf

    found = findings(planted(tmp_path / "run", change), results)["scale"]
    assert found.severity == "attention"
    assert found.values["not_finite"] == ["conv1"]


# -- training ----------------------------------------------------------------------------------------------------------


def test_a_layer_that_is_frozen_is_named_with_its_epoch(tmp_path, results):
    run = write_run(tmp_path / "run", epochs=(0, 1, 2, 3, 4, 5))
    # Every layer is drawn anew at each epoch; the first one stays as it is from epoch 2 on.
    still = run.layer("conv1").columns
    folders = [run.path / "snapshots" / f"{epoch:06d}" for epoch in run.epochs]
    for folder in folders[3:]:
        array = np.load(folder / "class_mean.npy")
        array[..., still] = np.load(folders[2] / "class_mean.npy")[..., still]
        np.save(folder / "class_mean.npy", array)
    found = findings(dnnviz.open_run(tmp_path / "run"), results)
    assert found["stopped"].severity == "attention"
    assert found["stopped"].values["layers"] == {"conv1": 2}
    assert found["stopped"].sentence.startswith("conv1 stopped learning at epoch 2")
    assert found["stopped"].picture.mark == 2


def test_overfitting_is_named_from_the_epoch_where_the_held_out_loss_was_smallest(tmp_path, results):
    digits = dnnviz.open_run(DEMO_RUNS / "digits")
    images = torch.from_numpy(digits.images(np.arange(digits.kept))[:, ::2, ::2, 0].astype(np.float32) / 255)[:, None]
    labels = torch.tensor(digits.labels)
    torch.manual_seed(1)
    # A third of the labels that it is trained on are wrong: what there is to learn is learned first, then each input by heart.
    wrong = torch.where(torch.rand(60) < 0.3, torch.randint(0, 10, (60,)), labels[:60])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    data = {"train": list(zip(images[:60], wrong.tolist(), strict=True)), "test": list(zip(images[60:], labels[60:].tolist(), strict=True))}
    recorder = dnnviz.Recorder(tmp_path / "run", model, data, every=20, inputs=100, classes=[str(i) for i in range(10)])
    weights = list(model.parameters())
    for epoch in range(161):
        recorder.record(epoch)
        loss = nn.functional.cross_entropy(model.train()(images[:60]), wrong)
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= gradient
    run = dnnviz.open_run(tmp_path / "run")
    losses = [run.metrics(epoch)["splits"]["test"]["loss"] for epoch in run.epochs]
    lowest = run.epochs[int(np.argmin(losses))]
    assert 0 < lowest < 160, losses
    found = findings(run, results)["overfitting"]
    assert found.severity in ("look", "attention")
    assert found.values["from"] == lowest
    assert f"Overfits from epoch {lowest}" in found.sentence
    assert found.values["rise"] == pytest.approx(losses[-1] / min(losses) - 1)
    # As it stood at its best epoch there was nothing of the kind.
    assert findings(run, results, lowest)["overfitting"].values["from"] is None


# -- answers and classes -----------------------------------------------------------------------------------------------


def test_calibration_error_is_that_of_the_definition():
    confidence = np.array([0.55, 0.6, 0.9, 0.95, 1.0, 0.3])
    correct = np.array([1, 0, 1, 1, 0, 0])
    # Ten bins: (0.2, 0.3], (0.5, 0.6], (0.8, 0.9], (0.9, 1].
    wanted = (abs(0 - 0.3) + 2 * abs(0.5 - 0.575) + abs(1 - 0.9) + 2 * abs(0.5 - 0.975)) / 6
    assert calibration_error(confidence, correct, bins=10) == pytest.approx(wanted)
    # Three bins of two inputs each, by confidence.
    wanted = (abs(0.5 - 0.425) * 2 + abs(0.5 - 0.75) * 2 + abs(0.5 - 0.975) * 2) / 6
    assert calibration_error(confidence, correct, bins=3, adaptive=True) == pytest.approx(wanted)


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_scaled_logits_are_named_with_the_temperature_that_mends_them(tmp_path, results, factor):
    random = np.random.default_rng(2)

    def change(arrays, run):
        logits = random.normal(0, 2.5, (run.kept, len(run.classes)))
        odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        # Labels are drawn from the network's own probabilities: it is calibrated until its logits are scaled.
        np.save(tmp_path / "run" / "inputs" / "labels.npy", np.array([random.choice(len(p), p=p) for p in odds]))
        arrays["logits"] = (factor * logits).astype(np.float32)

    found = findings(planted(tmp_path / "run", change, inputs=2000, splits=("data",)), results)["calibration"]
    assert found.severity in ("look", "attention")
    assert ("overconfident" if factor > 1 else "underconfident") in found.sentence
    assert found.values["temperature"] == pytest.approx(factor, rel=0.08)
    assert found.values["mended"] < found.values["error"] / 3
    run = dnnviz.open_run(tmp_path / "run")
    logits = run.logits(0) / np.float32(factor)
    fair = calibrate(logits, run.labels)
    assert fair.error <= fair.limit
    assert best_temperature(logits, run.labels) == pytest.approx(1, rel=0.08)


def test_confused_classes_uneven_classes_and_guessing_are_named(tmp_path, results):
    def change(arrays, run):
        sure(arrays, run)
        arrays["logits"][run.labels == 3] = [0, 0, 5, 0]

    run = planted(tmp_path / "run", change)
    run.class_counts[0] = [500, 100, 40, 100]
    found = findings(run, results)
    assert found["confusion"].severity == "attention"
    assert found["confusion"].sentence.startswith("“class 3” is taken for “class 2” most, on 50 of 50 inputs")
    assert found["imbalance"].severity == "attention"
    assert "from 40 (“class 2”) to 500 (“class 0”) inputs" in found["imbalance"].sentence
    assert found["accuracy"].severity == "fine"
    guess = findings(write_run(tmp_path / "guess", inputs=100), results)["accuracy"]
    assert guess.severity == "attention"
    assert "no better than guessing" in guess.sentence


def test_a_small_class_that_is_lost_is_named_beside_large_ones_that_are_confused_more_often(tmp_path, results):
    random = np.random.default_rng(0)
    # Ten large classes, of each one in ten is taken for each of two others; all six inputs of the last one are taken for the first.
    labels = np.concatenate([np.repeat(np.arange(10), 80), np.full(6, 10)])

    def change(arrays, run):
        np.save(tmp_path / "run" / "inputs" / "labels.npy", labels)
        shift = random.permuted(np.tile(np.repeat([0, 1, 2], [64, 8, 8]), (10, 1)), axis=1).ravel()
        guess = np.concatenate([(labels[:800] + shift) % 10, np.zeros(6, int)])
        arrays["logits"] = 5 * np.eye(11, dtype=np.float32)[guess]

    found = findings(planted(tmp_path / "run", change, inputs=806, classes=11, splits=("data",)), results)["confusion"]
    assert found.severity == "attention"
    assert found.sentence == "“class 10” is taken for “class 0” most, on 6 of 6 inputs (100 %)."


def test_one_class_alone_is_not_guessed(tmp_path, results):
    def change(arrays, run):
        np.save(tmp_path / "run" / "inputs" / "labels.npy", np.zeros(40, int))
        arrays["logits"] = np.tile(np.float32([5, 0, 0, 0]), (40, 1))

    found = findings(planted(tmp_path / "run", change, inputs=40, splits=("data",)), results)["accuracy"]
    assert (found.severity, found.sentence) == ("fine", "The network is right on 100 % of 40 inputs; guessing would give 25 %.")
    one = findings(write_run(tmp_path / "one", classes=1, splits=("data",)), results)["accuracy"]
    assert (one.severity, "one output only" in one.sentence) == ("unknown", True)


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_a_healthy_run_names_nothing_and_a_tampered_one_its_class(results):
    for name in ("digits", "digits-tampered"):
        run = dnnviz.open_run(DEMO_RUNS / name)
        known_trial(run, 25, results, (), quiet)
    healthy = findings(dnnviz.open_run(DEMO_RUNS / "digits"), results)
    assert {check: found.severity for check, found in healthy.items()} == dict.fromkeys(healthy, "fine")
    tampered = findings(dnnviz.open_run(DEMO_RUNS / "digits-tampered"), results)
    assert named(tampered) == ["tampering"] == [next(iter(tampered))]
    assert tampered["tampering"].values["suspects"] == ["8"]
    assert tampered["tampering"].sentence.startswith("“8” looks tampered with")


def test_what_cannot_be_checked_says_why(tmp_path, results):
    found = findings(write_run(tmp_path / "run", epochs=(0,), splits=("data",), inputs=12, layers=LAYERS), results)
    for check in ("preprocessing", "stopped", "overfitting", "tampering", "calibration"):
        assert found[check].severity == "unknown", check
        assert found[check].sentence.endswith(".")


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_view_ranks_findings_tries_the_preprocessing_and_leads_to_the_evidence(page, live_app):
    page.goto(live_app.url + "/diagnosis?run=digits-tampered")
    card = page.locator(".dv-health-card")
    card.first.wait_for()
    # The network is run without being asked for; what it says takes the place of the reason why it is missing.
    row = page.locator('.dv-health-row[data-check="preprocessing"]', has_text="is what it was trained on")
    row.wait_for()
    wait_for_jobs(page)
    assert card.count() == 1
    assert card.get_attribute("data-check") == "tampering"
    assert "“8” looks tampered with" in card.inner_text()
    assert "1 thing needs attention: tampering." in page.locator(".dv-health-said").inner_text()
    assert page.locator(".dv-health-row").count() == 10
    assert card.locator("img").evaluate("image => image.complete && image.naturalWidth > 100")
    row.locator("summary").first.click()
    assert row.locator("img").evaluate("image => image.naturalWidth > 100")
    saved = page.evaluate("async () => (await dnnviz.picture.compose()).svg")
    assert "looks tampered with" in saved and "data:image/svg+xml" in saved and "is what it was trained on" in saved
    with page.expect_download() as download:
        page.get_by_role("link", name="Report").click()
    assert "<h1>digits-tampered, epoch 25</h1>" in download.value.path().read_text(encoding="utf-8")
    page.get_by_label("What the report is held against").select_option("Against digits")
    page.wait_for_function("document.querySelector('[data-health-report*=\"report.zip\"]').href.endsWith('?epoch=25&against=digits')")
    card.get_by_role("link").click()
    page.wait_for_url("**view=tampering*")
    wait_idle(page)
    assert page.locator("#diagnosis-tampering").is_visible()
    assert not page.locator("#diagnosis-health").is_visible()
    page.goto(live_app.url + "/diagnosis?run=digits-tampered&view=nothing")
    card.first.wait_for()
    assert "“nothing” is no value of view" in page.locator("#alerts").inner_text()
    wait_idle(page)
