"""Check of the size of activations over depth: exploding, vanishing, not finite."""

from __future__ import annotations

import numpy as np

from dnnviz.analysis.diagnosis.finding import ATTENTION, FINE, LOOK, Bars, Finding, Link, Subject, check, listed

STEP = 30.0  # factor from one layer to the next that is worth a look; trained networks looked at here stay below 12
SPAN = 1e4  # factor between the largest and the smallest layer that needs attention
_ROWS = 16


@check(
    "scale",
    "Size of activations",
    "The size of a layer is the root mean square of its units' activations over all inputs. Named: values that are not finite, a step by a "
    f"factor above {STEP:g} from one layer to the next, a factor above {SPAN:,.0f} over the whole depth.",
    "X. Glorot and Y. Bengio, AISTATS 2010; K. He et al., Delving deep into rectifiers, ICCV 2015.",
)
def scale(subject: Subject) -> Finding:
    """Whether activations explode or vanish on their way through the network."""
    run, epoch = subject.run, subject.epoch
    mean, std = run.data_mean(epoch).astype(np.float64), run.data_std(epoch).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = mean**2 + std**2
        sizes = np.array([np.sqrt(squares[layer.columns].mean()) for layer in run.layers])
    names = [layer.name for layer in run.layers]
    link = Link("See the sizes in the architecture", "/", {"view": "graph", "health": "mean"})
    lost = [name for name, size in zip(names, sizes, strict=True) if not np.isfinite(size)]
    if not lost and not np.isfinite(run.logits(epoch)).all():
        lost = ["the output"]
    values = {"sizes": dict(zip(names, sizes.tolist(), strict=True)), "not_finite": lost}
    if lost:
        link = link if lost == ["the output"] else Link("See the layer", "/", {"layer": lost[0]})
        return Finding(ATTENTION, f"{listed(lost)} {'holds' if len(lost) == 1 else 'hold'} values that are not finite.", values, link, weight=3)
    if not (sizes > 0).all():
        silent = [name for name, size in zip(names, sizes, strict=True) if size == 0]
        said = f"{listed(silent)} {'is' if len(silent) == 1 else 'are'} zero on every input: nothing gets through."
        return Finding(ATTENTION, said, values, Link("See the layer", "/", {"layer": silent[0]}), weight=2)
    steps = np.log10(sizes[1:] / sizes[:-1]) if len(sizes) > 1 else np.zeros(1)
    at = int(np.abs(steps).argmax())
    smallest, largest = int(sizes.argmin()), int(sizes.argmax())
    span = sizes[largest] / sizes[smallest]
    values |= {"span": float(span), "step": float(10 ** steps[at])}
    between = f"between {sizes[smallest]:.3g} ({names[smallest]}) and {sizes[largest]:.3g} ({names[largest]})"
    fine = span <= SPAN and abs(steps[at]) <= np.log10(STEP)
    told = () if fine else (smallest, largest) if span > SPAN else (at, at + 1)
    rows = _shown(sizes, told)
    marked = frozenset(r for r, i in enumerate(rows) if i in told)
    picture = Bars(tuple(names[i] for i in rows), tuple(float(sizes[i]) for i in rows), marked, log=True, title="Size of the activations")
    if fine:
        return Finding(FINE, f"Activations keep their size over the depth, {between}.", values, link, picture)
    if span > SPAN:
        what = "explode" if largest > smallest else "vanish"
        said = f"Activations {what} over the depth: their size goes by a factor of {span:,.0f}, {between}."
        return Finding(ATTENTION, said, values, link, picture, weight=1)
    what = "grow" if steps[at] > 0 else "shrink"
    factor = 10 ** abs(steps[at])
    said = f"Activations {what} by a factor of {factor:,.0f} from {names[at]} to {names[at + 1]}."
    return Finding(ATTENTION if factor > STEP**2 else LOOK, said, values, link, picture, weight=1 + float(abs(steps[at])))


def _shown(sizes: np.ndarray, told: tuple[int, ...]) -> list[int]:
    """At most _ROWS layers evenly over the depth, those that are told of among them."""
    if len(sizes) <= _ROWS:
        return list(range(len(sizes)))
    return sorted({*np.linspace(0, len(sizes) - 1, _ROWS - len(told)).round().astype(int).tolist(), *told})
