"""The embedding page: its numbers, its figure, and what a person does with it in the browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dnnviz import jobs
from dnnviz.figures import embedding as figures
from dnnviz.project import METHODS, nearest
from dnnviz.project.view import PARAMETERS, default_layer, parameters_text, predictions, probabilities, question, unit_to_show
from dnnviz.theme import class_colours
from tests.conftest import LiveApp, store_data, wait_for_jobs, wait_idle
from tests.runs import write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

PLOT = "document.querySelector('#embedding-graph .js-plotly-plot')"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small`: 40 inputs, 3 epochs, 2 splits; `three`: three inputs, one epoch; `silent`: a layer that is the same for all inputs."""
    folder = tmp_path_factory.mktemp("embedding_runs")
    write_run(folder / "small", inputs=40)
    write_run(folder / "three", inputs=3, classes=3, epochs=(0,), splits=("data",))
    silent = write_run(folder / "silent", inputs=12, epochs=(0,))
    mean = np.load(silent.path / "snapshots" / "000000" / "mean.npy")
    mean[:, silent.layer("conv1").columns] = 0
    np.save(silent.path / "snapshots" / "000000" / "mean.npy", mean)
    return folder


@pytest.fixture(scope="module")
def small_app(runs: Path, make_live_app: Callable[..., LiveApp]) -> LiveApp:
    return make_live_app([runs])


@pytest.fixture(scope="module")
def many_app(tmp_path_factory: pytest.TempPathFactory, make_live_app: Callable[..., LiveApp]) -> LiveApp:
    """`many`: more inputs than plotly draws by itself."""
    folder = tmp_path_factory.mktemp("many_inputs")
    write_run(folder / "many", inputs=1600, epochs=(0,), size=(8, 8, 1))
    return make_live_app([folder])


