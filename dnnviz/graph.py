"""The architecture as nodes and edges: layers, blocks, and the operations where the flow of data splits and meets."""

from __future__ import annotations

from typing import Any

from dnnviz import operations
from dnnviz.layers import Layers
from dnnviz.tracing import Op, Value


def build_graph(found: Layers) -> dict[str, Any]:
    """Nodes {"id", "label", "kind", "layer", "parent"} and edges {"source", "target"} of data flow.

    kind: conv, linear, attention, block, input, output, or the operation (add, cat, mul, pool). layer: name of the layer
    or null. parent: path of the innermost block or stage around a node, or null. Operations that change no structure
    (normalisation, activation, reshaping) are left out, with the flow drawn through them.
    """
    seen = found.trace
    blocks = {item.call.name: item.layer.name for item in found.found if item.layer.kind == "block"}
    nodes: dict[str, dict[str, Any]] = {"input": _node("input", "input", "input", None, None)}
    edges: dict[tuple[str, str], None] = {}
    by_call = {id(item.call): item for item in found.found if item.layer.kind != "block"}
    outputs: dict[int, list[Any]] = {}
    for item in found.found:
        if item.layer.kind == "block" and item.call.output is not None:
            outputs.setdefault(id(item.call.output), []).append(item)
    origin: dict[int, tuple[str, ...]] = {id(seen.input): ("input",)}
    done: set[int] = set()

    def arrive(value: Value) -> None:
        """A value that is the output of a block passes through the block's node."""
        for item in sorted(outputs.get(id(value), []), key=lambda i: i.call.ended):
            name = item.layer.name
            before = origin[id(value)]
            only = nodes.get(before[0]) if len(before) == 1 else None
            if only is not None and only["layer"] is None and only["kind"] in ("add", "cat") and only["id"].startswith(f"{item.call.name}."):
                # The block ends where its branches meet: one node.
                _rename(only["id"], name, nodes, edges, origin)
                nodes[name].update(label=name, kind="block", layer=name, parent=_parent(item.call.name, blocks))
                continue
            nodes[name] = _node(name, name, "block", name, _parent(item.call.name, blocks))
            edges.update({(source, name): None for source in before})
            origin[id(value)] = (name,)

    for op in seen.ops:
        owner = _owner(op, by_call)
        sources = tuple(dict.fromkeys(s for v in op.inputs for s in origin.get(id(v), ())))
        if owner is not None:
            name = owner.layer.name
            if name not in nodes:
                nodes[name] = _node(name, name, owner.layer.kind, name, _parent(owner.call.name, blocks))
            if id(owner.call) not in done:
                edges.update({(s, name): None for v in owner.call.inputs.values() for s in origin.get(id(v), ()) if s != name})
                done.add(id(owner.call))
            result: tuple[str, ...] = (name,)
        else:
            kind = _kind(op)
            if kind is None or (kind in ("add", "cat", "mul") and len(sources) < 2):
                result = sources
            else:
                base = f"{op.call.name}.{kind}" if op.call.name else kind
                # An operation in a module's own code lies inside it; a pooling module lies where it is called.
                inside = f"{op.call.name}." if next(op.call.module.children(), None) is not None else op.call.name
                name = base
                number = 2
                while name in nodes:
                    name, number = f"{base}#{number}", number + 1
                nodes[name] = _node(name, {"add": "+", "cat": "concat", "mul": "×", "pool": "pool"}[kind], kind, None, _parent(inside, blocks))
                edges.update({(s, name): None for s in sources})
                result = (name,)
        for value in op.outputs:
            origin[id(value)] = result
            arrive(value)
    nodes["output"] = _node("output", "output", "output", None, None)
    final = seen.root.output
    if final is not None:
        edges.update({(s, "output"): None for s in origin.get(id(final), ())})
    reached = {end for edge in edges for end in edge}
    return {
        "nodes": [n for key, n in nodes.items() if key in reached or n["layer"] is not None],
        "edges": [{"source": s, "target": t} for s, t in edges],
    }


def _node(name: str, label: str, kind: str, layer: str | None, parent: str | None) -> dict[str, Any]:
    return {"id": name, "label": label, "kind": kind, "layer": layer, "parent": parent}


def _owner(op: Op, by_call: dict[int, Any]) -> Any:
    call = op.call
    while call is not None:
        if id(call) in by_call:
            return by_call[id(call)]
        call = call.parent
    return None


def _kind(op: Op) -> str | None:
    if op.name in operations.CONCATENATIONS:
        return "cat"
    if op.name in operations.ADDITIONS:
        return "add"
    if op.name in operations.GATES:
        return "mul"
    return "pool" if "pool" in op.name else None


def _parent(name: str, blocks: dict[str, str]) -> str | None:
    """Path of the innermost block around a module, else the path above it; null at the top."""
    path = name.split(".")
    for length in range(len(path) - 1, 0, -1):
        above = ".".join(path[:length])
        if above in blocks:
            return above
    return ".".join(path[:-1]) or None


def _rename(old: str, new: str, nodes: dict[str, Any], edges: dict[tuple[str, str], None], origin: dict[int, tuple[str, ...]]) -> None:
    node = nodes.pop(old)
    node["id"] = new
    nodes[new] = node
    changed = {(new if s == old else s, new if t == old else t): None for s, t in edges}
    edges.clear()
    edges.update(changed)
    for key, value in origin.items():
        if old in value:
            origin[key] = tuple(new if v == old else v for v in value)
