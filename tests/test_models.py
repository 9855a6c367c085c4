"""Networks by name, their weights, and the network of a snapshot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

import dnnviz
from dnnviz.errors import DNNVizError, RunError
from dnnviz.models import build, class_names, complete_spec, import_torchvision, load_snapshot


def linear_network(num_classes: int) -> nn.Module:
    """A builder of a user's own."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))


def no_network() -> int:
    return 3


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_torchvision_is_imported_where_its_operators_do_not_load() -> None:
    code = "from dnnviz.models import import_torchvision as f; t = f(); assert f() is t; print(t.models.resnet18(num_classes=3).fc.out_features)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


@pytest.mark.parametrize(("name", "count"), [("resnet20", 269_722), ("resnet32", 464_154), ("resnet56", 853_018)])
def test_cifar_resnets_have_the_parameters_of_the_paper(name: str, count: int) -> None:
    model = build(f"dnnviz:{name}")
    assert parameters(model) == count
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("side", [8, 16, 33])
@pytest.mark.parametrize("pools", [0, 2, 3])
def test_small_cnn_takes_any_size(side: int, pools: int) -> None:
    model = build(f"dnnviz:small_cnn?width=4&pools={pools}", num_classes=3, in_channels=1)
    assert model(torch.zeros(2, 1, side, side)).shape == (2, 3)
    relus = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    assert len(set(map(id, relus))) == 5
    assert not any(m.inplace for m in relus)


def test_published_weights_fit(shared_data: Path) -> None:
    build("dnnviz:resnet20", weights=shared_data / "weights" / "resnet20_cifar10.pt")
    model = build("torchvision:squeezenet1_1", 10, shared_data / "weights" / "squeezenet1_1_imagenet.pt")
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000), "the file decides the number of classes"
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("resnet18", "write torchvision:NAME"),
        ("torchvision:resnet81", "did you mean resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no classification network"),
        ("dnnviz:resnet1000", "small_cnn, resnet20"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("tests.test_models:missing", "has no missing"),
        ("tests.test_models:no_network", "must return a torch.nn.Module"),
        ("dnnviz:small_cnn?width", "write name=value"),
        ("dnnviz:small_cnn?depth=3", "unexpected keyword argument 'depth'"),
        ("torchvision:resnet18?weights=DEFAULT", "no part of a model spec"),
    ],
)
def test_unknown_specs_get_a_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(DNNVizError, match=sentence) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


def test_a_function_of_the_users_own() -> None:
    assert build("tests.test_models:linear_network", 7)[1].out_features == 7
    with pytest.raises(DNNVizError, match="not run unless its package is allowed"):
        build("tests.test_models:linear_network", 7, allow=("other", "test"))
    assert build("tests.test_models:linear_network", 7, allow=("tests",))[1].out_features == 7


def test_input_channels_of_torchvision_networks() -> None:
    assert build("torchvision:resnet18", 4, in_channels=1).eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 4)
    assert build("torchvision:squeezenet1_1", 4, in_channels=1).eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 4)


# -- weights ---------------------------------------------------------------------------------------------------------


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_widths_of_input_and_output_are_read_from_the_file(tmp_path: Path) -> None:
    source = build("dnnviz:small_cnn?width=4", 6, in_channels=1)
    model = build("dnnviz:small_cnn?width=4", 10, save(tmp_path / "w.pt", source.state_dict()), in_channels=3)
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(model.eval()(x), source.eval()(x))


@pytest.mark.parametrize("wrap", ["state_dict", "model", "parallel", "half"])
def test_forms_of_checkpoints(tmp_path: Path, wrap: str) -> None:
    state = build("dnnviz:small_cnn?width=4").state_dict()
    forms = {
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state},
        "parallel": {f"module.{k}": v for k, v in state.items()},
        "half": {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
    }
    model = build("dnnviz:small_cnn?width=4", weights=save(tmp_path / "w.pt", forms[wrap]))
    assert all(torch.allclose(v, state[k], atol=1e-3) for k, v in model.state_dict().items())


def test_weights_that_do_not_fit_name_the_first_layer_and_both_shapes(tmp_path: Path) -> None:
    state = build("dnnviz:small_cnn?width=8").state_dict()
    with pytest.raises(DNNVizError, match=r"features\.conv1\.weight is \[8, 3, 3, 3\] in the file and \[4, 3, 3, 3\] in the network"):
        build("dnnviz:small_cnn?width=4", weights=save(tmp_path / "w.pt", state))
    del state["features.bn2.bias"]
    with pytest.raises(DNNVizError, match=r"the file has no features\.bn2\.bias"):
        build("dnnviz:small_cnn?width=8", weights=save(tmp_path / "w.pt", state))
    more = {**build("dnnviz:small_cnn?width=8").state_dict(), "extra.weight": torch.zeros(2)}
    with pytest.raises(DNNVizError, match=r"the file has extra\.weight \[2\]"):
        build("dnnviz:small_cnn?width=8", weights=save(tmp_path / "w.pt", more))


