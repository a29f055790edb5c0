"""The main job as a verb: submit."""

from __future__ import annotations

import json as _json
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaggle_digits.cli import EPOCHS, FORCE, JSON, MESSAGE, RECIPE, TRAINING, option, path, several, verb
from kaggle_digits.cli.output import TrainingProgress, describe_counts, kept_if_interrupted, show
from kaggle_digits.data import SAMPLE
from kaggle_digits.errors import InputError
from kaggle_digits.recipes import find_recipe

if TYPE_CHECKING:
    from kaggle_digits.submit import Plan, Result

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
        help="train K networks, each on all rows but one of K parts, and average them; each network is scored on the "
        "part that it did not see",
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
    from kaggle_digits.submit import check_uploadable, make_submission, plan_submission

    if message is not None and not upload:
        raise InputError("submit: -m describes what --upload submits. Add --upload, or leave -m out.")
    plan = plan_submission(
        find_recipe(recipe, epochs=epochs, backend=backend),
        data=data,
        out=out,
        device=device,
        backend=backend,
        seed=seed,
        folds=folds,
        overwrite=force,
    )
    if upload:
        check_uploadable(plan)
    if dry_run:
        described = _describe_plan(plan) + (f"\nupload  {message or 'yes'}" if upload else "")
        show(_json.dumps(_plan_to_json(plan)) if json else described)
        return
    if upload:  # check the upload now, not after the training
        from kaggle_digits.kaggle.competition import check_ready

        check_ready(len(plan.test.pixels))
    kept = "Whole epochs of a network are kept in runs/. Repeat the command to continue."
    with kept_if_interrupted(kept), TrainingProgress(quiet=quiet) as progress:
        result = make_submission(plan, progress=progress)
    if not json:
        show(_describe_result(result))
    uploaded = None
    if upload:
        from kaggle_digits.cli.kaggle import upload_made_file

        message = message or _default_message(result)
        uploaded = upload_made_file(plan.out, message, len(plan.test.pixels), verbose=not json)
    elif not json:
        log.info("%s", _describe_next(result, recipe, data))
    if json:
        print(_json.dumps(_result_to_json(result) | {"upload": uploaded}))


def _describe_plan(plan: Plan) -> str:
    if plan.done:
        return f"{_describe_done(plan)} Nothing would be trained."
    predicted = f"and predict {len(plan.test.pixels):,} rows."
    where = f"device  {plan.device}\nfile    {plan.out}"
    if plan.folds:
        rows = len(plan.rows) * (plan.folds - 1) // plan.folds
        what = plan.recipe.for_rows(rows).describe()
        return (
            f"Would train {plan.folds} times {what} on about {rows:,} of {len(plan.rows):,} rows of "
            f"{plan.source},\nmeasure each on the other rows, average them, {predicted}\n{where}"
        )
    again = ", then again on all rows" if plan.recipe.retrain else ""
    what = plan.recipe.for_rows(len(plan.training)).describe()
    return (
        f"Would train {what} on {len(plan.training):,} rows of {plan.source}{again},\n"
        f"measure it on {len(plan.held_out):,} held-out rows, {predicted}\n{where}"
    )


def _describe_done(plan: Plan) -> str:
    return (
        f"This job is done: {plan.out} has its predictions. For another training, add --seed {plan.seed + 1}. To do "
        "the same again, add --force."
    )


def _plan_to_json(plan: Plan) -> dict[str, Any]:
    return {
        "file": str(plan.out),
        "rows": len(plan.test.pixels),
        "source": plan.source.name,
        "recipe": plan.recipe.name,
        "seed": plan.seed,
        "folds": plan.folds,
        "device": str(plan.device),
        "training_rows": len(plan.training),
        "held_out_rows": len(plan.held_out),
        "done_before": bool(plan.done),
        "not_for_upload": plan.not_for_upload,
    }


def _result_to_json(result: Result) -> dict[str, Any]:
    return _plan_to_json(result.plan) | {
        "held_out_accuracy": result.accuracy,
        "standard_error": result.standard_error,
        "test_accuracy": result.test_accuracy,
        "label_counts": result.label_counts,
        "seconds": {phase: round(spent, 2) for phase, spent in result.seconds.items()},
        "runs": [str(run.folder) for run in result.runs],
    }


def _default_message(result: Result) -> str:
    plan = result.plan
    folds = f", {plan.folds} folds" if plan.folds else ""
    return f"{plan.recipe.name}, seed {plan.seed}{folds}, held-out accuracy {result.accuracy:.2%}"


def _run_of(result: Result) -> Path:
    """Return the folder for ``report``: that of the measured run, or of all folds."""
    if result.plan.folds:
        return result.runs[0].folder.parent
    return result.measured.folder if result.measured else result.runs[0].folder


def _describe_next(result: Result, recipe: str, data: str | None) -> str:
    """Suggest the next commands."""
    plan = result.plan
    more = {"flash": "fast", "fast": "strong"}.get(plan.recipe.name)
    better = f"--recipe {more}" if more else f"--recipe {shlex.quote(recipe)} --folds {plan.folds or 5}"
    named = f" --data {shlex.quote(data)}" if data else ""
    upload = f"kaggle-digits upload {shlex.quote(str(plan.out))} -m '{plan.recipe.name} {result.accuracy:.2%}'"
    without_data = f"kaggle-digits download; then kaggle-digits submit --recipe {shlex.quote(recipe)}"
    lines = [
        f"upload  {without_data if plan.not_for_upload else upload}",
        f"report  kaggle-digits report {shlex.quote(str(_run_of(result)))}",
    ]
    if not plan.folds:
        lines.append(f"better  kaggle-digits submit {better}{named}")
    return "\n".join(["", "What you may do next:", *lines])


def _describe_result(result: Result) -> str:
    from kaggle_digits.digits import describe_accuracy

    plan = result.plan
    seconds = "  ".join(f"{phase} {spent:.1f}" for phase, spent in result.seconds.items())
    measured = len(plan.held_out)
    accuracy = describe_accuracy(result.accuracy, measured)
    by = "that it was not trained on"
    if plan.folds:
        by = f"by the one of {plan.folds} networks that did not see the row; the average of all is usually better"
    tested = ""
    if result.test_accuracy is not None:
        tested = (
            f"test accuracy  {result.test_accuracy:.2%} of {len(plan.test.pixels):,} rows, by the labels in the file\n"
        )
    note = f"\n        made from the built-in {SAMPLE}: it cannot be uploaded" if plan.source.is_sample else ""
    return (
        (f"{_describe_done(plan)}\n" if plan.done else "")
        + f"source  {plan.source}: {len(plan.rows):,} training rows, {len(plan.test.pixels):,} test rows\n"
        f"recipe  {plan.recipe.name}, seed {plan.seed}\n"
        f"device  {plan.device}\n"
        f"time    {sum(result.seconds.values()):.1f} s ({seconds})\n"
        f"held-out accuracy  {accuracy} on {measured:,} rows {by}\n"
        f"{tested}"
        f"labels  {describe_counts(result.label_counts)}\n"
        f"run     {result.runs[0].folder.parent if plan.folds else result.runs[0].folder}\n"
        f"file    {plan.out}, {len(plan.test.pixels):,} rows, checked{note}"
    )
