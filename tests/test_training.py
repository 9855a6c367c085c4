"""Training: the same result every time, also after it was killed."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import nn

from dnnviz.datasets import LoadedData, load
from dnnviz.errors import DNNVizError, RunError
from dnnviz.store import Run
from dnnviz.training import Plan, Watch, augment, divide, evaluate, train

MODEL = "dnnviz:small_cnn?width=4"
PLAN = Plan(epochs=3, every=2, learning_rate=0.02, batch_size=16)


class Dropping(nn.Sequential):
    """A network whose training draws random numbers."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(
            nn.Conv2d(in_channels, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(16, num_classes),
        )


@pytest.fixture(scope="module")
def data() -> LoadedData:
    return load("shapes?train=36&test=12&size=24")


def arrays(run: Run) -> dict[str, bytes]:
    return {str(p.relative_to(run.path)): p.read_bytes() for p in sorted(run.path.rglob("*.npy"))}


def weights(run: Run, epoch: int) -> dict[str, torch.Tensor]:
    return torch.load(run.path / "snapshots" / f"{epoch:06d}" / "weights.pt", weights_only=True)


def test_epoch_0_every_kth_and_the_last_are_recorded(tmp_path: Path, data: LoadedData) -> None:
    run, history = train(MODEL, data, tmp_path / "run", PLAN, inputs=12)
    assert run.epochs == [0, 2, 3]
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert history[0]["learning_rate"] == pytest.approx(0.02)
    assert history[-1]["learning_rate"] < 0.01, "cosine"
    assert {"loss", "accuracy", "test_accuracy"} <= set(history[0])
    assert run.manifest["model"]["spec"] == MODEL
    assert run.metrics(3)["training_loss"] == pytest.approx(history[-1]["loss"])
    assert run.metrics(3)["splits"]["test"]["accuracy"] == pytest.approx(history[-1]["test_accuracy"])
    assert sorted(p.name for p in (run.path / "training").iterdir() if p.name != ".lock") == ["arguments.json", "history.json"]
    assert np.allclose(run.load_model(3)(torch.from_numpy(run.network_inputs(range(12)))).detach().numpy(), run.logits(3), atol=1e-4)


def test_masks_of_the_inputs_kept_are_stored(tmp_path: Path, data: LoadedData) -> None:
    run, _ = train(MODEL, data, tmp_path / "run", replace(PLAN, epochs=1), inputs=12)
    masks = np.load(run.path / "inputs" / "masks.npy")
    assert masks.shape == (12, 24, 24)
    areas = np.stack([np.bincount(mask.ravel(), minlength=7)[1:] for mask in masks])
    assert np.array_equal(areas.argmax(axis=1), run.labels)
    # The object's pixels differ from the background's: masks and images belong together.
    images = run.images(range(12)).astype(int)
    saturation = images.max(axis=3) - images.min(axis=3)
    assert saturation[masks > 0].mean() > 2 * saturation[masks == 0].mean()


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path: Path, data: LoadedData) -> None:
    plan = replace(PLAN, flip=True, crop=True, epochs=2)
    one, _ = train(MODEL, data, tmp_path / "a" / "run", plan, inputs=12)
    torch.rand(7)  # what random numbers were drawn before must not matter
    two, _ = train(MODEL, data, tmp_path / "b" / "run", plan, inputs=12)
    other, _ = train(MODEL, data, tmp_path / "c" / "run", replace(plan, seed=1), inputs=12)
    assert arrays(one) == arrays(two)
    assert one.digest(2) == two.digest(2)
    assert other.digest(2) != one.digest(2)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path: Path, data: LoadedData, optimizer: str) -> None:
    spec = "tests.test_training:Dropping"
    plan = Plan(epochs=4, every=1, optimizer=optimizer, learning_rate=0.01, batch_size=16, schedule="step", flip=True)
    whole, history = train(spec, data, tmp_path / "whole" / "run", plan, inputs=12)

    class Killed(BaseException):
        pass

    for stop in (1, 3):  # in the middle of an epoch, twice

        def batch(epoch: int, done: int, batches: int, loss: float, accuracy: float, stop: int = stop) -> None:
            if epoch == stop and done == 2:
                raise Killed

        with pytest.raises(Killed):
            train(spec, data, tmp_path / "parts" / "run", plan, inputs=12, watch=Watch(batch=batch))
    run, again = train(spec, data, tmp_path / "parts" / "run", plan, inputs=12)
    assert again == history
    assert arrays(run) == arrays(whole)
    assert all(torch.equal(v, weights(whole, 4)[k]) for k, v in weights(run, 4).items())


