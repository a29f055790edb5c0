"""Records: the JSON beside a submission says how it was made and what Kaggle answered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_folder import write_run

from kaggle_digits.errors import SubmissionError
from kaggle_digits.files import read_json, write_json
from kaggle_digits.kaggle import records
from kaggle_digits.recipes import RECIPES
from kaggle_digits.run import RowCounts

RUN = {
    "run": "runs/fast-seed3",
    "recipe": "fast",
    "seed": 3,
    "commit": "0123456789abcdef",
    "versions": {"keras": "3.15.1"},
    "device": {"kind": "cpu"},
    "epochs": 2,
    "training_rows": 39_900,
    "held_out_rows": 2_100,
    "held_out_accuracy": 0.9962,
}
NO_RECORD = "is not a record of kaggle-digits, or a damaged one, and lies where the record"
TAKEN = "belongs. Expected that name to be free. Move or rename one of the two."


def submitted(name: str) -> Path:
    """Write a submission that was uploaded, with its record."""
    file = Path("submissions", name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"ImageId,Label\n1,{len(name) % 10}\n")
    records.write_record(file, [RUN])
    upload = {"competition": "digit-recognizer", "message": "x", "state": "complete", "reference": 7}
    upload |= {"date": "2026-11-22T04:00:00Z", "public_score": "0.99", "error": None, "url": "https://www.kaggle.com"}
    records.save_record(file, records.read_record(file) | {"upload": upload})
    return file


def test_record_says_what_made_the_file():
    file = Path("mine.csv")
    file.write_text("ImageId,Label\n1,7\n2,3\n")
    records.write_record(file, [RUN], build="b1")
    fields = json.loads(Path("mine.json").read_text())
    assert len(fields.pop("checksum")) == 64
    assert fields == {
        "format": "kaggle_digits submission",
        "file": "mine.csv",
        "sha256": hashlib.sha256(b"ImageId,Label\n1,7\n2,3\n").hexdigest(),
        "rows": 2,
        "runs": [RUN],
        "build": "b1",
        "not_for_upload": None,
        "test_checksum": None,
        "upload": None,
    }


def test_a_written_submission_is_checked_and_recorded():
    runs = [replace(write_run(name, RECIPES["random"]), seed=seed) for name, seed in (("one", 1), ("two", 2))]
    epochs = [{"epoch": 1, "seconds": 1.0, "validation_accuracy": 0.5}]
    measured = replace(write_run("fewer", RECIPES["random"]), rows=RowCounts(8, 2, 0), epochs=epochs)
    seven, three = np.eye(10)[[7, 3]]
    out = "mine.csv"
    # Alone, the first run would say 3 and 3. The mean of both says 7 and 3.
    probabilities = [np.stack([0.6 * three + 0.4 * seven, three]), np.stack([seven, three])]
    known = {"build": "b1", "not_for_upload": "it is a test", "test_checksum": 5}
    counts = records.write_checked(out, probabilities, runs, measured=measured, **known)
    assert counts == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert Path(out).read_text() == "ImageId,Label\n1,7\n2,3\n"
    record = records.read_record(Path(out))
    assert {name: record[name] for name in known} == known
    own = {"held_out_rows": 2, "held_out_accuracy": 0.5, "measured_by": "fewer"}
    assert record["runs"] == [run.summary() | own for run in runs]


def test_a_submission_is_replaced_only_by_force_unless_it_is_the_same():
    run, three = write_run("run", RECIPES["random"]), np.eye(10)[[3]]
    records.write_checked("mine.csv", [three], [run])
    before = Path("mine.csv").stat()
    records.write_checked("mine.csv", [three], [run])  # as a job that was stopped before the record would
    assert Path("mine.csv").stat().st_ino == before.st_ino
    with pytest.raises(SubmissionError, match=r"^mine.csv: exists already"):
        records.write_checked("mine.csv", [np.eye(10)[[4]]], [run])
    assert Path("mine.csv").read_text() == "ImageId,Label\n1,3\n"
    records.write_checked("mine.csv", [np.eye(10)[[4]]], [run], overwrite=True)
    assert Path("mine.csv").read_text() == "ImageId,Label\n1,4\n"
    assert records.read_record(Path("mine.csv"))["runs"] == [run.summary()]


def test_neither_a_submission_nor_its_record_is_in_the_way():
    free, taken, recorded = Path("free.csv"), Path("taken.csv"), Path("recorded.csv")
    taken.write_text("ImageId,Label\n1,3\n")
    submitted(recorded.name).rename(recorded)
    Path("submissions/recorded.json").rename("recorded.json")
    records.check_out(free)
    for file in (taken, recorded):
        with pytest.raises(SubmissionError, match=rf"^{file}: exists already"):
            records.check_out(file)
        records.check_out(file, overwrite=True)
    recorded.unlink()
    with pytest.raises(SubmissionError, match=r"recorded"):
        records.check_out(recorded)


@pytest.mark.parametrize(
    ("name", "from_sample", "marked"),
    [
        ("d/mine.csv", True, "d/sample-mine.csv"),
        ("d/sample-mine.csv", True, "d/sample-mine.csv"),
        ("d/mine.csv", False, "d/mine.csv"),
        ("", True, ""),
    ],
)
def test_a_submission_of_the_sample_is_marked(name, from_sample, marked):
    assert records.marked_name(Path(name), from_sample=from_sample) == Path(marked)


def test_what_is_known_of_a_submission_stays_with_its_contents():
    file = submitted("mine.csv")
    records.write_record(file, [RUN, RUN])
    record = records.read_record(file)
    assert (len(record["runs"]), record["upload"]["reference"]) == (2, 7)
    file.write_text("ImageId,Label\n1,0\n")
    record = records.read_record(file)
    assert (record["runs"], record["upload"]) == ([], None)


def test_file_of_somebody_else_is_never_replaced():
    Path("mine.csv").write_text("ImageId,Label\n1,7\n")
    Path("mine.json").write_text('{"mine": true}')
    for call in (records.check_record_free, records.read_record):
        with pytest.raises(SubmissionError, match=f"^mine.json: {NO_RECORD} of mine.csv {TAKEN}$"):
            call(Path("mine.csv"))
    assert Path("mine.json").read_text() == '{"mine": true}'


def test_record_of_another_file_is_not_replaced():
    submitted("mine.csv")
    Path("submissions/mine.json").rename("submissions/other.json")
    other = Path("submissions/other.csv")
    other.write_text("ImageId,Label\n1,0\n")
    for check in (records.read_record, records.check_record_free):
        said = f"^submissions/other.json: is the record of mine.csv, and lies where the record of other.csv {TAKEN}$"
        with pytest.raises(SubmissionError, match=said):
            check(other)


def test_every_file_has_a_record_and_a_number_of_its_own():
    names = ["sub-v1.2", "sub-v1.3", "sub-v1.csv", "sub-v1", "a.csv", "a.txt", "a", "a.record.csv"]
    for name in names:
        Path(name).write_text(f"ImageId,Label\n1,{len(name) % 10}\n")
        records.check_record_free(Path(name))
        records.write_record(Path(name), [])
    assert [records.read_record(Path(name))["file"] for name in names] == names
    assert records.free_name(Path("sub-v1.2")) == Path("sub-v1.2-2")
    assert records.free_name(Path("a.csv")) == Path("a-2.csv")
    assert records.free_name(Path("sub-v1.2-rc1")) == Path("sub-v1.2-rc1")


def test_record_of_an_earlier_version_is_found():
    submitted("mine.csv")
    Path("submissions/mine.csv").rename("submissions/mine.v2")
    record = read_json(Path("submissions/mine.json"))
    write_json(Path("submissions/mine.json"), {**record, "file": "mine.v2"})
    assert records.read_record(Path("submissions/mine.v2"))["upload"]["public_score"] == "0.99"


def test_submission_under_the_name_of_a_record_is_refused():
    with pytest.raises(SubmissionError, match="has the name of a record"):
        records.check_record_free(Path("mine.json"))


@pytest.mark.parametrize(
    "change",
    [{"runs": [{}]}, {"upload": {}}, {"upload": {"state": "complete"}}, {"runs": 7}, {"sha256": None, "file": None}],
)
def test_damaged_records_are_passed_over(change):
    file = submitted("mine.csv")
    path = file.with_suffix(".json")
    fields = json.loads(path.read_text())
    fields.pop("checksum")  # as if it had been written so
    path.write_text(json.dumps(fields | change))
    if change == {"upload": {}}:  # counts as never uploaded
        assert records.load_record(path)["upload"] == {}
    elif "file" in change:  # it can be read, but belongs to another file
        with pytest.raises(SubmissionError, match="is the record of None"):
            records.read_record(file)
    else:
        assert records.load_record(path) is None


def test_a_changed_value_of_a_record_is_noticed():
    file = submitted("mine.csv")
    path = file.with_suffix(".json")
    path.write_text(path.read_text().replace('"0.99"', '"0.98"'))
    assert records.load_record(path) is None
    with pytest.raises(SubmissionError, match=f"^submissions/mine.json: {NO_RECORD} of mine.csv {TAKEN}$"):
        records.read_record(file)


def test_record_of_an_upload_is_replaced_only_by_force():
    file = submitted("mine.csv")
    said = r"^submissions/mine.json: tells .* to Kaggle. Expected .* for mine.csv. Choose .*, or pass --force .* both.$"
    with pytest.raises(SubmissionError, match=said):
        records.check_record_free(file)
    records.check_record_free(file, overwrite=True)


def test_a_name_is_free_if_neither_a_file_nor_a_record_has_it():
    Path("a.csv").touch()
    Path("a-2.json").touch()
    assert records.free_name(Path("a.csv")) == Path("a-3.csv")
    assert records.free_name(Path("a.csv"), may_take=lambda name: name.name == "a-2.csv") == Path("a-2.csv")
