"""The one place that imports torchvision."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

import torch

from dnnviz.errors import DNNVizError

_lock = threading.Lock()
# torch forgets the declarations when this object is collected.
_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Import torchvision with its models, transforms and data sets, and return it.

    A torchvision built against another torch than the one installed (CUDA beside CPU) cannot load its compiled
    operators, and its import raises `operator torchvision::nms does not exist`, although networks for classification
    need none of them. Only then, the two operators that the import asks for are declared; calling them still fails.
    Raises DNNVizError when torchvision is not installed or cannot be imported.
    """
    with _lock:
        if "torchvision" not in sys.modules:
            found = importlib.util.find_spec("torchvision")
            if found is None or found.origin is None:
                raise DNNVizError("torchvision is not installed; install it with `pip install torchvision`.")
            if not _declared and not _operators_load(Path(found.origin).parent):
                library = torch.library.Library("torchvision", "DEF")
                for name in ("nms", "qnms"):
                    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                _declared.append(library)
        try:
            module = importlib.import_module("torchvision")
            for part in ("models", "transforms", "datasets"):
                importlib.import_module(f"torchvision.{part}")
        except (ImportError, RuntimeError) as error:
            raise DNNVizError(
                f"torchvision cannot be imported ({str(error).splitlines()[0]}); install the build that matches torch {torch.__version__}."
            ) from error
        return module


def _operators_load(package: Path) -> bool:
    libraries = [p for p in package.glob("_C*") if p.suffix in (".so", ".pyd", ".dylib")]
    try:
        for path in libraries:
            torch.ops.load_library(str(path))
    except (OSError, ImportError):
        return False
    return hasattr(torch.ops.torchvision, "nms")
