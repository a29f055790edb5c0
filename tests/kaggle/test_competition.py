"""Competition: every supported version of the real client works against a loopback server with state and faults."""

from __future__ import annotations

import functools
import io
import json
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TEST_HEADER, TRAIN_HEADER, to_csv
from kaggle_server import API, SIGNATURE, STORAGE, Fault, KaggleServer
from terminal import CLIENTS, INSTALLED, KEY, SECRETS, TOKEN, Terminal

from kaggle_digits.submission import write_submission

RULES = "https://www.kaggle.com/competitions/digit-recognizer/rules"
PAGE = "https://www.kaggle.com/competitions/digit-recognizer/submissions"
TOKEN_PAGE = "https://www.kaggle.com/settings/api"
JOIN = [f"since no program can: {RULES}.", "a verified phone number", "a misspelt name or a closed competition"]
MAKE_ONE = ["$KAGGLE_API_TOKEN or ~/.kaggle/access_token", "~/.kaggle/kaggle.json", f"Make one at {TOKEN_PAGE}."]
FILE = "submissions/mine.csv"
SENT = ["ListSubmissions", "GetSubmissionLimits", "StartSubmissionUpload", "PUT", "CreateSubmission"]
PART = 2_000_000
"""The number of bytes after which a transfer breaks. The client writes a megabyte at a time."""


@functools.cache
def archive_of(seed: int = 0) -> bytes:
    """Return a zip like the competition's. Its random pixels hardly compress, so it has 3 MB."""
    values = np.random.default_rng(seed).integers(0, 256, (1500, 785)).astype(np.uint8)
    values[:, 0] = np.arange(1500) % 10
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", to_csv(TRAIN_HEADER, values))
        archive.writestr("test.csv", to_csv(TEST_HEADER, values[:, 1:]))
        archive.writestr("sample_submission.csv", "ImageId,Label\n1,0\n")
    return stream.getvalue()


@pytest.fixture(params=CLIENTS)
def terminal(request: pytest.FixtureRequest, tmp_path: Path, workplace: Path) -> Iterator[Terminal]:
    home = tmp_path / "home"
    home.mkdir()
    with KaggleServer(archive_of()).running() as server:
        yield Terminal(server, request.param, home)
        assert server.hosts <= {API, STORAGE}
        assert server.leaks == []


@pytest.fixture
def one_terminal(tmp_path: Path, workplace: Path) -> Iterator[Terminal]:
    """Yield one terminal, for tests that do not depend on the client's version."""
    with KaggleServer().running() as server:
        yield Terminal(server, INSTALLED, tmp_path)


@pytest.fixture
def mine() -> Path:
    """Write a submission that Kaggle would accept."""
    file = Path(FILE)
    write_submission(file, np.arange(28_000) % 10)
    return file


def ranges_asked(terminal: Terminal) -> list[str | None]:
    """Return the byte range that each request for the zip asked for."""
    return [values["headers"].get("Range") for name, _, values in terminal.server.log if name == "GET files"]


def record_of(file: Path) -> dict:
    return json.loads(file.with_suffix(".json").read_text())


# Download


def test_download_leaves_the_zip_in_the_cache_and_is_not_repeated(terminal, tmp_path):
    target = tmp_path / "cache" / "digit-recognizer.zip"
    code, out, _ = terminal.run("download")
    assert (code, out) == (0, f"{target}: whole, 3.1 MB\n")
    assert target.read_bytes() == terminal.server.archive
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert terminal.server.names() == ["DownloadDataFiles", "GET files"]

    assert terminal.run("download")[0] == 0
    assert len(terminal.server.log) == 2
    # `submit` and `check` find the zip there.
    write_submission(Path("mine.csv"), [7] * 1500)
    assert terminal.run("check", "mine.csv")[1].startswith(
        f"mine.csv: valid, 1,500 rows as in {target.parent}'s test.csv"
    )


def test_broken_download_is_continued(terminal, tmp_path):
    terminal.server.faults["GET files"] = Fault(keep_bytes=PART)
    assert terminal.run("download")[0] == 0
    assert (tmp_path / "cache" / "digit-recognizer.zip").read_bytes() == terminal.server.archive
    assert ranges_asked(terminal) == [None, "bytes=1048576-"]


