"""Read the digits in pictures with a trained run, and turn handwriting into text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from kaggle_digits import CLASSES, PIXELS
from kaggle_digits.calibration import calibrate
from kaggle_digits.errors import DataError
from kaggle_digits.handwriting.page import Found, find_digits, find_single
from kaggle_digits.handwriting.photo import FORMATS, SUFFIXES, load_photo
from kaggle_digits.predict import PACKAGED_RUN, load_run
from kaggle_digits.runs import read_run
from kaggle_digits.strategy import device_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THRESHOLD = 0.9
"""A digit with a probability below this is reported as unsure."""

LEAST = 0.4
"""Something on a page with a probability below this is not taken for a digit: it looks like none, or like several."""

UNSURE = "?"
LABELLED = re.compile(r"[0-9]+_([^_]{1,3})")
"""The name of a file that carries a label, without its suffix: NNNN_LABEL."""


@dataclass(frozen=True)
class Digit:
    """A digit that was read.

    Args:
        box: left, top, right, bottom in pixels of the picture; right and bottom are just outside.
        row: the row on the page, from 0.
        digit: the likeliest digit, 0–9.
        probabilities: (10,) float, calibrated if the run had held-out rows for it.
        pixels: (784,) uint8, what the network saw.
    """

    box: tuple[int, int, int, int]
    row: int
    digit: int
    probabilities: np.ndarray
    pixels: np.ndarray

    def is_sure(self, threshold: float = THRESHOLD) -> bool:
        """Return whether the likeliest digit has at least this probability."""
        return bool(self.probabilities[self.digit] >= threshold)


class Reader:
    """A trained run that reads pictures.

    Args:
        folder: a run folder; by default that of the small network that comes with the package.
        backend: the backend that computes a network, see ``backend.choose_backend``.

    Raises:
        RunError: the folder is not that of a finished run.
    """

    def __init__(self, folder: str | Path = PACKAGED_RUN, *, backend: str | None = None) -> None:
        folder = Path(folder)
        self.run = load_run(folder, device_of(read_run(folder).recipe, backend=backend))
        self.temperature = self.run.temperature or 1.0

    def read(self, pages: Sequence[Sequence[Found]], *, single: bool) -> list[list[Digit]]:
        """Read the digits that were found on pictures.

        Args:
            pages: the digits found on each picture.
            single: whether each picture holds exactly one digit. On other pictures, whatever looks like no digit is
                left out.

        Returns:
            for each picture its digits, in the same order.
        """
        found = [each for page in pages for each in page]
        if not found:
            return [[] for _ in pages]
        pixels = np.stack([each.pixels for each in found])
        predicted = self.run.predict(pixels)
        digits = [
            Digit(each.box, each.row, int(row.argmax()), row, each.pixels)
            for each, row in zip(found, calibrate(predicted, self.temperature), strict=True)
        ]
        ends = np.cumsum([len(page) for page in pages])
        least = 0.0 if single else LEAST
        return [
            [digit for digit in digits[end - len(page) : end] if digit.is_sure(least)]
            for page, end in zip(pages, ends, strict=True)
        ]


def find_pictures(named: Iterable[Path]) -> list[Path]:
    """Return the given files, and the image files in the given folders, ordered by name within each folder.

    Raises:
        DataError: there is no picture in a folder.
    """
    files = []
    for path in named:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        if not inside:
            raise DataError(
                f"{path}: no picture in this folder. Expected files that end in {', '.join(sorted(SUFFIXES))}. Name "
                "the folder they are in."
            )
        files += inside
    return files


def find_labels(files: Sequence[Path]) -> np.ndarray | None:
    """Return the labels in the names of files, NNNN_LABEL.png, or None if they carry none.

    Returns:
        (N,) int64, 0–9.

    Raises:
        DataError: some names carry a label and others do not, or a label is no digit.
    """
    matches = [LABELLED.fullmatch(file.stem) for file in files]
    if not any(matches):
        return None
    labels = []
    for file, match in zip(files, matches, strict=True):
        label = match[1] if match else None
        if label is None or not (label.isascii() and label.isdigit() and len(label) == 1):
            what = f"the label {label}" if label else "no label in its name, though other files have one"
            raise DataError(
                f"{file}: {what}. Expected NUMBER_LABEL, as in 0012_7.png, with a label from 0 to 9. Rename it, or "
                "read it apart from the others."
            )
        labels.append(int(label))
    return np.array(labels, np.int64)


def read_picture(
    picture: str | Path | bytes, *, reader: Reader | None = None, single: bool = False, name: str | None = None
) -> list[Digit]:
    """Read the digits of one picture.

    Args:
        picture: an image file, or its contents.
        reader: reads what is found; None loads the small network that comes with the package.
        single: whether the picture holds exactly one digit.
        name: the name of the picture in messages; needed with contents.

    Returns:
        its digits in reading order. ``text_of`` turns them into text.

    Raises:
        DataError: it is not a picture that can be read.
    """
    source = picture if isinstance(picture, bytes) else Path(picture)
    (digits,) = (reader or Reader()).read([find(source, single=single, name=name)], single=single)
    return digits


def read_files(files: Sequence[Path], reader: Reader, *, single: bool) -> list[list[Digit]]:
    """Read the digits of image files.

    Args:
        files: the pictures.
        reader: reads what is found on them.
        single: whether each picture holds exactly one digit.

    Returns:
        for each file its digits in reading order.

    Raises:
        DataError: a file is not a picture that can be read.
    """
    return reader.read([find(file, single=single) for file in files], single=single)


def find(source: Path | bytes, *, single: bool, name: str | None = None) -> list[Found]:
    """Find the digits of one picture, with boxes in the picture's own pixels.

    Args:
        source, name: as for ``load_photo``.
        single: whether it holds exactly one digit.

    Raises:
        DataError: it is not a picture that can be read.
    """
    picture, (width, height) = load_photo(source, name=name)
    if single:
        digit = find_single(picture)
        found = [digit] if digit else []
    else:
        found = find_digits(picture)
    across, down = width / picture.shape[1], height / picture.shape[0]

    def scaled(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        left, top, right, bottom = box
        return (
            round(left * across),
            round(top * down),
            min(round(right * across), width),
            min(round(bottom * down), height),
        )

    return [Found(scaled(each.box), each.row, each.pixels) for each in found]


def text_of(digits: Sequence[Digit], *, threshold: float = THRESHOLD) -> list[str]:
    """Return what is written, one string per row, with ? for each digit whose probability is below the threshold."""
    rows: dict[int, str] = {}
    for each in digits:
        rows[each.row] = rows.get(each.row, "") + (str(each.digit) if each.is_sure(threshold) else UNSURE)
    return list(rows.values())


def describe(file: str, digits: Sequence[Digit], *, threshold: float = THRESHOLD) -> dict[str, Any]:
    """Return the JSON object of one picture: its file, its text by rows, and each digit's box and probabilities."""
    return {
        "file": file,
        "text": text_of(digits, threshold=threshold),
        "digits": [
            {
                "box": list(each.box),
                "digit": each.digit,
                "probabilities": [round(float(p), 6) for p in each.probabilities],
            }
            for each in digits
        ],
    }


