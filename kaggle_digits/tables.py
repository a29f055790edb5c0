"""Read a table of digits in whatever form people have it.

The way of a CSV file: bytes → ``sniff`` (encoding, separator, header) → pandas → numbers → ``find_columns`` (which are
pixels, which is the label, which mean nothing) → ``as_kaggle`` (values as Kaggle ships them). MNIST's own IDX files and
Keras' ``mnist.npz`` skip the first steps. Whatever is understood differently from Kaggle's own form is said in
``Rows.notes``. A table that can be understood in two ways, or in none, is refused.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from kaggle_digits import CLASSES, PIXELS, SIDE
from kaggle_digits.errors import DataError

if TYPE_CHECKING:  # importing it costs 0.1 s, and `check` does not need it
    import numpy as np

BLOCK = 1 << 22
"""Bytes that pandas parses at once. More of them take more memory and no less time."""

HEAD = 1 << 20
"""Bytes from which the form of a file is told."""

BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""What reading a damaged or encrypted archive raises."""

LABELS = {"label", "labels", "class", "digit", "digits", "target", "y"}
"""Names of a label column, in small letters."""

INDEXES = {"", "index", "idx", "id", "ids", "row", "rowid", "rownames", "imageid", "no", "nr"}
"""Names of a column without meaning, in small letters, without what is neither letter nor digit."""

SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}
SPACES = r"\s+"
NUMBER = re.compile(r"[-+]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][-+]?[0-9]+)?")
EXPECTED = f"Expected a label and {PIXELS} pixels (28 × 28) in each row, or the pixels alone."

NEAR_WHITE = 224
"""From this value on, a pixel counts as white paper in an image with dark ink. In no image of train.csv half of the
pixels are that bright."""


@dataclass(frozen=True)
class File:
    """A file on disk, plain or gzipped, or a member of a zip.

    Args:
        path: the file on disk.
        member: the name inside the zip, or None.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """The name without folders."""
        return (self.member or self.path.name).rpartition("/")[2]

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the uncompressed bytes. A damaged archive becomes a DataError, also while it is read."""
        try:
            if self.member:
                with (
                    zipfile.ZipFile(self.path) as archive,
                    archive.open(self.member) as stream,
                    _unpacked(stream) as plain,
                ):
                    yield plain
            else:
                with self.path.open("rb") as stream, _unpacked(stream) as plain:
                    yield plain
        except BROKEN as error:
            raise DataError(
                f"{self}: cannot be read ({error or type(error).__name__}). Expected a whole file; this one is "
                "damaged, cut short or not readable. Download it again."
            ) from error


@contextmanager
def _unpacked(stream: Any) -> Iterator[IO[bytes]]:
    """Unpack gzip, bzip2 or xz, whatever the file is called."""
    start = stream.peek(6)
    for mark, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open)):
        if start.startswith(mark):
            with opener(stream) as plain:
                yield io.BufferedReader(plain)
            return
    yield stream


@dataclass(frozen=True)
class Rows:
    """What a table holds.

    Args:
        pixels: (N, 784) uint8, 0–255, ink is bright.
        digits: (N,) int64, 0–9; None if the table has no labels.
        notes: what was understood differently from Kaggle's own form, for people.
    """

    pixels: np.ndarray
    digits: np.ndarray | None
    notes: tuple[str, ...] = ()


class Table(Protocol):
    """A table of digits."""

    @property
    def is_kaggle(self) -> bool:
        """Whether it may be the competition's own file."""

    def read(self, kind: str) -> Rows:
        """Read the whole table, "train" or "test".

        Raises:
            DataError: it is damaged, malformed or ambiguous, or a training table has no labels.
        """

    def count(self) -> int:
        """Count the rows without parsing them.

        Raises:
            DataError: it is damaged, or not a table of digits.
        """


# MNIST's own files


