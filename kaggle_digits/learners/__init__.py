"""Learners turn a recipe and rows into a trained predictor.

A learner is a module with the three functions of ``Learner``. There is one for each kind of recipe: ``network``,
``classical`` and ``ensemble``. A new kind needs a subclass of ``Recipe``, such a module, and a line in ``LEARNERS``.
The other modules here help these three.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from kaggle_digits.recipe import Classical, Ensemble, Network, Recipe

if TYPE_CHECKING:
    from kaggle_digits.data import TrainingRows
    from kaggle_digits.runs import Run
    from kaggle_digits.strategy import Device


class Predictor(Protocol):
    """The trained form of a recipe, bound to its recipe and its device."""

    @property
    def parameters(self) -> int | None:
        """How many numbers were learned, or None for a method without such a number."""

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Predict the probability of every digit for every row.

        Args:
            pixels: (N, 784) uint8 or float32, 0–255.

        Returns:
            (N, 10) float32 or float64; rows sum to 1.
        """

    def save(self, folder: Path) -> None:
        """Write the trained form into a run folder."""


class Progress(Protocol):
    """Receives reports while a training runs."""

    def step(self, done: int, total: int) -> None:
        """Report that ``done`` of the ``total`` optimizer steps of the whole training are taken."""

    def epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        """Report that an epoch is done and saved. ``metrics`` are those of run.json, ``epochs`` the final number."""


@dataclass(frozen=True)
class _Part:
    """Passes the progress of one of several trainings on as progress of the whole.

    Args:
        whole: receives it.
        before: the weight of the trainings that come before.
        weight: of this training.
        total: of all.
    """

    whole: Progress
    before: int
    weight: int
    total: int

    def step(self, done: int, total: int) -> None:
        self.whole.step(self.before * total + self.weight * done, self.total * total)

    def epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        self.whole.epoch(metrics, epochs)


def part_of(progress: Progress | None, number: int, parts: int | Sequence[int]) -> Progress | None:
    """Return what receives the progress of one of several trainings.

    Args:
        progress: receives that of the whole; None for nobody.
        number: of the training, counted from 0.
        parts: how many trainings there are, or the weight of each.
    """
    if progress is None:
        return None
    weights = [1] * parts if isinstance(parts, int) else parts
    return _Part(progress, sum(weights[:number]), weights[number], sum(weights))


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that a learner needs to train.

    Args:
        recipe: what to train.
        rows: the rows to train on.
        held_out: rows to measure accuracy on, or None. They are never trained on and decide on nothing.
        folder: the run folder, for checkpoints.
        seed: the seed for everything random.
        device: where to train.
        members: the finished runs of the recipe's members, with their predictors.
        trace: whether to measure a network also during its first epoch, where most is learned, and to keep the loss of
            every step. The time that this takes is not counted.
        progress: receives every step and epoch of a network.
    """

    recipe: Recipe
    rows: TrainingRows
    held_out: TrainingRows | None = None
    folder: Path
    seed: int
    device: Device
    members: Sequence[Run] = ()
    trace: bool = False
    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The result of a training.

    Args:
        predictor: the trained form.
        epochs: the metrics of every epoch, as run.json keeps them; one entry for a method without epochs.
        probabilities: (N, 10), for the held-out rows; None if there are none.
    """

    predictor: Predictor
    epochs: list[dict[str, Any]]
    probabilities: np.ndarray | None = None


class Learner(Protocol):
    """Trains and loads the recipes of one kind."""

    def check(self, recipe: Any) -> None:
        """Check a recipe that may come from anyone, before anything is trained.

        Raises:
            FieldError: it cannot be trained. For a layer, the name is layers.N, counted from 0.
        """

    def fit(self, training: Training) -> Fitted:
        """Train a recipe.

        Raises:
            DataError: it cannot learn from these rows.
            RunError: the checkpoint in the run folder is damaged.
            TrainingError: the training failed.
        """

    def load(self, run: Run, device: Device, members: Sequence[Predictor]) -> Predictor:
        """Load the trained form from a run folder. The files in it may come from anyone.

        Raises:
            RunError: it cannot be loaded.
        """


LEARNERS: dict[type[Recipe], str] = {
    Network: "kaggle_digits.learners.network",
    Classical: "kaggle_digits.learners.classical",
    Ensemble: "kaggle_digits.learners.ensemble",
}
"""The module of each kind's learner. It is imported only when needed: Keras and scikit-learn take seconds to import."""


def learner_of(recipe: Recipe) -> Learner:
    """Return the learner of a recipe. Only this function asks what kind a recipe is."""
    return cast(Learner, importlib.import_module(LEARNERS[type(recipe)]))
