"""The network as a graph: nodes and edges of a run → elements and style of a cytoscape picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnnviz.store import Layer
from dnnviz.theme import PALETTE

COLUMN, ROW, LINE_GAP = 172, 62, 44
SHORTEST_LINE = 6  # ranks side by side, at least, before the drawing goes on below


def elements(
    graph: Mapping[str, Any], layers: Sequence[Layer], health: np.ndarray, share: bool, theme: str, *, blocks: bool = True
) -> tuple[list[dict[str, Any]], tuple[str, str]]:
    """Cytoscape elements with positions, and the ends of the colour scale as text.

    graph: nodes and edges of the run; health: float [len(layers)], the figure that colours them (a share, or any number); blocks: draw a block
    as one node instead of the layers inside it. In densely connected networks edges that a longer path implies are
    left out. Data flows left to right, and goes on below where a line is full.
    """
    nodes, edges = _collapsed(graph) if blocks else (list(graph["nodes"]), _unique(graph["edges"]))
    ranks = _ranks([n["id"] for n in nodes], edges)
    if len(edges) > 2 * len(nodes):
        edges = _reduced(edges, ranks)
    positions = _positions(nodes, edges, ranks)
    by_name = {layer.name: (layer, float(value)) for layer, value in zip(layers, health, strict=True)}
    low, high = 0.0, max((value for _, value in by_name.values() if np.isfinite(value)), default=0.0)
    colours = PALETTE.get(theme, PALETTE["light"])
    drawn: list[dict[str, Any]] = []
    for node in nodes:
        layer, value = by_name.get(node.get("layer") or "", (None, 0.0))
        strength = 0.0 if high <= low else max(0.0, value - low) / (high - low)
        x, y = positions[node["id"]]
        label = node["label"] if layer is None else f"{_short(layer.name)}\n{layer.units} units"
        data = {
            "id": node["id"],
            "label": label,
            "layer": node.get("layer"),
            "kind": node["kind"],
            "colour": _mix(colours["cell0"], colours["cell1"], strength) if layer is not None else colours["panel"],
            "ink": "#ffffff" if strength > 0.55 else colours["ink"],
        }
        drawn.append({"data": data, "position": {"x": x, "y": y}, "classes": "layer" if layer is not None else "op"})
    drawn += [{"data": {"source": a, "target": b}, "classes": "turn" if positions[b][0] <= positions[a][0] else "flow"} for a, b in edges]
    return drawn, ("0", f"{100 * high:.0f} %" if share else f"{high:.3g}")


def stylesheet(theme: str) -> list[dict[str, Any]]:
    """Cytoscape style of a theme."""
    colours = PALETTE.get(theme, PALETTE["light"])
    return [
        {
            "selector": "node",
            "style": {
                "shape": "round-rectangle",
                "width": 138,
                "height": 44,
                "background-color": "data(colour)",
                "border-width": 1,
                "border-color": colours["muted"],
                "label": "data(label)",
                "color": "data(ink)",
                "font-size": 13,
                "font-family": "Liberation Sans, Arial, sans-serif",
                "text-wrap": "wrap",
                "text-max-width": "130px",
                "text-valign": "center",
                "text-halign": "center",
            },
        },
        {"selector": ".op", "style": {"width": 64, "height": 30, "shape": "ellipse", "color": colours["muted"], "font-size": 12}},
        {"selector": "node:selected", "style": {"border-width": 3, "border-color": colours["accent"]}},
        {
            "selector": "edge",
            "style": {
                "width": 1.4,
                "line-color": colours["muted"],
                "target-arrow-color": colours["muted"],
                "target-arrow-shape": "triangle",
                "arrow-scale": 0.9,
                "curve-style": "bezier",
                "opacity": 0.75,
            },
        },
        {
            "selector": ".skip",
            "style": {
                "curve-style": "unbundled-bezier",
                "control-point-distances": [-58],
                "control-point-weights": [0.5],
                "source-endpoint": "0deg",
                "target-endpoint": "0deg",
            },
        },
        {"selector": ".turn", "style": {"curve-style": "taxi", "taxi-direction": "downward", "taxi-turn": "40px"}},
    ]


def _collapsed(graph: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Nodes inside a block are drawn as the outermost block that holds them."""
    blocks = sorted((n for n in graph["nodes"] if n["kind"] == "block" and n.get("layer")), key=lambda n: len(n["layer"]))
    owner: dict[str, str] = {}
    for node in graph["nodes"]:
        place = str(node.get("layer") or node.get("parent") or "")
        for block in blocks:
            if place == block["layer"] or place.startswith(block["layer"] + "."):
                owner[node["id"]] = block["id"]
                break
    nodes = [n for n in graph["nodes"] if owner.get(n["id"], n["id"]) == n["id"]]
    edges = [{"source": owner.get(e["source"], e["source"]), "target": owner.get(e["target"], e["target"])} for e in graph["edges"]]
    return nodes, _unique([e for e in edges if e["source"] != e["target"]])


