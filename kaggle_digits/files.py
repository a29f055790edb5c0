"""Files that appear whole or not at all, and files of JSON or arrays that are read without trusting them.

A file of arrays is NumPy's npz, without pickle. Before any memory is taken for an array, its name, shape and kind of
number are compared with what is expected, and its size with the bytes that the file has for it. So a file from a
stranger can run no code, name no other file, and take no more memory than the right one would.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import gzip
import hashlib
import io
import json
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kaggle_digits.errors import DigitsError

try:
    import fcntl
except ImportError:  # Windows has no such locks: two processes are not kept apart there
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:  # importing it costs 0.1 s, and --help does not need it
    import numpy as np

Shape = tuple[int, ...]

BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression methods that Python can unpack piece by piece. It unpacks members with others all at once."""

BROKEN = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError),
    *(ValueError, LookupError, ArithmeticError, struct.error),
)
"""Exceptions that a damaged or encrypted archive raises."""

UNABLE = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.ENOTTY)
"""Numbers of the errors which say that something cannot be flushed at all. Others say that it failed."""

MOST_BYTES = 2**26
"""Maximum size of a small file in bytes, also unpacked. A submission takes a three-hundredth of it."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and move it there when the block ends without an error.

    A reader sees the old file or the whole new one, never a part, even after a kill or a loss of power. If this file
    outlasts a loss of power, so does every file that was moved before it.
    """
    make_folder(path.parent)
    partial = path.with_name(partial_name(path))
    try:
        yield partial
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def publish(partial: Path, path: Path) -> None:
    """Move a whole file to its name. Neither its contents nor (except on Windows) its name are lost with the power."""
    _flush(partial)
    partial.replace(path)
    _flush(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if needed. Those that it makes outlast a loss of power."""
    for missing in reversed([each for each in (folder, *folder.parents) if not each.is_dir()]):
        missing.mkdir(exist_ok=True)
        _flush(missing.parent)


def _flush(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    if is_folder and not fcntl:  # Windows opens no folders. NTFS keeps the order of renames by itself
        return
    try:
        handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            _synchronize(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not is_folder or error.errno not in UNABLE:  # a folder that may not be read, or of some network disks
            raise


def _synchronize(handle: int) -> None:
    try:
        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined]  # macOS: its fsync ends too early
    except AttributeError:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        os.fsync(handle)


def partial_name(path: Path) -> str:
    """Return the temporary name of a file that is being written.

    It is fixed, so that the next try overwrites what a kill has left. It keeps the suffix, because libraries choose the
    format by it.
    """
    return f".{path.stem}.partial{path.suffix}"


@contextlib.contextmanager
def locked(path: Path, busy: DigitsError | None = None) -> Iterator[None]:
    """Lock a file or folder for this process. The lock ends with the process, even if that is killed.

    Args:
        path: must exist.
        busy: the error to raise if another process has the lock. None waits for the other process.
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
    """Write named values as JSON, whole or not at all, with a checksum that reveals damage."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(fields | {"checksum": _seal(fields)}, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read named values, and check them against the checksum, if there is one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, is not JSON of named values, or was changed.
    """
    contents = read_small(path)
    try:
        fields = json.loads(contents)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("it does not hold named values")
    found = fields.pop("checksum", None)
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
    """Return the suffix of a file; "" if its last dot belongs to a version number, as in sub-v1.2.

    >>> suffix_of(Path("sub-v1.csv")), suffix_of(Path("sub-v1.2")), suffix_of(Path("sub-v1.2-rc1"))
    ('.csv', '', '')
    """
    return file.suffix if file.suffix[1:2].isalpha() and file.suffix[1:].isalnum() else ""


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return the path with a leading ``~`` replaced by the home folder.

    The shell does this in ``--data ~/x``, but not in ``--data=~/x`` or in quotes. An unknown user's name is kept.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def unpacked(file: Path) -> bytes:
    """Return the contents of a small file, or of the only file in a zip or gz.

    Raises:
        OSError, EOFError, ValueError, LookupError, …: it cannot be read, is damaged or too large, or holds several
            files, see ``BROKEN``.
    """
    contents = read_small(file)
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


def read_small(file: Path) -> bytes:
    """Return the contents of a small file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than ``MOST_BYTES``.
    """
    with file.open("rb") as stream:
        return _limited(stream)


def _limited(stream: IO[bytes] | gzip.GzipFile) -> bytes:
    contents = read_at_most(stream, MOST_BYTES + 1)
    if len(contents) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    return contents


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Write named arrays, whole or not at all. The same arrays always give the same bytes."""
    import numpy as np

    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with atomic_path(file) as path, zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980. NumPy's own writer fails if it is earlier
            member.compress_type = method
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)


def read_arrays(
    file: Path | io.BytesIO,
    expected: Mapping[str, tuple[Shape, str]],
    *,
    others: Iterable[str] = (),
    most: int = MOST_BYTES,
    exact: bool = True,
) -> dict[str, np.ndarray]:
    """Read arrays, all of which must exist.

    Args:
        file: an npz file, or its contents.
        expected: name → shape, and NumPy's letters for the allowed kinds of numbers.
        others: names of arrays whose shapes are not known in advance.
        most: the maximum size of these together, in bytes.
        exact: whether other arrays are an error. They are never read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold what is expected. The message says what it holds.
    """
    others = list(others)
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            is_double = len(members) != len(archive.infolist())
            if not exact:
                members = {name: member for name, member in members.items() if name in {*expected, *others}}
            if is_double or set(members) != {*expected, *others}:
                differing = sorted(set(members) ^ {*expected, *others})
                raise ValueError(f"it holds other arrays than expected: {', '.join(differing[:3]) or 'one twice'}")
            if sum(members[name].file_size for name in others) > most:
                raise ValueError(f"it holds more than {most:,} bytes")
            return {name: _read(archive, member, expected.get(name)) for name, member in members.items()}
    except (OSError, ValueError):
        raise
    except (Exception, MemoryError) as error:  # a hostile file can raise anything here
        raise ValueError(f"it is damaged, or no archive of arrays: {error}") from error


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, expected: tuple[Shape, str] | None) -> np.ndarray:
    import numpy as np

    name = member.filename
    if member.compress_type not in BOUNDED:
        raise ValueError(f"{name} is compressed in a way that is not read")
    with archive.open(member) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{name} is in an unknown format")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
        wanted, kinds = expected or (shape, "biuf")
        if shape != wanted or dtype.kind not in kinds or dtype.itemsize > 8:
            raise ValueError(f"{name} is {dtype} {shape}, where {wanted} of the kind {kinds!r} was expected")
        size = math.prod(shape) * dtype.itemsize
        if member.file_size - stream.tell() != size:
            raise ValueError(f"{name} has {member.file_size:,} bytes, which do not make {dtype} {shape}")
        # Read to the end, where the archive compares the checksum.
        values = np.frombuffer(read_at_most(stream, size + 1), dtype)
        return values.reshape(shape, order="F" if by_columns else "C").copy()
