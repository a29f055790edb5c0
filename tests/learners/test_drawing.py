"""Drawing: images beside MNIST's, most of them no digit, placed as MNIST's digits are."""

from __future__ import annotations

import numpy as np
import pytest

from kaggle_digits.data import find_source, load_train
from kaggle_digits.learners.drawing import FONTS, HELD_OUT_FONTS, OUTLIER, draw_images, draw_letters
from kaggle_digits.learners.images import _labels


@pytest.fixture(scope="module")
def drawn():
    return draw_images(400, load_train(find_source("sample")), np.random.default_rng(0))


def test_a_fifth_is_digits_and_the_rest_is_none(drawn):
    assert (drawn.digits != OUTLIER).mean() == pytest.approx(0.2, abs=0.06)
    assert set(drawn.digits) == {OUTLIER, *range(10)}


def test_every_image_has_ink_in_the_middle(drawn):
    assert drawn.pixels.shape == (400, 784)
    assert drawn.pixels.dtype == np.uint8
    assert (drawn.pixels.max(axis=1) > 200).all()
    images = drawn.pixels.reshape(-1, 28, 28).astype(float)
    sums = images.sum(axis=(1, 2))
    for axis in (1, 2):
        centres = images.sum(axis=3 - axis) @ (np.arange(28) + 0.5) / sums
        assert np.abs(centres - 14.5).max() < 5


def test_the_same_seed_draws_the_same(drawn):
    again = draw_images(400, load_train(find_source("sample")), np.random.default_rng(0))
    np.testing.assert_array_equal(again.pixels, drawn.pixels)


def test_letters_to_measure_on_are_in_other_fonts():
    assert not {*FONTS} & {*HELD_OUT_FONTS}
    letters = draw_letters(20, HELD_OUT_FONTS, np.random.default_rng(0))
    assert letters.shape == (20, 784)


def test_of_what_is_no_digit_every_digit_is_equally_likely():
    labels = _labels(np.array([3, OUTLIER]))
    assert labels[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(labels[1], np.full(10, 0.1))
