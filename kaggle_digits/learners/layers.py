"""The layers and optimizers that recipes may name: ours, Keras', and those of a user's own file.

``safe_layers`` refuses everything that does more than compute, because a recipe or a run folder may come from anyone.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from typing import Any

import keras

from kaggle_digits.devices.backend import import_tensorflow
from kaggle_digits.digits import CLASSES, SIDE
from kaggle_digits.errors import did_you_mean
from kaggle_digits.learners.muon import ConvMuon
from kaggle_digits.recipe import FieldError, Layer, Network
from kaggle_digits.recipes.fields import ONLY_IN_TRAINING, is_plain


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
        # With another number of channels, the fused operation is slower than Keras' own steps.
        fits = len(inputs.shape) == 4 and inputs.shape[-1] % 16 == 0
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


class UnknownLayerError(LookupError):
    """A network has a layer of somebody's own, whose code is not here. The message says where it is."""


def layer_class(kind: str) -> type[keras.layers.Layer]:
    """Return the class of a layer.

    Args:
        kind: the name of one of Keras' layers, or a name like package>Name for a class that was registered with Keras,
            see ``recipes.python``.

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
    found = {"Residual": Residual, "BatchNormalization": BatchNormalization}.get(kind) or getattr(
        keras.layers, kind, None
    )
    if not (isinstance(found, type) and issubclass(found, keras.layers.Layer)):
        raise ValueError(f"Keras has no layer {kind}.{did_you_mean(kind, dir(keras.layers))}")
    return found


def optimizer_class(kind: str) -> type[keras.optimizers.Optimizer]:
    """Return the class of an optimizer: one of ours or one of Keras'.

    Raises:
        ValueError: neither has one of that name.
    """
    found = {"ConvMuon": ConvMuon}.get(kind) or getattr(keras.optimizers, kind, None)
    if not (isinstance(found, type) and issubclass(found, keras.optimizers.Optimizer)):
        hint = did_you_mean(kind, ["ConvMuon", *dir(keras.optimizers)])
        raise ValueError(f"Keras has no optimizer {kind}.{hint}")
    return found


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


def safe_layers(recipe: Network) -> tuple[Layer, ...]:
    """Return the layers of a network that may come from anyone, without what matters only in training.

    Raises:
        UnknownLayerError: a layer is somebody's own, and its code is not here.
        FieldError: a layer does more than compute, takes an absurd amount of memory, or cannot be made. The name is
            layers[N], counted from 0.
    """
    shape: tuple[int, ...] = (SIDE, SIDE, 1)
    weights, layers = 0, []
    for number, (kind, options) in enumerate(recipe.layers):
        try:
            plain, after, more = _safe_layer(kind, options, shape)
        except UnknownLayerError:
            raise
        except Exception as error:  # whatever a stranger's options can do to Keras
            raise FieldError(f"layers[{number}]", f"{kind}: {fault_of(kind, options, error)}") from error
        weights += more
        if weights > 2**27 or math.prod(after) > 2**20:
            raise FieldError(f"layers[{number}]", f"{kind} is larger than any network for digits.")
        layers.append((kind, plain))
        shape = after
    if shape != (CLASSES,):
        raise FieldError(
            f"layers[{len(layers) - 1}]",
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
    if gates := {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}.get(found.__name__):  # sets of weights
        return plain, after, 4 * gates * (shape[-1] + after[-1] + 2) * after[-1]
    if "Conv" in found.__name__ or found.__name__ in ("Dense", "Residual"):
        kernel = math.prod(getattr(layer, "kernel_size", (3, 3) if kind == "Residual" else (1,)))
        kernel *= int(getattr(layer, "depth_multiplier", 1))
        return plain, after, 4 * kernel * max(shape[-1], after[-1]) * after[-1]
    return plain, after, 4 * math.prod(shape)  # at most some for each value


def fault_of(kind: str, options: dict[str, Any], error: Exception) -> str:
    """Say why a layer cannot be made: an option that it does not take, or else what Keras says."""
    with contextlib.suppress(ValueError, LookupError):
        known = [name for name in inspect.signature(layer_class(kind)).parameters if name not in ("kwargs", "args")]
        if known and (
            strange := [name for name in options if name not in (*known, "name", "trainable", "activity_regularizer")]
        ):
            hint = did_you_mean(strange[0], known) or f" Expected some of {', '.join(known)}."
            return f"{strange[0]}: no such argument.{hint}"
    for name in ("activation", "recurrent_activation"):
        value = options.get(name)
        if isinstance(value, str) and not hasattr(keras.activations, value):
            return f"{name}: Keras has no {value!r}.{did_you_mean(value, dir(keras.activations))}"
    return first_line(error)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, with a full stop."""
    line = " ".join(str(error).strip().partition("\n")[0].split())
    return line if line.endswith("?") else line.rstrip(".:") + "."
