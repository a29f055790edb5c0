"""Read the digits on a photograph or scan of a page, and tell what is not a digit.

A picture goes through these stages: brightness → ``sheet`` sets the paper straight → ``ink`` finds the strokes →
``strokes`` separates, joins and cuts them → ``normalise`` makes pixels as in train.csv → a network reads them. Where
digits touch, the network also decides where they are cut. If it can read the page better from another side, the page
is turned.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from kaggle_digits.digits import CLASSES
from kaggle_digits.handwriting import strokes as s
from kaggle_digits.handwriting.ink import (
    CONNECTED,
    FAINT,
    brightness,
    contrast,
    find_strokes,
    is_clean,
    level_paper,
    remove_frame,
    remove_ruling,
)
from kaggle_digits.handwriting.normalise import normalise_digit
from kaggle_digits.handwriting.sheet import Sheet, find_sheet
from kaggle_digits.handwriting.strokes import Strokes
from kaggle_digits.learners.placing import resize

LIKELY = 0.6
"""A piece is likely a digit from this probability on."""

UNSURE = "?"

Box = tuple[int, int, int, int]
Classify = Callable[[np.ndarray], np.ndarray]
"""(N, 784) uint8 → (N, 10) probabilities."""


@dataclass(frozen=True)
class DigitImage:
    """A digit that is not read yet.

    Args:
        box: left, top, right, bottom in pixels of the picture; right and bottom are just outside.
        pixels: (784,) uint8, 0–255, as in train.csv.
    """

    box: Box
    pixels: np.ndarray


@dataclass(frozen=True)
class Digit:
    """A digit that was read.

    Args:
        box: left, top, right, bottom in pixels of the picture; right and bottom are just outside.
        row: the row on the page, from 0.
        digit: the likeliest digit, 0–9.
        sure: whether its probability reaches the threshold. A digit that covers much of the picture is never sure.
        probabilities: (10,) float, calibrated if the run had held-out rows for it.
        pixels: (784,) uint8, what the network saw.
    """

    box: Box
    row: int
    digit: int
    sure: bool
    probabilities: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, box: Box, row: int, probabilities: np.ndarray, pixels: np.ndarray, threshold: float) -> Digit:
        """Return the likeliest digit. It is sure if its probability is at least the threshold."""
        digit = int(probabilities.argmax())
        return cls(box, row, digit, bool(probabilities[digit] >= threshold), probabilities, pixels)


@dataclass(frozen=True)
class LeftOut:
    """Something on a page that was not taken for a digit.

    Args:
        box: left, top, right, bottom in pixels of the picture; right and bottom are just outside.
        why: what it was taken for.
    """

    box: Box
    why: str


@dataclass(frozen=True)
class Page:
    """What was read on a page.

    Args:
        digits: in reading order: rows from top to bottom, each from left to right.
        left_out: what was not taken for a digit.
        turned: the degrees by which the picture had to be turned clockwise to be read: 0, 90, 180 or 270.
        sheet: (4, 2) float, the corners of the sheet that was found in the picture, x and y in its pixels, clockwise
            from the top left; None if no edge of a sheet is in the picture.
    """

    digits: list[Digit]
    left_out: list[LeftOut]
    turned: int = 0
    sheet: np.ndarray | None = None

    @property
    def text(self) -> list[str]:
        """What is written, one string per row, with ? for each digit that is not sure."""
        rows: dict[int, str] = {}
        for digit in self.digits:
            rows[digit.row] = rows.get(digit.row, "") + (str(digit.digit) if digit.sure else UNSURE)
        return list(rows.values())


def find_single(picture: np.ndarray) -> DigitImage | None:
    """Find the digit of a picture that holds exactly one, cropped tightly or with paper around it.

    Args:
        picture: (H, W) or (H, W, 3) float32, brightness from 0 to 1.

    Returns:
        the digit, or None if nothing is written.
    """
    working, factor = _shrink(picture, 400)
    grey = brightness(working)
    cropped = min(grey.shape) <= 64 or is_clean(grey)  # there is no uneven light to level
    ink = contrast(grey) if cropped else level_paper(working, window=1 / 3)
    if ink is None:
        return None
    mask = ink > 0.5 if cropped else remove_ruling(ink > 0.5, ink)
    strokes = _main_strokes(mask, cropped=cropped)
    if strokes is None:
        return None
    return DigitImage(_in_picture(strokes.box, None, factor, picture.shape), normalise_digit(_cut_out(strokes, ink)))


def read_page(picture: np.ndarray, classify: Classify, *, threshold: float) -> Page:
    """Read all digits of a page.

    Args:
        picture: (H, W) or (H, W, 3) float32, brightness from 0 to 1.
        classify: reads digits: (N, 784) uint8 → (N, 10) probabilities.
        threshold: a digit with a probability below this is unsure.
    """
    most_pixels = 1800  # on the longer side of the copy in which digits are looked for
    sheet = find_sheet(picture, most=most_pixels)
    if sheet:
        working, known, factor = sheet.picture, sheet.known, 1.0
    else:
        working, factor = _shrink(picture, most_pixels)
        known = np.ones(working.shape[:2], bool)
    ink, pieces, printed = _find_pieces(working, known)
    turns = _better_turn(ink, pieces, classify)
    upright = [s.turn(piece, turns, ink.shape) for piece in pieces]
    digits, left_out = _read_upright(np.rot90(ink, -turns), upright, classify, threshold)

    def in_picture(box: Box, turns: int) -> Box:
        return _in_picture(s.turn_box(box, -turns, np.rot90(ink, turns).shape), sheet, factor, picture.shape)

    most_area = 0.35 * picture.shape[0] * picture.shape[1]  # of a sure digit
    boxes = [in_picture(digit.box, turns) for digit in digits]
    is_small = [(right - left) * (bottom - top) <= most_area for left, top, right, bottom in boxes]
    digits = [
        replace(digit, box=box, sure=digit.sure and small)
        for digit, box, small in zip(digits, boxes, is_small, strict=True)
    ]
    left_out = [LeftOut(in_picture(part.box, turns), part.why) for part in left_out]
    left_out += [LeftOut(in_picture(box, 0), "a box or a line") for box in printed]
    return Page(digits, left_out, 90 * turns, sheet.corners if sheet else None)


def _in_picture(box: Box, sheet: Sheet | None, factor: float, shape: tuple[int, ...]) -> Box:
    """Return where a box on the working copy lies in the picture."""
    left, top, right, bottom = (side * factor for side in box)
    if sheet:
        corners = sheet.to_picture(np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float))
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    right, bottom = min(shape[1], int(np.ceil(right))), min(shape[0], int(np.ceil(bottom)))
    return max(0, int(left)), max(0, int(top)), right, bottom


def _find_pieces(picture: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, list[Strokes], list[Box]]:
    """Return a page's ink, (H, W) from 0 to 1, its connected strokes, and the printed boxes that are not among them."""
    ink = level_paper(picture)
    if ink is None:
        return np.zeros(known.shape, np.float32), [], []
    ink[~known] = 0
    # Lines go first, because a pale line may be the continuation of a dark stroke.
    mask, boxes = _without_boxes(ink > FAINT, ink)
    ink = np.where(remove_ruling(mask, ink), ink, 0)
    mask, darkest = find_strokes(ink)
    pieces = s.separate(mask)
    pieces = [piece for piece, is_dash in zip(pieces, s.find_dashes(pieces), strict=True) if not is_dash]
    # All strokes become equally dark, even where the pen was pressed less.
    return np.clip(ink / np.maximum(darkest, 0.3), 0, 1), pieces, boxes


