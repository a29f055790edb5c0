"""A Keras callback that keeps the loss of every batch and measures the network during the first epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras

from kaggle_digits.data import TrainingRows
from kaggle_digits.digits import accuracy
from kaggle_digits.models import network_predictor
from kaggle_digits.recipe import Recipe
from kaggle_digits.strategy import Device


def tracer(recipe: Recipe, held_out: TrainingRows, device: Device) -> Tracer:
    """Return a callback that measures a network on held-out rows while it is trained."""
    (network,) = recipe.networks

    def measure(model: Any) -> float:
        predictor = network_predictor(model, network, device=device, averaging=False)
        return accuracy(predictor.probabilities(held_out.pixels), held_out.digits)

    return Tracer(measure)


class Tracer(keras.callbacks.Callback):
    """Keep the loss of every step, and measure the network after some steps of the first epoch, where most is learned.

    Both become a part of the epoch's metrics: "losses", and "curve", a list of steps, seconds and accuracies. The time
    for measuring does not count.

    Args:
        measure: returns the accuracy of a network, or None to measure nothing.
    """

    def __init__(self, measure: Callable[[keras.Model], float] | None = None) -> None:
        super().__init__()
        self.measure = measure

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Start anew."""
        self.losses: list[float] = []
        self.curve: list[tuple[int, float, float]] = []
        self.due = 10 if self.measure and epoch == 0 else 0
        self.summed_loss = self.measuring_seconds = 0.0
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keep the loss of a step, and measure the network if due."""
        summed = float(logs["loss"]) * (batch + 1)  # Keras reports the mean over the batches of the epoch so far
        self.losses.append(round(summed - self.summed_loss, 5))
        self.summed_loss = summed
        if self.measure and batch + 1 == self.due:
            self.due = math.ceil(self.due * 1.1)
            started = time.perf_counter()
            seconds = started - self.started - self.measuring_seconds
            self.curve.append((batch + 1, round(seconds, 3), self.measure(self.model)))
            self.measuring_seconds += time.perf_counter() - started

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Add to the metrics that ``train`` keeps. Keras also calls this, with metrics that have no seconds."""
        if "seconds" in logs:
            logs["seconds"] = round(logs["seconds"] - self.measuring_seconds, 3)
            logs |= {"losses": self.losses, "curve": self.curve}
