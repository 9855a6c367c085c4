"""Which inputs are kept one by one, and which images are held for the lists of top inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dnnviz.errors import RunError
from dnnviz.inputs import Batch, Look
from dnnviz.statistics import TopLists

# Images stored for the lists of top inputs, beside the inputs kept: no more than this many, and no more than these bytes.
TOP_IMAGES = 4096
TOP_BYTES = 64 * 2**20


@dataclass
class _Slot:
    """An input kept: its number in the stream, where it comes from, and its tensor where the image does not give it back."""

    position: int
    split: int
    label: int
    id: str
    tensor: torch.Tensor | None = None


class Keeper:
    """Chooses inputs as they stream by, as evenly over (split, class) as the data allow, and holds their rows.

    A class takes a place from the largest one while it has at least two fewer; within a class the earlier input stays.
    So the choice depends on the labels and their order alone: the same for every snapshot of a run.

    count: inputs to keep at most; size: (C, H, W) of an input; positions: take exactly these positions in the stream
    instead (a run that exists).
    After `finish`, in order of position: mean, peak float32 [n, U]; logits float32 [n, K]; images uint8 [n, H, W, C];
    labels, positions int64 [n]; splits uint8 [n]; ids.
    """

    def __init__(self, count: int, units: int, size: tuple[int, ...], positions: np.ndarray | None = None) -> None:
        self.count = count if positions is None else len(positions)
        self.size = size
        self._chosen = None if positions is None else {int(p) for p in positions}
        self._slots: list[_Slot] = []
        self._groups: dict[tuple[int, int], list[int]] = {}
        self._most = self._used = 0
        # Not written, not there: an empty array takes memory as its rows fill.
        self.mean = np.empty((self.count, units), dtype=np.float32)
        self.peak = np.empty((self.count, units), dtype=np.float32)
        self.logits = np.empty((0, 0), dtype=np.float32)
        self.images = np.empty((0, 0, 0, 0), dtype=np.uint8)
        self.held: dict[int, tuple[np.ndarray, int]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def offer(self, batch: Batch, split: int, position: int, mean: torch.Tensor, peak: torch.Tensor, logits: torch.Tensor, look: Look) -> None:
        """Look at a batch whose first input is number `position` in the stream, and take what is wanted of it."""
        taken: dict[int, int] = {}
        for row, label in enumerate(batch.labels.tolist()):
            slot = self._place(position + row, split, label)
            if slot is not None:
                entry = _Slot(position + row, split, label, batch.ids[row])
                if slot == len(self._slots):
                    self._slots.append(entry)
                else:
                    self._slots[slot] = entry
                taken[slot] = row
        if not taken:
            return
        slots, rows = list(taken), torch.tensor(list(taken.values()))
        tensors = batch.tensors[rows]
        images, exact = look.images(tensors)
        if not self.images.size:
            self.images = np.empty((self.count, *images.shape[1:]), dtype=np.uint8)
            self.logits = np.empty((self.count, logits.shape[1]), dtype=np.float32)
        self.mean[slots], self.peak[slots] = mean[rows].numpy(), peak[rows].numpy()
        self.logits[slots], self.images[slots] = logits[rows].numpy(), images
        for i, slot in enumerate(slots):
            self._slots[slot].tensor = None if exact[i] else tensors[i].clone()

    def _place(self, position: int, split: int, label: int) -> int | None:
        """Where an input goes: a new place, that of an input of the largest class, or none."""
        if self._chosen is not None:
            return len(self._slots) if position in self._chosen else None
        mine = self._groups.setdefault((split, label), [])
        if self._used < self.count:
            slot = self._used
            self._used += 1
        elif len(mine) + 2 <= self._most:
            slot = next(members for members in self._groups.values() if len(members) == self._most).pop()
            self._most = max(map(len, self._groups.values()))
        else:
            return None
        mine.append(slot)
        self._most = max(self._most, len(mine))
        return slot

    def hold(self, batch: Batch, position: int, tops: Sequence[TopLists], look: Look) -> None:
        """Hold the images of this batch that are in a list of top inputs, where the data cannot be read again; the best ranks up to a limit."""
        ranks = best_ranks([top.positions for top in tops])
        fresh = [p for p in ranks if p >= position]
        for p in fresh:
            image, _ = look.images(batch.tensors[p - position][None])
            self.held[p] = (image[0], int(batch.labels[p - position]))
        limit = image_limit(self.size)
        if len(self.held) > limit:
            keep = sorted((p for p in self.held if p in ranks), key=lambda p: (ranks[p], p))[:limit]
            self.held = {p: self.held[p] for p in keep}

    def finish(self) -> None:
        """Put everything in the order of the stream."""
        order = sorted(range(len(self._slots)), key=lambda s: self._slots[s].position)
        if self._chosen is not None and len(order) < self.count:
            raise RunError(
                f"The data set has fewer inputs than when this run was begun ({self.count - len(order)} of the inputs kept are missing); "
                "give the same data, or another folder."
            )
        in_order = order == list(range(len(order)))
        self.mean, self.peak, self.logits, self.images = (
            array[: len(order)] if in_order else array[order] for array in (self.mean, self.peak, self.logits, self.images)
        )
        self._slots = [self._slots[s] for s in order]
        self.labels = np.array([s.label for s in self._slots], dtype=np.int64)
        self.positions = np.array([s.position for s in self._slots], dtype=np.int64)
        self.splits = np.array([s.split for s in self._slots], dtype=np.uint8)
        self.ids = [s.id for s in self._slots]

    @property
    def exact(self) -> bool:
        """Whether the images give every input kept back to 1/255."""
        return all(slot.tensor is None for slot in self._slots)

    def tensors(self, look: Look) -> np.ndarray:
        """Inputs kept, float32 [n, C, H, W]; those that their image gives back are made from it."""
        result = look.tensors(self.images, self.size[0])
        for row, slot in enumerate(self._slots):
            if slot.tensor is not None:
                result[row] = slot.tensor.numpy()
        return result


def image_limit(size: Sequence[int]) -> int:
    """How many images (C, H, W) may be stored beside the inputs kept."""
    return max(min(TOP_IMAGES, TOP_BYTES // int(np.prod(size))), 1)


def best_ranks(positions: Sequence[torch.Tensor]) -> dict[int, int]:
    """The best rank of every input in any list: position in the stream → rank; positions: [k, units] for each layer."""
    result: dict[int, int] = {}
    joined = torch.cat([p.cpu() for p in positions], dim=1)
    for rank in range(len(joined)):
        for position in joined[rank].unique().tolist():
            if position >= 0:
                result.setdefault(position, rank)
    return result