def test_killed_download_goes_on_where_it_stopped(terminal, tmp_path):
    cache = tmp_path / "cache"
    # The client waits after a broken connection. Killed during that wait, it leaves a partial file.
    terminal.server.faults["GET files"] = Fault(keep_bytes=PART, times=99)
    terminal.run_then_kill("download")
    assert not (cache / "digit-recognizer.zip").exists()
    terminal.server.faults.clear()
    terminal.server.log.clear()
    assert terminal.run("download")[0] == 0
    assert (cache / "digit-recognizer.zip").read_bytes() == terminal.server.archive
    assert "bytes=1048576-" in ranges_asked(terminal)
    assert [path.name for path in cache.iterdir()] == ["digit-recognizer.zip"]


def test_part_of_another_file_is_not_continued(terminal, tmp_path):
    terminal.server.faults["GET files"] = Fault(keep_bytes=PART, times=99)
    terminal.run_then_kill("download")
    terminal.server.faults.clear()
    terminal.server.archive, terminal.server.etag = archive_of(seed=1), '"v2"'
    assert terminal.run("download")[0] == 0
    assert (tmp_path / "cache" / "digit-recognizer.zip").read_bytes() == archive_of(seed=1)


def test_download_of_something_else_is_no_data(terminal, tmp_path):
    terminal.server.archive = b"not a zip" * 1000
    code, _, err = terminal.run("download")
    assert code == 1
    assert "the file that came is not the competition's zip" in err
    assert not list((tmp_path / "cache").rglob("*.zip"))


def test_download_to_a_folder_leaves_other_files_alone(terminal):
    Path("here/.partial").mkdir(parents=True)
    Path("here/.partial/precious.txt").write_text("mine")
    zip_name = "here/digit-recognizer.zip"
    code, out, _ = terminal.run("download", "--to", "here")
    assert (code, out) == (0, f"{zip_name}: whole, 3.1 MB; name it with --data {zip_name}\n")
    assert {str(path) for path in Path("here").rglob("*")} == {"here/.partial", "here/.partial/precious.txt", zip_name}


def test_damaged_zip_is_named_and_nothing_is_asked(terminal):
    Path("digit-recognizer.zip").write_bytes(terminal.server.archive[:-100])
    code, _, err = terminal.run("download", "--to", ".")
    assert code == 2
    assert "digit-recognizer.zip: damaged (File is not a zip file)" in err
    assert terminal.server.log == []


# Upload


def test_upload_makes_three_requests_and_leaves_a_record(terminal, mine):
    code, out, err = terminal.run("upload", FILE, "-m", "first try")
    assert (code, out) == (0, f"{FILE}: submitted to digit-recognizer as 40000000\npage          {PAGE}\n")
    assert err == "4 more submissions allowed today\n"
    assert terminal.server.names() == SENT
    assert list(terminal.server.uploads.values()) == [mine.read_bytes()]

    record = record_of(mine)
    marker = f"[{record['sha256'][:12]}]"
    assert terminal.server.submissions[0]["description"] == f"{marker} first try"
    upload = record["upload"]
    assert (upload["state"], upload["reference"], upload["message"]) == ("pending", 40_000_000, "first try")


def test_wait_prints_score_and_the_page_without_its_signature(terminal, mine):
    page = "https://www.kaggle.com/submissions/40000000"
    terminal.server.outcome |= {"url": f"{page}?{SIGNATURE}"}
    code, out, _ = terminal.run("upload", FILE, "-m", "first try", "--wait")
    assert code == 0
    assert out == (f"{FILE}: submitted to digit-recognizer as 40000000\npublic score  0.99571\npage          {page}\n")
    assert record_of(mine)["upload"]["public_score"] == "0.99571"
    # Only the file's own record is written.
    assert sorted(path.name for path in Path("submissions").iterdir()) == ["mine.csv", "mine.json"]


