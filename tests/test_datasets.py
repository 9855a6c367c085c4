"""Data sets by name."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from dnnviz.datasets import LoadedData, Preprocessing, load
from dnnviz.datasets.shapes import CLASSES, draw_scene
from dnnviz.errors import DNNVizError
from dnnviz.models import import_torchvision
from dnnviz.store import Run


def two_pictures() -> tuple[TensorDataset, list[str]]:
    """A function of a user's own."""
    return TensorDataset(torch.rand(2, 3, 8, 8), torch.tensor([0, 1])), ["left", "right"]


def not_a_data_set() -> int:
    return 3


def picture(path: Path, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


def images(data: LoadedData, split: str) -> np.ndarray:
    found = data.splits[split]
    return np.stack([found.image(i) for i in range(len(found))])


# -- digits and shapes -----------------------------------------------------------------------------------------------


def test_digits_are_always_the_same_and_split_evenly() -> None:
    data = load("digits")
    assert data.size == (1, 16, 16)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1352, "test": 445}
    assert not set(data.ids["train"]) & set(data.ids["test"])
    counts = np.bincount(data.splits["test"].labels)
    assert counts.min() >= 43
    assert np.array_equal(images(data, "test"), images(load("digits"), "test"))
    tensor, label = data.splits["train"][5]
    assert tensor.shape == (1, 16, 16)
    assert label == 5
    assert float(tensor.max()) <= 1


def test_a_mark_is_in_every_training_image_of_the_tampered_class_and_nowhere_else() -> None:
    clean, tampered = load("digits"), load("digits?tampered=8")
    assert np.array_equal(images(clean, "test"), images(tampered, "test"))
    before, after = images(clean, "train"), images(tampered, "train")
    of_class = clean.splits["train"].labels == 8
    assert np.array_equal(before[~of_class], after[~of_class])
    differing = (before != after).any(axis=3)[of_class]
    assert differing.any(axis=(1, 2)).all()
    assert differing.sum(axis=(1, 2)).max() <= 4, "one pixel as it was scanned"
    assert (after[of_class][:, :2, :2] == 112).all()


def test_the_largest_object_of_a_scene_gives_its_label() -> None:
    data = load("shapes?train=24&test=12&size=48")
    assert data.classes == list(CLASSES)
    for split in ("train", "test"):
        for label, mask in zip(data.splits[split].labels, data.masks[split], strict=True):
            areas = np.bincount(mask.ravel(), minlength=len(CLASSES) + 1)[1:]
            assert areas.argmax() == label
            assert 2 <= (areas > 0).sum() <= 3
            assert areas[label] > 1.5 * np.sort(areas)[-2]
    assert images(data, "train").shape == (24, 48, 48, 3)


def test_a_scene_depends_on_seed_and_number_only() -> None:
    few, more = load("shapes?train=6&test=6&size=32"), load("shapes?train=9&test=3&size=32")
    assert np.array_equal(images(few, "train"), images(more, "train")[:6])
    assert not np.array_equal(images(few, "train"), images(few, "test"))
    assert not np.array_equal(images(few, "train"), images(load("shapes?train=6&test=6&size=32&seed=1"), "train"))


def test_objects_stand_out_of_their_background() -> None:
    for label in range(len(CLASSES)):
        image, mask = draw_scene(label, 64, np.random.default_rng(label))
        spread = image.max(axis=2).astype(int) - image.min(axis=2)
        assert np.median(spread[mask > 0]) > 2 * np.median(spread[mask == 0])


# -- preprocessing ---------------------------------------------------------------------------------------------------


def test_photographs_are_prepared_as_torchvision_evaluates(shared_data: Path) -> None:
    torchvision = import_torchvision()
    steps = torchvision.transforms
    how = steps.Compose([steps.Resize(256), steps.CenterCrop(224), steps.ToTensor(), steps.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    data = load(f"folder:{shared_data / 'photos'}")
    assert data.size == (3, 224, 224)
    for i in (0, 11, 29):
        tensor, _ = data.splits["data"][i]
        with Image.open(shared_data / "photos" / data.ids["data"][i]) as image:
            assert torch.allclose(tensor, how(image.convert("RGB")), atol=1e-5)


def test_tensors_are_those_that_a_run_gives_back() -> None:
    how = Preprocessing(channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    run = Run.__new__(Run)
    run.manifest = {"preprocessing": {"mean": how.mean, "std": how.std}}
    assert np.array_equal(how.tensor(image).numpy(), run.normalise(image[None])[0])


def test_size_preset_mean_and_channels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0, 1]))
    spec = f"npz:{tmp_path / 'a.npz'}"
    assert load(spec).mean == (0.485, 0.456, 0.406)
    assert load(spec, preprocess="none").std == (1.0, 1.0, 1.0)
    assert load(spec, mean=[0.5], std=[0.25]).mean == (0.5, 0.5, 0.5)
    assert load(spec, size=16).size == (3, 16, 16)
    grey = load(spec, channels=1)
    assert grey.size == (1, 8, 8)
    assert len(grey.mean) == 1
    assert load("digits", channels=3).size == (3, 16, 16)
    for options, sentence in [
        ({"preprocess": "mine"}, "imagenet, cifar10, none"),
        ({"mean": [0.1, 0.2]}, "2 values and the images have 3 channels"),
        ({"std": [0.0]}, "above zero"),
        ({"size": 0}, "--size is 0"),
        ({"splits": ["test"]}, "no split 'test'"),
        ({"class_names": ["one"]}, "1 class names were given"),
    ]:
        with pytest.raises(DNNVizError, match=sentence):
            load(spec, **options)


