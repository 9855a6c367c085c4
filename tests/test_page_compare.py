"""The compare page in Chromium, on small runs whose answers are known."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from dnnviz.analysis import class_rows, comparison
from dnnviz.analysis.moves import moves
from dnnviz.analysis.sides import Side
from dnnviz.store import open_run
from tests.conftest import wait_idle
from tests.runs import LAYERS, write_run


@pytest.fixture(scope="module")
def compared(make_live_app, tmp_path_factory):
    """An app on `net` and `net-marked` (the same but for class 3's training images), `wider` (one layer differs), `other` (nothing shared)."""
    folder: Path = tmp_path_factory.mktemp("compared")
    for name in ("net", "net-marked"):
        write_run(folder / name, inputs=64, classes=8)
        for epoch in (0, 1, 5):
            file = folder / name / "snapshots" / f"{epoch:06d}" / "class_mean.npy"
            means = np.load(file)
            means[1] = means[0] + np.random.default_rng(5).normal(0, 0.02, means[0].shape)
            if name == "net-marked":
                means[0, 3, 6:22] += 1.0
            np.save(file, means)
    write_run(folder / "wider", inputs=64, classes=8, layers=(*LAYERS[:3], replace(LAYERS[3], units=5, shape=(5,))))
    write_run(folder / "other", classes=3, layers=(replace(LAYERS[0], name="stem"),))
    return make_live_app([folder])


def open_page(page, app, query: str = ""):
    page.goto(app.url + "/compare" + query)
    wait_idle(page)


def drawn(page):
    """Panels of the grid and of the small multiples, once both are drawn."""
    page.wait_for_function(
        "() => { const g = window.dnnviz.compareGrids(); return g.units && g.units.panels.length === 3 && g.classes && g.classes.panels.length; }"
    )
    return page.evaluate(
        """() => {
            const {units, classes} = window.dnnviz.compareGrids();
            const plain = (p) => ({title: p.title, map: p.map, values: Array.from(p.values), levels: Array.from(p.levels)});
            const panels = (grid) => grid.panels.map(plain);
            return {
                units: panels(units), layers: units.rows.map((r) => r.layer.name), side: units.side, titles: units.panels.map((p) => p.title),
                classes: panels(classes), rows: classes.rows.map((r) => r.layer.name), classSide: classes.side,
            };
        }"""
    )


def address(page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlparse(page.url).query).items()}


def test_a_bare_address_compares_with_a_run_of_the_same_network(page, compared):
    open_page(page, compared)
    found = drawn(page)
    assert found["titles"] == ["A  net", "B  net-marked", "B − A"]
    assert found["layers"] == ["conv1", "layer1.0", "fc"]
    assert address(page) == {"run": "net", "run2": "net-marked", "epoch2": "5", "show2": "data"}
    assert not page.locator("#alerts .alert").count()
    assert "common order" in page.locator("#compare-notice").inner_text()


def test_two_classes_of_one_network(page, compared):
    open_page(page, compared, "?run=net&show=class:1&run2=net&epoch2=5&show2=class:6&layers=all")
    found = drawn(page)
    run = open_run(compared.settings.runs[0] / "net")
    expected = comparison.compare(Side(run, 5, "class:1"), Side(run, 5, "class:6"))
    for panel, values in zip(found["units"], (expected.first, expected.second, expected.difference), strict=True):
        np.testing.assert_allclose(panel["values"], values, rtol=1e-5)
    assert [panel["map"] for panel in found["units"]] == ["sequential", "sequential", "diverging"]
    # One scale for both sides: equal levels mean equal values, and one of the two reaches the top of every layer.
    levels = np.array([found["units"][0]["levels"], found["units"][1]["levels"]])
    assert [levels[:, layer.columns].max() for layer in run.layers] == [254] * 4
    assert found["units"][2]["levels"] == [round(np.clip((z + 3) / 6, 0, 1) * 254) for z in found["units"][2]["values"]]
    assert found["side"]["conv1"]["text"] == f"{expected.distances[0]:.2f}"
    # One network: one picture of its classes, those compared emphasised.
    assert len(found["classes"]) == 1 and found["rows"] == [f"class {k}" for k in range(8)]
    assert page.locator("#compare-classes .dv-grid-label.strong").all_inner_texts() == ["class 1", "class 6"]
    assert "The two classes" in page.locator(".dv-right").inner_text()


