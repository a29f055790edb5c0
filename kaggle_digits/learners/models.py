"""Build the Keras networks that recipes describe, and give them their loss and optimizer."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Sequence
from typing import Any, cast

import keras
import numpy as np

from kaggle_digits import CLASSES, SIDE
from kaggle_digits.backend import import_tensorflow
from kaggle_digits.errors import did_you_mean
from kaggle_digits.learners.muon import ConvMuon
from kaggle_digits.recipe import ONLY_IN_TRAINING, FieldError, Layer, Milestones, Network, OneCycle, Plateau, is_plain

FUSED_CHANNELS = 16
"""TensorFlow's fused operation is fast for a multiple of this many channels, else slower than Keras' own steps."""


class Residual(keras.layers.Layer):
    """A residual block: two 3×3 convolutions with a ReLU between them, beside a 1×1 convolution, and a ReLU on the sum.

    Args:
        filters: filters of each of the three convolutions, which keep height and width.
        kernel_initializer: the initializer of their weights, as Keras takes it.
        options: the options of every Keras layer.

    Source: He et al. 2015, arXiv 1512.03385, with the projection in every block and without normalisation.
    """

    def __init__(self, filters: int, kernel_initializer: Any = "glorot_uniform", **options: Any) -> None:
        super().__init__(**options)
        self.filters = filters
        shared = {
            "padding": "same",
            "data_format": "channels_last",
            "kernel_initializer": kernel_initializer,
            "dtype": self.dtype_policy,
        }
        self.first = keras.layers.Conv2D(filters, 3, activation="relu", **shared)
        self.second = keras.layers.Conv2D(filters, 3, **shared)
        self.side = keras.layers.Conv2D(filters, 1, **shared)

    def build(self, input_shape: Any) -> None:
        """Create the weights for images (N, height, width, channels)."""
        self.first.build(input_shape)
        self.second.build(self.first.compute_output_shape(input_shape))
        self.side.build(input_shape)

    def call(self, images: Any) -> Any:
        """Return (N, height, width, filters), 0 or more."""
        return keras.ops.relu(self.second(self.first(images)) + self.side(images))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the shape of the output, (N, height, width, filters)."""
        return (*input_shape[:-1], self.filters)


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, but with TensorFlow's fused operation where a training on images in one replica can use it.

    Keras computes mean, variance and result one after another, and in float32 even if the network is in bfloat16. The
    fused operation computes them in one go with half the memory, which makes a whole training a third faster on a CPU
    (``benchmarks/log.md``). In every other case, and always outside of training, this is Keras' own layer.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the inputs normalised, of the same shape and dtype."""
        fused = training and self.trainable and mask is None and not self.synchronized
        plain = self.scale and self.center and self.axis == -1 and not getattr(self, "renorm", False)
        fits = len(inputs.shape) == 4 and inputs.shape[-1] % FUSED_CHANNELS == 0
        if not (fused and plain and fits and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        gamma, beta = (keras.ops.cast(variable, "float32") for variable in (self.gamma, self.beta))
        normalise = import_tensorflow().compat.v1.nn.fused_batch_norm
        outputs, mean, variance = normalise(inputs, gamma, beta, epsilon=self.epsilon, is_training=True)
        # For the variance, TensorFlow divides by one less than the number of values, but Keras by that number.
        values = keras.ops.cast(keras.ops.size(inputs) // inputs.shape[-1], "float32")
        variance *= (values - 1) / values
        for moving, current in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + current * (1 - self.momentum))
        return outputs


OWN_LAYERS = {"Residual": Residual, "BatchNormalization": BatchNormalization}
OWN_OPTIMIZERS = {"ConvMuon": ConvMuon}

PLAIN_LAYERS = (
    *("Activation", "AlphaDropout", "AveragePooling1D", "AveragePooling2D", "BatchNormalization", "CenterCrop"),
    *("Conv1D", "Conv2D", "Conv2DTranspose", "Cropping1D", "Cropping2D", "Dense", "DepthwiseConv2D", "Dropout", "ELU"),
    *("Flatten", "GRU", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GroupNormalization", "Identity", "LSTM"),
    *("LayerNormalization", "LeakyReLU", "RepeatVector"),
    *("MaxPooling1D", "MaxPooling2D", "PReLU", "Permute", "RMSNormalization", "RandomBrightness", "RandomContrast"),
    *("RandomCrop", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "ReLU", "Rescaling", "Reshape"),
    *("Residual", "Resizing", "SeparableConv1D", "SeparableConv2D", "SimpleRNN", "Softmax", "SpatialDropout1D"),
    *("SpatialDropout2D", "UnitNormalization", "UpSampling1D", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D"),
)
"""Layers that only compute. Others of Keras' layers load files or run code that they are given."""

TUNING_FRACTION = 0.05
"""This share of the training rows is set apart if an accuracy decides on the learning rate or the end."""

GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
"""Recurrent layers, and how many sets of weights each has."""

LAYER_OPTIONS = ("name", "trainable", "activity_regularizer")
"""Options of every layer."""

MOST_WEIGHTS, MOST_OUTPUTS = 2**27, 2**20
"""A network has at most so many weights, by a bound that may be four times too high, and so many values for an image
after a layer."""


def build_model(recipe: Network, *, precision: str = "float32", synchronized: bool = False) -> keras.Sequential:
    """Build a recipe's network, untrained and uncompiled.

    Call it inside the scope of a strategy. Weights are drawn from Keras' global generator: set its seed first.

    Args:
        recipe: its ``layers`` are built as they stand.
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


class UnknownLayerError(LookupError):
    """A network has a layer of somebody's own, whose code is not here. The message says where it is."""


def layer_class(kind: str) -> type[keras.layers.Layer]:
    """Return the class of a layer.

    Args:
        kind: the name of one of Keras' layers, or a name like package>Name for a class that was registered with Keras,
            see ``own``.

    Raises:
        UnknownLayerError: that class was not registered.
        ValueError: Keras has no such layer.
    """
    if ">" in kind:
        registered = keras.saving.get_registered_object(kind)
        if isinstance(registered, type) and issubclass(registered, keras.layers.Layer):
            return registered
        package, _, name = kind.partition(">")
        raise UnknownLayerError(
            f"its layer {name} is code of {package}.py, which was not run. Expected that file. Give it to "
            "`kaggle-digits predict` with --recipe, or in Python, to find_recipe first."
        )
    found = OWN_LAYERS.get(kind) or getattr(keras.layers, kind, None)
    if not (isinstance(found, type) and issubclass(found, keras.layers.Layer)):
        raise ValueError(f"Keras has no layer {kind}.{did_you_mean(kind, dir(keras.layers))}")
    return found


def check_network(recipe: Network) -> None:
    """Check that Keras can build and compile a network that somebody else has written.

    Raises:
        FieldError: it cannot, or the output is not ten values. The name is that of the field, and perhaps the number of
            the layer, from 0.
    """
    safe_layers(recipe)  # so that what was trained can also be loaded
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1))])
    for number, (kind, options) in enumerate(recipe.layers):
        try:
            model.add(layer_class(kind)(**options, dtype="float32"))
        except Exception as error:  # whatever options can do to Keras
            raise FieldError(f"layers.{number}", f"{kind}: {_fault_of(kind, options, error)}") from error
    try:
        compile_model(model, recipe, steps=1)
    except Exception as error:
        raise FieldError("optimizer", f"{recipe.optimizer[0]}: {_first_line(error)}") from error


