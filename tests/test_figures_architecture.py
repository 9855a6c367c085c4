"""The architecture view: every layer once, data from left to right, branches apart."""

from itertools import pairwise

import numpy as np
import pytest

from dnnviz.figures.architecture import elements, stylesheet
from dnnviz.store import Layer

LAYERS = [
    Layer("conv1", "conv", 4, (4, 8, 8), 0),
    Layer("block.conv1", "conv", 4, (4, 8, 8), 4),
    Layer("block.conv2", "conv", 4, (4, 8, 8), 8),
    Layer("block", "block", 4, (4, 8, 8), 12),
    Layer("fc", "linear", 2, (2,), 16),
]
GRAPH = {
    "nodes": [{"id": "input", "label": "input", "kind": "input", "layer": None, "parent": None}]
    + [{"id": e.name, "label": e.name, "kind": e.kind, "layer": e.name, "parent": "block" if "." in e.name else None} for e in LAYERS],
    "edges": [
        {"source": a, "target": b}
        for a, b in [
            ("input", "conv1"),
            ("conv1", "block.conv1"),
            ("conv1", "block.conv2"),
            ("block.conv1", "block"),
            ("block.conv2", "block"),
            ("block", "fc"),
        ]
    ],
}


def drawn(**options) -> dict[str, dict]:
    found, _ = elements(GRAPH, LAYERS, np.array([0.0, 0.25, 0.0, 0.5, 0.0]), True, "light", **options)
    return {e["data"].get("id") or (e["data"]["source"], e["data"]["target"]): e for e in found}


def test_every_layer_is_drawn_and_follows_what_feeds_it() -> None:
    found = drawn(blocks=False)
    assert {"input", *(layer.name for layer in LAYERS)} <= found.keys()
    for edge in GRAPH["edges"]:
        assert found[edge["source"]]["position"]["x"] < found[edge["target"]]["position"]["x"]


def test_branches_do_not_cover_each_other() -> None:
    found = drawn(blocks=False)
    places = [(e["position"]["x"], e["position"]["y"]) for e in found.values() if "position" in e]
    assert len(set(places)) == len(places)
    assert found["block.conv1"]["position"]["y"] != found["block.conv2"]["position"]["y"]


def test_a_block_stands_for_the_layers_inside_it() -> None:
    found = drawn(blocks=True)
    assert "block.conv1" not in found and ("conv1", "block") in found and ("block", "fc") in found


def test_the_colour_follows_the_figure() -> None:
    found, (low, high) = elements(GRAPH, LAYERS, np.array([0.0, 0.25, 0.0, 0.5, 0.0]), True, "light")
    colours = {e["data"]["id"]: e["data"]["colour"] for e in found if "position" in e}
    assert (low, high) == ("0", "50 %")
    assert colours["block"] == "#cb0016" and colours["conv1"] == colours["fc"] == "#fff7f3"


def test_a_densely_connected_network_keeps_only_edges_that_no_longer_path_implies() -> None:
    names = [f"n{i}" for i in range(9)]
    graph = {
        "nodes": [{"id": n, "label": n, "kind": "op", "layer": None, "parent": None} for n in names],
        "edges": [{"source": a, "target": b} for i, a in enumerate(names) for b in names[i + 1 :]],
    }
    found, _ = elements(graph, [], np.zeros(0), True, "light")
    assert {(e["data"]["source"], e["data"]["target"]) for e in found if "source" in e["data"]} == set(pairwise(names))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_there_is_a_style_for_each_class(theme: str) -> None:
    assert {".op", ".turn", ".skip"} <= {rule["selector"] for rule in stylesheet(theme)}
