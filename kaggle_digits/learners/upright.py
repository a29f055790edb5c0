"""Set digits upright and stretch them to one width, by the moments of their ink."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kaggle_digits.digits import PIXELS, SIDE

STEEPEST = 1.0
"""Maximum shift that sets a digit upright, in columns per row."""

NARROWEST, WIDEST = 0.5, 1.5
"""Limits of a digit's width, as multiples of the common width. A narrower or wider digit is stretched by the same
factor as one at the limit."""

MIDDLE = (SIDE - 1) / 2


def normalise_pixels(pixels: np.ndarray, *, deslant: bool = False, spread: float = 0.0) -> np.ndarray:
    """Set every digit upright, or stretch it sideways to a common width, or both. Its centre of mass stays in place.

    Args:
        pixels: (N, 784) uint8 or float32, 0–255.
        deslant: whether to lean each digit so that the line through its ink, by least squares of columns on rows, is
            upright.
        spread: the standard deviation of the ink's columns, in pixels, after stretching; 0 does not stretch.

    Returns:
        (N, 784) uint8, 0–255, interpolated bilinearly. Pixels from outside count as paper. An image without ink stays
        as it is.

    Source: the moments of LeCun et al. 1998, Gradient-based learning applied to document recognition ("deslanted"), and
    of Liu et al. 2004, Handwritten digit recognition: investigation of normalization and feature extraction techniques.
    """
    normalised = np.empty(pixels.shape, np.uint8)
    chunk = 1024  # few enough that their data fits a processor's cache
    for start in range(0, len(pixels), chunk):
        rows = slice(start, start + chunk)
        normalised[rows] = np.rint(_normalise(pixels[rows], deslant=deslant, spread=spread))
    return normalised


def _normalise(pixels: np.ndarray, *, deslant: bool, spread: float) -> np.ndarray:
    y, x = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE] - MIDDLE)
    sums = pixels.astype(np.float32) @ np.stack([np.ones(PIXELS), x, y, x * x, x * y, y * y], axis=1).astype(np.float32)
    ink, *moments = sums.T.astype(float)[:, :, None]
    moments = [moment / np.maximum(1, ink) for moment in moments]
    first, stretch = find_columns(np, ink, moments, np.arange(SIDE) - MIDDLE, deslant=deslant, spread=spread)
    return _read_columns(pixels, first, stretch[:, 0]) if spread else shift_rows(pixels, first)


def find_columns(
    ops: Any, ink: Any, moments: Sequence[Any], rows: np.ndarray, *, deslant: bool, spread: float
) -> tuple[Any, Any]:
    """Return the columns at which each row of each image is read, see ``normalise_pixels``.

    The formulas are written once, for NumPy here and for Keras in files that are exported.

    Args:
        ops: NumPy, or ``keras.ops``.
        ink: the sum of each image's pixels.
        moments: the means of x, y, x², xy and y² over the ink of each image. The middle of the image is 0.
        rows: the distance of each row from the middle.
        deslant, spread: as for ``normalise_pixels``.

    Returns:
        the column at which a row's first pixel is read, and the distance in columns from each pixel to the next.
    """
    mean_x, mean_y, xx, xy, yy = moments
    xx, xy, yy = xx - mean_x * mean_x, xy - mean_x * mean_y, yy - mean_y * mean_y
    slant, stretch = 0.0 * ink, 0.0 * ink + 1.0
    if deslant:  # ink in a single row has no slant
        slant = ops.clip(ops.where(yy > 0.1, xy / ops.maximum(yy, 0.1), 0.0), -STEEPEST, STEEPEST)
    if spread:
        variance = ops.maximum(xx - 2 * slant * xy + slant * slant * yy, 0.0)
        stretch = ops.where(ink > 0, ops.clip(ops.sqrt(variance) / spread, NARROWEST, WIDEST), 1.0)
    below = -mean_y + rows  # in this order, or NumPy would subtract from a tensor of Keras
    return (1 - stretch) * (mean_x + MIDDLE) + slant * below, stretch


def shift_rows(pixels: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Shift each row of each image sideways, interpolated bilinearly. Pixels from outside count as paper.

    Args:
        pixels: (N, 784).
        first: (N, 28), the column at which a row's first pixel is read; it may lie between two pixels.

    Returns:
        (N, 784) float32.
    """
    framed = np.pad(pixels.reshape(-1, SIDE, SIDE), ((0, 0), (0, 0), (SIDE, SIDE + 1)))
    first = first.clip(-SIDE, SIDE)
    whole = np.floor(first).astype(np.intp)
    # A window of 29 pixels begins at every pixel, so that NumPy can copy each row's window as one item.
    window = np.dtype((np.void, (SIDE + 1) * framed.itemsize))
    windows = np.ndarray(framed.size - SIDE, window, framed, strides=(framed.itemsize,))
    taken = windows[np.arange(0, framed.size, framed.shape[2]).reshape(-1, SIDE) + SIDE + whole]
    left = taken.view(framed.dtype).reshape(-1, SIDE, SIDE + 1).astype(np.float32)
    part = (first - whole).astype(np.float32)[:, :, None]
    return (left[:, :, :-1] + part * (left[:, :, 1:] - left[:, :, :-1])).reshape(-1, PIXELS)


def _read_columns(pixels: np.ndarray, first: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Read each row of each image as ``shift_rows`` does, but at columns that are ``step`` apart instead of 1.

    Args:
        pixels: (N, 784).
        first: (N, 28), the column at which a row's first pixel is read.
        step: (N,), the distance in columns from each pixel to the next.

    Returns:
        (N, 784) float32.
    """
    width = SIDE + 3  # a column of paper on the left and two on the right
    framed = np.pad(pixels.reshape(-1, SIDE, SIDE), ((0, 0), (0, 0), (1, 2))).ravel()
    read = np.empty((len(pixels), SIDE, SIDE), np.float32)
    places = (step[:, None] * np.arange(SIDE)).astype(np.float32)
    starts = np.arange(len(pixels))[:, None] * (SIDE * width)
    for row in range(SIDE):
        column = (first[:, row, None].astype(np.float32) + places).clip(-1, SIDE) + 1
        whole = column.astype(np.intp)
        at = starts + row * width + whole
        left, right = framed[at].astype(np.float32), framed[at + 1].astype(np.float32)
        read[:, row] = left + (column - whole) * (right - left)
    return read.reshape(-1, PIXELS)


def slanted(pixels: np.ndarray, most: float) -> Iterator[np.ndarray]:
    """Yield the pixels slanted to either side by ``most`` columns per row, and by half as much."""
    for slant in (-most, -most / 2, most / 2, most):
        first = np.tile(slant * (np.arange(SIDE) - (SIDE - 1) / 2), (len(pixels), 1))
        yield shift_rows(pixels, first)
