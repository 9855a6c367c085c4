"""How far to believe a map: the measures against Captum, closed forms and references, and the job that makes them."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dnnviz
from dnnviz.errors import DNNVizError, RunError
from dnnviz.explain import attribute, attribute_all
from dnnviz.explain.baselines import blurred
from dnnviz.explain.targets import LayerTarget
from dnnviz.explain.trust import keys, task
from dnnviz.explain.trust.curves import deletion_insertion, random_map
from dnnviz.explain.trust.perturbation import infidelity, noise, sensitivity, squares
from dnnviz.explain.trust.randomisation import cascade, likeness, spearman, stages, verdict
from dnnviz.explain.trust.ranking import ranking
from dnnviz.explain.trust.scoring import Scorer
from dnnviz.jobs import TASKS
from dnnviz.models import build, import_torchvision
from dnnviz.results import Results
from dnnviz.settings import Settings
from tests import trained

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def picture(shared_data):
    return trained.cifar(shared_data, 2)[1]


# -- infidelity and sensitivity --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["noise", "squares"])
@pytest.mark.parametrize("method", ["saliency", "grad_cam"])
def test_infidelity_is_captums(resnet20, picture, kind, method):
    from captum.metrics import infidelity as reference

    scorer = Scorer(resnet20, picture, "class:3", mean=trained.MEAN, std=trained.STD)
    found = attribute(resnet20, picture, method, 3, **({"absolute": False} if method == "saliency" else {}))
    values = torch.as_tensor(found.values[0] if method == "saliency" else np.repeat(found.heatmap, 3, axis=0) / 3)
    if kind == "noise":
        perturbations = noise(scorer, 20, 0.05, "gaussian", seed=3)
        changed = picture - perturbations
    else:
        perturbations = squares((32, 32), 20, seed=3).expand(-1, 3, -1, -1).float()
        changed = picture * (1 - perturbations)
    ours = infidelity(scorer, values, perturbations, changed)
    for normalize, value in ((False, ours.plain), (True, ours.normalised)):
        wanted = reference(
            resnet20, lambda _: (perturbations, changed), picture[None], values[None], target=3, n_perturb_samples=20, normalize=normalize
        )
        assert value == pytest.approx(float(wanted), rel=1e-4)
    with torch.no_grad():
        falls = resnet20(picture[None])[:, 3] - resnet20(changed)[:, 3]
    assert ours.share == pytest.approx(ours.normalised / float(falls.square().mean()), rel=1e-4) and 0 < ours.share < 1


def test_a_map_that_foretells_everything_has_no_infidelity():
    torch.manual_seed(0)
    model, input = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.randn(3, 4, 4)
    scorer = Scorer(model, input, 1)
    added = noise(scorer, 12, 0.1, "gaussian")
    gradient = model[1].weight[1].detach().view(3, 4, 4)
    exact = infidelity(scorer, gradient, added, input - added)
    assert exact.plain < 1e-9 and exact.share < 1e-6
    scaled = infidelity(scorer, 7 * gradient, added, input - added)  # a heatmap's scale is free
    assert scaled.plain > 1e-3 and scaled.share < 1e-6
    covered = squares((4, 4), 12)
    assert infidelity(scorer, gradient * input, covered.expand(-1, 3, -1, -1).float(), ~covered * input).plain < 1e-9
    assert infidelity(scorer, torch.zeros(3, 4, 4), added, input - added).share == pytest.approx(1)


def test_sensitivity_is_captums(resnet20, picture):
    from captum.attr import Saliency
    from captum.metrics import sensitivity_max

    scorer = Scorer(resnet20, picture, "class:3", mean=trained.MEAN, std=trained.STD)
    noises = noise(scorer, 5, 0.02, "uniform")
    assert noises.abs().amax(dim=(0, 2, 3)).numpy() == pytest.approx(0.02 / np.array(trained.STD), rel=0.02)
    saliency = Saliency(resnet20)
    wanted = sensitivity_max(
        lambda inputs: (saliency.attribute(torch.cat(tuple(inputs)).view(-1, 3, 32, 32).requires_grad_(), target=3).amax(dim=1),),
        picture[None],
        perturb_func=lambda inputs: inputs + noises,
        n_perturb_samples=5,
    )
    heatmap = attribute(resnet20, picture, "saliency", 3).heatmap[0]
    found = sensitivity(scorer, heatmap, lambda inputs: attribute(resnet20, inputs, "saliency", 3).heatmap, noises)
    assert found == pytest.approx(float(wanted), rel=1e-4)
    assert sensitivity(scorer, heatmap, lambda inputs: np.stack([heatmap] * len(inputs)), noises) == 0


# -- deletion and insertion ------------------------------------------------------------------------------------------


def test_deletion_and_insertion_follow_the_paper(resnet20, picture):
    """Algorithm 1 of the paper, one picture after another."""
    heatmap = attribute(resnet20, picture, "grad_cam", 8).heatmap[0]
    heatmap = heatmap + np.random.default_rng(0).random(heatmap.shape).astype(np.float32) * 1e-3  # no two pixels equal
    steps = 8
    curves = deletion_insertion(Scorer(resnet20, picture, 8), heatmap[None], steps)
    order = np.argsort(-heatmap.flatten())
    deleted, inserted = picture.clone().flatten(1), blurred(picture[None])[0].flatten(1)
    wanted = []
    with torch.no_grad():
        for step in range(steps + 1):
            both = torch.stack([deleted, inserted]).view(2, 3, 32, 32)
            wanted.append(resnet20(both).softmax(dim=1)[:, 8])
            pixels = order[step * 1024 // steps : (step + 1) * 1024 // steps]
            deleted[:, pixels], inserted[:, pixels] = 0, picture.flatten(1)[:, pixels]
    wanted = torch.stack(wanted, dim=1).numpy()
    np.testing.assert_allclose(np.concatenate([curves.deletion, curves.insertion]), wanted, atol=1e-5)
    np.testing.assert_allclose(curves.shares, np.arange(steps + 1) / steps)
    areas = wanted[:, :-1].mean(axis=1) / 2 + wanted[:, 1:].mean(axis=1) / 2
    np.testing.assert_allclose([curves.deletion_area[0], curves.insertion_area[0]], areas, atol=1e-5)


def test_units_and_differences_are_read_as_shares_of_the_score(resnet20, picture):
    heatmap = attribute(resnet20, picture, "grad_cam", 8).heatmap
    held = []
    handle = resnet20.layer3.register_forward_hook(lambda module, args, output: held.append(output.mean(dim=(2, 3))))
    with torch.no_grad():
        resnet20(torch.stack([picture, torch.zeros_like(picture), blurred(picture[None])[0]]))
    handle.remove()
    unit = int((held[0][0] - held[0][1:].amax(dim=0)).argmax())  # one that the picture excites more than an empty one
    for target in ("class:8-class:3", f"unit:layer3.2:{unit}"):
        scorer = Scorer(resnet20, picture, target)
        assert not scorer.of_a_class
        curves = deletion_insertion(scorer, heatmap, 6)
        assert curves.deletion[0, [0, -1]] == pytest.approx([1, 0]) and curves.insertion[0, [0, -1]] == pytest.approx([0, 1])
    against = deletion_insertion(Scorer(resnet20, picture, "class:3-class:8"), heatmap, 6)  # the whole picture speaks against it
    assert np.isnan(against.deletion_area).all() and np.isnan(against.insertion_area).all()


def test_pixels_of_equal_value_come_in_no_order():
    model, input = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.ones(1, 8, 8)
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[0, :32] = 0.2  # only the upper half counts
        model[1].bias.zero_()
    curves = deletion_insertion(Scorer(model, input, "class:0-class:1"), np.zeros((1, 8, 8), np.float32), 8)
    assert np.abs(curves.deletion[0] - np.linspace(1, 0, 9)).max() < 0.2  # row by row it would be 0 from the middle on


def test_a_target_is_fixed_before_the_input_changes(resnet20, picture):
    scorer = Scorer(resnet20, picture, None)
    label = int(attribute(resnet20, picture, "saliency").targets[0])
    assert (scorer.target.index, scorer.target.against) == (label, -3)
    with torch.no_grad():
        wanted = resnet20(-picture[None])[0, label]
    assert float(scorer.scores(1, lambda numbers: -scorer.input)[0]) == pytest.approx(float(wanted), rel=1e-4)
    direction = Scorer(resnet20, picture, "layer:layer2.2").target
    assert isinstance(direction, LayerTarget) and np.linalg.norm(direction.vector) == pytest.approx(1, rel=1e-4)


# -- randomisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "googlenet", "vit"])
def test_stages_cover_every_weight_that_is_used_from_the_output_backwards(name):
    torch.manual_seed(0)
    models = import_torchvision().models
    if name == "vit":
        model = models.VisionTransformer(image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=5)
    else:
        model = getattr(models, name)(weights=None, num_classes=5, **({"init_weights": False} if name == "googlenet" else {}))
    model.eval()
    input = torch.randn(1, 3, 64 if name != "vit" else 32, 64 if name != "vit" else 32)
    found = stages(model, input, 6)
    titles = [title for title, _ in found]
    assert len(titles) == len(set(titles)) <= 6
    assert titles[0] == {"resnet18": "fc", "squeezenet1_1": "classifier.1", "googlenet": "fc", "vit": "heads.head"}[name]
    if name in ("resnet18", "vit"):
        layers = [f"encoder.layers.encoder_layer_{i}" for i in (2, 1, 0)]
        transformer = ["heads.head", *layers, "encoder, its own parameters", "conv_proj"]
        assert titles == (transformer if name == "vit" else ["fc", "layer4", "layer3", "layer2", "layer1", "conv1"])
    inside = [module for _, names in found for module in names]
    owners = {n for n, m in model.named_modules() if any(True for _ in m.parameters(recurse=False)) and not n.startswith("aux")}
    assert len(inside) == len(set(inside)) and set(inside) == owners
    before = copy.deepcopy(model.state_dict())
    for _, network in cascade(model, found):
        state = network.state_dict()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    weights = [key for key in before if before[key].ndim >= 2 and not key.startswith("aux")]
    assert weights and not any(torch.equal(before[key], state[key]) for key in weights)
    with torch.no_grad():
        assert torch.isfinite(network(input)).all()


def test_the_cascade_takes_one_stage_after_another(resnet20, picture):
    found = stages(resnet20, picture[None], 6)
    assert [title for title, _ in found] == ["linear", "layer3", "layer2", "layer1", "conv1"]
    random: set[str] = set()
    for (title, names), (told, network) in zip(found, cascade(resnet20, found, seed=1), strict=True):
        random |= set(names)
        assert told == title
        for name, weight in network.named_parameters():
            same = torch.equal(weight, resnet20.get_parameter(name))
            assert same == (name.rpartition(".")[0] not in random), name
    again = [network.state_dict()["conv1.weight"].clone() for _, network in cascade(resnet20, found, seed=1)][-1]
    assert torch.equal(again, network.state_dict()["conv1.weight"])


def test_maps_are_compared_by_ranks():
    from scipy.stats import spearmanr
    from skimage.metrics import structural_similarity

    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 20, 24)).astype(np.float32).round(1)  # with ties
    found = likeness(one, other + one)
    assert found.signed == pytest.approx(spearmanr(one.ravel(), (other + one).ravel()).statistic)
    assert found.correlation == pytest.approx(spearmanr(np.abs(one).ravel(), np.abs(other + one).ravel()).statistic)
    scaled = [(np.abs(m) - np.abs(m).min()) / np.ptp(np.abs(m)) for m in (one, other + one)]
    assert found.similarity == pytest.approx(structural_similarity(*scaled, data_range=1.0), rel=1e-4)
    assert likeness(one, -one).correlation == pytest.approx(1) and likeness(one, -one).signed == pytest.approx(-1)
    assert spearman(one, np.zeros_like(one)) is None and spearman(one, np.full_like(one, np.nan)) is None


def test_the_verdict():
    assert verdict([0.9, 0.8])[0] == "warning" and "does not depend on what the network has learned" in verdict([0.9, 0.8])[1]
    assert verdict([0.94, 0.6, 0.2])[0] == "warning" and "hardly on what that means for the target" in verdict([0.94, 0.6, 0.2])[1]
    assert verdict([0.3, 0.1, -0.12]) == (
        "good",
        "With all weights random the map is another one (rank correlation −0.12): it depends on what the network has learned.",
    )
    assert verdict([0.3, None])[0] == "good"


# -- ranking ---------------------------------------------------------------------------------------------------------


def test_methods_are_ranked_by_insertion_less_deletion():
    rows = ranking(
        {
            "poor": np.array([[0.5, 0.4], [0.6, 0.5]]),
            "good": np.array([[0.1, 0.7], [0.2, 0.9], [np.nan, np.nan]]),
            "none": np.array([]),
            None: np.array([[0.4, 0.4]]),
        }
    )
    assert [row["method"] for row in rows] == ["good", None, "poor", "none"]
    assert rows[0]["count"] == 2 and rows[0]["difference"] == pytest.approx([0.65, 0.05]) and rows[0]["deletion"] == pytest.approx([0.15, 0.05])
    assert rows[1]["insertion"] == [0.4, None] and rows[3]["difference"] is None


# -- the job ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    model, random = build("dnnviz:small_cnn", num_classes=3, in_channels=3), np.random.default_rng(0)
    images = np.round(random.random((9, 16, 16, 3), dtype=np.float32) * 255) / 255
    data = [(torch.from_numpy((image.transpose(2, 0, 1) - 0.5) / 0.25), i % 3) for i, image in enumerate(images)]
    dnnviz.capture(
        model, data, runs / "small", classes=["a", "b", "c"], epoch=0, inputs=9, mean=(0.5,) * 3, std=(0.25,) * 3, model_spec="dnnviz:small_cnn"
    )
    return runs


@pytest.fixture
def settings(folder, tmp_path):
    return Settings(runs=(folder,), cache=tmp_path / "cache")


@pytest.fixture
def results(settings):
    return Results(settings.private_cache() / "results")


def tile(**given):
    wanted = {"what": "tile", "run": "small", "epoch": 0, "source": "1", "method": "grad_cam", "parameters": {}, "target": "predicted", "layer": None}
    return {**wanted, **given}


@pytest.mark.parametrize(
    ("given", "reading"),
    [
        ({}, "probability"),
        ({"method": "saliency", "target": "class:2"}, "probability"),
        ({"method": "integrated_gradients", "parameters": {"steps": 4}, "target": "class:0-class:1"}, "score"),
        ({"method": "guided_backprop", "target": "direction:{layer}:1"}, "score"),
    ],
)
def test_a_tile_is_measured(folder, settings, results, given, reading):
    run = dnnviz.open_run(folder / "small")
    layer = next(layer.name for layer in run.layers if layer.kind == "conv")
    given = {name: value.format(layer=layer) if name == "target" else value for name, value in given.items()}
    told, asked = [], tile(**given)
    [key] = task.run(settings, asked, lambda done, total, text: told.append((done / total, text)))
    assert key == keys.tile_key(run, 0, "1", asked["method"], asked["parameters"], asked["target"])
    found = keys.get_tile(results, key)
    assert found["complete"] and found["reading"] == reading and found["method"] == asked["method"]
    json.dumps(found, allow_nan=False)
    for name in ("deletion", "insertion"):
        assert len(found[name]["share"]) == keys.STEPS + 1
        if found[name]["value"] is not None:
            assert len(found[name]["value"]) == keys.STEPS + 1 and found[name]["area"] == pytest.approx(
                np.mean([np.mean(found[name]["value"][1:]), np.mean(found[name]["value"][:-1])])
            )
    assert 0 <= found["infidelity"]["share"] <= 1 and (found["noise_infidelity"] is not None) == (asked["method"] in ("saliency", "guided_backprop"))
    assert found["sensitivity"]["value"] >= 0 and found["sensitivity"]["samples"] == 10
    arrays = results.get(key)
    wanted = attribute(run.load_model(0), run.network_inputs(1), asked["method"], **asked["parameters"]) if asked["target"] == "predicted" else None
    if wanted is not None:
        np.testing.assert_allclose(arrays["heatmap"], wanted.heatmap[0], atol=1e-6)
    rows = found["randomisation"]["stages"]
    assert rows and found["randomisation"]["verdict"]
    for row in rows:
        other = arrays[row["array"]]
        assert other.shape == (16, 16) and other.dtype == np.float32
        assert row["correlation"] == pytest.approx(spearman(np.abs(arrays["heatmap"]), np.abs(other)), abs=1e-5)
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] <= 1.001 and {"Deletion and insertion", "Sensitivity to noise"} <= {text for _, text in told}
    told.clear()
    assert task.run(settings, asked, lambda *report: told.append(report)) == [key] and not told


def test_a_method_that_is_not_defined_leaves_its_sentence(settings, results):
    [key] = task.run(settings, tile(method="attention_rollout"), lambda *_: None)
    assert "nn.MultiheadAttention" in keys.get_tile(results, key)["error"]


def test_a_method_that_needs_what_was_learned_shows_nothing_without_it(settings, results, monkeypatch):
    trained_only = []

    def explain(model, *args, **given):
        trained_only.append(model)
        if model is not trained_only[0]:
            raise DNNVizError("Not defined here.")
        return attribute_all(model, *args, **given)

    monkeypatch.setattr(task, "attribute_all", explain)
    [key] = task.run(settings, tile(), lambda *_: None)
    found = keys.get_tile(results, key)["randomisation"]
    assert {row["correlation"] for row in found["stages"]} == {None} and "shows nothing" in found["verdict"]
    assert not any(results.get(key)[row["array"]].any() for row in found["stages"])


def test_methods_are_ranked_by_the_job(folder, settings, results):
    methods = {"saliency": {}, "grad_cam": {}, "attention_rollout": {}}
    asked = {"what": "ranking", "run": "small", "epoch": 0, "inputs": ["0", "1", "2"], "methods": methods, "targets": ["predicted"], "layer": None}
    told = []
    [key] = task.run(settings, asked, lambda done, total, text: told.append(done / total))
    run = dnnviz.open_run(folder / "small")
    assert key == keys.ranking_key(run, 0, ["0", "1", "2"], methods)
    found = keys.get_ranking(results, key)
    json.dumps(found, allow_nan=False)
    assert found["complete"] and found["reading"] == "probability" and found["count"] == 3
    assert {row["method"] for row in found["rows"][:2]} == {"saliency", "grad_cam"}
    assert found["rows"][0]["difference"][0] >= found["rows"][1]["difference"][0]
    last = found["rows"][2]
    assert last["method"] == "attention_rollout" and last["count"] == 0 and "nn.MultiheadAttention" in last["failed"] and last["difference"] is None
    assert found["random"]["count"] == 3 and found["random"]["title"] == "Random map"
    assert told == sorted(told) and told[-1] <= 1
    model = run.load_model(0)
    areas = []
    for index in range(3):
        [input] = run.network_inputs(index)
        curves = deletion_insertion(Scorer(model, input), attribute(model, input, "saliency").heatmap, keys.STEPS)
        areas.append(curves.deletion_area[0])
    row = next(row for row in found["rows"] if row["method"] == "saliency")
    assert row["deletion"] == pytest.approx([np.mean(areas), np.std(areas, ddof=1) / 3**0.5], rel=1e-4)


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"what": "tea"}, DNNVizError, "request to measure trust is incomplete"),
        ({"epoch": None}, DNNVizError, "request to measure trust is incomplete"),
        ({"source": "99"}, RunError, "inputs 0 to 8"),
        ({"method": "tea leaves"}, DNNVizError, "no attribution method"),
        ({"target": "class:7"}, DNNVizError, "classes 0 to 2"),
        ({"what": "ranking", "inputs": [], "methods": {"saliency": {}}}, DNNVizError, "at least one input"),
    ],
)
def test_requests_that_make_no_sense_get_a_sentence(settings, given, error, sentence):
    with pytest.raises(error, match=sentence):
        task.run(settings, tile(**given), lambda *_: None)


def test_costs_are_told_without_torch(folder):
    run = dnnviz.open_run(folder / "small")
    assert keys.work(run, "grad_cam", {}) == 17 + 200
    assert keys.work(run, "integrated_gradients", {"steps": 100}) == pytest.approx((1 + 3 + 6) * 220 + 200)
    assert keys.ranking_work(run, 4, {"saliency": {}, "grad_cam": {}}) == pytest.approx(4 * (2.2 + 1 + 3 * 50))
    assert TASKS["trust"] == "dnnviz.explain.trust.task:run"
    code = "import sys, dnnviz.explain.trust.keys; assert not {'torch', 'skimage', 'scipy', 'captum'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_a_random_map_is_the_same_each_time():
    np.testing.assert_array_equal(random_map((4, 5), 1), random_map((4, 5), 1))
    assert not np.array_equal(random_map((4, 5), 1), random_map((4, 5), 2))
