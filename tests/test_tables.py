"""Tables: whatever form people have the digits in, they are read right or refused with the reason."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import struct
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaggle_digits import cli, data
from kaggle_digits.errors import DataError
from kaggle_digits.submission import count_test_rows
from kaggle_digits.tables import find
from kaggle_digits.tables.text import CsvTable, File

HEADERS = {
    "Kaggle's": [f"pixel{p}" for p in range(784)],
    "from 1": [f"pixel{p}" for p in range(1, 785)],
    "rows and columns": [f"{row}x{column}" for row in range(1, 29) for column in range(1, 29)],
    "rows and columns from 0": [f"r{row}c{column}" for row in range(28) for column in range(28)],
    "px": [f"px_{p}" for p in range(784)],
    "padded": [f"PIXEL{p:03}" for p in range(784)],
    "numbers": [str(p) for p in range(784)],
    "words": [f"dot-{chr(97 + p // 676)}{chr(97 + p // 26 % 26)}{chr(97 + p % 26)}" for p in range(784)],
}


def digits_like(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images that are mostly paper, with paper in the corners, and labels."""
    rng = np.random.default_rng(seed)
    pixels = np.where(rng.random((rows, 784)) < 0.2, rng.integers(1, 256, (rows, 784)), 0).astype(np.uint8)
    pixels[:, [0, -1]] = 0
    pixels[:, 300] = 255
    digits = rng.integers(0, 10, rows)
    digits[: min(rows, 2)] = (3, 7)[: min(rows, 2)]
    return pixels, digits


def read(text: bytes | str, kind: str = "train", name: str = "t.csv", encoding: str = "utf-8") -> data.Rows:
    file = Path(name)
    file.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return CsvTable(File(file)).read(kind)


def write(columns: dict[str, np.ndarray], **options) -> str:
    return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n", **options)


def columns_of(pixels: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    return {name: pixels[:, place] for place, name in enumerate(names)}


numbers = st.sampled_from(["whole", "decimals", "fractions", "inverted", "black and white"])
separators = st.sampled_from([",", ";", "\t", "|", " "])
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(2, 30),
    seed=st.integers(0, 99),
    header=st.sampled_from([*HEADERS, None]),
    label=st.sampled_from(["label", "class", "Digit", "TARGET", "y", None]),
    last=st.booleans(),
    index=st.sampled_from([None, "", "id", "Unnamed: 0", "ImageId"]),
    separator=separators,
    encoding=encodings,
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    quoted=st.booleans(),
    blank=st.integers(0, 2),
    kind=numbers,
)
def test_any_mixture_of_forms_gives_the_same_digits_or_a_refusal(
    workplace, rows, seed, header, label, last, index, separator, encoding, ends, quoted, blank, kind
):
    pixels, digits = digits_like(rows, seed)
    if kind == "black and white":
        pixels = np.where(pixels > 127, 255, 0).astype(np.uint8)
    values: np.ndarray = {
        "whole": pixels,
        "decimals": pixels.astype(float),
        "fractions": np.round(pixels / 255, 6),
        "inverted": 255 - pixels,
        "black and white": pixels // 255,
    }[kind]
    columns = columns_of(values, HEADERS[header or "Kaggle's"])
    if label:
        columns = {**columns, label: digits} if last else {label: digits, **columns}
    if index is not None and separator != " ":
        columns = {index: np.arange(rows), **columns}
    text = write(columns, sep=separator, header=header is not None, quoting=1 if quoted and separator != " " else 0)
    text = (text + "\n" * blank).replace("\n", ends)
    table = "train" if label else "test"
    if header is None and index is not None and rows <= 10 and separator != " ":
        # Rows that number themselves from 0 to 9 may be labels: refused, or read right.
        with contextlib.suppress(DataError):
            np.testing.assert_array_equal(read(text, table, encoding=encoding).pixels, pixels)
        return
    found = read(text, table, encoding=encoding)
    np.testing.assert_array_equal(found.pixels, pixels)
    if label:
        np.testing.assert_array_equal(found.digits, digits)
    else:
        assert found.digits is None


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("label", ["first", "last", None])
def test_pixels_may_have_any_names(header, label):
    pixels, digits = digits_like(5)
    columns = columns_of(pixels, HEADERS[header])
    if label:
        columns = {"class": digits, **columns} if label == "first" else {**columns, "class": digits}
    found = read(write(columns), "train" if label else "test")
    np.testing.assert_array_equal(found.pixels, pixels)
    assert (found.digits is None) == (label is None)