def test_a_snapshot_lost_between_checkpoint_and_record_is_written_on_return(
    tmp_path: Path, data: LoadedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dnnviz.capture import Recorder

    real = Recorder.record

    def record(self: Recorder, epoch: int, **metrics: object) -> int | None:
        if epoch == 2:
            raise KeyboardInterrupt
        return real(self, epoch, **metrics)

    plan = replace(PLAN, every=1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Recorder, "record", record)
        train(MODEL, data, tmp_path / "run", plan, inputs=12)
    run, _ = train(MODEL, data, tmp_path / "run", plan, inputs=12)
    whole, _ = train(MODEL, data, tmp_path / "whole" / "run", plan, inputs=12)
    assert run.epochs == [0, 1, 2, 3]
    assert arrays(run) == arrays(whole)


def test_a_finished_training_returns_at_once_and_other_arguments_are_refused(tmp_path: Path, data: LoadedData) -> None:
    plan = replace(PLAN, epochs=1)
    _, history = train(MODEL, data, tmp_path / "run", plan, inputs=12)

    def never(*_: object) -> None:
        raise AssertionError("nothing is left to train")

    run, again = train(MODEL, data, tmp_path / "run", plan, inputs=12, watch=Watch(never, never))
    assert again == history
    assert run.epochs == [0, 1]
    with pytest.raises(RunError, match=r"was trained with learning rate 0\.02, not 0\.5"):
        train(MODEL, data, tmp_path / "run", replace(plan, learning_rate=0.5), inputs=12)
    run, _ = train(MODEL, data, tmp_path / "run", replace(plan, learning_rate=0.5), inputs=12, overwrite=True)
    assert json.loads((run.path / "training" / "arguments.json").read_text())["arguments"]["learning_rate"] == 0.5


def test_folders_that_training_leaves_alone(tmp_path: Path, data: LoadedData) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="holds other files"):
        train(MODEL, data, tmp_path / "full", PLAN, inputs=12)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    (tmp_path / "busy" / "training").mkdir(parents=True)
    with FileLock(tmp_path / "busy" / "training" / ".lock"), pytest.raises(RunError, match="being trained by another process"):
        train(MODEL, data, tmp_path / "busy", PLAN, inputs=12)
    run, _ = train(MODEL, data, tmp_path / "run", replace(PLAN, epochs=1), inputs=12)
    (run.path / "training" / "arguments.json").unlink()
    with pytest.raises(RunError, match="not trained here"):
        train(MODEL, data, tmp_path / "run", PLAN, inputs=12)


