"""How predictions moved between two networks."""

import numpy as np
import pytest
from scipy.stats import binomtest

import dnnviz
from dnnviz.analysis.moves import Moves, moves
from dnnviz.analysis.sides import Side
from dnnviz.errors import RunError
from dnnviz.figures.flows import MOST_CLASSES, flows
from dnnviz.settings import DEMO_RUNS
from tests.runs import write_run


@pytest.mark.parametrize(("mended", "broken"), [(0, 0), (1, 0), (5, 1), (7, 7), (30, 12), (400, 450), (2000, 1)])
def test_the_test_of_mended_against_broken_is_scipys(mended, broken):
    truth = np.zeros(mended + broken + 3, dtype=int)
    first, second = truth.copy(), truth.copy()
    first[:mended], second[mended : mended + broken] = 1, 1
    found = Moves(np.arange(len(truth)), truth, first, second)
    assert (found.mended.sum(), found.broken.sum(), found.moved.sum()) == (mended, broken, mended + broken)
    wanted = binomtest(mended, mended + broken).pvalue if mended + broken else 1
    assert found.p_value() == pytest.approx(wanted, rel=1e-6, abs=1e-300)


def test_two_epochs_of_a_run():
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    first, last = Side(run, run.epochs[2]), Side(run, run.epochs[-1])
    found = moves(first, last)
    assert len(found.inputs) == run.kept and sum(len(rows) for _, _, rows in found.flows()) == run.kept
    for a, b, rows in found.flows():
        assert (run.logits(run.epochs[2])[found.inputs[rows]].argmax(axis=1) == a).all() and (found.second[rows] == b).all()
    of_a_class = moves(Side(run, run.epochs[2], "class:3", "test"), last)
    assert (of_a_class.truth == 3).all() and (run.input_splits[of_a_class.inputs] == run.splits.index("test")).all()
    with pytest.raises(RunError, match="same network"):
        moves(last, last)
    with pytest.raises(RunError, match="did not keep the same inputs"):
        moves(last, Side(dnnviz.open_run(DEMO_RUNS / "shapes"), 0))


def test_a_class_of_which_no_input_is_kept_has_no_predictions(tmp_path):
    run = write_run(tmp_path / "run", inputs=4, classes=4)  # two for training, of the first two classes
    with pytest.raises(RunError, match="kept no input of what A shows"):
        moves(Side(run, 0, "class:3", "train"), Side(run, 5))


def test_bands_hold_every_input_also_of_many_classes():
    random = np.random.default_rng(0)
    truth, first, second = random.integers(0, 200, (3, 900))
    second[:600] = first[:600]
    found = Moves(np.arange(900), truth, first, second)
    figure, longer = flows(found, [f"class {k}" for k in range(200)], ("one", "other"), "dark")
    [data] = figure.data
    assert sum(data.link.value) == 900 and longer <= MOST_CLASSES
    assert any("other classes" in label for label in data.node.label)
    for side, predicted in (("source", first), ("target", second)):
        reached = {data.node.label[k].rsplit(" (", 1)[0] for k in getattr(data.link, side)}
        assert reached - {f"class {k}" for k in predicted} <= {label.rsplit(" (", 1)[0] for label in data.node.label if "other" in label}
