"""Check of the preprocessing: what arrives at the first batch norm against what it was trained on, and which other preprocessing fits better.

The network runs in a background job (`dnnviz.preprocessing`), which leaves a Trial among the results; here it is judged.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from dnnviz import results
from dnnviz.analysis.diagnosis.finding import ATTENTION, FINE, LOOK, Bars, Finding, Link, Subject, check, percent
from dnnviz.errors import RunError
from dnnviz.results import Results
from dnnviz.store import Run

CAPTURED = "as captured"
TRIALS = "trials of other preprocessing"  # what needs the network, where it cannot be had
FAR = 0.2  # distance from which on another preprocessing is looked for; right ones measured 0.01 to 0.11, wrong ones 0.30 to 0.97
STRANGE = 0.35  # distance that is worth a look even where nothing fits better
SIGNS = 4.0  # z of a sign test over the inputs from which on another preprocessing is better; losses themselves have too long a tail to be tested
GAIN = 0.1  # and by which share of the mean loss
ALIKE = 1.1  # times the smallest loss: up to there two kinds of preprocessing do about as well
RISE = 2.0  # standard errors by which the accuracy must rise as well where no batch norm is at hand: a sharper picture alone lowers losses
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CAFFE = tuple(v / 255 for v in (123.68, 116.779, 103.939))


@dataclass(frozen=True)
class Trial:
    """What A kinds of preprocessing do, CAPTURED first.

    names: what they are in words [A]. distances: float64 [A], of what arrives at the first batch norm from what it has seen in
    training (NaN without one): root mean square over channels of the Hellinger distance of two normal distributions, 0 equal, 1 apart.
    losses: float64 [A, n], cross entropy of the n inputs tried, NaN for a preprocessing that was not run to the end; right: the
    same as 1 or 0. inputs: int64 [n]. layer: name of the batch norm, "" for none; reason: why there is none to compare with.
    """

    names: np.ndarray
    distances: np.ndarray
    losses: np.ndarray
    right: np.ndarray
    inputs: np.ndarray
    layer: str
    reason: str


def trial_key(run: Run, epoch: int) -> str:
    """Key of the trial of a snapshot among the results."""
    return results.key("diagnosis", version=3, digest=run.digest(epoch), preprocessing=run.manifest["preprocessing"], kept=run.ids)


def get_trial(cache: Results, run: Run, epoch: int) -> Trial | None:
    held = cache.get(trial_key(run, epoch))
    if held is None:
        return None
    return Trial(**{f.name: str(held[f.name]) if held[f.name].ndim == 0 else held[f.name] for f in fields(Trial)})


def put_trial(cache: Results, run: Run, epoch: int, trial: Trial) -> str:
    return cache.put(trial_key(run, epoch), {f.name: np.asarray(getattr(trial, f.name)) for f in fields(Trial)})


SWAPPED = ("red and blue swapped", "light and dark swapped")


def alternatives(run: Run, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Name → float32 [n, C, H, W]: what the network would be given with other preprocessing; CAPTURED first, equal ones left out.

    Colour images with red and blue swapped, and either order with values 0–255, 0–1, −1–1, the mean and standard deviation of ImageNet
    and of CIFAR-10, and Caffe's 0–255 less the mean; grey ones with light and dark swapped, with 0–255, 0–1, −1–1 and MNIST's.
    """
    captured = run.network_inputs(indices)
    images = run.images(indices).astype(np.float32) / 255
    found = {CAPTURED: captured}
    if captured.shape[1] not in (1, 3):
        return found
    ways: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
        "values 0–255": ((0,), (1 / 255,)),
        "values 0–1": ((0,), (1,)),
        "values −1 to 1": ((0.5,), (0.5,)),
    }
    how = run.manifest["preprocessing"]
    if captured.shape[1] == 1:
        images = images[..., :1]
        ways |= {"normalised as MNIST": ((0.1307,), (0.3081,))}
        other, name = 1 - images, SWAPPED[1]
    else:
        ways |= {
            "normalised as ImageNet": _IMAGENET,
            "normalised as CIFAR-10": _CIFAR,
            "0–255 less ImageNet's mean": (_CAFFE, (1 / 255,)),
        }
        other, name = images[..., ::-1], SWAPPED[0]
    found[name] = _normalised(other, how["mean"], how["std"])
    for title, (mean, std) in ways.items():
        found[title] = _normalised(images, mean, std)
        if captured.shape[1] == 3:
            found[f"{title}, BGR"] = _normalised(other, mean, std)
    kept: dict[str, np.ndarray] = {}
    for title, inputs in found.items():
        if not any(np.allclose(inputs, seen, atol=0.02 * float(np.ptp(seen)) / 2) for seen in kept.values()):
            kept[title] = inputs
    return kept


