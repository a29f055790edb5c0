"""Keep a record beside each submission file: what made it, and what Kaggle said; make the table of a folder.

``fast-seed0.csv`` has its record in ``fast-seed0.json``::

    {"format": "kaggle_digits submission", "file": "fast-seed0.csv", "sha256": "…", "rows": 28000,
     "runs": [{"recipe", "seed", "commit", "versions", "device", "held_out_rows", "held_out_accuracy"}],
     "build": null or the build of the notebook that wrote it, on Kaggle's machines,
     "upload": null or {"competition", "message", "state", "reference", "date", "public_score", "error", "url"}}

``state`` is "sent" (the creating request went out, no answer yet; ``reference`` is that of an older try, if there was
one), "pending", "complete" or "error".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kaggle_digits.config import SubmissionError, atomic_path, locked, numbered_names

FORMAT = "kaggle_digits submission"
SUBMISSIONS, README_FILE = "submissions", "README.md"
RUN_FIELDS = ("recipe", "seed", "commit", "held_out_rows", "held_out_accuracy")
UPLOAD_FIELDS = ("competition", "message", "state", "reference", "date", "public_score", "error", "url")
BEGIN, END = "<!-- records: made by kaggle-digits, do not edit -->", "<!-- end of records -->"


def record_path(file: Path) -> Path:
    """Return where the record of a submission file lies.

    >>> record_path(Path("submissions/fast-seed0.csv")).name
    'fast-seed0.json'
    """
    return file.with_suffix(".json")


def free_name(file: Path) -> Path:
    """Return the first of file, file-2, file-3 … that neither a submission nor a record has."""
    return next(name for name in numbered_names(file) if not (name.exists() or record_path(name).exists()))


def write_record(file: Path, runs: Iterable[dict[str, Any]], *, build: str | None = None) -> None:
    """Record which runs made a submission file; what an older file of that name had is replaced.

    Args:
        file: the submission, already written.
        runs: the contents of each run.json.
        build: of the notebook that made it, see ``notebook.build_kernel``.
    """
    record = _new_record(file)
    found = _record_there(file)
    # The same contents again: what is known of their submission stays.
    upload = found["upload"] if found and found["sha256"] == record["sha256"] else None
    save_record(file, {**record, "runs": [_describe_run(run) for run in runs], "build": build, "upload": upload})


def read_record(file: Path) -> dict[str, Any]:
    """Read the record of a submission file; a fresh one if there is none, or one of other contents.

    Raises:
        SubmissionError: another file has the record's name, or the record is that of another file.
    """
    fresh = _new_record(file)
    found = _record_there(file)
    if found and found["sha256"] == fresh["sha256"]:
        return found
    if found and found["file"] != file.name:
        raise _name_taken(file, f"is the record of {found['file']}")
    return fresh


def save_record(file: Path, record: dict[str, Any]) -> None:
    """Write the record of a submission file, whole or not at all."""
    with atomic_path(record_path(file)) as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def check_record_free(file: Path, *, overwrite: bool = False) -> None:
    """Check that the record of a submission file can be written, before work is spent on it.

    Raises:
        SubmissionError: another file has the record's name, or the record tells of an upload and ``overwrite`` is off.
    """
    found = _record_there(file)
    if found and found["upload"] and not overwrite:
        raise SubmissionError(
            f"{record_path(file)}: tells of a submission to Kaggle. Expected a new name for {file.name}. Choose "
            "another, or pass --force to replace both."
        )


def load_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all files of a folder that were submitted: best public score first, unscored last."""
    found = (load_record(path) for path in sorted(folder.glob("*.json")))
    records = [record for record in found if record and record["upload"] and record["upload"]["reference"]]
    return sorted(records, key=lambda record: -(score_of(record) or 0.0))


def score_of(record: dict[str, Any]) -> float | None:
    """Return the public score of a record, 0–1, or None while there is none."""
    try:
        return float(record["upload"]["public_score"])
    except (TypeError, ValueError):  # none yet, or a word of Kaggle's
        return None


