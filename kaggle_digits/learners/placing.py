"""Place a shape in an image as MNIST's makers placed their digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kaggle_digits.digits import SIDE

BOX = 20
"""Pixels on the longer side of a digit in MNIST's images."""


def place_ink(ink: np.ndarray) -> np.ndarray:
    """Place a shape in an image as MNIST's makers placed their digits.

    It is scaled to 20 pixels on its longer side, by averaging over areas, and keeps its aspect ratio. Its centre of
    mass moves into the pixel right of and below the middle of 28 × 28.

    Args:
        ink: (H, W) float32, from 0 (paper) to 1 (ink). Paper around the shape is cut off.

    Returns:
        (784,) uint8, 0–255.

    Source: box, resampling and centre follow MNIST as rebuilt by Yadav and Bottou 2019, arXiv 1905.10498.
    """
    left, top, right, bottom = ink_box(ink > 0.35 * ink.max())
    square = np.zeros([max(right - left, bottom - top)] * 2, np.float32)
    down, across = ((len(square) - extent) // 2 for extent in (bottom - top, right - left))
    square[down : down + bottom - top, across : across + right - left] = ink[top:bottom, left:right]
    small = np.clip(resize(square, (BOX, BOX)), 0, None)
    small = small / small.max()
    centres = np.arange(BOX) + 0.5
    image = np.zeros((SIDE, SIDE), np.float32)
    y, x = (
        int(np.clip(int(SIDE / 2 + 1 - small.sum(axis=axis) @ centres / small.sum()), 0, SIDE - BOX)) for axis in (1, 0)
    )
    image[y : y + BOX, x : x + BOX] = small
    return np.rint(255 * image).astype(np.uint8).ravel()


def resize(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resample to (width, height), bicubic if either grows, else by means over areas.

    Args:
        image: (H, W) or (H, W, 3), any number type.
        size: width and height in pixels.

    Returns:
        float32 of that size.
    """
    from PIL import Image

    grows = size[0] > image.shape[1] or size[1] > image.shape[0]
    how = Image.Resampling.BICUBIC if grows else Image.Resampling.BOX
    layers = np.ascontiguousarray(np.moveaxis(np.atleast_3d(image), 2, 0), np.float32)
    resized = np.stack([np.asarray(Image.fromarray(layer).resize((size[0], size[1]), how)) for layer in layers], axis=2)
    return resized[:, :, 0] if image.ndim == 2 else resized


def rescale(image: np.ndarray, factor: float) -> np.ndarray:
    """Make an image, (H, W) or (H, W, 3), larger or smaller by a factor, but keep at least a pixel each way."""
    return resize(image, [max(1, round(side * factor)) for side in image.shape[1::-1]])


def ink_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the true pixels of a mask; right and bottom are just outside."""
    across, down = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1
