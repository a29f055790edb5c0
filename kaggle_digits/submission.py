"""Write and check ``submission.csv``: a header ``ImageId,Label``, and an id from 1 and a digit for each test row."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from kaggle_digits import CLASSES
from kaggle_digits.data import SAMPLE, TEST_ROWS
from kaggle_digits.errors import SubmissionError
from kaggle_digits.files import atomic_path

HEADER = "ImageId,Label"


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
    lines = [HEADER, *(f"{image_id},{digit}" for image_id, digit in enumerate(digits, start=1))]
    with atomic_path(file) as path:
        path.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def check_free(file: Path, *, overwrite: bool = False) -> None:
    """Check that a file can be written, before work is spent on its contents.

    Raises:
        SubmissionError: the file exists and ``overwrite`` is off, it is a folder, or its place cannot be written to.
    """
    if file.is_dir() or not file.name:
        raise SubmissionError(f"{file}: is a folder. Expected the name of a file to write. Add a name, as in mine.csv.")
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise SubmissionError(f"{file}: {folder} is not a folder that can be written to. Choose another place.")
    if file.exists() and not overwrite:
        raise SubmissionError(
            f"{file}: exists already. Expected a new name. Choose another, or pass --force to replace it."
        )


def check_submission(file: Path, *, rows: int = TEST_ROWS, counted_in: str = "test.csv") -> list[int]:
    """Check that Kaggle would accept a submission.

    Args:
        file: the file to check.
        rows: the number of rows in the test file.
        counted_in: the name of that test file, for messages.

    Returns:
        ten numbers that sum to ``rows``: how often each digit from 0 to 9 was predicted.

    Raises:
        SubmissionError: the header, an id, a label or the number of rows is wrong; the message names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SubmissionError(f"{file}: no such file. Expected a submission. Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SubmissionError(
            f"{file}: cannot be read as text ({error}). Expected a CSV file that starts with {HEADER}. Make it again."
        ) from error
    header = lines[0] if lines else "nothing"
    if header != HEADER:
        raise SubmissionError(
            f"{file}: line 1 is {header[:40]!r}. Expected {HEADER!r}. Make the file again with `kaggle-digits predict`."
        )
    counts = [0] * CLASSES
    for number, line in enumerate(lines[1:], start=2):
        image_id, comma, label = line.partition(",")
        if not comma or "," in label:
            raise SubmissionError(
                f"{file}: line {number} is {line[:40]!r}. Expected an id and a label, as in '{number - 1},7'. Correct "
                "or remove the line."
            )
        if image_id != str(number - 1):
            raise SubmissionError(
                f"{file}: line {number} has id {image_id[:40]!r}. Expected {number - 1}: ids count up from 1, in the "
                "order of test.csv. Restore the order."
            )
        if not (len(label) == 1 and label in "0123456789"):
            raise SubmissionError(
                f"{file}: line {number} has label {label[:40]!r}. Expected a digit from 0 to 9, without decimals. "
                "Correct the line."
            )
        counts[int(label)] += 1
    if len(lines) - 1 != rows:
        hint = "Make the file from all rows of the test file."
        if file.name.startswith(f"{SAMPLE}-") and rows == TEST_ROWS:
            hint = f"It was made from the built-in sample: it cannot be uploaded; check it with --data {SAMPLE}."
        raise SubmissionError(
            f"{file}: {len(lines) - 1} rows, the last on line {len(lines)}. Expected {rows}, one for each row of "
            f"{counted_in}. {hint}"
        )
    return counts
