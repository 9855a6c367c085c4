"""The report of a run: one HTML page, light and printable, that asks for nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

import dnnviz
from dnnviz.analysis.comparison import two_splits
from dnnviz.analysis.diagnosis import CHECKS, SEVERITIES, Finding, Subject, diagnose
from dnnviz.analysis.diagnosis.classes import confusion
from dnnviz.analysis.diagnosis.finding import PERCENT, Bars, Course
from dnnviz.analysis.evolution import metric_courses
from dnnviz.analysis.tampering import TESTS
from dnnviz.report.charts import draw
from dnnviz.report.grids import confusion_table, image, strip
from dnnviz.report.numbers import Against, against, as_json, class_accuracies, telling_units
from dnnviz.report.style import STYLE
from dnnviz.theme import PALETTE

MOST_CLASSES = 20  # rows of the confusion table; with more classes the pairs are listed
_IMAGES = 6  # of each telling unit
_COLOURS = PALETTE["light"]


def compose(run_id: str, subject: Subject, other: tuple[str, Subject] | None = None) -> str:
    """The page of a snapshot, as HTML text; other: (name, snapshot) that it is held against."""
    epoch = subject.epoch
    found = diagnose(subject)
    versus = None if other is None else against(subject, other[1], (run_id, other[0]))
    title = f"{run_id}, epoch {epoch}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="small">A report of DNNViz {escape(dnnviz.__version__)}. {escape(_summary(found))}</p>',
        _section("The run", _about(subject)),
        _section("Health", "".join(_finding(each) for each in found)),
        _section("Accuracy", _accuracy(subject)),
        _section("Confused classes", _confusion(subject)),
        _section("Calibration", _calibration(found)),
        _section("Tampering", _tampering(found)),
        _section("The layers", _layers(subject)),
        _section("Units that tell a class", _units(subject)),
        *([] if versus is None else [_section(f"Against {versus.second.name}", _against(versus))]),
        _section("How each number was computed", _how()),
    ]
    numbers = json.dumps(as_json(run_id, subject, found, versus), ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        # An icon of nothing: without it a browser asks the place that the page comes from for one.
        f'<link rel="icon" href="data:,"><title>{escape(title)} · DNNViz</title><style>{STYLE}</style></head>\n<body>{"".join(parts)}\n'
        f'<script type="application/json" id="numbers">{numbers}</script></body></html>\n'
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> str:
    """numbers: columns that stand on the right."""

    def cell(tag: str, i: int, value: Any) -> str:
        side = ' class="n"' if i in numbers else ""
        return f"<{tag}{side}>{escape(str(value))}</{tag}>"

    body = "".join(f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>" for row in rows)
    top = f"<thead><tr>{''.join(cell('th', i, name) for i, name in enumerate(head))}</tr></thead>" if head else ""
    return f"<table>{top}<tbody>{body}</tbody></table>"


def _figure(picture: Any, caption: str = "", width: int = 420) -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{draw(picture, _COLOURS, width)}{below}</figure>"


def _summary(found: Sequence[Finding]) -> str:
    counts = {severity: [CHECKS[f.check].title.lower() for f in found if f.severity == severity] for severity in SEVERITIES}
    told = [f"{SEVERITIES[severity]}: {', '.join(counts[severity])}." for severity in ("attention", "look") if counts[severity]]
    return " ".join(told) or f"Nothing stands out in {len(counts['fine'])} checks."


def _about(subject: Subject) -> str:
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
    return _table((), values.items())


def _numbers(values: Any) -> str:
    return ", ".join(f"{float(v):g}" for v in values) if values else "not given"


def _finding(found: Finding) -> str:
    picture = _figure(found.picture) if found.picture is not None and found.severity in ("attention", "look") else ""
    return (
        f'<div class="finding {found.severity}"><span class="mark">{SEVERITIES[found.severity]}</span>'
        f"<h3>{escape(CHECKS[found.check].title)}</h3><p>{escape(found.sentence)}</p>{picture}</div>"
    )


def _accuracy(subject: Subject) -> str:
    run = subject.run
    parts = []
    accuracy, loss = metric_courses(run, "accuracy"), metric_courses(run, "loss")
    if accuracy:
        names = list(accuracy)
        head = ["epoch", *[f"accuracy {name}" for name in names], *[f"loss {name}" for name in loss]]
        rows = [
            [epoch, *[_share(accuracy[name][i]) for name in names], *[f"{loss[name][i]:.4f}" if np.isfinite(loss[name][i]) else "–" for name in loss]]
            for i, epoch in enumerate(run.epochs)
        ]
        parts.append(_table(head, rows, range(len(head))))
        if len(run.epochs) > 1:
            splits = two_splits(run)
            strong = frozenset([splits[1] if splits else names[0]])
            for title, courses, unit in (("Accuracy", accuracy, PERCENT), ("Loss", loss, "")):
                if courses:
                    series = {name: tuple(course) for name, course in courses.items()}
                    parts.append(_figure(Course(tuple(run.epochs), series, subject.epoch, strong, unit, title), width=440))
    rows, where = class_accuracies(subject), subject.judged[1]
    worst = sorted(rows, key=lambda i: (rows[i][1] / rows[i][0], -rows[i][0]))[:40]
    shown = sorted(worst) if len(worst) == len(rows) else worst
    note = "" if len(shown) == len(rows) else f" The {len(shown)} classes with the lowest accuracy, of {len(rows)}."
    parts.append(f"<h3>By class</h3><p>On {escape(where)}.{note}</p>")
    parts.append(
        _table(("class", "inputs", "right", "accuracy"), [(run.classes[i], *rows[i], _share(rows[i][1] / rows[i][0])) for i in shown], (1, 2, 3))
    )
    return "".join(parts)


def _share(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.2f} %"


def _confusion(subject: Subject) -> str:
    table = confusion(subject)
    run = subject.run
    intro = f"<p>True class (row) by predicted class (column), on {escape(subject.judged[1])}.</p>"
    if table.shape[0] == table.shape[1] <= MOST_CLASSES:
        return intro + confusion_table(table, run.classes)
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:MOST_CLASSES]]
    rows = [(run.classes[i], run.classes[j] if j < len(run.classes) else f"output {j}", wrong[i, j], table[i].sum()) for i, j in order if wrong[i, j]]
    if not rows:
        return f"<p>No input of {escape(subject.judged[1])} is taken for another class.</p>"
    return f"<p>The most frequent, on {escape(subject.judged[1])}.</p>" + _table(("true class", "taken for", "times", "of"), rows, (2, 3))


def _calibration(found: Sequence[Finding]) -> str:
    result = next(f for f in found if f.check == "calibration")
    if "error" not in result.values:
        return f"<p>{escape(result.sentence)}</p>"
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
    return f"<p>{escape(result.sentence)}</p>{_figure(result.picture)}{_table((), rows, (1,))}"


def _tampering(found: Sequence[Finding]) -> str:
    result = next(f for f in found if f.check == "tampering")
    if "scores" not in result.values:
        return f"<p>{escape(result.sentence)}</p>"
    scores, z = result.values["scores"], result.values["z"]
    order = [name for name in sorted(scores, key=lambda name: -np.nan_to_num(scores[name], nan=-np.inf)) if np.isfinite(scores[name])][:40]
    head = ["class", "share of the threshold", *(f"z, {TESTS[test].title.lower()}" for test in z)]
    rows = [(name, _figures(scores[name], 2), *(_figures(z[test][name], 1) for test in z)) for name in order]
    return f"<p>{escape(result.sentence)}</p>" + _table(head, rows, range(1, len(head)))


def _figures(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def _layers(subject: Subject) -> str:
    run, epoch = subject.run, subject.epoch
    mean, active = run.data_mean(epoch), run.active(epoch)
    rows = []
    for layer in run.layers:
        dead = int((active[layer.columns] == 0).sum())
        rows.append(
            f'<tr><td>{escape(layer.name)}<br><span class="small">{layer.kind}, {layer.units:,} units{f", {dead:,} dead" if dead else ""}</span></td>'
            f"<td>{strip(mean[layer.columns], _COLOURS, f'Mean activation of the units of {layer.name}')}</td></tr>"
        )
    ends = f"from {_COLOURS['cell0']} (silent) to {_COLOURS['cell1']} (strongest)"
    return (
        "<p>One cell a unit: its mean activation over all inputs, within each layer shifted to be non-negative and divided by the largest; "
        f'white is silent, red strongest.</p><table class="grid" title="{ends}"><tbody>{"".join(rows)}</tbody></table>'
    )


def _units(subject: Subject) -> str:
    run = subject.run
    parts = []
    for unit in telling_units(run, subject.epoch):
        indices, _ = run.top_inputs(subject.epoch, unit.layer, unit.number, _IMAGES)
        labels = run.image_labels(indices) if len(indices) else []
        pictures = "".join(
            image(pixels, 64, f"{run.classes[int(label)]}") for pixels, label in zip(run.images(indices) if len(indices) else [], labels, strict=True)
        )
        parts.append(
            f'<div class="unit"><span>{escape(unit.layer.name)}, unit {unit.number}: “{escape(run.classes[unit.label])}”, '
            f"{unit.effect:.2f} standard deviations</span>{pictures}</div>"
        )
    if not parts:
        return "<p>No unit tells any class from the others.</p>"
    intro = (
        "The three of each of a few layers whose mean over one class lies furthest above that over all inputs, with the inputs that excite them most."
    )
    return f"<p>{intro}</p>" + "".join(parts)


def _against(versus: Against) -> str:
    found = versus.found
    names = (versus.first.name, versus.second.name)
    parts = [
        f"<p>{escape(names[0])}, epoch {versus.first.epoch}, against {escape(names[1])}, epoch {versus.second.epoch}, over all inputs of each.</p>"
    ]
    if found.shared.layers:
        pairs = "units paired by index" if found.pairing.how == "index" else f"units paired by correlation over {found.pairing.over}"
        parts.append(
            f"<p>Distance of a layer: root mean square of the differences of its units, in their standard deviations; {escape(pairs)}. "
            f"Left out on either side: {len(found.shared.only_first)} and {len(found.shared.only_second)} layers.</p>"
        )
        layers = [layer.name for layer in found.shared.layers]
        furthest = int(np.nanargmax(found.distances))
        picture = Bars(tuple(layers), tuple(found.distances.tolist()), frozenset([furthest]), title="Distance of the layers")
        parts.append(_figure(picture, width=560))
        parts.append(_table(("layer", "distance"), [(name, f"{d:.3f}") for name, d in zip(layers, found.distances, strict=True)], (1,)))
    else:
        parts.append("<p>The two share no layer of the same name and size; the Compare page holds all pairs of their layers against each other.</p>")
    if versus.classes:
        rows = [(name, _share(a), _share(b), "–" if d is None else f"{d:.3f}") for name, a, b, d in versus.classes]
        parts.append("<h3>Classes</h3>")
        parts.append(_table(("class", f"accuracy {names[0]}", f"accuracy {names[1]}", "distance"), rows, (1, 2, 3)))
    return "".join(parts)


def _how() -> str:
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
        (
            "Comparison",
            "Differences in pooled standard deviations of the unit; units of separately trained networks are paired by correlation.",
            "Y. Li et al., Convergent learning, ICLR 2016.",
        ),
    ]
    return f"<dl>{''.join(_entry(*entry) for entry in entries)}</dl>"


def _entry(title: str, how: str, source: str) -> str:
    return f'<dt>{escape(title)}</dt><dd>{escape(how)} <span class="small">{escape(source)}</span></dd>'
