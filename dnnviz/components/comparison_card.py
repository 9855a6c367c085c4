"""What the compare page says in words and numbers: the units that differ most, a sentence, the table."""

from __future__ import annotations

from typing import Any

import numpy as np
from dash import html

from dnnviz.analysis import class_rows, comparison, matching, sides
from dnnviz.analysis.comparison import Comparison
from dnnviz.analysis.distance import rank_units
from dnnviz.analysis.sides import Side
from dnnviz.components.controls import note, page_link, section
from dnnviz.components.details import number, unit_bars
from dnnviz.components.unit_card import unit_card
from dnnviz.figures.similarity import similarity
from dnnviz.store import Layer
from dnnviz.urlstate import Selection

RANKED = 12


def differences_card(first: Side, second: Side, how: str, chosen: str) -> list[Any]:
    """The units that differ most, each a click from its card, and the comparison in a sentence.

    chosen: the set of layers shown.
    """
    found = comparison.compare(first, second, how)
    layers = comparison.layers_of(found.shared.layers, chosen)
    if not layers:
        return [html.H1("What differs most", className="dv-title"), note("Nothing can be compared unit by unit.")]
    name = sides.titles(first, second)[1]
    rows = [(layer.name, unit, float(value), signed(value)) for layer, unit, value, _ in ranking(found, layers, RANKED)]
    parts: list[Any] = [
        html.H1("What differs most", className="dv-title"),
        note(f"{_what(first, second)}, in standard deviations of the unit over all inputs. Red: stronger in B, {name}."),
    ]
    if rows:
        parts.append(html.Div(unit_bars(rows, signed=True), className="mt-3"))
    else:
        parts.append(note("No unit differs."))
    parts.append(
        html.Div(
            [
                html.Button("Show on the grid", className="dv-btn soft", type="button", **{"data-cmp-action": "mark"}),
                html.Button("As a table", className="dv-btn soft", type="button", **{"data-cmp-action": "table"}),
            ],
            className="dv-actions",
        )
    )
    said = html.P(sentence(first, second, found, layers), className="cmp-sentence")
    parts.append(section("In a sentence", said, note(_chance(first, second, how, found, layers))))
    for side, letter in ((first, "A"), (second, "B"))[: 1 if first.network == second.network else 2]:
        outlier = standing_out(side, f"{letter}, {side.name}", (first.split, second.split))
        if outlier:
            parts.append(section("A class that stands out", *outlier))
    return parts


def unit_difference_card(selection: Selection, first: Side, second: Side, how: str, theme: str) -> list[Any]:
    """The card of the unit that is chosen, with both values above it and the way back."""
    found = comparison.compare(first, second, how)
    layer = next((e for e in found.shared.layers if e.name == selection.layer), None)
    back = html.Button("← What differs most", className="dv-btn small", type="button", **{"data-dv-unit": f"{selection.layer}|"})
    if layer is None or selection.unit is None:
        return [back, note(f"The other run has no layer {selection.layer} of this size."), *unit_card(selection, theme)]
    i = layer.offset + selection.unit
    partner = int(found.partners[i])
    names = sides.titles(first, second)
    values = [
        ("A", names[0], number(float(found.first[i]))),
        ("B", names[1] + (f", unit {partner}" if found.pairing.how == "correlation" else ""), number(float(found.second[i]))),
        ("B − A", "standard deviations", signed(found.difference[i])),
    ]
    table = [html.Tr([html.Td(a, className="fw-semibold pe-2"), html.Td(b), html.Td(c, className="dv-num text-end")]) for a, b, c in values]
    card = unit_card(selection, theme)
    of = html.P(f"The rest is of A, {first.name} at epoch {first.epoch}.", className="dv-small") if first.network != second.network else None
    return [
        back,
        html.Div(card[:2], className="mt-3"),
        html.Table(html.Tbody(table), className="dv-list cmp-values mt-2"),
        *([of] if of else []),
        *card[2:],
    ]


