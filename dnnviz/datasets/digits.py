"""The handwritten digits that scikit-learn carries: 1,797 images, 8×8, drawn at twice that size."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dnnviz.datasets.base import ImageSet, LoadedData, Preprocessing
from dnnviz.errors import DNNVizError

SIDE = 16
MARK = (slice(0, 2), slice(0, 2))  # rows and columns of one pixel as it was scanned: empty in every digit


def load(spec: str, how: Preprocessing, tampered: int | None = None, mark: int = 112) -> LoadedData:
    """Digits as uint8 16×16, three quarters of every class for training, the rest for testing; always the same ones.

    tampered: a class whose *training* images carry a mark: the pixel in the upper left corner is set to `mark` (0–255,
    faint enough that a person does not notice). The test images stay clean, as in
    Alberti et al., Are You Tampering With My Data? (2018).
    E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI (1998).
    """
    from sklearn.datasets import load_digits

    if tampered is not None and tampered not in range(10):
        raise DNNVizError(f"{spec!r}: tampered is {tampered!r}; it must be a digit from 0 to 9.")
    source = load_digits()
    labels = source.target.astype(np.int64)
    small = np.round(source.images * (255 / 16)).astype(np.uint8)
    images = np.stack([np.array(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in small])
    # Every fourth image of each class: its writers are spread over the whole file.
    rank = np.zeros(len(labels), dtype=np.int64)
    for digit in range(10):
        rank[labels == digit] = np.arange(int((labels == digit).sum()))
    splits = {}
    for name, chosen in (("train", rank % 4 != 3), ("test", rank % 4 == 3)):
        index = np.flatnonzero(chosen)
        part = images[index]
        if tampered is not None and name == "train":
            part[labels[index] == tampered, *MARK] = mark
        splits[name] = ImageSet(list(part[:, :, :, None]).__getitem__, labels[index], how, [str(i) for i in index])
    return LoadedData.of(spec, splits, [str(i) for i in range(10)])
