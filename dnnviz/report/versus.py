"""The section of a report in which a run is held against another one."""

from __future__ import annotations

import numpy as np

from dnnviz.analysis.comparison import CHANCE
from dnnviz.analysis.diagnosis import Subject
from dnnviz.analysis.diagnosis.finding import Bars, listed
from dnnviz.analysis.moves import Moves
from dnnviz.analysis.sides import titles
from dnnviz.report.charts import draw
from dnnviz.report.grids import counts, similarities, unit_row
from dnnviz.report.numbers import CLASSES_COMPARED, Against
from dnnviz.report.parts import Part, Picture, figures, paragraph, share, table, three
from dnnviz.theme import PALETTE

MOST_CLASSES = 20  # rows of a table of classes by classes; with more the pairs are listed
_BARS = 30  # layers in the picture of distances
_IMAGES = 4  # of each unit, on either side
_PAIRS = 20
_COLOURS = PALETTE["light"]

HOW = (
    (
        "Distance of layers and units",
        "Difference of a unit: its mean activation over all inputs of B less that over all inputs of A, divided by its standard deviation over "
        "the inputs (root of the mean of both variances, at least 5 % of the layer's: a unit that hardly varies must not outweigh the others). "
        "Distance of a layer: root mean square of the differences of its units. Units of separately trained networks are paired by the correlation "
        "of their activations first.",
        "J. Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988; pairing: Y. Li et al., Convergent learning, ICLR 2016.",
    ),
    (
        "Whether a layer differs by more than chance",
        "p: how often the layer lies as far apart when the two networks change places, input by input, at random (999 times), over the inputs kept; "
        "adjusted for the number of layers by the smallest p of each round.",
        "P. Good, Permutation Tests, 2000; P. Westfall and S. Young, Resampling-Based Multiple Testing, 1993.",
    ),
    (
        "Similarity of layers (CKA)",
        "How alike two layers arrange the same inputs, or classes, whatever the number and order of their units: linear centred kernel alignment, "
        "estimated without bias. 1 alike up to rotation and scale, 0 nothing in common.",
        "S. Kornblith et al., ICML 2019; estimate: T. Nguyen et al., ICLR 2021.",
    ),
    (
        "Predictions that moved",
        "Class with the highest score in A and in B for the same inputs; p: exact two-sided test of the inputs that are wrong in A only against "
        "those that are wrong in B only.",
        "Q. McNemar, Psychometrika 12, 1947.",
    ),
)


def versus_parts(versus: Against, subject: Subject, other: Subject) -> list[Part]:
    """The whole section."""
    first, second = versus.first, versus.second
    names = titles(first, second)
    return [
        paragraph(f"A is {first.name}, epoch {first.epoch}; B is {second.name}, epoch {second.epoch}."),
        _sides(subject, other),
        *_layers(versus),
        *_units(versus, names),
        *_similarity(versus, names),
        *_predictions(versus, names),
        *_classes(versus),
    ]


def _sides(subject: Subject, other: Subject) -> str:
    rows = []
    for letter, each in (("A", subject), ("B", other)):
        run, (judged, where) = each.run, each.judged
        right = float((run.logits(each.epoch)[judged].argmax(axis=1) == run.labels[judged]).mean())
        model = run.manifest["model"]
        versions = ", ".join(f"{name} {version}" for name, version in run.manifest.get("versions", {}).items())
        rows.append(
            (
                letter,
                model.get("spec") or model.get("class") or "not named",
                f"{model.get('parameters', 0):,}",
                f"{len(run.layers):,}",
                f"{run.units:,}",
                f"{share(right)} of {where}",
                versions or "not known",
            )
        )
    return table(("", "network", "parameters", "layers", "units", "accuracy", "captured with"), rows, (2, 3, 4))


