"""The main job: from data, through training, validation and prediction, to a checked submission file.

``python -m kaggle_digits.submit`` is ``kaggle-digits submit``.
"""

from __future__ import annotations

import contextlib
import itertools
import runpy
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

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
from kaggle_digits.errors import DigitsError, InputError, RunError
from kaggle_digits.files import numbered_names, suffix_of
from kaggle_digits.kaggle.records import (
    SUBMISSIONS,
    check_record_free,
    free_name,
    is_used,
    read_record,
    record_path,
    write_record,
)
from kaggle_digits.learners import PACKAGED_RUN, Context, Progress, part_of, predict_runs
from kaggle_digits.learners.calibration import calibrate
from kaggle_digits.learners.claim import find_difference
from kaggle_digits.recipe import Recipe
from kaggle_digits.recipes import DEFAULT_RECIPE, find_recipe
from kaggle_digits.run import (
    VALIDATION_FILE,
    RowCounts,
    Run,
    mark_used,
    member_folder,
    member_seed,
    read_run,
    run_folders,
    temperature_of,
)
from kaggle_digits.strategy import Device, device_of
from kaggle_digits.submission import (
    check_free,
    check_submission,
    predict_digits,
    read_submission,
    to_csv,
    write_submission,
)
from kaggle_digits.train import describe_run, train_run

RUNS = Path("runs")