@dataclass(frozen=True)
class IdxTable:
    """Images, and perhaps labels, in the files of MNIST's makers.

    Args:
        images: a file of 28 × 28 images.
        labels: a file of as many labels, or None.

    Source: LeCun, Cortes and Burges, THE MNIST DATABASE, "file formats".
    """

    images: File
    labels: File | None = None
    is_kaggle = False

    def __str__(self) -> str:
        return str(self.images)

    def read(self, kind: str) -> Rows:
        """Read the images and labels."""
        pixels = self._load(self.images, (SIDE, SIDE)).reshape(-1, PIXELS)
        digits = self._load(self.labels, ()).astype("int64") if self.labels else None
        if digits is not None and len(digits) != len(pixels):
            raise DataError(
                f"{self.labels}: {len(digits)} labels for {len(pixels)} images. Expected as many. Check both."
            )
        if kind == "train" and digits is None:
            raise DataError(f"{self.images}: no file of labels beside it. Expected one, as MNIST has it. Add it.")
        _check_labels(digits, self.labels)
        return Rows(pixels, digits, (f"MNIST's own files, {len(pixels):,} images",))

    def count(self) -> int:
        """Return the number of images that the file names."""
        with self.images.open() as stream:
            return self._sizes(stream, self.images, (SIDE, SIDE))[0]

    def _load(self, file: File, shape: tuple[int, ...]) -> np.ndarray:
        import numpy as np

        with file.open() as stream:
            sizes = self._sizes(stream, file, shape)
            values = np.frombuffer(stream.read(), np.uint8)
        if len(values) != np.prod(sizes):
            raise DataError(
                f"{file}: {len(values):,} bytes of data. Expected {np.prod(sizes):,}, as its head says. Download it "
                "again."
            )
        return values.reshape(sizes)

    def _sizes(self, stream: IO[bytes], file: File, shape: tuple[int, ...]) -> tuple[int, ...]:
        head = stream.read(4 + 4 * (1 + len(shape)))
        sizes = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, len(head), 4))
        if head[:4] != bytes([0, 0, 8, 1 + len(shape)]) or sizes[1:] != shape:
            what = f"{len(shape) + 1}-dimensional bytes" + (f" of {SIDE} × {SIDE}" if shape else "")
            raise DataError(f"{file}: not an IDX file of {what}. Expected MNIST's own file. Download it again.")
        return sizes


@dataclass(frozen=True)
class KerasTable:
    """One half of the file that ``keras.datasets.mnist`` downloads.

    Args:
        file: ``mnist.npz``.
        part: "train" or "test".
    """

    file: File
    part: str
    is_kaggle = False

    def __str__(self) -> str:
        return str(self.file)

    def read(self, kind: str) -> Rows:  # noqa: ARG002
        """Read the images and labels."""
        import numpy as np

        try:
            with self.file.open() as stream, np.load(io.BytesIO(stream.read()), allow_pickle=False) as arrays:
                images, digits = arrays[f"x_{self.part}"], arrays[f"y_{self.part}"].astype(np.int64)
        except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(
                f"{self.file}: not readable as mnist.npz ({error}). Expected the arrays x_train, y_train, x_test and "
                "y_test. Download it again."
            ) from error
        if images.shape != (len(digits), SIDE, SIDE) or images.dtype != np.uint8:
            raise DataError(
                f"{self.file}: x_{self.part} is {images.dtype} {images.shape}. Expected uint8 "
                f"({len(digits)}, {SIDE}, {SIDE}). Download it again."
            )
        _check_labels(digits, self.file)
        return Rows(images.reshape(-1, PIXELS), digits, (f"Keras' mnist.npz, {len(images):,} images",))

    def count(self) -> int:
        """Return the number of images."""
        return len(self.read(self.part).pixels)


def _check_labels(digits: np.ndarray | None, file: File | None) -> None:
    if digits is None or not len(digits) or (digits.min() >= 0 and digits.max() < CLASSES):
        return
    import numpy as np

    row = int(np.flatnonzero((digits < 0) | (digits >= CLASSES))[0])
    raise DataError(
        f"{file}: row {row + 1} has label {digits[row]}. Expected a digit from 0 to 9. Correct or remove the row."
    )


# Text


