"""Pruning: planted dead units, costs against a hand count, masks by the prefix, exports, the job, and the view."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from torch import nn

import dnnviz
from dnnviz.analysis.units import units
from dnnviz.errors import DNNVizError, RunError
from dnnviz.layers import find_layers
from dnnviz.models import build
from dnnviz.pruning import criteria, keys, task
from dnnviz.pruning.costs import network_costs
from dnnviz.pruning.export import load_sliced, masked, sliced
from dnnviz.pruning.merging import Moments, merged, moments, swapped
from dnnviz.pruning.program import Edit, Program
from dnnviz.pruning.registry import CRITERIA
from dnnviz.pruning.saved import Costs, counted, saving
from dnnviz.results import Results
from dnnviz.settings import DEMO_RUNS, Settings
from tests.conftest import TIMEOUT, wait_for_jobs, wait_idle
from tests.networks import STYLES, Rectified

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(done, total, text=""):
    pass


def captured(model, inputs, folder, spec, classes=10):
    labels = [i % classes for i in range(len(inputs))]
    data = list(zip(inputs, labels, strict=True))
    return dnnviz.capture(model, data, folder, classes=[str(i) for i in range(classes)], inputs=len(data), model_spec=spec)


def silence(model, convolution, norm, chosen):
    """Set the weights and biases of units to zero, those of the normalisation behind as well."""
    with torch.no_grad():
        for path in filter(None, (convolution, norm)):
            module = model.get_submodule(path)
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    parameter[chosen] = 0


def at(run, numbers):
    """{(layer, unit)} of global numbers."""
    return {(name, int(unit)) for name, own in keys.by_layer(run, numbers).items() for unit in own}


@pytest.fixture(scope="module")
def digits_run():
    return dnnviz.open_run(DEMO_RUNS / "digits")


@pytest.fixture(scope="module")
def pictures():
    """Random pictures with structure, float32 [6, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(0)
    return nn.functional.interpolate(torch.randn(6, 3, 8, 8, generator=generator), 32, mode="bicubic")


# -- planted dead units ----------------------------------------------------------------------------------------------


def planted_in_digits(digits_run, shared_data):
    model = digits_run.load_model(digits_run.epochs[-1])
    plan = {"features.conv2": [1, 7], "features.conv4": [0, 30, 31], "classifier.hidden": [4]}
    for layer, chosen in plan.items():
        silence(model, layer, layer.replace("conv", "bn") if "conv" in layer else None, chosen)
    values = {f"features.conv{i}": model.features.get_submodule(f"relu{i}") for i in range(1, 5)} | {"classifier.hidden": model.classifier.relu}
    return model, torch.from_numpy(digits_run.network_inputs(np.arange(60))), "dnnviz:small_cnn?width=8", plan, values


def planted_in_resnet(digits_run, shared_data):
    from tests import trained

    model = trained.resnet20(shared_data)
    plan = {"conv1": [3], "layer1.1.conv1": [0, 15], "layer2.0.conv2": [9], "layer3.2.conv1": [33, 34, 63]}
    for layer, chosen in plan.items():
        silence(model, layer, layer.replace("conv", "bn"), chosen)
    relus = {f"{block}.conv1": model.get_submodule(f"{block}.relu1") for block in blocks()}
    norms = {f"{block}.conv2": model.get_submodule(f"{block}.bn2") for block in blocks()}
    return model, trained.cifar(shared_data, 12), "dnnviz:resnet20", plan, {"conv1": model.relu} | relus | norms


def zero_everywhere(model, inputs, values):
    """{(layer, unit)} that are zero on every input and position, seen by hooks on the modules that give the layers' values."""
    found: set[tuple[str, int]] = set()
    hooks = [
        module.register_forward_hook(
            lambda _, __, out, name=name: found.update((name, int(u)) for u in np.flatnonzero(out.abs().transpose(0, 1).flatten(1).amax(dim=1) == 0))
        )
        for name, module in values.items()
    ]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return found


def blocks():
    return [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]


@pytest.mark.parametrize("planted", [planted_in_digits, planted_in_resnet])
def test_planted_dead_units_are_all_found_nothing_else_and_removing_them_changes_nothing(planted, digits_run, tmp_path, shared_data):
    model, inputs, spec, plan, values = planted(digits_run, shared_data)
    run = captured(model.eval(), inputs, tmp_path / "run", spec)
    dead = zero_everywhere(model, inputs, values)
    assert {(layer, unit) for layer, chosen in plan.items() for unit in chosen} <= dead
    costs, magnitude = costs_of(run, model)
    found = units(run, 0)
    may = keys.allowed(run, costs)
    assert at(run, np.flatnonzero(found.dead & may)) == dead
    proposed = keys.proposed(run, 0, keys.Proposal("dead"), costs, magnitude)
    assert at(run, proposed) == dead
    program = Program(model, inputs)
    batch = inputs[: program.size]
    [without] = program.logits(batch, [[Edit(name, own) for name, own in keys.by_layer(run, proposed).items()]])
    with torch.no_grad():
        np.testing.assert_allclose(without, model(batch).numpy(), atol=1e-5)
    # By every criterion but chance and weights they go before all others; planted ones have no weights either.
    for name in ("activation", "apoz", "redundancy"):
        order = criteria.order(CRITERIA[name], keys.material(run, 0, magnitude), may)
        assert at(run, order[: len(dead)]) == dead, name


def costs_of(run, model, epoch=0) -> tuple[Costs, np.ndarray]:
    with torch.no_grad():
        return network_costs(run, model, find_layers(model, torch.from_numpy(run.network_inputs([0]))))


# -- costs -----------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Convolution, batch norm, ReLU, two branches that are joined, pooling, a flattened map, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.left, self.right = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 3, padding=1)
        self.hidden, self.out = nn.Linear(8 * 4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.a(x)))
        x = torch.cat([torch.relu(self.left(x)), self.right(x).relu_()], dim=1)
        x = nn.functional.max_pool2d(x, 2).flatten(1)
        return self.out(torch.relu(self.hidden(x)))


