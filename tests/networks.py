"""Networks that a run of the tests names by `tests.networks:…`, as a user would name their own."""

from torch import nn


def linear(num_classes: int = 4, in_channels: int = 3) -> nn.Module:
    """A network of linear layers on 16 × 16 inputs: it has no feature maps."""
    return nn.Sequential(nn.Flatten(), nn.Linear(256 * in_channels, 12), nn.ReLU(), nn.Linear(12, num_classes))
