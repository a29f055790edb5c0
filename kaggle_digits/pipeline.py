"""The main job: from data, through training, validation and prediction, to a checked submission file."""

from __future__ import annotations

import contextlib
import itertools
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kaggle_digits import CLASSES
from kaggle_digits.calibration import accuracy, calibrate, standard_error
from kaggle_digits.data import (
    SAMPLE,
    Source,
    TrainingRows,
    find_source,
    fold_rows,
    hold_out_fold,
    load_test_rows,
    load_train,
    split_rows,
    why_not_uploadable,
)
from kaggle_digits.errors import DigitsError, InputError, RunError
from kaggle_digits.files import numbered_names, suffix_of
from kaggle_digits.learners import part_of
from kaggle_digits.predict import PACKAGED_RUN, check_out, predict_runs, temperature_of, write_checked
from kaggle_digits.recipe import Recipe
from kaggle_digits.recipes import DEFAULT_RECIPE, find_recipe
from kaggle_digits.records import SUBMISSIONS, free_name, read_record, record_path
from kaggle_digits.runs import (
    VALIDATION_FILE,
    RowCounts,
    Run,
    find_difference,
    mark_used,
    member_folder,
    member_seed,
    read_run,
    run_folders,
)
from kaggle_digits.strategy import Device, device_of
from kaggle_digits.submission import read_submission
from kaggle_digits.train import describe_run, train_run
from kaggle_digits.validate import cross_validate

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
        training, held_out: the two parts of ``rows``. With folds, both are all rows: each is in either part once.
        test_pixels: (M, 784) uint8, the rows to predict.
        test_digits: (M,) int64, their labels; None if the file has none. They are used for one figure, the accuracy.
        not_for_upload: why the file cannot be uploaded to the competition, or None.
        device: where to train.
        seed: of everything random.
        out: the submission file to write.
        overwrite: whether ``out`` may replace a file.
        folds: train on all folds but one, for each of so many folds, and average; None trains once.
        seconds: spent on making the plan, by phase.
        done: the runs of this very job, if it is finished and ``out`` is its file; else none.
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
    folds: int | None
    seconds: dict[str, float]
    done: tuple[Run, ...] = ()

    @property
    def test_checksum(self) -> int:
        """CRC-32 of the pixels to predict."""
        return zlib.crc32(np.ascontiguousarray(self.test_pixels).data)