@dataclass(frozen=True)
class Plan:
    """What ``make_submission`` is about to do.

    Args:
        recipe: what to train.
        source: where the data comes from.
        rows: all labelled rows.
        training, held_out: the two parts of ``rows``. With folds, both are all rows: each is in either part once.
        test: the rows to predict. If they have labels, these are used for one figure, the accuracy.
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
        """Return what the trainings of this job have in common."""
        return Context(self.device, self.seed, self.source.name_for(RUNS), split, progress)


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
    """Load the data, find the device and settle every name, without writing anything.

    Args:
        recipe: a recipe, the name of a built-in one, or a file of your own, see ``recipes.find_recipe``.
        data: where the data lies, see ``data.find_source``.
        out: the file to write. None takes a new name in ``submissions/``, unless this job is done already. A file that
            is made from the built-in sample gets "sample" into its name.
        device: "auto", "tpu", "gpu" or "cpu".
        backend: "tensorflow", "jax", or None to choose, see ``devices.backend.choose_backend``.
        seed: of the split, the weights, the order of rows and their augmentation.
        folds: see ``Plan``.
        overwrite: whether ``out`` may replace a file, and whether a job that is done is done again.

    Raises:
        InputError: the recipe, the data, the device or the file name cannot be used.
    """
    seconds: dict[str, float] = {}
    recipe = find_recipe(recipe, backend=backend) if isinstance(recipe, str) else recipe
    with _timed(seconds, "load"):
        source = find_source(data)
        stem = f"{recipe.name}-seed{seed}" + (f"-{folds}folds" if folds else "")
        first = marked_name(out or Path(SUBMISSIONS) / f"{stem}.csv", from_sample=source.is_sample)
        made_before = [] if overwrite else _made_before(first, numbered=out is None)
        out = first if out else free_name(first, may_take=_is_begun)
        if out not in made_before:
            check_out(out, overwrite=overwrite or _is_begun(out))
        rows = load_train(source)
        test = load_test_rows(source)
        split = Split(fraction=recipe.validation_fraction, seed=seed)
        training, held_out = (rows, rows) if folds else split.of(rows)
    with _timed(seconds, "start"):
        place = device_of(recipe, device, backend=backend)
    plan = Plan(recipe, source, rows, training, held_out, test, place, seed, out, overwrite, folds, seconds)
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
        test_accuracy=None if plan.test.digits is None else accuracy(np.mean(probabilities, axis=0), plan.test.digits),
        label_counts=counts,
        seconds=seconds,
    )


def _train(plan: Plan, folder: Path, context: Context, rows: TrainingRows, held_out: TrainingRows | None) -> Run:
    return train_run(plan.recipe, rows, folder, held_out=held_out, context=context, is_spent=is_used)


def write_checked(
    out: str | Path,
    probabilities: Sequence[np.ndarray],
    runs: Sequence[Run],
    *,
    measured: Run | None = None,
    overwrite: bool = False,
    build: str | None = None,
    not_for_upload: str | None = None,
    test_checksum: int | None = None,
) -> list[int]:
    """Write a submission file, check it, and record beside it what made it. A file with the same contents stays.

    Args:
        out: the file.
        probabilities: one (N, 10) array for each run; they are averaged.
        runs: the runs that predicted.
        measured: the run on fewer rows whose accuracy stands for that of runs on all rows.
        overwrite: whether to replace an existing file.
        build: of the notebook that made the file, see ``kaggle.notebook.build_kernel``.
        not_for_upload: why the file cannot be uploaded to the competition, or None.
        test_checksum: CRC-32 of the pixels that were predicted, or None.

    Returns:
        how often each digit from 0 to 9 was predicted.

    Raises:
        SubmissionError: the file cannot be written.
    """
    out = Path(out)
    digits = predict_digits(probabilities)
    if not (out.is_file() and out.read_bytes() == to_csv(digits)):  # written by a job that was stopped then
        write_submission(out, digits, overwrite=overwrite)
    counts = check_submission(out, rows=len(probabilities[0]))
    described = [run.summary() for run in runs]
    if measured:
        accuracy = {"held_out_rows": measured.rows.held_out, "held_out_accuracy": measured.accuracy}
        described = [each | accuracy | {"measured_by": str(measured.folder)} for each in described]
    write_record(out, described, build=build, not_for_upload=not_for_upload, test_checksum=test_checksum)
    return counts


def check_out(out: Path, *, overwrite: bool = False) -> None:
    """Check that a submission and its record can be written, before work is spent on them.

    Raises:
        SubmissionError: one of them exists and ``overwrite`` is off, or cannot be written there.
    """
    check_free(out, overwrite=overwrite)
    check_record_free(out, overwrite=overwrite)


def _run_name(out: Path) -> str:
    return out.name.removesuffix(suffix_of(out))


def _train_folds(plan: Plan, progress: Progress | None) -> list[Run]:
    """Train a network for each fold, in the first of NAME, NAME-2 and so on that is free or holds a job to continue."""
    cross_validate = import_module("kaggle_digits.analysis.validate").cross_validate
    folders = numbered_names(RUNS / _run_name(plan.out))
    folder = next(folder for folder in folders if not folder.exists() or _holds_folds(folder, plan))
    return cross_validate(plan.recipe, plan.rows, folder, plan.folds, context=plan.context(progress), keep=True)


def _wanted_runs(plan: Plan, folder: Path) -> Iterator[Run]:
    """Yield, untrained, the runs that are to predict: one, or one for each fold in its own folder."""
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
        if find_difference(run, wanted) or is_used(run):
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


def predict_submission(
    folders: list[Path], out: Path, *, data: str | None = None, backend: str | None = None, overwrite: bool = False
) -> Prediction:
    """Predict the test rows with trained runs, averaged, and write a checked submission.

    Args:
        folders: run folders, or folders of members; none for the network that comes with the package.
        out: the file to write. It gets "sample" into its name if the built-in sample has a part in it.
        data: where the data lies, see ``data.find_source``.
        backend: what computes the networks, see ``devices.backend.choose_backend``.
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
    write_checked(out, probabilities, runs, overwrite=overwrite, not_for_upload=why_not_uploadable(source, test))
    averaged = calibrate(np.mean(probabilities, axis=0), temperature_of(runs))
    return Prediction(
        out=out,
        rows=len(test.pixels),
        unsure=_count_unsure(averaged),
        usual_unsure=max((share for run in runs if (share := _usual_unsure(run)) is not None), default=None),
        accuracy=None if test.digits is None else accuracy(np.mean(probabilities, axis=0), test.digits),
    )


def _count_unsure(probabilities: np.ndarray) -> int:
    return int((probabilities.max(axis=1) < 0.9).sum())


def _usual_unsure(run: Run) -> float | None:
    """Return the share of held-out rows that a run reads with less than 90% certainty, or None if none were kept."""
    if not (run.folder / VALIDATION_FILE).exists():  # as of the network that comes with the package
        return run.threshold.unsure_digits if run.threshold else None
    try:
        return _count_unsure(calibrate(run.probabilities, run.temperature or 1.0)) / run.rows.held_out
    except RunError:  # what is damaged there does not matter for predicting
        return None


def check_uploadable(plan: Plan) -> None:
    """Check that what a plan makes can be uploaded to the competition.

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


if __name__ == "__main__":
    sys.argv.insert(1, "submit")
    runpy.run_module("kaggle_digits", run_name="__main__")
