"""Find the competition's files, read them into arrays, encode labels as one-hot, and split off held-out rows."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import re
import shlex
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

from kaggle_digits import CLASSES, PIXELS, SIDE
from kaggle_digits.columns import LABELS
from kaggle_digits.errors import DataError
from kaggle_digits.files import describe_mistaken, expand_home
from kaggle_digits.form import EXPECTED
from kaggle_digits.mnist import IdxTable, KerasTable, idx_content
from kaggle_digits.tables import BROKEN, CsvTable, File, Rows, Table

if TYPE_CHECKING:  # importing NumPy costs 0.1 s, and `check` does not need it
    import numpy as np

log = logging.getLogger(__name__)

COMPETITION = "digit-recognizer"
ZIP_NAME = f"{COMPETITION}.zip"
TEST_ROWS = 28_000
"""The competition's test.csv has this many rows. A submission must have as many if there is no test file to count."""
SAMPLE = "sample"
"""This word, given instead of a path, names the built-in sample."""
SAMPLE_TEST_ROWS = 360
KINDS = ("train", "test")
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "t10k": "test"}
WORDS = {
    "mnist",
    "emnist",
    "digit",
    "digits",
    "recognizer",
    "kaggle",
    "data",
    "set",
    "small",
    "full",
    "csv",
    "in",
    "copy",
}
"""What the name of a text file with digits may hold besides "train" or "test", and besides numbers."""
IDX = re.compile(r".*(images|labels)[-.]idx[123][-.](ubyte|int)(\.gz|\.xz)?")
"""The name of one of MNIST's own files, or of a set like it. Files of other names are known by their first bytes."""
MOST_UNUSUAL = 64
"""If a folder or zip has more files with unusual names, only those named like MNIST's own are opened."""
NEVER_IDX = {".csv", ".tsv", ".txt", ".json", ".md", ".html", ".py", ".ipynb", ".zip", ".npz", ".png", ".jpg", ".jpeg"}
"""Suffixes of files that are not opened to look for MNIST's own."""
DEEPEST, MOST_FOLDERS = 5, 2000
"""How many levels below a folder the data is looked for, and in how many folders at most."""
NOT_DIGITS = re.compile(r"fashion|kmnist|k49|kuzushiji|letters|balanced|byclass|bymerge|sign", re.IGNORECASE)
"""Sets that look like MNIST's files and hold something else."""
ZIP = re.compile(rf"{COMPETITION}(?: ?\(\d+\))?\.zip")
"""The name of the competition's zip, also as a second download."""


@dataclass(frozen=True)
class Source:
    """Where the data comes from.

    Args:
        name: a path, or "sample", as ``--data`` takes it.
        tables: the tables by kind, "train", "test" or both. It is empty for the built-in sample.
    """

    name: str
    tables: dict[str, Table]

    def __str__(self) -> str:
        return "this folder" if self.name == "." else self.name

    def name_for(self, folder: Path) -> str:
        """Return the name under which files in a folder keep it, so that it can be found again.

        It stays relative if it and the folder lie below the current folder, which may be moved as a whole.
        """
        here = Path.cwd()
        below = (Path(each).resolve().is_relative_to(here) for each in (self.name, folder))
        return self.name if self.is_sample or all(below) else str(Path(self.name).resolve())

    @property
    def is_sample(self) -> bool:
        """Whether this is the built-in sample. The name does not decide, because a folder may have the same one."""
        return not self.tables


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
    """Find the competition's files, or fall back on the built-in sample and log a warning.

    Arguments and errors are those of ``find_competition``.
    """
    source = find_competition(data)
    if source is None:
        log.warning("%s", _describe_missing())
        source = Source(SAMPLE, {})
    return source


def _describe_missing() -> str:
    """Say that no data was found, where it was looked for, and what to do. On Kaggle's machines it must stand out."""
    if (inputs := _kaggle_inputs()).is_dir():
        attached = ", ".join(folder.name for folder in sorted(inputs.iterdir())) or "nothing"
        line = "=" * 78
        return (
            f"{line}\nNO COMPETITION DATA: there is no table of digits in {inputs}, which holds {attached}.\n"
            "Using the built-in sample, 1,797 small digits. What is made from it CANNOT BE\nUPLOADED. Attach the data: "
            f"Add Input, Competitions, Digit Recognizer. Run again.\n{line}"
        )
    return (
        f"No competition data found in $KDIGITS_DATA, Kaggle's mounts, ./data, this folder or {cache_folder()}: using "
        "the built-in sample, 1,797 small digits. A submission made from it cannot be uploaded. Fetch the real files "
        f"with `kaggle-digits download`, or name them with --data.{_describe_nearby()}"
    )