@dataclass(frozen=True)
class Result:
    """What ``make_submission`` did.

    Args:
        plan: what was planned.
        runs: the runs that predicted, averaged.
        measured: the run on fewer rows whose accuracy stands for that of a run on all rows; or None.
        accuracy: correct / seen on the held-out rows, of a training that never saw them. With folds, these are all
            labelled rows.
        standard_error: of that accuracy, binomial.
        test_accuracy: correct / seen on the test rows, if they have labels.
        label_counts: how often each digit from 0 to 9 was predicted.
        seconds: spent, by phase.
    """

    plan: Plan
    runs: list[Run]
    measured: Run | None
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
        unsure: how many of them were read with less than 90% certainty.
        usual_unsure: the share of held-out rows that these runs read so; None if that is not known.
        accuracy: correct / seen, if the test rows have labels.
    """

    out: Path
    rows: int
    unsure: int
    usual_unsure: float | None
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
    folds: int | None = None,
    overwrite: bool = False,
) -> Plan:
    """Load the data, find the device and settle every name, without writing anything.

    Args:
        data: where the data lies, see ``data.find_source``.
        recipe: a name in ``recipes.RECIPES``, or a file of your own, see ``recipes.find_recipe``.
        out: the file to write. None takes a new name in ``submissions/``, unless this job is done already. A file that
            is made from the built-in sample gets "sample" into its name.
        device: "auto", "tpu", "gpu" or "cpu".
        backend: "tensorflow", "jax", or None to choose, see ``backend.choose_backend``.
        seed: of the split, the weights, the order of rows and their augmentation.
        epochs: instead of the recipe's own number.
        folds: see ``Plan``.
        overwrite: whether ``out`` may replace a file, and whether a job that is done is done again.

    Raises:
        InputError: the recipe, the data, the device or the file name cannot be used.
    """
    seconds: dict[str, float] = {}
    chosen = find_recipe(recipe, epochs=epochs, backend=backend)
    with _timed(seconds, "load"):
        source = find_source(data)
        stem = f"{chosen.name}-seed{seed}" + (f"-{folds}folds" if folds else "")
        first = marked_name(out or Path(SUBMISSIONS) / f"{stem}.csv", from_sample=source.is_sample)
        made_before = [] if overwrite else _made_before(first, numbered=out is None)
        out = first if out else free_name(first, may_take=_is_begun)
        if out not in made_before:
            check_out(out, overwrite=overwrite or _is_begun(out))
        rows = load_train(source)
        test = load_test_rows(source)
        split = (rows, rows) if folds else split_rows(rows, fraction=chosen.validation_fraction, seed=seed)
    with _timed(seconds, "start"):
        place = device_of(chosen, device, backend=backend)
    plan = Plan(
        recipe=chosen,
        source=source,
        rows=rows,
        training=split[0],
        held_out=split[1],
        test_pixels=test.pixels,
        test_digits=test.digits,
        not_for_upload=why_not_uploadable(source, test),
        device=place,
        seed=seed,
        out=out,
        overwrite=overwrite,
        folds=folds,
        seconds=seconds,
    )
    wanted = list(_wanted_runs(plan, RUNS)) if made_before else []
    for file in made_before:
        if done := _find_done(file, plan, wanted):
            return replace(plan, out=file, done=tuple(done))
    if out in made_before:
        check_out(out)
    return plan


def make_submission(plan: Plan, *, progress: Progress | None = None) -> Result:
    """Train, validate, predict, write and check a submission, unless the plan says that this is done.

    If it is stopped, repeat it with the same settings and it goes on: the run folders under ``runs/`` keep every whole
    epoch until the submission is written.

    Args:
        plan: of ``plan_submission``.
        progress: is told of every step and epoch.

    Raises:
        DigitsError: the training failed or a file cannot be written.
    """

    if plan.done:
        return _result_of_done(plan)
    trainings = 2 if plan.recipe.retrain and not plan.folds else 1

    def train(name: str, rows: TrainingRows, held_out: TrainingRows | None) -> Run:
        return train_run(
            plan.recipe,
            rows,
            RUNS / name,
            held_out=held_out,
            seed=plan.seed,
            device=plan.device,
            source=plan.source.name_for(RUNS),
            numbered=True,
            progress=part_of(progress, 0 if held_out else 1, trainings),
        )

    seconds = dict(plan.seconds)
    measured = None
    with _timed(seconds, "train"):
        runs = (
            _train_folds(plan, progress) if plan.folds else [train(_run_name(plan.out), plan.training, plan.held_out)]
        )
    held_out_accuracy = float(
        np.average([run.accuracy or 0.0 for run in runs], weights=[run.rows.held_out for run in runs])
    )
    if plan.recipe.retrain and not plan.folds:
        (measured,) = runs
        with _timed(seconds, "retrain"):
            runs = [train(f"{_run_name(plan.out)}-all-rows", plan.rows, None)]
    with _timed(seconds, "predict"):
        probabilities = [run.predict(plan.test_pixels) for run in runs]
    with _timed(seconds, "write"):
        # First the run folders name the file. A job that is stopped before the record exists is known by that.
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
        test_accuracy=None if plan.test_digits is None else accuracy(np.mean(probabilities, axis=0), plan.test_digits),
        label_counts=counts,
        seconds=seconds,
    )


def _run_name(out: Path) -> str:
    return out.name.removesuffix(suffix_of(out))


def _train_folds(plan: Plan, progress: Progress | None) -> list[Run]:
    """Train a network for each fold, in the first of NAME, NAME-2 and so on that is free or holds a job to continue."""
    for folder in numbered_names(RUNS / _run_name(plan.out)):
        if folder.exists() and not _holds_folds(folder, plan):
            continue
        return cross_validate(
            plan.recipe,
            plan.rows,
            folder,
            plan.folds or 2,
            seed=plan.seed,
            device=plan.device,
            source=plan.source.name_for(RUNS),
            with_predictors=True,
            progress=progress,
        )
    raise AssertionError("numbered_names has no end")


def _wanted_runs(plan: Plan, folder: Path) -> Iterator[Run]:
    """Yield, untrained, the runs that are to predict: one, or one for each fold in its own folder."""
    wanted = describe_run(plan.recipe, folder, seed=plan.seed, device=plan.device, source=plan.source.name)
    if not plan.folds:
        parts = (plan.rows, None) if plan.recipe.retrain else (plan.training, plan.held_out)
        yield replace(wanted, rows=RowCounts.of(*parts))
        return
    of_row = fold_rows(plan.rows, plan.folds, seed=plan.seed)
    for fold in range(plan.folds):
        yield replace(
            wanted,
            folder=member_folder(folder, fold + 1, plan.folds),
            seed=member_seed(plan.seed, fold + 1, plan.folds),
            rows=RowCounts.of(*hold_out_fold(plan.rows, of_row, fold)),
        )


def _holds_folds(folder: Path, plan: Plan) -> bool:
    """Whether a folder holds fold networks of this very job, with which no submission was made yet."""
    found = False
    for wanted in _wanted_runs(plan, folder):
        if not wanted.folder.exists():
            continue
        try:
            run = read_run(wanted.folder)
        except RunError:
            return False
        if find_difference(run, wanted) or run.is_used:
            return False
        found = True
    return found


def _made_before(first: Path, *, numbered: bool) -> list[Path]:
    """Return the submissions under a name, or under that name with any number, that have a record."""
    names = numbered_names(first, suffix_of(first)) if numbered else [first]
    return [name for name in itertools.takewhile(Path.is_file, names) if record_path(name).exists()]


def _find_done(file: Path, plan: Plan, wanted: Sequence[Run]) -> list[Run] | None:
    """Return the runs that made a submission, if they are those that a plan would train, and nothing has changed."""
    try:
        record = read_record(file)
        runs = [read_run(Path(entry["run"])) for entry in record["runs"]]
        [read_run(Path(entry["measured_by"])) for entry in record["runs"] if "measured_by" in entry]
    except DigitsError:  # the file belongs to somebody else, or a run folder is gone
        return None
    if len(runs) != len(wanted) or record.get("test_checksum") != plan.test_checksum:
        return None
    same = all(
        run.finished
        and not find_difference(run, want)
        and run.versions == want.versions
        and run.device.place == want.device.place
        for run, want in zip(runs, wanted, strict=True)
    )
    return runs if same else None


def _result_of_done(plan: Plan) -> Result:
    """Return what a finished job has found, from its file and its record."""
    entries = read_record(plan.out)["runs"]
    digits = np.array(read_submission(plan.out).digits)
    mean = float(
        np.average([each["held_out_accuracy"] for each in entries], weights=[each["held_out_rows"] for each in entries])
    )
    return Result(
        plan=plan,
        runs=list(plan.done),
        measured=read_run(Path(entries[0]["measured_by"])) if "measured_by" in entries[0] else None,
        accuracy=mean,
        standard_error=standard_error(mean, len(plan.held_out)),
        test_accuracy=None if plan.test_digits is None else float((digits == plan.test_digits).mean()),
        label_counts=np.bincount(digits, minlength=CLASSES).tolist(),
        seconds=plan.seconds,
    )


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
    out = marked_name(out, from_sample=from_sample)
    check_out(out, overwrite=overwrite)
    test = load_test_rows(source, alone=True)
    probabilities = predict_runs(runs, test.pixels, backend=backend)
    not_for_upload = why_not_uploadable(source, test)
    write_checked(out, probabilities, runs, overwrite=overwrite, not_for_upload=not_for_upload)
    averaged = calibrate(np.mean(probabilities, axis=0), temperature_of(runs))
    return Prediction(
        out=out,
        rows=len(test.pixels),
        unsure=int((averaged.max(axis=1) < CERTAIN).sum()),
        usual_unsure=max((share for run in runs if (share := _usual_unsure(run)) is not None), default=None),
        accuracy=None if test.digits is None else accuracy(np.mean(probabilities, axis=0), test.digits),
    )


def _usual_unsure(run: Run) -> float | None:
    """Return the share of held-out rows that a run reads with less than 90% certainty, or None if none were kept."""
    if not (run.folder / VALIDATION_FILE).exists():  # as of the network that comes with the package
        return run.threshold.unsure_digits if run.threshold else None
    try:
        return float((calibrate(run.probabilities, run.temperature or 1.0).max(axis=1) < CERTAIN).mean())
    except RunError:  # what is damaged there does not matter for predicting
        return None


def check_uploadable(plan: Plan) -> None:
    """Check that what a plan makes can be uploaded to the competition.

    Raises:
        InputError: it is made from the built-in sample, or from rows that are not the competition's.
    """
    if plan.not_for_upload and not plan.source.is_sample:
        raise InputError(
            f"--upload: {plan.source} is not the competition's data: {plan.not_for_upload}. Expected predictions "
            "for the competition's test.csv. Name its data with --data, or leave --upload out."
        )
    if plan.source.is_sample:
        raise InputError(
            f"--upload: there is no competition data but the built-in {SAMPLE}. Expected predictions for the "
            "competition's test rows. Fetch the data with `kaggle-digits download`, or name it with --data."
        )


def marked_name(out: Path, *, from_sample: bool) -> Path:
    """Return the name of a submission, with a mark if the built-in sample has a part in it.

    >>> marked_name(Path("mine.csv"), from_sample=True).name
    'sample-mine.csv'
    """
    if from_sample and out.name and not out.name.startswith(f"{SAMPLE}-"):
        return out.with_name(f"{SAMPLE}-{out.name}")
    return out


def _is_begun(out: Path) -> bool:
    """Whether a job was stopped when it had written this file, and before it wrote the record."""
    if not out.is_file() or record_path(out).exists():
        return False
    for folder in itertools.takewhile(Path.exists, numbered_names(RUNS / _run_name(out))):
        with contextlib.suppress(RunError):
            if read_run(run_folders(folder)[0]).submission == str(out):
                return True
    return False


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
