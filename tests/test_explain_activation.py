"""The family of class activation maps and attention rollout, against pytorch-grad-cam and Captum on trained networks and against closed forms."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dnnviz.errors import DNNVizError
from dnnviz.explain import METHODS, attribute, attribute_all
from dnnviz.models import import_torchvision
from tests import trained
from tests.trained import close

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILY = ("cam", "grad_cam", "grad_cam_pp", "score_cam", "layer_cam", "eigen_cam", "guided_grad_cam", "attention_rollout")


@pytest.fixture(scope="module")
def photo(shared_data):
    return trained.photos(shared_data, ("cat_dog.png",))


def torchvision_network(name, size=64, **extra):
    torch.manual_seed(0)
    model = getattr(import_torchvision().models, name)(weights=None, num_classes=7, **extra)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)  # torchvision gives a vision transformer a zero head
    return model.eval(), torch.randn(2, 3, size, size)


def scaled(maps):
    """Each map [n, h, w] at 0 to 1, as pytorch-grad-cam gives them."""
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return (maps - low) / (high - low)


def reference_cam(kind, model, layer, inputs, targets, **kwargs):
    """pytorch-grad-cam's maps [n, H, W], scaled to 0 to 1; it resizes bilinearly, and falls short of 1 where maps are small (it adds 1e-7)."""
    import_torchvision()  # with the care that the reference's own import lacks
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network = copy.deepcopy(model)
    with getattr(pytorch_grad_cam, kind)(model=network, target_layers=[network.get_submodule(layer)], **kwargs) as cam:
        return scaled(cam(input_tensor=inputs.clone(), targets=[ClassifierOutputTarget(int(t)) for t in targets]))


CASES = [("resnet20", "layer3.2"), ("resnet20", "layer2"), ("squeezenet", "features.12"), ("squeezenet", "features.6")]


@pytest.fixture
def case(request):
    network, layer = request.param
    return request.getfixturevalue(network), request.getfixturevalue({"resnet20": "cifar", "squeezenet": "photo"}[network]), layer


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_layer_cam_is_pytorch_grad_cams(case):
    model, inputs, layer = case
    found = attribute(model, inputs, "layer_cam", layer=layer)
    close(scaled(found.heatmap), reference_cam("LayerCAM", model, layer, inputs, found.targets))


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_grad_cam_pp_is_pytorch_grad_cams(case):
    model, inputs, layer = case
    found = attribute(model, inputs, "grad_cam_pp", layer=layer)
    # The reference adds 1e-6 to the square of a gradient, which may be far smaller. Alpha does not change when the maps are
    # made small and the gradients large by one factor, so in a network that does so its 1e-6 is without effect.
    network = copy.deepcopy(model)
    owner, _, name = layer.rpartition(".")
    owner = network.get_submodule(owner)
    inner = getattr(owner, name)
    setattr(owner, name, nn.Sequential(inner, Times(1e-4), Times(1e4)))
    close(scaled(found.heatmap), reference_cam("GradCAMPlusPlus", network, f"{layer}.1", inputs, found.targets))


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_eigen_cam_is_pytorch_grad_cams(case):
    model, inputs, layer = case
    found = attribute(model, inputs, "eigen_cam", layer=layer, centred=True)
    held = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: held.append(output.detach().clone()))
    with torch.no_grad():
        model(inputs)
    handle.remove()
    import_torchvision()
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    reference = get_2d_projection(held[0].double().numpy())  # its sign is that of the decomposition, by chance
    signs = np.sign(
        (reference * held[0].clamp(min=0).sum(dim=1).sub(held[0].clamp(min=0).sum(dim=1).mean(dim=(1, 2), keepdim=True)).numpy()).sum((1, 2))
    )
    close(found.values[:, 0], np.maximum(reference * signs[:, None, None], 0))
    # As the paper has it, without centring: the closed form.
    plain = attribute(model, inputs, "eigen_cam", layer=layer)
    for row, maps in enumerate(held[0].double()):
        matrix = maps.flatten(1).T
        _, singular, right = torch.linalg.svd(matrix, full_matrices=False)
        close(plain.values[row, 0], (matrix @ right[0]).abs().reshape(maps.shape[1:]).float())
        assert plain.notes[row].value == pytest.approx(float(singular[0] ** 2 / (singular**2).sum()), rel=1e-4)


