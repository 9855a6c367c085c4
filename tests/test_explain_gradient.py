"""Attribution by gradients against Captum and Zennit on trained networks, and against closed forms."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dnnviz.explain import attribute, attribute_all
from tests import trained
from tests.networks import STYLES, Rectified
from tests.trained import MEAN, STD, close, predicted

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = {"smoothgrad": {"samples": 4}, "integrated_gradients": {"steps": 4}}
METHODS = ("saliency", "input_x_gradient", "smoothgrad", "integrated_gradients", "deconvnet", "guided_backprop", "full_gradient")


@pytest.fixture(scope="module")
def resnet20(shared_data):
    return trained.resnet20(shared_data), trained.cifar(shared_data)


@pytest.fixture(scope="module")
def squeezenet(shared_data):
    return trained.squeezenet(shared_data), trained.photos(shared_data, ("cat_dog.png",))


@pytest.fixture(params=["resnet20", "squeezenet"])
def network(request):
    return request.getfixturevalue(request.param)


def rectified(style="module", channels=3):
    """The network in one style, always with the same weights, and inputs of it."""
    torch.manual_seed(1)
    return Rectified(style, channels).eval(), torch.randn(3, channels, 9, 9)


def test_saliency_is_captums(network):
    from captum.attr import Saliency

    model, inputs = network
    reference = Saliency(model).attribute(inputs.clone().requires_grad_(), target=predicted(model, inputs))
    found = attribute(model, inputs, "saliency")
    close(found.values, reference)
    close(found.heatmap, reference.amax(dim=1))
    signed = attribute(model, inputs, "saliency", absolute=False)
    close(np.abs(signed.values), reference)
    close(np.abs(signed.heatmap), reference.amax(dim=1))


def test_input_x_gradient_is_captums(network):
    from captum.attr import InputXGradient

    model, inputs = network
    reference = InputXGradient(model).attribute(inputs.clone().requires_grad_(), target=predicted(model, inputs))
    found = attribute(model, inputs, "input_x_gradient")
    close(found.values, reference)
    close(found.heatmap, reference.sum(dim=1))


@pytest.mark.parametrize(
    ("method", "captums", "zennits"), [("guided_backprop", "GuidedBackprop", "GuidedBackprop"), ("deconvnet", "Deconvolution", "DeconvNet")]
)
def test_guided_backprop_and_deconvolution_are_captums_and_zennits(squeezenet, method, captums, zennits):
    import captum.attr
    from zennit import composites
    from zennit.attribution import Gradient

    model, inputs = squeezenet
    target = predicted(model, inputs)
    found = attribute(model, inputs, method)
    close(found.values, getattr(captum.attr, captums)(copy.deepcopy(model)).attribute(inputs.clone().requires_grad_(), target=target))
    with Gradient(copy.deepcopy(model), getattr(composites, zennits)()) as attributor:
        _, reference = attributor(inputs.clone(), torch.eye(1000)[target])
    close(found.values, reference)
    assert {note.state for note in found.notes} == {"good"}


@pytest.mark.parametrize("style", STYLES)
def test_guided_backprop_and_deconvolution_see_every_way_to_write_a_relu(style):
    from captum.attr import Deconvolution, GuidedBackprop

    (plain, inputs), (other, _) = rectified(), rectified(style)
    found = attribute_all(other, inputs, {"guided_backprop": {}, "saliency": {"absolute": False}, "deconvnet": {}}, 2)
    close(found["guided_backprop"].values, GuidedBackprop(copy.deepcopy(plain)).attribute(inputs.clone().requires_grad_(), target=2))
    close(found["deconvnet"].values, Deconvolution(copy.deepcopy(plain)).attribute(inputs.clone().requires_grad_(), target=2))
    leaf = inputs.clone().requires_grad_()
    close(found["saliency"].values, torch.autograd.grad(plain(leaf)[:, 2].sum(), leaf)[0])
    assert not np.allclose(found["guided_backprop"].values, found["deconvnet"].values)


@pytest.mark.parametrize("rectifier", [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, nn.Hardtanh(0, 6), lambda x: x.clamp(0, 6)])
def test_deconvolution_passes_a_clipped_relu_whether_it_was_open_or_not(rectifier):
    class Clipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)

        def forward(self, x):
            return self.b(rectifier(4 * self.a(x))).mean(dim=(2, 3))

    torch.manual_seed(0)
    model, inputs = Clipped().eval(), 3 * torch.randn(2, 3, 8, 8)
    back = torch.autograd.functional.vjp(lambda x: model.b(x)[:, 1].mean(dim=(1, 2)), torch.zeros(2, 6, 6, 6), torch.ones(2))[1]
    reference = torch.autograd.functional.vjp(lambda x: 4 * model.a(x), inputs, back.clamp(min=0))[1]
    found = attribute(model, inputs, "deconvnet", 1)
    close(found.values, reference)
    assert found.notes[0].state == "good"


def test_a_unit_behind_a_single_relu_has_the_plain_gradient_and_says_so(resnet20):
    model, inputs = resnet20
    found = attribute_all(model, inputs, {"guided_backprop": {}, "saliency": {"absolute": False}}, "unit:conv1:5")
    np.testing.assert_array_equal(found["guided_backprop"].values, found["saliency"].values)
    assert {note.state for note in found["guided_backprop"].notes} == {"degenerate"}
    assert {note.text for note in found["guided_backprop"].notes} == {"equals the plain gradient: no ReLU changes it"}
    deeper = attribute(model, inputs, "guided_backprop", "unit:layer1.0.conv2:5")
    assert {note.state for note in deeper.notes} == {"good"}


def test_gradients_of_one_question_share_a_forward_pass():
    model, inputs = rectified()
    calls = []
    model.register_forward_pre_hook(lambda module, args: calls.append(1))
    methods = {"guided_backprop": {}, "saliency": {}, "deconvnet": {}, "input_x_gradient": {}}
    together = attribute_all(model, inputs, methods)
    assert len(calls) == 1
    for name in methods:
        np.testing.assert_array_equal(together[name].values, attribute(model, inputs, name).values)


@pytest.mark.parametrize(("reduce", "captums"), [("mean", "smoothgrad"), ("squares", "smoothgrad_sq"), ("variance", "vargrad")])
def test_smoothgrad_is_captums_under_the_same_noise(resnet20, reduce, captums, monkeypatch):
    from captum.attr import NoiseTunnel, Saliency

    model, inputs = resnet20
    samples, one = 6, inputs[2:3]
    spread = float(0.15 * (one.max() - one.min()))
    generator = torch.Generator().manual_seed(3)
    noise = torch.stack([torch.randn(one.shape[1:], generator=generator) for _ in range(samples)])
    monkeypatch.setattr(torch, "normal", lambda mean, std: mean + std * noise)
    tunnel = NoiseTunnel(Saliency(model))
    reference = tunnel.attribute(one, nt_type=captums, nt_samples=samples, stdevs=spread, target=predicted(model, one), abs=False)
    monkeypatch.undo()
    found = attribute(model, inputs, "smoothgrad", samples=samples, reduce=reduce, seed=3, target=predicted(model, inputs))
    close(found.values[2:3], reference)
    close(found.heatmap[2:3], reference.abs().amax(dim=1))


def test_smoothgrad_calms_down_with_more_samples_and_says_how_well_it_would_repeat(resnet20):
    model, inputs = resnet20
    few, other, many = (attribute(model, inputs[:2], "smoothgrad", samples=n, seed=seed) for n, seed in ((10, 0), (10, 1), (60, 0)))
    for row in range(2):
        promised = few.notes[row].value
        measured = np.corrcoef(few.heatmap[row].ravel(), other.heatmap[row].ravel())[0, 1]
        assert abs(promised - measured) < 0.25, (promised, measured)
        assert many.notes[row].value > promised
        assert few.notes[row].state == ("good" if promised >= 0.5 else "warning")
    np.testing.assert_array_equal(few.values, attribute(model, inputs[:2], "smoothgrad", samples=10).values)


@pytest.mark.parametrize("reduce", ["mean", "squares", "variance"])
def test_smoothgrad_of_a_square_has_a_closed_form(reduce):
    class Squares(nn.Module):
        def forward(self, x):
            return torch.stack([x.square().sum(dim=(1, 2, 3)) / 2, x.sum(dim=(1, 2, 3))], dim=1)

    inputs = torch.linspace(0, 2, 48).reshape(1, 3, 4, 4)
    found = attribute(Squares(), inputs, "smoothgrad", 0, samples=200, noise=0.25, reduce=reduce).values
    expected = {"mean": inputs, "squares": inputs**2 + 0.25, "variance": torch.full_like(inputs, 0.25)}[reduce]
    # The gradient is the noisy input itself: mean x, mean square x² + σ², variance σ², with σ = 0.25 · 2.
    assert np.abs(found - expected.numpy()).mean() < 0.1


def test_integrated_gradients_are_captums(network):
    from captum.attr import IntegratedGradients

    model, inputs = network
    steps = 50 if len(inputs) > 1 else 12
    found = attribute(model, inputs, "integrated_gradients", steps=steps)
    reference, gap = IntegratedGradients(model).attribute(
        inputs, target=torch.as_tensor(found.targets), n_steps=steps, internal_batch_size=64, return_convergence_delta=True
    )
    close(found.values, reference)
    score = model(inputs).detach().gather(1, torch.as_tensor(found.targets)[:, None])[:, 0]
    base = model(torch.zeros_like(inputs)).detach().gather(1, torch.as_tensor(found.targets)[:, None])[:, 0]
    np.testing.assert_allclose([note.value for note in found.notes], (gap.abs() / (score - base).abs()).numpy(), atol=2e-4)


def test_gradients_of_a_linear_network_have_closed_forms_and_show_each_baseline():
    torch.manual_seed(0)
    weights = torch.randn(3, 3, 12, 12)
    model = nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
    with torch.no_grad():
        model[1].weight.copy_(weights.flatten(1))
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    inputs = (torch.rand(4, 3, 12, 12) - mean) / std
    target = torch.tensor([0, 1, 2, 1])
    close(attribute(model, inputs, "saliency", target).values, weights[target].abs())
    close(attribute(model, inputs, "input_x_gradient", target).values, weights[target] * inputs)
    close(attribute(model, inputs, "smoothgrad", target, samples=3).values, weights[target])
    baselines = {}
    for name in ("mean", "black", "blur", "noise"):
        found = attribute(model, inputs, "integrated_gradients", target, steps=2, baseline=name, mean=MEAN, std=STD)
        assert max(note.value for note in found.notes) < 1e-3
        # Here the map is weights × (input − baseline).
        baselines[name] = (inputs - torch.from_numpy(found.values) / weights[target]) * std + mean
    assert torch.allclose(baselines["mean"], mean.expand_as(inputs), atol=1e-3)
    assert torch.allclose(baselines["black"], torch.zeros_like(inputs), atol=1e-3)
    assert baselines["blur"].std() < 0.5 * (inputs * std).std()
    noise = baselines["noise"]
    assert noise.min() > -1e-3 and noise.max() < 1 + 1e-3 and 0.25 < noise.std() < 0.33 and torch.allclose(noise[0], noise[3], atol=1e-3)


def bias(module):
    """What a layer gives for zero input: what it adds to each channel."""
    width = {nn.Conv2d: "in_channels", nn.Linear: "in_features", nn.BatchNorm2d: "num_features"}[type(module)]
    zero = torch.zeros(1, getattr(module, width), *([] if isinstance(module, nn.Linear) else [25, 25]))
    found = module(zero).detach()
    return found if found.ndim == 2 else found[:, :, 5:6, 5:6]


def bias_gradients(model, inputs, target):
    """(score, gradient · input, [bias · gradient of every layer, by its output]): by keeping the gradients of all outputs."""
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    outputs = []

    def keep(module, _, output):
        outputs.append((module, output))
        return output.clone()  # an in-place ReLU writes to the copy

    hooks = [module.register_forward_hook(keep) for module in layers]
    leaf = inputs.clone().requires_grad_()
    score = model(leaf)[torch.arange(len(inputs)), target]
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(score.sum(), [leaf, *(output for _, output in outputs)])
    parts = [gradient * bias(module) for (module, _), gradient in zip(outputs, gradients[1:], strict=True)]
    return score.detach(), gradients[0] * inputs, parts


def test_full_gradient_leaves_nothing_of_the_score_out(network):
    model, inputs = network
    inputs = inputs[:3]
    target = predicted(model, inputs)
    score, pixels, layers = bias_gradients(model, inputs, target)
    total = pixels.flatten(1).sum(dim=1) + sum(part.flatten(1).sum(dim=1) for part in layers)
    found = attribute(model, inputs, "full_gradient")
    np.testing.assert_allclose(total, score, rtol=1e-4)
    assert all(note.value < 1e-4 and note.state == "good" for note in found.notes)
    maps = [pixels, *(part for part in layers if part.ndim == 4)]
    size = tuple(inputs.shape[-2:])

    def enlarged(part):
        return F.interpolate(part.sum(dim=1, keepdim=True), size, mode="bilinear", align_corners=False)

    # Every bias takes part, also of layers whose bias has no place.
    close(attribute(model, inputs, "full_gradient", rescale=False).values, sum(enlarged(part.abs()) for part in maps))
    rescaled = []
    for part in maps:
        flat = part.abs().flatten(1)
        low, high = (v.reshape(-1, 1, 1, 1) for v in (flat.amin(dim=1), flat.amax(dim=1)))
        rescaled.append(enlarged((part.abs() - low) / (high - low).clamp(min=1e-30)))
    close(found.values, sum(rescaled))


@pytest.mark.parametrize("style", STYLES)
def test_full_gradient_is_complete_however_relus_are_written(style):
    (plain, inputs), (other, _) = rectified(), rectified(style)
    found = attribute(other, inputs, "full_gradient", 2)
    assert max(note.value for note in found.notes) < 1e-4
    close(found.values, attribute(plain, inputs, "full_gradient", 2).values)


def test_full_gradient_of_a_smooth_network_says_what_is_missing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    note = attribute(model, torch.randn(1, 3, 9, 9), "full_gradient").notes[0]
    assert note.state == "warning" and note.value > 1e-3 and "not piecewise linear" in note.why


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_contrasts_and_units_are_explained(method, channels):
    given = FAST.get(method, {})
    model, inputs = rectified("shared in place", channels)
    first, second, both = (attribute(model, inputs, method, target, **given) for target in ("class:1", "class:2", "class:1-class:2"))
    assert both.heatmap.shape == (3, 9, 9) and np.isfinite(both.heatmap).all()
    np.testing.assert_allclose(both.scores, first.scores - second.scores, atol=1e-6)
    if method in ("input_x_gradient", "integrated_gradients"):
        close(both.values, first.values - second.values)
    unit = attribute(model, inputs, method, "unit:b:3", **given)
    assert {note.state for note in unit.notes} <= {"good", "warning"} and unit.targets.tolist() == [-1, -1, -1]
    if method == "full_gradient":
        assert max(note.value for note in unit.notes) < 1e-4
    if method == "saliency":
        leaf = inputs.clone().requires_grad_()
        activation = model.norm(model.b(model.a(leaf).relu())).relu()[:, 3].mean(dim=(1, 2))
        close(unit.values, torch.autograd.grad(activation.sum(), leaf)[0].abs())


@pytest.mark.parametrize("method", ["smoothgrad", "integrated_gradients"])
def test_growing_maps_end_as_the_map(method):
    model, inputs = rectified()
    told = []
    given = {"smoothgrad": {"samples": 200}, "integrated_gradients": {"steps": 300}}[method]
    found = attribute(model, inputs, method, watch=lambda *event: told.append(event), **given)
    assert len(told) > 1 and [done for _, done, _, _ in told] == sorted(done for _, done, _, _ in told)
    name, done, total, heatmap = told[-1]
    assert name == method and done == total
    close(heatmap, found.heatmap)
