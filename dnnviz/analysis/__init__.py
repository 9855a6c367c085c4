"""Numpy in, numpy out: what the pages say about activations. No torch, no plotly, no dash."""

from dnnviz.analysis.health import dead_share, layer_health
from dnnviz.analysis.stages import stages

__all__ = ["dead_share", "layer_health", "stages"]
