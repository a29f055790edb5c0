"""Fuzzing: of whatever a reader of files is given comes a result, or one clear error, within 5 seconds and 1 GB.

In every test run hypothesis tries some damaged files. `make fuzz` tries 200,000 of each kind, guided by coverage where
atheris can be installed.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
import targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXECUTIONS = 200_000
FUZZ = Path(__file__).with_name("fuzz.py")


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Draw the contents of a file, and damage them: bytes changed, cut out, put in, or taken from another file."""
    contents = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(contents)))
        end = min(start + draw(st.sampled_from([0, 1, 4, 100, 10**6])), len(contents))
        other = draw(st.sampled_from(seeds))
        contents[start:end] = draw(st.one_of(st.binary(max_size=8), st.just(other[start:end]), st.just(other)))
    return bytes(contents)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(targets.tables, "BLOCK", 4096)


@pytest.mark.filterwarnings("ignore::pandas.errors.DtypeWarning")
@pytest.mark.parametrize("name", targets.TARGETS)
def test_damaged_files_end_in_a_result_or_one_error(ledger, name, tmp_path):
    target = targets.TARGETS[name]
    fault = f"fuzzed: {name}"
    if ledger.soak and importlib.util.find_spec("atheris"):
        command = [sys.executable, str(FUZZ), name, str(EXECUTIONS), str(tmp_path / "corpus")]
        with ledger.attack(fault, EXECUTIONS):
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=4 * 3600)
            assert done.returncode == 0, done.stderr[-3000:]
            assert re.search(rf"number_of_executed_units: {EXECUTIONS}", done.stderr)
        return
    seeds = list(target.seeds())
    for seed in seeds:
        target.read(seed)
    examples = EXECUTIONS if ledger.soak else 60

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(damaged(seeds))
    def read(contents: bytes) -> None:
        started = time.process_time()
        target.read(contents)
        assert time.process_time() - started < 5

    with ledger.attack(fault, examples):
        tracemalloc.start()
        try:
            read()
            assert tracemalloc.get_traced_memory()[1] < 2**30
        finally:
            tracemalloc.stop()