@pytest.fixture
def small(tmp_path):
    torch.manual_seed(3)
    model = Small().eval()
    for tensor in (model.norm.running_mean, model.norm.weight, model.norm.bias):
        nn.init.uniform_(tensor, -0.5, 1.5)
    inputs = torch.rand(16, 1, 4, 4)
    return model, inputs, captured(model, inputs, tmp_path / "small", None, classes=2)


def test_parameters_and_multiply_adds_are_those_of_a_hand_count(small):
    model, _, run = small
    costs, magnitude = costs_of(run, model)
    by_name = {cost.name: cost for cost in costs.layers}
    assert costs.parameters == 36 + 8 + (12 + 3) + (180 + 5) + (192 + 6) + (12 + 2)
    assert costs.macs == 16 * (36 + 12 + 180) + 192 + 12
    assert [(c.weights, c.bias, c.norm, c.macs) for c in costs.layers] == [
        (36, 0, 2, 576),
        (12, 3, 0, 192),
        (180, 5, 0, 2880),
        (192, 6, 0, 192),
        (12, 2, 0, 12),
    ]
    assert not by_name["out"].prunable and by_name["hidden"].prunable
    names = [layer.name for layer in run.layers]
    # A unit of `right` is the four places of a map behind the three maps of `left`.
    assert by_name["right"].links == ((names.index("hidden"), 12, 4),)
    assert sorted(by_name["a"].links) == [(names.index("left"), 0, 1), (names.index("right"), 0, 1)]
    np.testing.assert_allclose(magnitude[:4], model.a.weight.abs().sum(dim=(1, 2, 3)).detach(), rtol=1e-6)
    # One unit of `a`: its 9 weights, 2 of batch norm, 3 inputs of `left`, 45 of `right`; 16 positions.
    removed = np.array([1 if name == "a" else 0 for name in names])
    saved = saving(costs, removed)
    assert (saved.parameters, saved.macs) == (9 + 2 + 3 + 45, 16 * (9 + 3 + 45))
    # Units of `a` and `right` share 9 weights, which are counted once.
    removed[names.index("right")] = 1
    saved = saving(costs, removed)
    assert (saved.parameters, saved.macs) == (59 + 36 + 1 + 24 - 9, 16 * (57 + 36 - 9) + 24)
    assert saving(costs, counted(costs, [layer.offset for layer in run.layers], np.array([0, run.layer("right").offset]))) == saved


