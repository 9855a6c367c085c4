"""DNNViz: look inside deep image classifiers.

Parts are loaded when they are touched, so that `import dnnviz` is cheap and the web process never imports torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["analysis", "attack", "capture", "datasets", "explain", "models", "project", "store"],
    submod_attrs={"capture": ["Recorder"], "store": ["Layer", "Run", "open_run"], "errors": ["DNNVizError", "RunError"]},
)
