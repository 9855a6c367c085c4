"""Checks of the course of training: layers that stopped learning, overfitting."""

from __future__ import annotations

import numpy as np

from dnnviz.analysis.diagnosis.calibration import losses
from dnnviz.analysis.diagnosis.finding import ATTENTION, FINE, LOOK, PERCENT, Course, Finding, Link, Subject, check, listed, percent
from dnnviz.analysis.evolution import evolution, metric_courses
from dnnviz.analysis.sides import two_splits
from dnnviz.errors import RunError

STOPPED = 0.02  # change of a layer, as a share of the median change of all, below which it no longer learns
MOVING = 0.005  # median change from which the network as a whole still learns
RISE = 0.1  # rise of the held-out loss over its minimum, as a share, that is worth a look …
STEEP = 0.5  # … and that needs attention
ERRORS = 2.0  # standard errors beyond which a difference of accuracies is no chance
APART = 0.05  # difference of accuracies that is worth a look where there is one snapshot only


@check(
    "stopped",
    "Stopped layers",
    "Change of a layer between two snapshots: 1 − cosine of its class profiles. A layer stopped learning at an epoch when from there on it "
    f"changes by less than {percent(STOPPED)} of the median layer, over at least two snapshots in which that still changes by {MOVING:g} or more.",
    "After M. Raghu et al., SVCCA, NeurIPS 2017 (layers near the input settle first, but never at once).",
)
def stopped(subject: Subject) -> Finding:
    """Layers whose activations no longer change while those of others do."""
    run = subject.run
    if len(run.epochs) < 3:
        raise RunError(f"It takes three snapshots to see a layer stop learning; this run has {len(run.epochs)}.")
    change = evolution(run, subject.results).change[1:]
    if np.nanmedian(change) == 0:
        return Finding(ATTENTION, "No layer changes between any two snapshots: nothing is learned.", {"layers": {}}, weight=2)
    usual = np.nanmedian(change, axis=1)
    moving = usual >= MOVING
    still = change <= STOPPED * usual[:, None]
    found: dict[int, int] = {}  # layer → row of `change` from which on it is still
    for i in range(len(run.layers)):
        away = np.flatnonzero(moving & ~still[:, i])
        start = int(away[-1]) + 1 if len(away) else 0
        if moving[start:].sum() >= 2:
            found[i] = start
    if moving.sum() < 2:
        raise RunError("The snapshots hardly differ: the network as a whole no longer learns, so that no layer can stop before the others.")
    names = [layer.name for layer in run.layers]
    values = {"layers": {names[i]: run.epochs[start] for i, start in found.items()}}
    link = Link("See how layers change", "/evolution", {"figure": "change", "form": "lines"})

    def course(layers: list[int], mark: int | None) -> Course:
        shown = {"median layer": (np.nan, *usual.tolist()), **{names[i]: (np.nan, *change[:, i].tolist()) for i in layers}}
        return Course(tuple(run.epochs), shown, mark, frozenset(names[i] for i in layers), title="Change since the snapshot before")

    if not found:
        slowest = int(np.nanmedian(change[moving] / usual[moving, None], axis=0).argmin())
        share = float(np.nanmedian(change[moving, slowest] / usual[moving]))
        said = f"Every layer goes on changing; {names[slowest]} least, {percent(share)} of the median layer."
        return Finding(FINE, said, values, link, course([slowest], None))
    first = min(found, key=lambda i: (found[i], i))
    epoch = run.epochs[found[first]]
    same = [names[i] for i, start in found.items() if start == found[first]]
    largest = max(float(change[found[i] :, i][moving[found[i] :]].max()) for i in found if found[i] == found[first])
    since = "never learned anything" if found[first] == 0 else f"stopped learning at epoch {epoch}"
    said = f"{listed(same)} {since}: from there on {'it changes' if len(same) == 1 else 'they change'} by at most {largest:.2g}"
    said += f" between snapshots, the median layer by {float(np.median(usual[found[first] :][moving[found[first] :]])):.2g}."
    return Finding(ATTENTION, said, values, link, course(list(found)[:3], epoch), weight=1)


