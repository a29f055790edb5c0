"""Tell ink from paper: even out the light, find the strokes, and remove printed lines."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold, threshold_otsu

from kaggle_digits.handwriting.normalise import stroke_width
from kaggle_digits.learners.placing import rescale, resize

WINDOW = 1 / 6
"""The brightest part of a window counts as paper. The window's size is this share of the page's longer side, which
makes it broader than strokes and loops."""

WINDOW_SIDE = 13
"""That window has this many pixels on each side in the small copy from which the light on the paper is estimated."""

CLEAN = 0.07
"""A picture has no shadows if the variance of brightness within ink and within paper is less than this share of the
whole variance."""

LEAST_CONTRAST = 0.08
"""Ink reflects less light than paper, by at least this share."""

EDGE = 0.4
"""A stroke ends where the ink falls below this share of the darkest ink nearby. Strokes may fade along their way."""

FAINT, DARK = 0.16, 0.45
"""Everywhere a stroke is at least FAINT times as dark as most ink, and somewhere at least DARK times."""

RULED_LENGTH, RULED_SHARE, RULED_RATIO = 40, 0.5, 40
"""The least size of a printed line: the length of one piece in pixels, the whole length over the page's width, and the
whole length over the thickness."""

MOST_TILTED = 8
"""Printed lines are tilted by at most this many degrees."""

WRITTEN = 1.3
"""Whatever is more than this many times as dark as the printed line that it lies on is handwriting."""

CONNECTED = np.ones((3, 3), bool)
"""Pixels that touch belong to one stroke, even if they touch only at a corner."""


LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""How bright red, green and blue are. Source: ITU-R BT.601, as Pillow uses it."""


def brightness(picture: np.ndarray) -> np.ndarray:
    """Return the brightness of a picture, (H, W) or (H, W, 3), as (H, W)."""
    return picture if picture.ndim == 2 else picture @ LUMA


def level_paper(picture: np.ndarray, *, window: float = WINDOW) -> np.ndarray | None:
    """Even out the light on the paper, and return as ink whatever is darker, or lighter, than the paper.

    Args:
        picture: (H, W) or (H, W, 3) float32, brightness from 0 to 1. Of three channels, the one in which the ink stands
            out most counts, so a yellow or cyan pen is ink as well.
        window: the size of a window as a share of the longer side. Wherever the window lies, it must hold some paper.

    Returns:
        (H, W) float32, 0 for paper, near 1 for most ink; None if nothing stands out.
    """
    # A small copy is enough to estimate the light, and averages the noise away.
    scale = WINDOW_SIDE / (window * max(picture.shape))
    small = rescale(picture, scale)
    grey = brightness(small)
    away = grey - ndimage.median_filter(grey, WINDOW_SIDE, mode="nearest")
    least = 0.4 * np.percentile(np.abs(away), 99.5)
    if np.maximum(away - least, 0).sum() > np.maximum(-away - least, 0).sum():  # light ink on dark paper
        picture, small = 1 - picture, 1 - small
    channels = [(picture, small)]
    if picture.ndim == 3:
        channels = [(brightness(picture), brightness(small))]
        channels += [(picture[:, :, index], small[:, :, index]) for index in range(3)]
    inks = [_darker_than_paper(*channel) for channel in channels]
    ink = np.maximum.reduce(inks)
    noise = 1.4826 * np.median(np.abs(inks[0]))
    ink[ink < 3 * noise] = 0
    standing_out = ink[ink > max(4 * noise, LEAST_CONTRAST)]
    if not standing_out.size:
        return None
    # Most of what stands out may be ruling or noise; ink is the darker kind.
    return ink / standing_out[standing_out >= threshold(standing_out)].mean()


