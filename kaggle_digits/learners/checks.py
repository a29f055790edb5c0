"""Check networks that may come from anyone, before they are built.

``safe_layers`` refuses everything that does more than compute.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from typing import Any

import keras

from kaggle_digits.digits import CLASSES, SIDE
from kaggle_digits.errors import did_you_mean
from kaggle_digits.learners.layers import UnknownLayerError, layer_class
from kaggle_digits.recipe import FieldError, Layer, Network
from kaggle_digits.recipes.fields import ONLY_IN_TRAINING, is_plain

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
"""Layers that only compute. Other layers of Keras may load files or run code."""


def safe_layers(recipe: Network) -> tuple[Layer, ...]:
    """Return the layers of a network that may come from anyone, without options that matter only in training.

    Raises:
        UnknownLayerError: a layer is a custom one, and its code is not here.
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
        except Exception as error:  # a stranger's options can make Keras raise anything
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
    """Return the options of a layer that matter after training, the shape of its output, and a bound on its weights."""
    found = layer_class(kind)
    if found.__name__ not in PLAIN_LAYERS and ">" not in kind:  # Keras has several names for some layers
        raise ValueError("is no layer that only computes, so a recipe or a run folder may not have it")
    plain = {name: value for name, value in options.items() if not name.endswith(ONLY_IN_TRAINING)}
    for name, value in plain.items():
        if not is_plain(value):
            raise ValueError(f"its option {name} is neither text nor a number")
    layer = found(**plain, dtype="float32")
    if ">" in kind:  # custom code may not say what shape it returns
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
    """Say why a layer cannot be made: it does not take an option, or else what Keras says."""
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
