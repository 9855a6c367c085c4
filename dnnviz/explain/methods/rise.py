"""RISE: how well the score does on the random views of the picture that show a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnviz.explain.perturb import FILL, SEED
from dnnviz.explain.registry import register
from dnnviz.parameters import Parameter

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dnnviz.explain.question import Answer, Question

_CELLS = 8  # of the coarse grid that masks are drawn on, along either side
_SHOWN = 0.5  # probability that a cell is shown


@register(
    "rise",
    title="RISE",
    family="perturbation",
    summary="The mean score of random soft views that show a pixel, against that of all views; blue where showing it hurts.",
    paper="Petsiuk, Das, Saenko: RISE. BMVC",
    year=2018,
    parameters=(
        Parameter("masks", "Masks", "integer", 1000, "random views that are tried; more make the map calmer", low=2, high=10000),
        FILL,
        SEED,
    ),
    passes=lambda parameters, shape: parameters["masks"],
)
def rise(question: Question, *, masks: int, fill: str, seed: int) -> Answer:
    """Expected score given that a pixel is shown, less the mean over all masks [n, 1, H, W].

    Masks are grids of 8 × 8 cells, each shown with probability 1/2, enlarged bilinearly and shifted by up to a cell. The
    expectation divides by the sum of the masks at the pixel, so that a constant score gives a flat map; the paper divides by
    the number of masks times 1/2, which that sum tends to. The note says how well the map would repeat with other masks.
    Source: Petsiuk et al. 2018, equations 4 to 6 and section 3.2.
    """
    import numpy as np
    import torch

    from dnnviz.explain.perturb import blocks, clear_scores, neutral, repeat_notes
    from dnnviz.explain.question import Answer

    inputs, blank = question.inputs, neutral(question, fill)
    clear = clear_scores(question)
    n, size = len(inputs), (inputs.shape[-2], inputs.shape[-1])
    random = np.random.default_rng(seed)
    cells = torch.from_numpy((random.random((masks, _CELLS, _CELLS)) < _SHOWN).astype(np.float32))
    shifts = random.random((masks, 2))
    # Of either half of the masks (even and odd): Σ mask · score, Σ mask, Σ score, number.
    product = inputs.new_zeros(2, n, *size)
    shown = inputs.new_zeros(2, *size)
    total = inputs.new_zeros(2, n)
    count = inputs.new_zeros(2)

    def reduced(which: slice) -> torch.Tensor:
        mean = total[which].sum(dim=0) / count[which].sum().clamp(min=1)
        return product[which].sum(dim=0) / shown[which].sum(dim=0).clamp(min=1e-6) - mean[:, None, None]

    with torch.inference_mode():
        for first, last, rows in blocks(question, masks):
            mask = enlarged(cells[first:last], shifts[first:last], size).to(inputs)
            views = (blank + (inputs - blank) * mask[:, None, None]).flatten(0, 1)
            # Changes of the score, so that sums stay small where the score is large.
            change = (question.score_of(views, rows) - clear[rows]).unflatten(0, (-1, n))
            for half in range(2):
                mine = slice((first + half) % 2, None, 2)
                product[half] += torch.einsum("mn,mhw->nhw", change[mine], mask[mine])
                shown[half] += mask[mine].sum(dim=0)
                total[half] += change[mine].sum(dim=0)
                count[half] += len(change[mine])
            heatmap = reduced(slice(None))
            question.watch(last, masks, heatmap)
    return Answer(heatmap[:, None], heatmap, repeat_notes(reduced(slice(0, 1)), reduced(slice(1, 2))))


def enlarged(cells: torch.Tensor, shifts: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Masks [m, H, W] from cells [m, s, s]: enlarged bilinearly to one cell more than the picture, and cut out at `shifts` [m, 2] of a cell."""
    import torch
    import torch.nn.functional as F

    grid = cells.shape[1]
    cell = [-(-length // grid) for length in size]
    wide = F.interpolate(cells[:, None], [(grid + 1) * side for side in cell], mode="bilinear", align_corners=False)[:, 0]
    starts = [[int(shift * side) for shift, side in zip(pair, cell, strict=True)] for pair in shifts]
    return torch.stack([mask[y : y + size[0], x : x + size[1]] for mask, (y, x) in zip(wide, starts, strict=True)])
