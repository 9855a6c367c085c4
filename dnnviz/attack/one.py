"""One attack all the way: the images, the probabilities of every step, the path through the layers, the proof. torch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dnnviz.attack.keys import SHARE, AskedAttack, Attack
from dnnviz.attack.patch import Inside, softmax
from dnnviz.attack.perform import Outcome, attack
from dnnviz.attack.registry import METHODS
from dnnviz.attack.spread import carriers, first_nearer, first_outside, spread_of
from dnnviz.attack.subject import Subject
from dnnviz.explain.plan import class_name
from dnnviz.explain.uploads import is_upload

Report = Callable[[float, float, str], object]
Store = Callable[[Attack], object]
_CLASSES = 6  # whose probabilities are kept at most, beside those that the attack is about
_DRAWS = 3  # of random units beside the units that carry the difference
_LARGE = 128 * 128  # pixels from which on one draw has to do: every patch is a pass through the network
_STORE_EVERY = 1.0  # seconds between two looks that the page gets at values being put back
_ATTACKING = 0.4  # share of the work that the attack itself takes, for the bar


def attack_one(subject: Subject, asked: AskedAttack, report: Report, store: Store) -> None:
    """Attack one input and follow the change through the layers; stores the attack before the layers are read, and all at the end."""
    method = METHODS[asked.method]
    pixels = subject.source(asked.source)
    targets = None if asked.target is None else [asked.target]
    found = attack(
        subject.model,
        pixels,
        asked.method,
        targets=targets,
        history=True,
        watch=lambda done, total: report(_ATTACKING * done / total, 1, method.title),
        **subject.normalisation,
        **asked.parameters,
    )
    rounded = np.round(found.adversarial * 255) / 255
    first = _images(subject, asked, pixels, found, int(subject.logits(rounded.astype(np.float32)).argmax()))
    store(first)
    _follow(subject, asked, pixels, found, first, report, store)


def _images(subject: Subject, asked: AskedAttack, pixels: np.ndarray, found: Outcome, rounded: int) -> Attack:
    """What is known before the layers are read."""
    run = subject.run
    history = found.probabilities[:, 0]
    true = None if is_upload(asked.source) else int(run.labels[int(asked.source)])
    before, after = int(found.before[0]), int(found.after[0])
    # Those the attack is about, then those that were likeliest at any step.
    named = [c for c in (before, after, asked.target, true) if c is not None]
    classes = list(dict.fromkeys([*named, *(int(c) for c in np.argsort(-history.max(axis=0), kind="stable")[:_CLASSES])]))
    norms = {"linf": float(found.linf[0]), "l2": float(found.l2[0])}
    about: dict[str, Any] = {
        "method": asked.method,
        "title": METHODS[asked.method].title,
        "parameters": dict(asked.parameters),
        "true": true,
        "before": before,
        "after": after,
        "target": asked.target,
        "success": bool(found.success[0]),
        "norms": {**norms, **{f"{name}_255": 255 * value for name, value in norms.items()}, "l0": float(found.l0[0])},
        "steps": int(found.steps[0]),
        "evaluations": int(found.evaluations[0]),
        "gradients": int(found.gradients[0]),
        "seconds": found.seconds,
        "rounded": rounded,
        "original": float(history[0, before]),
        "baseline": float(history[-1, before]),
        "leaves": None,
        "arrives": None,
        "spread": None,
        "target_spread": None,
        "partial": _ATTACKING,
    }
    about["sentence"] = _sentence(subject, about, float(history[-1, after]))
    none, no_units = np.zeros(0, np.float32), np.zeros(0, np.int64)
    return Attack(
        about=about,
        image=pixels[0].transpose(1, 2, 0),
        adversarial=found.adversarial[0].transpose(1, 2, 0),
        classes=np.array(classes, dtype=np.int64),
        probabilities=history[:, classes],
        **dict.fromkeys(("distance_before", "distance_after", "limit", "target_before", "target_after", "target_limit"), none),
        units=no_units,
        unit_layers=no_units,
        **dict.fromkeys(("unit_shares", "values_before", "values_after", "patched", "whole"), none),
        controls=np.zeros((0, 1), np.float32),
        restored=np.zeros((0, 1), bool),
    )


def _follow(subject: Subject, asked: AskedAttack, pixels: np.ndarray, found: Outcome, first: Attack, report: Report, store: Store) -> None:
    """The attack with its path through the layers: stored as soon as it is known, then again as the units' values are put back."""
    run, epoch = subject.run, subject.epoch
    report(_ATTACKING, 1, "Reading the layers")
    pair = subject.normalised(np.concatenate([pixels, found.adversarial]))
    inside = Inside(subject.model, pair[:1], run.layers)
    original, attacked = (inside.values(each) for each in (pair[:1], pair[1:]))
    squares, clean, changed = inside.differences(original.values, attacked.values)
    chosen, shares = carriers(squares, run, epoch, SHARE)
    before, after = first.about["before"], first.about["after"]
    without = None if is_upload(asked.source) else int(asked.source)
    own, other = spread_of(run, epoch, before, without), spread_of(run, epoch, after, without)
    distances, others = (spread.distances(np.stack([clean, changed])) for spread in (own, other))
    units = [layer.offset + each for layer, each in zip(run.layers, chosen, strict=True)]
    every = np.concatenate(units).astype(np.int64)
    about = {**first.about, "leaves": first_outside(*distances, own.limit), "arrives": first_nearer(distances[1], others[1])}
    about |= {"spread": own.kind, "target_spread": other.kind, "spread_inputs": own.count}

    # The same units are drawn whenever the same is asked.
    random = np.random.default_rng(_seed(asked))
    large = pixels.shape[2] * pixels.shape[3] >= _LARGE
    draws = 1 if large else _DRAWS
    sets = [
        [each, *(random.choice(layer.units, len(each), replace=False) for _ in range(draws))] for layer, each in zip(run.layers, chosen, strict=True)
    ]
    if not large:
        for layer, each in zip(run.layers, sets, strict=True):
            each.append(np.arange(layer.units))
    back = np.full((len(run.layers), draws + 2), np.nan, np.float32)
    restored = np.zeros((len(run.layers), 1 + draws), bool)

    def told() -> Attack:
        return replace(
            first,
            about=dict(about),
            distance_before=distances[0],
            distance_after=distances[1],
            limit=own.limit,
            target_before=others[0],
            target_after=others[1],
            target_limit=other.limit,
            units=every,
            unit_layers=np.repeat(np.arange(len(units)), [len(each) for each in units]),
            unit_shares=np.concatenate(shares),
            values_before=clean[every],
            values_after=changed[every],
            patched=back[:, 0],
            controls=back[:, 1 : 1 + draws],
            whole=back[:, 1 + draws],
            restored=restored.copy(),
        )

    store(told())
    stored = time.perf_counter()
    for done, (number, logits) in enumerate(inside.patched(pair[1:], attacked, original, sets), 1):
        back[number, : len(logits)] = softmax(np.stack(logits))[:, before]
        restored[number] = np.stack(logits[: 1 + draws]).argmax(axis=1) == before
        about["partial"] = round(_ATTACKING + (1 - _ATTACKING) * done / len(run.layers), 4)
        report(about["partial"], 1, "Putting the units' values back")
        if time.perf_counter() > stored + _STORE_EVERY:
            store(told())
            stored = time.perf_counter()
    del about["partial"]
    store(told())


