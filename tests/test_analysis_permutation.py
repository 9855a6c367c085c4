"""Permutation tests of layers: they keep their level, find what differs, and say when there is nothing to test."""

import numpy as np
import pytest
from scipy.stats import permutation_test

import dnnviz
from dnnviz.analysis.comparison import CHANCE, significance
from dnnviz.analysis.permutation import group_test, paired_test
from dnnviz.analysis.sides import Side
from dnnviz.settings import DEMO_RUNS

LAYERS = [slice(0, 30), slice(30, 60), slice(60, 90)]


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=(60, 90)).astype(np.float32)


def test_one_comparison_in_twenty_of_nothing_falls_below_005():
    random = np.random.default_rng(1)
    first = np.arange(40) < 15
    least = []
    for seed in range(200):
        values, other = random.normal(size=(2, 40, 90))
        least.append((group_test(values, first, ~first, LAYERS, 199, seed).min(), paired_test(values, other, LAYERS, 199, seed).min()))
    rates = (np.array(least) <= 0.05).mean(axis=0)
    assert (rates < 0.09).all() and (rates > 0.01).all(), "adjusted for the number of layers, neither more nor much less often"


def test_the_layer_that_differs_is_named_and_the_others_are_not(noise):
    first = np.arange(60) < 20
    noise[first, 35:40] += 1
    for second in (~first, np.ones(60, dtype=bool)):
        p = group_test(noise, first, second, LAYERS)
        assert p[1] <= 0.005 and min(p[0], p[2]) > 0.05
    # Against the library, a layer by itself: with one layer nothing is adjusted.
    for columns in LAYERS:
        part = (noise / noise.std(axis=0))[:, columns]
        wanted = permutation_test(
            (np.flatnonzero(first), np.flatnonzero(~first)),
            lambda one, other, part=part: np.sqrt(np.square(part[one].mean(axis=0) - part[other].mean(axis=0)).mean()),
            n_resamples=999,
            alternative="greater",
            rng=0,
        )
        assert group_test(noise, first, ~first, [columns])[0] == pytest.approx(wanted.pvalue, abs=0.05)


def test_pairs_are_tested_as_pairs(noise):
    moved = noise.copy()
    moved[:, 60:90] += 0.1  # far less than inputs differ from one another, the same for every input
    p = paired_test(noise, moved, LAYERS)
    assert p[2] == pytest.approx(0.001) and (p[:2] == 1).all()


def test_sides_of_runs():
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    epoch = run.epochs[-1]
    p, over = significance(Side(run, epoch, "class:3"), Side(run, epoch, "class:8"))
    assert (p <= CHANCE).all() and over == "24 against 24 inputs"
    p, _ = significance(Side(run, epoch, "class:3", "train"), Side(run, epoch, "class:3", "test"))
    assert (p > CHANCE).all(), "images of one class, whether trained on or held out"
    p, over = significance(Side(run, run.epochs[0]), Side(run, epoch))
    assert (p <= CHANCE).all() and over == "240 inputs"
    assert significance(Side(run, epoch), Side(run, epoch))[0] is None
    assert "at least 4" in significance(Side(run, epoch, "input:3"), Side(run, epoch))[1]
    assert "same inputs" in significance(Side(run, run.epochs[0], "class:1"), Side(run, epoch, "class:2"))[1]


def test_a_mark_in_one_class_is_more_than_chance_in_the_first_layer():
    run = dnnviz.open_run(DEMO_RUNS / "digits-tampered")
    marked, clean = (
        significance(Side(run, run.epochs[-1], f"class:{k}", "train"), Side(run, run.epochs[-1], f"class:{k}", "test"))[0] for k in (8, 3)
    )
    assert marked.min() <= CHANCE < clean.min()
