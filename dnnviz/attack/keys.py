"""What can be asked of the job `attack`, under which keys the answers lie, and what is stored there. No torch.

Three questions: `attack` (one input, all the way through the layers), `robustness` (accuracy against the size of the
perturbation) and `detection` (can attacked inputs be told from clean ones by their activations?). For each there are a
function that checks a request (`asked_…`), its key (`…_key`), and what is found (`Attack`, `Robustness`, `Detection`; `get_…`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from dnnviz import results
from dnnviz.attack.registry import BUDGET, STOP, find
from dnnviz.errors import DNNVizError
from dnnviz.explain.plan import input_index
from dnnviz.explain.uploads import is_upload
from dnnviz.results import Results
from dnnviz.store import Run

VERSION = 3  # part of every key: raise it when the same question gets another answer
SHARE = 0.8  # of the squared difference that the carrying units make up
MOST_INPUTS = 500  # inputs that robustness and detection attack at most
MOST_SIZES = 12
SIZES = {"linf": tuple(n / 255 for n in (0.25, 0.5, 1, 2, 4, 8)), "l2": (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)}  # unless others are asked for


@dataclass(frozen=True)
class AskedAttack:
    """One attack: on which input (number as text, or the key of an upload), by which method, towards which class (None: away)."""

    epoch: int
    source: str
    method: str
    parameters: Mapping[str, Any]
    target: int | None

    def as_params(self, run_id: str) -> dict[str, Any]:
        """The parameters of the background job."""
        target = "" if self.target is None else str(self.target)
        return {"what": "attack", "run": run_id, **vars(self), "parameters": dict(self.parameters), "target": target}


@dataclass(frozen=True)
class AskedMany:
    """Robustness or detection: by which method, on up to `inputs` of the inputs kept (taken evenly over the classes).

    what: "robustness" or "detection". sizes: of the perturbation, rising, in the norm of the method (robustness alone; the
    parameter `epsilon` plays no part then). The parameter `stop` plays no part: accuracy depends on the first success alone, and
    what stops at the boundary between two classes is given away by its low probability, so that detection has to do with attacks
    that go on to the end.
    """

    what: str
    epoch: int
    method: str
    parameters: Mapping[str, Any]
    inputs: int
    sizes: tuple[float, ...] = ()

    def as_params(self, run_id: str) -> dict[str, Any]:
        """The parameters of the background job."""
        return {"run": run_id, **vars(self), "parameters": dict(self.parameters), "sizes": list(self.sizes)}


def asked_attack(run: Run, params: Mapping[str, Any]) -> AskedAttack:
    """Check a request for one attack: epoch, source, method, parameters, target (class number as text, "" for none).

    Raises DNNVizError with a sentence for what does not exist or is out of range.
    """
    epoch, method, parameters = _checked(run, params)
    source = str(params.get("source", ""))
    if not is_upload(source):
        source = str(input_index(run, source))
    target = str(params.get("target") or "") if params.get("target") != 0 else "0"
    if target and (not target.isdecimal() or int(target) >= len(run.classes)):
        raise DNNVizError(f"The class to reach is {target[:40]!r}; this run has classes 0 to {len(run.classes) - 1}.")
    return AskedAttack(epoch, source, method, parameters, int(target) if target else None)


def asked_many(run: Run, params: Mapping[str, Any]) -> AskedMany:
    """Check a request for robustness or detection: what, epoch, method, parameters, inputs, sizes; raises DNNVizError with a sentence."""
    what = str(params.get("what"))
    if what not in ("robustness", "detection"):
        raise DNNVizError(f"{what[:40]!r} was asked for; an attack answers for one input, robustness or detection.")
    epoch, method, parameters = _checked(run, params)
    inputs = params.get("inputs", 100)
    if not isinstance(inputs, int) or not 1 <= inputs <= MOST_INPUTS:
        raise DNNVizError(f"inputs is {inputs!r}; it must be a whole number from 1 to {MOST_INPUTS}.")
    parameters = {name: value for name, value in parameters.items() if name != STOP and (name != BUDGET or what == "detection")}
    if what == "detection":
        return AskedMany(what, epoch, method, parameters, inputs)
    try:
        sizes = tuple(sorted({float(size) for size in params.get("sizes") or SIZES[find(method).norm]}))
    except (TypeError, ValueError):
        raise DNNVizError("The sizes of the perturbation must be numbers.") from None
    highest = next((p.high for p in find(method).parameters if p.name == BUDGET), 100.0)
    if len(sizes) > MOST_SIZES or not all(0 < size <= highest for size in sizes):
        raise DNNVizError(f"Up to {MOST_SIZES} sizes of the perturbation above 0 and up to {highest:g} can be measured; {list(sizes)} was asked for.")
    return AskedMany(what, epoch, method, parameters, inputs, sizes)


def _checked(run: Run, params: Mapping[str, Any]) -> tuple[int, str, dict[str, Any]]:
    """(epoch, method, all its parameters) of a request."""
    method = find(str(params.get("method")))
    given = params.get("parameters") or {}
    if not isinstance(given, Mapping):
        raise DNNVizError("The request for an attack is incomplete; reload the page.")
    run.snapshot(params.get("epoch"))
    return int(params["epoch"]), method.name, method.resolve(given)


def attack_key(run: Run, asked: AskedAttack) -> str:
    """Key of the result of one attack."""
    return results.key("attack", version=VERSION, run=run.digest(asked.epoch), **_question(asked))


def many_key(run: Run, asked: AskedMany) -> str:
    """Key of the result of robustness or detection."""
    return results.key(asked.what, version=VERSION, run=run.digest(asked.epoch), **_question(asked))


def _question(asked: AskedAttack | AskedMany) -> dict[str, Any]:
    """All that was asked; the epoch is in the run's digest."""
    return {**{name: value for name, value in vars(asked).items() if name != "epoch"}, "parameters": dict(asked.parameters)}


