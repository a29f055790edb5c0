"""Fit a network epoch by epoch, with a checkpoint after each.

While the training is under way its run folder holds ``checkpoint.npz``: every variable of network and optimizer after
the last whole epoch, and the metrics so far, in one file, so that a kill at any moment loses at most one epoch.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from kaggle_digits.augment import augment_pixels
from kaggle_digits.config import Network, OneCycle, Restyling, RunError, TrainingError, atomic_path
from kaggle_digits.data import TrainingRows, one_hot
from kaggle_digits.models import build_model, compile_model, epoch_rate, without_own_normalisation
from kaggle_digits.predict import MODEL_FILE, accuracy, normalise_for, predict_probabilities, to_images
from kaggle_digits.restyle import restyle_pixels
from kaggle_digits.runs import CHECKPOINT_FILE
from kaggle_digits.strategy import TPU_STEPS_PER_EXECUTION, Device


class Progress(Protocol):
    """What a training tells while it runs."""

    def step(self, done: int, total: int) -> None:
        """``done`` of ``total`` optimizer steps of the whole training are taken."""

    def epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        """An epoch is done and saved; ``metrics`` as in run.json, ``epochs`` in all."""


def fit_network(
    recipe: Network,
    rows: TrainingRows,
    folder: Path,
    *,
    seed: int,
    device: Device,
    tuning: TrainingRows | None = None,
    held_out: TrainingRows | None = None,
    trace: bool = False,
    progress: Progress | None = None,
) -> tuple[keras.Sequential, list[dict[str, Any]], np.ndarray | None]:
    """Train a network, from the checkpoint in the folder where there is one.

    Args:
        recipe: what to train.
        rows: rows to train on.
        folder: the run folder, which keeps the checkpoints.
        seed: of initial weights, order, dropout and augmentation.
        device: where to train.
        tuning: rows whose accuracy decides on learning rate and end, if the recipe asks for it.
        held_out: rows to measure accuracy on after every epoch.
        trace: also measure within the first epoch, where most is learned, and keep the loss of every step; the time
            for it is not counted.
        progress: is told of every step and epoch.

    Returns:
        the trained network, the metrics of every epoch (loss and accuracy while training are means over its batches),
        and the probabilities (N, 10) of the held-out rows, if there are any.

    Raises:
        RunError: the checkpoint is damaged.
        TrainingError: the loss is no longer a number, or the device failed.
    """
    keras.utils.set_random_seed(seed)
    started = time.perf_counter()
    rows = replace(rows, pixels=normalise_for(recipe, rows.pixels))
    preparing_seconds = time.perf_counter() - started
    steps_per_epoch = math.ceil(len(rows) / recipe.batch_size)
    with device.scope():
        model = build_model(
            recipe, precision=device.precision, synchronized=device.replicas > 1 and device.backend == "tensorflow"
        )
        on_tpu = device.kind == "tpu" and device.backend == "tensorflow"
        # A trace needs every step.
        several = TPU_STEPS_PER_EXECUTION if on_tpu and not trace else 1
        compile_model(model, recipe, steps=steps_per_epoch * recipe.epochs, steps_per_execution=several)
    epochs = _load_checkpoint(folder, model, device)

    probabilities = None

    def predict(rows: TrainingRows) -> np.ndarray:
        # Averaging is for the end, when it is worth its time.
        how = recipe if len(epochs) >= recipe.epochs - 1 else replace(recipe, shift_averaging=0, slant_averaging=0.0)
        if device.processes == 1:
            return predict_probabilities(model, how, rows.pixels, device=device)
        # Each process for itself, with a network of its own: no row is exchanged.
        own = build_model(recipe, precision=device.precision)
        own.set_weights(model.get_weights())
        return predict_probabilities(own, how, rows.pixels)

    make = functools.partial(_make_batches, recipe, rows, seed=seed, device=device)
    with contextlib.closing(_make_ahead(make, range(len(epochs), recipe.epochs))) as all_batches:
        while not _is_over(recipe, epochs):
            epoch = len(epochs)
            done, total = epoch * steps_per_epoch, recipe.epochs * steps_per_epoch
            callbacks: list[keras.callbacks.Callback] = (
                [_StepCounter(progress, done, done + steps_per_epoch, total)] if progress else []
            )
            tracer = None
            if trace:
                tracer = _Tracer(
                    trace_steps(steps_per_epoch) if epoch == 0 and held_out else set(),
                    lambda: accuracy(predict(held_out), held_out.digits) if held_out else 0.0,
                    # What Keras tells its callbacks under TPUStrategy is of the first replica only.
                    gather=on_tpu,
                )
                callbacks.append(tracer)
            if not isinstance(recipe.learning_rate, OneCycle):
                model.optimizer.learning_rate = epoch_rate(recipe, [e.get("tuning_accuracy", 0.0) for e in epochs])
            started = time.perf_counter()
            metrics = _fit_epoch(model, recipe, next(all_batches), epoch, device=device, callbacks=callbacks)
            metrics["seconds"] = round(time.perf_counter() - started + preparing_seconds, 3)
            preparing_seconds = 0.0
            if tracer:
                metrics["seconds"] = round(metrics["seconds"] - tracer.measuring_seconds, 3)
                metrics |= {"losses": tracer.losses, "curve": tracer.curve}
            if tuning:
                measured = accuracy(predict(tuning), tuning.digits)
                # All processes must decide alike, whatever their processors' last digits.
                metrics["tuning_accuracy"] = json.loads(device.from_first(json.dumps(measured).encode()))
            if held_out:
                started = time.perf_counter()
                probabilities = predict(held_out)
                metrics["validation_accuracy"] = accuracy(probabilities, held_out.digits)
                metrics["validation_seconds"] = round(time.perf_counter() - started, 3)
            epochs.append(metrics)
            if device.process == 0:
                write_checkpoint(folder, model, epochs)
            if progress:
                progress.epoch(metrics, recipe.epochs)
    if held_out and probabilities is None:  # it was stopped after the last checkpoint
        probabilities = predict(held_out)
    return model, epochs, probabilities


def save_network(folder: Path, model: keras.Sequential) -> None:
    """Write the trained network, which replaces its checkpoint."""
    # Of a compiled network Keras would write the optimizer, too, twice as much again.
    with atomic_path(folder / MODEL_FILE) as path:
        without_own_normalisation(model).save(path)


def _is_over(recipe: Network, epochs: list[dict[str, Any]]) -> bool:
    if len(epochs) == recipe.epochs:
        return True
    return bool(epochs and recipe.stop_at is not None and epochs[-1]["tuning_accuracy"] >= recipe.stop_at)


@dataclass(frozen=True)
class Batches:
    """One epoch, or this process' share of it, batch after batch.

    Args:
        images: (rows, 28, 28, 1) float32.
        labels: (rows, 10) float32.
        weights: (rows,) float32, 0 for rows that only fill a batch.
        size: rows in a batch; all have the same.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    size: int


