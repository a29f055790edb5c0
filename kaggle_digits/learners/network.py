"""Train a Keras network epoch by epoch, with a checkpoint after each.

While a training runs, its run folder holds ``checkpoint.npz``: every variable of network and optimizer after the last
whole epoch, and the metrics so far. A kill at any moment loses at most one epoch.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import keras
import numpy as np

from kaggle_digits import CLASSES, PIXELS
from kaggle_digits.arrays import read_arrays, write_arrays
from kaggle_digits.backend import import_tensorflow
from kaggle_digits.calibration import accuracy
from kaggle_digits.data import TrainingRows, one_hot, split_rows
from kaggle_digits.errors import RunError, TrainingError
from kaggle_digits.learners import Fitted, Predictor, Progress, Training
from kaggle_digits.learners.augment import augment_pixels, restyle_pixels
from kaggle_digits.learners.models import (
    TUNING_FRACTION,
    UnknownLayerError,
    build_model,
    check_network,
    compile_model,
    epoch_rate,
    safe_layers,
)
from kaggle_digits.learners.preprocess import averaged, normalise_for, normalised, to_images
from kaggle_digits.recipe import Network, OneCycle, Restyling
from kaggle_digits.runs import CHECKPOINT_FILES, MODEL_FILE, RowCounts
from kaggle_digits.strategy import TPU_STEPS_PER_EXECUTION, Device

if TYPE_CHECKING:
    from kaggle_digits.runs import Run

log = logging.getLogger(__name__)

BATCH_SIZE = 1024
"""The number of images predicted at once."""


@dataclass(frozen=True)
class NetworkPredictor:
    """Predicts with a network from pixels as they are. ``network_predictor`` adds the rest of a recipe.

    Args:
        model: the network, images → logits.
        recipe: says how pixels are scaled, and what the output means.
        device: the device in whose scope the network was built, or None.
        batch_size: images predicted at once. The result does not depend on it.
    """

    model: keras.Sequential
    recipe: Network
    device: Device | None = None
    batch_size: int = BATCH_SIZE

    @property
    def parameters(self) -> int:
        """How many weights the network has."""
        return self.model.count_params()

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Predict the probability of every digit, (N, 10) float32, for every row of pixels (N, 784)."""
        replicas = self.device.replicas if self.device else 1
        # All batches must have the same size, a multiple of the number of replicas: pad, predict, cut. Sizes are powers
        # of two, because the backend prepares the network anew for each size.
        batch_size = min(self.batch_size, 1 << (len(pixels) - 1).bit_length())
        batch_size += -batch_size % replicas
        padding = np.zeros((-len(pixels) % batch_size, PIXELS), pixels.dtype)
        images = to_images(np.concatenate([pixels, padding]), self.recipe)
        if self.device and replicas > 1:
            with self.device.scope():
                outputs = self.model.predict(images, batch_size=batch_size, verbose=0)
        else:  # Keras' own loop sometimes uses only one core (see make_step), and is slow for a single image
            outputs = np.concatenate(self._predict_batches(images, batch_size))
        outputs = outputs[: len(pixels)]
        return _shares(outputs) if self.recipe.loss == "mse" else _softmax(outputs)

    def _predict_batches(self, images: np.ndarray, batch_size: int) -> list[np.ndarray]:
        """Predict batch by batch. TensorFlow leaves cores partly idle in a single one, so it gets two at a time."""

        def predict(start: int) -> np.ndarray:
            with self.device.scope() if self.device else contextlib.nullcontext():  # a scope is one thread's only
                return self.model.predict_on_batch(images[start : start + batch_size])

        first, *others = range(0, len(images), batch_size)
        outputs = [predict(first)]  # alone, since it traces the network if this is the first time
        if keras.backend.backend() != "tensorflow":
            return [*outputs, *map(predict, others)]
        with ThreadPoolExecutor(2) as workers:
            return [*outputs, *workers.map(predict, others)]

    def save(self, folder: Path) -> None:
        """Write the trained network, which replaces its checkpoint."""
        weights = named_weights(self.model)
        write_arrays(folder / MODEL_FILE, {name: keras.ops.convert_to_numpy(w) for name, w in weights.items()})