def _better_turn(ink: np.ndarray, pieces: list[Strokes], classify: Classify) -> int:
    """Return by how many quarters, clockwise, a page must be turned to be read best."""
    if not pieces:
        return 0
    usual = s.usual_size([side for piece in pieces for side in (piece.width, piece.height)])
    whole = [p for p in pieces if 0.5 * usual <= max(p.width, p.height) <= 2 * usual and not s.is_blot(p)]
    if not whole:
        return 0
    cut_out = [_cut_out(piece, ink) for piece in whole]

    def mean_probability(turns: int) -> float:
        pixels = np.stack([normalise_digit(np.rot90(ink, -turns)) for ink in cut_out])
        return float(classify(pixels).max(axis=1).mean())

    means = [mean_probability(0)]
    enough = means[0] + 0.06  # a page is turned only for this much gain
    if enough > 1:
        return 0
    means += [mean_probability(turns) for turns in (1, 2, 3)]
    best = int(np.argmax(means))
    return best if means[best] >= max(0.8, enough) else 0


def _read_upright(
    ink: np.ndarray, pieces: list[Strokes], classify: Classify, threshold: float
) -> tuple[list[Digit], list[LeftOut]]:
    """Read a page that is the right way up. Boxes are in pixels of the ink."""
    if not pieces:
        return [], []
    usual = s.usual_size([piece.height for piece in pieces])
    kept, left_out = [], []
    for piece in s.join(pieces, usual):
        why = _why_not(piece, usual, ink.shape)
        if why is None:
            kept.append(piece)
        elif max(piece.width, piece.height) >= 0.25 * usual:
            left_out.append(LeftOut(piece.box, why))
    parts = _read_pieces(kept, ink, usual, classify)
    if not parts:
        return [], left_out
    rows = s.rows_of([part.strokes for part in parts], usual)
    likely = np.array([part.certainty >= LIKELY for part in parts])
    # A shape among digits that does not look like one is more likely an unreadable digit.
    of_digits = {row: likely[rows == row].mean() >= 0.5 or likely.mean() >= 0.75 for row in set(rows)}
    digits = []
    for row, part in sorted(zip(rows, parts, strict=True), key=lambda pair: (pair[0], pair[1].strokes.middle[0])):
        if part.certainty < 0.25 and not of_digits[row]:
            left_out.append(LeftOut(part.strokes.box, "does not look like a digit"))
        else:
            digits.append(Digit.of(part.strokes.box, int(row), part.probabilities, part.pixels, threshold))
    # Rows in which no digit is left have no number.
    numbers = {row: number for number, row in enumerate(sorted({digit.row for digit in digits}))}
    return [replace(digit, row=numbers[digit.row]) for digit in digits], left_out