def tabulate(digits: Sequence[Sequence[Digit]], labels: np.ndarray, *, threshold: float = THRESHOLD) -> str:
    """Return accuracy and confusion matrix of pictures with one digit each, for a terminal."""
    # A picture in which nothing was found counts as misread.
    read = np.array([page[0].digit if page else -1 for page in digits])
    sure = np.array([bool(page) and page[0].is_sure(threshold) for page in digits])
    right = read == labels
    lines = [f"{right.mean():.2%} right: {right.sum():,} of {len(labels):,} digits"]
    if sure.any():
        lines.append(
            f"{sure.mean():.2%} read with {threshold:.0%} or more certainty, {right[sure].mean():.2%} of them right"
        )
    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (labels[read >= 0], read[read >= 0]), 1)
    lines += ["", "is  read as" + "".join(f"{digit:6}" for digit in range(CLASSES))]
    lines += [
        f"{digit:2}         " + "".join(f"{count or '·':>6}" for count in row) for digit, row in enumerate(counts)
    ]
    return "\n".join(lines)


def plot_mistakes(digits: Sequence[Sequence[Digit]], labels: np.ndarray) -> Figure:
    """Draw the worst mistakes in pictures with one digit each, as the network saw them."""
    from kaggle_digits.plots import plot_worst

    read = [(page[0], label) for page, label in zip(digits, labels, strict=True) if page]
    return plot_worst(
        np.array([digit.pixels for digit, _ in read]).reshape(-1, PIXELS),
        np.array([digit.probabilities for digit, _ in read]).reshape(-1, CLASSES),
        np.array([label for _, label in read], np.int64),
    )


def draw_overlay(file: Path, digits: Sequence[Digit], *, threshold: float = THRESHOLD) -> Image.Image:
    """Draw boxes and digits on a picture, in green where they are sure, else in orange."""
    with Image.open(file, formats=FORMATS) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode not in ("1", "L", "RGB", "CMYK", "P") or "transparency" in image.info:  # as it was read
            image = Image.fromarray(np.rint(255 * load_photo(file)[0]).astype(np.uint8))
        image = image.convert("RGB")
    size = max(12, max(image.size) // 45)
    font = ImageFont.load_default(size)
    canvas = ImageDraw.Draw(image)
    for each in digits:
        sure = each.is_sure(threshold)
        colour = "#0a8a3a" if sure else "#d26900"
        left, top, right, bottom = each.box
        margin = size // 4
        canvas.rectangle(
            (left - margin, top - margin, right + margin, bottom + margin), outline=colour, width=max(1, size // 8)
        )
        text = str(each.digit) if sure else f"{each.digit}{UNSURE}"
        canvas.text((left - margin, top - margin), text, fill=colour, font=font, anchor="lb")
    return image
