"""A disk that loses power, or on which one call fails.

``Recorder`` keeps what a program does to the files below a folder. ``Recorder.states`` draws from the states that may
be on the disk after power was lost at some moment. POSIX promises little: what was not flushed with fsync may be there,
or only in part, and the names in a folder that was not flushed may have been changed in any order. The model is of
files that are written anew and renamed. It knows no contents between two writes, and no folder that is renamed.
"""

from __future__ import annotations

import _pyio
import builtins
import errno
import io
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

PAGE = 4096
"""The number of bytes that a disk writes at once."""

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

Tree = dict[str, bytes | None]
"""The contents of each file by its path below the folder; None for a folder."""


@dataclass
class Moment:
    """What the programs of the machine see before a call.

    Args:
        names: the number of the file or folder that has a path. It stays the same when it is renamed.
        contents: the contents by that number; None for a folder.
        flushed: the path that the call flushes, or None if it changes something.
    """

    names: dict[str, int]
    contents: dict[int, bytes | None]
    flushed: str | None = None


@dataclass
class Recorder:
    """Keeps all moments of a block, see ``recording``."""

    folder: Path
    moments: list[Moment] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)

    def look(self, flushed: str | None = None) -> None:
        """Keep the present moment."""
        inodes: dict[int, int] = {}
        moment = Moment({}, {}, flushed)
        for path in sorted(self.folder.rglob("*")):
            inode = path.lstat().st_ino  # an inode that was gone meanwhile belongs to another file
            number = inodes[inode] = self.numbers.get(inode, len(self.moments) * 1000 + len(inodes))
            moment.names[str(path.relative_to(self.folder))] = number
            moment.contents[number] = None if path.is_dir() else path.read_bytes()
        self.numbers = inodes
        self.moments.append(moment)

    def states(self, of_each: int, seed: int = 0) -> Iterator[tuple[bool, Tree]]:
        """Draw different states for each moment at which power may be lost.

        Args:
            of_each: the largest number of states of a moment; the last one has ten times as many.
            seed: decides which.

        Yields:
            whether the program had ended, and the state.
        """
        draw, seen = random.Random(seed), set()
        flushed = dict(self.moments[0].contents)
        on_disk: dict[str, int | None] = dict(self.moments[0].names)
        pending: list[dict[str, int | None]] = []
        last = len(self.moments) - 1
        for place, moment in enumerate(self.moments):
            is_certain = not any(pending) and all(c is None or c == flushed.get(n) for n, c in moment.contents.items())
            for _ in range(1 if is_certain else of_each * (10 if place == last else 1)):
                names = dict(on_disk)
                for changed in pending:
                    if draw.random() < 0.5:
                        names |= changed
                state = _whole(names, {n: _drawn(draw, c, flushed.get(n)) for n, c in moment.contents.items()}, flushed)
                if (key := hash((place == last, *state.items()))) not in seen:
                    seen.add(key)
                    yield place == last, state
            if place == last:
                return
            if moment.flushed is not None:
                number = moment.names.get(moment.flushed)
                if number is not None and moment.contents[number] is not None:
                    flushed[number] = moment.contents[number]
                else:
                    for changed in pending:
                        for path in [path for path in changed if str(Path(path).parent) == moment.flushed]:
                            on_disk[path] = changed.pop(path)
            after = self.moments[place + 1]
            paths = moment.names | after.names
            pending.append({p: after.names.get(p) for p in paths if moment.names.get(p) != after.names.get(p)})


def _drawn(draw: random.Random, contents: bytes | None, flushed: bytes | None) -> bytes | None:
    """Return what the disk may have of a file: its last contents, the flushed ones, or of each page one of the two."""
    if contents is None or contents == flushed:
        return contents
    known = flushed or b""
    if draw.random() < 0.4:
        return draw.choice((contents, known))
    length = draw.randrange(min(len(known), len(contents)), max(len(known), len(contents)) + 1)
    pages = []
    for start in range(0, length, PAGE):
        new, old = (each[start : start + PAGE].ljust(PAGE, b"\0") for each in (contents, known))
        pages.append(new if draw.random() < 0.5 else old)
    return b"".join(pages)[:length]


