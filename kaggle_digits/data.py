"""Read the competition's files from wherever they lie, and refuse what would be misread.

The happy path parses plain files in large blocks. Where anything in a file is not plain, a slow second pass over it
finds the line and the reason, or finds that it can be read after all.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from kaggle_digits.config import CLASSES, COMPETITION, PIXELS, SAMPLE, SIDE, DataError

if TYPE_CHECKING:  # importing it costs 0.1 s, and `check` does not need it
    import numpy as np

log = logging.getLogger(__name__)

PIXEL_COLUMNS = [f"pixel{i}" for i in range(PIXELS)]
COLUMNS = {"train": ["label", *PIXEL_COLUMNS], "test": PIXEL_COLUMNS}
COLUMNS_IN_WORDS = {
    "train": f"{PIXELS + 1} columns (label, pixel0 … pixel{PIXELS - 1})",
    "test": f"{PIXELS} columns (pixel0 … pixel{PIXELS - 1})",
}
OTHER = {"train": "test", "test": "train"}
KAGGLE_MOUNTS = (Path("/kaggle/input/competitions") / COMPETITION, Path("/kaggle/input") / COMPETITION)
ZIP_NAME = f"{COMPETITION}.zip"
WHOLE_NUMBER = re.compile(r" *[0-9]+(\.0*)? *")
BLOCK = 1 << 18
"""Bytes parsed at once; all that is made of them fits into the cache."""
BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""What reading a damaged or encrypted archive raises."""


@dataclass(frozen=True)
class Table:
    """A CSV file, plain, gzipped, or inside a zip.

    Args:
        path: the file on disk.
        member: the name inside the zip, or None.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the uncompressed bytes; a damaged archive becomes a DataError, also while reading."""
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


@dataclass(frozen=True)
class Source:
    """Where the data comes from: ``tables`` has "train", "test" or both; empty for the built-in sample."""

    name: str
    tables: dict[str, Table]

    @property
    def is_sample(self) -> bool:
        """Whether this is the built-in sample and not the competition."""
        return self.name == SAMPLE


@dataclass(frozen=True)
class TrainingRows:
    """Labelled rows.

    Args:
        pixels: (N, 784) uint8, 0–255.
        digits: (N,) int64, 0–9.
    """

    pixels: np.ndarray
    digits: np.ndarray

    def __len__(self) -> int:
        return len(self.digits)

    def take(self, rows: np.ndarray) -> TrainingRows:
        """Return the given rows, in the given order."""
        return TrainingRows(self.pixels[rows], self.digits[rows])


def find_source(data: str | os.PathLike[str] | None = None) -> Source:
    """Find the competition's files, or take the built-in sample with a notice.

    Args and errors are those of ``find_competition``.
    """
    source = find_competition(data)
    if source is None:
        log.warning(
            "No competition data found in $KDIGITS_DATA, Kaggle's mounts, ./data or %s: using the built-in sample, "
            "1,797 small digits. Its submission cannot be uploaded. Pass --data to name the real files.",
            cache_folder(),
        )
        source = Source(SAMPLE, {})
    return source


def find_competition(data: str | os.PathLike[str] | None = None) -> Source | None:
    """Find the competition's files, if they are anywhere.

    Args:
        data: a folder, a zip, a single CSV (plain, .gz or .zip) or the word "sample". None looks at
            $KDIGITS_DATA, Kaggle's mounts, ./data and the download cache, in this order.

    Returns:
        the source, or None where nothing was named and nothing found.

    Raises:
        DataError: nothing usable at a place that was named.
    """
    if data is None:
        data = os.environ.get("KDIGITS_DATA") or None
    if data is not None:
        if str(data) == SAMPLE:
            return Source(SAMPLE, {})
        return _source_at(Path(data))
    for place in (*KAGGLE_MOUNTS, Path("data"), cache_folder()):
        tables = _tables_in(place)
        if tables:
            return Source(str(place), tables)
    return None


def cache_folder() -> Path:
    """Return the folder that downloads go to: $KDIGITS_CACHE, else the user's cache folder."""
    own = os.environ.get("KDIGITS_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kaggle_digits"


def _source_at(path: Path) -> Source:
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder. Expected a folder with train.csv and test.csv, {ZIP_NAME}, a CSV file, "
            f"or the word {SAMPLE}. Check the path, or run `kaggle competitions download {COMPETITION}`."
        )
    tables = _tables_in(path)
    if not tables:
        raise DataError(
            f"{path}: no train.csv and no test.csv in it. Expected at least one of them (plain, .gz or .zip) or "
            f"{ZIP_NAME}. Pass the folder or zip that `kaggle competitions download {COMPETITION}` leaves."
        )
    return Source(str(path), tables)


