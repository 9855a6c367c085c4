"""Trained networks and real pictures from the shared data, and how closely maps must agree with a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dnnviz.models import build

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resnet20(data: Path) -> torch.nn.Module:
    """CIFAR ResNet-20 in eval mode."""
    return build("dnnviz:resnet20", weights=data / "weights" / "resnet20_cifar10.pt").eval()


def squeezenet(data: Path) -> torch.nn.Module:
    """SqueezeNet 1.1 of ImageNet in eval mode."""
    return build("torchvision:squeezenet1_1", weights=data / "weights" / "squeezenet1_1_imagenet.pt").eval()


def cifar(data: Path, count: int = 6) -> torch.Tensor:
    """The first test pictures, normalised [count, 3, 32, 32]."""
    with np.load(data / "cifar10" / "test_1000.npz") as file:
        return _normalised(file["images"][:count])


def photos(data: Path, names: tuple[str, ...] = ("cat_dog.png", "n02391049_zebra.JPEG")) -> torch.Tensor:
    """Photographs, normalised [n, 3, 224, 224]."""
    from PIL import Image

    pictures = [Image.open(data / "photos" / name).convert("RGB").resize((224, 224)) for name in names]
    return _normalised(np.stack([np.asarray(picture) for picture in pictures]))


def _normalised(images: np.ndarray) -> torch.Tensor:
    scaled = (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy())


def close(ours: np.ndarray, reference: torch.Tensor | np.ndarray, limit: float = 1e-4) -> None:
    """Assert that the largest difference is below `limit` of the largest value of the reference."""
    reference = reference.detach().numpy() if isinstance(reference, torch.Tensor) else np.asarray(reference)
    assert ours.shape == reference.shape
    error = np.abs(ours - reference).max() / np.abs(reference).max()
    assert error < limit, f"relative error {error:.1e}"


def predicted(model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """int64 [n]: the class that the network names."""
    with torch.no_grad():
        return model(inputs).argmax(dim=1)
