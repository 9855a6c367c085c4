"""Shortcuts: shares of border and corners, classes that stand out, clusters of maps, the job on the demo runs, and the view."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import flask
import numpy as np
import pytest

import dnnviz
from dnnviz.catalogue import Catalogue
from dnnviz.components.shortcuts_cards import shortcuts_view
from dnnviz.endpoints import Context
from dnnviz.errors import DNNVizError, RunError
from dnnviz.explain.shortcuts import task
from dnnviz.explain.shortcuts.clusters import reduced, spectral
from dnnviz.explain.shortcuts.keys import PER_CLASS, asked, get_shortcuts, members, shortcuts_key
from dnnviz.explain.shortcuts.measures import REGIONS, deviations, evidence, regions, shares, suspicious
from dnnviz.explain.shortcuts.task import counted, find_shortcuts
from dnnviz.results import Results
from dnnviz.settings import DEMO_RUNS, Settings
from dnnviz.urlstate import Selection
from tests.conftest import wait_for_jobs, wait_idle
from tests.runs import write_run

UPPER_LEFT = REGIONS.index("upper left corner")


def quiet(done, total, text=""):
    pass


def blobs(count, centre, size=16, seed=0):
    """Maps [count, size, size] with a blob at a place, and noise."""
    y, x = np.mgrid[0:size, 0:size]
    blob = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 8)
    return (blob + np.random.default_rng(seed).uniform(0, 0.1, (count, size, size))).astype(np.float32)


# -- measures --------------------------------------------------------------------------------------------------------


def test_maps_have_mass_one_of_what_speaks_for_the_class():
    maps = np.zeros((4, 8, 8), np.float32)
    maps[0, 1, 1], maps[0, 2, 2] = 3.0, -9.0
    maps[1] = -1.0
    maps[2, 0, 0], maps[2, 7, 7] = 1.0, np.nan
    found, some = evidence(maps)
    assert some.tolist() == [True, False, True, False]
    assert found[0, 1, 1] == 1
    assert found.sum(axis=(1, 2)).tolist() == [1, 0, 1, 0]
    assert found.min() == 0


def test_an_even_spread_has_density_one_everywhere_and_a_corner_has_all_in_one_place():
    masks = regions(16, 32)
    assert masks[0].sum() == 16 * 32 - 12 * 24
    assert [int(mask.sum()) for mask in masks[1:]] == [4 * 8] * 4
    even = np.full((16, 32), 1 / 512)
    corner = np.zeros((16, 32))
    corner[0, 0] = 1
    np.testing.assert_allclose(shares(even)[1], 1, rtol=1e-6)
    found, density = shares(corner)
    np.testing.assert_allclose(found, [1, 1, 0, 0, 0])
    np.testing.assert_allclose(density, [512 / 224, 16, 0, 0, 0])
    assert regions(2, 2)[1:].sum() == 4, "tiny maps have corners of a pixel"


def test_a_class_stands_out_by_robust_deviations_and_never_below_an_even_spread():
    densities = np.full((10, 5), 0.6) + np.linspace(0, 0.1, 10)[:, None]
    densities[4, 1] = 2.0
    densities[5, 2] = 0.95  # far from the others as well, but there is less than an even spread would put there
    counts = np.full(10, 12)
    z = deviations(densities, counts)
    assert z[4, 1] > 5
    others = np.delete(densities[:, 1], 4)
    spread = max(1.4826 * np.median(np.abs(others - np.median(others))), 0.15)
    assert z[4, 1] == pytest.approx((2.0 - np.median(others)) / spread)
    assert np.argwhere(suspicious(densities, z, counts)).tolist() == [[4, 1]]
    counts[4] = 2
    assert not suspicious(densities, deviations(densities, counts), counts).any(), "two images say nothing about a class"


def test_few_classes_are_not_compared_but_an_extreme_one_is_seen():
    densities = np.full((3, 5), 0.8)
    densities[1, 3] = 5.0
    counts = np.full(3, 10)
    z = deviations(densities, counts)
    assert np.isnan(z).all()
    assert np.argwhere(suspicious(densities, z, counts)).tolist() == [[1, 3]]


# -- clusters --------------------------------------------------------------------------------------------------------


def test_two_ways_to_see_a_class_are_two_clusters_whatever_the_order():
    maps, _ = evidence(np.concatenate([blobs(14, (3, 3)), blobs(8, (12, 11), seed=1)]))
    truth = np.array([0] * 14 + [1] * 8)
    found, values = spectral(maps)
    assert found.tolist() == truth.tolist(), "the larger cluster comes first"
    assert np.diff(values).argmax() == 1
    order = np.random.default_rng(3).permutation(22)
    again, _ = spectral(maps[order])
    assert again.tolist() == truth[order].tolist()


def test_one_way_is_one_cluster_and_few_maps_are_not_split():
    maps, _ = evidence(blobs(24, (8, 8)))
    assert set(spectral(maps)[0]) == {0}
    far, _ = evidence(np.concatenate([blobs(3, (3, 3)), blobs(3, (12, 12))]))
    found, values = spectral(far)
    assert set(found) == {0}
    assert len(values) == 0


def test_large_maps_are_compared_by_the_mean_of_every_area():
    maps = np.zeros((1, 32, 48), np.float32)
    maps[0, :2, :3] = 6.0
    small = reduced(maps, 16)
    assert small.shape == (1, 16, 16)
    assert small[0, 0, 0] == pytest.approx(6)
    assert small.sum() == pytest.approx(6)


def test_find_shortcuts_joins_it_all():
    maps = {label: (np.arange(12) + 12 * label, blobs(12, (8, 8), seed=label)) for label in range(6)}
    # Half of the inputs of class 3 are recognised by a corner, one map has no evidence at all.
    maps[3][1][6:] = blobs(6, (0, 0), seed=9)
    maps[3][1][0] = -1
    found = find_shortcuts((label, *both) for label, both in maps.items())
    assert found.classes.tolist() == list(range(6))
    assert found.counts.tolist() == [12, 12, 12, 11, 12, 12]
    assert found.order[0] == 3
    assert found.marked[3, UPPER_LEFT]
    assert not np.delete(found.marked, 3, axis=0).any()
    groups = [found.inputs[found.assignments == c].tolist() for c in np.flatnonzero(found.cluster_classes == 3)]
    assert groups == [[42, 43, 44, 45, 46, 47], [37, 38, 39, 40, 41]]
    assert found.assignments[36] == -1
    np.testing.assert_allclose(found.means.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert found.means.dtype == found.cluster_means.dtype == np.float32


def test_notes_that_differ_in_their_numbers_only_are_one():
    notes = [{"state": "good", "text": f"gap {i}.5 %", "why": "x"} for i in range(7)] + [{"state": "degenerate", "text": "nothing", "why": "y"}]
    assert counted(notes) == (("good", "gap", 7, "x"), ("degenerate", "nothing", 1, "y"))


# -- the job ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(runs=(DEMO_RUNS,), cache=tmp_path_factory.mktemp("cache"))


def look(settings, name, method, **params):
    run = dnnviz.open_run(DEMO_RUNS / name)
    [key] = task.run(settings, {"run": name, "epoch": run.epochs[-1], "method": method, **params}, quiet)
    return run, get_shortcuts(Results(settings.private_cache() / "results"), key)


def test_the_tampered_class_stands_out_at_its_mark_and_nothing_else_does(settings):
    run, found = look(settings, "digits-tampered", "saliency")
    assert found.counts.tolist() == [PER_CLASS] * 10
    assert [run.classes[found.classes[row]] for row in np.flatnonzero(found.marked.any(axis=1))] == ["8"]
    row = int(found.order[0])
    assert run.classes[found.classes[row]] == "8"
    assert np.flatnonzero(found.marked[row]).tolist() == [UPPER_LEFT]
    assert found.z[row, UPPER_LEFT] > 6


def test_the_clusters_part_the_marked_training_images_from_the_test_images(settings):
    run, found = look(settings, "digits-tampered", "saliency")
    row = int(found.order[0])
    mean = found.means[row]
    assert max(np.unravel_index(mean.argmax(), mean.shape)) <= 2, "the mark is the pixel in the upper left corner"
    splits = [run.input_splits[found.inputs[found.assignments == c]] for c in np.flatnonzero(found.cluster_classes == row)]
    assert len(splits) == 2
    train, test = run.splits.index("train"), run.splits.index("test")
    assert (splits[0] == train).sum() == 12, "all marked images are in one cluster"
    assert set(splits[1]) == {test}


@pytest.mark.parametrize(("name", "method"), [("digits", "saliency"), ("shapes", "grad_cam")])
def test_nothing_is_marked_where_nothing_was_hidden(settings, name, method):
    _, found = look(settings, name, method, per_class=16)
    assert not found.marked.any()


def test_the_job_stores_one_key_and_uses_what_is_there(settings, monkeypatch):
    params = {"run": "digits", "epoch": 25, "method": "input_x_gradient", "parameters": {}, "layer": None, "per_class": 8}
    told = []
    [key] = task.run(settings, params, lambda done, total, text="": told.append((done, total)))
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    assert key == shortcuts_key(run, asked(run, params))
    assert told[-1] == (80, 80)
    monkeypatch.setattr(task, "Explainer", lambda *_: pytest.fail("the network was built again"))
    assert task.run(settings, params, quiet) == [key]
    # Another number of inputs is another question, but maps that are there serve it: those of 4 inputs are among those of 8 only in part.
    other = asked(run, {**params, "per_class": 4})
    assert shortcuts_key(run, other) != key
    assert {label: len(inputs) for label, inputs in members(run, 4).items()} == dict.fromkeys(range(10), 4)
    results = Results(settings.private_cache() / "results")
    before = get_shortcuts(results, key)
    results.path(key).unlink()
    task.run(settings, params, quiet)
    np.testing.assert_array_equal(get_shortcuts(results, key).means, before.means)


def test_what_cannot_be_is_a_sentence(settings):
    base = {"run": "digits", "epoch": 25, "method": "saliency"}
    for change, error, words in (
        ({"method": "magic"}, DNNVizError, "no attribution method 'magic'"),
        ({"epoch": 99}, RunError, "99"),
        ({"layer": "nowhere"}, RunError, "nowhere"),
        ({"per_class": 100}, DNNVizError, "per_class is 100"),
        ({"method": "attention_rollout"}, DNNVizError, "MultiheadAttention"),
    ):
        with pytest.raises(error, match=words):
            task.run(settings, {**base, **change}, quiet)


# -- the view --------------------------------------------------------------------------------------------------------


def test_the_view_offers_computes_and_links_to_the_gallery(page, live_app):
    page.goto(live_app.url + "/attribution?run=digits-tampered&view=shortcuts&per=16&shortcut=guided_backprop")
    button = page.get_by_role("button", name="Look for shortcuts")
    button.wait_for()
    method = page.locator(".dv-shortcuts-bar select").first
    assert method.input_value() == "guided_backprop"
    # The view has its own method and inputs: what chooses those of the gallery is out of the way.
    assert page.locator(".dv-shortcuts-bar select:visible").count() == 2
    assert page.locator("#strip:visible, #attribution-upload:visible, [data-dv-methods]:visible").count() == 0
    # The choice is part of the address, and another method is another question.
    method.select_option("saliency")
    page.locator("#shortcuts-cards", has_text="Saliency of 160 inputs").wait_for()
    wait_idle(page)
    assert "shortcut=" not in page.url and "per=16" in page.url
    assert "160 evaluations of the network" in page.locator("#shortcuts-cards").inner_text()
    button.click()
    first = page.locator(".dv-shortcuts-card").first
    first.wait_for()
    wait_for_jobs(page)
    assert page.locator(".dv-shortcuts-card").count() == 10
    assert "1 of 10 classes stands out" in page.locator(".dv-shortcuts-summary").inner_text()
    assert first.get_attribute("aria-label") == "Class 8"
    assert "stands out: upper left corner" in first.inner_text()
    assert page.locator(".dv-shortcuts-card.marked").count() == 1
    drawn = "image => image.complete && image.naturalWidth === 16"
    assert first.locator("img.mean").evaluate(drawn)
    thumbs = page.locator(".dv-shortcuts-card .thumb").count()
    saved = page.evaluate("async () => (await dnnviz.picture.compose()).svg")
    assert saved.count("<g ") == 10 and "1 of 10 classes stands out" in saved and "stands out: upper left corner" in saved
    assert 10 + len(page.locator(".dv-shortcuts-map.group").all()) + 10 <= saved.count("data:image/png") <= 10 + 20 + thumbs
    group = first.locator(".dv-shortcuts-words > a").first
    asked_for = parse_qs(urlsplit(group.get_attribute("href")).query)
    assert urlsplit(group.get_attribute("href")).path == "/attribution"
    assert (asked_for["by"], asked_for["methods"], asked_for["target"]) == (["chosen"], ["saliency"], ["true"])
    assert len(asked_for["inputs"][0].split(",")) == min(int(group.inner_text().split()[0]), 10)


def test_a_run_whose_network_cannot_be_built_says_so(tmp_path):
    run = write_run(tmp_path / "runs" / "plain")
    assert not run.manifest["model"].get("spec")
    settings = Settings(runs=(tmp_path / "runs",), cache=tmp_path / "cache")
    server = flask.Flask("shortcuts")
    server.config["DNNVIZ"] = Context(settings, Catalogue(settings.runs), Results(settings.cache))
    with server.app_context():
        shown = shortcuts_view(Selection("plain", run, run.epochs[-1]))
    assert "does not say how to build its network" in str(shown)
