"""Data: every format that Kaggle ships is read alike; what could be misread is refused with line and reason."""

from __future__ import annotations

import gzip
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TEST_HEADER, TRAIN_HEADER, to_csv

from kaggle_digits import data
from kaggle_digits.digits import one_hot
from kaggle_digits.errors import DataError
from kaggle_digits.submission import count_test_rows, expected_rows
from kaggle_digits.tables import find
from kaggle_digits.tables import text as tables

EXPECTED = "Expected a label and 784 pixels (28 × 28) in each row, or the pixels alone."


def assert_is_competition(source: data.Source, train_values: np.ndarray, test_values: np.ndarray) -> None:
    rows = data.load_train(source)
    assert rows.pixels.dtype == np.uint8
    assert rows.digits.dtype == np.int64
    np.testing.assert_array_equal(rows.pixels, train_values[:, 1:])
    np.testing.assert_array_equal(rows.digits, train_values[:, 0])
    np.testing.assert_array_equal(data.load_test(source), test_values)
    assert count_test_rows(source) == len(test_values)


def zip_folder(folder: Path, file: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for csv_file in sorted(folder.glob("*.csv")):
            archive.write(csv_file, prefix + csv_file.name)
    return file


# ── formats ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_folder_is_read(competition, train_values, test_values):
    assert_is_competition(data.find_source(competition), train_values, test_values)


@pytest.mark.parametrize("prefix", ["", "digit-recognizer/"])
def test_zip_is_read_in_place_with_or_without_a_folder_inside(
    competition, tmp_path, train_values, test_values, prefix, workplace
):
    file = zip_folder(competition, tmp_path / "digit-recognizer.zip", prefix)
    assert_is_competition(data.find_source(file), train_values, test_values)
    assert list(workplace.iterdir()) == []


def test_folder_that_holds_the_zip_is_read(competition, tmp_path, train_values, test_values):
    folder = tmp_path / "download"
    folder.mkdir()
    zip_folder(competition, folder / "digit-recognizer.zip")
    assert_is_competition(data.find_source(folder), train_values, test_values)


def test_folder_of_compressed_files_is_read(competition, tmp_path, train_values, test_values):
    folder = tmp_path / "compressed"
    folder.mkdir()
    (folder / "train.csv.gz").write_bytes(gzip.compress((competition / "train.csv").read_bytes()))
    with zipfile.ZipFile(folder / "test.csv.zip", "w") as archive:
        archive.write(competition / "test.csv", "test.csv")
    assert_is_competition(data.find_source(folder), train_values, test_values)


def test_folder_of_a_single_file_and_the_zip_takes_the_rest_from_the_zip(competition, tmp_path, train_values):
    folder = tmp_path / "download"
    folder.mkdir()
    zip_folder(competition, folder / "digit-recognizer.zip")
    (folder / "test.csv").write_text(to_csv(TEST_HEADER, np.full((2, 784), 3)))
    source = data.find_source(folder)
    np.testing.assert_array_equal(data.load_train(source).digits, train_values[:, 0])
    assert data.load_test(source).tolist() == [[3] * 784] * 2


def test_folder_named_sample_is_a_folder(competition, train_values):
    Path("sample").symlink_to(competition)
    for name in ("./sample", "sample/"):
        source = data.find_source(name)
        assert not source.is_sample
        assert source.name == "./sample"
        np.testing.assert_array_equal(data.load_train(source).digits, train_values[:, 0])
    assert data.find_source("sample").is_sample


@pytest.mark.parametrize("name", ["train.csv", "mine.csv", "test-of-mine.csv", "train.csv.gz", "train.csv.zip"])
def test_single_file_is_known_by_its_header(competition, tmp_path, train_values, name):
    file = tmp_path / name
    content = (competition / "train.csv").read_bytes()
    if name.endswith(".gz"):
        file.write_bytes(gzip.compress(content))
    elif name.endswith(".zip"):
        zip_folder(competition, file)
    else:
        file.write_bytes(content)
    np.testing.assert_array_equal(data.load_train(data.find_source(file)).digits, train_values[:, 0])


def test_columns_in_another_order_are_put_right(tmp_path, train_values):
    order = np.random.default_rng(2).permutation(785)
    header = ",".join(np.array(TRAIN_HEADER.split(","))[order])
    (tmp_path / "train.csv").write_text(to_csv(header, train_values[:, order]))
    rows = data.load_train(data.find_source(tmp_path / "train.csv"))
    np.testing.assert_array_equal(rows.pixels, train_values[:, 1:])
    np.testing.assert_array_equal(rows.digits, train_values[:, 0])


def test_byte_order_mark_and_crlf_are_accepted(competition, train_values, test_values):
    for name in ("train.csv", "test.csv"):
        text = (competition / name).read_text()
        (competition / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert_is_competition(data.find_source(competition), train_values, test_values)


def test_missing_last_line_end_is_accepted(competition, train_values, test_values):
    for name in ("train.csv", "test.csv"):
        (competition / name).write_text((competition / name).read_text().rstrip("\n"))
    assert_is_competition(data.find_source(competition), train_values, test_values)


def test_values_equal_those_of_pandas_across_blocks(tmp_path, monkeypatch):
    values = np.random.default_rng(3).integers(0, 256, (50, 784)).astype(np.uint8)
    (tmp_path / "test.csv").write_text(to_csv(TEST_HEADER, values))
    expected = pd.read_csv(tmp_path / "test.csv").to_numpy()
    np.testing.assert_array_equal(expected, values)
    for block in (100, 4096, 5000, 1 << 18):
        monkeypatch.setattr(tables, "BLOCK", block)
        np.testing.assert_array_equal(data.load_test(data.find_source(tmp_path / "test.csv")), expected)


def test_quotes_spaces_and_whole_numbers_with_decimals_are_accepted(competition, train_values, test_values):
    train = (competition / "train.csv").read_text().split("\n")
    train[3] = train[3].replace(",", ", ")
    train[5] = ",".join(f'"{value}"' for value in train[5].split(","))
    train[7] = ",".join(f"{value}.0" for value in train[7].split(","))
    (competition / "train.csv").write_text("\n".join(train))
    assert_is_competition(data.find_source(competition), train_values, test_values)


# ── look-up ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_look_up_order_is_environment_mounts_data_folder_cache_sample(competition, workplace, tmp_path, monkeypatch):
    mounted = ("competitions/digit-recognizer", "digit-recognizer", "our-class/digits")
    mounts = [tmp_path / "kaggle" / "input" / name for name in mounted]
    places = [tmp_path / "environment", *mounts, workplace / "data", tmp_path / "cache"]
    for place in places:
        place.mkdir(parents=True)
        for name in ("train.csv", "test.csv"):
            (place / name).write_bytes((competition / name).read_bytes())
    monkeypatch.setenv("KDIGITS_DATA", str(places[0]))
    found = [data.find_source().name]
    monkeypatch.delenv("KDIGITS_DATA")
    for place in places[1:]:
        found.append(data.find_source().name)
        for name in ("train.csv", "test.csv"):
            (place / name).unlink()
    found.append(data.find_source().name)
    assert found == [*map(str, places[:4]), "data", str(places[5]), "sample"]


@pytest.mark.parametrize("names", [("train.csv", "test.csv"), ("mnist_train.csv", "mnist_test.csv")])
@pytest.mark.parametrize("where", ["datasets/ada/mnist-in-csv", "our-class", "datasets/ada/mnist-in-csv/archive"])
def test_dataset_attached_on_kaggle_is_found_wherever_it_is_mounted(competition, tmp_path, train_values, names, where):
    folder = tmp_path / "kaggle" / "input" / where
    folder.mkdir(parents=True)
    for name, original in zip(names, ("train.csv", "test.csv"), strict=True):
        (folder / name).write_bytes((competition / original).read_bytes())
    found = data.find_source()
    assert found.name == str(folder)
    assert len(data.load_train(found)) == len(train_values)
    assert data.find_source(tmp_path / "kaggle").tables.keys() == {"train", "test"}  # the same with --data


def test_training_file_of_something_else_in_kaggles_inputs_is_passed_over(tmp_path, caplog):
    for name, text in (("titanic", "PassengerId,Survived\n1,0\n"), ("pictures", "\0\1\xff")):
        folder = tmp_path / "kaggle" / "input" / name
        folder.mkdir(parents=True)
        (folder / "train.csv").write_text(text)
    assert data.find_source().is_sample
    for word in ("NO COMPETITION DATA", "which holds pictures, titanic.", "CANNOT BE\nUPLOADED", "Add Input"):
        assert word in caplog.text


def test_sample_is_real_handwriting_in_mnist_form():
    source = data.find_source("sample")
    rows, test_pixels = data.load_train(source), data.load_test(source)
    assert rows.pixels.shape == (1437, 784)
    assert test_pixels.shape == (360, 784)
    assert rows.pixels.dtype == test_pixels.dtype == np.uint8
    images = rows.pixels.reshape(-1, 28, 28)
    assert images[:, :4].max() == images[:, -4:].max() == images[:, :, :4].max() == images[:, :, -4:].max() == 0
    assert images.max() == 255
    # There are 1,797 digits, about 180 of each, in a stratified 80/20 split.
    assert np.bincount(rows.digits).min() >= 139
    assert count_test_rows(source) == 360


@pytest.fixture
def usual() -> np.ndarray:
    """Rows of a table in Kaggle's form: (50, 785) uint8, real digits, the label first."""
    rows = data.load_train(data.find_source("sample"))
    return np.column_stack([rows.digits, rows.pixels])[:50].astype(np.uint8)


@pytest.mark.parametrize("kind", ["train", "test"])
@pytest.mark.parametrize("member", [None, "a/train.csv"])
def test_the_core_reads_kaggles_own_form_itself(usual, kind, member, monkeypatch):
    monkeypatch.setattr(data.KaggleTable, "foreign", lambda _: pytest.fail("it was left to `tables`"))
    text = to_csv(TRAIN_HEADER, usual) if kind == "train" else to_csv(TEST_HEADER, usual[:, 1:])
    file = Path("table")
    if member:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member, text)
    else:
        file.write_text(text)
    rows = data.KaggleTable(file, member).read(kind)
    np.testing.assert_array_equal(rows.pixels, usual[:, 1:], strict=True)
    assert rows.pixels.flags.c_contiguous
    if kind == "test":
        assert rows.digits is None
    else:
        np.testing.assert_array_equal(rows.digits, usual[:, 0].astype(np.int64), strict=True)


def lying(values: np.ndarray) -> None:
    values[:, 1:] = values[:, 1:].reshape(-1, 28, 28).transpose(0, 2, 1).reshape(-1, 784)


OTHER_FORMS = {
    "few rows": lambda text, values: to_csv(TRAIN_HEADER, values[:49]),
    "another header": lambda text, values: text.replace("pixel783", "pixel784"),
    "no header": lambda text, values: text.partition("\n")[2],
    "an index": lambda text, values: text.replace("\n", ",\n").replace(",\n", "\n", 1),
    "a label that is no digit": lambda text, values: text.replace(f"\n{values[0, 0]},", "\n10,", 1),
    "a value that is no pixel": lambda text, values: text.replace(",255", ",256", 1),
    "a missing value": lambda text, values: text.replace(",255", ",", 1),
    "a blank line": lambda text, values: text + "\n",
    "text": lambda text, values: text.replace(",255", ",white", 1),
}
OTHER_PIXELS = {
    "two shades": lambda values: np.copyto(values[:, 1:], values[:, 1:] > 127),
    "one bright image": lambda values: np.copyto(values[7, 1:], 255 - values[7, 1:]),
    "lying digits": lying,
}


@pytest.mark.parametrize("form", [*OTHER_FORMS, *OTHER_PIXELS])
def test_the_core_leaves_other_forms_to_tables(usual, form, monkeypatch):
    asked = []

    class Foreign:
        def read(self, kind: str, *, beside: object) -> str:
            asked.append((kind, beside))
            return "read by tables"

    monkeypatch.setattr(data.KaggleTable, "foreign", lambda _: Foreign())
    OTHER_PIXELS.get(form, len)(usual)
    text = to_csv(TRAIN_HEADER, usual)
    file = Path("train.csv")
    file.write_text(OTHER_FORMS[form](text, usual) if form in OTHER_FORMS else text)
    other = data.KaggleTable(Path("test.csv"))
    assert data.KaggleTable(file).read("train", beside=other) == "read by tables"
    assert asked == [("train", other)]


def test_training_rows_are_predicted_only_where_there_are_no_others(competition, train_values, test_values):
    both = data.find_source(competition)
    np.testing.assert_array_equal(data.load_test_rows(both, alone=True).pixels, test_values)
    alone = data.Source("alone", {"train": both.tables["train"]})
    np.testing.assert_array_equal(data.load_test_rows(alone, alone=True).pixels, train_values[:, 1:])
    with pytest.raises(DataError, match=r"^alone: holds train.csv but no test.csv"):
        data.load_test_rows(alone)


def test_a_split_of_a_share_is_that_of_its_seed(usual):
    rows = data.TrainingRows(usual[:, 1:], np.arange(50) % 10)
    for one, other in zip(
        data.Split(seed=3, fraction=0.2).of(rows), data.split_rows(rows, fraction=0.2, seed=3), strict=True
    ):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.digits, other.digits)