def _without_boxes(mask: np.ndarray, ink: np.ndarray) -> tuple[np.ndarray, list[Box]]:
    """Remove printed boxes and rings around digits. Strokes that touch them stay. Return the rest and the boxes."""
    pieces = s.separate(mask)
    rest, boxes = mask.copy(), []
    for piece in pieces:
        if s.is_rectangle(piece):
            inside = piece.height / 2
        else:
            enclosed = s.enclosed_in(piece, pieces)
            if not enclosed:
                continue
            inside = float(np.median([strokes.height for strokes in enclosed]))
        left, top, right, bottom = piece.box
        without = remove_frame(piece.mask, ink[top:bottom, left:right], 1.15 * inside)
        if without.sum() <= 0.9 * piece.mask.sum():
            rest[top:bottom, left:right] &= without | ~piece.mask
            boxes.append(piece.box)
    return rest, boxes


def _why_not(piece: Strokes, usual: float, shape: tuple[int, ...]) -> str | None:
    """Return why a piece does not look like any digit, or None if it may be one."""
    size = max(piece.width, piece.height)
    if s.touches_edge(piece, shape) and (size > 1.3 * usual or size < 0.6 * usual):
        return "at the edge"
    if piece.height > 3 * usual or piece.width > 8 * usual:
        return "too large"
    # A small loop is a small zero.
    if piece.height < s.LOW * usual and not (piece.height >= 0.13 * usual and s.is_loop(piece)):
        return "too small"
    return "a blot" if s.is_blot(piece) else None


@dataclass(frozen=True)
class _Part:
    """A piece, or a part of one, as the network read it: pixels (784,) uint8, and probabilities (10,)."""

    strokes: Strokes
    pixels: np.ndarray
    probabilities: np.ndarray

    @property
    def certainty(self) -> float:
        return float(self.probabilities.max())

    def doubted(self) -> _Part:
        """Return the same part, but never sure."""
        return replace(self, probabilities=(self.probabilities + 1 / CLASSES) / 2)


def _read_pieces(pieces: list[Strokes], ink: np.ndarray, usual: float, classify: Classify) -> list[_Part]:
    """Read pieces, and cut those whose parts are read better than the whole."""
    parts = _read(pieces, ink, classify)
    tried: list[tuple[int, int, int, Strokes]] = []
    for index, part in enumerate(parts):
        piece = part.strokes
        is_one_digit = part.certainty >= 0.85 and piece.width < 1.1 * piece.height
        if not is_one_digit and piece.width >= 0.5 * usual:
            left, top, right, bottom = piece.box
            tried += [(index, *way) for way in s.ways_to_cut(piece, ink[top:bottom, left:right], usual)]
    ways: dict[int, list[tuple[int, int, _Part]]] = {}
    for (index, first, last, _), part in zip(tried, _read([way[3] for way in tried], ink, classify), strict=True):
        ways.setdefault(index, []).append((first, last, part))
    cut = [_best_way(ways[index]) if index in ways else [part] for index, part in enumerate(parts)]
    # Among letters, a piece that can be cut into digits is a letter, too.
    likely = [parts[0].certainty >= LIKELY for parts in cut if len(parts) == 1]
    doubtful = 2 * sum(likely) < len(likely)
    return [part.doubted() if doubtful and len(parts) > 1 else part for parts in cut for part in parts]


