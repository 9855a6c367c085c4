"""Attention rollout: how much of each patch reaches the class token through all layers of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnnviz.errors import DNNVizError
from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.question import Answer, Question

_WHY = (
    "Attention says where information comes from, not what it argues for: the map does not depend on the class, and every target gets the same. "
    "The number compares its highest place with its mean."
)
_FLAT = "Every patch reaches the class token equally: the attention of this network does not choose between places."
_NONE = (
    "Attention rollout follows nn.MultiheadAttention from the image's patches to a class token (as in a ViT); {}. "
    "Choose Grad-CAM, which reads tokens as maps as well."
)


@register(
    "attention_rollout",
    title="Attention rollout",
    family="activation",
    summary="How much of each patch reaches the class token of a vision transformer through all its layers; does not depend on the class.",
    paper="Abnar, Zuidema: Quantifying attention flow in transformers. ACL",
    year=2020,
    parameters=(
        Parameter(
            "heads", "Heads", "choice", "mean", "how the heads of a layer are put together; mean is the paper's", choices=("mean", "min", "max")
        ),
        Parameter(
            "discard", "Discard", "number", 0.0, "share of the weakest attention of each layer set to zero; 0 is the paper's", low=0, high=0.95
        ),
    ),
    signed=False,
)
def attention_rollout(question: Question, *, heads: str, discard: float) -> Answer:
    """Row of the class token in the product of (A + I) / 2 over the layers [n, 1, h, w]; heatmap: bilinear to the input's size.

    A: attention of a layer, heads put together, each row made to sum to 1. Source: Abnar and Zuidema 2020, section 3, equation 1.
    Raises DNNVizError where the network has no such attention, or no class token.
    """
    import torch

    from dnnviz.explain.attribution import Note
    from dnnviz.explain.maps import token_grid, upsampled
    from dnnviz.explain.question import Answer, gradient_note

    attentions = _attentions(question, heads)
    tokens = attentions[0].shape[-1]
    grid = token_grid(tokens, (question.inputs.shape[-2], question.inputs.shape[-1]))
    if grid is None or grid[0] * grid[1] != tokens - 1:
        raise DNNVizError(_NONE.format(f"the {tokens} tokens of this network are not a class token and a grid of patches"))
    rollout = torch.zeros_like(attentions[0][:, :1])
    rollout[:, 0, 0] = 1
    # From the last layer backwards only the row of the class token is needed: a vector times a matrix in every layer.
    for attention in reversed(attentions):
        if discard:
            attention = _without_weakest(attention, discard)
        attention = attention / attention.sum(dim=2, keepdim=True).clamp(min=1e-12)
        rollout = (rollout @ attention + rollout) / 2
    values = rollout[:, :, 1:].unflatten(2, grid)
    flat = values.flatten(1)
    peaks = (flat.amax(dim=1) / flat.mean(dim=1).clamp(min=1e-30)).tolist()
    notes = [
        note
        if note.state != "good"
        else Note("good", f"of no class; peak {peak:.1f} × mean", peak, _WHY)
        if peak > 1.001
        else Note("degenerate", "the same everywhere", peak, _FLAT)
        for note, peak in zip(gradient_note(values, ""), peaks, strict=True)
    ]
    return Answer(values, upsampled(values, question)[:, 0], notes)


def _attentions(question: Question, heads: str) -> list[torch.Tensor]:
    """Attention [n, tokens, tokens] of every layer, in order."""
    import inspect

    import torch
    from torch import nn

    from dnnviz.explain.maps import removed_after

    found: list[torch.Tensor] = []
    asked: list[tuple[bool, bool]] = []  # what the network wanted of the call under way: weights, their mean over heads

    def ask(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call = inspect.signature(module.forward).bind(*args, **kwargs)
        asked.append((call.arguments.get("need_weights", True), call.arguments.get("average_attn_weights", True)))
        call.arguments.update(need_weights=True, average_attn_weights=False)
        return call.args, call.kwargs

    def keep(_module: nn.Module, _inputs: object, output: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        # Put together at once: one matrix a head and layer would be large.
        value, weights = output
        found.append(weights.mean(dim=1) if heads == "mean" else weights.amin(dim=1) if heads == "min" else weights.amax(dim=1))
        wanted, averaged = asked.pop()
        return value, (weights.mean(dim=1) if averaged else weights) if wanted else None

    layers = [module for module in question.model.modules() if isinstance(module, nn.MultiheadAttention)]
    if not layers:
        raise DNNVizError(_NONE.format("this network has none (a Swin transformer attends within windows, a convolutional network not at all)"))
    handles = [layer.register_forward_pre_hook(ask, with_kwargs=True) for layer in layers]
    handles += [layer.register_forward_hook(keep) for layer in layers]
    with removed_after(*handles), torch.no_grad():
        question.score()
    shapes = {attention.shape for attention in found}
    if len(shapes) != 1 or found[0].shape[0] != len(question.inputs) or found[0].shape[1] != found[0].shape[2]:
        raise DNNVizError(_NONE.format("the layers of attention in this network do not all see the same tokens of each input"))
    return found


def _without_weakest(attention: torch.Tensor, share: float) -> torch.Tensor:
    """Attention with the weakest `share` of each layer's entries set to zero; what comes from the class token stays."""
    count = int(share * attention[0].numel())
    weakest = attention.flatten(1).topk(count, dim=1, largest=False).indices
    kept = attention.flatten(1).scatter(1, weakest, 0).view_as(attention).clone()
    kept[:, :, 0] = attention[:, :, 0]
    return kept