def _make_batches(recipe: Network, rows: TrainingRows, epoch: int, *, seed: int, device: Device) -> Batches:
    """Shuffle and augment the rows of one epoch, counted from 0; the same for the same seed and epoch."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(rows))
    pixels, digits = rows.pixels[order], rows.digits[order]
    if isinstance(recipe.augmentation, Restyling):
        pixels = restyle_pixels(pixels, digits, recipe.augmentation, rng)
    if recipe.augmentation:
        pixels = augment_pixels(pixels, recipe.augmentation, rng)
    taken, weights = share_batches(
        len(rows), recipe.batch_size, replicas=device.replicas, processes=device.processes, process=device.process
    )
    images, labels = to_images(pixels[taken.ravel()], recipe), one_hot(digits[taken.ravel()])
    return Batches(images, labels, weights.ravel(), taken.shape[1])


def _make_ahead(make: Callable[[int], Batches], epochs: range) -> Generator[Batches]:
    """Yield the batches of each epoch, and make the next one's meanwhile: training leaves a core partly idle."""
    with ThreadPoolExecutor(1) as maker:
        upcoming = maker.submit(make, epochs.start)
        for epoch in epochs:
            batches = upcoming.result()
            if epoch + 1 in epochs:
                upcoming = maker.submit(make, epoch + 1)
            yield batches


def _fit_epoch(
    model: keras.Model,
    recipe: Network,
    batches: Batches,
    epoch: int,
    *,
    device: Device,
    callbacks: list[keras.callbacks.Callback],
) -> dict[str, Any]:
    """Train one epoch, counted from 0; return its number from 1, and loss and accuracy, means over its batches."""
    try:
        with device.scope():
            if device.kind == "cpu" and device.backend == "tensorflow" and device.replicas == 1:
                fitted = _fit_batches(model, batches, callbacks)
            else:
                history = model.fit(
                    batches.images,
                    batches.labels,
                    sample_weight=batches.weights,
                    batch_size=batches.size,
                    initial_epoch=epoch,
                    epochs=epoch + 1,
                    shuffle=False,
                    verbose=0,
                    callbacks=callbacks,
                ).history
                fitted = {name: history[name][0] for name in ("loss", "accuracy")}
    except device.failures as error:
        if device.processes > 1:  # most likely another one was lost, which train_run says
            raise
        raise TrainingError(
            f"{recipe.name}: the {device.kind} failed in epoch {epoch + 1} ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). Expected a device with enough free memory. Free it, or use --device cpu; "
            "whole epochs are kept."
        ) from error
    loss = fitted["loss"]
    if not math.isfinite(loss):
        raise TrainingError(
            f"{recipe.name}: the loss became {loss} in epoch {epoch + 1}. Expected a finite number. Lower the recipe's "
            "learning rate."
        )
    return {"epoch": epoch + 1, **fitted}


