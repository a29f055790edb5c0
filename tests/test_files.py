"""Files: they appear whole or not at all, outlast a loss of power, and are read without trusting them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kaggle_digits import files
from kaggle_digits.files import (
    atomic_path,
    decode_text,
    expand_home,
    make_folder,
    read_arrays,
    read_at_most,
    read_json,
    read_small,
    suffix_of,
    unpacked,
    write_arrays,
    write_json,
)


def test_file_appears_when_the_block_ends(workplace):
    file = Path("new/folder/file.txt")
    with atomic_path(file) as path:
        path.write_text("whole")
        assert not file.exists()
        assert path.suffix == ".txt"
    assert file.read_text() == "whole"
    assert [p.name for p in file.parent.iterdir()] == ["file.txt"]


def test_failing_block_leaves_the_old_file_and_nothing_else(workplace):
    Path("file.txt").write_text("old")

    def fail_half_way() -> None:
        with atomic_path(Path("file.txt")) as path:
            path.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert Path("file.txt").read_text() == "old"
    assert [p.name for p in workplace.iterdir()] == ["file.txt"]


def test_what_a_kill_left_is_replaced(workplace):
    with atomic_path(Path("file.txt")) as path:
        leftover = path.name
        path.write_text("")
    Path(leftover).write_text("half")
    with atomic_path(Path("file.txt")) as path:
        path.write_text("whole")
    assert [p.name for p in workplace.iterdir()] == ["file.txt"]


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Keep which files and folders are flushed, and when one gets its name."""
    made, fsync, replace = [], os.fsync, Path.replace

    def flush(handle: int) -> None:
        (path,) = [path for path in (Path(), *Path().rglob("*")) if os.path.samestat(path.stat(), os.fstat(handle))]
        made.append(f"flush {path.as_posix()}")
        fsync(handle)

    def rename(path: Path, to: Path) -> Path:
        made.append(f"rename {path.as_posix()} to {to.as_posix()}")
        return replace(path, to)

    monkeypatch.setattr(files, "fcntl", SimpleNamespace())  # on macOS there would be a stronger flush
    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", rename)
    return made


flushes_folders = pytest.mark.skipif(os.name == "nt", reason="Windows flushes no folders")


@flushes_folders
def test_contents_are_flushed_before_the_name_and_the_name_before_the_end(calls):
    write_json(Path("a/b/c.json"), {})
    assert calls == [
        *("flush .", "flush a"),
        *("flush a/b/.c.partial.json", "rename a/b/.c.partial.json to a/b/c.json", "flush a/b"),
    ]


def test_a_folder_that_another_process_makes_at_the_same_time_is_taken(monkeypatch):
    mkdir = Path.mkdir

    def too_late(path: Path, **options: object) -> None:
        mkdir(path)
        mkdir(path, **options)

    monkeypatch.setattr(Path, "mkdir", too_late)
    make_folder(Path("a/b"))
    assert Path("a/b").is_dir()


@flushes_folders
@pytest.mark.parametrize("number", [*files.UNABLE, errno.EIO])
@pytest.mark.parametrize("failing", ["folder", "file"])
def test_a_disk_that_flushes_no_folders_is_used_and_one_that_fails_is_not(monkeypatch, number, failing):
    def flush(handle: int) -> None:
        if os.path.samestat(os.fstat(handle), Path().stat()) == (failing == "folder"):
            raise OSError(number, "no")

    monkeypatch.setattr(files, "fcntl", SimpleNamespace())
    monkeypatch.setattr(os, "fsync", flush)
    if failing == "folder" and number != errno.EIO:
        write_json(Path("a.json"), {})
        return
    with pytest.raises(OSError, match="no"):
        write_json(Path("a.json"), {})


def test_windows_flushes_files_that_are_open_for_writing_and_no_folders(monkeypatch):
    """A stand-in, because there is no Windows here: it opens no folders, and flushes no file open for reading."""
    opened, real = [], os.open

    def for_writing(path: Path, flags: int) -> int:
        opened.append((str(path), flags))
        return real(path, flags)

    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files.os, "open", for_writing)
    write_json(Path("a.json"), {})
    assert opened == [(".a.partial.json", os.O_RDWR)]


@flushes_folders
@pytest.mark.parametrize("number", [0, errno.ENOTSUP, errno.EIO])
def test_macos_flushes_the_memory_of_the_disk_too(monkeypatch, calls, number):
    """A stand-in, because there is no macOS here."""

    def control(handle: int, command: int) -> None:
        assert command == 51
        os.fstat(handle)
        if number:
            raise OSError(number, "not on this disk")

    monkeypatch.setattr(files, "fcntl", SimpleNamespace(fcntl=control, F_FULLFSYNC=51))
    if number == errno.EIO:
        with pytest.raises(OSError, match="not on this disk"):
            write_json(Path("a.json"), {})
    else:
        write_json(Path("a.json"), {})
    usual = ["flush .a.partial.json", "flush ."]
    assert [call for call in calls if "flush" in call] == (usual if number == errno.ENOTSUP else [])


def test_json_has_a_line_for_each_value_and_a_checksum_of_all_in_any_order():
    write_json(Path("a.json"), {"b": 1, "a": "ä"})
    checksum = hashlib.sha256(b'{"a": "\\u00e4", "b": 1}').hexdigest()
    text = f'{{\n "b": 1,\n "a": "\\u00e4",\n "checksum": "{checksum}"\n}}\n'
    assert Path("a.json").read_text() == text
    Path("a.json").write_text(json.dumps({"a": "ä", "checksum": checksum, "b": 1}))
    assert read_json(Path("a.json")) == {"a": "ä", "b": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a":' * 100_000, "it is nested too deeply"),
        ("[1]", "it does not hold named values"),
        ('{"a": 1, "checksum": "0"}', "its checksum differs: it was damaged, or changed by hand"),
    ],
)
def test_other_json_is_refused(text, said):
    Path("a.json").write_text(text)
    with pytest.raises(ValueError, match=f"^{said}$"):
        read_json(Path("a.json"))


