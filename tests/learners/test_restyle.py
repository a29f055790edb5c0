"""Restyle: digits are written in other styles, and stay the same digits."""

from __future__ import annotations

import numpy as np
import pytest

from kaggle_digits.learners.restyle import restyle_pixels
from kaggle_digits.recipe import Restyling


def stroke(down: int = 20) -> np.ndarray:
    """Draw an upright stroke, three pixels wide and `down` pixels long; (784,) uint8."""
    image = np.zeros((28, 28), np.uint8)
    image[4 : 4 + down, 13:16] = 255
    return image.ravel()


def restyled(digit: int, count: int = 200, pixels: np.ndarray | None = None, **style: float) -> np.ndarray:
    """Restyle `count` copies of an image as that digit; (count, 28, 28) float64, 0 to 255."""
    before = np.tile(stroke() if pixels is None else pixels, (count, 1))
    after = restyle_pixels(before, np.full(count, digit), Restyling(**style), np.random.default_rng(0))
    assert after.dtype == np.uint8
    assert after.shape == (count, 784)
    return after.reshape(-1, 28, 28).astype(float)


def test_no_style_changes_nothing():
    assert (restyled(1) == stroke().reshape(28, 28)).all()


def test_the_same_generator_writes_alike():
    style = {"strokes": 1.0, "bend": 2.0, "pen": 1.0, "blur": 1.0}
    np.testing.assert_array_equal(restyled(7, **style), restyled(7, **style))


@pytest.mark.parametrize(("digit", "down"), [(1, 8), *((other, 20) for other in (0, 2, 3, 4, 5, 6, 8))])
def test_small_ones_and_other_digits_get_no_strokes(digit, down):
    assert (restyled(digit, pixels=stroke(down), strokes=1.0) == stroke(down).reshape(28, 28)).all()


def test_ones_get_a_flag_down_to_the_left_and_some_a_foot():
    ones = restyled(1, strokes=1.0)
    # In the upper half no ink appears on the right. On the left nearly all ones get some.
    assert ones[:, 4:14, 17:].sum() == 0
    assert (ones[:, 4:22, :12].sum(axis=(1, 2)) > 500).mean() > 0.9
    footed = ones[:, 22:26, 17:].sum(axis=(1, 2)) > 0
    assert 0.25 < footed.mean() < 0.55
    assert (ones[:, 6:22, 13:16] == 255).all()


def test_sevens_get_a_bar_or_a_serif():
    image = stroke().reshape(28, 28).copy()
    image[4:7, 6:16] = 255
    sevens = restyled(7, pixels=image.ravel(), strokes=1.0)
    barred = sevens[:, 11:17, 17:].sum(axis=(1, 2)) > 300
    hooked = sevens[:, 8:11, 4:9].sum(axis=(1, 2)) > 300
    assert 0.6 < barred.mean() < 0.9
    assert 0.4 < hooked.mean() < 0.8
    assert (barred | hooked).mean() > 0.95


def test_nines_get_a_tail_to_the_left():
    nines = restyled(9, strokes=1.0)
    assert (nines[:, 18:25, :12].sum(axis=(1, 2)) > 300).all()
    assert nines[:, :, 18:].sum() == 0


def test_a_share_of_the_digits_gets_strokes():
    changed = (restyled(1, 2000, strokes=0.3) != stroke().reshape(28, 28)).any(axis=(1, 2))
    assert 0.25 < changed.mean() < 0.35


@pytest.mark.parametrize("pixels", [np.zeros(784, np.uint8), np.full(784, 255, np.uint8)])
@pytest.mark.parametrize("digit", [1, 7, 9])
def test_images_without_a_digit_do_no_harm(pixels, digit):
    assert np.isfinite(restyled(digit, 20, pixels=pixels, strokes=1.0, bend=1.0, pen=1.0, blur=1.0)).all()


def test_bending_moves_no_point_farther_than_the_limit():
    dot = np.zeros((28, 28), np.uint8)
    dot[14, 14] = 255
    bent = restyled(3, 500, pixels=dot.ravel(), bend=2.0)
    rows, columns = np.nonzero(bent.max(axis=0))
    assert max(np.abs(rows - 14).max(), np.abs(columns - 14).max()) <= 3
    assert (bent.argmax(axis=0) != 0).any()


def test_the_pen_changes_the_width_by_at_most_its_pixels_on_each_side():
    widths = restyled(3, 2000, pen=1.0)[:, 14].sum(axis=1) / 255
    assert widths.min() == pytest.approx(1, abs=0.05)
    assert widths.max() == pytest.approx(5, abs=0.05)
    assert widths.mean() == pytest.approx(3, abs=0.1)


def test_blur_keeps_the_ink():
    blurred = restyled(3, 50, blur=1.0)
    np.testing.assert_allclose(blurred.sum(axis=(1, 2)), stroke().sum(), rtol=0.02)
    assert blurred[:, 14, 13].min() < 210 < 250 < blurred[:, 14, 13].max()
