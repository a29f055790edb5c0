"""Train a recipe into a run folder, resumable after every epoch.

A run folder holds ``run.json`` (what was trained, where, and what came of it), ``model.keras``, and
``validation.npz`` when rows were held out. While the training is under way it holds ``checkpoint.npz`` instead of
the model: every variable of network and optimizer after the last whole epoch, and the metrics so far, in one file,
so that a kill at any moment loses at most one epoch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import platform
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

import kaggle_digits
from kaggle_digits.augment import augment_pixels
from kaggle_digits.config import Recipe, RunError, TrainingError, atomic_path, find_commit, locked
from kaggle_digits.data import TrainingRows, one_hot
from kaggle_digits.models import build_model, compile_model
from kaggle_digits.predict import (
    MODEL_FILE,
    RUN_FILE,
    VALIDATION_FILE,
    Run,
    load_run,
    predict_probabilities,
    read_record,
    recipe_of,
    to_images,
)
from kaggle_digits.strategy import Device, import_tensorflow

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.npz"


class Progress(Protocol):
    """What a training tells while it runs."""

    def step(self, done: int, total: int) -> None:
        """``done`` of ``total`` optimizer steps of the whole training are taken."""

    def epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        """An epoch is done and saved; ``metrics`` as in run.json, ``epochs`` in all."""


def train_run(
    recipe: Recipe,
    rows: TrainingRows,
    folder: Path,
    *,
    seed: int,
    device: Device,
    source: str,
    held_out: TrainingRows | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train a recipe and leave a run folder.

    The order of the rows and their augmentation depend on the seed and the epoch only. On one CPU the same seed
    gives the same weights bit for bit, also when the training was interrupted and resumed.

    Args:
        recipe: what to train.
        rows: rows to train on.
        folder: the run folder; must not hold a run unless ``resume``.
        seed: of initial weights, order, dropout and augmentation.
        device: where to train.
        source: where the rows come from, for the record.
        held_out: rows to measure accuracy on after every epoch; never trained on.
        resume: continue the run in ``folder``; a folder with no run is started, a finished run is returned.
        progress: is told of every step and epoch.

    Returns:
        the finished run.

    Raises:
        RunError: the folder holds a run and ``resume`` is off, or a run of another recipe, seed or data, or is being
            trained by another process.
        TrainingError: the loss is no longer a number, or the device failed.
    """
    with _locked(folder):
        record = _start_record(recipe, rows, seed=seed, device=device, source=source, held_out=held_out)
        if (folder / RUN_FILE).exists():
            if not resume:
                raise RunError(
                    f"{folder}: holds a run already. Expected a new folder. Name another one, or continue it with "
                    "--resume."
                )
            previous = read_record(folder)
            differing = _difference(previous, recipe, seed, record["rows"])
            if differing:
                raise RunError(f"{folder}: {differing} Name another folder, or repeat the settings of the first run.")
            if previous["finished"]:
                return load_run(folder, device)
            _note_change_of_device(folder, previous, record)

        keras.utils.set_random_seed(seed)
        steps_per_epoch = math.ceil(len(rows) / recipe.batch_size)
        with device.scope():
            model = build_model(recipe, precision=device.precision)
            compile_model(model, recipe, steps=steps_per_epoch * recipe.epochs)
            model.optimizer.build(model.trainable_variables)
        if resume:
            record["epochs"] = _load_checkpoint(folder, model)
        _write_record(folder, record)

        callbacks = [_StepCounter(progress, recipe, steps_per_epoch)] if progress else []
        probabilities = None
        for epoch in range(len(record["epochs"]), recipe.epochs):
            started = time.perf_counter()
            metrics = _fit_epoch(model, recipe, rows, epoch, seed=seed, device=device, callbacks=callbacks)
            metrics["seconds"] = round(time.perf_counter() - started, 3)
            if held_out:
                started = time.perf_counter()
                probabilities = predict_probabilities(model, recipe, held_out.pixels, replicas=device.replicas)
                metrics["validation_accuracy"] = accuracy(probabilities, held_out.digits)
                metrics["validation_seconds"] = round(time.perf_counter() - started, 3)
            record["epochs"].append(metrics)
            _write_checkpoint(folder, model, record["epochs"])
            if progress:
                progress.epoch(metrics, recipe.epochs)

        if held_out:
            if probabilities is None:  # stopped between the last checkpoint and the end
                probabilities = predict_probabilities(model, recipe, held_out.pixels, replicas=device.replicas)
            with atomic_path(folder / VALIDATION_FILE) as path:
                np.savez_compressed(path, probabilities=probabilities, digits=held_out.digits)
        with atomic_path(folder / MODEL_FILE) as path:
            model.save(path, include_optimizer=False)
        record["finished"] = True
        _write_record(folder, record)
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        return Run(folder, recipe, record, model)