def _seed(asked: AskedAttack) -> list[int]:
    return list(json.dumps([asked.source, asked.method, dict(asked.parameters), asked.target], sort_keys=True).encode())


def _sentence(subject: Subject, about: dict[str, Any], final: float) -> str:
    """What happened, in one or two sentences."""
    before, after = (class_name(subject.run, about[name]) for name in ("before", "after"))
    changed = f"no pixel changed by more than {about['norms']['linf_255']:.2g} of 255"
    if about["success"] and about["before"] == about["after"]:
        return f"The network names {before} already; nothing had to be changed."
    if about["success"]:
        # A random start can fool the network before any step is taken.
        how = "in one step" if about["steps"] == 1 else f"in {about['steps']} steps" if about["steps"] else "by the random start alone"
        return f"{before} ({_percent(about['original'])}) became {after} ({_percent(final)}) {how}; {changed}."
    wanted = "another class" if about["target"] is None else class_name(subject.run, about["target"])
    return f"The network did not come to {wanted}: it names {after} ({_percent(final)}). Allow more steps, or a larger size where the method has one."


def _percent(share: float) -> str:
    """A probability with the digits that matter near 0 and 1."""
    if 0.9995 <= share < 1 or share < 0.001:
        return ">99.9 %" if share > 0.5 else "<0.1 %"
    return f"{100 * share:.1f} %" if share < 0.1 or 0.99 <= share < 1 else f"{100 * share:.0f} %"
