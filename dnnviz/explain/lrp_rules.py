"""Rules of layer-wise relevance propagation for one layer: its input, its weights and the relevance of its output → that of its input.

A convolution, a linear layer and a batch norm are all y = map(x, w) + b with a map that is linear in x; the rules know only this.
Sources: Bach et al. 2015 (epsilon, alpha-beta), Montavon et al. 2017 (box), Montavon et al. 2019 and Andéol et al. 2021 (gamma).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

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
    that follows, None where none does.
    """

    map: Map
    inputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    output: torch.Tensor
    channels: int = 1
    scale: torch.Tensor | None = None
    shift: torch.Tensor | None = None

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
    """Values moved away from zero by `epsilon`, each to its own side."""
    return torch.where(values < 0, values - epsilon, values + epsilon)


def epsilon_rule(layer: Layer, relevance: torch.Tensor, epsilon: float) -> torch.Tensor:
    """In proportion to what each input contributes to the output. Source: Bach et al. 2015, equation 58."""
    flowing = relevance / stable(layer.output, epsilon)
    if layer.scale is not None:
        flowing = flowing * layer.over_outputs(layer.scale)
    return layer.inputs * layer.map.backward(flowing, layer.weight, layer.inputs)


def gamma_rule(layer: Layer, relevance: torch.Tensor, gamma: float) -> torch.Tensor:
    """In proportion to the contributions, those of the output's own sign strengthened by `gamma`.

    Sources: Montavon et al. 2019, section 10.2.3, for positive inputs; Andéol et al. 2021, for inputs of both signs.
    """
    weight, factor, bias = layer.merged()
    positive, negative = layer.halves()
    # w + γ max(w, 0) = (1 + γ) · raised and w + γ min(w, 0) = lowered, one pass over the weights each.
    raised = F.leaky_relu(weight, 1 / (1 + gamma))
    up = 1 + gamma if factor is None else (1 + gamma) * factor
    total = layer.map.forward(positive, raised) * up
    lowered = None
    if negative is not None:
        lowered = F.leaky_relu(weight, 1 + gamma)
        rest = layer.map.forward(negative, lowered)
        total += rest if factor is None else rest * factor
    if bias is not None:
        total += bias + gamma * bias.clamp(min=0)
    # The two denominators, for outputs above and below zero, are y + γ y⁺ and y + γ y⁻ with y⁺ + y⁻ = y.
    above = torch.where(layer.output > 0, relevance / stable(total), 0)
    below = torch.where(layer.output < 0, relevance / stable((2 + gamma) * layer.output - total), 0)
    found = positive * layer.map.backward(above * up, raised, layer.inputs)
    mixed = bool(below.any())
    if mixed or negative is not None:
        lowered = F.leaky_relu(weight, 1 + gamma) if lowered is None else lowered
        down = 1 if factor is None else factor
        if mixed:
            found += positive * layer.map.backward(below * down, lowered, layer.inputs)
        if negative is not None:
            found += negative * layer.map.backward(above * down, lowered, layer.inputs)
            if mixed:
                found += negative * layer.map.backward(below * up, raised, layer.inputs)
    return found


def alpha_beta_rule(layer: Layer, relevance: torch.Tensor, alpha: float) -> torch.Tensor:
    """`alpha` parts over the positive contributions and alpha - 1 parts taken away over the negative ones.

    With alpha = 1 only positive contributions count (the z⁺ rule). Source: Bach et al. 2015, equation 60.
    """
    weight, factor, bias = layer.merged()
    positive, negative = layer.halves()
    beta = alpha - 1
    found = torch.zeros_like(layer.inputs)
    for share, same, other in ((alpha, "min", "max"), (-beta, "max", "min"))[: 2 if beta else 1]:
        with_positive = weight.clamp(**{same: 0})
        with_negative = weight.clamp(**{other: 0}) if negative is not None else None
        total = layer.map.forward(positive, with_positive)
        if with_negative is not None:
            total += layer.map.forward(negative, with_negative)
        if factor is not None:
            total *= factor
        if bias is not None:
            total += bias.clamp(**{same: 0})
        flowing = share * relevance / stable(total)
        if factor is not None:
            flowing *= factor
        found += positive * layer.map.backward(flowing, with_positive, layer.inputs)
        if with_negative is not None:
            found += negative * layer.map.backward(flowing, with_negative, layer.inputs)
    return found


def box_rule(layer: Layer, relevance: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """For the layer that sees pixels: in proportion to the contributions beyond those of the least favourable pixels.

    low, high: bounds of the input, of a shape that broadcasts to it. Source: Montavon et al. 2017, section 3.2 (the zᴮ rule).
    """
    weight = layer.weight if layer.scale is None else layer.map.scaled(layer.weight, layer.scale)
    terms = ((layer.inputs, weight), (-low.expand_as(layer.inputs), weight.clamp(min=0)), (-high.expand_as(layer.inputs), weight.clamp(max=0)))
    total = layer.map.forward(*terms[0])
    for bound, part in terms[1:]:
        # The bounds are the same for every input of the batch.
        total += layer.map.forward(bound[:1], part)
    flowing = relevance / stable(total)
    found = torch.zeros_like(layer.inputs)
    for values, part in terms:
        found += values * layer.map.backward(flowing, part, layer.inputs)
    return found
