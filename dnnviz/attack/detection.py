"""Tell attacked inputs from clean ones by how far their activations are from those of the class that is predicted. No torch.

Per layer a distance, then one score over all layers: fitted on one half of the inputs and measured on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dnnviz.attack.rates import area, area_interval, curve
from dnnviz.errors import DNNVizError

NEIGHBOURS = 20  # of the local dimension, as in the paper's experiments
LEAST = 5  # fooled inputs in each half below which nothing is measured
_GRID = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Seen:
    """What a network makes of inputs: activations float64 [n, U], the class predicted int64 [n], its probability float32 [n]."""

    activations: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Seen:
        return Seen(self.activations[rows], self.predicted[rows], self.confidence[rows])


class Mahalanobis:
    """Distance of a layer's activations from the mean of the class predicted, with one covariance for all classes.

    After Lee et al. 2018 (equation 2), who take the class that is nearest; here it is the one predicted: what is asked is whether an
    input looks, inside, like what the network says that it is. They change the input a little first; that is left out.

    activations [n, D] and labels [n] of clean inputs. The covariance of few inputs in many dimensions is drawn towards a multiple
    of the identity (Ledoit and Wolf 2004), after every unit was scaled to its deviation within classes.
    """

    def __init__(self, activations: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.covariance import ledoit_wolf

        self.classes = np.unique(labels)
        self.means = np.stack([activations[labels == label].mean(axis=0) for label in self.classes])
        within = activations - self.means[np.searchsorted(self.classes, labels)]
        deviation = within.std(axis=0)
        self.scale = np.maximum(deviation, max(0.05 * float(deviation.mean()), 1e-12))
        covariance, _ = ledoit_wolf(within / self.scale, assume_centered=True)
        values, vectors = np.linalg.eigh(covariance)
        self.whiten = vectors / np.sqrt(np.maximum(values, 1e-9 * max(float(values[-1]), 1e-12)))

    def __call__(self, activations: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """float64 [m]: from the mean of the class predicted; from the nearest where no clean input had that class."""
        every = np.stack([np.linalg.norm((activations - mean) / self.scale @ self.whiten, axis=1) for mean in self.means], axis=1)
        column = np.searchsorted(self.classes, predicted).clip(max=len(self.classes) - 1)
        own = np.take_along_axis(every, column[:, None], axis=1)[:, 0]
        return np.where(self.classes[column] == predicted, own, every.min(axis=1))


class LocalDimension:
    """Local intrinsic dimension of a layer's activations among those of clean inputs (Ma et al. 2018, equation 4)."""

    def __init__(self, activations: np.ndarray, labels: np.ndarray) -> None:
        self.reference = activations

    def __call__(self, activations: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """float64 [m]: −(mean of log(rᵢ / r_k))⁻¹ over the k nearest clean inputs."""
        squares = (activations**2).sum(axis=1)[:, None] + (self.reference**2).sum(axis=1) - 2 * activations @ self.reference.T
        count = min(NEIGHBOURS, len(self.reference) - 1)
        nearest = np.sqrt(np.maximum(np.sort(squares, axis=1)[:, :count], 1e-20))
        return -1 / np.minimum(np.log(nearest / nearest[:, -1:]).mean(axis=1), -1e-6)


def detect(
    clean: Seen, labels: np.ndarray, inputs: np.ndarray, attacked: Seen, originals: np.ndarray, columns: Sequence[slice]
) -> tuple[dict[str, np.ndarray], list[str], list[str], int]:
    """Fit every detector on one half of the inputs and measure it on the other.

    clean: of n inputs with their labels and numbers. attacked: of m inputs that fool the network, made of the inputs with the
    numbers `originals`. columns: of the layers in the activations.
    Returns the arrays of `dnnviz.attack.keys.Detection`, the names of the detectors, their citations, and how many clean inputs
    they were fitted on. Raises DNNVizError where too few inputs were fooled.
    """
    fitted = _half(inputs, labels)
    mine = np.isin(originals, inputs[fitted])
    right = clean.predicted == labels
    if min(mine.sum(), (~mine).sum(), (right & ~fitted).sum()) < LEAST:
        raise DNNVizError(
            f"The attack fooled {len(originals)} of the inputs that are classified correctly; at least {LEAST} in each half are needed to say "
            "how well they are detected. Take more inputs, or a larger size."
        )
    test = clean[right & ~fitted]
    scores: list[tuple[np.ndarray, np.ndarray]] = []
    per_layer = []
    for kind in (Mahalanobis, LocalDimension):
        # Inputs that a detector was fitted on look nearer than they are: each quarter is measured by the other.
        quarters = _half(inputs[fitted], labels[fitted])
        normal, strange = [], []
        for own in (quarters, ~quarters):
            reference, kept = np.flatnonzero(fitted)[~own], np.flatnonzero(fitted)[own]
            layers = _fit(kind, clean[reference], labels[reference], columns)
            normal.append(_measure(layers, clean[kept[right[kept]]], columns))
            strange.append(_measure(layers, attacked[mine & np.isin(originals, inputs[kept])], columns))
        layers = _fit(kind, clean[fitted], labels[fitted], columns)
        measured = _measure(layers, test, columns), _measure(layers, attacked[~mine], columns)
        scores.append(_weighted(np.concatenate(normal), np.concatenate(strange), *measured))
        if kind is Mahalanobis:
            per_layer = [area(a, b) for a, b in zip(*(part.T for part in measured), strict=True)]
            centre, spread = np.concatenate(normal).mean(axis=0), np.concatenate(normal).std(axis=0) + 1e-12
            alike = tuple(((part - centre) / spread).mean(axis=1) for part in measured)
            scores.append(alike)
    scores.append((-test.confidence, -attacked[~mine].confidence))
    areas = np.array([area(*pair) for pair in scores])
    intervals = np.array([area_interval(value, len(test.predicted), int((~mine).sum())) for value in areas])
    arrays = {
        "false_rate": _GRID.astype(np.float32),
        "true_rate": np.stack([curve(*pair, _GRID) for pair in scores]),
        "areas": areas.astype(np.float32),
        "low": intervals[:, 0].astype(np.float32),
        "high": intervals[:, 1].astype(np.float32),
        "layer_areas": np.array(per_layer, dtype=np.float32),
        "clean_inputs": inputs[right & ~fitted],
        "attacked_inputs": originals[~mine],
        "clean_scores": np.stack([pair[0] for pair in scores]).astype(np.float32),
        "attacked_scores": np.stack([pair[1] for pair in scores]).astype(np.float32),
    }
    names = ["Mahalanobis distance, layers weighted", "Mahalanobis distance, layers alike", "Local dimension, layers weighted", "Low probability"]
    papers = ["after Lee et al., NeurIPS 2018", "after Lee et al., NeurIPS 2018", "Ma et al., ICLR 2018", "Hendrycks and Gimpel, ICLR 2017"]
    return arrays, names, papers, int(fitted.sum())


def _half(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool [n]: every other input of each class, by number; classes take turns in who has one more."""
    chosen = np.zeros(len(inputs), dtype=bool)
    for turn, label in enumerate(np.unique(labels)):
        own = np.flatnonzero(labels == label)
        chosen[own[np.argsort(inputs[own], kind="stable")][turn % 2 :: 2]] = True
    return chosen


def _fit(kind: type, clean: Seen, labels: np.ndarray, columns: Sequence[slice]) -> list[Mahalanobis | LocalDimension]:
    return [kind(clean.activations[:, part], labels) for part in columns]


def _measure(layers: Sequence[Mahalanobis | LocalDimension], seen: Seen, columns: Sequence[slice]) -> np.ndarray:
    """float64 [n, L]: the logarithm of every layer's distance."""
    every = [layer(seen.activations[:, part], seen.predicted) for layer, part in zip(layers, columns, strict=True)]
    return np.log(np.maximum(np.stack(every, axis=1), 1e-12))


def _weighted(normal: np.ndarray, strange: np.ndarray, *measured: np.ndarray) -> tuple[np.ndarray, ...]:
    """Scores of what was measured [n, L], by a logistic regression of clean and attacked inputs (Lee et al., section 2.2)."""
    from sklearn.linear_model import LogisticRegression

    features = np.concatenate([normal, strange])
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-12
    answers = np.repeat([0, 1], [len(normal), len(strange)])
    fitted = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000).fit((features - centre) / spread, answers)
    return tuple(fitted.decision_function((part - centre) / spread) for part in measured)
