"""Find out how a text file is written: its encoding, separator, quotes and header."""

from __future__ import annotations

import codecs
import csv
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kaggle_digits.digits import CLASSES, PIXELS
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
        skip: the number of bytes of a byte-order mark.
        newline: the end of a line.
        separator: the character between values.
        quote: the character around quoted values.
        decimal: the decimal sign.
        names: the names of the columns; None if there is no header.
        head_lines: lines in front of the first row.
        width: values in the first row.
        first_row: the first row, if pandas took it for a header; else None. It replaces the first line.
        one_text: whether all pixels of a row are one text, as in 7,"0 0 255 …". ``separator`` is then the one inside.
        notes: differences from Kaggle's form.
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
    first_row: str | None = None
    one_text: bool = False
    notes: tuple[str, ...] = ()


def sniff(head: bytes, name: str) -> Form:
    """Find out from its beginning how a text file is written.

    Args:
        head: its first bytes, some lines at least.
        name: of the file, for messages.

    Raises:
        DataError: it is empty, or not a table of digits.
    """
    form = _sniff_encoding(head)
    text = head[form.skip :].decode(form.encoding, "replace")
    if mistaken := describe_mistaken(head[form.skip :]) or describe_mistaken(text[:200].encode()):
        raise DataError(f"{name}: holds {mistaken[0]}. Expected a table of digits. {mistaken[1]}")
    if b"\0" in head and form.encoding in ("utf-8", "cp1252"):
        raise DataError(f"{name}: not a text file. {EXPECTED} Pass the competition's own file.")
    if not text.strip():
        raise DataError(
            f"{name}: the file is empty. Expected a header and one row per image. Download it again, or check how it "
            "was made."
        )
    newline = "\n" if "\n" in text else "\r"
    lines = text.split(newline, 10)
    hint = re.fullmatch(r"sep=(.)\s*", lines[0])  # a hint for spreadsheets
    skipped = 1 if hint else 0
    lines = lines[skipped:]
    first = lines[0].rstrip("\r").removeprefix("#")
    quote = "'" if first.lstrip().startswith("'") else '"'
    separator = hint[1] if hint else _find_separator(first)
    fields = split_line(first, separator, quote)
    if one_text := _sniff_one_text(lines, separator, quote):
        return replace(
            form,
            newline=newline,
            separator=SPACES,
            head_lines=skipped + one_text[0],
            width=one_text[1],
            one_text=True,
            notes=(*form.notes, "pixels in one text"),
        )
    first_rows = [fields, *(split_line(line, separator, quote) for line in lines[1:3])]
    if len(fields) < PIXELS and any(map(names_pictures, first_rows)):
        raise DataError(
            f"{name}: a list of picture files. Expected the pixels themselves, {PIXELS} in each row. "
            "`kaggle-digits recognize --labelled FOLDER` reads pictures and compares them with their labels."
        )
    if any(re.search(r'"\[+ *[0-9]', line) and line.count('"') % 2 for line in lines[:3]):
        raise DataError(
            f"{name}: pixels in a text that goes on over several lines, as NumPy prints arrays, with gaps. "
            f"{EXPECTED} Write the numbers themselves, as in numpy.savetxt(OUT, array, fmt='%d', delimiter=',')."
        )
    if len(fields) < 2:
        raise DataError(
            f"{name}: not a table: its first line has no columns. {EXPECTED} Pass the competition's own file."
        )
    notes = list(form.notes)
    first_row = None
    if restored := _restore_first_row(fields):
        fields, first_row = restored, (" " if separator == SPACES else separator).join(restored)
        notes.append("the first row, which pandas had taken for a header, read as a row")
    if separator != ",":
        notes.append(f"{SEPARATORS.get(separator, 'spaces')} between values")
    names = tuple(field.strip() for field in fields) if not first_row and _is_header(fields) else None
    following = [line.rstrip("\r") for line in lines[bool(names) : -1] or lines[bool(names) :] if line.strip()]
    rows = [split_line(line, separator, quote) for line in following]
    widths = {len(row) for row in rows}
    # What the rows agree on counts more than the header: R names the rows and not their column.
    width = widths.pop() if len(widths) == 1 else len(fields)
    has_commas = any(re.fullmatch(r"\s*[0-9]+,[0-9]+\s*", value) for row in rows[:1] for value in row)
    decimal = "," if separator != "," and has_commas else "."
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
        first_row=first_row,
        notes=tuple(notes),
    )


def _sniff_one_text(lines: Sequence[str], separator: str, quote: str) -> tuple[int, int] | None:
    """Recognise a table whose pixels stand in a single text, as in 7,"0 0 255 …" or 7,"[0, 0, 255, …]".

    Returns:
        the number of lines in front of the first row, and the number of values in a row; None for other tables.
    """
    for head_lines, line in enumerate(lines[:2]):
        fields = split_line(line.rstrip("\r"), separator, quote)
        if 1 <= len(fields) <= 4 and any(len(as_values(field.encode()).split()) >= PIXELS for field in fields):
            return head_lines, len(as_values(line.encode()).split())
    return None


