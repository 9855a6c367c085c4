"""Which layers are found, and that their values are those that a slow, independent reading of the network gives."""

from __future__ import annotations

import operator
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from dnnviz.errors import DNNVizError
from dnnviz.graph import build_graph
from dnnviz.layers import Layers, find_layers
from dnnviz.models import import_torchvision
from dnnviz.taps import Taps, units_first

torchvision = import_torchvision()

# name → side of the input, and how many layers of each kind a person reading the model would list.
FAMILIES = {
    "alexnet": (64, {"conv": 5, "linear": 3}),
    "vgg11": (32, {"conv": 8, "linear": 3}),
    "vgg11_bn": (32, {"conv": 8, "linear": 3}),
    "resnet18": (64, {"conv": 20, "linear": 1, "block": 8}),
    "googlenet": (64, {"conv": 57, "linear": 1, "block": 9}),
    "inception_v3": (80, {"conv": 94, "linear": 1, "block": 11}),
    "densenet121": (32, {"conv": 120, "linear": 1, "block": 58}),
    "squeezenet1_1": (64, {"conv": 26, "block": 8}),
    "mobilenet_v2": (32, {"conv": 52, "linear": 1, "block": 17}),
    "mobilenet_v3_small": (32, {"conv": 52, "linear": 2, "block": 11}),
    "efficientnet_b0": (32, {"conv": 81, "linear": 1, "block": 16}),
    "shufflenet_v2_x0_5": (32, {"conv": 56, "linear": 1, "block": 16}),
    "regnet_y_400mf": (32, {"conv": 85, "linear": 1, "block": 16}),
    "mnasnet0_5": (32, {"conv": 52, "linear": 1, "block": 16}),
    "convnext_tiny": (32, {"conv": 22, "linear": 37, "block": 18}),
    "vit_b_32": (64, {"conv": 1, "attention": 12, "linear": 25, "block": 12}),
    "swin_t": (32, {"conv": 1, "attention": 12, "linear": 28, "block": 12}),
    "swin_v2_t": (64, {"conv": 1, "attention": 12, "linear": 28, "block": 12}),
}
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.GELU, nn.Tanh)


def network(name: str, size: int) -> nn.Module:
    """A torchvision network at random weights, normalisations that do something, in eval mode."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit"):
        options["image_size"] = size
    if name.startswith(("vgg", "alexnet")):
        # A hundred million random numbers in vain: only that they differ matters.
        with torch.device("meta"):
            model = getattr(torchvision.models, name)(weights=None)
        model = model.to_empty(device="cpu")
        for parameter in model.parameters():
            parameter.data.uniform_(-1, 1).div_(max(parameter[0].numel(), 1) ** 0.5)
        for buffer in model.buffers():
            buffer.fill_(1)
    else:
        model = getattr(torchvision.models, name)(weights=None, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def values(model: nn.Module, found: Layers, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every layer's value [n, units, positions…], as the taps hand it over."""
    kept: dict[str, torch.Tensor] = {}

    def receive(position: int, tensor: torch.Tensor) -> None:
        item = found.found[position]
        kept[item.layer.name] = units_first(tensor, item.tap.value, len(inputs)).clone()

    with torch.inference_mode(), Taps([item.tap for item in found.found], receive):
        model(inputs)
    return kept