def test_same_file_is_never_submitted_twice(terminal, mine):
    terminal.run("upload", FILE, "-m", "first try")
    copy = Path("copy.csv")
    copy.write_bytes(mine.read_bytes())
    mine.with_suffix(".json").unlink()  # the record is missing, as on another machine
    code, out, err = terminal.run("upload", "copy.csv", "-m", "again", "--wait")
    assert code == 0
    assert "as 40000000\npublic score  0.99571" in out
    assert err == "copy.csv: was submitted before, on 2026-11-22T04:00:00Z; nothing new is sent.\n"
    assert len(terminal.server.submissions) == 1


def test_submission_on_record_is_not_looked_for_in_the_list(terminal, mine):
    assert terminal.run("upload", FILE, "-m", "x")[0] == 0
    terminal.server.looks_until_listed = 99
    code, out, _ = terminal.run("upload", FILE, "-m", "y", "--wait")
    assert (code, len(terminal.server.submissions)) == (0, 1)
    assert "public score  0.99571" in out
    assert record_of(mine)["upload"]["message"] == "x"


def test_earlier_failed_submission_is_not_taken_for_the_one_whose_answer_was_lost(terminal, mine):
    terminal.server.outcome = {"status": "ERROR", "errorDescription": "an outage"}
    assert terminal.run("upload", FILE, "-m", "x", "--wait")[0] == 1
    terminal.server.outcome = {"status": "COMPLETE", "publicScore": "0.99571"}
    # The second try reaches Kaggle, but its answer is lost, and the list shows it late.
    terminal.server.faults["CreateSubmission"] = Fault(handle_first=True)
    terminal.server.newest_hidden = 3
    code, out, _ = terminal.run("upload", FILE, "-m", "x", "--wait")
    assert code == 0
    assert out.startswith(f"{FILE}: submitted to digit-recognizer as 40000001\npublic score  0.99571")
    assert len(terminal.server.submissions) == 2


def test_refused_second_try_leaves_the_record_of_the_first(terminal, mine):
    terminal.server.outcome = {"status": "ERROR", "errorDescription": "an outage"}
    terminal.run("upload", FILE, "-m", "x", "--wait")
    before = record_of(mine)
    terminal.server.faults["CreateSubmission"] = Fault(status=400, message="limit reached")
    assert terminal.run("upload", FILE, "-m", "x")[0] == 1
    assert record_of(mine) == before


def test_failure_is_told_before_the_file_is_submitted_again(terminal, mine):
    # The command is killed after the request arrived, and Kaggle cannot score the submission.
    terminal.server.faults["CreateSubmission"] = Fault(hang=True, handle_first=True)
    terminal.run_then_kill("upload", FILE, "-m", "x")
    terminal.server.submissions[0] |= {"status": "ERROR", "errorDescription": "an outage"}
    code, _, err = terminal.run("upload", FILE, "-m", "x")
    assert (code, len(terminal.server.submissions)) == (1, 1)
    assert "Kaggle could not score submission 40000000 (an outage)." in err
    assert terminal.run("upload", FILE, "-m", "x")[0] == 0
    assert len(terminal.server.submissions) == 2


def test_list_that_cannot_be_read_leaves_the_submission_in_doubt(terminal, mine):
    terminal.server.faults["CreateSubmission"] = Fault(handle_first=True)
    process = terminal.start("upload", FILE, "-m", "x")
    while "CreateSubmission" not in terminal.server.names():
        assert process.poll() is None
    terminal.server.faults["ListSubmissions"] = Fault(status=403, message="for a moment", times=1)
    process.communicate(timeout=60)
    terminal.server.looks_until_listed = 2
    assert terminal.run("upload", FILE, "-m", "x")[0] == 0
    assert len(terminal.server.submissions) == 1


def test_file_is_found_among_many_submissions(terminal, mine):
    assert terminal.run("upload", FILE, "-m", "x")[0] == 0
    for number in range(70):
        terminal.server.submissions.append({"ref": 50_000_000 + number, "status": "COMPLETE", "description": None})
    mine.with_suffix(".json").unlink()
    code, out, _ = terminal.run("upload", FILE, "-m", "x")
    assert code == 0
    assert "as 40000000\n" in out
    assert terminal.server.names().count("CreateSubmission") == 1


