"""Draw training images that MNIST lacks: digits of other kinds, and shapes that are not digits.

A network that has seen only digits takes every letter for one. ``draw_images`` draws letters and signs in many fonts
and with many pens, scribbles and blots. It also takes real digits apart, joins, mirrors and turns them. A network is
trained on these images with the label "each digit is equally likely". Digits are drawn as well, in the same fonts and
in strokes as Europeans write them. Otherwise a network would learn that printed characters are never digits.

Source of the labels: Hendrycks, Mazeika and Dietterich 2019, Deep anomaly detection with outlier exposure,
arXiv 1812.04606.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from kaggle_digits.data import TrainingRows
from kaggle_digits.digits import CLASSES, SIDE, calibrate
from kaggle_digits.learners.placing import ink_box, place_ink
from kaggle_digits.run import Predictor, Threshold

OUTLIER = -1
"""Label of an image that is not a digit."""

LETTERS = "ACEFHKMNPRTUVWXacdefkmnprtuvwx"
"""Letters that do not look like a digit. Handwritten B, D, G, I, J, O, Q, S, Y, Z, b, g, h, i, j, l, o, q, s, y and z
may look like one."""

FONTS = (
    "DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic",
    "STIXGeneral", "cmr10", "cmmi10", "cmss10", "cmtt10",
)  # fmt: skip
"""Fonts that Matplotlib ships."""

HELD_OUT_FONTS = ("DejaVuSansMono-Oblique", "STIXGeneralItalic")
"""Fonts in which no training image is drawn."""

CANVAS = 96
"""The side in pixels of the canvas that shapes are drawn on."""

Line = Sequence[tuple[float, float]]


def _arc(x: float, y: float, across: float, down: float, start: float, end: float) -> Line:
    """Return points on an ellipse around (x, y), from one angle to another in degrees, clockwise from the right."""
    angles = np.deg2rad(np.linspace(start, end, 20))
    return [(x + across * float(np.cos(angle)), y + down * float(np.sin(angle))) for angle in angles]


WRITTEN: dict[int, Sequence[Sequence[Line]]] = {
    0: [[_arc(0.5, 0.5, 0.32, 0.48, -80, 280)], [_arc(0.5, 0.5, 0.25, 0.48, -110, 260)]],
    1: [[[(0.15, 0.5), (0.55, 0.02), (0.5, 0.98)]], [[(0.3, 0.3), (0.55, 0.02), (0.52, 0.98)]]],
    2: [
        [[*_arc(0.48, 0.27, 0.28, 0.25, -170, 40), (0.2, 0.95), (0.85, 0.93)]],
        [[*_arc(0.48, 0.25, 0.28, 0.23, -160, 50), *_arc(0.32, 0.85, 0.14, 0.1, 40, -250), (0.85, 0.95)]],
    ],
    3: [
        [[*_arc(0.45, 0.26, 0.28, 0.24, -150, 90), *_arc(0.45, 0.72, 0.33, 0.25, -90, 150)]],
        [[(0.2, 0.05), (0.75, 0.05), (0.42, 0.42), *_arc(0.45, 0.7, 0.32, 0.27, -80, 150)]],
    ],
    4: [
        [[(0.42, 0.02), (0.15, 0.62), (0.85, 0.6)], [(0.66, 0.3), (0.6, 0.98)]],
        [[(0.3, 0.02), (0.18, 0.5), (0.45, 0.52), (0.75, 0.42)], [(0.75, 0.15), (0.65, 0.98)]],
        [[(0.35, 0.02), (0.2, 0.55), *_arc(0.5, 0.55, 0.2, 0.14, -150, 0), (0.66, 0.98)]],
        [[(0.6, 0.02), (0.12, 0.65), (0.9, 0.65)], [(0.62, 0.02), (0.62, 0.98)]],
    ],
    5: [
        [[(0.75, 0.05), (0.34, 0.05), (0.28, 0.42), *_arc(0.45, 0.67, 0.32, 0.28, -115, 150)]],
        [[(0.35, 0.05), (0.28, 0.42), *_arc(0.45, 0.67, 0.32, 0.28, -115, 150)], [(0.35, 0.05), (0.85, 0.02)]],
    ],
    6: [
        [[(0.65, 0.02), (0.38, 0.3), (0.24, 0.65), *_arc(0.5, 0.72, 0.26, 0.25, 190, -170)]],
        [[*_arc(0.75, 0.55, 0.5, 0.52, -100, -190), *_arc(0.5, 0.74, 0.25, 0.23, 180, -160)]],
    ],
    7: [
        [[(0.15, 0.1), (0.82, 0.08), (0.4, 0.98)], [(0.32, 0.52), (0.78, 0.48)]],
        [[(0.12, 0.2), (0.2, 0.08), (0.82, 0.06), (0.45, 0.98)]],
        [[(0.15, 0.08), (0.82, 0.08), (0.4, 0.98)]],
    ],
    8: [
        [[*_arc(0.5, 0.27, 0.22, 0.23, 80, -280), *_arc(0.5, 0.74, 0.28, 0.24, -80, 280)]],
        [
            [
                (0.75, 0.15),
                *_arc(0.48, 0.25, 0.24, 0.22, -40, -220),
                *_arc(0.5, 0.74, 0.26, 0.23, -50, 230),
                (0.75, 0.12),
            ]
        ],
    ],
    9: [
        [[*_arc(0.47, 0.3, 0.26, 0.26, -10, -370), (0.72, 0.4), (0.6, 0.98)]],
        [[*_arc(0.47, 0.28, 0.26, 0.25, -10, -370), (0.74, 0.6), *_arc(0.45, 0.72, 0.28, 0.25, 0, 130)]],
    ],
}
"""Ways to write each digit: its lines, in a box of 1 × 1 whose y axis points down."""


def draw_images(count: int, rows: TrainingRows, rng: np.random.Generator) -> TrainingRows:
    """Draw images that are not digits, and a fourth as many digits.

    Args:
        count: how many images in all.
        rows: digits to cut, join, mirror and turn. Only training rows may be given.
        rng: the source of randomness.

    Returns:
        ``count`` rows, each placed in the image as MNIST's digits are. The digit is OUTLIER for all others.
    """
    # The share of each kind, and how one is drawn. The first two kinds are digits.
    kinds: dict[str, tuple[float, Callable[[int], np.ndarray]]] = {
        "printed digit": (0.12, lambda digit: _glyph(str(digit), rng)),
        "written digit": (0.08, lambda digit: _written(digit, rng)),
        "letter": (0.33, lambda _: _glyph(LETTERS, rng)),
        "sign": (0.07, lambda _: _glyph("+-=×÷%#@<>*~^±€πΔΣΩΨωμλ", rng)),  # signs that do not look like a digit
        "scribble": (0.05, lambda _: _scribble(rng)),
        "blot": (0.02, lambda _: _blot(rng)),
        "piece": (0.06, lambda _: _piece(rows, rng)),
        "joined": (0.15, lambda _: _joined(rows, rng)),
        "turned": (0.12, lambda _: _turned(rows, rng)),
    }
    shares, draws = zip(*kinds.values(), strict=True)
    chosen = rng.choice(len(kinds), size=count, p=shares)
    digits = np.where(chosen < 2, rng.integers(0, CLASSES, count), OUTLIER)
    drawn = [_placed(functools.partial(draws[kind], int(digit))) for kind, digit in zip(chosen, digits, strict=True)]
    return TrainingRows(np.stack(drawn), digits)


def draw_letters(count: int, fonts: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Draw letters that do not look like a digit, in some of Matplotlib's fonts: (count, 784) uint8."""
    return np.stack([_placed(lambda: _glyph(LETTERS, rng, fonts)) for _ in range(count)])


