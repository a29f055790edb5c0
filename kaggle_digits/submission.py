"""Write and check ``submission.csv``: a header ``ImageId,Label``, and an id from 1 and a digit for each test row.

Kaggle's own form is read here. ``tables.answers`` interprets files of other forms.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kaggle_digits.data import SAMPLE, Source, load_test_rows, table_of
from kaggle_digits.digits import CLASSES
from kaggle_digits.errors import SubmissionError
from kaggle_digits.files import BROKEN, atomic_path, unpacked

if TYPE_CHECKING:  # importing it costs 0.1 s, and `check` does not need it
    import numpy as np

HEADER = "ImageId,Label"
TEST_ROWS = 28_000
"""Number of rows of the competition's test.csv. It is used if there is no test file to count."""


def predict_digits(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Average the probabilities of one or several runs and take the likeliest digit.

    Args:
        probabilities: one (N, 10) array for each run.

    Returns:
        (N,) int64, 0–9.

    >>> import numpy as np
    >>> predict_digits([np.eye(10)[[3, 7]]]).tolist()
    [3, 7]
    """
    import numpy as np

    return np.mean(probabilities, axis=0).argmax(axis=1).astype(np.int64)


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
    """The contents of a submission file in any form.

    Args:
        digits: the predicted digits in the order of the test file; None if they are unclear.
        fault: the first thing that Kaggle would refuse, and what it expects; None if there is none. If the digits are
            unclear, the first fault that makes them so.
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
        SubmissionError: the digits are unclear, or the number of rows is wrong.
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
    """Read a submission file and find its first fault. Interpret it if there is only one way to understand it.

    Raises:
        SubmissionError: it cannot be read, or is not text.
    """
    try:
        contents = unpacked(file)
    except FileNotFoundError as error:
        raise SubmissionError(f"{file}: no such file. Expected a submission. Check the path.") from error
    except BROKEN as error:
        raise SubmissionError(
            f"{file}: cannot be read as text ({error}). Expected a CSV file that starts with {HEADER}. Make it again."
        ) from error
    header, *lines = contents.split(b"\n")
    digits = [line[-1:] for line in lines[:-1]]
    if (
        header == HEADER.encode()
        and set(digits) <= {b"%d" % digit for digit in range(CLASSES)}
        and contents == to_csv(map(int, digits))
    ):
        return Reading([int(digit) for digit in digits], None, "", len(lines))
    return Reading(*import_module("kaggle_digits.tables.answers").understand(file, contents))


def count_test_rows(source: Source) -> int:
    """Count the rows of the test file, without parsing them. A submission must have the same number.

    Raises:
        DataError: the source has no test file, or another file has its name.
    """
    return len(load_test_rows(source).pixels) if source.is_sample else table_of(source, "test").count()


def expected_rows(source: Source | None, *, named: bool = False) -> tuple[int, str]:
    """Return how many rows a submission must have, and where that number comes from, for messages.

    Args:
        source: where the competition's files are. For None, or a source without a test file, the competition's own
            number is returned.
        named: whether the user named the source. Then it must have a test file.

    Raises:
        DataError: the test file is missing, cannot be read, or is another file.
    """
    if source and (named or source.is_sample or "test" in source.tables):
        return count_test_rows(source), f"{source}'s test.csv"
    return TEST_ROWS, "test.csv"
