"""What attacks, robustness and detection found, as the browser draws it: plain lists, words, and pictures as data addresses."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from dnnviz.attack import METHODS
from dnnviz.attack.keys import Attack, Detection, Robustness
from dnnviz.attack.registry import BUDGET
from dnnviz.explain.picture import SMOOTH_FROM, png
from dnnviz.explain.plan import class_name
from dnnviz.store import Run
from dnnviz.theme import class_colours

STRONGEST = 3  # units of a layer that are named
BINS = (8, 32)  # of the histogram of scores, for few and for many of them


def told_attack(run: Run, found: Attack) -> dict[str, Any]:
    """An attack: pictures, probabilities per step, norms, and a row a layer (none before the attack itself is done)."""
    about = found.about
    colours = class_colours(1 + int(found.classes.max(initial=0)))
    return {
        "about": {name: value for name, value in about.items() if name != "parameters"},
        "pictures": pictures(found.image, found.adversarial),
        "classes": [{"name": class_name(run, int(k)), "number": int(k), "colour": colours[int(k)]} for k in found.classes],
        "probabilities": plain(found.probabilities),
        "layers": _layers(run, found) if len(found.distance_after) == len(run.layers) else [],
        "tips": [] if about["success"] else tips(about["method"], about["target"] is not None),
    }


def pictures(image: np.ndarray, adversarial: np.ndarray) -> dict[str, Any]:
    """The original, the perturbation and the result, float32 [H, W, C] in 0…1, as PNG; the perturbation magnified around grey.

    factor: how many times; the largest round number with which all but a hundredth of the values fit. cut: share that does not.
    crisp: whether pixels are shown as squares.
    """
    change = adversarial - image
    size = np.abs(change)
    # A few strong pixels must not leave all others invisible.
    factor = magnification(float(np.quantile(size, 0.99, method="higher")) or float(size.max()))
    return {
        "original": _address(image),
        "perturbation": _address(0.5 + factor * change),
        "adversarial": _address(adversarial),
        "factor": factor,
        "cut": float((factor * size > 0.5 + 1e-5).mean()),
        "crisp": min(image.shape[:2]) < SMOOTH_FROM,
        "size": list(image.shape[:2]),
    }


def magnification(largest: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50 … that brings a change of `largest` (0…1) to at most half the range; 1 where there is none."""
    if largest <= 0:
        return 1.0
    room = 0.5 / largest * (1 + 1e-6)
    power = 10.0 ** np.floor(np.log10(room))
    return float(max(1.0, max(step * power for step in (1, 2, 5) if step * power <= room)))


def _address(pixels: np.ndarray) -> str:
    rounded = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(png(np.repeat(rounded, 3, axis=2) if rounded.shape[2] == 1 else rounded)).decode()


def _layers(run: Run, found: Attack) -> list[dict[str, Any]]:
    """A row a layer: distances, the units that carry the difference, and what putting them back does."""
    rows = []
    for row, layer in enumerate(run.layers):
        own = np.flatnonzero(found.unit_layers == row)
        controls = found.controls[row]
        rows.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "units": layer.units,
                "before": plain(found.distance_before[row]),
                "after": plain(found.distance_after[row]),
                "limit": plain(found.limit[row]),
                "carrying": len(own),
                "strongest": [
                    {
                        "unit": int(found.units[i]) - layer.offset,
                        "share": plain(found.unit_shares[i]),
                        "before": plain(found.values_before[i]),
                        "after": plain(found.values_after[i]),
                    }
                    for i in own[:STRONGEST]
                ],
                "patched": plain(found.patched[row]),
                "whole": plain(found.whole[row]),
                "control": plain(controls.mean()) if len(controls) else None,
                "restored": bool(found.restored[row, 0]),
                "control_restored": plain(found.restored[row, 1:].mean()),
            }
        )
    return rows


