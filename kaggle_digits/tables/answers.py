"""Interpret a submission file that is not in Kaggle's form, and find what is wrong with it."""

from __future__ import annotations

import csv
import difflib
import itertools
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from kaggle_digits.digits import CLASSES
from kaggle_digits.errors import SubmissionError
from kaggle_digits.files import decode_text
from kaggle_digits.tables.form import describe_mistaken

HEADER = "ImageId,Label"
AGAIN = "Make the file again with `kaggle-digits predict`."
CORRECT = "Correct or remove the line."

Understood = tuple[list[int] | None, str | None, str, int]
"""The fields of a ``submission.Reading``: the digits, the first fault, what to do about it, and the number of lines."""


@dataclass(frozen=True)
class _Fault:
    """A fault in a file, what to do about it, and whether it hides the digits."""

    text: str
    remedy: str
    hides: bool = False


def understand(file: Path, contents: bytes) -> Understood:
    """Find the first fault of a submission file. Interpret the file if there is only one way to understand it.

    Args:
        file: for messages.
        contents: its contents.

    Raises:
        SubmissionError: it is not text.
    """
    if mistaken := describe_mistaken(contents):
        raise SubmissionError(f"{file}: holds {mistaken[0]}. Expected a CSV file that starts with {HEADER}. {AGAIN}")
    try:
        text = decode_text(contents)
    except ValueError as error:
        raise SubmissionError(
            f"{file}: cannot be read as text ({error}). Expected a CSV file that starts with {HEADER}. Make it again."
        ) from error
    lines = text.removesuffix("\x1a").splitlines()
    marked = b"\0" in contents[:4]
    faults = [_Fault("it is in UTF-16. Expected UTF-8 or ASCII.", AGAIN)] if marked else []
    total, dropped = len(lines), 0
    while lines and (not lines[0].strip() or re.fullmatch(r"sep=.|#(?!.*[A-Za-z].*[,;\t ]).*", lines[0].strip())):
        faults.append(_Fault(f"line {dropped + 1} is {lines[0][:40]!r}. Expected {HEADER!r}.", AGAIN))
        lines, dropped = lines[1:], dropped + 1
    if not lines:
        return (None, f"line {dropped + 1} is 'nothing'. Expected {HEADER!r}.", AGAIN, total)
    first = lines[0].lstrip("# ")
    separator = _separator_of(first)

    def is_line(number: int) -> str:
        return f"line {number + dropped} is {lines[number - 1][:40]!r}"

    if separator != ",":
        what = {";": "semicolons", "\t": "tabs", " ": "spaces"}[separator]
        faults.append(_Fault(f"{is_line(1)}, with {what} between values. Expected commas.", AGAIN))
    table = []
    for number, line in enumerate(lines, start=1):
        if number == 1 and line.startswith("#"):  # as numpy.savetxt writes headers
            faults.append(_Fault(f"{is_line(1)}. Expected {HEADER!r}, without the #.", AGAIN))
            line = first
        # numpy.savetxt separates rows by spaces, even if the header has commas.
        own = separator if separator in line else _separator_of(line)
        try:
            fields = next(csv.reader([line], delimiter=own, skipinitialspace=own == " ", strict=True), [])
        except csv.Error:
            return None, f"line {number + dropped} is {line[:40]!r}. Expected an id and a label.", CORRECT, total
        if len(fields) == 1 and own in fields[0]:  # quoted as a whole
            text = f"line {number + dropped} is {line[:40]!r}. Expected no quotation marks."
            faults.append(_Fault(text, CORRECT))
            fields = fields[0].split(own)
        stripped = [field.strip() for field in fields]
        if stripped != fields and not faults:
            faults.append(_Fault(f"{is_line(number)}, with spaces around values. Expected none.", CORRECT))
        table.append(stripped)
    end = max((number for number, row in enumerate(table, start=1) if any(row)), default=0)
    if end < len(table):
        faults.append(_Fault(f"{is_line(end + 1)}. Expected nothing after the last row.", CORRECT))
    table = table[:end]
    while table and len(table[0]) > 1 and all(len(row) == len(table[0]) and not row[-1] for row in table):
        faults.append(_Fault(f"{is_line(1)}. Expected {HEADER!r}, without a last comma.", AGAIN))
        table = [row[:-1] for row in table]
    digits, more = _understand(table, lines, dropped)
    faults += more
    shown = next((fault for fault in faults if fault.hides or digits is not None), (*faults, None)[0])
    return (digits, shown.text if shown else None, shown.remedy if shown else "", total)


