"""Whose a run folder is: it is locked while a training has it, and nothing in it is overwritten."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kaggle_digits.errors import RunError
from kaggle_digits.files import locked, numbered_names, partial_name
from kaggle_digits.run import RUN_FILE, Run, read_run

log = logging.getLogger(__name__)

CHECKPOINT_FILES = ("checkpoint.npz", "checkpoint-before.npz")
"""The checkpoints of the last epoch and of the one before it."""

State = Literal["fresh", "resumable", "finished"]


class Claim(NamedTuple):
    """A run folder that this process has to itself: what to train into it or has been trained, and how it stands."""

    run: Run
    state: State


@contextmanager
def claim(wanted: Run, *, resume: bool = False, is_spent: Callable[[Run], bool] | None = None) -> Iterator[Claim]:
    """Lock the folder of a run, made if need be, and decide once what it holds.

    Args:
        wanted: the training that is about to start, with the folder to train into.
        resume: take up the same training if the folder holds it.
        is_spent: says of the same training that it shall not be taken up. If it says so, or the folder holds something
            else or is in use, take the next of name-2, name-3 and so on.

    Raises:
        RunError: the folder holds another training, or this one and ``resume`` is off, or another process has it.
    """
    with ExitStack() as stack:
        for folder in numbered_names(wanted.folder) if is_spent else (wanted.folder,):
            is_ours = not is_spent or (folder / RUN_FILE).exists() or _is_free(folder)
            try:
                if is_ours:
                    stack.enter_context(_locked_folder(folder))
                    claimed = _decide(replace(wanted, folder=folder), resume=resume or is_spent is not None)
                    if not (is_spent and is_spent(claimed.run)):
                        break
            except RunError:
                if not is_spent:
                    raise
            stack.pop_all().close()
        yield claimed


def _is_free(folder: Path) -> bool:
    """Whether a folder holds nothing but what a kill has left while the first run.json was written."""
    return not folder.exists() or (
        folder.is_dir() and {file.name for file in folder.iterdir()} <= {partial_name(Path(RUN_FILE))}
    )


def _locked_folder(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    busy = RunError(
        f"{folder}: is being trained by another process. Expected a folder of its own for each training. Name another "
        "one, or wait for the other process."
    )
    return locked(folder, busy)


def _decide(wanted: Run, *, resume: bool) -> Claim:
    folder = wanted.folder
    if not (folder / RUN_FILE).exists():  # without a run.json nobody knows what a checkpoint belongs to
        remove_checkpoints(folder)
        return Claim(wanted, "fresh")
    if not resume:
        raise RunError(
            f"{folder}: holds a run already. Expected a new folder. Name another one, or continue it with --resume."
        )
    found = read_run(folder)
    if difference := find_difference(found, wanted):
        raise RunError(f"{folder}: {difference} Name another folder, or repeat the settings of the first run.")
    if found.finished:
        return Claim(found, "finished")
    if found.device.place == wanted.device.place:
        return Claim(replace(wanted, devices_before=found.devices_before), "resumable")
    log.warning("%s was begun on %s and goes on on %s: the result will differ.", folder, found.device, wanted.device)
    return Claim(replace(wanted, devices_before=(*found.devices_before, found.device)), "resumable")


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a training that has ended, or that nobody knows any more."""
    for name in CHECKPOINT_FILES:
        (folder / name).unlink(missing_ok=True)


def find_difference(found: Run, wanted: Run) -> str | None:
    """Say in what a run differs from the one that is wanted, or return None."""
    name = wanted.recipe.name
    if found.recipe.name != name:
        return f"holds a run of {found.recipe.name}, and {name} was asked for."
    if found.recipe.settings() != wanted.recipe.settings():
        return f"holds a run of {name} with other settings than the recipe has now."
    if found.seed != wanted.seed:
        return f"holds a run with seed {found.seed}, and seed {wanted.seed} was asked for."
    if found.rows != wanted.rows:
        return f"holds a run on other rows ({found.rows}; now {wanted.rows})."
    return None