def find_competition(data: str | os.PathLike[str] | None = None) -> Source | None:
    """Find the competition's files.

    Args:
        data: a folder, a zip, a single table (plain, .gz or .zip), MNIST's own files, mnist.npz, or the word "sample".
            None searches $KDIGITS_DATA, Kaggle's mounts, ./data, ./data/digit-recognizer, the current folder and the
            download cache, in this order.

    Returns:
        the source, or None if no place was named and no files were found.

    Raises:
        DataError: the place that was named holds nothing usable.
    """
    if data is not None:
        return _source_at(data)
    if named := os.environ.get("KDIGITS_DATA"):
        try:
            return _source_at(named)
        except DataError as error:
            raise DataError(f"$KDIGITS_DATA: {error}") from error
    for folder in itertools.chain(_kaggle_mounts(), [Path("data"), Path("data") / COMPETITION]):
        if tables := _with_sibling(folder, _tables_in_folder(folder, any_zip=folder.is_relative_to(_kaggle_inputs()))):
            return Source(str(folder), tables)
    # Other things lie in the current folder, too, and a train.csv may be one of them.
    tables = {kind: table for kind, table in _tables_in_folder(Path()).items() if _is_of_digits(table)}
    if "train" in tables:
        return Source(".", tables)
    if tables := _tables_in_folder(cache_folder()):
        return Source(str(cache_folder()), tables)
    return None


def find_again(name: str, folder: Path) -> Iterator[Source]:
    """Yield the sources that may be the one that a file in a folder names, see ``Source.name_for``.

    Relative names are tried from here and from the folders above that folder. After them come the places where data is
    looked for without a name. Whoever calls this checks that the rows are the right ones.
    """
    if name == SAMPLE:
        yield Source(SAMPLE, {})
        return
    above = list(folder.resolve().parents)[:3]
    named = [base / name for base in (Path(), *above)]
    usual = [base / place for base in above for place in (".", "data", f"data/{COMPETITION}")]
    seen = set()
    for place in (*named, *usual):
        if place.resolve() in seen:
            continue
        seen.add(place.resolve())
        with contextlib.suppress(DataError, OSError):
            tables = _tables_in_folder(place)
            if not tables and place in named and name != "." and place.exists():
                tables = _source_at(place).tables
            if tables:
                yield Source(f"./{place}" if str(place) == SAMPLE else str(place), tables)
    with contextlib.suppress(DataError, OSError):
        if (source := find_competition()) and Path(source.name).resolve() not in seen:
            yield source


def _kaggle_inputs() -> Path:
    """Return the folder in which a Kaggle notebook has its data."""
    return expand_home(os.environ.get("KDIGITS_KAGGLE") or "/kaggle") / "input"


def _kaggle_mounts() -> Iterator[Path]:
    """Yield the folders where a Kaggle notebook may have the competition's files.

    Today's folder comes first, then the older one, then every folder with a training table of digits: a class's copy of
    the competition, or a dataset.
    """
    inputs = _kaggle_inputs()
    yield inputs / "competitions" / COMPETITION
    yield inputs / COMPETITION
    for folder in _folders_below(inputs):
        with contextlib.suppress(DataError):  # somebody else's data may be damaged
            tables = _tables_in_folder(folder, any_zip=True)
            is_csv = isinstance(tables.get("train"), CsvTable)
            if "train" in tables and _is_of_digits(tables["train"]) and (is_csv or not NOT_DIGITS.search(str(folder))):
                yield folder


def _folders_below(folder: Path) -> Iterator[Path]:
    """Yield the folders below a folder, the nearest first, without hidden ones."""
    level, seen = [folder], 0
    for _ in range(DEEPEST):
        level = [child for parent in level for child in _folders_in(parent)][: MOST_FOLDERS - seen]
        seen += len(level)
        yield from level


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError:  # not a folder, or one that may not be read
        return []


def _is_of_digits(table: Table) -> bool:
    """Whether the rows of a table are as long as those of digits are."""
    if not isinstance(table, CsvTable):
        return True
    try:
        return PIXELS <= table.form().width <= PIXELS + 3
    except DataError:
        return False


