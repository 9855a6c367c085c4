"""The report of a run: one HTML page, light and printable, that asks for nothing else, and its pictures."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import PIL

import dnnviz
from dnnviz.analysis.diagnosis import CHECKS, SEVERITIES, Finding, Subject, diagnose
from dnnviz.analysis.diagnosis.classes import confusion
from dnnviz.analysis.diagnosis.finding import PERCENT, Course
from dnnviz.analysis.evolution import metric_courses
from dnnviz.analysis.sides import two_splits
from dnnviz.analysis.tampering import TESTS
from dnnviz.analysis.units import dead_units
from dnnviz.report.charts import draw
from dnnviz.report.grids import counts, layer_row, unit_row
from dnnviz.report.numbers import against, as_json, class_accuracies, telling_units
from dnnviz.report.parts import Part, Picture, figures, paragraph, share, table
from dnnviz.report.style import STYLE
from dnnviz.report.versus import HOW, MOST_CLASSES, versus_parts
from dnnviz.theme import PALETTE

_IMAGES = 6  # of each telling unit
_COLOURS = PALETTE["light"]


@dataclass(frozen=True)
class Report:
    """A report: the page as HTML text, and the pictures on it in their order."""

    html: str
    pictures: tuple[Picture, ...]


def compose(run_id: str, subject: Subject, other: tuple[str, Subject] | None = None) -> Report:
    """The report of a snapshot; other: (name, snapshot) that it is held against."""
    found = diagnose(subject)
    versus = None if other is None else against(subject, other[1], (run_id, other[0]))
    title = f"{run_id}, epoch {subject.epoch}"
    sections: list[tuple[str, Sequence[Part]]] = [
        ("The run", _about(subject)),
        ("Health", [part for each in found for part in _finding(each)]),
        ("Accuracy", _accuracy(subject)),
        ("Confused classes", _confusion(subject)),
        ("Calibration", _calibration(found)),
        ("Tampering", _tampering(found)),
        ("The layers", _layers(subject)),
        ("Units that tell a class", _units(subject)),
    ]
    if versus is not None and other is not None:
        sections.append((f"Against {versus.second.name}, epoch {versus.second.epoch}", versus_parts(versus, subject, other[1])))
    sections.append(("How each number was computed", [_how(versus is not None)]))
    body = "".join(f"<section><h2>{escape(name)}</h2>{''.join(_html(part) for part in parts)}</section>\n" for name, parts in sections)
    numbers = json.dumps(as_json(run_id, subject, found, versus), ensure_ascii=False).replace("<", "\\u003c")
    html = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        # An icon of nothing: without it a browser asks the place that the page comes from for one.
        f'<link rel="icon" href="data:,"><title>{escape(title)} · DNNViz</title><style>{STYLE}</style></head>\n<body>'
        f'<h1>{escape(title)}</h1><p class="small">A report of DNNViz {escape(dnnviz.__version__)} (Python {platform.python_version()}, '
        f"numpy {np.__version__}, Pillow {PIL.__version__}). {escape(_summary(found))}</p>{body}\n"
        f'<script type="application/json" id="numbers">{numbers}</script></body></html>\n'
    )
    return Report(html, tuple(part for _, parts in sections for part in parts if isinstance(part, Picture)))


def _html(part: Part) -> str:
    return part.html() if isinstance(part, Picture) else part


def _chart(name: str, picture: Any, width: int = 420) -> Picture:
    return Picture(name, picture.title, (draw(picture, _COLOURS, width),))


def _summary(found: Sequence[Finding]) -> str:
    named = {severity: [CHECKS[f.check].title.lower() for f in found if f.severity == severity] for severity in SEVERITIES}
    told = [f"{SEVERITIES[severity]}: {', '.join(named[severity])}." for severity in ("attention", "look") if named[severity]]
    return " ".join(told) or f"Nothing stands out in {len(named['fine'])} checks."


def _about(subject: Subject) -> list[Part]:
    run = subject.run
    manifest = run.manifest
    model, how = manifest["model"], manifest["preprocessing"]
    splits = ", ".join(f"{n:,} {name}" for name, n in zip(run.splits, run.class_counts.sum(axis=1), strict=True))
    values = {
        "Network": f"{model.get('spec') or model.get('class')}, {model.get('parameters', 0):,} parameters",
        "Data": f"{manifest['data'].get('spec') or 'not named'}: {splits} inputs in {len(run.classes):,} classes",
        "Input": f"{' × '.join(map(str, how['size']))}, mean {_numbers(how.get('mean'))}, standard deviation {_numbers(how.get('std'))}",
        "Captured": f"{len(run.layers)} layers, {run.units:,} units; {run.kept:,} inputs kept one by one; epochs {', '.join(map(str, run.epochs))}",
        "Made": manifest.get("created") or "not known",
        "Versions": ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items()) or "not known",
        "Content": f"snapshot {run.digest(subject.epoch)}",
    }
    return [table((), values.items())]


def _numbers(values: Any) -> str:
    return ", ".join(f"{float(v):g}" for v in values) if values else "not given"


def _finding(found: Finding) -> list[Part]:
    shown = found.picture is not None and found.severity in ("attention", "look")
    return [
        f'<div class="finding {found.severity}"><span class="mark">{SEVERITIES[found.severity]}</span>'
        f"<h3>{escape(CHECKS[found.check].title)}</h3><p>{escape(found.sentence)}</p>",
        *([_chart(f"health-{found.check}", found.picture)] if shown else []),
        "</div>",
    ]


def _accuracy(subject: Subject) -> list[Part]:
    run = subject.run
    parts: list[Part] = []
    accuracy, loss = metric_courses(run, "accuracy"), metric_courses(run, "loss")
    if accuracy:
        names = list(accuracy)
        head = ["epoch", *[f"accuracy {name}" for name in names], *[f"loss {name}" for name in loss]]
        rows = [
            [epoch, *[share(accuracy[name][i]) for name in names], *[f"{loss[name][i]:.4f}" if np.isfinite(loss[name][i]) else "–" for name in loss]]
            for i, epoch in enumerate(run.epochs)
        ]
        parts.append(table(head, rows, range(len(head))))
        if len(run.epochs) > 1:
            splits = two_splits(run)
            strong = frozenset([splits[1] if splits else names[0]])
            for title, courses, unit in (("Accuracy", accuracy, PERCENT), ("Loss", loss, "")):
                if courses:
                    series = {name: tuple(course) for name, course in courses.items()}
                    parts.append(_chart(title.lower(), Course(tuple(run.epochs), series, subject.epoch, strong, unit, title), 440))
    rows, where = class_accuracies(subject), subject.judged[1]
    worst = sorted(rows, key=lambda i: (rows[i][1] / rows[i][0], -rows[i][0]))[:40]
    shown = sorted(worst) if len(worst) == len(rows) else worst
    note = "" if len(shown) == len(rows) else f" The {len(shown)} classes with the lowest accuracy, of {len(rows)}."
    parts += ["<h3>By class</h3>", paragraph(f"On {where}.{note}")]
    parts.append(
        table(("class", "inputs", "right", "accuracy"), [(run.classes[i], *rows[i], share(rows[i][1] / rows[i][0])) for i in shown], (1, 2, 3))
    )
    return parts


def _confusion(subject: Subject) -> list[Part]:
    found = confusion(subject)
    run, where = subject.run, subject.judged[1]
    if found.shape[0] == found.shape[1] <= MOST_CLASSES:
        label = f"True class (rows) by predicted class (columns), on {where}"
        return [paragraph(f"{label}."), Picture("confusion", label, (counts(found, run.classes, run.classes, label, _COLOURS),))]
    wrong = found.copy()
    np.fill_diagonal(wrong, 0)
    order = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:MOST_CLASSES]]
    rows = [(run.classes[i], run.classes[j] if j < len(run.classes) else f"output {j}", wrong[i, j], found[i].sum()) for i, j in order if wrong[i, j]]
    if not rows:
        return [paragraph(f"No input of {where} is taken for another class.")]
    return [paragraph(f"The most frequent, on {where}."), table(("true class", "taken for", "times", "of"), rows, (2, 3))]


def _calibration(found: Sequence[Finding]) -> list[Part]:
    result = next(f for f in found if f.check == "calibration")
    if "error" not in result.values:
        return [paragraph(result.sentence)]
    names = {
        "error": "expected calibration error (15 bins of equal width)",
        "adaptive": "the same, bins of equal numbers",
        "chance": "what a calibrated network with these confidences shows on average",
        "limit": "what one of 100 such networks exceeds",
        "confidence": "mean confidence",
        "accuracy": "accuracy",
        "temperature": "temperature with the smallest loss",
        "mended": "expected calibration error with it",
    }
    rows = [(text, f"{result.values[name]:.4f}") for name, text in names.items()]
    return [paragraph(result.sentence), _chart("calibration", result.picture), table((), rows, (1,))]


def _tampering(found: Sequence[Finding]) -> list[Part]:
    result = next(f for f in found if f.check == "tampering")
    if "scores" not in result.values:
        return [paragraph(result.sentence)]
    scores, z = result.values["scores"], result.values["z"]
    order = [name for name in sorted(scores, key=lambda name: -np.nan_to_num(scores[name], nan=-np.inf)) if np.isfinite(scores[name])][:40]
    head = ["class", "share of the threshold", *(f"z, {TESTS[test].title.lower()}" for test in z)]
    rows = [(name, figures(scores[name], 2), *(figures(z[test][name], 1) for test in z)) for name in order]
    return [paragraph(result.sentence), table(head, rows, range(1, len(head)))]


def _layers(subject: Subject) -> list[Part]:
    run, epoch = subject.run, subject.epoch
    mean = run.data_mean(epoch)
    dead = dead_units(run.active(epoch), mean)
    rows = []
    for layer in run.layers:
        silent = int(dead[layer.columns].sum())
        about = f"{layer.kind}, {layer.units:,} units{f', {silent:,} dead' if silent else ''}"
        rows.append(layer_row(layer.name, about, mean[layer.columns], _COLOURS))
    said = "One cell a unit: its mean activation over all inputs, within each layer shifted to be non-negative and divided by the largest; white is "
    return [paragraph(said + "0 (or the least value below it), red the largest."), Picture("layers", "Mean activation of every unit", tuple(rows))]


def _units(subject: Subject) -> list[Part]:
    run = subject.run
    rows = []
    for unit in telling_units(run, subject.epoch):
        indices, _ = run.top_inputs(subject.epoch, unit.layer, unit.number, _IMAGES)
        images = list(run.images(indices)) if len(indices) else []
        titles = [run.classes[int(label)] for label in run.image_labels(indices)] if len(indices) else []
        told = (f"{unit.layer.name}, unit {unit.number}", f"“{run.classes[unit.label]}”, {unit.effect:.2f} standard deviations")
        rows.append(unit_row(told, [("", images, titles)], _COLOURS))
    if not rows:
        return [paragraph("No unit tells any class from the others.")]
    said = (
        "The three of each of a few layers whose mean over one class lies furthest above that over all inputs, with the inputs that excite them most."
    )
    return [paragraph(said), Picture("units", "Units that tell a class, and the inputs that excite them most", tuple(rows))]


def _how(compared: bool) -> str:
    entries = [(check.title, check.how, check.source) for check in CHECKS.values()]
    entries += [
        (
            "Layers",
            "Mean of a convolution's unit: over the positions of its feature map, then over the inputs; values are those after normalisation and "
            "activation function.",
            "M. Alberti et al., DeepDIVA, ICFHR 2018, whose DNNViz first drew networks this way.",
        ),
        (
            "Units that tell a class",
            "Mean over the class less mean over all inputs, divided by the unit's standard deviation over all inputs.",
            "J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988.",
        ),
        *(HOW if compared else ()),
    ]
    return f"<dl>{''.join(_entry(*entry) for entry in entries)}</dl>"


def _entry(title: str, how: str, source: str) -> str:
    return f'<dt>{escape(title)}</dt><dd>{escape(how)} <span class="small">{escape(source)}</span></dd>'
