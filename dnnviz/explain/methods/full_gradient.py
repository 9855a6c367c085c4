"""Full-gradient: what the pixels and what the biases of all layers add to the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.question import Answer, Question

_WHY = "Completeness: input · gradient and all bias · gradient should add up to the score; the gap is what is missing."
_CURVED = " This network is not piecewise linear (GELU, SiLU, attention, layer norm) or clips its ReLUs, where nothing promises that they do."
_GAP = 1e-3  # completeness error above which the map is marked; rounding is far below


@register(
    "full_gradient",
    title="Full-gradient",
    family="gradient",
    summary="Where the pixels, and the biases of every layer, take part in the score; in a ReLU network nothing of the score is left out.",
    paper="Srinivas, Fleuret: Full-gradient representation for neural network visualization. NeurIPS",
    year=2019,
    parameters=(
        Parameter("rescale", "Layers alike", "flag", True, "bring each layer to 0…1 first, as the paper does; off keeps its share of the score"),
    ),
    signed=False,
)
def full_gradient(question: Question, *, rescale: bool) -> Answer:
    """Magnitudes of input × gradient and of bias × gradient of all layers, over the picture and summed [n, 1, H, W].

    Layers are enlarged bilinearly; biases of layers without places count for completeness only. A batch norm's bias is
    β − γμ/σ. The note gives |input · gradient + Σ bias · gradient − score| over |score|.
    Source: Srinivas and Fleuret 2019, equation 3 (completeness) and 4 (the map, with ψ = enlarge(rescale(abs))).
    """
    import torch
    import torch.nn.functional as F

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.maps import removed_after
    from dnnviz.explain.question import Answer, gradient_note, percent
    from dnnviz.explain.scratch import Scratch

    inputs = question.inputs.detach().clone().requires_grad_()
    room, sums = Scratch(), []
    maps: dict[tuple[int, int], torch.Tensor] = {}  # of each size, summed before they are enlarged, which is linear

    def collect(gradient: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """gradient: [n, C, …] with respect to what the bias [C] was added to; None where it is multiplied already."""
        flat = gradient.reshape(*gradient.shape[:2], -1)
        parts = flat if bias is None else torch.mul(flat, bias[:, None], out=room.like(flat))
        sums.append(parts.sum(dim=(1, 2)))
        if gradient.ndim != 4:
            return
        parts = parts.abs_()
        found = parts.sum(dim=1)
        if rescale:
            low, high = parts.amin(dim=(1, 2))[:, None], parts.amax(dim=(1, 2))[:, None]
            found = torch.where(high > low, (found - parts.shape[1] * low) / (high - low), 0)
        size = (gradient.shape[2], gradient.shape[3])
        maps[size] = maps.get(size, 0) + found

    def watch(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        # Windows folded into the batch cannot be told apart here; what they add shows as a gap.
        if not output.requires_grad or len(output) != len(inputs):
            return
        places_first = isinstance(module, torch.nn.Linear) and output.ndim > 2
        output.register_hook(lambda gradient: collect(gradient.movedim(-1, 1) if places_first else gradient, biases[module]))

    biases = {module: bias for module in question.model.modules() if (bias := _bias(module)) is not None}
    with removed_after(*(module.register_forward_hook(watch) for module in biases)):
        score = question.score(inputs)
        found = torch.autograd.grad(score.sum(), inputs, allow_unused=True)[0] if score.requires_grad else None
    gradient = torch.zeros_like(inputs) if found is None else found
    with torch.no_grad():
        collect(gradient * inputs)
        values = torch.zeros_like(inputs[:, :1])
        for size, found in maps.items():
            # The inputs take the place of channels, which are enlarged together.
            values += F.interpolate(found.unflatten(1, size)[None], inputs.shape[-2:], mode="bilinear", align_corners=False).transpose(0, 1)
        gaps = ((torch.stack(sums).sum(dim=0) - score).abs() / score.abs().clamp(min=1e-12)).tolist()
    notes = [
        note
        if note.state != "good"
        else Note("good" if gap <= _GAP else "warning", f"gap {percent(gap)}", gap, _WHY if gap <= _GAP else _WHY + _CURVED)
        for note, gap in zip(gradient_note(values, ""), gaps, strict=True)
    ]
    return Answer(values, values[:, 0], notes)


def _bias(module: torch.nn.Module) -> torch.Tensor | None:
    """What a convolution, linear layer or batch norm adds to each of its channels [C], whatever comes in; None for other modules."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
        found = module.bias
    elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
        zero = torch.zeros_like(module.running_mean)[None]
        found = F.batch_norm(zero, module.running_mean, module.running_var, module.weight, module.bias, eps=module.eps)[0]
    else:
        return None
    return None if found is None or found.ndim != 1 else found.detach()