def _describe_nearby() -> str:
    """Say what lies in the current folder and might be meant, and how to use it."""
    if table := next(iter(_tables_in_folder(Path()).values()), None):
        if _is_of_digits(table):
            return f" (In this folder: {table}. To use it: --data {shlex.quote(str(table))})"
        return f" ({table} in this folder: not a table of digits, 28 × 28 pixels in a row.)"
    nearby = [file for file in sorted(Path().iterdir()) if file.suffix.lower() in (".csv", ".zip", ".gz", ".npz")]
    return f" (In this folder: {nearby[0]}. To use it: --data {shlex.quote(str(nearby[0]))})" if nearby else ""


def cache_folder() -> Path:
    """Return the folder for downloads: $KDIGITS_CACHE, or else kaggle_digits in the user's cache folder."""
    own = os.environ.get("KDIGITS_CACHE")
    if own:
        return expand_home(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (expand_home(base) if base else Path.home() / ".cache") / "kaggle_digits"


def _source_at(data: str | os.PathLike[str]) -> Source:
    if str(data) == SAMPLE:
        return Source(SAMPLE, {})
    path = expand_home(data)
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder. Expected a folder with train.csv and test.csv, {ZIP_NAME}, a CSV file, "
            f"or the word {SAMPLE}. Check the path, or run `kaggle-digits download`."
        )
    if path.is_dir():
        # torchvision, for one, keeps its files two folders further down, and Kaggle three.
        folders = itertools.chain([path], _folders_below(path))
        found = ((folder, _tables_in_folder(folder, any_zip=True)) for folder in folders)
        tables = next((_with_sibling(folder, tables) for folder, tables in found if tables), {})
    else:
        tables = _tables_in_file(path)
    if not tables:
        raise DataError(
            f"{path}: no train.csv and no test.csv in it. Expected at least one of them (plain, .gz or .zip), "
            f"{ZIP_NAME}, or MNIST's own files. Pass the folder or zip that `kaggle-digits download` leaves."
        )
    # The name is written to run.json, where a folder called sample must not be taken for the built-in sample.
    return Source(f"./{path}" if str(path) == SAMPLE else str(path), tables)


def _with_sibling(folder: Path, tables: dict[str, Table]) -> dict[str, Table]:
    """Add the other table if it lies in a folder beside, as in train/train.csv and test/test.csv."""
    if len(tables) == 1 and folder.name.lower() in SPLITS:
        for other in _folders_in(folder.parent):
            if SPLITS.get(other.name.lower()) not in (None, *tables):
                tables = _tables_in_folder(other) | tables
    return tables


def _tables_in_folder(folder: Path, *, any_zip: bool = False) -> dict[str, Table]:
    """Return the tables in a folder by kind. Single files take precedence over those in the competition's zip.

    Args:
        folder: where to look.
        any_zip: whether a zip of any name is looked into if nothing else is there.
    """
    if not folder.is_dir():
        return {}
    files = {file.name: File(file) for file in sorted(folder.iterdir()) if file.is_file()}
    found = _tables_among(files)
    zips = [file for name, file in files.items() if name.endswith(".zip") and (ZIP.fullmatch(name) or _kind_of(name))]
    for file in sorted(zips, key=lambda file: (ZIP.fullmatch(file.name) is not None, len(file.name))):
        if len(found) < len(KINDS):
            found = _tables_in_zip(file.path) | found
    if not found and any_zip:
        for file in [file for name, file in files.items() if name.endswith(".zip")][:3]:
            with contextlib.suppress(DataError):  # it may be anything
                found = {
                    kind: table for kind, table in _tables_in_zip(file.path).items() if _is_of_digits(table)
                } | found
    return found


def _tables_in_file(path: Path) -> dict[str, Table]:
    name, file = path.name.lower(), File(path)
    if name.endswith(".npz"):
        return {kind: KerasTable(file, kind) for kind in KINDS}
    if name.endswith(".zip") or (zipfile.is_zipfile(path) and not name.endswith(".xlsx")):
        return _tables_in_zip(path)
    # A file may have any name. Then its first line says whether it has labels.
    return _tables_among({path.name: file}, beside=path.parent) or {_kind_by_content(CsvTable(file)): CsvTable(file)}


def _kind_by_content(table: CsvTable) -> str:
    form = table.form()
    names = [name.strip().lower() for name in form.names or ()]
    return "train" if LABELS & set(names) or (not names and form.width > PIXELS) else "test"


