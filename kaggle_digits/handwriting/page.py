"""Read the digits on a photograph or scan of a page, and tell what is not a digit.

A picture goes through these stages: ``ink`` finds the ink of digits with one network → ``strokes`` separates it into
pieces and sorts them into rows → ``normalise`` makes pixels as in train.csv → another network reads them. That
network also decides, in ``lattice``, which pieces are merged and where they are cut. If it can read the page better
from another side, the page is turned.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kaggle_digits.digits import SIDE
from kaggle_digits.handwriting import strokes as s
from kaggle_digits.handwriting.ink import Ink, brightness, contrast, is_clean
from kaggle_digits.handwriting.lattice import LIKELY, Classify, read_rows
from kaggle_digits.handwriting.normalise import normalise_digit
from kaggle_digits.handwriting.strokes import Strokes
from kaggle_digits.learners.placing import rescale

UNSURE = "?"

Box = tuple[int, int, int, int]
FindInk = Callable[[np.ndarray], Ink]
"""Brightness (H, W) or (H, W, 3) from 0 to 1 → the ink in it, as ``ink.InkFinder.find``."""


@dataclass(frozen=True)
class DigitImage:
    """A digit that is not read yet.

    Args:
        box: left, top, right, bottom in pixels of the picture; right and bottom are just outside.
        pixels: (784,) uint8, 0–255, as in train.csv.
        pieces: its connected strokes.
    """

    box: Box
    pixels: np.ndarray
    pieces: list[Strokes]

    @property
    def is_shape(self) -> bool:
        """Whether its strokes are no digit's, whatever a network reads: a filled spot, or one piece in another."""
        pairs = itertools.permutations(self.pieces, 2)
        return s.is_blot(functools.reduce(s.union, self.pieces)) or any(s.encloses(*pair) for pair in pairs)


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
        ink: (H, W) uint8, the probability that there is ink of a digit, times 255. It may have another size than the
            picture. None for a drawing.
        too_small: whether the digits are too small, or too many, for any to be sure.
    """

    digits: list[Digit]
    left_out: list[LeftOut]
    turned: int = 0
    ink: np.ndarray | None = None
    too_small: bool = False

    @property
    def text(self) -> list[str]:
        """What is written, one string per row, with ? for each digit that is not sure."""
        rows: dict[int, str] = {}
        for digit in self.digits:
            rows[digit.row] = rows.get(digit.row, "") + (str(digit.digit) if digit.sure else UNSURE)
        return list(rows.values())


def find_single(picture: np.ndarray, find_ink: FindInk) -> DigitImage | None:
    """Find the digit of a picture that holds exactly one, cropped tightly or with paper around it.

    Args:
        picture: (H, W) or (H, W, 3) float32, brightness from 0 to 1.
        find_ink: finds the ink, if the picture is not cropped tightly.

    Returns:
        the digit, or None if nothing is written.
    """
    working, factor = _shrink(picture, 400)
    grey = brightness(working)
    cropped = min(grey.shape) <= 64 or is_clean(grey)  # there is no paper to see
    if cropped:
        ink = contrast(grey)
    else:
        found = find_ink(working)
        ink, factor = found.digits, factor * found.factor
    pieces = [] if ink is None else _main_pieces(ink > 0.5, cropped=cropped)
    if ink is None or not pieces:
        return None
    strokes = functools.reduce(s.union, pieces)
    box = _in_picture(strokes.box, factor, picture.shape)
    return DigitImage(box, normalise_digit(s.cut_out(strokes, ink)), pieces)


def read_page(picture: np.ndarray, find_ink: FindInk, classify: Classify, *, threshold: float) -> Page:
    """Read all digits of a page.

    Args:
        picture: (H, W) or (H, W, 3) float32, brightness from 0 to 1.
        find_ink: finds the ink of digits.
        classify: reads digits: (N, 784) uint8 → (N, 10) probabilities.
        threshold: a digit with a probability below this is unsure.
    """
    found = find_ink(picture)
    ink, pieces, marks = _find_pieces(found)
    turns = _better_turn(ink, pieces, classify)
    if turns:  # the ink is found best where digits are upright
        found = find_ink(np.rot90(picture, -turns))
        ink, pieces, marks = _find_pieces(found)
    digits, left_out = _read_upright(np.stack([ink, found.tone]), pieces, classify, threshold)
    left_out = [part if part.why else replace(part, why=_why_small(part.box, digits)) for part in left_out]
    left_out += [LeftOut(mark.box, _why_small(mark.box, digits)) for mark in marks]
    shape = picture.shape if turns % 2 == 0 else picture.shape[1::-1]

    def in_picture(box: Box) -> Box:
        return s.turn_box(_in_picture(box, found.factor, shape), -turns, shape)

    digits = [replace(digit, box=in_picture(digit.box)) for digit in digits]
    left_out = [LeftOut(in_picture(part.box), part.why) for part in left_out if part.why]
    most_area = 0.35 * picture.shape[0] * picture.shape[1]  # of a sure digit
    sides = [(right - left, bottom - top) for left, top, right, bottom in (digit.box for digit in digits)]
    too_small = len(digits) > 400 or (bool(sides) and float(np.median([max(each) for each in sides])) < 12)
    sevens = [_has_bar(digit.pixels) for digit in digits if digit.digit == 7]
    # Who writes 7 with a bar often writes 1 with a flag, which looks like a narrow 7 without one.
    are_barred = any(sevens) and 2 * sum(sevens) >= len(sevens)
    digits = [
        replace(
            digit,
            sure=digit.sure
            and not too_small
            and width * height <= most_area
            and not (are_barred and digit.digit == 7 and width < 0.6 * height and not _has_bar(digit.pixels)),
        )
        for digit, (width, height) in zip(digits, sides, strict=True)
    ]
    return Page(digits, left_out, 90 * turns, np.rint(255 * np.rot90(ink, turns)).astype(np.uint8), too_small)


def read_drawing(picture: np.ndarray, find_ink: FindInk, classify: Classify, *, threshold: float) -> Page:
    """Read a drawing of one digit, or of several in a row, on a clean canvas.

    Args:
        picture: as for ``read_page``.
        find_ink: as for ``find_single``.
        classify: as for ``read_page``.
        threshold: as for ``read_page``.

    Returns:
        the digits, none if the drawing does not look like a digit.
    """
    image = find_single(picture, find_ink)
    if image is None:
        return Page([], [])
    single = Digit.of(image.box, 0, classify(image.pixels[None])[0], image.pixels, threshold)
    if single.sure and not image.is_shape:
        return Page([single], [])
    working, factor = _shrink(picture, 400)
    ink = contrast(brightness(working))
    if ink is not None:
        digits, left_out = _read_upright(ink[None], s.separate(ink > 0.5), classify, threshold)
        if len(digits) > 1:
            digits = [replace(digit, box=_in_picture(digit.box, factor, picture.shape)) for digit in digits]
            told = [LeftOut(_in_picture(part.box, factor, picture.shape), part.why) for part in left_out if part.why]
            return Page(digits, told)
    return Page([] if image.is_shape else [single], [])


def _has_bar(pixels: np.ndarray) -> bool:
    """Return whether a 7, (784,) uint8, has a bar: in the middle its right side juts out."""
    ink = pixels.reshape(SIDE, SIDE) > 100
    ink = ink[ink.any(axis=1)]
    right, height = SIDE - ink[:, ::-1].argmax(axis=1), len(ink)
    away = max(2, round(0.17 * height))  # rows, more than a bar has
    middle = np.arange(round(0.4 * height), min(round(0.8 * height), height - away))
    return bool((right[middle] - np.maximum(right[middle - away], right[middle + away])).max(initial=0) >= 2)


def _find_pieces(found: Ink) -> tuple[np.ndarray, list[Strokes], list[Strokes]]:
    """Return the ink of digits, (H, W), its connected strokes, and what is written and is no digit.

    If part of a shape is ink of a digit and the shape is no larger than a digit, all of it is kept. It may be a digit
    with a straight stroke, or a letter; the network that reads digits tells which.
    """
    ink = found.digits.copy()
    pieces = s.separate(ink > 0.5)
    if not pieces:
        return ink, [], s.separate(found.marks > 0.5, smallest=12)
    both = np.maximum(ink, found.marks)
    usual = s.usual_size([piece.height for piece in pieces])
    for shape in s.separate(both > 0.5):
        left, top, right, bottom = shape.box
        of_digit = (ink[top:bottom, left:right][shape.mask] > 0.5).mean()
        if 0.25 <= of_digit < 1 and shape.height <= 1.6 * usual and shape.width <= 1.3 * usual:
            ink[top:bottom, left:right][shape.mask] = both[top:bottom, left:right][shape.mask]
    marks = s.separate((found.marks > 0.5) & (ink <= 0.5), smallest=3)
    return ink, s.separate(ink > 0.5), marks


def _why_small(box: Box, digits: list[Digit]) -> str:
    """Return what is written in a box that holds no digit; "" for a speck."""
    heights = [digit.box[3] - digit.box[1] for digit in digits]
    usual = float(np.median(heights)) if heights else 12.0
    left, top, right, bottom = box
    if max(right - left, bottom - top) >= 0.3 * usual:
        return "a sign, a letter or a line"
    x, y = (left + right) / 2, (top + bottom) / 2
    before = [digit for digit in digits if abs(y - digit.box[3]) < 0.3 * usual and 0 < x - digit.box[2] < 0.7 * usual]
    return f"perhaps a point after the {max(before, key=lambda digit: digit.box[2]).digit}" if before else ""


def _in_picture(box: Box, factor: float, shape: tuple[int, ...]) -> Box:
    """Return where a box on the working copy lies in the picture."""
    left, top, right, bottom = (side * factor for side in box)
    right, bottom = min(shape[1], int(np.ceil(right))), min(shape[0], int(np.ceil(bottom)))
    return max(0, int(left)), max(0, int(top)), right, bottom


def _better_turn(ink: np.ndarray, pieces: list[Strokes], classify: Classify) -> int:
    """Return by how many quarters, clockwise, a page must be turned to be read best."""
    if not pieces:
        return 0
    usual = s.usual_size([side for piece in pieces for side in (piece.width, piece.height)])
    whole = [p for p in pieces if 0.5 * usual <= p.size <= 2 * usual and not s.is_blot(p)]
    if not whole:
        return 0
    cut_out = [s.cut_out(piece, ink) for piece in whole]

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
    """Read a page that is the right way up. Boxes are in pixels of the ink. What is tiny is left out for no reason."""
    if not pieces:
        return [], []
    usual = s.usual_size([piece.height for piece in pieces])
    reasons = [_why_not(piece, usual, ink[0]) for piece in pieces]
    left_out = [LeftOut(piece.box, why) for piece, why in zip(pieces, reasons, strict=True) if why]
    pieces = [piece for piece, why in zip(pieces, reasons, strict=True) if not why]
    rows, alone = _rows([piece for piece in pieces if piece.size > 0.12 * usual], usual)
    alone += [piece for piece in pieces if piece.size <= 0.12 * usual]
    left_out += [LeftOut(piece.box, "too small" if piece.size > 0.25 * usual else "") for piece in alone]
    read = read_rows(rows, ink, usual, classify)
    likely = [[part.certainty >= LIKELY for part in parts] for parts, *_ in read]
    mostly_digits = np.mean([each for row in likely for each in row] or [False]) >= 0.75
    digits: list[Digit] = []
    number = 0
    for (parts, dropped, are_digits), of_row in zip(read, likely, strict=True):
        # On a row of digits, a shape that is hard to read is probably a digit.
        is_row = mostly_digits or np.mean(of_row or [False]) >= 0.5
        kept = [part for part in parts if is_row or part.certainty >= 0.25]
        others = [*dropped, *(part.strokes for part in parts if part not in kept)]
        left_out += [LeftOut(each.box, "does not look like a digit") for each in others if each.size > 0.25 * usual]
        large = [each for each in others if each.size > 0.45 * usual]
        for part in kept:
            digit = Digit.of(part.strokes.box, number, part.probabilities, part.pixels, threshold)
            # This digit may have lost a stroke to a neighbour that was left out.
            is_beside = any(max(s.gap(part.strokes, each)) < 0.3 * usual for each in large)
            is_one = _mean_ink(part.strokes, ink[0]) >= 0.8 and (part.is_whole or are_digits)
            digits.append(replace(digit, sure=digit.sure and is_one and not is_beside))
        number += bool(kept)
    return digits, left_out


def _why_not(piece: Strokes, usual: float, ink: np.ndarray) -> str | None:
    """Return why a piece does not look like any digit, or None if it may be one, or a part of one.

    On composed pages, a quarter of the pieces with a mean probability below 0.7 are digits.
    """
    if _mean_ink(piece, ink) < 0.7:
        return "hardly ink"
    if piece.height > 3 * usual or piece.width > 8 * usual:
        return "too large"
    return "a blot" if piece.size > 0.3 * usual and s.is_blot(piece) else None


def _mean_ink(piece: Strokes, ink: np.ndarray) -> float:
    left, top, right, bottom = piece.box
    return float(ink[top:bottom, left:right][piece.mask].mean())


def _rows(pieces: list[Strokes], usual: float) -> tuple[list[list[Strokes]], list[Strokes]]:
    """Sort pieces into rows. Return the rows, and small pieces that are not near any other."""

    def is_tall(piece: Strokes) -> bool:  # a small loop is a small zero
        return piece.height >= s.LOW * usual or (piece.height >= 0.13 * usual and s.is_loop(piece))

    tall = [piece for piece in pieces if is_tall(piece)]
    if not tall:
        return [], pieces
    numbers = s.rows_of(tall, usual)
    rows: list[list[Strokes]] = [[] for _ in range(max(numbers) + 1)]
    for piece, number in zip(tall, numbers, strict=True):
        rows[number].append(piece)
    alone: list[Strokes] = []
    for piece in (piece for piece in pieces if not is_tall(piece)):
        distances = [np.hypot(*np.maximum(s.gap(piece, other), 0)) for other in tall]
        nearest = int(np.argmin(distances))
        (rows[numbers[nearest]] if distances[nearest] <= 0.35 * usual else alone).append(piece)
    return rows, alone


def _main_pieces(mask: np.ndarray, *, cropped: bool) -> list[Strokes]:
    """Return the pieces of the one digit: the largest one and other large ones, without remains of a frame."""
    pieces = s.separate(mask, smallest=1)
    if not pieces:
        return []
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
    return [piece for piece in pieces if piece.mask.sum() >= 0.06 * pieces[0].mask.sum()]


def _shrink(picture: np.ndarray, most: int) -> tuple[np.ndarray, float]:
    """Shrink a picture to at most ``most`` pixels on its longer side. Return it, and the factor by which it shrank."""
    factor = max(1.0, max(picture.shape) / most)
    if factor == 1:
        return picture, 1.0
    return rescale(picture, 1 / factor), factor
