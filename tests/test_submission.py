"""Submission: Kaggle accepts the written files, and what Kaggle would refuse is refused here, with its line."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kaggle_digits import cli, submission
from kaggle_digits.data import find_source
from kaggle_digits.errors import DataError, SubmissionError
from kaggle_digits.kaggle.competition import upload
from kaggle_digits.kaggle.records import write_record
from kaggle_digits.submission import check_submission, expected_rows, fix_submission, read_submission, write_submission

TOP = "ImageId,Label\n"
GOOD = TOP + "1,7\n2,0\n3,9\n"
COUNTS = [1, 0, 0, 0, 0, 0, 0, 1, 0, 1]
FIX = "`kaggle-digits check s.csv --fix OUT.csv` writes the file that was meant."


def test_written_file_is_the_competition_format(workplace):
    write_submission(Path("new/submission.csv"), np.array([2, 0, 9, 0], np.int64))
    assert Path("new/submission.csv").read_bytes() == b"ImageId,Label\n1,2\n2,0\n3,9\n4,0\n"


def test_without_a_test_file_28000_rows_are_expected(workplace):
    write_submission(Path("s.csv"), [1] * 28_000)
    assert check_submission(Path("s.csv")) == [0, 28_000, 0, 0, 0, 0, 0, 0, 0, 0]


ROWS = "Expected 3, one for each row of test.csv. Make the file from all rows of the test file."
BAD = {
    "too few": (TOP + "1,7\n2,0\n", f"2 rows, the last on line 3. {ROWS}"),
    "too many": (GOOD + "4,1\n", f"4 rows, the last on line 5. {ROWS}"),
    "too few, and a blank line": (TOP + "\n1,7\n", "line 2 is ''. .* as in '1,7'. Correct or remove the line."),
    "no digit": (GOOD.replace("2,0", "2,10"), "line 3 has label '10'. .*, without decimals. Correct the line."),
    "decimals": (GOOD.replace("2,0", "2,0.0"), f"line 3 has label '0.0'. .*, without decimals. {FIX}"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_submission_is_refused_with_its_line_and_what_to_do(workplace, fault):
    content, message = BAD[fault]
    Path("s.csv").write_text(content)
    with pytest.raises(SubmissionError, match=f"^s.csv: {message}$"):
        check_submission(Path("s.csv"), rows=3)


def test_sample_submission_is_named_as_such(workplace):
    write_submission(Path("sample-fast.csv"), [1] * 360)
    with pytest.raises(SubmissionError, match=r"360 rows.*cannot be uploaded; check it with --data sample\.$"):
        check_submission(Path("sample-fast.csv"))


def test_missing_and_binary_files_are_refused(workplace):
    with pytest.raises(SubmissionError, match=r"^s.csv: no such file"):
        check_submission(Path("s.csv"))
    Path("s.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SubmissionError, match=r"^s.csv: cannot be read as text"):
        check_submission(Path("s.csv"))


def test_existing_file_is_not_overwritten_unless_forced(workplace):
    Path("s.csv").write_text("mine")
    said = r"^s.csv: exists already. Expected a new name. Choose another, or pass --force to replace it.$"
    with pytest.raises(SubmissionError, match=said):
        write_submission(Path("s.csv"), [1])
    assert Path("s.csv").read_text() == "mine"
    write_submission(Path("s.csv"), [1], overwrite=True)
    assert Path("s.csv").read_text() == TOP + "1,1\n"


@pytest.mark.parametrize("name", [".", "folder"])
def test_folder_is_not_a_file_to_write(workplace, name):
    Path("folder").mkdir()
    said = rf"^{name}: is a folder. Expected the name of a file to write. Add a name, as in mine.csv.$"
    with pytest.raises(SubmissionError, match=said):
        write_submission(Path(name), [1], overwrite=True)


def test_place_that_cannot_be_written_to_is_refused(workplace):
    Path("file").write_text("")
    said = (
        rf"^file/s.csv: nothing .* written in {workplace}/file. Expected a folder .* written to. Choose another one.$"
    )
    with pytest.raises(SubmissionError, match=said):
        write_submission(Path("file/s.csv"), [1])


ACCEPTED = {
    "plain": GOOD.encode(),
    "quoted": b'"ImageId","Label"\n"1","7"\n"2","0"\n"3","9"\n',
    "byte-order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "CRLF": GOOD.replace("\n", "\r\n").encode(),
    "gz": gzip.compress(GOOD.encode()),
    "no last line end": GOOD.rstrip().encode(),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_what_kaggle_accepts_is_accepted(workplace, form):
    Path("s.csv").write_bytes(ACCEPTED[form])
    assert check_submission(Path("s.csv"), rows=3) == COUNTS
    assert fix_submission(Path("s.csv"), Path("fixed.csv"), rows=3) is None
    assert Path("fixed.csv").read_text() == GOOD


def test_zip_of_one_file_is_accepted_and_of_two_refused(workplace):
    with zipfile.ZipFile("s.zip", "w") as archive:
        archive.writestr("s.csv", GOOD)
    assert check_submission(Path("s.zip"), rows=3) == COUNTS
    with zipfile.ZipFile("s.zip", "a") as archive:
        archive.writestr("t.csv", GOOD)
    with pytest.raises(SubmissionError, match="a zip of 2 files, where one is expected"):
        check_submission(Path("s.zip"), rows=3)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (GOOD.replace(",", ";").encode(), "line 1 is 'ImageId;Label', with semicolons"),
        (GOOD.encode("utf-16"), "it is in UTF-16. Expected UTF-8 or ASCII."),
        (b"ImageId,Label\n3,9\n1,7\n2,0\n", "line 2 has id '3'. Expected 1: ids count up"),
    ],
    ids=["semicolons", "UTF-16", "shuffled"],
)
def test_fault_is_named_and_what_was_meant_is_written(workplace, capsys, contents, said):
    Path("s.csv").write_bytes(contents)
    with pytest.raises(SubmissionError, match=rf"^s.csv: {said}.* {FIX}$"):
        check_submission(Path("s.csv"), rows=3)
    Path("d").mkdir()
    Path("d/test.csv").write_text(
        "\n".join([",".join(f"pixel{p}" for p in range(784)), *["0" + ",0" * 783] * 3]) + "\n"
    )
    assert cli.main(["check", "s.csv", "--data", "d", "--fix", "fixed.csv"]) == 0
    assert Path("fixed.csv").read_text() == GOOD
    assert capsys.readouterr().out.startswith("fixed.csv: valid, 3 rows as in d's test.csv")
    assert cli.main(["check", "s.csv", "--data", "d", "--fix", "fixed.csv"]) == 2
    assert "fixed.csv: exists already." in capsys.readouterr().err


def test_the_core_reads_kaggles_own_form_itself(workplace, monkeypatch):
    monkeypatch.setattr(submission, "import_module", lambda name: pytest.fail(f"it was left to {name}"))
    digits = [*range(10), 3]
    write_submission(Path("s.csv"), digits)
    reading = read_submission(Path("s.csv"))
    assert (reading.digits, reading.fault, reading.remedy, reading.lines) == (digits, None, "", 12)


def test_mending_counts_rows_and_replaces_a_file_only_if_told(workplace):
    Path("s.csv").write_text(GOOD.replace(",", ";"))
    with pytest.raises(
        SubmissionError, match=r"^s.csv: 3 rows, the last on line 4. Expected 28000, .* of test.csv. Make"
    ):
        fix_submission(Path("s.csv"), Path("fixed.csv"))
    with pytest.raises(SubmissionError, match=r"Expected 4, one for each row of mine."):
        fix_submission(Path("s.csv"), Path("fixed.csv"), rows=4, counted_in="mine")
    Path("fixed.csv").write_text("kept")
    with pytest.raises(SubmissionError, match=r"^fixed.csv: exists already"):
        fix_submission(Path("s.csv"), Path("fixed.csv"), rows=3)
    assert Path("fixed.csv").read_text() == "kept"
    assert fix_submission(Path("s.csv"), Path("fixed.csv"), rows=3, overwrite=True)
    assert Path("fixed.csv").read_text() == GOOD


def test_what_cannot_be_told_is_not_guessed(workplace):
    Path("s.csv").write_text(TOP + "1,7\n2,12\n3,9\n")
    said = r"^s.csv: line 3 has label '12'. .*. What was meant cannot be told. Correct the line.$"
    with pytest.raises(SubmissionError, match=said):
        fix_submission(Path("s.csv"), Path("fixed.csv"), rows=3)
    assert not Path("fixed.csv").exists()


def test_file_that_is_not_the_competitions_is_not_uploaded(workplace):
    write_submission(Path("s.csv"), [1] * 28_000)
    write_record(Path("s.csv"), [], not_for_upload="its test rows have labels")
    said = (
        r"^s.csv: cannot be uploaded: its test rows have labels. Expected .* the test.csv of digit-recognizer. Predict"
    )
    with pytest.raises(SubmissionError, match=said):
        upload(Path("s.csv"), "a message")


AGAIN, CORRECT = "Make the file again with `kaggle-digits predict`.", "Correct or remove the line."
LINE, ORDER, ROW = "Correct the line.", "Restore the order.", "Add or remove the rows."
NAMES = ". Expected 'ImageId,Label'."
INDEX = f", with an index column{NAMES}"
ONE_HOT = ": ten columns, one-hot. Expected one label in each row."
SPACES = ", with spaces around values. Expected none."
TEN = "0,1,2,3,4,5,6,7,8,9"
LONG = "x" * 50
# The text of a file, the digits that it means, and what is said of its first line.
FIRST_LINES = [
    ("3\n4\n", [3, 4], NAMES),
    ("1,3\n2,4\n", [3, 4], NAMES),
    ("0,1,3\n1,2,4\n", [3, 4], INDEX),
    ("0,2,4\n1,1,3\n", [3, 4], INDEX),
    ("0,1,3,4\n", None, NAMES),
    ("index,ImageId,Label\n0,1,3\n1,2,4\n", [3, 4], INDEX),
    (",ImageId,Label\n0,1,3\n", [3], INDEX),
    ("Unnamed: 0,ImageId,Label\n0,1,3\n", [3], INDEX),
    (f",{TEN}\n0,0,0,0,1,0,0,0,0,0,0\n", [3], ONE_HOT),
    (f",id,{TEN}\n0,1,0,0,0,1,0,0,0,0,0,0\n", [3], ONE_HOT),
    (f"ImageId,{TEN}\n1,0,0,0,1,0,0,0,0,0,0\n", [3], ONE_HOT),
    (
        f"{TEN}\n.1,.1,.6,0,0,0,0,0,.1,.1\n1e-3,0.9,0,0,0,0,0,0,0,0\n",
        [2, 1],
        ": ten columns, of probabilities or scores. Expected one label in each row.",
    ),
    ("ImageId,Label,digit\n1,3,3\n", None, NAMES),
    ("ImageId,id,Label\n1,1,3\n", None, NAMES),
    ("ImageId,what\n1,3\n", None, NAMES),
    ("Label,ImageId\n3,1\n4,2\n", [3, 4], NAMES),
    ("Category,Id\n3,1\n4,2\n", [3, 4], NAMES),
    ("id,digit\n1,3\n2,4\n", [3, 4], NAMES),
    ("Label\n3\n4\n", [3, 4], NAMES),
    (f"{LONG},Label\n1,3\n", None, NAMES),
    (f"{LONG}\n3\n", None, NAMES),
    (f"ImageId;{LONG}\n1;3\n", None, NAMES),
    ("Image Id,Label\n1,3\n", [3], NAMES),
    ("image_id,label\n1,3\n", [3], NAMES),
    ("ImageID,Lable\n1,3\n2,4\n", [3, 4], NAMES),
    ("a,b\n1,3\n2,4\n", [3, 4], NAMES),
    ("a,b\n5,3\n2,4\n", None, NAMES),
    ("ImageId\tLabel\n1\t3\n", [3], ", with tabs between values. Expected commas."),
    ("ImageId;Label\n1;7,0\n", [7], ", with semicolons between values. Expected commas."),
    ("# ImageId Label\n1 3\n", [3], ", with spaces between values. Expected commas."),
    ("# ImageId,Label\n1,3\n", [3], ". Expected 'ImageId,Label', without the #."),
    ("# ImageId,Label\n1 3\n2 4\n", [3, 4], ". Expected 'ImageId,Label', without the #."),
    ("ImageId,Label,\n1,3,\n2,4,\n", [3, 4], ". Expected 'ImageId,Label', without a last comma."),
    ("sep=,\nImageId,Label\n1,3\n", [3], NAMES),
    ("\nImageId,Label\n1,3\n", [3], NAMES),
]
DIGIT = "Expected a digit from 0 to 9, without decimals."
ONE, TWO = (f"Expected {place}: ids count up from 1, in the order of test.csv" for place in (1, 2))
GREATEST = "Expected ten numbers, one of which is the greatest."
READINGS = [
    *((text, digits, f"line 1 is {text.splitlines()[0][:40]!r}{said}", AGAIN) for text, digits, said in FIRST_LINES),
    ("", None, "line 1 is 'nothing'. Expected 'ImageId,Label'.", AGAIN),
    ('"ImageId,Label"\n"1,3"\n', [3], "line 1 is '\"ImageId,Label\"'. Expected no quotation marks.", CORRECT),
    ("ImageId, Label\n1, 3\n", [3], f"line 1 is 'ImageId, Label'{SPACES}", CORRECT),
    (TOP + "1, 3\n", [3], f"line 2 is '1, 3'{SPACES}", CORRECT),
    (f"{TOP}1,{' ' * 50}3\n", [3], f"line 2 is '1,{' ' * 38}'{SPACES}", CORRECT),
    (f"{TOP}1,3\n{' ' * 50}\n", [3], f"line 3 is '{' ' * 40}'{SPACES}", CORRECT),
    (TOP + "1,3\n,\n\n", [3], "line 3 is ','. Expected nothing after the last row.", CORRECT),
    (TOP + "1,3\n\n2,4\n", [3, 4], "line 3 is ''. Expected an id and a label, as in '2,7'.", CORRECT),
    (
        f"{TOP}1,3,{LONG}\n",
        None,
        f"line 2 is '1,3,{LONG[:36]}'. Expected an id and a label, as in '1,7'.",
        CORRECT,
    ),
    (TOP + '1,"3\n', None, "line 2 is '1,\"3'. Expected an id and a label.", CORRECT),
    (f"{TOP}{LONG},3\n", None, f"line 2 has id '{LONG[:40]}'. {ONE}.", ORDER),
    (TOP + "1,3\n,4\n3,5\n", None, f"line 3 has id ''. {TWO}.", ORDER),
    (TOP + "1.0,3\n", [3], f"line 2 has id '1.0'. {ONE}.", ORDER),
    (TOP + "1.000e+00,7.000e+00\n", [7], f"line 2 has id '1.000e+00'. {ONE}.", ORDER),
    (TOP + "0,3\n1,4\n", [3, 4], f"line 2 has id '0'. {ONE}.", ORDER),
    (TOP + "1,3\n3,4\n", None, f"line 3 has id '3'. {TWO}; id 2 is missing.", ROW),
    (TOP + "1,3\n1,4\n", None, f"line 3 has id '1'. {TWO}; id 1 is there twice.", ROW),
    (TOP + "2,3\n3,4\n", None, f"line 2 has id '2'. {ONE}; id 1 is missing.", ROW),
    (f"{TOP}1,{LONG}\n", None, f"line 2 has label '{LONG[:40]}'. {DIGIT}", LINE),
    (TOP + "1,10\n", None, f"line 2 has label '10'. {DIGIT}", LINE),
    (TOP + "1,-1\n", None, f"line 2 has label '-1'. {DIGIT}", LINE),
    (TOP + "1,3.0\n", [3], f"line 2 has label '3.0'. {DIGIT}", LINE),
    (TOP + "1,3.5\n", None, f"line 2 has label '3.5'. {DIGIT}", LINE),
    (TOP + "1,[7]\n", [7], f"line 2 has label '[7]'. {DIGIT}", LINE),
    (TOP + "1,٣\n", None, f"line 2 has label '٣'. {DIGIT}", LINE),
    # What stands in the way is named, not what comes first.
    (TOP + "1,2.0\n2,\n", None, f"line 3 has label ''. {DIGIT}", LINE),
    ("\nImageId,Label\n1,x\n", None, f"line 3 has label 'x'. {DIGIT}", LINE),
    (f"{TEN}\n0,1,0,1,0,0,0,0,0,0\n", None, f"line 2 is '0,1,0,1,0,0,0,0,0,0'. {GREATEST}", LINE),
    (f"{TEN}\n{'0.0000000,' * 9}0.0\n", None, f"line 2 is {'0.0000000,' * 4!r}. {GREATEST}", LINE),
    (f"{TEN}\nnan{',.1' * 9}\n", None, f"line 2 is 'nan{',.1' * 9}'. {GREATEST}", LINE),
    (TOP, [], None, ""),
    (TOP.replace("\n", "\r\n") + "1,3\r\n", [3], None, ""),
]


@pytest.mark.parametrize(("text", "digits", "fault", "remedy"), READINGS)
def test_every_form_is_understood_in_one_way_or_not_at_all(workplace, text, digits, fault, remedy):
    Path("s.csv").write_bytes(text.encode())
    reading = read_submission(Path("s.csv"))
    assert (reading.digits, reading.fault, reading.remedy) == (digits, fault, remedy)
    assert reading.lines == len(text.splitlines())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_submission_in_other_encodings_is_mended(encoding):
    Path("s.csv").write_bytes(GOOD.encode(encoding))
    reading = read_submission(Path("s.csv"))
    assert (reading.digits, reading.fault) == ([7, 0, 9], "it is in UTF-16. Expected UTF-8 or ASCII.")


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"PAR1\0\0", "Parquet"),
        (b"<html><body>", "page"),
        (b"\x80\x05\x95\x01", "pickle"),
    ],
)
def test_what_is_no_submission_is_named(contents, what):
    Path("s.csv").write_bytes(contents)
    with pytest.raises(SubmissionError, match=rf"s\.csv: holds .*{what}"):
        read_submission(Path("s.csv"))


def test_rows_are_those_of_the_data_if_it_has_a_test_table(competition):
    source = find_source(str(competition))
    assert expected_rows(source) == (13, f"{competition}'s test.csv")
    assert expected_rows(None) == (28_000, "test.csv")
    sample = find_source("sample")
    assert expected_rows(sample)[0] == expected_rows(sample, named=True)[0] == 360
    (competition / "test.csv").unlink()
    without = find_source(str(competition))
    assert expected_rows(without) == (28_000, "test.csv")
    with pytest.raises(DataError):
        expected_rows(without, named=True)
