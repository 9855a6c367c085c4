"""The attribution page in a browser: the gallery fills by itself, and everything about its look happens without the server."""

import io
import json
import re
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from PIL import Image

import dnnviz
from dnnviz import jobs
from dnnviz.explain.gallery import METHODS, first_methods
from dnnviz.explain.plan import target_name
from dnnviz.settings import DEMO_RUNS
from tests.conftest import slack, store_data, wait_for_jobs, wait_idle
from tests.runs import write_run

DIGITS = "/attribution?run=digits"
FIRST = first_methods(dnnviz.open_run(DEMO_RUNS / "digits"))
CONTENT = "[...document.querySelectorAll('.dv-tile canvas')].map(c => c.toDataURL()).join()"
# Every tile is there; those far from the window are painted when one gets near them.
DRAWN = """() => {
    const tiles = [...document.querySelectorAll('.dv-tile')];
    const far = (tile) => tile.getBoundingClientRect().top > window.innerHeight || tile.getBoundingClientRect().left > window.innerWidth;
    return tiles.length > 0 && tiles.every((tile) => !tile.matches('.waiting, .absent, .growing') && (far(tile) || !tile.matches('.unpainted')));
}"""


@pytest.fixture(scope="module")
def own_runs(tmp_path_factory):
    """`unknown`, whose network cannot be built again, and `linear`, a network of the user's own without feature maps."""
    import torch

    from tests.networks import linear

    folder = tmp_path_factory.mktemp("own_runs")
    write_run(folder / "unknown")
    torch.manual_seed(0)
    data = [(torch.rand(3, 16, 16), i % 4) for i in range(8)]
    dnnviz.capture(linear(), data, folder / "linear", classes=list("abcd"), inputs=8, mean=(0,) * 3, std=(1,) * 3, model_spec="tests.networks:linear")
    return folder


@pytest.fixture
def held(make_live_app, monkeypatch):
    """(app, file): attributions of this app stop at half a map of their first tile while the file does not exist."""
    monkeypatch.setitem(jobs.TASKS, "attribution", "tests.tasks:held_attribution")
    app = make_live_app()
    return app, app.settings.cache / "go"


def tiles(page):
    page.wait_for_function(DRAWN)
    wait_for_jobs(page)
    return page.locator(".dv-tile")


def query(page):
    return {name: values[0] for name, values in parse_qs(urlparse(page.url).query).items()}


def pixels(page):
    """Content of the canvases of all tiles, as text."""
    return page.evaluate("() => " + CONTENT)


def choose(page, control, value):
    page.evaluate("([key, value]) => dnnviz.set(key, value)", [control, value])


def test_the_page_opens_with_a_gallery(page, live_app):
    page.goto(live_app.url + DIGITS)
    count = 4 * len(FIRST)
    assert tiles(page).count() == count
    assert page.locator(".dv-row-text").count() == 4
    assert page.locator(".dv-gallery-head").all_inner_texts()[1:3] == ["Input", "Saliency"]
    assert page.locator(".dv-dot").count() == count
    assert page.locator(".dv-row-class.explained").count() == 4
    assert page.locator("#attribution-run").is_hidden()
    assert query(page) == {"run": "digits"}
    assert len(set(pixels(page).split(",data:"))) > count / 2
    # Another visitor gets the same from the cache: no job is started.
    page.reload()
    assert tiles(page).count() == count
    assert store_data(page, "job-request") is None


def test_the_look_changes_without_the_server_computing(page, live_app):
    page.goto(live_app.url + DIGITS + "&methods=saliency,occlusion")
    tiles(page)
    looks = {pixels(page)}
    for control, value in [("overlay", "30"), ("colours", "viridis"), ("sign", "absolute"), ("sign", "positive"), ("clip", "95")]:
        choose(page, control, value)
        page.wait_for_function("([key, value]) => dnnviz.selection[key] === value", arg=[control, value])
        wait_idle(page)
        page.wait_for_function("before => !before.includes(" + CONTENT + ")", arg=list(looks))
        looks.add(pixels(page))
        assert query(page)[control] == value
    assert len(looks) == 6
    request = store_data(page, "job-request")
    assert request is None or request["params"]["methods"] == {"saliency": {}, "occlusion": {}}
    page.reload()
    tiles(page)
    page.wait_for_function("wanted => wanted === " + CONTENT, arg=pixels(page))