@pytest.fixture
def go(small_app: LiveApp, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """While this file does not exist, all projections but PCA wait in `small_app`: how fast a machine computes decides nothing."""
    monkeypatch.setitem(jobs.TASKS, "projection", "tests.tasks:held_projection")
    file = small_app.settings.cache / "go"
    yield file
    file.unlink(missing_ok=True)


def open_page(page: Page, app: LiveApp, query: str) -> None:
    page.goto(f"{app.url}/embedding?{query}")
    page.locator("#embedding-graph").wait_for()
    page.wait_for_function("() => document.querySelector('#embedding-caption')?.innerText || document.querySelector('#embedding-message')?.innerText")
    wait_for_jobs(page)


def drawn(page: Page) -> dict[str, Any]:
    """What plotly shows: type, number of points that are visible, shapes, range and titles of the x axis."""
    page.wait_for_function(f"() => {PLOT}?._fullData?.length")
    return page.evaluate(
        f"""() => {{
            const plot = {PLOT};
            const trace = plot._fullData[0];
            return {{
                type: trace.type,
                points: Array.from(plot.data[0].x).filter((v) => Number.isFinite(v)).length,
                x: Array.from(plot.data[0].x),
                shapes: (plot.layout.shapes || []).map((s) => s.type),
                title: plot.layout.xaxis?.title?.text ?? "",
                opacity: Array.from(plot.data[0].marker.opacity?.length ? plot.data[0].marker.opacity : []),
                widths: Array.from(plot.data[0].marker.line?.width?.length ? plot.data[0].marker.line.width : []),
            }};
        }}"""
    )


def place(page: Page, row: int) -> tuple[float, float]:
    """Where on the screen a point is."""
    return tuple(
        page.evaluate(
            f"""(i) => {{
                const plot = {PLOT}, {{ xaxis, yaxis }} = plot._fullLayout, box = plot.getBoundingClientRect();
                return [box.left + xaxis._offset + xaxis.l2p(plot._fullData[0].x[i]), box.top + yaxis._offset + yaxis.l2p(plot._fullData[0].y[i])];
            }}""",
            row,
        )
    )


# -- numbers and figure ----------------------------------------------------------------------------------------------


def test_a_query_becomes_a_question_and_what_is_wrong_gets_a_sentence(runs: Path) -> None:
    from dnnviz.store import open_run

    run = open_run(runs / "small")
    want, problems = question(run, 5, None, {"method": "umap", "dims": "3", "n_neighbors": "7", "min_dist": "0.5", "split": "test", "seed": "4"})
    assert not problems
    assert (want.layer, want.method, want.dims, want.seed, want.split) == (default_layer(run).name, "umap", 3, 4, "test")
    assert dict(want.parameters) == {"n_neighbors": 7, "min_dist": 0.5}
    assert parameters_text(want) == "Neighbours 7, distance 0.5, seed 4"
    want, problems = question(run, 5, "conv1", {"method": "lda", "dims": "7", "split": "x", "seed": "-1"})
    assert (want.method, want.dims, want.seed, want.split, want.layer) == ("pca", 2, 0, None, "conv1") and len(problems) == 4
    want, problems = question(run, 5, None, {"method": "tsne", "perplexity": "1e9", "iterations": "many"})
    assert dict(want.parameters) == METHODS["tsne"].resolve({}) and len(problems) == 2
    assert set(PARAMETERS) == {"n_neighbors", "min_dist", "perplexity", "iterations", "exaggeration"}


def test_predictions_and_probabilities_are_those_of_the_logits(runs: Path) -> None:
    from dnnviz.store import open_run

    run = open_run(runs / "small")
    best, confidence = predictions(run, 5)
    np.testing.assert_array_equal(best, run.logits(5).argmax(axis=1))
    shares = probabilities(run, 5, 3)
    assert shares.sum() == pytest.approx(1) and shares.max() == pytest.approx(confidence[3], abs=1e-6)


def test_the_unit_shown_is_the_one_asked_for_or_the_liveliest(runs: Path) -> None:
    from dnnviz.store import open_run

    run = open_run(runs / "small")
    want, _ = question(run, 5, "conv1", {})
    assert unit_to_show(run, want, 2) == 2
    assert unit_to_show(run, want, None) == unit_to_show(run, want, 99) == run.activations(5, "conv1").var(axis=0).argmax()


@pytest.mark.parametrize(("count", "dims", "kind"), [(30, 2, "scatter"), (4000, 2, "scatter"), (30, 3, "scatter3d")])
def test_the_figure_holds_arrays_and_the_colours_of_the_classes(count: int, dims: int, kind: str) -> None:
    points = np.random.default_rng(0).normal(size=(count, dims)).astype(np.float32)
    labels = np.arange(count) % 12
    names = [f"class {i}" for i in range(12)]
    colouring = figures.by_group(labels, names, "Class")
    made = figures.scatter(points, colouring, ["a", "b", "c"][:dims], "dark", "view").to_dict()
    trace = made["data"][0]
    assert trace["type"] == kind and "bdata" in trace["x"] and "bdata" in trace["marker"]["color"]
    assert ("maxdisplayed" in trace["marker"]) == (count == 4000)
    steps = trace["marker"]["colorscale"]
    assert [colour for _, colour in steps[::2]] == class_colours(12) == [colour for _, colour in colouring.legend["entries"]]
    # The value of a class lies in the middle of its step.
    middle = (3 - trace["marker"]["cmin"]) / (trace["marker"]["cmax"] - trace["marker"]["cmin"])
    assert steps[6][0] < middle < steps[7][0] and steps[6][1] == steps[7][1] == class_colours(4)[3]


def test_quantities_and_right_or_wrong_have_legends() -> None:
    values = np.linspace(0, 2, 5)
    high, low = figures.by_quantity(values, 0, 2, "Activation", "light"), figures.by_quantity(values, 0, 2, "Confidence", "light", red_is_low=True)
    assert high.legend["ramp"] == low.legend["ramp"][::-1] and high.legend["high"] == 2
    assert figures.by_quantity(np.zeros(3), 0, 0, "constant", "dark").high > 0
    right = figures.by_right(np.array([True, False]), "light")
    assert right.values.tolist() == [0, 1] and [name for name, _ in right.legend["entries"]] == ["right", "wrong"]


# -- in the browser --------------------------------------------------------------------------------------------------


def test_it_opens_with_pca_on_a_demo_run(page: Page, live_app: LiveApp) -> None:
    open_page(page, live_app, "run=digits")
    caption = page.inner_text("#embedding-caption")
    assert "Trustworthiness 0." in caption and "inputs" in caption
    found = drawn(page)
    assert found["points"] > 50 and "component 1" in found["title"] and "%" in found["title"]
    assert page.locator("[data-dv-class]").count() == 10


def test_a_click_shows_the_input_and_its_exact_neighbours_and_the_link_reproduces_it(page: Page, small_app: LiveApp, runs: Path) -> None:
    from dnnviz.store import open_run

    open_page(page, small_app, "run=small&epoch=1&layer=conv1")
    page.mouse.move(*place(page, 7))
    page.locator("#embedding-tip").get_by_text("input 7").wait_for()
    assert page.locator("#embedding-tip img").get_attribute("src").endswith("/data/small/thumb/7.png?size=96")
    page.mouse.click(*place(page, 7))
    page.get_by_role("heading", name="Input 7", exact=True).wait_for()
    wait_idle(page)
    assert "show=input:7" in page.url and "epoch=1" in page.url
    expected, distances = nearest(open_run(runs / "small").activations(1, "conv1"), 12)
    cards = page.locator("#embedding-details .dv-thumbs .dv-thumb")
    assert [cards.nth(i).get_attribute("data-dv-show") for i in range(12)] == [f"input:{i}" for i in expected[7]]
    assert float(cards.nth(0).locator(".value").inner_text()) == pytest.approx(distances[7, 0], abs=0.01)
    assert drawn(page)["shapes"] == ["line"] * 12 + ["circle"]
    page.reload()
    page.get_by_role("heading", name="Input 7", exact=True).wait_for()
    page.locator("#embedding-details .dv-thumbs .dv-thumb").first.click()
    page.get_by_role("heading", name=f"Input {expected[7, 0]}", exact=True).wait_for()
    for text, path in [("Explain it", "/attribution"), ("Compare with its class", "/compare"), ("See its activations", "/")]:
        link = page.get_by_role("link", name=text).get_attribute("href")
        assert link.split("?")[0] == path and "run=small" in link and f"show=input%3A{expected[7, 0]}" in link


def test_pca_stands_in_until_the_other_method_is_computed_and_the_result_is_shared(page: Page, new_page: Any, small_app: LiveApp, go: Path) -> None:
    query = "run=small&method=tsne&iterations=2000&perplexity=5"
    page.goto(f"{small_app.url}/embedding?{query}")
    page.get_by_text("t-SNE is being computed; meanwhile PCA.").wait_for()
    page.wait_for_function(f"() => {PLOT}?.data?.[0]?.x?.length === 40")
    # The page is not held up by the job.
    page.get_by_label("Right or wrong", exact=True).check()
    page.locator("#embedding-legend h2").filter(has_text="Prediction").wait_for()
    assert page.get_by_text("t-SNE is being computed; meanwhile PCA.").is_visible()
    go.touch()
    page.wait_for_function("() => document.querySelector('#embedding-caption').innerText.includes('t-SNE')")
    wait_for_jobs(page)
    assert page.inner_text("#embedding-message") == "" and drawn(page)["title"] == ""
    assert page.inner_text("#embedding-parameters") == "Perplexity 5, iterations 2000, exaggeration 1, seed 0"
    other = new_page()
    open_page(other, small_app, query)
    assert drawn(other)["x"] == drawn(page)["x"] and store_data(other, "job-request") is None


def test_a_cancelled_job_leaves_pca_and_a_way_to_ask_again(page: Page, small_app: LiveApp, go: Path) -> None:
    page.goto(f"{small_app.url}/embedding?run=small&method=tsne&iterations=2000&perplexity=4")
    page.get_by_text("t-SNE is being computed; meanwhile PCA.").wait_for()
    page.locator("#job-cancel").click()
    page.get_by_role("heading", name="t-SNE was cancelled").wait_for()
    assert drawn(page)["points"] == 40
    page.get_by_role("button", name="Compute it").click()
    page.get_by_text("t-SNE is being computed; meanwhile PCA.").wait_for()
    go.touch()
    page.wait_for_function("() => document.querySelector('#embedding-caption').innerText.includes('t-SNE')")
    wait_for_jobs(page)


def test_colours_and_classes_change_without_computing_anything(page: Page, small_app: LiveApp) -> None:
    open_page(page, small_app, "run=small")
    before, asked = drawn(page), store_data(page, "job-request")
    assert sum(width > 0 for width in before["widths"]) > 5
    for name, heading in [
        ("Prediction", "Predicted class"),
        ("Right or wrong", "Prediction"),
        ("Confidence", "Confidence"),
        ("A unit…", "Activation of unit"),
    ]:
        page.locator("#embedding-legend").page.get_by_label(name, exact=True).check()
        page.locator("#embedding-legend h2").filter(has_text=heading).first.wait_for()
    wait_idle(page)
    assert "colour=unit" in page.url and drawn(page)["x"] == before["x"] and store_data(page, "job-request") == asked
    page.get_by_label("Unit", exact=True).fill("3")
    page.keyboard.press("Enter")
    page.locator("#embedding-legend h2").filter(has_text="Activation of unit 3").wait_for()
    assert "unit=3" in page.url
    page.get_by_label("Class", exact=True).check()
    # The legend is drawn anew after each step; a click just then would fall between the old entry and the new one.
    wait_idle(page)
    page.locator("[data-dv-class='1']").click()
    page.wait_for_function(f"() => Array.from({PLOT}.data[0].x).filter(Number.isFinite).length === 30")
    wait_idle(page)
    assert "hide=1" in page.url
    page.locator("[data-dv-class='2']").dblclick()
    page.wait_for_function(f"() => Array.from({PLOT}.data[0].x).filter(Number.isFinite).length === 10")
    wait_idle(page)
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function(f"() => Array.from({PLOT}.data[0].x).filter(Number.isFinite).length === 40")
    wait_idle(page)
    assert "hide" not in page.url


def test_the_lasso_gathers_inputs_and_a_class_is_brought_out(page: Page, small_app: LiveApp) -> None:
    open_page(page, small_app, "run=small&outline=false")
    page.get_by_role("button", name="Lasso").click()
    page.wait_for_function(f"() => {PLOT}._fullLayout.dragmode === 'lasso'")
    box = page.locator("#embedding-graph .nsewdrag").bounding_box()
    left, top, right, bottom = box["x"] + 4, box["y"] + 4, box["x"] + box["width"] - 4, box["y"] + box["height"] - 4
    page.mouse.move(left, top)
    page.mouse.down()
    for at in [(right, top), (right, bottom), (left, bottom), (left, top + 8)]:
        page.mouse.move(*at, steps=4)
    page.mouse.up()
    page.get_by_role("heading", name="40 inputs", exact=True).wait_for()
    wait_idle(page)
    assert page.locator("#embedding-details .dv-bars .value").all_inner_texts() == ["10"] * 4
    assert page.locator("#embedding-details .dv-thumbs .dv-thumb").count() == 40
    page.get_by_role("button", name="Clear the selection").click()
    page.get_by_role("heading", name="layer1.0", exact=True).wait_for()
    page.goto(f"{small_app.url}/embedding?run=small&show=class:2")
    page.get_by_role("heading", name="class 2", exact=True).wait_for()
    page.wait_for_function(f"() => Array.from({PLOT}?.data[0]?.marker.opacity ?? []).filter((v) => v > 0.5).length === 10")


def test_epochs_by_slider_and_played(page: Page, small_app: LiveApp) -> None:
    open_page(page, small_app, "run=small&layer=conv1")
    last = drawn(page)["x"]
    page.get_by_role("button", name="▶ Epochs").click()
    for epoch in ("0", "1", "5"):
        page.wait_for_function("epoch => document.querySelector('#epoch-value').innerText === epoch", arg=epoch)
    page.get_by_role("button", name="▶ Epochs").wait_for()
    wait_for_jobs(page)
    assert np.abs(np.abs(drawn(page)["x"]) - np.abs(last)).max() < 1e-4  # PCA is mirrored at most
    page.evaluate("() => window.dash_clientside.set_props('epoch-slider', {value: 0})")
    page.wait_for_function("() => location.search.includes('epoch=0')")
    wait_for_jobs(page)
    assert "epoch 0" in page.evaluate("() => window.dnnviz.picture.compose().then(p => p.svg)")


def test_the_picture_is_saved_with_its_legend_and_caption(page: Page, small_app: LiveApp) -> None:
    open_page(page, small_app, "run=small&hide=0")
    saved = page.evaluate(
        """async () => {
            for (let i = 0; i < 100; i++) {
                const picture = await window.dnnviz.picture.compose().catch(() => null);
                if (picture) return picture;
                await new Promise((resolve) => setTimeout(resolve, 200));
            }
        }"""
    )
    assert saved["width"] > 800 and "small, epoch 5, layer layer1.0" in saved["svg"] and "Trustworthiness" in saved["svg"]
    assert "class 1" in saved["svg"] and "class 0" not in saved["svg"]
    page.get_by_label("Images", exact=True).check(force=True)
    page.wait_for_function(
        "() => { const c = document.getElementById('embedding-canvas');"
        " return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v); }"
    )
    assert "data:image/png" in page.evaluate("() => window.dnnviz.picture.compose().then(p => p.svg)")


def test_many_points_are_painted_on_the_canvas(page: Page, many_app: LiveApp) -> None:
    open_page(page, many_app, "run=many&epoch=0")
    assert drawn(page)["points"] == 1600 and page.locator("#embedding-graph path.point").count() <= 1
    painted = (
        "() => { const c = document.getElementById('embedding-canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
    )
    painted += " let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; }"
    page.wait_for_function(f"() => ({painted})() > 5000")
    everything = page.evaluate(painted)
    page.locator("[data-dv-class='1']").click()
    page.wait_for_function(f"() => ({painted})() < {everything}")
    page.mouse.click(*place(page, 8))
    page.locator("#embedding-details h1").get_by_text("Input ").wait_for()
    assert "data:image/png" in page.evaluate("() => window.dnnviz.picture.compose().then(p => p.svg)")


def test_three_dimensions_mark_what_is_chosen(page: Page, small_app: LiveApp) -> None:
    open_page(page, small_app, "run=small&dims=3&show=input:4")
    page.wait_for_function(f"() => {PLOT}?.layout.scene?.annotations?.length === 1")
    found = drawn(page)
    assert found["type"] == "scatter3d" and found["points"] == 40
    assert not page.get_by_role("button", name="Lasso").is_visible()


def test_what_does_not_exist_gets_a_sentence_and_a_default(page: Page, small_app: LiveApp) -> None:
    open_page(page, small_app, "run=small&epoch=77&layer=nowhere&method=lda&colour=taste&dims=9&n_neighbors=1000&show=input:400")
    alerts = " ".join(page.locator("#alerts .alert").all_inner_texts())
    for part in ("epoch 77", "nowhere", "lda", "taste", "2 or 3 dimensions", "input:400"):
        assert part in alerts
    assert drawn(page)["points"] == 40


def test_too_few_inputs_and_a_silent_layer_get_a_sentence_and_the_page_stays_usable(page: Page, small_app: LiveApp) -> None:
    open_page(page, small_app, "run=three&method=umap")
    page.get_by_text("UMAP needs at least 5 inputs and there are 3; use PCA.").first.wait_for()
    assert drawn(page)["points"] == 3
    page.get_by_label("PCA", exact=True).check(force=True)
    page.wait_for_function("() => document.querySelector('#embedding-message').innerText === ''")
    open_page(page, small_app, "run=silent&layer=conv1")
    page.get_by_text("Layer conv1 at epoch 0: All inputs have the same activations here").first.wait_for()
    assert page.get_by_role("button", name="Try again").is_visible()
    page.locator("#embedding-layer").select_option("fc")
    page.wait_for_function("() => document.querySelector('#embedding-caption').innerText.includes('12 inputs')")
    wait_for_jobs(page)
    assert "layer=fc" in page.url and drawn(page)["points"] == 12


def test_one_split_at_a_time(page: Page, small_app: LiveApp) -> None:
    open_page(page, small_app, "run=small&split=test&show=input:2")
    page.get_by_text("This input is not in the split “test”.").wait_for()
    assert drawn(page)["points"] == 20 and "20 inputs of test" in page.inner_text("#embedding-caption")


def test_captured_networks_of_torchvision_are_shown(page: Page, make_live_app: Callable[..., LiveApp], torch_runs: Path) -> None:
    app = make_live_app([torch_runs])
    for name in ("resnet18", "densenet121"):
        open_page(page, app, f"run={name}&colour=prediction")
        assert drawn(page)["points"] == 12 and "12 inputs" in page.inner_text("#embedding-caption")