def test_swapping_turns_the_difference_round(page, compared):
    open_page(page, compared, "?run=net&show=class:1&run2=net-marked&epoch2=0&show2=class:6&pair=index")
    before = drawn(page)
    page.click("#compare-swap")
    page.wait_for_url("**run=net-marked**")
    wait_idle(page)
    page.wait_for_function("() => window.dnnviz.compareGrids().units.panels[0].title.startsWith('A  net-marked')")
    after = drawn(page)
    assert address(page) == {"run": "net-marked", "epoch": "0", "show": "class:6", "run2": "net", "epoch2": "5", "show2": "class:1", "pair": "index"}
    np.testing.assert_allclose(after["units"][2]["values"], -np.array(before["units"][2]["values"]), rtol=1e-4, atol=1e-6)
    page.go_back()
    wait_idle(page)
    assert address(page)["run"] == "net"


def test_what_is_shown_is_chosen_and_kept_in_the_address(page, compared):
    open_page(page, compared, "?run=net&run2=net&epoch2=0&show2=data")
    page.select_option("#compare-show", "class:2")
    page.select_option("#compare-show2", "input")
    page.fill("#compare-input2", "17")
    page.keyboard.press("Tab")
    page.locator("select").filter(has=page.locator("option", has_text="± 6")).select_option("6")
    wait_idle(page)
    assert address(page) == {"run": "net", "show": "class:2", "run2": "net", "epoch2": "0", "show2": "input:17", "span": "6"}
    assert "± 6 standard deviations" in page.locator("#compare-legend").inner_text()
    page.reload()
    wait_idle(page)
    assert drawn(page)["titles"] == ["A  epoch 5 · class 2", "B  epoch 0 · input 17", "B − A"]
    assert page.input_value("#compare-input2") == "17"


def test_several_inputs_are_named_by_their_numbers(page, compared):
    open_page(page, compared, "?run=net&run2=net&epoch2=5&show2=data")
    page.select_option("#compare-show", "group")
    for wrong in ("3, x", "90-99", "7-3"):
        page.fill("#compare-several", wrong)
        page.keyboard.press("Tab")
        page.locator(".dv-toast.shown", has_text="numbers from 0 to 63").wait_for()
        assert "group" not in address(page)
    page.fill("#compare-several", "17, 3 20-22")
    page.keyboard.press("Tab")
    page.wait_for_function("() => location.search.includes('group=3,17,20,21,22')")
    wait_idle(page)
    assert drawn(page)["titles"][0] == "A  5 chosen inputs"
    page.select_option("#compare-show", "class:2")
    wait_idle(page)
    assert "group" not in address(page) and drawn(page)["titles"][0] == "A  class 2"


def test_a_unit_that_differs_leads_to_its_card_and_back(page, compared):
    open_page(page, compared, "?run=net&show=class:1&run2=net&epoch2=5&show2=class:6")
    first = page.locator(".dv-bars.units button").first
    layer, unit = first.text_content().rsplit(" · ", 1)
    first.click()
    page.get_by_role("heading", name=f"{layer} · unit {unit}").wait_for()
    assert address(page)["layer"] == layer and address(page)["unit"] == unit
    card = page.locator(".dv-right").inner_text()
    assert "B − A" in card and "Images that excite it most".lower() in card.lower()
    page.get_by_role("button", name="← What differs most").click()
    page.get_by_role("heading", name="What differs most").wait_for()
    assert "unit" not in address(page)


def test_marks_show_the_ranked_units_on_the_grid(page, compared):
    open_page(page, compared, "?run=net&show=class:1&run2=net&epoch2=5&show2=class:6")
    drawn(page)
    page.get_by_role("button", name="Show on the grid").click()
    page.wait_for_function("() => window.dnnviz.compareGrids().units.panels[2].marks?.reduce((a, b) => a + b, 0) === 12")
    assert address(page)["mark"] == "1"


