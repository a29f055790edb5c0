"""Records: what made a submission and what Kaggle said, beside the file; the table of a folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from kaggle_digits import records
from kaggle_digits.errors import SubmissionError

RUN = {
    "recipe": {"name": "fast", "epochs": 5},
    "seed": 3,
    "commit": "0123456789abcdef",
    "versions": {"keras": "3.15.1"},
    "device": {"kind": "cpu"},
    "source": "digit-recognizer.zip",
    "rows": {"training": 39_900, "held_out": 2_100},
    "epochs": [{"epoch": 1, "validation_accuracy": 0.9}, {"epoch": 2, "validation_accuracy": 0.9962}],
}


def submitted(name: str, score: str | None, *, state: str = "complete") -> Path:
    """A file that was uploaded, with its record."""
    file = Path("submissions", name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"ImageId,Label\n1,{len(name) % 10}\n")
    records.write_record(file, [RUN])
    upload = {"competition": "digit-recognizer", "message": "x", "state": state, "reference": 7}
    upload |= {"date": "2026-11-22T04:00:00Z", "public_score": score, "error": None, "url": "https://www.kaggle.com"}
    records.save_record(file, records.read_record(file) | {"upload": upload})
    return file


def test_record_says_what_made_the_file():
    file = Path("mine.csv")
    file.write_text("ImageId,Label\n1,7\n2,3\n")
    records.write_record(file, [RUN], build="b1")
    assert json.loads(Path("mine.json").read_text()) == {
        "format": "kaggle_digits submission",
        "file": "mine.csv",
        "sha256": hashlib.sha256(b"ImageId,Label\n1,7\n2,3\n").hexdigest(),
        "rows": 2,
        "runs": [
            {
                "recipe": "fast",
                "seed": 3,
                "commit": "0123456789abcdef",
                "versions": {"keras": "3.15.1"},
                "device": {"kind": "cpu"},
                "epochs": 2,
                "held_out_rows": 2_100,
                "held_out_accuracy": 0.9962,
            }
        ],
        "build": "b1",
        "upload": None,
    }


def test_same_contents_written_again_keep_what_is_known_of_their_submission():
    file = submitted("mine.csv", "0.99")
    records.write_record(file, [RUN, RUN])
    record = records.read_record(file)
    assert (len(record["runs"]), record["upload"]["reference"]) == (2, 7)


def test_readme_that_is_not_text_is_left_alone():
    submitted("mine.csv", "0.99")
    Path("submissions/README.md").write_bytes(b"\xff\xfe")
    assert records.update_table(Path("submissions")) is None


def test_record_of_other_contents_is_not_taken_for_this_files():
    file = submitted("mine.csv", "0.99")
    file.write_text("ImageId,Label\n1,0\n")
    assert records.read_record(file)["runs"] == []
    assert records.read_record(file)["upload"] is None


def test_file_of_somebody_else_is_never_replaced():
    Path("mine.csv").write_text("ImageId,Label\n1,7\n")
    Path("mine.json").write_text('{"mine": true}')
    expected = (
        "mine.json: is not a record of kaggle-digits, and lies where the record of mine.csv belongs. Expected that "
        "name to be free. Move or rename one of the two."
    )
    for call in (records.check_record_free, records.read_record):
        with pytest.raises(SubmissionError) as raised:
            call(Path("mine.csv"))
        assert str(raised.value) == expected
    assert Path("mine.json").read_text() == '{"mine": true}'


def test_record_of_another_file_is_not_replaced():
    submitted("mine.csv", "0.99")
    other = Path("submissions/mine.txt")
    other.write_text("ImageId,Label\n1,0\n")
    with pytest.raises(SubmissionError) as raised:
        records.read_record(other)
    assert str(raised.value) == (
        "submissions/mine.json: is the record of mine.csv, and lies where the record of mine.txt belongs. Expected "
        "that name to be free. Move or rename one of the two."
    )


def test_submission_under_the_name_of_a_record_is_refused():
    with pytest.raises(SubmissionError, match="has the name of a record"):
        records.check_record_free(Path("mine.json"))


@pytest.mark.parametrize(
    "change",
    [{"runs": [{}]}, {"upload": {}}, {"upload": {"state": "complete"}}, {"runs": 7}, {"sha256": None, "file": None}],
)
def test_damaged_records_are_passed_over(change):
    file = submitted("mine.csv", "0.99")
    path = file.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    records.update_table(file.parent)
    assert change.get("upload") == {} or "file" in change or "None yet." in (file.parent / "README.md").read_text()


def test_score_that_is_no_number_is_none():
    assert records.score_of({"upload": {"public_score": "None"}}) is None


def test_record_of_an_upload_is_replaced_only_by_force():
    file = submitted("mine.csv", "0.99")
    with pytest.raises(SubmissionError) as raised:
        records.check_record_free(file)
    assert str(raised.value) == (
        "submissions/mine.json: tells of a submission to Kaggle. Expected a new name for mine.csv. Choose another, or "
        "pass --force to replace both."
    )
    records.check_record_free(file, overwrite=True)


def test_table_has_the_best_first_and_what_failed_last():
    submitted("bb.csv", "0.98")
    submitted("a.csv", "0.9957")
    submitted("cccc.csv", None, state="error")
    submitted("ddddd.csv", None, state="pending")
    submitted("eeeeee.csv", None)
    Path("submissions/never-sent.csv").write_text("ImageId,Label\n1,7\n")
    records.write_record(Path("submissions/never-sent.csv"), [RUN])
    Path("submissions/foreign.json").write_text("[]")
    assert records.update_table(Path("submissions")) == Path("submissions/README.md")
    rows = [line.split(" | ") for line in Path("submissions/README.md").read_text().splitlines() if "| fast" in line]
    assert [(row[0], row[3]) for row in rows] == [
        ("| a.csv", "0.9957"),
        ("| bb.csv", "0.98"),
        ("| cccc.csv", "failed"),
        ("| ddddd.csv", "pending"),
        ("| eeeeee.csv", "not published"),
    ]
    assert rows[0] == ["| a.csv", "fast seed 3", "99.62% of 2,100", "0.9957", "2026-11-22", "0123456789", "7 |"]


def test_rank_counts_the_scored_files_of_the_folder():
    best, second = submitted("a.csv", "0.9957"), submitted("bb.csv", "0.98")
    submitted("cccc.csv", None, state="pending")
    elsewhere = submitted("dddddd.csv", "0.999")
    record = records.read_record(elsewhere)
    records.save_record(elsewhere, record | {"upload": record["upload"] | {"competition": "my-class"}})
    assert records.rank_of(elsewhere) == (1, 1)
    assert records.rank_of(best) == (1, 2)
    assert records.rank_of(second) == (2, 2)
    assert records.rank_of(submitted("ccc.csv", "0.98")) == (2, 3)
    assert records.rank_of(submitted("ddddd.csv", None)) is None


def test_words_around_the_table_are_kept_and_a_readme_without_marks_is_left_alone():
    submitted("a.csv", "0.9957")
    readme = Path("submissions/README.md")
    readme.write_text(f"# Ours\n\n{records.BEGIN}\nold\n{records.END}\n\nThe end.\n")
    records.update_table(readme.parent)
    text = readme.read_text()
    assert text.startswith(f"# Ours\n\n{records.BEGIN}\n\n| file | made by |")
    assert text.endswith(f"| 7 |\n\n{records.END}\n\nThe end.\n")

    readme.write_text("# My notes\n")
    assert records.update_table(readme.parent) is None
    assert readme.read_text() == "# My notes\n"


def test_no_readme_is_made_in_a_folder_of_another_name(workplace):
    assert records.update_table(workplace) is None
    assert not (workplace / "README.md").exists()
