"""The gallery of the attribution page without a browser: its plan and keys, uploads, and the job that computes tiles."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dnnviz
from dnnviz.errors import DNNVizError, RunError
from dnnviz.explain import METHODS, attribute, task
from dnnviz.explain.gallery import Wish, choose_inputs, costs, gallery, map_layers, quick_methods
from dnnviz.explain.plan import MOST_INPUTS, about_tile, obstacle, plan, resolve_target, rows, store_partial
from dnnviz.explain.uploads import MOST_BYTES, fit, load_upload, read_image, store_upload
from dnnviz.models import build
from dnnviz.results import Results
from dnnviz.settings import Settings
from tests.runs import write_run

CLASSES = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with a captured run `colours` of two snapshots (its network can be built again)."""
    runs = tmp_path_factory.mktemp("runs")
    random = np.random.default_rng(0)
    images = np.zeros((15, 16, 16, 3), np.float32)
    for i, image in enumerate(images):
        image[..., i % 3] = 0.8
        image += random.uniform(0, 0.2, image.shape)
    images = np.round(images * 255) / 255
    data = [(torch.from_numpy((image.transpose(2, 0, 1) - 0.5) / 0.25), i % 3) for i, image in enumerate(images)]
    for epoch in (0, 1):
        torch.manual_seed(epoch)
        model = build("dnnviz:small_cnn", num_classes=3, in_channels=3)
        dnnviz.capture(
            model, data, runs / "colours", classes=CLASSES, epoch=epoch, inputs=12, mean=(0.5,) * 3, std=(0.25,) * 3, model_spec="dnnviz:small_cnn"
        )
    return runs


@pytest.fixture
def settings(folder, tmp_path):
    return Settings(runs=(folder,), cache=tmp_path / "cache")


@pytest.fixture
def run(folder):
    return dnnviz.open_run(folder / "colours")


@pytest.fixture
def results(settings):
    return Results(settings.private_cache() / "results")


def request(**given):
    methods = {"saliency": {}, "grad_cam": {}}
    return {"run": "colours", "epoch": 1, "inputs": ["0", "4"], "methods": methods, "targets": ["predicted"], "layer": None, **given}


def quiet(done, total, text=""):
    pass


# -- plan ------------------------------------------------------------------------------------------------------------


def test_a_key_depends_on_everything_that_changes_the_map_and_on_nothing_else(run):
    def key(epoch=1, source="0", method="grad_cam", parameters=None, target="class:1", layer=None):
        return plan(run, epoch, [source], {method: parameters or {}}, [target], layer)[0].key

    layer = map_layers(run)[0]
    different = [
        key(),
        key(epoch=0),
        key(source="1"),
        key(method="saliency"),
        key(target="class:2"),
        key(layer=layer),
        key(method="integrated_gradients"),
        key(method="integrated_gradients", parameters={"steps": 20}),
    ]
    assert len(set(different)) == len(different)
    assert key() == key()
    assert key(method="saliency", layer=layer) == key(method="saliency")
    assert key(method="integrated_gradients", parameters={"steps": "50"}) == key(method="integrated_gradients", parameters={"steps": 50})
    predicted = int(run.logits(1)[0].argmax())
    assert key(target="predicted") == key(target=f"class:{predicted}")