def test_a_table_says_its_file_and_its_member():
    assert str(data.KaggleTable(Path("a.csv"))) == "a.csv"
    assert str(data.KaggleTable(Path("a.zip"), "train.csv")) == "a.zip/train.csv"


# ── labels and split ────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_hot_equals_keras():
    import keras

    digits = np.array([3, 0, 9, 9])
    np.testing.assert_array_equal(one_hot(digits), keras.utils.to_categorical(digits, 10))
    assert one_hot(digits).dtype == np.float32


def test_split_is_stratified_seeded_and_complete():
    digits = np.repeat(np.arange(10), 40)
    rows = data.TrainingRows(np.arange(400 * 784, dtype=np.uint32).reshape(400, 784), digits)
    kept, held_out = data.split_rows(rows, fraction=0.1, seed=3)
    assert np.bincount(held_out.digits).tolist() == [4] * 10
    assert np.bincount(kept.digits).tolist() == [36] * 10
    assert sorted([*kept.pixels[:, 0], *held_out.pixels[:, 0]]) == rows.pixels[:, 0].tolist()
    again = data.split_rows(rows, fraction=0.1, seed=3)[1]
    other = data.split_rows(rows, fraction=0.1, seed=4)[1]
    np.testing.assert_array_equal(held_out.pixels, again.pixels)
    assert not np.array_equal(held_out.pixels, other.pixels)


