"""Connected strokes on a page: separate them, cut digits that touch, sort them into rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kaggle_digits.handwriting.normalise import stroke_width
from kaggle_digits.learners.placing import ink_box

CONNECTED = np.ones((3, 3), bool)
"""Pixels that touch belong to one stroke, even if they touch only at a corner."""

SMALLEST = 6
"""A piece with fewer pixels on its longer side is ignored."""

LOW = 0.4
"""A piece of less than this share of the usual height is not a digit, unless it is a closed loop."""


@dataclass(frozen=True)
class Strokes:
    """Connected strokes.

    Args:
        box: left, top, right, bottom in pixels; right and bottom are just outside.
        mask: (H, W) bool, the pixels in the box that belong to them.
    """

    box: tuple[int, int, int, int]
    mask: np.ndarray

    @property
    def width(self) -> int:
        """The width of the box in pixels."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        """The height of the box in pixels."""
        return self.box[3] - self.box[1]

    @property
    def size(self) -> int:
        """The longer side of the box in pixels."""
        return max(self.width, self.height)

    @property
    def middle(self) -> tuple[float, float]:
        """The middle of the box, x and y."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


def separate(mask: np.ndarray, *, smallest: int = SMALLEST) -> list[Strokes]:
    """Split a mask, (H, W) bool, into connected strokes of at least ``smallest`` pixels on their longer side."""
    labels, _ = ndimage.label(mask, CONNECTED)
    return [
        Strokes((across.start, down.start, across.stop, down.stop), labels[down, across] == number)
        for number, (down, across) in enumerate(ndimage.find_objects(labels), start=1)
        if max(down.stop - down.start, across.stop - across.start) >= smallest
    ]


def usual_size(sizes: list[int]) -> float:
    """Return the usual height of digits: the median of the heights of pieces, weighted by height."""
    heights = np.sort(sizes)
    return float(heights[np.searchsorted(np.cumsum(heights), heights.sum() / 2)])


def is_loop(piece: Strokes) -> bool:
    """Return whether a piece is a line around some paper, like a zero. The line may have a tiny gap."""
    if not 0.33 * piece.height <= piece.width <= 2.2 * piece.height:
        return False
    padded = np.pad(piece.mask, 4)
    for closed in (padded, ndimage.binary_closing(padded, CONNECTED, iterations=2)):
        inside = ndimage.binary_fill_holes(closed).sum()
        if inside > closed.sum():
            return bool(inside >= 0.5 * piece.mask.size and inside - piece.mask.sum() >= 0.03 * inside)
    return False


def is_blot(piece: Strokes) -> bool:
    """Return whether a piece is filled, as only 1 in 3,000 digits of train.csv is."""
    short, long = sorted((piece.width, piece.height))
    return long < 2.5 * short and stroke_width(piece.mask) > 0.55 * short


def encloses(outer: Strokes, inner: Strokes) -> bool:
    """Return whether the box of a piece lies within that of another."""
    (left, top, right, bottom), box = outer.box, inner.box
    return left < box[0] and top < box[1] and box[2] < right and box[3] < bottom


def union(first: Strokes, second: Strokes) -> Strokes:
    """Return the strokes of both pieces as one piece."""
    left, top = (min(first.box[axis], second.box[axis]) for axis in (0, 1))
    right, bottom = (max(first.box[axis], second.box[axis]) for axis in (2, 3))
    mask = np.zeros((bottom - top, right - left), bool)
    for part in (first, second):
        mask[part.box[1] - top : part.box[3] - top, part.box[0] - left : part.box[2] - left] |= part.mask
    return Strokes((left, top, right, bottom), mask)