def test_new_contents_under_the_same_name_do_not_get_the_old_score(terminal, mine):
    terminal.server.looks_until_scored = 5
    process = terminal.start("upload", FILE, "-m", "x", "--wait")
    while "GetSubmission" not in terminal.server.names():
        assert process.poll() is None
    write_submission(mine, np.zeros(28_000, int), overwrite=True)
    process.communicate(timeout=60)
    assert terminal.run("upload", FILE, "-m", "y")[0] == 0
    assert len(terminal.server.submissions) == 2


def test_two_uploads_of_one_file_at_once_make_one_submission(terminal, mine):
    # Each answer may take a second; together they leave the second process time to start.
    terminal.server.delays = dict.fromkeys(("StartSubmissionUpload", "PUT", "CreateSubmission"), 0.7)
    first = terminal.start("upload", FILE, "-m", "x")
    while "StartSubmissionUpload" not in terminal.server.names():
        assert first.poll() is None
    code, _, err = terminal.run("upload", FILE, "-m", "x")
    assert code == 2
    assert "is being uploaded by another process" in err
    first.communicate(timeout=60)
    assert (first.returncode, len(terminal.server.submissions)) == (0, 1)


def test_description_that_kaggle_cuts_keeps_its_marker(terminal, mine):
    assert terminal.run("upload", FILE, "-m", "x" * 1000)[0] == 0
    submission = terminal.server.submissions[0]
    submission["description"] = submission["description"][:100]
    mine.with_suffix(".json").unlink()
    assert terminal.run("upload", FILE, "-m", "x" * 1000)[0] == 0
    assert len(terminal.server.submissions) == 1


def test_file_is_checked_before_anything_is_sent(terminal):
    write_submission(Path("short.csv"), [1, 2, 3])
    code, _, err = terminal.run("upload", "short.csv", "-m", "x")
    assert code == 2
    assert "short.csv: 3 rows, the last on line 4. Expected 28000" in err
    assert terminal.server.log == []


def test_file_of_the_sample_is_not_sent(terminal):
    write_submission(Path("sample-mine.csv"), [1] * 360)
    code, _, err = terminal.run("upload", "sample-mine.csv", "-m", "x", KDIGITS_DATA="sample")
    assert code == 2
    assert "It was made from the built-in sample: it cannot be uploaded" in err
    assert terminal.server.log == []


@pytest.mark.parametrize(
    ("by_total", "facts"),
    [
        (False, ["today's limit is reached", "after midnight UTC", "Nothing was sent"]),
        (True, ["the competition's total limit is reached", "No more can be made"]),
    ],
)
def test_limits_are_asked_before_the_file_is_sent(terminal, mine, by_total, facts):
    terminal.server.limits = {"numToday": 5, "numTotal": 12, "numAllowedNow": 0, "limitedByTotal": by_total}
    code, _, err = terminal.run("upload", FILE, "-m", "x")
    assert code == 1
    assert all(fact in err for fact in ["5 submissions made today, 12 in all", *facts])
    assert terminal.server.names() == ["ListSubmissions", "GetSubmissionLimits"]


def test_first_submission_is_allowed_though_all_limits_are_zero(terminal, mine):
    terminal.server.limits = {}
    assert terminal.run("upload", FILE, "-m", "first")[0] == 0


@pytest.mark.parametrize("method", SENT[2:])
@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
def test_upload_killed_at_any_step_and_started_again_makes_one_submission(terminal, mine, method, arrives):
    terminal.server.faults[method] = Fault(hang=True, handle_first=arrives)
    terminal.run_then_kill("upload", FILE, "-m", "x")
    assert len(terminal.server.submissions) == (arrives and method == "CreateSubmission")
    # Kaggle may take a while to list a submission that it has accepted.
    terminal.server.looks_until_listed = 2
    code, out, _ = terminal.run("upload", FILE, "-m", "x", "--wait")
    assert (code, len(terminal.server.submissions)) == (0, 1)
    assert "public score  0.99571" in out


