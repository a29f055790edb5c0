"""Measure whether probabilities mean what they say: of the digits that are given as 90% sure, 90% should be right.

Source: the calibration error is that of Guo et al. 2017, arXiv 1706.04599.
"""

from __future__ import annotations

import numpy as np


def reliability(probabilities: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare the certainty of readings with their accuracy, in 15 bins of equal width.

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