def test_targets_have_their_classes_by_number(run):
    logits = run.logits(1)[4]
    best, second = np.argsort(-logits, kind="stable")[:2]
    layer = map_layers(run)[0]
    upload = "upload-" + "0" * 40
    found = {
        "true": f"class:{run.labels[4]}",
        "predicted": f"class:{best}",
        "class:2": "class:2",
        "predicted-second": f"class:{best}-class:{second}",
        f"class:{second}-second": f"class:{second}-class:{best}",
        "true-class:2": f"class:{run.labels[4]}-class:2",
        f"unit:{layer}:1": f"unit:{layer}:1",
        f"layer:{layer}": f"layer:{layer}",
        f"direction:{layer}:2": f"direction:{layer}:2",
    }
    assert {text: resolve_target(run, 1, "4", text) for text in found} == found
    assert resolve_target(run, 1, upload, "true") == "predicted", "an image of one's own has no true class"
    assert resolve_target(run, 1, upload, "predicted-class:1") == "predicted-class:1"
    for wrong, sentence in {
        "class:3": "this run has classes 0 to 2",
        "class:0-class:3": "this run has classes 0 to 2",
        "class:x": "write predicted",
        "best": "write predicted",
        "": "write predicted",
        f"unit:{layer}:9999": f"{layer} has units 0 to",
        "unit:nowhere:1": "no layer 'nowhere'",
        f"direction:{layer}:3": "this run has classes 0 to 2",
    }.items():
        with pytest.raises(DNNVizError, match=sentence):
            resolve_target(run, 1, "4", wrong)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"inputs": ["99"]}, "keeps inputs 0 to 11"),
        ({"inputs": ["-1"]}, "keeps inputs 0 to 11"),
        ({"inputs": ["../x"]}, "keeps inputs 0 to 11"),
        ({"inputs": [str(i % 12) for i in range(MOST_INPUTS + 1)]}, "up to 24 inputs"),
        ({"inputs": "0"}, "incomplete"),
        ({"epoch": 7}, "no snapshot of epoch 7"),
        ({"epoch": "1"}, "incomplete"),
        ({"methods": {"tea_leaves": {}}}, "no attribution method 'tea_leaves'"),
        ({"methods": {"occlusion": {"window": "big"}}}, "window is 'big'"),
        ({"layer": "layer9"}, "no layer 'layer9'"),
        ({"run": "nothing"}, "no run called 'nothing'"),
        ({"run": "../colours"}, "no run called"),
        ({"inputs": ["upload-" + "0" * 40]}, None),
    ],
)
def test_what_comes_from_the_browser_is_checked(settings, given, sentence):
    if sentence is None:
        keys = task.run(settings, request(**given), quiet)
        results = Results(settings.private_cache() / "results")
        assert "upload it again" in about_tile(results, keys[0])["error"]
        return
    with pytest.raises(DNNVizError, match=sentence):
        task.run(settings, request(**given), quiet)


def test_what_stands_in_the_way_of_a_network_is_said(run, tmp_path):
    assert obstacle(run, 1, ()) is None
    unknown = write_run(tmp_path / "unknown")
    assert "model_spec='torchvision:NAME'" in obstacle(unknown, 5, ())
    unknown.manifest["model"]["spec"] = "dnnviz:small_cnn"
    assert "save_weights=True" in obstacle(unknown, 5, ())
    run.manifest["model"]["spec"] = "elsewhere.models:net"
    assert "DNNVIZ_ALLOW=elsewhere" in obstacle(run, 1, ())
    assert obstacle(run, 1, ("elsewhere",)) is None


# -- the job ---------------------------------------------------------------------------------------------------------


def test_the_job_computes_each_tile_once_and_cheap_methods_first(settings, run, results):
    reports = []
    asked = request(methods={"occlusion": {"window": 8, "stride": 8}, "saliency": {}, "grad_cam": {}})
    keys = task.run(settings, asked, lambda done, total, text: reports.append((done, total, text)))
    assert len(keys) == len(set(keys)) == 6 and all(key in results for key in keys)
    assert reports[0][:2] == (0, 6) and reports[-1][:2] == (6, 6)
    titles = list(dict.fromkeys(text for _, _, text in reports[1:]))
    assert titles.index("Occlusion") == len(titles) - 1
    tiles = plan(run, 1, asked["inputs"], asked["methods"])
    assert [tile.key for tile in tiles] == keys
    model = run.load_model(1)
    for tile in tiles:
        about, arrays = about_tile(results, tile.key), results.get(tile.key)
        expected = attribute(model, run.network_inputs([int(tile.source)]), tile.method, **tile.parameters)
        np.testing.assert_allclose(arrays["heatmap"], expected.heatmap[0], atol=1e-6)
        assert arrays["heatmap"].dtype == np.float32 and arrays["heatmap"].shape == (16, 16)
        assert about["target"] == f"class:{expected.targets[0]}" == f"class:{run.logits(1)[int(tile.source)].argmax()}"
        assert about["note"]["text"] == expected.notes[0].text and len(about["top"]) == 3 and about["seconds"] > 0
    files = [results.path(key).stat().st_ino for key in keys]
    again = []
    assert task.run(settings, asked, lambda *report: again.append(report)) == keys
    assert [results.path(key).stat().st_ino for key in keys] == files and not again
    more = []
    task.run(settings, {**asked, "inputs": ["0", "4", "5"]}, lambda *report: more.append(report))
    assert more[0][:2] == (6, 9)


