"""CAM: what each place of the last feature maps adds to the score; exact for networks that end in pooling and one linear layer."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from dnnviz.errors import DNNVizError
from dnnviz.explain.registry import register

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.question import Answer, Question

_REMEMBERED = 8  # outputs looked back at for the pooled maps: normalisations, dropout and pooling may come between
_ROUNDING = 1e-4  # relative error up to which two sums of float32 are the same
_WHY = "Completeness: the mean of the map over its places, plus the bias, is the score; the gap is what is missing of it."
_NONE = "No place of the last feature maps adds to the score of the target."
_SINGLE = (
    "With inputs of this size the last feature maps of this network have a single place, so CAM has nothing to show; "
    "choose Grad-CAM at an earlier layer."
)
_UNDEFINED = (
    "CAM needs a network that ends in global average pooling followed by one linear layer (or in maps of class scores and pooling), "
    "and this one does not; choose Grad-CAM."
)


@register(
    "cam",
    title="CAM",
    family="activation",
    summary="What each place of the last feature maps adds to the score; adds up exactly, where a network ends in pooling and one linear layer.",
    paper="Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning deep features for discriminative localization. CVPR",
    year=2016,
)
def cam(question: Question) -> Answer:
    """Class activation map, signed [n, 1, h, w]: Σ map / (h·w) + bias = score; heatmap: bilinear to the input's size.

    The maps are found by what they do, not by their name: those whose mean over places goes into the linear layer that gives
    the scores, or whose mean is the scores (SqueezeNet). The note gives the gap of that sum. Source: Zhou et al. 2016, equation 2.
    Raises DNNVizError where the network does not end so, or where a unit is explained.
    """
    import torch
    import torch.nn.functional as F

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.maps import upsampled
    from dnnviz.explain.question import Answer, gradient_note

    maps, linear, layer = _pooled_maps(question)
    classes = question.classes_only("CAM")
    weights = classes if linear is None else F.linear(classes, linear.weight.T)
    values = (weights[:, :, None, None] * maps).sum(dim=1, keepdim=True).detach()
    bias = 0 if linear is None or linear.bias is None else (classes * linear.bias).sum(dim=1).detach()
    # Against the size of what is added: a score near zero, or the difference of two scores, may be small by itself.
    missing = (values.mean(dim=(1, 2, 3)) + bias - question.scores).abs()
    size = values.abs().mean(dim=(1, 2, 3)) + torch.as_tensor(bias).abs()
    gaps = (missing / torch.maximum(size, question.scores.abs()).clamp(min=1e-30)).tolist()
    if max(gaps) > 10 * _ROUNDING:
        raise DNNVizError(_UNDEFINED)
    notes = [
        note
        if note.state != "good"
        else Note("good", f"gap {100 * gap:.1f}\u00a0%", gap, _WHY)
        if peak > 0
        else Note("degenerate", "no positive evidence", gap, _NONE)
        for note, gap, peak in zip(gradient_note(values, ""), gaps, values.flatten(1).amax(dim=1).tolist(), strict=True)
    ]
    return Answer(values, upsampled(values, question)[:, 0], notes, layer)


def _pooled_maps(question: Question) -> tuple[torch.Tensor, torch.nn.Linear | None, str]:
    """(maps [n, C, h, w], the linear layer behind their mean or None where the mean is the scores, name of the layer of the maps)."""
    import torch
    from torch import nn

    from dnnviz.explain.maps import module_of_map, removed_after

    outputs: deque[tuple[list[nn.Module], torch.Tensor]] = deque(maxlen=_REMEMBERED)
    linears: deque[tuple[nn.Linear, torch.Tensor, torch.Tensor]] = deque(maxlen=1)

    def record(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if not isinstance(output, torch.Tensor):
            return
        if isinstance(module, nn.Linear) and output.ndim == 2:
            linears.append((module, inputs[0], output))
        elif output.ndim == 4:
            if outputs and output is outputs[-1][1]:
                # A module without parts that hands on the tensor it was given has written into it (an in-place ReLU): the map is its.
                outputs[-1][0][:] = [*outputs[-1][0], module] if any(module.children()) else [module]
            else:
                outputs.append(([module], output))

    names = {module: name for name, module in question.model.named_modules()}
    with removed_after(*(module.register_forward_hook(record) for module in names if names[module])), torch.no_grad():
        question.score()
    linear, pooled = None, question.logits
    if linears and _same(linears[0][2], question.logits):
        linear, pooled = linears[0][:2]
    if outputs and all(output[0, 0].numel() == 1 for _, output in outputs):
        raise DNNVizError(_SINGLE)
    for modules, output in reversed(outputs):
        if output.shape[1] != pooled.shape[1] or output[0, 0].numel() == 1:
            continue
        # A rectifier written as a function (DenseNet) is no module: the maps that are pooled may be those behind it.
        for maps in (output, output.relu()):
            if _same(maps.mean(dim=(2, 3)), pooled):
                return maps, linear, names[module_of_map(modules)]
    raise DNNVizError(_UNDEFINED)


def _same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= _ROUNDING * wanted.abs().max())
