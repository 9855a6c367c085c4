"""Checks of classes: accuracy, classes taken for each other, uneven numbers."""

from __future__ import annotations

import numpy as np

from dnnviz.analysis.diagnosis.finding import ATTENTION, FINE, LOOK, PERCENT, UNSURE, Bars, Finding, Link, Subject, check, listed, percent
from dnnviz.errors import RunError

SHARE, LEAST = 0.25, 5  # share of a class's inputs that are taken for one other class, and their number, from which it is worth a look
UNEVEN, SKEWED = 3.0, 10.0  # largest over smallest class that is worth a look, and that needs attention
_ROWS = 8


@check(
    "accuracy",
    "Accuracy",
    "Share of the kept inputs (held-out ones where there are any) whose predicted class is the true one, against always answering the most frequent "
    "class; needs attention when it is not above that by two standard errors.",
)
def accuracy(subject: Subject) -> Finding:
    """Whether the network knows anything at all."""
    run = subject.run
    rows, where = subject.judged
    labels = run.labels[rows]
    if run.logits(subject.epoch).shape[1] < 2:
        raise RunError("The network has one output only: there are no classes to tell apart.")
    right = float((run.logits(subject.epoch)[rows].argmax(axis=1) == labels).mean())
    guess = float(np.bincount(labels, minlength=len(run.classes)).max() / len(labels))
    if run.logits(subject.epoch).shape[1] > len(run.classes):
        guess = 1 / run.logits(subject.epoch).shape[1]
    elif not 1 < len(np.unique(labels)) <= len(labels) / 2:
        guess = 1 / len(run.classes)  # one input a class or so, or one class alone: the most frequent one says nothing
    error = float(np.sqrt(max(right * (1 - right), guess * (1 - guess)) / len(labels)))
    values = {"accuracy": right, "guessing": guess, "inputs": len(labels)}
    link = Link("See what it gets wrong", "/attribution", {"by": "wrong"}) if right < 1 else UNSURE
    if right <= guess + 2 * error and len(labels) >= 10:
        said = f"The network is right on {percent(right)} of {where}, no better than guessing ({percent(guess)})."
        return Finding(ATTENTION, said, values, link, weight=5)
    said = f"The network is right on {percent(right)} of {where}; guessing would give {percent(guess)}."
    return Finding(FINE, said, values, link, _by_class(subject))


def _by_class(subject: Subject) -> Bars | None:
    """Accuracy of the classes of which there are enough inputs, those with the lowest; None where there are none."""
    table = confusion(subject)
    sizes = table.sum(axis=1)
    known = np.flatnonzero(sizes >= LEAST)
    if not len(known):
        return None
    shares = np.diagonal(table)[known] / sizes[known]
    rows = sorted(known[np.argsort(shares, kind="stable")[:_ROWS]].tolist())
    title = "Accuracy by class" if len(rows) == len(known) else f"The {len(rows)} classes with the lowest accuracy"
    return Bars(tuple(subject.run.classes[i] for i in rows), tuple(float(table[i, i] / sizes[i]) for i in rows), unit=PERCENT, title=title)


def confusion(subject: Subject) -> np.ndarray:
    """int64 [K, K']: kept inputs on which the network is judged, by true class (row) and predicted class (column)."""
    run = subject.run
    rows, _ = subject.judged
    predicted = run.logits(subject.epoch)[rows].argmax(axis=1)
    table = np.zeros((len(run.classes), max(len(run.classes), run.logits(subject.epoch).shape[1])), dtype=np.int64)
    np.add.at(table, (run.labels[rows], predicted), 1)
    return table


