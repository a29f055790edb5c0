"""Find the digits on a photograph or scan, and turn each into what MNIST's makers would have made of it.

A picture goes through these stages: brightness → ``level_paper`` → ink → ``_remove_ruling`` → connected strokes →
digits in reading order → ``normalise_digit`` → pixels as in train.csv.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from kaggle_digits import SIDE

WORKING_SIDE, SINGLE_SIDE = 1800, 400
"""A page, or a picture of one digit, has at most this many pixels on its longer side while digits are looked for."""

CROPPED_SIDE = 64
"""A picture of one digit with at most this many pixels on its shorter side has no uneven light to level."""

BOX = 20
"""A digit in MNIST's images has this many pixels on its longer side."""

FINE = 80
"""A digit has this many pixels on its longer side while its strokes are measured."""

THINNEST, BROADEST = 0.09, 0.2
"""Stroke width over the longer side of a digit lies between these values for 90 % of the digits in train.csv."""

BLURRED = 1.5
"""A digit with fewer than this many times BOX pixels on its longer side is too coarse for its strokes to be changed."""

WINDOW, SINGLE_WINDOW = 1 / 6, 1 / 3
"""The brightest part of a window counts as paper. The window's size is this share of the longer side of a page, or of a
picture of one digit, which makes it broader than strokes and loops."""

WINDOW_SIDE = 13
"""That window has this many pixels on each side in the small copy from which the light on the paper is estimated."""

CLEAN = 0.07
"""A picture has no shadows if the variance of brightness within ink and within paper is less than this share of the
whole variance."""

LEAST_CONTRAST = 0.08
"""Ink reflects less light than paper, by at least this share."""

FAINT = 0.28
"""Strokes may fade in places to this share of the darkness of most ink."""

SMALLEST = 8
"""A piece with fewer pixels on its longer side is ignored."""

RULED_LENGTH, RULED_SHARE, RULED_RATIO = 40, 0.5, 40
"""The least size of a printed line: the length of one piece in pixels, the whole length over the page's width, and the
whole length over the thickness."""

WRITTEN = 1.3
"""Whatever is more than this many times as dark as the printed line that it lies on is handwriting."""

BLOT, STEEP = 0.55, 2.5
"""A piece is a blot if its stroke width is more than BLOT times its shorter side, and its longer side less than STEEP
times its shorter side. This is true of 1 in 3,000 digits in train.csv."""

ROW_GAP = 0.5
"""A gap of more than this share of the usual height of digits separates two rows."""

CONNECTED = np.ones((3, 3), bool)
"""Pixels that touch belong to one stroke, even if they touch only at a corner."""


@dataclass(frozen=True)
class Found:
    """A digit, or what may be one.

    Args:
        box: left, top, right, bottom in pixels of the picture; right and bottom are just outside.
        row: the row on the page, from 0.
        pixels: (784,) uint8, 0–255, as in train.csv.
    """

    box: tuple[int, int, int, int]
    row: int
    pixels: np.ndarray


