"""Write and check ``submission.csv``: a header ``ImageId,Label``, and an id from 1 and a digit for each test row."""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kaggle_digits import CLASSES
from kaggle_digits.data import SAMPLE, TEST_ROWS
from kaggle_digits.errors import SubmissionError
from kaggle_digits.files import atomic_path, unpacked
from kaggle_digits.tables import BROKEN

HEADER = "ImageId,Label"
AGAIN = "Make the file again with `kaggle-digits predict`."
CORRECT = "Correct or remove the line."
IDS = {"imageid", "id", "image"}
LABELS = {"label", "labels", "digit", "class", "prediction", "predictions", "predicted", "target", "y"}
"""Names of the two columns, in small letters, that people use instead."""


def write_submission(file: Path, digits: Iterable[int], *, overwrite: bool = False) -> None:
    """Write a submission. The file appears whole or not at all.

    Args:
        file: the file to write. Its folder is made if needed.
        digits: (N,) integers, 0–9, in the order of the test file.
        overwrite: whether to replace an existing file.

    Raises:
        SubmissionError: the file exists and ``overwrite`` is off, or it cannot be written.
    """
    check_free(file, overwrite=overwrite)
    with atomic_path(file) as path:
        path.write_bytes(to_csv(digits))


def to_csv(digits: Iterable[int]) -> bytes:
    """Return the contents of a submission.

    >>> to_csv([7, 3])
    b'ImageId,Label\\n1,7\\n2,3\\n'
    """
    lines = [HEADER, *(f"{image_id},{digit}" for image_id, digit in enumerate(digits, start=1))]
    return ("\n".join(lines) + "\n").encode("ascii")


def check_free(file: Path, *, overwrite: bool = False) -> None:
    """Check that a file can be written, before work is spent on its contents.

    Raises:
        SubmissionError: the file exists and ``overwrite`` is off, it is a folder, or its place cannot be written to.
    """
    if file.is_dir() or not file.name:
        raise SubmissionError(f"{file}: is a folder. Expected the name of a file to write. Add a name, as in mine.csv.")
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise SubmissionError(
            f"{file}: nothing can be written in {folder}. Expected a folder that can be written to. Choose another one."
        )
    if file.exists() and not overwrite:
        raise SubmissionError(
            f"{file}: exists already. Expected a new name. Choose another, or pass --force to replace it."
        )


@dataclass(frozen=True)
class Reading:
    """What a submission file says, in whatever form.

    Args:
        digits: the predicted digits in the order of the test file; None if that cannot be told.
        fault: what Kaggle would refuse first, and what it would expect; None if there is nothing.
        remedy: what to do about it.
        lines: how many lines the file has.
    """

    digits: list[int] | None
    fault: str | None
    remedy: str
    lines: int


def check_submission(file: Path, *, rows: int = TEST_ROWS, counted_in: str = "test.csv") -> list[int]:
    """Check that Kaggle would accept a submission.

    Quoted names and values, a byte-order mark, CRLF, and a zip or gz of the file are accepted, as Kaggle does.

    Args:
        file: the file to check.
        rows: how many rows the test file has.
        counted_in: where that number comes from, for the message.

    Returns:
        how often each digit from 0 to 9 was predicted; ten numbers that sum to ``rows``.

    Raises:
        SubmissionError: the header, an id, a label or the number of rows is wrong; the message names the line.
    """
    reading = read_submission(file)
    if reading.fault:
        remedy = reading.remedy
        if reading.digits is not None and len(reading.digits) == rows:
            remedy = f"`kaggle-digits check {file} --fix OUT.csv` writes the file that was meant."
        raise SubmissionError(f"{file}: {reading.fault} {remedy}")
    return _count(file, reading, rows, counted_in)