@pytest.mark.parametrize("start", ["0", "V1", "X0"])
def test_names_that_only_count_columns_mean_nothing(start):
    pixels, digits = digits_like(20)
    prefix, first = start.rstrip("01"), int(start[-1])
    table = np.column_stack([digits, pixels])
    found = read(write({f"{prefix}{first + c}": table[:, c] for c in range(785)}))
    np.testing.assert_array_equal(found.pixels, pixels)
    np.testing.assert_array_equal(found.digits, digits)


def test_row_names_of_r_are_left_out():
    pixels, digits = digits_like(4)
    lines = write({"label": digits, **columns_of(pixels, HEADERS["Kaggle's"])}).splitlines()
    text = "\n".join([lines[0], *(f'"{row}",{line}' for row, line in enumerate(lines[1:], start=1))]) + "\n"
    np.testing.assert_array_equal(read(text).pixels, pixels)


def test_separator_at_every_lines_end_makes_no_column():
    pixels, digits = digits_like(4)
    rows = read(write({"label": digits, **columns_of(pixels, HEADERS["Kaggle's"])}).replace("\n", ",\n"))
    np.testing.assert_array_equal(rows.pixels, pixels)
    assert "a separator at the end of every line left out" in rows.notes


def test_decimal_commas_of_a_spreadsheet_are_read():
    pixels, digits = digits_like(4)
    text = write({"label": digits, **columns_of(np.round(pixels / 255, 5), HEADERS["Kaggle's"])}, sep=";", decimal=",")
    np.testing.assert_array_equal(read(text).pixels, pixels)
    np.testing.assert_array_equal(read("sep=;\n" + text).pixels, pixels)


@pytest.mark.parametrize(
    ("change", "end", "note"),
    [
        (lambda pixels: pixels, "", None),
        (lambda pixels: pixels, "\n\n", "blank lines at the end left out"),
        (lambda pixels: pixels.astype(float), "", "whole numbers written as in 5.0"),
        (lambda pixels: np.round(pixels / 255, 6), "", "fractions from 0 to 1 taken times 255"),
        (lambda pixels: 255 - pixels, "", "dark ink on white inverted"),
        (lambda pixels: pixels // 255, "", "0 and 1 taken as black and white"),
    ],
)
def test_what_was_understood_is_said(change, end, note):
    pixels = digits_like(5)[0]
    if note and note.startswith("0 and 1"):
        pixels = np.where(pixels > 127, 255, 0).astype(np.uint8)
    found = read(write(columns_of(change(pixels), HEADERS["Kaggle's"])) + end, "test")
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.notes == ((note,) if note else ())
    assert found.pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.__setitem__((2, 5), 0.5), "has '0.5' as pixel5. Expected a whole number from 0 to 255."),
        (lambda p: p.__setitem__((2, 5), 300), "has '300.0' as pixel5. Expected a whole number from 0 to 255."),
        (lambda p: p.__setitem__((2, 5), np.nan), "has no value as pixel5. Expected a whole number from 0 to 255."),
        (lambda p: p.__setitem__(2, 255 - p[2]), "is an image on white, and 5 others are on black. Expected one of"),
        (
            lambda p: p.__setitem__([0, 1, 3, 4, 5], 255 - p[[0, 1, 3, 4, 5]]),
            "is an image on black, and 5 others are on white.",
        ),
        (
            lambda p: (np.divide(p, 255, out=p), p.__setitem__((2, 5), 2)),
            "has '2.0' as pixel5. Expected a fraction from 0 to 1, as in most of the table.",
        ),
    ],
)
def test_mixtures_of_values_are_refused(change, said):
    pixels = digits_like(6)[0].astype(float)
    change(pixels)
    with pytest.raises(DataError) as caught:
        read(write(columns_of(pixels, HEADERS["Kaggle's"])), "test")
    assert f"row 3 (line 4) {said}" in str(caught.value)


