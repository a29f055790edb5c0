"""Submission: Kaggle accepts the written files, and what Kaggle would refuse is refused here, with its line."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kaggle_digits import cli
from kaggle_digits.errors import SubmissionError
from kaggle_digits.kaggle.competition import upload
from kaggle_digits.kaggle.records import write_record
from kaggle_digits.submission import (
    check_submission,
    fix_submission,
    read_submission,
    write_submission,
)

CORRECT = "Correct or remove the line."
GOOD = "ImageId,Label\n1,7\n2,0\n3,9\n"


def test_written_file_is_the_competition_format(workplace):
    digits = np.array([2, 0, 9, 0], np.int64)
    write_submission(Path("new/submission.csv"), digits)
    assert Path("new/submission.csv").read_bytes() == b"ImageId,Label\n1,2\n2,0\n3,9\n4,0\n"
    frame = pd.read_csv("new/submission.csv")
    assert frame["ImageId"].tolist() == [1, 2, 3, 4]
    assert frame["Label"].tolist() == digits.tolist()


def test_check_returns_label_counts(workplace):
    Path("s.csv").write_text(GOOD)
    assert check_submission(Path("s.csv"), rows=3) == [1, 0, 0, 0, 0, 0, 0, 1, 0, 1]


def test_check_accepts_crlf(workplace):
    Path("s.csv").write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert sum(check_submission(Path("s.csv"), rows=3)) == 3


def test_without_a_test_file_28000_rows_are_expected(workplace):
    write_submission(Path("s.csv"), [1] * 28_000)
    assert check_submission(Path("s.csv")) == [0, 28_000, 0, 0, 0, 0, 0, 0, 0, 0]


FIX = "`kaggle-digits check s.csv --fix OUT.csv` writes the file that was meant."
AGAIN = "Make the file again with `kaggle-digits predict`."
BAD = {
    "empty": ("", f"line 1 is 'nothing'. Expected 'ImageId,Label'. {AGAIN}"),
    "header": (GOOD.replace("Label", "label"), f"line 1 is 'ImageId,label'. Expected 'ImageId,Label'. {FIX}"),
    "no header": (GOOD[14:], f"line 1 is '1,7'. Expected 'ImageId,Label'. {FIX}"),
    "too few": (
        "ImageId,Label\n1,7\n2,0\n",
        "2 rows, the last on line 3. Expected 3, one for each row of test.csv. Make the file from all rows of the test "
        "file.",
    ),
    "too many": (
        GOOD + "4,1\n",
        "4 rows, the last on line 5. Expected 3, one for each row of test.csv. Make the file from all rows of the test "
        "file.",
    ),
    "ids from 0": (
        "ImageId,Label\n0,7\n1,0\n2,9\n",
        f"line 2 has id '0'. Expected 1: ids count up from 1, in the order of test.csv. {FIX}",
    ),
    "id twice": (
        GOOD.replace("3,9", "2,9"),
        "line 4 has id '2'. Expected 3: ids count up from 1, in the order of test.csv; id 2 is there twice. Add or "
        "remove the rows.",
    ),
    "label above 9": (
        GOOD.replace("2,0", "2,10"),
        "line 3 has label '10'. Expected a digit from 0 to 9, without decimals. Correct the line.",
    ),
    "label with decimals": (
        GOOD.replace("2,0", "2,0.0"),
        f"line 3 has label '0.0'. Expected a digit from 0 to 9, without decimals. {FIX}",
    ),
    "empty label": (
        GOOD.replace("2,0", "2,"),
        "line 3 has label ''. Expected a digit from 0 to 9, without decimals. Correct the line.",
    ),
    "digit of another script": (
        GOOD.replace("2,0", "2,٣"),
        "line 3 has label '٣'. Expected a digit from 0 to 9, without decimals. Correct the line.",
    ),
    "third column": (
        GOOD.replace("2,0", "2,0,1"),
        "line 3 is '2,0,1'. Expected an id and a label, as in '2,7'. Correct or remove the line.",
    ),
    "blank line": (
        GOOD.replace("2,0", "\n2,0"),
        f"line 3 is ''. Expected an id and a label, as in '2,7'. {FIX}",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_submission_is_refused_with_its_line(workplace, fault):
    content, message = BAD[fault]
    Path("s.csv").write_text(content, encoding="utf-8")
    with pytest.raises(SubmissionError) as caught:
        check_submission(Path("s.csv"), rows=3)
    assert str(caught.value) == f"s.csv: {message}"


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
    with pytest.raises(SubmissionError) as caught:
        write_submission(Path("s.csv"), [1])
    assert str(caught.value) == (
        "s.csv: exists already. Expected a new name. Choose another, or pass --force to replace it."
    )
    assert Path("s.csv").read_text() == "mine"
    write_submission(Path("s.csv"), [1], overwrite=True)
    assert Path("s.csv").read_text() == "ImageId,Label\n1,1\n"


@pytest.mark.parametrize("name", [".", "folder"])
def test_folder_is_not_a_file_to_write(workplace, name):
    Path("folder").mkdir()
    with pytest.raises(SubmissionError) as caught:
        write_submission(Path(name), [1], overwrite=True)
    assert str(caught.value) == (
        f"{name}: is a folder. Expected the name of a file to write. Add a name, as in mine.csv."
    )


def test_place_that_cannot_be_written_to_is_refused(workplace):
    Path("file").write_text("")
    with pytest.raises(SubmissionError) as caught:
        write_submission(Path("file/s.csv"), [1])
    assert str(caught.value) == (
        f"file/s.csv: nothing can be written in {workplace / 'file'}. Expected a folder that can be written to. Choose "
        "another one."
    )


ACCEPTED = {
    "quoted": b'"ImageId","Label"\n"1","7"\n"2","0"\n"3","9"\n',
    "byte-order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "CRLF": GOOD.replace("\n", "\r\n").encode(),
    "gz": gzip.compress(GOOD.encode()),
    "no last line end": GOOD.rstrip().encode(),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_what_kaggle_accepts_is_accepted(workplace, form):
    Path("s.csv").write_bytes(ACCEPTED[form])
    assert check_submission(Path("s.csv"), rows=3) == [1, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    assert fix_submission(Path("s.csv"), Path("fixed.csv"), rows=3) is None
    assert Path("fixed.csv").read_text() == GOOD


def test_zip_of_one_file_is_accepted_and_of_two_refused(workplace):
    with zipfile.ZipFile("s.zip", "w") as archive:
        archive.writestr("s.csv", GOOD)
        assert not Path("s.csv").exists()
    assert sum(check_submission(Path("s.zip"), rows=3)) == 3
    with zipfile.ZipFile("s.zip", "a") as archive:
        archive.writestr("t.csv", GOOD)
    with pytest.raises(SubmissionError, match="a zip of 2 files, where one is expected"):
        check_submission(Path("s.zip"), rows=3)


ONE_HOT = "ImageId,0,1,2,3,4,5,6,7,8,9\n1,0,0,0,0,0,0,0,1,0,0\n2,1,0,0,0,0,0,0,0,0,0\n3,0,0,0,0,0,0,0,0,0,1\n"
MEANT = {
    "spaces": (GOOD.replace(",", ", "), "line 1 is 'ImageId, Label', with spaces around values. Expected none."),
    "semicolons": (
        GOOD.replace(",", ";"),
        "line 1 is 'ImageId;Label', with semicolons between values. Expected commas.",
    ),
    "tabs": (GOOD.replace(",", "\t"), "line 1 is 'ImageId\\tLabel', with tabs between values. Expected commas."),
    "UTF-16": (GOOD.encode("utf-16"), "it is in UTF-16. Expected UTF-8 or ASCII."),
    "index column": (
        ",ImageId,Label\n0,1,7\n1,2,0\n2,3,9\n",
        "line 1 is ',ImageId,Label', with an index column. Expected 'ImageId,Label'.",
    ),
    "shuffled ids": (
        "ImageId,Label\n3,9\n1,7\n2,0\n",
        "line 2 has id '3'. Expected 1: ids count up from 1, in the order of",
    ),
    "ids from 0": (
        "ImageId,Label\n0,7\n1,0\n2,9\n",
        "line 2 has id '0'. Expected 1: ids count up from 1, in the order of",
    ),
    "decimals": (
        "ImageId,Label\n1,7.0\n2,0.0\n3,9.0\n",
        "line 2 has label '7.0'. Expected a digit from 0 to 9, without",
    ),
    "one-hot": (
        ONE_HOT,
        "line 1 is 'ImageId,0,1,2,3,4,5,6,7,8,9': ten columns, one-hot. Expected one label in each row.",
    ),
    "other names": (GOOD.replace("ImageId,Label", "id,digit"), "line 1 is 'id,digit'. Expected 'ImageId,Label'."),
    "columns swapped": ("Label,ImageId\n7,1\n0,2\n9,3\n", "line 1 is 'Label,ImageId'. Expected 'ImageId,Label'."),
    "labels alone": ("Label\n7\n0\n9\n", "line 1 is 'Label'. Expected 'ImageId,Label'."),
    "blank lines at the end": (GOOD + "\n\n", "line 5 is ''. Expected nothing after the last row."),
}


@pytest.mark.parametrize("fault", MEANT)
def test_fault_is_named_and_what_was_meant_is_written(workplace, capsys, caplog, fault):
    contents, said = MEANT[fault]
    Path("s.csv").write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with pytest.raises(SubmissionError) as caught:
        check_submission(Path("s.csv"), rows=3)
    assert str(caught.value).startswith(f"s.csv: {said}")
    assert str(caught.value).endswith(" `kaggle-digits check s.csv --fix OUT.csv` writes the file that was meant.")
    Path("d").mkdir()
    Path("d/test.csv").write_text(
        "\n".join([",".join(f"pixel{p}" for p in range(784)), *["0" + ",0" * 783] * 3]) + "\n"
    )
    assert cli.main(["check", "s.csv", "--data", "d", "--fix", "fixed.csv"]) == 0
    assert Path("fixed.csv").read_text() == GOOD
    assert capsys.readouterr().out.startswith("fixed.csv: valid, 3 rows as in d's test.csv")
    assert cli.main(["check", "s.csv", "--data", "d", "--fix", "fixed.csv"]) == 2
    assert "fixed.csv: exists already." in capsys.readouterr().err


@pytest.mark.parametrize(
    "contents", ["ImageId,Label\n1,7\n1,0\n3,9\n", "ImageId,Label\n1,7\n2,\n3,9\n", "ImageId,Label\n1,7\n2,12\n3,9\n"]
)
def test_what_cannot_be_told_is_not_guessed(workplace, contents):
    Path("s.csv").write_text(contents)
    with pytest.raises(SubmissionError, match="What was meant cannot be told"):
        fix_submission(Path("s.csv"), Path("fixed.csv"), rows=3)
    assert not Path("fixed.csv").exists()


def test_file_that_is_not_the_competitions_is_not_uploaded(workplace):
    write_submission(Path("s.csv"), [1] * 28_000)
    write_record(Path("s.csv"), [], not_for_upload="its test rows have labels")
    with pytest.raises(SubmissionError) as caught:
        upload(Path("s.csv"), "a message")
    assert str(caught.value) == (
        "s.csv: cannot be uploaded: its test rows have labels. Expected predictions for the test.csv of "
        "digit-recognizer. Predict that file."
    )


LINE, ORDER = "Correct the line.", "Restore the order."
READINGS = [
    ("3\n4\n", [3, 4], "line 1 is '3'. Expected 'ImageId,Label'.", AGAIN),
    ("1,3\n2,4\n", [3, 4], "line 1 is '1,3'. Expected 'ImageId,Label'.", AGAIN),
    ("0,1,3\n1,2,4\n", [3, 4], "line 1 is '0,1,3', with an index column. Expected 'ImageId,Label'.", AGAIN),
    ("0,2,4\n1,1,3\n", [3, 4], "line 1 is '0,2,4', with an index column. Expected 'ImageId,Label'.", AGAIN),
    ("0,1,3,4\n", None, "line 1 is '0,1,3,4'. Expected 'ImageId,Label'.", AGAIN),
    (
        "index,ImageId,Label\n0,1,3\n1,2,4\n",
        [3, 4],
        "line 1 is 'index,ImageId,Label', with an index column. Expected 'ImageId,Label'.",
        AGAIN,
    ),
    (
        ",ImageId,Label\n0,1,3\n",
        [3],
        "line 1 is ',ImageId,Label', with an index column. Expected 'ImageId,Label'.",
        AGAIN,
    ),
    (
        "Unnamed: 0,ImageId,Label\n0,1,3\n",
        [3],
        "line 1 is 'Unnamed: 0,ImageId,Label', with an index column. Expected 'ImageId,Label'.",
        AGAIN,
    ),
    (
        "unnamed:0,ImageId,Label\n0,1,3\n",
        [3],
        "line 1 is 'unnamed:0,ImageId,Label', with an index column. Expected 'ImageId,Label'.",
        AGAIN,
    ),
    (
        ",0,1,2,3,4,5,6,7,8,9\n0,0,0,0,1,0,0,0,0,0,0\n",
        [3],
        "line 1 is ',0,1,2,3,4,5,6,7,8,9': ten columns, one-hot. Expected one label in each row.",
        AGAIN,
    ),
    (
        ",id,0,1,2,3,4,5,6,7,8,9\n0,1,0,0,0,1,0,0,0,0,0,0\n",
        [3],
        "line 1 is ',id,0,1,2,3,4,5,6,7,8,9': ten columns, one-hot. Expected one label in each row.",
        AGAIN,
    ),
    (
        "ImageId,0,1,2,3,4,5,6,7,8,9\n1,0,0,0,1,0,0,0,0,0,0\n",
        [3],
        "line 1 is 'ImageId,0,1,2,3,4,5,6,7,8,9': ten columns, one-hot. Expected one label in each row.",
        AGAIN,
    ),
    ("ImageId,Label,digit\n1,3,3\n", None, "line 1 is 'ImageId,Label,digit'. Expected 'ImageId,Label'.", AGAIN),
    ("ImageId,id,Label\n1,1,3\n", None, "line 1 is 'ImageId,id,Label'. Expected 'ImageId,Label'.", AGAIN),
    ("ImageId,what\n1,3\n", None, "line 1 is 'ImageId,what'. Expected 'ImageId,Label'.", AGAIN),
    ("Label,ImageId\n3,1\n4,2\n", [3, 4], "line 1 is 'Label,ImageId'. Expected 'ImageId,Label'.", AGAIN),
    (
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,Label\n1,3\n",
        None,
        "line 1 is 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'. Expected 'ImageId,Label'.",
        AGAIN,
    ),
    (
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n3\n",
        None,
        "line 1 is 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'. Expected 'ImageId,Label'.",
        AGAIN,
    ),
    ("Image Id,Label\n1,3\n", [3], "line 1 is 'Image Id,Label'. Expected 'ImageId,Label'.", AGAIN),
    ("image_id,label\n1,3\n", [3], "line 1 is 'image_id,label'. Expected 'ImageId,Label'.", AGAIN),
    (
        "ImageId,Label\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,3\n",
        None,
        f"line 2 has id {'x' * 40!r}. Expected 1: ids count up from 1, in the order of test.csv.",
        ORDER,
    ),
    (
        "ImageId,Label\n1,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
        None,
        "line 2 has label 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'. Expected a digit from 0 to 9, without decimals.",
        LINE,
    ),
    (
        "ImageId,Label\n1,3,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
        None,
        "line 2 is '1,3,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'. Expected an id and a label, as in '1,7'.",
        CORRECT,
    ),
    ("ImageId,Label\n1,3\n\n2,4\n", [3, 4], "line 3 is ''. Expected an id and a label, as in '2,7'.", CORRECT),
    ("ImageId,Label\n1,10\n", None, "line 2 has label '10'. Expected a digit from 0 to 9, without decimals.", LINE),
    ("ImageId,Label\n1,-1\n", None, "line 2 has label '-1'. Expected a digit from 0 to 9, without decimals.", LINE),
    ("ImageId,Label\n1,3.0\n", [3], "line 2 has label '3.0'. Expected a digit from 0 to 9, without decimals.", LINE),
    ("ImageId,Label\n1,3.5\n", None, "line 2 has label '3.5'. Expected a digit from 0 to 9, without decimals.", LINE),
    ("ImageId,Label\n1,\n", None, "line 2 has label ''. Expected a digit from 0 to 9, without decimals.", LINE),
    (
        "ImageId,Label\n1.0,3\n",
        [3],
        "line 2 has id '1.0'. Expected 1: ids count up from 1, in the order of test.csv.",
        ORDER,
    ),
    (
        "ImageId,Label\n1,3\n3,4\n",
        None,
        "line 3 has id '3'. Expected 2: ids count up from 1, in the order of test.csv; id 2 is missing.",
        "Add or remove the rows.",
    ),
    (
        "ImageId,Label\n1,3\n1,4\n",
        None,
        "line 3 has id '1'. Expected 2: ids count up from 1, in the order of test.csv; id 1 is there twice.",
        "Add or remove the rows.",
    ),
    (
        "ImageId,Label\n0,3\n1,4\n",
        [3, 4],
        "line 2 has id '0'. Expected 1: ids count up from 1, in the order of test.csv.",
        ORDER,
    ),
    (
        "ImageId,Label\n2,3\n3,4\n",
        None,
        "line 2 has id '2'. Expected 1: ids count up from 1, in the order of test.csv; id 1 is missing.",
        "Add or remove the rows.",
    ),
    (
        "0,1,2,3,4,5,6,7,8,9\n0,1,0,1,0,0,0,0,0,0\n",
        None,
        "line 2 is '0,1,0,1,0,0,0,0,0,0'. Expected ten numbers, one of which is the greatest.",
        LINE,
    ),
    (
        "0,1,2,3,4,5,6,7,8,9\n0.0000000,0.0000000,0.0000000,0.0000000,0.0000000,0.0000000,0.0000000,0.0000000,0.0000000,0.0000000\n",
        None,
        f"line 2 is {'0.0000000,' * 4!r}. Expected ten numbers, one of which is the greatest.",
        LINE,
    ),
    ("ImageId,Label\n", [], None, ""),
    ("ImageId,Label\n1,3\n,\n\n", [3], "line 3 is ','. Expected nothing after the last row.", CORRECT),
    (
        "ImageId,Label\n1,3\n                                                  \n",
        [3],
        "line 3 is '                                        ', with spaces around values. Expected none.",
        CORRECT,
    ),
    ("ImageId\tLabel\n1\t3\n", [3], "line 1 is 'ImageId\\tLabel', with tabs between values. Expected commas.", AGAIN),
    ("ImageId,Label\n1, 3\n", [3], "line 2 is '1, 3', with spaces around values. Expected none.", CORRECT),
    (
        "ImageId,Label\n1,                                                  3\n",
        [3],
        "line 2 is '1,                                      ', with spaces around values. Expected none.",
        CORRECT,
    ),
    (
        "ImageId;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n1;3\n",
        None,
        "line 1 is 'ImageId;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'. Expected 'ImageId,Label'.",
        AGAIN,
    ),
    # What stands in the way is named, not what comes first.
    (
        "ImageId,Label\n1,2.0\n2,\n",
        None,
        "line 3 has label ''. Expected a digit from 0 to 9, without decimals.",
        LINE,
    ),
    ("# ImageId,Label\n1,3\n", [3], "line 1 is '# ImageId,Label'. Expected 'ImageId,Label', without the #.", AGAIN),
    ("# ImageId Label\n1 3\n", [3], "line 1 is '# ImageId Label', with spaces between values. Expected commas.", AGAIN),
    (
        "ImageId,Label\n1.000e+00,7.000e+00\n",
        [7],
        "line 2 has id '1.000e+00'. Expected 1: ids count up from 1, in the order of test.csv.",
        ORDER,
    ),
    ("ImageId,Label\n1,[7]\n", [7], "line 2 has label '[7]'. Expected a digit from 0 to 9, without decimals.", LINE),
    (
        "ImageId;Label\n1;7,0\n",
        [7],
        "line 1 is 'ImageId;Label', with semicolons between values. Expected commas.",
        AGAIN,
    ),
    ('"ImageId,Label"\n"1,3"\n', [3], "line 1 is '\"ImageId,Label\"'. Expected no quotation marks.", CORRECT),
    (
        "# ImageId,Label\n1 3\n2 4\n",
        [3, 4],
        "line 1 is '# ImageId,Label'. Expected 'ImageId,Label', without the #.",
        AGAIN,
    ),
    ("sep=,\nImageId,Label\n1,3\n", [3], "line 1 is 'sep=,'. Expected 'ImageId,Label'.", AGAIN),
    ("\nImageId,Label\n1,x\n", None, "line 3 has label 'x'. Expected a digit from 0 to 9, without decimals.", LINE),
    ("\nImageId,Label\n1,3\n", [3], "line 1 is ''. Expected 'ImageId,Label'.", AGAIN),
    (
        "ImageId,Label,\n1,3,\n2,4,\n",
        [3, 4],
        "line 1 is 'ImageId,Label,'. Expected 'ImageId,Label', without a last comma.",
        AGAIN,
    ),
    ("Category,Id\n3,1\n4,2\n", [3, 4], "line 1 is 'Category,Id'. Expected 'ImageId,Label'.", AGAIN),
    (
        "0,1,2,3,4,5,6,7,8,9\nnan,.1,.1,.1,.1,.1,.1,.1,.1,.1\n",
        None,
        "line 2 is 'nan,.1,.1,.1,.1,.1,.1,.1,.1,.1'. Expected ten numbers, one of which is the greatest.",
        LINE,
    ),
    ("ImageID,Lable\n1,3\n2,4\n", [3, 4], "line 1 is 'ImageID,Lable'. Expected 'ImageId,Label'.", AGAIN),
    ("a,b\n1,3\n2,4\n", [3, 4], "line 1 is 'a,b'. Expected 'ImageId,Label'.", AGAIN),
    ("a,b\n5,3\n2,4\n", None, "line 1 is 'a,b'. Expected 'ImageId,Label'.", AGAIN),
    (
        "0,1,2,3,4,5,6,7,8,9\n.1,.1,.6,0,0,0,0,0,.1,.1\n1e-3,0.9,0,0,0,0,0,0,0,0\n",
        [2, 1],
        "line 1 is '0,1,2,3,4,5,6,7,8,9': ten columns, of probabilities or scores. Expected one label in each row.",
        AGAIN,
    ),
    (
        "ImageId,Label\n1,3\n,4\n3,5\n",
        None,
        "line 3 has id ''. Expected 2: ids count up from 1, in the order of test.csv.",
        ORDER,
    ),
    ('ImageId,Label\n1,"3\n', None, "line 2 is '1,\"3'. Expected an id and a label.", CORRECT),
    ("ImageId,Label\r\n1,3\r\n", [3], None, ""),
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
        (b"\x89PNG\r\n\x1a\n", "a PNG"),
        (b"PAR1\0\0", "a Parquet"),
        (b"<html><body>", "a web page"),
        (b"\x80\x05\x95\x01", "pickle"),
    ],
)
def test_what_is_no_submission_is_named(contents, what):
    Path("s.csv").write_bytes(contents)
    with pytest.raises(SubmissionError, match=rf"s\.csv: holds .*{what.split()[-1]}"):
        read_submission(Path("s.csv"))
