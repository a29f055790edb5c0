"""The rows: find train.csv and test.csv, read them, and hold rows out.

pandas reads the competition's own form here. ``tables`` reads everything else: other forms, other places, wrong values.
It is imported only when it is needed.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kaggle_digits.digits import CLASSES, PIXELS, SIDE
from kaggle_digits.errors import DataError
from kaggle_digits.files import BROKEN
from kaggle_digits.tables import SAMPLE, ZIP_NAME, Rows, Source, Table

if TYPE_CHECKING:  # importing NumPy costs 0.1 s, and `check` does not need it
    import numpy as np

log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class KaggleTable:
    """A table under the competition's own name, in a folder or in its zip. ``tables.text`` reads an unusual one.

    Args:
        path: the CSV file, or the zip.
        member: the name of the CSV file in the zip, or None.
    """

    path: Path
    member: str | None = None
    is_kaggle = True

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    def read(self, kind: str, *, beside: Table | None = None) -> Rows:
        """Read the whole table: with pandas if it has Kaggle's form, else with ``tables``."""
        import numpy as np
        import pandas as pd

        names = ["label"] * (kind == "train") + [f"pixel{number}" for number in range(PIXELS)]
        try:
            with self._open() as stream, np.errstate(invalid="ignore"):
                # pandas refuses values that do not fit into a byte, and missing ones.
                frame = pd.read_csv(stream, dtype=np.uint8, skip_blank_lines=False)
        except (*BROKEN, TypeError):  # ``tables`` says what is wrong, and where
            return self.foreign().read(kind, beside=beside)
        is_usual = list(frame.columns) == names and isinstance(frame.index, pd.RangeIndex)
        values = frame.to_numpy()
        pixels, labels = np.ascontiguousarray(values[:, -PIXELS:]), values[:, 0]
        if not is_usual or (kind == "train" and (labels >= CLASSES).any()) or not _look_usual(pixels):
            return self.foreign().read(kind, beside=beside)
        return Rows(pixels, labels.astype(np.int64) if kind == "train" else None)

    def load(self, kind: str) -> Rows:
        """Read the whole table with ``tables.text``."""
        return self.foreign().load(kind)

    def count(self) -> int:
        """Count the lines after the header that are not blank."""
        return self.foreign().count()

    def foreign(self) -> Any:
        """Return the same file as a ``tables.text.CsvTable``, which reads any form."""
        text = import_module("kaggle_digits.tables.text")
        return text.CsvTable(text.File(self.path, self.member))

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if not self.member:
            with self.path.open("rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
            if archive.getinfo(self.member).file_size > 2**28:  # three times the size of train.csv
                raise ValueError("far too large")
            yield stream


def _look_usual(pixels: np.ndarray) -> bool:
    """Whether there are many images, with bright ink in many shades on dark paper, and most are taller than wide."""
    if len(pixels) < 50 or pixels.max() <= 1 or (pixels >= 224).mean(axis=1).max() > 0.5:
        return False
    ink = pixels[:: max(1, len(pixels) // 2000)].reshape(-1, SIDE, SIDE) > 127
    return bool((ink.any(axis=2).sum(axis=1) > ink.any(axis=1).sum(axis=1)).mean() > 0.7)


def find_source(data: str | os.PathLike[str] | None = None) -> Source:
    """Find the competition's files.

    Args:
        data: a folder, a zip, a single table (plain, .gz or .zip), MNIST's own files, mnist.npz, or the word "sample".
            None searches $KDIGITS_DATA, Kaggle's mounts, ./data, ./data/digit-recognizer, the current folder and the
            download cache, in this order. If nothing is there, the built-in sample is used, and a warning says so.

    Raises:
        DataError: the named place holds nothing usable.
    """
    path = Path(data or os.environ.get("KDIGITS_DATA") or SAMPLE)
    files = {"train": "train.csv", "test": "test.csv"}
    usual, optional = {*files.values()}, {"sample_submission.csv"}
    if path.is_dir() and str(path) != SAMPLE:
        if usual <= {file.name for file in path.iterdir() if file.is_file()} <= usual | optional | {ZIP_NAME}:
            return Source(str(path), {kind: KaggleTable(path / name) for kind, name in files.items()})
    elif path.name == ZIP_NAME and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if usual <= {*archive.namelist()} <= usual | optional:
                return Source(str(path), {kind: KaggleTable(path, name) for kind, name in files.items()})
    return import_module("kaggle_digits.tables.find").find_source(data)


def load_train(source: Source) -> TrainingRows:
    """Read the labelled rows of a source.

    Returns:
        pixels (N, 784) uint8 and digits (N,) int64; 42,000 rows in the competition.

    Raises:
        DataError: the file is missing, malformed or ambiguous; the message names the line.
    """
    rows = _sample(0) if source.is_sample else table_of(source, "train").read("train")
    assert rows.digits is not None  # a table of training rows has labels
    missing = sorted({*range(CLASSES)} - {*rows.digits.tolist()})
    if missing:
        log.warning(
            "%s: no row is labelled %s. A network trained on it never predicts what it has not seen.",
            table_of(source, "train"),
            ", ".join(map(str, missing)),
        )
    log.info("%s training rows from %s", f"{len(rows.pixels):,}", source)
    return TrainingRows(rows.pixels, rows.digits)


def load_test(source: Source) -> np.ndarray:
    """Read the rows to predict.

    Returns:
        pixels (N, 784) uint8; 28,000 rows in the competition.

    Raises:
        DataError: the file is missing, malformed or ambiguous; the message names the line.
    """
    return load_test_rows(source).pixels


def load_test_rows(source: Source, *, alone: bool = False) -> Rows:
    """Read the rows to predict, and their labels if the file has some.

    Args:
        source: where the data comes from.
        alone: whether to predict the training rows if the source has no test rows.

    Raises:
        DataError: as ``load_test``.
    """
    if source.is_sample:
        rows = _sample(1)
    elif alone and "test" not in source.tables:
        rows = table_of(source, "train").read("test")
    else:
        rows = table_of(source, "test").read("test", beside=source.tables.get("train"))
    log.info("%s test rows from %s", f"{len(rows.pixels):,}", source)
    return rows


def why_not_uploadable(source: Source, rows: Rows) -> str | None:
    """Say why predictions for these test rows cannot be uploaded to the competition, or return None."""
    if source.is_sample:
        return f"it was made from the built-in {SAMPLE}"
    if rows.digits is not None:
        return "its test rows have labels, which those of the competition do not have"
    table = source.tables.get("test") or source.tables["train"]
    return None if table.is_kaggle else f"its test rows come from {source}, which is not the competition's file"


def table_of(source: Source, kind: str) -> Table:
    """Return a table of a source.

    Raises:
        DataError: the source has none of that kind.
    """
    if kind in source.tables:
        return source.tables[kind]
    (other,) = source.tables
    raise DataError(
        f"{source}: holds {other}.csv but no {kind}.csv. Expected a label and {PIXELS} pixels (28 × 28) in each row, "
        "or the pixels alone. Pass a folder or zip that has both."
    )


def _sample(part: int) -> Rows:
    """Return the labelled rows, or those to predict, of the built-in sample."""
    return import_module("kaggle_digits.tables.sample").load_sample()[part]


@dataclass(frozen=True, kw_only=True)
class Split:
    """How rows are divided into those to train on and those held out to measure accuracy.

    Args:
        seed: the same seed gives the same division.
        fraction: the share of the rows that is held out; None for one of several folds.
        folds: the number of folds.
        fold: the held-out fold, counted from 0.
    """

    seed: int
    fraction: float | None = None
    folds: int | None = None
    fold: int | None = None

    def of(self, rows: TrainingRows) -> tuple[TrainingRows, TrainingRows]:
        """Return the rows to train on, and the held-out rows.

        Raises:
            DataError: there are too few rows.
        """
        if self.fraction is not None:
            return split_rows(rows, fraction=self.fraction, seed=self.seed)
        fold = fold_rows(rows, self.folds or 0, seed=self.seed)
        return rows.take((fold != self.fold).nonzero()[0]), rows.take((fold == self.fold).nonzero()[0])


def split_rows(rows: TrainingRows, *, fraction: float, seed: int) -> tuple[TrainingRows, TrainingRows]:
    """Split rows into training rows and held-out rows, with each class in the same proportion on both sides.

    The split is the one that scikit-learn's ``train_test_split`` makes with ``stratify``. scikit-learn itself is not
    used, because importing it takes longer than reading the CSV files.

    Args:
        rows: the labelled rows.
        fraction: share of the rows to hold out, above 0 and below 1.
        seed: the same seed gives the same split.

    Returns:
        training rows and held-out rows, both shuffled.

    Raises:
        DataError: too few rows for every class to appear on both sides.
    """
    import numpy as np

    present, counts = np.unique(rows.digits, return_counts=True)
    # Stratifying needs two rows of every class, and at least one row per class on either side.
    needed = int(np.ceil(len(present) / min(fraction, 1 - fraction)))
    if counts.min() < 2 or len(rows) < needed:
        raise DataError(
            f"training data: {len(rows)} rows, {counts.min()} of them of digit {present[counts.argmin()]}. Expected at "
            f"least {needed} rows and 2 of every digit, to hold out {fraction:.0%} of each. Add rows."
        )
    draw = np.random.RandomState(seed)
    held_out_rows = int(np.ceil(fraction * len(rows)))
    kept_counts = _share_out(counts, len(rows) - held_out_rows, draw)
    held_out_counts = _share_out(counts - kept_counts, held_out_rows, draw)
    kept: list[np.ndarray] = []
    held_out: list[np.ndarray] = []
    for digit, of_kept, of_held_out in zip(present, kept_counts, held_out_counts, strict=True):
        shuffled = draw.permutation(np.flatnonzero(rows.digits == digit))
        kept.append(shuffled[:of_kept])
        held_out.append(shuffled[of_kept : of_kept + of_held_out])
    return rows.take(draw.permutation(np.concatenate(kept))), rows.take(draw.permutation(np.concatenate(held_out)))


def _share_out(counts: np.ndarray, total: int, draw: np.random.RandomState) -> np.ndarray:
    """Share a total among classes in proportion to their counts, in whole numbers.

    The largest remainders are rounded up. Ties are broken at random.
    """
    import numpy as np

    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders = exact - shares
    for remainder in np.unique(remainders)[::-1]:
        missing = int(total - shares.sum())
        if missing == 0:
            break
        tied = np.flatnonzero(remainders == remainder)
        shares[draw.choice(tied, size=min(missing, len(tied)), replace=False)] += 1
    return shares.astype(int)


def fold_rows(rows: TrainingRows, folds: int, *, seed: int) -> np.ndarray:
    """Divide rows into folds of equal size, with each class in the same proportion in all of them.

    Args:
        rows: the labelled rows.
        folds: how many folds, 2 or more.
        seed: the same seed gives the same folds.

    Returns:
        (N,) int64, the fold of each row, counted from 0.

    Raises:
        DataError: a digit has too few rows to be in every fold.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    present, counts = np.unique(rows.digits, return_counts=True)
    if folds < 2 or counts.min() < folds:
        raise DataError(
            f"{folds} folds of {len(rows)} rows, {counts.min()} of them of digit {present[counts.argmin()]}. Expected "
            f"2 to {max(2, counts.min())} folds, so that each has every digit. Use another number, or add rows."
        )
    fold = np.empty(len(rows), np.int64)
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(fold, rows.digits)
    for number, (_, held_out) in enumerate(parts):
        fold[held_out] = number
    return fold
