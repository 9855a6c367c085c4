"""Superpixels: pieces of a picture that hang together in place and colour. No torch and no scikit-image at import."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from dnnviz.explain.question import Question


def superpixels(question: Question, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut each input into about `count` pieces: (pieces int64 [n, H, W], numbered from 0; how many int64 [n]); kept for later methods.

    Each picture is stretched to its own range first, so that neither the normalisation nor the other inputs matter. Of SLIC
    it is the variant that weighs place against colour piece by piece (SLICO), since one weight for all leaves a few huge
    pieces where there is texture. Source: Achanta et al.: SLIC superpixels. PAMI 2012; implementation of scikit-image.
    """
    return question.once(("superpixels", count), lambda: cut(question.inputs, count))


def cut(inputs: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pieces of pictures [n, C, H, W], as `superpixels` has them."""
    import torch
    from skimage.segmentation import slic

    pieces = []
    for image in np.nan_to_num(inputs.detach().cpu().double().numpy()).transpose(0, 2, 3, 1):
        low, high = image.min(), image.max()
        shown = (image - low) / max(high - low, 1e-12)
        found = slic(shown, n_segments=count, slic_zero=True, sigma=min(shown.shape[:2]) / 224, start_label=0, channel_axis=-1)
        pieces.append(np.unique(found, return_inverse=True)[1].reshape(found.shape))
    numbered = torch.from_numpy(np.stack(pieces)).to(inputs.device)
    return numbered, numbered.flatten(1).amax(dim=1) + 1