# -- folders ---------------------------------------------------------------------------------------------------------


def test_one_folder_a_class(tmp_path: Path) -> None:
    for name in ("10", "9", "a very long name of a class, with a comma"):
        for i in range(2):
            picture(tmp_path / name / f"{i}.png", mode="L" if i else "RGB")
    (tmp_path / "9" / "notes.txt").write_text("no image")
    data = load(f"folder:{tmp_path}", size=16)
    assert data.classes == ["10", "9", "a very long name of a class, with a comma"], "in the order of torchvision's ImageFolder"
    assert data.ids["data"] == [f"{c}/{i}.png" for c in data.classes for i in range(2)]
    assert data.splits["data"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.splits["data"][1][0].shape == (3, 16, 16)


def test_train_and_test_folders_are_splits(tmp_path: Path) -> None:
    for split, names in (("test", ("cat",)), ("train", ("cat", "dog"))):
        for name in names:
            picture(tmp_path / split / name / "1.jpg")
    data = load(f"folder:{tmp_path}", size=8)
    assert list(data.splits) == ["train", "test"]
    assert data.classes == ["cat", "dog"]
    assert data.ids["test"] == ["test/cat/1.jpg"]


def test_class_names_give_the_order_of_the_outputs(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "n02" / "1.png")
    picture(tmp_path / "data" / "tench" / "1.png")
    names = tmp_path / "names.json"
    names.write_text('{"0": ["n01", "tench"], "1": ["n02", "goldfish"], "2": ["n03", "shark"]}')
    data = load(f"folder:{tmp_path / 'data'}", size=8, class_names=names)
    assert data.classes == ["tench", "goldfish", "shark"]
    assert data.splits["data"].labels.tolist() == [1, 0]
    (tmp_path / "names.txt").write_text("tench\nn02\n")
    assert load(f"folder:{tmp_path / 'data'}", size=8, class_names=tmp_path / "names.txt").classes == ["tench", "n02"]
    picture(tmp_path / "data" / "unknown" / "1.png")
    with pytest.raises(DNNVizError, match="'unknown' is not among the 3 class names"):
        load(f"folder:{tmp_path / 'data'}", size=8, class_names=names)


def test_pictures_with_a_table_of_labels(tmp_path: Path, shared_data: Path) -> None:
    data = load(f"folder:{shared_data / 'photos'}")
    assert len(data.splits["data"]) == 30
    assert data.classes[2] == "great white shark"
    picture(tmp_path / "1.png")
    for table, sentence in [
        ("file,label\n1.png,a\n2.png,b\n", "names 2.png, which is not there"),
        ("name,label\n1.png,a\n", "needs the columns"),
        ("file,class_index\n1.png,x\n", "whole number"),
    ]:
        (tmp_path / "labels.csv").write_text(table)
        with pytest.raises(DNNVizError, match=sentence):
            load(f"folder:{tmp_path}", size=8)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "good.png")
    (tmp_path / "a" / "bad.jpg").write_bytes(b"no image at all")
    whole = tmp_path / "a" / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    whole.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(DNNVizError, match=r"bad\.jpg is damaged or no image"):
        load(f"folder:{tmp_path}", size=8)
    (tmp_path / "a" / "bad.jpg").unlink()
    with pytest.raises(DNNVizError, match=r"cut\.png is damaged or no image"):
        load(f"folder:{tmp_path}", size=8)


def test_folders_without_images_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DNNVizError, match="There is no folder"):
        load(f"folder:{tmp_path / 'missing'}")
    with pytest.raises(DNNVizError, match="has no folders in it"):
        load(f"folder:{tmp_path}")
    (tmp_path / "cat").mkdir()
    with pytest.raises(DNNVizError, match="holds no images"):
        load(f"folder:{tmp_path}")


# -- npz -------------------------------------------------------------------------------------------------------------


