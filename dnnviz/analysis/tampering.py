"""Whether the training images of a class were tampered with: several tests a class, each against what the other classes give.

A mark hidden in all training images of a class, a patch with a new label, labels that are wrong: each leaves a trace
between the training inputs of the class and its held-out ones, which are taken to be clean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dnnviz.analysis import sides
from dnnviz.analysis.distance import LEAST
from dnnviz.analysis.labels import Strays, stray_labels
from dnnviz.store import EarlyMap, Run

FEW = 4  # classes below which none can stand out
LEAST_KEPT = 8  # inputs of a class, of either split, below which their directions and their largest difference mean nothing
# Inputs of a class, of either split, from which its deviations are known well enough: the largest of thousands of differences
# in standard errors grows where they are not. Fewer will do where all classes have few.
ENOUGH = 30
RIDGE = 0.1  # share of the mean variance that is added to every direction of an estimated covariance


@dataclass(frozen=True)
class Test:
    """A test: how it is called, what it measures, from which robust z on a class stands out, and the least spread of its null.

    least: no clean run's classes are taken to lie closer together than this, in the unit of the statistic; None where the
    statistic is a deviate of the normal distribution already, since chance alone says what to expect. The thresholds lie
    above what clean runs gave in tests/benchmarks/tampering.py.
    """

    title: str
    what: str
    threshold: float
    least: float | None


TESTS = {
    "place": Test("At one place", "largest difference of a unit at a place between training and held-out inputs, in standard errors", 4.5, 0.35),
    "gap": Test("Over all units", "mean difference of the units between training and held-out inputs, in what sampling alone gives", 6.0, 0.15),
    "spectral": Test("Some of its inputs", "largest spread of the training inputs along one direction, relative to the held-out ones", 7.0, 0.25),
    # By chance in one run of 44.
    "labels": Test("Among another class", "training inputs that lie among held-out inputs of one other class, against chance", 2.0, None),
    "others": Test("Against other classes", "largest difference of a unit at a place from the other classes, in standard deviations", 15.0, 0.1),
    "second": Test("Against the other run", "difference over all units, relative to that in the other run", 6.0, 0.1),
}


@dataclass(frozen=True)
class Measured:
    """One test on all classes: float64 [K] each; NaN where a class could not be measured.

    values: the statistic; z: robust z of each class among all; median, spread: the null that z refers to.
    """

    test: str
    values: np.ndarray
    z: np.ndarray
    median: float
    spread: float

    @property
    def share(self) -> np.ndarray:
        """float64 [K]: z in units of the threshold; above 1 a class stands out."""
        return self.z / TESTS[self.test].threshold


@dataclass(frozen=True)
class Findings:
    """What all tests say of a run at an epoch.

    measured: by test, those that could be made; missing: a sentence for each of those that could not.
    score: float64 [K], the largest share of a threshold that a class reaches; order: classes, the most suspicious first.
    """

    splits: tuple[str, str] | None
    measured: dict[str, Measured]
    missing: dict[str, str]
    score: np.ndarray
    order: np.ndarray

    @property
    def suspects(self) -> list[int]:
        """Classes that stand out in some test, the most suspicious first."""
        return [int(label) for label in self.order if self.score[label] > 1]

    def strongest(self, label: int) -> str | None:
        """The test in which a class stands out most; None where none could be made."""
        shares = {name: float(found.share[label]) for name, found in self.measured.items() if np.isfinite(found.share[label])}
        return max(shares, key=shares.__getitem__) if shares else None


@dataclass(frozen=True)
class Place:
    """Where in the early feature maps a class differs most.

    item: the layer; unit, row, column: where; map: float32 [height, width], the largest difference over units, with its sign
    and in the unit of the test; own, other: mean value there of the class's training inputs, and of what they are compared with.
    """

    item: EarlyMap
    unit: int
    row: int
    column: int
    map: np.ndarray
    own: float
    other: float


@lru_cache(maxsize=32)
def tampering(run: Run, epoch: int, second: Run | None = None, second_epoch: int = 0) -> Findings:
    """All tests on all classes of a run; second, second_epoch: another run to set it against."""
    splits = sides.two_splits(run)
    measured: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    no_maps = _no_maps(run, epoch)
    one_split = "" if splits else "the run has one split only: capture it with held-out inputs beside the training ones."
    values: dict[str, np.ndarray | None] = {
        "place": None if no_maps or splits is None else _largest(run, epoch, held_out=True),
        "gap": None if splits is None else relative_gap(run, epoch),
        "spectral": None if splits is None else spectral(run, epoch),
        "labels": None if splits is None else _deviations(run, epoch),
        "others": None if no_maps else _largest(run, epoch, held_out=False),
    }
    if second is not None:
        values["second"] = _against(run, epoch, second, second_epoch)
    few_kept = f"fewer than {LEAST_KEPT} training and held-out inputs of the classes are kept one by one."
    reasons = {
        "place": one_split or no_maps,
        "gap": one_split,
        "spectral": one_split or few_kept,
        "labels": one_split or few_kept,
        "others": no_maps,
        "second": "the two runs must share at least four classes, and both need held-out inputs.",
    }
    for name, found in values.items():
        if found is None or np.isfinite(found).sum() < FEW:
            kinds = "" if name == "others" else " of both kinds"
            missing[name] = reasons[name] if found is None and reasons[name] else f"it takes at least {FEW} classes with enough inputs{kinds}."
        else:
            measured[name] = judged(name, found)
    shares = np.stack([found.share for found in measured.values()]) if measured else np.full((1, len(run.classes)), np.nan)
    score = np.nan_to_num(shares, nan=-np.inf).max(axis=0)
    return Findings(splits, measured, missing, score, np.argsort(-score, kind="stable"))


def _no_maps(run: Run, epoch: int) -> str:
    """Why there are no early maps, and what to do; empty where there are."""
    there = [e for e in run.epochs if run.maps and run.class_maps(e, run.maps[0]) is not None]
    if epoch in there:
        return ""
    if there:
        return f"this snapshot holds no early feature maps; look at epoch {there[-1]}, which does."
    return "the run holds no early feature maps: capture it again with this version, and with a convolution among its layers."


def judged(name: str, values: np.ndarray) -> Measured:
    """A statistic of all classes (float64 [K]) of the test `name`, against what the classes themselves give."""
    least = TESTS[name].least
    if least is None:
        return Measured(name, values, values, 0.0, 1.0)
    middle = float(np.nanmedian(values))
    spread = max(1.4826 * float(np.nanmedian(np.abs(values - middle))), least)
    return Measured(name, values, (values - middle) / spread, middle, spread)


# -- over all units ----------------------------------------------------------------------------------------------------


def relative_gap(run: Run, epoch: int) -> np.ndarray:
    """float64 [K]: mean difference of all units between training and held-out inputs, relative to what sampling alone gives.

    1 where the two kinds of inputs come from one distribution, whatever the number of inputs; NaN for a class with less than two of either.
    """
    splits = sides.two_splits(run)
    assert splits is not None
    counts = [run.class_counts[run.splits.index(name)].astype(np.float64)[:, None] for name in splits]
    seen, expected = np.zeros(len(run.classes)), np.zeros(len(run.classes))
    for layer in run.layers:
        std = run.data_std(epoch, layer).astype(np.float64)
        scale = np.maximum(std, LEAST * np.sqrt(np.mean(np.square(std))))
        if not scale.all():
            continue  # nothing varies in this layer
        first, second = (run.class_mean(epoch, layer, name).astype(np.float64) for name in splits)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Over n − 1: the variance of a few inputs about their own mean is too small, and that of one input is 0.
            error = sum(run.class_std(epoch, layer, name).astype(np.float64) ** 2 / (n - 1) for name, n in zip(splits, counts, strict=True))
        seen += (np.abs(first - second) / scale).sum(axis=1)
        expected += (np.sqrt(2 / np.pi * error) / scale).sum(axis=1)  # mean of |x| where x is normal
    known = (np.minimum(*counts)[:, 0] > 1) & (expected > 0)
    return np.divide(seen, expected, out=np.full(len(seen), np.nan), where=known)


def permuted_gap(run: Run, epoch: int, label: int, rounds: int = 999, seed: int = 0) -> tuple[float, np.ndarray] | None:
    """Gap of a class over its inputs kept one by one, and the same with the splits shuffled within the class.

    Returns (gap, float64 [rounds]): mean over units of |difference of means| in standard deviations of the class; None
    where fewer than LEAST_KEPT inputs of either split are kept. A share of (1 + gaps at least as large) / (1 + rounds)
    is the p value of "training and held-out inputs of this class are alike to the network".
    """
    own, held = _kept(run, label)
    if min(len(own), len(held)) < LEAST_KEPT:
        return None
    rows = np.stack([run.input_activations(epoch, int(i)) for i in np.concatenate([own, held])]).astype(np.float64)
    std = rows.std(axis=0)
    rows = (rows[:, std > 0] - rows[:, std > 0].mean(axis=0)) / std[std > 0]
    signs = np.where(np.arange(len(rows)) < len(own), 1 / len(own), -1 / len(held))
    random = np.random.default_rng(seed)
    orders = np.stack([signs, *(random.permutation(signs) for _ in range(rounds))])
    gaps = np.concatenate([np.abs(part @ rows).mean(axis=1) for part in np.array_split(orders, 8)]) if rows.size else np.zeros(len(orders))
    return float(gaps[0]), gaps[1:]


def _against(run: Run, epoch: int, second: Run, second_epoch: int) -> np.ndarray | None:
    """float64 [K]: logarithm of the gap of each class relative to that in the second run; NaN for classes that it lacks."""
    pairs = sides.shared_classes(run, second)
    if sides.two_splits(run) is None or sides.two_splits(second) is None or len(pairs) < FEW:
        return None
    own, other = relative_gap(run, epoch), relative_gap(second, second_epoch)
    result = np.full(len(run.classes), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        for first, there in pairs:
            result[first] = np.log(own[first] / other[there])
    return np.where(np.isfinite(result), result, np.nan)


# -- at one place ------------------------------------------------------------------------------------------------------


def _differences(run: Run, epoch: int, item: EarlyMap, held_out: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(differences, own means, other means) of one layer's maps, float64 [K, units, height, width] each.

    held_out: training against held-out inputs of the same class, in standard errors (Welch's t); else training inputs against
    those of all other classes, in standard deviations (Cohen's d). No deviation counts for less than LEAST of the layer's.
    """
    found = run.class_maps(epoch, item)
    if found is None:
        return None
    mean, std = (part.astype(np.float64) for part in found)
    splits = sides.two_splits(run)
    counts = run.class_counts.astype(np.float64)[:, :, None, None, None]
    mean, std = np.where(counts > 0, mean, 0.0), np.where(counts > 0, std, 0.0)
    within = (np.square(std) * counts).sum(axis=(0, 1)) / max(counts.sum(), 1.0)
    floor = LEAST**2 * within.mean()
    train = run.splits.index(splits[0]) if splits else 0
    own, n = mean[train], counts[train]
    with np.errstate(divide="ignore", invalid="ignore"):
        if held_out:
            assert splits is not None
            held = run.splits.index(splits[1])
            other, m = mean[held], counts[held]
            error = np.maximum(np.square(std[train]), floor) / n + np.maximum(np.square(std[held]), floor) / m
            effect = np.where((n > 0) & (m > 0) & (error > 0), (own - other) / np.sqrt(error), np.nan)
        else:
            # Sums over all classes less the own one: moments of the rest without a loop.
            rest = n.sum() - n
            other = ((own * n).sum(axis=0) - own * n) / rest
            second = np.square(std[train]) + np.square(own)
            spread = ((second * n).sum(axis=0) - second * n) / rest - np.square(other)
            scale = np.maximum((np.square(std[train]) + np.maximum(spread, 0.0)) / 2, floor)
            effect = np.where((n > 0) & (rest > 0) & (scale > 0), (own - other) / np.sqrt(scale), np.nan)
    return effect, own, other


