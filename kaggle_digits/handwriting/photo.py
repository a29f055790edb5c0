"""Read image files as brightness and colour, or say in one paragraph why that is impossible."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import pillow_heif
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from kaggle_digits.errors import DataError

pillow_heif.register_heif_opener()

MOST_PIXELS = 50_000_000
"""A picture's most pixels: more than the largest phone cameras take, few enough for any computer's memory."""

MOST_IN_MEMORY = 16_000_000
"""Numbers are kept for at most this many pixels of a picture."""

LEAST_SIDE = 8
"""A picture needs this many pixels on its shorter side for a digit to be recognized."""

ENOUGH = 2000
"""A picture with a longer side of twice as many pixels, or more, is made smaller, but not below this. Numbers for every
pixel of a large one would take more than a gigabyte."""
ENOUGH_ACROSS = 600
"""The same for the shorter side of a long, thin picture."""

MOST_PAGES = 100
"""A TIFF has at most this many pages, and an animation this many frames."""

MOST_ON_PAGES = 4 * MOST_PIXELS
"""All pages of a TIFF have at most this many pixels together. All frames of an animation have at most as many as one
picture."""

FORMATS = (
    "PNG", "JPEG", "JPEG2000", "HEIF", "AVIF", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "TGA", "PCX", "QOI",
    "SGI", "PSD", "ICO",
)  # fmt: skip
"""The formats that Pillow may try, whatever a file is called. Some of its others start programs."""

SAFE_PSD = (12, 3)
"""Releases of Pillow before this one have known faults in reading PSD. Kaggle's image has an older one."""

PAGED = ("TIFF", "GIF", "WEBP", "PNG", "AVIF")
"""In these formats a file may have several pages or frames. A JPEG with several has the same picture in other sizes."""

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, RuntimeError, TypeError, LookupError, MemoryError)
"""What Pillow raises for damaged files."""


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of FORMATS that this release of Pillow has and reads safely."""
    Image.init()
    release = tuple(int(part) for part in PIL.__version__.split(".")[:2])
    return tuple(name for name in FORMATS if name in Image.OPEN and (name != "PSD" or release >= SAFE_PSD))


@dataclass(frozen=True)
class Photo:
    """A picture, the right way up.

    Args:
        picture: (H, W) or, with colours, (H, W, 3) float32 from 0 (black) to 1 (white). A large photograph may be at a
            smaller size.
        size: the picture's full width and height.
    """

    picture: np.ndarray
    size: tuple[int, int]


def is_picture(file: Path) -> bool:
    """Return whether a file is a picture by its contents, whatever its name is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_formats()):
                return True
    except (*DAMAGED, Image.DecompressionBombError):
        return False


