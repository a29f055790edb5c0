"""Ink: the network finds the ink of digits in pictures that it was not trained on, and can be trained again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kaggle_digits.data import find_source, load_train
from kaggle_digits.handwriting.reader import Reader

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def composer():
    """Return a function that composes a picture of a seed. Its digits' writers are not in train.csv."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from compose import Composer, Material
    finally:
        sys.path.remove(str(BENCHMARKS))
    material = Material.of(load_train(find_source("sample")).take(np.arange(200)))
    return lambda seed: Composer(material, 256, np.random.default_rng([3, seed])).compose()


@pytest.fixture(scope="module")
def composed(composer):
    return [composer(seed) for seed in range(16)]


def test_the_composed_map_shows_ink_where_the_digits_are(composed):
    found = total = 0
    for each in composed:
        for (x, y), height in zip(each.places, each.heights, strict=True):
            left, top, right, bottom = (
                round(side) for side in (x - height / 3, y - height / 2, x + height / 3, y + height / 2)
            )
            if left >= 0 and top >= 0 and right < 256 and bottom < 256:
                total += 1
                found += each.maps[top:bottom, left:right, 0].max() > 127
    assert total > 100
    assert found >= 0.97 * total


def test_the_same_seed_composes_the_same_picture(composer, composed):
    again, first, second = composer(0), *composed[:2]
    for name in ("picture", "maps", "digits", "places", "heights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert not np.array_equal(first.picture, second.picture)
    assert (first.picture.shape, first.maps.shape) == ((256, 256, 3), (256, 256, 2))


def test_ink_of_digits_is_told_from_everything_else(composed):
    finder = Reader().ink_finder
    both = each_of_them = 0
    for each in composed:
        found = finder.find_at(each.picture.astype(np.float32) / 255)[:, :, 0] > 0.5
        truth = each.maps[..., 0] > 127
        both += (found & truth).sum()
        each_of_them += found.sum() + truth.sum()
    assert 2 * both / each_of_them > 0.75  # Dice: 1 is perfect


@pytest.mark.soak
def test_training_the_network_again_makes_the_same_file(tmp_path):
    files = [tmp_path / name for name in ("one.npz", "two.npz")]
    for file in files:
        command = [sys.executable, str(BENCHMARKS / "package_ink.py"), "--data", "sample", "--out", str(file)]
        small = ["--rows", "60", "--pictures", "16", "--epochs", "1", "--held-out", "8"]
        done = subprocess.run([*command, *small], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "ink of digits: Dice 0." in done.stdout
    one, two = (file.read_bytes() for file in files)
    assert one == two