def _tables_in(path: Path) -> dict[str, Table]:
    """Return the tables of a folder, a zip or a single file; empty if there are none."""
    if not path.is_dir():
        return _tables_in_file(path) if path.is_file() else {}
    found = {}
    for kind in COLUMNS:
        for suffix in (".csv", ".csv.gz", ".csv.zip"):
            file = path / f"{kind}{suffix}"
            if file.is_file():
                found[kind] = _tables_in_zip(file).get(kind, Table(file)) if suffix == ".csv.zip" else Table(file)
                break
    if not found and (path / ZIP_NAME).is_file():
        return _tables_in_zip(path / ZIP_NAME)
    return found


def _tables_in_file(path: Path) -> dict[str, Table]:
    if path.suffix == ".zip":
        return _tables_in_zip(path)
    # A file may have any name: its header says what it is. A header of neither kind is explained when it is read,
    # against the kind that its name suggests.
    table = Table(path)
    named = "test" if path.name.startswith("test") else "train"
    for kind in (named, OTHER[named]):
        if set(_read_header(table)) == set(COLUMNS[kind]):
            return {kind: table}
    return {named: table}


def _tables_in_zip(path: Path) -> dict[str, Table]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except BROKEN as error:
        raise DataError(
            f"{path}: not a whole zip file ({error}). Expected the zip that `kaggle competitions download` leaves; "
            "this one is damaged or cut short. Download it again."
        ) from error
    for member in members:
        if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member.replace("\\", "/")).parts:
            raise DataError(
                f"{path}: the member {member!r} points outside the archive. Expected plain file names. This zip is "
                "not from Kaggle and may be hostile; do not use it."
            )
    return {
        kind: Table(path, member)
        for kind in COLUMNS
        for member in members
        if PurePosixPath(member).name == f"{kind}.csv" and "__MACOSX" not in member
    }


def load_train(source: Source) -> TrainingRows:
    """Read the labelled rows of a source.

    Returns:
        pixels (N, 784) uint8 and digits (N,) int64; 42,000 rows in the competition.

    Raises:
        DataError: the file is missing or malformed; the message names the line.
    """
    rows = _sample()[0] if source.is_sample else _read_train(_table_of(source, "train"))
    log.info("%s training rows from %s", f"{len(rows):,}", source.name)
    return rows


def _read_train(table: Table) -> TrainingRows:
    import numpy as np

    values = _read_table(table, "train")
    digits = values[:, 0].astype(np.int64)
    wrong = np.flatnonzero(digits >= CLASSES)
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"{table}: row {row + 1} (line {row + 2}) has label {digits[row]}. Expected a digit from 0 to 9. "
            "Correct or remove the row."
        )
    missing = sorted(set(range(CLASSES)) - set(np.unique(digits).tolist()))
    if missing:
        log.warning(
            "%s: no row is labelled %s. A network trained on it never predicts what it has not seen.",
            table,
            ", ".join(map(str, missing)),
        )
    # Dropping the label column by slicing would leave rows that do not lie in one piece.
    return TrainingRows(np.ascontiguousarray(values[:, 1:]), digits)


def load_test(source: Source) -> np.ndarray:
    """Read the rows to predict.

    Returns:
        pixels (N, 784) uint8; 28,000 rows in the competition.

    Raises:
        DataError: the file is missing or malformed; the message names the line.
    """
    pixels = _sample()[1] if source.is_sample else _read_table(_table_of(source, "test"), "test")
    log.info("%s test rows from %s", f"{len(pixels):,}", source.name)
    return pixels


def count_test_rows(source: Source) -> int:
    """Count the rows of the test file without parsing it: what a submission must have.

    Raises:
        DataError: the source has no test file.
    """
    if source.is_sample:
        return len(_sample()[1])
    lines, last = 0, b"\n"
    with _table_of(source, "test").open() as stream:
        while block := stream.read(1 << 20):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n") - 1


def one_hot(digits: np.ndarray) -> np.ndarray:
    """Turn digits into one-hot labels.

    Args:
        digits: (N,) integers, 0–9.

    Returns:
        (N, 10) float32, a single 1 in every row; as ``keras.utils.to_categorical``, without importing Keras.

    >>> one_hot([1])
    array([[0., 1., 0., 0., 0., 0., 0., 0., 0., 0.]], dtype=float32)
    """
    import numpy as np

    return np.eye(CLASSES, dtype=np.float32)[np.asarray(digits)]


