"""Networks that come with DNNViz: a small CNN and the residual networks for CIFAR-10."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


def small_cnn(num_classes: int = 10, in_channels: int = 3, width: int = 16, pools: int = 2) -> nn.Sequential:
    """Four 3×3 convolutions with batch norm, global average pooling and two linear layers; any input size from 8×8 on.

    width: channels of the first convolution (the others have 2, 4 and 4 times as many).
    pools: how many of the first three convolutions are followed by 2×2 pooling (0–3); the feature map of the last
    convolution is 2**pools times smaller than the input.
    Every ReLU is a module of its own and none works in place, so that every attribution method applies.
    """
    channels = (in_channels, width, 2 * width, 4 * width, 4 * width)
    features: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, 5):
        features[f"conv{number}"] = nn.Conv2d(channels[number - 1], channels[number], 3, padding=1, bias=False)
        features[f"bn{number}"] = nn.BatchNorm2d(channels[number])
        features[f"relu{number}"] = nn.ReLU()
        if number <= pools:
            features[f"pool{number}"] = nn.MaxPool2d(2)
    classifier: OrderedDict[str, nn.Module] = OrderedDict(
        hidden=nn.Linear(channels[-1], 4 * width), relu=nn.ReLU(), output=nn.Linear(4 * width, num_classes)
    )
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(features), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=nn.Sequential(classifier))
    )


class PaddedShortcut(nn.Module):
    """Option A of He et al. 2015: every second pixel, new channels filled with zeros; it has no parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        missing = self.channels - x.shape[1]
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing // 2, missing - missing // 2))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if stride == 1 and channels_in == channels else PaddedShortcut(channels)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Residual network for small images: three stages of `blocks` blocks with 16, 32 and 64 channels.

    Depth = 6 · blocks + 2. Input [N, in_channels, H, W], output [N, num_classes].
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (2015), section 4.2, with shortcut option A.
    """

    def __init__(self, blocks: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(channels_in, channels, stride), *rest)


def resnet20(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR ResNet-20 (269,722 parameters with 10 classes)."""
    return CifarResNet(3, num_classes, in_channels)


def resnet32(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR ResNet-32."""
    return CifarResNet(5, num_classes, in_channels)


def resnet56(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR ResNet-56."""
    return CifarResNet(9, num_classes, in_channels)


BUILDERS = {"small_cnn": small_cnn, "resnet20": resnet20, "resnet32": resnet32, "resnet56": resnet56}