@check(
    "overfitting",
    "Overfitting",
    f"Named when the held-out loss has risen by more than {percent(RISE)} over its smallest value while the training loss went on falling; the "
    f"epoch of that smallest value is where it begins. With one snapshot: a difference of accuracies above {percent(APART)} and {ERRORS:g} standard "
    "errors.",
    "L. Prechelt, Early stopping – but when?, in Neural Networks: Tricks of the Trade, 1998.",
)
def overfitting(subject: Subject) -> Finding:
    """From which epoch on the network learns its training inputs by heart."""
    run = subject.run
    splits = two_splits(run)
    if splits is None:
        raise RunError("The run has one split only: there is nothing held out to see overfitting by.")
    accuracy, loss = metric_courses(run, "accuracy"), metric_courses(run, "loss")
    if not set(splits) <= set(accuracy):
        raise RunError("The accuracy of training and held-out inputs was not recorded.")
    upto = run.epochs.index(subject.epoch) + 1
    train, held = (np.array(accuracy[name][:upto]) for name in splits)
    counts = run.class_counts.sum(axis=1)
    n = [int(counts[run.splits.index(name)]) for name in splits]
    apart = float(train[-1] - held[-1])
    error = float(np.sqrt(sum(p * (1 - p) / max(k, 1) for p, k in zip((train[-1], held[-1]), n, strict=True))))
    said = f"{splits[0]} {percent(float(train[-1]))}, {splits[1]} {percent(float(held[-1]))}"
    values = {"gap": apart, "error": error, "from": None}
    link = (
        Link("See the curves", "/evolution", {"charts": "true"})
        if len(run.epochs) > 1
        else Link("See what it gets wrong", "/attribution", {"by": "wrong"})
    )
    if set(splits) <= set(loss):
        falling, rising = (np.array(loss[name][:upto]) for name in splits)
        lowest = int(np.nanargmin(rising)) if np.isfinite(rising).any() else 0
        rise = float(rising[-1] / rising[lowest] - 1) if rising[lowest] > 0 else 0.0
        values |= {"rise": rise}
        if (
            rise > RISE
            and falling[-1] < falling[lowest]
            and lowest < upto - 1
            and _meant(subject, run.epochs[lowest], float(rising[-1] - rising[lowest]))
        ):
            epoch = run.epochs[lowest]
            values["from"] = epoch
            told = f"Overfits from epoch {epoch}: since then the loss on {splits[1]} rose by {percent(rise)}, to {rising[-1]:.3g}, while that on "
            told += f"{splits[0]} fell to {falling[-1]:.3g} (accuracy {said})."
            picture = Course(
                tuple(run.epochs[:upto]),
                {splits[1]: tuple(rising.tolist()), splits[0]: tuple(falling.tolist())},
                epoch,
                frozenset([splits[1]]),
                title="Loss",
            )
            return Finding(ATTENTION if rise > STEEP else LOOK, told, values, link, picture, weight=rise)
    picture = None
    if upto > 1:
        picture = Course(
            tuple(run.epochs[:upto]),
            {splits[1]: tuple(held.tolist()), splits[0]: tuple(train.tolist())},
            None,
            frozenset([splits[1]]),
            PERCENT,
            "Accuracy",
        )
    if apart > APART and apart > ERRORS * error:
        told = f"The network does better on the inputs it was trained on than on those held out: accuracy {said}, {100 * apart:.0f} ± "
        told += f"{100 * error:.0f} points apart."
        return Finding(ATTENTION if apart > 4 * APART else LOOK, told, values, link, picture, weight=apart)
    return Finding(FINE, f"It does about as well on held-out inputs as on those it was trained on: accuracy {said}.", values, link, picture)


def _meant(subject: Subject, lowest: int, rise: float) -> bool:
    """Whether a rise of the held-out loss since `lowest` lies beyond chance, by the paired losses of the held-out inputs that are kept."""
    run = subject.run
    splits = two_splits(run)
    assert splits is not None
    split = run.splits.index(splits[1])
    rows = np.flatnonzero(run.input_splits == split)
    if len(rows) < 10:
        return True
    before, after = (losses(run.logits(epoch)[rows], run.labels[rows]) for epoch in (lowest, subject.epoch))
    return rise > ERRORS * float(np.std(after - before)) / np.sqrt(max(int(run.class_counts[split].sum()), 1))