def _fit_batches(model: keras.Model, batches: Batches, callbacks: list[keras.callbacks.Callback]) -> dict[str, float]:
    """Do what ``model.fit`` does on one CPU; return loss and accuracy, means over the batches.

    In Keras' own loop TensorFlow now and then computes a whole epoch on a single core, at random, which takes up to
    twice as long (``benchmarks/log.md``).
    """
    for callback in callbacks:
        callback.set_model(model)
    summed = {"loss": 0.0, "accuracy": 0.0}
    means = {}
    for step, start in enumerate(range(0, len(batches.images), batches.size)):
        rows = slice(start, start + batches.size)
        model.reset_metrics()  # not every version of Keras does it by itself
        found = model.train_on_batch(
            batches.images[rows], batches.labels[rows], sample_weight=batches.weights[rows], return_dict=True
        )
        summed = {name: total + float(found[name]) for name, total in summed.items()}
        means = {name: total / (step + 1) for name, total in summed.items()}
        for callback in callbacks:
            callback.on_train_batch_end(step, means)
    return means


def share_batches(
    rows: int, batch_size: int, *, replicas: int = 1, processes: int = 1, process: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Cut an epoch into batches of one shape, each of which divides by the number of replicas.

    What a batch lacks is filled with rows from the front of the epoch, whose weight is 0. The others' weights make up
    for it, so that the mean over a whole batch, of any share of it per replica, is the mean over its real rows.

    Args:
        rows: in the epoch.
        batch_size: rows in a batch.
        replicas: over all processes.
        processes, process: how many, and which one's share is wanted.

    Returns:
        which row stands where, (steps, share) int64, and its weight, (steps, share) float32.

    >>> taken, weights = share_batches(5, 3, replicas=2)
    >>> taken.tolist()
    [[0, 1, 2, 0], [3, 4, 0, 1]]
    >>> (weights * 3).astype(int).tolist()
    [[4, 4, 4, 0], [6, 6, 0, 0]]
    """
    steps = math.ceil(rows / batch_size)
    width = batch_size + -batch_size % replicas
    taken, weights = np.zeros((steps, width), np.int64), np.zeros((steps, width), np.float32)
    for step in range(steps):
        real = min(batch_size, rows - step * batch_size)
        taken[step, :real] = step * batch_size + np.arange(real)
        taken[step, real:] = np.resize(np.arange(rows), width - real)
        weights[step, :real] = width / real
    share = slice(process * width // processes, (process + 1) * width // processes)
    return taken[:, share], weights[:, share]


def _variables(model: keras.Model) -> list[Any]:
    """Every variable that decides how training goes on, dropout's generators included."""
    return [*model.variables, *model.optimizer.variables]


def write_checkpoint(folder: Path, model: keras.Model, epochs: list[dict[str, Any]]) -> None:
    """Keep every variable of a compiled network and the metrics of the epochs so far, from which training goes on."""
    values = {f"v{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(model))}
    with atomic_path(folder / CHECKPOINT_FILE) as path:
        np.savez(path, epochs=np.array(json.dumps(epochs)), **values)


def _load_checkpoint(folder: Path, model: keras.Model, device: Device) -> list[dict[str, Any]]:
    """Restore the last whole epoch into the model and return the metrics up to it; [] if there was none."""
    file = folder / CHECKPOINT_FILE
    # The first process has the folder; the others get what it reads.
    there = device.process == 0 and file.exists()
    contents = device.from_first(b"there" + file.read_bytes() if there else b"")
    if not contents:
        return []
    try:
        with np.load(io.BytesIO(contents.removeprefix(b"there"))) as saved:
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

    def __init__(self, progress: Progress, done: int, end: int, total: int) -> None:
        super().__init__()
        self.progress, self.done, self.end, self.total = progress, done, end, total

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        # With several steps at once Keras may count past the end of the epoch.
        self.progress.step(min(self.done + batch + 1, self.end), self.total)


class _Tracer(keras.callbacks.Callback):
    """Keep the loss of every step of an epoch, and measure the network after some.

    Args:
        due: the steps to measure after, counted from the start of the epoch.
        measure: returns the accuracy on the held-out rows.
        gather: whether to ask all replicas for the loss.
    """

    def __init__(self, due: set[int], measure: Callable[[], float], *, gather: bool = False) -> None:
        super().__init__()
        self.due, self.measure, self.gather = due, measure, gather
        self.losses: list[float] = []
        self.curve: list[tuple[int, float, float]] = []
        self.summed_loss, self.measuring_seconds = 0.0, 0.0
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Keras reports the mean over the batches of the epoch so far.
        mean = self.model.get_metrics_result() if self.gather else logs
        summed = float(mean["loss"]) * (batch + 1)
        self.losses.append(round(summed - self.summed_loss, 5))
        self.summed_loss = summed
        if batch + 1 in self.due:
            _ = self.model  # asking for it makes Keras write the weights back, which JAX holds elsewhere in between
            started = time.perf_counter()
            seconds = started - self.started - self.measuring_seconds
            self.curve.append((batch + 1, round(seconds, 3), self.measure()))
            self.measuring_seconds += time.perf_counter() - started


def trace_steps(count: int) -> set[int]:
    """Return the steps of the first epoch after which a traced training is measured: each a tenth more than the last.

    >>> sorted(trace_steps(20))
    [10, 11, 13, 15, 17, 19]
    """
    steps, step = set(), 10
    while step < count:
        steps.add(step)
        step = math.ceil(step * 1.1)
    return steps