def test_inputs_by_class_by_mistake_and_by_hand(page, live_app):
    page.goto(live_app.url + DIGITS + "&methods=saliency&show=class:3&n=6")
    assert tiles(page).count() == 6
    assert set(page.locator(".dv-row-name").all_inner_texts()) and all("true: 3" in text for text in page.locator(".dv-row-name").all_inner_texts())
    page.get_by_label("Wrong").check()
    page.locator(".dv-tile, .dv-empty").first.wait_for()
    wait_idle(page)
    assert page.locator(".dv-row-text .dv-right-class").count() == 0
    choose(page, "epoch", "0")
    page.wait_for_function("() => document.querySelectorAll('.dv-wrong-class').length === 6")
    # A click in the strip adds an input, another one leaves it out; the link reproduces the choice.
    page.goto(live_app.url + DIGITS + "&methods=saliency&by=chosen&inputs=6")
    assert tiles(page).count() == 1
    page.locator("#strip [data-dv-show='input:8']").click()
    page.wait_for_function("() => document.querySelectorAll('.dv-tile').length === 2")
    assert query(page)["inputs"] == "6,8"
    assert page.locator("#strip .chosen").count() == 2
    page.locator("#attribution-number").fill("11")
    page.locator("#attribution-add").click()
    page.wait_for_function("() => document.querySelectorAll('.dv-tile').length === 3")
    page.locator(".dv-row-text").first.hover()
    page.locator("[data-dv-leave='6']").click()
    page.wait_for_function("() => document.querySelectorAll('.dv-tile').length === 2")
    assert query(page)["inputs"] == "8,11"
    page.locator("#attribution-number").fill("99999")
    page.locator("#attribution-add").click()
    assert "Inputs have the numbers 0 to" in page.locator("#attribution-tiles .alert").inner_text()
    choose(page, "inputs", "")
    page.get_by_text("No input chosen").wait_for()


def test_an_input_in_hand_on_another_page_is_explained_here(page, live_app):
    page.goto(live_app.url + "/?run=digits&show=input:17")
    wait_idle(page)
    page.locator(".dv-nav-link", has_text="Attribution").click()
    page.locator(".dv-row-name").first.wait_for()
    assert page.locator(".dv-row-name").all_inner_texts()[0].startswith("Input 17")
    assert tiles(page).count() == len(FIRST)


def test_target_layer_and_settings_are_part_of_the_key_and_the_address(page, live_app):
    page.goto(live_app.url + DIGITS + "&n=2&methods=grad_cam,integrated_gradients")
    tiles(page)
    before = pixels(page)
    page.get_by_role("radio", name="A class…").check()
    page.get_by_label("Class explained").select_option("7")
    page.wait_for_function("() => [...document.querySelectorAll('.dv-row-class.explained .name')].every(e => e.textContent === '7')")
    tiles(page)
    assert query(page)["target"] == "class" and query(page)["of"] == "7"
    middle = pixels(page)
    assert middle != before
    page.get_by_label("Layer of the CAM family").select_option("features.conv2")
    wait_idle(page)
    tiles(page)
    page.wait_for_function("before => before !== " + CONTENT, arg=middle)
    assert query(page)["at"] == "features.conv2"
    assert page.locator("#attribution-depth").input_value() == "1"
    page.evaluate("() => dash_clientside.set_props('attribution-depth', {value: 0})")
    page.wait_for_function("() => dnnviz.selection.at === 'features.conv1'")
    page.get_by_text("Settings of the methods").click()
    page.locator(".dv-setting", has_text="Steps").locator("input").fill("12")
    page.keyboard.press("Enter")
    page.get_by_text("steps 12").wait_for()
    tiles(page)
    assert query(page)["integrated_gradients-steps"] == "12"
    choose(page, "integrated_gradients-steps", "1")
    page.get_by_text("must be a whole number from 2 to 500").wait_for()


