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
    if source := find_competition(data):
        return source
    log.warning("%s", _describe_missing())
    return Source(SAMPLE, {})


def _describe_missing() -> str:
    """Say where no data was found, and what to do. On Kaggle's machines the message must stand out."""
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
        DataError: the named place holds nothing usable.
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
    # The current folder may hold a train.csv of something else.
    tables = _of_digits(_tables_in_folder(Path()))
    if "train" in tables:
        return Source(".", tables)
    if tables := _tables_in_folder(cache_folder()):
        return Source(str(cache_folder()), tables)
    return None


def find_again(name: str, folder: Path) -> Iterator[Source]:
    """Yield the possible sources for a name in a file of a folder, see ``Source.name_for``.

    Relative names are tried from here and from the folders above that folder. Then come the usual places. The caller
    checks that the rows are the right ones.
    """
    if name == SAMPLE:
        yield Source(SAMPLE, {})
        return
    above = list(folder.resolve().parents)[:3]
    named = [base / name for base in (Path(), *above)]
    usual = [base / folder for base in above for folder in (".", "data", f"data/{COMPETITION}")]
    tried = set()
    for path in (*named, *usual):
        if path.resolve() in tried:
            continue
        tried.add(path.resolve())
        with contextlib.suppress(DataError, OSError):
            tables = _tables_in_folder(path)
            if not tables and path in named and name != "." and path.exists():
                tables = _source_at(path).tables
            if tables:
                yield _source(path, tables)
    with contextlib.suppress(DataError, OSError):
        if (source := find_competition()) and Path(source.name).resolve() not in tried:
            yield source


def _source(path: Path, tables: dict[str, Table]) -> Source:
    """Return a source. A folder named sample gets the name ./sample, or run.json would name the built-in sample."""
    return Source(f"./{path}" if str(path) == SAMPLE else str(path), tables)


def _kaggle_inputs() -> Path:
    """Return the folder in which a Kaggle notebook has its data."""
    return expand_home(os.environ.get("KDIGITS_KAGGLE") or "/kaggle") / "input"


def _kaggle_mounts() -> Iterator[Path]:
    """Yield the folders where a Kaggle notebook may have the competition's files.

    Today's folder comes first, then the older one, then every folder with a training table of digits: a class's copy of
    the competition, or a dataset.
    """
    inputs = _kaggle_inputs()
    yield from (inputs / "competitions" / COMPETITION, inputs / COMPETITION)
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
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # not a folder, or one that may not be read
        return []


def _is_of_digits(table: Table) -> bool:
    """Whether the rows of a table are as long as those of digits."""
    if not isinstance(table, CsvTable):
        return True
    try:
        return PIXELS <= table.form().width <= PIXELS + 3
    except DataError:
        return False


def _describe_nearby() -> str:
    """Say which files in the current folder might be the data, and how to use them."""
    if table := next(iter(_tables_in_folder(Path()).values()), None):
        if not _is_of_digits(table):
            return f" ({table} in this folder: not a table of digits, 28 × 28 pixels in a row.)"
        nearby = [str(table)]
    else:
        files = (file for file in Path().iterdir() if file.suffix.lower() in (".csv", ".zip", ".gz", ".npz"))
        nearby = list(map(str, sorted(files)))
    return f" (In this folder: {nearby[0]}. To use it: --data {shlex.quote(nearby[0])})" if nearby else ""


