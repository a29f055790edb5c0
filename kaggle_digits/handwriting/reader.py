"""Read the digits in pictures with a trained run, and turn handwriting into text."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kaggle_digits.analysis.occlusion import occlusion_map
from kaggle_digits.digits import CLASSES, PIXELS, calibrate
from kaggle_digits.errors import DataError
from kaggle_digits.handwriting.ink import Ink, InkFinder
from kaggle_digits.handwriting.page import UNSURE, Box, Digit, Page, find_single, read_drawing, read_page
from kaggle_digits.handwriting.photo import Photo, is_picture, load_photos
from kaggle_digits.learners import PACKAGED_RUN, load_run
from kaggle_digits.learners.placing import ink_box
from kaggle_digits.run import read_run
from kaggle_digits.strategy import device_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


class Reader:
    """A trained run that reads pictures.

    Args:
        folder: a run folder; by default that of the small network that comes with the package.
        threshold: a digit with a probability below this is unsure; None takes the run's own threshold, or else 0.9.
        backend: the backend that computes a network, see ``devices.choose_backend``.

    Raises:
        RunError: the folder is not that of a finished run.
    """

    def __init__(
        self, folder: str | Path = PACKAGED_RUN, *, threshold: float | None = None, backend: str | None = None
    ) -> None:
        folder = Path(folder)
        self.backend = backend
        self.run = load_run(folder, device_of(read_run(folder).recipe, backend=backend))
        own = self.run.threshold.value if self.run.threshold else 0.9
        self.threshold = own if threshold is None else threshold

    def classify(self, pixels: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities of every digit, (N, 10), for pixels (N, 784)."""
        return calibrate(self.run.predict(pixels), self.run.temperature or 1.0)

    @functools.cached_property
    def ink_finder(self) -> InkFinder:
        """The network that finds ink. Pictures that hold one digit each may not need it."""
        return InkFinder(device_of(read_run(PACKAGED_RUN).recipe, backend=self.backend))

    def find_ink(self, picture: np.ndarray, *, is_single: bool = False) -> Ink:
        """Find the ink in a picture, see ``ink.InkFinder.find``."""
        return self.ink_finder.find(picture, is_single=is_single)

    def read_page(self, picture: np.ndarray) -> Page:
        """Read all digits of a page, brightness (H, W) or (H, W, 3) from 0 to 1."""
        return read_page(picture, self.find_ink, self.classify, threshold=self.threshold)

    def explain(self, digit: Digit) -> np.ndarray:
        """Return which parts of a digit speak for and against its reading, (28, 28), see ``occlusion``."""
        return occlusion_map(self.classify, digit.pixels, digit.digit)

    def read_pages(self, photos: Iterable[Photo]) -> list[Page]:
        """Read all digits of each page, with boxes in the picture's own pixels."""
        return [_scaled(self.read_page(photo.picture), photo.size, photo.picture.shape) for photo in photos]

    def read_singles(self, photos: Iterable[Photo]) -> list[Page]:
        """Read pictures that hold exactly one digit each. A picture without any ink has no digit."""
        find_ink = functools.partial(self.find_ink, is_single=True)
        images = [(find_single(photo.picture, find_ink), photo.size, photo.picture.shape) for photo in photos]
        pixels = [image.pixels for image, *_ in images if image]
        probabilities = iter(self.classify(np.stack(pixels)) if pixels else ())
        pages = []
        for image, size, shape in images:
            digits = [Digit.of(image.box, 0, next(probabilities), image.pixels, self.threshold)] if image else []
            pages.append(_scaled(Page(digits, []), size, shape))
        return pages

    def read_drawing(self, photo: Photo) -> Page:
        """Read a drawing of one digit, or of several in a row, see ``page.read_drawing``."""
        find_ink = functools.partial(self.find_ink, is_single=True)
        page = read_drawing(photo.picture, find_ink, self.classify, threshold=self.threshold)
        return _scaled(page, photo.size, photo.picture.shape)


def _scaled(page: Page, size: tuple[int, int], shape: tuple[int, ...]) -> Page:
    """Return a page with positions in pixels of the full picture. It may have been read at a smaller size."""
    width, height = size
    across, down = width / shape[1], height / shape[0]
    if across == down == 1:
        return page

    def scaled(box: Box) -> Box:
        right, bottom = min(round(box[2] * across), width), min(round(box[3] * down), height)
        return round(box[0] * across), round(box[1] * down), right, bottom

    return replace(
        page,
        digits=[replace(digit, box=scaled(digit.box)) for digit in page.digits],
        left_out=[replace(part, box=scaled(part.box)) for part in page.left_out],
    )


