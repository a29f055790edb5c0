"""Read image files as brightness, or say in one paragraph why that is impossible."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kaggle_digits.errors import DataError

MOST_PIXELS = 50_000_000
"""A picture's most pixels: more than the largest phone cameras take, few enough for any computer's memory."""

LEAST_SIDE = 8
"""A picture needs this many pixels on its shorter side for a digit to be recognized."""

ENOUGH = 2000
"""A JPEG with a longer side of more pixels than this is read at a smaller size, which its format allows."""

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM")
"""The formats that Pillow may try. Some of its others start programs."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
"""Files with these suffixes in a folder are pictures."""

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, RuntimeError, TypeError, LookupError, MemoryError)
"""What Pillow raises for damaged files."""


def load_photo(source: Path | bytes, *, name: str | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a picture as brightness, the right way up.

    An animation gives its first frame. Transparent parts become paper from which the ink stands out.

    Args:
        source: an image file, or its contents.
        name: the name of the picture in messages; needed with contents.

    Returns:
        (H, W) float32 from 0 (black) to 1 (white), and the picture's full width and height. A large photograph may be
        returned at a smaller size.

    Raises:
        DataError: it is not a picture, or it is damaged, too large or too small.
        OSError: the file cannot be read.
    """
    name = name or str(source)
    if isinstance(source, Path):
        try:
            source = source.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{name}: no such file. Expected a picture. Check the name.") from error
    try:
        with warnings.catch_warnings():
            # Pillow warns about large pictures, which are refused here, and about odd metadata, which does no harm.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(source), formats=FORMATS) as image:
                return _brightness(image, name)
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(name, "more than 178 million pixels")) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: not a picture that can be read. Expected PNG, JPEG, WebP, TIFF, GIF or BMP. Save or export it as "
            "one of these; phones that take HEIC can share JPEG."
        ) from error
    except DAMAGED as error:
        raise DataError(
            f"{name}: the picture is damaged or cut off ({error}). Expected a whole file. Copy or export it again."
        ) from error


def _too_large(name: str, what: str) -> str:
    return (
        f"{name}: {what}. Expected at most {MOST_PIXELS // 1_000_000} million. Make it smaller, or cut out the part "
        "with the digits."
    )


def _brightness(image: Image.Image, name: str) -> tuple[np.ndarray, tuple[int, int]]:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(_too_large(name, f"{width} × {height} pixels, {width * height / 1e6:.0f} million"))
    if min(width, height) < LEAST_SIDE:
        raise DataError(
            f"{name}: {width} × {height} pixels. Expected {LEAST_SIDE} or more each way. Take a larger picture."
        )
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    # A long, thin picture would become too thin at a smaller size.
    if max(image.size) < 10 * min(image.size):
        image.draft("L", (ENOUGH * width // max(image.size), ENOUGH * height // max(image.size)))
    image.load()
    upright = ImageOps.exif_transpose(image)
    return _grey(upright), (height, width) if turned else (width, height)


def _grey(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return np.asarray(image, np.float32) / 65535
    if image.mode in ("I", "F"):  # these modes have no fixed range
        values = np.asarray(image, np.float64)
        known = values[np.isfinite(values)]
        least, most = (known.min(), known.max()) if known.size else (0.0, 0.0)
        if least == most:
            return np.ones(values.shape, np.float32)
        # Values that are not numbers say nothing. To take them for paper does the least harm.
        return np.nan_to_num((values - least) / (most - least), nan=1.0, posinf=1.0, neginf=0.0).astype(np.float32)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        opaque = np.asarray(image.getchannel("A"), np.float32) / 255
        seen = np.asarray(image.convert("RGB").convert("L"), np.float32) / 255
        # Light ink would be lost on white paper.
        light = (seen * opaque).sum() > 0.5 * opaque.sum()
        paper = 0.0 if light and opaque.mean() < 0.5 else 1.0
        return seen * opaque + paper * (1 - opaque)
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return np.asarray(image.convert("L"), np.float32) / 255
