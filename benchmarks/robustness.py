"""Measure how well digits are read that something has happened to, by fifteen corruptions.

    .venv/bin/python benchmarks/robustness.py --data digit-recognizer.zip RUN...

Each run reads its own held-out rows, corrupted, with the same random numbers for every run. Printed is the accuracy for
each corruption, and the mean over the fifteen.

The corruptions are those of Mu and Gilmer 2019, MNIST-C: A robustness benchmark for computer vision, arXiv 1906.02337,
written anew from the descriptions there. Their strengths are chosen here, so the figures cannot be compared with
published ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from kaggle_digits.data import find_source, load_train, split_rows
from kaggle_digits.digits import PIXELS, SIDE, accuracy
from kaggle_digits.learners import load_run

Rng = np.random.Generator
MIDDLE = (SIDE - 1) / 2


def shot_noise(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Count photons: the fewer, the more noise."""
    return rng.poisson(image * 5) / 5


def impulse_noise(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Set some pixels to black or white."""
    hit = rng.random(image.shape)
    return np.where(hit < 0.08, 0.0, np.where(hit > 0.92, 1.0, image))


def glass_blur(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Exchange pixels with neighbours, as frosted glass does."""
    blurred = ndimage.gaussian_filter(image, 0.7)
    for y, x in rng.permutation(np.argwhere(np.ones((SIDE - 2, SIDE - 2)))) + 1:
        down, right = rng.integers(-1, 2, 2)
        blurred[y, x], blurred[y + down, x + right] = blurred[y + down, x + right], blurred[y, x]
    return ndimage.gaussian_filter(blurred, 0.7)


def motion_blur(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Move the camera while the picture is taken."""
    angle = rng.uniform(-np.pi / 4, np.pi / 4)
    return np.mean(
        [ndimage.shift(image, t * np.array([np.sin(angle), np.cos(angle)]), order=1) for t in range(-3, 4)], 0
    )


def _affine(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return ndimage.affine_transform(image, matrix, MIDDLE - matrix @ [MIDDLE, MIDDLE], order=1)


def shear(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Lean the digit."""
    return _affine(image, np.array([[1, 0], [rng.choice([-1, 1]) * rng.uniform(0.3, 0.6), 1]]))


def scale(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Make the digit smaller."""
    return _affine(image, np.eye(2) * rng.uniform(1.4, 1.8))


def rotate(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Turn the digit."""
    angle = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(20, 35))
    return _affine(image, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))


def brightness(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Add light everywhere."""
    return image + rng.uniform(0.3, 0.5)


def translate(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Move the digit out of the middle."""
    return ndimage.shift(image, rng.uniform(2.5, 4.5, 2) * rng.choice([-1, 1], 2), order=1)


def stripe(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Invert a band from top to bottom."""
    left = int(rng.integers(6, 15))
    image = image.copy()
    image[:, left : left + 7] = 1 - image[:, left : left + 7]
    return image


def fog(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Lay clouds over the digit."""
    clouds = sum(ndimage.zoom(rng.random((n, n)), SIDE / n, order=1) / n for n in (4, 7, 14))
    clouds = (clouds - clouds.min()) / np.ptp(clouds)
    return image * 0.55 + 0.55 * clouds


def spatter(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Splash drops on the digit."""
    drops = ndimage.gaussian_filter(rng.normal(size=image.shape), 1.2)
    return np.maximum(image, np.clip((drops / drops.std() - 1.5) * 2, 0, 0.8))


def _lines(image: np.ndarray, points: list[tuple[float, float]], *, dotted: bool) -> np.ndarray:
    canvas = Image.new("L", (SIDE * 4, SIDE * 4))
    pen = ImageDraw.Draw(canvas)
    big = [(4 * x, 4 * y) for x, y in points]
    pen.line(big, fill=255, width=5)
    drawn = np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255
    if dotted:
        drawn *= (np.add.outer(np.arange(SIDE), np.arange(SIDE)) // 2) % 2
    return np.maximum(image, drawn)


def dotted_line(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Draw a dotted line across the digit."""
    start, end = rng.uniform(6, 22, 2)
    return _lines(image, [(0, start), (SIDE, end)], dotted=True)


def zigzag(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Draw a zigzag across the digit."""
    start, end = rng.uniform(8, 20, 2)
    x = np.linspace(0, SIDE, 12)
    y = np.linspace(start, end, 12) + 2.5 * np.tile([-1, 1], 6)
    return _lines(image, list(zip(x, y, strict=True)), dotted=False)


def canny_edges(image: np.ndarray, rng: Rng) -> np.ndarray:  # noqa: ARG001
    """Keep only the edges."""
    from skimage.feature import canny

    return canny(image, sigma=0.8, low_threshold=0.1, high_threshold=0.3).astype(np.float32)


CORRUPTIONS: tuple[Callable[[np.ndarray, Rng], np.ndarray], ...] = (
    shot_noise, impulse_noise, glass_blur, motion_blur, shear, scale, rotate, brightness, translate, stripe, fog,
    spatter, dotted_line, zigzag, canny_edges,
)  # fmt: skip


def corrupt(pixels: np.ndarray, corruption: Callable[[np.ndarray, Rng], np.ndarray], seed: int) -> np.ndarray:
    """Corrupt every image, (N, 784) uint8 → (N, 784) uint8."""
    rng = np.random.default_rng(seed)
    images = pixels.reshape(-1, SIDE, SIDE).astype(np.float32) / 255
    corrupted = np.stack([corruption(image, rng) for image in images])
    return np.rint(255 * corrupted.clip(0, 1)).astype(np.uint8).reshape(-1, PIXELS)


def main() -> None:
    """Print a table: a row for each corruption, a column for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders, trained on the same data")
    parser.add_argument("--data", required=True, help="the competition's data")
    options = parser.parse_args()
    runs = [load_run(folder) for folder in options.runs]
    rows = load_train(find_source(options.data))
    held_out = []
    for run in runs:
        _, own = split_rows(rows, fraction=run.recipe.validation_fraction, seed=run.seed)
        assert len(own) == run.rows.held_out
        held_out.append(own)
    table = []
    for name, change in [("none", None), *((each.__name__, each) for each in CORRUPTIONS)]:
        line = []
        for run, own in zip(runs, held_out, strict=True):
            pixels = corrupt(own.pixels, change, seed=0) if change else own.pixels
            line.append(100 * accuracy(run.predict(pixels), own.digits))
        table.append(line)
        print(f"{name:15}" + "".join(f"{value:14.2f}" for value in line), flush=True)
    print(f"{'mean':15}" + "".join(f"{value:14.2f}" for value in np.mean(table[1:], axis=0)))
    print(f"{'':15}" + "".join(f"{run.recipe.name:>14}" for run in runs))


if __name__ == "__main__":
    main()
