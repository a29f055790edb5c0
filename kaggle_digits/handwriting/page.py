"""Find the digits on a photograph or scan, and make of each what MNIST's makers would have made.

The way of a picture: brightness → ``level_paper`` → ink → ``_remove_ruling`` → connected strokes → digits in reading
order → ``normalise_digit`` → pixels as in train.csv.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from kaggle_digits import SIDE

WORKING_SIDE, SINGLE_SIDE = 1800, 400
"""Pixels of the longer side of a page while digits are looked for, and of a picture of one digit."""

CROPPED_SIDE = 64
"""Pixels of the shorter side up to which a picture of one digit has no light to level."""

BOX = 20
"""Pixels of the longer side of a digit in MNIST's images."""

FINE = 80
"""Pixels of the longer side of a digit while its strokes are measured."""

THINNEST, BROADEST = 0.09, 0.2
"""Stroke width over the longer side of the digit: of train.csv's digits 90 % are between."""

BLURRED = 1.5
"""A digit of fewer than so many times BOX pixels is too coarse for a change of its strokes."""

WINDOW, SINGLE_WINDOW = 1 / 6, 1 / 3
"""Of the longer side: paper is what is brightest in a window of this size, broader than strokes and loops are."""

WINDOW_SIDE = 13
"""Pixels of that window in the small copy from which the light on the paper is estimated."""

CLEAN = 0.07
"""Of the variance of brightness, what is at most within ink and within paper where neither has shadows."""

LEAST_CONTRAST = 0.08
"""Ink reflects at least so much less of the light than paper does."""

FAINT = 0.28
"""Of the darkness of most ink, what strokes may fall to in between."""

SMALLEST = 8
"""Pixels of the longer side of the smallest piece that is looked at."""

RULED_LENGTH, RULED_SHARE, RULED_RATIO = 40, 0.5, 40
"""Of a printed line: the least length of a piece in pixels, of all over the page's width, and length over thickness."""

WRITTEN = 1.3
"""Times as dark as the printed line that it is on is what was written."""

BLOT, STEEP = 0.55, 2.5
"""Stroke width over the shorter side from which on something is a blot, unless it is so much longer than broad: of
train.csv's digits 1 in 3,000."""

ROW_GAP = 0.5
"""Of the usual height of digits, what parts two rows."""

CONNECTED = np.ones((3, 3), bool)
"""Neighbours that make one stroke: also those at the corners."""


@dataclass(frozen=True)
class Found:
    """A digit, or what may be one.

    Args:
        box: left, top, right, bottom in pixels of the picture; right and bottom are just outside.
        row: of the page, from 0; digits come in reading order.
        pixels: (784,) uint8, 0–255, as in train.csv.
    """

    box: tuple[int, int, int, int]
    row: int
    pixels: np.ndarray


