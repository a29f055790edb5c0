"""Change training digits at random: move them, and write them in another way.

MNIST's writers were Americans with one kind of pen. Elsewhere a 1 has a long flag and a 7 a bar, and pens are finer or
broader. A network that has seen only MNIST takes such a 1 for a 7, so ``restyle_pixels`` draws what it has not seen.
"""

from __future__ import annotations

import keras
import numpy as np

from kaggle_digits import PIXELS, SIDE
from kaggle_digits.recipe import Augmentation, Restyling

CHUNK = 8192
"""Images that are resampled at once: enough to keep all cores busy, 25 MB of float32."""

STYLE_CHUNK = 2048
"""Images that are restyled at once: what one of them takes fits a processor's cache."""

NODES = 5
"""Points along each axis at which a bend is drawn. It is smooth in between."""


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
        moved[rows] = keras.ops.convert_to_numpy(warped).reshape(-1, PIXELS)
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
    angle = np.deg2rad(_draw_uniform(rng, augmentation.rotation, count))
    stretch_x = 1 + _draw_uniform(rng, augmentation.scale, count)
    stretch_y = 1 + _draw_uniform(rng, augmentation.scale, count)
    shear = _draw_uniform(rng, augmentation.shear, count)
    shift_x = _draw_uniform(rng, augmentation.shift, count)
    shift_y = _draw_uniform(rng, augmentation.shift, count)
    cosine, sine = np.cos(angle), np.sin(angle)
    # rotation · shear · stretch
    a0, a1 = cosine * stretch_x, (cosine * shear - sine) * stretch_y
    b0, b1 = sine * stretch_x, (sine * shear + cosine) * stretch_y
    middle = (SIDE - 1) / 2
    a2 = middle - (a0 + a1) * middle + shift_x
    b2 = middle - (b0 + b1) * middle + shift_y
    zero = np.zeros(count)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype(np.float32)


def _draw_uniform(rng: np.random.Generator, limit: float, count: int) -> np.ndarray:
    return rng.uniform(-limit, limit, count)


def restyle_pixels(pixels: np.ndarray, digits: np.ndarray, style: Restyling, rng: np.random.Generator) -> np.ndarray:
    """Write every digit in a random other way that keeps it the same digit.

    Args:
        pixels: (N, 784) uint8, 0–255.
        digits: (N,) integers, 0–9: which strokes may be added depends on it.
        style: how much to change.
        rng: the source of randomness.

    Returns:
        (N, 784) uint8, 0–255.
    """
    restyled = np.empty((len(pixels), SIDE, SIDE), np.uint8)
    for start in range(0, len(pixels), STYLE_CHUNK):
        rows = slice(start, start + STYLE_CHUNK)
        images = pixels[rows].reshape(-1, SIDE, SIDE).astype(np.float32)
        _add_strokes(images, digits[rows], style.strokes, rng)
        images = _bend(images, style.bend, rng)
        images = _change_pen(images, style.pen, rng)
        images = _blur(images, style.blur, rng)
        restyled[rows] = np.rint(images)
    return restyled.reshape(-1, PIXELS)


def _add_strokes(images: np.ndarray, digits: np.ndarray, share: float, rng: np.random.Generator) -> None:
    """Give a share of the ones a flag, perhaps a foot, of the sevens bar or serif, of the nines a tail. In place."""
    count = len(images)
    chosen = rng.random(count) < share
    kind, length, angle, place = rng.random((4, count))
    ink = images > 127
    tall = images.max(axis=2) > 127
    top, bottom = tall.argmax(axis=1), SIDE - 1 - tall[:, ::-1].argmax(axis=1)
    height = bottom - top

    def middle_of(rows: np.ndarray, which: np.ndarray) -> np.ndarray:
        there = ink[which, rows]
        return (there * np.arange(SIDE)).sum(axis=1) / np.maximum(1, there.sum(axis=1))

    ones = np.flatnonzero(chosen & (digits == 1) & (height >= 12))
    x, y = middle_of(top[ones], ones), top[ones] + 0.5
    # From the tip down and to the left, up to four fifths of the height.
    steep = np.deg2rad(32 + 38 * angle[ones])
    far = height[ones] * (0.2 + 0.6 * length[ones])
    _draw_stroke(images, ones, x, y, x - far * np.cos(steep), y + far * np.sin(steep))
    footed = ones[kind[ones] < 0.4]
    x, y, half = middle_of(bottom[footed], footed), bottom[footed] - 0.5, 2.5 + 3.0 * place[footed]
    _draw_stroke(images, footed, x - half, y, x + half, y)

    sevens = np.flatnonzero(chosen & (digits == 7) & (height >= 12))
    barred = sevens[kind[sevens] < 0.75]
    row = np.rint(top[barred] + height[barred] * (0.4 + 0.2 * place[barred])).astype(int)
    x, half = middle_of(row, barred), 2.5 + 3.0 * length[barred]
    rise = half * (angle[barred] - 0.5) * 0.6
    _draw_stroke(images, barred, x - half, row + rise, x + half, row - rise)
    hooked = sevens[kind[sevens] > 0.4]
    # The left end of the upper third, from which a short stroke goes down.
    wide = (ink[hooked] & (np.arange(SIDE) <= (top[hooked] + height[hooked] / 3)[:, None])[:, :, None]).any(axis=1)
    x = wide.argmax(axis=1) + 1.0
    y = ink[hooked, :, wide.argmax(axis=1)].argmax(axis=1).astype(float)
    _draw_stroke(images, hooked, x, y, x - 2 * place[hooked] + 0.5, y + 2.5 + 3.0 * length[hooked])

    nines = np.flatnonzero(chosen & (digits == 9) & (height >= 12))
    x, y = middle_of(bottom[nines], nines), bottom[nines] - 0.5
    # The tail goes on to the left.
    far, rise = 3.0 + 5.0 * length[nines], np.deg2rad(-10 + 45 * angle[nines])
    _draw_stroke(images, nines, x, y, x - far * np.cos(rise), y - far * np.sin(rise))


