"""The adversarial page: an attack from the choice of an input to its proof, detection, robustness, links and saved pictures."""

from __future__ import annotations

import base64
import io
from typing import Any
from xml.etree import ElementTree

import flask
import numpy as np
import pytest
from PIL import Image

import dnnviz
from dnnviz import urlstate
from dnnviz.attack import METHODS, keys
from dnnviz.catalogue import Catalogue
from dnnviz.components.adversarial_cards import known
from dnnviz.components.adversarial_results import BINS, magnification, pictures, sizes_from, told_detection
from dnnviz.components.method_settings import setting_defaults
from dnnviz.endpoints import Context, context
from dnnviz.explain.uploads import store_upload
from dnnviz.results import Results
from dnnviz.settings import DEMO_RUNS
from tests.conftest import store_data, wait_for_jobs, wait_idle
from tests.runs import write_run

DIGITS = "/adversarial?run=digits"
DEFAULTS = {"image": "", "sizes": "", "detector": "0", **setting_defaults(METHODS)}


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def saved_svg(page) -> ElementTree.Element:
    page.get_by_text("Save picture").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="SVG, for print").click()
    assert saved.value.suggested_filename == "dnnviz-digits-adversarial.svg"
    return ElementTree.parse(saved.value.path()).getroot()


def texts(svg: ElementTree.Element) -> str:
    return " ".join("".join(node.itertext()) for node in svg.iter("{http://www.w3.org/2000/svg}text"))


def test_an_attack_from_the_choice_of_an_input_to_the_proof(page, live_app):
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    page.goto(live_app.url + DIGITS)
    page.locator(".dv-empty h2", has_text="Choose an input").wait_for()
    page.locator(".dv-strip .dv-thumb").nth(17).click()
    page.get_by_label("Method of the attack").select_option("deepfool")
    page.locator(".dv-empty", has_text="DeepFool: up to").wait_for()
    assert "evaluations of the network" in page.locator(".dv-empty").inner_text()
    assert page.locator("[data-adv-method]:visible").count() == 1
    page.locator(".dv-empty .dv-btn.primary").click()
    wait_for_jobs(page)
    page.locator(".adv-path tbody tr").first.wait_for()
    # Every layer has its row, the strongest units lead to their cards, one layer is where the class is left.
    assert page.locator(".adv-path tbody tr").count() == len(run.layers)
    known = store_data(page, "adversarial-known")
    about = known["result"]["about"]
    assert about["success"] and about["after"] != about["before"]
    assert page.locator(".adv-sentence").inner_text() == about["sentence"]
    assert page.locator("tr.leaves").count() == (about["leaves"] is not None)
    restored = sum(layer["restored"] for layer in known["result"]["layers"])
    assert page.locator(".adv-back").count() == restored > 0
    assert f"again in {restored} of {len(run.layers)} layers" in page.locator(".adv-section").last.inner_text()
    # Three pictures, told apart; pixels stay squares.
    sources = page.locator(".adv-figure img").evaluate_all("images => images.map((image) => image.src)")
    assert len(set(sources)) == 3 and page.locator(".adv-figure img.crisp").count() == 3
    assert "× " in page.locator(".adv-figure").nth(1).inner_text()
    # The table says what the chart ends with: the class reached is the likeliest.
    after = page.locator(".adv-side tbody td:nth-child(3)").all_inner_texts()
    named = page.locator(".adv-side tbody th").all_inner_texts()
    values = [float(text.strip("<> %")) for text in after]
    assert named[int(np.argmax(values))] == run.classes[about["after"]]
    assert page.locator(".adv-chart polyline").count() == len(named)
    svg = saved_svg(page)
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}image"))) == 3
    assert all(layer.name in texts(svg) for layer in run.layers) and about["sentence"].split(";")[0].split()[0] in texts(svg)
    # Its address brings it back without another job, after a look at the card of a unit.
    asked = store_data(page, "job-request")["nonce"]
    link = page.locator(".adv-units a").first
    unit = link.inner_text()
    link.click()
    page.locator("h1.dv-title", has_text=f"unit {unit}").wait_for()
    page.go_back()
    page.locator(".adv-path tbody tr").first.wait_for()
    assert store_data(page, "job-request")["nonce"] == asked
    # A class that the network names already cannot be the one to reach.
    page.get_by_label("Towards which class").select_option(str(about["before"]))
    page.locator(".dv-empty", has_text="already taken for").wait_for()
    # A picture of one's own takes the place of the input, until one of the run is chosen again.
    page.get_by_label("Towards which class").select_option("any")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload a picture").click()
    chooser.value.set_files({"name": "mine.png", "mimeType": "image/png", "buffer": png(run.images([4])[0])})
    page.locator(".dv-empty img[alt='Your picture']").wait_for()
    assert "image=upload-" in page.url and not page.locator("#show-kind").is_visible()
    page.locator(".dv-strip .dv-thumb").nth(3).click()
    page.locator(".dv-empty img[alt^='Input']").wait_for()
    assert "image=" not in page.url and page.locator("#show-kind").is_visible()