def members(run: Run, count: int) -> np.ndarray:
    """int64 [≤ count]: inputs kept, taken in turn from every class, so that each has about as many; rising."""
    ranks = np.zeros(run.kept, dtype=np.int64)
    for label in np.unique(run.labels):
        own = np.flatnonzero(run.labels == label)
        ranks[own] = np.arange(len(own))
    return np.sort(np.lexsort((run.labels, ranks))[:count])


@dataclass(frozen=True)
class Attack:
    """What one attack did, over L layers of the run (those of `run.layers`, in this order).

    about: method (name), title, parameters, true (class number, None for an upload), before, after (classes predicted), target
    (None: any other class), success, norms {"linf", "l2": pixels from 0 to 1, "linf_255", "l2_255": from 0 to 255, "l0": share of
    the pixels changed}, steps, evaluations, gradients (passes forward, passes back), seconds, rounded (class predicted when the
    pixels are rounded to 256 levels), original, baseline (probability of the class seen before in the original and, unpatched, in
    the result), leaves (number of the first layer that leaves the spread of the class seen before, None: no layer), arrives (the
    first layer from which on to the last it lies nearer to the class seen afterwards, None), spread ("class", or "data": the run
    holds too few inputs of the class, and distances are those from all inputs), spread_inputs (of how many inputs that spread is),
    target_spread (the same for the class seen afterwards), sentence, partial (share that is done; absent when all is: until then the
    arrays over layers may be empty).

    image, adversarial: float32 [H, W, C] in 0…1. classes: int64 [m], those that matter; probabilities: float32 [steps + 1, m].
    distance_before, distance_after: float32 [L], root mean square of the standardised difference from the class seen before, of
    the original and of the result; limit: float32 [L], the 95th percentile of the run's own inputs of that class.
    target_before, target_after, target_limit: the same for the class seen afterwards.
    units: int64 [m], global numbers of the fewest units that carry 80 % of the squared standardised difference of their feature
    maps, layer by layer, the strongest first; unit_layers: int64 [m], number of their layer; unit_shares: float32 [m], what each
    carries of its layer's; values_before, values_after: float32 [m], their activations (means over positions).
    patched: float32 [L], probability of the class seen before in the result when the maps of the layer's carrying units are put
    back to the original's; controls: float32 [L, r], when those of as many units drawn at random are (r = 3 draws, or 1 for large
    pictures); whole: float32 [L], when those of all its units are (in a network with shortcuts past the layer even that need not
    restore everything), NaN for large pictures. NaN as long as it is not known.
    restored: bool [L, 1 + r], whether the class seen before is predicted again with the carrying units put back, and with the random ones.
    """

    about: dict[str, Any]
    image: np.ndarray
    adversarial: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    distance_before: np.ndarray
    distance_after: np.ndarray
    limit: np.ndarray
    target_before: np.ndarray
    target_after: np.ndarray
    target_limit: np.ndarray
    units: np.ndarray
    unit_layers: np.ndarray
    unit_shares: np.ndarray
    values_before: np.ndarray
    values_after: np.ndarray
    patched: np.ndarray
    whole: np.ndarray
    controls: np.ndarray
    restored: np.ndarray