def named_weights(model: keras.Sequential) -> dict[str, Any]:
    """Return every weight of a network, by a name that does not depend on what Keras has built before."""
    return {
        f"{index}.{type(layer).__name__}.{number}.{weight.name}": weight
        for index, layer in enumerate(model.layers)
        for number, weight in enumerate(layer.weights)
    }


def _shares(outputs: np.ndarray) -> np.ndarray:
    """Turn estimates of one-hot labels, (N, 10), into probabilities with the same arg-max.

    Each row is shifted to start at 0 and divided by its sum. If all ten are equal, every digit gets 0.1.
    """
    shifted = outputs - outputs.min(axis=1, keepdims=True)
    total = shifted.sum(axis=1, keepdims=True)
    return np.divide(shifted, total, out=np.full_like(shifted, 1 / CLASSES), where=total > 0)


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def check(recipe: Network) -> None:
    """Check that Keras can build the network, see ``models.check_network``."""
    check_network(recipe)


def fit(training: Training) -> Fitted:
    """Train a network, from the checkpoint in the run folder if there is one.

    The order of the rows and their augmentation depend on the seed and the epoch only. If an accuracy decides on the
    learning rate or the end, it is measured on a part of the rows that is then not trained on.

    Returns:
        the network; for each epoch its loss and accuracy, which are means over its batches while training; and the
        probabilities of the held-out rows.

    Raises:
        RunError: the checkpoint is damaged.
        TrainingError: the loss is no longer a number, or the device failed.
    """
    recipe, device, held_out = cast(Network, training.recipe), training.device, training.held_out
    rows, tuning = training.rows, None
    if recipe.tunes:
        rows, tuning = split_rows(rows, fraction=TUNING_FRACTION, seed=training.seed)
    recipe = recipe.for_rows(len(rows))
    keras.utils.set_random_seed(training.seed)
    started = time.perf_counter()
    if recipe.drawn:
        rows = _with_drawn(rows, round(recipe.drawn * len(rows)), seed=training.seed)
    rows = replace(rows, pixels=normalise_for(recipe, rows.pixels))
    preparing_seconds = time.perf_counter() - started
    steps_per_epoch = math.ceil(len(rows) / recipe.batch_size)
    model = _build(training, recipe, steps=steps_per_epoch * recipe.epochs)
    on_one_cpu = device.kind == "cpu" and device.backend == "tensorflow" and device.replicas == 1
    step = make_step(model, device) if on_one_cpu else None
    owner = _owner(training)
    epochs = _load_checkpoint(training.folder, model, owner)

    def predict(rows: TrainingRows) -> np.ndarray:
        # Averaging takes time, and is worth it only after the last epoch.
        is_last = len(epochs) >= recipe.epochs - 1
        return _predictor(training, model, averaging=is_last).probabilities(rows.pixels)

    probabilities = None
    make = functools.partial(_make_batches, recipe, rows, seed=training.seed, device=device)
    with contextlib.closing(_make_ahead(make, range(len(epochs), recipe.epochs))) as all_batches:
        while not _is_over(recipe, epochs):
            epoch = len(epochs)
            tracer = _Tracer.of(training, epoch, steps_per_epoch, predict) if training.trace else None
            callbacks: list[keras.callbacks.Callback] = [tracer] if tracer else []
            if training.progress:
                done, total = epoch * steps_per_epoch, recipe.epochs * steps_per_epoch
                callbacks.insert(0, _StepCounter(training.progress, done, done + steps_per_epoch, total))
            if not isinstance(recipe.learning_rate, OneCycle):
                model.optimizer.learning_rate = epoch_rate(recipe, [e.get("tuning_accuracy", 0.0) for e in epochs])
            started = time.perf_counter()
            metrics = _fit_epoch(model, step, recipe, next(all_batches), epoch, device=device, callbacks=callbacks)
            metrics["seconds"] = round(time.perf_counter() - started + preparing_seconds, 3)
            preparing_seconds = 0.0
            if tracer:
                metrics["seconds"] = round(metrics["seconds"] - tracer.measuring_seconds, 3)
                metrics |= {"losses": tracer.losses, "curve": tracer.curve}
            if tuning:
                metrics["tuning_accuracy"] = accuracy(predict(tuning), tuning.digits)
            if held_out:
                started = time.perf_counter()
                probabilities = predict(held_out)
                metrics["validation_accuracy"] = accuracy(probabilities, held_out.digits)
                metrics["validation_seconds"] = round(time.perf_counter() - started, 3)
            epochs.append(metrics)
            write_checkpoint(training.folder, model, epochs, owner)
            if training.progress:
                training.progress.epoch(metrics, recipe.epochs)
    if held_out and probabilities is None:  # the training was stopped after its last checkpoint
        probabilities = predict(held_out)
    return Fitted(predictor=network_predictor(model, recipe, device=device), epochs=epochs, probabilities=probabilities)