def test_what_is_known_of_a_tile_is_read_once_each_time_it_is_written(run, results, monkeypatch):
    [tile] = plan(run, 1, ["0"], {"saliency": {}})
    assert about_tile(results, tile.key) is None
    store_partial(results, tile, np.zeros((16, 16)), 0.25)
    assert about_tile(results, tile.key) == {"partial": 0.25}
    store_partial(results, tile, np.zeros((16, 16)), 0.75)
    assert about_tile(results, tile.key) == {"partial": 0.75}
    reads = []
    monkeypatch.setattr(Results, "peek", lambda self, *what: reads.append(what))
    assert about_tile(results, tile.key) == {"partial": 0.75} and not reads
    monkeypatch.undo()
    results.path(tile.key).unlink()
    assert about_tile(results, tile.key) is None


def test_an_input_has_no_two_rows_alike_and_no_class_against_itself(run, settings, results):
    best, second = (f"class:{i}" for i in np.argsort(-run.logits(1)[0], kind="stable")[:2])
    assert rows(run, 1, ["0", "0"], ["predicted", best, "predicted-second", f"{best}-{best}"]) == [("0", best), ("0", f"{best}-{second}")]
    with pytest.raises(DNNVizError, match="up to 8 targets"):
        rows(run, 1, ["0"], ["class:0"] * 9)
    found = gallery(run, wish(targets=("predicted", second, best)), results, ())
    first = [row["explained"] for row in found["rows"] if row["source"] == found["rows"][0]["source"]]
    assert len(first) == len({name for name, _, _ in first}) and all(plain for _, _, plain in first)
    task.run(settings, found["request"], quiet)
    filled = gallery(run, wish(targets=("predicted", second, best)), results, ())
    assert filled["missing"] == 0 and len(filled["tiles"]) == len(found["rows"])
    assert [row[0]["about"]["target"] for row in filled["tiles"]] == [row["explained"][0] for row in found["rows"]]


def test_what_methods_cost_is_known_once_the_network_was_timed(run, settings, results):
    methods = {"saliency": {}, "integrated_gradients": {"steps": "9999"}, "occlusion": {"stride": "4", "window": "8"}}
    before = costs(run, 1, methods, results)
    assert set(before) == {"saliency", "occlusion"}, "one whose settings make no sense has no cost"
    assert before["saliency"] == {"passes": 1, "seconds": None}
    task.run(settings, request(), quiet)
    after = costs(run, 1, methods, results)
    assert 0 < after["saliency"]["seconds"] < after["occlusion"]["seconds"]
    left = gallery(run, wish(methods={"occlusion": {"stride": "4", "window": "8"}}), results, ())
    assert left["work"]["seconds"] == pytest.approx(3 * after["occlusion"]["seconds"])


def test_what_methods_cost_follows_the_time_that_they_took(run, settings, results):
    task.run(settings, request(), quiet)
    wanted = {"rise": {"masks": 300}}
    keys = task.run(settings, request(methods=wanted), quiet)
    taken = [pytest.approx(about_tile(results, key)["seconds"]) for key in keys]
    assert costs(run, 1, wanted, results)["rise"]["seconds"] in taken


def test_a_method_that_fails_leaves_its_sentence_and_the_others_go_on(settings, run, results):
    linear = next(layer.name for layer in run.layers if layer.kind == "linear")
    keys = task.run(settings, request(layer=linear), quiet)
    found = [about_tile(results, key) for key in keys]
    assert "no map over the image" in found[1]["error"] and "no map over the image" in found[3]["error"]
    assert "note" in found[0] and "note" in found[2]


def test_a_method_that_breaks_leaves_a_sentence_too(settings, results, monkeypatch):
    def broken(question):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setitem(METHODS, "saliency", METHODS["saliency"].__class__(**{**vars(METHODS["saliency"]), "compute": lambda q, **p: broken(q)}))
    keys = task.run(settings, request(), quiet)
    assert about_tile(results, keys[0])["error"] == "Saliency failed on this network (ZeroDivisionError: by nothing)."
    assert "note" in about_tile(results, keys[1])
    monkeypatch.undo()
    task.run(settings, request(), quiet)
    assert "note" in about_tile(results, keys[0]), "what failed is tried again"