def test_a_damaged_checkpoint_gets_a_sentence(tmp_path: Path, data: LoadedData) -> None:
    def stop(entry: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(MODEL, data, tmp_path / "run", PLAN, inputs=12, watch=Watch(epoch=stop))
    (tmp_path / "run" / "training" / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"checkpoint\.pt is damaged"):
        train(MODEL, data, tmp_path / "run", PLAN, inputs=12)


def test_what_fails_before_the_first_snapshot_leaves_nothing_behind(tmp_path: Path, data: LoadedData) -> None:
    with pytest.raises(DNNVizError, match="no built-in network"):
        train("dnnviz:big", data, tmp_path / "run", PLAN, inputs=12)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_gets_a_sentence(tmp_path: Path, data: LoadedData, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dnnviz.training.torch.save", full)
    with pytest.raises(DNNVizError, match="is full"):
        train(MODEL, data, tmp_path / "run", PLAN, inputs=12)
    monkeypatch.setattr("dnnviz.training.write_json", full)
    with pytest.raises(DNNVizError, match="the disk is full"):
        train(MODEL, data, tmp_path / "other", PLAN, inputs=12)
    assert not (tmp_path / "other").exists()


def test_an_image_that_a_worker_cannot_read_is_named_in_one_sentence(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / "photos" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "photos" / str(i % 2) / f"{i}.png")
    (tmp_path / "photos" / "1" / "3.png").write_bytes(b"no image")
    bad = load(f"folder:{tmp_path / 'photos'}", size=16)
    with pytest.raises(DNNVizError, match=r"3\.png is damaged or no image") as caught:
        evaluate(torch.nn.Flatten(), bad.splits["data"], 2, torch.device("cpu"), workers=1)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_no_number_stops_with_a_sentence(tmp_path: Path, data: LoadedData) -> None:
    with pytest.raises(DNNVizError, match="lower the learning rate"):
        train("dnnviz:small_cnn?width=4", data, tmp_path / "run", replace(PLAN, learning_rate=1e30, weight_decay=1e9), inputs=12)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"learning_rate": -1.0}, "above zero"),
        ({"optimizer": "adam"}, "sgd, adamw"),
        ({"schedule": "linear"}, "cosine, step, constant"),
        ({"optimizer": "adamw", "nesterov": True}, "needs the optimizer sgd"),
        ({"validation": 1.0}, "below 1"),
    ],
)
def test_plans_that_make_no_sense(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(DNNVizError, match=sentence):
        replace(PLAN, **change).check()


def test_validation_images_are_set_aside(tmp_path: Path, data: LoadedData) -> None:
    divided, name = divide(data, replace(PLAN, validation=0.25))
    assert name == "train"
    assert {k: len(v) for k, v in divided.splits.items()} == {"train": 27, "val": 9, "test": 12}
    assert not set(divided.splits["train"].indices) & set(divided.splits["val"].indices)
    assert divide(data, PLAN)[0] is data
    one = replace(data, splits={"data": data.splits["train"]}, masks={"data": data.masks["train"]})
    assert {k: len(v) for k, v in divide(one, PLAN)[0].splits.items()} == {"train": 32, "val": 4}
    run, history = train(MODEL, one, tmp_path / "run", replace(PLAN, epochs=1), inputs=12)
    assert run.splits == ["train", "val"]
    assert "val_accuracy" in history[0]
    masks = np.load(run.path / "inputs" / "masks.npy")
    assert np.array_equal(np.stack([np.bincount(m.ravel(), minlength=7)[1:] for m in masks]).argmax(axis=1), run.labels)


def test_augmentation_mirrors_and_shifts() -> None:
    images = torch.arange(2 * 1 * 8 * 8, dtype=torch.float32).reshape(2, 1, 8, 8).repeat(16, 1, 1, 1)
    assert torch.equal(augment(images, PLAN, torch.Generator()), images)
    flipped = augment(images, replace(PLAN, flip=True), torch.Generator().manual_seed(0))
    same = torch.tensor([torch.equal(a, b) for a, b in zip(flipped, images, strict=True)])
    mirrored = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(flipped, images, strict=True)])
    assert (same ^ mirrored).all()
    assert 0 < int(same.sum()) < 32
    shifted = augment(images, replace(PLAN, crop=True), torch.Generator().manual_seed(0))
    assert shifted.shape == images.shape
    assert len({tuple(a.flatten().tolist()) for a in shifted[::2]}) > 3


def test_a_single_image_left_over_does_not_stop_batch_norm(tmp_path: Path, data: LoadedData) -> None:
    train(MODEL, data, tmp_path / "run", replace(PLAN, epochs=1, batch_size=35), inputs=12)


def test_evaluation_leaves_the_network_as_it_was(data: LoadedData) -> None:
    from dnnviz.models import build

    model = build(MODEL, 6)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert 0 <= evaluate(model, data.splits["test"], 8, torch.device("cpu")) <= 1
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_network_with_auxiliary_outputs_trains(tmp_path: Path) -> None:
    small = load("shapes?train=2&test=2&size=80")
    run, _ = train("torchvision:googlenet?aux_logits=True", small, tmp_path / "run", Plan(epochs=1, learning_rate=1e-3, batch_size=2), inputs=2)
    assert run.epochs == [0, 1]
