"""Stages and health of layers."""

from pathlib import Path

import numpy as np
import pytest

import dnnviz
from dnnviz.analysis import dead_share, layer_health, stages
from tests.runs import write_run


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.0", "layer2.0.conv1", "layer2.0", "fc"], "stem layer1 layer1 layer1 layer2 layer2 fc"),
        (["features.0", "features.3", "features.6", "classifier.1", "classifier.4"], "features features features classifier classifier"),
        (
            [
                "features.0.0",
                "features.1.conv.0.0",
                "features.1.conv.1",
                "features.1",
                "features.2.conv.0.0",
                "features.2.conv.1",
                "features.2",
                "fc.1",
            ],
            "features.0 features.1 features.1 features.1 features.2 features.2 features.2 fc",
        ),
        (["conv1", "conv2", "fc"], "conv1 conv2 fc"),
        (["conv", "conv#2"], "conv conv"),
    ],
)
def test_stages_are_the_parts_a_person_would_fold(names: list[str], expected: str) -> None:
    assert stages(names) == expected.split()


def test_dead_units_are_those_that_are_zero_everywhere(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", epochs=(0,), splits=("data",))
    for name, units in (("active", [0, 1, 7, 8]), ("data_mean", [0, 1, 7])):
        path = run.path / "snapshots" / "000000" / f"{name}.npy"
        array = np.load(path)
        array[:, units] = 0
        np.save(path, array)
    # Unit 8 is only ever negative: it speaks.
    np.testing.assert_allclose(dead_share(dnnviz.open_run(run.path), 0), [2 / 6, 1 / 8, 0, 0])


def test_health_figures_follow_the_store(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    np.testing.assert_allclose(layer_health(run, 1, "mean"), [run.data_mean(1, layer).mean() for layer in run.layers], rtol=1e-6)
    np.testing.assert_allclose(layer_health(run, 1, "active"), [run.active(1, layer).mean() for layer in run.layers], rtol=1e-6)
    np.testing.assert_allclose(layer_health(run, 1, "saturated"), [(run.active(1, layer) >= 1).mean() for layer in run.layers], rtol=1e-6)
    with pytest.raises(ValueError, match="no health figure"):
        layer_health(run, 1, "colour")