@pytest.mark.parametrize(
    "loss", [{}, {"status": 500}, {"html": True}, {"hang": True}], ids=lambda loss: [*loss, "cut"][0]
)
def test_lost_answer_is_looked_up_and_not_repeated(terminal, mine, loss):
    terminal.server.faults["CreateSubmission"] = Fault(handle_first=True, **loss)
    terminal.server.looks_until_listed = 2
    code, out, err = terminal.run("upload", FILE, "-m", "x", "--wait")
    assert code == 0
    assert "as 40000000\npublic score  0.99571" in out
    assert "Looking for the submission in the list." in err
    assert terminal.server.names().count("CreateSubmission") == 1


def test_lost_request_is_said_and_left_to_the_user(terminal, mine):
    terminal.server.faults["CreateSubmission"] = Fault()
    code, _, err = terminal.run("upload", FILE, "-m", "x")
    assert code == 1
    assert "Kaggle's answer was lost, and the submission is not in the list 60 s later" in err
    assert PAGE in err
    assert terminal.server.names().count("CreateSubmission") == 1
    assert terminal.server.submissions == []
    # The user repeats the command.
    assert terminal.run("upload", FILE, "-m", "x")[0] == 0
    assert len(terminal.server.submissions) == 1


def test_failure_before_the_creating_request_costs_nothing(terminal, mine):
    for method, fault in (("ListSubmissions", Fault()), ("StartSubmissionUpload", Fault()), ("PUT", Fault(status=503))):
        terminal.server.faults[method] = fault
    code, _, err = terminal.run("upload", FILE, "-m", "x")
    assert code == 0
    # The two requests of an upload are repeated together.
    assert re.findall("trying again in (.) s", err) == ["1", "1", "2"]
    assert len(terminal.server.submissions) == 1


def test_request_that_gets_no_answer_is_given_up_and_repeated(terminal, mine):
    for method in ("ListSubmissions", "PUT"):
        terminal.server.faults[method] = Fault(hang=True)
    code, _, err = terminal.run("upload", FILE, "-m", "x")
    assert code == 0
    assert err.count("ReadTimeout; trying again in 1 s") == 2
    # A repeated upload asks for a new address.
    assert terminal.server.names().count("StartSubmissionUpload") == 2


def test_sign_in_that_gets_no_answer_is_given_up_and_repeated(terminal, mine):
    terminal.server.faults["IntrospectToken"] = Fault(hang=True)
    token = {"KAGGLE_USERNAME": None, "KAGGLE_KEY": None, "KAGGLE_API_TOKEN": TOKEN}
    assert terminal.run("upload", FILE, "-m", "x", **token)[0] == 0


@pytest.mark.parametrize(("status", "tries"), [(308, 5), (302, 1), (400, 1)])
def test_file_that_did_not_arrive_whole_is_not_submitted(terminal, mine, status, tries):
    # With 308, "resume incomplete", the storage says that it lacks a part of the file.
    terminal.server.faults["PUT"] = Fault(status=status, times=99)
    code, _, err = terminal.run("upload", FILE, "-m", "x")
    assert code == 1
    assert f"upload of mine.csv: Kaggle's storage answered {status}, 'out of order'." in err
    assert SIGNATURE not in err
    assert terminal.server.names().count("PUT") == tries
    assert terminal.server.submissions == []


def test_submission_that_cannot_be_scored_says_why(terminal, mine):
    terminal.server.outcome = {"status": "ERROR", "errorDescription": "Submission must have 28000 rows"}
    code, _, err = terminal.run("upload", FILE, "-m", "x", "--wait")
    assert code == 1
    assert "could not score submission 40000000 (Submission must have 28000 rows)" in err
    assert PAGE in err
    assert record_of(mine)["upload"]["state"] == "error"
    # The next try makes a new submission.
    terminal.server.outcome = {"status": "COMPLETE", "publicScore": "0.5"}
    assert terminal.run("upload", FILE, "-m", "x", "--wait")[0] == 0
    assert len(terminal.server.submissions) == 2