def test_a_label_chooses_the_layer_of_the_small_multiples(page, compared):
    open_page(page, compared, "?run=net&show=class:1&run2=net&epoch2=5&show2=class:6")
    drawn(page)
    page.locator("#compare-grid .dv-grid-label", has_text="fc").click()
    page.wait_for_function("() => document.getElementById('compare-classes-title').textContent.startsWith('fc, all classes')")
    assert address(page)["layer"] == "fc"


def test_a_marked_class_stands_out(page, compared):
    open_page(page, compared, "?run=net&run2=net-marked&epoch2=5&show2=data")
    found = drawn(page)
    assert page.locator("#compare-classes .dv-grid-label.alarm").all_inner_texts() == ["class 3"]
    shares = {name: entry["share"] for name, entry in found["classSide"].items()}
    assert shares.pop("class 3") == 1 and max(shares.values()) < 0.2
    text = page.locator(".dv-right").inner_text()
    assert "In B, net-marked, class “class 3” lies" in text and "In A" not in text
    page.get_by_role("link", name="Compare its train and test images").click()
    page.wait_for_url("**split2=test**")
    wait_idle(page)
    page.wait_for_function("() => window.dnnviz.compareGrids().units?.panels[0].title === 'A  class 3, train'")
    assert max(abs(v) for v in drawn(page)["units"][2]["values"][22:]) < 0.3


def test_layers_that_are_not_shared_are_named(page, compared):
    open_page(page, compared, "?run=net&run2=wider&epoch2=5&show2=data&layers=all")
    assert "left out: fc of net, and fc of wider" in page.locator("#alerts").inner_text()
    assert drawn(page)["layers"] == ["conv1", "layer1.0.conv1", "layer1.0"]


def test_runs_that_share_nothing_say_what_can_be_done(page, compared):
    open_page(page, compared, "?run=net&run2=other&epoch2=5&show2=data")
    assert "share no layer" in page.locator("#alerts").inner_text()
    assert "share neither inputs nor four classes" in page.locator("#compare-similarity-note").inner_text()
    assert "Nothing can be compared unit by unit" in page.locator(".dv-right").inner_text()
    page.get_by_text("Table", exact=True).click()
    wait_idle(page)


def test_unknown_values_are_said_and_something_is_shown(page, compared):
    open_page(page, compared, "?run=net&run2=nowhere&epoch2=7&show2=class:99&split=x&span=9&layer=q&view=z")
    said = page.locator("#alerts").inner_text()
    for part in (
        "B: There is no run called “nowhere”",
        "“9” is no value of “span”",
        "no split “x”",
        "A: This run has no layer “q”",
        "“z” is no value",
    ):
        assert part in said
    assert drawn(page)["titles"][2] == "B − A"
    open_page(page, compared, "?run=net&run2=net&epoch2=seven&show2=class:99")
    said = page.locator("#alerts").inner_text()
    assert "B: “seven” is no epoch" in said and "B: This run has no “class:99”" in said


def test_table_and_its_download(page, compared):
    open_page(page, compared, "?run=net&show=class:1&run2=net-marked&epoch2=5&show2=class:6")
    page.get_by_role("button", name="As a table").click()
    rows = page.locator(".cmp-table tbody tr")
    rows.first.wait_for()
    assert address(page)["view"] == "table"
    assert rows.count() == 18  # the overview leaves out the convolution inside the block
    with page.expect_download() as download:
        page.get_by_role("link", name="All 26 units as CSV").click()
    table = list(csv.reader(io.StringIO(Path(download.value.path()).read_text())))
    assert table[0][:4] == ["layer", "kind", "unit", "unit in B"] and len(table) == 27
    run, other = (open_run(compared.settings.runs[0] / name) for name in ("net", "net-marked"))
    expected = comparison.compare(Side(run, 5, "class:1"), Side(other, 5, "class:6"))
    np.testing.assert_allclose([float(row[6]) for row in table[1:]], expected.difference, rtol=1e-4, atol=1e-6)