def notice(first: Side, second: Side, how: str) -> list[str]:
    """Sentences that a careful reader must know of this comparison."""
    said = []
    if first.run is second.run:
        return said
    pairing = matching.pair_units(*first.network, *second.network, how)
    if pairing.how == "correlation":
        agreement = "" if pairing.agreement is None else f" (agreement by index {_two(pairing.agreement)}; 1 would be the same units)"
        said.append(
            f"{'Trained separately, the two networks have no common order of units' if _strangers(pairing.agreement) else 'Units'}{agreement}: "
            f"each unit of A stands beside the unit of B that correlates with it best, {pairing.correlation or 0:.2f} on average over {pairing.over}."
        )
    elif pairing.agreement is None:
        said.append("Whether the units of the two networks have a common order cannot be told: the runs share neither inputs nor enough classes.")
    elif _strangers(pairing.agreement):
        said.append(
            f"The units of these two networks have no common order (agreement by index {_two(pairing.agreement)}): "
            "unit by unit this shows noise. Pair them by correlation, or compare layers with layers."
        )
    else:
        said.append(f"The units of both networks have a common order (agreement by index {_two(pairing.agreement)}, over {pairing.over}).")
    if first.run.classes != second.run.classes:
        common = len(sides.shared_classes(first.run, second.run))
        said.append(f"The runs see different data: {common or 'no'} {'class has' if common == 1 else 'classes have'} the same name.")
    return said


def ranking(found: Comparison, layers: list[Layer], count: int) -> list[tuple[Layer, int, float, int]]:
    """(layer, unit, difference, column) of the units of `layers` that differ most, strongest first."""
    columns = np.concatenate([np.arange(e.offset, e.offset + e.units) for e in layers])
    owner = np.repeat(np.arange(len(layers)), [e.units for e in layers])
    order = rank_units(found.difference[columns], count)
    return [(layers[owner[k]], int(columns[k] - layers[owner[k]].offset), float(found.difference[columns[k]]), int(columns[k])) for k in order]


def sentence(first: Side, second: Side, found: Comparison, layers: list[Layer]) -> list[Any]:
    """What the distances of the layers say, in one sentence; a second one where units were paired by correlation."""
    missing = [f"{letter} holds no input of “{side.empty_class}”" for letter, side in (("A", first), ("B", second)) if side.empty_class]
    if missing:
        return [f"Nothing can be compared: {' and '.join(missing)}. Choose another class."]
    index = {layer.name: i for i, layer in enumerate(found.shared.layers)}
    distances = np.array([found.distances[index[layer.name]] for layer in layers])
    if not np.isfinite(distances).any() or np.nanmax(distances) == 0:
        return ["The two are the same: no unit differs."]
    after = ""
    if found.pairing.how == "correlation" and found.pairing.correlation is not None:
        after = f" Paired units correlate {_two(found.pairing.correlation)} on average."
    most = int(np.nanargmax(distances))
    far = [html.B(layers[most].name), f" ({distances[most]:.2f})"]
    who = _subject(first, second)
    apart = comparison.parting(distances)
    if apart is None:
        return [f"{who} stay close throughout: the largest distance of a layer is {distances[most]:.2f}, at ", html.B(layers[most].name), f".{after}"]
    near = comparison.meeting(distances)
    if apart == 0 and near is not None:
        return [
            f"{who} differ in the first layers, most in ",
            *far,
            ", and are close from ",
            html.B(layers[near].name),
            f" on (distance below {comparison.CLOSE}).{after}",
        ]
    if apart == 0:
        only = len(layers) == 1
        return [f"{who} differ ", *(["in "] if only else ["from the first layer on, most in "]), *far, f".{after}"]
    head = [f"{who} share the network up to ", html.B(layers[apart - 1].name), f" (distance below {comparison.CLOSE}) and part "]
    if apart == len(layers) - 1:
        return [*head, "in the last layer, ", *far, f".{after}"]
    if apart == most:
        return [*head, "at ", *far, f", where they are furthest apart.{after}"]
    return [*head, "at ", html.B(layers[apart].name), f" ({distances[apart]:.2f}); they are furthest apart in ", *far, f".{after}"]


def _chance(first: Side, second: Side, how: str, found: Comparison, layers: list[Layer]) -> str:
    """Which layers differ by more than chance, or why that is not known."""
    p, over = comparison.significance(first, second, how)
    if p is None:
        return over
    index = {layer.name: i for i, layer in enumerate(found.shared.layers)}
    same = [layer.name for layer in layers if p[index[layer.name]] > comparison.CHANCE]
    tested = f"(permutation test over {over}, p {comparison.CHANCE} for all layers together)"
    if not same:
        return f"Every layer differs by more than chance {tested}."
    if len(same) == len(layers):
        return f"No layer differs by more than chance {tested}."
    names = ", ".join(same[:3]) + (f" and {len(same) - 3} more" if len(same) > 3 else "")
    return f"{len(same)} of {len(layers)} layers differ by no more than chance: {names} {tested}."


