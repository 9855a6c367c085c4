"""Under which keys the measures of a tile and the ranking of methods lie among the results, and what is read there. No torch.

Ask for the job `trust` with params

    {"what": "tile", "run", "epoch", "source", "method", "parameters", "target", "layer"}               → [tile_key(…)]
    {"what": "ranking", "run", "epoch", "inputs", "methods": {name: parameters}, "targets", "layer"}    → [ranking_key(…)]

with run the id, source and target as in `dnnviz.explain.plan`. `work` and `ranking_work` say before what that costs.

`get_tile(results, key)` → None where there is nothing, {"error": sentence}, or (each part is there as soon as it is computed;
while the job runs, poll it; `complete` says that nothing follows):

    {"complete": true,
     "method": "grad_cam", "target": "class:3", "layer": "layer4.1" | null,    as explained, classes by number
     "reading": "probability" | "score",        what the curves show: the target's probability, or (unit, direction, difference of
                                                two classes) its score, as a share of the way from the empty picture to the whole one
     "deletion":  {"share": [0, …, 1], "value": [25 floats], "area": 0.21, "random": 0.35},
     "insertion": {"share": [0, …, 1], "value": [25 floats], "area": 0.62, "random": 0.40},
                                                value at each share of pixels changed; area under the curve; random: the area for
                                                pixels in random order, for scale. Small deletion and large insertion areas are good.
                                                value, area and random are null where reading is "score" and the whole picture
                                                scores no more than the empty one
     "infidelity": {"share": 0.71, "normalised": 0.42, "plain": 12.3, "samples": 50},
                                                under squares put to the mean colour; share: of the score's changes that the map does
                                                not foretell, 0 (all of them foretold) to 1 (none), whatever the scale of the map
     "noise_infidelity": the same under Gaussian noise, or null: only for maps in units of the gradient
     "sensitivity": {"value": 0.18, "radius": 0.02, "samples": 10},
                                                largest relative change of the map under noise of that share of the range from black to white
     "randomisation": {"stages": [{"stage": "fc", "correlation": 0.31, "signed": 0.28, "similarity": 0.5, "array": "stage0"}, …],
                       "state": "good" | "warning", "verdict": "sentence"},
                                                from the output backwards, each stage with all before it; correlation: Spearman, of
                                                absolute values (signed: as they are), null where a map is constant; similarity: SSIM; all
                                                three null, and the map zero, where the method is not defined on the network so
                                                changed. state and verdict are null until the last stage is there
     "original": "heatmap",                     name of the array of the map itself
     "seconds": 8.1}

Every array named here is float32 [H, W] at /data/result/<key>/<array>, as for tiles of the gallery (signed as the method is).

`get_ranking(results, key)` → None, {"error": sentence}, or

    {"complete": true, "reading": "probability" | "score", "count": 12,      maps of each method: inputs × targets
     "rows": [{"method": "rise", "title": "RISE", "count": 12, "failed": null | "sentence",
               "deletion": [mean, error], "insertion": [mean, error], "difference": [mean, error]}, …],
     "random": {"method": null, "title": "Random map", …as a row…},          for scale
     "seconds": 31.0}

rows: best (largest mean of insertion − deletion) first, those that failed for every input last, their three pairs null; error:
standard error of the mean, null for one map. failed: a sentence where the method failed on some input (count says how many are left).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnnviz.explain.plan import about_tile, plan
from dnnviz.explain.registry import find
from dnnviz.results import Results, key
from dnnviz.store import Run

FORMAT = 1  # part of every key: raise it when a measure changes its meaning
STEPS = 24  # shares of pixels at which deletion and insertion are measured, beside the start
SQUARES = 50  # perturbations for each infidelity
STAGES = 6  # of the randomisation, at most
_DEAR = 50  # passes from which on a map is made again less often
RADIUS = 0.02  # noise of the sensitivity, as a share of the range from black to white


def noise_samples(passes: int) -> int:
    """How many noisy copies of the input a method of so many passes explains for its sensitivity."""
    return 10 if passes <= _DEAR else 3


def tile_key(
    run: Run, epoch: int, source: str, method: str, parameters: Mapping[str, Any], target: str = "predicted", layer: str | None = None
) -> str:
    """Key of the measures of one tile; raises DNNVizError with a sentence where something asked for does not exist."""
    [tile] = plan(run, epoch, [source], {method: parameters}, [target], layer)
    return key("trust", measure=FORMAT, tile=tile.key)


def ranking_key(
    run: Run,
    epoch: int,
    inputs: Sequence[str],
    methods: Mapping[str, Mapping[str, Any]],
    targets: Sequence[str] = ("predicted",),
    layer: str | None = None,
) -> str:
    """Key of a ranking of methods; raises DNNVizError with a sentence where something asked for does not exist."""
    return key("ranking", measure=FORMAT, tiles=[tile.key for tile in plan(run, epoch, inputs, methods, targets, layer)])


def work(run: Run, method: str, parameters: Mapping[str, Any]) -> float:
    """What the measures of one tile cost, in forward passes."""
    described, shape = find(method), tuple(run.manifest["preprocessing"]["size"])
    resolved = described.resolve(parameters)
    maps = 1 + noise_samples(described.passes(resolved, shape)) + STAGES
    return maps * described.work(resolved, shape) + 4 * (STEPS + 1) + 2 * SQUARES


def ranking_work(run: Run, inputs: int, methods: Mapping[str, Mapping[str, Any]], targets: int = 1) -> float:
    """What a ranking costs, in forward passes, when none of its maps is computed yet."""
    shape = tuple(run.manifest["preprocessing"]["size"])
    maps = sum(find(name).work(find(name).resolve(given), shape) for name, given in methods.items())
    return inputs * targets * (maps + (len(methods) + 1) * 2 * (STEPS + 1))


def get_tile(results: Results, found: str) -> dict[str, Any] | None:
    """The measures under a `tile_key`, as described above."""
    return about_tile(results, found)


def get_ranking(results: Results, found: str) -> dict[str, Any] | None:
    """The ranking under a `ranking_key`, as described above."""
    return about_tile(results, found)


def store(results: Results, found: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """Store measures: JSON, and the maps [H, W] it names."""
    packed = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    results.put(found, {"about": packed, **{name: np.asarray(array, dtype=np.float32) for name, array in (arrays or {}).items()}})