def test_a_tile_enlarges_with_the_values_under_the_pointer(page, live_app):
    page.goto(live_app.url + DIGITS + "&n=2&methods=saliency,integrated_gradients")
    tiles(page).nth(1).click()
    dialog = page.locator("#attribution-dialog")
    dialog.locator(".dv-title", has_text="Integrated gradients").wait_for()
    assert "gap" in dialog.inner_text() and "Sundararajan" in dialog.inner_text()
    dialog.locator("canvas").first.hover(position={"x": 100, "y": 100})
    assert dialog.locator("#attribution-value").inner_text().startswith("x ")
    page.keyboard.press("ArrowLeft")
    dialog.locator(".dv-title", has_text="Saliency").wait_for()
    with page.expect_download() as saved:
        dialog.get_by_text("Save PNG").click()
    picture = Image.open(saved.value.path())
    assert picture.width >= 700 and saved.value.suggested_filename == "dnnviz-digits-epoch25-input-0-saliency.png"
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_an_image_of_ones_own(page, live_app):
    page.goto(live_app.url + DIGITS + "&methods=saliency&n=2")
    tiles(page)
    strokes = np.zeros((90, 60, 4), np.uint8)
    strokes[10:80, 25:35] = 255

    def upload(name, content):
        with page.expect_file_chooser() as chooser:
            page.locator("#attribution-upload").click()
        chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})

    upload("broken.png", b"\x89PNG\r\n\x1a\n nothing")
    page.get_by_text("“broken.png” is no image that can be read").wait_for()
    upload("mine.png", encoded(Image.fromarray(strokes)))
    page.locator(".dv-row-name", has_text="Uploaded image").wait_for()
    assert tiles(page).count() == 1
    page.wait_for_function("() => document.querySelectorAll('.dv-row-class').length >= 3")
    assert page.locator(".alert").count() == 0
    assert query(page)["inputs"].startswith("upload-")
    page.reload()
    assert tiles(page).count() == 1


def test_the_saved_picture_holds_every_tile_and_a_caption(page, live_app):
    page.goto(live_app.url + DIGITS + "&n=2&methods=saliency,grad_cam")
    tiles(page)
    svg = page.evaluate("async () => (await dnnviz.picture.compose()).svg")
    assert svg.count("<image") == 6 and "data:image/png;base64," in svg
    assert "digits, epoch 25" in svg and "Grad-CAM" in svg and "percentile" in svg
    choose(page, "also", "3,5")
    page.wait_for_function("() => document.querySelectorAll('.dv-tile').length === 12")
    tiles(page)
    many = page.evaluate("async () => await dnnviz.picture.compose()")
    assert many["svg"].count("<image") == 2 + 2 * 6 and many["svg"].count("Explained:") == 6 and "“3”" in many["svg"]
    problem = page.evaluate("svg => new DOMParser().parseFromString(svg, 'image/svg+xml').querySelector('parsererror')?.textContent || ''", svg)
    assert problem == ""


def test_what_is_unknown_in_the_address_gets_a_sentence_and_a_default(page, live_app):
    page.goto(live_app.url + DIGITS + "&methods=tea,saliency&at=nowhere&target=best&of=99&by=luck&n=1000&overlay=x&inputs=5,zz&epoch=25")
    assert tiles(page).count() == 4
    text = page.locator("#alerts").inner_text()
    for part in ("tea", "nowhere", "best", "99", "luck", "1000"):
        assert f"“{part}”" in text, part
    page.goto(live_app.url + DIGITS + "&methods=saliency&n=2&target=unit:nowhere:3&also=77,2&against=88&view=tea")
    assert tiles(page).count() == 4
    text = page.locator("#alerts").inner_text()
    assert "no layer 'nowhere'" in text and "“77”" in text and "“88”" in text and "“tea”" in text
    assert page.get_by_role("radio", name="Predicted class").is_checked() and query(page)["also"] == "2"


def test_a_run_whose_network_is_unknown_says_how_to_mend_it(new_page, make_live_app, own_runs):
    app = make_live_app([own_runs], allow=("tests",))
    page = new_page()
    page.goto(app.url + "/attribution?run=unknown")
    page.locator("#attribution-tiles .alert").wait_for()
    assert "model_spec=" in page.locator("#attribution-tiles .alert").inner_text()
    assert page.locator("#attribution-run").is_hidden() and page.locator(".dv-input").count() == 4
    # A method that the network does not allow says so in its column; the others go on.
    page.goto(app.url + "/attribution?run=linear&methods=saliency,grad_cam&n=2")
    tiles(page)
    failed = page.locator(".dv-tile.failed")
    assert failed.count() == 2 and "no layer with a map over the image" in failed.first.inner_text()
    assert page.locator(".dv-dot").count() == 2
    assert page.locator("#attribution-run").inner_text() == "Run again"


