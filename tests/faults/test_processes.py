"""Several processes that train as one: if one is lost, the others end, and all go on together."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from test_cluster import finish, start

__all__ = ["start"]


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.soak)], ids=["first", "second"])
def test_lost_process_ends_the_other_and_both_resume(ledger, start, victim):
    with ledger.fault("kill -9 of one of two processes that train together"):
        if victim and not ledger.soak:
            return  # the other one is lost in the long form
        arguments = ("--recipe", "mlp-300-100-bn", "--run", "run", "--epochs", "20", "--resume")
        started = start(2, *arguments)
        deadline = time.monotonic() + 240
        while not Path("run/checkpoint.npz").exists():  # until an epoch is saved
            assert time.monotonic() < deadline, "no epoch in time"
            time.sleep(0.05)
        started[victim].send_signal(signal.SIGKILL)
        lost = time.monotonic()
        other = started[1 - victim]
        out, err = other.communicate(timeout=100)
        assert time.monotonic() - lost < 60
        assert other.returncode == 1, err
        assert "Traceback" not in err
        # JAX may end the process before our own message does.
        said = err.rstrip().splitlines()[-1].removeprefix("kaggle-digits: ")
        assert said.startswith(
            (f"process {1 - victim} of 2 cannot go on (", "several processes: JAX ended this one (SIG")
        )
        assert said.endswith(" with --resume; whole epochs are kept.")
        assert out == ""
        assert Path("run/checkpoint.npz").exists()

        first, second = finish(start(2, *arguments))
        assert (first[0], second[0]) == (0, 0), (first, second)
        record = json.loads(Path("run/run.json").read_text())
        assert record["finished"]
        assert [metrics["epoch"] for metrics in record["epochs"]] == list(range(1, 21))