def test_a_network_that_cannot_be_built_ends_the_job_with_a_sentence(tmp_path):
    write_run(tmp_path / "runs" / "unknown")
    settings = Settings(runs=(tmp_path / "runs",), cache=tmp_path / "cache")
    with pytest.raises(RunError, match="model_spec"):
        task.run(settings, request(run="unknown", epoch=5), quiet)


# -- the gallery -----------------------------------------------------------------------------------------------------


def wish(**given):
    return Wish(
        **{
            "run_id": "colours",
            "epoch": 1,
            "by": "class",
            "show": "data",
            "sources": (),
            "count": 3,
            "methods": {"saliency": {}, "grad_cam": {}},
            "targets": ("predicted",),
            **given,
        }
    )


def test_inputs_are_chosen_by_class_by_mistake_by_doubt_and_by_hand(run):
    assert [run.labels[int(i)] for i in choose_inputs(run, 1, "class", "data", (), 3)] == [0, 1, 2]
    assert len(choose_inputs(run, 1, "class", "data", (), 8)) == 8
    assert {run.labels[int(i)] for i in choose_inputs(run, 1, "class", "class:1", (), 3)} == {1}
    logits = run.logits(1)
    wrong = choose_inputs(run, 1, "wrong", "data", (), 12)
    assert sorted(map(int, wrong)) == np.flatnonzero(logits.argmax(1) != run.labels).tolist()
    unsure = choose_inputs(run, 1, "unsure", "data", (), 12)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.all(np.diff(shares.max(1)[[int(i) for i in unsure]]) >= 0)
    upload = "upload-" + "0" * 40
    assert choose_inputs(run, 1, "chosen", "data", ("7", "x", "7", upload, "99", "2"), 1) == ["7", upload, "2"]


def test_the_gallery_is_json_and_fills_as_the_job_goes(run, settings, results):
    found = gallery(run, wish(), results, ())
    json.dumps(found)
    assert (len(found["rows"]), len(found["columns"]), found["missing"], found["failed"], found["problem"]) == (3, 2, 6, 0, None)
    assert found["work"] == {"evaluations": 6, "pixels": 6 * 256, "seconds": None}
    row = found["rows"][0]
    assert row["truth"] == "red" and row["picture"] == f"colours/image/{row['source']}.png" and len(row["top"]) == 3
    assert row["explained"] == [row["top"][0][0], row["top"][0][1], True] and row["top"][0][2]
    task.run(settings, found["request"], quiet)
    filled = gallery(run, wish(), results, ())
    assert filled["missing"] == 0 and filled["request"] == found["request"]
    about = filled["tiles"][0][1]["about"]
    assert about["layer"] and about["target"] == row["explained"][0] and about["note"]["state"] in ("good", "degenerate")
    # The same class asked for by its number is the same tile.
    named = gallery(run, wish(targets=(f"class:{CLASSES.index(row['explained'][0])}",)), results, ())
    assert named["tiles"][0][0]["about"] == filled["tiles"][0][0]["about"]


def test_a_gallery_that_cannot_be_says_why(run, results, tmp_path):
    assert "Occlusion: stride" in gallery(run, wish(methods={"occlusion": {"stride": "9999"}}), results, ())["problem"]
    assert gallery(run, wish(methods={}), results, ())["columns"] == []
    unknown = write_run(tmp_path / "unknown")
    found = gallery(unknown, wish(epoch=5), results, ())
    assert "model_spec" in found["problem"] and found["rows"] and found["missing"] == 6


def test_quick_methods_are_those_that_answer_at_once(run):
    assert quick_methods(run) == list(METHODS)
    run.manifest["preprocessing"]["size"] = [3, 224, 224]
    assert {"saliency", "grad_cam", "guided_backprop"} <= set(quick_methods(run)) and "occlusion" not in quick_methods(run)