@pytest.mark.parametrize("fraction", [0.05, 1 / 7, 0.1, 0.5])
@pytest.mark.parametrize("count", [400, 437, 1437])
def test_split_is_that_of_scikit_learn(count, fraction):
    from sklearn.model_selection import train_test_split

    digits = np.random.default_rng(count).choice(10, count)
    rows = data.TrainingRows(np.arange(count)[:, None].repeat(784, axis=1), digits)
    for seed in range(5):
        kept, held_out = data.split_rows(rows, fraction=fraction, seed=seed)
        theirs = train_test_split(np.arange(count), test_size=fraction, stratify=digits, random_state=seed)
        np.testing.assert_array_equal(kept.pixels[:, 0], theirs[0])
        np.testing.assert_array_equal(held_out.digits, digits[theirs[1]])


def test_split_of_too_few_rows_is_refused(train_values):
    rows = data.TrainingRows(train_values[:, 1:], train_values[:, 0].astype(np.int64))
    with pytest.raises(DataError, match=r"^training data: 40 rows, 4 of them of digit 0\. Expected at least 200 rows"):
        data.split_rows(rows, fraction=0.05, seed=0)


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────────────────────


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


def replace_value(text: str, line: int, column: int, value: str) -> str:
    cells = text.split("\n")[line - 1].split(",")
    return edit_line(text, line, lambda _: ",".join([*cells[:column], value, *cells[column + 1 :]]))


def edit_line(text: str, line: int, change) -> str:
    lines = text.split("\n")
    lines[line - 1] = change(lines[line - 1])
    return "\n".join(lines)


