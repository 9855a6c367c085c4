"""Events of units and figures of layers over the epochs."""

from __future__ import annotations

import numpy as np
import pytest

from dnnviz.analysis import evolution as ev
from dnnviz.results import Results
from dnnviz.store import Layer
from tests.runs import write_run

SIZES = np.array([100, 100, 100])
NEW = np.array([ev.NONE], dtype=np.int16)


def preferred(means, stds=0.5, sizes=SIZES, settled=NEW):
    mean = np.asarray(means, dtype=float).reshape(-1, 1)
    return int(ev.preferred_class(mean, np.broadcast_to(np.asarray(stds, dtype=float).reshape(-1, 1), mean.shape), sizes, np.asarray(settled))[0])


def test_a_unit_without_a_preference_takes_its_strongest_class():
    assert preferred([1.0, 3.0, 2.0]) == 1


def test_a_lead_within_the_noise_does_not_change_the_preference():
    # 0.05 is a tenth of a standard deviation: below a small effect.
    assert preferred([1.0, 1.05, 0.0], settled=[0]) == 0
    assert preferred([1.0, 1.4, 0.0], settled=[0]) == 1


def test_two_level_classes_do_not_flicker():
    settled, seen = NEW, []
    for swing in (0.02, -0.02, 0.02, -0.02):
        settled = np.array([preferred([1 + swing, 1 - swing, 0], settled=settled)])
        seen.append(int(settled[0]))
    assert seen == [0, 0, 0, 0]


def test_a_slow_change_is_seen_once_it_is_clear():
    settled, seen = NEW, []
    for lead in (-0.2, -0.05, 0.05, 0.3, 0.4):
        settled = np.array([preferred([1.0, 1.0 + lead, 0.0], settled=settled)])
        seen.append(int(settled[0]))
    assert seen == [0, 0, 0, 1, 1]


def test_few_inputs_need_a_larger_lead():
    # 0.3 standard deviations: clear with 100 inputs a class, chance with 5.
    assert preferred([1.0, 1.15, 0.0], settled=[0]) == 1
    assert preferred([1.0, 1.15, 0.0], sizes=np.array([5, 5, 5]), settled=[0]) == 0


def test_a_unit_that_does_not_vary_ignores_rounding():
    assert preferred([1.0, 1.0 + 1e-7, 0.0], stds=0.0, settled=[0]) == 0
    assert preferred([1.0, 1.1, 0.0], stds=0.0, settled=[0]) == 1


def test_classes_without_inputs_are_never_preferred():
    assert preferred([np.nan, 0.5, 0.1], sizes=np.array([0, 10, 10])) == 1
    assert preferred([np.nan, np.nan, np.nan], settled=[2]) == 2


def test_events_of_units():
    before = np.array([3, ev.NONE, 1, 2, ev.NONE], dtype=np.int16)
    after = np.array([ev.NONE, 0, 2, 2, ev.NONE], dtype=np.int16)
    assert ev.unit_events(before, after).tolist() == [ev.DIED, ev.REVIVED, ev.SWITCHED, 0, 0]


def distance(a, b, layers, sizes=None):
    sizes = np.ones(len(a)) if sizes is None else np.asarray(sizes)
    return ev.profile_distance(ev.class_profiles(a, sizes), ev.class_profiles(b, sizes), layers)


def test_profile_distance_sees_direction_and_not_scale():
    random = np.random.default_rng(0)
    layers = (Layer("a", "conv", 40, (40, 4, 4), 0), Layer("b", "linear", 60, (60,), 40))
    a = random.normal(size=(10, 100))
    assert distance(a, a, layers) == pytest.approx([0, 0], abs=1e-12)
    assert distance(a, 3 * a + 5, layers) == pytest.approx([0, 0], abs=1e-12)
    centred = a - a.mean(axis=0)
    assert distance(a, -centred, layers) == pytest.approx([2, 2])
    mixed = a.copy()
    mixed[:, 40:] = random.normal(size=(10, 60))
    near, far = distance(a, mixed, layers)
    assert near == pytest.approx(0, abs=1e-12)
    x, y = centred[:, 40:].ravel(), (mixed - mixed.mean(axis=0))[:, 40:].ravel()
    assert far == pytest.approx(1 - x @ y / np.sqrt((x @ x) * (y @ y)))
    assert 0.7 < far < 1.3


