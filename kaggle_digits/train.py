"""Train a recipe into a run folder: one visible loop over the epochs of a network, with a checkpoint after each.

A stopped training continues from its last whole epoch. Other kinds of recipes have learners of their own, see
``learners``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kaggle_digits.data import TrainingRows, split_rows
from kaggle_digits.devices import import_backend, import_tensorflow
from kaggle_digits.digits import SIDE, __version__, accuracy, calibrate, fit_temperature
from kaggle_digits.errors import InputError, TrainingError
from kaggle_digits.files import write_arrays
from kaggle_digits.learners import Context, Fitted, Training, learner_of, load_run, part_of
from kaggle_digits.learners.images import Batches, make_batches, prepare_rows
from kaggle_digits.learners.resume import claim, remove_checkpoints
from kaggle_digits.recipe import FieldError, Network, OneCycle, Recipe
from kaggle_digits.recipes import RECIPES
from kaggle_digits.run import VALIDATION_FILE, Predictor, RowCounts, Run, find_commit, member_folder, member_seed
from kaggle_digits.strategy import Device, device_of

if TYPE_CHECKING:  # its backend has to be chosen before it is imported
    import keras

log = logging.getLogger(__name__)


def train_run(
    recipe: Recipe,
    rows: TrainingRows,
    folder: str | Path,
    *,
    held_out: TrainingRows | None = None,
    context: Context | None = None,
    resume: bool = False,
    is_spent: Callable[[Run], bool] | None = None,
    callbacks: Sequence[Any] = (),
) -> Run:
    """Train a recipe and leave a run folder.

    On one CPU the same seed gives the same weights bit for bit, also if the training was stopped and resumed.

    Args:
        recipe: what to train.
        rows: the rows to train on.
        folder: the run folder.
        held_out: rows to measure accuracy on. They are never trained on, and no choice depends on them.
        context: the device, the seed, and more.
        resume: continue the same training if the folder holds it. A finished run is returned.
        is_spent: whether to leave a run alone and try folder-2, folder-3 and so on, see ``learners.resume``.
        callbacks: Keras callbacks for a network, see ``learners.Training``.

    Returns:
        the finished run, with its predictor.

    Raises:
        RunError: the folder holds another training, or this one and ``resume`` is off, or another process has it.
        TrainingError: the training failed.
    """
    context = context or Context()
    planned = replace(describe_run(recipe, Path(folder), context), rows=RowCounts.of(rows, held_out))
    check_recipe(recipe)
    with claim(planned, resume=resume, is_spent=is_spent) as (run, state):
        if is_spent and state != "fresh":
            log.info("Continuing the interrupted job with the training in %s", run.folder)
        if state == "finished":
            return load_run(run.folder, planned.device)
        run.save()
        members = _train_members(run, rows, held_out, context)
        training = Training(
            recipe=recipe,
            rows=rows,
            held_out=held_out,
            folder=run.folder,
            seed=context.seed,
            device=run.device,
            members=members,
            progress=context.progress,
            callbacks=callbacks,
        )
        with _refused(recipe):
            fitted = learner_of(recipe).fit(training)
        run = _finish(run, fitted, members, held_out)
        fitted.predictor.save(run.folder)
        if held_out and fitted.probabilities is not None:
            arrays = {"probabilities": fitted.probabilities, "digits": held_out.digits}
            write_arrays(run.folder / VALIDATION_FILE, arrays, compressed=True)
        run = run.with_checksums()
        run.save()  # comes last, and declares the run finished
        remove_checkpoints(run.folder)
        return run


def describe_run(recipe: Recipe, folder: Path, context: Context) -> Run:
    """Return the description of a run before its training, without its rows."""
    device = context.device or device_of(recipe)
    return Run(
        folder=folder,
        recipe=recipe,
        seed=context.seed,
        source=context.source,
        rows=RowCounts(0, 0, 0),
        split=context.split,
        device=device,
        versions=_versions(device),
        commit=find_commit(),
    )


def check_recipe(recipe: Recipe) -> None:
    """Check that a user's recipe can be trained, before anything is written.

    Raises:
        InputError: Keras or scikit-learn rejects it.
    """
    if RECIPES.get(recipe.name) == recipe:
        return
    for part in recipe.members or (recipe,):
        try:
            learner_of(part).check(part)
        except FieldError as error:
            place = part.source if part.source.endswith((".toml", ".py")) else part.name
            raise InputError(f"{place}: {error}") from error


def _train_members(run: Run, rows: TrainingRows, held_out: TrainingRows | None, context: Context) -> list[Run]:
    """Train the members of a recipe, each into a run folder of its own.

    A member without networks is slow, so it does not read the held-out rows.
    """
    members = run.recipe.members
    weights = [sum(network.epochs for network in member.networks) or 1 for member in members]
    trained = []
    for number, member in enumerate(members, start=1):
        own = replace(
            context,
            device=run.device if member.networks else device_of(member),
            seed=member_seed(run.seed, number, len(members)),
            progress=part_of(context.progress, number - 1, weights),
        )
        folder = member_folder(run.folder, number, len(members))
        scored = held_out if member.networks else None
        trained.append(train_run(member, rows, folder, held_out=scored, context=own, resume=True))
        log.info("%s: %d of %d, %s, is trained", run.recipe.name, number, len(members), member.name)
    return trained


def _finish(run: Run, fitted: Fitted, members: list[Run], held_out: TrainingRows | None) -> Run:
    """Return the finished run."""
    for member in members:
        if member.recipe.networks:  # it may have been trained by an earlier command
            run = replace(run, device=member.device, versions=member.versions, commit=member.commit)
            break
    temperature = threshold = None
    if held_out and fitted.probabilities is not None:
        temperature = round(fit_temperature(fitted.probabilities, held_out.digits), 4)
        if any(network.drawn for network in run.recipe.networks):  # it has learned that letters are not digits
            from kaggle_digits.learners.drawing import measure_threshold

            known = calibrate(fitted.probabilities, temperature)
            threshold = measure_threshold(fitted.predictor, known, temperature, seed=run.seed)
    return replace(
        run,
        finished=True,
        parameters=fitted.predictor.parameters,
        epochs=fitted.epochs,
        temperature=temperature,
        threshold=threshold,
        predictor=fitted.predictor,
    )


@contextlib.contextmanager
def _refused(recipe: Recipe) -> Iterator[None]:
    """Explain why a user's recipe cannot be trained, for example if a layer accepts a value that it cannot use."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError) as error:
        if RECIPES.get(recipe.name) == recipe:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(lines[:2]))[:200]
        raise InputError(
            f"{recipe.source}: cannot be trained ({type(error).__name__}: {told}). Expected layers and settings that "
            "Keras can compute. Correct them."
        ) from error


