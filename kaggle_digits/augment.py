"""Move training images at random: rotation, stretch, shear and shift in one resampling."""

from __future__ import annotations

import keras
import numpy as np

from kaggle_digits.config import SIDE, Augmentation

CHUNK = 8192
"""Images resampled at once: large enough to keep all cores busy, 25 MB of float32."""


def augment_pixels(pixels: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Give every image its own random affine change, in one pass over all rows.

    The numbers are drawn by NumPy, so that the same generator moves the images in the same way on every backend
    and for every number of replicas.

    Args:
        pixels: (N, 784) uint8, 0–255; outside of the image is 0, paper.
        augmentation: how far to move.
        rng: the source of randomness.

    Returns:
        (N, 784) float32, 0–255, bilinear.
    """
    transforms = affine_transforms(len(pixels), augmentation, rng)
    moved = np.empty(pixels.shape, np.float32)
    for start in range(0, len(pixels), CHUNK):
        rows = slice(start, start + CHUNK)
        images = pixels[rows].reshape(-1, SIDE, SIDE, 1).astype(np.float32)
        warped = keras.ops.image.affine_transform(
            images,
            transforms[rows],
            interpolation="bilinear",
            fill_mode="constant",
            fill_value=0.0,
            data_format="channels_last",
        )
        moved[rows] = keras.ops.convert_to_numpy(warped).reshape(-1, SIDE * SIDE)
    return moved


def affine_transforms(count: int, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Draw random affine maps about the middle of the image.

    Args:
        count: how many.
        augmentation: the ranges.
        rng: the source of randomness.

    Returns:
        (count, 8) float32, rows a0 a1 a2 b0 b1 b2 0 0 as ``keras.ops.image.affine_transform`` takes them: the
        output pixel (x, y) is read at input (a0 x + a1 y + a2, b0 x + b1 y + b2).
    """
    angle = np.deg2rad(_draw(rng, augmentation.rotation, count))
    stretch_x = 1 + _draw(rng, augmentation.scale, count)
    stretch_y = 1 + _draw(rng, augmentation.scale, count)
    shear = _draw(rng, augmentation.shear, count)
    shift_x = _draw(rng, augmentation.shift, count)
    shift_y = _draw(rng, augmentation.shift, count)
    cosine, sine = np.cos(angle), np.sin(angle)
    # rotation · shear · stretch
    a0, a1 = cosine * stretch_x, (cosine * shear - sine) * stretch_y
    b0, b1 = sine * stretch_x, (sine * shear + cosine) * stretch_y
    middle = (SIDE - 1) / 2
    a2 = middle - (a0 + a1) * middle + shift_x
    b2 = middle - (b0 + b1) * middle + shift_y
    zero = np.zeros(count)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype(np.float32)


def _draw(rng: np.random.Generator, limit: float, count: int) -> np.ndarray:
    return rng.uniform(-limit, limit, count)
