"""Relevance propagation and DeepLIFT: against Zennit and Captum, closed forms, what they conserve, and where they are not defined."""

import copy
import gc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dnnviz.errors import DNNVizError
from dnnviz.explain import attribute
from dnnviz.models import import_torchvision
from tests import trained
from tests.trained import MEAN, STD, close

pytestmark = pytest.mark.usefixtures("one_thread")

RULES = ("epsilon-gamma-box", "epsilon-plus", "alpha2-beta1", "gamma", "epsilon")


@pytest.fixture(scope="module", autouse=True)
def torchvision():
    import_torchvision()  # before Zennit does
    import torchvision

    return torchvision


@pytest.fixture(scope="module")
def squeezenet(shared_data):
    return trained.squeezenet(shared_data), trained.photos(shared_data, ("cat_dog.png",))


@pytest.fixture(scope="module")
def resnet20(shared_data):
    return trained.resnet20(shared_data), trained.cifar(shared_data, 3)


def unsettled(model, seed=0):
    """The network in eval mode, with batch norms as unlike the identity as those of a trained one, some of their factors negative."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.normal_(1, 0.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


def settled(model, size=64):
    """The network in eval mode, with the statistics of its batch norms taken from random inputs, so that signals keep their size."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.bias.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(module.num_features))
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1)))
    return model.eval()


@pytest.fixture(scope="module")
def resnet18(torchvision):
    torch.manual_seed(0)
    return unsettled(torchvision.models.resnet18(weights=None)), torch.randn(2, 3, 64, 64)


@pytest.fixture(scope="module")
def vgg():
    """Convolutions with biases, with and without batch norm, average and maximum pooling, two linear layers."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(12, 12, 3, stride=2, groups=4), nn.ReLU6(), nn.AvgPool2d(2), nn.Conv2d(12, 8, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32, 10), nn.ReLU(), nn.Linear(10, 5)),
    )
    return unsettled(model), torch.randn(3, 3, 32, 32)


def summed(self, x):
    """The forward pass of a ResNet-20 block, its sum a module that Zennit sees."""
    out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
    return self.relu2(self.total(torch.stack([self.shortcut(x), out], dim=-1)))


def canonizers(network):
    from zennit.canonizers import AttributeCanonizer, SequentialMergeBatchNorm
    from zennit.layer import Sum
    from zennit.torchvision import ResNetBasicBlockCanonizer

    class Merged(SequentialMergeBatchNorm):
        """Zennit leaves a batch norm that divides by √(1 + eps): 5e-6 a layer, which relevance in a deep network magnifies."""

        def register(self, linears, batch_norm):
            super().register(linears, batch_norm)
            batch_norm.eps = 0.0

    def attributes(name, module):
        return {"forward": summed.__get__(module), "total": Sum()} if hasattr(module, "shortcut") else None

    found = {"resnet18": [Merged(), ResNetBasicBlockCanonizer()], "resnet20": [Merged(), AttributeCanonizer(attributes)]}
    return found.get(network, [Merged()])


def composite(rule, network, dtype):
    """Zennit's composite of the same name."""
    from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlus, LayerMapComposite, layer_map_base
    from zennit.rules import Epsilon, Gamma
    from zennit.types import Linear

    given = {"canonizers": canonizers(network)}
    mean, std = (torch.tensor(v, dtype=dtype)[None, :, None, None] for v in (MEAN, STD))
    if rule == "epsilon-gamma-box":
        return EpsilonGammaBox(low=-mean / std, high=(1 - mean) / std, **given)
    if rule in ("epsilon", "gamma"):
        return LayerMapComposite([*layer_map_base(), (Linear, {"epsilon": Epsilon(), "gamma": Gamma()}[rule])], **given)
    return {"epsilon-plus": EpsilonPlus, "alpha2-beta1": EpsilonAlpha2Beta1}[rule](**given)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", ["squeezenet", "resnet20", "resnet18", "vgg"])
def test_lrp_is_zennits(network, rule, request):
    from zennit.attribution import Gradient

    model, inputs = request.getfixturevalue(network)
    if network.startswith("resnet"):
        # The epsilon rule divides by sums near zero: in single precision two right answers differ.
        model, inputs = copy.deepcopy(model).double(), inputs.double()
    found = attribute(model, inputs, "lrp", rule=rule, mean=MEAN, std=STD)
    relevance = F.one_hot(torch.as_tensor(found.targets), found.logits.shape[1]) * torch.as_tensor(found.logits, dtype=inputs.dtype)
    with Gradient(copy.deepcopy(model), composite(rule, network, inputs.dtype)) as attributor:
        _, reference = attributor(inputs.clone(), relevance)
    close(found.values, reference)
    close(found.heatmap, reference.sum(dim=1))