BAD_TRAIN = {
    "missing column": (
        lambda t: "\n".join(line.rsplit(",", 1)[0] for line in t.split("\n")),
        "784 columns; missing: 'pixel783'.",
    ),
    "repeated column": (
        lambda t: t.replace("pixel7,", "pixel6,", 1),
        "785 columns; repeated: 'pixel6'; missing: 'pixel7'.",
    ),
    "added column": (
        lambda t: "\n".join(line and f"{line},{'pixel0' if 'l' in line else 0}" for line in t.split("\n")),
        "786 columns; repeated: 'pixel0'.",
    ),
    "no header, and two columns that can be labels": (
        lambda t: "\n".join(["1" + ",0" * 783 + ",2"] * 3) + "\n",
        "785 columns without a header can be understood in two ways: label first or label last. Expected one.",
    ),
    "short row": (
        lambda t: edit_line(t, 5, lambda line: line.rsplit(",", 2)[0]),
        "row 4 (line 5) is too short: 783 values. Expected 785, as in the header.",
    ),
    "long row": (
        lambda t: edit_line(t, 7, lambda line: line + ",0"),
        "row 6 (line 7) is too long: 786 values. Expected 785, as in the header.",
    ),
    "every row long": (
        lambda t: "\n".join(line if "l" in line or not line else line + ",0" for line in t.split("\n")),
        "row 1 (line 2) is too long: 786 values. Expected 785, as in the header.",
    ),
    "short and long rows that make up for each other": (
        lambda t: edit_line(edit_line(t, 5, lambda line: line.rsplit(",", 1)[0]), 6, lambda line: line + ",0"),
        "row 4 (line 5) is too short: 784 values. Expected 785, as in the header.",
    ),
    "words after the last line": (
        lambda t: t + "done",
        "row 41 (line 42) is too short: 1 values. Expected 785, as in the header.",
    ),
    "header only": (lambda t: t.split("\n")[0] + "\n", "a header and no rows. Expected one row per image."),
    "header only, unfinished line": (lambda t: t.split("\n")[0], "a header and no rows. Expected one row per image."),
    "blank line": (lambda t: edit_line(t, 3, lambda line: "\n" + line), "row 2 (line 3) is blank."),
    "empty file": (lambda t: "", "the file is empty. Expected a header and one row per image."),
    "not a CSV": (lambda t: "Sign in\n", f"not a table: its first line has no columns. {EXPECTED}"),
}


@pytest.mark.parametrize("fault", BAD_TRAIN)
def test_bad_training_file_is_refused_with_line_and_reason(competition, fault):
    file = competition / "train.csv"
    change, message = BAD_TRAIN[fault]
    file.write_text(change(file.read_text()))
    assert refused(lambda: data.load_train(data.find_source(competition))).startswith(f"{file}: {message}")


@pytest.mark.parametrize("pixel", ["12.5", "black", "-1", "256", "65537", "inf", "NaN", "9" * 50, ""])
def test_value_that_is_no_pixel_is_refused(competition, pixel):
    file = competition / "train.csv"
    file.write_text(replace_value(file.read_text(), 4, 10, pixel))
    shown = repr(pixel[:40]) if pixel else "no value"
    assert refused(lambda: data.load_train(data.find_source(competition))) == (
        f"{file}: row 3 (line 4) has {shown} as pixel9. Expected a whole number from 0 to 255. Correct or remove the "
        "row."
    )


@pytest.mark.parametrize("label", ["10", "-1", "seven", ""])
def test_value_that_is_no_label_is_refused(competition, label):
    file = competition / "train.csv"
    file.write_text(replace_value(file.read_text(), 4, 0, label))
    shown = repr(label) if label else "no value"
    assert refused(lambda: data.load_train(data.find_source(competition))).startswith(
        f"{file}: row 3 (line 4) has {shown} as label. Expected a digit from 0 to 9."
    )


def test_stray_quote_is_refused(competition):
    file = competition / "train.csv"
    row = "1" + ",200" * 784
    file.write_text("\n".join([TRAIN_HEADER, row, row.replace(",2", ',"2', 1), *[row] * 100]) + "\n")
    with pytest.raises(DataError, match=r"train\.csv: row 2 \(line 3\) has a stray quotation mark\. Remove it\.$"):
        data.load_train(data.find_source(competition))


def test_binary_file_is_not_a_csv(tmp_path):
    file = tmp_path / "train.csv"
    file.write_bytes(b"\x01\x02" + bytes(range(256)))
    with pytest.raises(DataError, match="not a text file"):
        data.load_train(data.find_source(file))


def test_test_file_given_as_training_file(competition):
    (competition / "train.csv").write_bytes((competition / "test.csv").read_bytes())
    with pytest.raises(DataError, match=r"train\.csv: 784 columns, and no label\. .* This looks like test\.csv"):
        data.load_train(data.find_source(competition))


def test_test_file_with_labels_is_read_with_them(competition, train_values):
    (competition / "test.csv").write_bytes((competition / "train.csv").read_bytes())
    source = data.find_source(competition)
    rows = data.load_test_rows(source)
    np.testing.assert_array_equal(rows.pixels, train_values[:, 1:])
    np.testing.assert_array_equal(rows.digits, train_values[:, 0])
    assert (
        data.why_not_uploadable(source, rows) == "its test rows have labels, which those of the competition do not have"
    )


def test_single_test_file_has_no_training_rows(competition):
    with pytest.raises(DataError, match=r"test\.csv: holds test\.csv but no train\.csv\."):
        data.load_train(data.find_source(competition / "test.csv"))


def test_missing_path(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such file or folder\. .* or run `kaggle-digits download`\.$"):
        data.find_source(tmp_path / "nowhere")


def test_folder_without_the_files(tmp_path):
    with pytest.raises(DataError, match=r"no train.csv and no test.csv in it"):
        data.find_source(tmp_path)


def test_zip_with_a_damaged_member(competition, tmp_path):
    file = zip_folder(competition, tmp_path / "digit-recognizer.zip")
    content = bytearray(file.read_bytes())
    middle = content.index(b"train.csv") + 2000
    content[middle : middle + 50] = bytes(50)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"train.csv: cannot be read .* Download it again\.$"):
        data.load_train(data.find_source(file))


