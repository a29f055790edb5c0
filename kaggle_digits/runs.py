"""The run folder, the one hand-over between training and everything after it: read, write, lock, compare.

It holds ``run.json`` (what was trained, where, and what came of it), the trained form (``model.keras`` of a network,
``model.npz`` of a classical method), and ``validation.npz`` when rows were held out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_digits.config import (
    SCHEDULES,
    Augmentation,
    Classical,
    Ensemble,
    Network,
    Recipe,
    Restyling,
    RunError,
    atomic_path,
    locked,
)

if TYPE_CHECKING:
    from kaggle_digits.data import TrainingRows

RUN_FILE, VALIDATION_FILE, CHECKPOINT_FILE = "run.json", "validation.npz", "checkpoint.npz"
MEMBER = re.compile(r"([0-9]+)-of-([0-9]+)")
"""The name of a member's run folder."""


@dataclass(frozen=True)
class Run:
    """A finished run folder, loaded.

    Args:
        folder: where it lies.
        recipe: what was trained.
        record: the contents of run.json.
        model: what was trained: a Keras network, images → logits, what a classical method has learned, or a list of
            these for an ensemble.
    """

    folder: Path
    recipe: Recipe
    record: dict[str, Any]
    model: Any


def read_run(folder: Path) -> dict[str, Any]:
    """Read a run folder's run.json.

    Raises:
        RunError: there is none, or it is not one of ours.
    """
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        recipe_of(record)
        [record[name] for name in ("finished", "epochs", "seed", "rows", "source", "device", "submission")]
    except FileNotFoundError as error:
        raise RunError(
            f"{folder}: no {RUN_FILE} in it. Expected a run folder, as `kaggle-digits train --run {folder}` leaves it."
        ) from error
    except (ValueError, KeyError, TypeError, OSError, AssertionError) as error:
        raise RunError(
            f"{folder / RUN_FILE}: not readable as a run ({type(error).__name__}: {error}). Expected the file that "
            "training wrote. Train again into a new folder."
        ) from error
    return record


def member_folder(folder: Path, member: int, members: int) -> Path:
    """Return the run folder of one of the members that train into a folder, counted from 1."""
    return folder / f"{member}-of-{members}"


def member_folders(folder: Path, members: int) -> list[Path]:
    """Return the run folders of all members that train into a folder."""
    return [member_folder(folder, member, members) for member in range(1, members + 1)]


def member_seed(seed: int, member: int, members: int) -> int:
    """Return the seed of one of the members: another for each, also between ensembles of one size.

    >>> [member_seed(1, member, 3) for member in (1, 2, 3)]
    [3, 4, 5]
    """
    return (seed * members + member - 1) % 2**32


def run_folders(folder: Path) -> list[Path]:
    """Return the run folders that a folder stands for: itself, or those of all its members.

    Raises:
        RunError: members are missing, or of ensembles of different sizes.
    """
    found = [] if (folder / RUN_FILE).exists() else [file.parent.name for file in folder.glob(f"*/{RUN_FILE}")]
    members = [match for name in found if (match := MEMBER.fullmatch(name))]
    if not members:
        return [folder]
    sizes = {int(match[2]) for match in members}
    if len(sizes) > 1:
        raise RunError(
            f"{folder}: holds members of ensembles of {' and '.join(map(str, sorted(sizes)))}. Expected one ensemble. "
            "Name the run folders singly."
        )
    wanted = member_folders(folder, max(sizes))
    missing = [path.name for path in wanted if not (path / RUN_FILE).exists()]
    if missing:
        raise RunError(
            f"{folder}: {', '.join(missing)} of its members missing. Expected all. Train them with --member, or name "
            "the run folders singly."
        )
    return wanted


def write_run(folder: Path, record: dict[str, Any]) -> None:
    """Write a run folder's run.json, whole or not at all."""
    with atomic_path(folder / RUN_FILE) as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def recipe_of(record: dict[str, Any]) -> Recipe:
    """Rebuild the recipe of a run.json, so that a run does not depend on today's table."""
    fields = dict(record["recipe"])
    fields.pop("measured", None)  # was a recipe's own word once
    if "members" in fields:
        fields["members"] = tuple(map(_single_of, fields["members"]))
        return Ensemble(**fields)
    return _single_of(fields)


