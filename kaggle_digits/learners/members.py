"""Several runs that predict together: the members of an ensemble, the folds of a validation, or any runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kaggle_digits.errors import RunError
from kaggle_digits.learners import load_run
from kaggle_digits.run import MEMBER, RUN_FILE, Run, member_folders
from kaggle_digits.strategy import Device, device_of


def run_folders(folder: Path) -> list[Path]:
    """Return the run folders in a folder: the folder itself, or those of all its members.

    Raises:
        RunError: members are missing, or belong to ensembles of different sizes.
    """
    found = [] if (folder / RUN_FILE).exists() else [file.parent.name for file in folder.glob(f"*/{RUN_FILE}")]
    members = [match for name in found if (match := MEMBER.fullmatch(name))]
    if not members:
        return [folder]
    sizes = {int(match[2]) for match in members}
    if len(sizes) > 1:
        raise RunError(
            f"{folder}: holds members of ensembles of {' and '.join(map(str, sorted(sizes)))}. Expected one ensemble. "
            "Name the run folders one by one."
        )
    folders = member_folders(folder, max(sizes))
    missing = [path.name for path in folders if not (path / RUN_FILE).exists()]
    if missing:
        raise RunError(
            f"{folder}: {', '.join(missing)} of its members missing. Expected all. Repeat the command that trained "
            "them, or name the run folders one by one."
        )
    return folders


def temperature_of(runs: Sequence[Run]) -> float:
    """Return the temperature for the average of runs: the geometric mean of theirs.

    Probabilities are averaged as the runs give them, and calibrated after that, wherever several runs predict. So a
    temperature never changes a digit. On folds, averages of calibrated probabilities were better for some pairs of
    recipes and worse for others (``benchmarks/log.md``).
    """
    return math.exp(sum(math.log(run.temperature or 1.0) for run in runs) / len(runs))


def predict_runs(runs: Iterable[Run], pixels: np.ndarray, *, backend: str | None = None) -> list[np.ndarray]:
    """Predict with several runs, which are loaded one after another.

    Args:
        runs: as ``run.read_run`` returns them.
        pixels: (N, 784) uint8, 0–255.
        backend: the backend for the networks, see ``devices.choose_backend``.

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
