"""The main job: from data, through training, validation and prediction, to a checked submission file.

``python -m kaggle_digits.submit`` is ``kaggle-digits submit``.
"""

from __future__ import annotations

import runpy
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_digits.data import (
    SAMPLE,
    Rows,
    Source,
    Split,
    TrainingRows,
    find_source,
    load_test_rows,
    load_train,
    why_not_uploadable,
)
from kaggle_digits.digits import CLASSES, accuracy, standard_error
from kaggle_digits.errors import InputError
from kaggle_digits.files import numbered_names, suffix_of
from kaggle_digits.kaggle.records import (
    SUBMISSIONS,
    check_out,
    free_name,
    is_used,
    marked_name,
    read_record,
    write_checked,
)
from kaggle_digits.learners import Context, Progress, part_of
from kaggle_digits.recipe import Recipe
from kaggle_digits.recipes import DEFAULT_RECIPE, find_recipe
from kaggle_digits.run import RowCounts, Run, mark_used, member_folder, member_seed, read_run
from kaggle_digits.strategy import Device, device_of
from kaggle_digits.submission import read_submission
from kaggle_digits.train import describe_run, train_run

RUNS = Path("runs")


@dataclass(frozen=True)
class Plan:
    """The plan for ``make_submission``.

    Args:
        recipe: what to train.
        source: where the data comes from.
        rows: all labelled rows.
        training, held_out: the two parts of ``rows``. With folds, both are all rows, because each row is held out once.
        test: the rows to predict. Their labels, if any, are used only to report the accuracy.
        device: where to train.
        seed: the seed for everything random.
        out: the submission file to write.
        overwrite: whether ``out`` may replace a file.
        folds: the number of folds. A network is trained without each fold, and all are averaged. None trains once.
        seconds: the time spent on the plan, by phase.
        done: the runs of this job, if it is finished and ``out`` is its file; else none.
    """

    recipe: Recipe
    source: Source
    rows: TrainingRows
    training: TrainingRows
    held_out: TrainingRows
    test: Rows
    device: Device
    seed: int
    out: Path
    overwrite: bool
    folds: int | None
    seconds: dict[str, float]
    done: tuple[Run, ...] = ()

    @property
    def not_for_upload(self) -> str | None:
        """Why the file cannot be uploaded to the competition, or None."""
        return why_not_uploadable(self.source, self.test)

    @property
    def test_checksum(self) -> int:
        """CRC-32 of the pixels to predict."""
        return zlib.crc32(np.ascontiguousarray(self.test.pixels).data)

    @property
    def split(self) -> Split:
        """How the rows are divided, unless there are folds."""
        return Split(fraction=self.recipe.validation_fraction, seed=self.seed)

    def context(self, progress: Progress | None = None, *, split: Split | None = None) -> Context:
        """Return the settings that all trainings of this job share."""
        return Context(self.device, self.seed, self.source.name_for(RUNS), split, progress)


@dataclass(frozen=True)
class Result:
    """The result of ``make_submission``.

    Args:
        plan: its plan.
        runs: the runs whose predictions were averaged.
        measured: the run on fewer rows that was measured in place of a run on all rows; or None.
        accuracy: correct / seen on the held-out rows, of a training that never saw them. With folds, these are all
            labelled rows.
        standard_error: the binomial standard error of that accuracy.
        test_accuracy: correct / seen on the test rows, if they have labels.
        label_counts: how often each digit from 0 to 9 was predicted.
        seconds: the time spent, by phase.
    """

    plan: Plan
    runs: list[Run]
    measured: Run | None
    accuracy: float
    standard_error: float
    test_accuracy: float | None
    label_counts: list[int]
    seconds: dict[str, float]


