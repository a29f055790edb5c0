"""Files that appear whole or not at all, files that one process keeps to itself, and names that are still free."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from kaggle_digits.errors import DigitsError

try:
    import fcntl
except ImportError:  # Windows has no such locks: two processes are not kept apart there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and move it there when the block ends without an error.

    A reader sees the old file or the whole new one, never a part, even after a kill.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name is fixed, so that the next try overwrites what a kill has left. It keeps the suffix, because
    # NumPy and Keras choose the format by it.
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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


def numbered_names(path: Path) -> Iterator[Path]:
    """Yield ``path``, then name-2, name-3 and so on, without end.

    >>> names = numbered_names(Path("runs/fast.csv"))
    >>> [next(names).name for _ in range(3)]
    ['fast.csv', 'fast-2.csv', 'fast-3.csv']
    """
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return the path with a leading ``~`` replaced by the home folder.

    The shell does this in ``--data ~/x``, but not in ``--data=~/x`` or in quotes. The name of an unknown user stays.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def unpacked(file: Path) -> bytes:
    """Return the contents of a file, or of the only file in a zip or gz.

    Raises:
        OSError, EOFError, zlib.error, zipfile.BadZipFile: it cannot be read, is damaged, or holds several files.
    """
    contents = file.read_bytes()
    if contents.startswith(b"\x1f\x8b"):
        return gzip.decompress(contents)
    if not contents.startswith(b"PK\x03\x04"):
        return contents
    with zipfile.ZipFile(io.BytesIO(contents)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
        if len(names) != 1:
            raise zipfile.BadZipFile(f"a zip of {len(names)} files, where one is expected")
        return archive.read(names[0])
