"""Data sets by name: torchvision's, folders of images, `.npz` files, two that need no files, and any function of the user's."""

from __future__ import annotations

from dnnviz.datasets.base import PRESETS, ImageSet, LoadedData, Preprocessing
from dnnviz.datasets.load import load

__all__ = ["PRESETS", "ImageSet", "LoadedData", "Preprocessing", "load"]
