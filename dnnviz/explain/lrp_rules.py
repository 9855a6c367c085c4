"""Rules of layer-wise relevance propagation for one layer: its input, its weights and the relevance of its output → that of its input.

A convolution, a linear layer and a batch norm are all y = map(x, w) + b with a map that is linear in x; the rules know only this.
Sources: Bach et al. 2015 (epsilon, alpha-beta), Montavon et al. 2017 (box), Montavon et al. 2019 and Andéol et al. 2021 (gamma).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F

from dnnviz.explain.scratch import Scratch

STABLE = 1e-6  # added to every denominator, away from zero


class Map(Protocol):
    """A map that is linear in an input and in weights: forward gives the output, backward the transposed map of what flows."""

    def forward(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor: ...

    def backward(self, flowing: torch.Tensor, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor: ...

    def scaled(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Convolution(Map):
    """A convolution, or a transposed one, in any number of dimensions."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int

    def forward(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.convolution(inputs, weight, None, self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups)

    def backward(self, flowing: torch.Tensor, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        settings = (self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups)
        return torch.ops.aten.convolution_backward(flowing, inputs, weight, None, *settings, [True, False, False])[0]

    def scaled(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Weights with each channel of the output scaled."""
        if self.transposed:
            return (weight.unflatten(0, (self.groups, -1)) * scale.view(self.groups, 1, -1, *[1] * (weight.ndim - 2))).flatten(0, 1)
        return weight * scale.view(-1, *[1] * (weight.ndim - 1))


class Linear(Map):
    """A linear layer over the last dimension."""

    def forward(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear(inputs, weight)

    def backward(self, flowing: torch.Tensor, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return flowing @ weight

    def scaled(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Weights with each output scaled."""
        return weight * scale[:, None]


class Channelwise(Map):
    """A factor for each channel, in the shape of the output (a batch norm that follows no layer)."""

    def forward(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return inputs * weight

    def backward(self, flowing: torch.Tensor, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return flowing * weight

    def scaled(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Factors with each channel scaled."""
        return weight * scale.view(-1, *[1] * (weight.ndim - 1))


@dataclass
class Layer:
    """A layer in a forward pass: output = scale · (map(inputs, weight) + bias) + shift, everything detached.

    bias: [channels] or None. channels: the dimension of the output that they are. scale, shift: [channels], those of the batch norm
    that follows, None where none does. room: for two changed sets of weights; layers of a pass share it.
    """

    map: Map
    inputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    output: torch.Tensor
    channels: int = 1
    scale: torch.Tensor | None = None
    shift: torch.Tensor | None = None
    room: tuple[Scratch, Scratch] = field(default_factory=lambda: (Scratch(), Scratch()), repr=False)

    def over_outputs(self, values: torch.Tensor) -> torch.Tensor:
        """[channels] in a shape that broadcasts over the output."""
        return values if self.channels == -1 else values.view(-1, *[1] * (self.output.ndim - 2))

    def merged(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """(weight, factor over the output or None, bias over the output or None), the batch norm merged.

        A batch norm that changes no sign stays a factor outside the weights, which may be many more than the outputs.
        """
        weight, factor, bias = self.weight, None, self.bias
        if self.scale is not None and self.shift is not None:
            bias = self.shift if bias is None else bias * self.scale + self.shift
            if bool((self.scale > 0).all()):
                factor = self.over_outputs(self.scale)
            else:
                weight = self.map.scaled(weight, self.scale)
        return weight, factor, None if bias is None else self.over_outputs(bias)

    def halves(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Positive and negative part of the input; None for the second where it is zero everywhere (behind a ReLU)."""
        if bool(self.inputs.amin() >= 0):
            return self.inputs, None
        return self.inputs.clamp(min=0), self.inputs.clamp(max=0)


def stable(values: torch.Tensor, epsilon: float = STABLE) -> torch.Tensor:
    """A copy of the values moved away from zero by `epsilon`, each to its own side."""
    return torch.copysign(values.new_full((), epsilon), values).add_(values)


def over(relevance: torch.Tensor, values: torch.Tensor, epsilon: float = STABLE) -> torch.Tensor:
    """Relevance over the stable values."""
    denominator = stable(values, epsilon)
    return torch.div(relevance, denominator, out=denominator)


def epsilon_rule(layer: Layer, relevance: torch.Tensor, epsilon: float) -> torch.Tensor:
    """In proportion to what each input contributes to the output. Source: Bach et al. 2015, equation 58."""
    flowing = over(relevance, layer.output, epsilon)
    if layer.scale is not None:
        flowing *= layer.over_outputs(layer.scale)
    return layer.map.backward(flowing, layer.weight, layer.inputs).mul_(layer.inputs)


def gamma_rule(layer: Layer, relevance: torch.Tensor, gamma: float) -> torch.Tensor:
    """In proportion to the contributions, those of the output's own sign strengthened by `gamma`.

    Sources: Montavon et al. 2019, section 10.2.3, for positive inputs; Andéol et al. 2021, for inputs of both signs.
    """
    weight, factor, bias = layer.merged()
    positive, negative = layer.halves()
    # w + γ max(w, 0) = (1 + γ) · raised and w + γ min(w, 0) = lowered, one pass over the weights each.
    first, second = layer.room
    raised = torch.ops.aten.leaky_relu.out(weight, 1 / (1 + gamma), out=first.like(weight))
    lowered = None if negative is None else torch.ops.aten.leaky_relu.out(weight, 1 + gamma, out=second.like(weight))
    up, down = (1 + gamma, 1) if factor is None else ((1 + gamma) * factor, factor)
    total = layer.map.forward(positive, raised).mul_(up)
    if negative is not None:
        total += layer.map.forward(negative, lowered).mul_(down)
    if bias is not None:
        total += bias + gamma * bias.clamp(min=0)
    # The two denominators, for outputs above and below zero, are y + γ y⁺ and y + γ y⁻ with y⁺ + y⁻ = y.
    below = relevance * (layer.output < 0)
    if not bool(below.any()):
        above = over(relevance, total)
        found = layer.map.backward(above * up, raised, layer.inputs).mul_(positive)
        return found if negative is None else found.addcmul_(negative, layer.map.backward(above * down, lowered, layer.inputs))
    above = over(relevance * (layer.output > 0), total)
    below = over(below, (2 + gamma) * layer.output - total)
    if negative is None:
        # (w + γ min(w, 0)) = (2 + γ) w - (w + γ max(w, 0)): no third set of weights.
        plain = below * (2 + gamma) if factor is None else below * factor * (2 + gamma)
        return layer.map.backward((above - below) * up, raised, layer.inputs).add_(layer.map.backward(plain, weight, layer.inputs)).mul_(positive)
    found = layer.map.backward(above * up, raised, layer.inputs).add_(layer.map.backward(below * down, lowered, layer.inputs)).mul_(positive)
    rest = layer.map.backward(above * down, lowered, layer.inputs).add_(layer.map.backward(below * up, raised, layer.inputs))
    return found.addcmul_(negative, rest)


def alpha_beta_rule(layer: Layer, relevance: torch.Tensor, alpha: float) -> torch.Tensor:
    """`alpha` parts over the positive contributions and alpha - 1 parts taken away over the negative ones.

    With alpha = 1 only positive contributions count (the z⁺ rule). Source: Bach et al. 2015, equation 60.
    """
    weight, factor, bias = layer.merged()
    positive, negative = layer.halves()
    both = negative is not None
    first, second = layer.room
    raising = torch.clamp(weight, min=0, out=first.like(weight))
    lowering = torch.clamp(weight, max=0, out=second.like(weight)) if both or alpha > 1 else None
    parts = [(alpha, raising, lowering, None if bias is None else bias.clamp(min=0))]
    if alpha > 1:
        parts.append((1 - alpha, lowering, raising, None if bias is None else bias.clamp(max=0)))
    found = None
    for share, of_positive, of_negative, constant in parts:
        total = layer.map.forward(positive, of_positive)
        if both:
            total += layer.map.forward(negative, of_negative)
        if factor is not None:
            total *= factor
        if constant is not None:
            total += constant
        flowing = over(relevance, total).mul_(share if factor is None else share * factor)
        for inputs, weights in ((positive, of_positive), (negative, of_negative)):
            if inputs is not None:
                part = layer.map.backward(flowing, weights, layer.inputs).mul_(inputs)
                found = part if found is None else found.add_(part)
    return found


def box_rule(layer: Layer, relevance: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """For the layer that sees pixels: in proportion to the contributions beyond those of the least favourable pixels.

    low, high: bounds of the input, [1, …] each. Source: Montavon et al. 2017, section 3.2 (the zᴮ rule).
    """
    weight, factor, bias = layer.merged()
    raising, lowering = weight.clamp(min=0), weight.clamp(max=0)
    least = layer.map.forward(low, raising) + layer.map.forward(high, lowering)
    total = layer.output - (least if factor is None else least * factor)
    if bias is not None:
        total -= bias
    flowing = over(relevance, total)
    if factor is not None:
        flowing *= factor
    found = layer.map.backward(flowing, raising, layer.inputs).mul_(layer.inputs - low)
    return found.add_(layer.map.backward(flowing, lowering, layer.inputs).mul_(layer.inputs - high))