def test_code_of_a_run_is_not_run_unless_it_is_allowed(new_page, make_live_app, own_runs):
    page = new_page()
    page.goto(make_live_app([own_runs]).url + "/attribution?run=linear")
    page.locator("#attribution-tiles .alert").wait_for()
    assert "DNNVIZ_ALLOW=tests" in page.locator("#attribution-tiles .alert").inner_text()


def test_costly_tiles_wait_for_a_click_arrive_one_by_one_and_can_be_cancelled(new_page, make_live_app, torch_runs):
    page = new_page()
    page.goto(make_live_app([torch_runs]).url + "/attribution?run=resnet18&n=6&methods=saliency,occlusion&occlusion-stride=1")
    page.locator("#attribution-run:not([hidden])").wait_for()
    assert "12 of 12 tiles left" in page.locator("#attribution-status").inner_text()
    assert "evaluations of the network" in page.locator("#attribution-status").inner_text()
    page.locator("#attribution-run").click()
    page.wait_for_function("() => document.querySelectorAll('.dv-dot').length >= 2", timeout=60_000 * slack())
    page.locator("#job-cancel").click()
    page.locator("#attribution-status", has_text="Cancelled").wait_for()
    page.locator("#job-panel").wait_for(state="hidden")
    left = page.locator(".dv-tile.absent").count()
    assert 0 < left < 12
    # The tiles that were ready stay; nothing starts again by itself.
    wait_idle(page)
    assert page.locator("#attribution-run").inner_text() == "Run"
    assert page.locator("#attribution-status").inner_text().startswith("Cancelled")


def test_no_method_gets_an_empty_state(page, live_app):
    page.goto(live_app.url + DIGITS + "&methods=saliency")
    tiles(page)
    page.get_by_role("checkbox", name="Saliency").uncheck()
    page.get_by_text("No method chosen").wait_for()


# -- what is explained -----------------------------------------------------------------------------------------------


def explained(page):
    return [" ".join(text.split()[1:]) for text in page.locator(".dv-row-explained").all_inner_texts()]


def test_why_one_class_and_not_another(page, live_app):
    page.goto(live_app.url + DIGITS + "&n=2&methods=integrated_gradients")
    tiles(page)
    alone = pixels(page)
    assert page.locator(".dv-row-explained").count() == 0
    page.get_by_label("Against which class").select_option("7")
    page.wait_for_function("() => document.querySelectorAll('.dv-row-explained').length === 2")
    tiles(page)
    page.wait_for_function("before => before !== " + CONTENT, arg=alone)
    assert explained(page) == ["0 − 7", "1 − 7"]
    assert query(page)["against"] == "7"
    page.get_by_label("Against which class").select_option("The runner-up")
    page.wait_for_function("() => !document.querySelector('.dv-row-explained').textContent.includes('7')")
    assert page.locator(".dv-tile").count() == len(explained(page)) == 2
    second = page.locator(".dv-row-class .name").nth(1).inner_text()
    assert explained(page)[0] == f"0 − {second}"
    page.reload()
    tiles(page)
    assert explained(page)[0] == f"0 − {second}"


def test_a_second_target_has_a_row_below_the_first(page, live_app):
    page.goto(live_app.url + DIGITS + "&by=chosen&inputs=8&methods=grad_cam")
    tiles(page)
    # A class beside the input is a click away; so is any other in the list at the left.
    page.locator(".dv-row-class").nth(1).click()
    page.wait_for_function("() => document.querySelectorAll('.dv-tile').length === 2")
    page.get_by_label("Explain another class too").select_option("3")
    page.wait_for_function("() => document.querySelectorAll('.dv-tile').length === 3")
    assert tiles(page).count() == 3 and len(set(pixels(page).split(",data:"))) == 3
    first, second, third = [text.split()[0] for text in explained(page)]
    assert second == page.locator(".dv-row-class .name").nth(1).inner_text() and third == "3" and first != second
    assert query(page)["also"].endswith(",3")
    # The input is shown once; its rows stand below each other.
    assert page.locator(".dv-input").count() == page.locator(".dv-row-name").count() == 1
    page.reload()
    assert tiles(page).count() == 3
    assert page.locator(".dv-chip").count() == 2
    page.locator(".dv-chip").first.click()
    page.wait_for_function("() => document.querySelectorAll('.dv-tile').length === 2")
    # The class predicted, asked for by name as well, is no second row.
    choose(page, "also", first)
    page.wait_for_function("() => document.querySelectorAll('.dv-tile').length === 1")