def _tables_among(files: dict[str, File], beside: Path | None = None) -> dict[str, Table]:
    """Return the tables among files by kind: MNIST's own before Keras', before text.

    Args:
        files: by their names.
        beside: a folder in which more of MNIST's own files are looked for.
    """
    if "mnist.npz" in files:
        return {kind: KerasTable(files["mnist.npz"], kind) for kind in KINDS}
    found = _idx_tables(files)
    if found and beside:
        found = _idx_tables({file.name: File(file) for file in sorted(beside.iterdir()) if file.is_file()})
    for name in sorted(files, key=lambda name: (len(name.partition(".")[0]), name)):  # train.csv before any other
        if (kind := _kind_of(name)) and not name.lower().endswith(".zip"):
            found.setdefault(kind, CsvTable(files[name], is_kaggle=not name.lower().startswith("mnist")))
    return found


def _idx_tables(files: dict[str, File]) -> dict[str, Table]:
    """Return the tables in the format of MNIST's makers. Of several sets, that of digits is taken, as EMNIST has it.

    Raises:
        DataError: it cannot be told which of several are for training.
    """
    unusual = [name for name in files if not NEVER_IDX & set(Path(name.lower()).suffixes)]
    looked_at = unusual if len(unusual) <= MOST_UNUSUAL else [name for name in unusual if IDX.fullmatch(name.lower())]
    found: dict[tuple[str | None, str], list[tuple[str, int, File]]] = {}
    for name in looked_at:
        known = idx_content(files[name])
        if not known and (match := IDX.fullmatch(name.lower())):
            known = match[1], -1  # damaged, which is told when it is read
        if known:
            found.setdefault((_split_of(files[name], name), known[0]), []).append((name, known[1], files[name]))
    kinds = {kind for kind, _ in found}
    if None in kinds and len(found.get((None, "images"), ())) > 1:
        names = ", ".join(name for name, _, _ in found[None, "images"][:3])
        raise DataError(
            f"{names}: images in MNIST's format, and no name says which are for training. Expected train or test in "
            "the names of the files. Rename them."
        )
    tables: dict[str, Table] = {}
    for kind in sorted(kinds, key=lambda kind: kind is None):
        images = sorted(found.get((kind, "images"), ()), key=lambda each: _likeness(each[0]))
        if images:
            name, count, file = images[0]
            labels = found.get((kind, "labels"), [])
            fitting = [each for each in labels if each[1] == count] or labels
            fitting.sort(key=lambda each: (_set_of(each[0]) != _set_of(name), each[0]))
            table = IdxTable(file, fitting[0][2] if fitting else None)
            tables.setdefault(kind or ("train" if fitting else "test"), table)
    return tables


def _split_of(file: File, name: str) -> str | None:
    """Return "train" or "test" by the words in the name of a file, as in trainImages, or in that of its folder."""
    folder = (file.member or str(file.path)).replace("\\", "/").split("/")[-2:-1]
    for text in (name, *folder):
        words = re.findall(r"[A-Z]?[a-z]+[0-9]*k?|[A-Z]+|[0-9]+", text)
        kinds = {SPLITS[word.lower()] for word in words if word.lower() in SPLITS}
        if len(kinds) == 1:
            return kinds.pop()
    return None


def _set_of(name: str) -> str:
    """Return what the names of images and labels of one set have in common."""
    return re.sub(r"images|labels|idx[0-9]", "", name.lower())


def _likeness(name: str) -> tuple[bool, bool, str]:
    """Sort the sets of digits before those of letters."""
    lower = name.lower()
    return "digits" not in lower, "mnist" not in lower.removeprefix("e"), lower


def _kind_of(name: str) -> str | None:
    """Return the kind of a text file by its name, as in train.csv, test (1).csv.gz or mnist_train_small.csv."""
    match = re.fullmatch(r"(.+)\.(?:csv|tsv|txt)(?:\.(?:gz|bz2|xz|zip))?", name.lower())
    words = re.split(r"[ _.()-]+", match[1]) if match else []
    kinds = [SPLITS[word] for word in words if word in SPLITS]
    others = [word for word in words if word and word not in SPLITS and not re.fullmatch(r"v?[0-9]+", word)]
    if len(kinds) != 1 or not WORDS.issuperset(others):
        return None
    return kinds[0]


