"""Engine: pieces are trained on the workers of a real Dask cluster, which may be killed, and stay what they are."""

from __future__ import annotations

import csv
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from quick import QUICK

import kaggle_digits
from kaggle_digits.analysis.cluster import open_engine
from kaggle_digits.analysis.compare import compare
from kaggle_digits.analysis.engine import Engine, Piece
from kaggle_digits.analysis.validate import compare_folds
from kaggle_digits.data import Split, find_source, load_train
from kaggle_digits.errors import InputError
from kaggle_digits.learners import Context
from kaggle_digits.recipes import RECIPES
from kaggle_digits.strategy import device_of

BAYES, KNN = RECIPES["naive-bayes"], RECIPES["knn"]
DASK = str(Path(sys.executable).with_name("dask"))


def table(file: Path) -> list[dict[str, str]]:
    """Return a table without its seconds."""
    with file.open(newline="") as stream:
        return [{name: cell for name, cell in row.items() if "seconds" not in name} for row in csv.DictReader(stream)]


def unlucky(recipe):
    """Find a device, except for one recipe. The workers import this function."""
    if recipe.name == BAYES.name:
        raise ValueError("no luck")
    return device_of(recipe)


def test_kills_of_a_worker_change_no_table_and_no_finished_piece_is_trained_again(workplace, caplog):
    caplog.set_level(logging.INFO, "kaggle_digits")
    compare([QUICK, BAYES], Path("here"), data="sample", seeds=range(3))
    done = threading.Event()

    def kill_one(client) -> None:
        for _ in range(3):
            done.wait(3)
            pid = next(iter(client.run(os.getpid).values()))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killed: list[int] = []
    with open_engine(workers=2) as engine:
        killer = threading.Thread(target=kill_one, args=(engine.client,))
        killer.start()
        compare([QUICK, BAYES], Path("there"), data="sample", seeds=range(3), engine=engine)
        killer.join()
        assert len(set(killed)) == 3
        assert table(Path("there/compare.csv")) == table(Path("here/compare.csv"))
        finished = [message for message in caplog.messages if "is done" in message]
        assert len(finished) == len({message.partition(" is")[0] for message in finished}) == 6
        files = {file: file.stat().st_mtime_ns for file in Path("there/runs").rglob("*.npz")}
        compare([QUICK, BAYES], Path("there"), data="sample", seeds=range(3), engine=engine)
    assert files == {file: file.stat().st_mtime_ns for file in Path("there/runs").rglob("*.npz")}


def test_folds_are_the_same_with_one_worker_and_with_two(workplace):
    for workers in (1, 2):
        with open_engine(workers=workers) as engine:
            compare_folds([KNN, BAYES], Path(str(workers)), data="sample", folds=2, engine=engine)
    for file in ("folds.csv", f"{KNN.name}/out_of_fold.csv", f"{BAYES.name}/mistakes.csv"):
        assert table(Path("1", file)) == table(Path("2", file))
    assert Path("1/folds.json").read_bytes() == Path("2/folds.json").read_bytes()


def test_what_fails_three_times_is_named_and_the_others_are_kept(workplace):
    rows = load_train(find_source("sample"))
    pieces = [
        Piece(recipe, Path(recipe.name), Context(seed=3, split=Split(fraction=0.5, seed=0)))
        for recipe in (BAYES, QUICK)
    ]
    with open_engine(unlucky, workers=1) as engine:
        failed, kept = engine.train(pieces, rows)
    assert str(failed) == f"{BAYES.name}, seed 3: failed 3 times: no luck"
    assert kept.finished
    assert kept == next(Engine().train(pieces[1:], rows))


def test_without_dask_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError) as refused, open_engine(workers=2):
        pass
    assert str(refused.value) == (
        "distributed is not installed, and --workers and --scheduler need it. Install the extra cluster, or what it "
        "consists of: pip install distributed"
    )


def test_workers_here_and_elsewhere_exclude_each_other():
    with pytest.raises(InputError, match="Leave one of them out"), open_engine(workers=2, scheduler="tcp://x:1"):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "http://127.0.0.1:9"])
def test_a_scheduler_that_does_not_answer_is_named_in_time(address):
    started = time.monotonic()
    with (
        pytest.raises(InputError, match=f"^--scheduler {re.escape(address)}: does not answer"),
        open_engine(scheduler=address),
    ):
        pass
    assert time.monotonic() - started < 15


@pytest.fixture(scope="module")
def scheduler():
    """Start a scheduler, and return its address."""
    command = [DASK, "scheduler", "--port", "0", "--no-dashboard"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        address = next(found[1] for line in process.stderr if (found := re.search(r"(tcp://\S+:\d+)$", line.strip())))
        yield address
        process.terminate()


@pytest.mark.parametrize("fault", ["none", "version", "missing", "threads", "no workers"])
def test_workers_that_cannot_be_used_are_named(workplace, scheduler, fault):
    """Each worker is a process of its own, started as users start it."""
    command = [DASK, "worker", scheduler, "--no-dashboard"]
    command += ["--nthreads", "2" if fault == "threads" else "1"]
    other = Path("other", "kaggle_digits")
    if fault == "version":
        shutil.copytree(Path(kaggle_digits.__file__).parent, other)
        digits = other / "digits.py"
        digits.write_text(digits.read_text().replace(f'"{kaggle_digits.__version__}"', '"0.1"'))
    elif fault == "missing":
        other.mkdir(parents=True)
        (other / "__init__.py").write_text("raise ImportError('none')")
    path = os.environ.get("PYTHONPATH", "")
    environment = os.environ | {"PYTHONPATH": f"{other.parent.resolve()}{os.pathsep}{path}" if other.exists() else path}
    worker = None if fault == "no workers" else subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        if fault == "none":
            with open_engine(scheduler=scheduler) as engine:
                compare([BAYES], Path("out"), data="sample", engine=engine)
            assert table(Path("out/compare.csv"))[0]["failed"] == ""
            return
        with pytest.raises(InputError) as refused, open_engine(scheduler=scheduler):
            pass
    finally:
        if worker:
            worker.terminate()
            worker.wait()
    expected = {
        "version": f"has kaggle_digits 0.1. Expected {kaggle_digits.__version__}, as here. Install that version there.",
        "missing": "has another kaggle_digits, or none",
        "threads": "has 2 threads. Expected 1",
        "no workers": "has no workers. Expected at least one within 10 seconds. Start some: dask worker",
    }
    assert expected[fault] in str(refused.value)