def test_layers_against_layers(page, compared):
    open_page(page, compared, "?run=net&run2=wider&epoch2=5&show2=data&view=similarity&layers=all")
    page.wait_for_selector("#compare-similarity .js-plotly-plot .heatmaplayer image, #compare-similarity .js-plotly-plot .hm")
    values = page.evaluate(
        "() => { const d = document.querySelector('#compare-similarity .js-plotly-plot').calcdata[0][0].z; return d.map((r) => Array.from(r)); }"
    )
    assert np.array(values).shape == (4, 4)
    assert "linear CKA over 64 inputs" in page.locator("#compare-similarity-note").inner_text()


def test_predictions_that_moved(page, compared):
    open_page(page, compared, "?run=net&run2=net&epoch=0&epoch2=5&show2=data&view=predictions")
    page.wait_for_selector("#compare-moves .sankey-link")
    run = open_run(compared.settings.runs[0] / "net")
    found = moves(Side(run, 0), Side(run, 5))
    said = page.locator("#compare-moves-note").inner_text()
    assert f"{found.moved.sum()} of 64 predictions moved" in said and f"{found.mended.sum()} inputs are mended, {found.broken.sum()} broken" in said
    listed = page.locator(".cmp-moves-list li").all_inner_texts()
    assert len(listed) == min(24, len([1 for a, b, _ in found.flows() if a != b]))
    picture = page.evaluate("() => window.dnnviz.picture.compose()")["svg"]
    assert "sankey" in picture and "predictions moved" in " ".join(re.sub("<[^>]+>", " ", picture).split())
    # A link of an input leads to why B predicts what it does.
    page.locator(".cmp-move-inputs a").first.click()
    page.wait_for_url("**/attribution?*")
    assert address(page)["run"] == "net" and address(page).get("epoch", "5") == "5"
    open_page(page, compared, "?run=net&run2=net&epoch2=5&show2=data&view=predictions")
    assert "same network" in page.locator("#compare-moves-list").inner_text()


def test_inputs_chosen_one_by_one_are_a_side(page, compared):
    open_page(page, compared, "?run=net&run2=net&epoch2=5&show2=data&group=3,1,9,20")
    found = drawn(page)
    run = open_run(compared.settings.runs[0] / "net")
    wanted = run.activations(5)[[1, 3, 9, 20]].mean(axis=0)
    assert found["titles"][0] == "A  4 chosen inputs" and np.allclose(
        found["units"][0]["values"], wanted[: len(found["units"][0]["values"])], atol=2e-3
    )
    assert "4 against 64 inputs" in page.locator("#compare-details").inner_text()
    choice = page.get_by_label("What is shown of A")
    assert choice.input_value() == "group" and page.get_by_label("Numbers of the inputs of A").input_value() == "3,1,9,20"
    # Something else: the group is gone from the address; what does not exist gets a sentence.
    choice.select_option("class:2")
    page.wait_for_function("() => window.dnnviz.selection.show === 'class:2' && !window.dnnviz.selection.group")
    assert "group" not in address(page)
    open_page(page, compared, "?run=net&run2=net&epoch2=5&show2=data&group=3,99")
    assert "does not name inputs of net" in page.locator("#alerts").inner_text()


def test_a_layer_over_classes_runs_and_epochs(page, compared):
    open_page(page, compared, "?run=net&run2=net-marked&epoch2=5&show2=data&view=multiples&layer=layer1.0")
    page.wait_for_function("() => window.dnnviz.compareGrids().multiples?.panels.length === 6")
    panels = page.evaluate("() => window.dnnviz.compareGrids().multiples.panels.map((p) => [p.title, Array.from(p.values)])")
    assert [title for title, _ in panels] == [f"{side} · epoch {epoch}" for side in "AB" for epoch in (0, 1, 5)]
    runs = {name: open_run(compared.settings.runs[0] / name) for name in ("net", "net-marked")}
    found = class_rows.multiples(Side(runs["net"], 5, id="net"), Side(runs["net-marked"], 5, id="net-marked"), "layer1.0")
    assert np.allclose(panels[2][1], runs["net"].class_mean(5, "layer1.0").ravel(), atol=1e-5)
    assert np.allclose([values for _, values in panels], found.values.reshape(6, -1), atol=1e-5) and found.shades.max() == 1
    assert "layer1.0: its" in re.sub("<[^>]+>", " ", page.evaluate("() => window.dnnviz.picture.compose()")["svg"])
    page.get_by_label("Layer", exact=True).select_option("conv1")
    page.wait_for_function(
        "() => document.querySelector('#compare-multiples-title').textContent.includes('of its') || window.dnnviz.selection.layer === 'conv1'"
    )
    assert address(page)["layer"] == "conv1"