def test_a_unit_and_a_layer_are_explained_from_their_cards(page, live_app):
    page.goto(live_app.url + "/?run=digits&layer=features.conv2&unit=3")
    wait_idle(page)
    page.get_by_role("link", name="Explain this unit").click()
    tiles(page)
    unit = target_name(dnnviz.open_run(DEMO_RUNS / "digits"), "unit:features.conv2:3")
    assert page.get_by_role("radio", name=unit).is_checked()
    assert explained(page) and set(explained(page)) == {unit}
    assert page.locator(".dv-when-target-score").is_hidden()
    strongest = dnnviz.open_run(DEMO_RUNS / "digits").unit_activations(25, "features.conv2", 3, "max").argsort()[::-1]
    shown = [int(text.split(",")[0].split()[1]) for text in page.locator(".dv-row-name").all_inner_texts()]
    assert sorted(shown) == sorted(strongest[: len(shown)].tolist()) and len(shown) > 3
    # And back to the class.
    page.get_by_role("radio", name="Predicted class").check()
    page.wait_for_function("() => document.querySelectorAll('.dv-row-class.explained').length > 0")
    assert "target" not in query(page)
    page.goto(live_app.url + "/?run=digits&layer=features.conv2")
    wait_idle(page)
    page.get_by_role("link", name="Explain this layer").click()
    tiles(page)
    assert set(explained(page)) == {"features.conv2 as a whole"}
    page.get_by_label("Direction of the layer").select_option("Towards 4")
    page.wait_for_function("() => document.querySelector('.dv-row-explained')?.textContent.includes('towards 4')")
    assert query(page)["target"] == "direction:features.conv2:4"


def test_a_group_of_the_embedding_is_explained_and_compared(page, live_app):
    page.goto(live_app.url + "/embedding?run=digits&show=class:3")
    link = page.get_by_role("link", name="Explain")
    link.wait_for()
    chosen = parse_qs(urlparse(link.get_attribute("href")).query)
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    assert {int(run.labels[int(i)]) for i in chosen["inputs"][0].split(",")} == {3} and chosen["by"] == ["chosen"]
    beside = parse_qs(urlparse(page.get_by_role("link", name="Compare with all inputs").get_attribute("href")).query)
    assert sorted(map(int, beside["group"][0].split(","))) == np.flatnonzero(run.labels == 3).tolist() and beside["show2"] == ["data"]


# -- methods, their cost, maps that grow -----------------------------------------------------------------------------


def test_methods_stand_by_family_with_what_they_cost(page, live_app):
    page.goto(live_app.url + DIGITS + "&n=2&methods=saliency")
    tiles(page)
    assert page.locator(".dv-family").all_inner_texts() == ["Gradient", "Activation", "Relevance", "Perturbation"]
    # The network was timed by now: seconds for both inputs stand beside the passes for one.
    page.wait_for_function(r"() => /passes · (under|about) \d+ (s|min)/.test(document.querySelector('[data-dv-cost=occlusion]').textContent)")
    page.get_by_role("button", name="No method").click()
    page.get_by_text("No method chosen").wait_for()
    assert query(page)["methods"] == "none"
    page.get_by_role("button", name="Every method").click()
    page.wait_for_function("n => document.querySelectorAll('.dv-gallery-head').length === n + 2", arg=len(METHODS))
    assert query(page)["methods"] == ",".join(METHODS)
    # A wide gallery scrolls sideways; input and classes stay.
    at = page.locator(".dv-input").first.bounding_box()
    page.locator("#centre").evaluate("box => box.scrollLeft = 700")
    page.wait_for_function("() => document.querySelector('#centre').scrollLeft > 300")
    assert page.locator(".dv-input").first.bounding_box()["x"] == pytest.approx(at["x"], abs=1)
    assert page.locator(".dv-tile").first.bounding_box()["x"] < at["x"]


