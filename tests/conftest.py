"""Fixtures: a tiny competition in Kaggle's format, and a working folder that sees nothing of the machine around it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kaggle_digits import strategy
from kaggle_digits.data import find_source, load_test, load_train
from kaggle_digits.devices import is_installed, start_backend
from kaggle_digits.strategy import Device

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The tests run on the CPU even where there is a GPU. Set it before TensorFlow's first use, which fixes its devices.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
# The package sets this too, but some tests import Keras before the package. On or off changes the last decimals.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if not is_installed("tensorflow"):  # some tests import Keras before the package
    os.environ["KERAS_BACKEND"] = "jax"
if sys.platform == "darwin":  # before any test imports pandas, see ``devices.import_backend``
    start_backend()

# A suite that was started under nohup ignores hang-ups, and one in the background Ctrl+C.
# So would every process that it starts.
for ignored, usual in (("SIGHUP", signal.SIG_DFL), ("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL)):
    if signal.getsignal(number := getattr(signal, ignored, signal.SIGINT)) is signal.SIG_IGN:
        signal.signal(number, usual)


def _computes_bfloat16() -> bool:
    """Whether oneDNN computes bfloat16 on this processor: it needs AVX-512, and may be told not to use it."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    flags = strategy.CPUINFO.read_text() if strategy.CPUINFO.exists() else ""
    return "avx512bw" in flags and (limit in ("DEFAULT", "ALL") or "AVX512" in limit or "AMX" in limit)


needs_bfloat16 = pytest.mark.skipif(
    not _computes_bfloat16(), reason="this processor has no AVX-512, without which oneDNN does not compute bfloat16"
)

TRAIN_HEADER = ",".join(["label", *(f"pixel{i}" for i in range(784))])
TEST_HEADER = ",".join(f"pixel{i}" for i in range(784))


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder from which no data outside it is found."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KDIGITS_CACHE", str(tmp_path / "cache"))
    for name in ("KDIGITS_DATA", "KDIGITS_COMPETITION", "ISTPUVM", "TPU_NAME", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KDIGITS_KAGGLE", str(tmp_path / "kaggle"))
    return folder


@pytest.fixture
def train_values() -> np.ndarray:
    """Training rows: (40, 785) uint8, the label first, four rows of every digit with random pixels."""
    values = np.random.default_rng(0).integers(0, 256, (40, 785)).astype(np.uint8)
    values[:, 0] = np.arange(40) % 10
    return values


@pytest.fixture
def test_values() -> np.ndarray:
    """Test rows: (13, 784) uint8, random pixels."""
    return np.random.default_rng(1).integers(0, 256, (13, 784)).astype(np.uint8)


def to_csv(header: str, values: np.ndarray) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in values)]) + "\n"


@pytest.fixture
def competition(tmp_path: Path, train_values: np.ndarray, test_values: np.ndarray) -> Path:
    """A folder with train.csv and test.csv."""
    folder = tmp_path / "competition"
    folder.mkdir()
    (folder / "train.csv").write_text(to_csv(TRAIN_HEADER, train_values))
    (folder / "test.csv").write_text(to_csv(TEST_HEADER, test_values))
    return folder


@pytest.fixture(scope="session")
def digits_csv() -> tuple[str, str]:
    """Return train.csv and test.csv, as text, with digits of the built-in sample, which are enough to learn from."""
    source = find_source("sample")
    rows = load_train(source)
    train = np.column_stack([rows.digits.astype(np.uint8), rows.pixels])
    return to_csv(TRAIN_HEADER, train), to_csv(TEST_HEADER, load_test(source))


@pytest.fixture(scope="session")
def cpu() -> Device:
    from kaggle_digits.strategy import resolve_device

    return resolve_device("cpu")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the browser once for all tests of a file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield started
        started.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", metavar="FILE", help="run the long forms of tests/faults, and write their table to FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: only `make soak` runs this test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("soak"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="takes many minutes: a part of `make soak`"))


class Ledger:
    """Counts faults that were injected and survived, and attacks that were made and refused.

    Args:
        soak: whether the long form is wanted.
    """

    def __init__(self, soak: bool) -> None:
        self.soak = soak
        self.counts: dict[tuple[str, str], list[int]] = {}

    def times(self, short: int, long: int) -> range:
        """Return how often to repeat something."""
        return range(long if self.soak else short)

    def fault(self, name: str) -> AbstractContextManager[None]:
        """Count a fault; it is survived if the block ends without an error."""
        return self._counted("fault", name, 1)

    def attack(self, name: str, attempts: int = 1) -> AbstractContextManager[None]:
        """Count attempts at an attack; they are refused if the block ends without an error."""
        return self._counted("attack", name, attempts)

    @contextmanager
    def _counted(self, kind: str, name: str, attempts: int) -> Iterator[None]:
        counted = self.counts.setdefault((kind, name), [0, 0])
        counted[0] += attempts
        yield
        counted[1] += attempts


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    counted = Ledger(bool(request.config.getoption("soak")))
    yield counted
    request.node.user_properties.append(("ledger", [[*names, *counts] for names, counts in counted.counts.items()]))


counted: dict[tuple[str, str], list[int]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        for kind, name, times, good in dict(report.user_properties).get("ledger", []):
            total = counted.setdefault((kind, name), [0, 0])
            total[:] = total[0] + times, total[1] + good


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print and write what was injected and survived, if the long forms were run."""
    if not (file := config.getoption("soak")):
        return
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    where = f"{os.cpu_count()} cores of {model[1] if model else platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"Made on {date.today()} by `make soak` on {where}, TensorFlow {importlib.metadata.version('tensorflow')}.",
        "",
    ]
    for kind, head in (("fault", ("injected", "survived", "lost")), ("attack", ("attempts", "refused", "let in"))):
        lines += [f"| {kind} | {' | '.join(head)} |", "|---|--:|--:|--:|"]
        for (each, name), (times, good) in sorted(counted.items()):
            if each == kind:
                lines.append(f"| {name} | {times:,} | {good:,} | {times - good:,} |")
        lines.append("")
    terminalreporter.write_sep("=", "faults and attacks")
    terminalreporter.write_line("\n".join(lines))
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text("\n".join(lines), encoding="utf-8")