def _tables_in_zip(path: Path) -> dict[str, Table]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except BROKEN as error:
        with path.open("rb") as stream:
            mistaken = describe_mistaken(stream.read(200))
        if mistaken and not mistaken[0].startswith("a zip"):
            raise DataError(f"{path}: holds {mistaken[0]}. Expected a zip. {mistaken[1]}") from error
        raise DataError(
            f"{path}: not a whole zip file ({error}). Expected the zip that `kaggle-digits download` leaves; "
            "this one is damaged or cut short. Download it again."
        ) from error
    for member in members:
        if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member.replace("\\", "/")).parts:
            raise DataError(
                f"{path}: the member {member!r} points outside the archive. Expected plain file names. This zip is "
                "not from Kaggle and may be hostile; do not use it."
            )
    files: dict[str, File] = {}
    for member in sorted(members, key=lambda name: name.count("/")):  # the outermost of two files wins
        if not member.endswith("/") and "__MACOSX" not in member:
            files.setdefault(PurePosixPath(member).name, File(path, member))
    found = _tables_among(files)
    texts = [file for name, file in files.items() if re.search(r"\.(csv|tsv|txt)(\.gz)?$", name.lower())]
    if not found and len(texts) == 1:  # it may have any name
        table = CsvTable(texts[0], is_kaggle=False)
        found = {_kind_by_content(table): table}
    return found


def load_train(source: Source) -> TrainingRows:
    """Read the labelled rows of a source.

    Returns:
        pixels (N, 784) uint8 and digits (N,) int64; 42,000 rows in the competition.

    Raises:
        DataError: the file is missing, malformed or ambiguous; the message names the line.
    """
    rows = _sample()[0] if source.is_sample else _read_train(_table_of(source, "train"))
    log.info("%s training rows from %s", f"{len(rows):,}", source)
    return rows


def _read_train(table: Table) -> TrainingRows:
    import numpy as np

    rows = _read(table, "train")
    digits = cast("np.ndarray", rows.digits)
    missing = sorted(set(range(CLASSES)) - set(np.unique(digits).tolist()))
    if missing:
        log.warning(
            "%s: no row is labelled %s. A network trained on it never predicts what it has not seen.",
            table,
            ", ".join(map(str, missing)),
        )
    return TrainingRows(rows.pixels, digits)


def _read(table: Table, kind: str, *, beside: Table | None = None) -> Rows:
    """Read a table, and set its images upright if they are transposed.

    Args:
        table: what to read.
        kind: "train" or "test".
        beside: the training table of the same source. Its labels say how the images of both lie.
    """
    rows = table.read(kind)
    share = _share_on_side(rows.pixels)
    if share > (0.5 if beside is None else 0.3) or (beside and len(rows.pixels) < 50):
        known = beside.read("train") if beside else rows
        if known.digits is not None and _are_transposed(known.pixels, known.digits):
            note = "transposed images, as EMNIST has them, set upright"
            rows = replace(rows, pixels=_turned(rows.pixels, TRANSPOSED).copy(), notes=(*rows.notes, note))
        elif len(rows.pixels) >= 50 and share > 0.5:
            log.warning(
                "%s: most images are wider than tall, which digits are not. If they are transposed or turned, networks "
                "that learned upright digits misread them. Look at some of them.",
                table,
            )
    if rows.notes:
        log.info("%s: not in Kaggle's own form: %s", table, "; ".join(rows.notes))
    return rows


TRANSPOSED, LOOKED_AT = 4, 2000
"""How ``_turned`` transposes images, and how many of a table are looked at to tell how they lie."""