def names_pictures(fields: Sequence[str]) -> bool:
    """Whether a row of a table names a picture file."""
    return any(re.search(r"\.(png|jpe?g|bmp|gif|tiff?|webp)$", field.strip().lower()) for field in fields)


def as_values(text: bytes) -> bytes:
    """Replace everything between values by spaces, in a table whose pixels are one text."""
    return text.translate(bytes.maketrans(b",;|\"'[]()\t", b" " * 10))


def _restore_first_row(fields: Sequence[str]) -> list[str] | None:
    """Return the first row of a table that pandas read and saved with that row as its header, else None.

    pandas numbers names that occur twice: a row of 7, 0, 0, 0 becomes the header 7, 0, 0.1, 0.2.
    """
    seen: dict[str, int] = {}
    restored = []
    for column, field in enumerate(map(str.strip, fields)):
        if column == 0 and (not field or field.lower().startswith("unnamed")):  # an index, which counts from 0 below
            restored.append("-1")
            continue
        value, _, number = field.rpartition(".")
        if value not in seen:
            value, number = field, ""
        if not NUMBER.fullmatch(value) or number != str(seen.get(value, "")):
            return None
        seen[value] = seen.get(value, 0) + 1
        restored.append(value)
    named = len(restored) - (restored[0] == "-1")
    return restored if len(fields) >= PIXELS and len(seen) < named else None


def _sniff_encoding(head: bytes) -> Form:
    for mark, encoding, notes in (
        (codecs.BOM_UTF8, "utf-8", ()),
        (codecs.BOM_UTF32_LE, "utf-32-le", ("UTF-32",)),
        (codecs.BOM_UTF16_LE, "utf-16-le", ("UTF-16",)),
        (codecs.BOM_UTF16_BE, "utf-16-be", ("UTF-16",)),
    ):
        if head.startswith(mark):
            return Form(encoding=encoding, skip=len(mark), notes=notes)
    for encoding, zeros in (("utf-16-le", head[1:1000:2]), ("utf-16-be", head[:1000:2])):
        if zeros.count(0) > 0.9 * len(zeros):
            return Form(encoding=encoding, notes=("UTF-16",))
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return Form(encoding="cp1252")
    return Form()


def _find_separator(line: str) -> str:
    """Return the separator that splits a line into as many fields as a row of pixels, or else into most."""
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
    """Whether the first line names columns. Numbers are names, too, if they count higher than any pixel."""
    numbers = [field.strip() for field in fields if field.strip()]
    if not all(map(NUMBER.fullmatch, numbers)):
        return True
    counting = [[str(number) for number in range(start, start + len(numbers))] for start in (0, 1)]
    one_hot = counting[0][:PIXELS] + counting[0][:CLASSES]
    ends_with_count = numbers[-PIXELS:] in [numbers[:PIXELS] for numbers in counting]
    return len(numbers) >= PIXELS and (numbers in (*counting, one_hot) or ends_with_count)


def wrong_length(name: str, form: Form, row: int, width: int, expected: int) -> DataError:
    """Return the error about a row, counted from 1, that has more or fewer values than expected."""
    return DataError(
        f"{name}: row {row} (line {row + form.head_lines}) is too {'short' if width < expected else 'long'}: {width} "
        f"values. Expected {expected}, as in the {'header' if form.names else 'first row'}. Correct or remove the row, "
        "or download the file again."
    )


def describe_mistaken(head: bytes) -> tuple[str, str] | None:
    """Identify a file that is not the table or archive that it should be.

    Args:
        head: its first bytes.

    Returns:
        what it is, and what to do; None if it is unknown.
    """
    pointer = "a Git LFS pointer, which only names the file"
    recognize = "Read pictures with `kaggle-digits recognize`."
    pickle = ("a Python pickle", "Save it as CSV; pickles run code when they are read.")
    marks = {
        b"version https://git-lfs": (pointer, "Run `git lfs pull` in its repository."),
        b"PK\x03\x04": ("a zip or an Excel workbook", "Unpack it, or save it as CSV."),
        b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "Save it as CSV."),
        b"PAR1": ("a Parquet file", "Save it as CSV, as in pandas.read_parquet(FILE).to_csv(OUT, index=False)."),
        b"\x93NUMPY": ("a NumPy array", "Save it as CSV, as in numpy.savetxt(OUT, array, fmt='%d', delimiter=',')."),
        b"\x89HDF": ("an HDF5 file", "Save its table as CSV."),
        b"SQLite format 3": ("an SQLite database", "Save its table as CSV."),
        b"\x89PNG": ("a PNG picture", recognize),
        b"\xff\xd8\xff": ("a JPEG picture", recognize),
        b"%PDF": ("a PDF document", "Name the table instead."),
        **dict.fromkeys((b"\x80\x03", b"\x80\x04", b"\x80\x05"), pickle),
    }
    for mark, what_and_remedy in marks.items():
        if head.startswith(mark):
            return what_and_remedy
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text[:1] == b"<" and text[1:2] in b"!?/" + string.ascii_letters.encode():
        return "a web page", "A page that asks you to sign in looks like this. Sign in and download the file again."
    if text[:1] == b"{":
        return f"JSON, {text[:60].decode('utf-8', 'replace')!r}", "Download the file again, or save its table as CSV."
    return None
