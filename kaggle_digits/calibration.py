"""Make probabilities mean what they say: of the digits that are given as 90% sure, 90% are right.

Source: the temperature and the calibration error are those of Guo et al. 2017, arXiv 1706.04599.
"""

from __future__ import annotations

import math

import numpy as np

BINS = 15
"""Digits are grouped by certainty into this many bins of equal width."""
HIGHEST, MOST_UNSURE = 0.9, 0.01
"""A digit is sure from the probability HIGHEST on, or less, so that at most this share of the digits is unsure."""
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
    """Find the probability from which on a digit is sure: HIGHEST, or less, so that few digits are unsure.

    Args:
        digits: (N, 10) calibrated probabilities of held-out digits.
        letters: (M, 10) those of letters that do not look like a digit.

    Returns:
        the threshold; the share of digits below it, at most MOST_UNSURE; and the share of letters that reach it.
    """
    digits, letters = digits.max(axis=1), letters.max(axis=1)
    value = min(HIGHEST, float(np.floor(1e4 * np.quantile(digits, MOST_UNSURE, method="lower")) / 1e4))
    return value, round(float((digits < value).mean()), 4), round(float((letters >= value).mean()), 4)


def reliability(probabilities: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare how surely digits are read with how many of them are right.

    Args:
        probabilities: (N, 10).
        digits: (N,) integers, 0–9, the truth.

    Returns:
        three (15,) arrays, with a value for each bin: the number of digits, their mean certainty from 0 to 1, and their
        accuracy from 0 to 1. The last two are 0 for an empty bin.
    """
    certainty, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == digits
    bins = np.clip(np.ceil(certainty * BINS).astype(int) - 1, 0, BINS - 1)
    counts, sure, hits = (np.bincount(bins, weights, BINS) for weights in (None, certainty, right))
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


def accuracy(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return the share of rows that are read correctly, from 0 to 1.

    Args:
        probabilities: (N, 10).
        digits: (N,) integers, 0–9, the truth.

    >>> accuracy(np.eye(10)[[1, 2, 3, 4]], np.array([1, 2, 3, 9]))
    0.75
    """
    return float((probabilities.argmax(axis=1) == digits).mean())


def describe_accuracy(accuracy: float, rows: int) -> str:
    """Return an accuracy that was measured on so many rows, for people, with its standard error.

    >>> describe_accuracy(0.995, 2100)
    '99.50% ± 0.15% (1 standard error)'
    >>> describe_accuracy(1.0, 2100)
    '100%, that is above 99.9% with 95% confidence,'
    """
    if accuracy == 1:  # a standard error of 0 would claim too much: give the bound of the rule of three
        return f"100%, that is above {1 - 3 / rows:.1%} with 95% confidence,"
    return f"{accuracy:.2%} ± {standard_error(accuracy, rows):.2%} (1 standard error)"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if need be.

    >>> counted(1, "mistake"), counted(1234, "mistake")
    ('1 mistake', '1,234 mistakes')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def standard_error(accuracy: float, rows: int) -> float:
    """Return the binomial standard error of an accuracy that was measured on so many rows."""
    return math.sqrt(accuracy * (1 - accuracy) / rows)