@dataclass(frozen=True)
class Robustness:
    """Accuracy against the size of the perturbation, over E sizes, the first of them 0, and n inputs.

    about: method, title, norm ("linf" or "l2"), parameters, seconds, sentence, partial (share that is done; absent when all is).
    sizes: float32 [E], pixels from 0 to 1; those done so far. accuracy, low, high: float32 [E], share of the inputs that are still
    classified correctly, with the 95 % interval of Wilson (1927). inputs: int64 [n], the inputs attacked; fooled_at: float32 [n],
    the smallest size at which each is misclassified (0: without an attack, inf: at none of the sizes).
    """

    about: dict[str, Any]
    sizes: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    inputs: np.ndarray
    fooled_at: np.ndarray


@dataclass(frozen=True)
class Detection:
    """How well attacked inputs are told from clean ones, by D detectors, on the half of the inputs that nothing was fitted on.

    about: method, title, parameters, detectors (D names as a person reads them), citations (D), tried (inputs attacked), fooled
    (attacks that succeeded), fitted (inputs that the detectors were fitted on), seconds, sentence, partial (absent when done; no arrays before).
    false_rate: float32 [P], rising from 0 to 1; true_rate: float32 [D, P], share of attacked inputs found when so many clean ones are flagged.
    areas, low, high: float32 [D], area under the ROC curve with its 95 % interval (Newcombe 2006).
    layer_areas: float32 [L], the area of each layer's distance by itself.
    clean_inputs: int64 [a], attacked_inputs: int64 [b], numbers of the inputs measured; clean_scores: float32 [D, a],
    attacked_scores: float32 [D, b], larger = more suspicious.
    """

    about: dict[str, Any]
    false_rate: np.ndarray
    true_rate: np.ndarray
    areas: np.ndarray
    low: np.ndarray
    high: np.ndarray
    layer_areas: np.ndarray
    clean_inputs: np.ndarray
    attacked_inputs: np.ndarray
    clean_scores: np.ndarray
    attacked_scores: np.ndarray


Found = TypeVar("Found", Attack, Robustness, Detection)


def put(cache: Results, key: str, found: Attack | Robustness | Detection) -> None:
    """Store what was found under a key."""
    arrays = {name: value for name, value in vars(found).items() if name != "about"}
    cache.put(key, {**arrays, "about": np.frombuffer(json.dumps(found.about).encode(), dtype=np.uint8)})


def get_attack(cache: Results, key: str) -> Attack | None:
    """What is stored of an attack, or None."""
    return _get(cache, key, Attack)


def get_robustness(cache: Results, key: str) -> Robustness | None:
    """What is stored of the robustness, or None."""
    return _get(cache, key, Robustness)


def get_detection(cache: Results, key: str) -> Detection | None:
    """What is stored of the detection, or None."""
    return _get(cache, key, Detection)


def _get(cache: Results, key: str, kind: type[Found]) -> Found | None:
    arrays = cache.get(key)
    if arrays is None or not {field.name for field in fields(kind)} <= set(arrays):
        return None
    return kind(**{**arrays, "about": json.loads(arrays["about"].tobytes())})
