"""Connected strokes on a page: separate them, join those of one digit, cut digits that touch, sort them into rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kaggle_digits.handwriting.ink import CONNECTED
from kaggle_digits.handwriting.normalise import stroke_width
from kaggle_digits.learners.placing import ink_box

SMALLEST = 8
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


def find_dashes(pieces: list[Strokes]) -> np.ndarray:
    """Return which pieces belong to dashed or dotted lines along or across the page, (N,) bool."""
    is_dash = np.zeros(len(pieces), bool)
    boxes = np.array([piece.box for piece in pieces], float).reshape(-1, 4)
    filled = np.array([piece.mask.mean() >= 0.55 for piece in pieces], bool)
    for along in (0, 1):
        first, last = boxes[:, along], boxes[:, along + 2]
        upper, lower = boxes[:, 1 - along], boxes[:, 3 - along]
        length, thickness, level = last - first, lower - upper, (upper + lower) / 2
        flat = np.flatnonzero((length >= 1.8 * thickness) & filled)
        order = flat[np.argsort(first[flat])]
        chains: list[list[int]] = []
        open_chains: list[list[int]] = []
        for index in order:
            open_chains = [chain for chain in open_chains if first[index] - last[chain[-1]] < 60 * thickness[index]]
            for chain in open_chains:
                before = chain[-1]
                gap = first[index] - last[before]
                shorter, longer = sorted((length[index], length[before]))
                thinner, thicker = sorted((thickness[index], thickness[before]))
                if (
                    -1 <= gap <= 2.5 * longer
                    and longer <= 2.2 * shorter
                    and abs(level[index] - level[before]) <= 0.12 * (gap + length[index]) + 0.3 * thickness[index]
                    and thicker <= 2.5 * thinner
                ):
                    chain.append(index)
                    break
            else:
                chains.append([index])
                open_chains.append(chains[-1])
        for chain in (chain for chain in chains if len(chain) >= 6):  # fewer dashes are not a line
            x, y = first[chain], level[chain]
            away = y - np.polyval(np.polyfit(x, y, 2), x)
            is_dash[chain] |= np.abs(away).mean() <= 0.4 * np.median(thickness[chain])
    return is_dash


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


def enclosed_in(piece: Strokes, pieces: list[Strokes]) -> list[Strokes]:
    """Return those of some pieces whose middle is enclosed by a piece, and which are large enough for a digit in it."""
    left, top, right, bottom = piece.box
    if min(piece.width, piece.height) < 2 * SMALLEST:
        return []
    lower = [other for other in pieces if SMALLEST <= other.height < piece.height]
    near = [other for other in lower if left < other.middle[0] < right and top < other.middle[1] < bottom]
    if not near:
        return []
    holes = ndimage.binary_fill_holes(piece.mask) & ~piece.mask
    inside = [other for other in near if holes[int(other.middle[1]) - top, int(other.middle[0]) - left]]
    # A zero may have a dot in it.
    return inside if len(inside) > 1 or any(other.height >= 0.4 * piece.height for other in inside) else []


def is_rectangle(piece: Strokes) -> bool:
    """Return whether a piece is an empty box: straight lines along all four sides, with nothing inside."""
    band = max(2, round(0.12 * min(piece.width, piece.height)))
    if min(piece.width, piece.height) < 4 * band:
        return False
    edge = np.ones(piece.mask.shape, bool)
    edge[band:-band, band:-band] = False
    turned = (np.rot90(piece.mask, turns) for turns in range(4))
    has_sides = all(mask[:band].any(axis=0).mean() >= 0.9 for mask in turned)
    return has_sides and piece.mask[edge].sum() >= 0.9 * piece.mask.sum()


def is_blot(piece: Strokes) -> bool:
    """Return whether a piece is filled, as only 1 in 3,000 digits of train.csv is."""
    short, long = sorted((piece.width, piece.height))
    return long < 2.5 * short and stroke_width(piece.mask) > 0.55 * short


def join(pieces: list[Strokes], usual: float) -> list[Strokes]:
    """Join strokes that lie close together, one above the other, unless the joined strokes are too tall for a digit."""
    joined: list[Strokes] = []
    for piece in sorted(pieces, key=lambda piece: -piece.height):
        # Only a small piece can be part of a digit. A page full of print has thousands of pieces, too many to try all.
        for index, other in enumerate(joined) if piece.height <= 0.7 * usual else ():
            overlap = min(piece.box[2], other.box[2]) - max(piece.box[0], other.box[0])
            gap = max(piece.box[1], other.box[1]) - min(piece.box[3], other.box[3])
            height = max(piece.box[3], other.box[3]) - min(piece.box[1], other.box[1])
            is_near = overlap >= 0.4 * min(piece.width, other.width) and gap <= 0.2 * usual
            is_low = height <= 1.4 * max(usual, other.height)
            if is_near and is_low and not (is_loop(piece) and gap > 0.05 * usual):
                joined[index] = union(other, piece)
                break
        else:
            joined.append(piece)
    return joined


def union(first: Strokes, second: Strokes) -> Strokes:
    """Return the strokes of both pieces as one piece."""
    left, top = (min(first.box[axis], second.box[axis]) for axis in (0, 1))
    right, bottom = (max(first.box[axis], second.box[axis]) for axis in (2, 3))
    mask = np.zeros((bottom - top, right - left), bool)
    for part in (first, second):
        mask[part.box[1] - top : part.box[3] - top, part.box[0] - left : part.box[2] - left] |= part.mask
    return Strokes((left, top, right, bottom), mask)


def turn(piece: Strokes, turns: int, shape: tuple[int, ...]) -> Strokes:
    """Turn a piece clockwise by quarters, together with the picture of this shape that it is on."""
    return Strokes(turn_box(piece.box, turns, shape), np.rot90(piece.mask, -turns))


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
    return sorted(kept[: 4 + 6 * width // height], key=lambda seam: float(seam.mean()))


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


def ways_to_cut(piece: Strokes, ink: np.ndarray, usual: float) -> Iterator[tuple[int, int, Strokes]]:
    """Yield each part between two cuts of a piece that has the size of a digit: first cut, last cut, part."""
    seams: list[np.ndarray | None] = [None, *cuts(piece, ink), None]
    for first, last in itertools.combinations(range(len(seams)), 2):
        if (first, last) == (0, len(seams) - 1):
            yield first, last, piece
            continue
        part = between(piece, seams[first], seams[last])
        if part and part.height >= LOW * min(usual, piece.height) and part.width <= 1.5 * max(usual, part.height):
            yield first, last, part
