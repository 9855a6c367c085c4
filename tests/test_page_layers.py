"""The layers page as a person uses it."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from dnnviz.catalogue import Catalogue
from tests.conftest import LiveApp, wait_idle
from tests.runs import write_run

GRID = """() => { const g = dnnviz.layersGrid(); return {
    rows: g.rows.map((r) => r.layer.name), drawn: g.drawn, pitch: g.pitch, columns: g.columns, left: g.panelLeft[0],
    tops: Object.fromEntries(g.rows.map((r) => [r.layer.name, r.top])), levels: Array.from(g.panels[0].levels),
    values: Array.from(g.panels[0].values), order: g.order && Array.from(g.order), folded: [...g.folded], picked: g.picked }; }"""


def open_page(page: Page, app: LiveApp, query: str = "run=digits") -> dict[str, Any]:
    page.goto(f"{app.url}/?{query}")
    return grid(page)


def grid(page: Page) -> dict[str, Any]:
    wait_idle(page)
    page.wait_for_function("() => dnnviz.layersGrid() && dnnviz.layersGrid().paintedAt && !dnnviz.layersGrid().waiting")
    return page.evaluate(GRID)


def query_of(page: Page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


def click_cell(page: Page, layer: str, unit: int) -> None:
    state = page.evaluate(GRID)
    box = page.locator("#layers-grid").bounding_box()
    assert box is not None
    x = box["x"] + state["left"] + (unit % state["columns"]) * state["pitch"] + state["pitch"] / 2
    y = box["y"] + state["tops"][layer] + (unit // state["columns"]) * state["pitch"] + state["pitch"] / 2
    page.mouse.click(x, y)
    wait_idle(page)


@pytest.fixture(scope="module")
def demo(live_app: LiveApp) -> Any:
    return Catalogue(live_app.settings.runs).open("digits")


def test_every_unit_of_every_layer_is_there_with_the_value_of_the_store(page: Page, live_app: LiveApp, demo: Any) -> None:
    state = open_page(page, live_app)
    assert state["rows"] == [layer.name for layer in demo.layers]
    np.testing.assert_allclose(state["values"], demo.data_mean(demo.epochs[-1]), rtol=1e-6)
    # In the scale of each layer at least one cell of every layer is fully coloured.
    for layer in demo.layers:
        assert max(state["levels"][layer.columns]) == 254
    label = page.locator(f".dv-grid-label[data-layer='{demo.layers[0].name}']")
    expect(label).to_contain_text(f"{demo.layers[0].units} units")


def test_class_and_input_and_epoch_change_what_is_drawn(page: Page, live_app: LiveApp, demo: Any) -> None:
    state = open_page(page, live_app, "run=digits&show=class:3")
    np.testing.assert_allclose(state["values"], demo.class_mean(demo.epochs[-1])[3], rtol=1e-6)
    page.locator(".dv-strip .dv-thumb").nth(2).click()
    state = grid(page)
    chosen = int(query_of(page)["show"].removeprefix("input:"))
    assert demo.labels[chosen] == 3
    np.testing.assert_allclose(state["values"], demo.activations(demo.epochs[-1])[chosen], rtol=1e-6)
    page.keyboard.press("ArrowLeft")
    state = grid(page)
    assert query_of(page)["epoch"] == str(demo.epochs[-2])
    np.testing.assert_allclose(state["values"], demo.activations(demo.epochs[-2])[chosen], rtol=1e-6)
    expect(page.locator("#epoch-value")).to_have_text(str(demo.epochs[-2]))


def test_a_click_on_a_cell_opens_the_card_of_its_unit(page: Page, live_app: LiveApp, demo: Any) -> None:
    open_page(page, live_app)
    layer = demo.layers[1]
    click_cell(page, layer.name, 5)
    assert (query_of(page)["layer"], query_of(page)["unit"]) == (layer.name, "5")
    card = page.locator("#layers-details")
    expect(card.locator("h1")).to_have_text(f"{layer.name} · unit 5")
    for heading in ("Images that excite it most", "Mean by class", "Over the epochs"):
        expect(card.get_by_role("group", name=heading)).to_be_visible()
    _, values = demo.top_inputs(demo.epochs[-1], layer, 5)
    shown = card.locator(".dv-thumb").count()
    assert shown == (min(len(values), 9) if values[0] > 0 else 0)
    best = demo.classes[int(np.argmax(demo.class_mean(demo.epochs[-1], layer)[:, 5]))]
    expect(card.locator("button.name.strong")).to_have_text(best)
    card.locator("button.name.strong").click()
    wait_idle(page)
    assert query_of(page)["show"] == f"class:{demo.classes.index(best)}"


def test_hover_says_unit_value_and_rank(page: Page, live_app: LiveApp, demo: Any) -> None:
    state = open_page(page, live_app)
    layer = demo.layers[0]
    box = page.locator("#layers-grid").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + state["left"] + 2.5 * state["pitch"], box["y"] + state["tops"][layer.name] + state["pitch"] / 2)
    tip = page.locator(".dv-tip")
    expect(tip).to_contain_text(f"{layer.name} · unit 2")
    values = demo.data_mean(demo.epochs[-1], layer)
    expect(tip).to_contain_text(f"rank {1 + int((values > values[2]).sum())} of {layer.units}")


def test_order_kinds_and_scale_are_part_of_the_link(new_page: Callable[..., Page], live_app: LiveApp, demo: Any) -> None:
    page = new_page()
    open_page(page, live_app)
    page.get_by_role("radio", name="Value", exact=True).check()
    page.get_by_role("radio", name="All layers together").check()
    page.get_by_role("checkbox", name="Linear").uncheck()
    state = grid(page)
    assert state["rows"] == [layer.name for layer in demo.layers if layer.kind != "linear"]
    for layer in demo.layers:
        values = np.array(state["values"])[state["order"][layer.columns]]
        assert (np.diff(values) <= 0).all()
    other = new_page()
    other.goto(page.url)
    again = grid(other)
    for part in ("rows", "order", "levels"):
        assert again[part] == state[part]


def test_stages_and_blocks_fold_and_the_fold_is_in_the_link(page: Page, make_live_app: Callable[..., LiveApp], tmp_path: Path) -> None:
    write_run(tmp_path / "small")
    app = make_live_app(runs=[tmp_path])
    assert open_page(page, app, "run=small")["rows"] == ["conv1", "layer1.0.conv1", "layer1.0", "fc"]
    page.get_by_role("button", name="layer1", exact=False).first.click()
    assert grid(page)["rows"] == ["conv1", "fc"]
    assert query_of(page)["fold"] == "layer1"
    page.get_by_role("button", name="layer1", exact=False).first.click()
    page.get_by_role("button", name="Hide the 1 layer inside this block").click()
    assert grid(page)["rows"] == ["conv1", "layer1.0", "fc"]
    assert query_of(page)["fold"] == "layer1.0"
    page.get_by_role("button", name="Fold all").click()
    assert grid(page)["rows"] == []
    page.get_by_role("button", name="Unfold").click()
    assert len(grid(page)["rows"]) == 4


def test_arrow_keys_walk_over_the_units(page: Page, live_app: LiveApp, demo: Any) -> None:
    open_page(page, live_app)
    click_cell(page, demo.layers[0].name, 0)
    page.keyboard.press("ArrowRight")
    wait_idle(page)
    assert query_of(page)["unit"] == "1"


def test_the_architecture_view_leads_to_the_layer(page: Page, live_app: LiveApp, demo: Any) -> None:
    page.goto(f"{live_app.url}/?run=digits&view=graph")
    wait_idle(page)
    expect(page.locator("#graph-legend")).to_contain_text("Share of dead units")
    canvas = page.locator("#architecture canvas").last
    expect(canvas).to_be_visible()
    target = demo.layers[-1].name
    page.evaluate("(layer) => dash_clientside.set_props('architecture', {tapNodeData: {layer}})", target)
    wait_idle(page)
    assert query_of(page)["layer"] == target and "view" not in query_of(page)
    expect(page.locator("#layers-details h1")).to_have_text(target)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_torchvision_networks_with_one_snapshot(page: Page, make_live_app: Callable[..., LiveApp], torch_runs: Path, name: str) -> None:
    app = make_live_app(runs=[torch_runs])
    run = Catalogue((torch_runs,)).open(name)
    state = open_page(page, app, f"run={name}")
    assert len(state["rows"]) == len(run.layers)
    np.testing.assert_allclose(state["values"], run.data_mean(run.epochs[-1]), rtol=1e-6)
    expect(page.locator("#epoch-slider")).to_be_hidden()
    page.goto(f"{app.url}/?run={name}&view=graph&detail=layers")
    wait_idle(page)
    expect(page.locator("#architecture canvas").last).to_be_visible()


def test_what_the_link_names_wrongly_gets_an_alert_and_a_default(page: Page, live_app: LiveApp, demo: Any) -> None:
    state = open_page(page, live_app, "run=digits&epoch=7777&show=class:99&layer=nope&surplus=1")
    alerts = page.locator("#alerts .alert")
    expect(alerts).to_have_count(3)
    np.testing.assert_allclose(state["values"], demo.data_mean(demo.epochs[-1]), rtol=1e-6)


def test_without_a_run_the_page_says_how_to_make_one(page: Page, make_live_app: Callable[..., LiveApp], tmp_path: Path) -> None:
    page.goto(make_live_app(runs=[tmp_path]).url + "/")
    expect(page.get_by_role("heading", name="No run to show yet")).to_be_visible()
    expect(page.locator("pre")).to_contain_text("dnnviz capture")


def test_pictures_are_saved_with_a_caption(page: Page, live_app: LiveApp, demo: Any, tmp_path: Path) -> None:
    open_page(page, live_app, "run=digits&show=class:2")
    saved = {}
    for form in ("svg", "png2", "png4"):
        page.locator("#save-picture summary").click()
        with page.expect_download() as download:
            page.locator(f"[data-dv-save={form}]").click()
        saved[form] = tmp_path / form
        download.value.save_as(saved[form])
    text = saved["svg"].read_text()
    tree = ElementTree.fromstring(text)
    assert f"digits, epoch {demo.epochs[-1]}" in "".join(tree.itertext())
    assert text.count("h") > demo.units  # one rectangle a unit
    small, large = Image.open(saved["png2"]), Image.open(saved["png4"])
    assert large.width == pytest.approx(2 * small.width, abs=2)
    assert small.width == pytest.approx(2 * float(tree.get("width") or 0), abs=2)
    colours = small.convert("RGB").getcolors(1 << 24)
    assert colours is not None and len(colours) > 50


def test_the_link_is_copied(new_page: Callable[..., Page], live_app: LiveApp) -> None:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    open_page(page, live_app, "run=digits&show=class:2")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#dv-toast")).to_contain_text("copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == page.url


def test_the_theme_is_remembered_and_changes_the_cells(page: Page, live_app: LiveApp) -> None:
    open_page(page, live_app)
    before = page.evaluate("() => dnnviz.colours('sequential')")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("() => document.documentElement.dataset.bsTheme") == "dark"
    assert page.evaluate("() => dnnviz.colours('sequential')") != before
    page.reload()
    wait_idle(page)
    assert page.evaluate("() => document.documentElement.dataset.bsTheme") == "dark"


def test_another_run_and_back(page: Page, live_app: LiveApp) -> None:
    open_page(page, live_app, "run=digits&show=class:2")
    page.locator("#run-select").select_option("shapes")
    grid(page)
    assert query_of(page)["run"] == "shapes"
    page.go_back()
    grid(page)
    assert (query_of(page)["run"], query_of(page)["show"]) == ("digits", "class:2")


def test_two_users_have_each_their_own_selection(new_page: Callable[..., Page], live_app: LiveApp) -> None:
    first, second = new_page(), new_page()
    open_page(first, live_app, "run=digits&show=class:1")
    open_page(second, live_app, "run=shapes")
    first.keyboard.press("ArrowLeft")
    wait_idle(first)
    wait_idle(second)
    assert query_of(second) == {"run": "shapes"}
    assert re.search(r"show=class:1", first.url)


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080)])
def test_nothing_overflows(new_page: Callable[..., Page], live_app: LiveApp, size: tuple[int, int]) -> None:
    page = new_page(viewport={"width": size[0], "height": size[1]})
    open_page(page, live_app, "run=digits&show=class:1")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth && document.body.scrollHeight <= innerHeight")
    bar = page.locator(".dv-context").bounding_box()
    assert bar is not None and bar["height"] < 60