def _unique(edges: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((e["source"], e["target"]) for e in edges))


def _reduced(edges: Sequence[tuple[str, str]], ranks: Mapping[str, int]) -> list[tuple[str, str]]:
    """Edges without those that a longer path implies: where everything is concatenated with everything, only these are legible."""
    after: dict[str, set[str]] = defaultdict(set)
    for a, b in edges:
        after[a].add(b)
    reached: dict[str, set[str]] = {}
    for name in sorted(ranks, key=lambda n: -ranks[n]):
        forward = [n for n in after[name] if ranks[n] > ranks[name]]
        reached[name] = set(forward).union(*(reached[n] for n in forward))
    return [(a, b) for a, b in edges if not any(b in reached[n] for n in after[a] if n != b and ranks[n] > ranks[a])]


def _ranks(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Longest path from an input to each node; an edge that would close a circle (a layer used again) is passed over."""
    after: dict[str, list[str]] = defaultdict(list)
    waiting = dict.fromkeys(names, 0)
    for a, b in edges:
        after[a].append(b)
        waiting[b] += 1
    ranks = dict.fromkeys(names, 0)
    left, ready = set(names), [n for n in names if waiting[n] == 0]
    while left:
        name = ready.pop(0) if ready else next(n for n in names if n in left)
        if name not in left:
            continue
        left.discard(name)
        for other in after[name]:
            waiting[other] -= 1
            if other in left:
                ranks[other] = max(ranks[other], ranks[name] + 1)
                if waiting[other] == 0:
                    ready.append(other)
    return ranks


def _positions(nodes: Sequence[Mapping[str, Any]], edges: Sequence[tuple[str, str]], ranks: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """Column by rank, lane by the mean lane of what comes before; lines so long that the whole is about a third wider than high."""
    before: dict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        before[b].append(a)
    columns: dict[int, list[str]] = defaultdict(list)
    for node in nodes:
        columns[ranks[node["id"]]].append(node["id"])
    lanes: dict[str, float] = {}
    for rank in sorted(columns):
        members = columns[rank]
        wanted = {n: float(np.mean([lanes[p] for p in before[n] if p in lanes] or [0.0])) for n in members}
        members.sort(key=lambda n: wanted[n])
        start = float(np.mean(list(wanted.values()))) - (len(members) - 1) / 2
        for i, name in enumerate(members):
            lanes[name] = start + i
        if len(members) == 1:
            lanes[members[0]] = 0.0
    positions: dict[str, tuple[float, float]] = {}
    top = 0.0
    length = max(SHORTEST_LINE, round((0.8 * len(columns)) ** 0.5))
    for first in range(0, max(columns, default=0) + 1, length):
        line = [n for rank in range(first, first + length) for n in columns.get(rank, [])]
        if not line:
            continue
        lowest, highest = min(lanes[n] for n in line), max(lanes[n] for n in line)
        for name in line:
            positions[name] = ((ranks[name] - first) * COLUMN, top + (lanes[name] - lowest) * ROW)
        top += (highest - lowest + 1) * ROW + LINE_GAP
    return positions


def _short(name: str) -> str:
    """The last parts of a path that fit a box."""
    kept = name
    while len(kept) > 21 and "." in kept:
        kept = kept.partition(".")[2]
    return kept if kept == name else "…" + kept


def _mix(low: str, high: str, share: float) -> str:
    parts = [(int(low[i : i + 2], 16), int(high[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in parts)
