"""Verbs that make or check a submission file: submit, predict, check."""

from __future__ import annotations

import json as _json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaggle_digits.cli.kaggle import upload_made_file
from kaggle_digits.cli.options import (
    BACKEND,
    DATA,
    EPOCHS,
    FORCE,
    JSON,
    MESSAGE,
    RECIPE,
    TRAINING,
    option,
    path,
    several,
    verb,
)
from kaggle_digits.cli.output import TrainingProgress, kept_if_interrupted
from kaggle_digits.data import SAMPLE
from kaggle_digits.errors import InputError
from kaggle_digits.recipes import find_recipe

if TYPE_CHECKING:
    from kaggle_digits.pipeline import Plan, Result

log = logging.getLogger(__name__)


@verb(
    "train, validate, predict, and write a checked submission file",
    RECIPE,
    *TRAINING,
    EPOCHS,
    option(
        "--folds",
        type=several,
        metavar="K",
        help="train K networks, each on all rows but one of K parts, and average them; each row measures the one that "
        "did not see it",
    ),
    option("--out", type=path, metavar="FILE", help="the file to write (default: a new name in submissions/)"),
    FORCE,
    option("--upload", action="store_true", help="submit the file to Kaggle, and wait for its score"),
    MESSAGE,
    option("--dry-run", action="store_true", help="say what would happen, and stop"),
    JSON,
)
def submit(
    *,
    recipe: str,
    data: str | None,
    device: str,
    backend: str | None,
    seed: int,
    epochs: int | None,
    folds: int | None,
    out: Path | None,
    force: bool,
    upload: bool,
    message: str | None,
    dry_run: bool,
    quiet: bool,
    json: bool,
) -> None:
    """Make a submission file, and upload it if the user asks for that."""
    from kaggle_digits.pipeline import check_uploadable, make_submission, plan_submission

    if upload != (message is not None):
        raise InputError("submit: --upload and -m belong together. Expected both or none. Add the missing one.")
    plan = plan_submission(
        data=data,
        recipe=recipe,
        out=out,
        device=device,
        backend=backend,
        seed=seed,
        epochs=epochs,
        folds=folds,
        overwrite=force,
    )
    if upload:
        check_uploadable(plan)
    if dry_run:
        print(_describe_plan(plan) + (f"\nupload  {message}" if upload else ""))
        return
    if upload:  # find out now what would stop the upload, not after the training
        from kaggle_digits.kaggle.competition import check_ready

        check_ready(len(plan.test_pixels))
    kept = "Whole epochs of a network are kept in runs/. Repeat the command to continue."
    with kept_if_interrupted(kept), TrainingProgress(quiet=quiet) as progress:
        result = make_submission(plan, progress=progress)
    if not json:
        print(_describe_result(result))
    uploaded = None
    if message is not None:
        uploaded = upload_made_file(plan.out, message, len(plan.test_pixels), show=not json)
    if json:
        print(_json.dumps(_result_to_json(result) | {"upload": uploaded}))


@verb(
    "predict the test rows with one or several runs, averaged",
    option(
        "--run",
        type=path,
        action="append",
        metavar="DIR",
        help="a run folder; may be repeated (default: the small network that comes with the package)",
    ),
    DATA,
    BACKEND,
    option("--recipe", metavar="FILE.py", help="your recipe, if its network has layers of your own"),
    option("--out", required=True, type=path, metavar="FILE", help="the submission file to write"),
    FORCE,
)
def predict(
    *, run: list[Path] | None, data: str | None, backend: str | None, recipe: str | None, out: Path, force: bool
) -> None:
    """Write a submission file with runs that are already trained."""
    if recipe:  # makes Keras know its layers
        find_recipe(recipe, backend=backend)
    from kaggle_digits.pipeline import predict_submission
    from kaggle_digits.predict import PACKAGED_RUN

    if not run:
        log.info("No --run: predicting with the small network that comes with the package, in %s", PACKAGED_RUN)
    made = predict_submission(run or [], out, data=data, backend=backend, overwrite=force)
    scored = "" if made.accuracy is None else f", {made.accuracy:.2%} of their labels read right"
    print(f"{made.out}: {made.rows:,} rows{scored}")
    if made.unsure > 0.2 * made.rows:
        log.warning(
            "%s of %s rows are read with less than 90 %% certainty. Usually the images are transposed (as EMNIST's "
            "are), inverted, or no digits. Look at some of them.",
            f"{made.unsure:,}",
            f"{made.rows:,}",
        )


