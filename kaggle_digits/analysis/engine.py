"""Train many pieces that do not depend on each other, one after another; ``cluster`` trains them on workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kaggle_digits.data import TrainingRows
from kaggle_digits.devices import free_memory
from kaggle_digits.errors import DeviceError
from kaggle_digits.learners import Context, Progress, part_of
from kaggle_digits.learners.resume import check_same
from kaggle_digits.recipe import Recipe
from kaggle_digits.run import RUN_FILE, RowCounts, Run, read_run
from kaggle_digits.strategy import Device, device_of
from kaggle_digits.train import check_recipe, train_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """One of many trainings.

    Args:
        recipe: what to train.
        folder: its run folder.
        context: where, and with which seed and rows. With workers, each finds its own device.
        is_traced: whether to measure a network while it is trained, see ``trace``.
    """

    recipe: Recipe
    folder: Path
    context: Context
    is_traced: bool = False

    def __str__(self) -> str:
        split = self.context.split
        if split and split.folds and split.fold is not None:
            return f"{self.recipe.name}: fold {split.fold + 1} of {split.folds}"
        return f"{self.recipe.name}, seed {self.context.seed}"

    def divide(self, rows: TrainingRows, held_out: TrainingRows | None) -> tuple[TrainingRows, TrainingRows | None]:
        """Return the rows to train on and those held out. Without a split, these are given."""
        return self.context.split.of(rows) if self.context.split else (rows, held_out)

    def train(self, rows: TrainingRows, held_out: TrainingRows | None, *, keep: bool = False) -> Run:
        """Train the run unless that is done already, and free the memory that it took."""
        rows, held_out = self.divide(rows, held_out)
        context, callbacks = self.context, []
        if self.is_traced and held_out and context.device:
            from kaggle_digits.analysis.trace import tracer  # with the backend that was chosen

            callbacks = [tracer(self.recipe, held_out, context.device)]
        options: dict[str, Any] = {"context": context, "resume": True, "callbacks": callbacks}
        run = train_run(self.recipe, rows, self.folder, held_out=held_out, **options)
        run = run if keep else replace(run, predictor=None)
        free_memory()
        return run

    def finished(self, rows: TrainingRows, held_out: TrainingRows | None) -> Run | None:
        """Return the run if it is finished.

        Raises:
            RunError: the folder holds another run.
        """
        if not (self.folder / RUN_FILE).exists():
            return None
        run, counts = read_run(self.folder), RowCounts.of(*self.divide(rows, held_out))
        check_same(run, replace(run, recipe=self.recipe, seed=self.context.seed, rows=counts))
        return run if run.finished else None


@dataclass(frozen=True)
class Engine:
    """Trains pieces in this process.

    Args:
        find_device: says where to train a recipe; None leaves that to the worker.
        progress: receives every step and epoch.
    """

    find_device: Callable[[Recipe], Device | None] = device_of
    progress: Progress | None = None

    @property
    def width(self) -> int:
        """How many pieces are trained at the same time."""
        return 1

    def find_devices(self, recipes: Sequence[Recipe]) -> list[Device | None]:
        """Find the device for each recipe, say which, and check that users' recipes can be trained.

        Raises:
            InputError: one of them cannot.
        """
        devices = [*map(self.find_device, recipes)]
        of_networks = [device for device in devices if device and device.backend != "scikit-learn"]
        for description in dict.fromkeys(str(device) for device in of_networks or devices if device):
            log.info("Device: %s", description)
        for recipe in recipes:
            check_recipe(recipe)
        return devices

    def train(
        self, pieces: Sequence[Piece], rows: TrainingRows, held_out: TrainingRows | None = None, *, keep: bool = False
    ) -> Iterator[Run | Exception]:
        """Train pieces unless that is done already, and yield their runs in the same order.

        Args:
            pieces: what to train.
            rows: all labelled rows; for pieces without a split, those to train on.
            held_out: rows to score those pieces on.
            keep: whether the runs will predict; else only their files are kept. Workers keep only files.

        Yields:
            a finished run, or the reason why it failed.

        Raises:
            DeviceError, OSError: the other pieces would fail as well.
        """
        for number, piece in enumerate(pieces):
            log.info("%s", piece)
            own = replace(piece.context, progress=part_of(self.progress, number, len(pieces)))
            try:
                run = replace(piece, context=own).train(rows, held_out, keep=keep)
            except (DeviceError, OSError):
                raise
            except Exception as error:
                yield error
            else:
                yield run
