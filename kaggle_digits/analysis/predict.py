"""Predict with trained runs: the job of the verb predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kaggle_digits.data import find_source, load_test_rows, why_not_uploadable
from kaggle_digits.digits import accuracy, calibrate
from kaggle_digits.errors import RunError
from kaggle_digits.kaggle.records import check_out, marked_name, write_checked
from kaggle_digits.learners import PACKAGED_RUN
from kaggle_digits.learners.members import predict_runs, run_folders, temperature_of
from kaggle_digits.run import VALIDATION_FILE, Run, read_run
from kaggle_digits.tables import SAMPLE


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
