"""Tell ink from paper: even out the light, find the strokes, and remove printed lines."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold, threshold_otsu

from kaggle_digits.handwriting.normalise import stroke_width
from kaggle_digits.learners.placing import rescale, resize

LEAST_CONTRAST = 0.08
"""Smallest contrast: ink reflects less light than paper, by at least this share."""

FAINT = 0.16
"""Smallest darkness anywhere in a stroke, as a share of that of most ink."""

CONNECTED = np.ones((3, 3), bool)
"""Pixels that touch belong to one stroke, even if they touch only at a corner."""


def brightness(picture: np.ndarray) -> np.ndarray:
    """Return the brightness of a picture, (H, W) or (H, W, 3), as (H, W).

    Source: the weights of red, green and blue are those of ITU-R BT.601, as Pillow uses them.
    """
    return picture if picture.ndim == 2 else picture @ np.array([0.299, 0.587, 0.114], np.float32)


def level_paper(picture: np.ndarray, *, window: float = 1 / 6) -> np.ndarray | None:
    """Even out the light on the paper. Everything that is darker, or lighter, than the paper counts as ink.

    The brightest part of a window counts as paper.

    Args:
        picture: (H, W) or (H, W, 3) float32, brightness from 0 to 1. Of three channels, the one with the strongest ink
            is used, which also finds a yellow or cyan pen.
        window: the side of a window as a share of the longer side. Wherever the window lies, it must hold some paper,
            so it is broader than strokes and loops.

    Returns:
        (H, W) float32, 0 for paper, near 1 for most ink; None if nothing stands out.
    """
    # A small copy is enough to estimate the light, and averages the noise away.
    side = 13  # of the window in the small copy, in pixels
    small = rescale(picture, side / (window * max(picture.shape)))
    grey = brightness(small)
    away = grey - ndimage.median_filter(grey, side, mode="nearest")
    least = 0.4 * np.percentile(np.abs(away), 99.5)
    if np.maximum(away - least, 0).sum() > np.maximum(-away - least, 0).sum():  # light ink on dark paper
        picture, small = 1 - picture, 1 - small
    inks = [_darker_than_paper(brightness(picture), brightness(small), side)]
    if picture.ndim == 3:
        inks += [_darker_than_paper(picture[:, :, index], small[:, :, index], side) for index in range(3)]
    ink = np.maximum.reduce(inks)
    noise = 1.4826 * np.median(np.abs(inks[0]))
    ink[ink < 3 * noise] = 0
    standing_out = ink[ink > max(4 * noise, LEAST_CONTRAST)]
    if not standing_out.size:
        return None
    # Most of what stands out may be ruling or noise; ink is the darker kind.
    return ink / standing_out[standing_out >= threshold(standing_out)].mean()


def _darker_than_paper(brightness: np.ndarray, small: np.ndarray, side: int) -> np.ndarray:
    """Return by which share each pixel is darker than the paper. ``small`` is the small copy with the windows."""
    paper = ndimage.gaussian_filter(ndimage.percentile_filter(small, 75, side, mode="nearest"), side / 4)
    ink = 1 - brightness / np.maximum(resize(paper, brightness.shape[::-1]), 0.05)
    ink -= np.median(ink)
    # At the edge of a shadow the light changes within less than a window. Most of a smaller window is paper as well.
    coarse = resize(ink, small.shape[::-1])
    shadow = np.maximum(ndimage.percentile_filter(coarse, 30, side * 3 // 4, mode="nearest"), 0)
    return ink - resize(ndimage.gaussian_filter(shadow, 1), brightness.shape[::-1])


def contrast(picture: np.ndarray) -> np.ndarray | None:
    """Return the ink of a tightly cropped digit, from 0 to 1, or None if nothing stands out."""
    if np.ptp(picture) < LEAST_CONTRAST:
        return None
    dark = picture < threshold(picture.ravel())
    # Remains of a printed box lie along the edge, and say nothing about the paper.
    down, across = (side // 10 for side in dark.shape)
    inner = dark[down : dark.shape[0] - down, across : dark.shape[1] - across]
    # Broad strokes may fill half of a tight crop, but hardly its corners, or those of the part within the edge.
    corners = np.mean([part[np.ix_([0, -1], [0, -1])] for part in (dark, inner)])
    if inner.mean() + corners > 1:  # light ink on dark paper
        picture, dark = -picture, ~dark
    paper, ink = np.median(picture[~dark]), np.percentile(picture[dark], 25)
    return np.clip((paper - picture) / (paper - ink), 0, 1).astype(np.float32)


def is_clean(picture: np.ndarray) -> bool:
    """Return whether a picture has only two levels of brightness, like a drawing or a scan without shadows."""
    dark = picture < threshold(picture.ravel())
    if not dark.any() or dark.all():
        return False
    within = dark.mean() * picture[dark].var() + (~dark).mean() * picture[~dark].var()
    return bool(within < 0.07 * picture.var())


def threshold(values: np.ndarray) -> float:
    """Return the value that best separates two kinds of values, by Otsu's method of 1979."""
    return float(threshold_otsu(values)) if np.ptp(values) >= 1e-6 else float(values.max())


