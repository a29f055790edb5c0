"""Make probabilities mean what they say: of the digits given as 90 % sure, 90 % are right.

Source: temperature and calibration error as in Guo et al. 2017, arXiv 1706.04599.
"""

from __future__ import annotations

import numpy as np

BINS = 15
LEAST = 1e-12
"""Taken for probabilities of 0, which have no logarithm."""


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Make probabilities less sure, or surer, without a change of their order.

    Args:
        probabilities: (N, 10).
        temperature: above 1 makes them less sure, below 1 surer.

    Returns:
        (N, 10) float64, rows sum to 1.

    >>> calibrate(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.667, 0.333]]
    """
    scaled = np.log(np.maximum(probabilities, LEAST, dtype=np.float64)) / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return the temperature, from 0.1 to 10, that makes the truth likeliest.

    Where no mistake was made that would be the lowest, but nothing says that there will be none: then it is 1.

    Args:
        probabilities: (N, 10), of rows that were not trained on.
        digits: (N,) integers, 0–9, the truth.
    """
    if (probabilities.argmax(axis=1) == digits).all():
        return 1.0
    from scipy.optimize import minimize_scalar

    def surprise(logarithm: float) -> float:
        given = calibrate(probabilities, float(np.exp(logarithm)))[np.arange(len(digits)), digits]
        return -float(np.log(np.maximum(given, LEAST)).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(np.log(0.1), np.log(10)), method="bounded").x))


def reliability(probabilities: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare how sure digits are read with how many of them are right.

    Args:
        probabilities: (N, 10).
        digits: (N,) integers, 0–9, the truth.

    Returns:
        for each of 15 bins of equal width how many digits are in it, their mean certainty and their accuracy; these two
        are 0 where there are none.
    """
    certainty, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == digits
    bins = np.clip(np.ceil(certainty * BINS).astype(int) - 1, 0, BINS - 1)
    counts, sure, hits = (np.bincount(bins, weights, BINS) for weights in (None, certainty, right))
    each = np.maximum(counts, 1)
    return counts, sure / each, hits / each


def calibration_error(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return the mean difference between certainty and accuracy over 15 bins, each weighted by its digits.

    >>> calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    counts, sure, accuracy = reliability(probabilities, digits)
    return float((counts * np.abs(sure - accuracy)).sum() / counts.sum())


def accuracy(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return correct / seen over all rows.

    Args:
        probabilities: (N, 10).
        digits: (N,) integers, 0–9, the truth.

    >>> accuracy(np.eye(10)[[1, 2, 3, 4]], np.array([1, 2, 3, 9]))
    0.75
    """
    return float((probabilities.argmax(axis=1) == digits).mean())
