"""Jobs that were done or begun before, so that nothing is trained twice."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

from kaggle_digits.errors import RunError, SubmissionError
from kaggle_digits.files import numbered_names, suffix_of
from kaggle_digits.kaggle.records import is_used, read_record, record_path
from kaggle_digits.learners.members import run_folders
from kaggle_digits.learners.resume import find_difference
from kaggle_digits.run import Run, read_run


def made_before(first: Path, *, numbered: bool) -> list[Path]:
    """Return the submissions under a name, or under that name with any number, that have a record."""
    names = numbered_names(first, suffix_of(first)) if numbered else [first]
    return [name for name in itertools.takewhile(Path.is_file, names) if record_path(name).exists()]


def find_done(file: Path, wanted: Sequence[Run], test_checksum: int) -> list[Run] | None:
    """Return the runs that made a submission, if they are those that would be trained, and nothing has changed.

    Args:
        file: the submission.
        wanted: the runs that would be trained.
        test_checksum: CRC-32 of the pixels to predict.
    """
    try:
        record = read_record(file)
        runs = [read_run(Path(entry["run"])) for entry in record["runs"]]
        [read_run(Path(entry["measured_by"])) for entry in record["runs"] if "measured_by" in entry]
    except (RunError, SubmissionError):  # the file belongs to somebody else, or a run folder is gone
        return None
    if len(runs) != len(wanted) or record.get("test_checksum") != test_checksum:
        return None
    same = all(
        run.finished
        and not find_difference(run, want)
        and run.versions == want.versions
        and run.device.place == want.device.place
        for run, want in zip(runs, wanted, strict=True)
    )
    return runs if same else None


def is_begun(out: Path, runs: Path) -> bool:
    """Whether a job was stopped between writing this file and writing the record.

    Args:
        out: the file.
        runs: the folder of the run folders.
    """
    if not out.is_file() or record_path(out).exists():
        return False
    for folder in itertools.takewhile(Path.exists, numbered_names(runs / out.name.removesuffix(suffix_of(out)))):
        with contextlib.suppress(RunError):
            if read_run(run_folders(folder)[0]).submission == str(out):
                return True
    return False


def holds_folds(wanted: Sequence[Run]) -> bool:
    """Whether folders hold runs of this job that no submission has used yet.

    Args:
        wanted: the runs that would be trained, one for each folder.
    """
    found = False
    for run in wanted:
        if not run.folder.exists():
            continue
        try:
            there = read_run(run.folder)
        except RunError:
            return False
        if find_difference(there, run) or is_used(there):
            return False
        found = True
    return found