@verb(
    "say whether a file is a valid submission; exit code 0 or 2",
    option("file", type=path, metavar="FILE"),
    DATA,
    option("--fix", type=path, metavar="OUT", help="write the submission that FILE was meant to be, in Kaggle's form"),
    option("--force", action="store_true", help="replace OUT if it exists"),
)
def check(*, file: Path, data: str | None, fix: Path | None, force: bool) -> None:
    """Check a submission file, or write the one that was meant."""
    from kaggle_digits.data import expected_rows, find_competition
    from kaggle_digits.submission import check_submission, fix_submission

    rows, counted_in = expected_rows(find_competition(data), named=data is not None)
    if fix:
        fault = fix_submission(file, fix, rows=rows, counted_in=counted_in, overwrite=force)
        log.info("%s: %s", file, fault or "nothing had to be mended.")
        file = fix
    counts = check_submission(file, rows=rows, counted_in=counted_in)
    print(f"{file}: valid, {rows:,} rows as in {counted_in}; {_describe_counts(counts)}")


def _describe_counts(counts: list[int]) -> str:
    return "  ".join(f"{digit}: {count:,}" for digit, count in enumerate(counts))


def _describe_plan(plan: Plan) -> str:
    predicted = f"and predict {len(plan.test_pixels):,} rows."
    where = f"device  {plan.device}\nfile    {plan.out}"
    if plan.folds:
        rows = len(plan.rows) * (plan.folds - 1) // plan.folds
        what = plan.recipe.for_rows(rows).describe()
        return (
            f"Would train {plan.folds} times {what} on about {rows:,} of {len(plan.rows):,} rows of "
            f"{plan.source.name},\nmeasure each on the other rows, average them, {predicted}\n{where}"
        )
    again = ", then again on all rows" if plan.recipe.retrain else ""
    what = plan.recipe.for_rows(len(plan.training)).describe()
    return (
        f"Would train {what} on {len(plan.training):,} rows of {plan.source.name}{again},\n"
        f"measure it on {len(plan.held_out):,} held-out rows, {predicted}\n{where}"
    )


def _result_to_json(result: Result) -> dict[str, Any]:
    plan = result.plan
    return {
        "file": str(plan.out),
        "rows": len(plan.test_pixels),
        "source": plan.source.name,
        "recipe": plan.recipe.name,
        "seed": plan.seed,
        "folds": plan.folds,
        "device": str(plan.device),
        "held_out_accuracy": result.accuracy,
        "standard_error": result.standard_error,
        "test_accuracy": result.test_accuracy,
        "label_counts": result.label_counts,
        "seconds": {phase: round(spent, 2) for phase, spent in result.seconds.items()},
        "runs": [str(run.folder) for run in result.runs],
        "not_for_upload": plan.not_for_upload,
    }


def _describe_result(result: Result) -> str:
    from kaggle_digits.calibration import describe_accuracy

    plan = result.plan
    seconds = "  ".join(f"{phase} {spent:.1f}" for phase, spent in result.seconds.items())
    measured = len(plan.rows) if plan.folds else len(plan.held_out)
    accuracy = describe_accuracy(result.accuracy, measured)
    by = "that it was not trained on"
    if plan.folds:
        by = f"by the one of {plan.folds} networks that did not see the row; the average of all is usually better"
    tested = ""
    if result.test_accuracy is not None:
        tested = (
            f"test accuracy  {result.test_accuracy:.2%} of {len(plan.test_pixels):,} rows, by the labels in the file\n"
        )
    note = f"\n        made from the built-in {SAMPLE}: it cannot be uploaded" if plan.source.is_sample else ""
    return (
        f"source  {plan.source.name}: {len(plan.rows):,} training rows, {len(plan.test_pixels):,} test rows\n"
        f"recipe  {plan.recipe.name}, seed {plan.seed}\n"
        f"device  {plan.device}\n"
        f"time    {sum(result.seconds.values()):.1f} s ({seconds})\n"
        f"held-out accuracy  {accuracy} on {measured:,} rows {by}\n"
        f"{tested}"
        f"labels  {_describe_counts(result.label_counts)}\n"
        f"run     {result.runs[0].folder.parent if plan.folds else result.runs[0].folder}\n"
        f"file    {plan.out}, {len(plan.test_pixels):,} rows, checked{note}"
    )