def load(run: Run, device: Device, members: Sequence[Predictor]) -> Predictor:  # noqa: ARG001
    """Load a network from its run folder, inside the scope of the device."""
    return network_predictor(load_network(run, device), cast(Network, run.recipe), device=device)


def load_network(run: Run, device: Device) -> keras.Sequential:
    """Build a network, images → logits, with the weights of its run folder, inside the scope of the device.

    Raises:
        RunError: the recipe cannot be built, or the weights are not those of the recipe.
    """
    recipe, file = cast(Network, run.recipe), run.folder / MODEL_FILE
    try:
        layers = safe_layers(recipe)
    except UnknownLayerError as error:
        raise RunError(f"{run.folder}: {error}") from error
    except Exception as error:  # whatever a stranger's options can do to Keras
        raise RunError(
            f"{run.folder}: its recipe cannot be built ({error}). Expected a network that training wrote. Train it "
            "again."
        ) from error
    try:
        with device.scope():
            model = build_model(replace(recipe, layers=layers), precision=device.precision)
            weights = named_weights(model)
            arrays = read_arrays(file, {name: (tuple(weight.shape), "f") for name, weight in weights.items()})
            for name, weight in weights.items():
                if not np.isfinite(arrays[name]).all():
                    raise ValueError(f"not all of {name} is finite")
                weight.assign(arrays[name].astype(np.float32))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{file}: cannot be loaded ({error}). Expected the network that training wrote. Train it again."
        ) from error
    return model


def network_predictor(
    model: keras.Sequential, recipe: Network, *, device: Device | None = None, averaging: bool = True, **options: Any
) -> Predictor:
    """Return a predictor that normalises, predicts and averages as a recipe says.

    Args:
        model: the recipe's network.
        recipe: what was trained.
        device: the device in whose scope the network was built, or None.
        averaging: whether to average over several versions of an image, if the recipe does.
        options: those of ``NetworkPredictor``.
    """
    predictor: Predictor = NetworkPredictor(model, recipe, device, **options)
    return normalised(recipe, averaged(recipe, predictor) if averaging else predictor)


def _build(training: Training, recipe: Network, *, steps: int) -> keras.Sequential:
    """Build and compile the network that is to be trained."""
    device = training.device
    synchronized = device.replicas > 1 and device.backend == "tensorflow"
    # A trace needs every single step.
    several = TPU_STEPS_PER_EXECUTION if _is_tensorflow_tpu(device) and not training.trace else 1
    with device.scope():
        model = build_model(recipe, precision=device.precision, synchronized=synchronized)
        compile_model(model, recipe, steps=steps, steps_per_execution=several)
    return model


def _is_tensorflow_tpu(device: Device) -> bool:
    return device.kind == "tpu" and device.backend == "tensorflow"


def _predictor(training: Training, model: keras.Sequential, *, averaging: bool) -> Predictor:
    """Return a predictor that measures the network as it stands."""
    recipe, device = cast(Network, training.recipe), training.device
    return network_predictor(model, recipe, device=device, averaging=averaging)