def test_what_reaches_an_addition_keeps_the_weights_behind_it(resnet20, pictures, tmp_path):
    run = captured(resnet20, pictures[:2], tmp_path / "run", "dnnviz:resnet20")
    costs, _ = costs_of(run, resnet20)
    cut = {cost.name for cost in costs.layers if cost.cut}
    assert {cost.name for cost in costs.layers if cost.merges} == cut == {f"{block}.conv1" for block in blocks()}
    assert costs.parameters == 269_722
    assert costs.macs == 40_551_040
    assert {cost.name for cost in costs.layers if not cost.prunable} == {*blocks(), "linear"}
    position = [layer.name for layer in run.layers].index("layer2.1.conv1")
    removed = np.zeros(len(run.layers), dtype=int)
    removed[position] = 2
    assert saving(costs, removed).parameters == 2 * (32 * 9 + 2 + 32 * 9)


class Three(nn.Module):
    """Three convolutions, the last of which may be the second one again, have its weights, or make the second one's anew on every pass."""

    def __init__(self, second: str) -> None:
        super().__init__()
        self.first, self.second, self.third, self.out = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        if second == "called twice":
            self.third = self.second
        elif second == "tied":
            self.third.weight = self.second.weight
        elif second == "normed":
            nn.utils.parametrizations.weight_norm(self.second)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.first, self.second, self.third):
            x = torch.relu(layer(x))
        return self.out(x.mean(dim=(2, 3)))


@pytest.mark.parametrize(("second", "own"), [("plain", True), ("called twice", False), ("tied", False), ("normed", False)])
def test_only_weights_that_serve_one_input_are_cut_or_given_other_units(second, own, tmp_path):
    torch.manual_seed(4)
    model = Three(second).eval()
    costs, _ = costs_of(captured(model, torch.rand(3, 1, 8, 8), tmp_path / "run", None, classes=3), model)
    first = costs.layers[0]
    assert (first.name, first.prunable, first.cut, first.merges, bool(first.links)) == ("first", True, own, own, own)


def test_a_batch_norm_of_two_layers_is_not_cut_with_one_of_them(tmp_path):
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    costs, _ = costs_of(captured(model, torch.rand(3, 1, 8, 8), tmp_path / "run", None, classes=3), model)
    assert [(cost.prunable, cost.cut, cost.merges) for cost in costs.layers[:2]] == [(True, False, False)] * 2


