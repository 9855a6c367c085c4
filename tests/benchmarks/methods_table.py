"""The README's table of attribution methods: what each costs and where it points, measured.

    python -m tests.benchmarks.methods_table [--scenes 60] [--rounds 5] [--write]

Costs are those of `attribution.py` (ResNet-18 with random weights, 224 × 224), places those of `attribution_masks.py` (the demo
run `shapes`). --write puts the table between the two marks in README.md; otherwise it is printed.
"""

from __future__ import annotations

import argparse

from dnnviz.explain import METHODS
from dnnviz.settings import ROOT
from tests.benchmarks import attribution, attribution_masks
from tests.benchmarks.readme import put


def table(scenes: int, rounds: int) -> str:
    """Markdown, a row a method."""
    costs = dict(attribution.ratios(rounds=rounds))
    places = attribution_masks.measure(ROOT / "data" / "shapes", scenes, list(METHODS))
    lines = [
        "| method | family | × floor | × Captum | points at the object | mass inside |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, method in METHODS.items():
        cost, place = costs[name], places[name]
        floor = "–" if isinstance(cost, str) else f"{cost.floor:.2f}"
        captum = "–" if isinstance(cost, str) or cost.library is None else f"{cost.library:.2f}"
        where = "– | –" if isinstance(place, str) else f"{place.pointing:.2f} | {place.inside:.2f}"
        lines.append(f"| {method.title} | {method.family} | {floor} | {captum} | {where} |")
    chance = places["chance"]
    assert isinstance(chance, attribution_masks.Score)
    lines.append(f"| *a map of noise* | | | | {chance.pointing:.2f} | {chance.inside:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    made = table(given.scenes, given.rounds)
    if not given.write:
        print(made)
        return
    put("methods", made)


if __name__ == "__main__":
    main()