def _is_over(recipe: Network, epochs: list[dict[str, Any]]) -> bool:
    if len(epochs) >= recipe.epochs:
        return True
    return bool(epochs and recipe.stop_at is not None and epochs[-1]["tuning_accuracy"] >= recipe.stop_at)


@dataclass(frozen=True)
class Batches:
    """One epoch, batch after batch.

    Args:
        images: (rows, 28, 28, 1) float32.
        labels: (rows, 10) float32.
        weights: (rows,) float32, 0 for rows that only fill a batch.
        size: rows in each batch.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    size: int


def _with_drawn(rows: TrainingRows, count: int, *, seed: int) -> TrainingRows:
    """Add drawn images, see ``drawing.draw_images``."""
    from kaggle_digits.learners.drawing import draw_images

    drawn = draw_images(count, rows, np.random.default_rng(seed))
    return TrainingRows(np.concatenate([rows.pixels, drawn.pixels]), np.concatenate([rows.digits, drawn.digits]))


def _labels(digits: np.ndarray) -> np.ndarray:
    """Return one-hot labels, (N, 10) float32. For an image that is not a digit, every digit is equally likely."""
    return np.where((digits >= 0)[:, None], one_hot(np.maximum(digits, 0)), np.float32(1 / CLASSES))


def _make_batches(recipe: Network, rows: TrainingRows, epoch: int, *, seed: int, device: Device) -> Batches:
    """Shuffle and augment the rows of one epoch, counted from 0. The same seed and epoch give the same batches."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(rows))
    pixels, digits = rows.pixels[order], rows.digits[order]
    if isinstance(recipe.augmentation, Restyling):
        pixels = restyle_pixels(pixels, digits, recipe.augmentation, rng)
    if recipe.augmentation:
        pixels = augment_pixels(pixels, recipe.augmentation, rng)
    taken, weights = share_batches(len(rows), recipe.batch_size, replicas=device.replicas)
    images, labels = to_images(pixels[taken.ravel()], recipe), _labels(digits[taken.ravel()])
    return Batches(images, labels, weights.ravel(), taken.shape[1])


def _make_ahead(make: Callable[[int], Batches], epochs: range) -> Generator[Batches]:
    """Yield the batches of each epoch, and make the next ones meanwhile, because training leaves a core partly idle."""
    with ThreadPoolExecutor(1) as maker:
        upcoming = maker.submit(make, epochs.start)
        for epoch in epochs:
            batches = upcoming.result()
            if epoch + 1 in epochs:
                upcoming = maker.submit(make, epoch + 1)
            yield batches


def _fit_epoch(
    model: keras.Model,
    step: Step | None,
    recipe: Network,
    batches: Batches,
    epoch: int,
    *,
    device: Device,
    callbacks: list[keras.callbacks.Callback],
) -> dict[str, Any]:
    """Train one epoch, counted from 0, with a step of our own or else in Keras' loop.

    Return its number, counted from 1, and its batches' mean loss and accuracy.
    """
    try:
        with device.scope():
            if step:
                fitted = fit_batches(step, model, batches, callbacks)
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


Step = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[Any, Any]]
"""Trains on images, labels and weights of one batch. Returns their mean loss and accuracy."""