def _largest(run: Run, epoch: int, held_out: bool) -> np.ndarray:
    """float64 [K]: the largest size of a difference over units and places of all early maps.

    NaN for a class of fewer than LEAST_KEPT inputs of either kind, or of fewer than ENOUGH and half as many as the typical class.
    """
    result = np.full(len(run.classes), np.nan)
    splits = sides.two_splits(run) or run.splits
    few = run.class_counts[[run.splits.index(name) for name in splits[: 1 + held_out]]].min(axis=0)
    judged = few >= max(LEAST_KEPT, min(ENOUGH, np.median(few[few > 0]) / 2 if few.any() else 0))
    for item in run.maps:
        found = _differences(run, epoch, item, held_out)
        if found is not None:
            size = np.abs(found[0]).reshape(len(result), -1)
            result = np.fmax(result, np.where(judged & np.isfinite(size).any(axis=1), np.nan_to_num(size, nan=0.0).max(axis=1), np.nan))
    return result


def place(run: Run, epoch: int, label: int, held_out: bool = True) -> Place | None:
    """Where in the early maps the training inputs of a class differ most from its held-out inputs (or from other classes).

    None where the snapshot holds no maps, or the class has no inputs of one kind.
    """
    best: Place | None = None
    for item in run.maps:
        found = _differences(run, epoch, item, held_out) if not held_out or sides.two_splits(run) else None
        if found is None or not np.isfinite(found[0][label]).any():
            continue
        effect, own, other = (part[label] for part in found)
        size = np.nan_to_num(np.abs(effect))
        unit, row, column = (int(v) for v in np.unravel_index(size.argmax(), size.shape))
        if best is None or size[unit, row, column] > abs(best.map).max():
            chosen = size.argmax(axis=0)[None]
            largest = np.take_along_axis(np.nan_to_num(effect), chosen, axis=0)[0].astype(np.float32)
            best = Place(item, unit, row, column, largest, float(own[unit, row, column]), float(other[unit, row, column]))
    return best


