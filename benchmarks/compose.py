"""Compose pictures of handwriting, with a map of the ink of digits, to train the network that finds it.

Each picture is a part of a page: digits of ``train.csv``, drawn anew with any pen, on any paper, with everything that
is not a digit: printed lines, words, signs, underlines, frames, desks, shadows. Then a camera takes it.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage.transform import estimate_transform

from kaggle_digits.data import TrainingRows
from kaggle_digits.digits import SIDE
from kaggle_digits.learners.drawing import FONTS, LETTERS, WRITTEN
from kaggle_digits.learners.placing import ink_box, resize

FINE = 4 * SIDE
"""The side in pixels at which the middle lines of a digit are kept."""

LEAST_WIDTH = 2.4
"""Strokes on the map are at least this many pixels wide, so that they stay in one piece."""

SIGNS = "+-=×÷.,:%#?!<>*&€$@()[]"


@dataclass(frozen=True)
class Shapes:
    """Shapes to draw with any pen.

    Args:
        distances: (N, FINE, FINE) uint8, eight times the distance in pixels to the middle line of the strokes.
        inks: (N, FINE, FINE) uint8, the strokes as they were written, 0–255.
        boxes: (N, 4) int, left, top, right, bottom of the middle lines.
        digits: (N,) int, the digits; -1 for other shapes.
    """

    distances: np.ndarray
    inks: np.ndarray
    boxes: np.ndarray
    digits: np.ndarray

    @classmethod
    def of(cls, rows: TrainingRows) -> Shapes:
        """Find the middle lines of digits."""
        inks = [resize(row.reshape(SIDE, SIDE).astype(np.float32), (FINE, FINE)) for row in rows.pixels]
        return cls._of(inks, rows.digits)

    @classmethod
    def of_characters(cls, characters: str) -> Shapes:
        """Find the middle lines of characters in many fonts. Those of digits are digits."""
        named = [(character, font) for character in characters for font in FONTS]
        digits = [int(character) if character.isdecimal() else -1 for character, _ in named]
        return cls._of([_character(*each) for each in named], np.array(digits))

    @classmethod
    def of_strokes(cls) -> Shapes:
        """Return digits as people write them in strokes. Many of these are straighter than those of train.csv."""
        ways = [(digit, lines) for digit, each in WRITTEN.items() for lines in each]
        inks = []
        for _, lines in ways:
            canvas = Image.new("L", (FINE, FINE))
            for line in lines:
                points = [(FINE * (0.2 + 0.6 * x), FINE * (0.1 + 0.8 * y)) for x, y in line]
                ImageDraw.Draw(canvas).line(points, fill=255, width=9, joint="curve")
            inks.append(np.asarray(canvas, np.float32))
        return cls._of(inks, np.array([digit for digit, _ in ways]))

    @classmethod
    def _of(cls, inks: Sequence[np.ndarray], digits: np.ndarray) -> Shapes:
        from skimage.morphology import skeletonize

        distances, kept, boxes, labels = [], [], [], []
        for ink, digit in zip(inks, digits, strict=True):
            smooth = ndimage.gaussian_filter(ink, 1.5)
            lines = skeletonize(smooth > 0.45 * smooth.max())
            if lines.sum() < 3:
                continue
            distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(~lines), 1.2)
            distances.append(np.clip(8 * np.maximum(distance - 0.6, 0), 0, 255).astype(np.uint8))
            kept.append(np.clip(ink, 0, 255).astype(np.uint8))
            boxes.append(ink_box(lines))
            labels.append(digit)
        return cls(np.stack(distances), np.stack(kept), np.array(boxes), np.array(labels))


@functools.cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl

    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts/ttf", f"{name}.ttf")), size)


def _character(character: str, font: str) -> np.ndarray:
    canvas = Image.new("L", (FINE, FINE))
    ImageDraw.Draw(canvas).text((FINE / 2, FINE / 2), character, fill=255, font=_font(font, FINE * 5 // 8), anchor="mm")
    return np.asarray(canvas, np.float32)


@dataclass(frozen=True)
class Material:
    """What pictures are composed of: digits of train.csv, in strokes and printed; letters and signs."""

    digits: Shapes
    strokes: Shapes
    printed: Shapes
    letters: Shapes
    signs: Shapes

    @classmethod
    def of(cls, rows: TrainingRows) -> Material:
        """Prepare the material. Only training rows may be given."""
        return cls(
            Shapes.of(rows),
            Shapes.of_strokes(),
            Shapes.of_characters("0123456789"),
            Shapes.of_characters(LETTERS),
            Shapes.of_characters(SIGNS),
        )


@dataclass(frozen=True)
class Composed:
    """A composed picture.

    Args:
        picture: (side, side, 3) uint8.
        maps: (side, side, 2) uint8, the ink of digits and that of other writing, 0–255.
        digits: (N,) int, the digits in it.
        places: (N, 2) float, where the middle of each is, x and y in pixels. It may be outside.
        heights: (N,) float, their heights in pixels.
    """

    picture: np.ndarray
    maps: np.ndarray
    digits: np.ndarray
    places: np.ndarray
    heights: np.ndarray


class Composer:
    """Composes one picture.

    Args:
        material: what it is composed of.
        side: the side of the picture in pixels.
        rng: the source of randomness.
    """

    def __init__(self, material: Material, side: int, rng: np.random.Generator) -> None:
        self.material, self.side, self.rng = material, side, rng
        self.size = side * 3 // 2  # of the canvas
        self.height = float(np.exp(rng.uniform(np.log(16), np.log(72))))  # of digits
        self.written = np.zeros((2, self.size, self.size), np.float32)  # the ink of digits and of other marks
        self.target = self.written.copy()  # the same, as it is to be found
        self.placed: list[tuple[float, ...]] = []

    def compose(self) -> Composed:
        """Return a picture."""
        rng = self.rng
        is_board = rng.random() < 0.12
        paper = self._paper(is_board)
        if not is_board and rng.random() < 0.75:
            paper *= self._ruling()[..., None]
        on_sheet, outside = self._sheet() if rng.random() < 0.45 else (None, None)
        picture = paper
        if rng.random() < 0.2:
            picture = self._print(picture, is_board)
        self._write(on_sheet)
        picture = self._ink(picture, self.written.max(axis=0), is_board)
        if on_sheet is not None:
            soft = ndimage.gaussian_filter(on_sheet.astype(np.float32), rng.uniform(0.4, 1.2))[..., None]
            self.target *= on_sheet
            picture = soft * picture + (1 - soft) * outside
        picture = picture * self._light()[..., None]
        picture, target, matrix = self._warp(np.clip(picture, 0, 1))
        digits, x, y, heights = np.array(self.placed).reshape(-1, 4).T
        x, y, scale = np.linalg.inv(matrix) @ np.stack([x, y, np.ones(len(x))])
        return Composed(
            self._camera(picture),
            np.rint(255 * np.clip(target, 0, 1)).astype(np.uint8),
            digits.astype(int),
            np.stack([x / scale, y / scale], axis=1),
            heights,
        )

    # What the page is made of.

    def _field(self, scale: float, *, stretched: float = 1.0) -> np.ndarray:
        """Return smooth noise of a size in pixels, (size, size), with mean 0 and a standard deviation near 1.

        Across the picture it may be stretched.
        """
        cells = [max(2, min(self.size, round(self.size / each))) for each in (scale, scale * stretched)]
        return resize(self.rng.normal(0, 1, cells).astype(np.float32), (self.size, self.size))

    def _paper(self, is_board: bool) -> np.ndarray:
        rng = self.rng
        if is_board:
            base = rng.uniform(0.04, 0.3) * np.array(
                [(1, 1, 1), (0.7, 1, 0.8), (0.7, 0.8, 1)][rng.integers(3)], np.float32
            )
            smear = 1 + rng.uniform(0, 0.35) * self._field(rng.uniform(15, 80))
            return np.clip(base * smear[..., None], 0, 1).astype(np.float32)
        white = rng.uniform(0.7, 1.0)
        tint = 1 - rng.uniform(0, 0.25 if rng.random() < 0.4 else 0.05, 3)
        if rng.random() < 0.05:  # coloured paper
            tint = rng.uniform(0.4, 1, 3)
        paper = np.ones((self.size, self.size, 3), np.float32) * (white * tint).astype(np.float32)
        grain = rng.uniform(0, 0.035) * self._field(rng.uniform(1, 6)) + rng.uniform(0, 0.03) * self._field(40)
        return paper * (1 + grain[..., None])

    def _ruling(self) -> np.ndarray:
        """Return what printed lines leave of the light, (size, size)."""
        rng, size = self.rng, self.size
        kind = rng.choice(["lines", "squares", "dots", "dashes", "table"], p=[0.38, 0.38, 0.08, 0.06, 0.10])
        spacing = self.height * rng.uniform(*{"squares": (0.35, 2.2), "table": (1.3, 4)}.get(str(kind), (0.8, 3)))
        spacing = max(7.0, spacing)
        width, dark = rng.uniform(0.5, 2.2), rng.uniform(0.06, 0.5 if kind != "dots" else 0.7)
        if kind == "table":
            width, dark = rng.uniform(1, 3.5), rng.uniform(0.2, 0.9)
        at = np.arange(size, dtype=np.float32)
        bend = rng.uniform(0, 1.5) * np.sin(at / rng.uniform(60, 300) + rng.uniform(0, 6))

        def lines(gap: float) -> np.ndarray:
            away = np.abs((at[:, None] + bend + rng.uniform(0, gap)) % gap - gap / 2)
            return np.clip(width / 2 + 0.5 - away, 0, 1)

        across = lines(spacing)
        down = lines(spacing * (rng.uniform(0.6, 2) if kind == "table" else 1)).T
        if kind == "dots":
            ruled = across * down
        elif kind == "dashes":
            ruled = across * (np.sin(at * rng.uniform(0.3, 1.2)) > rng.uniform(-0.5, 0.5))[None]
        else:
            ruled = across if kind == "lines" else np.maximum(across, down)
        if rng.random() < 0.2:  # a margin
            ruled = np.maximum(ruled, lines(size * 2).T)
        if rng.random() < 0.3:  # printing is uneven
            ruled = ruled * np.clip(0.8 + 0.4 * self._field(50), 0, 1)
        return 1 - dark * ruled

    def _sheet(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where the sheet is, (size, size) bool, and the desk around it, (size, size, 3)."""
        rng, size = self.rng, self.size
        y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
        on_sheet = np.ones((size, size), bool)
        angle = rng.uniform(0, 2 * np.pi)
        for turn in (0, np.pi / 2)[: 1 if rng.random() < 0.5 else 2]:
            direction = angle + turn + rng.normal(0, 0.05)
            on_sheet &= np.cos(direction) * x + np.sin(direction) * y < rng.uniform(-0.05, 0.38)
        if rng.random() < 0.15:  # a second sheet
            gap = rng.uniform(0.02, 0.12)
            direction = angle + rng.normal(0, 0.03)
            along = np.cos(direction) * x + np.sin(direction) * y
            on_sheet |= along > along[on_sheet].max(initial=-1) + gap
        if rng.random() < 0.12:
            on_sheet[:] = False  # nothing but the desk
        if rng.random() < 0.1:  # holes
            for _ in range(rng.integers(1, 4)):
                middle, radius = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.01, 0.05)
                on_sheet &= np.hypot(x - middle[0], y - middle[1]) > radius
        colour = rng.uniform(0.03, 0.9 if rng.random() < 0.3 else 0.45) * rng.uniform(0.4, 1, 3)
        grain = rng.uniform(0, 0.5) * self._field(rng.uniform(1.5, 12))
        if rng.random() < 0.25:  # stripes
            veins = np.sin((y * np.cos(angle) + x * np.sin(angle)) * rng.uniform(20, 300) + 2 * self._field(60))
            grain = grain + rng.uniform(0.05, 0.3) * veins
        if rng.random() < 0.4:  # wood
            veins = self._field(rng.uniform(1.5, 6), stretched=rng.uniform(5, 50))
            grain = grain + rng.uniform(0.05, 0.6) * (veins if rng.random() < 0.5 else veins.T)
        if rng.random() < 0.3:  # things that lie on it
            canvas = Image.new("L", (size, size))
            for _ in range(rng.integers(1, 9)):
                ends = [float(each) for each in rng.uniform(0, size, 4)]
                ImageDraw.Draw(canvas).line(ends, fill=int(rng.integers(80, 255)), width=int(rng.integers(1, 9)))
            grain = grain + rng.uniform(-0.7, 1.5) * np.asarray(canvas, np.float32) / 255
        desk = colour * (1 + grain[..., None])
        # A sheet throws a shadow.
        near = ndimage.gaussian_filter(on_sheet.astype(np.float32), rng.uniform(2, 10))
        return on_sheet, np.clip(desk * (1 - rng.uniform(0, 0.7) * near)[..., None], 0, 1).astype(np.float32)

    def _print(self, picture: np.ndarray, is_board: bool) -> np.ndarray:
        """Print words."""
        rng = self.rng
        canvas = Image.new("L", (self.size, self.size))
        draw = ImageDraw.Draw(canvas)
        size = int(np.clip(self.height * rng.uniform(0.25, 1.2), 8, 60))
        font = _font(str(rng.choice(FONTS[:7])), size)
        alphabet = "abcdefghijklmnopqrstuvwxyzäöüéABCDEFGHIKLMNPRSTUVWZ"
        top = rng.uniform(0, self.size)
        for line in range(rng.integers(1, 6)):
            words = ["".join(rng.choice(list(alphabet), rng.integers(2, 10))) for _ in range(rng.integers(1, 8))]
            draw.text(
                (rng.uniform(-50, self.size / 2), top + 1.4 * size * line),
                " ".join(words) + str(rng.choice(["", ":", "?", "."])),
                fill=255,
                font=font,
            )
        ink = rng.uniform(0.4, 1) * np.asarray(canvas, np.float32)[..., None] / 255
        return picture * (1 - ink) + ink * (0.9 if is_board else rng.uniform(0, 0.3))

    # What is written on it.

    def _write(self, on_sheet: np.ndarray | None) -> None:
        """Write rows of digits, sometimes with words, signs, underlines and frames."""
        rng, size, height = self.rng, self.size, self.height
        pen = height * float(np.exp(rng.uniform(np.log(0.025), np.log(0.24))))
        as_written = rng.random() < 0.3
        gap = rng.uniform(-0.06, 0.9) if rng.random() < 0.7 else rng.uniform(0.9, 3)
        mixed = rng.uniform(0.02, 0.35)
        top = rng.uniform(-height, height)
        wordy = rng.random() < 0.25
        hand = self.material.digits  # most people's digits are like those of train.csv
        if rng.random() < 0.25:
            hand, as_written = (self.material.strokes, False) if rng.random() < 0.7 else (self.material.printed, True)
        while top < size:
            left = rng.uniform(-0.5, 2) * height if rng.random() < 0.7 else rng.uniform(0, size / 2)
            start = left
            if wordy and rng.random() < 0.4:
                left = self._word(left, top, pen)
            while left < size and rng.random() < 0.93:
                own = height * float(np.clip(np.exp(rng.normal(0, mixed)), 0.4, 2))
                at = top + height - own * rng.uniform(0.8, 1.1)
                if rng.random() < 0.06:
                    kind, channel = self.material.signs, 1
                    own *= rng.uniform(0.5, 1.2)
                else:
                    kind, channel = hand if rng.random() < 0.9 else self.material.digits, 0
                left = self._shape(kind, channel, left, at, own, pen, as_written, on_sheet)
                left += height * (gap + rng.normal(0, 0.1)) if rng.random() < 0.92 else height * rng.uniform(0.5, 2.5)
            if rng.random() < 0.12:  # an underline
                self._line((start, top + 1.15 * height), (left, top + height * rng.uniform(1.1, 1.3)), pen)
            if wordy and left < size:
                self._word(left + height, top, pen)
            top += height * rng.uniform(1.15, 1.4 if rng.random() < 0.5 else 3)
        if rng.random() < 0.06:  # a frame or a crossing line
            for _ in range(rng.integers(1, 4)):
                self._line(tuple(rng.uniform(0, size, 2)), tuple(rng.uniform(0, size, 2)), pen * rng.uniform(0.5, 1.5))
        if rng.random() < 0.12:  # blots and points
            for _ in range(rng.integers(1, 5)):
                self._blot()
        if rng.random() < 0.06:  # a ring
            x, y = rng.uniform(0, size, 2)
            across, down = height * rng.uniform(1, 4, 2)
            turn = np.linspace(0, 2 * np.pi, 40) + rng.uniform(0, 6)
            corners = np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)
            for start_at, end_at in itertools.pairwise(corners):
                self._line(tuple(start_at), tuple(end_at), pen)

    def _word(self, left: float, top: float, pen: float) -> float:
        for _ in range(self.rng.integers(2, 9)):
            low = self.rng.uniform(0.5, 0.95)
            left = self._shape(self.material.letters, 1, left, top + (1 - low) * self.height, low * self.height, pen)
            left += self.height * self.rng.uniform(-0.05, 0.25)
        return left + self.height * 0.6

    def _shape(
        self,
        shapes: Shapes,
        channel: int,
        left: float,
        top: float,
        height: float,
        pen: float,
        as_written: bool = False,
        on_sheet: np.ndarray | None = None,
    ) -> float:
        """Write a shape of a height in pixels, and return its right side."""
        rng = self.rng
        index = int(rng.integers(len(shapes.boxes)))
        x0, y0, x1, y1 = shapes.boxes[index].astype(float)
        scale = height / max(y1 - y0, 0.6 * (x1 - x0), 8 if channel == 0 else 40)
        across = scale * float(np.exp(rng.normal(0, 0.12)))
        lean, turn = rng.normal(0, 0.12), rng.normal(0, 0.06)
        width = across * (x1 - x0)
        margin = 4 + pen
        box = np.array([left - margin, top - margin, left + width + margin, top + height + margin])
        first, last = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
        if (last < 2).any() or (first > self.size - 2).any():
            return left + width
        if on_sheet is not None:
            ys, xs = np.clip([first[1], last[1]], 0, self.size - 1), np.clip([first[0], last[0]], 0, self.size - 1)
            if not on_sheet[ys[0] : ys[1] + 1, xs[0] : xs[1] + 1].all():
                return left + width
        # From a pixel of the canvas to a pixel of the fine shape.
        matrix = np.linalg.inv(
            np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            @ np.array([[across, -lean * scale], [0, scale]])
        )
        middle = np.array([left + width / 2, top + height / 2]) - first
        offset = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) - matrix @ middle
        data = (*matrix[0], offset[0], *matrix[1], offset[1])
        extent = (int(last[0] - first[0]), int(last[1] - first[1]))

        def moved(layer: np.ndarray, fill: int) -> np.ndarray:
            image = Image.fromarray(layer).transform(
                extent, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=fill
            )
            return np.asarray(image, np.float32)

        if as_written:
            ink = np.clip(moved(shapes.inks[index], 0) / 160, 0, 1)
            found = ink
        else:
            mean = np.sqrt(across * scale)
            distance = moved(shapes.distances[index], 255) / 8 * mean
            pressed = pen * rng.uniform(0.8, 1.2)
            ink = np.clip(pressed / 2 + 0.5 - distance, 0, 1)
            found = np.clip(max(pressed, LEAST_WIDTH) / 2 + 0.5 - distance, 0, 1)
        if channel == 0:
            self.placed.append((shapes.digits[index], left + width / 2, top + height / 2, height))
        opacity = float(np.exp(rng.normal(0, 0.15))) if rng.random() < 0.3 else 1.0
        self._add(channel, first, last, np.clip(ink * opacity, 0, 1), found)
        return left + width

    def _line(self, start: tuple[float, ...], end: tuple[float, ...], pen: float) -> None:
        """Draw a line, which is no digit."""
        canvas = Image.new("L", (self.size, self.size))
        ImageDraw.Draw(canvas).line([*start, *end], fill=255, width=max(1, round(pen)))
        ink = np.asarray(canvas, np.float32) / 255
        self._add(1, np.zeros(2, int), np.full(2, self.size), ink, ink)

    def _blot(self) -> None:
        """Draw a filled shape, which is no digit."""
        rng = self.rng
        radius, first = (
            self.height * float(np.exp(rng.uniform(np.log(0.05), np.log(0.6)))),
            rng.uniform(0, self.size, 2),
        )
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        away = radius * (1 + 0.2 * np.sin(turn * rng.integers(1, 5) + rng.uniform(0, 6)))
        points = first[:, None] + away * np.stack([np.cos(turn) * rng.uniform(0.6, 1.6), np.sin(turn)])
        canvas = Image.new("L", (self.size, self.size))
        ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points.T], fill=255)
        ink = np.asarray(canvas, np.float32) / 255
        self._add(1, np.zeros(2, int), np.full(2, self.size), ink, ink)

    def _add(self, channel: int, first: np.ndarray, last: np.ndarray, ink: np.ndarray, found: np.ndarray) -> None:
        low, high = np.maximum(first, 0), np.minimum(last, self.size)
        where = (slice(low[1], high[1]), slice(low[0], high[0]))
        part = (slice(low[1] - first[1], high[1] - first[1]), slice(low[0] - first[0], high[0] - first[0]))
        for layer, values in ((self.written, ink), (self.target, found)):
            area = layer[channel][where]
            np.maximum(area, values[part], out=area)

    def _ink(self, picture: np.ndarray, cover: np.ndarray, is_board: bool) -> np.ndarray:
        """Put ink of one pen on the picture."""
        rng = self.rng
        strength = rng.uniform(0.3, 1) if rng.random() < 0.5 else rng.uniform(0.75, 1)
        if is_board:
            colour = np.clip(rng.uniform(0.6, 1) * (1 - rng.uniform(0, 0.4, 3) * (rng.random() < 0.4)), 0, 1)
        elif rng.random() < 0.55:
            colour = np.full(3, rng.uniform(0, 0.45)) * rng.uniform(0.9, 1, 3)
        else:
            bright = (0.1, 0.15, 0.55), (0.05, 0.2, 0.8), (0.75, 0.08, 0.1), (0.05, 0.5, 0.2), (0.5, 0.1, 0.5)
            rare = (0.95, 0.5, 0.05), (0.1, 0.7, 0.8), (0.9, 0.8, 0.1), (0.9, 0.3, 0.6)
            colours = bright if rng.random() < 0.85 else rare
            colour = np.clip(np.array(colours[rng.integers(len(colours))]) + rng.normal(0, 0.06, 3), 0, 1)
        if rng.random() < 0.4:  # the pen fades here and there
            cover = cover * np.clip(1 - rng.uniform(0.1, 0.5) * (1 + self._field(rng.uniform(8, 60))), 0.25, 1)
        if rng.random() < 0.12:  # it skips
            cover = cover * (self._field(rng.uniform(3, 10)) > rng.uniform(-2, -1.2))
        if rng.random() < 0.4:  # grain of a pencil or of chalk
            cover = cover * np.clip(1 + rng.uniform(0.1, 0.6) * self._field(rng.uniform(1, 2.5)), 0, 1)
        ink = (strength * cover)[..., None]
        return picture * (1 - ink) + ink * (colour if is_board else colour * picture.mean(axis=(0, 1)))

    # How it is lit and taken.

    def _light(self) -> np.ndarray:
        rng, size = self.rng, self.size
        y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
        angle = rng.uniform(0, 2 * np.pi)
        light = 1 + rng.uniform(0, 0.45) * (np.cos(angle) * x + np.sin(angle) * y)
        light *= rng.uniform(0.6, 1.05)
        for _ in range(rng.choice(3, p=[0.5, 0.35, 0.15])):
            angle = rng.uniform(0, 2 * np.pi)
            away = (np.cos(angle) * x + np.sin(angle) * y - rng.uniform(-0.4, 0.4)) * size
            away = away + rng.uniform(0, 6) * self._field(rng.uniform(40, 200))
            softness = float(np.exp(rng.uniform(np.log(0.7), np.log(50))))
            light *= 1 - rng.uniform(0.1, 0.65) / (1 + np.exp(-np.clip(away / softness, -20, 20)))
        return light

    def _warp(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take a part of the canvas from an angle."""
        rng, side, size = self.rng, self.side, self.size
        angle, scale = rng.normal(0, 0.1), rng.uniform(0.95, 1.05)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        there = scale * corners @ turn.T + rng.normal(0, 0.02 * side, (4, 2)) + size / 2
        matrix = estimate_transform("projective", corners + side / 2, there).params

        def warp(layer: np.ndarray) -> np.ndarray:
            image = Image.fromarray(np.rint(255 * np.clip(layer, 0, 1)).astype(np.uint8))
            how = Image.Transform.PERSPECTIVE
            return (
                np.asarray(
                    image.transform((side, side), how, tuple(matrix.ravel()[:8]), Image.Resampling.BILINEAR), np.float32
                )
                / 255
            )

        return warp(picture), np.stack([warp(layer) for layer in self.target], axis=2), matrix

    def _camera(self, picture: np.ndarray) -> np.ndarray:
        rng = self.rng
        blur = rng.uniform(0, 1.5) if rng.random() < 0.6 else 0.0
        if blur > 0.3:
            picture = ndimage.gaussian_filter(picture, (blur, blur * rng.uniform(0.6, 1.4), 0))
        noise = rng.uniform(0, 0.045) * rng.random()
        grey = rng.normal(0, noise, (*picture.shape[:2], 1))
        picture = picture + grey + rng.normal(0, noise / 2, picture.shape)
        if rng.random() < 0.3:
            picture = picture.mean(axis=2, keepdims=True) * np.ones(3)
        picture = np.clip(picture, 0, 1) ** rng.uniform(0.75, 1.3)
        image = Image.fromarray(np.rint(255 * picture).astype(np.uint8))
        if rng.random() < 0.6:
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=int(rng.integers(30, 95)))
            image = Image.open(stream)
        return np.asarray(image.convert("RGB"))
