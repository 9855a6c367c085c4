"""What the adversarial page knows of what is asked: nothing chosen, an obstacle, what it would cost, or what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dnnviz.attack import METHODS, keys
from dnnviz.components.adversarial_results import plain, sizes_from, told_attack, told_detection, told_robustness
from dnnviz.components.method_settings import settings_given
from dnnviz.endpoints import context
from dnnviz.errors import DNNVizError
from dnnviz.explain.plan import class_name, obstacle, pace
from dnnviz.explain.uploads import is_upload, load_upload
from dnnviz.results import Results
from dnnviz.store import Run
from dnnviz.urlstate import Selection

ANY = "any"  # target of an attack that only leads away from the class predicted
FIRST_METHOD = "pgd"
COUNTS = {str(n): f"{n} inputs" for n in (20, 50, 100, 200, 500)}
_BACK = 2.2  # forward passes that a pass back to the pixels costs, with the one before it


def known(selection: Selection) -> dict[str, Any]:
    """The state of a view, for the browser: {"view", "state", …}.

    state: `choose` (no input is chosen), `problem` (a sentence says why not), `offer` (what it would cost) or `found` (with
    `result`). request: what a job would be asked for. selection.extra: the keys of the page.
    """
    run, extra = selection.run, selection.extra
    assert run is not None
    view = extra["view"]
    told: dict[str, Any] = {"view": view, "run": selection.run_id, "epoch": selection.epoch, "method": METHODS[extra["method"]].title}
    if view == "attack" and selection.show_kind != "input" and not extra["image"]:
        return {**told, "state": "choose"}
    try:
        asked = _asked(run, selection)
    except DNNVizError as error:
        return {**told, "state": "problem", "sentence": str(error)}
    told["request"] = {"kind": "attack", "page": "/adversarial", "params": asked.as_params(selection.run_id)}
    if isinstance(asked, keys.AskedAttack):
        told["input"] = _upload(run, asked.source) if is_upload(asked.source) else _input(run, asked.epoch, int(asked.source))
        told["target"] = None if asked.target is None else class_name(run, asked.target)
        if asked.target is not None and asked.target == told["input"].get("predicted"):
            sentence = f"Input {asked.source} is already taken for {told['target']}; choose another class to reach, or any other class."
            return {**told, "state": "problem", "sentence": sentence}
    result = _found(run, asked, context().results)
    blocked = obstacle(run, selection.epoch, context().settings.allow, "attacks")
    if result is not None:
        return {**told, "state": "found", "result": result, "obstacle": blocked}
    if blocked:
        return {**told, "state": "problem", "sentence": blocked}
    if isinstance(asked, keys.AskedAttack) and is_upload(asked.source):
        try:
            _fitting(run, asked.source)
        except DNNVizError as error:
            return {**told, "state": "problem", "sentence": str(error)}
    return {**told, "state": "offer", **_cost(run, asked, context().results)}


def _asked(run: Run, selection: Selection) -> keys.AskedAttack | keys.AskedMany:
    """The request of a view, checked; raises DNNVizError with a sentence."""
    extra = selection.extra
    method = METHODS[extra["method"]]
    params: dict[str, Any] = {"epoch": selection.epoch, "method": method.name}
    params["parameters"] = settings_given(method.name, method.parameters, extra)
    if extra["view"] == "attack":
        source = extra["image"] or str(selection.show_index)
        return keys.asked_attack(run, {**params, "source": source, "target": "" if extra["target"] == ANY else extra["target"]})
    try:
        sizes = sizes_from(extra["sizes"])
    except (ValueError, ZeroDivisionError):
        raise DNNVizError(
            f"“{extra['sizes'][:60]}” is no list of sizes; give numbers or fractions with commas between them, such as 2/255, 8/255."
        ) from None
    return keys.asked_many(run, {**params, "what": extra["view"], "inputs": int(extra["n"]), "sizes": sizes})


def _found(run: Run, asked: keys.AskedAttack | keys.AskedMany, results: Results) -> dict[str, Any] | None:
    if isinstance(asked, keys.AskedAttack):
        attack = keys.get_attack(results, keys.attack_key(run, asked))
        return None if attack is None else told_attack(run, attack)
    key = keys.many_key(run, asked)
    if asked.what == "robustness":
        robustness = keys.get_robustness(results, key)
        return None if robustness is None else told_robustness(robustness)
    detection = keys.get_detection(results, key)
    return None if detection is None else told_detection(run, detection)


def _input(run: Run, epoch: int, index: int) -> dict[str, Any]:
    """What is known of an input before anything is computed."""
    logits = run.logits(epoch)[index].astype(np.float64)
    predicted = int(logits.argmax())
    probability = float(1 / np.exp(logits - logits.max()).sum())
    true = int(run.labels[index])
    size = run.manifest["preprocessing"]["size"]
    return {
        "index": index,
        "true": class_name(run, true),
        "predicted": predicted,
        "seen": class_name(run, predicted),
        "right": predicted == true,
        "probability": plain(probability) if math.isfinite(probability) else None,
        "size": size[1:],
    }


def _upload(run: Run, source: str) -> dict[str, Any]:
    """What is known of a picture of the user's own before anything is computed: the network has not seen it yet."""
    return {"upload": source, "size": run.manifest["preprocessing"]["size"][1:]}


def _fitting(run: Run, source: str) -> None:
    """Raises DNNVizError with a sentence where an upload is gone, or was fitted to the inputs of another run."""
    height, width, channels = load_upload(context().results, source).shape
    wanted = run.manifest["preprocessing"]["size"]
    if [channels, height, width] != list(wanted):
        raise DNNVizError(
            f"The picture was uploaded for inputs of {height} × {width} pixels in {channels} channels; those of this run have {wanted[1]} × "
            f"{wanted[2]} in {wanted[0]}. Upload it again for this run."
        )


def _cost(run: Run, asked: keys.AskedAttack | keys.AskedMany, results: Results) -> dict[str, Any]:
    """How many evaluations of the network it takes at most, and about how many seconds (None before any job has run here)."""
    method = METHODS[asked.method]
    passes, inputs = method.passes(_complete(asked)), 1
    if isinstance(asked, keys.AskedMany):
        inputs = min(asked.inputs, run.kept)
        # Methods without a budget look for the smallest change once; it says which sizes are enough.
        passes *= inputs * (len(asked.sizes) if asked.what == "robustness" and method.bounded else 1)
    seconds = pace(results, run, asked.epoch)
    return {"passes": passes, "inputs": inputs, "seconds": None if seconds is None else plain(seconds * passes * _BACK / 2)}


def _complete(asked: keys.AskedAttack | keys.AskedMany) -> Mapping[str, Any]:
    """The parameters with the budget, which a measurement of robustness sets itself."""
    defaults = {parameter.name: parameter.default for parameter in METHODS[asked.method].parameters}
    return {**defaults, **asked.parameters}