def test_unreadable_weights_get_a_sentence(tmp_path: Path) -> None:
    whole = save(tmp_path / "w.pt", build("dnnviz:small_cnn?width=4").state_dict()).read_bytes()
    cases = {"half.pt": whole[: len(whole) // 2], "text.pt": b"hello", "empty.pt": b""}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DNNVizError, match=name) as caught:
            build("dnnviz:small_cnn?width=4", weights=tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(DNNVizError, match="pickled objects"):
        build("dnnviz:small_cnn?width=4", weights=save(tmp_path / "module.pt", build("dnnviz:small_cnn?width=4")))
    with pytest.raises(DNNVizError, match="no state_dict"):
        build("dnnviz:small_cnn?width=4", weights=save(tmp_path / "list.pt", [1, 2]))
    with pytest.raises(DNNVizError, match="There is no weights file"):
        build("dnnviz:small_cnn?width=4", weights=tmp_path / "missing.pt")


def test_default_weights_come_by_torchvisions_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = import_torchvision()
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    source = build("torchvision:squeezenet1_1")
    (tmp_path / "checkpoints").mkdir()
    torch.save(source.state_dict(), tmp_path / "checkpoints" / Path(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url).name)
    model = build("torchvision:squeezenet1_1", weights="DEFAULT")
    assert torch.equal(next(model.parameters()), next(source.parameters()))
    with pytest.raises(DNNVizError, match="have 1000 classes; 10 were asked for"):
        build("torchvision:squeezenet1_1", 10, "DEFAULT")
    with pytest.raises(DNNVizError, match="no default weights"):
        build("dnnviz:resnet20", weights="DEFAULT")


def test_default_weights_without_a_network_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(DNNVizError, match=r"could not be downloaded .*--weights FILE"):
        build("torchvision:resnet18", weights="DEFAULT")


def test_names_of_the_classes_of_torchvisions_weights() -> None:
    names = class_names("torchvision:resnet18", 1000)
    assert names is not None
    assert names[0] == "tench"
    assert class_names("torchvision:resnet18", 10) is None
    assert class_names("dnnviz:resnet20", 1000) is None


# -- the network of a snapshot ---------------------------------------------------------------------------------------


def capture(path: Path, spec: str | None, model: nn.Module, **more: object) -> dnnviz.store.Run:
    data = [(torch.from_numpy(np.random.default_rng(i).integers(0, 256, (3, 8, 8)).astype(np.float32) / 255), i % 3) for i in range(6)]
    return dnnviz.capture(model, data, path, classes=["a", "b", "c"], model_spec=spec, **more)


def test_a_snapshot_gives_its_network_back(tmp_path: Path) -> None:
    spec = "dnnviz:small_cnn?width=4"
    run = capture(tmp_path / "run", spec, build(spec, 3))
    model = run.load_model(0)
    assert not model.training
    with torch.inference_mode():
        found = model(torch.from_numpy(run.network_inputs(range(run.kept))))
    assert np.allclose(found.numpy(), run.logits(0), atol=1e-5)


def test_a_network_with_settings_beside_its_weights_comes_back(tmp_path: Path) -> None:
    spec = "torchvision:googlenet?transform_input=True&aux_logits=False"
    model = build(spec, 3)
    assert complete_spec("torchvision:googlenet", model) == "torchvision:googlenet?aux_logits=False&transform_input=True"
    data = [(torch.rand(3, 32, 32), i % 3) for i in range(3)]
    run = dnnviz.capture(model, data, tmp_path / "run", classes=["a", "b", "c"], model_spec=complete_spec("torchvision:googlenet", model))
    again = run.load_model(0)
    assert again.transform_input is True
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(again(x), model.eval()(x))


def test_what_a_snapshot_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(RunError, match="model_spec="):
        capture(tmp_path / "nospec", None, model).load_model(0)
    spec = "tests.test_models:linear_network"
    with pytest.raises(RunError, match="save_weights=True"):
        capture(tmp_path / "noweights", spec, model, save_weights=False).load_model(0)
    run = capture(tmp_path / "run", spec, model)
    monkeypatch.delenv("DNNVIZ_ALLOW", raising=False)
    with pytest.raises(RunError, match="DNNVIZ_ALLOW=tests"):
        run.load_model(0)
    assert isinstance(load_snapshot(run, 0, allow=("tests",)), nn.Sequential)
    monkeypatch.setenv("DNNVIZ_ALLOW", "tests")
    assert isinstance(run.load_model(0), nn.Sequential)
    (run.path / "snapshots" / "000000" / "weights.pt").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"weights\.pt is damaged"):
        run.load_model(0)
