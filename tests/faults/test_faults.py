"""Faults: whatever stops or hinders the work, nothing half written appears, and the repeated command ends as usual.

Each fault is really injected, into a real process where a process is to die. `make soak` runs the long forms.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from quick import QUICK

from kaggle_digits import cli, recipes
from kaggle_digits.files import read_json, write_arrays
from kaggle_digits.kaggle.records import load_record, save_record
from kaggle_digits.submission import check_submission

KILLED = Path(__file__).with_name("killed.py")
SUBMIT = ("submit", "--data", "sample", "--device", "cpu", "--recipe")
FAST = (*SUBMIT, "fast", "--epochs", "5")
DATA = os.environ.get("KDIGITS_DATA")
BEFORE_A_CHANGE = "kill -9 of submit, before a file is changed"
AT_A_MOMENT = "kill -9 of submit at a random moment"


def assert_all_is_whole(folder: Path = Path()) -> None:
    """Check that whatever has its final name can be read to the end."""
    for file in folder.rglob("*"):
        if file.name.startswith("."):
            continue
        if file.suffix == ".json":
            assert read_json(file)
        elif file.suffix == ".npz":
            with zipfile.ZipFile(file) as archive:
                assert archive.testzip() is None, file
        elif file.suffix == ".csv":
            assert sum(check_submission(file, rows=360)) == 360


def assert_as_undisturbed(expected: bytes) -> None:
    """Check that there is one submission, with its record, and with the contents of an undisturbed run."""
    assert_all_is_whole()
    made = sorted(Path("submissions").iterdir())
    assert [file.suffix for file in made] == [".csv", ".json"], made
    assert made[0].read_bytes() == expected
    assert list(Path().rglob(".*")) == []


def run(*arguments: str, kill: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(KILLED), str(kill), *arguments], capture_output=True, text=True, timeout=300
    )


@contextmanager
def in_folder(name: str) -> Iterator[None]:
    """Work in a new folder, which is removed afterwards."""
    before = Path.cwd()
    Path(name).mkdir()
    os.chdir(name)
    try:
        yield
    finally:
        os.chdir(before)
        shutil.rmtree(name)


class Undisturbed(NamedTuple):
    """What a command makes, how many files it changes, and how many seconds it takes, if nothing disturbs it."""

    file: bytes
    changes: int
    seconds: float


@functools.cache
def undisturbed(*command: str) -> Undisturbed:
    with in_folder("undisturbed"):
        started = time.monotonic()
        done = run(*command)
        assert done.returncode == 0, done.stderr
        (file,) = Path("submissions").glob("*.csv")
        return Undisturbed(file.read_bytes(), int(done.stdout.split()[-1]), time.monotonic() - started)


def start(*command: str, **pipes: int) -> subprocess.Popen[str]:
    pipes = pipes or {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "kaggle_digits", *command], text=True, **pipes)


def kill_before(change: int, *command: str) -> None:
    """Kill a command before it changes the N-th file."""
    assert run(*command, kill=change).returncode == -signal.SIGKILL
    assert_all_is_whole()


def kill_after(seconds: float, *command: str) -> None:
    """Kill a command at some moment, unless it has ended."""
    child = start(*command)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    assert_all_is_whole()


def signal_in_epoch(epoch: int, name: str, *command: str) -> None:
    """Send a signal when an epoch has ended, and check that the command ends soon and leaves a checkpoint."""
    child, number = start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE), getattr(signal, f"SIG{name}")
    assert any(f"epoch {epoch}/5" in line for line in child.stderr)
    child.send_signal(number)
    started = time.monotonic()
    _, said = child.communicate(timeout=60)
    assert time.monotonic() - started < 5
    assert child.returncode == 128 + number
    assert said.splitlines()[-1].startswith("Interrupted. ")
    assert said.endswith(" Repeat the command to continue.\n")
    assert list(Path("runs").rglob("checkpoint.npz")) or list(Path("runs").rglob("model.npz"))
    assert_all_is_whole()


def on_a_terminal(*, ignoring_hangup: bool) -> int:
    """Start a training on a terminal of its own, close this when it has begun, and return the exit code."""
    child, terminal = pty.fork()
    if not child:
        if ignoring_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(sys.executable, [sys.executable, "-m", "kaggle_digits", *FAST])
    said = b""
    while b"epoch 1/5" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def break_pipes(*command: str) -> int:
    """Start a command, break both of its pipes after its first line, and return the exit code."""
    child = start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stderr.readline()
    child.stderr.close()
    child.stdout.close()
    return child.wait(120)


def test_a_job_that_is_stopped_in_every_way_ends_with_the_same_file(ledger):
    """Each fault meets the job that the one before has left."""
    expected = undisturbed(*FAST)
    with in_folder("stopped"):
        with ledger.fault(BEFORE_A_CHANGE):
            kill_before(9, *FAST)
        with ledger.fault("terminal closed"):
            assert on_a_terminal(ignoring_hangup=False) == 129
        with ledger.fault("SIGINT to submit while it trains"):
            signal_in_epoch(2, "INT", *FAST)
        with ledger.fault("SIGTERM to submit while it trains"):
            signal_in_epoch(3, "TERM", *FAST)
        with ledger.fault(AT_A_MOMENT):
            kill_after(random.Random(2).uniform(0, 3), *FAST)  # seconds, in which it cannot end
        with ledger.fault("broken pipe"):
            assert break_pipes(*FAST) == 1  # the result could not be printed
            assert_as_undisturbed(expected.file)


def test_kill_9_before_some_changes_of_a_classical_method_loses_nothing(ledger):
    command = (*SUBMIT, "naive-bayes")
    with in_folder("chain"):
        for change in (5, 11):
            with ledger.fault(BEFORE_A_CHANGE):
                kill_before(change, *command)
        assert run(*command).returncode == 0
        assert_as_undisturbed(undisturbed(*command).file)


@pytest.mark.soak
@pytest.mark.parametrize(("command", "step"), [((*SUBMIT, "naive-bayes"), 1), (FAST, 3)], ids=["classical", "network"])
def test_kill_9_before_every_change_of_a_file_loses_nothing(ledger, command, step):
    expected = undisturbed(*command)
    for change in range(1, expected.changes + 1, step):
        with in_folder("each"), ledger.fault(BEFORE_A_CHANGE):
            kill_before(change, *command)
            was_done = list(Path("submissions").glob("[!.]*.json"))
            done = run(*command)
            assert done.returncode == 0, done.stderr
            files = list(Path("submissions").glob("*.csv"))
            assert {file.read_bytes() for file in files} == {expected.file}
            assert len(files) == 1 + bool(was_done)  # to repeat what was done is a new job
            assert_all_is_whole()


@pytest.mark.soak
def test_kill_9_at_fifty_moments_loses_nothing(ledger):
    expected = undisturbed(*FAST)
    draw = random.Random(1)
    for _ in range(50):
        with in_folder("moment"), ledger.fault(AT_A_MOMENT):
            kill_after(draw.uniform(0, expected.seconds), *FAST)
            if not list(Path("submissions").glob("[!.]*.json")):
                assert run(*FAST).returncode == 0
            assert_as_undisturbed(expected.file)


@pytest.mark.soak
def test_signals_end_within_5_seconds_with_a_checkpoint(ledger):
    for _ in range(5):
        with in_folder("stopped"):
            for epoch, name in enumerate(("INT", "TERM", "HUP"), start=1):
                with ledger.fault(f"SIG{name} to submit while it trains"):
                    signal_in_epoch(epoch, name, *FAST)
            assert run(*FAST).returncode == 0
            assert_as_undisturbed(undisturbed(*FAST).file)


@pytest.mark.soak
def test_a_job_that_ignores_hang_ups_goes_on_without_its_terminal(ledger):
    with in_folder("nohup"), ledger.fault("terminal closed, hang-up ignored (nohup)"):
        assert on_a_terminal(ignoring_hangup=True) in (0, 1)  # 1: the result could not be printed
        assert_as_undisturbed(undisturbed(*FAST).file)


@pytest.fixture
def quick(monkeypatch) -> bytes:
    """Add a recipe that trains in a moment, in this process, and return what it predicts when nothing disturbs it."""
    monkeypatch.setitem(recipes.RECIPES, "quick", QUICK)
    with in_folder("undisturbed"):
        assert cli.main([*SUBMIT, "quick"]) == 0
        return Path("submissions/sample-quick-seed0.csv").read_bytes()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow larger: the same as a disk that is full, but without the right to mount one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_is_said_and_the_repeated_command_goes_on(ledger, quick, capsys):
    failed = 0
    for size in (0, 1, 1000, 2000, 3000, 5000, 20_000, 33_000, 60_000, 64_000) if ledger.soak else (3000, 33_000):
        with in_folder("full"):
            capsys.readouterr()
            with ledger.fault("no room for a file"):
                with files_of_at_most(size):
                    code = cli.main([*SUBMIT, "quick"])
                if code:
                    failed += 1
                    error = capsys.readouterr().err.splitlines()[-1]
                    assert code == 1
                    assert error.startswith(f"kaggle-digits: [Errno {errno.EFBIG}] File too large")
                    assert_all_is_whole()
                    assert list(Path().rglob(".*")) == []
                    assert cli.main([*SUBMIT, "quick"]) == 0
                assert_as_undisturbed(quick)
    assert failed >= 2


@contextmanager
def small_disk(options: str) -> Iterator[Callable[[str], None]]:
    """Mount a small disk in memory, work there, and yield a function that mounts it again with other options."""
    Path("disk").mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", "disk"], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a full or read-only disk has to be mounted, which only root may do")
    before = Path.cwd()
    os.chdir("disk")
    try:
        yield lambda more: subprocess.run(["mount", "-o", f"remount,{more}", "."], check=True) and None
    finally:
        os.chdir(before)
        subprocess.run(["umount", "--lazy", "disk"], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="a full disk is mounted, and there is no mount here")
def test_a_full_disk_is_said_and_the_repeated_command_goes_on(ledger, quick, capsys):
    failed = 0
    for kilobytes in range(4, 400, 4) if ledger.soak else (8, 60):
        with small_disk(f"size={kilobytes}k") as remount:
            capsys.readouterr()
            with ledger.fault("disk full"):
                if cli.main([*SUBMIT, "quick"]):
                    failed += 1
                    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
                    assert_all_is_whole()
                    remount("size=10m")
                    assert cli.main([*SUBMIT, "quick"]) == 0
                assert_as_undisturbed(quick)
    assert failed >= 2


@pytest.mark.skipif(shutil.which("mount") is None, reason="a read-only disk is mounted, and there is no mount here")
def test_a_read_only_folder_is_said_before_anything_is_trained(ledger, quick, capsys):
    with small_disk("size=1m") as remount:
        remount("ro")
        for command in ([*SUBMIT, "quick"], ["train", "--data", "sample", "--recipe", "quick", "--run", "r"]):
            with ledger.fault("folder read-only"):
                capsys.readouterr()
                assert cli.main(command) in (1, 2)
                said = capsys.readouterr().err
                assert "epoch " not in said
                assert "can be written" in said or "Read-only file system" in said
        remount("rw")
        assert cli.main([*SUBMIT, "quick"]) == 0
        assert_as_undisturbed(quick)


@contextmanager
def after_each_epoch(monkeypatch, act: Callable[[int], None]) -> Iterator[None]:
    """Do something when an epoch is over and saved; it is told the number of the epoch."""
    epoch = cli.output.TrainingProgress.epoch

    def and_act(self, metrics, epochs):
        epoch(self, metrics, epochs)
        act(metrics["epoch"])

    with monkeypatch.context() as patch:
        patch.setattr(cli.output.TrainingProgress, "epoch", and_act)
        yield


@pytest.mark.parametrize("removed_after", [1, 2, 3])
def test_a_run_folder_that_is_removed_meanwhile_is_made_again(ledger, quick, monkeypatch, removed_after):
    def remove(epoch):
        if epoch == removed_after and Path("runs").exists():
            shutil.rmtree("runs")

    with in_folder("removed"), ledger.fault("run folder removed while it is trained"):
        with after_each_epoch(monkeypatch, remove):
            assert cli.main([*SUBMIT, "quick"]) == 0
        assert_as_undisturbed(quick)


def test_a_working_folder_that_is_removed_meanwhile_is_one_error(ledger, quick, monkeypatch, capsys):
    Path("gone").mkdir()
    monkeypatch.chdir("gone")
    gone = after_each_epoch(monkeypatch, lambda epoch: shutil.rmtree(Path.cwd()))
    with ledger.fault("working folder removed while it is trained"), gone:
        assert cli.main([*SUBMIT, "quick"]) == 1
        assert "No such file or directory" in capsys.readouterr().err.splitlines()[-1]


def test_two_processes_do_not_train_into_one_folder(ledger):
    recipe = ("mlp-784-300", "--epochs", "20") if ledger.soak else ("naive-bayes",)
    command = ("train", "--data", "sample", "--run", "run", "--recipe", *recipe)
    for _ in ledger.times(1, 10):
        with in_folder("two"), ledger.fault("two processes started on one folder"):
            both = [start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
            said = [child.communicate(timeout=300) for child in both]
            assert sorted(child.returncode for child in both) == [0, 2], said
            (refused,) = [err for child, (_, err) in zip(both, said, strict=True) if child.returncode]
            assert "run: is being trained by another process." in refused or "run: holds a run already." in refused
            assert_all_is_whole()


def test_a_clock_that_jumps_back_changes_nothing(ledger, quick, monkeypatch):
    """The clock of the machine cannot be set by a test, so the process is given another one."""
    real, arrays = time.time, {"a": np.arange(5, dtype=np.float32)}
    write_arrays(Path("now.npz"), arrays)

    def jump(epoch):
        monkeypatch.setattr(time, "time", lambda: 0.0 if epoch % 2 else real())
        monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(0))

    with in_folder("jumped"), ledger.fault("clock set back to 1970 while it is trained"):
        with after_each_epoch(monkeypatch, jump):
            assert cli.main([*SUBMIT, "quick"]) == 0
        assert_as_undisturbed(quick)
    write_arrays(Path("then.npz"), arrays)
    assert Path("now.npz").read_bytes() == Path("then.npz").read_bytes()


@pytest.mark.skipif(DATA is None, reason="no data of the competition: name it with KDIGITS_DATA")
def test_4_gb_are_enough_for_the_whole_job(ledger):
    code = (
        "import resource, sys\n"
        "from kaggle_digits.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print('megabytes', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "submit", "--data", str(DATA), "--recipe", "fast", "--epochs", "1"]
    with ledger.fault("4 GB of memory for load, train and predict of the competition's data"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[-1]) < 4000


def test_a_flipped_bit_of_a_record_is_noticed(ledger):
    file = Path("mine.csv")
    file.write_text("ImageId,Label\n1,7\n")
    fields = {"format": "kaggle_digits submission", "file": "mine.csv", "sha256": "0", "runs": [], "build": None}
    save_record(file, fields | {"upload": None})
    whole = Path("mine.json").read_bytes()
    kept = json.loads(whole)
    for place in range(0, len(whole), 1 if ledger.soak else 7):
        with ledger.fault("a bit of a record flipped"):
            Path("mine.json").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            found = load_record(Path("mine.json"))
            assert found is None or {name: found[name] for name in fields} == {name: kept[name] for name in fields}