def test_eigen_cam_is_the_same_for_every_class(resnet20, cifar):
    maps = [attribute(resnet20, cifar, "eigen_cam", target=target).heatmap for target in (0, 5)]
    np.testing.assert_array_equal(*maps)


def test_score_cam_is_pytorch_grad_cams(resnet20, cifar, monkeypatch):
    # At the input's own resolution nothing is resized.
    found = attribute(resnet20, cifar[:2], "score_cam", layer="layer1.2", channels=0)
    close(scaled(found.heatmap), reference_cam("ScoreCAM", resnet20, "layer1.2", cifar[:2], found.targets))
    # Elsewhere the reference aligns the corners of its masks, other than the paper's code and the rest of this family.
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size=tuple(size), mode="bilinear"))
    found = attribute(resnet20, cifar[:2], "score_cam", layer="layer3.2", channels=0)
    close(scaled(found.heatmap), reference_cam("ScoreCAM", resnet20, "layer3.2", cifar[:2], found.targets))
    assert attribute(resnet20, cifar[:2], "score_cam", layer="layer3.2").heatmap == pytest.approx(found.heatmap)  # 64 channels: all of them


def test_score_cam_of_the_most_active_channels(resnet20, cifar):
    model, inputs = resnet20, cifar[:2]
    held = []
    handle = model.layer3.register_forward_hook(lambda module, args, output: held.append(output.detach().clone()))
    with torch.no_grad():
        targets = model(inputs).argmax(dim=1)
        handle.remove()
        for row, maps in enumerate(held[0]):
            chosen = maps.mean(dim=(1, 2)).topk(5).indices
            masks = F.interpolate(maps[chosen][:, None], (32, 32), mode="bilinear")
            low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
            left = model(inputs[row] * (masks - low) / (high - low))
            for target, score in ((f"class:{targets[row]}", left[:, targets[row]]), ("class:3-class:5", left[:, 3] - left[:, 5])):
                weights = score.softmax(dim=0)
                found = attribute(model, inputs, "score_cam", target, layer="layer3", channels=5)
                close(found.values[row, 0], (weights[:, None, None] * maps[chosen]).sum(dim=0))
                assert found.notes[row].value == pytest.approx(float(torch.exp(-(weights * weights.log()).sum())), rel=1e-3)


def test_score_cam_says_when_masking_makes_no_difference():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    with torch.no_grad():
        model[4].weight.mul_(1e-4)
    note = attribute(model, torch.rand(1, 1, 9, 9), "score_cam", layer="1").notes[0]
    assert note.state == "warning" and "of 6 channels" in note.text


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("case", CASES[1:3], indirect=True)
def test_guided_grad_cam_is_captums(case):
    from captum.attr import GuidedGradCam

    model, inputs, layer = case
    found = attribute(model, inputs, "guided_grad_cam", layer=layer)
    network = copy.deepcopy(model)
    reference = GuidedGradCam(network, network.get_submodule(layer)).attribute(
        inputs.clone().requires_grad_(), target=torch.as_tensor(found.targets), interpolate_mode="bilinear"
    )
    close(found.values, reference)
    close(found.heatmap, reference.abs().amax(dim=1))


def test_methods_of_one_pass_share_it():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    calls = []
    model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    methods = {"guided_grad_cam": {}, "grad_cam": {}, "layer_cam": {}, "grad_cam_pp": {}, "eigen_cam": {}, "saliency": {}}
    together = attribute_all(model, torch.rand(3, 1, 9, 9), methods, layer="1")
    assert calls == [3]
    alone = attribute(model, torch.rand(3, 1, 9, 9), "guided_grad_cam", layer="1")
    assert calls == [3, 3] and alone.layer == together["grad_cam"].layer == "1"
    attribute(model, torch.rand(3, 1, 9, 9), "cam")
    assert calls == [3, 3, 3]