def read_picture(
    picture: str | Path | bytes, *, reader: Reader | None = None, single: bool = False, name: str | None = None
) -> list[Page]:
    """Read the digits of a picture.

    Args:
        picture: an image file, or its contents.
        reader: None loads the small network that comes with the package.
        single: whether the picture holds exactly one digit.
        name: the name of the picture in messages; needed with contents.

    Returns:
        one page; for a TIFF or an animation one for each of its pages or frames.

    Raises:
        DataError: it is not a picture that can be read.
    """
    source = picture if isinstance(picture, bytes) else Path(picture)
    reader = reader or Reader()
    photos = load_photos(source, name=name)
    return reader.read_singles(photos) if single else reader.read_pages(photos)


@dataclass(frozen=True)
class Pictures:
    """Image files and their labels.

    Args:
        files: the files, in order.
        labels: (N,) int64, 0–9; None if they are not labelled.
    """

    files: list[Path]
    labels: np.ndarray | None = None


def find_pictures(named: Iterable[Path], *, labelled: bool = False) -> Pictures:
    """Find image files by their contents. Files of a folder that are no pictures are skipped, which is logged.

    Args:
        named: files and folders. In a folder its files count, ordered by name, and those in its class folders 0 to 9.
        labelled: whether each holds one digit that its class folder or its name tells: NUMBER_LABEL, as in 0012_7.png,
            or LABEL_NUMBER, if only that is possible for all of them.

    Raises:
        DataError: there is no picture in a folder, or a label is missing.
    """
    files: list[Path] = []
    skipped: list[Path] = []
    classes: dict[Path, int] = {}
    for path in named:
        if not path.is_dir():
            files.append(path)
            continue
        before = len(files)
        for entry in sorted(path.iterdir()):
            is_class = entry.is_dir() and re.fullmatch("[0-9]", entry.name)
            for file in sorted(entry.iterdir()) if is_class else [entry]:
                if file.name.startswith("."):
                    continue
                if file.is_file() and is_picture(file):
                    files.append(file)
                    if is_class:
                        classes[file] = int(entry.name)
                else:
                    skipped.append(file)
        if len(files) == before:
            raise DataError(
                f"{path}: no picture in this folder. Expected pictures, or the folders 0 to 9 with pictures. Name the "
                "folder they are in."
            )
    if skipped:
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        log.warning("Skipped, since they are no pictures: %s%s", ", ".join(map(str, skipped[:5])), more)
    return Pictures(files, _find_labels(files, classes) if labelled else None)


def _find_labels(files: Sequence[Path], classes: dict[Path, int]) -> np.ndarray:
    """Return the labels that class folders or the names of files tell, (N,) int64."""
    named = [file for file in files if file not in classes]
    for pattern in (r".*_([0-9])", r"([0-9])_.*"):  # NUMBER_LABEL, LABEL_NUMBER
        matches = {file: re.fullmatch(pattern, file.stem) for file in named}
        labels = classes | {file: int(match[1]) for file, match in matches.items() if match}
        if all(matches.values()):
            return np.array([labels[file] for file in files], np.int64)
    wrong = next(file for file in named if not re.fullmatch(r".*_([0-9])", file.stem))
    raise DataError(
        f"{wrong}: no label in its name. Expected NUMBER_LABEL or LABEL_NUMBER, as in 0012_7.png, with a label from 0 "
        "to 9, or class folders 0 to 9. Rename it, or leave --labelled out."
    )


def read_files(files: Sequence[Path], reader: Reader, *, single: bool) -> list[list[Page]]:
    """Read the digits of image files.

    Args:
        files: the pictures.
        reader: reads their digits.
        single: whether each picture holds exactly one digit.

    Returns:
        the pages of each file.

    Raises:
        DataError: a file is not a picture that can be read, or it is too small for a page.
    """
    if not single:
        return [reader.read_pages(_of_pages(file)) for file in files]
    counts = []

    def load_all() -> Iterator[Photo]:
        for file in files:
            count = 0
            for photo in load_photos(file):
                count += 1
                yield photo
            counts.append(count)

    pages = iter(reader.read_singles(load_all()))
    return [[next(pages) for _ in range(count)] for count in counts]


def _of_pages(file: Path) -> Iterator[Photo]:
    for photo in load_photos(file):
        if max(photo.size) <= 32:
            raise DataError(
                f"{file}: {photo.size[0]} × {photo.size[1]} pixels, too small for a page. Expected a larger picture. "
                "Add --single if each picture holds one digit."
            )
        yield photo


def describe(file: str, page: Page) -> dict[str, Any]:
    """Return the JSON object of one page: its file, its text by rows, and all that was found and left out."""
    return {
        "file": file,
        "text": page.text,
        "digits": [
            {
                "box": list(digit.box),
                "digit": digit.digit,
                "sure": digit.sure,
                "probabilities": [round(float(p), 6) for p in digit.probabilities],
            }
            for digit in page.digits
        ],
        "left_out": [{"box": list(part.box), "why": part.why} for part in page.left_out],
        "turned": page.turned,
        "too_small": page.too_small,
    }


