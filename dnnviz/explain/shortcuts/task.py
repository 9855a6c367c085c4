"""The background job that looks for shortcuts: a map of every input for its own class, then means, shares and clusters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dnnviz.catalogue import Catalogue
from dnnviz.errors import DNNVizError
from dnnviz.explain.explainer import Explainer
from dnnviz.explain.plan import Tile, about_tile, is_missing, plan
from dnnviz.explain.shortcuts.clusters import reduced, spectral
from dnnviz.explain.shortcuts.keys import Asked, Shortcuts, asked, members, put_shortcuts, shortcuts_key
from dnnviz.explain.shortcuts.measures import deviations, evidence, shares, suspicion, suspicious
from dnnviz.explain.task import Work
from dnnviz.results import Results
from dnnviz.settings import Settings
from dnnviz.store import Run

_SHOWN = 112  # side of the mean maps that are kept


def run(settings: Settings, params: Mapping[str, Any], report: Callable[[float, float, str], object]) -> list[str]:
    """Compute what is missing; returns the key of the result.

    params: run (id), epoch, method, parameters, layer, per_class (see `Asked`). Maps that the gallery has made are used, and the
    gallery finds those made here. Raises DNNVizError where the network cannot be built again or the method is not defined for it.
    """
    opened = Catalogue(settings.runs).open(str(params.get("run")))
    want = asked(opened, params)
    results = Results(settings.private_cache() / "results")
    key = shortcuts_key(opened, want)
    if key not in results:
        tiles = _tiles(opened, want, settings, results, report)
        notes: list[Mapping[str, Any]] = []
        maps = ((label, inputs, _heatmaps(results, group, notes)) for label, (inputs, group) in tiles.items())
        found = find_shortcuts(maps)
        put_shortcuts(results, key, replace(found, notes=counted(notes), layer=notes[0]["layer"]))
    return [key]


def _tiles(
    opened: Run, want: Asked, settings: Settings, results: Results, report: Callable[[float, float, str], object]
) -> dict[int, tuple[np.ndarray, list[Tile]]]:
    """{class: (inputs int64 [n], their tiles)}, all of them computed."""
    given = {want.method: want.parameters}
    tiles = {
        label: (inputs, plan(opened, want.epoch, [str(i) for i in inputs], given, [f"class:{label}"], want.layer))
        for label, inputs in members(opened, want.per_class).items()
    }
    every = [tile for _, group in tiles.values() for tile in group]
    missing = [tile for tile in every if is_missing(about := about_tile(results, tile.key)) or "error" in about]
    if missing:
        Work(Explainer(opened, want.epoch, results, settings.allow), len(every), len(every) - len(missing), report).do(missing)
    report(len(every), len(every), "Comparing the classes")
    return tiles


def _heatmaps(results: Results, tiles: list[Tile], notes: list[Mapping[str, Any]]) -> np.ndarray:
    """float32 [n, H, W]: the maps of tiles; what is noted of each is put into notes."""
    found = []
    for tile in tiles:
        about, arrays = about_tile(results, tile.key), results.get(tile.key)
        if about is None or arrays is None or "error" in about:
            raise DNNVizError((about or {}).get("error") or "The maps vanished from the cache while they were compared; ask again.")
        found.append(arrays["heatmap"])
        notes.append({**about["note"], "layer": about["layer"]})
    return np.stack(found)


def find_shortcuts(maps: Iterable[tuple[int, np.ndarray, np.ndarray]]) -> Shortcuts:
    """Compare the classes by their maps: (class, inputs int64 [n], heatmaps [n, H, W]) of each, all of one size."""
    classes, means, counts, share, inputs, assignments, cluster_means, owners, gaps = ([] for _ in range(9))
    for row, (label, members_, heatmaps) in enumerate(maps):
        normalised, some = evidence(heatmaps)
        mean = normalised[some].mean(axis=0) if some.any() else normalised[0]
        found, values = spectral(normalised[some])
        first = len(cluster_means)
        cluster_means += [reduced(normalised[some][found == c].mean(axis=0)[None], _SHOWN)[0] for c in range(int(found.max(initial=-1)) + 1)]
        owners += [row] * (len(cluster_means) - first)
        where = np.full(len(some), -1, dtype=np.int64)
        where[some] = first + found
        classes.append(label)
        means.append(reduced(mean[None], _SHOWN)[0])
        counts.append(int(some.sum()))
        share.append(shares(mean))
        inputs.append(members_)
        assignments.append(where)
        gaps.append(float(np.diff(values).max()) if len(values) > 1 else 0.0)
    number, (parts, density) = np.array(counts, dtype=np.int64), np.stack(share, axis=1)
    z = deviations(density, number)
    marked = suspicious(density, z, number)
    shown = np.stack(means).astype(np.float32)
    return Shortcuts(
        classes=np.array(classes, dtype=np.int64),
        counts=number,
        means=shown,
        shares=parts.astype(np.float32),
        densities=density.astype(np.float32),
        z=z.astype(np.float32),
        marked=marked,
        order=np.argsort(-suspicion(density, z, marked), kind="stable"),
        inputs=np.concatenate(inputs).astype(np.int64),
        assignments=np.concatenate(assignments),
        cluster_means=np.stack(cluster_means).astype(np.float32) if cluster_means else np.zeros((0, *shown.shape[1:]), np.float32),
        cluster_classes=np.array(owners, dtype=np.int64),
        gaps=np.array(gaps, dtype=np.float32),
    )


def counted(notes: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str, int, str], ...]:
    """Notes that say the same, numbers aside, counted: (state, text, how many, why), most frequent first."""
    alike = Counter((note["state"], re.sub(r"\s*[−-]?\d[\d.,]*\s*%?", "", note["text"]).strip() or note["text"]) for note in notes)
    why = {note["state"]: note["why"] for note in reversed(notes)}
    return tuple((state, text, count, why[state]) for (state, text), count in alike.most_common())