def fix_submission(
    file: Path, out: Path, *, rows: int = TEST_ROWS, counted_in: str = "test.csv", overwrite: bool = False
) -> str | None:
    """Write the submission that a file was meant to be, in Kaggle's form.

    Args:
        file: the file to read.
        out: the file to write.
        rows, counted_in: as for ``check_submission``.
        overwrite: replace an existing file.

    Returns:
        what was wrong with the file, or None.

    Raises:
        SubmissionError: what was meant cannot be told, or the number of rows is wrong.
    """
    reading = read_submission(file)
    if reading.digits is None:
        raise SubmissionError(f"{file}: {reading.fault} What was meant cannot be told. {reading.remedy}")
    _count(file, reading, rows, counted_in)
    write_submission(out, reading.digits, overwrite=overwrite)
    return reading.fault


def _count(file: Path, reading: Reading, rows: int, counted_in: str) -> list[int]:
    digits = reading.digits or []
    if len(digits) != rows:
        hint = "Make the file from all rows of the test file."
        if file.name.startswith(f"{SAMPLE}-") and rows == TEST_ROWS:
            hint = f"It was made from the built-in sample: it cannot be uploaded; check it with --data {SAMPLE}."
        raise SubmissionError(
            f"{file}: {len(digits)} rows, the last on line {reading.lines}. Expected {rows}, one for each row of "
            f"{counted_in}. {hint}"
        )
    return [digits.count(digit) for digit in range(CLASSES)]


def read_submission(file: Path) -> Reading:
    """Read a submission file, find its first fault, and tell what was meant if there is only one way to understand it.

    Raises:
        SubmissionError: it cannot be read, or is no text.
    """
    try:
        contents = unpacked(file)
        marked = contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = contents.decode("utf-16" if marked else "utf-8-sig")
    except FileNotFoundError as error:
        raise SubmissionError(f"{file}: no such file. Expected a submission. Check the path.") from error
    except BROKEN as error:
        raise SubmissionError(
            f"{file}: cannot be read as text ({error}). Expected a CSV file that starts with {HEADER}. Make it again."
        ) from error
    lines = text.splitlines()
    if (
        not marked
        and lines[:1] == [HEADER]
        and all(
            line[:-1] == f"{image_id}," and line[-1] in "0123456789" for image_id, line in enumerate(lines[1:], start=1)
        )
    ):  # Kaggle's own form, in a tenth of the time of what follows
        return Reading([int(line[-1]) for line in lines[1:]], None, "", len(lines))
    faults = [("it is in UTF-16. Expected UTF-8 or ASCII.", AGAIN)] if marked else []
    if not lines:
        return Reading(None, f"line 1 is 'nothing'. Expected {HEADER!r}.", AGAIN, 0)
    separator = max(",;\t ", key=lambda each: (lines[0].count(each) > 0, -",;\t ".index(each)))
    if separator != "," and separator in lines[0]:
        what = {";": "semicolons", "\t": "tabs", " ": "spaces"}[separator]
        faults.append((f"line 1 is {lines[0][:40]!r}, with {what} between values. Expected commas.", AGAIN))
    table = []
    for number, line in enumerate(lines, start=1):
        try:
            fields = next(csv.reader([line], delimiter=separator, skipinitialspace=separator == " ", strict=True), [])
        except csv.Error:
            return Reading(None, f"line {number} is {line[:40]!r}. Expected an id and a label.", CORRECT, len(lines))
        stripped = [field.strip() for field in fields]
        if stripped != fields and not faults:
            faults.append((f"line {number} is {line[:40]!r}, with spaces around values. Expected none.", CORRECT))
        table.append(stripped)
    end = len(table)
    while end and not any(table[end - 1]):
        end -= 1
    if end < len(table):
        faults.append((f"line {end + 1} is {lines[end][:40]!r}. Expected nothing after the last row.", CORRECT))
    digits, more = _understand(table[:end], lines)
    fault, remedy = (*faults, *more, (None, ""))[0]
    return Reading(digits, fault, remedy, len(lines))