def _layers(versus: Against) -> list[Part]:
    found = versus.found
    layers = [layer.name for layer in found.shared.layers]
    if not layers:
        # Spoken of where it is: the two can still be compared layer by layer, whatever their units.
        return [paragraph("The two share no layer of the same name, kind and number of units, so that no unit stands beside another one.")]
    pairing = found.pairing
    pairs = f"units are paired by correlation over {pairing.over}" if pairing.how == "correlation" else "units are paired by their number"
    if pairing.agreement is not None:
        pairs += f" (agreement of the order {figures(pairing.agreement, 2)}: 1 for the same units, 0 for networks trained separately)"
    said = f"{len(layers)} layers are compared; {pairs}."
    alone = [
        f"{listed(list(only))} of {side.name}"
        for only, side in ((found.shared.only_first, versus.first), (found.shared.only_second, versus.second))
        if only
    ]
    said += f" Left out: {' and '.join(alone)}." if alone else ""
    beyond = np.zeros(len(layers), dtype=bool) if versus.p is None else versus.p <= CHANCE
    chance = f"Whether they differ by more than chance is not known: {versus.tested[:1].lower()}{versus.tested[1:]}"
    if versus.p is not None:
        named = [name for name, more in zip(layers, beyond, strict=True) if not more]
        chance = "Every layer differs" if not named else "No layer differs" if len(named) == len(layers) else f"All but {listed(named)} differ"
        chance += f" by more than chance (permutation test over {versus.tested}, p at most {CHANCE:g} for all layers together)."
    parts: list[Part] = ["<h3>Layers</h3>", paragraph(said), paragraph(chance)]
    if np.isfinite(found.distances).any():
        shown = np.sort(np.argsort(-np.nan_to_num(found.distances, nan=-1), kind="stable")[:_BARS])
        title = "Distance of the layers" + (" (red: by more than chance)" if beyond.any() else "")
        marked = frozenset(np.flatnonzero(beyond[shown]).tolist())
        bars = Bars(tuple(layers[i] for i in shown), tuple(found.distances[shown].tolist()), marked, title=title)
        parts.append(Picture("against-layers", "Distance of the layers", (draw(bars, _COLOURS, 560),)))
    alike = _own_similarity(versus)
    head = ["layer", "distance", *(["p"] if versus.p is not None else []), *(["CKA"] if alike is not None else [])]
    rows = []
    for i, name in enumerate(layers):
        tested = [figures(float(versus.p[i]), 3)] if versus.p is not None else []
        rows.append((name, figures(float(found.distances[i]), 3), *tested, *([figures(float(alike[i]), 3)] if alike is not None else [])))
    return [*parts, table(head, rows, range(1, len(head)))]


def _own_similarity(versus: Against) -> np.ndarray | None:
    """float [L]: CKA of each shared layer with itself in the other network."""
    if versus.similarity is None:
        return None
    places = [{layer.name: i for i, layer in enumerate(side.run.layers)} for side in (versus.first, versus.second)]
    return np.array([versus.similarity[0][places[0][layer.name], places[1][layer.name]] for layer in versus.found.shared.layers])


def _units(versus: Against, names: tuple[str, str]) -> list[Part]:
    if not versus.units:
        return ["<h3>Units that differ most</h3>", paragraph("No unit differs.")] if versus.found.shared.layers else []
    by_index = versus.found.pairing.how == "index"
    rows, drawings = [], []
    for unit in versus.units:
        number = f"{unit.number}" if by_index else f"{unit.number} and {unit.partner}"
        difference = ("+" if unit.difference > 0 else "") + figures(unit.difference, 2)
        rows.append((unit.layer.name, number, three(unit.first), three(unit.second), difference))
        groups = []
        for letter, side, of in (("A", versus.first, unit.number), ("B", versus.second, unit.partner)):
            indices, _ = side.run.top_inputs(side.epoch, unit.layer.name, of, _IMAGES)
            labels = side.run.image_labels(indices) if len(indices) else []
            groups.append((letter, list(side.run.images(indices)) if len(indices) else [], [side.run.classes[int(label)] for label in labels]))
        drawings.append(unit_row((f"{unit.layer.name}, unit {number}", f"{difference} standard deviations"), groups, _COLOURS))
    said = f"Difference in standard deviations of the unit, {names[1]} less {names[0]}, largest first."
    said += "" if by_index else " Number in A and of its partner in B."
    below = "The inputs that excite each of them most, in A and in B."
    return [
        "<h3>Units that differ most</h3>",
        paragraph(said),
        table(("layer", "unit", "mean in A", "mean in B", "difference"), rows, (2, 3, 4)),
        paragraph(below),
        Picture("against-units", "Units that differ most, and what excites them in A and in B", tuple(drawings)),
    ]