# -- uploads ---------------------------------------------------------------------------------------------------------


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_an_upload_is_kept_as_the_network_sees_it_and_explained(run, settings, results):
    picture = Image.new("RGB", (80, 40), (200, 30, 30))
    key = store_upload(results, run, "mine.png", encoded(picture))
    assert key == store_upload(results, run, "other name.png", encoded(picture))
    assert load_upload(results, key).shape == (16, 16, 3)
    keys = task.run(settings, request(inputs=[key], targets=["true"]), quiet)
    about = about_tile(results, keys[0])
    with torch.no_grad():
        logits = run.load_model(1)(torch.from_numpy(run.normalise(load_upload(results, key)[None])))
    assert about["target"] == f"class:{int(logits.argmax())}" and about["probability"] == pytest.approx(float(logits.softmax(1).max()), abs=1e-5)
    row = gallery(run, wish(by="chosen", sources=(key,)), results, ())["rows"][0]
    assert row["truth"] is None and row["picture"] == f"result/{key}/image.png" and row["explained"][0] == CLASSES[int(logits.argmax())]


KINDS = {"PNG": ("RGB", "L", "1", "P", "RGBA", "LA"), "JPEG": ("L", "CMYK"), "WEBP": ("RGB",), "BMP": ("RGB",), "GIF": ("P",), "TIFF": ("RGBA",)}


@pytest.mark.parametrize(("mode", "kind"), [(mode, kind) for kind, modes in KINDS.items() for mode in modes])
def test_every_kind_of_image_is_read(mode, kind):
    image = Image.new("RGB", (30, 20), (250, 250, 250)).convert(mode)
    found = read_image("image", encoded(image, kind))
    assert found.mode in ("L", "RGB") and found.size == (30, 20)
    assert np.asarray(found.convert("L")).mean() > 240


def test_sixteen_bits_are_scaled_and_floats_stretched():
    deep = Image.fromarray(np.full((4, 4), 65535 // 2, np.uint16))
    assert set(np.asarray(read_image("deep", encoded(deep))).ravel().tolist()) <= {127, 128}
    ramp = Image.fromarray(np.linspace(-1, 3, 16, dtype=np.float32).reshape(4, 4))
    found = np.asarray(read_image("ramp", encoded(ramp, "TIFF")))
    assert found.min() == 0 and found.max() == 255


def test_transparency_becomes_white_and_exif_turns_upright():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert np.asarray(read_image("clear", encoded(clear))).min() == 255
    sideways = Image.new("RGB", (40, 20))
    exif = sideways.getexif()
    exif[0x0112] = 6
    assert read_image("sideways", encoded(sideways, "JPEG", exif=exif)).size == (20, 40)


def test_images_cover_the_inputs_size():
    assert fit(Image.new("RGB", (300, 20)), (3, 32, 48)).shape == (32, 48, 3)
    assert fit(Image.new("RGB", (1, 1)), (1, 8, 8)).shape == (8, 8, 1)


def test_what_is_no_image_gets_a_sentence(run, results):
    good = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    cases = {
        b"": "no image that can be read",
        b"%PDF-1.4 not an image": "no image that can be read",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": "no image that can be read",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n": "no image that can be read",
        good[: len(good) // 2]: "is damaged",
        bytes(MOST_BYTES + 1): "up to 32 MB",
        encoded(Image.new("1", (20000, 20000))): "million pixels",
    }
    for content, sentence in cases.items():
        with pytest.raises(DNNVizError, match=sentence) as error:
            store_upload(results, run, "file name", content)
        assert "file name" in str(error.value) and "\n" not in str(error.value)
    for wrong in ("upload-x", "upload-../../etc/passwd", "upload-" + "0" * 40):
        with pytest.raises(DNNVizError, match="upload it again"):
            load_upload(results, wrong)


def test_the_gallery_needs_no_torch(folder):
    code = (
        "import sys; from dnnviz.explain.gallery import *; from dnnviz.explain.uploads import *; from dnnviz.results import Results\n"
        "from dnnviz.store import open_run; from pathlib import Path\n"
        f"run = open_run({str(folder / 'colours')!r})\n"
        "wish = Wish('colours', 1, 'class', 'data', (), 4, {name: {} for name in METHODS})\n"
        "found = gallery(run, wish, Results(Path('nowhere')), ())\n"
        "assert found['missing'] == 4 * len(METHODS), found\n"
        "assert not {'torch', 'captum', 'dash', 'plotly'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
