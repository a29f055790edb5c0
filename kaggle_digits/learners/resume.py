"""Continue a stopped training: lock its run folder, and write and read its checkpoints.

A run folder is locked while a training uses it, and nothing in it is overwritten. The checkpoint has every variable of
network and optimizer after the last whole epoch, and the metrics. A kill at any moment loses at most one epoch. The
previous checkpoint is kept, in case the newest is damaged later.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from kaggle_digits.errors import RunError
from kaggle_digits.files import locked, make_folder, numbered_names, partial_name, read_arrays, write_arrays
from kaggle_digits.learners import Training
from kaggle_digits.run import RUN_FILE, RowCounts, Run, read_run

log = logging.getLogger(__name__)

CHECKPOINT_FILES = ("checkpoint.npz", "checkpoint-before.npz")
"""The checkpoints of the last epoch and of the one before it."""

State = Literal["fresh", "resumable", "finished"]


class Claim(NamedTuple):
    """A run folder that is locked for this process: the run that it holds or will hold, and its state."""

    run: Run
    state: State


@contextmanager
def claim(wanted: Run, *, resume: bool = False, is_spent: Callable[[Run], bool] | None = None) -> Iterator[Claim]:
    """Lock the folder of a run, make it if needed, and decide once what it holds.

    Args:
        wanted: the training that is about to start, with the folder to train into.
        resume: continue the same training if the folder holds it.
        is_spent: whether to leave the same training alone. If so, or if the folder holds something else or is in use,
            try name-2, name-3 and so on.

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
    """Whether a folder is empty, except for what a kill left while the first run.json was written."""
    return not folder.exists() or (
        folder.is_dir() and {file.name for file in folder.iterdir()} <= {partial_name(Path(RUN_FILE))}
    )


def _locked_folder(folder: Path) -> Any:
    make_folder(folder)
    busy = RunError(
        f"{folder}: is being trained by another process. Expected a folder of its own for each training. Name another "
        "one, or wait for the other process."
    )
    return locked(folder, busy)


def _decide(wanted: Run, *, resume: bool) -> Claim:
    folder = wanted.folder
    if not (folder / RUN_FILE).exists():  # without run.json, the owner of a checkpoint is unknown
        remove_checkpoints(folder)
        return Claim(wanted, "fresh")
    if not resume:
        raise RunError(
            f"{folder}: holds a run already. Expected a new folder. Name another one, or continue it with --resume."
        )
    found = read_run(folder)
    check_same(found, wanted)
    if found.finished:
        return Claim(found, "finished")
    if found.device.place == wanted.device.place:
        return Claim(replace(wanted, devices_before=found.devices_before), "resumable")
    log.warning("%s was begun on %s and goes on on %s: the result will differ.", folder, found.device, wanted.device)
    return Claim(replace(wanted, devices_before=(*found.devices_before, found.device)), "resumable")


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a training that has ended or is unknown."""
    for name in CHECKPOINT_FILES:
        (folder / name).unlink(missing_ok=True)


def check_same(found: Run, wanted: Run) -> None:
    """Check that the run in a folder is the wanted one.

    Raises:
        RunError: it is another one.
    """
    if difference := find_difference(found, wanted):
        raise RunError(f"{found.folder}: {difference} Name another folder, or repeat the settings of the first run.")


def find_difference(found: Run, wanted: Run) -> str | None:
    """Say how a run differs from the wanted one, or return None."""
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


def _variables(model: Any) -> list[Any]:
    """Every variable that decides how training goes on, dropout's generators included."""
    return [*model.variables, *model.optimizer.variables]


def owner_of(training: Training) -> str:
    """Return what distinguishes a training from others whose checkpoints have the same arrays."""
    rows = RowCounts.of(training.rows, training.held_out)
    named = [training.recipe.settings(), training.seed, str(rows)]
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def write_checkpoint(folder: Path, model: Any, epochs: list[dict[str, Any]], owner: str | None = None) -> None:
    """Write what training needs to continue: every variable of a compiled network, and the metrics so far.

    Args:
        folder: the run folder.
        model: the network.
        epochs: the metrics of each epoch.
        owner: the training that may continue from it, see ``owner_of``; None for any.
    """
    import keras

    values = {f"v{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(model))}
    values["state"] = np.frombuffer(json.dumps({"owner": owner, "epochs": epochs}).encode(), np.uint8)
    newest, before = (folder / name for name in CHECKPOINT_FILES)
    if newest.exists():
        newest.replace(before)
    write_arrays(newest, values)


def load_checkpoint(folder: Path, model: Any, owner: str) -> list[dict[str, Any]]:
    """Restore the last whole epoch into the model and return the metrics up to it; [] if there was none."""
    variables = {f"v{i}": variable for i, variable in enumerate(_variables(model))}
    # The two backends keep the state of their generators in different kinds of integers.
    expected = {name: (tuple(v.shape), "f" if np.dtype(v.dtype).kind == "f" else "iu") for name, v in variables.items()}
    contents = _read_checkpoint(folder, expected, owner)
    if not contents:
        return []
    saved, epochs = _parse_checkpoint(contents, expected, owner)
    for name, value in saved.items():
        variables[name].assign(value)
    return epochs


def _read_checkpoint(folder: Path, expected: Mapping[str, tuple[tuple[int, ...], str]], owner: str) -> bytes:
    """Return the newest undamaged checkpoint, or nothing if no checkpoint was written.

    Raises:
        RunError: all checkpoints are damaged.
    """
    fault = ""
    for file in (folder / name for name in CHECKPOINT_FILES):
        if not file.exists():
            continue
        try:
            contents = file.read_bytes()
            _parse_checkpoint(contents, expected, owner)
        except (OSError, ValueError) as error:
            fault = fault or f"{file}: cannot be resumed from ({error})."
            continue
        if fault:
            log.warning("%s Going on from %s, an epoch earlier.", fault, file)
        return contents
    if not fault:
        return b""
    raise RunError(f"{fault} Expected the checkpoint that training wrote. Remove the run folder and train again.")


def _parse_checkpoint(
    contents: bytes, expected: Mapping[str, tuple[tuple[int, ...], str]], owner: str
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Return the values of all variables, and the metrics."""
    saved = read_arrays(io.BytesIO(contents), expected, others=["state"])
    try:
        state = json.loads(saved.pop("state").tobytes())
    except RecursionError as error:
        raise ValueError("its metrics are nested too deeply") from error
    epochs = state.get("epochs") if isinstance(state, dict) else None
    if not (isinstance(epochs, list) and all(isinstance(metrics, dict) for metrics in epochs)):
        raise ValueError("it does not say which epochs are done")
    if state.get("owner") not in (None, owner):
        raise ValueError("it belongs to another training")
    return saved, epochs