def _single_of(stored: dict[str, Any]) -> Network | Classical:
    fields = dict(stored)
    if "estimator" in fields:
        kind, settings = fields["estimator"]
        fields["estimator"] = (str(kind), dict(settings))
        return Classical(**fields)
    fields["layers"] = tuple((kind, options) for kind, options in fields["layers"])
    fields["optimizer"] = tuple(fields["optimizer"])
    rate = fields["learning_rate"]
    if isinstance(rate, dict):
        (kind,) = (kind for kind in SCHEDULES if {field.name for field in dataclasses.fields(kind)} == set(rate))
        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in rate.items()}
        fields["learning_rate"] = kind(**arguments)
    if changes := fields["augmentation"]:
        fields["augmentation"] = (Restyling if "strokes" in changes else Augmentation)(**changes)
    return Network(**fields)


@dataclass(frozen=True)
class Trace:
    """How a traced training went, measured at K of its S steps.

    Args:
        steps: (K,) int64, steps taken.
        seconds: (K,) float64, spent on training until then; measuring is not counted.
        accuracies: (K,) float64, on the held-out rows.
        losses: (S,) float64, of every step's batch.
    """

    steps: np.ndarray
    seconds: np.ndarray
    accuracies: np.ndarray
    losses: np.ndarray

    def reach(self, target: float) -> tuple[int, float] | None:
        """Return steps and seconds until an accuracy was first measured, or None."""
        reached = np.flatnonzero(self.accuracies >= target)
        return (int(self.steps[reached[0]]), float(self.seconds[reached[0]])) if reached.size else None


def trace_of(record: dict[str, Any]) -> Trace | None:
    """Collect the trace of a run.json, ends of epochs included, or None if the training was not traced."""
    epochs = record["epochs"]
    if not all("curve" in metrics for metrics in epochs):
        return None
    points: dict[int, tuple[float, float]] = {}
    losses: list[float] = []
    before = 0.0
    for metrics in epochs:
        points |= {step: (before + seconds, accuracy) for step, seconds, accuracy in metrics["curve"]}
        losses += metrics["losses"]
        before += metrics["seconds"]
        if "validation_accuracy" in metrics:
            points.setdefault(len(losses), (before, metrics["validation_accuracy"]))
    seconds, accuracies = np.array(list(points.values()), float).reshape(-1, 2).T
    return Trace(np.array(list(points), np.int64), seconds, accuracies, np.array(losses, float))


def describe_rows(rows: TrainingRows, held_out: TrainingRows | None) -> dict[str, int]:
    """Return the numbers that tell one set of training rows from another, as run.json keeps them."""
    return {
        "training": len(rows),
        "held_out": len(held_out) if held_out else 0,
        "checksum": zlib.crc32(rows.pixels.data, zlib.crc32(rows.digits.data)),
    }


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Return what decides on a recipe's training, as JSON keeps it, without the words about it."""
    words = {"summary", "source", "published", "published_accuracy", "published_seconds", "note"}

    def without_words(fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name not in words}

    settings = without_words(dataclasses.asdict(recipe))
    if isinstance(recipe, Ensemble):
        settings["members"] = [without_words(member) for member in settings["members"]]
    return json.loads(json.dumps(settings))


def find_difference(previous: dict[str, Any], recipe: Recipe, seed: int, rows: dict[str, int]) -> str | None:
    """Say in what the run of a run.json differs from the one that is wanted, or return None.

    Args:
        previous: the contents of run.json.
        recipe, seed: of the run that is wanted.
        rows: its rows, of ``describe_rows``.
    """
    there = recipe_of(previous)
    if there.name != recipe.name:
        return f"holds a run of {there.name}, and {recipe.name} was asked for."
    if settings_of(there) != settings_of(recipe):
        return f"holds a run of {recipe.name} with other settings than the recipe has now."
    if previous["seed"] != seed:
        return f"holds a run with seed {previous['seed']}, and seed {seed} was asked for."
    if previous["rows"] != rows:
        return f"holds a run on other rows ({previous['rows']}, now {rows})."
    return None


def lock_run(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep a run folder, made if need be, to this process.

    Raises:
        RunError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    busy = RunError(
        f"{folder}: is being trained by another process. Expected a folder of its own for each training. Name another "
        "one, or wait for the other."
    )
    return locked(folder, busy)


def can_resume(
    folder: Path, recipe: Recipe, rows: TrainingRows, *, seed: int, held_out: TrainingRows | None = None
) -> bool:
    """Whether the folder holds this very training, and no submission was made of it yet.

    The arguments are those of ``train.train_run``.
    """
    try:
        previous = read_run(folder)
    except RunError:
        return False
    if previous["submission"] or find_difference(previous, recipe, seed, describe_rows(rows, held_out)):
        return False
    try:
        with lock_run(folder):
            return True
    except RunError:
        return False


def mark_submitted(run: Run, submission: Path) -> None:
    """Note in a run folder which file was made of it: the same command then trains anew instead of resuming."""
    run.record["submission"] = str(submission)
    write_run(run.folder, run.record)
