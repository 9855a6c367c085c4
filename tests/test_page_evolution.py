"""The evolution page in Chromium: playback, events, charts, address."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from dnnviz.analysis.evolution import events_at, follow
from dnnviz.figures.evolution import layers_chart, metrics_chart
from dnnviz.results import Results
from dnnviz.store import open_run
from tests.conftest import wait_idle
from tests.runs import write_run

EPOCHS = (0, 1, 2, 4, 8)
GRID = "() => window.dnnviz?.evolutionGrid?.()?.drawn"
CHARTS = "() => [...document.querySelectorAll('.evo-graph .js-plotly-plot')].filter((graph) => graph.data?.length).length === 2"


@pytest.fixture(scope="module")
def app(make_live_app, tmp_path_factory):
    runs = tmp_path_factory.mktemp("evolution_runs")
    write_run(runs / "trained", epochs=EPOCHS, inputs=24)
    write_run(runs / "single", epochs=(3,))
    return make_live_app(runs=(runs,))


@pytest.fixture
def run(app):
    return open_run(app.settings.runs[0] / "trained")


def visit(page, app, query=""):
    page.goto(f"{app.url}/evolution?run=trained{query}")
    page.wait_for_function(GRID)
    page.wait_for_function(CHARTS)
    wait_idle(page)


def epoch_on_screen(page):
    return int(page.text_content("#epoch-value"))


def panel(page, name):
    return np.array(page.evaluate(f"() => Array.from(window.dnnviz.evolutionGrid().panels[0].{name} || [])"))


def test_colours_are_on_one_scale_for_all_epochs(page, app, run):
    means = np.stack([run.data_mean(epoch) for epoch in run.epochs])
    visit(page, app, "&epoch=8")
    for position in (4, 1):
        page.locator("#evolution-timeline .evo-column").nth(position).click()
        levels = panel(page, "levels")
        for layer in run.layers:
            expected = means[position, layer.columns] / means[:, layer.columns].max() * 254
            assert np.abs(levels[layer.columns] - expected).max() <= 0.51
    assert "layer's maximum, all epochs" in page.text_content("#evolution-legend")
    page.get_by_label("All layers together").check()
    page.wait_for_url("**scale=all*")
    wait_idle(page)
    assert np.abs(panel(page, "levels") - means[1] / means.max() * 254).max() <= 0.51
    page.get_by_label("Each layer and epoch by itself").check()
    page.wait_for_url("**scale=layer*")
    wait_idle(page)
    assert all(panel(page, "levels")[layer.columns].max() == 254 for layer in run.layers)


def test_playback_runs_in_the_browser_and_tells_the_address_when_it_stops(page, app):
    visit(page, app, "&epoch=0&speed=6")
    address = page.url
    requests = []
    page.on("request", lambda request: None if request.url.endswith("/health") else requests.append(request.url))
    page.click("#evolution-play")
    page.wait_for_function("() => Number(document.getElementById('epoch-value').textContent) >= 2")
    assert page.url == address and requests == []
    page.click("#evolution-play")
    wait_idle(page)
    stopped = epoch_on_screen(page)
    assert stopped in EPOCHS and f"epoch={stopped}" in page.url + "&epoch=8"
    assert page.input_value("#epoch-slider") == str(EPOCHS.index(stopped))
    assert page.text_content("#evolution-details h1") == f"Events of epoch {stopped}"
    assert requests


def test_playback_without_loop_ends_at_the_last_epoch(page, app):
    visit(page, app, "&epoch=4&speed=12&loop=false&smooth=false")
    page.click("#evolution-play")
    page.wait_for_function("() => document.getElementById('evolution-play').textContent.includes('Play')")
    wait_idle(page)
    assert epoch_on_screen(page) == 8
    page.evaluate("""() => {
        window.seen = [];
        const title = document.getElementById("evolution-title");
        new MutationObserver(() => window.seen.push(title.textContent)).observe(title, {childList: true});
    }""")
    page.click("#evolution-play")
    page.wait_for_function("() => window.seen.some((text) => text.includes('epoch 8'))")
    assert "epoch 0" in page.evaluate("() => window.seen[0]")


def test_keys(page, app):
    visit(page, app, "&epoch=2&speed=1")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.getElementById('evolution-title').textContent.includes('epoch 4')")
    # Both keys at once, so that playback does not get on meanwhile.
    texts = page.evaluate("""() => [" ", "ArrowLeft"].map((key) => {
        document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
        return document.getElementById("evolution-play").textContent;
    })""")
    assert "Pause" in texts[0] and "Play" in texts[1]
    wait_idle(page)
    assert epoch_on_screen(page) == 2 and "epoch=2" in page.url
    page.click("#evolution-forward")
    wait_idle(page)
    assert epoch_on_screen(page) == 4
    page.click("#evolution-play")
    page.evaluate("() => window.dash_clientside.set_props('epoch-slider', {value: 0})")  # a hand on the slider
    page.wait_for_function("() => document.getElementById('evolution-title').textContent.includes('epoch 0')")
    assert "Play" in page.text_content("#evolution-play")


def test_events_are_marked_listed_and_lead_to_the_unit(page, app, run):
    found = follow(run)
    visit(page, app, "&epoch=2")
    assert (panel(page, "marks") == found.events[2]).all()
    events = events_at(run, found, 2)
    assert events and page.locator(".evo-event").count() == len(events)
    counts = page.evaluate("() => [...document.querySelectorAll('.evo-column')].map((column) => column.title)")
    assert len(counts) == len(EPOCHS)
    assert counts[2].startswith("Epoch 2: ") and f"{int((found.events[2] == 3).sum())} changed class" in counts[2]
    page.locator(".evo-event").first.click()
    wait_idle(page)
    assert f"layer={events[0].layer}&unit={events[0].unit}" in page.url
    assert f"{events[0].layer} · unit {events[0].unit}" in page.text_content("#evolution-details")
    page.get_by_label("Events in the grid").uncheck()
    page.wait_for_url("**marks=false*")
    wait_idle(page)
    assert not len(panel(page, "marks"))
    # A click on a cell: the fourth of the second layer.
    place = page.evaluate("""() => {
        const grid = window.dnnviz.evolutionGrid();
        const box = grid.box("layer1.0.conv1", 3);
        return [grid.panelLeft[0] + box.x + 4, box.y + 4];
    }""")
    page.locator("#evolution-grid").click(position={"x": place[0], "y": place[1]})
    wait_idle(page)
    assert "layer1.0.conv1 · unit 3" in page.text_content("#evolution-details")


def test_a_class_and_an_input(page, app, run):
    visit(page, app, "&epoch=4&show=class:2")
    assert np.allclose(panel(page, "values"), run.one_class_mean(4, 2), atol=1e-6)
    assert "Class “class 2”, epoch 4" in page.text_content("#evolution-title")
    page.get_by_label("Maximum", exact=True).check()
    page.evaluate("() => window.dnnviz.show('input:7')")
    page.wait_for_function("() => document.getElementById('evolution-title').textContent.includes('Input 7')")
    wait_idle(page)
    assert np.allclose(panel(page, "values"), run.input_activations(4, 7, "max"), atol=1e-6)


def test_a_click_in_a_chart_goes_to_its_epoch(page, app):
    visit(page, app, "&epoch=8")
    box = page.locator("#evolution-layers .nsewdrag").bounding_box()
    # Third of five columns, first of four layers.
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.1 * box["height"])
    page.wait_for_url("**epoch=2*")
    wait_idle(page)
    assert epoch_on_screen(page) == 2 and "layer=conv1" in page.url
    page.locator("#evolution-timeline .evo-column").nth(3).click()
    wait_idle(page)
    assert epoch_on_screen(page) == 4


def test_charts_follow_their_controls_and_not_the_epoch(page, app, run):
    found = follow(run)
    visit(page, app)
    drawn = page.evaluate("() => document.querySelector('#evolution-layers .js-plotly-plot').calcdata[0][0].z.map((row) => row[3])")
    assert np.allclose(drawn, found.change[3], atol=1e-5)
    requests = []
    page.on("request", lambda request: requests.append(request.post_data or "") if "_dash-update" in request.url else None)
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.getElementById('evolution-title').textContent.includes('epoch 4')")
    wait_idle(page)
    assert not [text for text in requests if "evolution-layers" in text]
    page.click("[data-dv-action=palette]")
    page.wait_for_function("() => document.querySelector('#evolution-layers .js-plotly-plot').data[0].colorscale[0][1] !== '#fff7f3'")
    page.get_by_label("Figure of the layers").select_option("dead")
    page.get_by_text("Lines", exact=True).click()
    page.wait_for_url("**form=lines*")
    wait_idle(page)
    page.wait_for_function("() => document.querySelector('#evolution-layers .js-plotly-plot').data.length === 4")
    assert "figure=dead" in page.url


def test_a_run_with_one_snapshot_says_how_to_record_more(page, app):
    page.goto(f"{app.url}/evolution?run=single")
    page.get_by_text("One snapshot, nothing to play yet").wait_for()
    wait_idle(page)
    assert "Recorder" in page.text_content(".dv-empty") and "dnnviz train" in page.text_content(".dv-empty")
    page.keyboard.press(" ")


def test_the_address_holds_the_view_and_nonsense_in_it_is_ignored(page, app):
    visit(page, app, "&epoch=4&stat=active&speed=12&loop=false&charts=false&figure=mean&form=lines&cell=7")
    assert not page.get_by_label("Loop").is_checked()
    assert page.get_by_label("Share of inputs active").is_checked()
    assert not page.locator(".evo-charts").is_visible()
    for part in ("epoch=4", "stat=active", "speed=12", "loop=false", "charts=false", "figure=mean", "form=lines", "cell=7"):
        assert part in page.url
    visit(page, app, "&stat=nonsense&scale=x&speed=fast&figure=f&form=3&cell=-1&split=none&kinds=x&marks=maybe&epoch=99")
    assert "no snapshot of epoch 99" in page.text_content("#alerts")
    assert epoch_on_screen(page) == 8


def test_save_picture(page, app):
    visit(page, app, "&epoch=4")
    page.click("#evolution-play")
    made = page.evaluate("async () => window.dnnviz.picture.compose()")
    tree = ElementTree.fromstring(made["svg"])
    text = " ".join(tree.itertext())
    epoch = epoch_on_screen(page)
    assert f"trained, epoch {epoch}." in text and "one scale for all epochs" in text
    assert "Change since the snapshot before" in text and "accuracy" in text
    assert made["height"] > 400


def test_dark_theme_and_two_pages_one_after_the_other(new_page, app):
    page = new_page(color_scheme="dark")
    visit(page, app, "&epoch=2")
    page.click("#evolution-play")
    page.get_by_role("link", name="Layers", exact=True).click()
    page.wait_for_url(re.compile(r"/\?"))
    wait_idle(page)
    page.keyboard.press(" ")
    page.get_by_role("link", name="Evolution", exact=True).click()
    page.wait_for_function(GRID)
    page.wait_for_function(CHARTS)
    assert "Play" in page.text_content("#evolution-play")
    assert page.evaluate("() => document.querySelector('#evolution-layers .js-plotly-plot').layout.template.layout.font.color") == "#e6e8ea"


def test_the_demo_run_plays(page, live_app):
    page.goto(f"{live_app.url}/evolution?run=digits&epoch=0&speed=12&loop=false")
    page.wait_for_function(GRID)
    wait_idle(page)
    page.click("#evolution-play")
    page.wait_for_function("() => document.getElementById('evolution-play').textContent.includes('Play')")
    wait_idle(page)
    assert "epoch" not in page.url.partition("?")[2].replace("epochs", "")  # the last epoch is the default
    assert "When layers settle" in page.text_content("#evolution-details")
    assert "test" in page.text_content("#evolution-splits")


def test_events_are_computed_once_for_all_requests(app, run):
    with app.app.server.test_client() as client:
        answer = client.get(f"{app.settings.prefix}data/trained/events")
    found = follow(run)
    both = np.frombuffer(answer.data, "<i2").reshape(2, len(EPOCHS), run.units)
    assert (both[0] == found.events).all() and (both[1] == found.preferred).all()
    assert list(Results(app.settings.private_cache() / "results").folder.glob("*/evolution-*.npz"))


def test_figures():
    values = np.array([[np.nan, np.nan], [0.2, 0.5], [0.1, 0.4]], dtype=np.float32)
    chart = layers_chart([0, 1, 5], ["conv1", "fc"], values, "change", "light")
    assert chart.data[0].type == "heatmap" and chart.data[0].z.shape == (2, 3) and chart.data[0].zmax == pytest.approx(0.5)
    assert list(chart.layout.xaxis.ticktext) == ["0", "1", "5"]
    lines = layers_chart([0, 1, 5], ["conv1", "fc"], values, "dead", "dark", lines=True)
    assert [trace.name for trace in lines.data] == ["conv1", "fc"]
    means = layers_chart([0, 1], ["a", "b"], np.array([[2.0, 0.0], [4.0, 0.0]]), "mean", "light")
    assert means.data[0].z.tolist() == [[0.5, 1.0], [0.0, 0.0]]
    assert layers_chart([0, 1], [], np.zeros((2, 0)), "change", "light").data[0].z.shape == (0, 2)
    both = metrics_chart([0, 1], {"train": [0.1, 0.9], "test": [0.1, 0.8]}, {"train": [2.0, 0.1], "test": [2.0, 0.4]}, "light")
    assert len(both.data) == 4 and both.data[1].line.color != both.data[0].line.color
    assert len(metrics_chart([0, 1], {"all inputs": [0.1, 0.9]}, {}, "light").data) == 1
