"""Find out what the columns of a table of digits mean, by their names and values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kaggle_digits.digits import CLASSES, PIXELS, SIDE
from kaggle_digits.errors import DataError
from kaggle_digits.tables.form import EXPECTED, Form, wrong_length

if TYPE_CHECKING:  # importing it costs 0.1 s, and `check` does not need it
    import numpy as np

LABELS = {"label", "labels", "class", "digit", "digits", "target", "y"}
"""Names of a label column, in small letters."""


@dataclass(frozen=True)
class Columns:
    """The meaning of a table's columns.

    Args:
        pixels: the 784 columns of the pixels, row by row of an image.
        label: the column of the label, or None.
        notes: differences from Kaggle's form.
        one_hot: ten columns with a one-hot label; or none.
    """

    pixels: list[int]
    label: int | None
    notes: tuple[str, ...]
    one_hot: tuple[int, ...] = ()


def find_columns(form: Form, values: np.ndarray, kind: str, name: str) -> Columns:
    """Find out what the columns of a table mean, by their names and values.

    Args:
        form: how the file is written.
        values: (N, width), its values.
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
            raise wrong_length(name, form, 1, len(columns), len(names))
        names = ("", *names)
    if one_hot := _find_one_hot(columns, values):
        columns, kind = [column for column in columns if column not in one_hot], "test"
        notes.append("a one-hot label in ten columns")
    if names is None:
        told = _columns_without_names(columns, values, kind, name)
    else:
        told = _columns_by_names(columns, names, values, kind, name)
    if one_hot and told.label is not None:
        raise DataError(f"{name}: has a label and ten columns of a one-hot label. Expected one of them.")
    return replace(told, one_hot=one_hot, notes=(*notes, *told.notes))


def _is_empty(values: np.ndarray) -> bool:
    import numpy as np

    return values.dtype.kind == "f" and bool(np.isnan(values).all())


def _find_one_hot(columns: Sequence[int], values: np.ndarray) -> tuple[int, ...]:
    """Return ten columns in a row, the last ones or among the first, that hold a one-hot label; none if there are none.

    The corners of an image are paper, so ten pixels there never have exactly one 1 in every row.
    """
    starts = range(len(columns) - PIXELS - CLASSES + 1)
    for start in (len(columns) - CLASSES, *starts) if starts else ():
        ten = tuple(columns[start : start + CLASSES])
        part = values[:, ten]
        if (part == 1).sum() == len(part) and ((part != 0).sum(axis=1) == 1).all():
            return ten
    return ()


def _named(names: Sequence[str], column: int) -> bool:
    return column < len(names) and bool(names[column])


def wrong_width(name: str, width: int, what: str | None = None, remedy: str = "") -> DataError:
    """Return the error about a table whose columns do not fit images of 28 × 28.

    Args:
        name: of the file.
        width: the number of columns.
        what: the fault; None if it is that number.
        remedy: what to do; "" for the usual advice, for example about images of another size.
    """
    sides = [math.isqrt(pixels) for pixels in (width, width - 1) if pixels > 0 and math.isqrt(pixels) ** 2 == pixels]
    is_other_size = not remedy and bool(sides) and sides[0] > 4 and sides[0] != SIDE
    like = f", like images of {sides[0]} × {sides[0]}" if is_other_size else ""
    advice = "Bring the images to 28 × 28, or pass" if is_other_size else remedy or "Check how it was made, or pass"
    ending = "" if remedy else " the competition's own file."
    return DataError(f"{name}: {what or f'{width:,} columns'}{like}. {EXPECTED} {advice}{ending}")


def _holds_digits(values: np.ndarray) -> bool:
    """Whether a column can hold labels. In a longer table, a column of zeros is a corner of the images."""
    import numpy as np

    return bool(np.isin(values, np.arange(CLASSES)).all() and (values.any() or len(values) <= CLASSES))


def _counts_up(values: np.ndarray) -> bool:
    """Whether a column numbers the rows, from 0 or from 1, or from −1 if the first row was taken for a header."""
    import numpy as np

    return values[0] in (-1, 0, 1) and bool((np.diff(values.astype(np.float64)) == 1).all())


