"""Build the Keras networks that recipes describe, and give them their loss and optimizer."""

from __future__ import annotations

import math

import keras

from kaggle_digits.config import SIDE, OneCycle, Recipe


def build_model(recipe: Recipe, *, precision: str = "float32") -> keras.Sequential:
    """Build a recipe's network, untrained and uncompiled.

    Call it inside the scope of a strategy. Weights are drawn from Keras' global generator: set its seed first.

    Args:
        recipe: its ``layers`` are built as they stand.
        precision: the Keras dtype policy of all layers but the last, whose logits are always float32.

    Returns:
        a Sequential network, images (N, 28, 28, 1) float32 → logits (N, 10) float32.
    """
    model = keras.Sequential(name=recipe.name.replace("-", "_"))
    model.add(keras.Input((SIDE, SIDE, 1)))
    for index, (kind, options) in enumerate(recipe.layers, start=1):
        dtype = "float32" if index == len(recipe.layers) else precision
        model.add(getattr(keras.layers, kind)(**options, dtype=dtype))
    return model


def compile_model(model: keras.Sequential, recipe: Recipe, *, steps: int) -> None:
    """Give a network the recipe's loss and optimizer.

    Args:
        model: as ``build_model`` returns it.
        recipe: its loss, optimizer and learning rate are used.
        steps: optimizer steps of the whole training, the length of a one-cycle schedule.
    """
    losses = {
        "mse": keras.losses.MeanSquaredError(),
        "crossentropy": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
    }
    kind, settings = recipe.optimizer
    optimizer = getattr(keras.optimizers, kind)(learning_rate=_learning_rate(recipe, steps), **settings)
    # jit_compile stays "auto": XLA trains four times slower on a CPU, and must not be forced on under a strategy.
    model.compile(optimizer=optimizer, loss=losses[recipe.loss], metrics=["accuracy"])


def _learning_rate(recipe: Recipe, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    rate = recipe.learning_rate
    if not isinstance(rate, OneCycle):
        return rate
    warmup_steps = math.ceil(rate.warmup * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=rate.peak * rate.start,
        decay_steps=max(1, steps - warmup_steps),
        alpha=rate.end,
        warmup_target=rate.peak,
        warmup_steps=warmup_steps,
    )
