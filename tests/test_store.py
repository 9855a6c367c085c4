"""The run folder: reading slices, writing, damage, two writers, a writer that was killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from dnnviz import store
from dnnviz.errors import RunError
from tests.runs import LAYERS, write_run


@pytest.fixture
def run(tmp_path: Path) -> store.Run:
    return write_run(tmp_path / "run")


def raw(run: store.Run, name: str) -> np.ndarray:
    return np.load(run.path / f"{name}.npy", allow_pickle=False)


def test_what_a_run_says_of_itself(run: store.Run) -> None:
    assert (run.name, run.classes[1], run.splits, run.epochs) == ("run", "class 1", ["train", "test"], [0, 1, 5])
    assert run.layers == LAYERS and run.units == 26 and run.kept == 12
    assert run.labels.tolist() == [i % 4 for i in range(12)] and run.labels.dtype == np.int64
    assert run.input_splits.tolist() == [0] * 6 + [1] * 6
    assert run.ids[3] == "image 3"
    assert set(run.graph) == {"nodes", "edges"}
    assert run.damage() == [] and run.unpublished() == []
    assert LAYERS[0].place_shape == (8, 8) and LAYERS[3].place_shape is None
    assert store.Layer("t", "attention", 5, (7, 5), 0).place_shape == (1, 7)


def test_activations_are_the_stored_values_as_float32(run: store.Run) -> None:
    whole = raw(run, "snapshots/000005/mean")
    assert whole.dtype == np.float16
    assert np.array_equal(run.activations(5), whole.astype(np.float32)) and run.activations(5).dtype == np.float32
    assert np.array_equal(run.activations(5, "layer1.0"), whole[:, 14:22].astype(np.float32))
    assert np.array_equal(run.activations(5, run.layers[0], "max"), raw(run, "snapshots/000005/max")[:, :6].astype(np.float32))
    assert np.array_equal(run.input_activations(5, 7), whole[7].astype(np.float32))
    assert np.array_equal(run.unit_activations(5, "fc", 2), whole[:, 24].astype(np.float32))


def test_every_float16_is_read_as_numpy_reads_it() -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    assert np.array_equal(store.run._as_float32(every), every.astype(np.float32), equal_nan=True)


def test_float32_statistics_are_read_as_they_are(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", epochs=[0])
    large = np.full((12, 26), 1e6, dtype=np.float32)
    np.save(run.path / "snapshots/000000/mean.npy", large)
    assert np.array_equal(store.open_run(run.path).activations(0), large)


def test_means_over_splits_weigh_every_input_equally(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", inputs=13, classes=3, splits=("a", "b", "c"))
    mean = run.activations(0).astype(np.float64)
    assert np.allclose(run.data_mean(0), mean.mean(0), atol=1e-6)
    assert np.allclose(run.data_std(0), mean.std(0), atol=1e-6)
    assert np.allclose(run.active(0), (run.activations(0, stat="max") > 0).mean(0))
    for k in range(3):
        rows = mean[run.labels == k]
        assert np.allclose(run.class_mean(0)[k], rows.mean(0), atol=1e-6)
        assert np.allclose(run.class_std(0)[k], rows.std(0), atol=1e-6)
        assert np.allclose(run.one_class_mean(0, k), rows.mean(0), atol=1e-6)
        only = mean[(run.labels == k) & (run.input_splits == 1)]
        assert np.allclose(run.class_mean(0, split="b")[k], only.mean(0), atol=1e-6)
        assert np.allclose(run.one_class_mean(0, k, "b"), only.mean(0), atol=1e-6)
    assert np.allclose(run.data_mean(0, "fc", "c"), mean[run.input_splits == 2][:, 22:].mean(0), atol=1e-6)


def test_a_class_without_inputs_is_nan_and_spoils_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", inputs=6, classes=8, splits=("a", "b"))
    assert np.isnan(run.class_mean(0)[7]).all() and np.isnan(run.one_class_mean(0, 7)).all()
    # Class 0 is in split a only: the mean over both splits is that of a.
    assert np.array_equal(run.class_mean(0)[0], run.class_mean(0, split="a")[0])
    assert np.isnan(run.class_mean(0, split="b")[0]).all()
    assert np.isfinite(run.data_mean(0)).all()


def test_one_split(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", splits=("data",))
    assert np.array_equal(run.class_mean(0), run.class_mean(0, split="data"))
    assert np.array_equal(run.class_mean(0), raw(run, "snapshots/000000/class_mean")[0])


def test_top_inputs_come_best_first_and_only_where_an_image_is_stored(run: store.Run) -> None:
    maximum = run.activations(5, "conv1", "max")[:, 2]
    indices, values = run.top_inputs(5, "conv1", 2, k=2)
    assert np.allclose(values, np.sort(maximum)[::-1][:2], atol=1e-3) and len(indices) == 2
    stored = np.array(raw(run, "snapshots/000005/top_inputs"))
    stored[2, 0] = -1
    values_file = np.array(raw(run, "snapshots/000005/top_values"))
    values_file[3, 1:] = np.nan
    np.save(run.path / "snapshots/000005/top_inputs.npy", stored)
    np.save(run.path / "snapshots/000005/top_values.npy", values_file)
    again = store.open_run(run.path)
    assert again.top_inputs(5, "conv1", 2)[0].tolist() == stored[2, 1:].tolist()
    assert again.top_ranking(5, "conv1", 2)[0][0] == -1
    assert len(again.top_ranking(5, "conv1", 3)[0]) == 1


def test_images_grey_colour_and_those_of_the_top_lists(tmp_path: Path) -> None:
    run = write_run(tmp_path / "grey", size=(8, 10, 1))
    assert run.images([3, 1]).shape == (2, 8, 10, 3)
    assert np.array_equal(run.images(3)[0, :, :, 2], raw(run, "inputs/images")[3, :, :, 0])
    extra = np.full((2, 8, 10, 1), 7, dtype=np.uint8)
    with store.writing(run.path) as writer:
        writer.write_inputs({"top_images": extra, "top_labels": np.array([1, 2]), "top_positions": np.array([40, 50])})
    run = store.open_run(run.path)
    assert run.stored_images == 14 and (run.images([12, 0])[0] == 7).all()
    assert run.image_labels([13, 0]).tolist() == [2, 0]
    with pytest.raises(RunError, match="stores images 0 to 13; 14 was asked for"):
        run.images([0, 14])
    with pytest.raises(RunError, match="stores images"):
        run.images([-1])


def test_network_inputs_are_images_with_mean_and_deviation(run: store.Run) -> None:
    found = run.network_inputs([2, 5])
    expected = (raw(run, "inputs/images")[[2, 5]] / 255.0 - 0.5) / 0.25
    assert found.shape == (2, 3, 16, 16) and found.dtype == np.float32
    assert np.allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)
    tensors = np.random.default_rng(0).normal(size=(12, 3, 16, 16)).astype(np.float32)
    np.save(run.path / "inputs/tensors.npy", tensors)
    assert np.array_equal(store.open_run(run.path).network_inputs(4)[0], tensors[4])
    with pytest.raises(RunError, match="keeps inputs 0 to 11"):
        run.network_inputs(12)


@pytest.mark.parametrize(
    ("ask", "part"),
    [
        (lambda run: run.activations(3), "no snapshot of epoch 3 (there are: 0, 1, 5)"),
        (lambda run: run.activations(0, "layer9"), "no layer 'layer9'"),
        (lambda run: run.class_mean(0, split="val"), "no split 'val' (there are: train, test)"),
        (lambda run: run.data_mean(0, split="val"), "no split 'val'"),
        (lambda run: run.input_activations(0, 12), "keeps inputs 0 to 11"),
        (lambda run: run.input_activations(0, -1), "keeps inputs 0 to 11"),
        (lambda run: run.unit_activations(0, "fc", 4), "Layer fc has units 0 to 3; 4 was asked for"),
        (lambda run: run.top_inputs(0, "fc", -1), "units 0 to 3"),
        (lambda run: run.one_class_mean(0, 4), "has classes 0 to 3"),
    ],
)
def test_what_does_not_exist_is_a_sentence(run: store.Run, ask, part: str) -> None:
    with pytest.raises(RunError) as error:
        ask(run)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_reading_does_not_change_the_run(run: store.Run) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for array in (run.activations(0), run.class_mean(0), run.data_mean(0, split="train"), run.logits(0), run.one_class_mean(0, 1, "test")):
        if array.flags.writeable:
            array += 1
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


# -- damage and foreign folders --------------------------------------------------------------------------------------


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a folder"):
        store.open_run(tmp_path / "none")
    with pytest.raises(RunError, match=r"has no run\.json"):
        store.open_run(tmp_path)
    for text, part in [("{", "damaged"), ("[]", "not the manifest"), ('{"schema": 99}', "schema 99"), ('{"schema": 1}', "damaged"), ("", "damaged")]:
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=part) as error:
            store.open_run(tmp_path)
        assert "\n" not in str(error.value)


def test_pickles_are_refused(run: store.Run) -> None:
    """A run may come from somebody else: what would run code when it is read is not read."""
    target = run.path / "harm"

    class Harm:
        def __reduce__(self):
            return (os.mkdir, (str(target),))

    np.save(run.path / "snapshots/000000/mean.npy", np.array([Harm()], dtype=object), allow_pickle=True)
    (run.path / "snapshots/000001/mean.npy").write_bytes(pickle.dumps(Harm()))
    again = store.open_run(run.path)
    for epoch in (0, 1):
        with pytest.raises(RunError, match="cannot be read"):
            again.activations(epoch)
    assert not target.exists()
    assert len(again.damage()) == 2


def test_damage_names_the_file(run: store.Run) -> None:
    (run.path / "snapshots/000001/logits.npy").unlink()
    file = run.path / "snapshots/000000/max.npy"
    file.write_bytes(file.read_bytes()[:-100])
    np.save(run.path / "snapshots/000005/active.npy", np.zeros((2, 5), np.float32))
    sentences = store.open_run(run.path).damage()
    assert len(sentences) == 3
    assert "logits.npy is missing" in " ".join(sentences) and "max.npy cannot be read" in " ".join(sentences)
    assert "active.npy has shape [2, 5]; [2, 26] was expected" in " ".join(sentences)


# -- writing ---------------------------------------------------------------------------------------------------------


def test_two_writers_never_share_a_run(run: store.Run) -> None:
    with store.writing(run.path), pytest.raises(RunError, match=f"process {os.getpid()}"), store.writing(run.path):
        pass
    with store.writing(run.path):
        pass


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="holds other files"), store.writing(tmp_path):
        pass
    with pytest.raises(RunError, match="is a file"), store.writing(tmp_path / "thesis.tex"):
        pass


def _snapshot(run: store.Run) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path, allow_pickle=False) for path in (run.path / "snapshots/000000").glob("*.npy")}


def _manifest(run: store.Run) -> dict:
    return {name: value for name, value in run.manifest.items() if name != "snapshots"}


def test_a_snapshot_replaces_one_of_the_same_epoch(run: store.Run) -> None:
    arrays = _snapshot(run)
    arrays["mean"] = arrays["mean"] + np.float16(1)
    before = run.digest(1)
    with store.writing(run.path) as writer:
        again = writer.publish(_manifest(run), 1, arrays, {"accuracy": 0.5})
    assert again.epochs == [0, 1, 5] and again.digest(1) != before and again.metrics(1) == {"accuracy": 0.5}
    assert np.array_equal(again.activations(1), arrays["mean"].astype(np.float32))
    assert again.unpublished() == []


def test_equal_content_has_an_equal_digest(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    assert first.digest(0) == second.digest(0) != first.digest(1)


def test_a_failed_publish_leaves_the_run_as_it_was(run: store.Run) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and not path.name.startswith(".")}

    def no_space(path: Path) -> None:
        raise OSError(28, "No space left on device")

    for epoch in (5, 9):
        with store.writing(run.path) as writer, pytest.raises(OSError, match="No space"):
            writer.publish(_manifest(run), epoch, _snapshot(run), {}, save_weights=no_space)
    after = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert before == after and store.open_run(run.path).unpublished() == []


def _publish_until_killed(path: Path, ready) -> None:
    run = store.open_run(path)
    arrays = {name: np.repeat(array, 50, axis=0) if name in ("mean", "max") else array for name, array in _snapshot(run).items()}
    with store.writing(path) as writer:
        for epoch in range(10, 10_000):
            writer.publish(_manifest(run), epoch, arrays, {"accuracy": 0.0})
            ready.set()


def test_a_killed_writer_loses_no_published_snapshot(run: store.Run) -> None:
    context = multiprocessing.get_context("spawn")
    for turn in range(3):
        ready = context.Event()
        process = context.Process(target=_publish_until_killed, args=(run.path, ready))
        process.start()
        assert ready.wait(30)
        time.sleep(0.013 * (turn + 1))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        seen = store.open_run(run.path)
        assert seen.epochs[:4] == [0, 1, 5, 10]
        for epoch in seen.epochs:
            assert seen.activations(epoch).shape[1] == 26
        # The next writer cleans up and adopts what was complete and not yet in the manifest.
        with store.writing(run.path) as writer:
            adopted = writer.existing()
        assert adopted is not None and adopted.unpublished() == []
        folders = sorted(int(p.name) for p in (run.path / "snapshots").iterdir() if p.name.isdigit())
        assert adopted.epochs == folders


def test_clear_removes_everything(run: store.Run) -> None:
    with store.writing(run.path) as writer:
        writer.clear()
        assert writer.existing() is None
    assert [p.name for p in run.path.iterdir() if not p.name.startswith(".")] == []


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    store.write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(file, {"a": float("nan")})
    assert json.loads(file.read_text()) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["x.json"]