def test_a_layer_that_differs_by_chance_stands_back(page, live_app):
    open_page(page, live_app, "?run=digits&run2=digits&split=train&split2=test&epoch2=25&show=class:3&show2=class:3&layers=all")
    drawn(page)
    faint = page.locator("#compare-grid .dv-grid-side")
    assert faint.count() == 6 and faint.evaluate_all(
        "all => all.every((one) => one.classList.contains('faint') && one.title.includes('No more than chance'))"
    )
    assert "No layer differs by more than chance (permutation test over 12 against 12 inputs" in page.locator("#compare-details").inner_text()
    open_page(page, live_app, "?run=digits&run2=digits&epoch2=25&show=class:3&show2=class:8&layers=all")
    drawn(page)
    assert faint.evaluate_all("all => all.length === 6 && all.every((one) => !one.classList.contains('faint') && one.title.includes('≤ 0.001'))")


@pytest.mark.parametrize("view", ["units", "similarity", "table"])
def test_picture_of_the_view_with_its_caption(page, compared, view):
    open_page(page, compared, f"?run=net&run2=net-marked&epoch2=1&show2=class:3&view={view}")
    if view == "similarity":
        page.wait_for_selector("#compare-similarity .js-plotly-plot .main-svg")
    elif view == "table":
        page.wait_for_selector("#compare-table tbody tr")
    else:
        drawn(page)
    picture = page.evaluate("() => window.dnnviz.picture.compose()")
    assert picture["svg"].startswith("<svg") and picture["width"] > 400
    text = " ".join(re.sub("<[^>]+>", " ", picture["svg"]).split())
    assert "A: net, epoch 5, all inputs. B: net-marked, epoch 1, class class 3." in text
    expected = {"units": ("layer1.0", "B − A", "Distance", "class 3", "all classes"), "table": ("Unit of B", "18"), "similarity": ("CKA", "layer1.0")}
    assert all(part in text for part in expected[view])


def test_dark_theme_reaches_the_figure(new_page, compared):
    page = new_page(color_scheme="dark")
    open_page(page, compared, "?run=net&run2=wider&epoch2=5&show2=data&view=similarity")
    page.wait_for_function("() => document.querySelector('#compare-similarity .js-plotly-plot')?.layout?.template?.layout?.font?.color === '#e6e8ea'")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("units.json?run=nowhere&run2=net", "no run called 'nowhere'"),
        ("units.json?run=net&run2=net&epoch=7", "no snapshot of epoch 7"),
        ("units.json?run=net&run2=net&show2=class:99", "nothing under this address"),
        ("units.json?run=net&run2=net&pair=magic", "'magic' is no way to pair units"),
        ("classes.json?run=net&run2=net&layer=../x", "share no layer '../x'"),
        ("units.csv?run=net&run2=net&split2=x", "nothing under this address"),
    ],
)
def test_endpoints_answer_nonsense_with_a_sentence(compared, query, said):
    answer = compared.app.server.test_client().get("/compare-data/" + query)
    assert answer.status_code == 404 and said in answer.get_json()["error"]


def test_many_classes_and_wide_layers_are_cut_to_what_tells_most(compared):
    query = "classes.json?run=net&run2=net-marked&layer=layer1.0&limit=8"
    answer = compared.app.server.test_client().get("/compare-data/" + query).get_json()
    assert answer["rows"] == "gap" and answer["unitsInAll"] == 8 and len(answer["units"]) == 8
    assert [entry["name"] for entry in answer["classes"] if entry["outlier"]] == ["class 3"]