class Block(nn.Module):
    """A residual network without biases, its ReLUs shared and in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 6, 3, padding=1, bias=False) for i in (3, 6, 6))
        self.relu, self.pool, self.head = nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Linear(6 * 16, 4, bias=False)

    def forward(self, x):
        x = self.relu(self.a(x))
        y = self.relu(self.b(x))
        y = self.c(y)
        y += x
        return self.head(self.pool(self.relu(y)).flatten(1))


def test_epsilon_relevance_without_biases_is_gradient_times_input_and_sums_to_the_score():
    torch.manual_seed(0)
    model, inputs = Block().double().eval(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    found = attribute(model, inputs, "lrp", [0, 1, 2, 3], rule="epsilon", epsilon=1e-9)
    leaf = inputs.clone().requires_grad_()
    scores = model(leaf).diagonal()
    close(found.values, inputs * torch.autograd.grad(scores.sum(), leaf)[0])
    np.testing.assert_allclose(found.values.sum(axis=(1, 2, 3)), scores.detach(), rtol=1e-5)
    np.testing.assert_allclose(found.scores, scores.detach(), rtol=1e-5)
    assert {note.state for note in found.notes} == {"good"} and max(note.value for note in found.notes) < 1e-4
    for rule in RULES:
        assert max(note.value for note in attribute(model, inputs, "lrp", [0, 1, 2, 3], rule=rule).notes) < 1e-3


def test_a_change_of_colours_inside_the_network_changes_no_relevance():
    torch.manual_seed(0)

    class Recoloured(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            red = torch.unsqueeze(x[:, 0], 1) * -1.5 + 0.2
            rest = x[:, 1:] * 0.5 - 0.1
            return self.network(torch.cat((red, rest), 1))

    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3)).eval()
    inputs = torch.rand(2, 3, 8, 8)
    seen = torch.cat((inputs[:, :1] * -1.5 + 0.2, inputs[:, 1:] * 0.5 - 0.1), 1)
    factor, shift = torch.tensor([-1.5, 0.5, 0.5]), torch.tensor([0.2, -0.1, -0.1])
    # Black and white as the inner network sees them, the red ones the other way round.
    low, high = torch.minimum(shift, factor + shift), torch.maximum(shift, factor + shift)
    inner = attribute(network, seen, "lrp", 1, mean=(-low / (high - low)).tolist(), std=(1 / (high - low)).tolist())
    close(attribute(Recoloured(network).eval(), inputs, "lrp", 1, mean=(0, 0, 0), std=(1, 1, 1)).values, inner.values)


@pytest.mark.parametrize("name", ["googlenet", "densenet121", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"])
def test_both_run_on_torchvisions_networks_and_are_marked(name, torchvision):
    torch.manual_seed(0)
    given = {"init_weights": False, "aux_logits": False, "transform_input": True} if name == "googlenet" else {}
    model = settled(getattr(torchvision.models, name)(weights=None, **given))
    inputs = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        score = model(inputs)[0, 3].item()
    for rule in ("epsilon-gamma-box", "epsilon-plus"):
        found = attribute(model, inputs, "lrp", 3, rule=rule, mean=MEAN, std=STD)
        assert np.isfinite(found.values).all() and found.scores[0] == pytest.approx(score, rel=1e-3)
        share = found.values.sum() / found.scores[0]
        assert found.notes[0].value == pytest.approx(abs(share - 1), abs=1e-3)
        state = "good" if abs(share - 1) <= 0.05 else "warning" if 0.1 <= share <= 2 else "degenerate"
        assert found.notes[0].state == state
    for baseline in ("mean", "blur"):
        found = attribute(model, inputs, "deeplift", 3, baseline=baseline)
        assert found.scores[0] == pytest.approx(score, rel=1e-3)
        assert found.notes[0].state == "good" and found.notes[0].value < 1e-3


def small_vit(torchvision):
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=5).eval()
    model.heads.head.weight.data.normal_()  # torchvision begins with zeros
    return model


def small_swin(torchvision):
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=5).eval()


@pytest.mark.parametrize("make", [small_vit, small_swin])
def test_attention_has_no_relevance_but_deeplift_takes_it_apart(make, torchvision):
    model, inputs = make(torchvision), torch.randn(2, 3, 32, 32)
    with pytest.raises(DNNVizError, match=r"LRP is not defined for this network: .*attention.*; choose another method for it\."):
        attribute(model, inputs, "lrp")
    with torch.no_grad():
        change = (model(inputs) - model(torch.zeros_like(inputs)))[:, 2]
    found = attribute(model, inputs, "deeplift", 2)
    np.testing.assert_allclose(found.values.sum(axis=(1, 2, 3)), change, rtol=1e-3)
    assert {note.state for note in found.notes} == {"good"}


class Apart(nn.Module):
    """Captum records what flows into a ReLU before the rule of a max pooling behind it has changed it, unless something lies between."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return self.pool(x.clone())


