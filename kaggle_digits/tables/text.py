"""Read a table of digits from a text file of any form.

A CSV file goes from bytes through ``form.sniff`` (encoding, separator, header) and pandas to numbers, and then through
``columns.find_columns`` (which columns are pixels, which is the label, which mean nothing) to values as Kaggle ships
them. ``Rows.notes`` lists the differences from Kaggle's own form. A table that can be understood in two ways, or in
none, is refused. ``mnist`` has tables in other forms, and ``data`` chooses one by the name of the file.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kaggle_digits.digits import CLASSES, PIXELS
from kaggle_digits.errors import DataError
from kaggle_digits.files import BOUNDED, BROKEN
from kaggle_digits.tables import Rows, Table
from kaggle_digits.tables.columns import Columns, find_columns, wrong_width
from kaggle_digits.tables.form import SPACES, Form, as_values, sniff, split_line, wrong_length
from kaggle_digits.tables.sample import read_upright

if TYPE_CHECKING:  # importing NumPy costs 0.1 s, and `check` does not need it
    from concurrent.futures import Future

    import numpy as np

BLOCK = 1 << 24
"""Size of the blocks that pandas parses, in bytes. Smaller ones take longer, larger ones more memory."""

LONGEST_LINE = 2**20
"""Maximum length of a line, in bytes. A row of 784 fractions with all their decimals takes a fortieth of it."""

MOST_ROWS = 2**20
"""Maximum number of rows in a table. The largest set of handwritten characters in use, EMNIST, has 814,255."""


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
            with ExitStack() as opened:
                stream: Any
                if self.member:
                    archive = opened.enter_context(zipfile.ZipFile(self.path))
                    if archive.getinfo(self.member).compress_type not in BOUNDED:
                        raise zipfile.BadZipFile("it is packed in an unusual way")
                    stream = opened.enter_context(archive.open(self.member))
                else:
                    stream = opened.enter_context(self.path.open("rb"))
                # Unpack gzip, bzip2 or xz, whatever the file is called.
                for mark, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open)):
                    if stream.peek(6).startswith(mark):
                        stream = io.BufferedReader(opened.enter_context(opener(stream)))
                        break
                yield stream
        except BROKEN as error:
            raise DataError(
                f"{self}: cannot be read ({error or type(error).__name__}). Expected a whole file; this one is "
                "damaged, cut short or not readable. Download it again."
            ) from error


def check_rows(name: object, rows: int) -> None:
    """Raise a DataError if a table is absurdly long, before memory is taken for it."""
    if rows > MOST_ROWS:
        raise DataError(f"{name}: more than {MOST_ROWS:,} rows. Expected a smaller table. Split the file.")


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
        """Find out from its beginning how the file is written."""
        with self.file.open() as stream:
            form = sniff(stream.read(1 << 20), str(self.file))
        if form.width > 4 * PIXELS:  # pandas would take minutes for them
            raise wrong_width(str(self), form.width)
        return form

    def count(self) -> int:
        """Count the lines after the header that are not blank."""
        form = self.form()
        lines = trailing = 0
        with self.file.open() as stream:
            for block in _blocks(stream, form, str(self)):
                filled, blank = _without_blank_end(block, form)
                trailing = blank if filled else trailing + blank
                lines += block.count(form.newline.encode())
        return lines - trailing - form.head_lines

    def read(self, kind: str, *, beside: Table | None = None) -> Rows:
        """Read the whole table, its images upright."""
        return read_upright(self, kind, beside)

    def load(self, kind: str) -> Rows:
        """Read the whole table, as it is."""
        form = self.form()
        values, notes = _parse(self.file, form)
        form = replace(form, notes=(*form.notes, *notes))
        if not len(values):
            raise DataError(
                f"{self}: a header and no rows. Expected one row per image. Download it again, or check how it was "
                "made."
            )
        return _as_kaggle(self.file, form, values, find_columns(form, values, kind, str(self)))


def _blocks(stream: IO[bytes], form: Form, name: str) -> Iterator[bytes]:
    """Yield the file as UTF-8, in blocks of whole lines."""
    newline = form.newline.encode()
    decode = None if form.encoding == "utf-8" else codecs.getincrementaldecoder(form.encoding)("replace").decode
    stream.read(form.skip)
    rest, first_row = b"", form.first_row
    while block := stream.read(BLOCK):
        block = decode(block).encode() if decode else block
        lines, end, rest = (rest + (as_values(block) if form.one_text else block)).rpartition(newline)
        if end:
            if first_row:
                lines = first_row.encode() + (lines + end)[(lines + end).index(newline) : -len(end)]
                first_row = None
            yield lines + end
        if len(rest) > LONGEST_LINE:
            raise DataError(
                f"{name}: a line of more than {LONGEST_LINE:,} bytes. Expected one image in each line. Download it "
                "again, or check how it was made."
            )
    if rest:
        yield (first_row.encode() if first_row else rest) + newline


def _parse(file: File, form: Form) -> tuple[np.ndarray, list[str]]:
    """Read all rows as numbers, (N, width) uint8 or float32, without blank lines at the end.

    Missing values and those that are not numbers become NaN. Notes on differences from Kaggle's form are also returned.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    parsed: list[np.ndarray] = []
    pending: deque[Future[np.ndarray]] = deque()
    rows, blank, skip = 0, 0, form.head_lines
    newline = form.newline.encode()
    # pandas releases Python's lock for most of its work, so two threads parse almost twice as fast.
    with file.open() as stream, ThreadPoolExecutor(2) as pool:
        for block in _blocks(stream, form, str(file)):
            for _ in range(skip):
                block = block.partition(newline)[2]
            skip = 0
            filled, blank_end = _without_blank_end(block, form)
            if filled:
                if blank:
                    raise _blank_line(file, form, rows)
                lines = filled.count(newline)
                if lines * form.width > len(filled):  # too many for whole rows, and pandas would fill them up
                    _check_lines(filled, file, form, rows)
                check_rows(file, (rows + lines) * form.width // PIXELS)
                pending.append(pool.submit(_parse_block, filled, file, form, rows))
                rows += lines
            blank += blank_end
            if len(pending) == 2:
                parsed.append(pending.popleft().result())
        parsed += [block.result() for block in pending]
    notes = ["blank lines at the end left out"] if blank else []
    values = np.concatenate([np.empty((0, form.width), np.uint8), *parsed])
    if values.dtype == np.uint8:
        return values, notes
    empty = np.isnan(values).all(axis=1)
    if empty.any():
        raise _blank_line(file, form, int(np.flatnonzero(empty)[0]))
    if not np.isnan(values).any() and values.max() <= 255 and (values == np.rint(values)).all():
        notes.append("whole numbers written as in 5.0")
    return values, notes


def _without_blank_end(block: bytes, form: Form) -> tuple[bytes, int]:
    """Cut off the lines without values at the end of a block, and count them."""
    separator = form.separator if form.separator != SPACES else ""
    newline = form.newline.encode()
    end = len(block.rstrip(f"{separator}{form.quote} \t\r\n".encode()))
    end = block.index(newline, end) + len(newline) if end else 0
    return block[:end], block.count(newline, end)


def _row(file: File, form: Form, row: int) -> str:
    """Return the beginning of a message about a row, counted from 0."""
    return f"{file}: row {row + 1} (line {row + 1 + form.head_lines})"


def _blank_line(file: File, form: Form, row: int) -> DataError:
    return DataError(f"{_row(file, form, row)} is blank. Expected one image per line. Remove the line.")


def _parse_block(block: bytes, file: File, form: Form, rows_before: int) -> np.ndarray:
    import numpy as np
    import pandas as pd

    first = block.partition(form.newline.encode())[0].decode("utf-8", "replace").rstrip("\r")
    if len(split_line(first, form.separator, form.quote)) != form.width:  # pandas would give all rows that width
        _check_lines(block, file, form, rows_before)
    try:
        frame = pd.read_csv(
            io.BytesIO(block),
            header=None,
            sep=form.separator,
            quotechar=form.quote,
            decimal=form.decimal,
            skipinitialspace=True,
            skip_blank_lines=False,
            keep_default_na=False,  # missing values are found below; finding them here takes a third longer
            low_memory=False,
        )
        if frame.shape[1] != form.width:
            raise ValueError(f"{frame.shape[1]} columns instead of {form.width}")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        _check_lines(block, file, form, rows_before)
        raise DataError(
            f"{file}: cannot be split into values ({str(error).strip()}). Expected numbers. A stray quotation mark "
            "does this; remove it."
        ) from error
    for column in frame.select_dtypes(exclude="number").columns:
        if frame[column].dtype == bool:  # as pandas.get_dummies writes a one-hot label
            frame[column] = frame[column].astype(np.uint8)
        else:  # words first, or pandas would count a single True as 1
            frame[column] = pd.to_numeric(frame[column].astype(str), errors="coerce").astype(float)
    # Column by column, which takes half of the time of frame.to_numpy().
    values = np.array([column.to_numpy() for _, column in frame.items()])
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 255:
        return np.ascontiguousarray(values.astype(np.uint8).T)
    with np.errstate(over="ignore"):  # it becomes infinite, and is refused
        values = np.ascontiguousarray(values.astype(np.float32).T)
    missing = np.isnan(values)
    if (missing[:, -1] & ~missing.all(axis=1)).any():  # a row that ends early, or an empty last value
        _check_lines(block, file, form, rows_before)
    return values


def _check_lines(block: bytes, file: File, form: Form, rows_before: int) -> None:
    """Raise a DataError at the first line that is blank, or has another number of values than the first row."""
    lines = re.finditer(f"([^{form.newline}]*){form.newline}".encode(), block)
    for row, match in enumerate(lines, start=rows_before):
        line = match[1].decode("utf-8", "replace")
        if not line.strip():
            raise _blank_line(file, form, row)
        if line.count(form.quote) % 2:
            raise DataError(f"{_row(file, form, row)} has a stray quotation mark. Remove it.")
        width = len(split_line(line.rstrip("\r"), form.separator, form.quote))
        if width != form.width:
            raise wrong_length(str(file), form, row + 1, width, form.width)


def _as_kaggle(file: File, form: Form, values: np.ndarray, columns: Columns) -> Rows:
    """Turn values into Kaggle's: whole numbers from 0 to 255, bright ink, labels from 0 to 9."""
    import numpy as np

    def fault(wrong: np.ndarray, numbers: Sequence[int], expected: str) -> DataError:
        row, index = np.argwhere(wrong)[0]
        column = numbers[index]
        cell = _cell(file, form, int(row), column)
        shown = repr(cell[:40]) if cell.strip() else "no value"
        name = form.names[column] if form.names and column < len(form.names) else f"column {column + 1}"
        return DataError(
            f"{_row(file, form, row)} has {shown} as {name}. Expected {expected}. Correct or remove the row."
        )

    digits = values[:, columns.one_hot].argmax(axis=1).astype(np.int64) if columns.one_hot else None
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
        wrong = ~((pixels >= 0) & (pixels <= 255))  # also values that are not numbers
        fractions, above = pixels != np.rint(pixels), pixels > 1
        if not wrong.any() and fractions.any():
            if above.sum() > fractions.sum():
                wrong = fractions
            elif above.any():
                raise fault(above, columns.pixels, "a fraction from 0 to 1, as in most of the table")
            else:
                pixels = pixels * np.float32(255)
                notes.append("fractions from 0 to 1 taken times 255")
        if wrong.any():
            raise fault(wrong, columns.pixels, "a whole number from 0 to 255")
        pixels = np.rint(pixels).astype(np.uint8)
    if pixels.max() == 1:
        pixels = pixels * np.uint8(255)
        notes.append("0 and 1 taken as black and white")
    bright = (pixels >= 224).mean(axis=1) > 0.5  # no image of train.csv has that many bright pixels
    if bright.all():
        pixels = 255 - pixels
        notes.append("dark ink on white inverted")
    elif bright.any():
        odd = bright if bright.mean() < 0.5 else ~bright
        paper, usual = ("white", "black") if odd is bright else ("black", "white")
        raise DataError(
            f"{_row(file, form, int(np.flatnonzero(odd)[0]))} is an image on {paper}, and {len(odd) - odd.sum()} "
            f"others are on {usual}. Expected one of the two in the whole table. Invert the one kind."
        )
    return Rows(np.ascontiguousarray(pixels), digits, tuple(notes))


def _cell(file: File, form: Form, row: int, column: int) -> str:
    """Return the text in a cell."""
    with file.open() as stream:
        first = -form.head_lines  # the row of the block's first line
        for block in _blocks(stream, form, str(file)):
            lines = block.split(form.newline.encode())[:-1]
            if first + len(lines) > row:
                line = lines[row - first].decode("utf-8", "replace").rstrip("\r")
                return dict(enumerate(split_line(line, form.separator, form.quote))).get(column, "")
            first += len(lines)
    return ""
