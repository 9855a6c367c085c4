"""Checks of units: those that are dead, and those that say the same of every input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dnnviz.analysis.diagnosis.finding import ATTENTION, FINE, LOOK, PERCENT, Bars, Finding, Link, Subject, check, listed, percent
from dnnviz.analysis.health import dead_share
from dnnviz.errors import RunError

ENOUGH = 100  # inputs below which a silent unit may only lack its input
SOME, MOST = 0.2, 0.5  # share of a layer's units from which it is worth a look, and from which it needs attention
LEAST = 2  # units; one of a layer of four says nothing
STILL = 0.01  # standard deviation over inputs as a share of the mean below which a unit tells no inputs apart
_ROWS = 8  # layers in a picture


@check(
    "dead",
    "Dead units",
    f"A unit is dead when it is zero on every input and at every position. A layer is named from {percent(SOME)} dead units on, with attention "
    f"from {percent(MOST)}; the output layer, whose classes may be absent from the data, is left out.",
    "V. Nair and G. Hinton, Rectified linear units improve restricted Boltzmann machines, ICML 2010.",
)
def dead(subject: Subject) -> Finding:
    """Layers many of whose units are zero whatever the input."""
    run = subject.run
    count = int(run.class_counts.sum())
    shares = dead_share(run, subject.epoch)
    if count < ENOUGH and not (shares >= 1).any():
        raise RunError(f"{count} inputs are too few to call a unit dead: it may fire on others (at least {ENOUGH} are needed).")
    link = Link("See them, and what removing them does", "/diagnosis", {"view": "pruning", "prune": "dead"})
    return _layers(subject, shares, "dead", f"zero on all {count:,} inputs", link)


@check(
    "constant",
    "Constant units",
    f"A unit is constant when it fires and its activation varies between inputs by less than {percent(STILL)} of its mean: it says the same of "
    "every input, as a tanh or sigmoid driven to its limit does.",
    "X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010.",
)
def constant(subject: Subject) -> Finding:
    """Layers many of whose units fire alike on every input."""
    run, epoch = subject.run, subject.epoch
    if run.class_counts.sum() < 2:
        raise RunError("One input alone does not say whether a unit varies.")
    mean, std = run.data_mean(epoch), run.data_std(epoch)
    still = (std < STILL * np.abs(mean)) & (run.active(epoch) > 0)
    shares = np.array([float(still[layer.columns].mean()) for layer in run.layers])
    return _layers(subject, shares, "constant", "alike on every input", Link("See the layers", "/", {}))


def _layers(subject: Subject, shares: np.ndarray, kind: str, what: str, link: Link) -> Finding:
    """The finding about a share of units in each layer (float [L]); what: how they are, in words."""
    run = subject.run
    shares = np.where([layer.name == subject.output_layer for layer in run.layers], 0.0, shares)
    counts = np.round(shares * [layer.units for layer in run.layers]).astype(int)
    named = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] >= SOME and counts[i] >= LEAST]
    values = {"layers": [run.layers[i].name for i in named], "shares": {e.name: float(s) for e, s in zip(run.layers, shares, strict=True)}}
    total = int(counts.sum())
    picture = _picture(run.layers, shares, f"Share of {kind} units") if total else None
    if not named:
        if not total:
            return Finding(FINE, f"None of {run.units:,} units is {what}.", values, link)
        worst = int(counts.argmax())
        many = f"{total:,} of {run.units:,} units {'is' if total == 1 else 'are'} {what}"
        among = "all" if counts[worst] == total else f"{counts[worst]:,}"
        where = f", {among} of them in {run.layers[worst].name}, which has {run.layers[worst].units:,}" if total > 1 else ""
        return Finding(FINE, f"{many}{where}.", values, link, picture)
    worst = named[0]
    others = f", and likewise many in {listed([run.layers[i].name for i in named[1:]])}" if len(named) > 1 else ""
    layer = run.layers[worst]
    said = f"{counts[worst]:,} of {layer.units:,} units of {layer.name} are {what}{others}."
    link = replace(link, values={**link.values, "layer": layer.name})
    return Finding(ATTENTION if shares[worst] >= MOST else LOOK, said, values, link, picture, weight=1 + float(shares[worst]))


def _picture(layers: tuple, shares: np.ndarray, title: str) -> Bars:
    """The layers with the largest shares, in the order of the network."""
    rows = sorted(int(i) for i in np.argsort(-shares, kind="stable")[:_ROWS] if shares[i] > 0)
    marked = frozenset(r for r, i in enumerate(rows) if shares[i] >= SOME)
    return Bars(tuple(layers[i].name for i in rows), tuple(float(shares[i]) for i in rows), marked, PERCENT, title=title)