def test_a_map_grows_and_is_replaced_by_the_final_one(new_page, held):
    app, go = held
    page = new_page()
    page.goto(app.url + DIGITS + "&n=2&methods=occlusion")
    page.locator(".dv-tile.growing").wait_for()
    page.locator(".dv-trust", has_text="50 % done").wait_for()
    page.wait_for_function("() => document.querySelector('.dv-tile canvas').width > 1")
    half = pixels(page).split(",data:")[0]
    assert page.locator(".dv-tile.growing").is_disabled() and page.locator(".dv-tile.waiting").count() == 1
    go.touch()
    assert tiles(page).count() == 2
    assert page.locator(".dv-dot.good, .dv-dot.warning, .dv-dot.degenerate").count() == 2
    assert pixels(page).split(",data:")[0] != half


def test_a_cancelled_job_keeps_what_is_there_and_says_what_is_left(new_page, held):
    app, go = held
    page = new_page()
    page.goto(app.url + DIGITS + "&n=2&methods=occlusion")
    page.locator(".dv-tile.growing").wait_for()
    page.locator("#job-cancel").click()
    page.locator("#attribution-status", has_text="Cancelled. 2 of 2 tiles left").wait_for()
    assert page.locator(".dv-tile.growing.stopped").count() == 1 and page.locator(".dv-tile.absent").count() == 1
    go.touch()
    page.locator("#attribution-run").click()
    assert tiles(page).count() == 2


# -- how far to believe it -------------------------------------------------------------------------------------------


def test_a_tile_is_measured_on_demand(page, live_app):
    page.goto(live_app.url + DIGITS + "&n=2&methods=saliency")
    tiles(page).first.click()
    dialog = page.locator("#attribution-dialog")
    measure = dialog.get_by_role("button", name="Measure")
    measure.wait_for()
    assert dialog.locator(".dv-curves, .dv-stage-row").count() == 0
    measure.click()
    dialog.locator(".dv-stage-row").wait_for()
    measure.wait_for(state="detached")
    wait_for_jobs(page)
    text = dialog.locator(".dv-believe").inner_text()
    assert "Deletion 0." in text and "Insertion 0." in text and "Infidelity" in text and "Sensitivity" in text
    assert dialog.locator(".dv-curves svg").count() == 2
    images = dialog.locator(".dv-stage-row canvas")
    assert images.count() >= 3
    assert images.evaluate_all("all => new Set(all.map(c => c.toDataURL())).size") >= 3
    assert len([t for t in dialog.locator(".dv-stage-row b").all_inner_texts() if t]) == images.count() - 1
    # What was measured is there at once the next time, also for somebody else.
    page.reload()
    tiles(page).first.click()
    dialog.locator(".dv-stage-row").wait_for()
    assert store_data(page, "job-request") is None and dialog.get_by_role("button", name="Measure").count() == 0


def test_a_gallery_gives_way_to_a_measure_and_goes_on(new_page, held):
    app, go = held
    page = new_page()
    go.touch()
    page.goto(app.url + DIGITS + "&n=2&methods=saliency")
    tiles(page)
    go.unlink()
    choose(page, "n", "4")
    page.locator(".dv-tile.growing").wait_for()
    page.locator(".dv-tile:not(.growing):not(.waiting)").first.click()
    page.locator("#attribution-dialog").get_by_role("button", name="Measure").click()
    page.locator("#attribution-dialog .dv-stage-row").wait_for()
    page.keyboard.press("Escape")
    go.touch()
    assert tiles(page).count() == 4


