"""The demo runs: small networks on data that need no download, built the same every time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dnnviz.datasets import load
from dnnviz.errors import DNNVizError
from dnnviz.store import Run
from dnnviz.training import Plan, Watch, train

TAMPERED_CLASS = 8


@dataclass(frozen=True)
class Demo:
    """One demo run: its name, what it shows, and how it is made.

    record: the data recorded, where they are not all the data: they decide the size of the run.
    quick: what is different in a build of seconds, for tests.
    """

    name: str
    title: str
    model: str
    data: str
    plan: Plan
    inputs: int
    quick: dict[str, object]
    record: str | None = None


_DIGITS = Plan(epochs=25, record=(0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 25), learning_rate=0.05, batch_size=64, weight_decay=5e-4)
_DIGITS_QUICK: dict[str, object] = {"plan": replace(_DIGITS, epochs=1, record=()), "inputs": 40}

DEMOS = (
    Demo("digits", "handwritten digits, from untrained to trained", "dnnviz:small_cnn?width=8", "digits", _DIGITS, 240, _DIGITS_QUICK),
    Demo(
        "digits-tampered",
        f"the same network and seed; the training images of class {TAMPERED_CLASS} carry a mark",
        "dnnviz:small_cnn?width=8",
        f"digits?tampered={TAMPERED_CLASS}",
        _DIGITS,
        240,
        _DIGITS_QUICK,
    ),
    Demo(
        "shapes",
        "colour scenes with the true mask of every object",
        "dnnviz:small_cnn?width=16&pools=3",
        "shapes",
        Plan(epochs=14, record=(0, 1, 2, 4, 7, 10, 14), optimizer="adamw", learning_rate=3e-3, batch_size=32, weight_decay=1e-2),
        240,
        {
            "plan": Plan(epochs=1, record=(), learning_rate=0.05),
            "inputs": 24,
            "data": "shapes?train=48&test=24&size=32",
            "record": "shapes?train=12&test=12&size=32",
        },
        # Scene i is the same whatever their number: these are the first of those above.
        record="shapes?train=252&test=252",
    ),
)


def build_demos(
    out: Path, names: Sequence[str] | None = None, *, quick: bool = False, overwrite: bool = False, watch: Callable[[Demo], Watch] | None = None
) -> list[Run]:
    """Build demo runs into folders below `out`; those already complete are left alone, interrupted ones go on.

    names: which ones (None: all). quick: one epoch on few images, for tests. watch: what is told while each trains.
    Building twice on one machine gives the same arrays to the last bit.
    """
    known = {demo.name: demo for demo in DEMOS}
    for name in names or ():
        if name not in known:
            raise DNNVizError(f"There is no demo run {name!r}; there are {', '.join(known)}.")
    runs = []
    with _one_thread():
        for demo in [known[name] for name in names] if names else DEMOS:
            made = replace(demo, **demo.quick) if quick else demo
            run, _ = train(
                made.model,
                load(made.data),
                out / made.name,
                made.plan,
                record=load(made.record) if made.record else None,
                inputs=made.inputs,
                overwrite=overwrite,
                watch=watch(made) if watch else None,
                # Of every snapshot they would take more room than all else together.
                maps=(made.plan.epochs,),
            )
            runs.append(run)
    return runs


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    # The order of sums depends on the number of threads, and with it the last bits; networks this small gain nothing.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