def test_profile_distance_of_silent_layers_single_classes_and_missing_classes():
    layers = (Layer("a", "conv", 3, (3, 1, 1), 0),)
    silent, loud = np.zeros((4, 3)), np.arange(12.0).reshape(4, 3) ** 2
    assert distance(silent, silent, layers) == [0]
    assert distance(silent, loud, layers) == [1]
    assert distance(loud[1:2], 2 * loud[1:2], layers) == pytest.approx([0])
    gap = loud.copy()
    gap[2] = np.nan
    assert distance(gap, gap, layers, sizes=[1, 1, 0, 1]) == pytest.approx([0])
    assert np.isnan(distance(gap, loud, layers)).all()


def test_follow_agrees_with_the_run(tmp_path):
    run = write_run(tmp_path / "small", epochs=(0, 1, 5, 9))
    found = ev.follow(run)
    assert found.events.shape == found.preferred.shape == (4, run.units)
    assert not found.events[0].any()
    assert np.isnan(found.change[0]).all() and np.isfinite(found.change[1:]).all()
    assert found.remaining[-1] == pytest.approx(0, abs=1e-6)
    for i, epoch in enumerate(run.epochs):
        silent = run.active(epoch) == 0
        assert ((found.preferred[i] == ev.NONE) == silent).all()
        for j, layer in enumerate(run.layers):
            assert found.dead[i, j] == pytest.approx(silent[layer.columns].mean())
            assert found.mean[i, j] == pytest.approx(run.data_mean(epoch, layer).mean())


def test_follow_finds_units_that_die_and_come_back(tmp_path):
    run = write_run(tmp_path / "small", epochs=(0, 1, 2))
    for epoch, units in ((1, [0, 7]), (2, [7, 9])):
        _silence(run, epoch, units)
    found = ev.follow(reopened(run))
    assert found.events[1, [0, 7]].tolist() == [ev.DIED, ev.DIED]
    assert found.events[2, [0, 7, 9]].tolist() == [ev.REVIVED, 0, ev.DIED]
    listed = ev.events_at(run, found, 2)
    assert listed[0][:3] == (ev.DIED, "layer1.0.conv1", 3) and listed[0].after == ev.NONE
    assert listed[1][:3] == (ev.REVIVED, "conv1", 0) and listed[1].before == ev.NONE
    assert len(listed) == np.count_nonzero(found.events[2])
    assert all(event.before != event.after for event in listed)
    assert ev.events_at(run, found, 0) == []


def _silence(run, epoch, units):
    for name in ("active", "class_mean", "class_std", "data_mean", "data_std"):
        path = run.path / "snapshots" / f"{epoch:06d}" / f"{name}.npy"
        array = np.load(path)
        array[..., units] = 0
        np.save(path, array)


def reopened(run):
    from dnnviz.store import open_run

    return open_run(run.path)


def test_evolution_is_computed_once(tmp_path, monkeypatch):
    run = write_run(tmp_path / "small")
    cache = Results(tmp_path / "cache")
    first = ev.evolution(run, cache)
    monkeypatch.setattr(ev, "follow", None)
    again = ev.evolution(run, cache)
    assert (first.events == again.events).all() and (first.preferred == again.preferred).all()
    assert np.array_equal(first.change, again.change, equal_nan=True)
    other = write_run(tmp_path / "other", seed=1)
    with pytest.raises(TypeError):
        ev.evolution(other, cache)


def test_settled_from():
    remaining = np.array([[0.9, 0.05, 0.5], [0.05, 0.05, 0.5], [0.3, 0.02, 0.4], [0.05, 0.01, 0.2], [0, 0, 0]])
    assert ev.settled_from(remaining).tolist() == [3, 0, 4]
    assert ev.first_and_last(np.array([3, 0, 4]), 4) == [0, 1, 2]
    assert ev.first_and_last(np.array([3, 0, 4, 9, 1, 2]), 4) == [1, 2, 3, 4]


def test_metric_courses(tmp_path):
    run = write_run(tmp_path / "small", epochs=(0, 1, 5))
    courses = ev.metric_courses(run, "accuracy")
    assert list(courses) == ["train", "test"] and len(courses["test"]) == 3
    assert ev.metric_courses(run, "learning_rate") == {}
    for entry in run.manifest["snapshots"]:
        del entry["metrics"]["splits"]
    assert ev.metric_courses(run, "loss") == {"all inputs": [1.0, 1.0, 1.0]}


def test_a_run_with_one_snapshot(tmp_path):
    found = ev.follow(write_run(tmp_path / "one", epochs=(3,)))
    assert not found.events.any()
    assert found.remaining == pytest.approx(0)