def test_methods_are_ranked_on_the_inputs_chosen(page, live_app):
    page.goto(live_app.url + DIGITS + "&n=2&methods=saliency,integrated_gradients,grad_cam")
    tiles(page)
    page.get_by_text("Ranking", exact=True).click()
    page.get_by_role("button", name="Rank these methods").click()
    rows = page.locator(".dv-ranking tbody tr")
    rows.first.wait_for()
    wait_for_jobs(page)
    assert query(page)["view"] == "ranking" and rows.count() == 4 and page.locator(".dv-ranking .random").count() == 1

    def column(n):
        return [float(text.split()[0]) for text in page.locator(f".dv-ranking tbody tr td:nth-child({n})").all_inner_texts()]

    assert column(2) == sorted(column(2), reverse=True)
    np.testing.assert_allclose(column(2), np.subtract(column(4), column(3)), atol=0.0016)
    page.get_by_role("button", name="Deletion").click()
    assert column(3) == sorted(column(3)) and page.locator("th[aria-sort=ascending]").inner_text().startswith("Deletion")
    assert page.locator(".dv-ranking tr:not(.random) .dv-mark").count() >= 3
    # What is saved is the table, in the order chosen.
    saved = page.evaluate("async () => (await dnnviz.picture.compose()).svg")
    shown = [text.split(" ± ")[0] for text in page.locator(".dv-ranking tbody tr td:nth-child(3)").all_inner_texts()]
    assert re.findall(r'<text x="410"[^>]*>([\d.]+)', saved) == shown
    assert saved.count("<rect") == 1 + 4 and "Random map" in saved
    # The link shows the same without a job; other inputs have another ranking.
    page.reload()
    rows.first.wait_for()
    assert store_data(page, "job-request") is None
    choose(page, "n", "4")
    page.get_by_role("button", name="Rank these methods").wait_for()
    assert rows.count() == 0


# -- out -------------------------------------------------------------------------------------------------------------


def test_the_raw_maps_are_a_file_that_says_what_they_are(page, live_app):
    page.goto(live_app.url + DIGITS + "&by=chosen&inputs=6,8&methods=saliency,integrated_gradients&also=3")
    assert tiles(page).count() == 8
    with page.expect_download() as saved:
        page.get_by_role("button", name="Maps (.npz)").click()
    assert saved.value.suggested_filename == "dnnviz-digits-epoch25-maps.npz"
    with np.load(saved.value.path(), allow_pickle=False) as file:
        heatmaps, about = file["heatmaps"], json.loads(str(file["about"]))
    run = dnnviz.open_run(DEMO_RUNS / "digits")
    assert heatmaps.shape == (8, *run.manifest["preprocessing"]["size"][1:]) and heatmaps.dtype == np.float32 and len(about) == 8
    assert [(a["input"], a["method"]) for a in about[:4]] == [("6", "saliency"), ("6", "integrated_gradients")] * 2
    assert about[2]["target"] == "class:3" and about[2]["explained"] == "3"
    model = run.load_model(25)
    for heatmap, what in zip(heatmaps, about, strict=True):
        expected = dnnviz.explain.attribute(model, run.network_inputs([int(what["input"])]), what["method"], what["target"])
        np.testing.assert_allclose(heatmap, expected.heatmap[0], atol=1e-5)
        assert what["score"] == pytest.approx(float(expected.scores[0]), abs=1e-4)


def test_requests_that_make_no_sense_get_a_sentence(live_app):
    client = live_app.app.server.test_client()
    asked = {"epoch": 25, "inputs": ["0"], "methods": {"saliency": {}}, "targets": ["predicted"], "layer": None}
    cases = {
        "maps.npz": [("", "reload the page"), ("[1]", "reload the page"), (json.dumps({**asked, "inputs": "0"}), "incomplete")],
        "ranking.json": [
            (json.dumps({**asked, "targets": ["class:99"]}), "classes 0 to 9"),
            (json.dumps({**asked, "methods": {"x": {}}}), "no attribution"),
        ],
        "trust.json": [(json.dumps(asked), "incomplete")],
    }
    for path, each in cases.items():
        for text, sentence in each:
            answer = client.get(f"/data/digits/{path}", query_string={"request": text})
            assert answer.status_code in (400, 404) and sentence in answer.json["error"], (path, text, answer.json)
    many = {**asked, "inputs": [str(i) for i in range(24)], "targets": [f"class:{i}" for i in range(8)], "methods": {name: {} for name in METHODS}}
    answer = client.get("/data/digits/maps.npz", query_string={"request": json.dumps(many)})
    assert "a file holds up to" in answer.json["error"]
