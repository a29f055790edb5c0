"""Predict with trained runs: the job of the verb predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kaggle_digits.data import find_source, load_test_rows, why_not_uploadable
from kaggle_digits.devices import start_backend
from kaggle_digits.digits import accuracy, calibrate
from kaggle_digits.errors import RunError
from kaggle_digits.kaggle.records import check_out, marked_name, write_checked
from kaggle_digits.learners import PACKAGED_RUN
from kaggle_digits.learners.members import predict_runs, run_folders, temperature_of
from kaggle_digits.run import VALIDATION_FILE, Run, read_run
from kaggle_digits.tables import SAMPLE


@dataclass(frozen=True)
class Prediction:
    """The result of ``predict_submission``.

    Args:
        out: the file that was written.
        rows: how many rows it has.
        unsure: how many of them were read with less than 90% certainty.
        usual_unsure: the same share of held-out rows for these runs; None if that is not known.
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
        out: the file to write. Its name gets "sample" if it is made from the built-in sample.
        data: where the data is, see ``data.find_source``.
        backend: the backend for the networks, see ``devices.choose_backend``.
        overwrite: whether ``out`` may replace a file.

    Raises:
        InputError: the data, a run folder or the file name cannot be used.
    """
    source = find_source(data)
    runs = [read_run(folder) for named in folders or [PACKAGED_RUN] for folder in run_folders(named)]
    from_sample = source.is_sample or any(run.source == SAMPLE for run in runs)
    out = marked_name(out, from_sample=from_sample)
    check_out(out, overwrite=overwrite)
    if any(run.recipe.networks for run in runs):
        start_backend(backend)  # before tables are read
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
    if not (run.folder / VALIDATION_FILE).exists():  # as in the network that comes with the package
        return run.threshold.unsure_digits if run.threshold else None
    try:
        return _count_unsure(calibrate(run.probabilities, run.temperature or 1.0)) / run.rows.held_out
    except RunError:  # this damage does not matter for predicting
        return None
