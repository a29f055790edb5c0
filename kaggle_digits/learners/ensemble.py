"""Average the members of an ensemble."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_digits.digits import accuracy
from kaggle_digits.learners import Fitted, Training
from kaggle_digits.learners.images import SURE
from kaggle_digits.recipe import Recipe
from kaggle_digits.run import Predictor

if TYPE_CHECKING:
    from kaggle_digits.run import Run
    from kaggle_digits.strategy import Device


@dataclass(frozen=True)
class EnsemblePredictor:
    """Averages its members' probabilities.

    Args:
        networks: these are asked about every image.
        others: these are asked only about images that the networks are unsure of.
    """

    networks: Sequence[Predictor]
    others: Sequence[Predictor]

    @property
    def parameters(self) -> int:
        """The sum over the networks. The rows that a classical method keeps do not count as parameters."""
        return sum(network.parameters or 0 for network in self.networks)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Predict the probability of every digit, (N, 10), for every row of pixels (N, 784)."""
        return self.average([network.probabilities(pixels) for network in self.networks], pixels)

    def average(self, read: Sequence[np.ndarray], pixels: np.ndarray) -> np.ndarray:
        """Average the probabilities of the networks, and of the others where the networks are unsure.

        Args:
            read: the probabilities (N, 10) of each network.
            pixels: (N, 784), for the others.

        Returns:
            (N, 10); rows sum to 1.
        """
        probabilities = np.mean(read, axis=0)
        unsure = np.flatnonzero(probabilities.max(axis=1) < SURE)
        if self.others and unsure.size:
            again = [own[unsure] for own in read] + [other.probabilities(pixels[unsure]) for other in self.others]
            probabilities[unsure] = np.mean(again, axis=0)
        return probabilities

    def save(self, folder: Path) -> None:
        """Write nothing: each member has a run folder of its own."""


def _of_members(recipes: Sequence[Any], predictors: Sequence[Predictor]) -> EnsemblePredictor:
    pairs = list(zip(recipes, predictors, strict=True))
    return EnsemblePredictor(
        [predictor for recipe, predictor in pairs if recipe.networks],
        [predictor for recipe, predictor in pairs if not recipe.networks],
    )


def check(recipe: Recipe) -> None:
    """Check nothing: its members are checked one by one."""


def fit(training: Training) -> Fitted:
    """Combine the finished members, and average their probabilities of the held-out rows.

    The networks' probabilities of these rows are already in their run folders.
    """
    members, held_out = training.members, training.held_out
    predictor = _of_members(training.recipe.members, [run.predictor for run in members if run.predictor])
    metrics: dict[str, Any] = {"epoch": 1, "seconds": round(sum(run.seconds for run in members), 3)}
    probabilities = None
    if held_out:
        networks = [run for run in members if run.recipe.networks]
        started = time.perf_counter()
        probabilities = predictor.average([run.probabilities for run in networks], held_out.pixels)
        metrics["validation_accuracy"] = accuracy(probabilities, held_out.digits)
        seconds = sum(run.validation_seconds for run in networks)
        metrics["validation_seconds"] = round(seconds + time.perf_counter() - started, 3)
    return Fitted(predictor=predictor, epochs=[metrics], probabilities=probabilities)


def load(run: Run, device: Device, members: Sequence[Predictor]) -> Predictor:  # noqa: ARG001
    """Combine members that were loaded from their own run folders."""
    return _of_members(run.recipe.members, members)
