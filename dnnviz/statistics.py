"""Streaming reductions of layer values: constant memory however many inputs pass.

In a hook only what runs at the speed of reading memory is done on every feature map (mean and maximum); the place of
a maximum is looked up for the few maps that enter a list of top inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from dnnviz.layers import Found
from dnnviz.taps import units_first

SEGMENT = 16  # tokens in a segment, whose maxima help to find the place of the largest


class Reducer:
    """Receives the layer values of one batch and keeps their spatial mean and maximum: `mean` and `peak`, float32 [b, U].

    seen: positions of the layers that came in this batch. also: is told position and value [b, units, positions…] of every layer, too.
    """

    def __init__(self, found: Sequence[Found], k: int, device: torch.device, also: Callable[[int, torch.Tensor], None] | None = None) -> None:
        self.found = found
        self.also = also
        self.tops = [TopLists(item.layer.units, k, device) for item in found]
        self.units = sum(item.layer.units for item in found)
        self.device = device
        self.start(0, 0)

    def start(self, count: int, position: int) -> None:
        """Begin a batch of `count` inputs, the first of which is number `position` in the stream of all inputs."""
        self.count, self.position = count, position
        self.mean = torch.empty(count, self.units, device=self.device)
        self.peak = torch.empty(count, self.units, device=self.device)
        self.seen: set[int] = set()

    def receive(self, index: int, value: torch.Tensor) -> None:
        item = self.found[index]
        value = units_first(value, item.tap.value, self.count)
        mean, peak, lines = reduce(value)
        columns = item.layer.columns
        self.mean[:, columns] = mean
        self.peak[:, columns] = peak
        self.tops[index].update(self.peak[:, columns], value, lines, self.position)
        self.seen.add(index)
        if self.also is not None:
            self.also(index, value)

    def top(self) -> dict[str, np.ndarray]:
        """Arrays top_values float32, top_positions int64, top_places int32, each [U, k], best first."""
        return {
            "top_values": np.concatenate([t.values.T.cpu().numpy() for t in self.tops]).astype(np.float32),
            "top_positions": np.concatenate([t.positions.T.cpu().numpy() for t in self.tops]),
            "top_places": np.concatenate([t.places.T.cpu().numpy() for t in self.tops]).astype(np.int32),
        }


def reduce(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Mean and maximum over the positions of a value [b, units, positions…], two tensors [b, units]; and the maximum of each line, or None.

    The maxima of lines [b, units, H] (of tokens: of segments) come where they cost nothing, and make it cheap to find the
    place of a maximum later.
    """
    if value.dim() == 2:
        return value, value, None
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous():
        # amax over channels_last maps with few channels is 6 to 13 times slower than pooling.
        height, width = value.shape[2:]
        if height * width <= 64:
            return value.mean((2, 3)), F.max_pool2d(value, (height, width)).flatten(1), None
        lines = F.max_pool2d(value, (1, width))
        return value.mean((2, 3)), F.max_pool2d(lines, (height, 1)).flatten(1), lines.squeeze(3)
    if value.dim() == 3 and value.stride(1) == 1 and value.shape[2] > 4 * SEGMENT:
        tokens = value.movedim(1, 2)
        whole = tokens.shape[1] // SEGMENT * SEGMENT
        lines = tokens[:, :whole].unflatten(1, (-1, SEGMENT)).amax(2)
        if whole < tokens.shape[1]:
            lines = torch.cat([lines, tokens[:, whole:].amax(1, keepdim=True)], dim=1)
        return tokens.mean(1), lines.amax(1), lines.movedim(2, 1)
    dims = tuple(range(2, value.dim()))
    return value.mean(dims), value.amax(dims), None