class Reference(fx.Interpreter):
    """Runs the symbolic graph of a network node by node and keeps a clone of everything."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(fx.symbolic_trace(model))
        self.seen: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, node: fx.Node) -> object:
        result = super().run_node(node)
        if isinstance(result, torch.Tensor):
            self.seen[node] = result.clone()
        elif isinstance(result, tuple) and result and isinstance(result[0], torch.Tensor):
            self.seen[node] = result[0].clone()
        return result

    def after(self, node: fx.Node) -> tuple[torch.Tensor, int]:
        """Value and channel dimension after the normalisation and activation that alone consume a convolution or linear layer."""
        modules = dict(self.module.named_modules())
        own = modules[node.target]
        channel = 1 if isinstance(own, nn.Conv2d) else self.seen[node].dim() - 1
        best, best_channel, normalised = node, channel, False
        while len(node.users) == 1:
            (user,) = node.users
            module = modules.get(user.target) if user.op == "call_module" else None
            function = user.target if user.op == "call_function" else None
            if function is torch.permute or (user.op == "call_method" and user.target == "permute"):
                order = user.args[1] if isinstance(user.args[1], list | tuple) else user.args[1:]
                channel = [d % len(order) for d in order].index(channel)
            elif isinstance(module, nn.Dropout | nn.Identity):
                pass
            elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm) or function is F.layer_norm:
                if normalised:
                    break
                normalised, best, best_channel = True, user, channel
            elif isinstance(module, ACTIVATIONS) or function is F.relu:
                return self.seen[user], channel
            else:
                break
            node = user
        return self.seen[best], best_channel


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_and_values_of_every_family(name: str) -> None:
    size, expected = FAMILIES[name]
    model = network(name, size)
    example = torch.randn(2, 3, size, size)
    found = find_layers(model, example)
    assert Counter(layer.kind for layer in found.layers) == expected
    assert len({layer.name for layer in found.layers}) == len(found.layers)
    assert [layer.offset for layer in found.layers] == [sum(p.units for p in found.layers[:i]) for i in range(len(found.layers))]
    got = values(model, found, example)
    modules = dict(model.named_modules())
    for layer in found.layers:
        module = modules[layer.name]
        if layer.kind in ("conv", "linear"):
            assert layer.units == (module.out_channels if isinstance(module, nn.Conv2d) else module.out_features)
        places = tuple(got[layer.name].shape[2:])
        assert layer.units == got[layer.name].shape[1]
        assert layer.shape == ((layer.units, *places) if len(places) != 1 else (places[0], layer.units))
    # Every module with weights is either a layer, folded into one, or listed with a reason.
    assert all(entry["reason"] and entry["parameters"] for entry in found.uncovered)
    reference = Reference(model)
    with torch.inference_mode():
        reference.run(example)
    checked = 0
    for node in reference.seen:
        if node.op == "call_module" and node.target in got:
            value = got[node.target]
            if isinstance(modules[node.target], nn.MultiheadAttention):
                wanted = reference.seen[node].movedim(-1, 1)
            else:
                wanted, channel = reference.after(node)
                wanted = wanted.movedim(channel, 1)
            scale = float(wanted.abs().max())
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5 * scale, msg=lambda m, n=node: f"{n.target}: {m}")
            checked += 1
    assert checked == sum(n for kind, n in expected.items() if kind != "block" and not (kind == "attention" and name.startswith("swin")))
    # Blocks and functional attention: the output of the module of that name, by a plain hook.
    plain: dict[str, torch.Tensor] = {}
    for layer in found.layers:
        if layer.kind == "block" or (layer.kind == "attention" and name == "swin_t"):
            modules[layer.name].register_forward_hook(lambda _m, _i, out, n=layer.name: plain.__setitem__(n, out.clone()))
    with torch.inference_mode():
        model(example)
    for label, wanted in plain.items():
        wanted = wanted.movedim(-1, 1) if name.startswith(("vit", "swin")) else wanted
        torch.testing.assert_close(got[label], wanted, rtol=1e-4, atol=1e-5)


def test_alexnet_layers() -> None:
    found = find_layers(network("alexnet", 64), torch.randn(2, 3, 64, 64))
    assert [(layer.kind, layer.units) for layer in found.layers] == [
        *(("conv", 64), ("conv", 192), ("conv", 384), ("conv", 256), ("conv", 256)),
        *(("linear", 4096), ("linear", 4096), ("linear", 1000)),
    ]
    assert [layer.name for layer in found.layers][:2] == ["features.0", "features.3"]
    assert not found.uncovered


def test_resnet_values_by_hand() -> None:
    """The first block of ResNet-18 written out."""
    model = network("resnet18", 64)
    example = torch.randn(2, 3, 64, 64)
    got = values(model, find_layers(model, example), example)
    with torch.inference_mode():
        x = torch.relu(model.bn1(model.conv1(example)))
        torch.testing.assert_close(got["conv1"], x)
        x = F.max_pool2d(x, 3, 2, 1)
        block = model.layer1[0]
        y = torch.relu(block.bn1(block.conv1(x)))
        torch.testing.assert_close(got["layer1.0.conv1"], y)
        y = block.bn2(block.conv2(y))
        torch.testing.assert_close(got["layer1.0.conv2"], y)
        assert float(got["layer1.0.conv2"].min()) < 0  # the in-place ReLU after the addition has not overwritten it
        torch.testing.assert_close(got["layer1.0"], torch.relu(y + x))


def test_unused_parts_are_listed_with_a_reason() -> None:
    torch.manual_seed(0)
    model = torchvision.models.googlenet(weights=None, init_weights=False).eval()
    found = find_layers(model, torch.randn(2, 3, 64, 64))
    reasons = {entry["name"]: entry["reason"] for entry in found.uncovered}
    assert {name.split(".")[0] for name in reasons} == {"aux1", "aux2"}
    assert set(reasons.values()) == {"not called in a forward pass in eval mode"}


# -- small networks with everything that people write ----------------------------------------------------------------


class Functional(nn.Module):
    """Functional activations of every sort, view and reshape, one layer used twice, a shared ReLU, a hand-written Swish."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.swish = nn.Conv2d(4, 6, 1)
        self.pooled = nn.Conv2d(6, 6, 3, padding=1)
        self.hidden = nn.Linear(6 * 16, 8)
        self.out = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = self.relu(self.twice(x))
        x = self.relu(self.twice(x) + x)
        x = self.swish(x)
        x = x * torch.sigmoid(x)
        x = F.max_pool2d(F.leaky_relu(self.pooled(x), 0.2), 2)
        x = x.reshape(x.size(0), -1)
        x = F.gelu(self.hidden(x))
        return self.out(F.dropout(x, 0.5, self.training))