def test_what_does_not_succeed_says_so_and_robustness_is_measured_drawn_and_saved(page, live_app):
    page.goto(live_app.url + DIGITS + "&show=input:17&method=fgsm&fgsm-epsilon=0.001&target=99&image=../x&n=20&sizes=0.1,8/255,0.4")
    assert "no class “99”" in page.locator("#alerts").inner_text() and "“../x” is no picture" in page.locator("#alerts").inner_text()
    page.locator(".dv-empty .dv-btn.primary").click()
    wait_for_jobs(page)
    page.locator(".alert", has_text="did not reach its goal").wait_for()
    assert "raise “" in page.locator(".alert li").first.inner_text()
    # The prediction never left, so nothing is said to return.
    assert page.locator(".adv-path tbody tr").count() == 6 and page.locator(".adv-back").count() == 0

    page.get_by_text("Robustness", exact=True).click()
    page.locator(".dv-empty", has_text="20 inputs").wait_for()
    page.locator(".dv-empty .dv-btn.primary").click()
    wait_for_jobs(page)
    page.locator(".adv-side tbody tr").first.wait_for()
    result = store_data(page, "adversarial-known")["result"]
    assert result["sizes"] == pytest.approx([0, 8 / 255, 0.1, 0.4], rel=1e-4) and result["inputs"] == 20
    assert page.locator(".adv-side tbody th").all_inner_texts()[:2] == ["none", "8/255"]
    assert all(low <= accuracy <= high for low, accuracy, high in zip(result["low"], result["accuracy"], result["high"], strict=True))
    assert sorted(result["accuracy"], reverse=True) == result["accuracy"] and result["accuracy"][0] > result["accuracy"][-1]
    assert "classified correctly" in texts(saved_svg(page))
    # Those fooled first are one click from being attacked themselves.
    weakest = result["weakest"][0][0]
    page.locator(".adv-weakest a").first.click()
    page.wait_for_function("address => location.search.includes(address)", arg=f"show=input:{weakest}&")
    page.locator(".dv-empty .dv-btn.primary").wait_for()
    wait_idle(page)
    # What the page makes of the answer to a job that was cancelled (that there is one, the tests of jobs prove).
    page.evaluate(
        """() => {
            const { state } = window.dnnviz.adversarial;
            Object.assign(state, { nonce: "cancelled", asked: JSON.stringify(state.known.request) });
            const answer = { kind: "attack", nonce: "cancelled", ok: false, keys: [], error: null, cancelled: true };
            window.dash_clientside.set_props("job-result", { data: answer });
        }"""
    )
    page.locator(".dv-empty h2", has_text="Cancelled").wait_for()


def test_detection_is_drawn_and_saved(page, live_app):
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    asked = keys.asked_many(run, {"what": "detection", "epoch": run.epochs[-1], "method": "fgsm", "inputs": 100})
    keys.put(Results(live_app.settings.private_cache() / "results"), keys.many_key(run, asked), detection(len(run.layers)))
    page.goto(live_app.url + DIGITS + "&view=detection&method=fgsm")
    page.locator(".adv-charts").wait_for()
    result = store_data(page, "adversarial-known")["result"]
    assert page.locator(".adv-path tbody tr").count() == len(result["detectors"]) == 2
    assert page.locator(".adv-charts .adv-chart").first.locator("polyline").count() == 2
    page.get_by_role("button", name="second").click()
    page.locator(".dv-section-title", has_text="Scores of second").wait_for()
    assert "detector=1" in page.url
    assert "first" in texts(saved_svg(page))
    wait_idle(page)