def _understand(table: list[list[str]], lines: list[str]) -> tuple[list[int] | None, list[tuple[str, str]]]:
    """Return the digits that a table means, or None, and its faults with their remedies, the first one first."""
    header = table[0] if table else []
    faults: list[tuple[str, str]] = []
    expected = HEADER.split(",")
    if header != expected:
        faults.append((f"line 1 is {lines[0][:40]!r}. Expected {HEADER!r}.", AGAIN))
    has_header = not all(_number(field) is not None for field in header)
    names = [field.lower().replace("_", "").replace(" ", "") for field in header]
    if not has_header:
        names = {1: ["label"], 2: ["imageid", "label"], 3: ["", "imageid", "label"]}.get(len(header), names)
    first = 1 if has_header else 0
    width = len(header)
    ids = [column for column, name in enumerate(names) if name in IDS]
    labels = [column for column, name in enumerate(names) if name in LABELS]
    others = [column for column in range(width) if column not in (*ids, *labels)]
    if len(others) > 1 and others[0] == 0 and names[0] in ("", "unnamed:0") and len(others) != CLASSES:
        others = others[1:]
    if len(others) == 1 and names[others[0]] in ("", "unnamed:0", "index"):
        faults[:0] = [(f"line 1 is {lines[0][:40]!r}, with an index column. Expected {HEADER!r}.", AGAIN)]
        others = []
    one_hot = len(others) == CLASSES and not labels
    if one_hot:
        faults[:0] = [(f"line 1 is {lines[0][:40]!r}: ten columns, one-hot. Expected one label in each row.", AGAIN)]
    elif len(labels) != 1 or len(ids) > 1 or others:
        return None, faults
    found: list[tuple[int, int]] = []
    known = True
    for number, row in enumerate(table[first:], start=first + 1):
        place = len(found) + 1
        if len(row) != width:
            faults.append(
                (
                    f"line {number} is {lines[number - 1][:40]!r}. Expected an id and a label, as in '{place},7'.",
                    CORRECT,
                )
            )
            known = known and not any(row)  # a blank line stands for nothing
            continue
        image_id = _number(row[ids[0]]) if ids else place
        if not ids or row[ids[0]] != str(place):
            shown = f"has id {row[ids[0]][:40]!r}" if ids else f"is {lines[number - 1][:40]!r}, without an id"
            faults.append(
                (
                    f"line {number} {shown}. Expected {place}: ids count up from 1, in the order of test.csv.",
                    "Restore the order.",
                )
            )
        digit = _one_hot([row[column] for column in others]) if one_hot else _digit(row[labels[0]])
        if not one_hot and row[labels[0]] != str(digit):
            faults.append(
                (
                    f"line {number} has label {row[labels[0]][:40]!r}. Expected a digit from 0 to 9, without decimals.",
                    "Correct the line.",
                )
            )
        elif one_hot and digit is None:
            faults.append(
                (
                    f"line {number} is {lines[number - 1][:40]!r}. Expected a single 1 and nine zeros.",
                    "Correct the line.",
                )
            )
        known = known and image_id is not None and digit is not None
        found.append((int(image_id or 0), digit or 0))
    in_order = sorted(found)
    if not (known and [each for each, _ in in_order] in ([*range(len(found))], [*range(1, len(found) + 1)])):
        return None, faults
    return [digit for _, digit in in_order], faults


def _number(text: str) -> float | None:
    """Return a whole number that may be written as in 6.0, or None."""
    if text and text.isascii() and text.isdigit():
        return int(text)
    return int(text.partition(".")[0]) if re.fullmatch(r"[0-9]+\.0*", text, re.ASCII) else None


def _digit(text: str) -> int | None:
    number = _number(text)
    return int(number) if number is not None and number < CLASSES else None


def _one_hot(values: list[str]) -> int | None:
    numbers = [_number(value) for value in values]
    return numbers.index(1) if sorted(numbers, key=str) == [0] * (CLASSES - 1) + [1] else None
