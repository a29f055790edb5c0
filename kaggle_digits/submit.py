"""The main job: data → training → validation → prediction → a checked submission file.

Run it as ``python -m kaggle_digits.submit``, which is ``kaggle-digits submit``, or call ``submit``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaggle_digits import data as kaggle_data
from kaggle_digits.config import DEFAULT_RECIPE, SAMPLE, Recipe, numbered_names
from kaggle_digits.predict import predict_digits, predict_probabilities
from kaggle_digits.recipes import find_recipe
from kaggle_digits.records import SUBMISSIONS, check_record_free, free_name, write_record
from kaggle_digits.runs import Run, can_resume, mark_submitted
from kaggle_digits.strategy import Device, device_of
from kaggle_digits.submission import check_free, check_submission, write_submission
from kaggle_digits.train import train_run

if TYPE_CHECKING:
    from kaggle_digits.fit import Progress

log = logging.getLogger(__name__)

RUNS = Path("runs")


@dataclass(frozen=True)
class Plan:
    """What ``submit`` is about to do.

    Args:
        recipe: what to train.
        source: the name of the data's source.
        rows: all labelled rows.
        training, held_out: the two parts of ``rows``.
        test_pixels: (M, 784) uint8, the rows to predict.
        device: where to train.
        seed: of everything random.
        out: the submission file to write.
        overwrite: whether ``out`` may replace a file.
        seconds: spent on making the plan, by phase.
    """

    recipe: Recipe
    source: kaggle_data.Source
    rows: kaggle_data.TrainingRows
    training: kaggle_data.TrainingRows
    held_out: kaggle_data.TrainingRows
    test_pixels: Any
    device: Device
    seed: int
    out: Path
    overwrite: bool
    seconds: dict[str, float]


@dataclass(frozen=True)
class Result:
    """What ``submit`` did.

    Args:
        plan: what was to do.
        run: the run folder whose network predicted.
        accuracy: correct / seen on the held-out rows, of the network that never saw them.
        standard_error: of that accuracy, binomial.
        label_counts: how often each digit from 0 to 9 was predicted.
        seconds: spent, by phase.
    """

    plan: Plan
    run: Run
    accuracy: float
    standard_error: float
    label_counts: list[int]
    seconds: dict[str, float]


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
        recipe: a name of ``recipes.RECIPES``.
        out: the file to write; None for a new name under ``submissions/``. Made from the built-in sample, the file
            gets "sample" into its name.
        device: "auto", "tpu", "gpu" or "cpu".
        backend: "tensorflow", "jax", or None to choose, see ``backend.choose_backend``.
        seed: of split, weights, order and augmentation.
        epochs: instead of the recipe's own.
        overwrite: whether ``out`` may replace a file.

    Raises:
        InputError: the recipe, the data, the device or the file name cannot be used.
    """
    seconds: dict[str, float] = {}
    chosen = find_recipe(recipe, epochs=epochs)
    with _timed(seconds, "load"):
        source = kaggle_data.find_source(data)
        out = submission_name(out, stem=f"{chosen.name}-seed{seed}", from_sample=source.is_sample)
        check_free(out, overwrite=overwrite)
        check_record_free(out, overwrite=overwrite)
        rows = kaggle_data.load_train(source)
        test_pixels = kaggle_data.load_test(source)
        training, held_out = kaggle_data.split_rows(rows, fraction=chosen.validation_fraction, seed=seed)
    with _timed(seconds, "start"):
        place = device_of(chosen, device, backend=backend)
    return Plan(chosen, source, rows, training, held_out, test_pixels, place, seed, out, overwrite, seconds)


def submit(plan: Plan, *, progress: Progress | None = None) -> Result:
    """Train, validate, predict, write and check a submission.

    An interrupted call continues when it is repeated with the same settings: the run folders under ``runs/`` keep
    every whole epoch until the submission is written.

    Args:
        plan: of ``plan_submission``.
        progress: is told of every step and epoch.

    Raises:
        DigitsError: training failed or a file cannot be written.
    """

    def train(name: str, rows: kaggle_data.TrainingRows, held_out: kaggle_data.TrainingRows | None) -> Run:
        def resumable(folder: Path) -> bool:
            return can_resume(folder, plan.recipe, rows, seed=plan.seed, held_out=held_out)

        # The first folder that is free, or that an interrupted call with the same settings left.
        folder = next(f for f in numbered_names(RUNS / name) if not f.exists() or resumable(f))
        resume = folder.exists()
        if resume:
            log.info("Continuing the interrupted job with the training in %s", folder)
        return train_run(
            plan.recipe,
            rows,
            folder,
            seed=plan.seed,
            device=plan.device,
            source=plan.source.name,
            held_out=held_out,
            resume=resume,
            progress=progress,
        )

    seconds = dict(plan.seconds)
    with _timed(seconds, "train"):
        validated = run = train(plan.out.stem, plan.training, plan.held_out)
    if plan.recipe.retrain:
        with _timed(seconds, "retrain"):
            run = train(f"{plan.out.stem}-all-rows", plan.rows, None)
    with _timed(seconds, "predict"):
        probabilities = predict_probabilities(run.model, plan.recipe, plan.test_pixels, device=plan.device)
    with _timed(seconds, "write"):
        write_submission(plan.out, predict_digits([probabilities]), overwrite=plan.overwrite)
        counts = check_submission(plan.out, rows=len(plan.test_pixels))
        write_record(plan.out, [validated.record])
        mark_submitted(run, plan.out)
        if plan.recipe.retrain:
            mark_submitted(validated, plan.out)
    correct = validated.record["epochs"][-1]["validation_accuracy"]
    error = math.sqrt(correct * (1 - correct) / len(plan.held_out))
    return Result(plan, run, correct, error, counts, seconds)


def submission_name(out: Path | None, *, stem: str, from_sample: bool) -> Path:
    """Return the file to write: the one asked for, or a new one; marked if it is made from the built-in sample.

    >>> submission_name(Path("mine.csv"), stem="fast-seed0", from_sample=True).name
    'sample-mine.csv'
    """
    named = out or Path(SUBMISSIONS) / f"{stem}.csv"
    if from_sample and named.name and not named.name.startswith(f"{SAMPLE}-"):
        named = named.with_name(f"{SAMPLE}-{named.name}")
    return named if out else free_name(named)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started


if __name__ == "__main__":
    import sys

    from kaggle_digits.cli import main

    raise SystemExit(main(["submit", *sys.argv[1:]]))