def test_truncated_gzip(competition, tmp_path):
    file = tmp_path / "train.csv.gz"
    file.write_bytes(gzip.compress((competition / "train.csv").read_bytes())[:-2000])
    with pytest.raises(DataError, match=r"train.csv.gz: cannot be read .* Download it again\.$"):
        data.load_train(data.find_source(file))


def test_class_that_never_occurs_is_a_warning(competition, caplog, train_values):
    kept = train_values[~np.isin(train_values[:, 0], [4, 7])]
    (competition / "train.csv").write_text(to_csv(TRAIN_HEADER, kept))
    with caplog.at_level(logging.WARNING):
        assert len(data.load_train(data.find_source(competition))) == 32
    assert caplog.messages == [
        f"{competition / 'train.csv'}: no row is labelled 4, 7. A network trained on it never predicts what it has not "
        "seen."
    ]


def test_bad_test_file_is_refused(competition):
    file = competition / "test.csv"
    file.write_text(to_csv(TEST_HEADER, np.full((2, 784), 3)) + "1,2\n")
    with pytest.raises(DataError, match=r"row 3 \(line 4\) is too short: 2 values\. Expected 784"):
        data.load_test(data.find_source(competition))


# ── every word that is said, and every place that is looked at ─────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"KDIGITS_CACHE": "/c"}, "/c"),
        ({"KDIGITS_CACHE": "~/c"}, "HOME/c"),
        ({"KDIGITS_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/kaggle_digits"),
        ({"KDIGITS_CACHE": "", "XDG_CACHE_HOME": "~/x"}, "HOME/x/kaggle_digits"),
        ({"KDIGITS_CACHE": "", "XDG_CACHE_HOME": ""}, "HOME/.cache/kaggle_digits"),
    ],
)
def test_cache_lies_where_the_variables_say(monkeypatch, tmp_path, variables, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find.cache_folder() == Path(expected.replace("HOME", str(tmp_path)))


@pytest.mark.parametrize("member", ["/train.csv", "../train.csv", "a/../../train.csv", "a\\..\\train.csv"])
def test_member_outside_of_the_zip_is_refused(tmp_path, member):
    with zipfile.ZipFile("data.zip", "w") as archive:
        archive.writestr(member, "label\n")
    said = refused(lambda: data.find_source("data.zip"))
    assert said.startswith(f"data.zip: the member {member!r} points outside the archive. Expected plain file names.")


def test_what_is_no_zip_is_named():
    Path("data.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"^data\.zip: not a whole zip file \(File is not a zip file\)\."):
        data.find_source("data.zip")


def test_the_outermost_file_of_a_zip_is_taken_and_what_macs_add_is_not(train_values, test_values):
    train, test = to_csv(TRAIN_HEADER, train_values), to_csv(TEST_HEADER, test_values)
    with zipfile.ZipFile("data.zip", "w") as archive:
        archive.writestr("__MACOSX/train.csv", "")
        archive.writestr("a/b/train.csv", "")
        archive.writestr("a/train.csv", train)
        archive.writestr("a/test.csv", test)
        archive.writestr("a/b/test.csv", "")
        archive.writestr("empty/", "")
    assert_is_competition(data.find_source("data.zip"), train_values, test_values)


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.TXT", "mine.csv.gz"])
def test_the_only_text_in_a_zip_may_have_any_name(train_values, name):
    text = to_csv(TRAIN_HEADER, train_values).encode()
    with zipfile.ZipFile("data.zip", "w") as archive:
        archive.writestr("readme.md", "x")
        archive.writestr(name, gzip.compress(text) if name.endswith("gz") else text)
    source = data.find_source("data.zip")
    assert list(source.tables) == ["train"]
    assert not source.tables["train"].is_kaggle
    np.testing.assert_array_equal(data.load_train(source).pixels, train_values[:, 1:])
    with zipfile.ZipFile("data.zip", "a") as archive:
        archive.writestr("other.csv", text)
    with pytest.raises(DataError, match=r"no train\.csv and no test\.csv in it"):
        data.find_source("data.zip")


@pytest.mark.parametrize(
    ("header", "first", "kind"),
    [
        (TRAIN_HEADER, "5," + ",".join(["0"] * 784), "train"),
        (TEST_HEADER, ",".join(["0"] * 784), "test"),
        ("", "5," + ",".join(["0"] * 784), "train"),
        ("", ",".join(["0"] * 784), "test"),
        (TRAIN_HEADER.replace("label", "Label "), "5," + ",".join(["0"] * 784), "train"),
    ],
)
def test_a_file_of_any_name_is_of_the_kind_that_its_first_line_says(header, first, kind):
    Path("mine.dat").write_text("\n".join(filter(None, [header, first, first])) + "\n")
    assert list(data.find_source("mine.dat").tables) == [kind]


def test_how_many_rows_a_submission_needs_and_where_that_is_known_from(competition):
    source = data.find_source(competition)
    assert expected_rows(None) == (28_000, "test.csv")
    assert expected_rows(source) == (13, f"{competition}'s test.csv")
    assert expected_rows(data.find_source("sample")) == (360, "sample's test.csv")
    (competition / "test.csv").unlink()
    alone = data.find_source(competition)
    assert expected_rows(alone) == (28_000, "test.csv")
    with pytest.raises(DataError, match=r"holds train\.csv but no test\.csv\."):
        expected_rows(alone, named=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (None, ""),
        ("train.csv", " (train.csv in this folder: not a table of digits, 28 × 28 pixels in a row.)"),
        ("my digits.zip", " (In this folder: my digits.zip. To use it: --data 'my digits.zip')"),
        ("notes.GZ", " (In this folder: notes.GZ. To use it: --data notes.GZ)"),
        ("some.npz", " (In this folder: some.npz. To use it: --data some.npz)"),
        ("some.csv", " (In this folder: some.csv. To use it: --data some.csv)"),
        ("some.png", ""),
    ],
)
def test_what_lies_nearby_is_named(name, said, caplog, tmp_path):
    if name:
        Path(name).write_text("a,b\n1,2\n")
    assert data.find_source().is_sample
    assert caplog.messages[0] == (
        "No competition data found in $KDIGITS_DATA, Kaggle's mounts, ./data, this folder or "
        f"{tmp_path / 'cache'}: using the built-in sample, 1,797 small digits. A submission made from it cannot be "
        "uploaded. Fetch the real files with `kaggle-digits download`, or name them with --data." + said
    )


def test_test_rows_alone_nearby_are_named(competition, caplog):
    (competition / "test.csv").rename("test.csv")
    assert data.find_source().is_sample
    assert caplog.messages[0].endswith(" (In this folder: test.csv. To use it: --data test.csv)")


@pytest.mark.parametrize(("width", "found"), [(784, True), (787, True), (783, False), (788, False)])
def test_only_a_table_as_wide_as_digits_is_taken_from_the_current_folder(width, found):
    for kind in ("train", "test"):
        Path(f"{kind}.csv").write_text("\n".join([",".join(["7"] * width)] * 3) + "\n")
    assert data.find_source().is_sample != found


def test_folds_are_stratified_and_hold_every_row_once():
    rows = data.load_train(data.find_source("sample"))
    fold = data.fold_rows(rows, 5, seed=3)
    assert np.array_equal(fold, data.fold_rows(rows, 5, seed=3))
    assert not np.array_equal(fold, data.fold_rows(rows, 5, seed=4))
    for digit in range(10):
        counts = np.bincount(fold[rows.digits == digit], minlength=5)
        assert counts.max() - counts.min() <= 1
    split = data.Split(seed=3, folds=5, fold=2)
    kept, held_out = split.of(rows)
    np.testing.assert_array_equal(held_out.digits, rows.digits[fold == 2])
    np.testing.assert_array_equal(kept.pixels, rows.pixels[fold != 2])
    few = data.TrainingRows(rows.pixels[:30], np.arange(30) % 10)
    with pytest.raises(DataError, match=r"^4 folds of 30 rows, 3 of them of digit 0\. Expected 2 to 3 folds"):
        data.fold_rows(few, 4, seed=0)


def test_split_needs_two_rows_of_each_digit_and_enough_of_all():
    def rows(*counts: int) -> data.TrainingRows:
        digits = np.repeat(np.arange(len(counts)), counts)
        return data.TrainingRows(np.zeros((len(digits), 784), np.uint8), digits)

    kept, held_out = data.split_rows(rows(10, 10), fraction=0.1, seed=0)
    assert (len(kept), len(held_out)) == (18, 2)
    assert sorted(held_out.digits) == [0, 1]
    kept, held_out = data.split_rows(rows(2, 2), fraction=0.5, seed=0)
    assert (sorted(kept.digits), sorted(held_out.digits)) == ([0, 1], [0, 1])
    for few, said in ((rows(10, 9), "19 rows, 9 of them of digit 1"), (rows(30, 1), "31 rows, 1 of them of digit 1")):
        assert refused(lambda few=few: data.split_rows(few, fraction=0.1, seed=0)) == (
            f"training data: {said}. Expected at least 20 rows and 2 of every digit, to hold out 10% of each. Add rows."
        )


@pytest.mark.parametrize("block", [1 << 24, 5000])
@pytest.mark.parametrize("separator", [",", ";", " "])
def test_the_cell_that_is_wrong_is_shown_as_it_is_written(monkeypatch, train_values, block, separator):
    monkeypatch.setattr(tables, "BLOCK", block)
    lines = to_csv(TRAIN_HEADER, train_values).splitlines()
    cells = lines[31].split(",")
    cells[17] = "thirteen"
    lines[31] = ",".join(cells)
    Path("train.csv").write_text("\n".join(lines).replace(",", separator) + "\n")
    with pytest.raises(DataError, match=r"^train\.csv: row 31 \(line 32\) has 'thirteen' as pixel16\."):
        data.load_train(data.find_source("train.csv"))


@pytest.mark.parametrize("at", [0, 20, 39])
def test_a_blank_line_is_named_wherever_it_is(monkeypatch, train_values, at):
    monkeypatch.setattr(tables, "BLOCK", 5000)
    lines = to_csv(TRAIN_HEADER, train_values).splitlines()
    lines.insert(1 + at, "")
    Path("train.csv").write_text("\n".join(lines) + "\n")
    assert refused(lambda: data.load_train(data.find_source("train.csv"))) == (
        f"train.csv: row {at + 1} (line {at + 2}) is blank. Expected one image per line. Remove the line."
    )


def test_absurd_tables_are_refused_before_they_are_parsed(monkeypatch, train_values):
    text = to_csv(TRAIN_HEADER, train_values)
    source = data.find_source
    Path("train.csv").write_text(text + "1," * 3000)
    monkeypatch.setattr(tables, "LONGEST_LINE", 5000)
    monkeypatch.setattr(tables, "BLOCK", 4000)
    with pytest.raises(DataError, match=r"^train.csv: a line of more than 5,000 bytes\. Expected one image"):
        data.load_train(source("train.csv"))
    Path("train.csv").write_text(text)
    monkeypatch.setattr(tables, "MOST_ROWS", 39)
    with pytest.raises(DataError, match=r"^train\.csv: more than 39 rows\."):
        data.load_train(source("train.csv"))
    monkeypatch.setattr(tables, "MOST_ROWS", 40)
    assert len(data.load_train(source("train.csv"))) == 40
    Path("train.csv").write_text(",".join(["7"] * 3137) + "\n")
    with pytest.raises(DataError, match=r"^train.csv: 3,137 columns, like images of 56 × 56\. "):
        data.load_train(source("train.csv"))


@pytest.mark.parametrize("block", [1 << 24, 5000, 2000])
@pytest.mark.parametrize("end", ["", "\n", "\n" * 9000, ("," * 783 + "\n") * 20, " \n\t\n"])
def test_rows_are_counted_without_what_is_blank_at_the_end(monkeypatch, test_values, block, end):
    monkeypatch.setattr(tables, "BLOCK", block)
    Path("test.csv").write_text(to_csv(TEST_HEADER, test_values) + end)
    source = data.find_source("test.csv")
    assert count_test_rows(source) == len(data.load_test(source)) == 13


def test_what_is_no_text_in_a_cell_is_shown_all_the_same(train_values):
    lines = to_csv(TRAIN_HEADER, train_values).encode().splitlines()
    lines[7] = b"5,\xff\xfe" + lines[7][lines[7].index(b",", 3) :]
    Path("train.csv").write_bytes(b"\r\n".join(lines) + b"\r\n")
    with pytest.raises(DataError, match=r"^train.csv: row 7 \(line 8\) has '.+' as pixel0\. Expected a whole number"):
        data.load_train(data.find_source("train.csv"))


def test_a_last_value_that_is_wrong_is_shown_without_the_end_of_its_line(train_values):
    lines = to_csv(TRAIN_HEADER, train_values).splitlines()
    lines[7] = lines[7].rpartition(",")[0] + ",x"
    Path("train.csv").write_bytes("\r\n".join(lines).encode())
    with pytest.raises(DataError, match=r"^train.csv: row 7 \(line 8\) has 'x' as pixel783\."):
        data.load_train(data.find_source("train.csv"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_unpack_all_at_once_are_refused(train_values, method):
    with zipfile.ZipFile("train.csv.zip", "w", method) as archive:
        archive.writestr("train.csv", to_csv(TRAIN_HEADER, train_values))
    with pytest.raises(
        DataError, match=r"^train\.csv\.zip/train\.csv: cannot be read \(it is packed in an unusual way"
    ):
        data.load_train(data.find_source("train.csv.zip"))


MISTAKEN = {
    "web page": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<p>Sign in</p>\n", "Sign in and download"),
    "web page of another kind": (b"<head><title>Kaggle", "a web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "JSON": (b'{"code":403,"message":"Forbidden"}', "Forbidden"),
    "Parquet": (b"PAR1" + bytes(50), "read_parquet"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "recognize"),
    "array": (b"\x93NUMPY" + bytes(50), "savetxt"),
}


@pytest.mark.parametrize("kind", MISTAKEN)
@pytest.mark.parametrize("name", ["train.csv", "digit-recognizer.zip", "anything"])
def test_what_was_saved_under_the_name_of_the_data_is_named(kind, name):
    contents, said = MISTAKEN[kind]
    Path("d").mkdir()
    (Path("d") / name).write_bytes(contents)
    with pytest.raises(DataError) as raised:
        data.load_train(data.find_source("d" if name != "anything" else "d/anything"))
    assert ": holds " in str(raised.value)
    assert said in str(raised.value)


def write_idx(folder: Path, name: str, values: np.ndarray, kind: int = 8) -> None:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(bytes([0, 0, kind, values.ndim]) + sizes + values.tobytes())


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx1-ubyte"),
        ("emnist-digits-train-images-idx3-ubyte", "emnist-digits-train-labels-idx1-ubyte"),
        ("train_images", "train_labels"),
        ("pictures.bin", "classes.bin"),
        ("train.images.idx", "train.labels.idx"),
        ("TrainImages", "TrainLabels"),
        ("x_train", "y_train"),
    ],
)
def test_files_of_mnists_makers_are_known_by_their_first_bytes(train_values, images, labels):
    write_idx(Path("d"), images, train_values[:, 1:].reshape(-1, 28, 28))
    write_idx(Path("d"), labels, train_values[:, 0])
    if "emnist" in images:  # other sets, whose labels are letters, lie beside it
        write_idx(Path("d"), "emnist-balanced-train-images-idx3-ubyte", train_values[:, 1:].reshape(-1, 28, 28))
        write_idx(Path("d"), "emnist-balanced-train-labels-idx1-ubyte", train_values[:, 0] + 30)
    for named in ("d", f"d/{images}"):
        rows = data.load_train(data.find_source(named))
        np.testing.assert_array_equal(rows.digits, train_values[:, 0])
        np.testing.assert_array_equal(rows.pixels, train_values[:, 1:])


def test_labels_of_qmnist_as_numbers_are_read(train_values):
    write_idx(Path("d"), "qmnist-train-images-idx3-ubyte", train_values[:, 1:].reshape(-1, 28, 28))
    labels = np.zeros((len(train_values), 8), ">i4")
    labels[:, 0] = train_values[:, 0]
    write_idx(Path("d"), "qmnist-train-labels-idx2-int", labels, kind=12)
    np.testing.assert_array_equal(data.load_train(data.find_source("d")).digits, train_values[:, 0])
    file = Path("d/qmnist-train-labels-idx2-int")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match="not whole"):
        data.load_train(data.find_source("d"))


def sample_as(turn) -> tuple[np.ndarray, np.ndarray]:
    rows = data.load_train(data.find_source("sample"))
    return turn(rows.pixels.reshape(-1, 28, 28)).reshape(-1, 784), rows.digits


def test_transposed_images_are_set_upright_also_where_only_the_training_rows_have_labels(caplog):
    caplog.set_level("INFO")
    pixels, digits = sample_as(lambda images: images.transpose(0, 2, 1))
    Path("train.csv").write_text(to_csv(TRAIN_HEADER, np.column_stack([digits, pixels])))
    Path("test.csv").write_text(to_csv(TEST_HEADER, pixels[:100]))
    source = data.find_source()
    upright = data.load_train(data.find_source("sample")).pixels
    np.testing.assert_array_equal(data.load_train(source).pixels, upright)
    np.testing.assert_array_equal(data.load_test(source), upright[:100])
    assert "transposed images, as EMNIST has them, set upright" in caplog.text
    Path("train.csv").unlink()
    caplog.clear()
    np.testing.assert_array_equal(data.load_test(data.find_source("test.csv")), pixels[:100])
    assert "most images are wider than tall" in caplog.text


@pytest.mark.parametrize(
    "turn", [lambda images: np.rot90(images, 1, (1, 2)), lambda images: np.rot90(images, 3, (1, 2))]
)
def test_turned_images_are_told_and_stay_as_they_are(caplog, turn):
    pixels, digits = sample_as(turn)
    Path("train.csv").write_text(to_csv(TRAIN_HEADER, np.column_stack([digits, pixels])))
    np.testing.assert_array_equal(data.load_train(data.find_source("train.csv")).pixels, pixels)
    assert "most images are wider than tall" in caplog.text


def test_name_of_a_source_is_kept_so_that_it_can_be_found_again(competition, monkeypatch, tmp_path):
    for name in ("train.csv", "test.csv"):
        Path(name).write_bytes((competition / name).read_bytes())
    here = data.find_source()
    assert (str(here), here.name_for(Path("runs/a"))) == ("this folder", ".")
    assert here.name_for(tmp_path / "elsewhere") == str(Path.cwd())
    assert data.find_source(competition).name_for(Path("runs/a")) == str(competition)
    monkeypatch.chdir(tmp_path)
    found = next(find.find_again(".", tmp_path / "work" / "runs" / "a"))
    assert len(data.load_train(found)) == 40


@pytest.mark.parametrize(
    "names",
    ["train/images train/labels test/images test/labels", "trainX trainY testX testY", "A-train B-train A-test B-test"],
)
def test_test_images_are_never_trained_on(train_values, names):
    for name, part in zip(names.split(), (slice(10, None), slice(10, None), slice(10), slice(10)), strict=True):
        path = Path("d", name)
        is_images = "images" in name or "X" in name or name.startswith("A")
        values = train_values[part, 1:].reshape(-1, 28, 28) if is_images else train_values[part, 0]
        write_idx(path.parent, path.name, values)
    source = data.find_source("d")
    assert len(data.load_train(source)) == 30
    assert len(data.load_test(source)) == 10


def test_images_whose_names_say_nothing_are_not_guessed(train_values):
    for name in "abcd":
        write_idx(Path("d"), name, train_values[:, 1:].reshape(-1, 28, 28) if name in "ac" else train_values[:, 0])
    with pytest.raises(DataError, match="no name says which are for training"):
        data.find_source("d")


def test_many_unknown_files_are_not_all_opened(monkeypatch):
    opened = []
    monkeypatch.setattr(find, "idx_content", opened.append)
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for number in range(1000):
            archive.writestr(f"{number}.bmp", b"BM")
    with pytest.raises(DataError):
        data.find_source("photos.zip")
    assert opened == []


def test_train_and_test_lie_alike_even_if_one_is_small_or_sorted(caplog):
    pixels, digits = sample_as(lambda images: images.transpose(0, 2, 1))
    order = np.argsort(digits, kind="stable")
    Path("train.csv").write_text(to_csv(TRAIN_HEADER, np.column_stack([digits, pixels])[order]))
    Path("test.csv").write_text(to_csv(TEST_HEADER, pixels[:10]))
    upright = data.load_train(data.find_source("sample")).pixels
    source = data.find_source()
    np.testing.assert_array_equal(data.load_train(source).pixels, upright[order])
    np.testing.assert_array_equal(data.load_test(source), upright[:10])


def test_other_sets_in_the_format_of_mnist_are_not_taken_on_kaggle(tmp_path, train_values, competition):
    fashion = tmp_path / "kaggle/input/datasets/zalando/fashionmnist"
    write_idx(fashion, "train-images-idx3-ubyte", train_values[:, 1:].reshape(-1, 28, 28))
    write_idx(fashion, "train-labels-idx1-ubyte", train_values[:, 0])
    broken = tmp_path / "kaggle/input/aaa"
    broken.mkdir()
    (broken / "train.csv.zip").write_bytes(b"PK\x03\x04 and no more")
    assert find.find_competition() is None
    for kind in ("train", "test"):  # a folder for each
        folder = tmp_path / "kaggle/input/our-class" / kind
        folder.mkdir(parents=True)
        (folder / f"{kind}.csv").write_bytes((competition / f"{kind}.csv").read_bytes())
    assert sorted(find.find_competition().tables) == ["test", "train"]


def test_zip_of_any_name_is_looked_into_if_nothing_else_is_there(competition):
    Path("d").mkdir()
    with zipfile.ZipFile("d/archive.zip", "w") as archive:
        for name in ("train.csv", "test.csv"):
            archive.write(competition / name, name)
    assert len(data.load_train(data.find_source("d"))) == 40


def test_web_page_under_the_name_of_mnists_own_files_is_named():
    for name in ("mnist.npz", "train-images-idx3-ubyte"):
        Path(name).write_text("<!DOCTYPE html><p>Sign in</p>")
        with pytest.raises(DataError, match="holds a web page"):
            data.load_train(data.find_source(name))
