"""Same in, same out, and as much memory in the end as in the beginning."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_faults import assert_as_undisturbed, in_folder, run, start

from kaggle_digits.data import find_source, load_test
from kaggle_digits.learners import PACKAGED_RUN

DATA = os.environ.get("KDIGITS_DATA")
MORE_MEGABYTES = 100
NEAR_TIE = 0.02
"""Two likeliest digits whose probabilities differ by less are a near tie: another processor may choose the other."""
PROCESSORS = {
    "without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "with SSE4.1 only": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "with JAX": {"KERAS_BACKEND": "jax"},
}
PREDICT = """
import sys
import numpy as np
from kaggle_digits.data import find_source, load_test
from kaggle_digits.learners import load_run
np.save("there.npy", load_run(sys.argv[1]).predict(load_test(find_source(sys.argv[2]))[: int(sys.argv[3])]))
"""


CASES = [(recipe, backend) for recipe in ("flash", "fast", "tiny", "strong") for backend in ("tensorflow", "jax")]


@pytest.mark.soak
@pytest.mark.parametrize(("recipe", "backend"), CASES)
def test_same_seed_makes_the_same_file_also_after_a_kill(ledger, recipe, backend):
    command = ("submit", "--data", "sample", "--device", "cpu", "--backend", backend, "--recipe", recipe)
    command += ("--epochs", "2") if recipe != "strong" else ("--epochs", "1")
    with in_folder("first"):
        started = time.monotonic()
        assert run(*command).returncode == 0
        seconds = time.monotonic() - started
        (file,) = Path("submissions").glob("*.csv")
        expected = file.read_bytes()
    with in_folder("second"), ledger.fault(f"same file again, after kill -9: {backend}"):
        child = start(*command)
        try:
            child.wait(random.Random(0).uniform(0.5, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if not list(Path("submissions").glob("[!.]*.json")):
            assert run(*command).returncode == 0
        assert_as_undisturbed(expected)


@pytest.mark.parametrize(
    "processor",
    [
        "with SSE4.1 only",
        pytest.param("without oneDNN", marks=pytest.mark.soak),
        pytest.param("with JAX", marks=pytest.mark.soak),
    ],
)
def test_other_processors_choose_the_same_digits_but_for_near_ties(ledger, processor, capsys):
    """Another backend and other instructions stand in for other processors, which a test cannot have."""
    data = DATA if DATA and ledger.soak else "sample"
    rows = len(load_test(find_source(data))) if ledger.soak else 50
    command = [sys.executable, "-c", PREDICT, str(PACKAGED_RUN), data, str(rows)]
    subprocess.run(command, check=True, timeout=300)
    Path("there.npy").rename("here.npy")
    with ledger.fault(f"prediction {processor}"):
        environment = os.environ | PROCESSORS[processor]
        subprocess.run(command, check=True, env=environment)
        one, other = np.load("here.npy"), np.load("there.npy")
        assert len(one) == rows
        best = np.sort(one, axis=1)
        ties = best[:, -1] - best[:, -2] < NEAR_TIE
        assert (one.argmax(axis=1) == other.argmax(axis=1))[~ties].all()
        differing = np.flatnonzero(one.argmax(axis=1) != other.argmax(axis=1))
        with capsys.disabled():
            print(f"\n{processor}: {ties.sum()} near ties of {len(one):,}; digits differ in rows {differing.tolist()}")


def resident(process: int) -> float:
    """Return the memory of a process in megabytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the memory of another process")
def test_a_comparison_does_not_grow(ledger):
    """The memory after the last recipe is compared with that after the second one."""
    networks = ("mlp-784-300", "fc-200-100-20", "mlp-300-100-bn", "flash", "cnn-16-32", "lenet-5")
    others = ("naive-bayes", "knn", "random", "random-forest")
    recipes = (*networks, *others) if ledger.soak else ("fc-200-100-20", "random", "naive-bayes")
    with ledger.fault(f"comparison of {len(recipes)} recipes keeps its memory"):
        child = start("compare", "--data", "sample", "--recipes", ",".join(recipes), "--out", "out")
        table, seen = Path("out/compare.csv"), {}
        while child.poll() is None:
            rows = len(table.read_text().splitlines()) - 1 if table.exists() else 0
            if rows and rows not in seen:
                seen[rows] = resident(child.pid)
            time.sleep(0.01)
        assert child.returncode == 0
        assert len(table.read_text().splitlines()) - 1 == len(recipes)
        early = min(size for rows, size in seen.items() if rows > 1)
        assert max(seen.values()) - early < MORE_MEGABYTES, seen