def _separator_of(line: str) -> str:
    """Return the separator of a line's values: a comma, a semicolon, a tab or a space."""
    return next((separator for separator in ",;\t " if separator in line.strip()), ",")


def _understand(table: list[list[str]], lines: list[str], dropped: int) -> tuple[list[int] | None, list[_Fault]]:
    """Return the digits in a table, or None, and its faults in order.

    Args:
        table: the values of each line, without empty lines at the end.
        lines: the lines of the file, without those that were dropped at its beginning.
        dropped: how many were dropped.
    """
    header = table[0] if table else []
    width = len(header)
    has_header = not all(_number(field) is not None or _is_score(field) for field in header)
    has_header = has_header or header == list(map(str, range(CLASSES)))
    rows = table[1:] if has_header else table
    ids, labels, scores, faults = _columns(header, rows, has_header, f"line {1 + dropped} is {lines[0][:40]!r}")
    if not labels and not scores:
        return None, faults
    answers: list[tuple[int, int]] = []
    first_disorder: _Fault | None = None
    start = 2 if has_header else 1
    for number, line, row in zip(itertools.count(start + dropped), lines[start - 1 :], rows, strict=False):
        expected, shown = len(answers) + 1, f"line {number} is {line[:40]!r}"
        if len(row) != width:
            text = f"{shown}. Expected an id and a label, as in '{expected},7'."
            faults.append(_Fault(text, CORRECT, hides=any(row)))  # a blank line hides no digit
            continue
        image_id = _number(row[ids[0]]) if ids else expected
        if not ids or row[ids[0]] != str(expected):
            text = f"line {number} has id {row[ids[0]][:40]!r}" if ids else f"{shown}, without an id"
            text += f". Expected {expected}: ids count up from 1, in the order of test.csv."
            faults.append(_Fault(text, "Restore the order.", hides=image_id is None))
            if image_id != expected - (bool(answers) and answers[0][0] == 0):  # they may count from 0
                first_disorder = first_disorder or (faults[-1] if answers or image_id else None)
        if scores:
            digit = _likeliest([row[column] for column in scores])
            is_right = digit is not None
            text = f"{shown}. Expected ten numbers, one of which is the greatest."
        else:
            digit = _digit(row[labels[0]])
            is_right = row[labels[0]] == str(digit)
            text = f"line {number} has label {row[labels[0]][:40]!r}. Expected a digit from 0 to 9, without decimals."
        if not is_right:
            faults.append(_Fault(text, "Correct the line.", hides=digit is None))
        answers.append((-1 if image_id is None else image_id, -1 if digit is None else digit))
    answers.sort()
    counted = [image_id for image_id, _ in answers]
    if not any(fault.hides for fault in faults) and counted not in (
        list(range(len(answers))),
        list(range(1, len(answers) + 1)),
    ):
        faults.insert(0, _id_fault(counted, first_disorder))
    if any(fault.hides for fault in faults):
        return None, faults
    return [digit for _, digit in answers], faults


def _id_fault(counted: list[int], first: _Fault | None) -> _Fault:
    """Return the fault of ids, in ascending order, that do not count up: some occur twice, or are missing."""
    twice = [image_id for image_id, following in itertools.pairwise(counted) if image_id == following]
    wrong = twice or sorted(set(range(1, len(counted) + 1)) - set(counted))
    named = ", ".join(map(str, wrong[:3])) + (" and more" if len(wrong) > 3 else "")
    what = f"{'ids' if len(wrong) > 1 else 'id'} {named} {'are' if len(wrong) > 1 else 'is'} "
    what += "there twice" if twice else "missing"
    text = first.text if first else f"the ids go from {counted[0]} to {counted[-1]}. Expected them to count up from 1."
    return _Fault(f"{text[:-1]}; {what}.", "Add or remove the rows.", hides=True)