@dataclass(frozen=True)
class _Strokes:
    """Connected strokes: their box, and a mask of the pixels in it that belong to them."""

    box: tuple[int, int, int, int]
    mask: np.ndarray

    @property
    def width(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]

    @property
    def middle(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


def find_single(picture: np.ndarray) -> Found | None:
    """Find the digit of a picture that holds exactly one, cropped tightly or with paper around it.

    Args:
        picture: (H, W) float32, brightness from 0 to 1.

    Returns:
        the digit, or None if nothing is written.
    """
    working, factor = _shrink(picture, SINGLE_SIDE)
    cropped = min(working.shape) <= CROPPED_SIDE or _is_clean(working)
    ink = _contrast(working) if cropped else level_paper(working, window=SINGLE_WINDOW)
    if ink is None:
        return None
    mask = ink > 0.5
    if not cropped:
        mask = _remove_ruling(mask, ink)
    found = _main_strokes(mask, cropped=cropped)
    return _digit(found, ink, factor, row=0) if found else None


def find_digits(picture: np.ndarray) -> list[Found]:
    """Find all digits of a page in reading order: rows from top to bottom, each from left to right.

    Whatever cannot be a digit is left out: rulings, the edge of the paper, dots, blots, smudges.

    Args:
        picture: (H, W) float32, brightness from 0 to 1.
    """
    working, factor = _shrink(picture, WORKING_SIDE)
    ink = level_paper(working)
    if ink is None:
        return []
    pieces = _separate(_remove_ruling(ink > FAINT, ink), ink)
    digits = _without_debris(_join(pieces), ink.shape)
    return [_digit(strokes, ink, factor, row=number) for number, row in enumerate(_rows(digits)) for strokes in row]


def normalise_digit(ink: np.ndarray) -> np.ndarray:
    """Scale, thicken or thin, and centre a digit as MNIST's makers did.

    The digit is scaled to 20 pixels on its longer side, by averaging over areas, and keeps its aspect ratio. Its centre
    of mass moves into the pixel right of and below the middle of 28 × 28. Strokes thinner or broader than nearly all of
    MNIST's get the nearest width that is usual there.

    Args:
        ink: (H, W) float32, from 0 (paper) to 1 (ink).

    Returns:
        (784,) uint8, 0–255.

    Source: box, resampling and centre follow MNIST as rebuilt by Yadav and Bottou 2019, arXiv 1905.10498.
    """
    framed = np.pad(ink, 2)
    left, top, right, bottom = _box(framed > 0.35 * framed.max())
    scale = FINE / max(right - left, bottom - top)
    size = [max(1, round(side * scale)) for side in reversed(framed.shape)]
    fine = np.clip(_resize(framed, size), 0, 1)
    strokes = fine > 0.5 * fine.max()
    left, top, right, bottom = _box(strokes)
    side = max(right - left, bottom - top)
    ratio = _stroke_width(strokes) / side
    usual = np.clip(ratio, THINNEST, BROADEST)
    if usual != ratio and FINE / scale >= BLURRED * BOX:
        # Moving the outline also changes the box. This distance makes the width right for the new box.
        fine = _move_outline(strokes, (usual - ratio) * side / (2 * (1 - usual)))
    left, top, right, bottom = _box(fine > 0.35 * fine.max())
    square = np.zeros([max(right - left, bottom - top)] * 2, np.float32)
    down, across = ((len(square) - extent) // 2 for extent in (bottom - top, right - left))
    square[down : down + bottom - top, across : across + right - left] = fine[top:bottom, left:right]
    small = _resize(square, (BOX, BOX))
    small = small / small.max()
    centres = np.arange(BOX) + 0.5
    image = np.zeros((SIDE, SIDE), np.float32)
    y, x = (
        int(np.clip(int(SIDE / 2 + 1 - small.sum(axis=axis) @ centres / small.sum()), 0, SIDE - BOX)) for axis in (1, 0)
    )
    image[y : y + BOX, x : x + BOX] = small
    return np.rint(255 * image).astype(np.uint8).ravel()


def level_paper(picture: np.ndarray, *, window: float = WINDOW) -> np.ndarray | None:
    """Even out the light on the paper, and return as ink whatever is darker, or lighter, than the paper.

    Args:
        picture: (H, W) float32, brightness from 0 to 1.
        window: the size of a window as a share of the longer side. Wherever the window lies, it must hold some paper.

    Returns:
        (H, W) float32, 0 for paper, near 1 for most ink; None if nothing stands out.
    """
    # A small copy is enough to estimate the light, and averages the noise away.
    scale = WINDOW_SIDE / (window * max(picture.shape))
    small = _resize(picture, [max(1, round(side * scale)) for side in reversed(picture.shape)])
    away = small - ndimage.median_filter(small, WINDOW_SIDE, mode="nearest")
    least = 0.4 * np.percentile(np.abs(away), 99.5)
    if np.maximum(away - least, 0).sum() > np.maximum(-away - least, 0).sum():  # light ink on dark paper
        picture, small = 1 - picture, 1 - small
    paper = ndimage.gaussian_filter(ndimage.percentile_filter(small, 75, WINDOW_SIDE, mode="nearest"), WINDOW_SIDE / 4)
    ink = 1 - picture / np.maximum(_resize(paper, picture.shape[::-1]), 0.05)
    ink -= np.median(ink)
    noise = 1.4826 * np.median(np.abs(ink))
    ink[ink < 3 * noise] = 0
    standing_out = ink[ink > max(4 * noise, LEAST_CONTRAST)]
    if not standing_out.size:
        return None
    # Most of what stands out may be ruling or noise; ink is the darker kind.
    return ink / standing_out[standing_out >= _threshold(standing_out)].mean()


def _contrast(picture: np.ndarray) -> np.ndarray | None:
    """Return the ink of a tightly cropped digit, from 0 to 1, or None if nothing stands out."""
    if np.ptp(picture) < LEAST_CONTRAST:
        return None
    dark = picture < _threshold(picture.ravel())
    # Remains of a printed box lie along the edge, and say nothing about the paper.
    down, across = (side // 10 for side in dark.shape)
    inner = dark[down : dark.shape[0] - down, across : dark.shape[1] - across]
    # Broad strokes may fill half of a tight crop, but hardly its corners, or those of the part within the edge.
    corners = np.mean([part[:: part.shape[0] - 1, :: part.shape[1] - 1] for part in (dark, inner)])
    if inner.mean() + corners > 1:  # light ink on dark paper
        picture, dark = -picture, ~dark
    paper, ink = np.median(picture[~dark]), np.percentile(picture[dark], 25)
    return np.clip((paper - picture) / (paper - ink), 0, 1).astype(np.float32)


def _is_clean(picture: np.ndarray) -> bool:
    """Return whether a picture has only two levels of brightness, like a drawing or a scan without shadows."""
    dark = picture < _threshold(picture.ravel())
    if not dark.any() or dark.all():
        return False
    within = dark.mean() * picture[dark].var() + (~dark).mean() * picture[~dark].var()
    return bool(within < CLEAN * picture.var())


def _threshold(values: np.ndarray) -> float:
    """Return the value that best separates two kinds of values, by Otsu's method of 1979."""
    values = values.astype(np.float64)
    if np.ptp(values) < 1e-6:
        return float(values.max())
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[-2::-1]
    sums = np.cumsum(counts * middles)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (means[0] - means[1]) ** 2
    best = np.flatnonzero(between == between.max())
    return float(min(edges[1:-1][best].mean(), values.max()))


def _remove_ruling(mask: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Remove printed lines along and across the page, but keep what is written over them.

    Args:
        mask: (H, W) bool, true on everything that is not paper.
        ink: (H, W) float32, how dark it is.
    """
    return _remove_level_lines(_remove_level_lines(mask, ink).T, ink.T).T


def _remove_level_lines(mask: np.ndarray, ink: np.ndarray) -> np.ndarray:
    width = mask.shape[1]
    length = max(RULED_LENGTH, width // 12)
    # Thickened lines stay in one piece even if they are not quite level.
    thick = ndimage.maximum_filter1d(mask, 5, axis=0)
    pieces = ndimage.maximum_filter1d(ndimage.minimum_filter1d(thick, length, axis=1), length, axis=1)
    if not pieces.any():
        return mask
    labels, _ = ndimage.label(pieces, CONNECTED)
    runs = _run_lengths(mask)
    removed = np.zeros_like(mask)
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        extent = where[1].stop - where[1].start
        line = mask[where] & (labels[where] == number)
        if extent < RULED_SHARE * width or not line.any():
            continue
        thickness = np.median(runs[where][line])
        if thickness <= extent / RULED_RATIO:
            # A stroke that crosses the line is taller than the line. One that lies along the line is usually darker.
            core = ndimage.maximum_filter1d(np.where(line, ink[where], 0), 2 * int(thickness) + 1, axis=0)
            pale = core <= WRITTEN * np.median(core[line])
            removed[where] |= line & pale & (runs[where] <= 1.5 * thickness + 1)
    if not removed.any():
        return mask
    left = mask & ~removed
    # Mend strokes that went through a line at a flat angle.
    gap = int(2 * np.median(runs[removed])) + 1
    mended = ndimage.minimum_filter1d(ndimage.maximum_filter1d(left, gap, axis=0), gap, axis=0)
    return left | (mended & removed)


def _run_lengths(mask: np.ndarray) -> np.ndarray:
    """Return the height of the unbroken vertical run that every pixel of a mask belongs to."""
    rows = np.arange(len(mask))[:, None]
    before = np.maximum.accumulate(np.where(mask, -1, rows), axis=0)
    after = np.minimum.accumulate(np.where(mask, len(mask), rows)[::-1], axis=0)[::-1]
    return after - before - 1


def _separate(mask: np.ndarray, ink: np.ndarray) -> list[_Strokes]:
    """Split a page into connected strokes, each cut out at half its own darkness."""
    labels, _ = ndimage.label(mask, CONNECTED)
    found = []
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        if max(part.stop - part.start for part in where) < SMALLEST:
            continue
        own = np.where(labels[where] == number, ink[where], 0)
        dark = np.percentile(own[own > 0], 90)
        if dark < 0.5:  # paler than the limit between ink and paper
            continue
        strong = own > min(0.5, 0.5 * dark)
        parts, _ = ndimage.label(strong, CONNECTED)
        for index, inside in enumerate(ndimage.find_objects(parts), start=1):
            if max(part.stop - part.start for part in inside) < SMALLEST:
                continue
            top, left = (outer.start + inner.start for outer, inner in zip(where, inside, strict=True))
            bottom, right = (outer.start + inner.stop for outer, inner in zip(where, inside, strict=True))
            found.append(_Strokes((left, top, right, bottom), parts[inside] == index))
    return found


def _usual_height(pieces: list[_Strokes]) -> float:
    """Return the usual height of digits: the median height of the pieces, weighted by height."""
    heights = np.sort([piece.height for piece in pieces])
    return float(heights[np.searchsorted(np.cumsum(heights), heights.sum() / 2)])


def _join(pieces: list[_Strokes]) -> list[_Strokes]:
    """Join strokes of one digit: they lie close together, one above the other, and are not too tall when joined."""
    pieces = list(pieces)
    if not pieces:
        return []
    usual = _usual_height(pieces)
    pieces.sort(key=lambda piece: -piece.height)
    joined: list[_Strokes] = []
    for piece in pieces:
        # Only a small piece can be part of a digit. A page full of print has thousands of pieces, too many to try all.
        for index, other in enumerate(joined) if piece.height <= 0.7 * usual else ():
            overlap = min(piece.box[2], other.box[2]) - max(piece.box[0], other.box[0])
            gap = max(piece.box[1], other.box[1]) - min(piece.box[3], other.box[3])
            height = max(piece.box[3], other.box[3]) - min(piece.box[1], other.box[1])
            if (
                overlap >= 0.4 * min(piece.width, other.width)
                and gap <= 0.2 * usual
                and height <= 1.4 * max(usual, other.height)
            ):
                joined[index] = _union(other, piece)
                break
        else:
            joined.append(piece)
    return joined


def _union(one: _Strokes, other: _Strokes) -> _Strokes:
    left, top = (min(one.box[axis], other.box[axis]) for axis in (0, 1))
    right, bottom = (max(one.box[axis], other.box[axis]) for axis in (2, 3))
    mask = np.zeros((bottom - top, right - left), bool)
    for part in (one, other):
        mask[part.box[1] - top : part.box[3] - top, part.box[0] - left : part.box[2] - left] |= part.mask
    return _Strokes((left, top, right, bottom), mask)


def _without_debris(pieces: list[_Strokes], shape: tuple[int, int]) -> list[_Strokes]:
    """Leave out what no digit looks like: too small, too large, too flat, a blot, or a part of the picture's edge."""
    if not pieces:
        return []
    usual = _usual_height(pieces)
    kept = []
    for piece in pieces:
        size = max(piece.width, piece.height)
        short = min(piece.width, piece.height)
        if _touches_edge(piece, shape) and (size > 1.3 * usual or size < 0.6 * usual):
            continue
        if piece.height < 0.4 * usual or size > 3 * usual or piece.width > 3 * piece.height:
            continue
        if size < STEEP * short and _stroke_width(piece.mask) > BLOT * short:
            continue
        kept.append(piece)
    return kept


def _rows(pieces: list[_Strokes]) -> list[list[_Strokes]]:
    """Sort digits into rows from top to bottom, each from left to right, even if the page is turned a little."""
    if not pieces:
        return []
    usual = _usual_height(pieces)
    middles = np.array([piece.middle for piece in pieces])

    def levels(slope: float) -> np.ndarray:
        return middles[:, 1] - slope * middles[:, 0]

    def spread(slope: float) -> float:
        gaps = np.diff(np.sort(levels(slope)))
        return float(np.minimum(gaps, ROW_GAP * usual).sum())

    # At the page's own slope, rows are narrow and most of the height lies between them.
    slope = min(np.tan(np.deg2rad(np.linspace(-12, 12, 97))), key=lambda slope: (round(spread(slope)), abs(slope)))
    order = np.argsort(levels(slope))
    number = np.concatenate([[0], np.cumsum(np.diff(levels(slope)[order]) > ROW_GAP * usual)])
    rows: list[list[_Strokes]] = [[] for _ in range(number[-1] + 1)]
    for row, index in zip(number, order, strict=True):
        rows[row].append(pieces[index])
    return [sorted(row, key=lambda piece: piece.middle[0]) for row in rows]


def _main_strokes(mask: np.ndarray, *, cropped: bool) -> _Strokes | None:
    """Return the strokes of the one digit: the largest piece and other large ones, without remains of a frame."""
    labels, count = ndimage.label(mask, CONNECTED)
    if not count:
        return None
    boxes = ndimage.find_objects(labels)
    pieces = [
        _Strokes((where[1].start, where[0].start, where[1].stop, where[0].stop), labels[where] == number)
        for number, where in enumerate(boxes, start=1)
    ]

    # Remains of a printed box lie along the edge.
    margin = max(2, round(0.06 * min(mask.shape)))
    inner = np.zeros_like(mask)
    inner[margin:-margin, margin:-margin] = True

    def on_edge(piece: _Strokes) -> bool:
        left, top, right, bottom = piece.box
        share = (piece.mask & ~inner[top:bottom, left:right]).sum() / piece.mask.sum()
        return share > 0.6 or (not cropped and _touches_edge(piece, mask.shape))

    pieces.sort(key=lambda piece: piece.mask.sum(), reverse=True)
    inside = [piece for piece in pieces if not on_edge(piece)]
    if inside and inside[0].mask.sum() >= 0.1 * pieces[0].mask.sum():
        pieces = inside
    whole = pieces[0]
    for piece in pieces[1:]:
        if piece.mask.sum() >= 0.06 * pieces[0].mask.sum():
            whole = _union(whole, piece)
    return whole


def _touches_edge(piece: _Strokes, shape: tuple[int, ...]) -> bool:
    left, top, right, bottom = piece.box
    return left <= 1 or top <= 1 or right >= shape[1] - 1 or bottom >= shape[0] - 1


def _digit(strokes: _Strokes, ink: np.ndarray, factor: float, *, row: int) -> Found:
    """Cut strokes out of a page's ink, with their soft edge, and normalise them."""
    left, top, right, bottom = strokes.box
    mask = ndimage.binary_dilation(np.pad(strokes.mask, 2), CONNECTED, iterations=2)
    around = np.pad(ink, 2)[top : bottom + 4, left : right + 4]
    alone = np.where(mask, around, 0)
    dark = max(0.5, float(np.percentile(around[2:-2, 2:-2][strokes.mask], 75)))
    box = (int(left * factor), int(top * factor), int(np.ceil(right * factor)), int(np.ceil(bottom * factor)))
    return Found(box, row, normalise_digit(np.clip(alone / dark, 0, 1)))


def _stroke_width(mask: np.ndarray) -> float:
    """Return the mean width of strokes in pixels, which is four times the mean distance to their edge."""
    distances = ndimage.distance_transform_edt(np.pad(mask, 1))
    return float(4 * (distances[distances > 0].mean() - 0.5) + 1)


def _move_outline(mask: np.ndarray, distance: float) -> np.ndarray:
    """Move the outline of strokes out by a distance in pixels, or in if negative. Return 0 to 1, with soft edges."""
    margin = int(max(0, distance)) + 2
    mask = np.pad(mask, margin)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    distance = max(distance, 1 - inside.max())  # so that something is left of every digit
    return np.clip(np.where(mask, inside, 1 - outside) + distance, 0, 1).astype(np.float32)


def _shrink(picture: np.ndarray, most: int) -> tuple[np.ndarray, float]:
    """Shrink a picture to at most ``most`` pixels on its longer side. Return it, and the factor by which it shrank."""
    factor = max(1.0, max(picture.shape) / most)
    if factor == 1:
        return picture, 1.0
    return _resize(picture, [max(1, round(side / factor)) for side in reversed(picture.shape)]), factor


def _resize(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resample to (width, height), bicubic if either grows, else by means over areas."""
    grows = size[0] > image.shape[1] or size[1] > image.shape[0]
    how = Image.Resampling.BICUBIC if grows else Image.Resampling.BOX
    return np.asarray(Image.fromarray(np.ascontiguousarray(image, np.float32)).resize((size[0], size[1]), how))


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the true pixels."""
    across, down = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1