@pytest.mark.parametrize(("network", "inputs"), [("resnet20", "cifar"), ("squeezenet", "photo")])
@pytest.mark.parametrize("target", [None, "class:3-class:5"])
def test_cam_adds_up_to_the_score(network, inputs, target, request):
    model, inputs = request.getfixturevalue(network), request.getfixturevalue(inputs)
    found = attribute(model, inputs, "cam", target)
    assert found.layer == {"resnet20": "layer3.2", "squeezenet": "classifier.2"}[network]
    bias = 0
    if network == "resnet20":
        weights, biases = model.linear.weight.detach(), model.linear.bias.detach().numpy()
        bias = biases[found.targets] - (biases[5] if target else 0)
        held = []
        handle = model.layer3.register_forward_hook(lambda module, args, output: held.append(output))
        with torch.no_grad():
            model(inputs)
        handle.remove()
        rows = weights[found.targets] - (weights[5] if target else 0)
        close(found.values[:, 0], torch.einsum("nc,nchw->nhw", rows, held[0]))
    np.testing.assert_allclose(found.values.mean(axis=(1, 2, 3)) + bias, found.scores, rtol=1e-4, atol=1e-5)
    assert all(note.state == "good" and note.value < 1e-5 for note in found.notes)
    # H·W × Grad-CAM before the ReLU: their positive parts agree.
    places = found.values.shape[2] * found.values.shape[3]
    grad_cam = attribute(model, inputs, "grad_cam", found.targets if target is None else target, layer=found.layer)
    close(np.maximum(found.values, 0), places * grad_cam.values)


@pytest.mark.parametrize(
    ("name", "layer", "extra"),
    [
        ("densenet121", "features.norm5", {}),
        ("googlenet", "inception5b", {"init_weights": False}),
        ("mobilenet_v2", "features.18", {}),
        ("efficientnet_b0", "features.8", {}),
        ("swin_t", "permute", {}),
        ("mobilenet_v3_small", None, {}),
        ("convnext_tiny", None, {}),
        ("alexnet", None, {}),
        ("vit_b_16", None, {"image_size": 64, "num_layers": 2}),
    ],
)
def test_cam_knows_the_networks_that_it_is_defined_for(name, layer, extra):
    if name == "vit_b_16":
        model, inputs = small_transformer()
    else:
        model, inputs = torchvision_network(name, **extra)
    if layer is None:
        with pytest.raises(DNNVizError, match=r"CAM needs a network that ends in global average pooling"):
            attribute(model, inputs, "cam", 3)
        return
    found = attribute(model, inputs, "cam", [3, 1])
    assert found.layer == layer and found.values.shape[1] == 1
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    total = found.values.mean(axis=(1, 2, 3)) + head.bias.detach().numpy()[[3, 1]]
    np.testing.assert_allclose(total, found.scores, atol=1e-4 * np.abs(found.values).mean() + 1e-7)


def test_cam_of_maps_with_a_single_place_says_so():
    model, inputs = torchvision_network("resnet18", size=32)
    with pytest.raises(DNNVizError, match="have a single place"):
        attribute(model, inputs, "cam")


def small_transformer(heads=3):
    torch.manual_seed(0)
    models = import_torchvision().models
    model = models.VisionTransformer(image_size=32, patch_size=8, num_layers=3, num_heads=heads, hidden_dim=24, mlp_dim=32, num_classes=7).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)  # large enough that attention is not uniform
    return model, torch.randn(2, 3, 32, 32)


def explicit_attention(model, inputs):
    """[layers][n, heads, tokens, tokens] from the weights themselves."""
    found = []
    with torch.no_grad():
        x = model._process_input(inputs)
        x = torch.cat([model.class_token.expand(len(x), -1, -1), x], dim=1) + model.encoder.pos_embedding
        for layer in model.encoder.layers:
            normed, attention = layer.ln_1(x), layer.self_attention
            q, k, _ = (normed @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=2)
            q, k = (t.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for t in (q, k))
            found.append((q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=3))
            x = layer(x)
    return found