def _versions(device: Device) -> dict[str, str]:
    """Return the versions of the libraries that take part in a training."""
    versions = {"kaggle_digits": __version__, "python": platform.python_version(), "numpy": np.__version__}
    if device.backend == "scikit-learn":
        for name in ("scikit-learn", "scikit-learn-intelex"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[name] = importlib.metadata.version(name)
        return versions
    import keras

    return versions | {"keras": keras.__version__, device.backend: import_backend(device.backend).__version__}


# The learner of networks: check, fit and load.


def check(recipe: Network) -> None:
    """Check that Keras can build and compile a user's network.

    Raises:
        FieldError: it cannot, or the output is not ten values. The error names the field, and the layer, if any, by its
            number from 0.
    """
    import keras

    from kaggle_digits.learners.checks import fault_of, first_line, safe_layers
    from kaggle_digits.learners.layers import layer_class
    from kaggle_digits.models import compile_model

    safe_layers(recipe)  # an unsafe network could be trained, but not loaded
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1))])
    for number, (kind, options) in enumerate(recipe.layers):
        try:
            model.add(layer_class(kind)(**options, dtype="float32"))
        except Exception as error:  # options can make Keras raise anything
            raise FieldError(f"layers[{number}]", f"{kind}: {fault_of(kind, options, error)}") from error
    try:
        compile_model(model, recipe, steps=1)
    except Exception as error:
        raise FieldError("optimizer", f"{recipe.optimizer[0]}: {first_line(error)}") from error


def load(run: Run, device: Device, members: Sequence[Predictor]) -> Predictor:  # noqa: ARG001
    """Load a network from its run folder, inside the scope of the device."""
    from kaggle_digits.models import load_network, network_predictor

    return network_predictor(load_network(run, device), cast(Network, run.recipe), device=device)