def for_captum(model):
    """A copy in which every call has its own ReLU that does not work in place, as Captum needs it."""
    model = copy.deepcopy(model)

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu_after(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + identity)

    for module in list(model.modules()):
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if hasattr(module, "downsample"):
            module.relu_after, module.forward = nn.ReLU(), forward.__get__(module)
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, Apart(child))
    return model


def added(values, places, kernel_size, stride=None, padding=0, output_size=None):
    """max_unpool2d that adds where windows overlap; torch's keeps one of the values, so that Captum loses the others."""
    return values.new_zeros(output_size).flatten(2).scatter_add(2, places.flatten(2), values.flatten(2)).view(output_size)


@pytest.mark.parametrize("network", ["squeezenet", "resnet20", "resnet18"])
def test_deeplift_is_captums(network, request, monkeypatch):
    from captum.attr import DeepLift

    model, inputs = request.getfixturevalue(network)
    inputs = inputs[:1]
    monkeypatch.setattr(F, "max_unpool2d", added)
    found = attribute(model, inputs, "deeplift")
    target = torch.as_tensor(found.targets)
    reference = DeepLift(for_captum(model)).attribute(inputs.clone(), torch.zeros_like(inputs), target=target)
    close(found.values, reference)
    close(found.heatmap, reference.sum(dim=1))
    with torch.no_grad():
        change = (model(inputs) - model(torch.zeros_like(inputs)))[0, target]
    np.testing.assert_allclose(found.values.sum(), change, rtol=1e-3)
    assert found.notes[0].state == "good"


def test_deeplift_splits_a_product_and_a_slope():
    class Product(nn.Module):
        def forward(self, x):
            a, b = x[:, :, 0, 0], x[:, :, 0, 1]
            return torch.cat((a * b, torch.tanh(a), a / (b + 3)), dim=1)

    inputs = torch.tensor([[[[0.8, -0.4]]]])
    a, b = 0.8, -0.4
    # From (0, 0): half of the product each; the whole slope of tanh; numerator and inverse with the other halfway.
    close(attribute(Product(), inputs, "deeplift", 0).values, np.array([[[[a * b / 2, a * b / 2]]]], np.float32))
    close(attribute(Product(), inputs, "deeplift", 1).values, np.array([[[[np.tanh(a), 0]]]], np.float32))
    inverse = np.array([1 / 3, 1 / (b + 3)])
    expected = np.array([[[[a * inverse.mean(), (inverse[1] - inverse[0]) * a / 2]]]], np.float32)
    close(attribute(Product(), inputs, "deeplift", 2).values, expected)
    start = attribute(Product(), inputs, "deeplift", 0, baseline="black", mean=(-1,), std=(2,)).values
    # Black is 0.5: the product changes from 0.25 to -0.32.
    close(start, np.array([[[[(a - 0.5) * (b + 0.5) / 2, (b - 0.5) * (a + 0.5) / 2]]]], np.float32))


@pytest.mark.parametrize("method", ["lrp", "deeplift"])
def test_contrasts_units_and_directions(method, resnet20):
    model, inputs = resnet20
    alone = [attribute(model, inputs, method, target) for target in ("class:1", "class:2")]
    found = attribute(model, inputs, method, "class:1-class:2")
    np.testing.assert_allclose(found.scores, alone[0].scores - alone[1].scores, rtol=1e-4)
    if method == "deeplift":
        # Multipliers are linear in what they explain; relevance is, too, as long as no rule asks for its sign.
        close(found.values, alone[0].values - alone[1].values)
    plain = Block().eval()
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for target in ("class:1-class:2", "unit:b:3", "layer:c", "unit:head:2"):
        found = attribute(plain, pixels, method, target)
        assert {note.state for note in found.notes} == {"good"}
        # Without biases a black input has no score, so both maps add up to it.
        np.testing.assert_allclose(found.values.sum(axis=(1, 2, 3)), found.scores, rtol=1e-3, atol=1e-5)