@pytest.mark.parametrize("heads", ["mean", "min", "max"])
def test_attention_rollout_is_the_product_of_the_layers(heads):
    model, inputs = small_transformer()
    rollout = torch.eye(17).expand(2, -1, -1)
    for attention in explicit_attention(model, inputs):
        joined = {"mean": attention.mean(dim=1), "min": attention.amin(dim=1), "max": attention.amax(dim=1)}[heads]
        joined = joined / joined.sum(dim=2, keepdim=True)
        rollout = (joined + torch.eye(17)) / 2 @ rollout
    found = attribute(model, inputs, "attention_rollout", heads=heads)
    close(found.values[:, 0], rollout[:, 0, 1:].reshape(2, 4, 4))
    close(found.heatmap, F.interpolate(rollout[:, 0, 1:].reshape(2, 1, 4, 4), (32, 32), mode="bilinear")[:, 0])
    assert found.notes[0].state == "good" and found.notes[0].text.startswith("of no class")
    np.testing.assert_array_equal(found.heatmap, attribute(model, inputs, "attention_rollout", target=5, heads=heads).heatmap)


def test_attention_rollout_discards_the_weakest():
    model, inputs = small_transformer()
    rollout = torch.eye(17).expand(2, -1, -1)
    for attention in explicit_attention(model, inputs):
        joined = attention.mean(dim=1)
        for matrix in joined:
            border = matrix.flatten().sort().values[int(0.8 * 17 * 17)]
            matrix[:, 1:][matrix[:, 1:] < border] = 0
        rollout = (joined / joined.sum(dim=2, keepdim=True) + torch.eye(17)) / 2 @ rollout
    close(attribute(model, inputs, "attention_rollout", discard=0.8).values[:, 0], rollout[:, 0, 1:].reshape(2, 4, 4))


def test_attention_rollout_gives_every_caller_of_attention_what_it_asked_for():
    torch.manual_seed(0)

    class Attending(nn.Module):
        def __init__(self, asked):
            super().__init__()
            self.patches, self.token = nn.Conv2d(1, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
            self.attention, self.head, self.asked, self.shape = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3), asked, None

        def forward(self, x):
            tokens = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x).flatten(2).transpose(1, 2)], dim=1)
            out, weights = self.attention(tokens, tokens, tokens, **self.asked)
            self.shape = None if weights is None else tuple(weights.shape)
            return self.head(out[:, 0])

    for asked, shape in (({}, (2, 10, 10)), ({"need_weights": False}, None), ({"average_attn_weights": False}, (2, 2, 10, 10))):
        model, inputs = Attending(asked).eval(), torch.randn(2, 1, 12, 12)
        logits = model(inputs).detach()
        found = attribute(model, inputs, "attention_rollout")
        assert model.shape == shape and found.values.shape == (2, 1, 3, 3)
        close(found.logits, logits)