def tips(method: str, targeted: bool) -> list[str]:
    """What to try when an attack did not succeed, by what its method lets one choose."""
    known = METHODS[method]
    names = {parameter.name: parameter.title for parameter in known.parameters}
    found = [f"allow more of it: raise “{names[BUDGET]}”"] if BUDGET in names else []
    found += [f"let it go on for longer: raise “{names['steps']}”"] if "steps" in names else []
    if targeted:
        found.append("choose another class, or none: any other class is the easiest to reach")
    stronger = [METHODS[name].title for name in ("pgd", "carlini_wagner") if name in METHODS and name != method]
    return [*found, f"take a stronger method, such as {' or '.join(stronger)}"] if stronger else found


def told_robustness(found: Robustness) -> dict[str, Any]:
    """Accuracy against the size of the perturbation, with its interval."""
    return {
        "about": {name: value for name, value in found.about.items() if name != "parameters"},
        "sizes": plain(found.sizes),
        "accuracy": plain(found.accuracy),
        "low": plain(found.low),
        "high": plain(found.high),
        "inputs": len(found.inputs),
        "weakest": _weakest(found),
    }


def _weakest(found: Robustness) -> list[list[Any]]:
    """[[input, size at which it is misclassified]]: those that the smallest perturbations fool, right without any."""
    order = np.argsort(found.fooled_at, kind="stable")
    return [[int(found.inputs[i]), plain(found.fooled_at[i])] for i in order if 0 < found.fooled_at[i] < np.inf][:12]


def told_detection(run: Run, found: Detection) -> dict[str, Any]:
    """ROC curves of every detector, histograms of its scores, and the area of every layer by itself."""
    done = len(found.areas) == len(found.about["detectors"])
    return {
        "about": {name: value for name, value in found.about.items() if name != "parameters"},
        "false_rate": plain(found.false_rate),
        "detectors": [_detector(found, row) for row in range(len(found.areas))] if done else [],
        "layers": [[layer.name, plain(area)] for layer, area in zip(run.layers, found.layer_areas, strict=False)],
        "clean": len(found.clean_inputs),
        "attacked": len(found.attacked_inputs),
    }


def _detector(found: Detection, row: int) -> dict[str, Any]:
    clean, attacked = found.clean_scores[row], found.attacked_scores[row]
    every = np.concatenate([clean, attacked])
    every = every[np.isfinite(every)]
    # A few inputs far off would leave the others one bin: the scale is logarithmic where scores span more than a decade.
    bins = int(np.clip(2 * np.sqrt(len(every)), *BINS))
    edges = np.linspace(every.min(), every.max(), bins + 1) if len(every) and every.max() > every.min() else np.linspace(0, 1, bins + 1)
    logarithmic = bool(len(every) and every.min() > 0 and every.max() > 20 * np.median(every))
    if logarithmic:
        edges = np.geomspace(every.min(), every.max(), bins + 1)
    return {
        "name": found.about["detectors"][row],
        "citation": found.about["citations"][row],
        "true_rate": plain(found.true_rate[row]),
        "area": plain(found.areas[row]),
        "low": plain(found.low[row]),
        "high": plain(found.high[row]),
        "edges": plain(np.log10(edges) if logarithmic else edges),
        "logarithmic": logarithmic,
        "clean": np.histogram(clean, _wide(edges))[0].tolist(),
        "attacked": np.histogram(attacked, _wide(edges))[0].tolist(),
    }


def _wide(edges: np.ndarray) -> np.ndarray:
    """Limits that hold everything: rounding must not drop the largest value."""
    return np.concatenate([[-np.inf], edges[1:-1], [np.inf]])


def plain(values: Any) -> Any:
    """Numbers or lists of them for JSON, with the digits that a picture needs; null where there is no number."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0:
        return float(f"{array:.7g}") if np.isfinite(array) else None
    return [plain(value) for value in array] if array.ndim > 1 else [float(f"{v:.7g}") if np.isfinite(v) else None for v in array]


def sizes_from(text: str) -> Sequence[float]:
    """Sizes that a person typed, separated by commas, each a number or a fraction such as 8/255; raises ValueError."""
    found = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        above, _, below = part.partition("/")
        found.append(float(above) / float(below or 1))
    return found
