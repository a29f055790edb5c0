"""The built-in sample of digits, and a test with its help whether the images of a table are upright."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from kaggle_digits.digits import CLASSES, PIXELS, SIDE
from kaggle_digits.tables import Rows, Table

if TYPE_CHECKING:  # importing it costs 0.1 s, and `check` does not need it
    import numpy as np

log = logging.getLogger(__name__)

TRANSPOSED = 4  # with this, ``_turned`` only transposes images


@functools.cache
def load_sample() -> tuple[Rows, Rows]:
    """Make MNIST-like data from scikit-learn's 1,797 handwritten digits.

    Each image of 8×8 pixels is resampled to 20×20 and centred in 28×28.

    Returns:
        labelled rows, and the 360 rows to predict.

    Source: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits", as in scikit-learn.
    """
    import numpy as np
    from scipy import ndimage
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    small, digits = load_digits(return_X_y=True)
    images = ndimage.zoom(small.reshape(-1, 8, 8), (1, 2.5, 2.5), order=1, grid_mode=True, mode="nearest")
    margin = (SIDE - images.shape[1]) // 2
    images = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    pixels = np.rint(images.reshape(len(images), PIXELS) * (255 / 16)).astype(np.uint8)
    split = train_test_split(np.arange(len(digits)), test_size=360, stratify=digits, random_state=0)
    train, test = (Rows(pixels[part], digits[part].astype(np.int64)) for part in split)
    for array in (train.pixels, train.digits, test.pixels):  # all callers share these arrays
        array.flags.writeable = False  # type: ignore[union-attr]
    return train, replace(test, digits=None)


def read_upright(table: Table, kind: str, beside: Table | None) -> Rows:
    """Read a table, and set its images upright if they are transposed.

    Args:
        table: what to read.
        kind: "train" or "test".
        beside: the training table of the same source. Its labels show whether the images of both are upright.
    """
    rows = table.load(kind)
    share = _share_on_side(rows.pixels)
    if share > (0.5 if beside is None else 0.3) or (beside and len(rows.pixels) < 50):
        known = beside.load("train") if beside else rows
        if known.digits is not None and _are_transposed(known.pixels, known.digits):
            note = "transposed images, as EMNIST has them, set upright"
            rows = replace(rows, pixels=_turned(rows.pixels, TRANSPOSED).copy(), notes=(*rows.notes, note))
        elif len(rows.pixels) >= 50 and share > 0.5:
            log.warning(
                "%s: most images are wider than tall, which digits are not. If they are transposed or turned, networks "
                "that learned upright digits misread them. Look at some of them.",
                table,
            )
    if rows.notes:
        log.info("%s: not in Kaggle's own form: %s", table, "; ".join(rows.notes))
    return rows


def _some(values: np.ndarray) -> np.ndarray:
    """Return 2,000 rows that are spread over a table, because it may be sorted."""
    return values[:: max(1, len(values) // 2000)]


def _share_on_side(pixels: np.ndarray) -> float:
    """Return the share of images that are wider than tall. Of the competition's digits, it is a tenth."""
    import numpy as np

    images = _some(pixels).reshape(-1, SIDE, SIDE).astype(np.float32)
    positions = np.arange(SIDE, dtype=np.float32)

    def spread(profiles: np.ndarray) -> np.ndarray:
        total = np.maximum(1, profiles.sum(axis=1))
        return profiles @ positions**2 / total - (profiles @ positions / total) ** 2

    return float((spread(images.sum(axis=1)) > spread(images.sum(axis=2))).mean()) if len(images) else 0.0


def _turned(pixels: np.ndarray, how: int) -> np.ndarray:
    """Turn images by 0 to 3 quarters, or, from 4 on, transpose them first."""
    import numpy as np

    images = pixels.reshape(-1, SIDE, SIDE)
    images = np.rot90(images.transpose(0, 2, 1) if how >= TRANSPOSED else images, how % 4, (1, 2))
    return images.reshape(-1, PIXELS)


def _are_transposed(pixels: np.ndarray, digits: np.ndarray) -> bool:
    """Whether images look most like upright digits once they are transposed, and not if they are turned.

    Each is compared with the mean of each digit in the built-in sample.
    """
    import numpy as np

    if len(pixels) < 50 or _share_on_side(pixels) < 0.5:
        return False
    sample = load_sample()[0]
    means = np.stack([sample.pixels[sample.digits == digit].mean(axis=0) for digit in range(CLASSES)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    some, known = _some(pixels), _some(digits)
    right = [float(((_turned(some, how) @ means.T).argmax(axis=1) == known).mean()) for how in range(8)]
    best = right.pop(TRANSPOSED)
    return best > 1.5 * max(right)
