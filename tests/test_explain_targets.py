"""What is explained: texts of targets, differences of classes, units and directions; and passes shared between methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dnnviz.errors import DNNVizError
from dnnviz.explain import ClassTarget, LayerTarget, attribute, attribute_all
from dnnviz.explain.plan import resolve_target, target_name, target_object
from dnnviz.explain.targets import NONE, PREDICTED, SECOND, parse
from dnnviz.store import Run
from tests.runs import write_run


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 5)
    ).eval()


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "run", inputs=12)


def gradient(score: torch.Tensor, leaf: torch.Tensor) -> np.ndarray:
    return torch.autograd.grad(score.sum(), leaf)[0].numpy()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("predicted", ClassTarget(PREDICTED)),
        ("class:3", ClassTarget(3)),
        ("class:3-class:12", ClassTarget(3, 12)),
        ("predicted-second", ClassTarget(PREDICTED, SECOND)),
        ("unit:layer1.0.conv1#2:12", LayerTarget("layer1.0.conv1#2", 12)),
        ("layer:features.3", LayerTarget("features.3")),
    ],
)
def test_texts_of_targets(text: str, expected: ClassTarget | LayerTarget) -> None:
    found = parse(text)
    if isinstance(expected, LayerTarget):
        assert isinstance(found, LayerTarget) and found.place == expected.place
    else:
        assert found == expected


@pytest.mark.parametrize(
    "text", ["", "class", "class:-1", "class:x", "second", "class:1-", "class:1-predicted", "unit:conv", "unit::3", "layer:", "cat"]
)
def test_other_texts_get_a_sentence(text: str) -> None:
    with pytest.raises(DNNVizError, match="class:3"):
        parse(text)


def test_a_difference_of_classes_is_the_difference_of_their_maps(model: nn.Module, inputs: torch.Tensor) -> None:
    found = attribute(model, inputs, "saliency", "class:1-class:4", absolute=False)
    one, four = (attribute(model, inputs, "saliency", k, absolute=False) for k in (1, 4))
    np.testing.assert_allclose(found.values, one.values - four.values, atol=1e-6)
    np.testing.assert_allclose(found.scores, one.logits[:, 1] - one.logits[:, 4], atol=1e-6)
    assert found.targets.tolist() == [1, 1, 1] and found.against.tolist() == [4, 4, 4]


def test_predicted_and_second_are_the_networks_own(model: nn.Module, inputs: torch.Tensor) -> None:
    order = np.argsort(-model(inputs).detach().numpy(), axis=1)
    found = attribute(model, inputs, "saliency", "predicted-second")
    assert found.targets.tolist() == order[:, 0].tolist() and found.against.tolist() == order[:, 1].tolist()
    # The rival of another class is the best of all.
    asked = [f"class:{i}-second" for i in order[:, 2]]
    assert attribute(model, inputs, "saliency", asked).against.tolist() == order[:, 0].tolist()
    mixed = attribute(model, inputs, "saliency", ["predicted", "class:2", "class:0-class:1"])
    assert mixed.targets.tolist() == [order[0, 0], 2, 0] and mixed.against.tolist() == [NONE, NONE, 1]


def test_a_unit_is_explained_by_the_gradient_of_its_mean_after_the_activation(model: nn.Module, inputs: torch.Tensor) -> None:
    leaf = inputs.clone().requires_grad_()
    value = model[:2](leaf)[:, 2].mean(dim=(1, 2))
    found = attribute(model, inputs, "saliency", "unit:0:2", absolute=False)
    np.testing.assert_allclose(found.values, gradient(value, leaf), atol=1e-7)
    np.testing.assert_allclose(found.scores, value.detach().numpy(), atol=1e-6)
    assert found.targets.tolist() == [-1, -1, -1]


def test_a_direction_of_a_layer(model: nn.Module, inputs: torch.Tensor) -> None:
    vector = np.array([1.0, -2.0, 0.0, 2.0], np.float32)
    leaf = inputs.clone().requires_grad_()
    maps = model[:4](leaf).mean(dim=(2, 3))
    found = attribute(model, inputs, "saliency", LayerTarget("2", vector=vector), absolute=False)
    np.testing.assert_allclose(found.values, gradient(maps @ torch.from_numpy(vector / 3), leaf), atol=1e-7)
    leaf = inputs.clone().requires_grad_()
    maps = model[:4](leaf).mean(dim=(2, 3))
    own = attribute(model, inputs, "saliency", "layer:2", absolute=False)
    np.testing.assert_allclose(own.scores, maps.detach().norm(dim=1).numpy(), rtol=1e-5)
    direction = maps.detach() / maps.detach().norm(dim=1, keepdim=True)
    np.testing.assert_allclose(own.values, gradient((maps * direction).sum(dim=1), leaf), atol=1e-6)


def test_targets_that_do_not_fit_get_a_sentence(model: nn.Module, inputs: torch.Tensor) -> None:
    for target, sentence in [
        ("class:5", "classes 0 to 4"),
        ("class:1-class:9", "class 9"),
        ([0, 1], "2 targets for 3 inputs"),
        (1.5, "number of a class"),
        (-1, "numbered from 0"),
        ("unit:0:6", "units 0 to 5"),
        ("unit:nowhere:0", "nowhere"),
        (LayerTarget("2", vector=np.ones(3, np.float32)), "4 units"),
        (["unit:0:1", "class:1", "class:1"], "one target at a time"),
        (["unit:0:1", "unit:0:2", "unit:0:1"], "one target at a time"),
    ]:
        with pytest.raises(DNNVizError, match=sentence):
            attribute(model, inputs, "saliency", target)


def test_methods_asked_together_share_one_forward_pass_and_agree_with_each_alone(model: nn.Module, inputs: torch.Tensor) -> None:
    passes = []
    handle = model[5].register_forward_hook(lambda *_: passes.append(1))
    methods = {"saliency": {}, "guided_backprop": {}, "grad_cam": {}}
    together = attribute_all(model, inputs, methods, layer="2")
    handle.remove()
    assert len(passes) == 1
    for name in methods:
        alone = attribute(model, inputs, name, layer="2")
        np.testing.assert_allclose(together[name].values, alone.values, atol=1e-6)
        assert together[name].layer == alone.layer and together[name].notes == alone.notes


def test_targets_of_a_run(run: Run) -> None:
    epoch = run.epochs[-1]
    order = np.argsort(-run.logits(epoch), axis=1, kind="stable")
    assert resolve_target(run, epoch, "3", "predicted") == f"class:{order[3, 0]}"
    assert resolve_target(run, epoch, "3", "true") == f"class:{run.labels[3]}"
    assert resolve_target(run, epoch, "3", "predicted-second") == f"class:{order[3, 0]}-class:{order[3, 1]}"
    upload = "upload-" + 40 * "0"
    assert resolve_target(run, epoch, upload, "true-second") == "predicted-second"
    assert target_name(run, "class:0-class:2") == f"{run.classes[0]} − {run.classes[2]}"
    layer = run.layers[0]
    found = target_object(run, epoch, resolve_target(run, epoch, "3", f"direction:{layer.name}:1"))
    np.testing.assert_allclose(found.vector, run.class_mean(epoch, layer)[1] - run.data_mean(epoch, layer))
    for target in ("class:99", f"unit:{layer.name}:{layer.units}", "unit:nowhere:1", f"direction:{layer.name}:99", "layer:", "nonsense"):
        with pytest.raises(DNNVizError):
            resolve_target(run, epoch, "3", target)
