"""Our own layers and optimizers for recipes, and how to find any layer or optimizer by its name."""

from __future__ import annotations

import math
from typing import Any

import keras

from kaggle_digits.devices import import_tensorflow
from kaggle_digits.errors import did_you_mean


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
    """Keras' layer, but with TensorFlow's fused operation when it is trained on images in one replica.

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


class ConvMuon(keras.optimizers.AdamW):
    """Muon for weights of two or more dimensions, which are kernels, and AdamW for biases and normalisations.

    Muon replaces a kernel's update by the nearest matrix whose singular values are all 1. So rare directions of the
    gradients are learned as fast as frequent ones. Keras' own ``Muon`` leaves the kernels of convolutions to AdamW.
    Here such a kernel is a matrix with a column for every filter.

    Args:
        learning_rate: a number or a schedule, for both kinds of weights.
        muon_momentum: share of Muon's running sum of gradients that stays from step to step.
        muon_rms: root mean square of a kernel's update, as a multiple of the learning rate. With 0.2 it is about
            AdamW's, whose learning rate and weight decay then fit.
        options: those of ``keras.optimizers.AdamW``.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", with the scale of Liu et al.
    2025, arXiv 2502.16982.
    """

    def __init__(
        self, learning_rate: Any = 0.01, *, muon_momentum: float = 0.95, muon_rms: float = 0.2, **options: Any
    ) -> None:
        super().__init__(learning_rate, **options)
        self.muon_momentum, self.muon_rms = muon_momentum, muon_rms

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change a variable by one step."""
        if len(variable.shape) < 2:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum = self._momentums[self._get_variable_index(variable)]
        gradient = keras.ops.cast(gradient, variable.dtype)
        self.assign(momentum, momentum * self.muon_momentum + gradient)
        columns = variable.shape[-1]
        matrix = keras.ops.reshape(gradient + momentum * self.muon_momentum, (-1, columns))
        length = self.muon_rms * math.sqrt(max(math.prod(variable.shape[:-1]), columns))
        update = keras.ops.reshape(orthogonalized(matrix), variable.shape) * length
        self.assign_sub(variable, update * keras.ops.cast(learning_rate, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return all settings, from which Keras can make the optimizer again."""
        return {**super().get_config(), "muon_momentum": self.muon_momentum, "muon_rms": self.muon_rms}


def orthogonalized(matrix: Any) -> Any:
    """Bring all singular values of a matrix near 1, and keep its singular vectors, by Newton and Schulz' iteration.

    Args:
        matrix: (rows, columns) of a floating dtype.
    """
    rows, columns = matrix.shape
    wide = matrix if rows <= columns else keras.ops.transpose(matrix)  # the products are smaller
    wide = wide / (keras.ops.norm(wide) + 1e-7)
    # An odd polynomial. Each step brings the singular values closer to 1, and small ones rise fastest. After five
    # steps, those of at least 0.01 of the matrix' norm lie between about 0.7 and 1.2.
    first, third, fifth = 3.4445, -4.7750, 2.0315
    for _ in range(5):
        square = wide @ keras.ops.transpose(wide)
        wide = first * wide + (third * square + fifth * square @ square) @ wide
    return wide if rows <= columns else keras.ops.transpose(wide)


class UnknownLayerError(LookupError):
    """A network has a custom layer whose code is not here. The message says where it is."""


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
        ValueError: neither has an optimizer of that name.
    """
    found = {"ConvMuon": ConvMuon}.get(kind) or getattr(keras.optimizers, kind, None)
    if not (isinstance(found, type) and issubclass(found, keras.optimizers.Optimizer)):
        hint = did_you_mean(kind, ["ConvMuon", *dir(keras.optimizers)])
        raise ValueError(f"Keras has no optimizer {kind}.{hint}")
    return found
