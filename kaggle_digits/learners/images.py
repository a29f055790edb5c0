"""What happens to pixels before a network sees them.

In training and prediction alike, pixels are scaled to images. Some recipes also set digits upright, or average the
probabilities over several versions of an image; ``normalised`` and ``averaged`` put these steps around a predictor. In
training, digits are moved at random, and each epoch has its own batches: ``make_batches``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kaggle_digits.data import TrainingRows
from kaggle_digits.digits import CLASSES, PIXELS, SIDE, one_hot
from kaggle_digits.recipe import Augmentation, Network, Recipe, Restyling
from kaggle_digits.run import Predictor
from kaggle_digits.strategy import Device

SURE = 0.9
"""A model is sure of an image if its likeliest digit has this probability or more. Sure images are not read again.
Shifted versions, or a classical method beside two or more networks, would not change the digit."""


def normalise_for(recipe: Recipe, pixels: np.ndarray) -> np.ndarray:
    """Set digits upright and stretch them if the recipe says so, see ``normalise_pixels``."""
    if not recipe.normalises:
        return pixels
    from kaggle_digits.learners.upright import normalise_pixels

    return normalise_pixels(pixels, deslant=recipe.deslant, spread=recipe.spread)


def to_images(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Scale pixels as the recipe says.

    Args:
        pixels: (N, 784) uint8 or float32, 0–255.
        recipe: gives ``pixel_offset`` and ``pixel_scale``.

    Returns:
        (N, 28, 28, 1) float32.
    """
    scaled = pixels.astype(np.float32)
    scaled -= np.float32(recipe.pixel_offset)  # in place, because 28,000 images are 88 MB
    scaled /= np.float32(recipe.pixel_scale)
    return scaled.reshape(-1, SIDE, SIDE, 1)


def normalised(recipe: Recipe, model: Predictor) -> Predictor:
    """Wrap a model so that it sees digits set upright and stretched as the recipe says."""
    return _Normalised(model, recipe)


def averaged(recipe: Network, model: Predictor) -> Predictor:
    """Wrap a model so that it averages over several versions of an image, if the recipe says so."""
    if recipe.slant_averaging:
        model = _SlantAveraged(model, recipe.slant_averaging)
    return _ShiftAveraged(model, recipe.shift_averaging) if recipe.shift_averaging else model


@dataclass(frozen=True)
class _Wrapper:
    """A predictor around another one, whose parameters and files it shares."""

    model: Predictor

    @property
    def parameters(self) -> int | None:
        return self.model.parameters

    def save(self, folder: Path) -> None:
        self.model.save(folder)


@dataclass(frozen=True)
class _Normalised(_Wrapper):
    """Predicts from digits after setting them upright and stretching them as a recipe says."""

    recipe: Recipe

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        if not len(pixels):
            return np.empty((0, CLASSES), np.float32)
        return self.model.probabilities(normalise_for(self.recipe, pixels))


@dataclass(frozen=True)
class _SlantAveraged(_Wrapper):
    """Averages the probabilities of every image and four slanted versions of it."""

    most: float

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        from kaggle_digits.learners.upright import slanted

        versions = map(self.model.probabilities, slanted(pixels, self.most))
        return np.mean([self.model.probabilities(pixels), *versions], axis=0)


@dataclass(frozen=True)
class _ShiftAveraged(_Wrapper):
    """Averages the probabilities of an image and four shifted versions of it, if the model is unsure of the image."""

    distance: int

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        probabilities = np.array(self.model.probabilities(pixels))
        unsure = probabilities.max(axis=1) < SURE
        if unsure.any():
            shifted = map(self.model.probabilities, _shifted(pixels[unsure], self.distance))
            probabilities[unsure] = np.mean([probabilities[unsure], *shifted], axis=0)
        return probabilities