def _columns_without_names(columns: list[int], values: np.ndarray, kind: str, name: str) -> Columns:
    """Find columns by their values: an index counts the rows, a label is one of ten digits."""
    notes: list[str] = []
    without_header, extra = f"{len(columns)} columns without a header", len(columns) - PIXELS
    if extra not in (0, 1, 2):
        what, remedy = None, ""
        if 2 < extra <= CLASSES + 2:
            what = f"{without_header}, which are {extra} more than the {PIXELS} pixels"
            remedy = "Add a header that names the label and the pixels, as in label,pixel0,pixel1,…"
        raise wrong_width(name, len(columns), what, remedy)
    numbers_rows = "a first column that numbers the rows"
    can_be_index = _counts_up(values[:, columns[0]])
    if extra == 2:
        if not can_be_index:
            raise wrong_width(name, len(columns), f"{len(columns)} columns, and the first does not number the rows")
        columns, notes, can_be_index = columns[1:], [f"{numbers_rows} left out"], False
        without_header = f"{len(columns)} columns without a header"
    if extra == 0:
        if kind == "train":
            raise DataError(f"{name}: {without_header}. {EXPECTED} A training table needs the label.")
        return Columns(columns, None, ())
    first, last = values[:, columns[0]], values[:, columns[-1]]
    ways = {
        "label first": _holds_digits(first),
        "label last": _holds_digits(last),
        numbers_rows: can_be_index and kind == "test",
    }
    # The corners of an image are paper: a column of zeros is a pixel, if the other is not all zeros.
    if ways["label first"] and ways["label last"] and first.any() != last.any():
        ways["label first"], ways["label last"] = bool(first.any()), bool(last.any())
    if ways[numbers_rows] and len(first) > CLASSES:
        ways["label last"] = False
    possible = [way for way, is_possible in ways.items() if is_possible]
    if not possible:
        edges = [f"from {column.min():g} to {column.max():g}" for column in (first, last)]
        what = f"{without_header}; the first holds values {edges[0]}, the last {edges[1]}, and labels go from 0 to 9"
        remedy = "Put the label into the first column, as a digit, or add a header."
        raise wrong_width(name, len(columns), what, remedy)
    if len(possible) > 1:
        raise DataError(
            f"{name}: {without_header} can be understood in two ways: {' or '.join(possible)}. Expected one. Add a "
            "header, as in label,pixel0,pixel1,…"
        )
    if possible[0] == "label first":
        return Columns(columns[1:], columns[0], (*notes, "the label in the first column"))
    if possible[0] == "label last":
        return Columns(columns[:-1], columns[-1], (*notes, "the label in the last column"))
    return Columns(columns[1:], None, (*notes, f"{numbers_rows} left out"))


def _columns_by_names(columns: list[int], names: Sequence[str], values: np.ndarray, kind: str, name: str) -> Columns:
    """Find columns by their names, whatever the pixels are called."""
    if told := _columns_of_plain_numbers(columns, names, values, kind, name):
        return told
    # Normalised names of index columns.
    index_names = {"", "index", "idx", "id", "ids", "row", "rowid", "rownames", "imageid", "no", "nr"}
    index_names |= {"file", "filename"}
    notes: list[str] = []
    plain = {column: re.sub(r"[^a-z0-9]", "", names[column].lower().removeprefix("unnamed")) for column in columns}
    unnamed = {column for column in columns if _is_unnamed(names[column])}
    labels = [column for column in columns if plain[column] in LABELS and column not in unnamed]
    pixels = _numbered(columns, names)
    known = {*labels, *pixels}
    others = [column for column in columns if column not in known]
    indexes = [column for column in others if column in unnamed or plain[column] in index_names]
    unknown = [column for column in others if column not in indexes]
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
        several = "s" if len(indexes) > 1 else ""
        notes.append(f"the column{several} {', '.join(repr(names[c]) for c in indexes)} left out")
    if [names[column] for column in pixels] != [f"pixel{number}" for number in range(PIXELS)]:
        notes.append(f"pixels in the columns {names[pixels[0]]!r} to {names[pixels[-1]]!r}")
    elif pixels != sorted(pixels):
        notes.append("pixels put in order")
    return Columns(pixels, label, tuple(notes))