def split_rows(rows: TrainingRows, *, fraction: float, seed: int) -> tuple[TrainingRows, TrainingRows]:
    """Split rows into those to train on and those held out, each class in the same proportion.

    Args:
        rows: the labelled rows.
        fraction: share of the rows to hold out, above 0 and below 1.
        seed: the same seed gives the same split.

    Returns:
        training rows, held-out rows.

    Raises:
        DataError: too few rows for every class to appear on both sides.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    present, counts = np.unique(rows.digits, return_counts=True)
    # Two rows of every class, and room for every class among the held-out rows: what stratifying needs.
    needed = int(np.ceil(len(present) / min(fraction, 1 - fraction)))
    if counts.min() < 2 or len(rows) < needed:
        raise DataError(
            f"training data: {len(rows)} rows, {counts.min()} of them of digit {present[counts.argmin()]}. Expected at "
            f"least {needed} rows and 2 of every digit, to hold out {fraction:.0%} of each. Add rows."
        )
    kept, held_out = train_test_split(
        np.arange(len(rows)), test_size=fraction, stratify=rows.digits, random_state=seed, shuffle=True
    )
    return rows.take(kept), rows.take(held_out)


def _table_of(source: Source, kind: str) -> Table:
    if kind in source.tables:
        return source.tables[kind]
    raise DataError(
        f"{source.name}: holds {OTHER[kind]}.csv but no {kind}.csv. Expected {kind}.csv with "
        f"{COLUMNS_IN_WORDS[kind]}. Pass a folder or zip that has it."
    )


def _read_header(table: Table) -> list[str]:
    with table.open() as stream:
        return _parse_header(stream, table)


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


def _read_table(table: Table, kind: str) -> np.ndarray:
    """Read a whole table into (N, 785) or (N, 784) uint8, columns in Kaggle's order."""
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
    """Parse what follows the header into (N, columns) uint8, or return None where a byte is not as expected.

    Only bare numbers from 0 to 255, commas and line ends pass. The whole is done on blocks that fit into the
    processor's cache, which reads a zip in less time than pandas reads the unpacked file; and pandas 2 cannot be used,
    since it reads 256 as 0 without a word.
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
    """Parse whole lines of bare numbers; None where a byte or a count is not as expected."""
    import numpy as np

    characters = np.frombuffer(text, np.uint8)
    values = characters - np.uint8(ord("0"))  # other characters wrap to 10 and above
    is_digit = values <= 9
    ends = np.flatnonzero(~is_digit)  # behind every number
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
    # At every character: the number that its last three digits make, if it ended here.
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
    doubled = sorted({name for name in names if names.count(name) > 1})
    missing = [name for name in expected if name not in names]
    unknown = [name for name in names if name not in expected]
    faults = [
        f"{title} {', '.join(map(repr, found[:3]))}{f' and {len(found) - 3} more' if len(found) > 3 else ''}"
        for title, found in (("doubled:", doubled), ("missing:", missing), ("not known:", unknown))
        if found
    ]
    raise DataError(
        f"{table}: {len(names)} columns; {'; '.join(faults)}. Expected {COLUMNS_IN_WORDS[kind]}, each once, in any "
        "order. Correct the header, or pass the competition's own file."
    )


def _read_slowly(table: Table, names: list[str]) -> np.ndarray:
    """Read a table that is not plain, such as one with quotes or spaces, or raise a DataError at its first bad line."""
    import numpy as np

    rows = []
    with table.open() as stream:
        lines = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline=""))
        next(lines)
        for row, values in enumerate(lines, start=1):
            fault = _fault_of_row(values, names)
            if fault:
                raise DataError(f"{table}: row {row} (line {lines.line_num}) {fault}")
            rows.append(np.array(values, np.float64).astype(np.uint8))
    return np.array(rows).reshape(-1, len(names))


def _fault_of_row(values: list[str], names: list[str]) -> str | None:
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


def _sample() -> tuple[TrainingRows, np.ndarray]:
    """Make MNIST-like data of scikit-learn's 1,797 handwritten digits: 8×8, resampled into a 20×20 box in 28×28.

    Source: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits", as in scikit-learn.
    """
    import numpy as np
    from scipy import ndimage
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    small, digits = load_digits(return_X_y=True)
    images = ndimage.zoom(small.reshape(-1, 8, 8), (1, 2.5, 2.5), order=1, grid_mode=True, mode="nearest")
    margin = (SIDE - images.shape[1]) // 2
    images = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    pixels = np.rint(images.reshape(len(images), PIXELS) * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(np.arange(len(digits)), test_size=0.2, stratify=digits, random_state=0)
    return TrainingRows(pixels[train], digits[train].astype(np.int64)), pixels[test]
