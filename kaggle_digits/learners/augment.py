"""Move training digits at random, as ``recipe.Augmentation`` says. ``train`` does so in every epoch.

Each step draws its numbers even if its limit is 0, so a new step in between would change what a seed gives.
"""

from __future__ import annotations

import keras
import numpy as np

from kaggle_digits.digits import PIXELS, SIDE
from kaggle_digits.recipe import Augmentation


def augment_pixels(pixels: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Give every image its own random affine change, in one pass over all rows.

    NumPy draws the random numbers, so the same generator moves the images in the same way on every backend and with
    any number of replicas.

    Args:
        pixels: (N, 784) uint8, 0–255. Pixels from outside the image count as paper, 0.
        augmentation: how far the images may move.
        rng: the source of randomness.

    Returns:
        (N, 784) float32, 0–255, interpolated bilinearly.
    """
    transforms = affine_transforms(len(pixels), augmentation, rng)
    moved = np.empty(pixels.shape, np.float32)
    chunk = 8192  # enough to keep all cores busy, and 25 MB as float32
    for start in range(0, len(pixels), chunk):
        rows = slice(start, start + chunk)
        images = pixels[rows].reshape(-1, SIDE, SIDE, 1).astype(np.float32)
        warped = keras.ops.image.affine_transform(
            images,
            transforms[rows],
            interpolation="bilinear",
            fill_mode="constant",
            fill_value=0.0,
            data_format="channels_last",
        )
        moved[rows] = keras.ops.convert_to_numpy(warped).reshape(-1, PIXELS)
    return moved


def affine_transforms(count: int, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Draw random affine maps about the centre of the image.

    Args:
        count: how many maps to draw.
        augmentation: the ranges to draw from.
        rng: the source of randomness.

    Returns:
        (count, 8) float32, with the rows a0 a1 a2 b0 b1 b2 0 0 that ``keras.ops.image.affine_transform`` takes. The
        output pixel (x, y) is read at (a0 x + a1 y + a2, b0 x + b1 y + b2) of the input.
    """
    angle = np.deg2rad(rng.uniform(-augmentation.rotation, augmentation.rotation, count))
    stretch_x = 1 + rng.uniform(-augmentation.scale, augmentation.scale, count)
    stretch_y = 1 + rng.uniform(-augmentation.scale, augmentation.scale, count)
    shear = rng.uniform(-augmentation.shear, augmentation.shear, count)
    shift_x = rng.uniform(-augmentation.shift, augmentation.shift, count)
    shift_y = rng.uniform(-augmentation.shift, augmentation.shift, count)
    cosine, sine = np.cos(angle), np.sin(angle)
    # rotation · shear · stretch
    a0, a1 = cosine * stretch_x, (cosine * shear - sine) * stretch_y
    b0, b1 = sine * stretch_x, (sine * shear + cosine) * stretch_y
    middle = (SIDE - 1) / 2
    a2 = middle - (a0 + a1) * middle + shift_x
    b2 = middle - (b0 + b1) * middle + shift_y
    zero = np.zeros(count)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype(np.float32)