@dataclass(frozen=True)
class Form:
    """How a text file is written.

    Args:
        encoding: of its characters, as Python names it.
        skip: bytes of a mark in front.
        newline: what ends a line.
        separator: what stands between values.
        quote: what values may be quoted with.
        decimal: the decimal sign.
        names: of the columns; None if there is no header.
        head_lines: lines in front of the first row.
        width: values in the first row.
        notes: what is not as Kaggle has it.
    """

    encoding: str = "utf-8"
    skip: int = 0
    newline: str = "\n"
    separator: str = ","
    quote: str = '"'
    decimal: str = "."
    names: tuple[str, ...] | None = None
    head_lines: int = 1
    width: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CsvTable:
    """A text file with one image in each line.

    Args:
        file: the file, plain or compressed.
        is_kaggle: whether it may be the competition's own file, by its name.
    """

    file: File
    is_kaggle: bool = True

    def __str__(self) -> str:
        return str(self.file)

    def form(self) -> Form:
        """Tell how the file is written from its beginning."""
        with self.file.open() as stream:
            return sniff(stream.read(HEAD), str(self.file))

    def count(self) -> int:
        """Count the lines with something in them behind the header."""
        form = self.form()
        blank = f"{form.separator if form.separator != SPACES else ''}{form.quote} \t\r\n".encode()
        newline = form.newline.encode()
        lines = trailing = 0
        with self.file.open() as stream:
            for block in _blocks(stream, form):
                ends = block.count(newline)
                filled = block.rstrip(blank)
                trailing = block[len(filled) :].count(newline) - 1 if filled else trailing + ends
                lines += ends
        return lines - trailing - form.head_lines

    def read(self, kind: str) -> Rows:
        """Read the whole table."""
        form = self.form()
        values, notes = _parse(self.file, form)
        form = replace(form, notes=(*form.notes, *notes))
        if not len(values):
            raise DataError(
                f"{self}: a header and no rows. Expected one row per image. Download it again, or check how it was "
                "made."
            )
        columns = find_columns(form, values, kind, str(self))
        return _as_kaggle(self.file, form, values, columns)


def sniff(head: bytes, name: str) -> Form:
    """Tell how a text file is written from its beginning.

    Args:
        head: its first bytes, some lines at least.
        name: of the file, for messages.

    Raises:
        DataError: it is empty, or no table of digits.
    """
    form = _sniff_encoding(head)
    if b"\0" in head and form.encoding in ("utf-8", "cp1252"):
        raise DataError(f"{name}: not a text file. {EXPECTED} Pass the competition's own file.")
    text = head[form.skip :].decode(form.encoding, "replace")
    if not text.strip():
        raise DataError(
            f"{name}: the file is empty. Expected a header and one row per image. Download it again, or check how it "
            "was made."
        )
    newline = "\n" if "\n" in text else "\r"
    lines = text.split(newline, 10)
    skipped = 0
    if found := re.fullmatch(r"sep=(.)\s*", lines[0]):  # a spreadsheet's hint to itself
        lines, skipped = lines[1:], 1
        preferred = found[1]
    else:
        preferred = ""
    first = lines[0].rstrip("\r").removeprefix("#")
    quote = "'" if first.lstrip().startswith("'") else '"'
    separator = preferred or _find_separator(first)
    fields = _split(first, separator, quote)
    if len(fields) < 2:
        raise DataError(
            f"{name}: not a table: its first line has no columns. {EXPECTED} Pass the competition's own file."
        )
    notes = list(form.notes)
    if separator != ",":
        notes.append(f"{SEPARATORS.get(separator, 'spaces')} between values")
    names = tuple(field.strip() for field in fields) if _is_header(fields) else None
    following = [line.rstrip("\r") for line in lines[bool(names) : -1] or lines[bool(names) :] if line.strip()]
    rows = [_split(line, separator, quote) for line in following]
    row = rows[0] if rows else []
    widths = {len(each) for each in rows}
    # What the rows agree on counts more than the header: R names the rows and not their column.
    width = widths.pop() if len(widths) == 1 else len(fields)
    decimal = "." if separator == "," or not any(re.fullmatch(r"\s*[0-9]+,[0-9]+\s*", value) for value in row) else ","
    if decimal == ",":
        notes.append("decimal commas")
    if any(line.count(quote) >= PIXELS for line in following):
        notes.append("quoted values")
    if names is None:
        notes.append("no header")
    return replace(
        form,
        newline=newline,
        separator=separator,
        quote=quote,
        decimal=decimal,
        names=names,
        head_lines=skipped + (names is not None),
        width=width,
        notes=tuple(notes),
    )