def plan_submission(
    recipe: str | Recipe = DEFAULT_RECIPE,
    *,
    data: str | None = None,
    out: Path | None = None,
    device: str = "auto",
    backend: str | None = None,
    seed: int = 0,
    folds: int | None = None,
    overwrite: bool = False,
) -> Plan:
    """Load the data, find the device and choose all names, without writing anything.

    Args:
        recipe: a recipe, the name of a built-in one, or a file of your own, see ``recipes.find_recipe``.
        data: where the data is, see ``data.find_source``.
        out: the file to write. None takes a new name in ``submissions/``, unless this job is done already. If the file
            is made from the built-in sample, its name contains "sample".
        device: "auto", "tpu", "gpu" or "cpu".
        backend: "tensorflow", "jax", or None to choose, see ``devices.choose_backend``.
        seed: the seed for the split, the weights, the order of rows and their augmentation.
        folds: see ``Plan``.
        overwrite: whether ``out`` may replace a file, and whether a finished job is repeated.

    Raises:
        InputError: the recipe, the data, the device or the file name cannot be used.
    """
    seconds: dict[str, float] = {}
    recipe = find_recipe(recipe, backend=backend) if isinstance(recipe, str) else recipe
    with _timed(seconds, "load"):
        source = find_source(data)
        stem = f"{recipe.name}-seed{seed}" + (f"-{folds}folds" if folds else "")
        first = marked_name(out or Path(SUBMISSIONS) / f"{stem}.csv", from_sample=source.is_sample)
        is_new = overwrite or not first.exists()
        made_before = [] if is_new else _repeats().made_before(first, numbered=out is None)
        out = first if out else free_name(first, may_take=_is_begun)
        if out not in made_before:
            check_out(out, overwrite=overwrite or _is_begun(out))
    with _timed(seconds, "start"):
        place = device_of(recipe, device, backend=backend)  # before tables are read, see ``devices.import_backend``
    with _timed(seconds, "load"):
        rows = load_train(source)
        test = load_test_rows(source)
        split = Split(fraction=recipe.validation_fraction, seed=seed)
        training, held_out = (rows, rows) if folds else split.of(rows)
    plan = Plan(recipe, source, rows, training, held_out, test, place, seed, out, overwrite, folds, seconds)
    wanted = list(_wanted_runs(plan, RUNS)) if made_before else []
    for file in made_before:
        if done := _repeats().find_done(file, wanted, plan.test_checksum):
            return replace(plan, out=file, done=tuple(done))
    if out in made_before:
        check_out(out)
    return plan


def make_submission(plan: Plan, *, progress: Progress | None = None) -> Result:
    """Train, validate, predict, write and check a submission, unless the plan is done already.

    If it is stopped, repeat it with the same settings, and it continues. The run folders under ``runs/`` keep every
    whole epoch until the submission is written.

    Args:
        plan: as ``plan_submission`` returns it.
        progress: receives every step and epoch.

    Raises:
        DigitsError: the training failed or a file cannot be written.
    """
    if plan.done:
        return _result_of_done(plan)
    seconds = dict(plan.seconds)
    again = plan.recipe.retrain and not plan.folds
    name, measured = _run_name(plan.out), None
    with _timed(seconds, "train"):
        if plan.folds:
            runs = _train_folds(plan, progress)
        else:
            context = plan.context(part_of(progress, 0, 2 if again else 1), split=plan.split)
            runs = [_train(plan, RUNS / name, context, plan.training, plan.held_out)]
    of_run = [run.rows.held_out for run in runs]
    held_out_accuracy = float(np.average([run.accuracy or 0.0 for run in runs], weights=of_run))
    if again:
        (measured,) = runs
        with _timed(seconds, "retrain"):
            runs = [_train(plan, RUNS / f"{name}-all-rows", plan.context(part_of(progress, 1, 2)), plan.rows, None)]
    with _timed(seconds, "predict"):
        probabilities = [run.predict(plan.test.pixels) for run in runs]
    with _timed(seconds, "write"):
        # The run folders name the file first. They identify a job that is stopped before the record exists.
        marked = mark_used([measured, *runs] if measured else runs, plan.out)
        runs = marked[-len(runs) :]
        counts = write_checked(
            plan.out,
            probabilities,
            runs,
            measured=measured,
            overwrite=plan.overwrite,
            not_for_upload=plan.not_for_upload,
            test_checksum=plan.test_checksum,
        )
    return Result(
        plan=plan,
        runs=runs,
        measured=marked[0] if measured else None,
        accuracy=held_out_accuracy,
        standard_error=standard_error(held_out_accuracy, len(plan.held_out)),
        test_accuracy=None if plan.test.digits is None else accuracy(np.mean(probabilities, axis=0), plan.test.digits),
        label_counts=counts,
        seconds=seconds,
    )