def _some(values: np.ndarray) -> np.ndarray:
    """Return rows from all over a table, which may be sorted."""
    return values[:: max(1, len(values) // LOOKED_AT)]


def _share_on_side(pixels: np.ndarray) -> float:
    """Return the share of images that are wider than tall. Of the competition's digits, it is a tenth."""
    import numpy as np

    images = _some(pixels).reshape(-1, SIDE, SIDE).astype(np.float32)
    place = np.arange(SIDE, dtype=np.float32)

    def spread(profiles: np.ndarray) -> np.ndarray:
        total = np.maximum(1, profiles.sum(axis=1))
        return profiles @ place**2 / total - (profiles @ place / total) ** 2

    return float((spread(images.sum(axis=1)) > spread(images.sum(axis=2))).mean()) if len(images) else 0.0


def _turned(pixels: np.ndarray, how: int) -> np.ndarray:
    """Turn images by 0 to 3 quarters, or, from 4 on, transpose them first."""
    import numpy as np

    images = pixels.reshape(-1, SIDE, SIDE)
    images = np.rot90(images.transpose(0, 2, 1) if how >= TRANSPOSED else images, how % 4, (1, 2))
    return images.reshape(-1, PIXELS)


def _are_transposed(pixels: np.ndarray, digits: np.ndarray) -> bool:
    """Whether images look most like upright digits once they are transposed, and not if they are turned.

    Each is compared with the mean of each digit in the built-in sample.
    """
    import numpy as np

    if len(pixels) < 50 or _share_on_side(pixels) < 0.5:
        return False
    sample = _sample()[0]
    means = np.stack([sample.pixels[sample.digits == digit].mean(axis=0) for digit in range(CLASSES)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    some, known = _some(pixels), _some(digits)
    right = [float(((_turned(some, how) @ means.T).argmax(axis=1) == known).mean()) for how in range(8)]
    best = right.pop(TRANSPOSED)
    return best > 1.5 * max(right)


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
        alone: whether a source that has training rows only is meant to be predicted.

    Raises:
        DataError: as ``load_test``.
    """
    if source.is_sample:
        rows = Rows(_sample()[1], None)
    else:
        kind = "train" if alone and "test" not in source.tables else "test"
        rows = _read(_table_of(source, kind), "test", beside=source.tables.get("train") if kind == "test" else None)
    log.info("%s test rows from %s", f"{len(rows.pixels):,}", source)
    return rows


def why_not_uploadable(source: Source, rows: Rows) -> str | None:
    """Say why predictions for these test rows cannot be uploaded to the competition, or return None."""
    if source.is_sample:
        return f"it was made from the built-in {SAMPLE}"
    if rows.digits is not None:
        return "its test rows have labels, which those of the competition do not have"
    table = source.tables.get("test") or source.tables["train"]
    if not table.is_kaggle:
        return f"its test rows come from {source}, which is not the competition's file"
    return None


def count_test_rows(source: Source) -> int:
    """Count the rows of the test file, without parsing them. A submission must have as many.

    Raises:
        DataError: the source has no test file, or another file has its name.
    """
    return SAMPLE_TEST_ROWS if source.is_sample else _table_of(source, "test").count()


def expected_rows(source: Source | None, *, named: bool = False) -> tuple[int, str]:
    """Return how many rows a submission must have, and for messages, where that number comes from.

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


def one_hot(digits: np.ndarray) -> np.ndarray:
    """Turn digits into one-hot labels.

    Args:
        digits: (N,) integers, 0–9.

    Returns:
        (N, 10) float32 with a single 1 in every row. ``keras.utils.to_categorical`` returns the same, but needs Keras.

    >>> one_hot([1])
    array([[0., 1., 0., 0., 0., 0., 0., 0., 0., 0.]], dtype=float32)
    """
    import numpy as np

    return np.eye(CLASSES, dtype=np.float32)[np.asarray(digits)]


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
    for number, (_, held_out) in enumerate(
        StratifiedKFold(folds, shuffle=True, random_state=seed).split(fold, rows.digits)
    ):
        fold[held_out] = number
    return fold


def hold_out_fold(rows: TrainingRows, of_row: np.ndarray, fold: int) -> tuple[TrainingRows, TrainingRows]:
    """Return all rows but those of a fold, and those of the fold.

    Args:
        rows: the labelled rows.
        of_row: (N,) the fold of each row, see ``fold_rows``.
        fold: the fold to hold out, counted from 0.
    """
    import numpy as np

    return rows.take(np.flatnonzero(of_row != fold)), rows.take(np.flatnonzero(of_row == fold))


def _share_out(counts: np.ndarray, total: int, draw: np.random.RandomState) -> np.ndarray:
    """Share a total among classes in proportion to their counts, in whole numbers.

    The largest remainders are rounded up. Lots decide between equal ones.
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


def _table_of(source: Source, kind: str) -> Table:
    if kind in source.tables:
        return source.tables[kind]
    (other,) = source.tables
    raise DataError(f"{source}: holds {other}.csv but no {kind}.csv. {EXPECTED} Pass a folder or zip that has both.")


@functools.cache
def _sample() -> tuple[TrainingRows, np.ndarray]:
    """Make MNIST-like data from scikit-learn's 1,797 handwritten digits.

    Each image of 8×8 pixels is resampled to 20×20 and centred in 28×28.

    Returns:
        labelled rows, and the pixels (360, 784) uint8 of the rows to predict.

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
    rows, test_pixels = TrainingRows(pixels[train], digits[train].astype(np.int64)), pixels[test]
    for array in (rows.pixels, rows.digits, test_pixels):  # all callers share these arrays
        array.flags.writeable = False
    return rows, test_pixels
