"""The main job: from data, through training, validation and prediction, to a checked submission file."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kaggle_digits.calibration import accuracy, calibrate
from kaggle_digits.data import (
    SAMPLE,
    Source,
    TrainingRows,
    find_source,
    load_test_rows,
    load_train,
    split_rows,
    why_not_uploadable,
)
from kaggle_digits.errors import InputError, RunError
from kaggle_digits.files import numbered_names
from kaggle_digits.predict import PACKAGED_RUN, check_out, predict_runs, write_checked
from kaggle_digits.recipe import Recipe
from kaggle_digits.recipes import DEFAULT_RECIPE, find_recipe
from kaggle_digits.records import SUBMISSIONS, free_name, record_path
from kaggle_digits.runs import Run, mark_used, read_run, run_folders
from kaggle_digits.strategy import Device, device_of
from kaggle_digits.train import train_run

if TYPE_CHECKING:
    from kaggle_digits.learners import Progress

RUNS = Path("runs")
CERTAIN = 0.9
"""A digit that is read with a lower probability, after calibration, counts as unsure."""


@dataclass(frozen=True)
class Plan:
    """What ``make_submission`` is about to do.

    Args:
        recipe: what to train.
        source: where the data comes from.
        rows: all labelled rows.
        training, held_out: the two parts of ``rows``.
        test_pixels: (M, 784) uint8, the rows to predict.
        test_digits: (M,) int64, their labels; None if the file has none. They are used for one figure, the accuracy.
        not_for_upload: why the file cannot be uploaded to the competition, or None.
        device: where to train.
        seed: of everything random.
        out: the submission file to write.
        overwrite: whether ``out`` may replace a file.
        seconds: spent on making the plan, by phase.
    """

    recipe: Recipe
    source: Source
    rows: TrainingRows
    training: TrainingRows
    held_out: TrainingRows
    test_pixels: np.ndarray
    test_digits: np.ndarray | None
    not_for_upload: str | None
    device: Device
    seed: int
    out: Path
    overwrite: bool
    seconds: dict[str, float]


@dataclass(frozen=True)
class Result:
    """What ``make_submission`` did.

    Args:
        plan: what was planned.
        run: the run that predicted.
        accuracy: correct / seen on the held-out rows, of a training that never saw them.
        standard_error: of that accuracy, binomial.
        test_accuracy: correct / seen on the test rows, if they have labels.
        label_counts: how often each digit from 0 to 9 was predicted.
        seconds: spent, by phase.
    """

    plan: Plan
    run: Run
    accuracy: float
    standard_error: float
    test_accuracy: float | None
    label_counts: list[int]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Prediction:
    """What ``predict_submission`` did.

    Args:
        out: the file that was written.
        rows: how many rows it has.
        unsure: how many of them were read with less than 90 % certainty.
        accuracy: correct / seen, if the test rows have labels.
    """

    out: Path
    rows: int
    unsure: int
    accuracy: float | None


def plan_submission(
    *,
    data: str | None = None,
    recipe: str = DEFAULT_RECIPE,
    out: Path | None = None,
    device: str = "auto",
    backend: str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    overwrite: bool = False,
) -> Plan:
    """Load the data, find the device and settle every name, without writing anything.

    Args:
        data: where the data lies, see ``data.find_source``.
        recipe: a name in ``recipes.RECIPES``, or a file of your own, see ``recipes.find_recipe``.
        out: the file to write. None takes a new name in ``submissions/``. A file that is made from the built-in sample
            gets "sample" into its name.
        device: "auto", "tpu", "gpu" or "cpu".
        backend: "tensorflow", "jax", or None to choose, see ``backend.choose_backend``.
        seed: of the split, the weights, the order of rows and their augmentation.
        epochs: instead of the recipe's own number.
        overwrite: whether ``out`` may replace a file.

    Raises:
        InputError: the recipe, the data, the device or the file name cannot be used.
    """
    seconds: dict[str, float] = {}
    chosen = find_recipe(recipe, epochs=epochs, backend=backend)
    with _timed(seconds, "load"):
        source = find_source(data)
        out = submission_name(out, stem=f"{chosen.name}-seed{seed}", from_sample=source.is_sample)
        check_out(out, overwrite=overwrite or _is_begun(out))
        rows = load_train(source)
        test = load_test_rows(source)
        training, held_out = split_rows(rows, fraction=chosen.validation_fraction, seed=seed)
    with _timed(seconds, "start"):
        place = device_of(chosen, device, backend=backend)
    return Plan(
        recipe=chosen,
        source=source,
        rows=rows,
        training=training,
        held_out=held_out,
        test_pixels=test.pixels,
        test_digits=test.digits,
        not_for_upload=why_not_uploadable(source, test),
        device=place,
        seed=seed,
        out=out,
        overwrite=overwrite,
        seconds=seconds,
    )


def make_submission(plan: Plan, *, progress: Progress | None = None) -> Result:
    """Train, validate, predict, write and check a submission.

    If it is stopped, repeat it with the same settings and it goes on: the run folders under ``runs/`` keep every whole
    epoch until the submission is written.

    Args:
        plan: of ``plan_submission``.
        progress: is told of every step and epoch.

    Raises:
        DigitsError: the training failed or a file cannot be written.
    """

    def train(name: str, rows: TrainingRows, held_out: TrainingRows | None) -> Run:
        return train_run(
            plan.recipe,
            rows,
            RUNS / name,
            held_out=held_out,
            seed=plan.seed,
            device=plan.device,
            source=plan.source.name,
            numbered=True,
            progress=progress,
        )

    seconds = dict(plan.seconds)
    with _timed(seconds, "train"):
        measured = run = train(plan.out.stem, plan.training, plan.held_out)
    if plan.recipe.retrain:
        with _timed(seconds, "retrain"):
            run = train(f"{plan.out.stem}-all-rows", plan.rows, None)
    with _timed(seconds, "predict"):
        probabilities = run.predict(plan.test_pixels)
    with _timed(seconds, "write"):
        # First the run folders name the file. A job that is stopped before the record exists is known by that.
        run = mark_used([measured, run] if plan.recipe.retrain else [run], plan.out)[-1]
        counts = write_checked(
            plan.out,
            [probabilities],
            [run],
            measured=measured if plan.recipe.retrain else None,
            overwrite=plan.overwrite,
            not_for_upload=plan.not_for_upload,
        )
    held_out_accuracy = measured.accuracy or 0.0
    return Result(
        plan=plan,
        run=run,
        accuracy=held_out_accuracy,
        standard_error=standard_error(held_out_accuracy, len(plan.held_out)),
        test_accuracy=None if plan.test_digits is None else accuracy(probabilities, plan.test_digits),
        label_counts=counts,
        seconds=seconds,
    )


def standard_error(accuracy: float, rows: int) -> float:
    """Return the binomial standard error of an accuracy that was measured on so many rows."""
    return math.sqrt(accuracy * (1 - accuracy) / rows)


def predict_submission(
    folders: list[Path], out: Path, *, data: str | None = None, backend: str | None = None, overwrite: bool = False
) -> Prediction:
    """Predict the test rows with trained runs, averaged, and write a checked submission.

    Args:
        folders: run folders, or folders of members; none for the network that comes with the package.
        out: the file to write. It gets "sample" into its name if the built-in sample has a part in it.
        data: where the data lies, see ``data.find_source``.
        backend: what computes the networks, see ``backend.choose_backend``.
        overwrite: whether ``out`` may replace a file.

    Raises:
        InputError: the data, a run folder or the file name cannot be used.
    """
    source = find_source(data)
    runs = [read_run(folder) for named in folders or [PACKAGED_RUN] for folder in run_folders(named)]
    from_sample = source.is_sample or any(run.source == SAMPLE for run in runs)
    out = submission_name(out, stem="", from_sample=from_sample)
    check_out(out, overwrite=overwrite)
    test = load_test_rows(source, alone=True)
    probabilities = predict_runs(runs, test.pixels, backend=backend)
    not_for_upload = why_not_uploadable(source, test)
    write_checked(out, probabilities, runs, overwrite=overwrite, not_for_upload=not_for_upload)
    calibrated = [calibrate(one, run.temperature or 1.0) for one, run in zip(probabilities, runs, strict=True)]
    averaged = np.mean(calibrated, axis=0)
    return Prediction(
        out=out,
        rows=len(test.pixels),
        unsure=int((averaged.max(axis=1) < CERTAIN).sum()),
        accuracy=None if test.digits is None else accuracy(np.mean(probabilities, axis=0), test.digits),
    )


def check_uploadable(plan: Plan) -> None:
    """Check that what a plan makes can be uploaded to the competition.

    Raises:
        InputError: it is made from the built-in sample, or from rows that are not the competition's.
    """
    if plan.not_for_upload and not plan.source.is_sample:
        raise InputError(
            f"--upload: {plan.source.name} is not the competition's data: {plan.not_for_upload}. Expected predictions "
            "for the competition's test.csv. Name its data with --data, or leave --upload out."
        )
    if plan.source.is_sample:
        raise InputError(
            f"--upload: there is no competition data but the built-in {SAMPLE}. Expected predictions for the "
            "competition's test rows. Fetch the data with `kaggle-digits download`, or name it with --data."
        )


def submission_name(out: Path | None, *, stem: str, from_sample: bool) -> Path:
    """Return the file to write: the one that was asked for, or a new one. It is marked if the sample has a part in it.

    >>> submission_name(Path("mine.csv"), stem="fast-seed0", from_sample=True).name
    'sample-mine.csv'
    """
    named = out or Path(SUBMISSIONS) / f"{stem}.csv"
    if from_sample and named.name and not named.name.startswith(f"{SAMPLE}-"):
        named = named.with_name(f"{SAMPLE}-{named.name}")
    return named if out else free_name(named, may_take=_is_begun)


def _is_begun(out: Path) -> bool:
    """Whether a job was stopped when it had written this file, and before it wrote the record."""
    if not out.is_file() or record_path(out).exists():
        return False
    for folder in itertools.takewhile(Path.exists, numbered_names(RUNS / out.stem)):
        with contextlib.suppress(RunError):
            if read_run(folder).submission == str(out):
                return True
    return False


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
