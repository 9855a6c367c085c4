"""Check of confidence against accuracy: expected calibration error, with what chance alone would give, and the temperature that mends it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dnnviz.analysis.diagnosis.finding import ATTENTION, FINE, LOOK, UNSURE, Finding, Reliability, Subject, check, percent
from dnnviz.errors import RunError

BINS = 15
LEAST = 40  # inputs
SLIGHT, STRONG = 0.04, 0.12  # error beyond that of chance that is worth a look, and that needs attention
MENDS = 0.7  # share of the error that a temperature must bring it below to be worth naming
_DRAWS = 500
_TEMPERATURES = (0.05, 50.0)


@dataclass(frozen=True)
class Calibration:
    """How far a network's confidence is from its accuracy on n inputs.

    error: expected calibration error over BINS bins of equal width; adaptive: over bins of equal numbers; chance, limit: mean
    and 99th percentile of `error` for a perfectly calibrated network with these confidences. confidence, accuracy: means.
    temperature: divide the logits by it for the smallest loss; mended: `error` with it. bins: mean confidence, accuracy, count.
    """

    inputs: int
    error: float
    adaptive: float
    chance: float
    limit: float
    confidence: float
    accuracy: float
    temperature: float
    mended: float
    bins: Reliability


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """float64 [n, K]: log softmax of logits."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 [n]: cross entropy of each input, in nats."""
    return -log_probabilities(logits)[np.arange(len(labels)), labels]


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS, adaptive: bool = False) -> float:
    """Expected calibration error: mean of |accuracy − confidence| over bins, weighted by their inputs.

    confidence: float [n], probability of the predicted class; correct: bool or float [n]. Bins (0, 1/bins], … of equal width
    (C. Guo et al., On calibration of modern neural networks, ICML 2017, equation 3), or of equal numbers of inputs
    (adaptive: J. Nixon et al., Measuring calibration in deep learning, CVPR workshops 2019).
    """
    gaps = np.bincount(_bin(confidence, bins, adaptive), correct.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _bin(confidence: np.ndarray, bins: int, adaptive: bool) -> np.ndarray:
    """int64 [n]: number of the bin of each input."""
    if adaptive:
        ranks = np.empty(len(confidence), dtype=np.int64)
        ranks[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
        return ranks * bins // len(confidence)
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that gives the smallest cross entropy, within 0.05 to 50 (C. Guo et al., section 4.2), by golden section.

    The loss is convex in 1 / temperature, so that the section finds the only minimum.
    """
    ratio = (np.sqrt(5) - 1) / 2
    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]

    def loss(inverse: float) -> float:
        return float(losses(logits * inverse, labels).mean())

    a, b = high - ratio * (high - low), low + ratio * (high - low)
    first, second = loss(a), loss(b)
    for _ in range(60):
        if first <= second:
            high, b, second = b, a, first
            a = high - ratio * (high - low)
            first = loss(a)
        else:
            low, a, first = a, b, second
            b = low + ratio * (high - low)
            second = loss(b)
    return float(2 / (low + high))


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """The calibration of logits [n, K] for labels [n].

    What chance alone gives is drawn: labels from the predicted probabilities themselves, 500 times with a fixed seed (consistency
    resampling, J. Bröcker and L. Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting 22, 2007).
    """
    probabilities = np.exp(log_probabilities(logits))
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    draws = np.random.default_rng(0).random((_DRAWS, len(labels))) < confidence
    by_chance = np.array([calibration_error(confidence, draw) for draw in draws])
    temperature = best_temperature(logits, labels)
    cooled = np.exp(log_probabilities(logits / temperature)).max(axis=1)
    number = _bin(confidence, BINS, False)
    filled = [np.flatnonzero(number == b) for b in range(BINS) if (number == b).any()]
    picture = Reliability(
        tuple(float(confidence[rows].mean()) for rows in filled),
        tuple(float(correct[rows].mean()) for rows in filled),
        tuple(len(rows) for rows in filled),
        "Accuracy by confidence",
    )
    return Calibration(
        len(labels),
        calibration_error(confidence, correct),
        calibration_error(confidence, correct, adaptive=True),
        float(by_chance.mean()),
        float(np.quantile(by_chance, 0.99)),
        float(confidence.mean()),
        float(correct.mean()),
        temperature,
        calibration_error(cooled, correct),
        picture,
    )


@check(
    "calibration",
    "Calibration",
    f"Expected calibration error over {BINS} bins of the probability of the predicted class, on the held-out inputs that are kept (on all kept ones "
    "where nothing is held out). Named when it exceeds what 99 of 100 perfectly calibrated networks with the same confidences would show, and their "
    f"mean by more than {SLIGHT:g}. The temperature divides the logits.",
    "C. Guo et al., On calibration of modern neural networks, ICML 2017; adaptive bins: J. Nixon et al., CVPR workshops 2019; "
    "chance: J. Bröcker and L. Smith, 2007.",
)
def calibration(subject: Subject) -> Finding:
    """Whether the network is as sure as it is right."""
    rows, where = subject.judged
    logits = subject.run.logits(subject.epoch)[rows]
    if len(rows) < LEAST:
        raise RunError(f"{len(rows)} inputs are too few to compare confidence and accuracy (at least {LEAST} are needed).")
    if not np.isfinite(logits).all():
        raise RunError("The network's output is not finite.")
    found = calibrate(logits, subject.run.labels[rows])
    values = {name: getattr(found, name) for name in ("error", "adaptive", "chance", "limit", "confidence", "accuracy", "temperature", "mended")}
    beyond = found.error - found.chance
    level = f"on {where} it is {percent(found.confidence)} sure on average and {percent(found.accuracy)} right"
    measured = f"calibration error {found.error:.3f}, adaptive {found.adaptive:.3f}, by chance {found.chance:.3f}"
    if found.error <= found.limit or beyond <= SLIGHT:
        return Finding(FINE, f"Confidence and accuracy agree: {level} ({measured}).", values, UNSURE, found.bins)
    what = "overconfident" if found.confidence > found.accuracy else "underconfident"
    mended = f"a temperature of {found.temperature:.2f} brings the error to {found.mended:.3f}"
    said = f"The network is {what}: {level} ({measured}); {mended if found.mended < MENDS * found.error else 'no temperature mends that'}."
    return Finding(ATTENTION if beyond > STRONG else LOOK, said, values, UNSURE, found.bins, weight=beyond)
