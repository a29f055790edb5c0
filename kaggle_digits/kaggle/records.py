"""The record beside each submission file: what made the file, and what Kaggle said about it.

``fast-seed0.csv`` has its record in ``fast-seed0.json``::

    {"format": "kaggle_digits submission", "file": "fast-seed0.csv", "sha256": "…", "rows": 28000,
     "runs": [{"run", "recipe", "seed", "commit", "versions", "device", "epochs", "training_rows", "held_out_rows",
               "held_out_accuracy"}],
     "not_for_upload": null or why the file cannot be uploaded to the competition,
     "test_checksum": null or the CRC-32 of the pixels that were predicted,
     "build": null or the build of the notebook that wrote it, on Kaggle's machines,
     "upload": null or {"competition", "message", "state", "reference", "date", "public_score", "error", "url"}}

A run of an ensemble also has its "members". The accuracy of a run on all rows comes from a run on fewer rows, which is
named as "measured_by".

``state`` is "pending", "complete", "error", or "sent": the creating request went out, and no answer has come yet. In
that state ``reference`` belongs to an earlier try, if there was one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaggle_digits.errors import SubmissionError
from kaggle_digits.files import numbered_names, read_json, suffix_of, unpacked, write_json
from kaggle_digits.run import Run
from kaggle_digits.submission import check_free, check_submission, predict_digits, to_csv, write_submission
from kaggle_digits.tables import SAMPLE

if TYPE_CHECKING:  # importing it costs 0.1 s, and `upload` does not need it
    import numpy as np

FORMAT = "kaggle_digits submission"
SUBMISSIONS = "submissions"


def record_path(file: Path) -> Path:
    """Return where the record of a submission file lies. No two files share one.

    >>> [record_path(Path(name)).name for name in ("fast-seed0.csv", "v1.2", "v1.3", "a.txt")]
    ['fast-seed0.json', 'v1.2.record.json', 'v1.3.record.json', 'a.txt.record.json']
    """
    is_usual = file.suffix == ".csv" and not file.stem.endswith(".record")
    return file.with_name(f"{file.stem}.json" if is_usual else f"{file.name}.record.json")


def free_name(file: Path, *, may_take: Callable[[Path], bool] = lambda _: False) -> Path:
    """Return the first of file, file-2, file-3 … that neither a submission nor a record has.

    Args:
        file: the name to begin with.
        may_take: says whether a name may be taken although a file has it.
    """
    return next(
        name
        for name in numbered_names(file, suffix_of(file))
        if not (name.exists() or record_path(name).exists()) or may_take(name)
    )


def write_record(
    file: Path,
    runs: Iterable[dict[str, Any]],
    *,
    build: str | None = None,
    not_for_upload: str | None = None,
    test_checksum: int | None = None,
) -> None:
    """Record which runs made a submission file, and replace the record of an older file of that name.

    Args:
        file: the submission, already written.
        runs: an entry for each run, see ``Run.summary``.
        build: the build of the notebook that made the file, see ``kaggle.notebook.build_kernel``.
        not_for_upload: why the file cannot be uploaded to the competition, or None.
        test_checksum: CRC-32 of the pixels that were predicted, or None.
    """
    record, stored = _new_record(file), _stored_record(file)
    if stored and stored["sha256"] == record["sha256"]:  # keep what is known about a submission of these contents
        record["upload"] = stored["upload"]
    made_by = {"runs": list(runs), "build": build, "not_for_upload": not_for_upload, "test_checksum": test_checksum}
    save_record(file, record | made_by)


def is_used(run: Run) -> bool:
    """Whether a submission was made with a run, that is, whether the file's record names it. The record comes last."""
    record = load_record(record_path(Path(run.submission))) if run.submission else None
    folders = [entry.get(name) for entry in record["runs"] for name in ("run", "measured_by")] if record else []
    return str(run.folder) in folders