def _shifted(pixels: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Yield the pixels moved down, up, right and left by a distance. Pixels from outside count as paper."""
    images = pixels.reshape(-1, SIDE, SIDE)
    framed = np.pad(images, ((0, 0), (distance, distance), (distance, distance)))
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        top, left = distance - down * distance, distance - right * distance
        yield framed[:, top : top + SIDE, left : left + SIDE].reshape(-1, PIXELS)


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
    import keras

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


def prepare_rows(recipe: Network, rows: TrainingRows, *, seed: int) -> TrainingRows:
    """Add drawn images and normalise all, once before the training, as a recipe says."""
    if recipe.drawn:
        rows = _with_drawn(rows, round(recipe.drawn * len(rows)), seed=seed)
    return replace(rows, pixels=normalise_for(recipe, rows.pixels))


@dataclass(frozen=True)
class Batches:
    """One epoch, batch after batch.

    Args:
        images: (rows, 28, 28, 1) float32.
        labels: (rows, 10) float32.
        weights: (rows,) float32, 0 for rows that only fill a batch.
        size: rows in each batch.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    size: int


def _with_drawn(rows: TrainingRows, count: int, *, seed: int) -> TrainingRows:
    """Add drawn images, see ``drawing.draw_images``."""
    from kaggle_digits.learners.drawing import draw_images

    drawn = draw_images(count, rows, np.random.default_rng(seed))
    return TrainingRows(np.concatenate([rows.pixels, drawn.pixels]), np.concatenate([rows.digits, drawn.digits]))


def _labels(digits: np.ndarray) -> np.ndarray:
    """Return one-hot labels, (N, 10) float32. For an image that is not a digit, every digit is equally likely."""
    return np.where((digits >= 0)[:, None], one_hot(np.maximum(digits, 0)), np.float32(1 / CLASSES))


def make_batches(recipe: Network, rows: TrainingRows, epoch: int, *, seed: int, device: Device) -> Batches:
    """Shuffle and augment the rows of one epoch, counted from 0. The same seed and epoch give the same batches."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(rows))
    pixels, digits = rows.pixels[order], rows.digits[order]
    if isinstance(recipe.augmentation, Restyling):
        from kaggle_digits.learners.restyle import restyle_pixels

        pixels = restyle_pixels(pixels, digits, recipe.augmentation, rng)
    if recipe.augmentation:
        pixels = augment_pixels(pixels, recipe.augmentation, rng)
    taken, weights = share_batches(len(rows), recipe.batch_size, replicas=device.replicas)
    images, labels = to_images(pixels[taken.ravel()], recipe), _labels(digits[taken.ravel()])
    return Batches(images, labels, weights.ravel(), taken.shape[1])


def share_batches(rows: int, batch_size: int, *, replicas: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cut an epoch into batches of one size, a multiple of the number of replicas.

    A batch that is too short is filled with rows from the front of the epoch, whose weight is 0. The weights of its
    real rows are raised to make up for them, so the weighted mean over the whole batch is the mean over its real rows,
    however the replicas share it.

    Args:
        rows: number of rows in the epoch.
        batch_size: number of rows in a batch.
        replicas: number of replicas.

    Returns:
        the index of the row in each place, (steps, width) int64, and its weight, (steps, width) float32.

    >>> taken, weights = share_batches(5, 3, replicas=2)
    >>> taken.tolist()
    [[0, 1, 2, 0], [3, 4, 0, 1]]
    >>> (weights * 3).astype(int).tolist()
    [[4, 4, 4, 0], [6, 6, 0, 0]]
    """
    steps = math.ceil(rows / batch_size)
    width = batch_size + -batch_size % replicas
    taken, weights = np.zeros((steps, width), np.int64), np.zeros((steps, width), np.float32)
    for step in range(steps):
        real = min(batch_size, rows - step * batch_size)
        taken[step, :real] = step * batch_size + np.arange(real)
        taken[step, real:] = np.resize(np.arange(rows), width - real)
        weights[step, :real] = width / real
    return taken, weights