def turn_box(box: tuple[int, int, int, int], turns: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Turn a box clockwise by quarters, together with the picture of this shape (height, width) that it is on."""
    height, width = shape[:2]
    for _ in range(turns % 4):
        left, top, right, bottom = box
        box, height, width = (height - bottom, left, height - top, right), width, height
    return box


def touches_edge(piece: Strokes, shape: tuple[int, ...]) -> bool:
    """Return whether a piece lies at the edge of a picture of this shape."""
    left, top, right, bottom = piece.box
    return left <= 1 or top <= 1 or right >= shape[1] - 1 or bottom >= shape[0] - 1


def rows_of(pieces: list[Strokes], usual: float) -> np.ndarray:
    """Number the rows of a page, even if it is turned a little.

    Args:
        pieces: at least one.
        usual: the usual height of digits, in pixels.

    Returns:
        (N,) int, the row of every piece, from 0 at the top.
    """
    x, y = np.array([piece.middle for piece in pieces]).T
    row_gap = 0.5 * usual  # a larger gap separates two rows

    def spread(slope: float) -> float:
        return float(np.minimum(np.diff(np.sort(y - slope * x)), row_gap).sum())

    # At the page's own slope, rows are narrow and most of the height lies between them.
    slope = min(np.tan(np.deg2rad(np.linspace(-12, 12, 97))), key=lambda slope: (round(spread(slope)), abs(slope)))
    levels = y - slope * x
    order = np.argsort(levels)
    rows = np.empty(len(pieces), int)
    rows[order] = np.concatenate([[0], np.cumsum(np.diff(levels[order]) > row_gap)])
    return rows


def cuts(piece: Strokes, ink: np.ndarray) -> list[np.ndarray]:
    """Return the ways in which a piece may be cut from top to bottom, through as little ink as possible.

    Args:
        piece: perhaps digits that touch.
        ink: (H, W) float32, how dark the pixels in the piece's box are.

    Returns:
        from left to right, (height,) int each: the first column right of the cut, for every row.
    """
    height, width = piece.mask.shape
    around = max(2, round(0.22 * height))  # columns that a cut may move from a straight line, to each side
    middles = np.rint(np.arange(0.12 * height, width - 0.12 * height, max(2.0, 0.07 * height))).astype(int)
    # A cut prefers paper, and pale ink to dark ink. On paper, a short way is best.
    cost = np.where(piece.mask, 0.2 + np.clip(ink, 0, 1), 0.0) + 0.01
    cost[:, [0, -1]] = np.inf
    cost = np.pad(cost, [(0, 0), (around, around)], constant_values=np.inf)
    seams, crossed = _seams(cost[:, middles[:, None] + np.arange(2 * around + 1)])
    seams += (middles - around)[:, None]
    kept: list[np.ndarray] = []
    for index in np.argsort(crossed, kind="stable"):
        if crossed[index] > 1.5 * height:
            break
        if all(np.abs(seams[index] - other).mean() > 0.07 * height for other in kept):
            kept.append(seams[index])
    return sorted(kept[: 2 + 4 * width // height], key=lambda seam: float(seam.mean()))


def _seams(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cheapest way from top to bottom through each of several windows, and its cost.

    A way moves at most one column from row to row.

    Args:
        cost: (height, N, width), of every pixel of N windows.

    Returns:
        (N, height) int, the column in every row; and (N,) float.
    """
    total = cost.copy()
    height, count, width = cost.shape
    steps = np.zeros(cost.shape, np.int8)
    above = np.full((count, width + 2), np.inf)
    for row in range(1, height):
        above[:, 1:-1] = total[row - 1]
        ways = np.stack([above[:, 1:-1], above[:, :-2] + 0.005, above[:, 2:] + 0.005])
        steps[row] = np.array([0, -1, 1])[ways.argmin(axis=0)]
        total[row] += ways.min(axis=0)
    seams = np.empty((count, height), int)
    seams[:, -1] = total[-1].argmin(axis=1)
    for row in range(height - 1, 0, -1):
        seams[:, row - 1] = seams[:, row] + steps[row, np.arange(count), seams[:, row]]
    return seams, total[-1].min(axis=1)


def between(piece: Strokes, start: np.ndarray | None, end: np.ndarray | None) -> Strokes | None:
    """Return the part of a piece between two cuts; None stands for its own side. Return None if too little is left."""
    height, width = piece.mask.shape
    start = np.zeros(height, int) if start is None else start
    end = np.full(height, width) if end is None else end
    columns = np.arange(start.min(), end.max())
    mask = piece.mask[:, columns] & (columns >= start[:, None]) & (columns < end[:, None])
    labels, count = ndimage.label(mask, CONNECTED)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    # Crumbs at the cut belong to the neighbour.
    mask = sizes[labels] >= 0.12 * sizes.max()
    left, top, right, bottom = ink_box(mask)
    x, y = piece.box[0] + int(start.min()), piece.box[1]
    part = Strokes((x + left, y + top, x + right, y + bottom), mask[top:bottom, left:right])
    return part if max(part.width, part.height) >= SMALLEST else None


def gap(first: Strokes, second: Strokes) -> tuple[int, int]:
    """Return the gap between the boxes of two pieces, across and down. It is negative where they overlap."""
    (left, top, right, bottom), other = first.box, second.box
    return max(left, other[0]) - min(right, other[2]), max(top, other[1]) - min(bottom, other[3])


def cut_out(strokes: Strokes, ink: np.ndarray) -> np.ndarray:
    """Cut strokes out of a page's ink, with their soft edge."""
    left, top, right, bottom = strokes.box
    mask = ndimage.binary_dilation(np.pad(strokes.mask, 2), CONNECTED, iterations=2)
    # Only the part is padded: a copy of the whole page for each piece would take most of the time.
    beyond = [(max(0, 2 - top), max(0, bottom + 2 - len(ink))), (max(0, 2 - left), max(0, right + 2 - ink.shape[1]))]
    around = np.pad(ink[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2], beyond)
    dark = max(0.5, float(np.percentile(around[2:-2, 2:-2][strokes.mask], 75)))
    return np.clip(np.where(mask, around, 0) / dark, 0, 1)