def _repeats() -> Any:
    """Return the module about jobs that were done or begun before. Most jobs do not need it."""
    return import_module("kaggle_digits.kaggle.repeats")


def _is_begun(out: Path) -> bool:
    return out.exists() and _repeats().is_begun(out, RUNS)


def _train(plan: Plan, folder: Path, context: Context, rows: TrainingRows, held_out: TrainingRows | None) -> Run:
    return train_run(plan.recipe, rows, folder, held_out=held_out, context=context, is_spent=is_used)


def _run_name(out: Path) -> str:
    return out.name.removesuffix(suffix_of(out))


def _train_folds(plan: Plan, progress: Progress | None) -> list[Run]:
    """Train a network for each fold, in the first folder of NAME, NAME-2 and so on that is free or holds this job."""
    validate = import_module("kaggle_digits.analysis.validate")
    folders = numbered_names(RUNS / _run_name(plan.out))
    holds_folds = _repeats().holds_folds
    folder = next(each for each in folders if not each.exists() or holds_folds(list(_wanted_runs(plan, each))))
    pieces = validate.fold_pieces(plan.recipe, folder, plan.folds, context=plan.context())
    engine = validate.Engine(progress=progress)
    return list(validate.finished(engine.train(pieces, plan.rows, keep=True)))


def _wanted_runs(plan: Plan, folder: Path) -> Iterator[Run]:
    """Yield the runs that will predict, before training: one, or one for each fold in its own folder."""
    wanted = describe_run(plan.recipe, folder, plan.context())
    if not plan.folds:
        parts = (plan.rows, None) if plan.recipe.retrain else (plan.training, plan.held_out)
        yield replace(wanted, rows=RowCounts.of(*parts))
        return
    for fold in range(plan.folds):
        split = Split(seed=plan.seed, folds=plan.folds, fold=fold)
        yield replace(
            wanted,
            folder=member_folder(folder, fold + 1, plan.folds),
            seed=member_seed(plan.seed, fold + 1, plan.folds),
            rows=RowCounts.of(*split.of(plan.rows)),
        )


def check_uploadable(plan: Plan) -> None:
    """Check that the result of a plan can be uploaded to the competition.

    Raises:
        InputError: it is made from the built-in sample, or from rows that are not the competition's.
    """
    if plan.source.is_sample:
        raise InputError(
            f"--upload: there is no competition data but the built-in {SAMPLE}. Expected predictions for the "
            "competition's test rows. Fetch the data with `kaggle-digits download`, or name it with --data."
        )
    if plan.not_for_upload:
        raise InputError(
            f"--upload: {plan.source} is not the competition's data: {plan.not_for_upload}. Expected predictions "
            "for the competition's test.csv. Name its data with --data, or leave --upload out."
        )


def _result_of_done(plan: Plan) -> Result:
    """Return the result of a finished job, from its file and its record."""
    entries = read_record(plan.out)["runs"]
    digits = np.array(read_submission(plan.out).digits)
    of_entry = [entry["held_out_rows"] for entry in entries]
    mean = float(np.average([entry["held_out_accuracy"] for entry in entries], weights=of_entry))
    return Result(
        plan=plan,
        runs=list(plan.done),
        measured=read_run(Path(entries[0]["measured_by"])) if "measured_by" in entries[0] else None,
        accuracy=mean,
        standard_error=standard_error(mean, len(plan.held_out)),
        test_accuracy=None if plan.test.digits is None else float((digits == plan.test.digits).mean()),
        label_counts=np.bincount(digits, minlength=CLASSES).tolist(),
        seconds=plan.seconds,
    )


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - started


if __name__ == "__main__":
    sys.argv.insert(1, "submit")
    runpy.run_module("kaggle_digits", run_name="__main__")