# -- some of its inputs ------------------------------------------------------------------------------------------------


def hidden_layer(run: Run) -> str:
    """Name of the last layer before the output, whose values spectral signatures are looked for in."""
    return run.layers[-2 if len(run.layers) > 1 else -1].name


def spectral(run: Run, epoch: int) -> np.ndarray | None:
    """float64 [K]: logarithm of the largest variance of the training inputs along any direction, held-out inputs having 1 along all.

    Inputs that were moved into a class by a patch or a wrong label lie apart from the others along one direction. Only
    inputs kept one by one are seen; None where too few are.
    Source: B. Tran, J. Li, A. Madry, Spectral Signatures in Backdoor Attacks, NeurIPS 2018; whitening as in J. Hayase et al.,
    SPECTRE, ICML 2021, with the covariance of the held-out inputs.
    """
    result = np.full(len(run.classes), np.nan)
    for label in range(len(run.classes)):
        found = _signature(run, epoch, label)
        if found is not None:
            result[label] = np.log(max(found[2], 1e-12))
    return result if np.isfinite(result).any() else None


def signature_scores(run: Run, epoch: int, label: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(training inputs int64 [m] of a class, score float64 [m] of each), the highest first: its squared place along the direction of `spectral`."""
    found = _signature(run, epoch, label)
    if found is None:
        return None
    inputs, scores, _ = found
    order = np.argsort(-scores, kind="stable")
    return inputs[order], scores[order]


@lru_cache(maxsize=4096)
def _signature(run: Run, epoch: int, label: int) -> tuple[np.ndarray, np.ndarray, float] | None:
    own, held = _kept(run, label)
    if min(len(own), len(held)) < LEAST_KEPT:
        return None
    values = _hidden(run, epoch)
    first, second = values[own], values[held]
    covariance = np.cov(second.T, bias=True)
    covariance[np.diag_indices_from(covariance)] += max(RIDGE * np.trace(covariance) / len(covariance), 1e-12)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (first - second.mean(axis=0)).T).T
    white -= white.mean(axis=0)
    _, sizes, directions = np.linalg.svd(white, full_matrices=False)
    return own, np.square(white @ directions[0]), float(sizes[0] ** 2 / len(white))


@lru_cache(maxsize=16)
def strays(run: Run, epoch: int) -> Strays | None:
    """What the held-out inputs around each input kept say in the last hidden layer; None where no class has LEAST_KEPT of both kinds."""
    splits = sides.two_splits(run)
    if splits is None:
        return None
    training, held = (run.input_splits == run.splits.index(name) for name in splits)
    counts = [np.bincount(run.labels[part], minlength=len(run.classes)) for part in (training, held)]
    if np.minimum(*counts).max() < LEAST_KEPT:
        return None
    return stray_labels(_hidden(run, epoch), run.labels, training, held, len(run.classes), LEAST_KEPT)


def stray_inputs(run: Run, epoch: int, label: int) -> np.ndarray:
    """Training inputs of a class, int64, that lie among the held-out inputs of the class that they are most taken for; the clearest first."""
    found, own = strays(run, epoch), _kept(run, label)[0]
    if found is None or found.other[label] < 0:
        return own[:0]
    own = own[found.looks[own] == found.other[label]]
    return own[np.argsort(-found.share[own], kind="stable")]


def _deviations(run: Run, epoch: int) -> np.ndarray | None:
    found = strays(run, epoch)
    return None if found is None else found.deviation


@lru_cache(maxsize=4)
def _hidden(run: Run, epoch: int) -> np.ndarray:
    """float64 [n, units]: values of the last hidden layer, in its typical standard deviation."""
    layer = hidden_layer(run)
    scale = float(np.sqrt(np.mean(np.square(run.data_std(epoch, layer), dtype=np.float64)))) or 1.0
    return run.activations(epoch, layer).astype(np.float64) / scale


def _kept(run: Run, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of a class kept one by one: those for training, and those held out."""
    splits = sides.two_splits(run)
    if splits is None:
        return np.flatnonzero(run.labels == label), np.zeros(0, dtype=np.int64)
    own, held = (np.flatnonzero((run.labels == label) & (run.input_splits == run.splits.index(name))) for name in splits)
    return own, held