@dataclass(frozen=True)
class _Strokes:
    """Connected strokes: where they are, and which pixels of that box are theirs."""

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
    """Find the digit of a picture that holds exactly one, be it cropped tightly or with paper around it.

    Args:
        picture: (H, W) float32, brightness from 0 to 1.

    Returns:
        the digit, or None where nothing is written.
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
    """Find all digits of a page, in reading order: rows from above, each from the left.

    What cannot be a digit is left out: rulings, the edge of the paper, dots, blots, smudges.

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

    Its longer side becomes 20 pixels by averaging over areas, its aspect is kept, and its centre of mass comes to lie
    within the pixel right of and below the middle of 28 × 28. Strokes thinner or broader than nearly all of MNIST's
    are brought to the nearest width that is usual there.

    Args:
        ink: (H, W) float32, from 0, paper, to 1, ink.

    Returns:
        (784,) uint8, 0–255.

    Source: for box, resampling and centre, MNIST as rebuilt by Yadav and Bottou 2019, arXiv 1905.10498.
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
        # The outline moves by so much that the width is right after the box has grown with it.
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
    """Make even paper of uneven light and shadows, and ink of whatever is darker, or lighter, than it.

    Args:
        picture: (H, W) float32, brightness from 0 to 1.
        window: as a share of the longer side, in which there is some paper everywhere.

    Returns:
        (H, W) float32, 0 for paper, near 1 for most ink. None where nothing stands out.
    """
    # A small copy is enough to know the light, and its noise is averaged away.
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
    """Return the ink of a tightly cropped digit, from 0 to 1, or None where nothing stands out."""
    if np.ptp(picture) < LEAST_CONTRAST:
        return None
    dark = picture < _threshold(picture.ravel())
    # What is left of a printed box lies along the edge, and says nothing about the paper.
    down, across = (side // 10 for side in dark.shape)
    inner = dark[down : dark.shape[0] - down, across : dark.shape[1] - across]
    # Broad strokes may fill half of a tight crop, but hardly its corners, nor those of what is within the edge.
    corners = np.mean([part[:: part.shape[0] - 1, :: part.shape[1] - 1] for part in (dark, inner)])
    if inner.mean() + corners > 1:  # light ink on dark paper
        picture, dark = -picture, ~dark
    paper, ink = np.median(picture[~dark]), np.percentile(picture[dark], 25)
    return np.clip((paper - picture) / (paper - ink), 0, 1).astype(np.float32)


def _is_clean(picture: np.ndarray) -> bool:
    """Whether a picture has two levels of brightness and little between, as a drawing or a scan without shadows."""
    dark = picture < _threshold(picture.ravel())
    if not dark.any() or dark.all():
        return False
    within = dark.mean() * picture[dark].var() + (~dark).mean() * picture[~dark].var()
    return bool(within < CLEAN * picture.var())


def _threshold(values: np.ndarray) -> float:
    """Return the value that parts two kinds best: Otsu 1979."""
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
    """Take away printed lines along and across the page, but not what is written over them.

    Args:
        mask: (H, W) bool, where there is something.
        ink: (H, W) how dark it is.
    """
    return _remove_level_lines(_remove_level_lines(mask, ink).T, ink.T).T


def _remove_level_lines(mask: np.ndarray, ink: np.ndarray) -> np.ndarray:
    width = mask.shape[1]
    length = max(RULED_LENGTH, width // 12)
    # Lines that are not quite level stay in one piece when thickened.
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
            # A stroke that crosses the line is taller than it; one that lies along it is darker, as a rule.
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
    """Return for every pixel of a mask how many there are in one piece above and below it, itself included."""
    rows = np.arange(len(mask))[:, None]
    before = np.maximum.accumulate(np.where(mask, -1, rows), axis=0)
    after = np.minimum.accumulate(np.where(mask, len(mask), rows)[::-1], axis=0)[::-1]
    return after - before - 1


def _separate(mask: np.ndarray, ink: np.ndarray) -> list[_Strokes]:
    """Part a page into connected strokes, each cut out at half of its own darkness."""
    labels, _ = ndimage.label(mask, CONNECTED)
    found = []
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        if max(part.stop - part.start for part in where) < SMALLEST:
            continue
        own = np.where(labels[where] == number, ink[where], 0)
        dark = np.percentile(own[own > 0], 90)
        if dark < 0.5:  # paler than what parts ink from paper
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
    """Return the height of most digits: the median, in which every piece counts by its height."""
    heights = np.sort([piece.height for piece in pieces])
    return float(heights[np.searchsorted(np.cumsum(heights), heights.sum() / 2)])


def _join(pieces: list[_Strokes]) -> list[_Strokes]:
    """Put together strokes that belong to one digit: one above the other, close, and not too tall together."""
    pieces = list(pieces)
    if not pieces:
        return []
    usual = _usual_height(pieces)
    pieces.sort(key=lambda piece: -piece.height)
    joined: list[_Strokes] = []
    for piece in pieces:
        # Only a part of a digit is looked for a place; on a page full of print there are thousands of pieces.
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
    """Put digits into rows from above, and each row in order from the left, also on a page that is turned a little."""
    if not pieces:
        return []
    usual = _usual_height(pieces)
    middles = np.array([piece.middle for piece in pieces])

    def levels(slope: float) -> np.ndarray:
        return middles[:, 1] - slope * middles[:, 0]

    def spread(slope: float) -> float:
        gaps = np.diff(np.sort(levels(slope)))
        return float(np.minimum(gaps, ROW_GAP * usual).sum())

    # At the page's own slope rows are narrow, and most of the height is between them.
    slope = min(np.tan(np.deg2rad(np.linspace(-12, 12, 97))), key=lambda slope: (round(spread(slope)), abs(slope)))
    order = np.argsort(levels(slope))
    number = np.concatenate([[0], np.cumsum(np.diff(levels(slope)[order]) > ROW_GAP * usual)])
    rows: list[list[_Strokes]] = [[] for _ in range(number[-1] + 1)]
    for row, index in zip(number, order, strict=True):
        rows[row].append(pieces[index])
    return [sorted(row, key=lambda piece: piece.middle[0]) for row in rows]


def _main_strokes(mask: np.ndarray, *, cropped: bool) -> _Strokes | None:
    """Return the strokes of the one digit: the largest piece, and what lies by it and is not a rest of a frame."""
    labels, count = ndimage.label(mask, CONNECTED)
    if not count:
        return None
    boxes = ndimage.find_objects(labels)
    pieces = [
        _Strokes((where[1].start, where[0].start, where[1].stop, where[0].stop), labels[where] == number)
        for number, where in enumerate(boxes, start=1)
    ]

    # What is left of a printed box lies along the edge.
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
    """Return the mean width of strokes in pixels: across a stroke, the mean distance to its edge is a quarter of it."""
    distances = ndimage.distance_transform_edt(np.pad(mask, 1))
    return float(4 * (distances[distances > 0].mean() - 0.5) + 1)


def _move_outline(mask: np.ndarray, distance: float) -> np.ndarray:
    """Make strokes broader by a distance in pixels on each side, or narrower if it is negative; 0 to 1, soft edge."""
    margin = int(max(0, distance)) + 2
    mask = np.pad(mask, margin)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    distance = max(distance, 1 - inside.max())  # something is left of every digit
    return np.clip(np.where(mask, inside, 1 - outside) + distance, 0, 1).astype(np.float32)


def _shrink(picture: np.ndarray, most: int) -> tuple[np.ndarray, float]:
    """Return a picture whose longer side is so many pixels at most, and how many of the given pixels one of it is."""
    factor = max(1.0, max(picture.shape) / most)
    if factor == 1:
        return picture, 1.0
    return _resize(picture, [max(1, round(side / factor)) for side in reversed(picture.shape)]), factor


def _resize(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resample to (width, height): means over areas where it gets smaller, cubic where larger."""
    grows = size[0] > image.shape[1] or size[1] > image.shape[0]
    how = Image.Resampling.BICUBIC if grows else Image.Resampling.BOX
    return np.asarray(Image.fromarray(np.ascontiguousarray(image, np.float32)).resize((size[0], size[1]), how))


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of what is true."""
    across, down = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1
