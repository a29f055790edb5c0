"""Fixtures: a tiny competition in Kaggle's format, and a working folder that sees nothing of the machine around it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from kaggle_digits.data import find_source, load_test, load_train
from kaggle_digits.strategy import Device

# The tests run on the CPU even where there is a GPU. Set it before TensorFlow's first use, which fixes its devices.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
# The package sets this too, but some tests import Keras before the package. On or off changes the last decimals.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

TRAIN_HEADER = ",".join(["label", *(f"pixel{i}" for i in range(784))])
TEST_HEADER = ",".join(f"pixel{i}" for i in range(784))


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder from which no data outside it is found."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KDIGITS_CACHE", str(tmp_path / "cache"))
    cluster = ("KDIGITS_COORDINATOR", "KDIGITS_PROCESSES", "KDIGITS_PROCESS")
    for name in ("KDIGITS_DATA", "KDIGITS_COMPETITION", "ISTPUVM", "TPU_NAME", "KERAS_BACKEND", *cluster):
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