def test_submission_that_is_not_known_yet_or_in_a_new_state_is_pending(terminal, mine):
    terminal.server.faults["GetSubmission"] = Fault(status=404, message="not found", times=2)
    terminal.server.outcome = {"status": "BEING_THOUGHT_ABOUT"}
    terminal.server.looks_until_scored = 0
    process = terminal.start("upload", FILE, "-m", "x", "--wait")
    while terminal.server.names().count("GetSubmission") < 4:
        assert process.poll() is None
    terminal.server.outcome = {"status": "COMPLETE", "publicScore": "0.99"}
    out, _ = process.communicate(timeout=60)
    assert "public score  0.99\n" in out


def test_score_that_never_comes_is_given_up(terminal, mine):
    terminal.server.looks_until_scored = 10**9
    code, _, err = terminal.run("upload", FILE, "-m", "x", "--wait")
    assert code == 1
    assert "submission 40000000 is not scored after 30 minutes. Repeat the command with --wait" in err


def test_submit_trains_checks_the_limits_first_uploads_and_waits(one_terminal, tmp_path):
    terminal = one_terminal
    data = tmp_path / "digits.zip"
    data.write_bytes(archive_of())
    job = ["submit", "--data", str(data), "--recipe", "mlp-784-300", "--upload", "-m", "the main job"]
    terminal.server.faults["CreateSubmission"] = Fault()
    code, _, err = terminal.run(*job)
    assert code == 2
    assert "--upload: the test file has 1500 rows. Expected 28000, as in the competition digit-recognizer." in err
    assert terminal.server.log == []
    code, out, err = terminal.run(*job, KDIGITS_COMPETITION="my-class-digits")
    assert code == 1
    file = "submissions/mlp-784-300-seed0.csv"
    assert f"file    {file}, 1,500 rows, checked\n" in out
    again = ["upload", file, "-m", "the main job", "--wait"]
    assert err.splitlines()[-2] == f"The file is kept. To continue: kaggle-digits {shlex.join(again)}"
    assert terminal.server.names()[0] == "GetSubmissionLimits"
    code, out, _ = terminal.run(*again, KDIGITS_COMPETITION="my-class-digits", KDIGITS_DATA=str(data))
    assert code == 0
    assert "public score  0.99571\n" in out


def test_upload_without_a_message_describes_itself_and_a_finished_job_is_not_sent_twice(one_terminal, tmp_path):
    data = tmp_path / "digits.zip"
    data.write_bytes(archive_of())
    job = ["submit", "--data", str(data), "--recipe", "naive-bayes", "--upload"]
    for _ in range(2):
        code, out, err = one_terminal.run(*job, KDIGITS_COMPETITION="my-class-digits")
        assert code == 0, err
    assert out.startswith("This job is done: submissions/naive-bayes-seed0.csv has its predictions.")
    record = json.loads((Path("submissions/naive-bayes-seed0.json")).read_text())
    assert re.match(r"naive-bayes, seed 0, held-out accuracy [0-9.]+%", record["upload"]["message"])
    assert one_terminal.server.names().count("CreateSubmission") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "x"], "-m describes what --upload submits"),
        (["--upload", "-m", "x", "--data", "sample"], "there is no competition data but the built-in sample"),
    ],
)
def test_impossible_upload_is_refused_before_the_training(one_terminal, arguments, said):
    code, _, err = one_terminal.run("submit", *arguments)
    assert code == 2
    assert said in err.splitlines()[-1]
    assert one_terminal.server.log == []


# What Kaggle refuses, and what the user reads then