class Rewritten(nn.Module):
    """Writes in place over what it reads again afterwards."""

    def __init__(self):
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        F.relu_(x)
        y = self.again(x)
        y.add_(x).mul_(0.5)
        return F.hardtanh(y, -1.0, 1.0, True).mean((2, 3))


@pytest.mark.parametrize("method", ["lrp", "deeplift"])
def test_the_network_computes_what_it_computed_and_is_left_as_it_was(method):
    torch.manual_seed(0)
    for model in (Rewritten(), Block(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3))):
        model.train()
        inputs = torch.randn(3, 3, 8, 8)
        state, given = copy.deepcopy(model.state_dict()), inputs.clone()
        found = attribute(model, inputs, method, 1)
        assert all(module.training and not module._forward_hooks for module in model.modules())
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items()) and torch.equal(inputs, given)
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        with torch.no_grad():
            np.testing.assert_allclose(found.logits, model.eval()(inputs), rtol=1e-5, atol=1e-6)
        # One input at a time gives the same.
        close(np.concatenate([attribute(model, one[None], method, 1, mean=MEAN, std=STD).values for one in inputs]),
              attribute(model, inputs, method, 1, mean=MEAN, std=STD).values)  # fmt: skip


@pytest.mark.parametrize("method", ["lrp", "deeplift"])
def test_a_pass_leaves_no_tensor_behind(method):
    def alive():
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    torch.manual_seed(0)
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.GELU(), nn.ReLU(inplace=True), nn.Flatten(), nn.LayerNorm(36), nn.Linear(36, 3))
    for model in (Rewritten().eval(), Block().eval(), pooled.eval()):
        inputs = torch.randn(1, 3, 8, 8)
        attribute(model, inputs, method, 1)
        gc.collect()
        before = alive()
        for _ in range(3):
            attribute(model, inputs, method, 1)
        gc.collect()
        assert alive() <= before


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("method", ["lrp", "deeplift"])
def test_what_has_no_rule_is_said(method):
    class Sums(nn.Module):
        def forward(self, x):
            return torch.cumsum(x.flatten(1), dim=1)[:, :3]

    class Generated(nn.Module):
        def forward(self, x):
            return F.linear(x.flatten(1), x[0].flatten()[None].expand(3, -1))

    inputs = torch.randn(2, 3, 4, 4)
    unnormed = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    traced = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten()).eval(), inputs)
    whys = ((Sums(), "'cumsum'"), (Generated(), "weights of a layer from the input"), (unnormed, "batch norm"), (traced, "compiled"))
    for model, why in whys:
        with pytest.raises(DNNVizError, match=f"is not defined for this network: .*{why}.*; choose another method for it"):
            attribute(model, inputs, method, 0)
        # Nothing of the failed pass stays behind.
        assert np.isfinite(attribute(model, inputs, "saliency", 0).values).all()


def test_notes_of_lost_relevance():
    torch.manual_seed(0)
    layer = nn.Linear(12, 2)
    model, inputs = nn.Sequential(nn.Flatten(), layer), torch.rand(1, 3, 2, 2)
    layer.weight.data.fill_(1.0)
    total = inputs.sum().item()
    for bias, state in ((0.0, "good"), (total, "warning"), (30 * total, "degenerate"), (-0.9 * total, "degenerate")):
        layer.bias.data.fill_(bias)
        found = attribute(model, inputs, "lrp", 0)
        # The bias takes its share of the score.
        assert found.values.sum() == pytest.approx(total, rel=1e-4)
        assert found.notes[0].state == state
        assert found.notes[0].value == pytest.approx(abs(total / (total + bias) - 1), rel=1e-3, abs=1e-5)
    layer.weight.data.zero_()
    assert attribute(model, inputs, "lrp", 0).notes[0].text == "zero everywhere"
    assert attribute(model, inputs, "deeplift", 0).notes[0].state == "degenerate"
