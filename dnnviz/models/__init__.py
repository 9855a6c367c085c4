"""Networks by name: torchvision's, the built-in ones, and any function of the user's; their weights; the network of a snapshot."""

from __future__ import annotations

from dnnviz.models.build import DEFAULT, build, class_names, complete_spec, load_snapshot, load_weights
from dnnviz.models.torchvision_import import import_torchvision

__all__ = ["DEFAULT", "build", "class_names", "complete_spec", "import_torchvision", "load_snapshot", "load_weights"]
