"""Feature maps of a layer: find the layer, cut the gradient's graph there, and read tokens as maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from dnnviz.errors import DNNVizError
from dnnviz.explain.attribution import Note
from dnnviz.explain.network import first_tensor, scores, with_first
from dnnviz.explain.question import Answer, Question, gradient_note

_POOLING = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.dropout._DropoutNd,
)

_NOISE = 1e-6  # evidence below this share of the map's negative part is rounding, not evidence
_LITTLE = 0.1  # share of positive evidence below which a map is marked
_EVIDENCE = "How much of what this layer adds up speaks for the target. The rest speaks against it and is cut off: the map cannot show it."
_NO_EVIDENCE = "The weighted feature maps are nowhere positive: at this layer nothing speaks for the target, and what little is left would be noise."


@dataclass(frozen=True)
class FeatureMaps:
    """Maps of a layer and how the score depends on them: activations and gradients [n, C, h, w], layer: its name."""

    activations: torch.Tensor
    gradients: torch.Tensor
    layer: str


def feature_maps(question: Question) -> FeatureMaps:
    """Activations of the question's layer and the gradient of the score with respect to them, once for all methods that ask.

    The graph begins at the layer, so a late layer costs little more than a forward pass.
    Raises DNNVizError where the layer is unknown, has no map, or plays no part in the score.
    """
    return question.once("maps", lambda: _feature_maps(question))


def _feature_maps(question: Question) -> FeatureMaps:
    name, module, call = locate(question)
    size = (question.inputs.shape[-2], question.inputs.shape[-1])
    shared = question.output()
    if shared is not None:
        reshape = layout(name, module, shared[0], size)
        return FeatureMaps(reshape(shared[0]), reshape(shared[1]), name)
    held: list[torch.Tensor] = []
    calls = 0

    def cut(_module: nn.Module, _inputs: object, output: object) -> object:
        nonlocal calls
        calls += 1
        if calls != call:
            return None
        leaf = first_tensor(output).detach().requires_grad_()
        held.append(leaf)
        torch.set_grad_enabled(True)
        # What follows may write in place (an in-place ReLU): it gets a copy, the leaf keeps the layer's own output.
        return with_first(output, leaf.clone())

    with removed_after(module.register_forward_hook(cut)), torch.no_grad():
        score = question.score()
    if not held:
        raise DNNVizError(f"{name} was not called (it is called {calls} times in a pass); choose another layer.")
    gradient = torch.autograd.grad(score.sum(), held[0], allow_unused=True)[0] if score.requires_grad else None
    if gradient is None:
        raise DNNVizError(f"The score does not depend on {name}; choose another layer.")
    reshape = layout(name, module, held[0], size)
    return FeatureMaps(reshape(held[0].detach()), reshape(gradient), name)


def share_pass(question: Question) -> str:
    """Let the pass that gradients of the input share keep the layer's output, so that `feature_maps` needs no other; returns the layer's name."""
    name, module, call = locate(question)
    question.shared = (module, call)
    return name


def positive_answer(question: Question, weighted: torch.Tensor, notes: list[Note], layer: str) -> Answer:
    """Answer of a method that shows the positive part of its map [n, 1, h, w], brought to the input's size (bilinear).

    Where nothing is positive the map is zero and its note `degenerate`: what is left there is rounding, and a viewer would stretch it.
    """
    values = weighted.relu()
    positive = values.flatten(1).amax(dim=1) > _NOISE * weighted.flatten(1).abs().amax(dim=1)
    values = values * positive[:, None, None, None]
    notes = [
        note if some or note.state == "degenerate" else Note("degenerate", "no positive evidence at this layer", why=_NO_EVIDENCE)
        for note, some in zip(notes, positive.tolist(), strict=True)
    ]
    return Answer(values, upsampled(values, question)[:, 0], notes, layer)


def evidence_notes(parts: torch.Tensor) -> list[Note]:
    """A Note an input: how much of the parts [n, …] that a map adds up is positive, hence shown; a warning where it is little."""
    flat = parts.detach().flatten(1)
    shares = (flat.relu().sum(dim=1) / flat.abs().sum(dim=1).clamp(min=1e-30)).tolist()
    return [
        note if note.state != "good" else Note("good" if share >= _LITTLE else "warning", f"{100 * share:.0f}\u00a0% speaks for it", share, _EVIDENCE)
        for note, share in zip(gradient_note(parts, ""), shares, strict=True)
    ]


def upsampled(maps: torch.Tensor, question: Question) -> torch.Tensor:
    """Maps [n, C, h, w] at the size of the question's inputs (bilinear)."""
    return F.interpolate(maps, question.inputs.shape[-2:], mode="bilinear", align_corners=False)