def _similarity(versus: Against, names: tuple[str, str]) -> list[Part]:
    head = "<h3>Layers by layers</h3>"
    if versus.similarity is None:
        return [
            head,
            paragraph("The two share neither inputs nor four classes, over which their layers could be compared; capture both on the same data."),
        ]
    values, over = versus.similarity
    rows, columns = ([layer.name for layer in side.run.layers] for side in (versus.first, versus.second))
    i, j = np.unravel_index(int(values.argmax()), values.shape)
    nearest = [columns[k] for k in values.argmax(axis=1)]
    said = f"Linear CKA over {over}: how alike every layer of A (row) arranges them to every layer of B (column), 0 not at all, 1 alike; it needs no "
    said += f"common units. Most alike are {rows[i]} of A and {columns[j]} of B ({values[i, j]:.2f}); "
    said += f"the last layer of A is nearest to {nearest[-1]} of B ({values[-1].max():.2f})."
    label = f"Similarity of every layer of {names[0]} (rows) with every layer of {names[1]} (columns)"
    return [head, paragraph(said), Picture("against-similarity", label, (similarities(values, rows, columns, label, _COLOURS),))]


def _predictions(versus: Against, names: tuple[str, str]) -> list[Part]:
    head = "<h3>Predictions</h3>"
    if isinstance(versus.moved, str):
        return [head, paragraph(versus.moved)]
    found: Moves = versus.moved
    mended, broken, p = int(found.mended.sum()), int(found.broken.sum()), found.p_value()
    right = [float((side == found.truth).mean()) for side in (found.first, found.second)]
    said = f"{int(found.moved.sum()):,} of {versus.judged} are predicted as another class in B than in A. Right are {share(right[0])} in A and "
    said += f"{share(right[1])} in B: {mended:,} mended, {broken:,} broken"
    if mended + broken:
        said += f", {'more' if p <= CHANCE else 'no more'} than chance explains (exact McNemar test, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})"
    parts: list[Part] = [head, paragraph(said + ".")]
    moved = [(a, b, rows) for a, b, rows in found.flows() if a != b]
    if not moved:
        return parts
    classes = versus.first.run.classes
    if len(classes) <= MOST_CLASSES:
        flows = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(flows, (found.first, found.second), 1)
        label = f"Inputs by the class that {names[0]} predicts (rows) and that {names[1]} predicts (columns)"
        return [
            *parts,
            paragraph(f"{label}; red: moved."),
            Picture("against-predictions", label, (counts(flows, classes, classes, label, _COLOURS),)),
        ]
    rows = [(classes[a], classes[b], len(m), int(found.mended[m].sum()), int(found.broken[m].sum())) for a, b, m in moved[:_PAIRS]]
    more = f"<p>{len(moved) - _PAIRS} more moves are not listed.</p>" if len(moved) > _PAIRS else ""
    return [*parts, table(("predicted by A", "by B", "inputs", "mended", "broken"), rows, (2, 3, 4)), more]


def _classes(versus: Against) -> list[Part]:
    if not versus.classes:
        return []
    known = any(d is not None for *_, d in versus.classes)
    rows = [(name, share(a), share(b), *([figures(np.nan if d is None else d, 3)] if known else [])) for name, a, b, d in versus.classes]
    said = f"The {len(rows)} classes whose accuracy differs most. " if len(rows) == CLASSES_COMPARED else ""
    said += "Distance: root mean square of the differences of all units, between the means of the class." if known else ""
    head = ("class", "accuracy A", "accuracy B", *(["distance"] if known else []))
    return ["<h3>Classes</h3>", paragraph(said), table(head, rows, (1, 2, 3))]