def _normalised(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """float32 [n, C, H, W] of images 0–1 [n, H, W, C]."""
    low, spread = (np.asarray(v, dtype=np.float32) for v in (mean, std))
    return np.ascontiguousarray(((images - low) / spread).transpose(0, 3, 1, 2))


def hellinger(mean: np.ndarray, variance: np.ndarray, other_mean: np.ndarray, other_variance: np.ndarray) -> np.ndarray:
    """float64 [C]: Hellinger distance of normal distributions, 0 to 1, channel by channel."""
    total = variance + other_variance
    overlap = np.sqrt(2 * np.sqrt(variance * other_variance) / total) * np.exp(-0.25 * (mean - other_mean) ** 2 / total)
    return np.sqrt(np.clip(1 - overlap, 0, 1))


@check(
    "preprocessing",
    "Preprocessing",
    "The kept inputs go through the layers before the first batch norm; mean and variance of what arrives there are held against its running mean "
    "and variance from training: root mean square over channels of the Hellinger distance of two normal distributions (0 equal, 1 apart). The same "
    "for other preprocessing, and for the candidates the loss of the whole network. Named when another one halves a distance above "
    f"{FAR:g}, or lowers the mean loss by more than {percent(GAIN)} and that of so many single inputs that a sign test gives z of {SIGNS:g} (without "
    f"a batch norm: and raises the accuracy by {RISE:g} standard errors).",
    "Running statistics: S. Ioffe and C. Szegedy, Batch normalization, ICML 2015. Sign test: W. Dixon and A. Mood, JASA 41, 1946.",
)
def preprocessing(subject: Subject) -> Finding:
    """Whether the network is given its inputs as it was trained on them."""
    trial = get_trial(subject.results, subject.run, subject.epoch)
    if trial is None:
        raise RunError(subject.obstacle or "It has not been tried yet; it takes the network and a few seconds.")
    return judge(trial, max(1, len(subject.run.classes)))


def judge(trial: Trial, classes: int) -> Finding:
    """What a trial says. classes: their number, for what guessing would give."""
    if not np.isfinite(trial.losses).any():
        raise RunError(trial.reason)
    names = [str(name) for name in trial.names]
    count = len(trial.inputs)
    own = float(trial.distances[0])
    loss, right = trial.losses.mean(axis=1), trial.right.mean(axis=1)
    knows = 1 / classes + 3 * np.sqrt(1 / classes / count)
    gain, rise = trial.losses[0] - trial.losses, trial.right - trial.right[0]
    with np.errstate(invalid="ignore"):
        mean, signs = gain.mean(axis=1), np.sign(gain).sum(axis=1) / np.sqrt(count)
        sure = rise.mean(axis=1) > RISE * rise.std(axis=1) / np.sqrt(count)
    tried = np.isfinite(loss)
    told = tried & (np.maximum(right, right[0]) > knows)  # a network that knows nothing tells no preprocessing from another
    better = told & (signs >= SIGNS) & (mean > GAIN * loss[0]) & (right >= right[0])
    if trial.layer:
        better &= trial.distances <= 1.25 * own
        fits = (trial.distances <= own / 2) & (own >= FAR) & ~(told & (signs < -2))
    else:
        better &= sure
        fits = np.zeros(len(names), dtype=bool)
    values = {
        "distances": dict(zip(names, trial.distances.tolist(), strict=True)),
        "losses": dict(zip(names, loss.tolist(), strict=True)),
        "accuracy": dict(zip(names, right.tolist(), strict=True)),
        "best": None,
        "layer": trial.layer,
    }
    link = Link("See an input", "/", {"show": "input:0"})
    candidates = np.flatnonzero(fits | better)
    if len(candidates):
        # What the loss says outweighs the distance: swapped colours hardly move a mean. Of ways that do about as well, the simpler change.
        least = np.nanmin(loss[candidates], initial=np.inf)
        best = int(min(candidates, key=lambda i: (not (loss[i] <= ALIKE * least), ", " in names[i], loss[i], trial.distances[i])))
        values["best"] = names[best]
        parts = []
        if trial.layer:
            parts.append(f"distance from what {trial.layer} was trained on {trial.distances[best]:.2f} instead of {own:.2f}")
        if tried[best] and told[best]:
            parts.append(
                f"accuracy {percent(float(right[best]))} instead of {percent(float(right[0]))}, loss {loss[best]:.2f} instead of {loss[0]:.2f}"
            )
        said = f"The preprocessing looks wrong: “{names[best]}” fits better ({'; '.join(parts)}; {count} inputs)."
        plain = bool(fits[best]) or right[best] - right[0] >= 0.02
        # Before all else: what other checks find follows from it.
        return Finding(ATTENTION if plain else LOOK, said, values, link, _picture(trial, best), weight=np.inf)
    if not trial.layer:
        if not told.any():
            raise RunError(f"{trial.reason} The network does not know the classes of its inputs either, so that no loss could tell.")
        said = (
            f"None of {int(tried.sum()) - 1} other kinds of preprocessing gives a clearly smaller loss than this one ({loss[0]:.2f}). {trial.reason}"
        )
        return Finding(FINE, said, values, link, _picture(trial, 0))
    nearest = int(np.nanargmin(trial.distances[1:])) + 1 if len(names) > 1 else 0
    if own >= STRANGE:
        said = f"What arrives at {trial.layer} differs from what it was trained on (distance {own:.2f} of 1), and none of {len(names) - 1} other "
        said += "kinds of preprocessing fits better: these inputs may be of another kind."
        return Finding(LOOK, said, values, link, _picture(trial, nearest), weight=own)
    said = f"What arrives at {trial.layer} is what it was trained on: distance {own:.2f} of 1"
    said += f"; next “{names[nearest]}”, {trial.distances[nearest]:.2f}." if nearest else "."
    return Finding(FINE, said, values, link, _picture(trial, 0))


def _picture(trial: Trial, marked: int) -> Bars:
    """Distances where there is a batch norm, else losses: as captured, and those that come nearest."""
    values = trial.distances if trial.layer else trial.losses.mean(axis=1)
    order = [int(i) for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
    rows = list(dict.fromkeys([0, marked, *order]))[:7]
    title = f"Distance from what {trial.layer} was trained on" if trial.layer else "Loss"
    return Bars(tuple(str(trial.names[i]) for i in rows), tuple(float(values[i]) for i in rows), frozenset([rows.index(marked)]), title=title)
