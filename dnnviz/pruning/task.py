"""The background job of the pruning view: costs of the units, accuracy against units removed, ablations, weights to take away."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dnnviz.analysis.units import THRESHOLD, course, even
from dnnviz.catalogue import Catalogue
from dnnviz.errors import DNNVizError
from dnnviz.explain.plan import pace, store_pace
from dnnviz.layers import find_layers
from dnnviz.models import load_snapshot
from dnnviz.pruning import criteria, keys
from dnnviz.pruning.costs import network_costs
from dnnviz.pruning.export import masked, sliced
from dnnviz.pruning.merging import merged, moments, swapped
from dnnviz.pruning.program import Edit, Program
from dnnviz.pruning.registry import find
from dnnviz.pruning.saved import Costs, counted, saving
from dnnviz.results import Results
from dnnviz.settings import Settings
from dnnviz.store import Run

Report = Callable[[float, float, str], object]

_TELLING = 20  # variants from which their time says how long a pass takes
_AGREE = 1e-3  # largest relative difference of logits at which exported weights do what was measured


def run(settings: Settings, params: Mapping[str, Any], report: Report) -> list[str]:
    """Compute what is missing; returns the keys of the results.

    params: run (id), epoch and what: "costs"; "course" with threshold; "verify" with criteria (names), proposal, split, most;
    "ablate" with units (text of `keys.parse_units`), to (zero, mean), split; "export" with proposal and kind (masked, sliced).
    Raises DNNVizError with a sentence for what does not exist, and where the network cannot be built again.
    """
    opened = Catalogue(settings.runs).open(str(params.get("run")))
    epoch = keys.epoch_of(opened, params)
    results = Results(settings.private_cache() / "results")
    if params.get("what") == "course":
        threshold = keys.proposal({"threshold": params.get("threshold", THRESHOLD)}).threshold
        report(0, 1, f"Looking at {len(opened.epochs)} epochs")
        course(opened, results, threshold)
        return []
    work = {"costs": lambda *_: [], "verify": _verify, "ablate": _ablate, "export": _export}.get(str(params.get("what")))
    if work is None:
        raise DNNVizError("This page asked for something about pruning that cannot be computed; reload it.")
    bench = Bench(opened, epoch, settings, results, report)
    return [keys.costs_key(opened, epoch), *work(bench, params)]


class Bench:
    """A snapshot of a run with its network and what is known of its costs; building it loads the network where that is needed."""

    def __init__(self, opened: Run, epoch: int, settings: Settings, results: Results, report: Report) -> None:
        self.run, self.epoch, self.settings, self.results, self.report = opened, epoch, settings, results, report
        self._model: torch.nn.Module | None = None
        known = keys.get_costs(results, opened, epoch)
        if known is None:
            report(0, 1, "Tracing the network")
            example = torch.from_numpy(opened.network_inputs([0]))
            with torch.no_grad():
                known = network_costs(opened, self.model, find_layers(self.model, example))
                self._measure()
            results.put(keys.costs_key(opened, epoch), {"about": keys.packed(known[0].as_json()), "magnitude": known[1]})
        self.costs: Costs = known[0]
        self.magnitude: np.ndarray = known[1]

    @property
    def model(self) -> torch.nn.Module:
        if self._model is None:
            self._model = load_snapshot(self.run, self.epoch, allow=self.settings.allow)
        return self._model

    def _measure(self) -> None:
        """Remember how long a forward pass takes, so that the page can say what a verification costs."""
        if pace(self.results, self.run, self.epoch) is None:
            inputs = torch.from_numpy(self.run.network_inputs(np.arange(min(self.run.kept, 8))))
            times = []
            for _ in range(2):  # the first one prepares much that the next need not
                start = time.perf_counter()
                self.model(inputs)
                times.append(time.perf_counter() - start)
            store_pace(self.results, self.run, self.epoch, min(times) / len(inputs))

    def edits(self, chosen: Mapping[str, np.ndarray], to: str = "zero") -> list[Edit]:
        """Units {layer: numbers} set to zero or to their mean over the data."""
        if to == "zero":
            return [Edit(name, numbers) for name, numbers in chosen.items()]
        return [Edit(name, numbers, self.run.data_mean(self.epoch, name)[numbers].astype(np.float32)) for name, numbers in chosen.items()]

    def program(self, inputs: np.ndarray) -> Program:
        """The network as operations, traced on the first of these inputs kept."""
        return Program(self.model, torch.from_numpy(self.run.network_inputs(inputs[: min(len(inputs), 128)])))

    def merging(self, program: Program, removals: Sequence[Sequence[Edit]]) -> Iterator[dict[str, torch.Tensor]]:
        """For each removal the tensors of the network in which its units are given to those they follow; none where it cannot be run in parts."""
        known = {}
        if program.exact:
            self.report(0, 1, "Fitting units to those they follow")
            touched = {edit.layer for edits in removals for edit in edits}
            names = [cost.name for cost in self.costs.layers if cost.merges and cost.name in touched]
            known = moments(program, torch.from_numpy(self.run.network_inputs(even(self.run.kept, keys.FITTED))), names)
        for edits in removals:
            yield merged(self.model, program, self.costs, {edit.layer: edit.units for edit in edits}, known) if known else {}

    def predict(self, inputs: np.ndarray, variants: Sequence[Sequence[Edit]], merge: Sequence[int] = ()) -> tuple[np.ndarray, bool]:
        """(int64 [V, n]: the class that the network names for inputs kept, for each variant, whether only what changed was run again).

        merge: the variants whose units are given to those they follow.
        """
        program = self.program(inputs)
        found = np.empty((len(variants), len(inputs)), dtype=np.int64)
        begun = time.perf_counter()
        total, done = len(inputs) * len(variants), 0

        def fill(rows: Sequence[int], first: int) -> None:
            nonlocal done
            batch = inputs[first : first + program.size]
            tensor = torch.from_numpy(self.run.network_inputs(batch))
            for row, logits in zip(rows, program.logits(tensor, [variants[row] for row in rows]), strict=True):
                found[row, first : first + len(batch)] = logits.argmax(axis=1)
            done += len(batch) * len(rows)
            self.report(done, total, f"Running {len(inputs):,} inputs, {len(variants)} variants")

        plain = np.setdiff1d(np.arange(len(variants)), merge).tolist()
        for first in range(0, len(inputs), program.size):
            # Few variants at once, so that progress is told and the job can be seen to move.
            for start in range(0, len(plain), 8):
                fill(plain[start : start + 8], first)
        for row, new in zip(merge, self.merging(program, [variants[row] for row in merge]) if merge else (), strict=True):
            with swapped(self.model, new):
                for first in range(0, len(inputs), program.size):
                    fill([row], first)
        if len(variants) >= _TELLING:
            store_pace(self.results, self.run, self.epoch, (time.perf_counter() - begun) / total)
        return found, program.exact


def _verify(bench: Bench, params: Mapping[str, Any]) -> list[str]:
    """Accuracy against units removed, by every criterion asked for, and of the proposal."""
    opened, epoch = bench.run, bench.epoch
    names = params.get("criteria")
    if not isinstance(names, list) or not names:
        raise DNNVizError("Choose at least one criterion to verify.")
    chosen = [find(str(name)) for name in dict.fromkeys(names)]
    want = keys.proposal(params.get("proposal") or {})
    split, most = str(params.get("split", "all")), params.get("most", 0)
    if not isinstance(most, int) or most < 0:
        raise DNNVizError(f"The number of inputs is {most!r}; it must be a whole number, 0 for all.")
    key = keys.verify_key(opened, epoch, want, [criterion.name for criterion in chosen], split, most)
    if key in bench.results:
        return [key]
    inputs = keys.inputs_of(opened, split, most)
    may = keys.allowed(opened, bench.costs)
    orders = [
        [criteria.order(c, keys.material(opened, epoch, bench.magnitude, seed), may) for seed in range(keys.SEEDS if c.drawn else 1)] for c in chosen
    ]
    least = min((len(order) for group in orders for order in group), default=0)
    counts = np.unique([min(round(share * int(may.sum())), least) for share in (0, *keys.SHARES)])
    proposed = keys.proposed(opened, epoch, want, bench.costs, bench.magnitude)
    removed = [np.zeros(0, np.int64), proposed, *(order[:count] for group in orders for order in group for count in counts[1:])]
    # Which of them are merged: the proposal, and the points of a criterion's curve; none without units.
    names_of = ["", want.which, *(c.name for c, group in zip(chosen, orders, strict=True) for _ in group for _ in counts[1:])]
    merge = [i for i, name in enumerate(names_of) if name in keys.MERGED and len(removed[i])]
    predictions, exact = bench.predict(inputs, [bench.edits(keys.by_layer(opened, units)) for units in removed], merge)
    labels = opened.labels[inputs]
    right, same = (predictions == labels).mean(axis=1), (predictions == predictions[0]).mean(axis=1)
    offsets = [layer.offset for layer in opened.layers]
    saved = [saving(bench.costs, counted(bench.costs, offsets, units)) for units in removed]
    at = 2
    curves: dict[str, list[np.ndarray]] = {name: [] for name in ("accuracy", "low", "high", "agreement", "parameters", "macs")}
    for group in orders:
        rows = np.arange(at, at + len(group) * (len(counts) - 1)).reshape(len(group), len(counts) - 1)
        rows = np.concatenate([np.zeros((len(group), 1), dtype=np.int64), rows], axis=1)
        at += rows.shape[0] * (rows.shape[1] - 1)
        curves["accuracy"].append(right[rows].mean(axis=0))
        curves["low"].append(right[rows].min(axis=0))
        curves["high"].append(right[rows].max(axis=0))
        curves["agreement"].append(same[rows].mean(axis=0))
        curves["parameters"].append(np.array([[saved[i].parameters for i in row] for row in rows]).mean(axis=0))
        curves["macs"].append(np.array([[saved[i].macs for i in row] for row in rows]).mean(axis=0))
    splits = np.bincount(opened.input_splits[inputs], minlength=len(opened.splits))
    about = {
        "criteria": [criterion.name for criterion in chosen],
        "inputs": len(inputs),
        "splits": {name: int(count) for name, count in zip(opened.splits, splits, strict=True) if count},
        "before": float(right[0]),
        "proposed": {"units": len(proposed), "accuracy": float(right[1]), "agreement": float(same[1])},
        "prunable": int(may.sum()),
        "exact": exact,
    }
    bench.results.put(key, {"about": keys.packed(about), "counts": counts, **{name: np.stack(rows) for name, rows in curves.items()}})
    return [key]


def _ablate(bench: Bench, params: Mapping[str, Any]) -> list[str]:
    """Predictions before and after units are set to zero or their mean."""
    opened, epoch = bench.run, bench.epoch
    chosen = keys.parse_units(opened, epoch, str(params.get("units", "")))
    to, split = str(params.get("to", "zero")), str(params.get("split", "all"))
    if to not in keys.EDITS:
        raise DNNVizError(f"Units are set to {to[:40]!r}; it must be one of {', '.join(keys.EDITS)}.")
    key = keys.ablation_key(opened, epoch, chosen, to, split)
    if key not in bench.results:
        inputs = keys.inputs_of(opened, split, 0)
        predictions, exact = bench.predict(inputs, [[], bench.edits(chosen, to)])
        about = {"units": {name: numbers.tolist() for name, numbers in chosen.items()}, "to": to, "split": split, "exact": exact}
        bench.results.put(key, {"about": keys.packed(about), "inputs": inputs, "before": predictions[0], "after": predictions[1]})
    return [key]


def _export(bench: Bench, params: Mapping[str, Any]) -> list[str]:
    """A state_dict of the pruned network, checked against the masks by which it was measured."""
    opened, epoch = bench.run, bench.epoch
    want, kind = keys.proposal(params.get("proposal") or {}), str(params.get("kind"))
    if kind not in keys.FILES:
        raise DNNVizError(f"There is no export {kind[:40]!r}; it must be one of {', '.join(keys.FILES)}.")
    key = keys.export_key(opened, epoch, want, kind)
    if key in bench.results:
        return [key]
    units = keys.proposed(opened, epoch, want, bench.costs, bench.magnitude)
    if not len(units):
        raise DNNVizError("The proposal removes no unit, so there is nothing to export; choose another one.")
    chosen = keys.by_layer(opened, units)
    bench.report(0, 1, "Removing the units")
    inputs = np.arange(min(opened.kept, 16))
    program = bench.program(inputs)
    batch = torch.from_numpy(opened.network_inputs(inputs[: program.size]))
    edits = bench.edits(chosen)
    [new] = bench.merging(program, [edits]) if want.which in keys.MERGED else [{}]
    stay: dict[str, np.ndarray] = {}
    if kind == "sliced" and not any(cost.cut for cost in bench.costs.layers if cost.name in chosen):
        raise DNNVizError(
            "Nothing of this proposal can be cut out: the values of its units are added to others', normalised anew, or consumed in a way that is "
            "not known. Take the weights with zeros instead."
        )
    with swapped(bench.model, new):
        [measured] = program.logits(batch, [edits])
        if kind == "sliced":
            result, stay = sliced(bench.model, program.found, bench.costs, chosen)
        else:
            result = masked(bench.model, program.found, chosen)
    with torch.no_grad():
        try:
            output = result(batch).float().numpy()
        except RuntimeError as error:
            raise DNNVizError(f"The smaller network does not run ({str(error).splitlines()[0]}); take the weights with zeros instead.") from error
    difference = float(np.abs(output - measured).max() / max(np.abs(measured).max(), 1e-12))
    if difference > _AGREE:
        raise DNNVizError(
            f"Zero weights do not silence these units here (logits differ by {difference:.1%} from what was measured): a normalisation or an "
            "activation function turns zero into another value. Export the list instead."
        )
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous().clone() for name, tensor in result.state_dict().items()}, buffer)
    about = {
        "kind": kind,
        "difference": difference,
        "parameters": sum(parameter.numel() for parameter in result.parameters()),
        "removed": len(units),
        "stayed": int(sum(len(numbers) for numbers in stay.values())),
        "merged": bool(new),
    }
    bench.results.put(key, {"about": keys.packed(about), "content": np.frombuffer(buffer.getvalue(), dtype=np.uint8)})
    return [key]