class removed_after:
    """Context manager over hook handles: removes them on the way out, also when something raises."""

    def __init__(self, *handles: torch.utils.hooks.RemovableHandle) -> None:
        self.handles = handles

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def locate(question: Question) -> tuple[str, nn.Module, int]:
    """Name, module and number of the call of the question's layer."""
    modules = dict(question.model.named_modules())
    layer = question.layer
    if isinstance(layer, nn.Module):
        for name, module in modules.items():
            if module is layer:
                return name, module, 1
        raise DNNVizError(f"The layer given ({type(layer).__name__}) is no part of this network.")
    if layer is None:
        layer = question.once("last feature map", lambda: last_feature_map(question.model, question.inputs[:1]))
    name, _, number = layer.partition("#")
    if not name or name not in modules or (number and not number.isdigit()):
        raise DNNVizError(f"This network has no layer {layer!r}; the names are those of `model.named_modules()`.")
    return layer, modules[name], int(number or 1)


def last_feature_map(model: nn.Module, inputs: torch.Tensor) -> str:
    """Name of the module that gives the last feature map before pooling (runs one pass).

    In a vision transformer it is the normalisation before the last attention, since behind it only the class token
    is read. The convolution that gives the class scores themselves (SqueezeNet) does not count.
    Raises DNNVizError where the network has no feature map.
    """
    names = {module: name for name, module in model.named_modules()}
    found: list[tuple[list[nn.Module], tuple[int, ...], bool]] = []
    current: torch.Tensor | None = None
    before_attention: nn.Module | None = None
    normed: tuple[nn.Module, torch.Tensor] | None = None

    def record(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal current, normed
        if not isinstance(output, torch.Tensor):
            return
        if isinstance(module, nn.LayerNorm) and output.ndim == 3:
            normed = (module, output)
        if output.ndim != 4 or output.shape[2] * output.shape[3] <= 1:
            return
        # Modules that hand on the same tensor (a block and its last ReLU) give one map under several names.
        if output is current:
            found[-1][0].append(module)
            return
        current = output
        found.append(([module], tuple(output.shape), not isinstance(module, _POOLING)))

    def attend(_module: nn.Module, inputs: tuple[object, ...]) -> None:
        nonlocal before_attention, current
        if normed is not None and inputs and inputs[0] is normed[1]:
            before_attention = normed[0]
            found.clear()
            current = None

    handles = [module.register_forward_hook(record) for module in names if names[module]]
    handles += [module.register_forward_pre_hook(attend) for module in names if isinstance(module, nn.MultiheadAttention)]
    with removed_after(*handles), torch.no_grad():
        classes = scores(model, inputs).shape[1]
    maps = [(modules, shape) for modules, shape, feature in found if feature]
    maps = [entry for entry in maps if entry[1][1] != classes] or maps
    if not maps:
        if before_attention is not None:
            return names[before_attention]
        raise DNNVizError("This network has no layer with a map over the image (it is all linear); methods of the CAM family need one.")
    return names[module_of_map(maps[-1][0])]


def module_of_map(modules: list[nn.Module]) -> nn.Module:
    """The module to name a map after, of those that hand on the same tensor, in order of their call: a block rather than what is inside it."""
    composite = [m for m in modules if type(m) is not nn.Sequential and any(True for _ in m.children())]
    return composite[0] if composite else modules[0]


def layout(name: str, module: nn.Module, output: torch.Tensor, size: tuple[int, int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """How to read a layer's output as maps [n, C, h, w]."""
    if output.ndim == 4:
        # Swin and the inside of ConvNeXt keep channels last; the width of their normalisation tells them apart.
        widths = {m.normalized_shape[-1] for m in module.modules() if isinstance(m, nn.LayerNorm)}
        widths |= {m.out_features for m in module.modules() if isinstance(m, nn.Linear)}
        channels_last = output.shape[1] not in widths and output.shape[3] in widths
        height, width = (output.shape[1], output.shape[2]) if channels_last else (output.shape[2], output.shape[3])
        if height * width > 1:
            return (lambda t: t.permute(0, 3, 1, 2)) if channels_last else (lambda t: t)
    if output.ndim == 3:
        grid = token_grid(output.shape[1], size)
        if grid is not None:
            special = output.shape[1] - grid[0] * grid[1]
            return lambda t: t[:, special:].transpose(1, 2).unflatten(2, grid)
    raise DNNVizError(f"{name} has no map over the image (its output has shape {list(output.shape[1:])}); choose a convolution layer or a block.")


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of the patches, with one class token or none before them; None where the tokens form no such grid."""
    for patches in (tokens, tokens - 1):
        rows = round(math.sqrt(patches * size[0] / size[1])) if patches > 1 else 0
        if rows and patches % rows == 0 and abs(rows / (patches // rows) - size[0] / size[1]) < 1e-6:
            return rows, patches // rows
    return None
