"""What capture costs, as images per second over those of the plain `model(x)`: run `python tests/benchmarks/capture.py [--quick]`.

Variants take turns, batch by batch, in one process on one thread; CPU time of the process is what is compared.
"Keep everything" is what naive hooks do: a clone of every layer's output in a list.
"""

from __future__ import annotations

import argparse
import copy
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import nn

import dnnviz
from dnnviz.models import build


class Images(torch.utils.data.Dataset):
    """Random images, made once for a small pool: reading costs next to nothing."""

    def __init__(self, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pool = (torch.randint(0, 256, (32, 3, size, size), generator=generator).float() / 255 - 0.45) / 0.22
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index >= self.count:
            raise IndexError(index)
        return self.pool[index % 32], index % 10


def batch_of(data: Images, start: int, batch: int) -> torch.Tensor:
    return torch.stack([data[i][0] for i in range(start, min(start + batch, len(data)))])


def keep_everything(model: nn.Module, inputs: torch.Tensor) -> int:
    """What naive hooks do; returns the bytes kept."""
    kept: list[torch.Tensor] = []
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(lambda _m, _i, out: kept.append(out.clone())) for m in layers]
    model(inputs)
    for handle in handles:
        handle.remove()
    return sum(t.numel() * t.element_size() for t in kept)


def captured(model: nn.Module, data: Images, batch: int, progress: Callable[..., None] | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        dnnviz.capture(model, data, path, batch_size=batch, inputs=64, mean=0.45, std=0.22, save_weights=False, progress=progress)


def megabytes() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(spec: str, size: int, batch: int, count: int) -> float:
    """Print one line; returns images/s with capture over images/s without.

    After every batch that capture takes, the same batch goes through a copy of the network without hooks: whatever else
    the machine does meets both alike. The time of capture is everything else: finding the layers, writing the run, all.
    """
    model, data = build(spec).eval(), Images(count, size)
    other = copy.deepcopy(model)
    seconds = {"plain": 0.0, "keep everything": 0.0}
    kept, done = 0, 0

    def turn(position: int, _total: int | None, text: str) -> None:
        nonlocal kept, done
        if text != "capturing":
            return
        for name, work in (("plain", other), ("keep everything", lambda x: keep_everything(other, x))):
            start = time.process_time()
            found = work(batch_of(data, done, batch))
            seconds[name] += time.process_time() - start
            kept = found if isinstance(found, int) else kept
        done = position

    with torch.inference_mode():
        other(batch_of(data, 0, batch))
    start = time.process_time()
    captured(model, data, batch, turn)
    own = time.process_time() - start - sum(seconds.values())
    naive = seconds["plain"] / seconds["keep everything"]
    print(
        f"{spec:28} {size:3} px  batch {batch:3}  {count:4} images   capture {seconds['plain'] / own:.2f}   keep everything {naive:.2f} "
        f"of the images/s of model(x); keeping everything takes {kept / batch / 1e6:.1f} MB an image, capture none",
        flush=True,
    )
    return seconds["plain"] / own


def growth(spec: str, size: int, batch: int, counts: tuple[int, int]) -> None:
    """Print how much more memory many inputs take than few."""
    model = build(spec).eval()
    seen = []
    for count in counts:
        captured(model, Images(count, size), batch)
        seen.append(megabytes())
    print(f"{spec:28} memory {seen[0]:.0f} MB after {counts[0]} inputs, {seen[1]:.0f} MB after {counts[1]}: {seen[1] - seen[0]:+.0f} MB")


def early_maps(spec: str, size: int, batch: int, count: int, rounds: int) -> None:
    """Print what it costs to keep the early feature maps too: whole captures with and without them in turn, the least CPU time of each."""
    model, data = build(spec).eval(), Images(count, size)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds + 1):
        for kept, times in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.process_time()
                dnnviz.Recorder(
                    Path(folder) / "run", model, data, batch_size=batch, inputs=64, mean=0.45, std=0.22, save_weights=False, maps=None if kept else ()
                ).record(0)
                times.append(time.process_time() - start)
    with_maps, without = (min(seconds[kept][1:]) for kept in (True, False))  # the first round warms up
    print(f"{spec:28} {size:3} px  batch {batch:3}  {count:4} images   capture with early maps takes {with_maps / without:.3f} of that without")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ResNet-18 at 224 px only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if not arguments.quick:
        growth("dnnviz:resnet20", 32, 64, (512, 4096))
        early_maps("dnnviz:small_cnn?width=8", 16, 64, 4096, 20)
    for _ in range(1 if arguments.quick else 3):
        compare("torchvision:resnet18", 224, 32, 256)
    if not arguments.quick:
        compare("dnnviz:resnet20", 32, 64, 4096)
        for name in ("densenet121", "mobilenet_v2", "efficientnet_b0", "googlenet", "convnext_tiny", "vit_b_16", "swin_t"):
            compare(f"torchvision:{name}", 224, 16, 128)


if __name__ == "__main__":
    main()