def _fit_epoch(
    model: keras.Model,
    recipe: Recipe,
    rows: TrainingRows,
    epoch: int,
    *,
    seed: int,
    device: Device,
    callbacks: list[keras.callbacks.Callback],
) -> dict[str, Any]:
    """Train one epoch, counted from 0; return its number from 1, its mean loss and its accuracy while training."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(rows))
    # A last batch smaller than the number of replicas leaves one of them empty, an old source of NaN: leave its few
    # rows out, others in every epoch.
    last_batch = len(order) % recipe.batch_size
    if last_batch < device.replicas:
        order = order[: len(order) - last_batch]
    pixels = rows.pixels[order]
    if recipe.augmentation:
        pixels = augment_pixels(pixels, recipe.augmentation, rng)
    try:
        fitted = model.fit(
            to_images(pixels, recipe),
            one_hot(rows.digits[order]),
            batch_size=recipe.batch_size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        ).history
    except import_tensorflow().errors.OpError as error:
        raise TrainingError(
            f"{recipe.name}: the {device.kind} failed in epoch {epoch + 1} ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). Expected a device with enough free memory. Free it, or use --device cpu; "
            "whole epochs are kept."
        ) from error
    loss = fitted["loss"][0]
    if not math.isfinite(loss):
        raise TrainingError(
            f"{recipe.name}: the loss became {loss} in epoch {epoch + 1}. Expected a finite number. Lower the recipe's "
            "learning rate."
        )
    return {"epoch": epoch + 1, "loss": loss, "accuracy": fitted["accuracy"][0]}


def accuracy(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return correct / seen, over all rows.

    Args:
        probabilities: (N, 10).
        digits: (N,), the truth.

    >>> accuracy(np.eye(10)[[1, 2, 3, 4]], np.array([1, 2, 3, 9]))
    0.75
    """
    return float((probabilities.argmax(axis=1) == digits).mean())


def can_resume(
    folder: Path, recipe: Recipe, rows: TrainingRows, *, seed: int, held_out: TrainingRows | None = None
) -> bool:
    """Whether the folder holds this very training, and no submission was made of it yet.

    The arguments are those of ``train_run``.
    """
    try:
        previous = read_record(folder)
    except RunError:
        return False
    if previous["submission"] or _difference(previous, recipe, seed, _describe_rows(rows, held_out)):
        return False
    try:
        with _locked(folder):
            return True
    except RunError:
        return False


def mark_submitted(run: Run, submission: Path) -> None:
    """Note in a run folder which file was made of it: the same command then trains anew instead of resuming."""
    run.record["submission"] = str(submission)
    _write_record(run.folder, run.record)