def make_step(model: keras.Model, device: Device) -> Step:
    """Make the step of a compiled network that trains on one CPU with TensorFlow.

    It computes what a step of Keras' own loop does. That loop sometimes computes a whole epoch on a single core, at
    random, and spends some milliseconds a step on metrics (``benchmarks/log.md``).
    """
    tf = import_tensorflow()

    @tf.function(autograph=False)
    def step(images: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = model.compute_loss(images, labels, outputs, weights)
        if variables:
            model.optimizer.apply(tape.gradient(loss, variables), variables)
        right = tf.cast(tf.argmax(outputs, axis=1) == tf.argmax(labels, axis=1), tf.float32)
        return loss, tf.reduce_sum(right * weights) / tf.reduce_sum(weights)

    if not device.strategy:
        return step
    return lambda *batch: device.strategy.run(step, batch)


def fit_batches(
    step: Step, model: keras.Model, batches: Batches, callbacks: list[keras.callbacks.Callback]
) -> dict[str, float]:
    """Train on all batches, and return the means of their losses and accuracies.

    Args:
        step: of ``make_step``.
        model: the network, for the callbacks.
        batches: one epoch.
        callbacks: are told of every batch, with the means so far.
    """
    for callback in callbacks:
        callback.set_model(model)
    summed = np.zeros(2)
    for number, start in enumerate(range(0, len(batches.images), batches.size)):
        rows = slice(start, start + batches.size)
        summed += [float(each) for each in step(batches.images[rows], batches.labels[rows], batches.weights[rows])]
        means = dict(zip(("loss", "accuracy"), (summed / (number + 1)).tolist(), strict=True))
        for callback in callbacks:
            callback.on_train_batch_end(number, means)
    return means


def share_batches(rows: int, batch_size: int, *, replicas: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cut an epoch into batches of one size, a multiple of the number of replicas.

    A batch that is too short is filled with rows from the front of the epoch, whose weight is 0. The weights of its
    real rows are raised to make up for them, so the weighted mean over the whole batch is the mean over its real rows,
    however the replicas share it.

    Args:
        rows: number of rows in the epoch.
        batch_size: number of rows in a batch.
        replicas: number of replicas.

    Returns:
        the index of the row in each place, (steps, width) int64, and its weight, (steps, width) float32.

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
    return taken, weights


def _variables(model: keras.Model) -> list[Any]:
    """Every variable that decides how training goes on, dropout's generators included."""
    return [*model.variables, *model.optimizer.variables]


def _owner(training: Training) -> str:
    """Return what tells a training from others whose checkpoints have the same arrays."""
    rows = RowCounts.of(training.rows, training.held_out)
    named = [training.recipe.settings(), training.seed, str(rows)]
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def write_checkpoint(folder: Path, model: keras.Model, epochs: list[dict[str, Any]], owner: str | None = None) -> None:
    """Write what training needs to continue: every variable of a compiled network, and the metrics so far.

    The checkpoint before is kept, in case this one is damaged later.

    Args:
        folder: the run folder.
        model: the network.
        epochs: the metrics of each epoch.
        owner: the training that may go on from it, see ``_owner``; None for any.
    """
    values = {f"v{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(model))}
    values["state"] = np.frombuffer(json.dumps({"owner": owner, "epochs": epochs}).encode(), np.uint8)
    newest, before = (folder / name for name in CHECKPOINT_FILES)
    if newest.exists():
        newest.replace(before)
    write_arrays(newest, values)


def _load_checkpoint(folder: Path, model: keras.Model, owner: str) -> list[dict[str, Any]]:
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


class _StepCounter(keras.callbacks.Callback):
    """Pass Keras' batches on as steps of the whole training."""

    def __init__(self, progress: Progress, done: int, end: int, total: int) -> None:
        super().__init__()
        self.progress, self.done, self.end, self.total = progress, done, end, total

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        # If Keras takes several steps at once, it may count past the end of the epoch.
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

    @classmethod
    def of(cls, training: Training, epoch: int, steps: int, predict: Callable[[TrainingRows], np.ndarray]) -> _Tracer:
        """Return the tracer of an epoch, counted from 0."""
        held_out = training.held_out
        return cls(
            trace_steps(steps) if epoch == 0 and held_out else set(),
            lambda: accuracy(predict(held_out), held_out.digits) if held_out else 0.0,
            # Under TPUStrategy, Keras tells its callbacks about the first replica only.
            gather=_is_tensorflow_tpu(training.device),
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Keras reports the mean over the batches of the epoch so far.
        mean = self.model.get_metrics_result() if self.gather else logs
        summed = float(mean["loss"]) * (batch + 1)
        self.losses.append(round(summed - self.summed_loss, 5))
        self.summed_loss = summed
        if batch + 1 in self.due:
            _ = self.model  # makes Keras write back the weights, which JAX holds elsewhere during an epoch
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
