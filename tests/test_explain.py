"""What all attribution methods have in common, and Grad-CAM against Captum and pytorch-grad-cam on trained networks."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dnnviz.errors import DNNVizError
from dnnviz.explain import METHODS, attribute
from dnnviz.models import import_torchvision
from tests import trained
from tests.networks import Rectified
from tests.trained import close, predicted

pytestmark = pytest.mark.usefixtures("one_thread")

# Parameters with which a method takes a few passes.
FAST = {
    "smoothgrad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "occlusion": {"window": 32, "stride": 32},
    "feature_ablation": {"segments": 4},
    "lime": {"segments": 3, "samples": 3},
    "rise": {"masks": 2},
    "score_cam": {"channels": 4},
}
# Defined for every network; the others have their own tests, and here only must not break.
EVERYWHERE = [name for name, method in METHODS.items() if method.family in ("gradient", "perturbation") or name == "grad_cam"]


def asked(model, inputs, method, *args, **given):
    """The answer of a method, or None where it is not defined for this network and a sentence says so."""
    try:
        return attribute(model, inputs, method, *args, **given, **FAST.get(method, {}))
    except DNNVizError as error:
        assert method not in EVERYWHERE and str(error).endswith(".")
        return None


@pytest.fixture(scope="module")
def photos(shared_data):
    return trained.photos(shared_data)


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
    "densenet": "features.norm5",
    "googlenet": "inception5b",
    "mobilenet_v2": "features.18",
    "mobilenet_v3_small": "features.12",
    "efficientnet_b0": "features.8",
    "shufflenet_v2_x0_5": "conv5.1",
    "regnet_y_400mf": "trunk_output.block4.block4-1",
    "mnasnet0_5": "layers.15",
    "convnext": "features.7.0",
    "vision_transformer": "encoder.layers.encoder_layer_2.ln_1",
    "swin": "permute",
}
# Where a sentence says that a method is not defined; everywhere else it answers.
UNDEFINED = {
    # No global pooling right before one linear layer.
    "cam": {"alexnet", "mobilenet_v3_small", "convnext", "vision_transformer"},
    # No attention to a class token.
    "attention_rollout": set(FAMILIES) - {"vision_transformer"},
    "lrp": {"vision_transformer", "swin"},
}
SMOOTH = {"efficientnet_b0", "convnext", "vision_transformer", "swin"}  # GELU or SiLU only


def network(name):
    """A network of torchvision with random weights and seven classes; of the large families one with fewer and thinner blocks."""
    torchvision = import_torchvision()
    torch.manual_seed(0)
    if name == "densenet":
        return torchvision.models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=7)
    if name == "convnext":
        block = torchvision.models.convnext.CNBlockConfig
        return torchvision.models.ConvNeXt([block(16, 32, 1), block(32, 48, 1), block(48, 64, 2), block(64, None, 1)], num_classes=7)
    if name == "vision_transformer":
        return torchvision.models.VisionTransformer(64, 16, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=7)
    if name == "swin":
        return torchvision.models.SwinTransformer([4, 4], 24, [1, 1, 2, 1], [1, 2, 2, 4], [7, 7], num_classes=7)
    return getattr(torchvision.models, name)(weights=None, num_classes=7, **({"init_weights": False} if name == "googlenet" else {}))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_runs_on_every_family_of_torchvision(name):
    model = network(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)  # torchvision gives a vision transformer a zero head
    inputs = torch.randn(2, 3, 64, 64)
    for method in METHODS:
        found = asked(model, inputs, method, target=[3, 1])
        assert (found is None) == (name in UNDEFINED.get(method, ())), method
        if found is None:
            continue
        assert found.heatmap.shape == (2, 64, 64) and found.heatmap.dtype == np.float32 and np.isfinite(found.heatmap).all()
        assert found.values.dtype == np.float32 and found.values.shape[0] == 2 and len(found.notes) == 2
        assert found.targets.tolist() == [3, 1] and found.logits.shape == (2, 7)
        np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)
        if method == "grad_cam":
            assert found.values.shape[1] == 1
            if name not in ("regnet_y_400mf",):
                assert found.layer == FAMILIES[name]
        if method in ("guided_backprop", "deconvnet"):
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

    outside = asked(model, inputs, method)
    check()
    with torch.inference_mode():
        within = asked(model, inputs, method)
    check()
    if outside is not None:
        np.testing.assert_array_equal(within.values, outside.values)
    with pytest.raises(DNNVizError):
        attribute(model, inputs, method, target=4)
    check()
    with pytest.raises(DNNVizError, match="cannot take inputs" if method in EVERYWHERE else None):
        attribute(model, inputs[:, :2], method)
    check()


def test_batches_and_single_inputs_agree():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    inputs = torch.randn(300, 1, 8, 8)
    for method in METHODS:
        # With a normalisation: without it, what black and white are is read from the inputs given.
        several, alone = (asked(model, given, method, mean=(0.5,), std=(0.25,)) for given in (inputs, inputs[277].numpy()))
        if several is None:
            continue
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
        found = asked(model, inputs, method, 2, layer="conv")
        assert found is None or (found.heatmap.shape == (40, 8, 8) and np.isfinite(found.heatmap).all())


def test_maps_that_show_nothing_say_so():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    dead = torch.rand(2, 1, 8, 8)
    for method in EVERYWHERE:
        assert {note.state for note in asked(model, dead, method).notes} == {"degenerate"}, method
    with torch.no_grad():
        model[0].weight[:, 0, 1, 1] = 1.0
        model[3].weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    against = attribute(model, dead, "grad_cam", target=0, layer="0")
    assert against.notes[0].text == "no positive evidence at this layer" and not against.heatmap.any()
    assert attribute(model, dead, "grad_cam", target=1, layer="0").notes[0].state == "good"
    assert attribute(model, dead, "occlusion", target=0).notes[0].text == "no part supports the score"


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
        "import sys, dnnviz.explain as e; assert not {'torch', 'captum', 'skimage', 'scipy'} & set(sys.modules);"
        "assert {'saliency', 'grad_cam', 'guided_backprop', 'integrated_gradients', 'occlusion'} <= set(e.METHODS);"
        "assert all(m.title and m.summary and m.citation and m.passes(m.resolve({}), (3, 224, 224)) > 0 for m in e.METHODS.values())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_costs_are_told_before_they_are_paid():
    calls = []
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    for name in EVERYWHERE:
        calls.clear()
        method = METHODS[name]
        attribute(model, torch.rand(1, 1, 28, 28), name, layer="0")
        told = method.passes(method.resolve({}), (1, 28, 28))
        # How many pieces SLIC makes of a picture is only known afterwards.
        least = 0.7 * told if name == "feature_ablation" else told
        assert least <= sum(calls) <= told + 2, f"{name} promises {told} passes and takes {sum(calls)}"