@check(
    "confusion",
    "Confused classes",
    "How often inputs of one class are predicted as one other class, on the same inputs as the accuracy. Named when at least "
    f"{percent(SHARE)} and at least {LEAST} of a class's inputs are; needs attention when they outnumber those that are right.",
)
def confused(subject: Subject) -> Finding:
    """Which class is taken for which other one most."""
    run = subject.run
    _, where = subject.judged
    table = confusion(subject)
    sizes = table.sum(axis=1)
    if sizes.max() < LEAST:
        kept = "One input" if sizes.max() == 1 else f"{sizes.max()} inputs"
        raise RunError(
            f"{kept} of a class at most {'is' if sizes.max() == 1 else 'are'} kept: too few to say which classes are taken for each other."
        )
    right = np.diagonal(table)
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    if not wrong.any():
        return Finding(FINE, f"No input of {where} is taken for another class.", {"pairs": []}, UNSURE)
    lost = wrong / np.maximum(sizes, 1)[:, None]
    # Those that are named before all others, by what they lose: a small class may lose all it has, and still fewer than a large one.
    order = np.argsort(-np.where((wrong >= LEAST) & (lost >= SHARE), wrong.max() + lost, wrong), axis=None, kind="stable")[:_ROWS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    values = {"pairs": [(_name(run.classes, i), _name(run.classes, j), int(wrong[i, j]), int(sizes[i])) for i, j in pairs]}
    names = tuple(f"{_name(run.classes, i)} → {_name(run.classes, j)}" for i, j in pairs)
    shares = tuple(float(lost[i, j]) for i, j in pairs)
    told = [p for p, (i, j) in enumerate(pairs) if wrong[i, j] >= LEAST and shares[p] >= SHARE]
    picture = Bars(names, shares, frozenset(told), PERCENT, title="Share of the true class")
    worst = max(told, key=lambda p: shares[p]) if told else 0
    i, j = pairs[worst]
    said = f"“{_name(run.classes, i)}” is taken for “{_name(run.classes, j)}” most, on {wrong[i, j]} of {sizes[i]} inputs"
    link = Link("Compare the two classes", "/compare", {"show": f"class:{i}", "show2": f"class:{j}"}) if j < len(run.classes) else None
    if not told:
        return Finding(FINE, f"{said}; no class loses more than {percent(float(lost.max()))} of its inputs to one other.", values, link, picture)
    severity = ATTENTION if any(wrong[pairs[p]] > right[pairs[p][0]] for p in told) else LOOK
    return Finding(severity, f"{said} ({percent(shares[worst])}).", values, link, picture, weight=shares[worst])


@check(
    "imbalance",
    "Class sizes",
    f"Inputs of the largest class over those of the smallest that has any, in the training split (or the only one). Named above {UNEVEN:g}, "
    "and where a class has none at all.",
    "M. Buda et al., A systematic study of the class imbalance problem in convolutional neural networks, Neural Networks 106, 2018.",
)
def imbalance(subject: Subject) -> Finding:
    """Whether some classes have many more inputs than others."""
    run = subject.run
    split = run.splits.index("train") if "train" in run.splits else 0
    counts = run.class_counts[split]
    present = np.flatnonzero(counts)
    absent = [run.classes[i] for i in np.flatnonzero(counts == 0)]
    if len(present) < 2 or len(absent) > len(counts) / 2:
        raise RunError(f"{run.splits[split]} holds inputs of {len(present)} of {len(counts):,} classes; its numbers say nothing about the others.")
    low, high = int(present[counts[present].argmin()]), int(counts.argmax())
    ratio = float(counts[high] / counts[low])
    values = {"counts": {name: int(n) for name, n in zip(run.classes, counts, strict=True)}, "ratio": ratio, "absent": absent}
    between = f"from {counts[low]:,} (“{run.classes[low]}”) to {counts[high]:,} (“{run.classes[high]}”)"
    if ratio == 1 and not absent:
        return Finding(FINE, f"Every class of {run.splits[split]} has {counts[low]:,} inputs.", values)
    rows = sorted(
        {int(i) for i in np.argsort(counts, kind="stable")[: _ROWS // 2]} | {int(i) for i in np.argsort(-counts, kind="stable")[: _ROWS // 2]}
    )
    picture = Bars(
        tuple(run.classes[i] for i in rows),
        tuple(float(counts[i]) for i in rows),
        frozenset(r for r, i in enumerate(rows) if counts[i] * UNEVEN < counts[high]),
        title="Inputs of each class",
    )
    link = Link("See the smallest class", "/", {"show": f"class:{low}"})
    if ratio <= UNEVEN and not absent:
        return Finding(FINE, f"The classes of {run.splits[split]} have {between} inputs.", values, link, picture)
    missing = f" and none of {listed([f'“{name}”' for name in absent])}" if absent else ""
    said = f"The classes of {run.splits[split]} are uneven: {between} inputs{missing}."
    return Finding(ATTENTION if ratio > SKEWED or absent else LOOK, said, values, link, picture, weight=ratio)


def _name(classes: list[str], index: int) -> str:
    return classes[index] if index < len(classes) else f"output {index}"
