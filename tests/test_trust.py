"""A run may come from somebody else: nothing in it runs code. (Pickled arrays: test_store; paths: test_app, test_catalogue.)"""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dnnviz.datasets
from dnnviz.errors import DNNVizError, RunError
from dnnviz.models import load_snapshot
from dnnviz.settings import Settings
from dnnviz.store import Run, open_run
from tests.runs import write_run

HARM = """
from pathlib import Path
Path(__file__).with_name("imported").touch()
import torch
def build(num_classes=4):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 16 * 3, num_classes))
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module that notes when it is imported, and a run that names it as the builder of its network."""
    (tmp_path / "foreign_code.py").write_text(HARM)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("foreign_code", None)


def foreign_run(folder: Path, spec: str, weights: object = None) -> Run:
    run = write_run(folder / "runs" / "foreign", epochs=[0])
    state = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 16 * 3, 4)).state_dict()
    file = run.path / "snapshots/000000/weights.pt"
    if weights is None:
        torch.save(state, file)
    else:
        file.write_bytes(pickle.dumps(weights))
    manifest = json.loads((run.path / "run.json").read_text())
    manifest["model"]["spec"] = spec
    manifest["snapshots"][0]["weights"] = True
    (run.path / "run.json").write_text(json.dumps(manifest))
    return open_run(run.path)


def test_a_builder_from_elsewhere_is_not_even_imported(foreign: Path) -> None:
    run = foreign_run(foreign, "foreign_code:build")
    with pytest.raises(RunError, match="DNNVIZ_ALLOW=foreign_code"):
        load_snapshot(run, 0, allow=())
    with pytest.raises(RunError, match="DNNVIZ_ALLOW"):
        run.load_model(0)
    with pytest.raises(RunError, match="not run unless its package is allowed"):
        load_snapshot(run, 0, allow=("foreign",))
    assert not (foreign / "imported").exists() and "foreign_code" not in sys.modules


def test_a_builder_whose_package_was_allowed_is_called(foreign: Path) -> None:
    model = load_snapshot(foreign_run(foreign, "foreign_code:build"), 0, allow=("foreign_code",))
    assert (foreign / "imported").exists() and not model.training
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


def test_jobs_ask_for_permission(foreign: Path) -> None:
    """The tasks pass on what the person who started the app allowed, and nothing else."""
    from dnnviz.explain.task import run as attribution

    foreign_run(foreign, "foreign_code:build")
    settings = Settings(runs=(foreign / "runs",), cache=foreign / "cache")
    request = {"run": "foreign", "epoch": 0, "inputs": ["0"], "methods": {"saliency": {}}, "targets": ["predicted"]}
    with pytest.raises(DNNVizError, match="allow"):
        attribution(settings, request, lambda *_: None)
    assert not (foreign / "imported").exists()
    assert attribution(dataclasses.replace(settings, allow=("foreign_code",)), request, lambda *_: None)


@pytest.mark.parametrize(
    "spec", ["os:system", "builtins:eval", "dnnviz.cli:main", "torchvision:../x", "torchvision:resnet18?weights=DEFAULT", "dnnviz:none"]
)
def test_specs_that_name_no_network_of_ours(foreign: Path, spec: str) -> None:
    with pytest.raises(RunError) as error:
        load_snapshot(foreign_run(foreign, spec), 0, allow=())
    assert "\n" not in str(error.value)


def test_weights_are_not_unpickled(foreign: Path) -> None:
    target = foreign / "harm"

    class Harm:
        def __reduce__(self):
            return (Path.mkdir, (target,))

    run = foreign_run(foreign, "foreign_code:build", weights={"1.weight": Harm()})
    with pytest.raises(RunError, match="damaged, or holds pickled objects"):
        load_snapshot(run, 0, allow=("foreign_code",))
    torch.save({"1.weight": Harm()}, run.path / "snapshots/000000/weights.pt")
    with pytest.raises(RunError, match="pickled objects"):
        load_snapshot(run, 0, allow=("foreign_code",))
    assert not target.exists()


def test_a_data_set_from_elsewhere_needs_permission(foreign: Path) -> None:
    with pytest.raises(DNNVizError, match="DNNVIZ_ALLOW"):
        dnnviz.datasets.load("foreign_code:build", allow=())
    assert not (foreign / "imported").exists()
