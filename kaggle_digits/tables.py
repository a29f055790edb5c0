"""Read a CSV table (plain, gzipped or inside a zip) into uint8, and refuse anything that would be misread.

Plain numbers are parsed in large blocks, which is fast. If a file holds anything else, a slow second pass finds the
line and the reason, or reads the file after all.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from kaggle_digits import PIXELS
from kaggle_digits.errors import DataError

if TYPE_CHECKING:  # importing NumPy costs 0.1 s, and `check` does not need it
    import numpy as np

PIXEL_COLUMNS = [f"pixel{i}" for i in range(PIXELS)]
COLUMNS = {"train": ["label", *PIXEL_COLUMNS], "test": PIXEL_COLUMNS}
COLUMNS_IN_WORDS = {
    "train": f"{PIXELS + 1} columns (label, pixel0 … pixel{PIXELS - 1})",
    "test": f"{PIXELS} columns (pixel0 … pixel{PIXELS - 1})",
}
OTHER = {"train": "test", "test": "train"}
WHOLE_NUMBER = re.compile(r" *[0-9]+(\.0*)? *")
BLOCK = 1 << 18
"""A file is parsed in blocks of this many bytes. A block and everything made from it fit into the processor's cache."""
BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""Reading a damaged or encrypted archive raises one of these."""


@dataclass(frozen=True)
class Table:
    """A CSV file, plain, gzipped, or inside a zip.

    Args:
        path: the file on disk.
        member: the name of the table inside the zip, or None if the file is no zip.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the table as a stream of uncompressed bytes.

        Raises:
            DataError: the file is damaged or cannot be read. Reading from the stream can raise it as well.
        """
        try:
            if self.member:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                    yield stream
            elif self.path.suffix == ".gz":
                with gzip.open(self.path) as stream:
                    yield io.BufferedReader(stream)
            else:
                with self.path.open("rb") as stream:
                    yield stream
        except BROKEN as error:
            raise DataError(
                f"{self}: cannot be read ({error or type(error).__name__}). Expected a whole file; this one is "
                "damaged, cut short or not readable. Download it again."
            ) from error


def read_header(table: Table) -> list[str]:
    """Read the column names of a table.

    Raises:
        DataError: the file is empty, damaged or not a CSV.
    """
    with table.open() as stream:
        return _parse_header(stream, table)


def count_rows(table: Table, kind: str) -> int:
    """Count the rows of a table without parsing them.

    Args:
        table: the file.
        kind: "train" or "test".

    Raises:
        DataError: the file is damaged, or its header does not belong to this kind of table.
    """
    with table.open() as stream:
        _check_header(_parse_header(stream, table), kind, table)
        lines, last = 0, b"\n"
        while block := stream.read(1 << 20):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def _parse_header(stream: IO[bytes], table: Table) -> list[str]:
    line = stream.readline(1 << 20)
    if not line:
        raise DataError(
            f"{table}: the file is empty. Expected a header and one row per image. Download it again, or check how "
            "it was made."
        )
    try:
        names = next(csv.reader([line.decode("utf-8-sig")]), [])
    except (UnicodeDecodeError, csv.Error):
        names = []
    if len(names) < 2:
        raise DataError(
            f"{table}: not a CSV file: its first line has no comma-separated column names. Expected "
            f"{COLUMNS_IN_WORDS['train']} or {COLUMNS_IN_WORDS['test']}. Pass the competition's own file."
        )
    return [name.strip() for name in names]


def read_table(table: Table, kind: str) -> np.ndarray:
    """Read a whole table.

    Args:
        table: the file.
        kind: "train" or "test".

    Returns:
        (N, 785) or (N, 784) uint8, with the columns in Kaggle's order, whatever their order in the file.

    Raises:
        DataError: the file is damaged or malformed; the message names the line.
    """
    import numpy as np

    with table.open() as stream:
        names = _parse_header(stream, table)
        _check_header(names, kind, table)
        values = _parse_values(stream, len(names))
    if values is None:
        values = _read_slowly(table, names)
    if not len(values):
        raise DataError(
            f"{table}: a header and no rows. Expected one row per image. Download it again, or check how it was made."
        )
    if names != COLUMNS[kind]:
        values = values[:, [names.index(name) for name in COLUMNS[kind]]]
    return np.ascontiguousarray(values)


def _parse_values(stream: IO[bytes], columns: int) -> np.ndarray | None:
    """Parse the lines after the header, or return None if they hold anything but bare numbers.

    Only numbers from 0 to 255, commas and line ends are accepted. Working on blocks that fit into the processor's cache
    reads a zip faster than pandas reads the unpacked file. Pandas 2 cannot be used, because it silently reads 256 as 0.

    Returns:
        (N, columns) uint8, or None.
    """
    import numpy as np

    parsed = []
    rest = b""
    while True:
        block = stream.read(BLOCK)
        lines, newline, rest = (rest + block).rpartition(b"\n") if block else (rest, b"\n", b"")
        if lines:
            values = _parse_lines((lines + newline).replace(b"\r\n", b"\n"), columns)
            if values is None:
                return None
            parsed.append(values)
        elif not block:
            return np.concatenate([np.empty((0, columns), np.uint8), *parsed])
        elif newline:  # a blank line
            return None


def _parse_lines(text: bytes, columns: int) -> np.ndarray | None:
    """Parse whole lines of bare numbers, or return None if a character or the number of values is unexpected.

    Returns:
        (N, columns) uint8, or None.
    """
    import numpy as np

    characters = np.frombuffer(text, np.uint8)
    values = characters - np.uint8(ord("0"))  # all other characters become 10 or more
    is_digit = values <= 9
    ends = np.flatnonzero(~is_digit)  # the position after each number
    newlines = np.count_nonzero(characters == ord("\n"))
    if (
        newlines * columns != len(ends)
        or newlines + np.count_nonzero(characters == ord(",")) != len(ends)
        or not (characters[ends[columns - 1 :: columns]] == ord("\n")).all()
    ):
        return None
    pairs = is_digit[1:] & is_digit[:-1]
    is_empty = not is_digit[0] or not (is_digit[1:] | is_digit[:-1]).all()
    has_four_digits = (pairs[2:] & pairs[:-2]).any()
    if is_empty or has_four_digits:
        return None
    # numbers[i] is the value of the number that ends at character i. At other characters it means nothing.
    values *= is_digit
    numbers = values.astype(np.uint16)
    numbers[1:] += np.uint16(10) * values[:-1]
    numbers[2:] += np.uint16(100) * (values[:-2] * is_digit[1:-1])
    numbers = numbers[ends - 1]
    if numbers.max() > 255:
        return None
    return numbers.astype(np.uint8).reshape(-1, columns)


def _check_header(names: list[str], kind: str, table: Table) -> None:
    expected = COLUMNS[kind]
    if set(names) == set(expected) and len(names) == len(expected):
        return
    if set(names) == set(COLUMNS[OTHER[kind]]):
        raise DataError(
            f"{table}: {len(names)} columns, expected {COLUMNS_IN_WORDS[kind]}. This looks like {OTHER[kind]}.csv; "
            f"pass the {'training' if kind == 'train' else 'test'} file."
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    missing = [name for name in expected if name not in names]
    unknown = [name for name in names if name not in expected]
    faults = [
        f"{title} {', '.join(map(repr, found[:3]))}{f' and {len(found) - 3} more' if len(found) > 3 else ''}"
        for title, found in (("repeated:", repeated), ("missing:", missing), ("unknown:", unknown))
        if found
    ]
    raise DataError(
        f"{table}: {len(names)} columns; {'; '.join(faults)}. Expected {COLUMNS_IN_WORDS[kind]}, each once, in any "
        "order. Correct the header, or pass the competition's own file."
    )


def _read_slowly(table: Table, names: list[str]) -> np.ndarray:
    """Read a table that is not plain, such as one with quotes or spaces.

    Raises:
        DataError: a line is malformed. The message names the first such line.
    """
    import numpy as np

    rows = []
    with table.open() as stream:
        lines = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline=""))
        next(lines)
        try:
            for row, values in enumerate(lines, start=1):
                fault = _fault_of_row(values, names)
                if fault:
                    raise DataError(f"{table}: row {row} (line {lines.line_num}) {fault}")
                rows.append(np.array(values, np.float64).astype(np.uint8))
        except csv.Error as error:
            raise DataError(
                f"{table}: row {len(rows) + 1} (line {len(rows) + 2}) cannot be split into values ({error}). Expected "
                "numbers and commas. A stray quotation mark does this; remove it."
            ) from error
    return np.array(rows).reshape(-1, len(names))


def _fault_of_row(values: list[str], names: list[str]) -> str | None:
    """Return what is wrong with a row, as the end of an error message, or None."""
    if not values or values == [""]:
        return "is blank. Expected one image per line and nothing after the last. Remove the line."
    if len(values) != len(names):
        amount = "too short" if len(values) < len(names) else "too long"
        return (
            f"is {amount}: {len(values)} values. Expected {len(names)}, as in the header. Correct or remove the row, "
            "or download the file again."
        )
    for name, value in zip(names, values, strict=True):
        wanted = "a digit from 0 to 9" if name == "label" else "a whole number from 0 to 255"
        if not (WHOLE_NUMBER.fullmatch(value) and float(value) <= 255):
            shown = "no value" if value.strip() == "" else repr(value[:40])
            return f"has {shown} as {name}. Expected {wanted}. Correct or remove the row."
    return None
