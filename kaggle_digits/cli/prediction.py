"""Verbs about submission files: predict, check."""

from __future__ import annotations

import logging
from pathlib import Path

from kaggle_digits.cli import BACKEND, DATA, FORCE, option, path, verb
from kaggle_digits.cli.output import describe_counts, show
from kaggle_digits.recipes import find_recipe

log = logging.getLogger(__name__)


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
    if recipe:  # registers its layers with Keras
        find_recipe(recipe, backend=backend)
    from kaggle_digits.analysis.predict import predict_submission
    from kaggle_digits.learners import PACKAGED_RUN

    if not run:
        log.info("No --run: predicting with the small network that comes with the package, in %s", PACKAGED_RUN)
    made = predict_submission(run or [], out, data=data, backend=backend, overwrite=force)
    scored = "" if made.accuracy is None else f", {made.accuracy:.2%} of their labels read right"
    show(f"{made.out}: {made.rows:,} rows{scored}")
    if made.usual_unsure is not None and made.unsure > (made.usual_unsure + 0.2) * made.rows:
        log.warning(
            "%s of %s rows are read with less than 90%% certainty. Of the rows held out in training it was %s. Usually "
            "the images are transposed (as EMNIST's are), inverted, or not digits. Look at some of them.",
            f"{made.unsure:,}",
            f"{made.rows:,}",
            f"{made.usual_unsure:.1%}",
        )


@verb(
    "say whether a file is a valid submission; exit code 0 or 2",
    option("file", type=path, metavar="FILE"),
    DATA,
    option("--fix", type=path, metavar="OUT", help="write the submission that FILE was meant to be, in Kaggle's form"),
    option("--force", action="store_true", help="replace OUT if it exists"),
)
def check(*, file: Path, data: str | None, fix: Path | None, force: bool) -> None:
    """Check a submission file, or write the intended one."""
    from kaggle_digits.submission import check_submission, expected_rows, fix_submission
    from kaggle_digits.tables.find import find_competition

    rows, counted_in = expected_rows(find_competition(data), named=data is not None)
    if fix:
        fault = fix_submission(file, fix, rows=rows, counted_in=counted_in, overwrite=force)
        log.info("%s: %s", file, fault or "nothing had to be mended.")
        file = fix
    counts = check_submission(file, rows=rows, counted_in=counted_in)
    show(f"{file}: valid, {rows:,} rows as in {counted_in}; {describe_counts(counts)}")