@pytest.mark.parametrize(
    ("method", "status", "facts"),
    [
        ("DownloadDataFiles", 403, ["download of digit-recognizer: Kaggle answered 403, 'out of order'.", *JOIN]),
        ("DownloadDataFiles", 401, ["Kaggle refused your legacy key (401, ", "; client {client})", TOKEN_PAGE]),
        ("DownloadDataFiles", 500, ["answered 500, 'out of order'. Repeat the command in a few minutes."]),
        ("StartSubmissionUpload", 404, ["upload of mine.csv: Kaggle answered 404, ", *JOIN]),
        ("CreateSubmission", 403, ["submission of mine.csv: Kaggle answered 403, ", *JOIN]),
        ("CreateSubmission", 400, ["answered 400, ", RULES, f"has submissions left today ({PAGE})"]),
        ("CreateSubmission", 429, ["answered 429, ", "Wait a few minutes, then repeat the command."]),
    ],
)
def test_refusals_are_explained(terminal, mine, method, status, facts):
    terminal.server.faults[method] = Fault(status=status, times=99)
    code, out, err = terminal.run(*(["download"] if "Download" in method else ["upload", FILE, "-m", "x"]))
    assert all(fact.replace("{client}", terminal.client) in err.splitlines()[-1] for fact in facts)
    assert (code, out) == (2 if status in (401, 403, 404) else 1, "")
    assert terminal.server.submissions == []
    assert terminal.server.names().count("CreateSubmission") == (method == "CreateSubmission")
    # No submission is in doubt, so the next try does not wait for one.
    if method == "CreateSubmission":
        assert record_of(mine)["upload"] is None


@pytest.mark.parametrize(
    ("seconds", "code", "fact"),
    [(7, 0, "429, 'slow down'; trying again in 7 s"), (3600, 1, "Wait 3600 s, then repeat the command.")],
)
def test_reads_wait_as_long_as_kaggle_asks_unless_it_is_too_long(terminal, mine, seconds, code, fact):
    headers = {"Retry-After": str(seconds)}
    terminal.server.faults["ListSubmissions"] = Fault(status=429, message="slow down", headers=headers)
    done, _, err = terminal.run("upload", FILE, "-m", "x")
    assert done == code
    assert fact in err
    assert terminal.pauses() == [7.0] * (seconds == 7)


@pytest.mark.parametrize(("proxy", "reason"), [(None, "JSONDecodeError"), ("http://127.0.0.1:9", "ProxyError")])
def test_login_page_and_missing_network_are_no_answer(terminal, mine, proxy, reason):
    terminal.server.faults["ListSubmissions"] = Fault(html=True, times=99)
    changes = dict.fromkeys(("HTTP_PROXY", "http_proxy"), proxy) if proxy else {}
    code, _, err = terminal.run("upload", FILE, "-m", "x", **changes)
    assert code == 1
    assert f"no whole answer from Kaggle ({reason}). Expected a network that reaches" in err.splitlines()[-1]


@pytest.mark.parametrize("method", ["ListSubmissions", "GetSubmissionLimits", "StartSubmissionUpload"])
def test_answer_of_an_unknown_shape_is_reported(terminal, mine, method):
    terminal.server.answers[method] = {"submissions": 7, "numTotal": "many"}
    code, _, err = terminal.run("upload", FILE, "-m", "x")
    assert code == 1
    assert f"client {terminal.client} does not understand Kaggle's answer (" in err


# Credentials


def test_missing_credentials_are_asked_for(terminal, mine):
    code, out, err = terminal.run("upload", FILE, "-m", "x", KAGGLE_USERNAME=None, KAGGLE_KEY=None)
    assert (code, out) == (2, "")
    assert f"Kaggle client {terminal.client}: found no credentials that Kaggle accepts" in err
    assert all(fact in err for fact in MAKE_ONE)
    assert terminal.server.log == []


