"""Devices: the list says what is used and why not the rest, the self-test finds faults, virtual devices agree."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import keras
import pytest
from test_backend import tpu_machine

from kaggle_digits import cli
from kaggle_digits.analysis import self_test as devices
from kaggle_digits.analysis.self_test import describe_devices, self_test
from kaggle_digits.devices import import_tensorflow, version_of

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "devices.py"


def run_module(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=600, env={**os.environ, **environment}
    )


def test_devices_say_what_is_used_and_why_not_the_rest(capsys):
    assert cli.main(["devices"]) == 0
    out = capsys.readouterr().out
    version = import_tensorflow().__version__
    assert out.startswith(f"backend       tensorflow {version}, Keras {keras.__version__}\ndevice        cpu\n")
    assert f"\n  tpu         TensorFlow {version} finds no TPU here (NotFoundError: " in out
    assert f"\n  gpu         TensorFlow {version} finds no GPU\n" in out
    assert out.endswith("\n  jax         installed; --backend jax selects it\n")


def test_device_that_was_asked_for_stops_the_search():
    lines = describe_devices("cpu").splitlines()
    assert "  tpu         not looked for: --device cpu was asked for" in lines


def test_devices_on_a_tpu_machine_of_kaggle_say_why_jax_was_taken(tmp_path):
    done = run_module("-m", "kaggle_digits", "devices", **tpu_machine(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"backend       jax {version_of('jax')}, Keras {keras.__version__} (ISTPUVM is set, this TensorFlow has no TPU "
        "support, and JAX has)\n"
    )


def test_self_test_passes_on_the_cpu_with_both_backends(capsys):
    assert cli.main(["devices", "--self-test", "--device", "cpu"]) == 0
    head, tensorflow, jax = [line.split() for line in capsys.readouterr().out.splitlines()[:3]]
    assert head == ["BACKEND", "DEVICE", "REPLICAS", "SECONDS", "LOSS", "OFF", "BY", "VERDICT"]
    assert (tensorflow[:3], tensorflow[-2:]) == (["tensorflow", "cpu", "1"], ["the", "reference"])
    assert (jax[:3], jax[-1]) == (["jax", "cpu", "1"], "passed")


def answers(losses: list[float], count: int = devices.PREDICTED) -> dict[str, object]:
    return {"replicas": 1, "seconds": 1.0, "losses": losses, "digits": [0] * count}


GOOD = [2.0, 1.0] * 25


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (answers(GOOD), "passed"),
        (answers([*GOOD[:39], 1.02, *GOOD[40:]]), "FAILED"),
        (answers(GOOD[:49]), "FAILED"),
        (answers([*GOOD[:39], float("nan"), *GOOD[40:]]), "FAILED"),
        (answers(GOOD, devices.PREDICTED - 2), "FAILED"),
        ({"error": "--device gpu: none", "missing": True}, "none"),
        ({"error": "InternalError: out of memory", "missing": False}, "failed: InternalError: out of memory"),
    ],
)
def test_self_test_judges_what_a_device_answers(monkeypatch, answer, verdict):
    # The tests have no GPU, so the answer of its process is given.
    monkeypatch.setattr(devices, "_in_process", lambda backend, kind: answers(GOOD) if kind == "cpu" else answer)
    table, passed = self_test("auto", "tensorflow")
    assert passed == (verdict in ("passed", "none"))
    (row,) = [line for line in table.splitlines() if line.startswith("tensorflow  gpu")]
    assert row.endswith(verdict)


@pytest.mark.parametrize(("found_by", "passed"), [((), False), (("jax",), True), (("tensorflow", "jax"), True)])
def test_device_that_is_asked_for_must_be_there_for_one_backend(monkeypatch, found_by, passed):
    gone = {"error": "--device gpu: none", "missing": True}
    answer = lambda backend, kind: answers(GOOD) if kind == "cpu" or backend in found_by else gone  # noqa: E731
    monkeypatch.setattr(devices, "_in_process", answer)
    assert self_test("gpu")[1] == passed


def test_device_that_does_not_answer_fails(monkeypatch):
    monkeypatch.setattr(devices, "_in_process", partial(devices._in_process, timeout=0.01))
    table, passed = self_test("cpu", "tensorflow")
    assert not passed
    assert "failed: no answer in 0.01 s" in table


def test_same_weights_learn_the_same_on_every_virtual_device():
    """Run the README's command on a smaller network for fewer steps."""
    places = ["TensorFlow", "TensorFlow, 4 mirrored", "JAX, 8 devices"]
    done = run_module(
        str(BENCHMARK), "--recipe", "mlp-300-100-bn", "--steps", "30", "--places", *places, CUDA_VISIBLE_DEVICES="-1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[4:]]
    assert [row[:2] for row in rows] == [[place, count] for place, count in zip(places, "148", strict=True)]
