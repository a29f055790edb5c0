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
"""Maximum pixels of a picture: more than the largest phone cameras take, few enough for any computer's memory."""

ENOUGH = 2000
"""Larger pictures are reduced, but their longer side keeps at least this many pixels. At full size, a large one would
take more than a gigabyte."""

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, RuntimeError, TypeError, LookupError, MemoryError)
"""Exceptions that Pillow raises for damaged files."""


@functools.cache
def formats() -> tuple[str, ...]:
    """Return the formats that Pillow may try, whatever a file is called. Some other formats start programs."""
    Image.init()
    names = ("PNG", "JPEG", "JPEG2000", "HEIF", "AVIF", "WEBP", "TIFF", "GIF", "BMP",
             "DIB", "PPM", "TGA", "PCX", "QOI", "SGI", "PSD", "ICO")  # fmt: skip
    # Releases before 12.3 have known faults in reading PSD. Kaggle's image has such a release.
    is_safe = tuple(int(part) for part in PIL.__version__.split(".")[:2]) >= (12, 3)
    return tuple(name for name in names if name in Image.OPEN and (name != "PSD" or is_safe))


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
            with Image.open(file, formats=formats()):
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
    """Turn Pillow's errors about a picture into one of ours."""
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
    with Image.open(io.BytesIO(contents), formats=formats()) as image:
        # A JPEG with several pages has the same picture in other sizes.
        is_paged = image.format in ("TIFF", "GIF", "WEBP", "PNG", "AVIF")
        pages = getattr(image, "n_frames", 1) if is_paged else 1
        if pages > 100:
            raise DataError(
                f"{name}: {pages:,} pages or frames. Expected at most 100. Split it, or save the pages that you want "
                "read."
            )
        if pages == 1:
            yield _photo(image, name)
            return
        pixels, most = 0, 4 * MOST_PIXELS if image.format == "TIFF" else MOST_PIXELS
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
    """Read the picture that is open. A large one is made smaller while it is unpacked, if its format allows that."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(_too_large(name, f"{width} × {height} pixels, {width * height / 1e6:.0f} million"))
    if min(width, height) < 8:
        raise DataError(f"{name}: {width} × {height} pixels. Expected 8 or more each way. Take a larger picture.")
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    # A long, thin picture would become too thin at a smaller size.
    if max(image.size) < 10 * min(image.size):
        image.draft(None, (ENOUGH * width // max(image.size), ENOUGH * height // max(image.size)))
    image.load()
    upright = _reduced(ImageOps.exif_transpose(image))
    return Photo(_values(upright), (height, width) if turned else (width, height))


def _factor(image: Image.Image) -> int:
    """Return by how much a picture is made smaller. A long, thin one must not become too thin, if memory allows."""
    most_in_memory = 16_000_000  # pixels
    enough = min(max(image.size) // ENOUGH, min(image.size) // 600)
    return max(enough, math.ceil(math.sqrt(image.width * image.height / most_in_memory)))


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
    """Return the brightness or the colours of a picture from 0 to 1, on paper where it is transparent."""
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
        # Values that are not numbers are taken for paper, which does the least harm.
        return np.nan_to_num((values - least) / (most - least), nan=1.0, posinf=1.0, neginf=0.0).astype(np.float32)
    opaque = None
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        opaque = np.asarray(image.getchannel("A"), np.float32) / 255
    if image.mode not in ("1", "L", "LA"):
        image = image.convert("RGB")
    has_colours = image.mode == "RGB" and len({band.tobytes() for band in image.split()}) > 1
    values = np.array(image if has_colours else image.convert("L"), np.float32)
    values /= 255
    if opaque is None:
        return values
    opaque = opaque if values.ndim == 2 else opaque[:, :, None]
    # Light ink would be lost on white paper.
    light = (values * opaque).mean() > 0.5 * opaque.mean()
    paper = 0.0 if light and opaque.mean() < 0.5 else 1.0
    return values * opaque + paper * (1 - opaque)