def test_names():
    assert [suffix_of(Path(name)) for name in ("a.h5", "a.x", "a.c-d", "a")] == [".h5", ".x", "", ""]
    if os.name != "nt":  # there any name is taken for a user's
        assert expand_home("~nobody-has-this-name/x") == Path("~nobody-has-this-name/x")
    assert expand_home("~/x") == Path.home() / "x"


def test_the_only_file_in_a_zip_is_read_whatever_macos_puts_beside_it():
    with zipfile.ZipFile("a.zip", "w") as archive:
        for name in ("folder/", "folder/a.csv", "__MACOSX/folder/._a.csv"):
            archive.writestr(name, "" if name.endswith("/") else name)
    assert unpacked(Path("a.zip")) == b"folder/a.csv"
    with zipfile.ZipFile("b.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.csv", "1")
    with pytest.raises(zipfile.BadZipFile, match=r"^a zip that is packed in an unusual way$"):
        unpacked(Path("b.zip"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", ["7", "", "7,8", "7" * 100 + "\u0100", "7" * 100 + "\u0101"])
def test_text_is_decoded_whatever_its_encoding(text, encoding):
    assert decode_text(text.encode(encoding)) == text


def test_no_memory_is_taken_for_more_than_there_is():
    asked = []

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            return bytes(min(size, 500_000))

    assert len(read_at_most(Endless(), 3_000_000)) == 3_000_000
    assert asked == [2**20] * 4 + [1_000_000, 500_000, 0]
    assert read_at_most(io.BytesIO(b"12" * 700_000), 2_000_000) == b"12" * 700_000


def test_the_largest_small_file_is_read_and_a_larger_one_is_not(monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 10)
    Path("a").write_bytes(b"0123456789")
    assert read_small(Path("a")) == b"0123456789"
    Path("a").write_bytes(b"0123456789a")
    with pytest.raises(ValueError, match=r"^more than 10 bytes$"):
        read_small(Path("a"))
    asked = []
    monkeypatch.setattr(files, "read_at_most", lambda stream, most: asked.append(most) or b"")
    read_small(Path("a"))
    assert asked == [11]


def test_the_same_arrays_give_the_same_bytes():
    """With other bytes, the checksums of all runs that are known would change."""
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.array(7)}
    write_arrays(Path("a.npz"), arrays)
    contents = Path("a.npz").read_bytes()
    with zipfile.ZipFile("a.npz") as archive:
        assert {(member.compress_type, member.date_time[0]) for member in archive.infolist()} == {(0, 1980)}
        assert b"'fortran_order': False" in archive.read("a.npy")
    assert contents[4:6] == b"-\0"  # version 4.5 of the format, for more than 4 GB
    write_arrays(Path("b.npz"), arrays, compressed=True)
    with zipfile.ZipFile("b.npz") as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_DEFLATED}
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(Path("c.npz"), {"a": np.array([object()])})
    assert not Path("c.npz").exists()


def test_arrays_by_columns_and_only_those_that_are_asked_for_are_read():
    by_columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez("a.npz", a=by_columns, b=[1, 2], c=np.array([True]), d=np.array([2], np.uint8), e=np.array(["x"]))
    known = {"a": ((2, 3), "f")}
    read = read_arrays(Path("a.npz"), known, others=["b", "c", "d"], exact=False)
    assert {name: array.tolist() for name, array in read.items()} == {
        "a": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "b": [1, 2],
        "c": [True],
        "d": [2],
    }
    with pytest.raises(ValueError, match=r"^e.npy is <U1"):
        read_arrays(Path("a.npz"), known, others=["e"], exact=False)
    with pytest.raises(ValueError, match=r"^it holds other arrays than expected: b, c, d$"):
        read_arrays(Path("a.npz"), known)
    size = zipfile.ZipFile("a.npz").getinfo("b.npy").file_size
    assert read_arrays(Path("a.npz"), known, others=["b"], exact=False, most=size)["b"].tolist() == [1, 2]
    with pytest.raises(ValueError, match=f"^it holds more than {size - 1} bytes$"):
        read_arrays(Path("a.npz"), known, others=["b"], exact=False, most=size - 1)
    Path("b.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"^it is damaged, or no archive of arrays: File is not a zip file$"):
        read_arrays(Path("b.npz"), known)


def test_an_array_in_another_format_is_refused():
    for method, contents, said in (
        (zipfile.ZIP_BZIP2, b"", "a.npy is compressed in a way that is not read"),
        (zipfile.ZIP_STORED, b"\x93NUMPY\x02\x00", "a.npy is in an unknown format"),
    ):
        with zipfile.ZipFile("a.npz", "w", method) as archive:
            archive.writestr("a.npy", contents)
        with pytest.raises(ValueError, match=f"^{said}$"):
            read_arrays(Path("a.npz"), {"a": ((), "f")})
    with zipfile.ZipFile("a.npz", "w") as archive:
        archive.writestr("a.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", b"")
    with pytest.raises(ValueError, match=r"^it holds other arrays than expected: one twice$"):
        read_arrays(Path("a.npz"), {"a": ((), "f")})