def _placed(draw: Callable[[], np.ndarray]) -> np.ndarray:
    """Draw until there is ink, and place it."""
    while (ink := draw()).max() <= 0.5:
        pass
    return place_ink(ink)


@functools.cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl

    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts/ttf", f"{name}.ttf")), CANVAS * 5 // 8)


@functools.cache
def _has(name: str, character: str) -> bool:
    missing, present = (_font(name).getmask(text) for text in ("\uffff", character))
    return present.getbbox() is not None and (present.size != missing.size or bytes(present) != bytes(missing))


def _glyph(characters: str, rng: np.random.Generator, fonts: Sequence[str] = FONTS) -> np.ndarray:
    """Draw a character of any font, more than half of them with a pen of one width along their middle lines."""
    from skimage.morphology import skeletonize

    while True:
        character, name = rng.choice(list(characters)), str(rng.choice(fonts))
        if _has(name, character):
            break
    canvas = Image.new("L", (CANVAS, CANVAS))
    ImageDraw.Draw(canvas).text((CANVAS / 2, CANVAS / 2), character, fill=255, font=_font(name), anchor="mm")
    ink = _distort(np.asarray(canvas, np.float32) / 255, rng)
    return _stroked(skeletonize(ink > 0.5), rng) if rng.random() < 0.6 else ink