def _fault_of(kind: str, options: dict[str, Any], error: Exception) -> str:
    """Say why a layer cannot be made: an option that it does not take, or else what Keras says."""
    with contextlib.suppress(ValueError, LookupError):
        known = [name for name in inspect.signature(layer_class(kind)).parameters if name not in ("kwargs", "args")]
        if known and (strange := [name for name in options if name not in (*known, *LAYER_OPTIONS)]):
            hint = did_you_mean(strange[0], known) or f" Expected some of {', '.join(known)}."
            return f"{strange[0]}: no such argument.{hint}"
    for name in ("activation", "recurrent_activation"):
        value = options.get(name)
        if isinstance(value, str) and not hasattr(keras.activations, value):
            return f"{name}: Keras has no {value!r}.{did_you_mean(value, dir(keras.activations))}"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    line = " ".join(str(error).strip().partition("\n")[0].split())
    return line if line.endswith("?") else line.rstrip(".:") + "."


def safe_layers(recipe: Network) -> tuple[Layer, ...]:
    """Return the layers of a network that may come from anyone, without what matters only in training.

    Raises:
        UnknownLayerError: a layer is somebody's own, and its code is not here.
        FieldError: a layer does more than compute, takes an absurd amount of memory, or cannot be made. The name is
            layers.N, counted from 0.
    """
    shape: tuple[int, ...] = (SIDE, SIDE, 1)
    weights, layers = 0, []
    for number, (kind, options) in enumerate(recipe.layers):
        try:
            plain, after, more = _safe_layer(kind, options, shape)
        except UnknownLayerError:
            raise
        except Exception as error:  # whatever a stranger's options can do to Keras
            raise FieldError(f"layers.{number}", f"{kind}: {_fault_of(kind, options, error)}") from error
        weights += more
        if weights > MOST_WEIGHTS or math.prod(after) > MOST_OUTPUTS:
            raise FieldError(f"layers.{number}", f"{kind} is larger than any network for digits.")
        layers.append((kind, plain))
        shape = after
    if shape != (CLASSES,):
        raise FieldError(
            f"layers.{len(layers) - 1}",
            f"the output has the shape {shape}. Expected ({CLASSES},), one value per digit. End with Flatten and a "
            "Dense of ten units.",
        )
    return tuple(layers)


