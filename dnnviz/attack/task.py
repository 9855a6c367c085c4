"""The background job `attack`: one attack all the way through the layers, robustness, detection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dnnviz.attack import keys
from dnnviz.attack.detection import Seen, detect
from dnnviz.attack.one import attack_one
from dnnviz.attack.patch import Inside, softmax
from dnnviz.attack.perform import attack
from dnnviz.attack.rates import wilson
from dnnviz.attack.registry import BUDGET, METHODS, STOP, Method
from dnnviz.attack.subject import Subject
from dnnviz.catalogue import Catalogue
from dnnviz.errors import DNNVizError
from dnnviz.explain.explainer import Explainer
from dnnviz.results import Results
from dnnviz.settings import Settings

Report = Callable[[float, float, str], object]
_REFERENCE = 2000  # clean inputs at most that a detector learns from and is measured on


def run(settings: Settings, params: Mapping[str, Any], report: Report) -> list[str]:
    """Compute what is missing; returns the key of the result.

    params: what ("attack", "robustness" or "detection"), run (id), epoch, and what `asked_attack` or `asked_many` takes.
    Raises DNNVizError where the network cannot be built again or its inputs are no pixels.
    """
    opened = Catalogue(settings.runs).open(str(params.get("run")))
    results = Results(settings.private_cache() / "results")
    if params.get("what") == "attack":
        one = keys.asked_attack(opened, params)
        key = keys.attack_key(opened, one)
        if _missing(keys.get_attack(results, key)):
            report(0, 1, "Building the network")
            subject = Subject(Explainer(opened, one.epoch, results, settings.allow))
            attack_one(subject, one, report, lambda found: keys.put(results, key, found))
        return [key]
    many = keys.asked_many(opened, params)
    key = keys.many_key(opened, many)
    get, compute = (keys.get_robustness, _robustness) if many.what == "robustness" else (keys.get_detection, _detection)
    if _missing(get(results, key)):
        report(0, 1, "Building the network")
        compute(Subject(Explainer(opened, many.epoch, results, settings.allow)), many, results, key, report)
    return [key]


def _missing(found: keys.Attack | keys.Robustness | keys.Detection | None) -> bool:
    return found is None or "partial" in found.about


def _robustness(subject: Subject, asked: keys.AskedMany, results: Results, key: str, report: Report) -> None:
    """Attack the inputs with one size after the other; what was stored of an earlier job that was cancelled is not done again."""
    run, method = subject.run, METHODS[asked.method]
    inputs = keys.members(run, asked.inputs)
    labels = run.labels[inputs]
    pixels = subject.kept(inputs)
    # As they are stored, so that what a later job reads compares as before.
    sizes = np.concatenate([[0.0], asked.sizes]).astype(np.float32)
    before = keys.get_robustness(results, key)
    if before is None:
        report(0, len(sizes), "Looking at the inputs themselves")
        fooled = np.where(subject.logits(pixels).argmax(axis=1) == labels, np.inf, 0.0).astype(np.float32)
        done, seconds = 1, 0.0
    else:
        fooled, done, seconds = before.fooled_at, len(before.sizes), before.about["seconds"]
    while True:
        low, high = wilson(standing := np.array([(fooled > size).sum() for size in sizes[:done]]), len(inputs))
        accuracy = standing / len(inputs)
        about = {"method": method.name, "title": method.title, "norm": method.norm, "parameters": dict(asked.parameters), "seconds": seconds}
        about["sentence"] = _robust_sentence(method, sizes, accuracy, low, high, len(inputs))
        if done < len(sizes):
            about["partial"] = round(done / len(sizes), 4)
        rates = (np.asarray(each, np.float32) for each in (sizes[:done], accuracy, low, high))
        keys.put(results, key, keys.Robustness(about, *rates, inputs, fooled))
        if done == len(sizes):
            return
        # What a smaller change fools, a larger one fools, too.
        rows = np.flatnonzero(np.isinf(fooled))
        share = 1 if method.bounded else len(sizes) - done
        text = f"{method.title}: {len(rows)} inputs" + (f", size {sizes[done]:.3g}" if method.bounded else "")
        if len(rows):
            budget = {BUDGET: float(sizes[done])} if method.bounded else {}
            found = attack(
                subject.model,
                pixels[rows],
                method.name,
                labels[rows],
                watch=lambda part, whole, done=done, share=share, text=text: report(done + share * part / whole, len(sizes), text),
                **subject.normalisation,
                **_with_stop(method, True),
                **{**asked.parameters, **budget},
            )
            seconds += found.seconds
            length = found.linf if method.norm == "linf" else found.l2
            if method.bounded:
                fooled[rows[found.success]] = sizes[done]
            else:
                # The smallest change found says at once which sizes are enough.
                at = np.searchsorted(sizes, length - 1e-7)
                fooled[rows] = np.where(found.success & (at < len(sizes)), sizes[at.clip(max=len(sizes) - 1)], np.inf)
        done = done + 1 if method.bounded else len(sizes)


def _with_stop(method: Method, stop: bool) -> dict[str, bool]:
    """Whether an attack ends at its first success, for methods that leave the choice."""
    return {STOP: stop} if any(parameter.name == STOP for parameter in method.parameters) else {}


def _robust_sentence(method: Method, sizes: np.ndarray, accuracy: np.ndarray, low: np.ndarray, high: np.ndarray, count: int) -> str:
    clean = f"{_percent(accuracy[0])} of {count} inputs are classified correctly"
    if len(accuracy) == 1:
        return f"{clean}."
    left, least, most = (_percent(part[-1]) for part in (accuracy, low, high))
    size = float(sizes[len(accuracy) - 1])
    how = f"of up to {255 * size:.3g} of 255 in every pixel" if method.norm == "linf" else f"of a length of up to {size:.3g}"
    return f"{clean}; {left} ({least} to {most}) still are under this attack with changes {how}."


def _detection(subject: Subject, asked: keys.AskedMany, results: Results, key: str, report: Report) -> None:
    """Attack the inputs that are classified correctly, and see whether those that fool the network look different inside."""
    run, method = subject.run, METHODS[asked.method]
    inside = Inside(subject.model, subject.normalised(subject.kept(np.zeros(1, np.int64))), run.layers)
    every = keys.members(run, _REFERENCE)
    chosen = keys.members(run, asked.inputs)

    def see(pixels: np.ndarray, text: str) -> Seen:
        def means(batch: np.ndarray) -> np.ndarray:
            logits, activations = inside.means(subject.normalised(batch))
            return np.concatenate([softmax(logits).max(axis=1)[:, None], logits.argmax(axis=1)[:, None], activations], axis=1)

        report(0, 1, text)
        found = np.concatenate(subject.in_batches(pixels, means))
        return Seen(found[:, 2:].astype(np.float64), found[:, 1].astype(np.int64), found[:, 0].astype(np.float32))

    pixels = subject.kept(every)
    clean = see(pixels, "Reading the activations of the run's inputs")
    rows = np.flatnonzero(np.isin(every, chosen) & (clean.predicted == run.labels[every]))
    if not len(rows):
        raise DNNVizError("None of the inputs chosen is classified correctly; there is nothing that an attack could change for the worse.")
    found = attack(
        subject.model,
        pixels[rows],
        method.name,
        run.labels[every[rows]],
        watch=lambda done, whole: report(done, whole, f"{method.title}: {len(rows)} inputs"),
        **subject.normalisation,
        **_with_stop(method, False),
        **asked.parameters,
    )
    originals = every[rows[found.success]]
    attacked = clean[rows[:0]]
    if len(originals):
        attacked = see(found.adversarial[found.success], "Reading the activations of what fools the network")
    report(1, 1, "Fitting and measuring the detectors")
    arrays, names, papers, fitted = detect(clean, run.labels[every], every, attacked, originals, [layer.columns for layer in run.layers])
    caught = float(np.interp(0.05, arrays["false_rate"], arrays["true_rate"][0]))
    area, low, high = (float(arrays[name][0]) for name in ("areas", "low", "high"))
    about = {
        "method": method.name,
        "title": method.title,
        "parameters": dict(asked.parameters),
        "detectors": names,
        "citations": papers,
        "tried": len(rows),
        "fooled": len(originals),
        "fitted": fitted,
        "seconds": found.seconds,
        "sentence": f"{len(originals)} of {len(rows)} attacks fooled the network. On {len(arrays['clean_inputs'])} clean and "
        f"{len(arrays['attacked_inputs'])} attacked inputs that nothing was fitted on, the Mahalanobis distance over the layers finds "
        f"{_percent(caught)} of the attacks when one clean input in twenty is flagged; its area under the ROC curve is {area:.3f} (95 % interval "
        f"{low:.3f} to {high:.3f}). The detectors learnt from {fitted} other inputs.",
    }
    keys.put(results, key, keys.Detection(about, **arrays))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