# -- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_running_again_only_what_changed_equals_the_whole_network(style):
    torch.manual_seed(0)
    model = Rectified(style).eval()
    inputs = torch.rand(5, 3, 8, 8)
    program = Program(model, inputs)
    reference = Rectified("functional").eval()
    reference.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        first = reference.a(inputs).relu()
        second = reference.norm(reference.b(first)).relu()
        second[:, [2, 5]] = 0
        joined = torch.cat([first, first + second], dim=1)
        expected = reference.c(joined).relu().mean(dim=(2, 3)).numpy()
    edits = [Edit("b", np.array([2, 5]))], [Edit("b", np.array([2])), Edit("b", np.array([5]))]
    [same, changed, apart] = program.logits(inputs, [[], *edits])
    np.testing.assert_allclose(changed, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(apart, changed)
    with torch.no_grad():
        np.testing.assert_allclose(same, model(inputs).numpy(), rtol=1e-5, atol=1e-6)
    assert np.abs(changed - same).max() > 1e-3
    if program.exact:
        assert program.work([Edit("c", np.array([0]))]) < program.work([Edit("b", np.array([0]))]) < program.work([Edit("a", np.array([0]))])
    assert not any(module._forward_hooks for module in model.modules())


def test_masks_on_several_layers_equal_hooks_on_the_whole_network(resnet20, pictures):
    program = Program(resnet20, pictures)
    assert program.exact
    sets = [
        [Edit("conv1", np.array([0, 5]))],
        [Edit("layer1.2.conv1", np.arange(8)), Edit("layer3.0.conv2", np.array([1]), np.array([0.7], dtype=np.float32))],
        [Edit("layer3.2.conv2", np.arange(64))],
    ]
    few = pictures[:5]  # fewer than a batch
    for quick, whole in zip(program.logits(few, sets), program.logits(few, sets, whole=True), strict=True):
        assert quick.shape == (5, 10)
        np.testing.assert_allclose(quick, whole, rtol=1e-4, atol=1e-5)
    assert program.work(sets[2]) < 0.1


def test_a_network_that_looks_at_its_data_is_run_as_a_whole():
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.relu, self.b = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sign = 1.0 if float(x[0, 0, 0, 0]) > 0.5 else -1.0
            return self.b(self.relu(self.a(x)).mean(dim=(2, 3))) * sign

    torch.manual_seed(0)
    model = Fickle().eval()
    inputs = torch.rand(4, 1, 6, 6)
    inputs[0, 0, 0, 0], inputs[0, 0, 0, -1] = 0.9, 0.1
    program = Program(model, inputs)
    assert not program.exact
    other = inputs.flip(-1)
    [changed] = program.logits(other, [[Edit("a", np.array([1, 2]))]])
    with torch.no_grad():
        value = model.relu(model.a(other))
        value[:, [1, 2]] = 0
        np.testing.assert_allclose(changed, -model.b(value.mean(dim=(2, 3))).numpy(), rtol=1e-5, atol=1e-6)


# -- merging ---------------------------------------------------------------------------------------------------------


class Chain(nn.Module):
    """Two convolutions and a linear layer; what takes the first one's units has a batch norm for a bias, what takes the second one's a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 3, bias=False)
        self.norm, self.out = nn.BatchNorm2d(5), nn.Linear(5 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.b(torch.relu(self.a(x)))))
        return self.out(nn.functional.max_pool2d(x, 2).flatten(1))


def test_a_unit_that_follows_another_is_taken_from_that_one(tmp_path):
    torch.manual_seed(1)
    model = Chain().eval()
    with torch.no_grad():
        # Unit 2 of `a` is 1.5 · unit 0 + 3, unit 4 of `b` half of unit 1 + 1; both are above zero everywhere.
        model.a.bias[0], model.a.weight[2] = 4.0, 1.5 * model.a.weight[0]
        model.a.bias[2] = 1.5 * 4.0 + 3
        model.b.weight[4] = model.b.weight[1]
        model.norm.bias[1], model.norm.bias[4], model.norm.weight[4] = 20.0, 11.0, 0.5 * model.norm.weight[1]
    inputs = torch.rand(12, 1, 8, 8)
    run = captured(model, inputs, tmp_path / "chain", None, classes=3)
    costs, _ = costs_of(run, model)
    assert [cost.merges for cost in costs.layers] == [True, True, False]
    program = Program(model, inputs)
    chosen = {"a": np.array([2]), "b": np.array([4])}
    edits = [Edit(name, own) for name, own in chosen.items()]
    known = moments(program, inputs, list(chosen))
    partner, slope, intercept = known["a"].fit(np.array([2]), centred=True)
    assert partner.tolist() == [0] and slope == pytest.approx([1.5], rel=1e-4) and intercept == pytest.approx([3], rel=1e-3)
    [before, zero] = program.logits(inputs, [[], edits])
    with swapped(model, merged(model, program, costs, chosen, known)):
        [given] = program.logits(inputs, [edits])
        small, stay = sliced(model, program.found, costs, chosen)
    assert np.abs(zero - before).max() > 0.1
    np.testing.assert_allclose(given, before, atol=2e-3)
    with torch.no_grad():
        np.testing.assert_allclose(small(inputs).numpy(), given, atol=1e-5)
        np.testing.assert_allclose(model(inputs).numpy(), before, atol=1e-6, err_msg="the network itself is as it was")
    assert not stay and small.b.weight.shape == (4, 3, 3, 3)
    # A dead unit leaves nothing, and what is left of a layer may be a single unit.
    dead = Moments(np.array([0.0, 2.0]), np.array([[0.0, 0.0], [0.0, 5.0]])).fit(np.array([0]), centred=True)
    assert [part.tolist() for part in dead] == [[1], [0], [0]]


# -- exports ---------------------------------------------------------------------------------------------------------


def test_the_smaller_network_gives_what_the_masked_one_gives(small):
    model, inputs, run = small
    costs, _ = costs_of(run, model)
    with torch.no_grad():
        found = find_layers(model, inputs)
    chosen = {"a": np.array([1]), "left": np.array([0, 2]), "right": np.array([4]), "hidden": np.array([0, 5])}
    zero, (cut, stay) = masked(model, found, chosen), sliced(model, found, costs, chosen)
    assert not stay
    [measured] = Program(model, inputs).logits(inputs, [[Edit(name, own) for name, own in chosen.items()]])
    with torch.no_grad():
        np.testing.assert_allclose(zero(inputs).numpy(), measured, atol=1e-6)
        np.testing.assert_allclose(cut(inputs).numpy(), measured, atol=1e-6)
        assert np.abs(model(inputs).numpy() - measured).max() > 1e-3, "the network itself is as it was"
    plain = Small().eval()
    plain.load_state_dict(zero.state_dict(), strict=True)
    assert not plain.a.weight[1].any() and not plain.norm.bias[1]
    removed = counted(
        costs, [layer.offset for layer in run.layers], np.sort(np.concatenate([own + run.layer(n).offset for n, own in chosen.items()]))
    )
    assert sum(p.numel() for p in cut.parameters()) == costs.parameters - saving(costs, removed).parameters
    again = load_sliced(Small().eval(), cut.state_dict())
    with torch.no_grad():
        np.testing.assert_allclose(again(inputs).numpy(), measured, atol=1e-6)
    assert (again.left.in_channels, again.left.out_channels, again.norm.num_features, again.hidden.in_features) == (3, 1, 3, 20)


# -- the job ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(runs=(DEMO_RUNS,), cache=tmp_path_factory.mktemp("cache"))


def ask(settings, what, **params):
    found = task.run(settings, {"run": "digits", "epoch": 25, "what": what, **params}, quiet)
    return found, Results(settings.private_cache() / "results").get(found[-1])


def test_the_job_measures_the_curve_and_the_proposal(settings, digits_run, monkeypatch):
    asked = {"criteria": ["activation", "random"], "proposal": {"which": "dead"}, "split": "test", "most": 80}
    found, arrays = ask(settings, "verify", **asked)
    about = keys.unpacked(arrays["about"])
    inputs = keys.inputs_of(digits_run, "test", 80)
    assert about["inputs"] == 80 and about["splits"] == {"test": 80} and about["exact"]
    before = (digits_run.logits(25)[inputs].argmax(axis=1) == digits_run.labels[inputs]).mean()
    assert about["before"] == pytest.approx(before)
    assert about["proposed"]["units"] == 2 and about["proposed"]["agreement"] == 1
    assert arrays["counts"][0] == 0 and (np.diff(arrays["counts"]) > 0).all()
    np.testing.assert_allclose(arrays["accuracy"][:, 0], before)
    assert (arrays["low"][1] <= arrays["accuracy"][1] + 1e-9).all() and (arrays["accuracy"][1] <= arrays["high"][1] + 1e-9).all()
    # With a tenth of the units gone the criterion holds and chance does not.
    tenth = int(np.flatnonzero(arrays["counts"] == 12)[0])
    assert arrays["accuracy"][0, tenth] > before - 0.05 > arrays["high"][1, tenth]
    assert (np.diff(arrays["parameters"][0]) > 0).all()
    # The same at one point by hand, with units set to zero by hooks.
    costs, magnitude = keys.get_costs(Results(settings.private_cache() / "results"), digits_run, 25)
    order = criteria.order(CRITERIA["activation"], keys.material(digits_run, 25, magnitude), keys.allowed(digits_run, costs))
    images = torch.from_numpy(digits_run.network_inputs(inputs))
    edits = [Edit(name, own) for name, own in keys.by_layer(digits_run, order[:24]).items()]
    [logits] = Program(digits_run.load_model(25), images).logits(images, [edits], whole=True)
    at_24 = int(np.flatnonzero(arrays["counts"] == 24)[0])
    assert arrays["accuracy"][0, at_24] == pytest.approx((logits.argmax(axis=1) == digits_run.labels[inputs]).mean())
    monkeypatch.setattr(task, "load_snapshot", lambda *_, **__: pytest.fail("the network was built again"))
    assert ask(settings, "verify", **asked)[0] == found


def test_the_job_switches_units_off(settings, digits_run):
    run = digits_run
    preferring = keys.parse_units(run, 25, "classifier.hidden:prefers 4")["classifier.hidden"]
    means = run.class_mean(25, "classifier.hidden")
    assert (means[:, preferring].argmax(axis=0) == 4).all() and len(preferring)
    _, off = ask(settings, "ablate", units="classifier.hidden:prefers 4", to="zero", split="all")
    labels = run.labels[off["inputs"]]
    np.testing.assert_array_equal(off["before"], run.logits(25).argmax(axis=1))
    lost = [(off["before"] == labels)[labels == c].mean() - (off["after"] == labels)[labels == c].mean() for c in range(10)]
    assert np.argmax(lost) == 4 and lost[4] > 0.8 and np.delete(lost, 4).max() < 0.1
    # To their mean: what the network gives when the hidden layer is replaced by hand.
    _, mean = ask(settings, "ablate", units=f"classifier.hidden:{','.join(map(str, preferring))}", to="mean", split="all")
    model, images = run.load_model(25), torch.from_numpy(run.network_inputs(np.arange(run.kept)))
    with torch.no_grad():
        hidden = model.classifier.relu(model.classifier.hidden(model.flatten(model.pool(model.features(images)))))
        hidden[:, preferring] = torch.from_numpy(run.data_mean(25, "classifier.hidden")[preferring])
        np.testing.assert_array_equal(mean["after"], model.classifier.output(hidden).argmax(dim=1).numpy())


def test_the_exported_weights_load_and_do_what_was_measured(settings, digits_run):
    proposal = {"which": "activation", "share": 15}
    model = digits_run.load_model(25)
    images = torch.from_numpy(digits_run.network_inputs(np.arange(32)))
    results = Results(settings.private_cache() / "results")
    outputs = {}
    for kind in keys.FILES:
        _, arrays = ask(settings, "export", proposal=proposal, kind=kind)
        state = torch.load(io.BytesIO(arrays["content"].tobytes()), weights_only=True)
        network = build("dnnviz:small_cnn?width=8", num_classes=10, in_channels=1) if kind == "masked" else digits_run.load_model(25)
        if kind == "masked":
            network.load_state_dict(state, strict=True)
        else:
            load_sliced(network, state)
        with torch.no_grad():
            outputs[kind] = network.eval()(images).numpy()
        assert keys.unpacked(arrays["about"])["removed"] == 18
    costs, magnitude = keys.get_costs(results, digits_run, 25)
    removed = keys.proposed(digits_run, 25, keys.proposal(proposal), costs, magnitude)
    [measured] = Program(model, images).logits(images, [[Edit(name, own) for name, own in keys.by_layer(digits_run, removed).items()]])
    for kind, output in outputs.items():
        np.testing.assert_allclose(output, measured, atol=1e-5, err_msg=kind)


def test_redundant_units_that_are_merged_keep_what_zeros_lose(settings, digits_run):
    proposal = {"which": "redundancy", "share": 20}
    _, arrays = ask(settings, "export", proposal=proposal, kind="masked")
    assert keys.unpacked(arrays["about"])["merged"]
    network = build("dnnviz:small_cnn?width=8", num_classes=10, in_channels=1)
    network.load_state_dict(torch.load(io.BytesIO(arrays["content"].tobytes()), weights_only=True), strict=True)
    inputs = keys.inputs_of(digits_run, "test", 0)
    images, labels = torch.from_numpy(digits_run.network_inputs(inputs)), digits_run.labels[inputs]
    known = keys.get_costs(Results(settings.private_cache() / "results"), digits_run, 25)
    removed = keys.proposed(digits_run, 25, keys.proposal(proposal), *known)
    edits = [Edit(name, own) for name, own in keys.by_layer(digits_run, removed).items()]
    [zeros] = Program(digits_run.load_model(25), images).logits(images, [edits])
    with torch.no_grad():
        given = network.eval()(images).numpy()
    assert (given.argmax(axis=1) == labels).mean() > 0.95 > 0.9 > (zeros.argmax(axis=1) == labels).mean()
    # The curve measures the same network.
    _, curve = ask(settings, "verify", criteria=["redundancy"], proposal=proposal, split="test", most=0)
    assert keys.unpacked(curve["about"])["proposed"]["accuracy"] == pytest.approx((given.argmax(axis=1) == labels).mean())
    assert curve["accuracy"][0][curve["counts"] == len(removed)] == pytest.approx((given.argmax(axis=1) == labels).mean())


def test_what_cannot_be_is_a_sentence(settings, digits_run):
    for what, params, error, words in (
        ("magic", {}, DNNVizError, "cannot be computed"),
        ("verify", {"criteria": []}, DNNVizError, "at least one criterion"),
        ("verify", {"criteria": ["taste"]}, DNNVizError, "no criterion 'taste'"),
        ("verify", {"criteria": ["random"], "split": "moon"}, DNNVizError, "no split “moon”"),
        ("verify", {"criteria": ["random"], "proposal": {"which": "redundant", "threshold": 0.3}}, DNNVizError, "The threshold is 0.3"),
        ("ablate", {"units": "nowhere:3"}, RunError, "no layer 'nowhere'"),
        ("ablate", {"units": "features.conv1:3-99"}, DNNVizError, "units 0 to 7"),
        ("ablate", {"units": "features.conv1:prefers 12"}, DNNVizError, "no class “12”"),
        ("ablate", {"units": " ; "}, DNNVizError, "No unit is named"),
        ("ablate", {"units": "features.conv1:1", "to": "one"}, DNNVizError, "'one'"),
        ("export", {"proposal": {"which": "dead"}, "kind": "pickle"}, DNNVizError, "'pickle'"),
        ("costs", {"epoch": 99}, RunError, "99"),
    ):
        with pytest.raises(error, match=words):
            ask(settings, what, **params)
    for text, expected in (
        ("*:dead", "classifier.hidden:3,15"),
        ("features.conv1:all", "features.conv1:0-7"),
        ("features.conv1:saturated", "features.conv1:0-7"),
    ):
        assert keys.units_text(keys.parse_units(digits_run, 25, text)) == expected
    text = "features.conv2:0,2-4,9; classifier.hidden:31"
    assert keys.units_text(keys.parse_units(digits_run, 25, text)) == text


def test_every_layer_keeps_a_unit_and_the_control_is_drawn_anew(settings, digits_run):
    ask(settings, "costs")
    costs, magnitude = keys.get_costs(Results(settings.private_cache() / "results"), digits_run, 25)
    may = keys.allowed(digits_run, costs)
    assert may.sum() == 120
    orders = {name: criteria.order(c, keys.material(digits_run, 25, magnitude), may) for name, c in CRITERIA.items()}
    for name, order in orders.items():
        assert len(order) == len(set(order.tolist())) == 115, name
        left = np.setdiff1d(np.flatnonzero(may), order)
        assert [layer.name for layer in digits_run.layers[:5]] == list(keys.by_layer(digits_run, left)), name
    again = criteria.order(CRITERIA["random"], keys.material(digits_run, 25, magnitude, 1), may)
    assert (again != orders["random"]).any()


# -- the view --------------------------------------------------------------------------------------------------------


def cell(page, layer, unit):
    """Middle of a unit's cell in the window, after scrolling to it."""
    where = """([layer, unit]) => {
        const grid = dnnviz.pruning.grid();
        grid.host.scrollIntoView({ block: "center" });
        const [box, frame] = [grid.box(layer, unit), grid.host.getBoundingClientRect()];
        return [frame.left + grid.panelLeft[0] + box.x + grid.pitch / 2, frame.top + box.y + grid.pitchY / 2];
    }"""
    return page.evaluate(where, [layer, unit])


def test_the_view_chooses_switches_off_verifies_and_exports(page, make_live_app, tmp_path):
    from tests.runs import write_run

    write_run(tmp_path / "runs" / "plain")
    app = make_live_app(runs=[tmp_path / "runs", DEMO_RUNS])
    page.goto(app.url + "/diagnosis?run=digits&view=pruning&prune-by=activation,random&prune-most=100")
    # Asked for at once, while the page looks at the network by itself: neither ends the other.
    page.get_by_role("button", name="Verify", exact=True).click()
    page.locator("#pruning-curve", has_text="changes no prediction").wait_for()
    page.locator(".dv-pruning-table .barred", has_text="56 %").wait_for()
    wait_idle(page)
    table = page.locator(".dv-pruning-table tbody tr")
    assert table.count() == 6 and table.nth(4).locator(".course").count() == 6
    assert "2 dead units" in page.locator("#pruning-layers").inner_text()
    proposal = page.locator("#pruning-proposal")
    assert "Dead and redundant units: 2 of 120 units" in proposal.inner_text()
    assert "Removing the proposal's 2 units changes no prediction" in page.locator("#pruning-curve").inner_text()
    assert page.locator(".dv-pruning-reach tbody tr").count() == 2
    with page.expect_download() as download:
        proposal.get_by_role("link", name="List as CSV").click()
    rows = list(csv.reader(download.value.path().read_text().splitlines()))
    assert [row[:2] for row in rows[1:]] == [["classifier.hidden", "3"], ["classifier.hidden", "15"]]
    proposal.get_by_role("button", name="Make a smaller network").click()
    with page.expect_download() as download:
        proposal.get_by_role("link", name="Save the smaller network").click()
    assert torch.load(download.value.path(), weights_only=True)["classifier.hidden.weight"].shape == (30, 32)
    # Units are chosen in the grid: a click, a range with Shift, a range drawn, the keyboard, a layer by its name.
    field, count = page.locator(".dv-pruning-bar .field input"), page.locator("#pruning-count")
    page.mouse.click(*cell(page, "features.conv2", 2))
    page.keyboard.down("Shift")
    page.mouse.click(*cell(page, "features.conv2", 4))
    page.keyboard.up("Shift")
    page.mouse.click(*cell(page, "features.conv2", 3))
    page.mouse.move(*cell(page, "features.conv1", 6))
    page.mouse.down()
    page.mouse.move(*cell(page, "features.conv1", 1), steps=2)
    page.mouse.up()
    page.locator("#pruning-grid").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.wait_for_function("text => dnnviz.selection.ablate === text", arg="features.conv1:1,3-6; features.conv2:2,4")
    wait_idle(page)
    page.locator("#pruning-grid .dv-grid-label[data-layer='features.conv3']").click()
    assert count.inner_text() == "39 of 130 units chosen, in 3 layers"
    page.get_by_role("button", name="Choose none").click()
    # All units of the hidden layer that prefer the class 4.
    page.locator("#pruning-prefer").select_option("4")
    page.get_by_role("button", name="Add").click()
    page.wait_for_function("() => dnnviz.selection.ablate === 'classifier.hidden:prefers 4'")
    page.get_by_role("button", name="Switch off").click()
    page.locator(".dv-pruning-classes").wait_for(timeout=2 * TIMEOUT)
    wait_for_jobs(page)
    assert page.locator(".dv-pruning-classes tbody tr").first.inner_text().startswith("4")
    assert "ablate=classifier.hidden:prefers+4" in page.url and count.inner_text() == "5 of 130 units chosen, in 1 layer"
    saved = page.evaluate("async () => (await dnnviz.picture.compose()).svg")
    assert "features.conv4" in saved and "units removed, of 120" in saved and "changes no prediction" in saved
    # A run without its network shows its units and says what is missing.
    address = page.evaluate("location.pathname + location.search")
    page.evaluate("dnnviz.go('/diagnosis?run=plain&view=pruning')")
    page.locator("#pruning-proposal .dv-empty").wait_for()
    wait_idle(page)
    assert "does not say how to build its network" in page.locator("#pruning-proposal").inner_text()
    assert table.count() == 4
    assert page.get_by_role("button", name="Verify").count() == 0
    # The address gives all of it back; what was computed is there at once.
    page.evaluate("address => dnnviz.go(address)", address)
    page.locator("#pruning-graph .js-plotly-plot").wait_for()
    page.locator(".dv-pruning-classes").wait_for()
    wait_idle(page)
    assert count.inner_text() == "5 of 130 units chosen, in 1 layer"
    field.fill("features.conv9:1")
    page.keyboard.press("Enter")
    page.locator("#pruning-ablation .alert").wait_for()
    assert "no layer 'features.conv9'" in page.locator("#pruning-ablation").inner_text()
