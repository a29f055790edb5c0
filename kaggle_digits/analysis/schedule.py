"""The learning rate at every step of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kaggle_digits.models import TUNING_FRACTION, epoch_rate
from kaggle_digits.recipe import Network, OneCycle


def learning_rates(recipe: Network, rows: int, accuracies: Sequence[float]) -> np.ndarray:
    """Return the learning rate at every step of a finished training.

    Args:
        recipe: what was trained.
        rows: how many rows were given to it. Some are set apart if the training depends on an accuracy, and drawn ones
            may be added.
        accuracies: those on the tuning rows after each epoch. Without a plateau, only their number matters.

    Returns:
        (S,) float64.
    """
    if recipe.tunes:
        rows -= math.ceil(TUNING_FRACTION * rows)
    recipe = recipe.for_rows(rows)
    steps = math.ceil((rows + round(recipe.drawn * rows)) / recipe.batch_size)
    if isinstance(rate := recipe.learning_rate, OneCycle):  # computed here, because Keras' schedule starts a device
        total = steps * recipe.epochs
        warmup = math.ceil(rate.warmup * total)
        taken = np.arange(steps * len(accuracies))
        rising = rate.start + (1 - rate.start) * taken / max(1, warmup)
        falling = np.minimum(1, np.maximum(0, taken - warmup) / max(1, total - warmup))
        share = (1 - rate.end) * (1 + np.cos(np.pi * falling)) / 2 + rate.end
        return rate.peak * np.where(taken < warmup, rising, share)
    return np.repeat([epoch_rate(recipe, accuracies[:epoch]) for epoch in range(len(accuracies))], steps)