def fit(training: Training) -> Fitted:
    """Train a network, from the checkpoint in the run folder if there is one.

    The order of the rows and their augmentation depend on the seed and the epoch only. If the learning rate or the end
    depends on an accuracy, some of the rows are kept to measure it and not trained on.

    Returns:
        the network; for each epoch the mean loss and accuracy over its training batches; and the probabilities of the
        held-out rows.

    Raises:
        RunError: the checkpoint is damaged.
        TrainingError: the loss is no longer a number, or the device failed.
    """
    import keras

    from kaggle_digits.learners.resume import load_checkpoint, owner_of, write_checkpoint
    from kaggle_digits.models import TUNING_FRACTION, build_model, compile_model, epoch_rate, network_predictor

    recipe, device, held_out = cast(Network, training.recipe), training.device, training.held_out
    rows, tuning = training.rows, None
    if recipe.tunes:
        rows, tuning = split_rows(rows, fraction=TUNING_FRACTION, seed=training.seed)
    recipe = recipe.for_rows(len(rows))
    keras.utils.set_random_seed(training.seed)
    started = time.perf_counter()
    rows = prepare_rows(recipe, rows, seed=training.seed)
    preparing_seconds = time.perf_counter() - started
    steps = math.ceil(len(rows) / recipe.batch_size)
    several = 32 if device.is_tensorflow_tpu and not training.callbacks else 1  # steps in each call of TensorFlow
    with device.scope():
        synchronized = device.replicas > 1 and device.backend == "tensorflow"
        model = build_model(recipe, precision=device.precision, synchronized=synchronized)
        compile_model(model, recipe, steps=steps * recipe.epochs, steps_per_execution=several)
    on_one_cpu = device.kind == "cpu" and device.backend == "tensorflow" and device.replicas == 1
    step = make_step(model, device) if on_one_cpu else None
    owner = owner_of(training)
    epochs = load_checkpoint(training.folder, model, owner)

    def predict(rows: TrainingRows) -> np.ndarray:
        # Averaging takes time, and is worth it only after the last epoch.
        is_last = len(epochs) >= recipe.epochs - 1
        return network_predictor(model, recipe, device=device, averaging=is_last).probabilities(rows.pixels)

    probabilities = None
    with ThreadPoolExecutor(1) as maker:  # makes the next epoch's batches, because training leaves a core partly idle

        def make(epoch: int) -> Any:
            return maker.submit(make_batches, recipe, rows, epoch, seed=training.seed, device=device)

        upcoming = make(len(epochs))
        while not _is_over(recipe, epochs):
            epoch = len(epochs)
            if not isinstance(recipe.learning_rate, OneCycle):
                model.optimizer.learning_rate = epoch_rate(recipe, [e.get("tuning_accuracy", 0.0) for e in epochs])
            callbacks = list(training.callbacks)
            if training.progress:
                callbacks.insert(0, _step_counter(training, epoch * steps, steps, recipe.epochs * steps))
            started = time.perf_counter()
            batches = upcoming.result()
            if epoch + 1 < recipe.epochs:
                upcoming = make(epoch + 1)
            metrics = _fit_epoch(model, step, recipe, batches, epoch, device=device, callbacks=callbacks)
            metrics["seconds"] = round(time.perf_counter() - started + preparing_seconds, 3)
            preparing_seconds = 0.0
            for callback in training.callbacks:
                callback.on_epoch_end(epoch, metrics)
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


def _is_over(recipe: Network, epochs: list[dict[str, Any]]) -> bool:
    if len(epochs) >= recipe.epochs:
        return True
    return bool(epochs and recipe.stop_at is not None and epochs[-1]["tuning_accuracy"] >= recipe.stop_at)


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
    """Train one epoch, counted from 0, with our own step or in Keras' loop.

    Return its number, counted from 1, and its batches' mean loss and accuracy.
    """
    try:
        with device.scope():
            if step:
                for callback in callbacks:
                    callback.set_model(model)
                    callback.on_epoch_begin(epoch)
                fitted = fit_batches(step, batches, callbacks)
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
    """Make the training step of a compiled network for TensorFlow on one CPU.

    It computes the same as a step of Keras' own loop. That loop sometimes runs a whole epoch on a single core, at
    random, and spends some milliseconds per step on metrics (``benchmarks/log.md``).
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


def fit_batches(step: Step, batches: Batches, callbacks: list[keras.callbacks.Callback]) -> dict[str, float]:
    """Train on all batches, and return the means of their losses and accuracies.

    Args:
        step: as ``make_step`` returns it.
        batches: one epoch.
        callbacks: receive every batch, with the means so far.
    """
    summed = np.zeros(2)
    for number, start in enumerate(range(0, len(batches.images), batches.size)):
        rows = slice(start, start + batches.size)
        summed += [float(each) for each in step(batches.images[rows], batches.labels[rows], batches.weights[rows])]
        means = dict(zip(("loss", "accuracy"), (summed / (number + 1)).tolist(), strict=True))
        for callback in callbacks:
            callback.on_train_batch_end(number, means)
    return means


def _step_counter(training: Training, done: int, steps: int, total: int) -> keras.callbacks.Callback:
    """Return a callback that reports batches as steps of the whole training."""
    import keras

    def report(batch: int, logs: Any = None) -> None:  # noqa: ARG001
        if training.progress:  # if Keras takes several steps at once, it may count past the end of the epoch
            training.progress.step(done + min(batch + 1, steps), total)

    return keras.callbacks.LambdaCallback(on_train_batch_end=report)