def cache_folder() -> Path:
    """Return the folder for downloads: $KDIGITS_CACHE, or else kaggle_digits in the user's cache folder."""
    if own := os.environ.get("KDIGITS_CACHE"):
        return expand_home(own)
    return expand_home(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaggle_digits"


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
        in_folders = ((folder, _tables_in_folder(folder, any_zip=True)) for folder in folders)
        tables = next((_with_sibling(folder, tables) for folder, tables in in_folders if tables), {})
    else:
        tables = _tables_in_file(path)
    if not tables:
        raise DataError(
            f"{path}: no train.csv and no test.csv in it. Expected at least one of them (plain, .gz or .zip), "
            f"{ZIP_NAME}, or MNIST's own files. Pass the folder or zip that `kaggle-digits download` leaves."
        )
    return _source(path, tables)


def _with_sibling(folder: Path, tables: dict[str, Table]) -> dict[str, Table]:
    """Add the other table if it lies in a sibling folder, as in train/train.csv and test/test.csv."""
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
    files = _files_in(folder)
    tables = _tables_among(files)
    downloaded = re.compile(rf"{COMPETITION}(?: ?\(\d+\))?\.zip").fullmatch  # also downloaded twice
    zips = [file for name, file in files.items() if name.endswith(".zip")]
    named = [file for file in zips if downloaded(file.name) or _kind_of(file.name)]
    for file in sorted(named, key=lambda file: (downloaded(file.name) is not None, len(file.name))):
        if len(tables) < 2:
            tables = _tables_in_zip(file.path) | tables
    if not tables and any_zip:
        for file in zips[:3]:
            with contextlib.suppress(DataError):  # it may be anything
                tables = _of_digits(_tables_in_zip(file.path)) | tables
    return tables


def _files_in(folder: Path) -> dict[str, File]:
    return {file.name: File(file) for file in sorted(folder.iterdir()) if file.is_file()}


def _of_digits(tables: dict[str, Table]) -> dict[str, Table]:
    return {kind: table for kind, table in tables.items() if _is_of_digits(table)}


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
    tables = _idx_tables(files)
    if tables and beside:
        tables = _idx_tables(_files_in(beside))
    for name in sorted(files, key=lambda name: (len(name.partition(".")[0]), name)):  # train.csv before any other
        if (kind := _kind_of(name)) and not name.lower().endswith(".zip"):
            tables.setdefault(kind, CsvTable(files[name], is_kaggle=not name.lower().startswith("mnist")))
    return tables


def _idx_tables(files: dict[str, File]) -> dict[str, Table]:
    """Return the tables in the format of MNIST's makers. Of several sets, as in EMNIST, the digits are taken.

    Raises:
        DataError: it is unclear which of several are for training.
    """
    named = re.compile(r".*(images|labels)[-.]idx[123][-.](ubyte|int)(\.gz|\.xz)?")
    others = {".csv", ".tsv", ".txt", ".json", ".md", ".html", ".py", ".ipynb", ".zip", ".npz", ".png", ".jpg", ".jpeg"}
    candidates = [name for name in files if not others & set(Path(name.lower()).suffixes)]
    if len(candidates) > 64:  # opening so many files takes long
        candidates = [name for name in candidates if named.fullmatch(name.lower())]
    # For each split, and for images and labels: the names of the files, and how many images or labels each holds.
    counts: dict[tuple[str | None, str], dict[str, int]] = {}
    for name in candidates:
        content = idx_content(files[name])
        if not content and (match := named.fullmatch(name.lower())):
            content = match[1], -1  # damaged; reading it will say so
        if content:
            counts.setdefault((_split_of(files[name], name), content[0]), {})[name] = content[1]
    if len(unclear := list(counts.get((None, "images"), ()))) > 1:
        raise DataError(
            f"{', '.join(unclear[:3])}: images in MNIST's format, and no name says which are for training. Expected "
            "train or test in the names of the files. Rename them."
        )
    tables: dict[str, Table] = {}
    for split in ("train", "test", None):
        images, labels = counts.get((split, "images"), {}), counts.get((split, "labels"), {})
        if images:
            name = min(images, key=_likeness)
            fitting = [label for label in labels if labels[label] == images[name]] or list(labels)
            fitting.sort(key=lambda label: (_set_of(label) != _set_of(name), label))
            table = IdxTable(files[name], files[fitting[0]] if fitting else None)
            tables.setdefault(split or ("train" if fitting else "test"), table)
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
    """Return the part that the names of a set's images and labels share."""
    return re.sub(r"images|labels|idx[0-9]", "", name.lower())


def _likeness(name: str) -> tuple[bool, bool, str]:
    """Sort the sets of digits before those of letters."""
    lower = name.lower()
    return "digits" not in lower, "mnist" not in lower.removeprefix("e"), lower


def _kind_of(name: str) -> str | None:
    """Return the kind of a text file by its name, as in train.csv, test (1).csv.gz or mnist_train_small.csv."""
    match = re.fullmatch(r"(.+)\.(?:csv|tsv|txt)(?:\.(?:gz|bz2|xz|zip))?", name.lower())
    words = re.split(r"[ _.()-]+", match[1]) if match else []
    usual = {"", "mnist", "emnist", "digit", "digits", "recognizer", "kaggle", "data", "set", "small", "full"}
    usual |= {"csv", "in", "copy"}
    kinds = [SPLITS[word] for word in words if word in SPLITS]
    others = {word for word in words if word not in SPLITS and not re.fullmatch(r"v?[0-9]+", word)}
    return kinds[0] if len(kinds) == 1 and others <= usual else None


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
    tables = _tables_among(files)
    texts = [file for name, file in files.items() if re.search(r"\.(csv|tsv|txt)(\.gz)?$", name.lower())]
    if not tables and len(texts) == 1:  # it may have any name
        table = CsvTable(texts[0], is_kaggle=False)
        tables = {_kind_by_content(table): table}
    return tables
