"""Networks that a run of the tests names by `tests.networks:…`, as a user would name their own, and one in many styles."""

import torch
import torch.nn.functional as F
from torch import nn


def linear(num_classes: int = 4, in_channels: int = 3) -> nn.Module:
    """A network of linear layers on 16 × 16 inputs: it has no feature maps."""
    return nn.Sequential(nn.Flatten(), nn.Linear(256 * in_channels, 12), nn.ReLU(), nn.Linear(12, num_classes))


STYLES = ("module", "module in place", "shared", "shared in place", "functional", "functional in place", "method", "method in place on a view")


class Rectified(nn.Module):
    """The same function (residual addition, concatenation, batch norm, 5 classes) with its ReLUs written in one of STYLES."""

    def __init__(self, style: str, channels: int = 3) -> None:
        super().__init__()
        self.style = style
        self.a, self.b, self.c = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 5, 3)
        self.norm = nn.BatchNorm2d(8)
        for statistic in (self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias):
            nn.init.uniform_(statistic, 0.5, 1.5)
        self.relus = nn.ModuleList(nn.ReLU(inplace="place" in style) for _ in range(1 if style.startswith("shared") else 3))

    def rectify(self, x: torch.Tensor, i: int) -> torch.Tensor:
        """One of the network's three ReLUs."""
        if self.style == "functional":
            return F.relu(x)
        if self.style == "functional in place":
            return F.relu_(x)
        if self.style == "method":
            return x.relu()
        if self.style == "method in place on a view":
            return x.flatten(2).relu_().reshape(x.shape)
        return self.relus[min(i, len(self.relus) - 1)](x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 5]"""
        x = self.rectify(self.a(x), 0)
        x = torch.cat([x, x + self.rectify(self.norm(self.b(x)), 1)], dim=1)
        return self.rectify(self.c(x), 2).mean(dim=(2, 3))
