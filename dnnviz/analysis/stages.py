"""Stages of a network: the parts of its module tree that a person would fold together."""

from __future__ import annotations

from collections.abc import Sequence

_STEM = "stem"


def stages(names: Sequence[str]) -> list[str]:
    """Stage of every layer, by the layers' paths in the module tree.

    A container that holds most of the network is opened as long as its parts hold several layers each
    (`features.denseblock1`, not `features`); layers directly inside an opened container form the stage of that
    container, layers directly inside the network are the stem before the first stage and stand under their own name after it.
    """
    paths = [name.partition("#")[0].split(".") for name in names]
    opened: set[tuple[str, ...]] = {()}
    frontier: list[tuple[str, ...]] = [()]
    while frontier:
        prefix = frontier.pop()
        for child in {tuple(p[: len(prefix) + 1]) for p in paths if tuple(p[: len(prefix)]) == prefix and len(p) > len(prefix) + 1}:
            if _opens(child, paths):
                opened.add(child)
                frontier.append(child)
    found: list[str] = []
    for path in paths:
        depth = 0
        while tuple(path[:depth]) in opened:
            depth += 1
        # A leaf directly inside an opened container belongs to the container itself, a block is its own stage.
        leaf = depth == len(path) and not any(other[:depth] == path and len(other) > depth for other in paths)
        stage = path[: depth - 1] if leaf else path[:depth]
        if stage:
            found.append(".".join(stage))
        else:
            found.append(_STEM if all(s == _STEM for s in found) and len(paths) > 1 else path[0])
    return found if any(stage != _STEM for stage in found) else [path[0] for path in paths]


def _opens(prefix: tuple[str, ...], paths: Sequence[Sequence[str]]) -> bool:
    """Whether a container holds most layers and several parts that themselves hold several layers."""
    depth = len(prefix)
    inside = [p for p in paths if tuple(p[:depth]) == prefix]
    parts: dict[str, int] = {}
    for path in inside:
        if len(path) > depth:
            parts[path[depth]] = parts.get(path[depth], 0) + 1
    composite = sum(1 for count in parts.values() if count > 1)
    return len(inside) > 0.6 * len(paths) and composite >= 2 and composite >= len(parts) / 2