def test_two_ways_are_named():
    pixels, digits = digits_like(12)
    pixels[:, -1] = digits[::-1]
    text = write({"label": digits, **columns_of(pixels, HEADERS["Kaggle's"])}, header=False)
    with pytest.raises(DataError, match="can be understood in two ways: label first or label last"):
        read(text)
    with pytest.raises(DataError, match="can be understood in two ways: the label is 'label' or 'class'"):
        read(write({"label": digits, "class": digits, **columns_of(pixels, HEADERS["Kaggle's"])}))
    turned = [f"{row}x{column}" for column in range(1, 29) for row in range(1, 29)]
    with pytest.raises(DataError, match="the pixels can be understood in two ways: in the order of the columns"):
        read(write(columns_of(pixels, turned)), "test")


@pytest.mark.parametrize("side", [8, 16, 20, 32])
def test_images_of_another_size_are_named(side):
    table = np.zeros((3, side * side), int)
    text = write({"label": np.arange(3), **{f"pixel{p}": table[:, p] for p in range(side * side)}})
    with pytest.raises(DataError, match=rf"like images of {side} × {side}\. Expected a label and 784 pixels"):
        read(text)


# MNIST's own files, and others of its forms


def idx_bytes(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_idx(folder: Path, *, dot: str = "-", packed: bool = True) -> tuple[np.ndarray, ...]:
    folder.mkdir()
    rows, test = data.load_train(data.find_source("sample")), digits_like(30, seed=2)
    arrays = {
        "train-images": rows.pixels.reshape(-1, 28, 28),
        "train-labels": rows.digits.astype(np.uint8),
        "t10k-images": test[0].reshape(-1, 28, 28),
        "t10k-labels": test[1].astype(np.uint8),
    }
    for name, values in arrays.items():
        contents = idx_bytes(values)
        file = folder / f"{name}{dot}idx{values.ndim}-ubyte{'.gz' if packed else ''}"
        file.write_bytes(gzip.compress(contents) if packed else contents)
    return rows.pixels, rows.digits, *test


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_mnists_own_files_are_read(dot, packed):
    expected = write_idx(Path("mnist"), dot=dot, packed=packed)
    source = data.find_source("mnist")
    rows, test = data.load_train(source), data.load_test_rows(source)
    for one, other in zip((rows.pixels, rows.digits, test.pixels, test.digits), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert count_test_rows(source) == 30
    assert "not the competition's file" in str(data.why_not_uploadable(source, data.Rows(test.pixels, None)))


def test_mnists_own_files_and_the_same_rows_as_text_give_the_same_submission(capsys):
    pixels, digits, test_pixels, test_digits = write_idx(Path("mnist"))
    names = HEADERS["Kaggle's"]
    Path("text").mkdir()
    Path("text/mnist_train.csv").write_text(write({"label": digits, **columns_of(pixels, names)}))
    Path("text/mnist_test.csv").write_text(write({"label": test_digits, **columns_of(test_pixels, names)}))
    for folder in ("mnist", "text"):
        assert cli.main(["submit", "--data", folder, "--recipe", "naive-bayes", "--out", f"{folder}.csv"]) == 0
        out = capsys.readouterr().out
        read_right = np.mean(pd.read_csv(f"{folder}.csv")["Label"] == test_digits)
        assert f"test accuracy  {read_right:.2%} of 30 rows, by the labels in the file\n" in out
    assert Path("mnist.csv").read_bytes() == Path("text.csv").read_bytes()
    assert cli.main(["submit", "--data", "text", "--upload", "-m", "x"]) == 2
    assert "--upload: text is not the competition's data: its test rows have labels" in capsys.readouterr().err
    assert cli.main(["predict", "--data", "text", "--run", "runs/text", "--out", "again.csv"]) == 0
    assert " of their labels read right\n" in capsys.readouterr().out


def test_comparison_can_score_on_labelled_test_rows(capsys):
    write_idx(Path("mnist"))
    compare = ["compare", "--recipes", "random,naive-bayes", "--out", "out", "--test"]
    assert cli.main([*compare, "--data", "mnist"]) == 0
    assert "Trained on the same 1,437 rows of mnist" in capsys.readouterr().out
    assert cli.main([*compare, "--data", "sample"]) == 2
    assert "--test: the test rows of sample have no labels." in capsys.readouterr().err


def test_npz_of_keras_is_read():
    pixels, digits = digits_like(20)
    images = pixels.reshape(-1, 28, 28)
    np.savez("mnist.npz", x_train=images, y_train=digits.astype(np.uint8), x_test=images[:5], y_test=digits[:5])
    source = data.find_source("mnist.npz")
    np.testing.assert_array_equal(data.load_train(source).pixels, pixels)
    np.testing.assert_array_equal(data.load_test_rows(source).digits, digits[:5])
    np.savez("mnist.npz", x_train=images[:, :27], y_train=digits, x_test=images, y_test=digits)
    with pytest.raises(DataError, match=r"x_train is uint8 \(20, 27, 28\), and y_train \(20,\). Expected uint8"):
        data.load_train(source)


@pytest.mark.parametrize("fault", ["cut", "other magic", "labels missing", "labels too few"])
def test_damaged_idx_files_are_refused(fault):
    write_idx(Path("mnist"), packed=False)
    images, labels = (Path(f"mnist/train-{what}-idx{n}-ubyte") for what, n in (("images", 3), ("labels", 1)))
    damage, said = {
        "cut": (lambda: images.write_bytes(images.read_bytes()[:-7]), "bytes of data. Expected"),
        "other magic": (lambda: images.write_bytes(b"\0\0\x0d\x03" + images.read_bytes()[4:]), "not an IDX file"),
        "labels missing": (labels.unlink, "no file of labels beside it"),
        "labels too few": (lambda: labels.write_bytes(idx_bytes(np.zeros(5, np.uint8))), "5 labels for 1437 images"),
    }[fault]
    damage()
    with pytest.raises(DataError, match=said):
        data.load_train(data.find_source("mnist"))


# Where the files lie


@pytest.mark.parametrize(
    "where", ["train.csv", "train (1).csv", "data/digit-recognizer/train.csv", "digit-recognizer (1).zip"]
)
def test_data_that_lies_beside_is_found(competition, where):
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    if where.endswith(".zip"):
        with zipfile.ZipFile(where, "w") as archive:
            for name in ("train.csv", "test.csv"):
                archive.write(competition / name, f"some-folder/{name}")
    else:
        Path(where).write_bytes((competition / "train.csv").read_bytes())
    source = data.find_source()
    assert not source.is_sample
    assert len(data.load_train(source)) == 40


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train.csv", "train"),
        ("Train (2).CSV", "train"),
        ("mnist_train_small.csv", "train"),
        ("emnist-digits-test.csv", "test"),
        ("training.tsv", "train"),
        ("test.csv.xz", "test"),
        ("sample_submission.csv", None),
        ("test_labels.csv", None),
        ("train_test.csv", None),
        ("train.json", None),
    ],
)
def test_names_of_text_files_say_their_kind(name, kind):
    assert find._kind_of(name) == kind


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_are_known_by_their_contents(pack):
    pixels, digits = digits_like(5)
    text = write({"label": digits, **columns_of(pixels, HEADERS["Kaggle's"])})
    np.testing.assert_array_equal(read(pack(text.encode()), name="digits.data").pixels, pixels)


def test_folders_of_torchvision_are_looked_through():
    Path("root/MNIST").mkdir(parents=True)
    write_idx(Path("root/MNIST/raw"), packed=False)
    assert len(data.load_train(data.find_source("root"))) == 1437


def test_empty_label_column_of_a_test_file_is_left_out():
    pixels, _ = digits_like(5)
    found = read(write({"label": np.full(5, np.nan), **columns_of(pixels, HEADERS["Kaggle's"])}), "test")
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.digits is None
