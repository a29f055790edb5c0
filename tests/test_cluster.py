"""Cluster: settings that fit together are accepted, and real processes on this machine train as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kaggle_digits.cluster import Cluster, find_cluster
from kaggle_digits.errors import InputError

CACHE = tempfile.TemporaryDirectory(prefix="jax-")  # is removed when the tests end
Start = Callable[..., list[subprocess.Popen[str]]]


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        ((), {}, None),
        (("h:1", 3, 2), {}, Cluster("h:1", 3, 2)),
        (("auto",), {}, Cluster("auto")),
        ((), {"KDIGITS_COORDINATOR": "h:1", "KDIGITS_PROCESSES": "2", "KDIGITS_PROCESS": "0"}, Cluster("h:1", 2, 0)),
        ((None, None, 1), {"KDIGITS_COORDINATOR": "h:1", "KDIGITS_PROCESSES": "2"}, Cluster("h:1", 2, 1)),
    ],
)
def test_cluster_comes_from_words_or_environment(monkeypatch, words, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_cluster(*words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("h:1", 2), "coordinator h:1, processes 2, process None: incomplete."),
        ((None, 2, 0), "coordinator None, processes 2, process 0: incomplete."),
        (("h", 2, 0), "--coordinator h: not an address. Expected host:port of the first process. Add a free port."),
        (
            ("h:1", 2, 2),
            "--process 2: there is no such process. Expected 0 to 1, since there are 2. Number them from 0.",
        ),
    ],
)
def test_cluster_that_does_not_fit_together_is_refused(words, message):
    with pytest.raises(InputError) as caught:
        find_cluster(*words)
    assert str(caught.value).startswith(message)


def test_number_of_the_environment_must_be_one(monkeypatch):
    monkeypatch.setenv("KDIGITS_PROCESSES", "two")
    with pytest.raises(InputError, match=r"^KDIGITS_PROCESSES=two: not a number"):
        find_cluster()


def environment() -> dict[str, str]:
    """Return the environment of a process. What JAX has compiled for one, the next ones take over."""
    cache = {"JAX_COMPILATION_CACHE_DIR": CACHE.name}
    return os.environ | {"KERAS_BACKEND": "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} | cache


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the README's command in several numbered processes; kill all of them after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(processes: int, *arguments: str) -> list[subprocess.Popen[str]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [sys.executable, "-m", "kaggle_digits", "train", "--data", "sample", "--device", "cpu"]
        where = ["--coordinator", address, "--processes", str(processes), "--process"]
        new = [
            subprocess.Popen(
                [*command, *arguments, *where, str(number)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            for number in range(processes)
        ]
        started.extend(new)
        return new

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(started: list[subprocess.Popen[str]], timeout: float = 300) -> list[tuple[int, str, str]]:
    ends = []
    for process in started:
        out, err = process.communicate(timeout=timeout)
        ends.append((process.returncode, out, err))
    return ends


def losses(folder: str) -> list[float]:
    return [metrics["loss"] for metrics in json.loads(Path(folder, "run.json").read_text())["epochs"]]


def test_three_processes_train_as_one(start):
    first, second, third = finish(start(3, "--recipe", "fc-200-100-20", "--run", "three", "--epochs", "2"))
    assert [end[0] for end in (first, second, third)] == [0, 0, 0], (first, second, third)
    assert first[1].startswith("three: fc-200-100-20, held-out accuracy ")
    assert second[1:] == ("process 1 of 3: done; the first keeps the run\n", second[2])
    record = json.loads(Path("three/run.json").read_text())
    assert (record["device"]["replicas"], record["device"]["processes"], record["device"]["backend"]) == (3, 3, "jax")
    assert record["finished"]

    alone = [sys.executable, "-m", "kaggle_digits", "train", "--data", "sample", "--device", "cpu"]
    subprocess.run(
        [*alone, "--backend", "jax", "--recipe", "fc-200-100-20", "--run", "one", "--epochs", "2"],
        check=True,
        capture_output=True,
        env=environment(),
    )
    # A batch of 64 rows is filled up to 66, so that the three processes get equal shares.
    np.testing.assert_allclose(losses("three"), losses("one"), rtol=0.01)


def test_processes_share_the_networks_of_an_ensemble_and_the_first_adds_the_classical_member(start):
    first, second = finish(start(2, "--recipe", "strong", "--run", "run", "--epochs", "1"))
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert first[1].startswith("run: strong, held-out accuracy ")
    assert second[1] == "process 1 of 2: done; the first keeps the run\n"
    records = [json.loads(Path("run", name, "run.json").read_text()) for name in ("1-of-3", "2-of-3", "3-of-3", ".")]
    assert [(own["recipe"]["name"], own["device"]["processes"]) for own in records] == [
        ("fast", 2),
        ("stretched", 2),
        ("idm", 1),
        ("strong", 2),
    ]


def test_processes_with_different_recipes_are_told(start):
    started = start(2, "--recipe", "mlp-300-100-bn", "--run", "run")
    started[1].kill()
    started[1].communicate()
    address = started[0].args[started[0].args.index("--coordinator") + 1]
    other = [*started[0].args[:-1], "1", "--seed", "5"]
    assert address in other
    second = subprocess.run(other, capture_output=True, text=True, env=environment(), timeout=200)
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1] == (
        "kaggle-digits: process 1: has another seed and rows than the first process. Expected the same command and "
        "the same data for all. Start all again."
    )
    started[0].communicate(timeout=200)
    assert started[0].returncode == 1