def find_strokes(ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the strokes, also where they fade.

    Args:
        ink: (H, W) float32, as ``level_paper`` returns it.

    Returns:
        (H, W) bool, true on strokes; and (H, W) float32, how dark the darkest ink nearby is.
    """
    least_somewhere = 0.45  # every stroke is this dark somewhere
    edge = 0.4  # a stroke ends where it is less than this many times as dark as the darkest ink nearby
    smooth = ndimage.gaussian_filter(ink, 0.6)
    dark = smooth > least_somewhere
    if not dark.any():
        return dark, smooth
    near = 2 * int(np.ceil(min(stroke_width(dark), 0.03 * max(ink.shape)))) + 1
    darkest = ndimage.maximum_filter(smooth, near)
    low, high = np.maximum(FAINT, edge * darkest), np.full_like(smooth, least_somewhere)
    return apply_hysteresis_threshold(smooth, low, high), darkest


def remove_ruling(mask: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Remove printed lines along and across the page, but keep what is written over them.

    Args:
        mask: (H, W) bool, true on everything that is not paper.
        ink: (H, W) float32, how dark it is.
    """
    for _ in range(2):  # along, then across
        width = mask.shape[1]
        mask = _remove_lines(mask, ink, length=max(40, width // 12), least=0.5 * width, ratio=40).T
        ink = ink.T
    return mask


def remove_frame(mask: np.ndarray, ink: np.ndarray, length: float) -> np.ndarray:
    """Remove straight lines along and across the page that are longer than any stroke of a digit.

    Args:
        mask: (H, W) bool, true on strokes.
        ink: (H, W) float32, how dark they are.
        length: the length in pixels from which on a line cannot be a stroke.
    """
    for _ in range(2):
        mask = _remove_lines(mask, ink, length=int(0.7 * length), least=length, ratio=6).T
        ink = ink.T
    return mask


def _slope_of_lines(mask: np.ndarray) -> float:
    """Return the slope, in rows per column, at which the ink of a page best forms lines."""
    step = max(1, max(mask.shape) // 900)
    y, x = np.nonzero(mask[::step, ::step])
    if not len(y):
        return 0.0
    x = x - mask.shape[1] / step / 2

    def peaks(slope: float) -> float:
        counts = np.bincount(np.rint(y - slope * x).astype(int) + sum(mask.shape))
        return float(np.square(np.diff(counts), dtype=float).sum())

    slopes = np.tan(np.deg2rad(np.linspace(-8, 8, 33)))  # printed lines are tilted by at most 8 degrees
    return float(max(slopes, key=lambda slope: (peaks(slope), -abs(slope))))


def _level(image: np.ndarray, slope: float, *, back: bool = False) -> np.ndarray:
    """Move every column of an image up or down, so that lines of a slope become level, or back."""
    height, width = image.shape
    shift = np.rint(slope * (np.arange(width) - width / 2)).astype(int)
    most = int(np.abs(shift).max())
    if back:
        rows = np.arange(height - 2 * most)[:, None] + most - shift
        return image[rows, np.arange(width)]
    rows = np.arange(-most, height + most)[:, None] + shift
    moved = image[rows.clip(0, height - 1), np.arange(width)]
    return np.where((rows >= 0) & (rows < height), moved, image.dtype.type(0))


def _close_gaps(mask: np.ndarray, gap: int, axis: int) -> np.ndarray:
    return ndimage.minimum_filter1d(ndimage.maximum_filter1d(mask, gap, axis=axis), gap, axis=axis)


def _remove_lines(mask: np.ndarray, ink: np.ndarray, *, length: int, least: float, ratio: float) -> np.ndarray:
    """Remove lines of the slope that most lines have.

    Args:
        mask: (H, W) bool, true on everything that is not paper.
        ink: (H, W) float32, how dark it is.
        length: pixels of each piece of a line, at least.
        least: pixels of a whole line, at least.
        ratio: a whole line is at least this many times as long as thick.
    """
    unchanged, slope = mask, _slope_of_lines(mask)
    mask, ink = _level(mask, slope), _level(ink, slope)
    # Thickened lines stay in one piece even if they are not quite level, or interrupted here and there.
    thick = _close_gaps(ndimage.maximum_filter1d(mask, 5, axis=0), max(5, length // 8), axis=1)
    pieces = ndimage.maximum_filter1d(ndimage.minimum_filter1d(thick, length, axis=1), length, axis=1)
    if not pieces.any():
        return unchanged
    labels, _ = ndimage.label(pieces, CONNECTED)
    runs = _run_lengths(mask)
    removed = np.zeros_like(mask)
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        extent = where[1].stop - where[1].start
        line = mask[where] & (labels[where] == number)
        if extent < least or not line.any():
            continue
        # A stroke that lies on the line covers only a few of its columns, so it does not change these medians.
        columns, darkness = line.any(axis=0), np.where(line, ink[where], 0)
        thickness = np.median(np.where(line, runs[where], 0).max(axis=0)[columns])
        if thickness <= extent / ratio:
            # A stroke that crosses the line is taller than the line. One that lies along it is usually 1.3 times as
            # dark or more.
            core = ndimage.maximum_filter1d(darkness, 2 * int(thickness) + 1, axis=0)
            pale = core <= 1.3 * np.median(darkness.max(axis=0)[columns])
            removed[where] |= line & pale & (runs[where] <= 1.5 * thickness + 1)
    if not removed.any():
        return unchanged
    kept = mask & ~removed
    # Mend strokes that went through a line at a flat angle.
    mended = _close_gaps(kept, int(2 * np.median(runs[removed])) + 1, axis=0)
    return _level(kept | (mended & removed), slope, back=True)


def _run_lengths(mask: np.ndarray) -> np.ndarray:
    """Return the height of the unbroken vertical run that every pixel of a mask belongs to."""
    rows = np.arange(len(mask))[:, None]
    before = np.maximum.accumulate(np.where(mask, -1, rows), axis=0)
    after = np.minimum.accumulate(np.where(mask, len(mask), rows)[::-1], axis=0)[::-1]
    return after - before - 1
