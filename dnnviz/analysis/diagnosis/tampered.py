"""Check of classes that were tampered with: what `dnnviz.analysis.tampering` says, in a sentence."""

from __future__ import annotations

import numpy as np

from dnnviz.analysis.diagnosis.finding import ATTENTION, FINE, Bars, Finding, Link, Subject, check, listed
from dnnviz.analysis.tampering import FEW, TESTS, tampering
from dnnviz.errors import RunError

_ROWS = 8


@check(
    "tampering",
    "Tampering",
    "Several tests a class, each as z (against median and median absolute deviation over the classes, or against chance), "
    "and the largest share of its test's threshold: "
    + "; ".join(f"{test.title.lower()}: {test.what} (threshold {test.threshold:g})" for name, test in TESTS.items() if name != "second")
    + ". Above 1 a class stands out.",
    "Attack: M. Alberti et al., Are you tampering with my data?, ECCV workshops 2018; one direction: B. Tran et al., Spectral signatures in backdoor "
    "attacks, NeurIPS 2018.",
)
def tampered(subject: Subject) -> Finding:
    """Whether the training images of a class carry something that others lack."""
    run = subject.run
    found = tampering(run, subject.epoch)
    if not found.measured:
        reason = next(iter(found.missing.values()), f"it takes at least {FEW} classes.")
        raise RunError(reason[:1].upper() + reason[1:])
    scores = dict(zip(run.classes, np.where(np.isfinite(found.score), found.score, np.nan).tolist(), strict=True))
    z = {name: dict(zip(run.classes, measured.z.tolist(), strict=True)) for name, measured in found.measured.items()}
    values = {"scores": scores, "z": z, "suspects": [run.classes[label] for label in found.suspects]}
    first = int(found.order[0])
    test = found.strongest(first)
    link = Link("See the evidence", "/diagnosis", {"view": "tampering", "suspect": str(first)})
    if not found.suspects or test is None:
        said = f"No class stands out among {len(run.classes)}; the nearest, “{run.classes[first]}”, is at {max(float(found.score[first]), 0):.2f} of "
        return Finding(FINE, said + "the threshold of a test.", values, link)
    measured = found.measured[test]
    names = listed([f"“{run.classes[label]}”" for label in found.suspects])
    said = f"{names} {'looks' if len(found.suspects) == 1 else 'look'} tampered with: z {measured.z[first]:,.0f} where {TESTS[test].threshold:g} "
    said += f"stands out ({TESTS[test].title.lower()}: {TESTS[test].what})."
    rows = sorted(int(label) for label in found.order[:_ROWS])
    marked = frozenset(r for r, label in enumerate(rows) if label in found.suspects)
    shown = tuple(max(0.0, float(measured.z[label])) for label in rows)
    picture = Bars(tuple(run.classes[label] for label in rows), shown, marked, title=f"{TESTS[test].title}: z of the class")
    return Finding(ATTENTION, said, values, link, picture, weight=float(found.score[first]))