def test_access_token_is_used_and_a_dead_one_named(terminal, mine):
    token = {"KAGGLE_USERNAME": None, "KAGGLE_KEY": None, "KAGGLE_API_TOKEN": TOKEN}
    assert terminal.run("upload", FILE, "-m", "x", **token)[0] == 0
    assert len(terminal.server.submissions) == 1
    terminal.server.faults["IntrospectToken"] = Fault(status=401, message="Unauthenticated", times=99)
    code, _, err = terminal.run("upload", FILE, "-m", "x", **token)
    assert code == 2
    assert "signing in: Kaggle refused your access token (401, 'Unauthenticated'; client " in err


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("kaggle.json", b'{"username": "ada", "token": "x"}', "is there but holds no username and key."),
        (
            "kaggle.json",
            b"\xef\xbb\xbf{}",
            "is there but starts with a byte-order mark, which an editor has put there.",
        ),
        ("kaggle.json", b'{"username": "ada", "ke', "is there but is no whole JSON file; it may be cut off."),
        ("kaggle.json.txt", b"{}", "is there but has another name. Rename it to kaggle.json."),
    ],
)
def test_key_file_that_cannot_be_used_is_named(terminal, mine, name, contents, said):
    file = terminal.home / ".kaggle" / name
    file.parent.mkdir()
    file.write_bytes(contents)
    code, _, err = terminal.run("upload", FILE, "-m", "x", KAGGLE_USERNAME=None, KAGGLE_KEY=None)
    assert code == 2
    assert f"Kaggle client {terminal.client}: " in err
    assert all(fact in err for fact in [f"{file} {said}", *MAKE_ONE])
    assert terminal.server.submissions == []


def test_login_of_the_client_is_used(terminal, mine):
    folder = terminal.home / ".kaggle"
    folder.mkdir()
    login = {"refresh_token": KEY, "access_token": TOKEN, "username": "ada", "scopes": []}
    login["access_token_expiration"] = "2099-01-01T00:00:00+00:00"
    (folder / "credentials.json").write_text(json.dumps(login))
    # Client 2.0.2 looks for a login only if KAGGLE_ENABLE_OAUTH is set.
    none = {"KAGGLE_USERNAME": None, "KAGGLE_KEY": None, "KAGGLE_ENABLE_OAUTH": "1"}
    assert terminal.run("upload", FILE, "-m", "x", **none)[0] == 0
    terminal.server.faults["GetSubmission"] = Fault(status=401, message="Unauthenticated", times=9)
    code, out, err = terminal.run("upload", FILE, "-m", "x", **none)
    assert code == 2
    assert "Kaggle refused your login (401, 'Unauthenticated'" in err
    assert not any(secret in out + err for secret in SECRETS)


@pytest.mark.parametrize("kind", ["key", "token"])
def test_no_credential_appears_in_any_output_log_or_file(terminal, mine, tmp_path, kind):
    token = {"KAGGLE_USERNAME": None, "KAGGLE_KEY": None, "KAGGLE_API_TOKEN": TOKEN}
    # In verbose mode the client prints every header.
    changes = {"VERBOSE": "1", **(token if kind == "token" else {})}
    texts = []
    faults = (None, Fault(status=401, times=99), Fault(times=99))
    for number, fault in enumerate(faults):
        for command in (["download", "--to", str(number)], ["upload", FILE, "-m", "x", "--wait"], ["kernel", "push"]):
            terminal.server.faults.clear()
            if fault:
                for method in ("DownloadDataFiles", "ListSubmissions", "SaveKernel"):
                    terminal.server.faults[method] = fault
            texts += map(str, terminal.run(*command, **changes))
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        texts += [path.read_bytes().decode("latin-1") for path in files]
        if not fault:
            mine.with_suffix(".json").unlink()  # so that the next command asks for the list again
    assert len(terminal.server.log) > 20
    for text in texts:
        assert not any(secret in text for secret in (*SECRETS, SIGNATURE))


# The competition's name


def test_address_is_taken_for_the_name_of_the_competition(terminal):
    address = "https://www.kaggle.com/competitions/my-class-digits/overview"
    code, out, _ = terminal.run("download", "--to", "here", KDIGITS_COMPETITION=address)
    assert (code, out.split(":")[0]) == (0, "here/my-class-digits.zip")
    code, out, _ = terminal.run("download", KDIGITS_COMPETITION=address)
    assert "; name it with --data " in out
    assert terminal.server.log[0][2] == {"competitionName": "my-class-digits"}


@pytest.mark.parametrize("name", ["Digit Recognizer", "http://[x"])
def test_invalid_name_is_refused(one_terminal, name):
    code, _, err = one_terminal.run("download", KDIGITS_COMPETITION=name)
    assert code == 2
    assert f"$KDIGITS_COMPETITION: {name!r}. Expected the short name of a competition" in err
