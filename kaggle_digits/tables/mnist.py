"""MNIST in the files of its makers, and in the one that Keras downloads."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from kaggle_digits.digits import CLASSES, PIXELS, SIDE
from kaggle_digits.errors import DataError
from kaggle_digits.files import read_arrays, read_at_most
from kaggle_digits.tables import Rows, Table
from kaggle_digits.tables.form import describe_mistaken
from kaggle_digits.tables.sample import read_upright
from kaggle_digits.tables.text import MOST_ROWS, File, check_rows

if TYPE_CHECKING:  # importing it costs 0.1 s, and `check` does not need it
    import numpy as np


def idx_content(file: File) -> tuple[str, int] | None:
    """Tell from its first bytes whether a file holds "images" or "labels" in IDX format, and how many; or None."""
    try:
        with file.open() as stream:
            head = stream.read(8)
    except DataError:  # not readable
        return None
    # QMNIST has labels as 32-bit numbers, eight in a row, with the digit first.
    contents = {b"\0\0\x08\x03": "images", b"\0\0\x08\x01": "labels", b"\0\0\x0c\x02": "labels"}
    content = contents.get(head[:4])
    return (content, int.from_bytes(head[4:], "big")) if content else None


@dataclass(frozen=True)
class IdxTable:
    """Images, and perhaps labels, in the files of MNIST's makers.

    Args:
        images: a file of 28 × 28 images.
        labels: a file of as many labels, or None.

    Source: LeCun, Cortes and Burges, THE MNIST DATABASE, "file formats".
    """

    images: File
    labels: File | None = None
    is_kaggle = False

    def __str__(self) -> str:
        return str(self.images)

    def read(self, kind: str, *, beside: Table | None = None) -> Rows:
        """Read the whole table, its images upright."""
        return read_upright(self, kind, beside)

    def load(self, kind: str) -> Rows:
        """Read the images and labels, as they are."""
        pixels = self._load(self.images, (SIDE, SIDE)).reshape(-1, PIXELS)
        digits = self._load_labels(self.labels) if self.labels else None
        if digits is not None and len(digits) != len(pixels):
            raise DataError(
                f"{self.labels}: {len(digits)} labels for {len(pixels)} images. Expected as many. Check both."
            )
        if kind == "train" and digits is None:
            raise DataError(f"{self.images}: no file of labels beside it. Expected one, as MNIST has it. Add it.")
        _check_labels(digits, self.labels)
        return Rows(pixels, digits, (f"MNIST's own files, {len(pixels):,} images",))

    def count(self) -> int:
        """Return the number of images that the file names."""
        with self.images.open() as stream:
            return self._sizes(stream, self.images, (SIDE, SIDE))[0]

    def _load_labels(self, file: File) -> np.ndarray:
        import numpy as np

        with file.open() as stream:
            head = stream.read(12)
            if head[:4] != b"\0\0\x0c\x02":
                return self._load(file, ()).astype("int64")
            rows, width = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:], "big")
            check_rows(file, rows * width // PIXELS)
            contents = read_at_most(stream, 4 * rows * width + 1)
        if not width or len(contents) != 4 * rows * width:
            raise DataError(
                f"{file}: not whole. Expected {rows:,} rows of labels, as its head says. Download it again."
            )
        return np.frombuffer(contents, ">i4").reshape(rows, width)[:, 0].astype("int64")

    def _load(self, file: File, shape: tuple[int, ...]) -> np.ndarray:
        import numpy as np

        with file.open() as stream:
            sizes = self._sizes(stream, file, shape)
            expected = math.prod(sizes)
            values = np.frombuffer(read_at_most(stream, expected + 1), np.uint8)
        if len(values) != expected:
            arrived = f"more than {expected:,}" if len(values) > expected else f"{len(values):,}"
            raise DataError(
                f"{file}: {arrived} bytes of data. Expected {expected:,}, as its head says. Download it again."
            )
        return values.reshape(sizes)

    def _sizes(self, stream: IO[bytes], file: File, shape: tuple[int, ...]) -> tuple[int, ...]:
        head = stream.read(4 + 4 * (1 + len(shape)))
        if mistaken := describe_mistaken(head):
            raise DataError(f"{file}: holds {mistaken[0]}. Expected MNIST's own file. {mistaken[1]}")
        sizes = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, len(head), 4))
        if head[:4] != bytes([0, 0, 8, 1 + len(shape)]) or len(sizes) != 1 + len(shape) or sizes[1:] != shape:
            what = f"{len(shape) + 1}-dimensional bytes" + (f" of {SIDE} × {SIDE}" if shape else "")
            raise DataError(f"{file}: not an IDX file of {what}. Expected MNIST's own file. Download it again.")
        check_rows(file, sizes[0])
        return sizes


@dataclass(frozen=True)
class KerasTable:
    """One half of the file that ``keras.datasets.mnist`` downloads.

    Args:
        file: ``mnist.npz``.
        part: "train" or "test".
    """

    file: File
    part: str
    is_kaggle = False

    def __str__(self) -> str:
        return str(self.file)

    def read(self, kind: str, *, beside: Table | None = None) -> Rows:
        """Read the whole table, its images upright."""
        return read_upright(self, kind, beside)

    def load(self, kind: str) -> Rows:  # noqa: ARG002
        """Read the images and labels, as they are."""
        import numpy as np

        most = MOST_ROWS * PIXELS
        with self.file.open() as stream:
            contents = read_at_most(stream, most + 1)
        if not contents.startswith(b"PK") and (mistaken := describe_mistaken(contents[:200])):
            raise DataError(f"{self.file}: holds {mistaken[0]}. Expected Keras' mnist.npz. {mistaken[1]}")
        if len(contents) > most:
            raise DataError(f"{self.file}: more than {most:,} bytes. Expected a smaller table. Split the file.")
        x, y = f"x_{self.part}", f"y_{self.part}"
        try:
            arrays = read_arrays(io.BytesIO(contents), {}, others=(x, y), most=most, exact=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.file}: not readable as mnist.npz ({error}). Expected the arrays {x} and {y}, as in Keras' own "
                "file. Download it again."
            ) from error
        images, digits = arrays[x], arrays[y].astype(np.int64)
        if digits.ndim != 1 or images.shape != (len(digits), SIDE, SIDE) or images.dtype != np.uint8:
            raise DataError(
                f"{self.file}: {x} is {images.dtype} {images.shape}, and {y} {digits.shape}. Expected uint8 "
                f"(N, {SIDE}, {SIDE}) and (N,). Download it again."
            )
        _check_labels(digits, self.file)
        return Rows(images.reshape(-1, PIXELS), digits, (f"Keras' mnist.npz, {len(images):,} images",))

    def count(self) -> int:
        """Return the number of images."""
        return len(self.load(self.part).pixels)


def _check_labels(digits: np.ndarray | None, file: File | None) -> None:
    if digits is None or not len(digits) or (digits.min() >= 0 and digits.max() < CLASSES):
        return
    import numpy as np

    row = int(np.flatnonzero((digits < 0) | (digits >= CLASSES))[0])
    raise DataError(
        f"{file}: row {row + 1} has label {digits[row]}. Expected a digit from 0 to 9. Correct or remove the row."
    )
