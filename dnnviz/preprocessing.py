"""The background job behind the health view: give a network its inputs prepared in other ways and note what its first batch norm sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from dnnviz.analysis.diagnosis.preprocessing import CAPTURED, SWAPPED, Trial, alternatives, get_trial, hellinger, put_trial, trial_key
from dnnviz.catalogue import Catalogue
from dnnviz.errors import DNNVizError
from dnnviz.explain.network import scores, undisturbed
from dnnviz.models import load_snapshot
from dnnviz.results import Results
from dnnviz.settings import Settings
from dnnviz.store import Run

Report = Callable[[float, float, str], object]

_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)
_PIXELS = 500 * 32 * 32  # of all inputs tried together
_MOST, _LEAST = 500, 20  # inputs
_BATCH = 32


class _Reached(Exception):
    """The first batch norm was reached; the layers behind it need not run."""


def run(settings: Settings, params: Mapping[str, Any], report: Report) -> list[str]:
    """Try the preprocessing of a snapshot; params: run (id), epoch. Returns the key of the result.

    Raises DNNVizError where the network cannot be built again.
    """
    opened = Catalogue(settings.runs).open(str(params.get("run")))
    epoch = params.get("epoch")
    if not isinstance(epoch, int):
        raise DNNVizError("The request names no epoch; reload the page.")
    results = Results(settings.private_cache() / "results")
    if trial_key(opened, epoch) not in results:
        put_trial(results, opened, epoch, try_preprocessing(opened, epoch, settings.allow, report))
    return [trial_key(opened, epoch)]


def known_trial(run: Run, epoch: int, results: Results, allow: tuple[str, ...], report: Report) -> Trial:
    """The trial of a snapshot, from the cache or made now."""
    found = get_trial(results, run, epoch)
    if found is None:
        found = try_preprocessing(run, epoch, allow, report)
        put_trial(results, run, epoch, found)
    return found


def try_preprocessing(run: Run, epoch: int, allow: tuple[str, ...], report: Report = lambda *_: None) -> Trial:
    """Give the network of a snapshot its kept inputs as captured and in other ways."""
    report(0, 1, "Building the network")
    model = load_snapshot(run, epoch, allow=allow)
    height, width = run.manifest["preprocessing"]["size"][1:]
    count = min(run.kept, _MOST, max(_LEAST, _PIXELS // (height * width)))
    inputs = np.unique(np.linspace(0, run.kept - 1, count).round().astype(np.int64))
    return trial_of(model, alternatives(run, inputs), run.labels[inputs], inputs, report)


def trial_of(
    model: torch.nn.Module, ways: Mapping[str, np.ndarray], labels: np.ndarray, inputs: np.ndarray, report: Report = lambda *_: None
) -> Trial:
    """The trial of a network: ways: name → float32 [n, C, H, W], CAPTURED first; labels int64 [n].

    All ways run as far as the first batch norm that has seen data; the whole network runs as captured, with the nearest other one,
    with the colours swapped, and, without such a batch norm, with all that change one thing.
    """
    names = list(ways)
    distances = np.full(len(names), np.nan)
    with undisturbed(model), torch.inference_mode():
        layer, norm, reason = _first_norm(model, ways[CAPTURED][:1])
        if norm is not None:
            for i, way in enumerate(ways.values()):
                report(i, len(names) + 3, "Looking at the first batch norm")
                distances[i] = _distance(model, norm, way)
        order = [int(i) for i in np.argsort(distances, kind="stable") if i != 0]
        swapped = [names.index(name) for name in SWAPPED if name in names]
        plain = [i for i, name in enumerate(names) if i == 0 or ", " not in name]
        untrained = layer and norm is None
        whole = list(dict.fromkeys([0, *swapped, *order[:2]])) if norm is not None else [] if untrained else plain
        losses, right = np.full((2, len(names), len(labels)), np.nan)
        for step, i in enumerate(whole):
            report(len(names) + step, len(names) + len(whole), "Running the whole network")
            losses[i], right[i] = _answers(model, ways[names[i]], labels)
    return Trial(np.array(names), distances, losses, right, inputs, layer, reason)


def _first_norm(model: torch.nn.Module, one: np.ndarray) -> tuple[str, torch.nn.Module | None, str]:
    """(name, module, "") of the batch norm that an input meets first; (name, None, why it does not say anything); ("", None, why there is none)."""
    met: list[tuple[str, torch.nn.Module]] = []
    hooks = [m.register_forward_pre_hook(lambda m, _, name=name: met.append((name, m))) for name, m in model.named_modules() if isinstance(m, _NORMS)]
    try:
        scores(model, torch.tensor(one))
    finally:
        for hook in hooks:
            hook.remove()
    if not met:
        return "", None, "The network has no batch norm to compare with."
    name, norm = met[0]
    if norm.running_mean is None or norm.running_var is None:
        return "", None, "The first batch norm keeps no statistics."
    if bool((norm.running_mean == 0).all() and (norm.running_var == 1).all()):
        return name, None, f"The network was never trained: its first batch norm ({name}) has seen no data."
    return name, norm, ""


def _distance(model: torch.nn.Module, norm: torch.nn.Module, inputs: np.ndarray) -> float:
    """Distance of what arrives at a batch norm from what it has seen in training."""
    sums: list[tuple[torch.Tensor, torch.Tensor, int]] = []

    def stop(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        values = given[0].detach().double()
        axes = [0, *range(2, values.ndim)]
        sums.append((values.sum(axes), (values**2).sum(axes), values.numel() // values.shape[1]))
        raise _Reached

    hook = norm.register_forward_pre_hook(stop)
    try:
        for start in range(0, len(inputs), _BATCH):
            try:
                model(torch.tensor(inputs[start : start + _BATCH]))
            except _Reached:
                continue
    finally:
        hook.remove()
    count = sum(n for _, _, n in sums)
    mean = sum(total for total, _, _ in sums) / count
    variance = (sum(squares for _, squares, _ in sums) / count - mean**2).clamp(min=0)
    # As the layer itself does: eps keeps channels that never vary from standing out.
    known = norm.running_mean.double(), norm.running_var.double() + norm.eps
    each = hellinger(mean.numpy(), (variance + norm.eps).numpy(), *(value.numpy() for value in known))
    return float(np.sqrt(np.mean(each**2)))


def _answers(model: torch.nn.Module, inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cross entropy float64 [n], 1 where the prediction is right) of inputs."""
    logits = torch.cat([scores(model, torch.tensor(inputs[i : i + _BATCH])) for i in range(0, len(inputs), _BATCH)]).double()
    known = torch.as_tensor(labels)
    return torch.nn.functional.cross_entropy(logits, known, reduction="none").numpy(), (logits.argmax(1) == known).double().numpy()
