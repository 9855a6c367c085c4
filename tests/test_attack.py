"""Attacks: equal to a reference, within their budget, followed through the layers; detection, robustness, and the job."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dnnviz
from dnnviz.attack import METHODS, attack, keys, task
from dnnviz.attack.detection import Mahalanobis, Seen, detect
from dnnviz.attack.methods import pgd
from dnnviz.attack.patch import Inside, softmax
from dnnviz.attack.rates import area, area_interval, curve, wilson
from dnnviz.attack.spread import carriers, first_nearer, first_outside, spread_of
from dnnviz.errors import DNNVizError
from dnnviz.explain.uploads import store_upload
from dnnviz.layers import find_layers
from dnnviz.results import Results
from dnnviz.settings import DEMO_RUNS, Settings
from tests import trained

pytestmark = pytest.mark.usefixtures("one_thread")

NORMALISATION = {"mean": trained.MEAN, "std": trained.STD}
SMALL = {
    "bim": {"steps": 4},
    "pgd": {"steps": 4},
    "pgd_l2": {"steps": 4},
    "carlini_wagner": {"searches": 2, "steps": 10},
    "deepfool": {"steps": 8},
    "gradient_ascent": {"steps": 30},
}


def quiet(done, total, text=""):
    pass


@pytest.fixture(scope="module")
def pictures(shared_data):
    """Pixels [3, 3, 32, 32] in 0…1 of CIFAR-10."""
    with np.load(shared_data / "cifar10" / "test_1000.npz") as file:
        return file["images"][:3].astype(np.float32).transpose(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def reference(resnet20, pictures):
    """(foolbox's model, pixels, classes predicted, and the classes after them)."""
    foolbox = pytest.importorskip("foolbox")
    how = {"mean": list(trained.MEAN), "std": list(trained.STD), "axis": -3}
    model = foolbox.PyTorchModel(resnet20, bounds=(0, 1), preprocessing=how, device="cpu")
    images = torch.from_numpy(pictures)
    labels = model(images).argmax(dim=1)
    return model, images, labels, (labels + 1) % 10


class Loose(nn.Module):
    """Functional activations, an operation in place, a shared module, tokens: what hooks alone would miss."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.tokens = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = self.second(x).relu_()
        x = self.second(x).relu_()
        x = F.gelu(self.norm(self.tokens(x.flatten(2).transpose(1, 2))))
        return self.last(self.dropout(x.mean(dim=1)))


@pytest.fixture(scope="module")
def loose():
    torch.manual_seed(3)
    model = Loose()
    for parameter in model.parameters():
        parameter.data *= 2
    return model


# -- the attacks themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", [None, 2])
def test_what_an_attack_returns_is_true_valid_and_leaves_the_network_alone(method, target, loose):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8)).astype(np.float32) / 255
    pixels[0, :, :4] = 0.0
    pixels[1, :, :4] = 1.0
    loose.train()
    loose.norm.eval()
    before = {name: value.clone() for name, value in loose.state_dict().items()}
    random = torch.get_rng_state()
    told = []
    with torch.no_grad():
        found = attack(
            loose,
            pixels,
            method,
            targets=target,
            mean=(0.4,),
            std=(0.2, 0.3, 0.25),
            history=True,
            watch=lambda *d: told.append(d),
            **SMALL.get(method, {}),
        )
    assert torch.equal(random, torch.get_rng_state())
    assert loose.training
    assert not loose.norm.training
    assert all(torch.equal(before[name], value) for name, value in loose.state_dict().items())
    assert all(parameter.grad is None for parameter in loose.parameters())
    assert found.adversarial.dtype == np.float32
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    assert (found.evaluations + found.gradients).max() <= METHODS[method].passes(found.parameters), "what is offered is no less than what it takes"
    size = found.linf if METHODS[method].norm == "linf" else found.l2
    if METHODS[method].bounded:
        assert size.max() <= found.parameters["epsilon"] * (1 + 1e-5)
    mean, std = (np.float32(v)[None, :, None, None] for v in ((0.4,) * 3, (0.2, 0.3, 0.25)))
    with torch.no_grad():
        says, said = (loose.eval()(torch.from_numpy((images - mean) / std)) for images in (found.adversarial, pixels))
    np.testing.assert_array_equal(says.argmax(dim=1), found.after)
    np.testing.assert_array_equal(said.argmax(dim=1), found.before)
    np.testing.assert_array_equal(found.success, found.after == target if target is not None else found.after != found.before)
    np.testing.assert_allclose(found.probabilities[0], said.softmax(dim=1), atol=1e-5)
    np.testing.assert_allclose(found.probabilities[-1], says.softmax(dim=1), atol=1e-5)
    change = np.abs(found.adversarial - pixels)
    np.testing.assert_allclose(found.l2, np.sqrt((change**2).sum(axis=(1, 2, 3))), rtol=1e-5)
    assert found.steps.max() <= len(found.probabilities) - 1
    assert all(0 <= done <= total for done, total in told)
    if target is not None:
        already = found.before == target
        assert found.success[already].all(), "an image that is of the class wanted needs no change"


def test_equal_to_the_reference_where_start_and_steps_are_the_same(reference, resnet20):
    import foolbox

    model, images, labels, others = reference

    class Started(foolbox.attacks.L2PGD):
        def get_random_start(self, x0, epsilon):
            return type(x0)(start)

    away, towards = foolbox.criteria.Misclassification(labels), foolbox.criteria.TargetedMisclassification(others)
    generator = torch.Generator().manual_seed(7)

    class Drawn:
        norm = "l2"

    Drawn.images, Drawn.generator = images, generator
    start = pgd.random_start(Drawn, torch.arange(len(images)), 0.3)
    assert (start - images).flatten(1).norm(dim=1).max() <= 0.3 * (1 + 1e-5)
    cases = [
        (foolbox.attacks.FGSM(), 0.01, "fgsm", away, {}),
        (foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=0.002, steps=3), 0.006, "bim", towards, {"step": 0.002, "steps": 3}),
        (foolbox.attacks.LinfPGD(rel_stepsize=0.3, steps=3, random_start=False), 0.01, "pgd", away, {"step": 0.3, "steps": 3, "random_start": False}),
        (Started(rel_stepsize=0.3, steps=2), 0.3, "pgd_l2", towards, {"step": 0.3, "steps": 2, "seed": 7}),
    ]
    for theirs, size, name, criterion, parameters in cases:
        expected, _, fooled = theirs(model, images, criterion, epsilons=size)
        goal = {"labels": labels} if criterion is away else {"targets": others}
        stop = {"stop": False} if name != "fgsm" else {}
        ours = attack(resnet20, images, name, **goal, **NORMALISATION, epsilon=size, **parameters, **stop)
        same = ours.success == fooled.numpy()
        assert same.all(), name
        np.testing.assert_allclose(ours.adversarial, expected.numpy(), atol=1e-4, err_msg=name)


def test_the_smallest_changes_are_as_small_as_the_references(reference, resnet20):
    import foolbox

    model, images, labels, _ = reference
    images, labels = images[:2], labels[:2]
    for theirs, name, parameters in (
        (foolbox.attacks.L2DeepFoolAttack(steps=6, candidates=3), "deepfool", {"steps": 6, "candidates": 3}),
        (
            foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=2, steps=12, stepsize=0.02, initial_const=0.1),
            "carlini_wagner",
            {"searches": 2, "steps": 12, "weight": 0.1, "rate": 0.02},
        ),
    ):
        expected, _, fooled = theirs(model, images, foolbox.criteria.Misclassification(labels), epsilons=None)
        ours = attack(resnet20, images, name, labels, **NORMALISATION, **parameters)
        size = (expected - images).flatten(1).norm(dim=1).numpy()
        assert ours.success.all(), name
        assert fooled.all()
        assert (ours.l2 <= size * 1.001).all(), f"{name}: {ours.l2} against {size}"


def test_restarts_and_going_on_find_no_less_and_stopping_changes_less(pictures, resnet20):
    small = {"epsilon": 0.002, "steps": 3, "step": 0.5}
    once = attack(resnet20, pictures, "pgd", **NORMALISATION, **small)
    again = attack(resnet20, pictures, "pgd", **NORMALISATION, **small, restarts=3)
    np.testing.assert_array_equal(again.adversarial[once.success], once.adversarial[once.success])
    assert again.success.sum() >= once.success.sum()
    assert (again.evaluations[~once.success] > once.evaluations[~once.success]).all()
    stopped = attack(resnet20, pictures, "bim", **NORMALISATION, steps=4)
    gone_on = attack(resnet20, pictures, "bim", **NORMALISATION, steps=4, stop=False)
    assert stopped.success.all()
    assert gone_on.success.all()
    assert (stopped.linf < gone_on.linf).all()
    rows = np.arange(len(pictures))
    kept = gone_on.probabilities[-1][rows, gone_on.before], stopped.probabilities[-1][rows, stopped.before]
    assert kept[0].mean() < kept[1].mean(), "going on grows surer"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"method": "pdg"}, "no attack 'pdg'"),
        ({"epsilon": 7}, "epsilon is 7"),
        ({"size": 0.1}, "no parameter 'size'"),
        ({"images": np.full((1, 3, 8, 8), 2.0)}, "pixels go from 2 to 2"),
        ({"images": np.zeros((3, 8, 8))}, "shape"),
        ({"targets": 4}, "classes 0 to 3; [4]"),
        ({"labels": [1, 2]}, "as many classes"),
        ({"mean": (0.5, 0.5)}, "mean and std need one number"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(given, sentence, loose):
    arguments = {"images": np.full((1, 3, 8, 8), 0.5, np.float32), "method": "fgsm", **given}
    with pytest.raises(DNNVizError, match=sentence.replace("[", r"\[").replace("]", r"\]")):
        attack(loose, **arguments)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_one_class_cannot_be_attacked(method):
    with pytest.raises(DNNVizError, match="one class; there is no other"):
        attack(nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), np.full((2, 1, 4, 4), 0.5, np.float32), method)


# -- through the layers ----------------------------------------------------------------------------------------------


def put_back(inside, changed, original, sets):
    """[L, m, K]: the scores with units put back, as `Inside.patched` gives them layer by layer."""
    found = dict(inside.patched(changed, inside.values(changed), inside.values(original), sets))
    assert list(found) == list(range(len(sets)))
    return np.array([found[layer] for layer in found])


def test_values_put_back_restore_the_prediction(pictures, resnet20):
    found = attack(resnet20, pictures[:1], "bim", **NORMALISATION, stop=False, steps=5)
    assert found.success[0]
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (trained.MEAN, trained.STD))
    original, changed = ((torch.from_numpy(p) - mean) / std for p in (pictures[:1], found.adversarial))
    layers = find_layers(resnet20, original).layers[::2]
    inside = Inside(resnet20, original, layers)
    clean, attacked = (softmax(inside.values(each).logits)[0, found.before[0]] for each in (original, changed))
    # All but one unit are put back by running what lies behind; with all of them the answer may be known without.
    logits = put_back(inside, changed, original, [[np.arange(layer.units), np.arange(layer.units - 1), np.arange(0)] for layer in layers])
    every, most, none = (softmax(each)[:, found.before[0]] for each in logits.transpose(1, 0, 2))
    # What lies on the only way through: the first convolution, the blocks, the last layer. Around the others leads a shortcut.
    alone = np.array([layer.kind in ("block", "linear") or layer.name == "conv1" for layer in layers])
    np.testing.assert_allclose(every[alone], clean, atol=1e-6)
    assert every[~alone].min() < 0.5
    np.testing.assert_allclose(none, attacked, atol=1e-6)
    assert attacked < 0.01 < clean
    assert np.abs(most - every).max() > 0 and np.median(np.abs(most - every)) < 0.1


def test_values_are_put_back_between_functional_and_in_place_operations(loose):
    loose.eval()
    torch.manual_seed(1)
    original, changed = torch.randn(2, 1, 3, 8, 8)
    layers = find_layers(loose, original).layers
    assert [layer.name for layer in layers] == ["first", "second", "second#2", "tokens", "last"]
    inside = Inside(loose, original, layers)
    true, other = inside.values(original), inside.values(changed)
    sets = [[np.array([0, min(4, layer.units - 1)]), np.arange(layer.units)] for layer in layers]
    found = put_back(inside, changed, original, sets)
    np.testing.assert_allclose(found[:, 1], np.repeat(true.logits, 5, axis=0), atol=1e-6)
    maps = torch.relu(loose.second(torch.relu(loose.first(changed))))
    maps[:, [0, 4]] = true.values[1][:, [0, 4]]
    with torch.no_grad():
        maps = torch.relu(loose.second(maps))
        expected = loose.last(F.gelu(loose.norm(loose.tokens(maps.flatten(2).transpose(1, 2)))).mean(dim=1))
        tokens = other.values[3].clone()
        tokens[:, :, [0, 4]] = true.values[3][:, :, [0, 4]]
        np.testing.assert_allclose(found[3, 0], loose.last(tokens.mean(dim=1))[0], atol=1e-6)
    np.testing.assert_allclose(found[1, 0], expected[0], atol=1e-6)
    _, means = inside.means(torch.cat([original, changed]))
    squares, first, second = inside.differences(true.values, other.values)
    np.testing.assert_allclose(means, [first, second], atol=1e-6)
    np.testing.assert_allclose(squares[4], (second[-4:] - first[-4:]) ** 2, rtol=1e-4)


@pytest.fixture(scope="module")
def digits():
    return dnnviz.open_run(DEMO_RUNS / "digits")


def test_the_spread_of_a_class_is_measured_without_the_input_itself(digits):
    epoch = digits.epochs[-1]
    index = int(np.flatnonzero(digits.labels == 3)[2])
    whole, without = spread_of(digits, epoch, 3), spread_of(digits, epoch, 3, index)
    value = digits.activations(epoch)[index].astype(np.float64)
    count = digits.class_counts[:, 3].sum()
    np.testing.assert_allclose(without.centre * (count - 1) + value, whole.centre * count, rtol=1e-3, atol=1e-3)
    assert (without.distances(value[None]) >= whole.distances(value[None])).all()
    own = digits.activations(epoch)[(digits.labels == 3) & (digits.logits(epoch).argmax(axis=1) == 3)]
    outside = (whole.distances(own) > whole.limit).mean(axis=0)
    assert whole.kind == "class"
    assert (outside <= 0.1).all()
    far = digits.activations(epoch)[digits.labels == 8]
    assert (spread_of(digits, epoch, 3).distances(far)[:, -1] > whole.limit[-1]).mean() > 0.9, "at the last layer other classes lie outside"


def test_carriers_are_the_fewest_units_and_loud_ones_do_not_win(digits):
    epoch = digits.epochs[-1]
    variance = digits.data_std(epoch).astype(np.float64) ** 2
    differences = [np.zeros(layer.units) for layer in digits.layers]
    layer = digits.layers[3]
    loud = np.argsort(-variance[layer.columns])
    differences[3][loud[:3]] = variance[layer.columns][loud[:3]] * np.array([10.0, 30.0, 40.0])
    differences[3][loud[5]] = variance[layer.columns][loud[5]] * 20.0
    chosen, shares = carriers(differences, digits, epoch, 0.8)
    assert chosen[3].tolist() == [loud[2], loud[1], loud[5]]
    np.testing.assert_allclose(shares[3], [0.4, 0.3, 0.2], rtol=1e-5)
    assert [len(units) for i, units in enumerate(chosen) if i != 3] == [0] * (len(digits.layers) - 1)


def test_where_a_result_leaves_and_arrives():
    before, after, limit = np.array([1, 2, 1, 1.0]), np.array([1, 1.5, 2, 3.0]), np.array([1.2, 1.2, 1.2, 1.2])
    assert first_outside(before, after, limit) == 2, "the original itself lies outside at layer 1"
    assert first_outside(before, before, limit) is None
    assert first_nearer(after, np.array([0, 2, 1, 1.0])) == 2
    assert first_nearer(after, after) is None


# -- rates and detection ---------------------------------------------------------------------------------------------


def test_rates_agree_with_references():
    from sklearn.metrics import roc_auc_score, roc_curve

    # As scipy.stats.binomtest(count, total).proportion_ci(method="wilson") gives them.
    for count, total, expected in ((0, 9, (0.0, 0.299145)), (3, 20, (0.0523687, 0.3604189)), (200, 200, (0.9811547, 1.0))):
        np.testing.assert_allclose(wilson(count, total), expected, atol=1e-6)
    random = np.random.default_rng(0)
    clean, attacked = random.integers(0, 12, 60).astype(float), random.integers(4, 16, 40).astype(float)
    labels, scores = np.repeat([0, 1], [60, 40]), np.concatenate([clean, attacked])
    assert area(clean, attacked) == pytest.approx(roc_auc_score(labels, scores))
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    grid = np.unique(false)
    np.testing.assert_allclose(curve(clean, attacked, grid), [true[false == x].max() for x in grid], atol=1e-6)
    low, high = area_interval(1.0, 30, 20)
    assert 0.8 < low < 0.95, "twenty of twenty are no proof of perfection"
    assert high == 1.0
    assert area_interval(0.5, 1000, 1000)[0] == pytest.approx(0.5 - 1.96 * np.sqrt(2001 / 12e6), abs=2e-3)


def synthetic(shift, seed=0):
    """Clean inputs of two classes in two layers, and attacked ones that are moved by so many deviations in the second."""
    random = np.random.default_rng(seed)
    labels = np.tile([0, 1], 150)
    values = random.normal(0, 1, (300, 20)) @ np.diag(np.linspace(0.2, 3, 20)) + labels[:, None] * 2.0
    clean = Seen(values, labels, random.uniform(0.5, 1, 300).astype(np.float32))
    moved = values + random.normal(0, 0.1, values.shape)
    moved[:, 10:] += shift * np.linspace(0.2, 3, 20)[10:] * random.choice([-1, 1], (300, 10))
    attacked = Seen(moved[:120], labels[:120], clean.confidence[:120])
    return detect(clean, labels, np.arange(300), attacked, np.arange(120), [slice(0, 10), slice(10, 20)])


def test_what_lies_off_is_detected_and_what_does_not_is_not():
    arrays, names, papers, fitted = synthetic(2.5)
    assert len(names) == len(papers) == len(arrays["areas"]) == 4
    assert fitted == 150
    assert arrays["areas"][:2].min() > 0.95
    assert arrays["areas"][3] == pytest.approx(0.5, abs=0.1), "the probability says nothing here"
    assert arrays["layer_areas"][1] > 0.95
    assert arrays["layer_areas"][0] < 0.65
    assert (arrays["low"] <= arrays["areas"]).all()
    assert (arrays["areas"] <= arrays["high"]).all()
    fit = set(range(300)) - set(arrays["clean_inputs"].tolist())
    assert not fit & set(arrays["attacked_inputs"].tolist()), "no attacked input is measured whose original was fitted on"
    assert np.abs(synthetic(0.0)[0]["areas"] - 0.5).max() < 0.12
    with pytest.raises(DNNVizError, match="fooled 0 of the inputs"):
        few = Seen(np.zeros((0, 20)), np.zeros(0, np.int64), np.zeros(0, np.float32))
        detect(Seen(np.zeros((9, 20)), np.zeros(9, int), np.ones(9)), np.zeros(9, int), np.arange(9), few, np.zeros(0, int), [slice(0, 20)])


def test_mahalanobis_knows_the_covariance_and_finds_what_is_moved_as_often_as_it_should():
    random = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.9], [0.0, 0.3]])
    labels = np.repeat([2, 5], 4000)
    values = random.normal(0, 1, (8000, 2)) @ mixing + (labels == 5)[:, None] * 7.0
    measure = Mahalanobis(values, labels)
    points = np.array([[1.0, 0.9], [0.0, 0.3], [1.0, -0.9]])
    expected = np.sqrt((points @ np.linalg.inv(mixing.T @ mixing) * points).sum(axis=1))
    np.testing.assert_allclose(measure(points, np.array([2, 2, 2])), expected, rtol=0.05)
    np.testing.assert_allclose(measure(points + 7, np.array([5, 5, 9])), expected, rtol=0.05)
    # Squared distances are χ² of two degrees of freedom, and not central ones where inputs are moved by δ standard deviations.
    other = random.normal(0, 1, (4000, 2)) @ mixing
    for delta in (0.0, 1.0, 3.0):
        found = area(measure(other, np.full(4000, 2)), measure(other[::-1] + np.array([delta, 0.0]) @ mixing, np.full(4000, 2)))
        assert found == pytest.approx(1 - np.exp(-(delta**2) / 4) / 2, abs=0.02)


# -- the job ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Settings:
    return Settings(runs=(DEMO_RUNS,), cache=tmp_path_factory.mktemp("cache"), port=0)


def results_of(settings: Settings) -> Results:
    return Results(settings.private_cache() / "results")


def test_the_job_follows_an_attack_through_the_layers(demo, digits, monkeypatch):
    epoch = digits.epochs[-1]
    params = {"what": "attack", "run": "digits", "epoch": epoch, "source": "7", "method": "deepfool", "target": "", "parameters": {}}
    stored = []
    monkeypatch.setattr(keys, "put", lambda cache, key, found, put=keys.put: (stored.append(found), put(cache, key, found)))
    (key,) = task.run(demo, params, quiet)
    assert key == keys.attack_key(digits, keys.asked_attack(digits, params))
    pictures, path, *_ = stored
    assert not len(pictures.patched) and len(path.distance_after) == len(digits.layers), "the pictures are there before the layers are read"
    assert pictures.about["partial"] < 1 and path.about["leaves"] is not None and "partial" in path.about
    found = keys.get_attack(results_of(demo), key)
    about = found.about
    assert "partial" not in about
    assert about["success"]
    assert about["true"] == about["before"] == digits.labels[7] != about["after"]
    assert found.image.shape == found.adversarial.shape == tuple(digits.manifest["preprocessing"]["size"][i] for i in (1, 2, 0))
    np.testing.assert_allclose(found.image * 255, digits.images([7])[0][:, :, :1], atol=1e-3)
    assert about["norms"]["linf_255"] == pytest.approx(255 * np.abs(found.adversarial - found.image).max(), rel=1e-5)
    assert len(found.probabilities) == about["steps"] + 1
    np.testing.assert_allclose(found.whole, about["original"], atol=1e-4)
    assert found.patched[found.restored[:, 0]].min() > about["baseline"]
    assert found.distance_after[-1] > found.distance_before[-1]
    assert found.target_after[-1] < found.target_before[-1]
    assert np.bincount(found.unit_layers, found.unit_shares).min() > 0.79
    assert ((found.units >= np.array([digits.layers[i].offset for i in found.unit_layers])).all()) and found.units.max() < digits.units
    assert digits.classes[about["before"]] in about["sentence"]
    monkeypatch.setattr(task, "Explainer", lambda *_: pytest.fail("what is there is not computed again"))
    assert task.run(demo, params, quiet) == [key]
    other = keys.asked_attack(digits, {**params, "parameters": {"overshoot": 0.05}})
    assert keys.attack_key(digits, other) != key


def test_an_upload_is_attacked_towards_a_class(demo, digits):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(digits.images([3])[0]).save(file, "PNG")
    source = store_upload(results_of(demo), digits, "three.png", file.getvalue())
    params = {"what": "attack", "run": "digits", "epoch": digits.epochs[-1], "source": source, "method": "gradient_ascent", "target": "0"}
    found = keys.get_attack(results_of(demo), task.run(demo, params, quiet)[0])
    assert found.about["true"] is None
    assert found.about["target"] == found.about["after"] == 0
    assert len(found.patched) == len(digits.layers)
    # Its class is unknown: it is held against the spread of the one that the network sees in it.
    own = spread_of(digits, digits.epochs[-1], found.about["before"])
    np.testing.assert_array_equal(found.limit, own.limit)
    assert found.about["spread_inputs"] == own.count == digits.class_counts[:, found.about["before"]].sum()


def test_robustness_falls_with_size_and_goes_on_where_it_was_cancelled(demo, digits):
    params = {"what": "robustness", "run": "digits", "epoch": digits.epochs[-1], "method": "bim", "inputs": 20, "sizes": [0.1, 0.02, 0.05]}
    params["parameters"] = {"step": 0.02, "steps": 6}

    class Cancelled(Exception):
        pass

    def cancel(done, total, text=""):
        if done >= 3:
            raise Cancelled

    key = keys.many_key(digits, keys.asked_many(digits, params))
    with pytest.raises(Cancelled):
        task.run(demo, params, cancel)
    partial = keys.get_robustness(results_of(demo), key)
    assert partial.about["partial"] == 0.75
    assert partial.sizes.tolist() == pytest.approx([0, 0.02, 0.05])
    told = []
    assert task.run(demo, params, lambda done, total, text="": told.append(done)) == [key]
    assert min(told[1:]) >= 3, "what was measured before is not measured again"
    found = keys.get_robustness(results_of(demo), key)
    assert "partial" not in found.about
    assert (np.diff(found.accuracy) <= 0).all()
    assert found.accuracy[0] > 0.9 > found.accuracy[-1]
    np.testing.assert_array_equal(found.accuracy[:3], partial.accuracy)
    assert (found.low <= found.accuracy).all()
    assert (found.accuracy <= found.high).all()
    assert np.bincount(digits.labels[found.inputs]).tolist() == [2] * 10
    at = found.sizes[2]
    rows = np.flatnonzero(found.fooled_at > 0)
    how = digits.manifest["preprocessing"]
    pixels = digits.images(found.inputs[rows])[:, :, :, :1].astype(np.float32).transpose(0, 3, 1, 2) / 255
    again = attack(
        digits.load_model(digits.epochs[-1]),
        pixels,
        "bim",
        digits.labels[found.inputs[rows]],
        mean=how["mean"],
        std=how["std"],
        epsilon=float(at),
        step=0.02,
        steps=6,
    )
    np.testing.assert_array_equal(again.success, found.fooled_at[rows] <= at)


def test_methods_without_a_budget_measure_robustness_by_the_smallest_change(demo, digits):
    params = {"what": "robustness", "run": "digits", "epoch": digits.epochs[-1], "method": "deepfool", "inputs": 20, "sizes": [0.1, 1.0, 50.0]}
    told = []
    found = keys.get_robustness(results_of(demo), task.run(demo, params, lambda done, total, text="": told.append((done, total)))[0])
    assert all(done <= total for done, total in told)
    assert found.accuracy[0] > 0.9
    assert found.accuracy[-1] == 0
    assert found.about["norm"] == "l2"


def test_detection_of_a_run_is_measured_on_inputs_not_fitted_on(demo, digits):
    params = {"what": "detection", "run": "digits", "epoch": digits.epochs[-1], "method": "bim", "inputs": 60}
    params["parameters"] = {"epsilon": 0.15, "step": 0.04, "steps": 6}
    found = keys.get_detection(results_of(demo), task.run(demo, params, quiet)[0])
    assert found.about["fooled"] > 20
    assert found.areas[:2].min() > 0.85
    assert found.true_rate.shape == (4, len(found.false_rate))
    assert not set(found.clean_inputs.tolist()) - set(range(digits.kept))
    params["parameters"]["epsilon"] = 0.0001
    with pytest.raises(DNNVizError, match="The attack fooled 0 of the inputs"):
        task.run(demo, params, quiet)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"source": "99999"}, "keeps inputs 0 to"),
        ({"target": "12"}, "classes 0 to 9"),
        ({"epoch": 999}, "no snapshot of epoch 999"),
        ({"method": "nothing"}, "no attack 'nothing'"),
        ({"source": "upload-" + 40 * "0"}, "no longer stored"),
        ({"what": "everything"}, "'everything' was asked for"),
        ({"what": "detection", "inputs": 0}, "from 1 to 500"),
        ({"what": "robustness", "sizes": [0.0]}, "above 0"),
        ({"what": "robustness", "sizes": ["large"]}, "must be numbers"),
    ],
)
def test_a_request_that_cannot_be_met_is_answered_in_a_sentence(given, sentence, demo, digits):
    params = {"what": "attack", "run": "digits", "epoch": digits.epochs[-1], "source": "7", "method": "fgsm", "target": "", **given}
    with pytest.raises(DNNVizError, match=sentence):
        task.run(demo, params, quiet)