def test_attention_rollout_says_where_it_is_not_defined(resnet20, cifar):
    with pytest.raises(DNNVizError, match="this network has none"):
        attribute(resnet20, cifar, "attention_rollout")
    swin, inputs = torchvision_network("swin_t")
    with pytest.raises(DNNVizError, match="attends within windows"):
        attribute(swin, inputs, "attention_rollout")

    class NoToken(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.attention, self.head = nn.Conv2d(1, 8, 4, 4), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.head(self.attention(tokens, tokens, tokens)[0].mean(dim=1))

    with pytest.raises(DNNVizError, match="not a class token and a grid"):
        attribute(NoToken().eval(), torch.randn(2, 1, 12, 12), "attention_rollout")


def test_tokens_are_read_as_maps():
    """Grad-CAM and its relatives on a ViT and a Swin, against pytorch-grad-cam with its transforms of tokens."""
    transformer, small = small_transformer()
    swin, large = torchvision_network("swin_t")
    vit_map = {"reshape_transform": lambda t: t[:, 1:].reshape(len(t), 4, 4, -1).permute(0, 3, 1, 2)}
    for model, inputs, layer, transform in (
        (transformer, small, "encoder.layers.encoder_layer_2.ln_1", vit_map),
        (swin, large, "features.5", {"reshape_transform": lambda t: t.permute(0, 3, 1, 2)}),
    ):
        for kind, method in (("GradCAM", "grad_cam"), ("LayerCAM", "layer_cam")):
            found = attribute(model, inputs, method, [3, 1], layer=layer)
            assert all(note.state != "degenerate" for note in found.notes)
            close(scaled(found.heatmap), reference_cam(kind, model, layer, inputs, [3, 1], **transform))


@pytest.mark.parametrize("method", FAMILY)
def test_units_and_differences_are_explained_where_that_is_defined(method):
    torch.manual_seed(0)
    if method == "attention_rollout":
        model, inputs, layer, unit = *small_transformer(), None, "unit:encoder.layers.encoder_layer_2:3"
    else:
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7)
        )
        inputs, layer, unit = torch.randn(2, 3, 12, 12), "1", "unit:2:3"
    assert attribute(model, inputs, method, "class:3-class:5", layer).heatmap.shape == inputs[:, 0].shape
    if method == "cam":
        with pytest.raises(DNNVizError, match="CAM explains scores of classes"):
            attribute(model, inputs, method, unit, layer)
        return
    found = attribute(model, inputs, method, unit, layer)
    assert found.heatmap.shape == inputs[:, 0].shape and np.isfinite(found.heatmap).all()
    if method in ("grad_cam", "grad_cam_pp", "layer_cam"):
        with torch.no_grad():
            maps = model[:2](inputs)
        maps.requires_grad_()
        gradient = torch.autograd.grad(model[2:4](maps)[:, 3].mean(dim=(1, 2)).sum(), maps)[0]
        maps = maps.detach()
        if method == "grad_cam":
            weights = gradient.mean(dim=(2, 3), keepdim=True)
        elif method == "layer_cam":
            weights = gradient.relu()
        else:
            alpha = gradient**2 / (2 * gradient**2 + gradient**3 * maps.sum(dim=(2, 3), keepdim=True)).clamp(min=1e-30)
            weights = (alpha * gradient.relu()).sum(dim=(2, 3), keepdim=True)
        close(found.values[:, 0], (weights * maps).sum(dim=1).relu())


def test_maps_without_evidence_are_not_stretched():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[:, 0, 1, 1] = 1.0
        model[4].weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, -0.1]]))
    inputs = torch.rand(2, 1, 8, 8)
    for method in ("cam", "grad_cam", "grad_cam_pp", "layer_cam", "guided_grad_cam"):
        against, speaking = (attribute(model, inputs, method, target=target, layer="1") for target in (0, 1))
        assert {note.state for note in against.notes} == {"degenerate"} and (method == "cam" or not against.heatmap.any())
        assert {note.state for note in speaking.notes} == {"good"} and speaking.heatmap.any()


def test_the_notes_say_how_much_is_evidence():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
        model[4].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    input = torch.tensor([[[[19.0, -1.0], [0.0, 0.0]]]])  # one place speaks for class 0, another against it
    for method in ("grad_cam", "grad_cam_pp", "layer_cam"):
        against, speaking = (attribute(model, input, method, target=target, layer="1").notes[0] for target in (1, 0))
        assert (speaking.state, speaking.text) == ("good", "95\u00a0% speaks for it") and speaking.value == pytest.approx(0.95)
        assert (against.state, against.text) == ("warning", "5\u00a0% speaks for it")


def test_grad_cam_pp_warns_where_its_weights_are_not_defined():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[:, 0, 1, 1] = torch.tensor([1.0, -1.0])
        model[4].weight.copy_(torch.tensor([[1.0, 9.0], [1.0, 9.0]]))
    note = attribute(model, torch.rand(1, 1, 8, 8) + 1, "grad_cam_pp", 0, layer="1").notes[0]
    assert note.state == "warning" and note.text == "undefined for 50\u00a0% of channels"


def test_the_family_is_described():
    assert set(FAMILY) <= set(METHODS)
    assert METHODS["score_cam"].passes({"channels": 128}, (3, 224, 224)) == 129
    assert METHODS["score_cam"].passes({"channels": 0}, (3, 224, 224)) == 513
