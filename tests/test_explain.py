"""Attribution methods against the references: Captum, Zennit and pytorch-grad-cam on trained networks, closed forms elsewhere."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dnnviz.errors import DNNVizError
from dnnviz.explain import METHODS, attribute
from dnnviz.models import build, import_torchvision

FAST = {"integrated_gradients": {"steps": 8}, "occlusion": {"window": 16, "stride": 16}}
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def normalised(images):
    return torch.from_numpy(((images.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def resnet20(shared_data):
    return build("dnnviz:resnet20", weights=shared_data / "weights" / "resnet20_cifar10.pt").eval()


@pytest.fixture(scope="module")
def cifar(shared_data):
    with np.load(shared_data / "cifar10" / "test_1000.npz") as file:
        return normalised(file["images"][:6])


@pytest.fixture(scope="module")
def squeezenet(shared_data):
    return build("torchvision:squeezenet1_1", weights=shared_data / "weights" / "squeezenet1_1_imagenet.pt").eval()


@pytest.fixture(scope="module")
def photos(shared_data):
    from PIL import Image

    names = ["cat_dog.png", "n02391049_zebra.JPEG"]
    pictures = [Image.open(shared_data / "photos" / name).convert("RGB").resize((224, 224)) for name in names]
    return normalised(np.stack([np.asarray(picture) for picture in pictures]))


def close(ours, reference):
    reference = reference.detach().numpy() if isinstance(reference, torch.Tensor) else np.asarray(reference)
    assert ours.shape == reference.shape
    error = np.abs(ours - reference).max() / np.abs(reference).max()
    assert error < 1e-4, f"relative error {error:.1e}"


def predicted(model, inputs):
    with torch.no_grad():
        return model(inputs).argmax(dim=1)


@pytest.mark.parametrize("network", ["resnet20", "squeezenet"])
def test_saliency_is_captums(network, request):
    from captum.attr import Saliency

    model, inputs = request.getfixturevalue(network), request.getfixturevalue({"resnet20": "cifar", "squeezenet": "photos"}[network])
    reference = Saliency(model).attribute(inputs.clone().requires_grad_(), target=predicted(model, inputs))
    found = attribute(model, inputs, "saliency")
    close(found.values, reference)
    close(found.heatmap, reference.amax(dim=1))
    signed = attribute(model, inputs, "saliency", absolute=False)
    close(np.abs(signed.values), reference)
    close(np.abs(signed.heatmap), reference.amax(dim=1))


def test_guided_backprop_is_captums_and_zennits(squeezenet, photos):
    from captum.attr import GuidedBackprop
    from zennit.attribution import Gradient
    from zennit.composites import GuidedBackprop as Composite

    target = predicted(squeezenet, photos)
    found = attribute(squeezenet, photos, "guided_backprop")
    close(found.values, GuidedBackprop(copy.deepcopy(squeezenet)).attribute(photos.clone().requires_grad_(), target=target))
    with Gradient(copy.deepcopy(squeezenet), Composite()) as attributor:
        _, reference = attributor(photos.clone(), torch.eye(1000)[target])
    close(found.values, reference)
    assert {note.state for note in found.notes} == {"good"}


@pytest.mark.parametrize("network", ["resnet20", "squeezenet"])
def test_integrated_gradients_are_captums(network, request):
    from captum.attr import IntegratedGradients

    model, inputs = request.getfixturevalue(network), request.getfixturevalue({"resnet20": "cifar", "squeezenet": "photos"}[network])
    steps = {"resnet20": 50, "squeezenet": 12}[network]
    found = attribute(model, inputs, "integrated_gradients", steps=steps)
    reference, gap = IntegratedGradients(model).attribute(
        inputs, target=torch.as_tensor(found.targets), n_steps=steps, internal_batch_size=64, return_convergence_delta=True
    )
    close(found.values, reference)
    score = model(inputs).detach().gather(1, torch.as_tensor(found.targets)[:, None])[:, 0]
    base = model(torch.zeros_like(inputs)).detach().gather(1, torch.as_tensor(found.targets)[:, None])[:, 0]
    np.testing.assert_allclose([note.value for note in found.notes], (gap.abs() / (score - base).abs()).numpy(), atol=2e-4)


@pytest.mark.parametrize(("window", "stride"), [(8, 8), (7, 3), (32, 32), (5, 4)])
def test_occlusion_is_captums(resnet20, cifar, window, stride):
    from captum.attr import Occlusion

    target = predicted(resnet20, cifar)
    with torch.no_grad():
        reference = Occlusion(resnet20).attribute(
            cifar, target=target, sliding_window_shapes=(3, window, window), strides=(3, stride, stride), perturbations_per_eval=16
        )
    found = attribute(resnet20, cifar, "occlusion", window=window, stride=stride)
    close(found.values, reference[:, :1])
    close(found.heatmap, reference[:, 0])


@pytest.mark.parametrize(
    ("network", "layer"),
    [("resnet20", "layer3.2"), ("resnet20", "layer2"), ("resnet20", "layer3.2.conv2"), ("squeezenet", "features.12"), ("squeezenet", "features.3")],
)
def test_grad_cam_is_captums(network, layer, request):
    from captum.attr import LayerAttribution, LayerGradCam

    model, inputs = request.getfixturevalue(network), request.getfixturevalue({"resnet20": "cifar", "squeezenet": "photos"}[network])
    target = predicted(model, inputs)
    found = attribute(model, inputs, "grad_cam", layer=layer)
    module = model.get_submodule(layer)
    reference = LayerGradCam(model, module).attribute(inputs.clone(), target=target, relu_attributions=True)
    close(found.values, reference)
    close(found.heatmap, LayerAttribution.interpolate(reference, tuple(inputs.shape[2:]), interpolate_mode="bilinear")[:, 0])
    by_module = attribute(model, inputs, "grad_cam", layer=module)
    assert by_module.layer == layer
    np.testing.assert_array_equal(by_module.values, found.values)


def test_grad_cam_is_pytorch_grad_cams(resnet20, cifar):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    found = attribute(resnet20, cifar, "grad_cam", layer="layer3.2")
    network = copy.deepcopy(resnet20)
    with GradCAM(model=network, target_layers=[network.layer3[2]]) as cam:
        reference = cam(input_tensor=cifar, targets=[ClassifierOutputTarget(int(t)) for t in found.targets])
    # The reference scales each map to 0…1.
    lowest, highest = found.heatmap.min(axis=(1, 2), keepdims=True), found.heatmap.max(axis=(1, 2), keepdims=True)
    close((found.heatmap - lowest) / (highest - lowest), reference)


def test_integrated_gradients_and_occlusion_of_a_linear_network_have_closed_forms():
    torch.manual_seed(0)
    weights = torch.randn(3, 2, 6, 6)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    with torch.no_grad():
        model[1].weight.copy_(weights.flatten(1))
    inputs = torch.randn(4, 2, 6, 6)
    target = torch.tensor([0, 1, 2, 1])
    close(attribute(model, inputs, "saliency", target).values, weights[target].abs())
    found = attribute(model, inputs, "integrated_gradients", target, steps=2)
    close(found.values, weights[target] * inputs)
    assert max(note.value for note in found.notes) < 1e-4
    blocks = (weights[target] * inputs).sum(dim=1).unflatten(2, (3, 2)).unflatten(1, (3, 2)).sum(dim=(2, 4))
    close(attribute(model, inputs, "occlusion", target, window=2, stride=2).heatmap, blocks.repeat_interleave(2, 1).repeat_interleave(2, 2))


class Rectified(nn.Module):
    """The same function written with modules (shared or not, in place or not) or with function calls."""

    def __init__(self, style):
        super().__init__()
        self.style = style
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 5, 3)
        self.relus = nn.ModuleList(nn.ReLU(inplace="place" in style) for _ in range(1 if style.startswith("shared") else 3))

    def rectify(self, x, i):
        if self.style == "functional":
            return F.relu(x)
        if self.style == "functional in place":
            return F.relu_(x)
        if self.style == "method":
            return x.relu()
        return self.relus[min(i, len(self.relus) - 1)](x)

    def forward(self, x):
        x = self.rectify(self.a(x), 0)
        x = x + self.rectify(self.b(x), 1)
        return self.rectify(self.c(x), 2).mean(dim=(2, 3))


@pytest.mark.parametrize("style", ["module in place", "shared", "shared in place", "functional", "functional in place", "method"])
def test_guided_backprop_sees_every_way_to_write_a_relu(style):
    from captum.attr import GuidedBackprop

    torch.manual_seed(1)
    plain, other = Rectified("module").eval(), Rectified(style).eval()
    other.load_state_dict(plain.state_dict())
    inputs = torch.randn(3, 3, 9, 9)
    reference = GuidedBackprop(copy.deepcopy(plain)).attribute(inputs.clone().requires_grad_(), target=2)
    close(attribute(other, inputs, "guided_backprop", 2).values, reference)


@pytest.mark.parametrize("style", ["module", "module in place", "shared in place", "functional in place"])
def test_grad_cam_reads_a_layer_before_an_in_place_relu_overwrites_it(style):
    from captum.attr import LayerGradCam

    torch.manual_seed(1)
    plain, other = Rectified("module").eval(), Rectified(style).eval()
    other.load_state_dict(plain.state_dict())
    inputs = torch.randn(3, 3, 9, 9)
    close(attribute(other, inputs, "grad_cam", 2, layer="b").values, LayerGradCam(plain, plain.b).attribute(inputs, 2, relu_attributions=True))


def test_a_layer_called_twice_is_explained_at_the_call_asked_for():
    torch.manual_seed(0)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x)).mean(dim=(2, 3))

    model, inputs = Twice(), torch.randn(2, 3, 8, 8)
    second = attribute(model, inputs, "grad_cam", 1, layer="conv#2")
    with torch.no_grad():
        close(second.values[:, 0], model.conv(model.conv(inputs))[:, 1].relu() / 64)
    assert not np.allclose(second.values, attribute(model, inputs, "grad_cam", 1, layer="conv").values)
    with pytest.raises(DNNVizError, match="called 2 times"):
        attribute(model, inputs, "grad_cam", 1, layer="conv#3")


FAMILIES = {
    "alexnet": "features.10",
    "resnet18": "layer4.1",
    "squeezenet1_1": "features.12",
    "densenet121": "features.norm5",
    "googlenet": "inception5b",
    "mobilenet_v2": "features.18",
    "mobilenet_v3_small": "features.12",
    "efficientnet_b0": "features.8",
    "shufflenet_v2_x0_5": "conv5.1",
    "regnet_y_400mf": "trunk_output.block4.block4-1",
    "mnasnet0_5": "layers.15",
    "convnext_tiny": "features.7.2",
    "vit_b_16": "encoder.layers.encoder_layer_11.ln_1",
    "swin_t": "permute",
}
SMOOTH = {"efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t"}  # GELU or SiLU only


@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_runs_on_every_family_of_torchvision(name):
    torchvision = import_torchvision()
    torch.manual_seed(0)
    extra = {"init_weights": False} if name == "googlenet" else {"image_size": 64} if name == "vit_b_16" else {}
    model = getattr(torchvision.models, name)(weights=None, num_classes=7, **extra)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)  # torchvision gives a vision transformer a zero head
    inputs = torch.randn(2, 3, 64, 64)
    for method in METHODS:
        found = attribute(model, inputs, method, target=[3, 1], **FAST.get(method, {}))
        assert found.heatmap.shape == (2, 64, 64) and found.heatmap.dtype == np.float32 and np.isfinite(found.heatmap).all()
        assert found.values.dtype == np.float32 and found.values.shape[0] == 2 and len(found.notes) == 2
        assert found.targets.tolist() == [3, 1] and found.logits.shape == (2, 7)
        np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)
        if method == "grad_cam":
            assert found.values.shape[1] == 1
            if name not in ("regnet_y_400mf",):
                assert found.layer == FAMILIES[name]
        if method == "guided_backprop":
            assert (found.notes[0].state == "degenerate") == (name in SMOOTH)


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_as_before(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones(4, 6)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    inputs = torch.randn(3, 3, 12, 12)
    original = inputs.clone()

    def check():
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        for module in model.modules():
            for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
                assert not getattr(module, hooks)
        assert torch.equal(model[5].weight.grad, torch.ones(4, 6)) and model[5].bias.grad is None and model[0].weight.grad is None
        assert not model[0].weight.requires_grad and model[5].weight.requires_grad
        assert torch.equal(inputs, original) and not inputs.requires_grad

    attribute(model, inputs, method)
    check()
    with torch.inference_mode():
        within = attribute(model, inputs, method)
    check()
    np.testing.assert_array_equal(within.values, attribute(model, inputs, method).values)
    with pytest.raises(DNNVizError):
        attribute(model, inputs, method, target=4)
    check()
    with pytest.raises(DNNVizError, match="cannot take inputs"):
        attribute(model, inputs[:, :2], method)
    check()


def test_batches_and_single_inputs_agree():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    inputs = torch.randn(300, 1, 8, 8)
    for method in METHODS:
        several = attribute(model, inputs, method, **({"steps": 4} if method == "integrated_gradients" else {}))
        alone = attribute(model, inputs[277].numpy(), method, **({"steps": 4} if method == "integrated_gradients" else {}))
        np.testing.assert_allclose(several.heatmap[277], alone.heatmap[0], atol=1e-6)
        assert several.targets[277] == alone.targets[0] and len(several.notes) == 300


def test_a_network_that_views_its_features_is_explained_as_well():
    torch.manual_seed(0)

    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 5, 3), nn.Linear(5 * 36, 4)

        def forward(self, x):
            return self.head(self.conv(x).relu().view(len(x), -1))

    model, inputs = Viewing(), torch.randn(40, 3, 8, 8)
    reference = inputs.clone().requires_grad_()
    gradient = torch.autograd.grad(model(reference)[:, 2].sum(), reference)[0]
    close(attribute(model, inputs, "saliency", 2, absolute=False).values, gradient)
    for method in METHODS:
        found = attribute(model, inputs, method, 2, layer="conv", **FAST.get(method, {}))
        assert found.heatmap.shape == (40, 8, 8) and np.isfinite(found.heatmap).all()


def test_maps_that_show_nothing_say_so():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    dead = torch.rand(2, 1, 8, 8)
    for method in METHODS:
        assert {note.state for note in attribute(model, dead, method).notes} == {"degenerate"}, method
    with torch.no_grad():
        model[0].weight[:, 0, 1, 1] = 1.0
        model[3].weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    against = attribute(model, dead, "grad_cam", target=0, layer="0")
    assert against.notes[0].text == "no positive evidence at this layer" and not against.heatmap.any()
    assert attribute(model, dead, "grad_cam", target=1, layer="0").notes[0].state == "good"
    assert attribute(model, dead, "occlusion", target=0).notes[0].text == "no window supports the class"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"method": "tea leaves"}, "There is no attribution method 'tea leaves'"),
        ({"method": "occlusion", "window": 4000}, "window is 4000; it must be a whole number from 0 to 512"),
        ({"method": "occlusion", "size": 4}, "Occlusion has no parameter 'size'"),
        ({"method": "integrated_gradients", "baseline": "white"}, "choose one of mean, blur"),
        ({"method": "saliency", "absolute": "yes"}, "must be true or false"),
        ({"method": "saliency", "target": 10}, "network has classes 0 to 2"),
        ({"method": "saliency", "target": [0, 1, 2]}, "There are 3 targets for 2 inputs"),
        ({"method": "saliency", "target": 0.5}, "must be the number of a class"),
        ({"method": "grad_cam", "layer": "layer9"}, "has no layer 'layer9'"),
        ({"method": "grad_cam", "layer": "4"}, "has no map over the image"),
        ({"method": "grad_cam", "layer": nn.Conv2d(1, 1, 1)}, "no part of this network"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(given, sentence):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(DNNVizError, match=sentence):
        attribute(model, torch.rand(2, 1, 8, 8), **given)


def test_grad_cam_of_a_network_without_maps_gets_a_sentence():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(DNNVizError, match="no layer with a map over the image"):
        attribute(model, torch.rand(2, 1, 8, 8), "grad_cam")
    assert attribute(model, torch.rand(2, 1, 8, 8), "occlusion").heatmap.shape == (2, 8, 8)


def test_methods_are_described_without_torch():
    code = (
        "import sys, dnnviz.explain as e; assert not {'torch', 'captum'} & set(sys.modules);"
        "assert {'saliency', 'grad_cam', 'guided_backprop', 'integrated_gradients', 'occlusion'} <= set(e.METHODS);"
        "assert all(m.title and m.summary and m.citation and m.passes(m.resolve({}), (3, 224, 224)) > 0 for m in e.METHODS.values())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_costs_are_told_before_they_are_paid():
    calls = []
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    for name, method in METHODS.items():
        calls.clear()
        attribute(model, torch.rand(1, 1, 28, 28), name, layer="0")
        told = method.passes(method.resolve({}), (1, 28, 28))
        assert told <= sum(calls) <= told + 2, f"{name} promises {told} passes and takes {sum(calls)}"