def _read(pieces: list[Strokes], ink: np.ndarray, classify: Classify) -> list[_Part]:
    if not pieces:
        return []
    pixels = np.stack([normalise_digit(_cut_out(piece, ink)) for piece in pieces])
    return list(map(_Part, pieces, pixels, classify(pixels)))


def _best_way(ways: list[tuple[int, int, _Part]]) -> list[_Part]:
    """Return the parts of the best way to cut a piece, from its left side to its right side.

    The best way has the greatest sum of the logarithms of the parts' probabilities, less a cost for each part.

    Args:
        ways: what lies between two cuts, as ``strokes.ways_to_cut`` numbers them, and the whole piece.
    """
    ends = max(last for _, last, _ in ways)
    whole = next(part for first, last, part in ways if (first, last) == (0, ends))
    width, height = whole.strokes.width, whole.strokes.height
    # Two digits side by side are wide, so a part of a wide piece costs less. Only ones are narrow.
    cost = float(np.interp(width / height, (0.75, 1.1, 1.5), (2.5, 0.15, -0.1)))
    best: list[tuple[float, list[_Part]] | None] = [(0.0, []), *[None] * ends]
    for first, last, part in sorted(ways, key=lambda way: way[:2]):
        before, reached = best[first], best[last]
        if before is None or (part is whole and width > 1.5 * height and len(ways) > 1):
            continue
        # A broad part that cannot be read weighs as much as the digits that it may be.
        weight = max(1.0, part.strokes.width / (0.7 * height))
        score = before[0] + weight * float(np.log(max(part.certainty, 1e-4))) - cost
        if reached is None or score > reached[0]:
            best[last] = (score, [*before[1], part])
    reached = best[ends]
    parts = reached[1] if reached else [whole]
    # An m, an n or a u becomes ones if it is cut.
    is_one = [part.probabilities.argmax() == 1 for part in parts]
    return [part.doubted() if one and sum(is_one) > 1 else part for part, one in zip(parts, is_one, strict=True)]


def _main_strokes(mask: np.ndarray, *, cropped: bool) -> Strokes | None:
    """Return the strokes of the one digit: the largest piece and other large ones, without remains of a frame."""
    pieces = s.separate(mask, smallest=1)
    if not pieces:
        return None
    # Remains of a printed box lie along the edge.
    margin = max(2, round(0.06 * min(mask.shape)))
    inner = np.zeros_like(mask)
    inner[margin:-margin, margin:-margin] = True

    def on_edge(piece: Strokes) -> bool:
        left, top, right, bottom = piece.box
        share = (piece.mask & ~inner[top:bottom, left:right]).sum() / piece.mask.sum()
        return share > 0.6 or (not cropped and s.touches_edge(piece, mask.shape))

    pieces.sort(key=lambda piece: piece.mask.sum(), reverse=True)
    inside = [piece for piece in pieces if not on_edge(piece)]
    if inside and inside[0].mask.sum() >= 0.1 * pieces[0].mask.sum():
        pieces = inside
    return functools.reduce(s.union, [piece for piece in pieces if piece.mask.sum() >= 0.06 * pieces[0].mask.sum()])


def _cut_out(strokes: Strokes, ink: np.ndarray) -> np.ndarray:
    """Cut strokes out of a page's ink, with their soft edge."""
    left, top, right, bottom = strokes.box
    mask = ndimage.binary_dilation(np.pad(strokes.mask, 2), CONNECTED, iterations=2)
    # Only the part is padded: a copy of the whole page for each piece would take most of the time.
    beyond = [(max(0, 2 - top), max(0, bottom + 2 - len(ink))), (max(0, 2 - left), max(0, right + 2 - ink.shape[1]))]
    around = np.pad(ink[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2], beyond)
    dark = max(0.5, float(np.percentile(around[2:-2, 2:-2][strokes.mask], 75)))
    return np.clip(np.where(mask, around, 0) / dark, 0, 1)


def _shrink(picture: np.ndarray, most: int) -> tuple[np.ndarray, float]:
    """Shrink a picture to at most ``most`` pixels on its longer side. Return it, and the factor by which it shrank."""
    factor = max(1.0, max(picture.shape) / most)
    if factor == 1:
        return picture, 1.0
    return resize(picture, [max(1, round(side / factor)) for side in picture.shape[1::-1]]), factor
