"""Tell how a text file is written: its encoding, separator, quotes and header."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kaggle_digits import PIXELS
from kaggle_digits.errors import DataError

SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}
SPACES = r"\s+"
NUMBER = re.compile(r"[-+]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][-+]?[0-9]+)?")
EXPECTED = f"Expected a label and {PIXELS} pixels (28 × 28) in each row, or the pixels alone."


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
    fields = split_line(first, separator, quote)
    if len(fields) < 2:
        raise DataError(
            f"{name}: not a table: its first line has no columns. {EXPECTED} Pass the competition's own file."
        )
    notes = list(form.notes)
    if separator != ",":
        notes.append(f"{SEPARATORS.get(separator, 'spaces')} between values")
    names = tuple(field.strip() for field in fields) if _is_header(fields) else None
    following = [line.rstrip("\r") for line in lines[bool(names) : -1] or lines[bool(names) :] if line.strip()]
    rows = [split_line(line, separator, quote) for line in following]
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


def split_line(line: str, separator: str, quote: str) -> list[str]:
    """Return the values of a line, as text."""
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


def wrong_length(name: str, form: Form, row: int, width: int, expected: int) -> DataError:
    """Return the error about a row, counted from 1, that has more or fewer values than expected."""
    return DataError(
        f"{name}: row {row} (line {row + form.head_lines}) is too {'short' if width < expected else 'long'}: {width} "
        f"values. Expected {expected}, as in the {'header' if form.names else 'first row'}. Correct or remove the row, "
        "or download the file again."
    )