def _distort(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stretch, lean, turn and bend a shape."""
    side = len(ink)
    angle, lean = rng.normal(0, 0.12), rng.uniform(-0.25, 0.45)
    stretch = np.exp(rng.normal(0, 0.2, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.diag(stretch) @ turn @ np.array([[1, 0], [lean, 1]])
    middle = (side - 1) / 2
    grid = np.mgrid[:side, :side] - middle
    nodes = rng.normal(0, 0.035 * side, (2, 4, 4))
    bend = np.stack([ndimage.zoom(field, side / 4, order=3, grid_mode=True, mode="nearest") for field in nodes])
    at = np.tensordot(matrix, grid, 1) + middle + bend
    return ndimage.map_coordinates(ink, at, order=1)


def _stroked(lines: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw along lines, (H, W) bool, with a pen as broad or fine as those of MNIST's writers."""
    if not lines.any():
        return np.zeros(lines.shape, np.float32)
    left, top, right, bottom = ink_box(lines)
    width = rng.uniform(0.08, 0.2) * max(right - left, bottom - top)
    return np.clip(width / 2 + 0.5 - ndimage.distance_transform_edt(~lines), 0, 1).astype(np.float32)


def _written(digit: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a digit in strokes."""
    lines = WRITTEN[digit][int(rng.integers(len(WRITTEN[digit])))]
    jitter = 0.008 * CANVAS
    places = [(0.22 + 0.56 * np.array(line)) * CANVAS + rng.normal(0, jitter, (len(line), 2)) for line in lines]
    return _drawn(places, rng)


def _scribble(rng: np.random.Generator) -> np.ndarray:
    """Draw a long line with many turns, or several short ones across each other."""
    low, high = CANVAS / 4, 3 * CANVAS / 4
    if rng.random() < 0.6:
        return _drawn([rng.uniform(low, high, (rng.integers(6, 12), 2))], rng)
    return _drawn([rng.uniform(low, high, (2, 2)) for _ in range(rng.integers(3, 6))], rng)


def _drawn(lines: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draw lines with a pen after distorting them. Each is (points, 2), x and y in pixels of the canvas."""
    canvas = Image.new("1", (CANVAS, CANVAS))
    for line in lines:
        ImageDraw.Draw(canvas).line([tuple(point) for point in line], fill=1, width=2)
    return _stroked(_distort(np.asarray(canvas, np.float32), rng) > 0.5, rng)


def _blot(rng: np.random.Generator) -> np.ndarray:
    """Draw a filled shape."""
    grid = np.mgrid[:CANVAS, :CANVAS] - CANVAS / 2
    distance, angle = np.hypot(*grid), np.arctan2(*grid)
    radius = sum(rng.normal(0, 4) * np.cos(n * angle + rng.uniform(0, 7)) for n in range(2, 7))
    stretch = np.exp(rng.normal(0, 0.4))
    return _distort(np.clip(20 + radius - distance * (1 + (stretch - 1) * np.abs(np.cos(angle))), 0, 1), rng)


def _any(rows: TrainingRows, rng: np.random.Generator, digits: Sequence[int] = range(CLASSES)) -> np.ndarray:
    """Return the image of one of some digits, (28, 28) from 0 to 1."""
    while rows.digits[index := rng.integers(len(rows))] not in digits:
        pass
    return rows.pixels[index].reshape(SIDE, SIDE).astype(np.float32) / 255


def _piece(rows: TrainingRows, rng: np.random.Generator) -> np.ndarray:
    """Cut a piece off a digit, or several digits' parts out of a row of them."""
    digit = _any(rows, rng, range(2 if rng.random() < 0.5 else 0, CLASSES))
    if rng.random() < 0.5:  # two halves of neighbours
        other = _any(rows, rng)
        shift = int(rng.integers(8, 15))
        wide = np.zeros((SIDE, SIDE + 20), np.float32)
        wide[:, :SIDE] = digit
        wide[:, shift : shift + SIDE] = np.maximum(wide[:, shift : shift + SIDE], other)
        start = 6 + shift // 2
        return wide[:, start : start + int(rng.integers(9, 14))]
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.where(np.cos(angle) * x + np.sin(angle) * y > rng.uniform(-3, 3), digit, 0)


def _joined(rows: TrainingRows, rng: np.random.Generator) -> np.ndarray:
    """Put two or three digits beside each other so that they touch."""
    whole = _trim(_any(rows, rng))
    for _ in range(1 if rng.random() < 0.8 else 2):
        other = _trim(_any(rows, rng))
        height = max(len(whole), len(other))
        tops = [int(rng.integers(0, height - len(part) + 1)) for part in (whole, other)]
        overlap = min(int(rng.integers(-1, 4)), whole.shape[1] - 1, other.shape[1] - 1)
        wide = np.zeros((height, whole.shape[1] + other.shape[1] - overlap), np.float32)
        for part, top, left in ((whole, tops[0], 0), (other, tops[1], wide.shape[1] - other.shape[1])):
            area = wide[top : top + len(part), left : left + part.shape[1]]
            np.maximum(area, part, out=area)
        whole = wide
    return whole


def _trim(ink: np.ndarray) -> np.ndarray:
    left, top, right, bottom = ink_box(ink > 0.3)
    return ink[top:bottom, left:right]


def _turned(rows: TrainingRows, rng: np.random.Generator) -> np.ndarray:
    """Turn a digit by a quarter or a half, or mirror it from left to right.

    Only digits that then look like no digit are used. 0 and 8 stay much the same, and a mirrored 2 is a kind of 5.
    """
    if rng.random() < 0.65:
        return np.rot90(_any(rows, rng, (2, 3, 4, 5, 7)), rng.choice([1, 3]))
    if rng.random() < 0.5:
        return np.rot90(_any(rows, rng, (3, 7)), 2)
    return _any(rows, rng, (3, 4, 6, 7, 9))[:, ::-1]


def find_threshold(digits: np.ndarray, letters: np.ndarray) -> tuple[float, float, float]:
    """Find the probability from which on a digit is sure: 0.9, or less if more than 1% of the digits would be unsure.

    Args:
        digits: (N, 10) calibrated probabilities of held-out digits.
        letters: (M, 10) those of letters that do not look like a digit.

    Returns:
        the threshold; the share of digits below it; and the share of letters that reach it.
    """
    digits, letters = digits.max(axis=1), letters.max(axis=1)
    value = min(0.9, float(np.floor(1e4 * np.quantile(digits, 0.01, method="lower")) / 1e4))
    return value, round(float((digits < value).mean()), 4), round(float((letters >= value).mean()), 4)


def measure_threshold(predictor: Predictor, digits: np.ndarray, temperature: float, *, seed: int) -> Threshold:
    """Find from which probability on a digit is sure, with 2,000 letters in fonts that were not trained on.

    Args:
        predictor: the predictor of the network.
        digits: (N, 10) calibrated probabilities of held-out digits.
        temperature: calibrates the probabilities of the letters.
        seed: the seed for the letters.
    """
    letters = draw_letters(2000, HELD_OUT_FONTS, np.random.default_rng(seed))
    return Threshold(*find_threshold(digits, calibrate(predictor.probabilities(letters), temperature)))