def _sniff_encoding(head: bytes) -> Form:
    for mark, encoding, note in (
        (codecs.BOM_UTF8, "utf-8", None),
        (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
    ):
        if head.startswith(mark):
            return Form(encoding=encoding, skip=len(mark), notes=(note,) if note else ())
    for encoding, zeros in (("utf-16-le", head[1:1000:2]), ("utf-16-be", head[:1000:2])):
        if zeros.count(0) > 0.9 * len(zeros):
            return Form(encoding=encoding, notes=("UTF-16",))
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return Form(encoding="cp1252")
    return Form()


def _find_separator(line: str) -> str:
    """Return the separator that makes of a line as many fields as a row of pixels has, or else most fields."""
    counts = {separator: line.count(separator) for separator in SEPARATORS}
    for separator, count in counts.items():
        if count >= PIXELS - 1:
            return separator
    if len(line.split()) >= PIXELS:
        return SPACES
    return max(counts, key=lambda separator: counts[separator])


def _split(line: str, separator: str, quote: str) -> list[str]:
    if separator == SPACES:
        return [field.strip(quote) for field in line.split()]
    try:
        return next(csv.reader([line], delimiter=separator, quotechar=quote, skipinitialspace=True), [])
    except csv.Error:
        return []


def _is_header(fields: Sequence[str]) -> bool:
    """Whether the first line names columns. Numbers may be names, too, if they count up to what no pixel can be."""
    if not all(NUMBER.fullmatch(field.strip()) or not field.strip() for field in fields):
        return True
    numbers = [field.strip() for field in fields if field.strip()]
    return any(numbers[-PIXELS:] == [str(number) for number in range(start, start + PIXELS)] for start in (0, 1))


def _blocks(stream: IO[bytes], form: Form) -> Iterator[bytes]:
    """Yield the file as UTF-8, in blocks of whole lines."""
    newline = form.newline.encode()
    decode = None if form.encoding == "utf-8" else codecs.getincrementaldecoder(form.encoding)("replace").decode
    stream.read(form.skip)
    rest = b""
    while block := stream.read(BLOCK):
        lines, end, rest = (rest + (decode(block).encode() if decode else block)).rpartition(newline)
        if end:
            yield lines + end
    if rest:
        yield rest + newline


def _parse(file: File, form: Form) -> tuple[np.ndarray, list[str]]:
    """Read all rows as numbers, (N, width) uint8 or float32, without blank lines at the end.

    What is no number, and what is missing, is NaN. Also returned are notes on what is not as Kaggle has it.
    """
    import numpy as np

    parsed: list[np.ndarray] = []
    rows, skip = 0, form.head_lines
    with file.open() as stream:
        for block in _blocks(stream, form):
            for _ in range(skip):
                block = block.partition(form.newline.encode())[2]
            skip = 0
            if block:
                parsed.append(_parse_block(block, file, form, rows))
                rows += len(parsed[-1])
    if not parsed:
        return np.empty((0, form.width), np.uint8), []
    wide = np.float32 if any(part.dtype == np.float32 for part in parsed) else np.uint8
    values = np.concatenate([part.astype(wide, copy=False) for part in parsed])
    if wide is np.uint8:
        return values, []
    blank = np.isnan(values).all(axis=1)
    filled = np.flatnonzero(~blank)
    end = filled[-1] + 1 if filled.size else 0
    if blank[:end].any():
        row = int(np.flatnonzero(blank)[0])
        raise DataError(
            f"{file}: row {row + 1} (line {row + 1 + form.head_lines}) is blank. Expected one image per line. Remove "
            "the line."
        )
    if end < len(values):
        return values[:end], ["blank lines at the end left out"]
    has_decimals = not np.isnan(values).any() and values.max() <= 255 and (values == np.rint(values)).all()
    return values, ["whole numbers written as in 5.0"] if has_decimals else []


def _parse_block(block: bytes, file: File, form: Form, rows_before: int) -> np.ndarray:
    import numpy as np
    import pandas as pd

    try:
        frame = pd.read_csv(
            io.BytesIO(block),
            header=None,
            sep=form.separator,
            quotechar=form.quote,
            decimal=form.decimal,
            skipinitialspace=True,
            skip_blank_lines=False,
            keep_default_na=False,
            na_values=[""],
            low_memory=False,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        _check_widths(block, file, form, rows_before)
        raise DataError(
            f"{file}: cannot be split into values ({str(error).strip()}). Expected numbers. A stray quotation mark "
            "does this; remove it."
        ) from error
    if frame.shape[1] != form.width:
        _check_widths(block, file, form, rows_before)
    for column in frame.select_dtypes(exclude="number").columns:
        words = frame[column].astype(str)  # or pandas would count True as 1
        frame[column] = pd.to_numeric(words, errors="coerce").astype(float)
    values = frame.to_numpy()
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8)
    with np.errstate(over="ignore"):  # it becomes infinite, and is refused
        values = values.astype(np.float32)
    missing = np.isnan(values)
    if (missing[:, -1] & ~missing.all(axis=1)).any():  # a row that ends early, or an empty last value
        _check_widths(block, file, form, rows_before)
    return values


def _check_widths(block: bytes, file: File, form: Form, rows_before: int) -> None:
    """Raise a DataError at the first line whose number of values is not that of the first row."""
    for row, line in enumerate(block.decode("utf-8", "replace").split(form.newline), start=rows_before + 1):
        if line.count(form.quote) % 2:
            raise DataError(f"{file}: row {row} (line {row + form.head_lines}) has a stray quotation mark. Remove it.")
        width = len(_split(line.rstrip("\r"), form.separator, form.quote))
        if line.strip() and width != form.width:
            raise _wrong_length(str(file), form, row, width, form.width)


def _wrong_length(name: str, form: Form, row: int, width: int, expected: int) -> DataError:
    return DataError(
        f"{name}: row {row} (line {row + form.head_lines}) is too {'short' if width < expected else 'long'}: {width} "
        f"values. Expected {expected}, as in the {'header' if form.names else 'first row'}. Correct or remove the row, "
        "or download the file again."
    )


# Meaning


@dataclass(frozen=True)
class Columns:
    """What the columns of a table mean.

    Args:
        pixels: the 784 columns of the pixels, row by row of an image.
        label: the column of the label, or None.
        notes: what is not as Kaggle has it.
    """

    pixels: list[int]
    label: int | None
    notes: tuple[str, ...]


def find_columns(form: Form, values: np.ndarray, kind: str, name: str) -> Columns:
    """Tell the columns of a table by their names and by what is in them.

    Args:
        form: how the file is written.
        values: (N, width), what is in it.
        kind: "train", which must have labels, or "test".
        name: of the file, for messages.

    Raises:
        DataError: they are not those of images of 28 × 28, or can be understood in two ways.
    """
    width, names, notes = values.shape[1], form.names, []
    columns = list(range(width))
    # A separator at the end of every line makes an empty column.
    while len(columns) > PIXELS and _is_empty(values[:, columns[-1]]) and not (names and _named(names, columns[-1])):
        columns.pop()
        notes.append("a separator at the end of every line left out")
    if names is not None and len(names) < len(columns):  # R names the rows and not their column
        if len(names) != len(columns) - 1 or not (_counts_up(values[:, 0]) or _is_empty(values[:, 0])):
            raise _wrong_length(name, form, 1, len(columns), len(names))
        names = ("", *names)
    found = _columns_without_names(columns, values, kind, name) if names is None else None
    found = found or _columns_by_names(columns, names or (), values, kind, name)
    return replace(found, notes=(*notes, *found.notes))


def _is_empty(values: np.ndarray) -> bool:
    import numpy as np

    return values.dtype.kind == "f" and bool(np.isnan(values).all())


def _named(names: Sequence[str], column: int) -> bool:
    return column < len(names) and bool(names[column])


def _wrong_width(name: str, width: int, what: str | None = None) -> DataError:
    sides = [round(pixels**0.5) for pixels in (width, width - 1) if round(pixels**0.5) ** 2 == pixels]
    like = f", like images of {sides[0]} × {sides[0]}" if sides and sides[0] > 1 and sides[0] != SIDE else ""
    return DataError(
        f"{name}: {what or f'{width:,} columns'}{like}. {EXPECTED} Bring the images to 28 × 28, or pass the "
        "competition's own file."
    )


def _holds_digits(values: np.ndarray) -> bool:
    """Whether a column can be one of labels."""
    import numpy as np

    return bool(np.isin(values, np.arange(CLASSES)).all())


def _counts_up(values: np.ndarray) -> bool:
    """Whether a column numbers the rows, from 0 or from 1."""
    import numpy as np

    return values[0] in (0, 1) and bool((np.diff(values.astype(np.float64)) == 1).all())


def _columns_without_names(columns: list[int], values: np.ndarray, kind: str, name: str) -> Columns:
    """Tell columns by what is in them: an index counts the rows, a label is one of ten digits."""
    notes: list[str] = []
    extra = len(columns) - PIXELS
    if extra not in (0, 1, 2):
        raise _wrong_width(name, len(columns))
    first, last = values[:, columns[0]], values[:, columns[-1]]
    can_be_index = _counts_up(first)
    if extra == 2:
        if not can_be_index:
            raise _wrong_width(name, len(columns), f"{len(columns)} columns, and the first does not number the rows")
        columns, notes = columns[1:], ["a first column that numbers the rows left out"]
        first, can_be_index, extra = values[:, columns[0]], False, 1
    if extra == 0:
        if kind == "train":
            raise DataError(
                f"{name}: {len(columns)} columns without a header. {EXPECTED} A training table needs the label."
            )
        return Columns(columns, None, tuple(notes))
    # The corners of an image are paper: a column of zeros is a pixel, if the other is not all zeros.
    ways = {
        "label first": _holds_digits(first),
        "label last": _holds_digits(last),
        "a first column that numbers the rows": can_be_index and kind == "test",
    }
    if ways["label first"] and ways["label last"] and first.any() != last.any():
        ways["label first"], ways["label last"] = bool(first.any()), bool(last.any())
    if ways["a first column that numbers the rows"] and len(first) > CLASSES:
        ways["label last"] = False
    possible = [way for way, is_possible in ways.items() if is_possible]
    if not possible:
        raise _wrong_width(
            name, len(columns), f"{len(columns)} columns without a header, and no column of labels from 0 to 9"
        )
    if len(possible) > 1:
        raise DataError(
            f"{name}: {len(columns)} columns without a header can be understood in two ways: {' or '.join(possible)}. "
            "Expected one. Add a header, as in label,pixel0,pixel1,…"
        )
    if possible[0] == "label first":
        return Columns(columns[1:], columns[0], (*notes, "the label in the first column"))
    if possible[0] == "label last":
        return Columns(columns[:-1], columns[-1], (*notes, "the label in the last column"))
    return Columns(columns[1:], None, (*notes, "a first column that numbers the rows left out"))


def _columns_by_names(columns: list[int], names: Sequence[str], values: np.ndarray, kind: str, name: str) -> Columns:
    """Tell columns by their names, whatever the pixels are called."""
    notes: list[str] = []
    if found := _columns_of_plain_numbers(columns, names, values, kind, name):
        return found
    plain = {column: re.sub(r"[^a-z0-9]", "", names[column].lower().removeprefix("unnamed")) for column in columns}
    unnamed = {column for column in columns if re.fullmatch(r"\s*|unnamed.*", names[column].strip().lower())}
    labels = [column for column in columns if plain[column] in LABELS and column not in unnamed]
    numbered = _numbered(columns, names)
    others = [column for column in columns if column not in labels and column not in numbered]
    if len(numbered) not in (PIXELS,):  # the pixels have no numbers, or not only they have
        numbered = {}
        others = [column for column in columns if column not in labels]
    indexes = [column for column in others if column in unnamed or plain[column] in INDEXES]
    unknown = [column for column in others if column not in indexes]
    pixels = list(numbered)
    if not pixels and len(unknown) == PIXELS:
        pixels, unknown = unknown, []
        if len({names[column] for column in pixels}) < PIXELS:
            raise _unknown_columns(columns, names, labels, indexes, pixels, False, name)
        _check_order(pixels, names, name)
    if not pixels and len(labels) + len(unknown) == PIXELS and not indexes and kind == "test":
        pixels, labels, unknown = columns, [], []
    for column in list(unknown):
        if pixels and _counts_up(values[:, column]):
            unknown.remove(column)
            indexes.append(column)
    if pixels and not labels and len(unknown) == 1 and kind == "train" and _holds_digits(values[:, unknown[0]]):
        labels, unknown = unknown, []
    if len(labels) > 1:
        raise DataError(
            f"{name}: can be understood in two ways: the label is {' or '.join(repr(names[c]) for c in labels)}. "
            "Expected one column of labels. Remove or rename the other."
        )
    if not pixels or unknown:
        raise _unknown_columns(columns, names, labels, indexes, unknown, bool(pixels), name)
    if kind == "test" and labels and _is_empty(values[:, labels[0]]):
        notes.append(f"the empty column {names[labels[0]]!r} left out")
        labels = []
    if kind == "train" and not labels:
        raise DataError(
            f"{name}: {len(columns)} columns, and no label. {EXPECTED} This looks like test.csv; pass the training "
            "file."
        )
    label = labels[0] if labels else None
    if label is not None and names[label] != "label":
        notes.append(f"the label in the column {names[label]!r}")
    elif label is not None and kind == "test":
        notes.append("labels")
    if indexes:
        notes.append(
            f"the column{'s' if len(indexes) > 1 else ''} {', '.join(repr(names[c]) for c in indexes)} left out"
        )
    if [names[column] for column in pixels] != [f"pixel{number}" for number in range(PIXELS)]:
        notes.append(f"pixels in the columns {names[pixels[0]]!r} to {names[pixels[-1]]!r}")
    elif pixels != sorted(pixels):
        notes.append("pixels put in order")
    return Columns(pixels, label, tuple(notes))


def _columns_of_plain_numbers(
    columns: Sequence[int], names: Sequence[str], values: np.ndarray, kind: str, name: str
) -> Columns | None:
    """Tell columns whose names only count them, the label's included: 0 to 784, or V1 to V785."""
    counted = [column for column in columns if not re.fullmatch(r"\s*|unnamed.*", names[column].strip().lower())]
    words = {tuple(re.split(r"[0-9]+", names[column].strip().lower())) for column in counted}
    numbers = [int("".join(re.findall(r"[0-9]+", names[column]))[:9] or -1) for column in counted]
    if not (
        len(counted) in (PIXELS + 1, PIXELS + 2)
        and len(words) == 1
        and not any("p" in word for word in words.pop())  # pixels, and nothing else
        and numbers in (list(range(len(counted))), list(range(1, len(counted) + 1)))
    ):
        return None
    found = _columns_without_names(counted, values, kind, name)
    left_out = [names[column] for column in columns if column not in counted]
    return replace(found, notes=(*found.notes, *(f"the column {each!r} left out" for each in left_out)))


def _numbered(columns: Sequence[int], names: Sequence[str]) -> dict[int, int]:
    """Return the columns whose names count 784 pixels, in the order of the numbers: pixel0, px_1, 1x1, 0 …"""
    by_prefix: dict[tuple[str, ...], dict[int, tuple[int, ...]]] = {}
    for column in columns:
        numbers = tuple(map(int, re.findall(r"[0-9]+", names[column])))
        words = tuple(re.split(r"[0-9]+", names[column].strip().lower()))
        if 1 <= len(numbers) <= 2:
            by_prefix.setdefault(words, {})[column] = numbers
    for found in by_prefix.values():
        for start in (0, 1):
            single: dict[tuple[int, ...], int] = {(start + p,): p for p in range(PIXELS)}
            double: dict[tuple[int, ...], int] = {(start + p // SIDE, start + p % SIDE): p for p in range(PIXELS)}
            for places in (single, double):
                if len(found) == PIXELS and set(found.values()) == set(places):
                    order = {column: places[numbers] for column, numbers in found.items()}
                    in_file = [order[column] for column in found]
                    turned = [p % SIDE * SIDE + p // SIDE for p in range(PIXELS)]
                    if places is double and in_file == turned:
                        continue  # their order contradicts their names: see _check_order
                    return dict(sorted(order.items(), key=lambda item: item[1]))
    return {}


def _check_order(pixels: Sequence[int], names: Sequence[str], name: str) -> None:
    """Refuse names that say one order while the columns stand in another."""
    numbers = [tuple(map(int, re.findall(r"[0-9]+", names[column]))) for column in pixels]
    if len(set(map(len, numbers))) == 1 and len(numbers[0]) in (1, 2) and len(set(numbers)) == PIXELS:
        if numbers == sorted(numbers):
            return
        raise DataError(
            f"{name}: the pixels can be understood in two ways: in the order of the columns, "
            f"{names[pixels[0]]!r}, {names[pixels[1]]!r} and so on, or in that of the numbers in their names. "
            "Expected names that count along the rows of the image. Rename or reorder the columns."
        )


def _unknown_columns(
    columns: Sequence[int],
    names: Sequence[str],
    labels: Sequence[int],
    indexes: Sequence[int],
    unknown: Sequence[int],
    has_pixels: bool,
    name: str,
) -> DataError:
    if has_pixels:
        return DataError(
            f"{name}: {len(columns)} columns; unknown: {_some([names[c] for c in unknown])}. {EXPECTED} Remove what is "
            "neither, or name the label column label."
        )
    count = len(unknown)
    side = round(count**0.5)
    if count == side**2 and count != PIXELS:
        return _wrong_width(name, count, f"{count:,} pixels in a row")
    pixel_names = {f"pixel{number}" for number in range(PIXELS)}
    missing = [each for each in (f"pixel{number}" for number in range(PIXELS)) if each not in names]
    if count and len(missing) < PIXELS:
        doubled = sorted({names[c] for c in unknown if list(names).count(names[c]) > 1})
        strange = [names[c] for c in unknown if names[c] not in pixel_names]
        faults = [
            f"{title} {_some(found)}"
            for title, found in (("repeated:", doubled), ("missing:", missing), ("unknown:", strange))
            if found
        ]
        return DataError(
            f"{name}: {len(columns)} columns; {'; '.join(faults)}. {EXPECTED} Correct the header, or pass the "
            "competition's own file."
        )
    return _wrong_width(name, len(columns) - len(labels) - len(indexes), f"{len(columns):,} columns")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _as_kaggle(file: File, form: Form, values: np.ndarray, columns: Columns) -> Rows:
    """Turn values into Kaggle's: whole numbers from 0 to 255, bright ink, labels from 0 to 9."""
    import numpy as np

    def fault(wrong: np.ndarray, places: Sequence[int], expected: str) -> DataError:
        row, place = np.argwhere(wrong)[0]
        column = places[place]
        shown = _cell(file, form, int(row), column)
        where = form.names[column] if form.names and column < len(form.names) else f"column {column + 1}"
        return DataError(
            f"{file}: row {row + 1} (line {row + 1 + form.head_lines}) has "
            f"{repr(shown[:40]) if shown.strip() else 'no value'} as {where}. Expected {expected}. Correct or remove "
            "the row."
        )

    digits = None
    if columns.label is not None:
        labels = values[:, columns.label]
        wrong = ~np.isin(labels, np.arange(CLASSES))
        if wrong.any():
            raise fault(wrong[:, None], [columns.label], "a digit from 0 to 9")
        digits = labels.astype(np.int64)
    in_order = columns.pixels == list(range(columns.pixels[0], columns.pixels[0] + PIXELS))
    pixels = values[:, columns.pixels[0] : columns.pixels[0] + PIXELS] if in_order else values[:, columns.pixels]
    notes = [*form.notes, *columns.notes]
    if pixels.dtype != np.uint8:
        wrong = ~((pixels >= 0) & (pixels <= 255))  # also what is no number
        if wrong.any():
            raise fault(wrong, columns.pixels, "a whole number from 0 to 255")
        fractions = pixels != np.rint(pixels)
        if fractions.any():
            if pixels.max() > 1:
                if fractions.sum() < (pixels > 1).sum():
                    raise fault(fractions, columns.pixels, "a whole number from 0 to 255")
                raise fault(pixels > 1, columns.pixels, "a fraction from 0 to 1, as in most of the table")
            pixels = pixels * np.float32(255)
            notes.append("fractions from 0 to 1 taken times 255")
        pixels = np.rint(pixels).astype(np.uint8)
    if pixels.max() == 1:
        pixels = pixels * np.uint8(255)
        notes.append("0 and 1 taken as black and white")
    bright = (pixels >= NEAR_WHITE).mean(axis=1) > 0.5
    if bright.all():
        pixels = 255 - pixels
        notes.append("dark ink on white inverted")
    elif bright.any():
        odd = bright if bright.mean() < 0.5 else ~bright
        row = int(np.flatnonzero(odd)[0])
        one, others = ("white", "black") if odd is bright else ("black", "white")
        raise DataError(
            f"{file}: row {row + 1} (line {row + 1 + form.head_lines}) is an image on {one}, and "
            f"{len(odd) - odd.sum()} others are on {others}. Expected one of the two in the whole table. "
            "Invert the one kind."
        )
    return Rows(np.ascontiguousarray(pixels), digits, tuple(notes))


def _cell(file: File, form: Form, row: int, column: int) -> str:
    """Return what stands in a cell, as text."""
    with file.open() as stream:
        number = -form.head_lines
        for block in _blocks(stream, form):
            lines = block.split(form.newline.encode())[:-1]
            if number + len(lines) > row:
                fields = _split(lines[row - number].decode("utf-8", "replace").rstrip("\r"), form.separator, form.quote)
                return fields[column] if column < len(fields) else ""
            number += len(lines)
    return ""
