"""Make probabilities mean what they say: of the digits that are given as 90% sure, 90% are right.

Source: the temperature and the calibration error are those of Guo et al. 2017, arXiv 1706.04599.
"""

from __future__ import annotations

import numpy as np

LEAST = 1e-12
"""Smaller probabilities are raised to this value, because 0 has no logarithm."""


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Make probabilities more or less sure without changing their order.

    Args:
        probabilities: (N, 10).
        temperature: above 1, the probabilities become less sure; below 1, more sure.

    Returns:
        (N, 10) float64, 0–1; rows sum to 1.

    >>> calibrate(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.667, 0.333]]
    """
    scaled = np.log(np.maximum(probabilities, LEAST, dtype=np.float64)) / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return the temperature, from 0.1 to 10, that makes the true digits likeliest.

    If no digit was misread, that would be the lowest temperature. But other digits may still be misread, so it is 1
    then.

    Args:
        probabilities: (N, 10), for rows that were not trained on.
        digits: (N,) integers, 0–9, the truth.
    """
    if (probabilities.argmax(axis=1) == digits).all():
        return 1.0
    from scipy.optimize import minimize_scalar

    def surprise(logarithm: float) -> float:
        given = calibrate(probabilities, float(np.exp(logarithm)))[np.arange(len(digits)), digits]
        return -float(np.log(np.maximum(given, LEAST)).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(np.log(0.1), np.log(10)), method="bounded").x))


def find_threshold(digits: np.ndarray, letters: np.ndarray) -> tuple[float, float, float]:
    """Find the probability from which on a digit is sure: 0.9, or less if more than 1% of the digits would be unsure.

    Args:
        digits: (N, 10) calibrated probabilities of held-out digits.
        letters: (M, 10) those of letters that do not look like a digit.

    Returns:
        the threshold; the share of digits below it; and the share of letters that reach it.
    """
    digits, letters = digits.max(axis=1), letters.max(axis=1)
    value = min(0.9, float(np.floor(1e4 * np.quantile(digits, 0.01, method="lower")) / 1e4))
    return value, round(float((digits < value).mean()), 4), round(float((letters >= value).mean()), 4)


def reliability(probabilities: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare how surely digits are read with how many of them are right, in 15 bins of equal width.

    Args:
        probabilities: (N, 10).
        digits: (N,) integers, 0–9, the truth.

    Returns:
        three (15,) arrays, with a value for each bin: the number of digits, their mean certainty from 0 to 1, and their
        accuracy from 0 to 1. The last two are 0 for an empty bin.
    """
    certainty, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == digits
    bins = np.clip(np.ceil(certainty * 15).astype(int) - 1, 0, 14)
    counts, sure, hits = (np.bincount(bins, weights, 15) for weights in (None, certainty, right))
    each = np.maximum(counts, 1)
    return counts, sure / each, hits / each


def calibration_error(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return the mean difference between certainty and accuracy over 15 bins, each weighted by its number of digits.

    Args:
        probabilities: (N, 10).
        digits: (N,) integers, 0–9, the truth.

    >>> calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    counts, sure, accuracy = reliability(probabilities, digits)
    return float((counts * np.abs(sure - accuracy)).sum() / counts.sum())