def _safe_layer(
    kind: str, options: dict[str, Any], shape: tuple[int, ...]
) -> tuple[dict[str, Any], tuple[int, ...], int]:
    """Return the options of a layer that matter after training, the shape of its output, and a bound of its weights."""
    found = layer_class(kind)
    if found.__name__ not in PLAIN_LAYERS and ">" not in kind:  # Keras has several names for some layers
        raise ValueError("is no layer that only computes, so a recipe or a run folder may not have it")
    plain = {name: value for name, value in options.items() if not name.endswith(ONLY_IN_TRAINING)}
    for name, value in plain.items():
        if not is_plain(value):
            raise ValueError(f"its option {name} is neither text nor a number")
    layer = found(**plain, dtype="float32")
    if ">" in kind:  # the user's own code, which need not say what shape it returns
        after = tuple(layer(keras.KerasTensor((None, *shape))).shape[1:])
    else:
        after = tuple(int(size or 0) for size in layer.compute_output_shape((None, *shape))[1:])
    if gates := GATES.get(found.__name__):
        return plain, after, 4 * gates * (shape[-1] + after[-1] + 2) * after[-1]
    if "Conv" in found.__name__ or found.__name__ in ("Dense", "Residual"):
        kernel = math.prod(getattr(layer, "kernel_size", (3, 3) if kind == "Residual" else (1,)))
        kernel *= int(getattr(layer, "depth_multiplier", 1))
        return plain, after, 4 * kernel * max(shape[-1], after[-1]) * after[-1]
    return plain, after, 4 * math.prod(shape)  # at most some for each value


def compile_model(model: keras.Sequential, recipe: Network, *, steps: int, steps_per_execution: int = 1) -> None:
    """Give a network the recipe's loss and optimizer.

    The optimizer's variables are made at once, because a checkpoint holds them.

    Args:
        model: as ``build_model`` returns it.
        recipe: its loss, optimizer and learning rate are used.
        steps: optimizer steps of the whole training, the length of a one-cycle schedule.
        steps_per_execution: steps that the device takes before Python is asked again; more than one pays off on a TPU.
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


def optimizer_class(kind: str) -> type[keras.optimizers.Optimizer]:
    """Return the class of an optimizer: one of ours or one of Keras'.

    Raises:
        ValueError: neither has one of that name.
    """
    found = OWN_OPTIMIZERS.get(kind) or getattr(keras.optimizers, kind, None)
    if not (isinstance(found, type) and issubclass(found, keras.optimizers.Optimizer)):
        hint = did_you_mean(kind, [*OWN_OPTIMIZERS, *dir(keras.optimizers)])
        raise ValueError(f"Keras has no optimizer {kind}.{hint}")
    return found


def learning_rate_of(recipe: Network, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate of a training: a schedule over its steps, or the number to begin with."""
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


def learning_rates(recipe: Network, rows: int, accuracies: Sequence[float]) -> np.ndarray:
    """Return the learning rate at every step of a training that is done.

    Args:
        recipe: what was trained.
        rows: how many rows were given to it. Some are set apart if an accuracy decides on the training, and drawn ones
            may be added.
        accuracies: those on the tuning rows after each epoch; only their number matters without a plateau.

    Returns:
        (S,) float64.
    """
    if recipe.tunes:
        rows -= math.ceil(TUNING_FRACTION * rows)
    recipe = recipe.for_rows(rows)
    steps = math.ceil((rows + round(recipe.drawn * rows)) / recipe.batch_size)
    if isinstance(rate := recipe.learning_rate, OneCycle):  # computed here, because Keras' schedule starts a device
        total = steps * recipe.epochs
        warmup = math.ceil(rate.warmup * total)
        taken = np.arange(steps * len(accuracies))
        rising = rate.start + (1 - rate.start) * taken / max(1, warmup)
        falling = np.minimum(1, np.maximum(0, taken - warmup) / max(1, total - warmup))
        share = (1 - rate.end) * (1 + np.cos(np.pi * falling)) / 2 + rate.end
        return rate.peak * np.where(taken < warmup, rising, share)
    return np.repeat([epoch_rate(recipe, accuracies[:epoch]) for epoch in range(len(accuracies))], steps)


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
