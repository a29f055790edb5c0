"""Build the Keras networks that recipes describe, give them a loss and an optimizer, and predict with them.

Keras is imported here. Its backend has to be chosen before that, see ``strategy``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from kaggle_digits.digits import CLASSES, PIXELS, SIDE
from kaggle_digits.errors import RunError
from kaggle_digits.files import read_arrays, write_arrays
from kaggle_digits.learners.images import averaged, normalised, to_images
from kaggle_digits.learners.layers import UnknownLayerError, layer_class, optimizer_class
from kaggle_digits.recipe import Milestones, Network, OneCycle, Plateau
from kaggle_digits.run import MODEL_FILE, Predictor, Run
from kaggle_digits.strategy import Device

TUNING_FRACTION = 0.05
"""Share of the training rows on which accuracy is measured, if the learning rate or the end depends on it."""


def build_model(recipe: Network, *, precision: str = "float32", synchronized: bool = False) -> keras.Sequential:
    """Build a recipe's network, untrained and uncompiled.

    Call it inside the scope of a strategy. Weights are drawn from Keras' global generator: set its seed first.

    Args:
        recipe: its ``layers`` are built as given.
        precision: the Keras dtype policy of all layers but the last, whose logits are always float32.
        synchronized: whether batch normalisation takes mean and variance over all replicas of a ``tf.distribute``
            strategy, as if there were one. With JAX it always does.

    Returns:
        a Sequential network, images (N, 28, 28, 1) float32 → logits (N, 10) float32.
    """
    layers: list[Any] = [keras.Input((SIDE, SIDE, 1))]
    for index, (kind, options) in enumerate(recipe.layers, start=1):
        dtype = "float32" if index == len(recipe.layers) else precision
        if kind == "BatchNormalization" and synchronized:
            options = {**options, "synchronized": True}
        layers.append(layer_class(kind)(**options, dtype=dtype))
    return keras.Sequential(layers, name="network")  # in one go; after each ``add``, Keras would build it anew


def compile_model(model: keras.Sequential, recipe: Network, *, steps: int, steps_per_execution: int = 1) -> None:
    """Give a network the recipe's loss and optimizer.

    The optimizer's variables are created immediately, because a checkpoint holds them.

    Args:
        model: as ``build_model`` returns it.
        recipe: its loss, optimizer and learning rate are used.
        steps: optimizer steps of the whole training, the length of a one-cycle schedule.
        steps_per_execution: steps in each call from Python; more than one pays off on a TPU.
    """
    losses = {
        "mse": keras.losses.MeanSquaredError(),
        "crossentropy": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
    }
    kind, settings = recipe.optimizer
    optimizer = optimizer_class(kind)(learning_rate=learning_rate_of(recipe, steps), **settings)
    # jit_compile stays "auto": XLA trains four times slower on a CPU, and must not be forced on under a strategy.
    model.compile(
        optimizer=optimizer,
        loss=losses[recipe.loss],
        weighted_metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    model.optimizer.build(model.trainable_variables)


def learning_rate_of(recipe: Network, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate of a training: a schedule over its steps, or the first value."""
    rate = recipe.learning_rate
    if not isinstance(rate, OneCycle):
        return epoch_rate(recipe, [])
    warmup_steps = math.ceil(rate.warmup * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=rate.peak * rate.start,
        decay_steps=max(1, steps - warmup_steps),
        alpha=rate.end,
        warmup_target=rate.peak,
        warmup_steps=warmup_steps,
    )


def epoch_rate(recipe: Network, accuracies: Sequence[float]) -> float:
    """Return the learning rate of the next epoch, for recipes that change it between epochs or not at all.

    It depends only on the epochs so far, so a resumed training continues as it would have without the interruption.

    Args:
        recipe: its learning rate is a number, ``Milestones`` or ``Plateau``.
        accuracies: those on the tuning rows after each epoch so far. Without a plateau, only their number matters.
    """
    rate = recipe.learning_rate
    if isinstance(rate, Milestones):
        return float(rate.start) * rate.factor ** sum(epoch <= len(accuracies) for epoch in rate.epochs)
    if isinstance(rate, Plateau):
        current, best, waited = float(rate.start), 0.0, 0
        for accuracy in accuracies:
            waited += 1
            if accuracy > best * (1 + rate.threshold):
                best, waited = accuracy, 0
            if waited == rate.patience:
                current, waited = current * rate.factor, 0
        return current
    return float(cast(float, rate))  # Keras does not take whole numbers


@dataclass(frozen=True)
class NetworkPredictor:
    """Predicts with a network from unprocessed pixels. ``network_predictor`` adds the other steps of a recipe.

    Args:
        model: the network, images → logits.
        recipe: says how pixels are scaled, and what the output means.
        device: the device in whose scope the network was built, or None.
        batch_size: images predicted at once. The result does not depend on it.
    """

    model: keras.Sequential
    recipe: Network
    device: Device | None = None
    batch_size: int = 1024

    @property
    def parameters(self) -> int:
        """The number of weights."""
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
        """Predict batch by batch. A single batch leaves TensorFlow's cores partly idle, so it gets two at a time."""

        def predict(start: int) -> np.ndarray:
            with self.device.scope() if self.device else contextlib.nullcontext():  # a scope holds for one thread only
                return self.model.predict_on_batch(images[start : start + batch_size])

        first, *others = range(0, len(images), batch_size)
        outputs = [predict(first)]  # alone, because the first call traces the network
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


def load_network(run: Run, device: Device) -> keras.Sequential:
    """Build a network, images → logits, with the weights of its run folder, inside the scope of the device.

    Raises:
        RunError: the recipe cannot be built, or the weights are not those of the recipe.
    """
    from kaggle_digits.learners.checks import safe_layers

    recipe, file = cast(Network, run.recipe), run.folder / MODEL_FILE
    try:
        layers = safe_layers(recipe)
    except UnknownLayerError as error:
        raise RunError(f"{run.folder}: {error}") from error
    except Exception as error:  # a stranger's options can make Keras raise anything
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
