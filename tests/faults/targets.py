"""The readers of files that are fuzzed. Of whatever they are given comes a result, or one clear error."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import logging
import lzma
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from kaggle_digits.data import find_source, load_test_rows, load_train
from kaggle_digits.errors import DigitsError
from kaggle_digits.learners import Context
from kaggle_digits.recipes import RECIPES
from kaggle_digits.submission import check_submission, fix_submission, read_submission
from kaggle_digits.tables import text as tables

sys.path.insert(0, str(Path(__file__).parents[1]))

NAMES = ("train.csv", "digits", "test.csv.gz", "digit-recognizer.zip", "mnist.npz", "train-images-idx3-ubyte")
"""The names that a table may have. The first byte of what is fuzzed chooses one of them, and what is done with it."""


MEMORY = Path("/dev/shm")
FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY if MEMORY.is_dir() else None)


def folder() -> Path:
    """Return a folder in memory, if there is one, for the files that are tried. It is removed when Python ends."""
    return Path(FOLDER.name)


def table(contents: bytes) -> None:
    """Read a table of digits in any form, as training rows or as rows to predict."""
    first = contents[0] if contents else 0
    file = folder() / NAMES[first % len(NAMES)]
    file.write_bytes(contents[1:])
    try:
        (load_train if first < 128 else load_test_rows)(find_source(file))
    except DigitsError:
        return
    finally:
        file.unlink()


def tables_to_start_from() -> Iterator[bytes]:
    """Yield tables in every form that is read."""
    pixels = np.zeros((2, 784), np.uint8)
    pixels[:, 300:320] = 200
    labels = np.array([3, 7], np.uint8)
    header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    rows = [",".join(map(str, row)) for row in np.column_stack([labels, pixels]).tolist()]
    text = "\n".join([header, *rows]) + "\n"
    unlabelled = "\n".join(",".join(line.split(",")[1:]) for line in text.splitlines()) + "\n"
    yield b"\x00" + text.encode()
    yield b"\x01" + text.replace(",", ";").encode("utf-16")
    yield b"\x01" + "\n".join(" ".join(f"{int(v) / 255:.3f}" for v in row.split(",")[1:]) for row in rows).encode()
    yield b"\x01" + "\r\n".join(f'"{row}"'.replace(",", '","') for row in rows).encode()
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        yield b"\x86" + pack(unlabelled.encode())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("train.csv", text)
        packed.writestr("test.csv", unlabelled)
    yield b"\x03" + archive.getvalue()
    arrays = io.BytesIO()
    images = pixels.reshape(-1, 28, 28)
    np.savez_compressed(arrays, x_train=images, y_train=labels, x_test=images, y_test=labels)
    yield b"\x04" + arrays.getvalue()
    yield b"\x85" + struct.pack(">IIII", 0x803, len(pixels), 28, 28) + pixels.tobytes()


def submission(contents: bytes) -> None:
    """Read, check and mend a submission; what was mended is valid."""
    file, mended = folder() / "submission.csv", folder() / "mended.csv"
    file.write_bytes(contents)
    try:
        reading = read_submission(file)
        rows = len(reading.digits or ())
        if reading.digits is not None:
            fix_submission(file, mended, rows=rows, overwrite=True)
            counts = check_submission(mended, rows=rows)
            if counts != [reading.digits.count(digit) for digit in range(10)]:
                raise AssertionError("the mended file has other digits than were read")
        if (reading.fault is None) != _is_accepted(file, rows):
            raise AssertionError("a file without a fault is not accepted, or one with a fault is")
    except DigitsError:
        return
    finally:
        file.unlink()


def _is_accepted(file: Path, rows: int) -> bool:
    try:
        check_submission(file, rows=rows)
    except DigitsError:
        return False
    return True


def submissions_to_start_from() -> Iterator[bytes]:
    """Yield submissions that are right, and such as people make."""
    right = "ImageId,Label\n" + "".join(f"{i},{i % 10}\n" for i in range(1, 13))
    yield right.encode()
    yield right.replace(",", ";").encode("utf-16")
    yield right.replace("\n", ".0\r\n").encode("utf-8-sig")
    yield b",ImageId,Label\n0,1,7\n1,2,3\n"
    yield "\n".join([",".join("0123456789"), *(",".join("01"[i == k] for i in range(10)) for k in range(4))]).encode()
    yield b"Label\n3\n4\n\n\n"
    yield b'"ImageId","Label"\n"2","1"\n"1","0"\n'
    yield gzip.compress(right.encode())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("submission.csv", right)
    yield archive.getvalue()


def run(contents: bytes) -> None:
    """Load a run folder: two bytes tell how long run.json is; the rest is model.npz."""
    from kaggle_digits.learners import load_run
    from kaggle_digits.run import MODEL_FILE, RUN_FILE, read_run

    place = folder() / "run"
    place.mkdir(exist_ok=True)
    length = int.from_bytes(contents[:2], "big")
    (place / RUN_FILE).write_bytes(contents[2 : 2 + length])
    (place / MODEL_FILE).write_bytes(contents[2 + length :])
    try:
        _ = read_run(place).accuracy
        load_run(place, device()).predict(np.zeros((2, 784), np.uint8))
    except DigitsError:
        return


@functools.cache
def device():
    """Return the CPU, for networks."""
    from kaggle_digits.strategy import resolve_device

    return resolve_device("cpu")


def runs_to_start_from() -> Iterator[bytes]:
    """Yield run folders of the smallest network and of classical methods."""
    from run_folder import write_run

    from kaggle_digits.data import find_source
    from kaggle_digits.run import read_run
    from kaggle_digits.train import train_run

    dense = replace(
        RECIPES["mlp-784-300"],
        name="dense",
        layers=(("AveragePooling2D", {"pool_size": 14}), ("Flatten", {}), ("Dense", {"units": 10})),
        epochs=1,
    )
    rows = load_train(find_source("sample")).take(np.arange(60))
    for recipe in (dense, RECIPES["naive-bayes"]):
        place = folder() / f"from-{recipe.name}"
        if not place.exists():
            trained = train_run(
                recipe, rows, place, context=Context(device=None if recipe.precision is None else device())
            )
            replace(trained, checksums={}, versions={}).save()
        yield _packed(place)
    yield _packed(write_run(folder() / "empty", dense, finished=True).folder)
    assert read_run(folder() / "empty").finished


def _packed(place: Path) -> bytes:
    fields = json.loads((place / "run.json").read_text())
    fields.pop("checksum", None)  # or nearly every change would be noticed by it
    record = json.dumps(fields).encode()
    model = place / "model.npz"
    return len(record).to_bytes(2, "big") + record + (model.read_bytes() if model.exists() else b"")


def picture(contents: bytes) -> None:
    """Read a picture as one digit, and one in a hundred as a page, which takes a hundred times as long."""
    from kaggle_digits.handwriting.page import find_single
    from kaggle_digits.handwriting.photo import load_photos
    from kaggle_digits.handwriting.reader import read_picture

    try:
        for photo in load_photos(contents, name="the picture"):
            find_single(photo.picture, reader().find_ink)
        if zlib.crc32(contents) % 100 == 0:
            read_picture(contents, reader=reader(), name="the picture")
    except DigitsError:
        return


@functools.cache
def reader():
    """Return the reader with the packaged network."""
    from kaggle_digits.handwriting.reader import Reader

    return Reader()


def pictures_to_start_from() -> Iterator[bytes]:
    """Yield a small picture with a stroke in every format that this release of Pillow can write."""
    import pillow_heif

    from kaggle_digits.handwriting.photo import formats

    reader()  # it is in memory before anything is measured
    pillow_heif.register_heif_opener()
    grey = np.full((20, 24), 255, np.uint8)
    grey[4:16, 10:13] = 20
    image = Image.fromarray(grey)
    for name in formats():
        for mode in ("L", "RGB", "RGBA", "P", "1", "I;16"):
            stream = io.BytesIO()
            try:
                image.convert(mode).save(stream, name, **({"save_all": True} if name in ("GIF", "TIFF") else {}))
            except (OSError, KeyError, ValueError):  # this format has no such mode, or cannot be written
                continue
            yield stream.getvalue()


@dataclass(frozen=True)
class Target:
    """A reader of files.

    Args:
        read: reads the contents of a file; whatever it raises is a fault.
        seeds: yields files to start from.
        longest: bytes that a file has at most.
    """

    read: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    longest: int


TARGETS = {
    "table": Target(table, tables_to_start_from, 14_000),
    "submission": Target(submission, submissions_to_start_from, 1_000),
    "run": Target(run, runs_to_start_from, 12_000),
    "picture": Target(picture, pictures_to_start_from, 4_000),
}


def prepare() -> None:
    """Make what is rare in small files frequent, and be quiet."""
    from kaggle_digits.handwriting import photo

    tables.BLOCK = 4096
    # Pictures at the real limits take seconds each. test_attacks reads some.
    photo.MOST_PIXELS = 4_000_000
    logging.disable()
