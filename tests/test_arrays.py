"""Arrays: what is written is read again; whatever a stranger may have changed is refused before memory is taken."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hostile import Touch, header, npz
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kaggle_digits.files import read_arrays, write_arrays

SMALL = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7, np.int64)}
EXPECTED = {"weights": ((2, 3), "f"), "step": ((), "i")}


def write_member(contents: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    file = Path("arrays.npz")
    file.write_bytes(npz({"weights.npy": contents}, method))
    return file


@contextmanager
def little_memory() -> Iterator[None]:
    """Check that at no time more than 20 MB are taken."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_read_as_they_were_written(compressed):
    write_arrays(Path("arrays.npz"), SMALL, compressed=compressed)
    read = read_arrays(Path("arrays.npz"), EXPECTED)
    assert list(read) == list(SMALL)
    for name, array in SMALL.items():
        np.testing.assert_array_equal(read[name], array)
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
    # NumPy itself reads the same file.
    with np.load("arrays.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["weights"], SMALL["weights"])


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.float16, np.float32, np.uint8, np.int64]), hnp.array_shapes(min_dims=0, max_dims=3))
)
def test_arrays_of_any_shape_survive(array):
    write_arrays(Path("any.npz"), {"array": array})
    read = read_arrays(Path("any.npz"), {"array": (array.shape, array.dtype.kind)})["array"]
    assert read.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (EXPECTED | {"weights": ((3, 2), "f")}, r"weights.npy is float32 \(2, 3\), where \(3, 2\) of the kind 'f' was"),
        (EXPECTED | {"weights": ((2, 3), "i")}, r"weights.npy is float32 \(2, 3\), where \(2, 3\) of the kind 'i' was"),
        ({"weights": ((2, 3), "f")}, "it holds other arrays than expected: step"),
        (EXPECTED | {"more": ((), "i")}, "it holds other arrays than expected: more"),
    ],
)
def test_other_arrays_than_expected_are_refused(expected, said):
    write_arrays(Path("arrays.npz"), SMALL)
    with pytest.raises(ValueError, match=f"^{said}"):
        read_arrays(Path("arrays.npz"), expected)


def test_a_pickle_is_never_opened():
    np.savez("arrays.npz", weights=np.array([Touch()], object), allow_pickle=True)
    for kinds in ("f", "O"):
        with pytest.raises(ValueError, match=r"weights|other arrays"):
            read_arrays(Path("arrays.npz"), {"weights": ((1,), kinds)})
    write_member(pickle.dumps(Touch()))
    with pytest.raises(ValueError, match="magic string"):
        read_arrays(Path("arrays.npz"), {"weights": ((1,), "f")})
    assert not Path("was-run").exists()


@pytest.mark.parametrize(
    "contents",
    [
        header((10**12,)) + bytes(24),
        header((10**6, 10**6)),
        header((-1,)) + bytes(24),
        header((6,), "|O") + bytes(48),
        header((6,), "<U100000000"),
        header("(6, None)"),
        header((7,)) + bytes(24),
        header((5,)) + bytes(24),
        b"\x93NUMPY\x03\x00" + header((6,))[8:] + bytes(24),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535,
        b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 9000,
        b"\x93NUMPY\x01\x00" + (90).to_bytes(2, "little") + b"(" * 90,
        b"\x93NUMPY\x01\x00" + (9).to_bytes(2, "little") + b"{1: \x00\x00]}",
        b"",
        b"\x93NUMPY",
    ],
)
def test_absurd_headers_are_refused_without_taking_memory(contents):
    file = write_member(contents)
    with little_memory():
        with pytest.raises(ValueError, match=r"."):
            read_arrays(file, {"weights": ((6,), "f")})
        with pytest.raises(ValueError, match=r"."):
            read_arrays(file, {}, others=["weights"])


def test_a_zip_bomb_is_refused_without_taking_memory():
    file = write_member(header((10**8,)) + bytes(4 * 10**8), zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 5_000_000
    with little_memory():
        with pytest.raises(ValueError, match=r"it holds more than 67,108,864 bytes"):
            read_arrays(file, {}, others=["weights"])
        with pytest.raises(ValueError, match=r"where \(6,\) of the kind"):
            read_arrays(file, {"weights": ((6,), "f")})


def test_a_name_twice_is_refused():
    with zipfile.ZipFile("arrays.npz", "w") as archive:
        archive.writestr("weights.npy", header((6,)) + bytes(24))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("weights.npy", header((6,)) + bytes(24))
    with pytest.raises(ValueError, match="one twice"):
        read_arrays(Path("arrays.npz"), {"weights": ((6,), "f")})


def test_every_shortened_file_is_refused_and_every_flipped_byte_is_noticed_or_harmless():
    write_arrays(Path("arrays.npz"), SMALL)
    whole = Path("arrays.npz").read_bytes()
    for place in range(len(whole)):
        with pytest.raises(ValueError, match=r"."):
            read_arrays(io.BytesIO(whole[:place]), EXPECTED)
        changed = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        try:
            read = read_arrays(io.BytesIO(changed), EXPECTED)
        except ValueError:
            continue
        # Times, attributes and the like may change; numbers may not.
        for name, array in SMALL.items():
            np.testing.assert_array_equal(read[name], array)


def test_a_failed_write_leaves_the_old_file():
    write_arrays(Path("arrays.npz"), SMALL)
    before = Path("arrays.npz").read_bytes()

    class Unwilling:
        def __array__(self, *_, **__):
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_arrays(Path("arrays.npz"), {"weights": Unwilling()})
    assert Path("arrays.npz").read_bytes() == before
    assert [file.name for file in Path().iterdir()] == ["arrays.npz"]
