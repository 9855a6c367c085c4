"""Capture and Recorder: what a run then holds, that the network stays as it was, and what bad input gets to hear."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

import dnnviz
from dnnviz import store
from dnnviz.errors import DNNVizError, RunError
from dnnviz.models import build, import_torchvision
from dnnviz.settings import ROOT
from dnnviz.statistics import TopLists, reduce


class Small(nn.Module):
    """Two convolutions, one in a residual block with batch norm and in-place ReLU, and a linear layer."""

    def __init__(self, classes: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


class Pictures(Dataset):
    """Random images on the grid of 8 bits, with labels in turn; counts how often each is read."""

    def __init__(self, count: int = 40, size: int = 12, classes: int = 4, channels: int = 3, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
        self.labels = [i % classes for i in range(count)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index >= len(self):
            raise IndexError(index)
        return self.images[index].float() / 255, self.labels[index]


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    network = Small()
    network.bn1.running_mean.normal_(0, 0.1)
    return network


def everything(model: Small, inputs: torch.Tensor) -> dict[str, np.ndarray]:
    """Layer values of the small network, written out."""
    model.eval()
    with torch.no_grad():
        a = torch.relu(model.bn1(model.conv1(inputs)))
        b = torch.relu(model.bn2(model.conv2(a)))
        return {"conv1": a.numpy(), "conv2": b.numpy(), "fc": model.fc(b.mean((2, 3))).numpy()}


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def snapshot_of(model: nn.Module) -> tuple:
    """All that capture must leave as it was."""
    return (
        [(name, module.training) for name, module in model.named_modules()],
        [(name, list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for name, m in model.named_modules()],
        [(name, id(p), p.data_ptr(), p.stride(), p.requires_grad, p.grad is None) for name, p in model.named_parameters()],
        [(name, id(b), b.data_ptr()) for name, b in model.named_buffers()],
    )


# -- what a run holds ------------------------------------------------------------------------------------------------


def test_a_run_holds_what_a_direct_computation_gives(model: Small, tmp_path: Path) -> None:
    data = Pictures(43)
    inputs = torch.stack([data[i][0] for i in range(43)])
    labels = np.array(data.labels)
    run = dnnviz.capture(model, data, tmp_path / "run", classes=["a", "b", "c", "d"], inputs=13, batch_size=8, metrics={"note": 3})
    values = everything(model, inputs)
    means = np.concatenate([v.reshape(*v.shape[:2], -1).mean(2) for v in values.values()], axis=1)
    peaks = np.concatenate([v.reshape(*v.shape[:2], -1).max(2) for v in values.values()], axis=1)
    assert [(layer.name, layer.kind, layer.units, layer.shape) for layer in run.layers] == [
        ("conv1", "conv", 6, (6, 12, 12)),
        ("conv2", "conv", 8, (8, 5, 5)),
        ("fc", "linear", 4, (4,)),
    ]
    assert run.damage() == []
    positions = np.load(run.path / "inputs" / "positions.npy")
    assert run.kept == 13 and sorted(np.bincount(run.labels)) == [3, 3, 3, 4]
    np.testing.assert_array_equal(run.labels, labels[positions])
    np.testing.assert_array_equal(run.images(range(13)), data.images[positions].permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(run.network_inputs(range(13)), inputs[positions].numpy(), atol=1e-6)
    np.testing.assert_allclose(run.activations(0), means[positions], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(run.activations(0, stat="max"), peaks[positions], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(run.logits(0), values["fc"][positions], rtol=1e-4, atol=1e-5)
    for label in range(4):
        np.testing.assert_allclose(run.class_mean(0)[label], means[labels == label].mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(run.class_std(0)[label], means[labels == label].std(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run.data_mean(0), means.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run.data_std(0), means.std(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run.active(0), (peaks > 0).mean(0), atol=1e-6)
    for unit in range(run.units):
        best = np.argsort(-peaks[:, unit], kind="stable")[:9]
        layer = next(x for x in run.layers if x.offset <= unit < x.offset + x.units)
        indices, found, places = run.top_ranking(0, layer, unit - layer.offset)
        np.testing.assert_allclose(found, peaks[best, unit], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(np.load(run.path / "snapshots/000000/top_positions.npy")[unit], best)
        np.testing.assert_array_equal(run.images(indices), data.images[best].permute(0, 2, 3, 1).numpy())
        np.testing.assert_array_equal(run.image_labels(indices), labels[best])
        if layer.kind == "conv":
            maps = values[layer.name][best, unit - layer.offset]
            np.testing.assert_array_equal(places, maps.reshape(len(best), -1).argmax(1))
        else:
            assert (places == -1).all()
    logits = torch.from_numpy(values["fc"])
    assert run.metrics(0)["accuracy"] == pytest.approx(float((logits.argmax(1).numpy() == labels).mean()))
    assert run.metrics(0)["loss"] == pytest.approx(float(F.cross_entropy(logits, torch.tensor(labels))), rel=1e-5)
    assert run.metrics(0)["note"] == 3
    assert run.manifest["inputs"]["aggregated"] == 43


def test_splits_have_aggregates_of_their_own(model: Small, tmp_path: Path) -> None:
    train, test = Pictures(30, seed=1), Pictures(14, seed=2)
    run = dnnviz.capture(model, {"train": train, "test": test}, tmp_path / "run", inputs=16, batch_size=4)
    assert run.splits == ["train", "test"] and np.bincount(run.input_splits).tolist() == [8, 8]
    assert run.class_counts.tolist() == [[8, 8, 7, 7], [4, 4, 3, 3]]
    for name, data in (("train", train), ("test", test)):
        values = everything(model, data.images.float() / 255)
        means = np.concatenate([v.reshape(*v.shape[:2], -1).mean(2) for v in values.values()], axis=1)
        np.testing.assert_allclose(run.data_mean(0, split=name), means.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(run.class_mean(0, split=name)[2], means[2::4].mean(0), rtol=1e-4, atol=1e-6)
        assert run.metrics(0)["splits"][name]["accuracy"] == pytest.approx(float((values["fc"].argmax(1) == np.array(data.labels)).mean()))


@pytest.mark.parametrize("kind", ["list", "loader", "shuffled", "collate", "workers", "iterable", "generator", "subset"])
def test_any_way_of_giving_data_gives_the_same(kind: str, model: Small, tmp_path: Path) -> None:
    data = Pictures(20)
    items = [data[i] for i in range(20)]

    class Stream(IterableDataset):
        def __iter__(self) -> object:
            return iter(items)

    given = {
        "list": items,
        "loader": DataLoader(data, batch_size=6),
        "shuffled": DataLoader(data, batch_size=6, shuffle=True),
        "collate": DataLoader(data, batch_size=6, shuffle=True, collate_fn=lambda items: torch.utils.data.default_collate(items)),
        "workers": DataLoader(data, batch_size=6, num_workers=1),
        "iterable": Stream(),
        "generator": (pair for pair in items),
        "subset": Subset(Pictures(30), range(20)),
    }[kind]
    wanted = dnnviz.capture(model, data, tmp_path / "wanted", inputs=8)
    before = torch.get_rng_state()
    run = dnnviz.capture(model, given, tmp_path / "run", inputs=8, batch_size=6)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(run.labels, wanted.labels)
    np.testing.assert_array_equal(run.images(range(8)), wanted.images(range(8)) if kind != "subset" else data_images(given, run))
    if kind != "subset":
        np.testing.assert_allclose(run.activations(0), wanted.activations(0), rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(run.class_mean(0), wanted.class_mean(0), rtol=1e-4, atol=1e-6)
        indices, _, _ = run.top_ranking(0, "conv1", 0)
        np.testing.assert_array_equal(run.images(indices), wanted.images(wanted.top_ranking(0, "conv1", 0)[0]))


def data_images(subset: Subset, run: store.Run) -> np.ndarray:
    positions = np.load(run.path / "inputs" / "positions.npy")
    return np.stack([(subset[int(p)][0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8) for p in positions])


def test_kept_inputs_are_even_over_classes_also_when_sorted_by_class(model: Small, tmp_path: Path) -> None:
    data = Pictures(60)
    order = sorted(range(60), key=lambda i: data.labels[i])
    run = dnnviz.capture(model, Subset(data, order), tmp_path / "run", inputs=10)
    assert sorted(np.bincount(run.labels)) == [2, 2, 3, 3]
    assert run.ids == [str(order[p]) for p in np.load(run.path / "inputs" / "positions.npy")]
    rare = Subset(data, [*[i for i in range(60) if data.labels[i] != 3][:30], 3])
    run = dnnviz.capture(model, rare, tmp_path / "rare", inputs=10)
    assert np.bincount(run.labels).tolist() == [3, 3, 3, 1]


def test_grey_and_other_channels_are_shown(tmp_path: Path) -> None:
    torch.manual_seed(0)
    grey = dnnviz.capture(Small(channels=1), Pictures(12, channels=1), tmp_path / "grey", inputs=5)
    assert np.load(grey.path / "inputs" / "images.npy").shape == (5, 12, 12, 1) and grey.images([0]).shape == (1, 12, 12, 3)
    five = Pictures(12, channels=5)
    run = dnnviz.capture(Small(channels=5), five, tmp_path / "five", inputs=5)
    assert np.load(run.path / "inputs" / "images.npy").shape == (5, 12, 12, 1)
    np.testing.assert_allclose(run.network_inputs([2])[0], five[2][0].numpy())
    assert not run.manifest["preprocessing"]["exact"]


@pytest.mark.parametrize(
    ("change", "exact", "says"),
    [
        (lambda x: (x - 0.5) / 0.5, True, "half"),
        (lambda x: (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None], True, "ImageNet"),
        (lambda x: x * 255, True, "whole numbers"),
        (lambda x: x * 7 - 3, False, "stretched"),
    ],
)
def test_the_normalisation_is_found_out(change: Callable, exact: bool, says: str, model: Small, tmp_path: Path) -> None:
    data = Pictures(24)
    run = dnnviz.capture(model, [(change(x), y) for x, y in (data[i] for i in range(24))], tmp_path / "run", inputs=24)
    assert says in run.manifest["preprocessing"]["description"]
    if exact:
        np.testing.assert_array_equal(run.images(range(24)), data.images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(run.network_inputs(range(24)), torch.stack([change(data[i][0]) for i in range(24)]).numpy(), atol=7 / 255)


def test_a_normalize_of_the_data_set_is_found(model: Small, tmp_path: Path) -> None:
    transforms = import_torchvision().transforms
    data = Pictures(12)
    normalize = transforms.Normalize((0.2, 0.3, 0.4), (0.5, 0.6, 0.7))

    class Transformed(Pictures):
        transform = transforms.Compose([normalize])

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image, label = super().__getitem__(index)
            return self.transform(image), label

    run = dnnviz.capture(model, DataLoader(Subset(Transformed(12), range(12)), batch_size=4), tmp_path / "run", inputs=12)
    assert run.manifest["preprocessing"]["std"] == [0.5, 0.6, 0.7]
    np.testing.assert_array_equal(run.images(range(12)), data.images.permute(0, 2, 3, 1).numpy())


def test_values_too_large_for_half_precision_are_kept_in_single(model: Small, tmp_path: Path) -> None:
    with torch.no_grad():
        model.fc.weight.mul_(1e7)
    run = dnnviz.capture(model, Pictures(8), tmp_path / "run")
    assert run.snapshot(0)["dtypes"] == {"mean": "float32", "max": "float32"}
    assert np.isfinite(run.activations(0)).all() and np.abs(run.activations(0, "fc")).max() > 65504


def test_resnet20_on_cifar10(shared_data: Path, tmp_path: Path) -> None:
    """The accuracy is the published one, and aggregates are those of a direct computation in float64."""
    network = build("dnnviz:resnet20", weights=shared_data / "weights" / "resnet20_cifar10.pt").eval()
    content = np.load(shared_data / "cifar10" / "test_1000.npz")
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    inputs = (torch.from_numpy(content["images"]).permute(0, 3, 1, 2).float() / 255 - mean) / std
    labels = content["labels"]
    kept: list[torch.Tensor] = []
    handle = network.layer2[1].register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    run = dnnviz.capture(
        *(network, list(zip(inputs, labels, strict=True)), tmp_path / "run", list(content["class_names"])),
        inputs=100,
        batch_size=128,
        mean=mean.flatten().tolist(),
        std=std.flatten().tolist(),
    )
    assert run.metrics(0)["accuracy"] == pytest.approx(0.915)
    assert np.bincount(run.labels).tolist() == [10] * 10
    assert len(run.layers) == 29 and [layer.kind for layer in run.layers].count("block") == 9
    np.testing.assert_array_equal(run.images(range(100)), content["images"][np.load(run.path / "inputs" / "positions.npy")])
    handle.remove()
    values = torch.cat(kept[-8:]).double().numpy()  # before them, the passes that find the layers
    means, peaks = values.mean((2, 3)), values.max((2, 3))
    layer = run.layer("layer2.1")
    np.testing.assert_allclose(run.data_mean(0, layer), means.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run.data_std(0, layer), means.std(0), rtol=1e-3, atol=1e-6)
    for label in range(10):
        np.testing.assert_allclose(run.class_mean(0, layer)[label], means[labels == label].mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run.active(0, layer), (peaks > 0).mean(0), atol=1e-6)
    _, found, _ = run.top_ranking(0, layer, 5)
    np.testing.assert_allclose(found, np.sort(peaks[:, 5])[::-1][:9], rtol=1e-4)


# -- the network afterwards ------------------------------------------------------------------------------------------


class Breaks(Pictures):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 17:
            raise OSError("truncated file")
        return super().__getitem__(index)


@pytest.mark.parametrize("data", [Pictures(24), Breaks(24)], ids=["whole", "breaks"])
def test_the_network_is_afterwards_as_it_was(data: Dataset, model: Small, tmp_path: Path) -> None:
    model.train()
    model.bn2.eval()  # frozen by the user
    model.fc.weight.requires_grad_(False)
    seen = []
    model.conv1.register_forward_hook(lambda *_: seen.append(1))
    F.cross_entropy(model(torch.rand(8, 3, 12, 12)), torch.arange(8) % 4).backward()
    before, weights, count = snapshot_of(model), state(model), len(seen)
    gradient = model.conv1.weight.grad.clone()
    try:
        dnnviz.capture(model, data, tmp_path / "run", batch_size=8)
    except DNNVizError as error:
        assert "Input 17 cannot be read" in str(error)
        assert not (tmp_path / "run").exists()
    assert snapshot_of(model) == before and torch.equal(model.conv1.weight.grad, gradient)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert len(seen) > count  # the user's own hook ran, and is still there
    # It trains on: nothing in it is an inference tensor.
    F.cross_entropy(model(torch.rand(8, 3, 12, 12)), torch.arange(8) % 4).backward()


def test_a_network_that_counts_its_calls_is_put_back(tmp_path: Path) -> None:
    class Counting(Small):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.last = x.mean()
            return super().forward(x)

    network = Counting()
    weights = state(network)
    dnnviz.capture(network, Pictures(8), tmp_path / "run")
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())


def test_networks_that_cannot_take_channels_last(tmp_path: Path) -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(400, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.conv(x))
            return self.fc(x.view(len(x), -1))

    torch.manual_seed(0)
    network = Views()
    run = dnnviz.capture(network, Pictures(12), tmp_path / "run", inputs=12)
    with torch.no_grad():
        wanted = network(torch.stack([Pictures(12)[i][0] for i in range(12)])).numpy()
    np.testing.assert_allclose(run.logits(0), wanted, rtol=1e-4, atol=1e-5)


def small_swin() -> nn.Module:
    return import_torchvision().models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=4)


def small_convnext() -> nn.Module:
    models = import_torchvision().models.convnext
    return models.ConvNeXt([models.CNBlockConfig(16, 32, 2), models.CNBlockConfig(32, None, 1)], num_classes=4)


def small_vit() -> nn.Module:
    return import_torchvision().models.VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=4)


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5", "small_swin", "small_convnext", "small_vit"])
def test_torchvision_networks_capture_and_stay_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = f"{__name__}:{name}" if name.startswith("small") else f"torchvision:{name}"
    network = globals()[name]() if name.startswith("small") else build(spec, num_classes=4)
    before, weights = snapshot_of(network), state(network)
    run = dnnviz.capture(network, Pictures(6, size=64), tmp_path / "run", inputs=6, model_spec=spec)
    assert snapshot_of(network) == before
    assert all(torch.equal(weights[key], tensor) for key, tensor in network.state_dict().items())
    assert run.damage() == []
    network.eval()
    with torch.inference_mode():
        wanted = network(torch.from_numpy(run.network_inputs(range(6)))).numpy()
    np.testing.assert_allclose(run.logits(0), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    if name.startswith("small"):
        return
    again = run.load_model(0)
    with torch.inference_mode():
        np.testing.assert_allclose(again(torch.from_numpy(run.network_inputs(range(6)))).numpy(), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


# -- snapshots of a training -----------------------------------------------------------------------------------------


def test_recorder_writes_snapshots_of_the_same_inputs(model: Small, tmp_path: Path) -> None:
    data = Pictures(20)
    recorder = dnnviz.Recorder(tmp_path / "run", model, DataLoader(data, batch_size=5, shuffle=True), every=5, inputs=8)
    assert recorder.epochs == []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    answers = []
    for epoch in range(11):
        answers.append(recorder.record(epoch, accuracy=0.91, accuracy_on_train=torch.tensor(0.5), lr=np.float32(0.25), bad=float("nan")))
        F.cross_entropy(model(torch.stack([data[i][0] for i in range(20)])), torch.tensor(data.labels)).backward()
        optimizer.step()
    assert [a for a in answers if a is not None] == [0, 5, 10] and model.training
    run = dnnviz.open_run(tmp_path / "run")
    assert run.epochs == recorder.epochs == [0, 5, 10] and run.damage() == []
    assert run.metrics(5)["accuracy"] == 0.91 and 0 <= run.metrics(5)["splits"]["data"]["accuracy"] <= 1
    assert run.metrics(5)["accuracy_on_train"] == 0.5 and run.metrics(5)["bad"] is None and run.metrics(5)["lr"] == 0.25
    assert not np.array_equal(run.activations(0), run.activations(10))
    for epoch in run.epochs:
        indices, values, _ = run.top_ranking(epoch, "conv2", 1)
        assert (indices >= 0).all() and (np.diff(values) <= 0).all()
        assert set(run.image_labels(indices)) <= {0, 1, 2, 3}
    with pytest.raises(RunError, match="epoch 5 already"):
        recorder.record(5)
    # Goes on where it stopped.
    assert dnnviz.Recorder(tmp_path / "run", model, data, every=5, inputs=8).record(15) == 15
    assert dnnviz.open_run(tmp_path / "run").epochs == [0, 5, 10, 15]


def test_recorder_does_not_disturb_a_training(tmp_path: Path) -> None:
    """The same seed gives the same weights with and without snapshots."""

    def train(record: bool) -> torch.Tensor:
        torch.manual_seed(3)
        network = Small()
        network.fc = nn.Sequential(nn.Dropout(0.5), network.fc)
        recorder = dnnviz.Recorder(tmp_path / "run", network, Pictures(12)) if record else None
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for epoch in range(2):
            for images, labels in DataLoader(Pictures(12), batch_size=4, shuffle=True):
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()
            if recorder:
                recorder.record(epoch)
        return network.conv1.weight.detach().clone()

    assert torch.equal(train(False), train(True))


def test_other_data_or_networks_do_not_enter_a_run(model: Small, tmp_path: Path) -> None:
    path = tmp_path / "run"
    dnnviz.capture(model, Pictures(20), path, inputs=6)
    other = Pictures(20, seed=9)
    for data, network, options, says in [
        (Pictures(20), model, {}, "snapshot of epoch 0 already"),
        (other, model, {"epoch": 1}, "other inputs"),
        (Pictures(24), model, {"epoch": 1}, "another data set"),
        (Pictures(20), Small(classes=5), {"epoch": 1}, "another network"),
        (Pictures(20), model, {"epoch": 1, "classes": ["w", "x", "y", "z"]}, "other classes"),
        ({"a": Pictures(20)}, model, {"epoch": 1}, "other splits"),
        (Pictures(20, size=14), model, {"epoch": 1, "layers": ["fc"]}, "another network"),
    ]:
        with pytest.raises(RunError, match=says):
            dnnviz.capture(network, data, path, **options)
    assert dnnviz.open_run(path).epochs == [0] and dnnviz.open_run(path).damage() == []
    run = dnnviz.capture(model, other, path, overwrite=True)
    np.testing.assert_array_equal(run.images([0])[0], other.images[0].permute(1, 2, 0).numpy())
    assert run.epochs == [0] and run.damage() == []
    assert sorted(p.name for p in path.iterdir() if p.name not in (".lock",)) == ["graph.json", "inputs", "run.json", "snapshots"]


def test_classes_of_one_name_are_told_apart(model: Small, tmp_path: Path) -> None:
    for epoch in (0, 1):
        run = dnnviz.capture(model, Pictures(20), tmp_path / "run", epoch=epoch, classes=["crane", "dog", "crane", "cat"])
    assert run.classes == ["crane (0)", "dog", "crane (2)", "cat"] and run.epochs == [0, 1]


def test_overwriting_one_epoch_keeps_the_others(model: Small, tmp_path: Path) -> None:
    path, data = tmp_path / "run", Pictures(20)
    first = dnnviz.capture(model, data, path, epoch=0)
    second = dnnviz.capture(model, data, path, epoch=1)
    with torch.no_grad():
        model.conv1.weight.mul_(2)
    run = dnnviz.capture(model, data, path, epoch=1, overwrite=True)
    assert run.epochs == [0, 1]
    assert run.digest(0) == first.digest(0) and run.digest(1) != second.digest(1)
    recorder = dnnviz.Recorder(path, model, data, overwrite=True)
    assert recorder.epochs == []
    recorder.record(7)
    recorder.record(8)
    assert dnnviz.open_run(path).epochs == [7, 8]


def test_an_overwrite_that_fails_leaves_the_old_run(model: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    old = dnnviz.capture(model, Pictures(20), path)
    digest = old.digest(0)
    with pytest.raises(DNNVizError, match="cannot be read"):
        dnnviz.capture(model, Breaks(24), path, overwrite=True)
    monkeypatch.setattr(store.writer, "write_array", full_disk(store.writer.write_array, 3))
    with pytest.raises(DNNVizError, match="full"):
        dnnviz.capture(model, Pictures(24, seed=4), path, overwrite=True)
    run = dnnviz.open_run(path)
    assert run.digest(0) == digest and run.damage() == [] and run.unpublished() == []
    np.testing.assert_array_equal(run.images([0])[0], Pictures(20).images[0].permute(1, 2, 0).numpy())
    assert not [p for p in path.iterdir() if p.name.startswith((".staging", ".replaced"))]


# -- interrupted -----------------------------------------------------------------------------------------------------


def full_disk(write: Callable, after: int) -> Callable:
    """A writer of arrays for which the disk is full after so many files."""
    done = []

    def writes(path: Path, array: np.ndarray) -> None:
        done.append(path)
        if len(done) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, array)

    return writes


@pytest.mark.parametrize("after", [0, 2, 8, 14])
def test_a_full_disk_publishes_nothing_half(after: int, model: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(store.writer, "write_array", full_disk(store.writer.write_array, after))
        with pytest.raises(DNNVizError, match="is full; nothing of this snapshot was published"):
            dnnviz.capture(model, Pictures(20), path)
        assert not path.exists()
    dnnviz.capture(model, Pictures(20), path)
    with monkeypatch.context() as patch:
        patch.setattr(store.writer, "write_array", full_disk(store.writer.write_array, min(after, 8)))
        with pytest.raises(DNNVizError, match="is full"):
            dnnviz.capture(model, Pictures(20), path, epoch=1)
    run = dnnviz.open_run(path)
    assert run.epochs == [0] and run.damage() == [] and run.unpublished() == []


def test_weights_that_cannot_be_written(model: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(DNNVizError, match="is full"):
        dnnviz.capture(model, Pictures(8), tmp_path / "run")
    assert not (tmp_path / "run").exists()


KILLED = """
import sys, torch
sys.path.insert(0, {root!r})
from tests.test_capture import Pictures, Small
import dnnviz
torch.manual_seed(0)
recorder = dnnviz.Recorder({path!r}, Small(), Pictures(400), inputs=200)
for epoch in range(1000):
    recorder.record(epoch)
    print(epoch, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_killed_while_writing_keeps_what_was_published(tmp_path: Path) -> None:
    path = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", KILLED.format(root=str(ROOT), path=str(path))], stdout=subprocess.PIPE, text=True, env=quiet())
    assert child.stdout is not None
    published = -1
    while published < 2:
        published = int(child.stdout.readline())
    time.sleep(0.05)  # in the middle of one
    child.send_signal(signal.SIGKILL)
    child.wait()
    run = dnnviz.open_run(path)
    assert set(range(published + 1)) <= set(run.epochs) and run.damage() == []
    torch.manual_seed(0)
    recorder = dnnviz.Recorder(path, Small(), Pictures(400), inputs=200)
    following = max(recorder.epochs) + 1
    # A snapshot that was complete, but not in the manifest yet, is found again.
    try:
        recorder.record(following)
    except RunError as error:
        assert "already" in str(error)
    run = dnnviz.open_run(path)
    assert following in run.epochs and run.damage() == [] and run.unpublished() == []


def test_a_replacement_killed_half_way_is_undone(model: Small, tmp_path: Path) -> None:
    from dnnviz import publish

    path = tmp_path / "run"
    run = dnnviz.capture(model, Pictures(20), path)
    (path / publish._REPLACED).mkdir()
    for name in ("run.json", "graph.json", "snapshots"):
        (path / name).rename(path / publish._REPLACED / name)
    (path / "snapshots").mkdir()  # of the new run
    run = dnnviz.capture(model, Pictures(20), path, epoch=1)
    assert run.epochs == [0, 1] and run.damage() == []


def quiet() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_two_writers_do_not_share_a_run(model: Small, tmp_path: Path) -> None:
    with store.writing(tmp_path / "run"), pytest.raises(RunError, match="is being written by another process"):
        dnnviz.capture(model, Pictures(8), tmp_path / "run")


# -- sentences -------------------------------------------------------------------------------------------------------


def broken(index: int, pair: tuple) -> list[tuple]:
    data = Pictures(12)
    items: list[tuple] = [data[i] for i in range(12)]
    items[index] = pair
    return items


IMAGE = torch.rand(3, 12, 12)


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        (Breaks(20), {}, r"Input 17 cannot be read: truncated file"),
        (DataLoader(Breaks(20), batch_size=4), {}, r"Input 17 cannot be read"),
        (Breaks(20), {"workers": 1}, r"Input 17 cannot be read"),
        ({"train": Pictures(8), "test": Breaks(20)}, {}, r"Input 17 of split 'test' cannot be read"),
        (broken(5, (IMAGE, 4)), {}, r"Input 5 has label 4; with 4 classes labels go from 0 to 3"),
        (broken(5, (IMAGE, -1)), {}, r"Input 5 has label -1"),
        (broken(5, (IMAGE, "cat")), {}, r"Input 5 has the label 'cat'; it must be a whole number"),
        (broken(5, (IMAGE, torch.zeros(4))), {}, r"Input 5 has a label of shape \[4\]"),
        (broken(5, (torch.rand(3, 9, 9), 0)), {}, r"Input 5 has size \[3, 9, 9\], those before it \[3, 12, 12\]"),
        (broken(11, (torch.rand(3, 9, 9), 0)), {"batch_size": 11}, r"Input 11 has size"),
        (broken(5, (torch.rand(12, 12), 0)), {}, r"Input 5 has shape \[12, 12\]; it must be \[C, H, W\]"),
        (broken(5, (object(), 0)), {}, r"Input 5 is a object; it must be a tensor"),
        (broken(5, IMAGE), {}, r"Input 5 is a Tensor; it must be an \(image tensor, label\) pair"),
        ([], {}, r"hold no inputs"),
        ({"train": Pictures(8), "test": []}, {}, r"of split 'test' hold no inputs"),
        ({}, {}, r"empty dictionary"),
        (7, {}, r"is a int; it must be a sequence"),
        (Pictures(8), {"classes": ["a", "b"]}, r"has 4 outputs, but 2 class names were given"),
        (Pictures(8), {"mean": (0.1, 0.2)}, r"mean has 2 numbers, the images have 3 channels"),
        (Pictures(8), {"std": (0.1, 0.2, 0.0)}, r"every number must be above zero"),
        (Pictures(8, channels=1), {}, r"cannot run on inputs of size \[1, 12, 12\]"),
        (Pictures(8), {"layers": ["nothing"]}, r"No layer of the network fits 'nothing'"),
        (Pictures(8), {"inputs": 0}, r"inputs is 0"),
        (Pictures(8), {"batch_size": 0}, r"batch_size is 0"),
        (Pictures(8), {"epoch": -1}, r"The epoch is -1"),
    ],
)
def test_bad_input_gets_one_sentence(data: object, options: dict, says: str, model: Small, tmp_path: Path) -> None:
    before = snapshot_of(model)
    with pytest.raises(DNNVizError, match=says) as caught:
        dnnviz.capture(model, data, tmp_path / "run", **{"batch_size": 4, **options})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert snapshot_of(model) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_activations_name_the_layer(value: float, model: Small, tmp_path: Path) -> None:
    with torch.no_grad():
        model.conv2.weight[3, 0, 0, 0] = value
    with pytest.raises(DNNVizError, match=r"Layer conv2 gives (NaN|infinite values) for Input 0"):
        dnnviz.capture(model, Pictures(8), tmp_path / "run")