def _columns(
    header: list[str], rows: list[list[str]], has_header: bool, fault: str
) -> tuple[list[int], list[int], list[int], list[_Fault]]:
    """Find the columns of the id, of the label, and of ten scores, and the faults of the first line.

    ``fault`` is the beginning of a message about that line.
    """
    # Names of the two columns, in small letters, that people use.
    id_names = {"imageid", "id", "image"}
    label_names = {"label", "labels", "digit", "class", "target", "y", "category"}
    label_names |= {"prediction", "predictions", "predicted"}
    width = len(header)
    names = [field.lower().replace("_", "").replace(" ", "") for field in header]
    if not has_header:
        scored = [f"p{digit}" for digit in range(CLASSES)]
        usual = {1: ["label"], 2: ["imageid", "label"], 3: ["", "imageid", "label"]}
        names = (usual | {CLASSES: scored, CLASSES + 1: ["imageid", *scored]}).get(width, names)
    known = [name for name in names if name in id_names | label_names]
    if len(known) < min(width, 2) and width <= 3:  # a misspelt name
        close = [difflib.get_close_matches(name, [*id_names, *label_names], n=1, cutoff=0.7) for name in names]
        names = [match[0] if match and name else name for name, match in zip(names, close, strict=True)]
    if width == 2 and not label_names & set(names) and names[1] not in id_names and _counts_up(rows):
        names = ["imageid", "label"]
    ids = [column for column, name in enumerate(names) if name in id_names]
    labels = [column for column, name in enumerate(names) if name in label_names]
    others = [column for column in range(width) if column not in (*ids, *labels)]
    has_index = len(others) in (1, CLASSES + 1) and others[0] == 0 and names[0] in ("", "unnamed:0", "index")
    if has_index:
        others = others[1:]
    if len(others) == CLASSES and not labels:
        cells = {row[column] for row in rows for column in others if len(row) == width}
        what = "one-hot" if {_number(cell) for cell in cells} <= {0, 1} else "of probabilities or scores"
        return ids, [], others, [_Fault(f"{fault}: ten columns, {what}. Expected one label in each row.", AGAIN)]
    fault += ", with an index column" if has_index else ""
    faults = [] if header == HEADER.split(",") else [_Fault(f"{fault}. Expected {HEADER!r}.", AGAIN)]
    if len(labels) != 1 or len(ids) > 1 or others:
        return ids, [], [], [replace(fault, hides=True) for fault in faults]
    return ids, labels, [], faults


def _counts_up(rows: list[list[str]]) -> bool:
    """Whether the first column of a table numbers its rows, and the second holds digits."""
    numbers = [_number(row[0]) for row in rows if len(row) == 2]
    digits = sum(_digit(row[1]) is not None for row in rows if len(row) == 2)
    return len(numbers) > 1 and numbers[:2] in ([0, 1], [1, 2]) and digits > 0.9 * len(rows)


def _number(text: str) -> int | None:
    """Return a whole number that may be written as in 6.0, 6.000e+00 or [6], or None."""
    text = text.strip("[]'\" ")
    if text.isascii() and text.isdigit():
        return int(text) if len(text.lstrip("0")) <= 18 else None
    if not re.fullmatch(r"\+?[0-9]{1,18}(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?", text.replace(",", "."), re.ASCII):
        return None
    value = float(text.replace(",", "."))
    return int(value) if value.is_integer() else None


def _digit(text: str) -> int | None:
    number = _number(text)
    return number if number is not None and number < CLASSES else None


def _is_score(text: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]{1,3})?", text, re.ASCII) is not None


def _likeliest(values: list[str]) -> int | None:
    """Return which of ten numbers is the greatest. Return None if one is not a number, or two are the greatest."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    is_clear = all(map(math.isfinite, numbers)) and numbers.count(max(numbers)) == 1
    return numbers.index(max(numbers)) if is_clear else None
