"""What capture costs, as images per second over those of the plain `model(x)`: run `python tests/benchmarks/capture.py [--quick]`.

Variants take turns in one process on one thread; CPU time of the process is what is compared. The plain loop reads the
same data in the same batches. "Keep everything" is what naive hooks do: a clone of every layer's output in a list.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
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


def plain(model: nn.Module, data: Images, batch: int) -> None:
    with torch.inference_mode():
        for start in range(0, len(data), batch):
            model(torch.stack([data[i][0] for i in range(start, min(start + batch, len(data)))]))


def keep_everything(model: nn.Module, data: Images, batch: int) -> None:
    kept: list[torch.Tensor] = []
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(lambda _m, _i, out: kept.append(out.clone())) for m in layers]
    plain(model, data, batch)
    for handle in handles:
        handle.remove()


def captured(model: nn.Module, data: Images, batch: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dnnviz.capture(model, data, Path(folder) / "run", batch_size=batch, inputs=64, mean=0.45, std=0.22, save_weights=False)


def cpu(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def megabytes() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(spec: str, size: int, batch: int, count: int, rounds: int) -> float:
    """Print one line; returns images/s with capture over images/s without."""
    model, data = build(spec).eval(), Images(count, size)
    plain(model, Images(batch, size), batch)
    ratios, naive = [], []
    for turn in range(rounds):
        # The order changes from turn to turn: on a shared machine the first of a pair may run faster.
        works = [plain, captured, keep_everything][:: 1 if turn % 2 else -1]
        seconds = {work: cpu(lambda work=work: work(model, data, batch)) for work in works}
        ratios.append(seconds[plain] / seconds[captured])
        naive.append(seconds[plain] / seconds[keep_everything])
    print(
        f"{spec:32} {size:4} px  batch {batch:3}  {count:5} images   capture {statistics.median(ratios):.2f}   "
        f"keep everything {statistics.median(naive):.2f}   of the images/s of model(x)  (capture, each turn: {', '.join(f'{r:.2f}' for r in ratios)})",
        flush=True,
    )
    return statistics.median(ratios)


def growth(spec: str, size: int, batch: int, counts: tuple[int, int]) -> None:
    """Print how much more memory many inputs take than few."""
    model = build(spec).eval()
    seen = []
    for count in counts:
        captured(model, Images(count, size), batch)
        seen.append(megabytes())
    print(f"{spec:32} memory {seen[0]:.0f} MB after {counts[0]} inputs, {seen[1]:.0f} MB after {counts[1]}: {seen[1] - seen[0]:+.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the networks of the promise only, once")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = 1 if arguments.quick else 3
    growth("dnnviz:resnet20", 32, 64, (256, 4096))
    compare("torchvision:resnet18", 224, 32, 128, rounds)
    compare("dnnviz:resnet20", 32, 64, 2048, rounds)
    if not arguments.quick:
        for name in ("densenet121", "mobilenet_v2", "efficientnet_b0", "googlenet", "convnext_tiny", "vit_b_16", "swin_t"):
            compare(f"torchvision:{name}", 224, 8, 32, rounds)


if __name__ == "__main__":
    main()
