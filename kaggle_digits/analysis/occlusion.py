"""Say why a digit is read as it is: which of its parts matter, and which training images are nearest to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kaggle_digits.data import TrainingRows
from kaggle_digits.digits import PIXELS, SIDE
from kaggle_digits.learners.images import normalise_for
from kaggle_digits.recipe import Classical, Recipe


def occlusion_map(
    predict: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, digit: int | None = None
) -> np.ndarray:
    """Measure how much each part of an image contributes to a reading, by erasing it.

    Args:
        predict: pixels (N, 784) → probabilities (N, 10).
        pixels: (784,) uint8 or float32, 0–255.
        digit: the reading; None for the likeliest digit.

    Returns:
        (28, 28) float64, −1 to 1: by how much the probability of the digit falls if a patch of 5 × 5 pixels around the
        place is erased. Above 0, the ink there speaks for the digit; below 0, against it.

    Source: Zeiler and Fergus 2014, arXiv 1311.2901.
    """
    image = pixels.reshape(SIDE, SIDE)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    hidden = (abs(rows[:, :, None, None] - rows) <= 2) & (abs(columns[:, :, None, None] - columns) <= 2)
    erased = np.where(hidden, 0, image)  # (28, 28, 28, 28): the place of the patch, then the image
    is_changed = (erased != image).any(axis=(2, 3))
    read = predict(
        np.concatenate([pixels.reshape(1, PIXELS), erased[is_changed].reshape(-1, PIXELS).astype(pixels.dtype)])
    )
    digit = int(read[0].argmax()) if digit is None else digit
    contributions = np.zeros((SIDE, SIDE))
    contributions[is_changed] = read[0, digit] - read[1:, digit]
    return contributions


def nearest_rows(recipe: Recipe, pixels: np.ndarray, rows: TrainingRows, count: int = 3) -> np.ndarray:
    """Find the training images that are most like each image.

    Args:
        recipe: the image distortion model compares images in its own way; for others it is the Euclidean distance.
        pixels: (N, 784) uint8, 0–255.
        rows: the training rows, at least ``count``.
        count: how many to return for each image.

    Returns:
        (N, count) int64, numbers of rows, the nearest first.
    """
    images, references = (normalise_for(recipe, given).astype(np.float32) for given in (pixels, rows.pixels))
    distances = np.square(references).sum(axis=1) - 2 * images @ references.T
    near = np.argsort(distances, axis=1, kind="stable")[:, :250]  # the image distortion model compares only these
    if not (isinstance(recipe, Classical) and recipe.estimator[0] == "ImageDistortionModel"):
        return near[:, :count]
    from kaggle_digits.learners.distortion import distortion_distances, image_gradients

    nearest = []
    for gradients, candidates in zip(image_gradients(images / 255), near, strict=True):
        distorted = distortion_distances(gradients, image_gradients(references[candidates] / 255))
        nearest.append(candidates[np.argsort(distorted, kind="stable")[:count]])
    return np.stack(nearest)
