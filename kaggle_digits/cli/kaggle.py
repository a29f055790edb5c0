"""Verbs that speak to Kaggle: download, upload, kernel."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from kaggle_digits.cli import option, path, verb
from kaggle_digits.cli.output import kept_if_interrupted, say, show
from kaggle_digits.errors import DigitsError, InputError
from kaggle_digits.strategy import DEVICES


@verb(
    "download the competition's zip from Kaggle, into the cache",
    option("--to", type=path, metavar="DIR", help="the folder to download into instead"),
)
def download(*, to: Path | None) -> None:
    """Download the competition's data."""
    from kaggle_digits.data import ZIP_NAME
    from kaggle_digits.kaggle import competition
    from kaggle_digits.tables.find import cache_folder

    file = competition.download(to or cache_folder(), quiet=not sys.stderr.isatty())
    found_by_itself = not to and file.name == ZIP_NAME
    hint = "" if found_by_itself else f"; name it with --data {file}"
    show(f"{file}: whole, {file.stat().st_size / 1e6:.1f} MB{hint}")


@verb(
    "check a file and submit it to Kaggle, at most once",
    option("file", type=path, metavar="FILE"),
    option("-m", "--message", required=True, metavar="TEXT", help="the description of the submission"),
    option("--wait", action="store_true", help="wait for the public score"),
)
def upload(*, file: Path, message: str, wait: bool) -> None:
    """Submit a file to Kaggle."""
    _upload(file, message, wait=wait)


@verb(
    "build the notebook for Kaggle's machines, push it, or push it and submit its result",
    option(
        "step",
        choices=("build", "push", "run"),
        help="build: write a notebook that carries the package; push: send it to Kaggle, where it runs; run: push, "
        "wait, fetch, check and submit",
    ),
    option(
        "--device",
        choices=DEVICES,
        default="auto",
        help="the machine to ask for; the notebook stops if it is not there (default: %(default)s, a CPU)",
    ),
    option("--to", type=path, metavar="DIR", help="where build writes (default: build/kernel)"),
    option("-m", "--message", metavar="TEXT", help="the description of the submission that run makes"),
)
def kernel(*, step: str, device: str, to: Path | None, message: str | None) -> None:
    """Build, push or run the notebook."""
    if to and step != "build":
        raise InputError(f"kernel {step}: --to says where build writes. Leave it out.")
    if message and step != "run":
        raise InputError(f"kernel {step}: -m describes what run submits. Leave it out.")
    if step == "build":
        from kaggle_digits.kaggle.notebook import build_kernel

        for written in build_kernel(to or Path("build/kernel"), device=device):
            show(str(written))
        return
    from kaggle_digits.kaggle import kernel as machines
    from kaggle_digits.submission import TEST_ROWS

    if step == "run":  # check the upload now, not after the kernel has run
        from kaggle_digits.kaggle.competition import check_ready

        check_ready(TEST_ROWS)
    pushed = machines.push(device=device)
    show(f"{pushed.name}: version {pushed.version} runs at {pushed.url}")
    if step == "run":
        with kept_if_interrupted(f"The kernel keeps running. Fetch its submission.csv at {pushed.url}"):
            file = machines.fetch(pushed)
        show(f"{file}: fetched")
        upload_made_file(file, message or f"{pushed.name}, version {pushed.version}")


def upload_made_file(
    file: Path, message: str, rows: int | None = None, *, verbose: bool = True
) -> dict[str, Any] | None:
    """Submit a file that took long to make, and say how to continue if that fails.

    Returns:
        what Kaggle said, as the record of the file has it.
    """
    from kaggle_digits.kaggle.records import read_record

    try:
        _upload(file, message, wait=True, rows=rows, verbose=verbose)
    except (DigitsError, KeyboardInterrupt) as error:
        # A file that Kaggle could not score would fail again.
        if (read_record(file)["upload"] or {}).get("state") != "error":
            kept = f"The file is kept. To continue: kaggle-digits upload {file} -m {shlex.quote(message)} --wait"
            if isinstance(error, KeyboardInterrupt):
                error.add_note(kept)
            else:
                say(kept)
        raise
    return read_record(file)["upload"]


def _upload(file: Path, message: str, *, wait: bool, rows: int | None = None, verbose: bool = True) -> None:
    from kaggle_digits.kaggle.client import competition_slug
    from kaggle_digits.kaggle.competition import upload, wait_for_score

    submission = upload(file, message, rows=rows)
    if verbose:
        show(f"{file}: submitted to {competition_slug()} as {submission.reference}")
    if wait or submission.state != "pending":
        submission = wait_for_score(file, submission)
        if verbose:
            show(f"public score  {submission.public_score or 'not published'}")
    if verbose:
        show(f"page          {submission.url}")