def to_lines(page: Page) -> list[str]:
    """Return the rows of a page as text, then in brackets how it was turned and what was left out."""
    lines = page.text or ["(no digits found)"]
    if page.turned:
        lines.append(f"(turned clockwise by {page.turned}°)")
    if page.too_small:
        lines.append("(the digits are too small to be sure of any: take the picture from closer, or only a part)")
    if page.left_out:
        counts = Counter(part.why for part in page.left_out)
        kinds = ", ".join(f"{why}{f' ({count} times)' if count > 1 else ''}" for why, count in counts.most_common())
        lines.append(f"(left out: {kinds}; --overlay shows where)")
    return lines


def tabulate(pages: Sequence[Page], labels: np.ndarray) -> str:
    """Return accuracy and confusion matrix of pictures with one digit each, for a terminal."""
    # A picture in which nothing was found counts as misread.
    read = np.array([page.digits[0].digit if page.digits else -1 for page in pages])
    sure = np.array([bool(page.digits) and page.digits[0].sure for page in pages])
    right = read == labels
    lines = [f"{right.mean():.2%} right: {right.sum():,} of {len(labels):,} digits"]
    if sure.any():
        lines.append(f"{sure.mean():.2%} read for sure, {right[sure].mean():.2%} of them right")
    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (labels[read >= 0], read[read >= 0]), 1)
    lines += ["", "is  read as" + "".join(f"{digit:6}" for digit in range(CLASSES))]
    for digit, row in enumerate(counts):
        lines.append(f"{digit:2}         " + "".join(f"{count or '·':>6}" for count in row))
    return "\n".join(lines)


def plot_mistakes(pages: Sequence[Page], labels: np.ndarray) -> Figure:
    """Draw the worst mistakes in pictures with one digit each, as the network saw them."""
    from kaggle_digits.analysis.plots import plot_worst

    read = [(page.digits[0], label) for page, label in zip(pages, labels, strict=True) if page.digits]
    return plot_worst(
        np.array([digit.pixels for digit, _ in read]).reshape(-1, PIXELS),
        np.array([digit.probabilities for digit, _ in read]).reshape(-1, CLASSES),
        np.array([label for _, label in read], np.int64),
    )


def draw_overlay(file: Path, page: Page, *, explain: Callable[[Digit], np.ndarray] | None = None) -> Image.Image:
    """Draw what was read on a picture: sure digits in green, others in orange, what was left out in grey.

    What was taken for ink of digits is tinted.

    Args:
        file: the picture.
        page: what was read on it.
        explain: returns which parts of a digit speak for its reading, as ``Reader.explain`` does. They are drawn in
            orange, and those that speak against it in blue.
    """
    (photo,) = load_photos(file)
    image = Image.fromarray(np.rint(255 * photo.picture).astype(np.uint8)).convert("RGB").resize(photo.size)
    size = max(12, max(image.size) // 45)
    font, small = ImageFont.load_default(size), ImageFont.load_default(max(10, size // 2))
    canvas = ImageDraw.Draw(image)
    line, margin = max(1, size // 8), size // 4
    if page.ink is not None:  # what was taken for ink of digits
        image.paste("#b03a96", mask=Image.fromarray((0.4 * page.ink).astype(np.uint8)).resize(image.size))
    for part in page.left_out:
        canvas.rectangle(part.box, outline="#888888", width=max(1, line // 2))
        canvas.text((part.box[0], part.box[3]), part.why, fill="#888888", font=small, anchor="la")
    if explain:
        for digit in page.digits:
            _draw_reasons(image, digit, explain(digit), turned=page.turned)
    for digit in page.digits:
        colour, text = ("#0a8a3a", f"{digit.digit}") if digit.sure else ("#d26900", f"{digit.digit}{UNSURE}")
        left, top, right, bottom = digit.box
        canvas.rectangle((left - margin, top - margin, right + margin, bottom + margin), outline=colour, width=line)
        canvas.text((left - margin, top - margin), text, fill=colour, font=font, anchor="lb")
    return image


def _draw_reasons(image: Image.Image, digit: Digit, contributions: np.ndarray, *, turned: int) -> None:
    """Colour the parts of a digit that speak for its reading (orange) or against it (blue)."""
    left, top, right, bottom = ink_box(digit.pixels.reshape(contributions.shape) > 0)
    # The page was turned clockwise to be read, so the map is turned back.
    part = np.rot90(contributions[top:bottom, left:right], turned // 90)
    left, top, right, bottom = digit.box
    strength = np.abs(part) / max(0.05, float(np.abs(contributions).max()))
    colours = np.where((part > 0)[..., None], (213, 94, 0), (0, 114, 178))
    size = (max(1, right - left), max(1, bottom - top))
    layers = (Image.fromarray(layer.astype(np.uint8)) for layer in (colours, np.rint(200 * strength)))
    colour, mask = (layer.resize(size, Image.Resampling.BICUBIC) for layer in layers)
    image.paste(colour, (left, top), mask)
