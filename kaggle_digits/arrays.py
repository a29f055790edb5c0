"""Files of named arrays, which are read without trusting them.

Such a file is NumPy's npz, without pickle. Before any memory is taken for an array, its name, shape and kind of number
are compared with what is expected, and its size with the bytes that the file has for it. So a file from a stranger can
run no code, name no other file, and take no more memory than the right one would.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from kaggle_digits.files import BOUNDED, atomic_path, read_at_most

Shape = tuple[int, ...]

MOST_BYTES = 2**26
"""Arrays whose shapes nobody knows before may take this many bytes together, unless the reader says otherwise."""

NUMBERS = "biuf"
"""NumPy's letters for truth values, signed and unsigned integers, and floating-point numbers."""


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Write named arrays, whole or not at all. The same arrays make the same bytes, whatever the clock says."""
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
    """Read arrays, all of which must be there.

    Args:
        file: an npz file, or its contents.
        expected: name → shape, and letters of the kinds of numbers that may be there, see ``NUMBERS``.
        others: names of arrays whose shapes nobody knows before.
        most: these take this many bytes together, at most.
        exact: whether there may be no other arrays. If there are some, they are not read.

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
    except (Exception, MemoryError) as error:  # whatever a hostile file can do to NumPy, zipfile and the decompressors
        raise ValueError(f"it is damaged, or no archive of arrays: {error}") from error


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, expected: tuple[Shape, str] | None) -> np.ndarray:
    name = member.filename
    if member.compress_type not in BOUNDED:
        raise ValueError(f"{name} is compressed in a way that is not read")
    with archive.open(member) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{name} is in an unknown format")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
        wanted, kinds = expected or (shape, NUMBERS)
        if shape != wanted or dtype.kind not in kinds or dtype.itemsize > 8:
            raise ValueError(f"{name} is {dtype} {shape}, where {wanted} of the kind {kinds!r} was expected")
        size = math.prod(shape) * dtype.itemsize
        if member.file_size - stream.tell() != size:
            raise ValueError(f"{name} has {member.file_size:,} bytes, which do not make {dtype} {shape}")
        # To the end, where the archive compares the checksum.
        values = np.frombuffer(read_at_most(stream, size + 1), dtype)
        return values.reshape(shape, order="F" if by_columns else "C").copy()
