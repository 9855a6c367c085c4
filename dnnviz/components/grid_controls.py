"""Controls that the pages with a grid of units share."""

from __future__ import annotations

import dash_bootstrap_components as dbc

from dnnviz.components.controls import checklist
from dnnviz.store import Run

STATS = {"mean": "Mean over the map", "max": "Maximum", "active": "Share of inputs active"}
KINDS = {"conv": "Convolutions", "linear": "Linear", "attention": "Attention", "block": "Blocks"}
CELLS = {"0": "Auto", "19": "Large", "13": "Medium", "7": "Small"}


def kinds_checklist(run: Run, chosen: str) -> dbc.Checklist:
    """Which kinds of layers are shown, of those that the run has; chosen: their names, joined with commas."""
    present = {layer.kind for layer in run.layers}
    return checklist("kinds", {kind: text for kind, text in KINDS.items() if kind in present}, chosen.split(","))
