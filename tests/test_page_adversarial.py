"""The adversarial page: an attack from the choice of an input to its proof, detection, robustness, links and saved pictures."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

import dnnviz
from dnnviz.components.adversarial_results import BINS, magnification, pictures, sizes_from, told_detection
from dnnviz.settings import DEMO_RUNS
from tests.conftest import store_data, wait_for_jobs, wait_idle
from tests.runs import write_run

DIGITS = "/adversarial?run=digits"
DEEPFOOL = DIGITS + "&show=input:17&method=deepfool"


def attack(page, url: str) -> None:
    """Open a view and press its button."""
    page.goto(url)
    page.locator(".dv-empty .dv-btn.primary").click()
    wait_for_jobs(page)


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
    # The address alone brings it back, without a job.
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.locator(".adv-path tbody tr").first.wait_for()
    assert store_data(page, "job-request") is None
    link = page.locator(".adv-units a").first
    unit = link.inner_text()
    link.click()
    page.locator("h1.dv-title", has_text=f"unit {unit}").wait_for()


def test_what_cannot_be_attacked_or_does_not_succeed_says_so(page, new_page, live_app, make_live_app, tmp_path):
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    attack(page, live_app.url + DIGITS + "&show=input:17&method=fgsm&fgsm-epsilon=0.001")
    page.locator(".alert", has_text="did not reach its goal").wait_for()
    assert "raise “" in page.locator(".alert li").first.inner_text()
    # The prediction never left, so nothing is said to return.
    assert page.locator(".adv-path tbody tr").count() == len(run.layers) and page.locator(".adv-back").count() == 0
    predicted = int(run.logits(run.epochs[-1])[17].argmax())
    page.get_by_label("Towards which class").select_option(str(predicted))
    page.locator(".dv-empty", has_text="already taken for").wait_for()
    page.goto(live_app.url + DIGITS + "&show=input:17&method=magic&target=99&pgd-steps=-3")
    assert "“magic” is no value of method" in page.locator("#alerts").inner_text() and "no class “99”" in page.locator("#alerts").inner_text()
    page.locator(".dv-empty", has_text="steps is").wait_for()
    # Without the network there is nothing to attack.
    write_run(tmp_path / "runs" / "numbers")
    other = new_page()
    other.goto(make_live_app([tmp_path / "runs"]).url + "/adversarial?show=input:3")
    other.locator(".dv-empty", has_text="does not say how to build its network, and attacks need it").wait_for()


def test_detection_and_robustness_are_measured_drawn_and_saved(page, live_app):
    attack(page, live_app.url + DIGITS + "&view=detection&n=100&method=fgsm&fgsm-epsilon=0.3")
    page.locator(".adv-charts").wait_for()
    result = store_data(page, "adversarial-known")["result"]
    assert page.locator(".adv-path tbody tr").count() == len(result["detectors"]) >= 2
    assert page.locator(".adv-charts .adv-chart").first.locator("polyline").count() == len(result["detectors"])
    for detector in result["detectors"]:
        assert 0 <= detector["area"] <= 1 and sum(detector["clean"]) == result["clean"] and sum(detector["attacked"]) == result["attacked"]
    page.get_by_role("button", name=result["detectors"][1]["name"]).click()
    page.locator(".dv-section-title", has_text="Scores of " + result["detectors"][1]["name"]).wait_for()
    assert "detector=1" in page.url
    assert result["detectors"][0]["name"] in texts(saved_svg(page))

    attack(page, live_app.url + DIGITS + "&view=robustness&n=20&method=fgsm&sizes=0.1,8/255,0.4")
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
    # Sizes that are no numbers get a sentence.
    page.goto(live_app.url + DIGITS + "&view=robustness&sizes=small")
    page.locator(".dv-empty", has_text="“small” is no list of sizes").wait_for()
    wait_idle(page)


def test_a_perturbation_is_magnified_around_grey_and_never_cut_off():
    assert [magnification(size) for size in (0, 0.5, 0.26, 0.25, 8 / 255, 1e-3, 1)] == [1, 1, 1, 2, 10, 500, 1]
    image = np.full((4, 4, 1), 0.5, np.float32)
    changed = image.copy()
    changed[0, 0], changed[1, 1] = 0.52, 0.48
    found = pictures(image, changed)
    assert found["factor"] == 20 and found["crisp"]
    shown = _pixels(found["perturbation"])
    assert shown[2, 2].tolist() == [128] * 3
    assert shown[0, 0, 0] - 127.5 == pytest.approx(127.5 - shown[1, 1, 0], abs=2) and shown[0, 0, 0] == pytest.approx(255 * 0.9, abs=1)


def _pixels(address: str) -> np.ndarray:
    import base64
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_sizes_are_read_as_numbers_and_fractions():
    assert sizes_from("") == [] and sizes_from("0.1, 8/255,") == pytest.approx([0.1, 8 / 255])
    for wrong in ("small", "1/0", "1//2"):
        with pytest.raises((ValueError, ZeroDivisionError)):
            sizes_from(wrong)


def test_the_histogram_holds_every_score_on_a_scale_that_shows_them(tmp_path):
    from dnnviz.attack.keys import Detection

    run = write_run(tmp_path / "numbers")
    clean, attacked = np.geomspace(1, 10, 40)[None].astype(np.float32), np.geomspace(5, 9000, 30)[None].astype(np.float32)
    grid = np.linspace(0, 1, 11, dtype=np.float32)
    about = {"detectors": ["one"], "citations": ["somebody"]}
    one = np.array([0.9], np.float32)
    found = Detection(about, grid, grid[None], one, one, one, np.full(4, np.nan, np.float32), np.arange(40), np.arange(30), clean, attacked)
    told = told_detection(run, found)
    detector = told["detectors"][0]
    assert detector["logarithmic"] and BINS[0] < len(detector["edges"]) <= BINS[1]
    assert detector["edges"][-1] == pytest.approx(np.log10(9000), rel=1e-4)
    assert sum(detector["clean"]) == 40 and sum(detector["attacked"]) == 30
    assert told["layers"] == [[layer.name, None] for layer in run.layers]