def test_functional_shared_and_repeated() -> None:
    torch.manual_seed(0)
    model = Functional().eval()
    model.norm.running_mean.normal_()
    example = torch.randn(3, 3, 8, 8)
    found = find_layers(model, example)
    assert [layer.name for layer in found.layers] == ["first", "twice", "twice#2", "swish", "pooled", "hidden", "out"]
    got = values(model, found, example)
    with torch.inference_mode():
        a = F.relu(model.norm(model.first(example)))
        b = F.relu(model.twice(a))
        c = model.twice(b)
        d = model.swish(F.relu(c + b))
        e = d * torch.sigmoid(d)
        f = F.leaky_relu(model.pooled(e), 0.2)
        g = F.gelu(model.hidden(F.max_pool2d(f, 2).flatten(1)))
        wanted = {"first": a, "twice": b, "twice#2": c, "swish": e, "pooled": f, "hidden": g, "out": model.out(g)}
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, msg=lambda m, n=name: f"{n}: {m}")


class PreActivation(nn.Module):
    """Norm, ReLU, convolution: the convolution's value is its own output, since an addition consumes it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.conv(torch.relu_(self.norm(x)))
        return self.head(x.mean((2, 3)))


def test_a_value_with_two_consumers_is_taken_as_it_is() -> None:
    torch.manual_seed(0)
    model, example = PreActivation().eval(), torch.randn(2, 3, 8, 8)
    found = find_layers(model, example)
    got = values(model, found, example)
    torch.testing.assert_close(got["stem"], model.stem(example))
    assert float(got["conv"].min()) < 0
    assert [entry["name"] for entry in found.uncovered] == ["norm"]
    assert "normalisation" in found.uncovered[0]["reason"]


def test_a_module_of_convolution_and_norm_is_no_norm() -> None:
    torch.manual_seed(0)
    block = torchvision.ops.Conv2dNormActivation(4, 6, 3)
    model, example = nn.Sequential(nn.Conv2d(3, 4, 3), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)).eval(), torch.randn(2, 3, 8, 8)
    found = find_layers(model, example)
    assert [layer.name for layer in found.layers] == ["0", "1.0", "4"]
    got = values(model, found, example)
    with torch.inference_mode():
        torch.testing.assert_close(got["0"], model[0](example))
        torch.testing.assert_close(got["1.0"], block(model[0](example)))


class Frozen(nn.Module):
    """A normalisation of the user's own, applied with plain operations."""

    class FrozenNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale + 0.1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
        self.norm = self.FrozenNorm()
        self.act = nn.PReLU(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.norm(self.conv(x))).mean((2, 3)))


def test_own_normalisations_and_activations_with_weights_belong_to_the_layer() -> None:
    torch.manual_seed(0)
    model, example = Frozen().eval(), torch.randn(2, 3, 8, 8)
    found = find_layers(model, example)
    assert [layer.name for layer in found.layers] == ["conv", "head"] and not found.uncovered
    with torch.inference_mode():
        torch.testing.assert_close(values(model, found, example)["conv"], model.act(model.norm(model.conv(example))))


class Windows(nn.Module):
    """Attention written by hand over windows folded into the batch, and tokens first in PyTorch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, 2)
        self.mix = nn.Linear(8, 6)
        self.back = nn.Linear(6, 8)
        self.attend = nn.MultiheadAttention(8, 2)
        self.scale = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        n = len(x)
        tokens = x.flatten(2).transpose(1, 2)
        windows = tokens.reshape(n * 4, -1, 8)
        windows = self.back(F.relu(self.mix(windows)))
        tokens = windows.reshape(n, -1, 8).transpose(0, 1)
        tokens = tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0] * self.scale
        return self.head(tokens.mean(0))


def test_windows_in_the_batch_and_tokens_first() -> None:
    torch.manual_seed(0)
    model, example = Windows().eval(), torch.randn(3, 3, 8, 8)
    found = find_layers(model, example)
    shapes = {layer.name: (layer.kind, layer.units, layer.shape) for layer in found.layers}
    assert shapes["embed"] == ("conv", 8, (8, 4, 4))
    assert shapes["mix"][:2] == ("linear", 6)
    assert shapes["attend"] == ("attention", 8, (16, 8))
    got = values(model, found, example)
    with torch.inference_mode():
        tokens = model.embed(example).flatten(2).transpose(1, 2)
        mixed = F.relu(model.mix(tokens))
        again = model.back(mixed).transpose(0, 1)
        attended = model.attend(again, again, again)[0]
    torch.testing.assert_close(got["mix"].flatten(2).mean(2), mixed.mean(1))
    torch.testing.assert_close(got["attend"], attended.permute(1, 2, 0), rtol=1e-4, atol=1e-5)
    assert [entry["name"] for entry in found.uncovered] == ["(the network itself)"]


class OwnWeights(nn.Module):
    """A module of the user's own that applies its parameters itself, and one that nobody calls."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 3, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(x, self.weight * 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.own = self.Scaled()
        self.spare = nn.Linear(2, 2)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.own(x)).mean((2, 3)))


