"""Muon for convolutions: an optimizer that makes every direction of a kernel's update equally long."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of an odd polynomial. Applied again and again, it brings singular values near 1, and small ones rise fastest."""

STEPS = 5
"""So often it is applied. Singular values of at least 0.01 of the matrix' norm then lie between about 0.7 and 1.2."""


class ConvMuon(keras.optimizers.AdamW):
    """Muon for weights of two or more dimensions, which are kernels, and AdamW for biases and normalisations.

    Muon replaces a kernel's update by the nearest matrix whose singular values are all 1. So directions that are rare
    in the gradients are learned as fast as frequent ones. Keras' own ``Muon`` leaves the kernels of convolutions to
    AdamW. Here such a kernel is a matrix, whose columns are its last dimension: a column for every filter.

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
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(momentum, momentum * self.muon_momentum + gradient)
        columns = variable.shape[-1]
        matrix = ops.reshape(gradient + momentum * self.muon_momentum, (-1, columns))
        length = self.muon_rms * math.sqrt(max(math.prod(variable.shape[:-1]), columns))
        update = ops.reshape(orthogonalized(matrix), variable.shape) * length
        self.assign_sub(variable, update * ops.cast(learning_rate, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return all settings, from which Keras can make the optimizer again."""
        return {**super().get_config(), "muon_momentum": self.muon_momentum, "muon_rms": self.muon_rms}


def orthogonalized(matrix: Any) -> Any:
    """Bring all singular values of a matrix near 1, and keep its singular vectors, by Newton and Schulz' iteration.

    Args:
        matrix: (rows, columns) of a floating dtype.
    """
    rows, columns = matrix.shape
    wide = matrix if rows <= columns else ops.transpose(matrix)  # the products are smaller
    wide = wide / (ops.norm(wide) + 1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(STEPS):
        square = wide @ ops.transpose(wide)
        wide = first * wide + (third * square + fifth * square @ square) @ wide
    return wide if rows <= columns else ops.transpose(wide)