def detection(layers: int) -> keys.Detection:
    """40 clean and 30 attacked inputs; the scores of the second detector span decades."""
    clean = np.stack([np.linspace(0, 1, 40), np.geomspace(1, 10, 40)]).astype(np.float32)
    attacked = np.stack([np.linspace(0.5, 2, 30), np.geomspace(5, 9000, 30)]).astype(np.float32)
    grid = np.linspace(0, 1, 11, dtype=np.float32)
    two = np.array([0.8, 0.9], np.float32)
    about = {"detectors": ["first", "second"], "citations": ["one", "another"], "sentence": "It was measured.", "seconds": 1.0}
    return keys.Detection(
        about, grid, np.stack([grid, grid]), two, two, two, np.full(layers, np.nan, np.float32), np.arange(40), np.arange(30), clean, attacked
    )


def test_the_histogram_holds_every_score_on_a_scale_that_shows_them():
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    told = told_detection(run, detection(len(run.layers)))
    even, wide = told["detectors"]
    assert wide["logarithmic"] and not even["logarithmic"] and BINS[0] < len(wide["edges"]) <= BINS[1]
    assert wide["edges"][-1] == pytest.approx(np.log10(9000), rel=1e-4)
    assert all(sum(each["clean"]) == 40 and sum(each["attacked"]) == 30 for each in (even, wide))
    assert told["layers"] == [[layer.name, None] for layer in run.layers]


def test_what_is_known_of_a_request_says_what_stands_in_its_way(settings):
    write_run(settings.runs[0] / "numbers")
    catalogue = Catalogue((*settings.runs, DEMO_RUNS))
    server = flask.Flask("known")
    server.config["DNNVIZ"] = Context(settings, catalogue, Results(settings.cache))

    def ask(**query: str) -> dict[str, Any]:
        query = {"run": "digits", "show": "input:17", "view": "attack", "method": "pgd", "target": "any", "n": "20", **query}
        with server.app_context():
            return known(urlstate.parse(query, catalogue, {**DEFAULTS, **query})[0])

    with server.app_context():
        shapes = catalogue.open("shapes")
        large = store_upload(context().results, shapes, "scene.png", png(shapes.images([0])[0]))
        digits = catalogue.open("digits")
        own = store_upload(context().results, digits, "own.png", png(digits.images([3])[0]))
    assert ask(show="data")["state"] == "choose"
    offer = ask(show="data", image=own)
    assert offer["state"] == "offer" and offer["input"]["upload"] == offer["request"]["params"]["source"] == own
    for query, sentence in (
        ({"run": "numbers", "show": "input:3"}, "does not say how to build its network, and attacks need it"),
        ({"pgd-steps": "-3"}, "steps is"),
        ({"view": "robustness", "sizes": "small"}, "“small” is no list of sizes"),
        ({"image": "upload-" + 40 * "0"}, "no longer stored"),
        ({"image": large}, "Upload it again for this run"),
    ):
        told = ask(**query)
        assert told["state"] == "problem" and sentence in told["sentence"], query


def test_a_perturbation_is_magnified_around_grey_and_what_is_cut_off_is_told():
    assert [magnification(size) for size in (0, 0.5, 0.26, 0.25, 8 / 255, 1e-3, 1)] == [1, 1, 1, 2, 10, 500, 1]
    image = np.full((4, 4, 1), 0.5, np.float32)
    changed = image.copy()
    changed[0, 0], changed[1, 1] = 0.52, 0.48
    found = pictures(image, changed)
    assert found["factor"] == 20 and found["crisp"] and found["cut"] == 0
    shown = _pixels(found["perturbation"])
    assert shown[2, 2].tolist() == [128] * 3
    assert shown[0, 0, 0] - 127.5 == pytest.approx(127.5 - shown[1, 1, 0], abs=2) and shown[0, 0, 0] == pytest.approx(255 * 0.9, abs=1)
    changed[:] = image + 0.01
    wide = np.tile(changed, (10, 10, 1))
    wide[0, 0] = 0.9
    found = pictures(np.full_like(wide, 0.5), wide)
    assert found["factor"] == 50 and found["cut"] == pytest.approx(1 / wide.size)


def _pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_sizes_are_read_as_numbers_and_fractions():
    assert sizes_from("") == [] and sizes_from("0.1, 8/255,") == pytest.approx([0.1, 8 / 255])
    for wrong in ("small", "1/0", "1//2"):
        with pytest.raises((ValueError, ZeroDivisionError)):
            sizes_from(wrong)