def rank_of(file: Path) -> tuple[int, int] | None:
    """Return a file's place by public score, and among how many: its folder's submissions to the same competition."""
    own = read_record(file)
    score = score_of(own)
    if score is None:
        return None
    rivals = [r for r in load_records(file.parent) if r["upload"]["competition"] == own["upload"]["competition"]]
    scores = [other for record in rivals if (other := score_of(record)) is not None]
    return 1 + sum(other > score for other in scores), len(scores)


def update_table(folder: Path) -> Path | None:
    """Write the table of a folder's submissions into its README.md, between the two marks.

    A README.md without the marks is somebody's own and is left alone; one is made only in a folder named submissions.

    Returns:
        the README, or None where there is none to write into.
    """
    readme = folder / README_FILE
    if readme.exists():
        try:
            text = readme.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return None
    elif folder.resolve().name == SUBMISSIONS:
        text = f"# Submissions\n\n{BEGIN}{END}\n"
    else:
        return None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return None
    with locked(folder), atomic_path(readme) as path:
        path.write_text(f"{before}{BEGIN}\n\n{_table(load_records(folder))}\n\n{END}{after}", encoding="utf-8")
    return readme


def _table(records: list[dict[str, Any]]) -> str:
    if not records:
        return "None yet."
    lines = [
        "| file | made by | held-out accuracy | public score | date | commit | reference |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_row, records)])


def _row(record: dict[str, Any]) -> str:
    upload = record["upload"]
    runs = record["runs"]
    made_by = ", ".join(f"{run['recipe']} seed {run['seed']}" for run in runs)
    held_out = ", ".join(
        f"{run['held_out_accuracy']:.2%} of {run['held_out_rows']:,}" for run in runs if run["held_out_rows"]
    )
    commits = ", ".join(sorted({run["commit"][:10] for run in runs if run["commit"]}))
    score = {"error": "failed", "complete": upload["public_score"] or "not published"}.get(upload["state"], "pending")
    cells = (record["file"], made_by, held_out, score, upload["date"][:10], commits, str(upload["reference"]))
    return "| " + " | ".join(cell or "–" for cell in cells) + " |"


def _describe_run(run: dict[str, Any]) -> dict[str, Any]:
    member = run["recipe"].get("member")
    return {
        "recipe": run["recipe"]["name"],
        **{name: run[name] for name in ("seed", "commit", "versions", "device")},
        "epochs": member["epochs"] if member else len(run["epochs"]),
        "held_out_rows": run["rows"]["held_out"],
        "held_out_accuracy": run["epochs"][-1].get("validation_accuracy"),
    }


def _new_record(file: Path) -> dict[str, Any]:
    contents = file.read_bytes()
    return {
        "format": FORMAT,
        "file": file.name,
        "sha256": hashlib.sha256(contents).hexdigest(),
        "rows": max(contents.count(b"\n") - 1, 0),
        "runs": [],
        "build": None,
        "upload": None,
    }


def load_record(path: Path) -> dict[str, Any] | None:
    """Return the record in a file, or None where there is none: no file, somebody else's, or a damaged one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        is_record = record["format"] == FORMAT
        [record[name] for name in ("file", "sha256", "build")]
        [[run[name] for name in RUN_FIELDS] for run in record["runs"]]
        if record["upload"]:
            [record["upload"][name] for name in UPLOAD_FIELDS]
            _row(record)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return record if is_record else None


def _record_there(file: Path) -> dict[str, Any] | None:
    """Return the record beside a file, if there is one."""
    path = record_path(file)
    if path == file:
        raise SubmissionError(
            f"{file}: has the name of a record. Expected a submission, as in {file.stem}.csv. Rename it."
        )
    if not path.exists():
        return None
    found = load_record(path)
    if not found:
        raise _name_taken(file, "is not a record of kaggle-digits")
    return found


def _name_taken(file: Path, why: str) -> SubmissionError:
    return SubmissionError(
        f"{record_path(file)}: {why}, and lies where the record of {file.name} belongs. Expected that name to be free. "
        "Move or rename one of the two."
    )
