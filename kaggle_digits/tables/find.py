"""Find the data: in a named place, or in the usual ones, whatever its files are called."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kaggle_digits.digits import PIXELS
from kaggle_digits.errors import DataError
from kaggle_digits.files import BROKEN, expand_home
from kaggle_digits.tables import COMPETITION, SAMPLE, ZIP_NAME, Source, Table
from kaggle_digits.tables.columns import LABELS
from kaggle_digits.tables.form import describe_mistaken
from kaggle_digits.tables.mnist import IdxTable, KerasTable, idx_content
from kaggle_digits.tables.text import CsvTable, File

log = logging.getLogger(__name__)

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "t10k": "test"}


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
    look_alikes = re.compile(r"fashion|kmnist|k49|kuzushiji|letters|balanced|byclass|bymerge|sign", re.IGNORECASE)
    for folder in _folders_below(inputs):
        with contextlib.suppress(DataError):  # somebody else's data may be damaged
            tables = _tables_in_folder(folder, any_zip=True)
            is_csv = isinstance(tables.get("train"), CsvTable)
            if "train" in tables and _is_of_digits(tables["train"]) and (is_csv or not look_alikes.search(str(folder))):
                yield folder


def _folders_below(folder: Path) -> Iterator[Path]:
    """Yield the folders up to five levels below a folder, 2,000 at most, the nearest first, without hidden ones."""
    level, seen = [folder], 0
    for _ in range(5):
        level = [child for parent in level for child in _folders_in(parent)][: 2000 - seen]
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
    downloaded = re.compile(rf"{COMPETITION}(?: ?\(\d+\))?\.zip").fullmatch  # also a second time
    zips = [file for name, file in files.items() if name.endswith(".zip") and (downloaded(name) or _kind_of(name))]
    for file in sorted(zips, key=lambda file: (downloaded(file.name) is not None, len(file.name))):
        if len(found) < 2:
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
        return {kind: KerasTable(file, kind) for kind in ("train", "test")}
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
        return {kind: KerasTable(files["mnist.npz"], kind) for kind in ("train", "test")}
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
    named = re.compile(r".*(images|labels)[-.]idx[123][-.](ubyte|int)(\.gz|\.xz)?")
    others = {".csv", ".tsv", ".txt", ".json", ".md", ".html", ".py", ".ipynb", ".zip", ".npz", ".png", ".jpg", ".jpeg"}
    looked_at = [name for name in files if not others & set(Path(name.lower()).suffixes)]
    if len(looked_at) > 64:  # opening so many files takes long
        looked_at = [name for name in looked_at if named.fullmatch(name.lower())]
    found: dict[tuple[str | None, str], list[tuple[str, int, File]]] = {}
    for name in looked_at:
        known = idx_content(files[name])
        if not known and (match := named.fullmatch(name.lower())):
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
    usual = {*("mnist", "emnist", "digit", "digits", "recognizer", "kaggle", "data"), *("set", "small", "full")}
    usual |= {"csv", "in", "copy"}
    kinds = [SPLITS[word] for word in words if word in SPLITS]
    others = [word for word in words if word and word not in SPLITS and not re.fullmatch(r"v?[0-9]+", word)]
    if len(kinds) != 1 or not usual.issuperset(others):
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
