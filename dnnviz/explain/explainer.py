"""The network of a snapshot, ready to explain inputs of its run: what every job and the command line start from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dnnviz.explain.attribution import Attribution, attribute_all
from dnnviz.explain.network import scores, undisturbed
from dnnviz.explain.plan import input_index, pace, store_pace, target_object
from dnnviz.explain.registry import METHODS
from dnnviz.explain.uploads import is_upload, load_upload
from dnnviz.models import load_snapshot
from dnnviz.results import Results
from dnnviz.store import Run

_TELLING = 20  # forward passes from which the time of a method says how long a pass takes


class Explainer:
    """Explains inputs of one snapshot of a run; building it loads the network.

    Raises DNNVizError where the network cannot be built again.
    """

    def __init__(self, run: Run, epoch: int, results: Results, allow: Sequence[str]) -> None:
        self.run = run
        self.epoch = epoch
        self.results = results
        self.model = load_snapshot(run, epoch, allow=allow)
        if pace(results, run, epoch) is None:
            self._measure()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an input."""
        return tuple(self.run.manifest["preprocessing"]["size"])

    @property
    def normalisation(self) -> dict[str, Any]:
        """Mean and standard deviation of the inputs, as `attribute_all` takes them."""
        how = self.run.manifest["preprocessing"]
        return {"mean": how["mean"] or None, "std": how["std"] or None}

    def inputs(self, sources: Sequence[str]) -> np.ndarray:
        """float32 [n, C, H, W]: what the network takes, for inputs kept and uploaded images."""
        return np.concatenate([self._input(source) for source in sources])

    def attribute(
        self,
        sources: Sequence[str],
        methods: Mapping[str, Mapping[str, Any]],
        targets: Sequence[str],
        layer: str | None = None,
        watch: Callable[[str, int, int, np.ndarray | None], object] | None = None,
    ) -> dict[str, Attribution]:
        """As `dnnviz.explain.attribute_all`, for sources and targets (one each) of a `Tile`."""
        objects = [target_object(self.run, self.epoch, target) for target in targets]
        found = attribute_all(self.model, self.inputs(sources), methods, objects, layer, watch=watch, **self.normalisation)
        for name, answer in found.items():
            work = METHODS[name].work(answer.parameters, self.shape) * len(sources)
            if work >= _TELLING:
                store_pace(self.results, self.run, self.epoch, answer.seconds / work)
        return found

    def _input(self, source: str) -> np.ndarray:
        if is_upload(source):
            return self.run.normalise(load_upload(self.results, source)[None])
        return self.run.network_inputs(input_index(self.run, source))

    def _measure(self) -> None:
        """Time a forward pass of one input; what methods take later, in larger batches, says it better."""
        one = torch.as_tensor(self.inputs(["0"]))
        times = []
        with undisturbed(self.model), torch.inference_mode():
            for _ in range(3):
                started = time.perf_counter()
                scores(self.model, one)
                times.append(time.perf_counter() - started)
        # The first passes set up kernels and memory.
        store_pace(self.results, self.run, self.epoch, min(times))
