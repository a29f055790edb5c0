"""What a stranger may put into a file of arrays."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path


class Touch:
    """Makes the file was-run when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("was-run"),)


def header(shape: object, descr: str = "<f4") -> bytes:
    """Return the first bytes of an array of any shape, whatever follows."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive of any contents."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method, compresslevel=1) as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)
    return stream.getvalue()