def test_outputs_that_are_no_logits(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(DNNVizError, match=r"returns a tensor \[2, 4, 10, 10\] for 2 inputs; a classifier's logits \[2, classes\] are needed"):
        dnnviz.capture(network, Pictures(8), tmp_path / "run")
    with pytest.raises(DNNVizError, match="The model is a int"):
        dnnviz.capture(3, Pictures(8), tmp_path / "run")


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:Converting a tensor")
def test_wrapped_networks_are_captured_as_themselves(model: Small, tmp_path: Path) -> None:
    names = [layer.name for layer in dnnviz.capture(model, Pictures(8), tmp_path / "plain").layers]

    class Compiled(nn.Module):  # as torch.compile wraps a network
        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = model

    for number, wrapped in enumerate((Compiled(), nn.DataParallel(model))):
        run = dnnviz.capture(wrapped, Pictures(8), tmp_path / f"run{number}")
        assert [layer.name for layer in run.layers] == names
        assert set(torch.load(run.path / "snapshots/000000/weights.pt", weights_only=True)) == set(model.state_dict())
    with pytest.raises(DNNVizError, match="TorchScript"):
        dnnviz.capture(torch.jit.trace(model, torch.rand(1, 3, 12, 12)), Pictures(8), tmp_path / "script")


def test_pytorch_transformer_layers(tmp_path: Path) -> None:
    """Their fused path in eval mode runs no module inside."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 4, 4)
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
            self.head = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.encoder(self.embed(x).flatten(2).transpose(1, 2)).mean(1))

    torch.manual_seed(0)
    run = dnnviz.capture(Tokens(), Pictures(8), tmp_path / "run")
    kinds = {layer.name: (layer.kind, layer.shape) for layer in run.layers}
    assert kinds["encoder.layers.1.self_attn"] == ("attention", (9, 8)) and kinds["encoder.layers.0"] == ("block", (9, 8))
    assert kinds["encoder.layers.1.linear1"] == ("linear", (9, 16))
    assert (run.activations(0, "encoder.layers.0.linear1", "max") >= 0).all()  # after its ReLU


@pytest.mark.parametrize("form", ["contiguous", "channels_last", "tokens"])
@pytest.mark.parametrize("side", [3, 9, 11])
def test_top_lists_in_every_layout(form: str, side: int) -> None:
    """Lists of top inputs and places of maxima from batches, against sorting everything at once."""
    generator = torch.Generator().manual_seed(side)
    values = torch.randn(50, 7, side, side, generator=generator)
    values[:, 6] = 0.0  # a dead unit: the first inputs, in order
    tops = TopLists(7, 9, torch.device("cpu"))
    for start in range(0, 50, 8):
        batch = values[start : start + 8]
        if form == "channels_last":
            batch = batch.contiguous(memory_format=torch.channels_last)
        elif form == "tokens":
            batch = batch.flatten(2).movedim(1, 2).contiguous().movedim(2, 1)
        mean, peak, lines = reduce(batch)
        torch.testing.assert_close(mean, values[start : start + 8].mean((2, 3)))
        assert torch.equal(peak, values[start : start + 8].amax((2, 3)))
        tops.update(peak, batch, lines, start)
    peaks = values.amax((2, 3))
    order = peaks.sort(dim=0, descending=True, stable=True)[1][:9]
    assert torch.equal(tops.positions, order) and torch.equal(tops.values, peaks.gather(0, order))
    wanted = values.flatten(2).argmax(2).gather(0, order)
    assert torch.equal(tops.places[:, :6], wanted[:, :6])


def test_specs_for_network_and_data(tmp_path: Path) -> None:
    run = dnnviz.capture("dnnviz:small_cnn?in_channels=1", "digits", tmp_path / "run", inputs=20)
    assert run.manifest["model"]["spec"] == "dnnviz:small_cnn?in_channels=1" and run.manifest["data"]["spec"] == "digits"
    assert len(run.classes) == 10 and run.manifest["preprocessing"]["size"][0] == 1
    assert not run.load_model(0).training


def test_files_in_the_way(model: Small, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        dnnviz.capture(model, Pictures(8), tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="holds other files"):
        dnnviz.capture(model, Pictures(8), tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "thesis.tex").read_text() == "x"


# -- memory ----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_data(model: Small, tmp_path: Path) -> None:
    """The tensors alive at the last batch are as large for 30 batches as for 4."""
    import gc

    def alive(batches: int) -> int:
        counts = []

        def progress(done: int, _total: int | None, _text: str) -> None:
            if done == batches * 8:
                gc.collect()
                counts.append(sum(t.numel() for t in gc.get_objects() if issubclass(type(t), torch.Tensor)))

        class Stream(IterableDataset):
            def __iter__(self) -> object:
                for i in range(batches * 8):
                    yield torch.rand(3, 12, 12), i % 4

        dnnviz.capture(model, Stream(), tmp_path / f"run{batches}", inputs=8, batch_size=8, progress=progress)
        return counts[0]

    alive(2)
    assert alive(30) <= alive(4) * 1.05
