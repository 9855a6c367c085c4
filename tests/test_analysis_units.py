"""Units of a layer: silent, hyperactive and redundant ones, effective rank and concentration against closed forms."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dnnviz import store
from dnnviz.analysis.units import FIGURES, course, dead_units, effective_rank, gini, hyperactive, redundancy, units
from dnnviz.results import Results
from tests.conftest import slack
from tests.runs import write_run


def orthogonal(rows, singular, seed=0):
    """[rows, len(singular)] with these singular values and columns of mean zero."""
    random = np.random.default_rng(seed)
    left = random.normal(size=(rows, len(singular)))
    left, _ = np.linalg.qr(left - left.mean(axis=0))
    right, _ = np.linalg.qr(random.normal(size=(len(singular), len(singular))))
    return left * np.asarray(singular) @ right


def test_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values_shares():
    assert effective_rank(orthogonal(50, [3.0] * 8)) == pytest.approx(8)
    assert effective_rank(orthogonal(50, [5.0, 0, 0, 0])) == pytest.approx(1, abs=1e-5)
    # Shares 1/2, 1/4, 1/4: entropy 1.5 ln 2.
    assert effective_rank(orthogonal(50, [2.0, 1.0, 1.0])) == pytest.approx(2**1.5, rel=1e-6)
    assert effective_rank(orthogonal(50, [2.0, 1.0, 1.0]) + 7) == pytest.approx(2**1.5, rel=1e-6), "a constant is no direction"
    # More units than inputs: the other Gram matrix gives the same.
    wide = orthogonal(50, [2.0, 1.0, 1.0]) @ np.eye(3, 200)
    assert effective_rank(wide) == pytest.approx(2**1.5, rel=1e-6)
    assert effective_rank(np.ones((20, 5))) == 0


def test_gini_has_its_closed_forms():
    assert gini(np.full(10, 3.0)) == pytest.approx(0)
    assert gini(np.eye(10)[3]) == pytest.approx(1 - 1 / 10)
    assert gini(np.arange(1, 101)) == pytest.approx((100**2 - 1) / (3 * 100 * 101))  # 1 … n: (n − 1)/(3n)
    assert gini(np.zeros(4)) == 0


def test_what_is_only_ever_negative_still_speaks():
    active, mean = np.array([0.0, 0.0, 0.5, 1.0]), np.array([0.0, -0.3, 0.2, 1.0])
    assert dead_units(active, mean).tolist() == [True, False, False, False]


def test_hyperactive_units_fire_nearly_always_and_far_above_their_layer():
    layers = (store.Layer("a", "conv", 20, (20, 4, 4), 0), store.Layer("b", "conv", 20, (20, 4, 4), 20))
    mean = np.concatenate([np.linspace(0.9, 1.1, 20), np.linspace(9, 11, 20)])
    mean[3], mean[5], mean[25] = 5.0, 5.0, 10.5
    active = np.ones(40)
    active[5] = 0.4  # strong, but on some inputs only
    assert np.flatnonzero(hyperactive(active, mean, layers)).tolist() == [3]


def test_a_group_has_one_representative_with_whom_every_member_correlates():
    random = np.random.default_rng(1)
    base = random.normal(size=(200, 3))
    mean = np.column_stack([base[:, 0], 3 * base[:, 0] + 1, base[:, 1], base[:, 0] + 0.01 * base[:, 2], base[:, 2], np.full(200, 2.0), -base[:, 1]])
    own, value = redundancy(mean, mean, 0.95)
    assert own.tolist() == [1, 1, 2, 1, 4, 5, 6], "the one that varies most stands for the others; opposite and constant units are no copies"
    assert np.flatnonzero(np.isfinite(value)).tolist() == [0, 3]
    assert value[0] == pytest.approx(1)
    # A chain a–b–c whose ends are not alike: the middle stands for both, and neither end for the other.
    angle = np.deg2rad([0, 15, 30])
    chain = orthogonal(200, [1.0, 1.0]) @ np.array([np.cos(angle), np.sin(angle)])
    assert redundancy(chain, chain, 0.95)[0].tolist() == [1, 1, 1]
    assert redundancy(chain[:, [0, 2]], chain[:, [0, 2]], 0.95)[0].tolist() == [0, 1]
    # Means that agree while the maxima do not: the two look at different places.
    assert redundancy(mean[:, :2], np.column_stack([base[:, 0], base[:, 2]]), 0.95)[0].tolist() == [0, 1]
    assert redundancy(mean[:9], mean[:9], 0.95)[0].tolist() == list(range(7)), "nine inputs say nothing"


def test_units_of_a_run_and_how_long_five_thousand_take(tmp_path):
    layers = tuple(store.Layer(f"layer{i}", "conv", 250, (250, 4, 4), 250 * i) for i in range(20))
    run = write_run(tmp_path / "run", layers=layers, epochs=(0,), inputs=200)
    start = time.process_time()
    found = units(run, 0)
    # About 0.3 s of one core; ten times that is no matter of the machine.
    assert time.process_time() - start < 5 * slack()
    assert found.inputs == 200
    assert found.effective_rank.shape == found.gini.shape == (20,)
    assert (found.full_rank == 199).all()
    assert not found.dead.any() and not found.redundant.any()
    np.testing.assert_allclose(found.gini[0], gini(run.data_mean(0, "layer0")), rtol=1e-6)


def test_the_course_over_the_epochs_is_what_is_said_of_each_and_is_kept(tmp_path, monkeypatch):
    run, cache = write_run(tmp_path / "run", epochs=(0, 3)), Results(tmp_path / "cache")
    assert course(run, cache, 0.9, most=run.units) is None, "two snapshots are more than may be looked at now"
    found = course(run, cache, 0.9, most=2 * run.units)
    assert found.shape == (2, len(FIGURES), len(run.layers))
    for row, epoch in zip(found, run.epochs, strict=True):
        said = units(run, epoch, 0.9)
        for name, values in zip(FIGURES, row, strict=True):
            own = getattr(said, name)
            expected = own / np.maximum(said.full_rank, 1) if name == "effective_rank" else own
            if len(own) == run.units:
                expected = [own[layer.columns].mean() for layer in run.layers]
            np.testing.assert_allclose(values, expected, rtol=1e-6, err_msg=name)
    monkeypatch.setattr("dnnviz.analysis.units.units", lambda *_: pytest.fail("looked at again"))
    np.testing.assert_array_equal(course(run, cache, 0.9, most=0), found)
