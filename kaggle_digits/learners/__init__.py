"""Learners turn a recipe and rows into a trained predictor, and load it again.

A learner is a module with the three functions of ``Learner``. There is one for each kind of recipe: ``train`` for
networks, and ``classical`` and ``ensemble`` here. A new kind needs a subclass of ``Recipe``, such a module, and a line
in ``LEARNERS``. The other modules here help these three.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from kaggle_digits.data import Split, TrainingRows
from kaggle_digits.errors import RunError
from kaggle_digits.recipe import Classical, Ensemble, Network, Recipe
from kaggle_digits.recipes import RECIPES
from kaggle_digits.run import MODEL_FILE, Predictor, Run, member_folders, read_run
from kaggle_digits.strategy import Device, device_of

PACKAGED_RUN = Path(__file__).parent / "packaged_run"
"""Run folder of the small network that comes with the package, for predicting without training."""


class Progress(Protocol):
    """Receives reports while a training runs."""

    def step(self, done: int, total: int) -> None:
        """Report that ``done`` of the ``total`` optimizer steps of the whole training are taken."""

    def epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        """Report that an epoch is done and saved. ``metrics`` are those of run.json, ``epochs`` the final number."""


@dataclass(frozen=True)
class _Part:
    """Reports the progress of one of several trainings as progress of the whole.

    Args:
        whole: receives the reports.
        before: the weight of the earlier trainings.
        weight: the weight of this training.
        total: the weight of all.
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
    """Return a receiver for the progress of one of several trainings.

    Args:
        progress: receives the progress of the whole; or None.
        number: the number of the training, counted from 0.
        parts: how many trainings there are, or the weight of each.
    """
    if progress is None:
        return None
    weights = [1] * parts if isinstance(parts, int) else parts
    return _Part(progress, sum(weights[:number]), weights[number], sum(weights))


@dataclass(frozen=True)
class Context:
    """The settings that several trainings of a job share.

    Args:
        device: where to train; None finds the best device for the recipe.
        seed: the seed for everything random.
        source: where the rows come from, for the record.
        split: how they were divided, for the record; None if that is not known.
        progress: receives every step and epoch of a network.
    """

    device: Device | None = None
    seed: int = 0
    source: str = "unknown"
    split: Split | None = None
    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that a learner needs to train.

    Args:
        recipe: what to train.
        rows: the rows to train on.
        held_out: rows to measure accuracy on, or None. They are never trained on, and no choice depends on them.
        folder: the run folder, for checkpoints.
        seed: the seed for everything random.
        device: where to train.
        members: the finished runs of the recipe's members, with their predictors.
        progress: receives every step and epoch of a network.
        callbacks: Keras callbacks for a network. Values that they add to the logs of an epoch are added to its metrics.
    """

    recipe: Recipe
    rows: TrainingRows
    held_out: TrainingRows | None = None
    folder: Path
    seed: int
    device: Device
    members: Sequence[Run] = ()
    progress: Progress | None = None
    callbacks: Sequence[Any] = ()


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
    Network: "kaggle_digits.train",
    Classical: "kaggle_digits.learners.classical",
    Ensemble: "kaggle_digits.learners.ensemble",
}


def learner_of(recipe: Recipe) -> Learner:
    """Return the learner of a recipe. Only this function looks at the kind of a recipe.

    Its module is imported only when it is needed: Keras and scikit-learn take seconds to import.
    """
    return cast(Learner, import_module(LEARNERS[type(recipe)]))


def load_run(folder: str | Path, device: Device | None = None) -> Run:
    """Load a finished run and its predictor.

    Args:
        folder: the run folder. The files in it may come from anyone.
        device: where to predict; None finds the best device for the recipe.

    Raises:
        RunError: it is not a run folder, is not finished, or a file in it cannot be loaded.
    """
    run = read_finished(folder)
    device = device or device_of(run.recipe)
    members = [load_run(member, device) for member in member_folders(run.folder, len(run.recipe.members))]
    predictors = [member.predictor for member in members if member.predictor]
    run.verify(MODEL_FILE)
    return replace(run, predictor=learner_of(run.recipe).load(run, device, predictors))


def read_finished(folder: str | Path) -> Run:
    """Read the description of a finished run.

    Raises:
        RunError: it is not a run folder, or its training is not finished.
    """
    run = read_run(Path(folder))
    if not run.finished:
        raise _unfinished(run)
    return run


def _unfinished(run: Run) -> RunError:
    recipe, folder = run.recipe, run.folder
    usual = RECIPES.get(recipe.name)
    lengths = [[(net.epochs, net.least_steps) for net in each.networks] for each in (recipe, usual) if each]
    epochs = f" --epochs {lengths[0][0][0]}" if usual and lengths[0] != lengths[1] else ""
    start = f"{folder}: its training is not finished. Expected a finished run. Continue it"
    if not usual and not recipe.source.endswith((".toml", ".py")):  # no command can make such a recipe again
        return RunError(f'{start} where it was started, with train_run(recipe, rows, "{folder}", resume=True).')
    if not usual and len({(net.epochs, net.least_steps) for net in recipe.networks}) == 1:
        epochs = f" --epochs {recipe.networks[0].epochs}" if not recipe.networks[0].least_steps else ""
    name = recipe.name if usual else shlex.quote(recipe.source)
    return RunError(f"{start}: kaggle-digits train --recipe {name} --run {shlex.quote(str(folder))} --resume{epochs}")
