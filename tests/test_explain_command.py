"""`dnnviz explain`, the painting of tiles (the same in Python and in the browser) and the sheet of a gallery."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

import dnnviz
from dnnviz.cli import main
from dnnviz.drawing import as_image, as_svg
from dnnviz.errors import DNNVizError
from dnnviz.explain import sheet
from dnnviz.explain.picture import AGAINST, FOR, Look, paint, strongest
from dnnviz.explain.plan import plan, target_name
from dnnviz.results import Results
from dnnviz.settings import DEMO_RUNS
from tests.conftest import wait_for_jobs

DIGITS = DEMO_RUNS / "digits"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("DNNVIZ_CACHE", str(tmp_path / "cache"))


def explain(capsys, *arguments, run=DIGITS):
    """Exit code, output and errors of the command."""
    code = main(["explain", str(run), *(str(a) for a in arguments)])
    return code, *capsys.readouterr()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- painting --------------------------------------------------------------------------------------------------------


def test_unsigned_maps_take_the_colours_of_their_table_over_the_grey_picture():
    pixels = np.array([[[200, 100, 50], [0, 0, 0], [255, 255, 255]]], np.uint8)
    heatmap = np.array([[0.0, 1.0, 4.0]], np.float32)
    painted = paint(pixels, heatmap, False, Look(overlay=50, colours="grey", clip=100))
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    alphas = 0.5 * (0.4 + 0.6 * np.sqrt([0, 0.25, 1]))
    expected = [grey + (0 - grey) * alphas[0], (64 - 0) * alphas[1], 255]
    np.testing.assert_array_equal(painted[0], np.round(expected)[:, None].repeat(3, 1))


def test_signed_maps_are_red_and_blue_over_a_paler_picture():
    pixels = np.full((1, 3, 3), 18, np.uint8)
    heatmap = np.array([[2.0, -1.0, 0.0]], np.float32)
    painted = paint(pixels, heatmap, True, Look(overlay=100, clip=100)).astype(float)
    grey = 18 + (118 - 18) * 0.4
    np.testing.assert_array_equal(painted[0, 0], FOR)
    np.testing.assert_allclose(painted[0, 1], grey + (np.array(AGAINST) - grey) * 0.5**0.6, atol=0.5)
    np.testing.assert_array_equal(painted[0, 2], [grey] * 3)
    positive = paint(pixels, heatmap, True, Look(overlay=100, colours="grey", sign="positive", clip=100))
    assert (positive[0, 1] == positive[0, 2]).all(), "what speaks against it counts for nothing"


def test_the_strongest_colour_stands_at_a_percentile_or_at_the_largest_value():
    values = np.arange(100, dtype=np.float32).reshape(10, 10)
    assert strongest(values, Look(clip=95)) == 95
    assert strongest(-values, Look(clip=100)) == 99
    assert strongest(-values, Look(clip=95, sign="positive")) == 0
    one = np.zeros((10, 10), np.float32)
    one[0, 0] = 3
    assert strongest(one, Look(clip=95)) == 3
    flat = paint(np.full((10, 10, 3), 77, np.uint8), np.zeros((10, 10), np.float32), False, Look())
    assert (flat == 77).all(), "a map of zeros paints nothing"


@pytest.mark.parametrize("wrong", [{"overlay": 101}, {"colours": "rainbow"}, {"sign": "both"}, {"clip": 0}])
def test_a_look_that_does_not_exist_is_a_sentence(wrong):
    with pytest.raises(DNNVizError, match=next(iter(wrong))):
        Look(**wrong)


@pytest.mark.parametrize(
    ("address", "look"),
    [
        ("", Look()),
        ("&overlay=60&colours=viridis&sign=absolute&clip=95", Look(60, "viridis", "absolute", 95)),
        ("&colours=red&sign=positive&clip=100", Look(85, "red", "positive", 100)),
    ],
)
def test_the_browser_paints_the_same_pixels(page, live_app, address, look):
    methods = ("saliency", "deeplift")
    page.goto(f"{live_app.url}/attribution?run=shapes&by=chosen&inputs=3&methods={','.join(methods)}{address}")
    wait_for_jobs(page)
    page.wait_for_function(
        """() => {
            const drawn = [...document.querySelectorAll(".dv-tile:not(.waiting):not(.absent) canvas")];
            const painted = (canvas) => canvas.getContext("2d").getImageData(0, 0, 1, 1).data[3] === 255;
            return drawn.length === 2 && drawn.every(painted);
        }"""
    )
    run = dnnviz.open_run(DEMO_RUNS / "shapes")
    results = Results(live_app.settings.private_cache() / "results")
    order = page.locator(".dv-tile").evaluate_all("tiles => tiles.map((tile) => tile.getAttribute('aria-label'))")
    drawn = page.locator(".dv-tile canvas").evaluate_all(
        "list => list.map((c) => [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]])"
    )
    for tile in plan(run, run.epochs[-1], ["3"], {name: {} for name in methods}):
        title = {"saliency": "Saliency", "deeplift": "DeepLIFT"}[tile.method]
        height, width, data = drawn[next(i for i, label in enumerate(order) if label.startswith(title))]
        seen = np.array(data).reshape(height, width, 4)
        painted = paint(run.images([3])[0], results.get(tile.key)["heatmap"], tile.method != "saliency", look)
        assert (seen[..., 3] == 255).all()
        assert np.abs(seen[..., :3] - painted.astype(int)).max() <= 2, tile.method
        assert painted.std() > 10


# -- the command -----------------------------------------------------------------------------------------------------


def test_it_writes_what_the_page_shows(tmp_path, capsys):
    out = tmp_path / "new" / "out"
    code, said, _ = explain(
        *(capsys, "--inputs", "0,3", "--methods", "saliency,integrated_gradients:steps=8", "--target", "true", "--target", "class:2-class:5"),
        *("--epoch", 10, "--out", out, "--scale", 2),
    )
    assert code == 0
    assert "4 × 2 tiles (8 maps)" in said
    run = dnnviz.open_run(DIGITS)
    found = json.loads((out / "attributions.json").read_text(encoding="utf-8"))
    assert set(found["files"]) == set(content(out))
    assert (found["run"], found["epoch"], len(found["tiles"])) == ("digits", 10, 8)
    first, second = found["tiles"][0], found["tiles"][3]
    assert first["file"] == f"01-input-0-class-{run.labels[0]}-saliency.png"
    assert first["target"] == f"class:{run.labels[0]}"
    assert second["target"] == "class:2-class:5"
    assert second["target_name"] == "2 − 5"
    assert second["parameters"]["steps"] == 8
    assert second["note"]["text"].startswith("gap")
    rows = list(csv.DictReader((out / "attributions.csv").open(encoding="utf-8")))
    assert [row["file"] for row in rows] == [tile["file"] for tile in found["tiles"]]
    assert float(rows[3]["trust_value"]) == second["note"]["value"]

    with np.load(out / "maps.npz", allow_pickle=False) as maps:
        arrays = dict(maps)
    assert arrays["targets"].tolist() == [tile["target"] for tile in found["tiles"][::2]]
    assert arrays["labels"].tolist() == run.labels[[0, 0, 3, 3]].tolist()
    assert json.loads(str(arrays["about"]))["tiles"] == found["tiles"]
    targets = arrays["targets"].tolist()
    own = dnnviz.explain.attribute(
        run.load_model(10), np.repeat(np.concatenate([run.network_inputs(i) for i in (0, 3)]), 2, axis=0), "integrated_gradients", targets, steps=8
    )
    np.testing.assert_allclose(arrays["integrated_gradients.values"], own.values, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(arrays["integrated_gradients.heatmap"], own.heatmap, rtol=1e-3, atol=1e-5)

    picture = np.asarray(Image.open(out / second["file"]))
    assert picture.shape == (512, 512, 3)
    painted = paint(run.images([0])[0], arrays["integrated_gradients.heatmap"][1], True, Look())
    np.testing.assert_array_equal(picture[16::32, 16::32], painted)

    tree = ElementTree.parse(out / "gallery.svg").getroot()
    assert len(tree.findall(f"{SVG}image")) == 2 + 8, "an input explained for two targets is shown once"
    assert len(tree.findall(f"{SVG}circle")) == 8
    texts = [text.text for text in tree.findall(f"{SVG}text")]
    assert "Saliency" in texts
    assert f"Input 0, true: {run.classes[run.labels[0]]}" in texts
    assert "digits, epoch 10. What the score of the true class, “2 − 5” depends on" in " ".join(texts)
    gallery = Image.open(out / "gallery.png")
    assert gallery.size == (round(2 * float(tree.get("width"))), round(2 * float(tree.get("height"))))
    assert len(gallery.getcolors(2**20)) > 100


def test_a_method_that_is_not_defined_leaves_its_sentence_and_the_others_go_on(tmp_path, capsys):
    code, said, _ = explain(capsys, "--inputs", "0", "--methods", "attention_rollout,saliency", "--out", tmp_path / "out")
    assert code == 0
    assert "left out: Attention rollout" in said
    tiles = json.loads((tmp_path / "out" / "attributions.json").read_text(encoding="utf-8"))["tiles"]
    assert [bool(tile["error"]) for tile in tiles] == [True, False]
    assert tiles[0]["file"] is None
    texts = [text.text or "" for text in ElementTree.parse(tmp_path / "out" / "gallery.svg").getroot().findall(f"{SVG}text")]
    assert any("Attention rollout follows" in text for text in texts)
    code, _, err = explain(capsys, "--inputs", "0", "--methods", "attention_rollout", "--out", tmp_path / "other")
    assert code == 2
    assert "No map could be made" in err
    assert not (tmp_path / "other").exists()


def test_targets_in_several_layers_and_images_of_ones_own(tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 4), dtype=np.uint8)).save(tmp_path / "my, picture.png")
    layers = [layer.name for layer in dnnviz.open_run(DIGITS).layers]
    code, said, _ = explain(
        *(capsys, "--inputs", tmp_path / "my, picture.png", "5", "--methods", "grad_cam"),
        *("--target", "predicted", "--target", f"unit:{layers[0]}:2", "--target", f"direction:{layers[3]}:1", "--out", tmp_path / "out"),
    )
    assert code == 0, said
    found = json.loads((tmp_path / "out" / "attributions.json").read_text(encoding="utf-8"))
    assert [tile["input"] for tile in found["tiles"]] == ["my, picture.png"] * 3 + ["Input 5"] * 3
    assert found["tiles"][1]["target_name"] == target_name(dnnviz.open_run(DIGITS), f"unit:{layers[0]}:2")
    assert (tmp_path / "out" / "01-my-picture-png-predicted-grad_cam.png").is_file()
    with np.load(tmp_path / "out" / "maps.npz", allow_pickle=False) as maps:
        assert maps["labels"][0] == -1
        assert maps["grad_cam.heatmap"].shape == (6, 16, 16)
        shapes = {maps[name].shape for name in maps.files if name.startswith("grad_cam.values")}
    assert len(shapes) > 1, "an earlier layer has larger maps"


def test_nothing_on_disk_is_lost(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    common = ("--methods", "saliency", "--out", out)
    code, _, err = explain(capsys, "--inputs", "0,1", *common)
    assert code == 2
    assert "holds files already" in err
    assert set(content(out)) == {"notes.txt"}
    assert explain(capsys, "--inputs", "0,1", *common, "--overwrite")[0] == 0
    before = content(out)
    assert sum(name.endswith("saliency.png") for name in before) == 2
    # What fails leaves everything as it was; what goes well takes the place of the earlier gallery and of nothing else.
    assert explain(capsys, "--inputs", "0", "--methods", "attention_rollout", "--out", out, "--overwrite")[0] == 2
    assert content(out) == before
    assert explain(capsys, "--inputs", "7", *common, "--overwrite")[0] == 0
    after = content(out)
    assert after["notes.txt"] == b"mine"
    assert sum(name.endswith("saliency.png") for name in after) == 1
    code, _, err = explain(capsys, "--inputs", "0", "--methods", "saliency", "--out", out / "notes.txt")
    assert code == 2
    assert "is a file" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--inputs", "999"), "keeps inputs 0 to 239"),
        (("--inputs", "cat"), "is no file that can be read"),
        (("--inputs", "class:12"), "classes 0 to 9"),
        (("--inputs", "all", "--limit", "25"), "up to 24 inputs"),
        (("--inputs", "0", "--methods", "magic"), "no attribution method 'magic'"),
        (("--inputs", "0", "--methods", "saliency:steps=3"), "no parameter 'steps'"),
        (("--inputs", "0", "--methods", "integrated_gradients:steps"), "write parameters as"),
        (("--inputs", "0", "--methods", "integrated_gradients:steps=0"), "steps is '0'"),
        (("--inputs", "0", "--target", "class:10"), "classes 0 to 9"),
        (("--inputs", "0", "--target", "cat"), "write predicted, class:3"),
        (("--inputs", "0", "--layer", "nowhere"), "nowhere"),
        (("--inputs", "0", "--epoch", "7"), "7"),
        (("--inputs", "0", "--colours", "rainbow"), "inferno, viridis, red, grey"),
        (("--inputs", "0", "--scale", "99"), "--scale is 99"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(tmp_path, capsys, arguments, words):
    code, _, err = explain(capsys, *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_broken_image_and_a_run_that_is_none(tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code, _, err = explain(capsys, "--inputs", tmp_path / "broken.png", "--out", tmp_path / "out")
    assert code == 2
    assert "no image that can be read" in err
    code, _, err = explain(capsys, "--inputs", "0", "--out", tmp_path / "out", run=tmp_path)
    assert code == 2
    assert "run" in err


def test_groups_of_inputs_and_of_methods(tmp_path, capsys):
    code, _, _ = explain(
        *(capsys, "--inputs", "wrong,unsure", "class:3", "--limit", "2", "--methods", "quick,saliency:absolute=false", "--out", tmp_path / "out"),
        *("--layer", "features.conv2"),
    )
    assert code == 0
    run = dnnviz.open_run(DIGITS)
    found = json.loads((tmp_path / "out" / "attributions.json").read_text(encoding="utf-8"))["tiles"]
    sources = list(dict.fromkeys(int(tile["source"]) for tile in found))
    assert {int(i) for i in np.flatnonzero(run.labels == 3)[:2]} <= set(sources)
    assert run.logits(run.epochs[-1])[sources[0]].argmax() != run.labels[sources[0]]
    assert {tile["parameters"]["absolute"] for tile in found if tile["method"] == "saliency"} == {False}
    assert {tile["layer"] for tile in found if tile["method"] == "grad_cam"} == {"features.conv2"}


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        main(["explain", "--help"])
    assert end.value.code == 0
    assert "example: dnnviz explain" in capsys.readouterr().out


# -- the sheet -------------------------------------------------------------------------------------------------------


def test_text_that_does_not_fit_is_cut_and_markup_is_escaped():
    about = {"note": {"state": "degenerate", "text": "a very long note about <this> & that, longer than a tile is broad", "why": "", "value": None}}
    row = {"source": "0", "name": "Input 0", "truth": "a <b>", "top": [["w" * 80, 0.5, False, 1]], "explained": ["x & y", None, False], "target": "t"}
    gallery = {"size": (20, 40), "columns": [{"title": "M" * 60}], "rows": [row], "tiles": [[{"about": about}]]}
    pixels = np.zeros((20, 40, 3), np.uint8)
    made = sheet.compose(gallery, [pixels], [[pixels]], "A caption. " * 30)
    tree = ElementTree.fromstring(as_svg(made))
    texts = [text.text for text in tree.findall(f"{SVG}text")]
    assert "Input 0, true: a <b>" in texts
    assert "x & y" in texts
    assert sum(text.endswith("…") for text in texts) == 3, "title, class and note"
    assert tree.find(f"{SVG}circle").get("fill") == "none", "a degenerate map has a hollow mark"
    assert as_image(made, 1000).size[0] <= 16_000