class TopLists:
    """For each unit of a layer the k inputs with the largest maximum, the earlier input first among equals.

    values float32, positions int64 (−1: none yet), places int64 (flat position of the maximum, −1: no positions), each [k, units].
    """

    def __init__(self, units: int, k: int, device: torch.device) -> None:
        self.values = torch.full((k, units), float("-inf"), device=device)
        self.positions = torch.full((k, units), -1, dtype=torch.int64, device=device)
        self.places = torch.full((k, units), -1, dtype=torch.int64, device=device)

    def update(self, peak: torch.Tensor, value: torch.Tensor, lines: torch.Tensor | None, position: int) -> None:
        """Take in a batch that begins at `position`: maxima [b, units] of a value [b, units, positions…], and those of its lines where known."""
        k = len(self.values)
        better = (peak.amax(0) > self.values[-1]).nonzero().squeeze(1)
        if not len(better):
            return
        everything = len(better) == self.values.shape[1]
        old = self.values if everything else self.values[:, better]
        merged = torch.cat([old, peak if everything else peak[:, better]])
        # Stable, so that among equals the earlier input stays first.
        order = merged.sort(dim=0, descending=True, stable=True)[1][:k]
        new = order >= k
        rows, columns = new.nonzero(as_tuple=True)
        inputs = order[rows, columns] - k
        kept = order.clamp(max=k - 1)
        values = merged.gather(0, order)
        positions = (self.positions if everything else self.positions[:, better]).gather(0, kept)
        places = (self.places if everything else self.places[:, better]).gather(0, kept)
        positions[new] = inputs + position
        if lines is not None:
            # A whole map lies scattered over all of a value whose units come last in memory; one line of it does not.
            units = better[columns]
            line = lines[inputs, units].argmax(1)
            if value.dim() == 4:
                places[new] = line * value.shape[3] + value[inputs, units, line].argmax(1)
            else:
                segment = (line[:, None] * SEGMENT + torch.arange(SEGMENT, device=line.device)).clamp_(max=value.shape[2] - 1)
                found = value[inputs[:, None], units[:, None], segment].argmax(1, keepdim=True)
                places[new] = segment.gather(1, found).squeeze(1)
        elif value.dim() > 2:
            places[new] = value[inputs, better[columns]].flatten(1).argmax(1)
        if everything:
            self.values, self.positions, self.places = values, positions, places
        else:
            self.values[:, better] = values
            self.positions[:, better] = positions
            self.places[:, better] = places


class Moments:
    """Mean and standard deviation per group, updated batch by batch (Chan, Golub & LeVeque 1979); float32, stable.

    counts int64 [G]; mean and squares (sum of squared deviations) float32 [G, U].
    """

    def __init__(self, groups: int, units: int) -> None:
        self.counts = torch.zeros(groups, dtype=torch.int64)
        self.mean = torch.zeros(groups, units)
        self.squares = torch.zeros(groups, units)

    def update(self, rows: torch.Tensor, group: torch.Tensor) -> None:
        """Take in rows [b, U] of the groups int64 [b]."""
        present, where, count = group.unique(return_inverse=True, return_counts=True)
        size = count[:, None].to(rows.dtype)
        mean = rows.new_zeros(len(present), rows.shape[1]).index_add_(0, where, rows).div_(size)
        squares = torch.zeros_like(mean).index_add_(0, where, (rows - mean[where]).square_())
        before = self.counts[present][:, None].to(rows.dtype)
        delta = mean.sub_(self.mean[present])
        share = size / (before + size)
        self.mean[present] += delta * share
        self.squares[present] += squares.add_(delta.square_().mul_(before * share))
        self.counts[present] += count

    def of_groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and population standard deviation float32 [G, U]; NaN for a group without inputs."""
        count = self.counts[:, None].float()
        std = (self.squares / count).sqrt_()
        mean = torch.where(count > 0, self.mean, float("nan"))
        return mean.numpy(), std.numpy()

    def of_parts(self, parts: int) -> tuple[np.ndarray, np.ndarray]:
        """The same over `parts` equal runs of consecutive groups: float32 [parts, U]."""
        counts = self.counts.reshape(parts, -1, 1).numpy().astype(np.float64)
        means = self.mean.numpy().reshape(parts, counts.shape[1], -1)
        squares = self.squares.numpy().reshape(parts, counts.shape[1], -1)
        mean = np.empty((parts, means.shape[2]), dtype=np.float32)
        std = np.empty_like(mean)
        for part in range(parts):
            there = counts[part, :, 0] > 0  # of a thousand classes a small data set holds few
            count, own = counts[part, there], means[part, there]
            total = max(count.sum(), 1.0)
            centre = (own * count).sum(0) / total
            spread = squares[part, there].sum(0, dtype=np.float64) + (count * (own - centre) ** 2).sum(0)
            mean[part], std[part] = centre, np.sqrt(spread / total)
        return mean, std


def compact(rows: np.ndarray, columns: Sequence[slice]) -> np.ndarray:
    """float16, or float32 where a value does not fit.

    It does not fit when it overflows, or when all values of a layer are so small that float16 would keep few digits of them.
    columns: the layers.
    """
    peaks = np.array([max(float(rows[:, c].max(initial=0.0)), -float(rows[:, c].min(initial=0.0))) for c in columns])
    if (peaks > float(np.finfo(np.float16).max)).any() or ((peaks > 0) & (peaks < 1e-3)).any():
        return rows
    return torch.from_numpy(rows).half().numpy()  # numpy takes five times as long