def _difference(previous: dict[str, Any], recipe: Recipe, seed: int, rows: dict[str, int]) -> str | None:
    """Say in what the run of a run.json differs from the one that is wanted, or return None."""
    there = recipe_of(previous)
    if there.name != recipe.name:
        return f"holds a run of {there.name}, and {recipe.name} was asked for."
    words = {name: getattr(recipe, name) for name in ("summary", "source", "published", "measured")}
    if dataclasses.replace(there, **words) != recipe:
        return f"holds a run of {recipe.name} with other settings than the recipe has now."
    if previous["seed"] != seed:
        return f"holds a run with seed {previous['seed']}, and seed {seed} was asked for."
    if previous["rows"] != rows:
        return f"holds a run on other rows ({previous['rows']}, now {rows})."
    return None


def _locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep a run folder to this process."""
    folder.mkdir(parents=True, exist_ok=True)
    busy = RunError(
        f"{folder}: is being trained by another process. Expected a folder of its own for each training. Name another "
        "one, or wait for the other."
    )
    return locked(folder, busy)


def _note_change_of_device(folder: Path, previous: dict[str, Any], record: dict[str, Any]) -> None:
    """Say and record that a run goes on elsewhere than it was begun."""
    if any(previous["device"][name] != record["device"][name] for name in ("kind", "replicas", "precision")):
        record["devices_before"] = [*previous.get("devices_before", []), previous["device"]]
        log.warning(
            "%s was begun on %s and goes on on %s: the result will differ in its last digits.",
            folder,
            previous["device"],
            record["device"],
        )


def _describe_rows(rows: TrainingRows, held_out: TrainingRows | None) -> dict[str, int]:
    return {
        "training": len(rows),
        "held_out": len(held_out) if held_out else 0,
        "checksum": zlib.crc32(rows.pixels.data, zlib.crc32(rows.digits.data)),
    }


def _start_record(
    recipe: Recipe, rows: TrainingRows, *, seed: int, device: Device, source: str, held_out: TrainingRows | None
) -> dict[str, Any]:
    return {
        "finished": False,
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "source": source,
        "rows": _describe_rows(rows, held_out),
        "device": {
            "kind": device.kind,
            "replicas": device.replicas,
            "precision": device.precision,
            "reason": device.reason,
        },
        "versions": {
            "kaggle_digits": kaggle_digits.__version__,
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "tensorflow": import_tensorflow().__version__,
            "numpy": np.__version__,
        },
        "commit": find_commit(),
        "submission": None,
        "epochs": [],
    }


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    with atomic_path(folder / RUN_FILE) as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _variables(model: keras.Model) -> list[Any]:
    """Every variable that decides how training goes on, dropout's generators included."""
    return [*model.variables, *model.optimizer.variables]


def _write_checkpoint(folder: Path, model: keras.Model, epochs: list[dict[str, Any]]) -> None:
    values = {f"v{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(model))}
    with atomic_path(folder / CHECKPOINT_FILE) as path:
        np.savez(path, epochs=np.array(json.dumps(epochs)), **values)


def _load_checkpoint(folder: Path, model: keras.Model) -> list[dict[str, Any]]:
    """Restore the last whole epoch into the model and return the metrics up to it; [] if there was none."""
    file = folder / CHECKPOINT_FILE
    if not file.exists():
        return []
    try:
        with file.open("rb") as stream, np.load(stream) as saved:
            for index, variable in enumerate(_variables(model)):
                variable.assign(saved[f"v{index}"])
            return json.loads(str(saved["epochs"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{file}: cannot be resumed from ({type(error).__name__}: {error}). Expected the checkpoint that training "
            "wrote. Remove the run folder and train again."
        ) from error


class _StepCounter(keras.callbacks.Callback):
    """Pass Keras' batches on as steps of the whole training."""

    def __init__(self, progress: Progress, recipe: Recipe, steps_per_epoch: int) -> None:
        super().__init__()
        self.progress, self.steps_per_epoch, self.total = progress, steps_per_epoch, steps_per_epoch * recipe.epochs
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.progress.step(self.epoch * self.steps_per_epoch + batch + 1, self.total)
