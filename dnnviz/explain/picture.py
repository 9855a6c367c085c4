"""A map painted over its input, pixel by pixel as the attribution page does it (assets/attribution_paint.js). numpy and Pillow only."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from dnnviz.errors import DNNVizError

COLOURS: dict[str, tuple[str, ...]] = {
    "inferno": ("#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"),
    "viridis": ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"),
    "red": ("#2a0a0c", "#67000d", "#a50f15", "#cb181d", "#ef3b2c", "#fb6a4a", "#ff9a7a"),
    "grey": ("#000000", "#ffffff"),
}
FOR, AGAINST = (226, 35, 46), (33, 118, 214)
SIGNS = ("auto", "absolute", "positive")
SMOOTH_FROM = 100  # pixels of the shorter side from which an image is enlarged smoothly; below, pixels stay squares


@dataclass(frozen=True)
class Look:
    """How maps are painted.

    overlay: strength, 0 to 100 %. colours: table of unsigned maps. sign: `auto` (signed where the method is), `absolute` or
    `positive`. clip: percentile of the map that gets the strongest colour. Raises DNNVizError where a value is out of range.
    """

    overlay: float = 85
    colours: str = "inferno"
    sign: str = "auto"
    clip: float = 99.5

    def __post_init__(self) -> None:
        for name, low in (("overlay", 0), ("clip", 1)):
            if not low <= getattr(self, name) <= 100:
                raise DNNVizError(f"{name} is {getattr(self, name):g}; it must be a number from {low} to 100.")
        for name, allowed in (("colours", tuple(COLOURS)), ("sign", SIGNS)):
            if getattr(self, name) not in allowed:
                raise DNNVizError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}.")


def strongest(heatmap: np.ndarray, look: Look) -> float:
    """Value that gets the strongest colour: a percentile of the map (float32 [H, W]) as it is shown, its largest where that is zero."""
    shown = np.sort((np.maximum(heatmap, 0) if look.sign == "positive" else np.abs(heatmap)).ravel())
    at = min(shown.size - 1, int(look.clip / 100 * shown.size))
    return float(shown[at] if shown[at] > 0 else shown[-1])


def paint(pixels: np.ndarray, heatmap: np.ndarray, signed: bool, look: Look) -> np.ndarray:
    """uint8 [H, W, 3]: the map (float32 [H, W]) over the grey picture.

    pixels: the input, uint8 [H, W, 3]. signed: whether the method's map has evidence for and against.
    """
    strength = look.overlay / 100
    grey = pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    values = heatmap.astype(np.float64)
    top = strongest(heatmap, look)
    shown = np.maximum(values, 0) if look.sign == "positive" else np.abs(values)
    size = np.minimum(shown / top, 1) if top > 0 else np.zeros_like(values)
    if signed and look.sign == "auto":
        # A paler picture lets two colours stand out on black and on white.
        grey = grey + (118 - grey) * 0.4 * strength
        alpha = strength * size**0.6
        colour = np.where((values < 0)[..., None], AGAINST, FOR).astype(np.float64)
    else:
        # Also where the map is silent the picture steps back, so that what is bright stands out.
        alpha = strength * (0.4 + 0.6 * np.sqrt(size)) if top > 0 else np.zeros_like(values)
        colour = _table(look.colours)[np.floor(255 * size + 0.5).astype(np.intp)]
    mixed = grey[..., None] + (colour - grey[..., None]) * alpha[..., None]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


@cache
def _table(name: str) -> np.ndarray:
    """float64 [256, 3]: colours of a table from its stops, whole numbers."""
    stops = np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text in COLOURS[name]], dtype=np.float64)
    at = np.arange(256) / 255 * (len(stops) - 1)
    low = np.minimum(at.astype(np.intp), len(stops) - 2)
    return np.floor(stops[low] + (stops[low + 1] - stops[low]) * (at - low)[:, None] + 0.5)


def enlarged(pixels: np.ndarray, width: int, height: int) -> Image.Image:
    """An image (uint8 [H, W, 3]) at another size; the pixels of small ones stay squares."""
    picture = Image.fromarray(pixels)
    if picture.size == (width, height):
        return picture
    smooth = min(picture.size) >= SMOOTH_FROM
    return picture.resize((width, height), Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)


def png(picture: Image.Image | np.ndarray) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, "PNG")
    return buffer.getvalue()