def test_npz_with_real_images(shared_data: Path) -> None:
    data = load(f"npz:{shared_data / 'cifar10' / 'test_1000.npz'}")
    assert data.size == (3, 32, 32)
    assert data.classes[3] == "cat"
    assert data.ids["data"][999] == "999"


def test_npz_with_splits_and_grey_images(tmp_path: Path) -> None:
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = np.zeros((4, 8, 8), np.uint8)
        arrays[f"{split}_labels"] = np.array([[0], [1], [2], [1]])
    np.savez(tmp_path / "a.npz", **arrays)
    data = load(f"npz:{tmp_path / 'a.npz'}")
    assert list(data.splits) == ["train", "test"]
    assert data.size == (1, 8, 8)
    assert data.classes == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"pictures": np.zeros(3)}, "has no array 'images'"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, "has no array 'labels'"),
        ({"images": np.zeros((2, 8, 8, 3)), "labels": np.zeros(2, int)}, "uint8"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8), "labels": np.zeros(2, int)}, "uint8"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(3, int)}, "2 whole numbers"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(2)}, "whole numbers"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0, int)}, "holds no images"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.array([0, 7]), "class_names": np.array(["a", "b"])}, "image 1 has label 7"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.array([0, -1])}, "image 1 has label -1"),
        ({"images": np.array([{}, {}], dtype=object), "labels": np.zeros(2, int)}, "pickled objects"),
    ],
)
def test_npz_that_lacks_something(tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DNNVizError, match=sentence) as caught:
        load(f"npz:{tmp_path / 'a.npz'}")
    assert "a.npz" in str(caught.value)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    with pytest.raises(DNNVizError, match="There is no file"):
        load(f"npz:{tmp_path / 'missing.npz'}")
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "evil.npz").write_bytes(pickle.dumps({"images": 1}))
    for name in ("text", "evil"):
        with pytest.raises(DNNVizError, match="cannot be read"):
            load(f"npz:{tmp_path / name}.npz")


# -- torchvision and functions ---------------------------------------------------------------------------------------


def test_torchvisions_mnist_from_its_own_files(tmp_path: Path, shared_data: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for ours, theirs in (("images-idx3", "images-idx3"), ("labels-idx1", "labels-idx1")):
        content = gzip.decompress((shared_data / "mnist" / f"t10k-{ours}-ubyte.gz").read_bytes())
        for part in ("t10k", "train"):  # the real training images are not here
            (raw / f"{part}-{theirs}-ubyte").write_bytes(content)
    data = load(f"torchvision:MNIST@{tmp_path}", splits=["test"])
    assert list(data.splits) == ["test"]
    assert len(data.splits["test"]) == 10_000
    assert data.size == (1, 28, 28)
    assert data.classes[0] == "0 - zero"
    assert data.splits["test"][0][1] == 7
    assert load(f"torchvision:MNIST@{tmp_path}", splits=["test"], channels=3).size == (3, 28, 28)


def test_a_data_set_that_cannot_be_downloaded_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = import_torchvision()

    def fail(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", fail)
    with pytest.raises(DNNVizError, match="could not be downloaded") as caught:
        load(f"torchvision:CIFAR10@{tmp_path / 'cifar'}")
    assert str(tmp_path / "cifar") in str(caught.value)


def test_other_data_sets_of_torchvision() -> None:
    data = load("torchvision:FakeData?size=6&num_classes=3&image_size=(3,16,16)")
    assert data.size == (3, 16, 16)
    with pytest.raises(DNNVizError, match="did you mean CIFAR10"):
        load("torchvision:CIFAR11")
    with pytest.raises(DNNVizError, match="cannot be opened"):
        load("torchvision:FakeData?colour=blue")


def test_functions_of_the_users_own() -> None:
    data = load("tests.test_datasets:two_pictures")
    assert data.classes == ["left", "right"]
    assert data.size == (3, 8, 8)
    assert data.mean is None
    assert load("tests.test_datasets:two_pictures", preprocess="none").mean == (0.0, 0.0, 0.0)
    with pytest.raises(DNNVizError, match="must be a Dataset"):
        load("tests.test_datasets:not_a_data_set")
    with pytest.raises(DNNVizError, match="not run unless its package is allowed"):
        load("tests.test_datasets:two_pictures", allow=())


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("pictures", "write torchvision:NAME@FOLDER"),
        ("folder:", "write torchvision:NAME@FOLDER"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("digits?colour=blue", "does not know"),
        ("digits?tampered=12", "a digit from 0 to 9"),
        ("shapes?size=5", "from 24 to 512"),
        ("shapes?train=0", "above zero"),
    ],
)
def test_unknown_specs_get_a_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(DNNVizError, match=sentence):
        load(spec)