def test_modules_that_apply_their_own_weights() -> None:
    torch.manual_seed(0)
    model, example = OwnWeights().eval(), torch.randn(2, 3, 8, 8)
    found = find_layers(model, example)
    assert [(layer.name, layer.kind, layer.units) for layer in found.layers] == [("own", "conv", 5), ("head", "linear", 2)]
    torch.testing.assert_close(values(model, found, example)["own"], F.relu(model.own(example)))
    assert [entry["name"] for entry in found.uncovered] == ["spare"]


def test_only_the_layers_asked_for() -> None:
    model, example = network("resnet18", 64), torch.randn(2, 3, 64, 64)
    assert [layer.name for layer in find_layers(model, example, ["layer4.1.*", "fc"]).layers] == ["layer4.1.conv1", "layer4.1.conv2", "fc"]
    assert {layer.kind for layer in find_layers(model, example, ["block"]).layers} == {"block"}
    with pytest.raises(DNNVizError, match="No layer of the network fits 'layer9'"):
        find_layers(model, example, ["layer9"])


def test_a_network_without_layers_gets_a_sentence() -> None:
    with pytest.raises(DNNVizError, match="no convolution, linear or attention"):
        find_layers(nn.Flatten(), torch.randn(2, 3, 4, 4))


# -- the graph -------------------------------------------------------------------------------------------------------


def flow(graph: dict) -> set[tuple[str, str]]:
    return {(edge["source"], edge["target"]) for edge in graph["edges"]}


def test_graph_of_a_residual_network() -> None:
    graph = build_graph(find_layers(network("resnet18", 64), torch.randn(2, 3, 64, 64)))
    edges = flow(graph)
    assert {("layer1.0.conv1", "layer1.0.conv2"), ("layer1.0.conv2", "layer1.0"), ("layer1.0", "layer1.1.conv1"), ("layer1.0", "layer1.1")} <= edges
    assert {("layer1.1", "layer2.0.downsample.0"), ("layer2.0.downsample.0", "layer2.0"), ("fc", "output")} <= edges
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert nodes["layer2.0"]["kind"] == "block" and nodes["layer2.0"]["parent"] == "layer2"
    assert nodes["layer2.0.conv1"]["parent"] == "layer2.0"


@pytest.mark.parametrize(
    "name", ["resnet18", "googlenet", "densenet121", "squeezenet1_1", "shufflenet_v2_x0_5", "vit_b_32", "swin_t", "efficientnet_b0"]
)
def test_graphs_are_whole(name: str) -> None:
    """Every node lies on a way from the input to the output, no edge goes in a circle, every layer is there."""
    size = FAMILIES[name][0]
    found = find_layers(network(name, size), torch.randn(1, 3, size, size))
    graph = build_graph(found)
    names = [node["id"] for node in graph["nodes"]]
    assert len(set(names)) == len(names)
    edges = flow(graph)
    assert {end for edge in edges for end in edge} <= set(names)
    assert {node["layer"] for node in graph["nodes"] if node["layer"]} == {layer.name for layer in found.layers}
    following: dict[str, list[str]] = {n: [] for n in names}
    before: dict[str, list[str]] = {n: [] for n in names}
    for source, target in edges:
        following[source].append(target)
        before[target].append(source)
    waiting = {n: len(before[n]) for n in names}
    ready, order = [n for n in names if not waiting[n]], []
    while ready:
        node = ready.pop()
        order.append(node)
        for target in following[node]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    assert len(order) == len(names), "the graph has a circle"
    assert [n for n in names if not before[n]] == ["input"]
    assert [n for n in names if not following[n]] == ["output"]


def test_graph_joins_of_densenet_and_inception() -> None:
    edges = flow(build_graph(find_layers(network("googlenet", 64), torch.randn(1, 3, 64, 64))))
    assert len([e for e in edges if e[1] == "inception3a"]) == 4
    assert operator.contains(edges, ("inception3a.branch2.0.conv", "inception3a.branch2.1.conv"))
