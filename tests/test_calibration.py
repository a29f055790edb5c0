"""Calibration: probabilities that are too certain, or not certain enough, are corrected."""

from __future__ import annotations

import numpy as np
import pytest

from kaggle_digits.analysis.calibration import calibration_error, reliability
from kaggle_digits.digits import calibrate, fit_temperature
from kaggle_digits.learners.drawing import find_threshold


def draw(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, and digits drawn from the same logits at another temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (count, 10))
    given, true = (np.exp(logits / t) for t in (1.0, temperature))
    true /= true.sum(axis=1, keepdims=True)
    digits = (rng.random((count, 1)) > true.cumsum(axis=1)).sum(axis=1)
    return given / given.sum(axis=1, keepdims=True), digits


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_what_was_drawn_is_found(temperature):
    probabilities, digits = draw(temperature)
    found = fit_temperature(probabilities, digits)
    assert found == pytest.approx(temperature, rel=0.05)
    assert calibration_error(calibrate(probabilities, found), digits) < 0.012


def test_calibration_keeps_the_order_and_sums_to_one():
    probabilities, _ = draw(1.0, 100)
    calibrated = calibrate(probabilities, 3.0)
    np.testing.assert_array_equal(calibrated.argsort(axis=1), probabilities.argsort(axis=1))
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)
    np.testing.assert_allclose(calibrate(probabilities, 1.0), probabilities)


def test_certainty_of_a_guesser_that_is_always_sure():
    """All answers have the probability 1 and half of them are right, so the error is a half."""
    probabilities = np.eye(10)[[1, 2, 3, 4]]
    assert calibration_error(probabilities, np.array([1, 2, 0, 0])) == 0.5
    assert np.isfinite(fit_temperature(probabilities, np.array([1, 2, 0, 0])))


def test_without_a_mistake_nothing_becomes_certain():
    """A hundred rows at 0.64 are all right, but the next may still be wrong."""
    probabilities = np.full((100, 10), 0.04)
    probabilities[:, 0] = 0.64
    assert fit_temperature(probabilities, np.zeros(100, int)) == 1.0
    assert 0.3 < fit_temperature(probabilities, np.array([1] + [0] * 99)) < 0.7


def test_reliability_by_hand():
    """Of the 15 bins, 0.3 falls into the fifth, (4/15, 5/15], and 0.9 into the fourteenth."""
    probabilities = np.array([[0.3] + [0.7 / 9] * 9] * 2 + [[0.9] + [0.1 / 9] * 9] * 2)
    counts, sure, accuracy = reliability(probabilities, np.array([0, 1, 0, 0]))
    assert np.flatnonzero(counts).tolist() == [4, 13]
    np.testing.assert_allclose(sure[[4, 13]], [0.3, 0.9])
    np.testing.assert_allclose(accuracy[[4, 13]], [0.5, 1.0])


def test_few_digits_become_unsure_by_the_threshold():
    rng = np.random.default_rng(0)
    digits = np.zeros((1000, 10))
    digits[:, 0] = np.concatenate([rng.uniform(0.95, 1, 985), rng.uniform(0.5, 0.85, 15)])
    letters = np.full((100, 10), 0.1)
    letters[:3, 1] = 0.99
    value, unsure, sure = find_threshold(digits, letters)
    assert 0.5 < value < 0.9
    assert unsure <= 0.01
    assert sure == 0.03
    digits[:, 0] = 0.99
    assert find_threshold(digits, letters) == (0.9, 0.0, 0.03)