def _whole(names: dict[str, int | None], contents: dict[int, bytes | None], flushed: dict[int, bytes | None]) -> Tree:
    """Return the tree of the names whose folders exist."""
    tree: Tree = {}
    for path, number in sorted(names.items()):
        parent = str(Path(path).parent)
        if number is not None and (parent == "." or tree.get(parent, b"") is None):
            tree[path] = contents[number] if number in contents else flushed.get(number, b"")
    return tree


def restore(tree: Tree) -> None:
    """Write a tree into the working folder."""
    for path, contents in tree.items():
        if contents is None:
            Path(path).mkdir()
        else:
            Path(path).write_bytes(contents)


_recorder: Recorder | None = None
_is_hooked = False


def _see(event: str, arguments: tuple) -> None:
    """Keep the moment before a call that changes a file of the recorder's folder. An audit hook cannot be removed."""
    recorder = _recorder
    if recorder is None or not (event in CHANGES or (event == "open" and arguments[2] & WRITING)):
        return
    if isinstance(arguments[0], str | bytes | os.PathLike) and _below(recorder.folder, arguments[0]) is not None:
        recorder.look()


def _below(folder: Path, path: str | bytes | os.PathLike) -> str | None:
    """Return a path relative to a folder, or None if it lies elsewhere."""
    full = Path(os.path.normpath(Path.cwd() / os.fsdecode(path)))
    return str(full.relative_to(folder)) if full.is_relative_to(folder) else None


@contextmanager
def recording(folder: Path) -> Iterator[Recorder]:
    """Keep every moment at which the block changes or flushes something in a folder."""
    global _recorder, _is_hooked
    if not _is_hooked:
        sys.addaudithook(_see)
        _is_hooked = True
    recorder, fsync = Recorder(folder.resolve()), os.fsync

    def flush(handle: int) -> None:
        path = _below(recorder.folder, Path(f"/proc/self/fd/{handle}").readlink())
        if path is not None:
            recorder.look(flushed=path)
        fsync(handle)

    with mock.patch.object(os, "fsync", flush):
        _recorder = recorder
        try:
            recorder.look()
            yield recorder
        finally:
            _recorder = None
        recorder.look()


CALLS = ("open", "read", "write", "fsync", "rename", "replace", "mkdir", "unlink", "remove", "rmdir", "scandir")
CALLS += ("readinto",) if hasattr(os, "readinto") else ()  # from Python 3.14 on
ERRORS = (errno.ENOSPC, errno.EIO, errno.EINTR, errno.EACCES)


class Calls:
    """Counts the calls that concern a user's files, see ``failing``."""

    def __init__(self, ignored: Iterable[str]) -> None:
        self.ignored = tuple(ignored)
        self.count = 0
        self.failed = ""
        self.handles: dict[int, str] = {}

    def concerns(self, target: object) -> str | None:
        """Return the path that a call is about, or None if it is not a user's."""
        if isinstance(target, int):
            return self.handles.get(target)
        path = str(Path.cwd() / os.fsdecode(target or "."))
        return None if path.startswith(self.ignored) else path


@contextmanager
def failing(place: int, number: int, *, ignored: Iterable[str]) -> Iterator[Calls]:
    """Let one call of the block fail once.

    ``_pyio`` stands in for ``io``, so that every byte that Python code reads or writes goes through ``os``.

    Args:
        place: which call, from 1; 0 for none.
        number: the number of the error.
        ignored: the beginnings of paths that are not a user's.
    """
    calls = Calls(ignored)

    def instead(name: str) -> Callable:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            path = calls.concerns(arguments[0] if arguments else ".")
            if path:
                calls.count += 1
                if calls.count == place:
                    calls.failed = f"{name} of {path}"
                    raise OSError(number, os.strerror(number), path)
            result = real(*arguments, **options)
            if name == "open":
                calls.handles.pop(result, None)
                if path:
                    calls.handles[result] = path
            return result

        return call

    patches = [mock.patch.object(os, name, instead(name)) for name in CALLS]
    patches += [mock.patch.object(module, "open", _pyio.open) for module in (builtins, io)]
    for patch in patches:
        patch.start()
    try:
        yield calls
    finally:
        for patch in reversed(patches):
            patch.stop()
