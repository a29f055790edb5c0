"""Augment: images move as SciPy moves them, within the limits, and in the same way for the same generator."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kaggle_digits.data import find_source, load_train
from kaggle_digits.learners.images import affine_transforms, augment_pixels
from kaggle_digits.recipe import Augmentation

LARGE = Augmentation(rotation=15, scale=0.1, shear=0.2, shift=2)


def test_result_equals_scipy_with_the_same_transforms():
    pixels = load_train(find_source("sample")).pixels[:20]
    moved = augment_pixels(pixels, LARGE, np.random.default_rng(5))
    transforms = affine_transforms(20, LARGE, np.random.default_rng(5))
    for image, result, (a0, a1, a2, b0, b1, b2, _, _) in zip(pixels, moved, transforms, strict=True):
        # SciPy's axes are (row, column); those of the transforms are (x, y).
        expected = ndimage.affine_transform(
            image.reshape(28, 28).astype(float), [[b1, b0], [a1, a0]], offset=[b2, a2], order=1, mode="constant"
        )
        np.testing.assert_allclose(result.reshape(28, 28), expected, atol=0.01)


def test_no_augmentation_changes_nothing():
    pixels = load_train(find_source("sample")).pixels[:5]
    moved = augment_pixels(pixels, Augmentation(), np.random.default_rng(0))
    np.testing.assert_allclose(moved, pixels, atol=1e-3)
    assert moved.dtype == np.float32


def test_shift_moves_the_centre_of_mass_by_at_most_its_limit():
    pixels = np.zeros((200, 784), np.uint8)
    pixels[:, 14 * 28 + 14] = 255
    moved = augment_pixels(pixels, Augmentation(shift=1.5), np.random.default_rng(0)).reshape(-1, 28, 28)
    centres = np.array([ndimage.center_of_mass(image) for image in moved])
    distance = np.abs(centres - 14)
    assert distance.max() <= 1.5 + 1e-4
    # Shifts are uniform within ±1.5 pixels, so the mean distance is 0.75.
    np.testing.assert_allclose(distance.mean(), 0.75, atol=0.1)


def test_every_row_is_moved_also_across_chunks():
    pixels = np.zeros((8192 + 3, 784), np.uint8)
    pixels[:, 14 * 28 + 14] = 200
    moved = augment_pixels(pixels, Augmentation(shift=1), np.random.default_rng(0))
    assert moved.shape == pixels.shape
    np.testing.assert_allclose(moved.sum(axis=1), 200, rtol=1e-3)
