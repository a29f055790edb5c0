"""Make digits alike in how they lean and how wide they are, by the moments of their ink."""

from __future__ import annotations

import numpy as np

from kaggle_digits.config import PIXELS, SIDE

CHUNK = 1024
"""Images at once: what they take fits a processor's cache."""

STEEPEST = 1.0
"""Columns per row that a digit is turned by at most."""

NARROWEST, WIDEST = 0.5, 1.5
"""How many times as wide as wanted a digit may be to become just so wide; others are stretched like these."""

MIDDLE = (SIDE - 1) / 2


def normalise_pixels(pixels: np.ndarray, *, deslant: bool = False, spread: float = 0.0) -> np.ndarray:
    """Set every digit upright, or stretch it sideways to a common width, or both; its centre of mass stays.

    Args:
        pixels: (N, 784) uint8 or float32, 0–255.
        deslant: lean it to where the line through its ink, by least squares of columns on rows, is upright.
        spread: pixels; above 0 the standard deviation of the ink's columns, after deslanting, becomes that.

    Returns:
        (N, 784) uint8, 0–255, bilinear; what comes in is paper. An image without ink stays.

    Source: the moments of LeCun et al. 1998, Gradient-based learning applied to document recognition ("deslanted"), and
    of Liu et al. 2004, Handwritten digit recognition: investigation of normalization and feature extraction techniques.
    """
    normalised = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), CHUNK):
        rows = slice(start, start + CHUNK)
        normalised[rows] = np.rint(_normalise(pixels[rows], deslant=deslant, spread=spread))
    return normalised


def _normalise(pixels: np.ndarray, *, deslant: bool, spread: float) -> np.ndarray:
    y, x = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE] - MIDDLE)
    sums = pixels.astype(np.float32) @ np.stack([np.ones(PIXELS), x, y, x * x, x * y, y * y], axis=1).astype(np.float32)
    mean_x, mean_y, xx, xy, yy = sums.T[1:].astype(float) / np.maximum(1, sums[:, 0])
    xx, xy, yy = xx - mean_x**2, xy - mean_x * mean_y, yy - mean_y**2
    slant = np.zeros(len(pixels))
    if deslant:  # of ink in a single row nobody can say how it leans
        slant = np.divide(xy, yy, out=slant, where=yy > 0.1).clip(-STEEPEST, STEEPEST)
    stretch = np.ones(len(pixels))
    if spread:
        variance = xx - 2 * slant * xy + slant**2 * yy
        stretch = np.sqrt(np.maximum(0, variance)) / spread
        stretch = np.where(sums[:, 0] > 0, stretch.clip(NARROWEST, WIDEST), 1)
    # Row by row: the first column's place, from where columns are ``stretch`` apart.
    below = np.arange(SIDE) - MIDDLE - mean_y[:, None]
    first = ((1 - stretch) * (mean_x + MIDDLE))[:, None] + slant[:, None] * below
    return _read_columns(pixels, first, stretch) if spread else shift_rows(pixels, first)


def shift_rows(pixels: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Shift each row of each image sideways, bilinearly; what comes in is paper.

    Args:
        pixels: (N, 784).
        first: (N, 28), the column, not always a whole one, that a row's first pixel is read at.

    Returns:
        (N, 784) float32.
    """
    framed = np.pad(pixels.reshape(-1, SIDE, SIDE), ((0, 0), (0, 0), (SIDE, SIDE + 1)))
    first = first.clip(-SIDE, SIDE)
    whole = np.floor(first).astype(np.intp)
    # Every pixel of every row begins a window of 29: each row's is copied as one item.
    window = np.dtype((np.void, (SIDE + 1) * framed.itemsize))
    windows = np.ndarray(framed.size - SIDE, window, framed, strides=(framed.itemsize,))
    taken = windows[np.arange(0, framed.size, framed.shape[2]).reshape(-1, SIDE) + SIDE + whole]
    left = taken.view(framed.dtype).reshape(-1, SIDE, SIDE + 1).astype(np.float32)
    part = (first - whole).astype(np.float32)[:, :, None]
    return (left[:, :, :-1] + part * (left[:, :, 1:] - left[:, :, :-1])).reshape(-1, PIXELS)


def _read_columns(pixels: np.ndarray, first: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Read each row of each image at other columns than ``shift_rows``, not one apart but ``step``.

    Args:
        pixels: (N, 784).
        first: (N, 28), the column of every row's first pixel.
        step: (N,), how many columns further the next one is.

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