def load_photos(source: Path | bytes, *, name: str | None = None) -> Iterator[Photo]:
    """Read a picture, or each page or frame of it, one after another: all at once may take gigabytes.

    Transparent parts become paper from which the ink stands out.

    Args:
        source: an image file, or its contents.
        name: the name of the picture in messages; needed with contents.

    Raises:
        DataError: it is not a picture, or it is damaged, too large or too small, or has too many pages.
        OSError: the file cannot be read.
    """
    name = name or str(source)
    if isinstance(source, Path):
        try:
            source = source.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{name}: no such file. Expected a picture. Check the name.") from error
    pages = _pages(source, name)
    while True:
        with _explained(name):
            photo = next(pages, None)
        if photo is None:
            return
        yield photo


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what Pillow says about a picture into one error."""
    try:
        with warnings.catch_warnings():
            # Pillow warns about large pictures, which are refused here, and about odd metadata, which does no harm.
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(name, "more than 178 million pixels")) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: not a picture that can be read. Expected PNG, JPEG, HEIC, WebP, TIFF, GIF or BMP. Save or export "
            "it as one of these."
        ) from error
    except DAMAGED as error:
        raise DataError(
            f"{name}: the picture is damaged or cut off ({error}). Expected a whole file. Copy or export it again."
        ) from error


def _pages(contents: bytes, name: str) -> Iterator[Photo]:
    with Image.open(io.BytesIO(contents), formats=_formats()) as image:
        pages = getattr(image, "n_frames", 1) if image.format in PAGED else 1
        if pages > MOST_PAGES:
            raise DataError(
                f"{name}: {pages:,} pages or frames. Expected at most {MOST_PAGES}. Split it, or save the pages that "
                "you want read."
            )
        if pages == 1:
            yield _photo(image, name)
            return
        pixels, most = 0, MOST_ON_PAGES if image.format == "TIFF" else MOST_PIXELS
        for page in ImageSequence.Iterator(image):
            pixels += page.width * page.height
            if pixels > most:
                raise DataError(
                    f"{name}: its pages or frames have more than {most // 1_000_000} million pixels together. Expected "
                    "fewer. Split it, or save those that you want read."
                )
            yield _photo(page, name)


def _too_large(name: str, what: str) -> str:
    return (
        f"{name}: {what}. Expected at most {MOST_PIXELS // 1_000_000} million. Make it smaller, or cut out the part "
        "with the digits."
    )


def _photo(image: Image.Image, name: str) -> Photo:
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
        image.draft(None, (ENOUGH * width // max(image.size), ENOUGH * height // max(image.size)))
    image.load()
    upright = _reduced(ImageOps.exif_transpose(image))
    return Photo(_values(upright), (height, width) if turned else (width, height))


def _factor(image: Image.Image) -> int:
    """Return by how much a picture is made smaller. A long, thin one must not become too thin, if memory allows."""
    wanted = min(max(image.size) // ENOUGH, min(image.size) // ENOUGH_ACROSS)
    return max(wanted, math.ceil(math.sqrt(image.width * image.height / MOST_IN_MEMORY)))


def _reduced(image: Image.Image) -> Image.Image:
    """Make a large picture smaller, by means over blocks of pixels, before it is turned into numbers."""
    factor = _factor(image)
    if factor < 2 or image.mode.startswith("I;16"):  # Pillow cannot reduce the latter
        return image
    if "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in ("1", "P", "PA"):
        image = image.convert({"1": "L", "P": "RGB", "PA": "RGBA"}[image.mode])
    return image.reduce(factor)


def _values(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        values = np.asarray(image, np.float32)
        if (factor := _factor(image)) > 1:
            height, width = (side // factor for side in values.shape)
            blocks = values[: height * factor, : width * factor].reshape(height, factor, width, factor)
            values = blocks.mean(axis=(1, 3), dtype=np.float32)
        return values / 65535
    if image.mode in ("I", "F"):  # these modes have no fixed range
        values = np.asarray(image, np.float64)
        known = values[np.isfinite(values)]
        least, most = (known.min(), known.max()) if known.size else (0.0, 0.0)
        if least == most:
            return np.ones(values.shape, np.float32)
        # Values that are not numbers say nothing. To take them for paper does the least harm.
        return np.nan_to_num((values - least) / (most - least), nan=1.0, posinf=1.0, neginf=0.0).astype(np.float32)
    opaque = None
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        opaque = np.asarray(image.getchannel("A"), np.float32) / 255
    if image.mode not in ("1", "L", "LA"):
        image = image.convert("RGB")
    seen = np.array(image.convert("L") if image.mode != "RGB" or _is_grey(image) else image, np.float32)
    seen /= 255
    if opaque is None:
        return seen
    opaque = opaque if seen.ndim == 2 else opaque[:, :, None]
    # Light ink would be lost on white paper.
    light = (seen * opaque).mean() > 0.5 * opaque.mean()
    paper = 0.0 if light and opaque.mean() < 0.5 else 1.0
    return seen * opaque + paper * (1 - opaque)


def _is_grey(image: Image.Image) -> bool:
    """Return whether an RGB picture has no colours, as a scan in grey has."""
    red, green, blue = image.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()
