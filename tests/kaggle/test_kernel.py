"""Kernel: the notebook goes to Kaggle and its outputs come back, with every supported version of the real client."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kaggle_server import API, STORAGE, Fault, KaggleServer
from terminal import CLIENTS, ROOT, Terminal

from kaggle_digits.run import find_commit
from kaggle_digits.submission import HEADER

NAME = "ada/handwritten-digits-step-by-step"
PAGE = f"https://www.kaggle.com/code/{NAME}"
SUBMISSION = "\n".join([HEADER, *(f"{row + 1},{row % 10}" for row in range(28_000))]) + "\n"
OLD = SUBMISSION.replace("1,0\n", "1,9\n", 1)


@pytest.fixture(params=CLIENTS)
def terminal(request: pytest.FixtureRequest, tmp_path: Path, workplace: Path) -> Iterator[Terminal]:
    home = tmp_path / "home"
    home.mkdir()
    with KaggleServer().running() as server:

        def run_the_notebook(body: dict[str, Any]) -> None:
            build = re.search(r"BUILD = '(\w+)'", body["text"])
            record = {"format": "kaggle_digits submission", "file": "submission.csv", "rows": 28_000, "upload": None}
            runs = [{"recipe": "fast", "seed": 0, "commit": None, "held_out_rows": 2_100, "held_out_accuracy": 0.9962}]
            sha256 = hashlib.sha256(SUBMISSION.encode()).hexdigest()
            record |= {"sha256": sha256, "runs": runs, "build": build and build[1]}
            server.outputs = {"submission.csv": SUBMISSION.encode(), "submission.json": json.dumps(record).encode()}

        server.on_push = run_the_notebook
        yield Terminal(server, request.param, home)
        assert server.hosts <= {API, STORAGE}
        assert server.leaks == []


def test_real_client_accepts_the_metadata_as_it_is(terminal):
    # This is `kaggle kernels push`, as users type it in a checkout.
    done = subprocess.run(
        [sys.executable, "-c", "from kaggle.cli import main; main()", "kernels", "push", "-p", str(ROOT)],
        env=terminal.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Kernel version 1 successfully pushed" in done.stdout
    assert "does not resolve" not in done.stdout
    (body,) = terminal.server.pushes
    text = json.loads(body.pop("text"))
    assert body == {
        "slug": "your-kaggle-name/handwritten-digits-step-by-step",
        "newTitle": "Handwritten digits step by step",
        "language": "python",
        "kernelType": "notebook",
        "isPrivate": True,
        "enableGpu": False,
        "enableTpu": False,
        "enableInternet": False,
        "competitionDataSources": ["digit-recognizer"],
    }
    committed = nbformat.read(ROOT / "notebooks/kernel.ipynb", as_version=4)
    assert [cell["source"] for cell in text["cells"]] == [cell.source for cell in committed.cells]


def test_push_sends_notebook_owner_and_machine(terminal):
    code, out, _ = terminal.run("kernel", "push", "--device", "tpu")
    assert (code, out) == (0, f"{NAME}: version 1 runs at {PAGE}\n")
    (body,) = terminal.server.pushes
    fields = {"slug": NAME, "enableGpu": False, "enableTpu": True, "machineShape": "TpuV5E8"}
    assert {name: body[name] for name in fields} == fields
    assert 'DEVICE = \\"tpu\\"' in body["text"]
    assert not {"dockerImage", "dockerImagePinningType", "id"} & set(body)


def test_run_pushes_waits_fetches_checks_and_submits(terminal):
    code, out, err = terminal.run("kernel", "run", "-m", "from a kernel")
    assert code == 0, err
    file = "submissions/handwritten-digits-step-by-step-v1.csv"
    assert out == (
        f"{NAME}: version 1 runs at {PAGE}\n"
        f"{file}: fetched\n"
        f"{file}: submitted to digit-recognizer as 40000000\n"
        "public score  0.99571\n"
        "page          https://www.kaggle.com/competitions/digit-recognizer/submissions\n"
    )
    states = [line.rsplit(" (", 1)[0] for line in err.splitlines() if line.startswith(NAME)]
    assert states == [f"{NAME}, version 1: {state}" for state in ("queued", "running", "complete")]
    assert Path(file).read_text() == SUBMISSION
    # The notebook's own record is kept. The commit is added, because the notebook cannot know it.
    record = json.loads(Path(file).with_suffix(".json").read_text())
    (run,) = record["runs"]
    assert (run["recipe"], run["seed"], run["held_out_rows"]) == ("fast", 0, 2_100)
    assert run["held_out_accuracy"] == pytest.approx(0.9962, abs=1e-4)
    assert (run["commit"], record["upload"]["reference"]) == (find_commit(), 40_000_000)
    assert record["upload"]["public_score"] == "0.99571"
    (submission,) = terminal.server.submissions
    assert submission["description"].endswith("] from a kernel")


def test_outputs_of_the_last_version_are_not_taken_for_those_of_this_one(terminal):
    # Right after a push, Kaggle may still show the last version, as complete.
    new: dict[str, bytes] = {}
    push = terminal.server.on_push

    def late(body: dict[str, Any]) -> None:
        push(body)
        new.update(terminal.server.outputs)
        # These outputs are complete and valid, but come from another build.
        old = json.loads(new["submission.json"]) | {"build": "old"}
        terminal.server.outputs = {"submission.csv": OLD.encode(), "submission.json": json.dumps(old).encode()}

    terminal.server.on_push = late
    terminal.server.kernel_states = ["COMPLETE"]
    process = terminal.start("kernel", "run")
    while terminal.server.names().count("GetKernelSessionStatus") < 2:
        assert process.poll() is None
    terminal.server.outputs = new
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "does not show the outputs of version 1 yet; waiting" in err
    assert Path("submissions/handwritten-digits-step-by-step-v1.csv").read_text() == SUBMISSION


def test_failed_kernel_shows_the_end_of_its_log(terminal):
    terminal.server.kernel_states = ["RUNNING", "ERROR"]
    terminal.server.kernel_failure = "Out of memory."
    terminal.server.kernel_log = json.dumps([{"stream_name": "stderr", "time": 1.0, "data": "DeviceError: no GPU\n"}])
    code, _, err = terminal.run("kernel", "run")
    assert code == 1
    assert f"{NAME}: error (Out of memory.). See {PAGE}; its log ends: DeviceError: no GPU" in err
    assert terminal.server.submissions == []


def test_limits_are_asked_before_the_kernel_runs(terminal):
    terminal.server.limits = {"numToday": 5, "numTotal": 12, "numAllowedNow": 0}
    code, _, err = terminal.run("kernel", "run")
    assert code == 1
    assert "today's limit is reached" in err
    assert terminal.server.pushes == []


def test_kernel_that_kaggle_will_not_run_gets_advice_of_its_own(terminal):
    terminal.server.faults["SaveKernel"] = Fault(status=400, message="Weekly GPU quota exceeded")
    code, _, err = terminal.run("kernel", "push", "--device", "gpu")
    assert code == 1
    assert f"push of {NAME}: Kaggle answered 400, 'Weekly GPU quota exceeded'." in err
    assert "how many of your weekly hours are left" in err


def test_failure_of_the_last_version_is_not_taken_for_one_of_this_version(terminal):
    terminal.server.kernel_states = ["ERROR", "ERROR", "QUEUED", "RUNNING", "COMPLETE"]
    code, _, err = terminal.run("kernel", "run")
    assert code == 0, err


def test_kernel_that_fails_at_once_is_a_failure_all_the_same(terminal):
    terminal.server.kernel_states = ["ERROR"]
    code, _, err = terminal.run("kernel", "run")
    assert code == 1
    assert f"{NAME}: error (no reason given). See " in err


def test_wait_goes_on_while_the_network_is_away_or_the_state_is_new(terminal):
    terminal.server.kernel_states = ["RUNNING", "WARMING_UP", "RUNNING", "COMPLETE"]
    terminal.server.faults["GetKernelSessionStatus"] = Fault(times=7)
    code, _, err = terminal.run("kernel", "run")
    assert code == 0, err
    assert err.count("Asking again.") == 1
    assert f"{NAME}, version 1: warming up (" in err
    assert len(terminal.server.pushes) == 1


@pytest.mark.parametrize("record", [b"{", b'{"format": "kaggle_digits submission"}'])
def test_damaged_record_of_a_kernel_is_no_submission(terminal, record):
    terminal.server.on_push = None
    terminal.server.outputs = {"submission.csv": SUBMISSION.encode(), "submission.json": record}
    code, _, err = terminal.run("kernel", "run")
    assert code == 1
    assert "its outputs are of another version. Expected those of version 1." in err


def test_failed_upload_of_a_kernels_file_can_be_repeated(terminal):
    terminal.server.faults["StartSubmissionUpload"] = Fault(status=403, message="rules", times=9)
    code, _, err = terminal.run("kernel", "run", "-m", "my kernel")
    assert code == 2
    file = "submissions/handwritten-digits-step-by-step-v1.csv"
    assert f"The file is kept. To continue: kaggle-digits upload {file} -m 'my kernel' --wait\n" in err
    assert Path(file).read_text() == SUBMISSION


@pytest.mark.parametrize("arguments", [["push", "--to", "x"], ["build", "-m", "x"]])
def test_option_of_another_step_is_refused(terminal, arguments):
    code, _, err = terminal.run("kernel", *arguments)
    assert code == 2
    assert f"kernel {arguments[0]}: {arguments[1]} " in err
    assert terminal.server.log == []


def test_kernel_without_a_submission_is_not_submitted(terminal):
    terminal.server.on_push = None
    terminal.server.outputs = {"other.csv": b"1", "../../escape.csv": b"2"}
    code, _, err = terminal.run("kernel", "run")
    assert code == 1
    assert f"{NAME}: left no submission.csv (it left other.csv)." in err


def test_broken_output_is_not_taken(terminal):
    terminal.server.faults["GET output"] = Fault(status=403, message="expired", times=99)
    code, _, err = terminal.run("kernel", "run")
    assert code == 1
    assert "download of submission.csv: Kaggle's storage answered 403, 'expired'." in err
    assert not Path("submissions").exists()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"error": "Notebook not found"}, "Kaggle answered 'Notebook not found'. Expected a kernel of yours"),
        ({"invalidCompetitionSources": ["digit-recognizer"]}, "Kaggle took it, but without digit-recognizer."),
    ],
)
def test_refused_push_is_an_error(terminal, answer, said):
    terminal.server.push_answer = answer
    code, out, err = terminal.run("kernel", "push")
    assert (code, out) == (1, "")
    assert f"push of {NAME}: {said}" in err


def test_forbidden_kernel_says_both_reasons(terminal):
    terminal.server.faults["GetKernelSessionStatus"] = Fault(status=403)
    code, _, err = terminal.run("kernel", "run")
    assert code == 2
    assert f"state of {NAME}: Kaggle answered 403, " in err
    assert "A wrong name and somebody else's private kernel get this same answer." in err


def test_lost_answer_to_a_push_is_not_repeated(terminal):
    terminal.server.faults["SaveKernel"] = Fault(handle_first=True)
    code, _, err = terminal.run("kernel", "push")
    assert code == 1
    assert "no whole answer from Kaggle" in err
    assert len(terminal.server.pushes) == 1