def read_record(file: Path) -> dict[str, Any]:
    """Read the record of a submission file; a fresh one if there is none, or one of other contents.

    Raises:
        SubmissionError: another file has the record's name, or the record is that of another file.
    """
    record, stored = _new_record(file), _stored_record(file)
    if stored and stored["sha256"] == record["sha256"]:
        return stored
    _check_name(file, stored)
    return record


def save_record(file: Path, record: dict[str, Any]) -> None:
    """Write the record of a submission file, whole or not at all."""
    write_json(record_path(file), record)


def check_record_free(file: Path, *, overwrite: bool = False) -> None:
    """Check that the record of a submission file can be written, before work is spent on it.

    Raises:
        SubmissionError: another file has the record's name, or the record tells of an upload and ``overwrite`` is off.
    """
    stored = _stored_record(file)
    _check_name(file, stored)
    if stored and stored["upload"] and not overwrite:
        raise SubmissionError(
            f"{record_path(file)}: tells of a submission to Kaggle. Expected a new name for {file.name}. Choose "
            "another, or pass --force to replace both."
        )


def _new_record(file: Path) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "rows": max(unpacked(file).count(b"\n") - 1, 0),
        "runs": [],
        "build": None,
        "not_for_upload": None,
        "upload": None,
    }


def load_record(path: Path) -> dict[str, Any] | None:
    """Return the record in a file, or None where there is none: no file, somebody else's, or a damaged one."""
    of_run = ("recipe", "seed", "commit", "held_out_rows", "held_out_accuracy")
    of_upload = ("competition", "message", "state", "reference", "date", "public_score", "error", "url")
    try:
        record = read_json(path)
        is_record = record["format"] == FORMAT
        [record[name] for name in ("file", "sha256", "build")]
        [[run[name] for name in of_run] for run in record["runs"]]
        if record["upload"]:
            [record["upload"][name] for name in of_upload]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return record if is_record else None


def _stored_record(file: Path) -> dict[str, Any] | None:
    """Return the record beside a file, if there is one."""
    path = record_path(file)
    if file.suffix == ".json":
        raise SubmissionError(
            f"{file}: has the name of a record. Expected a submission, as in {file.stem}.csv. Rename it."
        )
    if not path.exists():
        # Until November 2026, the record of v1.2 was called v1.json. It may tell of an upload.
        older = load_record(file.with_suffix(".json"))
        return older if older and older["file"] == file.name else None
    stored = load_record(path)
    if not stored:
        raise _name_taken(file, "is not a record of kaggle-digits, or a damaged one")
    return stored


def _check_name(file: Path, stored: dict[str, Any] | None) -> None:
    if stored and stored["file"] != file.name:
        raise _name_taken(file, f"is the record of {stored['file']}")


def _name_taken(file: Path, why: str) -> SubmissionError:
    return SubmissionError(
        f"{record_path(file)}: {why}, and lies where the record of {file.name} belongs. Expected that name to be free. "
        "Move or rename one of the two."
    )


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
        build: the build of the notebook that made the file, see ``kaggle.notebook.build_kernel``.
        not_for_upload: why the file cannot be uploaded to the competition, or None.
        test_checksum: CRC-32 of the pixels that were predicted, or None.

    Returns:
        how often each digit from 0 to 9 was predicted.

    Raises:
        SubmissionError: the file cannot be written.
    """
    out = Path(out)
    digits = predict_digits(probabilities)
    if not (out.is_file() and out.read_bytes() == to_csv(digits)):  # unless a stopped job has written it
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


def marked_name(out: Path, *, from_sample: bool) -> Path:
    """Return the name of a submission, with a mark if it is made from the built-in sample.

    >>> marked_name(Path("mine.csv"), from_sample=True).name
    'sample-mine.csv'
    """
    if from_sample and out.name and not out.name.startswith(f"{SAMPLE}-"):
        return out.with_name(f"{SAMPLE}-{out.name}")
    return out
