"""From run folders and pixels to probabilities, and from these to a checked submission file."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kaggle_digits.errors import RunError
from kaggle_digits.learners import learner_of
from kaggle_digits.own import SUFFIXES
from kaggle_digits.recipes import RECIPES
from kaggle_digits.records import check_record_free, write_record
from kaggle_digits.runs import MEMBER, MODEL_FILE, Run, member_folders, read_run
from kaggle_digits.strategy import Device, device_of
from kaggle_digits.submission import check_free, check_submission, to_csv, write_submission

PACKAGED_RUN = Path(__file__).parent / "network"
"""The run folder of a small network that comes with the package, so that there is something to predict with."""


def load_run(folder: str | Path, device: Device | None = None) -> Run:
    """Load a finished run and its predictor.

    Args:
        folder: the run folder. The files in it may come from anyone.
        device: where to predict; None finds the best device for the recipe.

    Raises:
        RunError: it is no run folder, it is not finished, or a file in it cannot be loaded.
    """
    run = read_finished(folder)
    device = device or device_of(run.recipe)
    members = [load_run(member, device) for member in member_folders(run.folder, len(run.recipe.members))]
    predictors = [member.predictor for member in members if member.predictor]
    run.verify(MODEL_FILE)
    return replace(run, predictor=learner_of(run.recipe).load(run, device, predictors))


def read_finished(folder: str | Path) -> Run:
    """Read the description of a finished run.

    Raises:
        RunError: it is no run folder, or its training is not finished.
    """
    run = read_run(Path(folder))
    if not run.finished:
        raise _unfinished(run)
    return run


def _unfinished(run: Run) -> RunError:
    recipe, folder = run.recipe, run.folder
    usual = RECIPES.get(recipe.name)
    lengths = [[(net.epochs, net.least_steps) for net in each.networks] for each in (recipe, usual) if each]
    epochs = f" --epochs {lengths[0][0][0]}" if usual and lengths[0] != lengths[1] else ""
    where = shlex.quote(str(folder))
    if member := MEMBER.fullmatch(folder.name):
        where = f"{shlex.quote(str(folder.parent))} --member {member[1]}/{member[2]}"
    start = f"{folder}: its training is not finished. Expected a finished run. Continue it"
    if not usual and not recipe.source.endswith(SUFFIXES):  # made in Python, from which no command can make it again
        return RunError(f'{start} where it was started, with train_run(recipe, rows, "{folder}", resume=True).')
    if not usual and len({(net.epochs, net.least_steps) for net in recipe.networks}) == 1:
        epochs = f" --epochs {recipe.networks[0].epochs}" if not recipe.networks[0].least_steps else ""
    name = recipe.name if usual else shlex.quote(recipe.source)
    return RunError(f"{start}: kaggle-digits train --recipe {name} --run {where} --resume{epochs}")


def predict_runs(runs: Iterable[Run], pixels: np.ndarray, *, backend: str | None = None) -> list[np.ndarray]:
    """Predict with several runs, which are loaded one after another.

    Args:
        runs: as ``runs.read_run`` returns them.
        pixels: (N, 784) uint8, 0–255.
        backend: what computes the networks, see ``backend.choose_backend``.

    Returns:
        the probabilities (N, 10) of each run.
    """
    devices: dict[str | None, Device] = {}  # the same one for all runs of a precision
    probabilities = []
    for run in runs:
        precision = run.recipe.precision
        if precision not in devices:
            devices[precision] = device_of(run.recipe, backend=backend if precision else None)
        probabilities.append(load_run(run.folder, devices[precision]).predict(pixels))
    return probabilities


def temperature_of(runs: Sequence[Run]) -> float:
    """Return the temperature for the average of runs: the geometric mean of theirs.

    Probabilities are averaged as the runs give them, and calibrated after that, wherever several runs predict. So a
    temperature never changes a digit. On folds, averages of calibrated probabilities were better for some pairs of
    recipes and worse for others (``benchmarks/log.md``).
    """
    return math.exp(sum(math.log(run.temperature or 1.0) for run in runs) / len(runs))


def predict_digits(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Average the probabilities of one or several runs and take the likeliest digit.

    Args:
        probabilities: one (N, 10) array for each run.

    Returns:
        (N,) int64, 0–9.

    >>> predict_digits([np.eye(10)[[3, 7]]]).tolist()
    [3, 7]
    """
    return np.mean(probabilities, axis=0).argmax(axis=1).astype(np.int64)


def check_out(out: Path, *, overwrite: bool = False) -> None:
    """Check that a submission and its record can be written, before work is spent on them.

    Raises:
        SubmissionError: one of them exists and ``overwrite`` is off, or cannot be written there.
    """
    check_free(out, overwrite=overwrite)
    check_record_free(out, overwrite=overwrite)


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
