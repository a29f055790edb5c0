"""Preprocess: the moments of their ink make digits upright and equally wide, wherever they are in the image."""

from __future__ import annotations

import numpy as np
import pytest

from kaggle_digits.data import find_source, load_test
from kaggle_digits.learners.upright import NARROWEST, WIDEST, _read_columns, normalise_pixels, shift_rows

ONES = np.ones(2)
Y, X = np.mgrid[:28, :28].astype(float)


def stroke(lean, width=2.5, x=14.0):
    """Draw a straight stroke with soft edges that leans by the given number of columns per row."""
    rows = np.clip(np.minimum(Y - 3, 24 - Y), 0, 1)
    return np.rint(255 * rows * np.clip(width - abs(X - x - lean * (Y - 13.5)), 0, 1)).astype(np.uint8).ravel()


def slope_of(pixels):
    """Return the slope of columns over rows, weighted by ink, from NumPy's least squares."""
    return np.polyfit(Y.ravel(), X.ravel(), 1, w=np.sqrt(pixels))[0]


def columns_of(pixels):
    """Return the mean and standard deviation of the ink's columns."""
    mean = np.average(X.ravel(), weights=pixels)
    return mean, np.sqrt(np.average((X.ravel() - mean) ** 2, weights=pixels))


def test_deslanting_sets_strokes_upright_about_their_centre_of_mass():
    leans = (-0.6, 0.3, 0)
    pixels = np.stack([stroke(lean) for lean in leans])
    upright = normalise_pixels(pixels, deslant=True)
    assert upright.dtype == np.uint8
    for before, after, lean in zip(pixels, upright, leans, strict=True):
        assert slope_of(before) == pytest.approx(lean, abs=0.02)
        assert slope_of(after) == pytest.approx(0, abs=0.005)
        assert columns_of(after)[0] == pytest.approx(14, abs=0.05)
        rows_before, rows_after = (p.reshape(28, 28).sum(axis=1, dtype=float) for p in (before, after))
        assert rows_after == pytest.approx(rows_before, abs=5)
    np.testing.assert_array_equal(upright[2], pixels[2])
    np.testing.assert_array_equal(normalise_pixels(pixels.astype(np.float32), deslant=True), upright)


def test_spread_is_that_of_the_upright_digit():
    pixels = np.stack([stroke(0, 5, 12), stroke(0.4, 6), stroke(-0.2, 8)])
    before = [columns_of(p)[1] for p in normalise_pixels(pixels, deslant=True)]
    assert max(before) / min(before) > 1.5
    for stretched, mean in zip(normalise_pixels(pixels, deslant=True, spread=4), (12, 14, 14), strict=True):
        assert slope_of(stretched) == pytest.approx(0, abs=0.02)
        assert columns_of(stretched) == (pytest.approx(mean, abs=0.1), pytest.approx(4, abs=0.1))


def test_strokes_are_stretched_within_limits():
    thin, broad = stroke(0, 1.5)[None], stroke(0, 12)[None]
    stretched = normalise_pixels(thin, spread=6)[0]
    assert columns_of(stretched)[1] == pytest.approx(columns_of(thin[0])[1] / NARROWEST, abs=0.2)
    narrowed = normalise_pixels(broad, spread=2)[0]
    assert columns_of(narrowed)[1] == pytest.approx(columns_of(broad[0])[1] / WIDEST, abs=0.2)


def test_dashes_and_empty_images_stay_what_they_are():
    images = np.zeros((3, 28, 28), np.uint8)
    images[1, 14, 4:24] = 200  # has no slope to measure
    images[2, 13, 4:14] = images[2, 14, 14:24] = 200  # leans by ten columns per row, but only one is corrected
    upright = normalise_pixels(images.reshape(3, 784), deslant=True).reshape(3, 28, 28)
    np.testing.assert_array_equal(upright[:2], images[:2])
    moved = [0, 100, *[200] * 9, 100, 0]
    assert (upright[2, 13, 3:16].tolist(), upright[2, 14, 12:25].tolist()) == (moved, moved)
    assert upright[2].sum() == sum(map(sum, (moved, moved)))
    assert not normalise_pixels(images[:1].reshape(1, 784), deslant=True, spread=4).any()


def test_nothing_asked_for_changes_nothing_and_every_chunk_is_seen():
    sample = load_test(find_source("sample"))
    pixels = np.resize(sample, (1024 + 10, 784))
    np.testing.assert_array_equal(normalise_pixels(pixels), pixels)
    normalised = normalise_pixels(pixels, deslant=True, spread=4)
    np.testing.assert_array_equal(normalised[-10:], normalise_pixels(pixels[-10:], deslant=True, spread=4))
    assert normalise_pixels(pixels[:0], deslant=True).shape == (0, 784)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_beside_the_image_is_paper(dtype):
    pixels = np.full((2, 784), 100, dtype)
    for columns, expected in (
        (-2.5, [0, 0, 50, *[100] * 25]),
        (20.5, [*[100] * 7, 50, *[0] * 20]),
        (-100, [0] * 28),
        (100, [0] * 28),
    ):
        for read in (
            shift_rows(pixels, np.full((2, 28), columns)),
            _read_columns(pixels, np.full((2, 28), columns), ONES),
        ):
            np.testing.assert_allclose(read.reshape(56, 28), [expected] * 56)


def test_rows_are_shifted_each_by_its_own_distance():
    rng = np.random.default_rng(0)
    pixels, first = rng.integers(0, 256, (2, 784)).astype(np.uint8), rng.uniform(-30, 30, (2, 28))
    np.testing.assert_allclose(shift_rows(pixels, first), _read_columns(pixels, first, ONES), atol=0.01)
