"""A loss of power, or a call that fails once: nothing is lost, and the repeated command ends as usual."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from disk import ERRORS, Tree, failing, recording, restore
from kaggle_server import KaggleServer
from quick import QUICK
from terminal import INSTALLED, Terminal
from test_faults import SUBMIT, assert_all_is_whole, in_folder

from kaggle_digits import cli, recipes
from kaggle_digits import train as train_module

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems flush files with other calls")


class Job(NamedTuple):
    """A command, and the files that it leaves in the working folder.

    Args:
        command: the arguments of ``kaggle-digits``.
        results: the pattern of the files that the user wants.
        begun_with: the files before the command.
    """

    command: tuple[str, ...]
    results: str
    begun_with: Tree = {}  # noqa: RUF012

    def run(self) -> dict[str, bytes]:
        """Run the command, and return its results."""
        assert cli.main(self.command) == 0
        assert_all_is_whole()
        return self.found()

    def found(self) -> dict[str, bytes]:
        """Return the results that are there."""
        files = (file for file in Path().glob(self.results) if not file.name.startswith("."))
        return {str(file): file.read_bytes() for file in files}


@contextlib.contextmanager
def in_new_folder(tree: Tree) -> Iterator[Path]:
    """Work in a new folder with these files, which is removed afterwards."""
    with in_folder("again"):
        restore(tree)
        yield Path.cwd()


@pytest.fixture
def job_of(monkeypatch, tmp_path, competition) -> Iterator[Callable[[str], Job]]:
    """Return what gives the job of a verb."""
    monkeypatch.setitem(recipes.RECIPES, "quick", QUICK)
    monkeypatch.setattr(train_module, "find_commit", lambda: None)  # as if installed: to ask git takes half of the time
    train = ("train", "--data", "sample", "--device", "cpu", "--recipe", "quick", "--run", "run", "--resume")

    def after(command: tuple[str, ...], *then: str, results: str) -> Job:
        with in_new_folder({}):
            assert cli.main(command) == 0
            left = {str(file): None if file.is_dir() else file.read_bytes() for file in sorted(Path().rglob("*"))}
        return Job(then, results, left)

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in ("train.csv", "test.csv"):
            zipped.writestr(file, (competition / file).read_bytes())
    with KaggleServer(archive.getvalue()).running() as server:
        for name, value in Terminal(server, INSTALLED, tmp_path).environment.items():
            monkeypatch.setenv(name, value)
        jobs = {
            "submit": lambda: Job((*SUBMIT, "random"), "submissions/*.csv"),
            "submit of a network": lambda: Job((*SUBMIT, "quick"), "submissions/*.csv"),
            "submit of folds": lambda: Job((*SUBMIT, "random", "--folds", "3"), "submissions/*.csv"),
            "train": lambda: Job(train, "run/model.npz"),
            "submit over an older file": lambda: after(
                (*SUBMIT, "random", "--seed", "1", "--out", "sample-my.csv"),
                *(*SUBMIT, "random", "--out", "sample-my.csv", "--force"),
                results="sample-my.csv",
            ),
            "export": lambda: after(
                train, "export", "--run", "run", "--format", "web", "--out", "to/page.html", "--force", results="to/*"
            ),
            "download": lambda: Job(("download", "--to", "to/here"), "to/here/*.zip"),
        }
        yield lambda name: jobs[name]()


STATES = {
    "submit": (300, 2000),
    "submit over an older file": (60, 1500),
    "submit of folds": (1, 400),
    "submit of a network": (1, 30),
    "train": (4, 80),
    "export": (2, 20),
    "download": (40, 100),
}
"""The most states of each moment, in the suite and in the soak."""


@pytest.mark.parametrize("name", STATES)
def test_nothing_is_lost_when_the_power_goes(ledger, job_of, name):
    job = job_of(name)
    with in_new_folder(job.begun_with) as folder, recording(folder) as recorder:
        expected = job.run()
    assert expected
    for has_ended, state in recorder.states(STATES[name][ledger.soak]):
        with in_new_folder(state), ledger.fault(f"power lost during {name}"):
            for file, contents in job.found().items():
                assert contents in (expected[file], job.begun_with.get(file)), f"{file}: a half file has its final name"
            assert_all_is_whole()
            assert job.found() == expected or not has_ended, "a finished result is lost"
            assert job.run() == expected


STEPS = {"submit": (1, 1), "submit of a network": (31, 3), "download": (1, 1)}
"""Every how many calls one fails, in the suite and in the soak."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # _pyio, about files it cannot flush
@pytest.mark.parametrize("name", STEPS)
def test_a_call_that_fails_once_is_said_and_the_repeated_command_goes_on(ledger, job_of, name, capsys):
    job = job_of(name)
    ignored = [f"{each}/" for each in ("/dev", sys.prefix, sys.base_prefix, Path(cli.__file__).parent)]
    with in_new_folder({}):
        expected = job.run()  # so that everything is imported
    with in_new_folder({}), failing(0, 0, ignored=ignored) as calls:
        assert job.run() == expected
    places = range(1, calls.count + 1, STEPS[name][ledger.soak])
    for place, number in ((place, number) for place in places for number in ERRORS):
        if not ledger.soak and number != ERRORS[place % len(ERRORS)]:
            continue
        capsys.readouterr()
        with in_new_folder({}), ledger.fault(f"a call of {name} fails: {errno.errorcode[number]}"):
            with failing(place, number, ignored=ignored) as calls:
                code = cli.main(job.command)
            said = capsys.readouterr().err
            assert code in (0, 1, 2), calls.failed
            assert "Traceback" not in said, calls.failed
            assert not code or said.splitlines()[-1].startswith("kaggle-digits: "), calls.failed
            assert_all_is_whole()
            assert job.run() == expected, calls.failed
