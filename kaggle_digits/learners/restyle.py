"""Write training digits in another way, at random, as ``recipe.Restyling`` says.

MNIST's writers were Americans with one kind of pen. Elsewhere a 1 has a long flag, a 7 has a bar, and pens are finer or
broader. A network that has seen only MNIST takes such a 1 for a 7, so ``restyle_pixels`` draws what MNIST lacks.
"""

from __future__ import annotations

import numpy as np

from kaggle_digits.digits import PIXELS, SIDE
from kaggle_digits.recipe import Restyling

NODES = 5
"""Number of random points of a bend along each axis. It is smooth in between."""


def restyle_pixels(pixels: np.ndarray, digits: np.ndarray, style: Restyling, rng: np.random.Generator) -> np.ndarray:
    """Redraw every digit in a random style. It stays the same digit.

    Args:
        pixels: (N, 784) uint8, 0–255.
        digits: (N,) integers, 0–9. They decide which strokes may be added.
        style: how much may change.
        rng: the source of randomness.

    Returns:
        (N, 784) uint8, 0–255.
    """
    restyled = np.empty((len(pixels), SIDE, SIDE), np.uint8)
    chunk = 2048  # few enough that their data fits a processor's cache
    for start in range(0, len(pixels), chunk):
        rows = slice(start, start + chunk)
        images = pixels[rows].reshape(-1, SIDE, SIDE).astype(np.float32)
        _add_strokes(images, digits[rows], style.strokes, rng)
        images = _bend(images, style.bend, rng)
        images = _change_pen(images, style.pen, rng)
        images = _blur(images, style.blur, rng)
        restyled[rows] = np.rint(images)
    return restyled.reshape(-1, PIXELS)


def _add_strokes(images: np.ndarray, digits: np.ndarray, share: float, rng: np.random.Generator) -> None:
    """Add strokes to a share of the digits, in place: flag and foot to 1, bar and serif to 7, a tail to 9."""
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
    # The flag runs from the tip down to the left, for up to four fifths of the height.
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
    # The serif is a short stroke down from the left end of the upper third.
    wide = (ink[hooked] & (np.arange(SIDE) <= (top[hooked] + height[hooked] / 3)[:, None])[:, :, None]).any(axis=1)
    x = wide.argmax(axis=1) + 1.0
    y = ink[hooked, :, wide.argmax(axis=1)].argmax(axis=1).astype(float)
    _draw_stroke(images, hooked, x, y, x - 2 * place[hooked] + 0.5, y + 2.5 + 3.0 * length[hooked])

    nines = np.flatnonzero(chosen & (digits == 9) & (height >= 12))
    x, y = middle_of(bottom[nines], nines), bottom[nines] - 0.5
    # The tail continues to the left.
    far, rise = 3.0 + 5.0 * length[nines], np.deg2rad(-10 + 45 * angle[nines])
    _draw_stroke(images, nines, x, y, x - far * np.cos(rise), y - far * np.sin(rise))


def _draw_stroke(images: np.ndarray, which: np.ndarray, x0, y0, x1, y1) -> None:  # type: ignore[no-untyped-def]
    """Draw a straight stroke on some images, as wide as their own strokes. Coordinates are (len(which),), in pixels."""
    taken = images[which]
    grid_y, grid_x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    x0, y0, x1, y1 = (np.asarray(v, np.float32)[:, None, None] for v in (x0, y0, x1, y1))
    along = ((grid_x - x0) * (x1 - x0) + (grid_y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2 + 1e-6)
    along = np.clip(along, 0, 1)
    distance = np.hypot(grid_x - x0 - along * (x1 - x0), grid_y - y0 - along * (y1 - y0))
    # Half the stroke width is the inked area over the length of its outline, which is about twice the stroke's length.
    inked = taken > 127
    outline = (inked[:, 1:] != inked[:, :-1]).sum(axis=(1, 2)) + (inked[:, :, 1:] != inked[:, :, :-1]).sum(axis=(1, 2))
    half = 1.2 * inked.sum(axis=(1, 2)) / np.maximum(1, outline)
    stroke = 255 * np.clip(half[:, None, None] - distance + 0.5, 0, 1)
    images[which] = np.maximum(taken, stroke)


def _bend(images: np.ndarray, limit: float, rng: np.random.Generator) -> np.ndarray:
    """Displace every point by a smooth random field, whose values at the nodes are within ±limit pixels."""
    nodes = rng.uniform(-limit, limit, (2, len(images), NODES, NODES)).astype(np.float32)
    # A quadratic B-spline along each axis is smooth, and never exceeds the values at the nodes.
    at = (np.arange(SIDE) + 0.5) / SIDE * (NODES - 2) + 0.5
    away = np.abs(at[:, None] - np.arange(NODES))
    spline = np.where(away < 0.5, 0.75 - away**2, np.clip(1.5 - away, 0, None) ** 2 / 2).astype(np.float32)
    down, right = spline @ nodes @ spline.T
    # Interpolated here, because SciPy's map_coordinates takes three to ten times as long for many small images.
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
    """Move the outline of the strokes out or in by up to ``limit`` pixels."""
    change = rng.uniform(-limit, limit, len(images)).astype(np.float32)
    left = np.abs(change)
    # Thinning the ink is the same as thickening the paper.
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
    """Mix every pixel with its neighbours, which get a weight of up to ``limit``."""
    share = rng.uniform(0, limit, len(images)).astype(np.float32)[:, None, None]
    mixed = images
    for axis in (1, 2):
        mixed = mixed / 2 + (np.roll(mixed, 1, axis=axis) + np.roll(mixed, -1, axis=axis)) / 4
    return images + share * (mixed - images)