def _draw_stroke(images: np.ndarray, which: np.ndarray, x0, y0, x1, y1) -> None:  # type: ignore[no-untyped-def]
    """Draw a straight stroke on some of the images, as wide as theirs are; coordinates are (len(which),) pixels."""
    taken = images[which]
    grid_y, grid_x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    x0, y0, x1, y1 = (np.asarray(v, np.float32)[:, None, None] for v in (x0, y0, x1, y1))
    along = ((grid_x - x0) * (x1 - x0) + (grid_y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2 + 1e-6)
    along = np.clip(along, 0, 1)
    distance = np.hypot(grid_x - x0 - along * (x1 - x0), grid_y - y0 - along * (y1 - y0))
    # Half the stroke's width: the area over the length of its outline, which is about twice the stroke's.
    inked = taken > 127
    outline = (inked[:, 1:] != inked[:, :-1]).sum(axis=(1, 2)) + (inked[:, :, 1:] != inked[:, :, :-1]).sum(axis=(1, 2))
    half = 1.2 * inked.sum(axis=(1, 2)) / np.maximum(1, outline)
    stroke = 255 * np.clip(half[:, None, None] - distance + 0.5, 0, 1)
    images[which] = np.maximum(taken, stroke)


def _bend(images: np.ndarray, limit: float, rng: np.random.Generator) -> np.ndarray:
    """Displace every point by a smooth field, drawn from ±limit pixels at its nodes."""
    nodes = rng.uniform(-limit, limit, (2, len(images), NODES, NODES)).astype(np.float32)
    # A quadratic B-spline along each axis: smooth, and never farther than the nodes.
    at = (np.arange(SIDE) + 0.5) / SIDE * (NODES - 2) + 0.5
    away = np.abs(at[:, None] - np.arange(NODES))
    spline = np.where(away < 0.5, 0.75 - away**2, np.clip(1.5 - away, 0, None) ** 2 / 2).astype(np.float32)
    down, right = spline @ nodes @ spline.T
    # Bilinear, by hand: SciPy's map_coordinates takes three to ten times as long for many small images.
    margin = int(limit) + 2
    framed = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    count, side, _ = framed.shape
    whole_down, whole_right = np.floor(down), np.floor(right)
    down, right = down - whole_down, right - whole_right
    image, y, x = np.ix_(np.arange(count), margin + np.arange(SIDE), margin + np.arange(SIDE))
    here = (image * side + y) * side + x
    here += (whole_down * side + whole_right).astype(int)
    flat = framed.ravel()
    upper = flat[here] + right * (flat[here + 1] - flat[here])
    lower = flat[here + side] + right * (flat[here + side + 1] - flat[here + side])
    return upper + down * (lower - upper)


def _change_pen(images: np.ndarray, limit: float, rng: np.random.Generator) -> np.ndarray:
    """Move the outline of the strokes out or in by up to so many pixels."""
    change = rng.uniform(-limit, limit, len(images)).astype(np.float32)
    left = np.abs(change)
    # Ink that is thinned is paper that is thickened.
    flipped = np.where(change < 0, np.float32(255), np.float32(0))[:, None, None]
    images = np.abs(images - flipped)
    while (left > 0).any():
        wide = images.copy()
        for axis in (1, 2):
            for way in (1, -1):
                np.maximum(wide, np.roll(images, way, axis=axis), out=wide)
        images += np.clip(left, 0, 1)[:, None, None] * (wide - images)
        left = left - 1
    return np.abs(images - flipped)


def _blur(images: np.ndarray, limit: float, rng: np.random.Generator) -> np.ndarray:
    """Mix every pixel with its neighbours, with a weight of up to ``limit`` for these."""
    share = rng.uniform(0, limit, len(images)).astype(np.float32)[:, None, None]
    mixed = images
    for axis in (1, 2):
        mixed = mixed / 2 + (np.roll(mixed, 1, axis=axis) + np.roll(mixed, -1, axis=axis)) / 4
    return images + share * (mixed - images)
