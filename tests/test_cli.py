"""The command line, as a person uses it."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dnnviz.cli import main
from dnnviz.settings import ROOT
from dnnviz.store import open_run

SHAPES = "shapes?train=36&test=12&size=24"
MODEL = "dnnviz:small_cnn?width=4"


def run_cli(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def arrays(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.npy"))}


def test_help_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys; from dnnviz.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'dash', 'plotly', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("capture", "train", "demo", "info", "explain", "report", "serve"))


@pytest.mark.parametrize("command", ["capture", "train", "demo", "info", "explain", "report", "serve"])
def test_every_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "example:" in capsys.readouterr().out


# -- capture ---------------------------------------------------------------------------------------------------------


def test_the_published_resnet_on_real_images_has_its_published_accuracy(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        *("capture", "--model", "dnnviz:resnet20", "--weights", shared_data / "weights" / "resnet20_cifar10.pt"),
        *("--data", f"npz:{shared_data / 'cifar10' / 'test_1000.npz'}", "--preprocess", "imagenet", "--out", tmp_path / "run", "--inputs", 50),
    )
    code, out, _ = run_cli(*arguments, capsys=capsys)
    assert code == 0
    assert "accuracy 91.50 %" in out
    run = open_run(tmp_path / "run")
    assert run.metrics(0)["accuracy"] == pytest.approx(0.915)
    assert run.classes[0] == "airplane"
    assert run.kept == 50
    before = arrays(run.path)
    code, out, _ = run_cli(*arguments, capsys=capsys)
    assert code == 0
    assert "is complete" in out
    assert arrays(run.path) == before
    code, _, err = run_cli(*arguments[:-1], 60, capsys=capsys)
    assert code == 2, "other arguments need another folder"
    assert "epoch 0 already" in err


def test_photographs_are_matched_to_the_classes_of_the_network(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_cli(
        *("capture", "--model", "torchvision:squeezenet1_1", "--weights", shared_data / "weights" / "squeezenet1_1_imagenet.pt"),
        *("--data", f"folder:{shared_data / 'photos'}", "--out", tmp_path / "run", "--batch-size", 10),
        capsys=capsys,
    )
    assert code == 0, err
    run = open_run(tmp_path / "run")
    assert len(run.classes) == 1000
    assert run.classes[0] == "tench"
    assert run.metrics(0)["accuracy"] == pytest.approx(25 / 30)
    assert run.manifest["preprocessing"]["size"] == [3, 224, 224]
    assert run.ids[0].endswith(".JPEG")


def test_folders_named_after_some_classes_of_the_network(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, source in (("tench", "n01440764_tench.JPEG"), ("toucan", "n01843383_toucan.JPEG")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.jpg").write_bytes((shared_data / "photos" / source).read_bytes())
    network = ("capture", "--model", "torchvision:squeezenet1_1", "--weights", shared_data / "weights" / "squeezenet1_1_imagenet.pt", "--size", "96")
    code, _, err = run_cli(*network, "--data", f"folder:{tmp_path / 'photos'}", "--out", tmp_path / "run", capsys=capsys)
    assert code == 0, err
    run = open_run(tmp_path / "run")
    assert [run.classes[i] for i in run.labels] == ["tench", "toucan"]
    (tmp_path / "photos" / "toucan").rename(tmp_path / "photos" / "my bird")
    code, _, err = run_cli(*network, "--data", f"folder:{tmp_path / 'photos'}", "--out", tmp_path / "other", capsys=capsys)
    assert code == 2
    assert "1000 outputs" in err
    assert "--class-names FILE" in err


def test_grey_images_are_repeated_for_a_network_with_colour_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dnnviz.models import build

    np.savez(tmp_path / "grey.npz", images=np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8), labels=np.arange(6) % 3)
    torch.save(build(MODEL, 3).state_dict(), tmp_path / "colour.pt")
    common = ("capture", "--model", MODEL, "--data", f"npz:{tmp_path / 'grey.npz'}")
    code, _, err = run_cli(*common, "--out", tmp_path / "colour", "--weights", tmp_path / "colour.pt", capsys=capsys)
    assert code == 0, err
    assert open_run(tmp_path / "colour").manifest["preprocessing"]["size"] == [3, 16, 16]
    code, _, err = run_cli(*common, "--out", tmp_path / "grey", capsys=capsys)
    assert code == 0, err
    assert open_run(tmp_path / "grey").manifest["preprocessing"]["size"] == [1, 16, 16]


def test_masks_and_further_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("capture", "--model", MODEL, "--data", SHAPES, "--out", tmp_path / "run", "--inputs", 12)
    assert run_cli(*common, capsys=capsys)[0] == 0
    assert run_cli(*common, "--epoch", 3, "--seed", 1, capsys=capsys)[0] == 0
    run = open_run(tmp_path / "run")
    assert run.epochs == [0, 3]
    assert np.load(run.path / "inputs" / "masks.npy").shape == (12, 24, 24)
    for more in ((), ("--epoch", 3, "--seed", 1)):
        code, out, _ = run_cli(*common, *more, capsys=capsys)
        assert code == 0
        assert "is complete" in out
    assert run_cli(*common, "--seed", 5, "--overwrite", capsys=capsys)[0] == 0
    assert open_run(tmp_path / "run").digest(0) != run.digest(0)


def test_what_the_user_can_mend_is_one_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((4, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "good.npz", images=images, labels=np.arange(4) % 2)
    np.savez(tmp_path / "label.npz", images=images, labels=np.array([0, 1, 9, 0]), class_names=np.array(["a", "b"]))
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"features.conv1.weight": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pickled.pt")
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "photos" / "cat" / "1.png")
    (tmp_path / "photos" / "cat" / "2.png").write_bytes(b"no image")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    good = f"npz:{tmp_path / 'good.npz'}"
    cases = [
        ({"model": "torchvision:resnet17"}, "did you mean"),
        ({"data": "cats"}, "is no data set"),
        ({"data": f"npz:{tmp_path / 'label.npz'}"}, "image 2 has label 9"),
        ({"data": f"folder:{tmp_path / 'photos'}"}, "2.png is damaged or no image"),
        ({"weights": tmp_path / "text.pt"}, "text.pt"),
        ({"weights": tmp_path / "other.pt"}, "features.conv1.weight is [3]"),
        ({"weights": tmp_path / "pickled.pt"}, "pickled objects"),
        ({"weights": tmp_path / "missing.pt"}, "There is no weights file"),
        ({"weights": "DEFAULT"}, "no default weights"),
        ({"out": tmp_path / "full"}, "holds other files"),
        ({"out": tmp_path / "file"}, "is a file"),
        ({"device": "cuda:99"}, "cannot be used"),
        ({"device": "toaster"}, "cannot be used"),
        ({"inputs": 0}, "at least one input"),
        ({"layers": "no_such_layer"}, "no_such_layer"),
    ]
    for change, sentence in cases:
        options = {"model": MODEL, "data": good, "out": tmp_path / "run", **change}
        code, out, err = run_cli("capture", *(x for name, value in options.items() for x in (f"--{name}", value)), capsys=capsys)
        assert code == 2, (change, out, err)
        assert sentence in err, (change, err)
        assert len(err.strip().splitlines()) == 1, err
        assert not (tmp_path / "run").exists(), change
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


def test_wrong_numbers_of_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dnnviz.models import build

    np.savez(tmp_path / "five.npz", images=np.zeros((5, 16, 16, 3), np.uint8), labels=np.arange(5))
    torch.save(build(MODEL, 3).state_dict(), tmp_path / "three.pt")
    code, _, err = run_cli(
        "capture",
        "--model",
        MODEL,
        "--weights",
        tmp_path / "three.pt",
        "--data",
        f"npz:{tmp_path / 'five.npz'}",
        "--out",
        tmp_path / "run",
        capsys=capsys,
    )
    assert code == 2
    assert "3" in err
    assert "5" in err
    assert not (tmp_path / "run").exists()


# -- train -----------------------------------------------------------------------------------------------------------


def train_command(out: Path, epochs: int = 6) -> list[str]:
    return [
        *("train", "--model", MODEL, "--data", SHAPES, "--out", str(out)),
        *("--epochs", str(epochs), "--every", "2", "--inputs", "12", "--batch-size", "4", "--lr", "0.02", "--flip"),
    ]


def test_a_training_killed_in_the_middle_goes_on_and_ends_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = train_command(tmp_path / "killed" / "run")
    process = subprocess.Popen(
        [sys.executable, "-m", "dnnviz", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    process.communicate()
    run = open_run(tmp_path / "killed" / "run")
    assert run.epochs[:2] == [0, 2], "every published snapshot is kept"
    assert run.damage() == []
    code, out, err = run_cli(*command, capsys=capsys)
    assert code == 0, err
    assert "epoch 1/" not in out
    assert "epoch 6/" in out
    code, out, err = run_cli(*train_command(tmp_path / "whole" / "run"), capsys=capsys)
    assert code == 0, err
    assert out.count("epoch ") >= 6
    assert open_run(run.path).epochs == [0, 2, 4, 6]
    assert arrays(run.path) == arrays(tmp_path / "whole" / "run")
    history = [json.loads((tmp_path / name / "run" / "training" / "history.json").read_text()) for name in ("killed", "whole")]
    assert history[0] == history[1]
    code, out, _ = run_cli(*command, capsys=capsys)
    assert code == 0
    assert "is complete" in out


def test_training_errors_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("train", "--model", MODEL, "--data", SHAPES, "--inputs", 12, "--epochs", 1, "--out", tmp_path / "run")
    for change, sentence in (
        (("--epochs", 0), "epochs is 0"),
        (("--optimizer", "adamw", "--nesterov"), "needs the optimizer sgd"),
        (("--lr", "1e30", "--weight-decay", "1e9", "--batch-size", "8"), "lower the learning rate"),
        (("--model", "dnnviz:big"), "no built-in network"),
    ):
        code, _, err = run_cli(*common, *change, "--overwrite", capsys=capsys)
        assert code == 2
        assert sentence in err
        assert len(err.strip().splitlines()) == 1
    code, out, err = run_cli(*common, "--overwrite", "--optimizer", "adamw", "--schedule", "constant", capsys=capsys)
    assert code == 0, err
    assert re.search(r"epoch 1/1 · loss \d\.\d+ · accuracy [\d.]+ % · test [\d.]+ %", out)
    code, _, err = run_cli(*common, capsys=capsys)
    assert code == 2
    assert "was trained with optimizer adamw, not sgd" in err


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dnnviz.training.train", interrupted)
    code, _, err = run_cli("train", "--model", MODEL, "--data", SHAPES, "--out", tmp_path / "run", capsys=capsys)
    assert code == 130
    assert "Traceback" not in err


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr("dnnviz.training.write_array", full)
    code, _, err = run_cli("capture", "--model", MODEL, "--data", SHAPES, "--out", tmp_path / "run", "--inputs", 12, capsys=capsys)
    assert code == 2
    assert "No space left" in err
    assert open_run(tmp_path / "run").damage() == []


# -- info ------------------------------------------------------------------------------------------------------------


def test_info_says_what_a_run_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("capture", "--model", MODEL, "--data", SHAPES, "--out", tmp_path / "run", "--inputs", 12, capsys=capsys)[0] == 0
    code, out, _ = run_cli("info", tmp_path / "run", capsys=capsys)
    assert code == 0
    for text in ("6 layers, 66 units", "features.conv1", "4×24×24", "1 snapshot", "36 train + 12 test", "12 kept one by one", MODEL):
        assert text in out, text
    code, out, _ = run_cli("info", tmp_path / "run", "--json", capsys=capsys)
    about = json.loads(out)
    assert about["units"] == 66
    assert about["splits"] == {"train": 36, "test": 12}
    assert about["snapshots"][0]["splits"]["test"]["accuracy"] <= 1
    assert about["damage"] == about["unpublished"] == []
    assert about["bytes"] > 10_000


def test_info_says_what_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("capture", "--model", MODEL, "--data", SHAPES, "--out", tmp_path / "run", "--inputs", 12, capsys=capsys)[0] == 0
    (tmp_path / "run" / "snapshots" / ".part-000009").mkdir()
    snapshot = tmp_path / "run" / "snapshots" / "000000"
    (snapshot / "max.npy").unlink()
    (snapshot / "mean.npy").write_bytes((snapshot / "mean.npy").read_bytes()[:200])
    code, out, _ = run_cli("info", tmp_path / "run", capsys=capsys)
    assert code == 1
    assert "max.npy is missing" in out
    assert "mean.npy cannot be read" in out
    assert ".part-000009" in out
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.json").write_text('{"hello": 1}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    for name, sentence in (("foreign", "is not the manifest"), ("broken", "cannot be read"), ("missing", "is not a folder")):
        code, _, err = run_cli("info", tmp_path / name, capsys=capsys)
        assert code == 2
        assert sentence in err
        assert len(err.strip().splitlines()) == 1
