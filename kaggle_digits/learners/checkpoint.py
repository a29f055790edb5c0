"""The checkpoint of a training: every variable of network and optimizer after the last whole epoch, and the metrics.

A kill at any moment loses at most one epoch. The checkpoint before is kept, in case the newest is damaged later.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kaggle_digits.errors import RunError
from kaggle_digits.files import read_arrays, write_arrays
from kaggle_digits.learners import Training
from kaggle_digits.learners.claim import CHECKPOINT_FILES
from kaggle_digits.run import RowCounts

log = logging.getLogger(__name__)


def _variables(model: keras.Model) -> list[Any]:
    """Every variable that decides how training goes on, dropout's generators included."""
    return [*model.variables, *model.optimizer.variables]


def owner_of(training: Training) -> str:
    """Return what tells a training from others whose checkpoints have the same arrays."""
    rows = RowCounts.of(training.rows, training.held_out)
    named = [training.recipe.settings(), training.seed, str(rows)]
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def write_checkpoint(folder: Path, model: keras.Model, epochs: list[dict[str, Any]], owner: str | None = None) -> None:
    """Write what training needs to continue: every variable of a compiled network, and the metrics so far.

    Args:
        folder: the run folder.
        model: the network.
        epochs: the metrics of each epoch.
        owner: the training that may go on from it, see ``owner_of``; None for any.
    """
    values = {f"v{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(model))}
    values["state"] = np.frombuffer(json.dumps({"owner": owner, "epochs": epochs}).encode(), np.uint8)
    newest, before = (folder / name for name in CHECKPOINT_FILES)
    if newest.exists():
        newest.replace(before)
    write_arrays(newest, values)


def load_checkpoint(folder: Path, model: keras.Model, owner: str) -> list[dict[str, Any]]:
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
        RunError: there are some, and all are damaged.
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