def _columns_of_plain_numbers(
    columns: Sequence[int], names: Sequence[str], values: np.ndarray, kind: str, name: str
) -> Columns | None:
    """Find columns whose names only number them, including the label: 0 to 784, or V1 to V785."""
    counted = [column for column in columns if not _is_unnamed(names[column])]
    words = {tuple(re.split(r"[0-9]+", names[column].strip().lower())) for column in counted}
    numbers = [int("".join(re.findall(r"[0-9]+", names[column]))[:9] or -1) for column in counted]
    if not (
        len(counted) in (PIXELS + 1, PIXELS + 2)
        and len(words) == 1
        and not any("p" in word for word in words.pop())  # pixels, and nothing else
        and numbers in (list(range(len(counted))), list(range(1, len(counted) + 1)))
    ):
        return None
    told = _columns_without_names(counted, values, kind, name)
    left_out = (f"the column {names[column]!r} left out" for column in columns if column not in counted)
    return replace(told, notes=(*told.notes, *left_out))


def _is_unnamed(name: str) -> bool:
    return re.fullmatch(r"\s*|unnamed.*", name.strip().lower()) is not None


def _numbered(columns: Sequence[int], names: Sequence[str]) -> list[int]:
    """Return the columns whose names count 784 pixels, in the order of the numbers: pixel0, px_1, 1x1, 0 …"""
    by_prefix: dict[tuple[str, ...], dict[int, tuple[int, ...]]] = {}
    for column in columns:
        numbers = tuple(map(int, re.findall(r"[0-9]+", names[column])))
        words = tuple(re.split(r"[0-9]+", names[column].strip().lower()))
        if 1 <= len(numbers) <= 2:
            by_prefix.setdefault(words, {})[column] = numbers
    for numbered in by_prefix.values():
        for start in (0, 1):
            single: list[tuple[int, ...]] = [(start + p,) for p in range(PIXELS)]
            double: list[tuple[int, ...]] = [(start + p // SIDE, start + p % SIDE) for p in range(PIXELS)]
            if len(numbered) != PIXELS or set(numbered.values()) not in (set(single), set(double)):
                continue
            transposed = [(start + p % SIDE, start + p // SIDE) for p in range(PIXELS)]
            if list(numbered.values()) != transposed:  # or their order contradicts their names: see _check_order
                return sorted(numbered, key=lambda column: numbered[column])
    return []


def _check_order(pixels: Sequence[int], names: Sequence[str], name: str) -> None:
    """Refuse names that say one order while the columns stand in another."""
    numbers = [tuple(map(int, re.findall(r"[0-9]+", names[column]))) for column in pixels]
    say_order = len(set(map(len, numbers))) == 1 and len(numbers[0]) in (1, 2) and len(set(numbers)) == PIXELS
    if say_order and numbers != sorted(numbers):
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
    if len(columns) < 4:
        told = ", ".join(repr(names[column]) for column in columns)
        return DataError(f"{name}: {len(columns)} columns ({told}), and no pixels. {EXPECTED} Name another file.")
    if count > 3 and count == side**2 and count != PIXELS:
        return wrong_width(name, count, f"{count:,} pixels in a row")
    pixel_names = [f"pixel{number}" for number in range(PIXELS)]
    missing = [pixel for pixel in pixel_names if pixel not in names]
    if count and len(missing) < PIXELS:
        repeated = sorted({names[c] for c in unknown if list(names).count(names[c]) > 1})
        strange = [names[c] for c in unknown if names[c] not in pixel_names]
        kinds = {"repeated": repeated, "missing": missing, "unknown": strange}
        faults = [f"{kind}: {_some(columns)}" for kind, columns in kinds.items() if columns]
        return DataError(
            f"{name}: {len(columns)} columns; {'; '.join(faults)}. {EXPECTED} Correct the header, or pass the "
            "competition's own file."
        )
    return wrong_width(name, len(columns) - len(labels) - len(indexes), f"{len(columns):,} columns")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