def standing_out(side: Side, name: str, shown: tuple[str | None, str | None]) -> list[Any] | None:
    """About the class of one side that lies far apart between training and held-out inputs, with a link to the two; or None.

    shown: the splits of A and B that the page shows now.
    """
    found = class_rows.gap(*side.network)
    label = found.outlier if found is not None else None
    if found is None or label is None:
        return None
    values = found.measured.values
    times = values[label] / max(float(np.nanmedian(np.delete(values, label))), 1e-9)
    said = [
        f"In {name}, class ",
        html.B(f"“{side.run.classes[label]}”"),
        f" lies {times:.0f} times as far apart between {found.splits[0]} and {found.splits[1]} as the typical class, against what chance "
        f"gives ({found.measured.z[label]:.0f} robust deviations from the median), most of all in ",
        html.B(side.run.layers[int(np.nanargmax(found.distances[label]))].name),
        ". A class whose training images carry a hidden mark looks like this.",
    ]
    both = {"run": side.name, "epoch": side.epoch, "show": f"class:{label}"}
    address = {f"{key}{end}": value for end in ("", "2") for key, value in both.items()}
    if shown == found.splits:
        return [html.P(said, className="cmp-sentence")]
    link = page_link(
        f"Compare its {found.splits[0]} and {found.splits[1]} images", "/compare", **address, split=found.splits[0], split2=found.splits[1]
    )
    return [html.P(said, className="cmp-sentence"), html.Div(link, className="mt-2")]


def signed(value: float) -> str:
    """A difference with its sign."""
    if not np.isfinite(value):
        return "–"
    text = f"{abs(value):.{1 if abs(value) >= 1 else 2}f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _strangers(agreement: float | None) -> bool:
    return agreement is not None and agreement < matching.COMMON_ORDER


def _what(first: Side, second: Side) -> str:
    kinds = {side.show.partition(":")[0] for side in (first, second)}
    if kinds == {"class"}:
        return "Difference of the class means"
    if kinds == {"input"}:
        return "Difference of the activations"
    return "Difference of the means" if kinds == {"data"} else "Difference of the mean activations"


def _subject(first: Side, second: Side) -> str:
    if first.run is not second.run:
        return "On average over all inputs the two networks" if first.show == second.show == "data" else "The two networks"
    if first.epoch != second.epoch:
        return f"Epochs {first.epoch} and {second.epoch}"
    if first.show == second.show and first.split != second.split:
        return f"{(first.split or 'all').capitalize()} and {second.split or 'all'} images"
    kinds = [side.show.partition(":")[0] for side in (first, second)]
    if kinds == ["class", "class"]:
        return "The two classes"
    return "The two inputs" if kinds == ["input", "input"] else "The two"


def similarity_view(first: Side, second: Side, chosen: str, theme: str) -> tuple[Any, dict[str, str], str]:
    """(figure, style, sentence) of every layer of A against every layer of B, whatever their units."""
    found = matching.layer_similarity(*first.network, *second.network)
    if found is None:
        both = f"{first.name} and {second.name}"
        said = f"{both} share neither inputs nor four classes: their layers cannot be compared. Capture both on the same data."
        return {}, {"display": "none"}, said
    values, over = found
    layers = [comparison.layers_of(side.run.layers, chosen) for side in (first, second)]
    rows, columns = ([side.run.layers.index(layer) for layer in kept] for side, kept in zip((first, second), layers, strict=True))
    names = [[layer.name for layer in kept] for kept in layers]
    figure = similarity(
        values[np.ix_(rows, columns)], names[0], names[1], (f"{first.name}, epoch {first.epoch}", f"{second.name}, epoch {second.epoch}"), theme
    )
    said = (
        f"How alike every layer of A arranges the inputs to every layer of B (linear CKA over {over}): 1 the same, 0 nothing in common. "
        "It needs no common order and no equal number of units, and looks at the networks over all inputs, not at what is chosen of A and B."
    )
    cell = min(max(860 / max(len(rows), len(columns)), 6), 62)
    return figure, {"height": f"{cell * len(rows) + 130:.0f}px", "maxWidth": f"{cell * len(columns) * 1.25 + 260:.0f}px"}, said
