"""The vocabulary of this package: images of 28 × 28 pixels, ten classes, and how accuracy is counted.

========================== ============================================ ===========================================
word                       means                                        shape, dtype, range
========================== ============================================ ===========================================
``pixels``                 rows as Kaggle ships them                    (N, 784) uint8, 0–255, ink is bright
``images``                 what models eat                              (N, 28, 28, 1) float32, scaled by the recipe
``digits``                 the class as a number                        (N,) int64, 0–9
``labels``                 one-hot ``digits``                           (N, 10) float32
``logits, probabilities``  model output                                 (N, 10) float32
========================== ============================================ ===========================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing NumPy costs 0.1 s, and --help does not need it
    import numpy as np

__version__ = "0.1.0"

SIDE = 28
PIXELS = SIDE * SIDE
CLASSES = 10


def one_hot(digits: np.ndarray) -> np.ndarray:
    """Turn digits into one-hot labels.

    Args:
        digits: (N,) integers, 0–9.

    Returns:
        (N, 10) float32 with a single 1 in every row. ``keras.utils.to_categorical`` returns the same, but needs Keras.

    >>> one_hot([1])
    array([[0., 1., 0., 0., 0., 0., 0., 0., 0., 0.]], dtype=float32)
    """
    import numpy as np

    return np.eye(CLASSES, dtype=np.float32)[np.asarray(digits)]


def accuracy(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return the share of rows that are read correctly, from 0 to 1.

    Args:
        probabilities: (N, 10).
        digits: (N,) integers, 0–9, the truth.

    >>> import numpy as np
    >>> accuracy(np.eye(10)[[1, 2, 3, 4]], np.array([1, 2, 3, 9]))
    0.75
    """
    return float((probabilities.argmax(axis=1) == digits).mean())


def standard_error(accuracy: float, rows: int) -> float:
    """Return the binomial standard error of an accuracy on a number of rows."""
    return math.sqrt(accuracy * (1 - accuracy) / rows)


def describe_accuracy(accuracy: float, rows: int) -> str:
    """Format an accuracy on a number of rows for people, with its standard error.

    >>> describe_accuracy(0.995, 2100)
    '99.50% ± 0.15% (1 standard error)'
    >>> describe_accuracy(1.0, 2100)
    '100%, that is above 99.9% with 95% confidence,'
    """
    if accuracy == 1:  # a standard error of 0 would claim too much: give the bound of the rule of three
        return f"100%, that is above {1 - 3 / rows:.1%} with 95% confidence,"
    return f"{accuracy:.2%} ± {standard_error(accuracy, rows):.2%} (1 standard error)"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if needed.

    >>> counted(1, "mistake"), counted(1234, "mistake")
    ('1 mistake', '1,234 mistakes')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Make probabilities more or less sure without changing their order.

    Args:
        probabilities: (N, 10).
        temperature: above 1, the probabilities become less sure; below 1, more sure.

    Returns:
        (N, 10) float64, 0–1; rows sum to 1.

    Source: Guo et al. 2017, arXiv 1706.04599.

    >>> import numpy as np
    >>> calibrate(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.667, 0.333]]
    """
    import numpy as np

    # Small probabilities are raised, because 0 has no logarithm.
    scaled = np.log(np.maximum(probabilities, 1e-12, dtype=np.float64)) / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return the temperature, from 0.1 to 10, that makes the true digits likeliest.

    If no digit was misread, the best fit is the lowest temperature. Other digits may still be misread, so the result is
    then 1.

    Args:
        probabilities: (N, 10), for rows that were not trained on.
        digits: (N,) integers, 0–9, the truth.

    Source: Guo et al. 2017, arXiv 1706.04599.
    """
    if (probabilities.argmax(axis=1) == digits).all():
        return 1.0
    import numpy as np
    from scipy.optimize import minimize_scalar

    def surprise(logarithm: float) -> float:
        given = calibrate(probabilities, float(np.exp(logarithm)))[np.arange(len(digits)), digits]
        return -float(np.log(np.maximum(given, 1e-12)).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(np.log(0.1), np.log(10)), method="bounded").x))