def _darker_than_paper(brightness: np.ndarray, small: np.ndarray) -> np.ndarray:
    paper = ndimage.gaussian_filter(ndimage.percentile_filter(small, 75, WINDOW_SIDE, mode="nearest"), WINDOW_SIDE / 4)
    ink = 1 - brightness / np.maximum(resize(paper, brightness.shape[::-1]), 0.05)
    ink -= np.median(ink)
    # At the edge of a shadow the light changes within less than a window. Most of a smaller window is paper as well.
    coarse = resize(ink, small.shape[::-1])
    left = ndimage.percentile_filter(coarse, 30, WINDOW_SIDE * 3 // 4, mode="nearest")
    left = ndimage.gaussian_filter(np.maximum(left, 0), 1)
    return ink - resize(left, brightness.shape[::-1])


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
    return bool(within < CLEAN * picture.var())


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
    smooth = ndimage.gaussian_filter(ink, 0.6)
    dark = smooth > DARK
    if not dark.any():
        return dark, smooth
    near = 2 * int(np.ceil(min(stroke_width(dark), 0.03 * max(ink.shape)))) + 1
    darkest = ndimage.maximum_filter(smooth, near)
    mask = apply_hysteresis_threshold(smooth, np.maximum(FAINT, EDGE * darkest), np.full_like(smooth, DARK))
    return mask, darkest


def remove_ruling(mask: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Remove printed lines along and across the page, but keep what is written over them.

    Args:
        mask: (H, W) bool, true on everything that is not paper.
        ink: (H, W) float32, how dark it is.
    """
    for _ in range(2):  # along, then across
        width = mask.shape[1]
        slope = _slope_of_lines(mask)
        mask = _remove_lines(
            mask, ink, slope, length=max(RULED_LENGTH, width // 12), least=RULED_SHARE * width, ratio=RULED_RATIO
        ).T
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
        mask = _remove_lines(mask, ink, _slope_of_lines(mask), length=int(0.7 * length), least=length, ratio=6).T
        ink = ink.T
    return mask


def _slope_of_lines(mask: np.ndarray) -> float:
    """Return the slope, in rows per column, at which the ink of a page lies in lines most of all."""
    step = max(1, max(mask.shape) // 900)
    y, x = np.nonzero(mask[::step, ::step])
    if not len(y):
        return 0.0
    x = x - mask.shape[1] / step / 2

    def peaks(slope: float) -> float:
        counts = np.bincount(np.rint(y - slope * x).astype(int) + sum(mask.shape))
        return float(np.square(np.diff(counts), dtype=float).sum())

    slopes = np.tan(np.deg2rad(np.linspace(-MOST_TILTED, MOST_TILTED, 4 * MOST_TILTED + 1)))
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
    return np.where(
        (rows >= 0) & (rows < height), image[rows.clip(0, height - 1), np.arange(width)], image.dtype.type(0)
    )


def _remove_lines(
    mask: np.ndarray, ink: np.ndarray, slope: float, *, length: int, least: float, ratio: float
) -> np.ndarray:
    """Remove lines of a slope.

    Args:
        mask: (H, W) bool, true on everything that is not paper.
        ink: (H, W) float32, how dark it is.
        slope: rows per column.
        length: pixels of each piece of a line, at least.
        least: pixels of a whole line, at least.
        ratio: a whole line is at least this many times as long as thick.
    """
    given = mask
    mask, ink = _level(mask, slope), _level(ink, slope)
    # Thickened lines stay in one piece even if they are not quite level, or interrupted here and there.
    thick = ndimage.maximum_filter1d(mask, 5, axis=0)
    gap = max(5, length // 8)
    thick = ndimage.minimum_filter1d(ndimage.maximum_filter1d(thick, gap, axis=1), gap, axis=1)
    pieces = ndimage.maximum_filter1d(ndimage.minimum_filter1d(thick, length, axis=1), length, axis=1)
    if not pieces.any():
        return given
    labels, _ = ndimage.label(pieces, CONNECTED)
    runs = _run_lengths(mask)
    removed = np.zeros_like(mask)
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        extent = where[1].stop - where[1].start
        line = mask[where] & (labels[where] == number)
        if extent < least or not line.any():
            continue
        # A stroke that lies on the line covers only a few of its columns, so it does not change these medians.
        columns = line.any(axis=0)
        thickness = np.median(np.where(line, runs[where], 0).max(axis=0)[columns])
        if thickness <= extent / ratio:
            # A stroke that crosses the line is taller than the line. One that lies along the line is usually darker.
            core = ndimage.maximum_filter1d(np.where(line, ink[where], 0), 2 * int(thickness) + 1, axis=0)
            pale = core <= WRITTEN * np.median(np.where(line, ink[where], 0).max(axis=0)[columns])
            removed[where] |= line & pale & (runs[where] <= 1.5 * thickness + 1)
    if not removed.any():
        return given
    left = mask & ~removed
    # Mend strokes that went through a line at a flat angle.
    gap = int(2 * np.median(runs[removed])) + 1
    mended = ndimage.minimum_filter1d(ndimage.maximum_filter1d(left, gap, axis=0), gap, axis=0)
    return _level(left | (mended & removed), slope, back=True)


def _run_lengths(mask: np.ndarray) -> np.ndarray:
    """Return the height of the unbroken vertical run that every pixel of a mask belongs to."""
    rows = np.arange(len(mask))[:, None]
    before = np.maximum.accumulate(np.where(mask, -1, rows), axis=0)
    after = np.minimum.accumulate(np.where(mask, len(mask), rows)[::-1], axis=0)[::-1]
    return after - before - 1
