"""Files that appear whole or not at all, files that one process keeps to itself, and names that are still free."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any

from kaggle_digits.errors import DigitsError

try:
    import fcntl
except ImportError:  # Windows has no such locks: two processes are not kept apart there
    fcntl = None  # type: ignore[assignment]


BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Members of a zip that are packed so can be unpacked piece by piece. Of others, Python unpacks all at once."""

MOST_BYTES = 2**26
"""A small file has at most this many bytes, also when it is unpacked. A submission takes a three-hundredth of it, and
the ``run.json`` of a traced training of a hundred epochs a twentieth."""


CHECKSUM = "checksum"
"""The key under which a file of named values keeps their checksum."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and move it there when the block ends without an error.

    A reader sees the old file or the whole new one, never a part, even after a kill.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(partial_name(path))
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def partial_name(path: Path) -> str:
    """Return the temporary name of a file that is being written.

    It is fixed, so that the next try overwrites what a kill has left. It keeps the suffix, because libraries choose the
    format by it.
    """
    return f".{path.stem}.partial{path.suffix}"


@contextmanager
def locked(path: Path, busy: DigitsError | None = None) -> Iterator[None]:
    """Keep a file or folder to this process. The lock ends with the process, however that ends.

    Args:
        path: must exist.
        busy: is raised if another process has the lock. None waits for the other process.
    """
    if not fcntl:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            raise busy or error from error
        yield
    finally:
        os.close(handle)


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Write named values as JSON, whole or not at all, with a checksum of them, by which damage is noticed."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(fields | {CHECKSUM: _seal(fields)}, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read named values, and check them against the checksum, if there is one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, no JSON of named values, or was changed.
    """
    with path.open("rb") as stream:
        contents = _limited(stream)
    try:
        fields = json.loads(contents)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("it does not hold named values")
    found = fields.pop(CHECKSUM, None)
    if found is not None and found != _seal(fields):
        raise ValueError("its checksum differs: it was damaged, or changed by hand")
    return fields


def _seal(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def numbered_names(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield ``path``, then name-2, name-3 and so on, without end.

    Args:
        path: a folder or a file.
        suffix: the end of its name that stays behind the number.

    >>> names = numbered_names(Path("submissions/fast-v1.2.csv"), ".csv")
    >>> [next(names).name for _ in range(2)]
    ['fast-v1.2.csv', 'fast-v1.2-2.csv']
    """
    yield path
    for number in count(2):
        yield path.with_name(f"{path.name.removesuffix(suffix)}-{number}{suffix}")


def suffix_of(file: Path) -> str:
    """Return the suffix of a file, or "" if what follows its last dot is none, as in sub-v1.2.

    >>> suffix_of(Path("sub-v1.csv")), suffix_of(Path("sub-v1.2")), suffix_of(Path("sub-v1.2-rc1"))
    ('.csv', '', '')
    """
    return file.suffix if file.suffix[1:2].isalpha() and file.suffix[1:].isalnum() else ""


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return the path with a leading ``~`` replaced by the home folder.

    The shell does this in ``--data ~/x``, but not in ``--data=~/x`` or in quotes. The name of an unknown user stays.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def unpacked(file: Path) -> bytes:
    """Return the contents of a small file, or of the only file in a zip or gz.

    Raises:
        OSError, EOFError, ValueError, LookupError, …: it cannot be read, is damaged or too large, or holds several
            files, see ``tables.BROKEN``.
    """
    with file.open("rb") as stream:
        contents = _limited(stream)
    if contents.startswith(b"\x1f\x8b"):
        with gzip.open(io.BytesIO(contents)) as stream:
            return _limited(stream)
    if not contents.startswith(b"PK\x03\x04"):
        return contents
    with zipfile.ZipFile(io.BytesIO(contents)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
        if len(names) != 1:
            raise zipfile.BadZipFile(f"a zip of {len(names)} files, where one is expected")
        if archive.getinfo(names[0]).compress_type not in BOUNDED:
            raise zipfile.BadZipFile("a zip that is packed in an unusual way")
        with archive.open(names[0]) as stream:
            return _limited(stream)


MARKS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, which only names the file",
        "Run `git lfs pull` in its repository.",
    ),
    (b"PK\x03\x04", "a zip or an Excel workbook", "Unpack it, or save it as CSV."),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "Save it as CSV."),
    (b"PAR1", "a Parquet file", "Save it as CSV, as in pandas.read_parquet(FILE).to_csv(OUT, index=False)."),
    (b"\x93NUMPY", "a NumPy array", "Save it as CSV, as in numpy.savetxt(OUT, array, fmt='%d', delimiter=',')."),
    (b"\x89HDF", "an HDF5 file", "Save its table as CSV."),
    (b"SQLite format 3", "an SQLite database", "Save its table as CSV."),
    (b"\x89PNG", "a PNG picture", "Read pictures with `kaggle-digits recognize`."),
    (b"\xff\xd8\xff", "a JPEG picture", "Read pictures with `kaggle-digits recognize`."),
    (b"%PDF", "a PDF document", "Name the table instead."),
    *(
        (bytes([128, version]), "a Python pickle", "Save it as CSV; pickles run code when they are read.")
        for version in (3, 4, 5)
    ),
)
"""First bytes of files that are saved under the name of a table, what they are, and what to do."""


def describe_mistaken(head: bytes) -> tuple[str, str] | None:
    """Tell what a file that should be a table or an archive is instead.

    Args:
        head: its first bytes.

    Returns:
        what it is, and what to do; None if it is nothing that is known.
    """
    for mark, what, remedy in MARKS:
        if head.startswith(mark):
            return what, remedy
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text[:1] == b"<" and text[1:2] in b"!?/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        return "a web page", "A page that asks you to sign in looks like this. Sign in and download the file again."
    if text[:1] == b"{":
        return f"JSON, {text[:60].decode('utf-8', 'replace')!r}", "Download the file again, or save its table as CSV."
    return None


def decode_text(contents: bytes) -> str:
    """Decode text in UTF-8 or, as PowerShell writes it, in UTF-16, with or without a byte-order mark.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    if contents.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return contents.decode("utf-32")
    if contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return contents.decode("utf-16")
    for encoding, zeros, others in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        if len(contents) > 1 and not any(contents[zeros:200:2]) and all(contents[others:200:2]):
            return contents.decode(encoding)
    return contents.decode("utf-8-sig")


def read_at_most(stream: IO[bytes] | gzip.GzipFile, most: int) -> bytes:
    """Read up to a number of bytes, without taking memory for more than there are."""
    contents = bytearray()
    while part := stream.read(min(most - len(contents), 2**20)):
        contents += part
    return bytes(contents)


def _limited(stream: IO[bytes] | gzip.GzipFile) -> bytes:
    contents = read_at_most(stream, MOST_BYTES + 1)
    if len(contents) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    return contents
