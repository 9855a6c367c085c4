"""An image of the user's own: read whatever it is, fit it to the run's inputs, keep it among the results. No torch."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dnnviz.errors import DNNVizError
from dnnviz.results import Results, key
from dnnviz.store import Run

MOST_BYTES = 32 * 1024**2
_MOST_PIXELS = 80_000_000
_KIND = "upload"
# Only formats that Pillow decodes by itself: others start programs (EPS) or carry other files inside.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")


def is_upload(source: str) -> bool:
    """Whether a source of a gallery is the key of an uploaded image."""
    return source.startswith(f"{_KIND}-")


def store_upload(results: Results, run: Run, name: str, content: bytes) -> str:
    """Fit an image file to the run's inputs and store it; returns its key.

    Raises DNNVizError with a sentence for a file that is too large, damaged or no image.
    """
    image = fit(read_image(name, content), tuple(run.manifest["preprocessing"]["size"]))
    found = key(_KIND, image=image)
    return results.put(found, {"image": image})


def load_upload(results: Results, source: str) -> np.ndarray:
    """The image uint8 [H, W, C] of an upload; raises DNNVizError where it is gone."""
    try:
        arrays = results.get(source)
    except ValueError:
        arrays = None
    if arrays is None or "image" not in arrays:
        raise DNNVizError("The uploaded image is no longer stored here; upload it again.")
    return arrays["image"]


def read_image(name: str, content: bytes) -> Image.Image:
    """Decode an image file to mode L or RGB: upright (EXIF), on white where it is transparent, 16 bits scaled to 8."""
    shown = f"“{name[:80]}”"
    if len(content) > MOST_BYTES:
        raise DNNVizError(f"{shown} has {len(content) / 1024**2:.0f} MB; images up to {MOST_BYTES // 1024**2} MB can be taken.")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images before it decodes them; the size is checked below.
            warnings.simplefilter("ignore")
            Image.init()
            image = Image.open(io.BytesIO(content), formats=[name for name in _FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError:
        raise DNNVizError(f"{shown} is too large; images up to {_MOST_PIXELS // 10**6} million pixels can be taken.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, KeyError):
        raise DNNVizError(f"{shown} is no image that can be read; upload a PNG, JPEG, WebP, GIF, BMP or TIFF file.") from None
    if image.width * image.height > _MOST_PIXELS:
        raise DNNVizError(f"{shown} has {image.width} × {image.height} pixels; images up to {_MOST_PIXELS // 10**6} million pixels can be taken.")
    try:
        image.load()
        return _as_eight_bits(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, MemoryError) as error:
        reason = (str(error).splitlines() or ["it ends too early"])[0]
        raise DNNVizError(f"{shown} is damaged and cannot be read ({reason}).") from None


def fit(image: Image.Image, size: tuple[int, int, int]) -> np.ndarray:
    """Scale until the image covers (C, H, W) and crop its middle: uint8 [H, W, C], grey where C is 1."""
    channels, height, width = size
    image = image.convert("L" if channels == 1 else "RGB")
    covering = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(covering, dtype=np.uint8)
    return pixels[:, :, None] if channels == 1 else pixels


def _as_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        values = np.asarray(image).astype(np.float64)
        low, high = (0.0, 65535.0) if image.mode != "F" and 0 <= values.min() <= values.max() <= 65535 else (values.min(), values.max())
        return Image.fromarray((255 * (values - low) / max(high - low, 1e-12)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
