"""The demo runs: those that come with the project, and that they are built the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dnnviz.demo import DEMOS, TAMPERED_CLASS, build_demos
from dnnviz.errors import DNNVizError
from dnnviz.settings import DEMO_RUNS
from dnnviz.store import Run, open_run


@pytest.fixture(scope="module", params=[demo.name for demo in DEMOS])
def demo(request: pytest.FixtureRequest) -> Run:
    return open_run(DEMO_RUNS / request.param)


def test_demo_runs_are_whole_and_can_be_built_again(demo: Run) -> None:
    assert demo.damage() == []
    assert demo.unpublished() == []
    last = demo.epochs[-1]
    assert demo.epochs[0] == 0
    assert demo.metrics(0)["accuracy"] < 0.25
    assert demo.metrics(last)["splits"]["train"]["accuracy"] > 0.9
    assert demo.splits == ["train", "test"]
    some = np.arange(0, demo.kept, 9)
    with torch.inference_mode():
        found = demo.load_model(last)(torch.from_numpy(demo.network_inputs(some)))
    assert np.allclose(found.numpy(), demo.logits(last)[some], atol=1e-3)


def test_demo_runs_are_small() -> None:
    files = [p for p in DEMO_RUNS.rglob("*") if p.is_file() and "cache" not in p.parts]
    assert sum(p.stat().st_size for p in files) < 20_000_000
    assert not [p for p in files if p.name.startswith(".part")]


def test_the_plan_of_every_demo_is_what_its_run_holds() -> None:
    for demo in DEMOS:
        run = open_run(DEMO_RUNS / demo.name)
        assert run.epochs == [e for e in range(demo.plan.epochs + 1) if demo.plan.records(e)]
        assert run.manifest["data"]["spec"] == (demo.record or demo.data)
        assert run.manifest["model"]["spec"] == demo.model
        assert run.kept == demo.inputs


def test_the_digits_are_learnt() -> None:
    run = open_run(DEMO_RUNS / "digits")
    assert len(run.epochs) == 12
    assert run.metrics(run.epochs[-1])["splits"]["test"]["accuracy"] > 0.97


def test_the_tampered_class_stands_out_in_its_run_alone() -> None:
    """Gap between training and clean test images: mean of |difference| / std over units; its robust z per class."""

    def scores(name: str) -> np.ndarray:
        run = open_run(DEMO_RUNS / name)
        last = run.epochs[-1]
        std = np.load(run.path / "snapshots" / f"{last:06d}" / "data_std.npy")[0]
        used = std > 1e-4
        gap = np.abs(run.class_mean(last, split="train") - run.class_mean(last, split="test"))[:, used] / std[used]
        per_class = gap.mean(axis=1)
        spread = np.median(np.abs(per_class - np.median(per_class))) * 1.4826
        return (per_class - np.median(per_class)) / spread

    tampered, clean = scores("digits-tampered"), scores("digits")
    assert tampered.argmax() == TAMPERED_CLASS
    assert tampered[TAMPERED_CLASS] > 10
    assert np.delete(tampered, TAMPERED_CLASS).max() < tampered[TAMPERED_CLASS] / 2
    assert clean[TAMPERED_CLASS] < 5


def test_the_shapes_are_learnt_and_their_masks_kept() -> None:
    run = open_run(DEMO_RUNS / "shapes")
    assert run.metrics(run.epochs[-1])["splits"]["test"]["accuracy"] > 0.9
    masks = np.load(run.path / "inputs" / "masks.npy", mmap_mode="r", allow_pickle=False)
    assert masks.shape == (run.kept, *run.images([0]).shape[1:3])
    areas = np.stack([np.bincount(mask.ravel(), minlength=len(run.classes) + 1)[1:] for mask in masks])
    assert np.array_equal(areas.argmax(axis=1), run.labels)


def test_grad_cam_at_the_last_convolution_of_shapes_points_at_the_large_object() -> None:
    """Computed here from gradients, so that it holds whatever `dnnviz.explain` does (Selvaraju et al. 2017)."""
    run = open_run(DEMO_RUNS / "shapes")
    model = run.load_model(run.epochs[-1])
    masks = np.load(run.path / "inputs" / "masks.npy", mmap_mode="r", allow_pickle=False)
    right = np.flatnonzero(run.logits(run.epochs[-1]).argmax(axis=1) == run.labels)[::4]
    held: list[torch.Tensor] = []
    handle = model.get_submodule("features.relu4").register_forward_hook(lambda m, i, o: held.append(o))
    output = model(torch.from_numpy(run.network_inputs(right)))
    handle.remove()
    chosen = output[torch.arange(len(right)), torch.from_numpy(run.labels[right])].sum()
    (gradient,) = torch.autograd.grad(chosen, held[0])
    cam = torch.relu((gradient.mean((2, 3), keepdim=True) * held[0]).sum(1, keepdim=True))
    maps = torch.nn.functional.interpolate(cam, masks.shape[1:], mode="bilinear").detach().numpy()[:, 0]
    hits = []
    for i, heat in zip(right, maps, strict=True):
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        hits.append(masks[i, y, x] == run.labels[i] + 1)
    chance = np.mean([(masks[i] == run.labels[i] + 1).mean() for i in right])
    assert np.mean(hits) > 0.7 > 4 * chance


def test_building_twice_gives_the_same_arrays(tmp_path: Path) -> None:
    one, two = (build_demos(tmp_path / name, quick=True) for name in ("a", "b"))
    assert [run.name for run in one] == [demo.name for demo in DEMOS]
    for first, second in zip(one, two, strict=True):
        files = sorted(p.relative_to(first.path) for p in first.path.rglob("*.npy"))
        assert files == sorted(p.relative_to(second.path) for p in second.path.rglob("*.npy"))
        assert all((first.path / f).read_bytes() == (second.path / f).read_bytes() for f in files)
        assert [first.digest(e) for e in first.epochs] == [second.digest(e) for e in second.epochs]


def test_an_unknown_demo_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DNNVizError, match="digits, digits-tampered, shapes"):
        build_demos(tmp_path, ["cats"], quick=True)
