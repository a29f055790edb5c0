"""Models: shapes, precision and schedules follow the recipe."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import needs_bfloat16

from kaggle_digits.learners.layers import BatchNormalization, Residual
from kaggle_digits.models import build_model, compile_model, epoch_rate
from kaggle_digits.recipe import Milestones, Network, Plateau
from kaggle_digits.recipes import RECIPES

NETWORKS = {name: recipe for name, recipe in RECIPES.items() if isinstance(recipe, Network)}


@pytest.mark.parametrize("precision", ["float32", pytest.param("mixed_bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize("recipe", NETWORKS.values(), ids=NETWORKS)
def test_images_become_float32_logits(recipe, precision):
    model = build_model(recipe, precision=precision)
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 10)
    logits = model(np.zeros((3, 28, 28, 1), np.float32))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    compute = "bfloat16" if precision == "mixed_bfloat16" else "float32"
    assert {layer.compute_dtype for layer in model.layers[:-1]} == {compute}
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.trainable_variables} == {"float32"}


def test_one_cycle_rises_and_falls_as_computed_by_hand():
    recipe = RECIPES["fast"]
    cycle = replace(recipe.learning_rate, peak=0.01, warmup=0.2, start=0.04, end=0.001)
    model = build_model(recipe)
    compile_model(model, replace(recipe, learning_rate=cycle), steps=100)
    rate = model.optimizer.get_config()["learning_rate"]
    schedule = keras.optimizers.schedules.deserialize(rate)
    expected = {0: 0.0004, 10: 0.0052, 20: 0.01, 60: 0.01 * (0.5 * (1 - 0.001) + 0.001), 100: 0.00001}
    for step, value in expected.items():
        assert float(schedule(step)) == pytest.approx(value, rel=1e-5)


def test_residual_block_is_the_sum_it_says():
    keras.utils.set_random_seed(0)
    block = Residual(4)
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    result = keras.ops.convert_to_numpy(block(images))
    assert result.shape == (2, 5, 5, 4)
    # 3·9·4 + 4, 4·9·4 + 4, 3·4 + 4
    assert block.count_params() == 112 + 148 + 16

    def convolve(images: np.ndarray, layer: keras.layers.Conv2D) -> np.ndarray:
        """Convolve by summing shifted copies of the images; pixels outside count as zero."""
        kernel, bias = (keras.ops.convert_to_numpy(weight) for weight in layer.weights)
        margin = kernel.shape[0] // 2
        padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        height, width = images.shape[1:3]
        return bias + sum(
            padded[:, y : y + height, x : x + width] @ kernel[y, x]
            for y in range(kernel.shape[0])
            for x in range(kernel.shape[1])
        )

    inner = convolve(np.maximum(convolve(images, block.first), 0), block.second)
    np.testing.assert_allclose(result, np.maximum(inner + convolve(images, block.side), 0), atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "dtype"), [(16, "float32"), pytest.param(16, "mixed_bfloat16", marks=needs_bfloat16), (24, "float32")]
)
def test_fused_normalisation_is_keras_own(channels, dtype):
    images = np.random.default_rng(0).normal(3, 2, size=(8, 4, 4, channels)).astype(np.float32)
    weights = np.linspace(-1, 1, images.size, dtype=np.float32).reshape(images.shape)
    found = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-3, dtype=dtype)
        layer.build(images.shape)
        layer.gamma.assign(np.linspace(0.5, 2, channels))
        layer.beta.assign(np.linspace(-1, 1, channels))
        with tf.GradientTape() as tape:
            # Round the images to bfloat16 first, so that both layers see the same values.
            seen = tf.Variable(tf.cast(tf.cast(images, layer.compute_dtype), tf.float32))
            outputs = layer(tf.cast(seen, layer.compute_dtype), training=True)
            assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
            total = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
        graph = tf.function(layer.call).get_concrete_function(images, training=True).graph
        ops = {op.type for op in graph.get_operations()}
        assert ("FusedBatchNormV3" in ops) == (kind is BatchNormalization and channels == 16)
        gradients = tape.gradient(total, [seen, layer.gamma.value, layer.beta.value])
        asked = layer(images, training=False)
        found.append([tf.cast(value, tf.float32).numpy() for value in (outputs, *gradients, asked)])
        found[-1] += [layer.moving_mean.numpy(), layer.moving_variance.numpy()]
    loose = {"rtol": 0.01, "atol": 0.02} if dtype == "mixed_bfloat16" else {"rtol": 1e-5, "atol": 1e-5}
    for fused, own in zip(*found, strict=True):
        np.testing.assert_allclose(fused, own, **loose)


def test_learning_rates_between_epochs_are_as_computed_by_hand():
    milestones = RECIPES["mlp-300-100-bn"]
    assert milestones.learning_rate == Milestones(start=0.01, factor=0.1, epochs=(0, 7, 14, 21))
    rates = [epoch_rate(milestones, [0.0] * done) for done in range(28)]
    assert rates == pytest.approx([1e-3] * 7 + [1e-4] * 7 + [1e-5] * 7 + [1e-6] * 7)

    plateau = replace(RECIPES["resnet-192"], learning_rate=Plateau(start=0.06, factor=0.5, patience=2, threshold=0.01))
    # 0.5 and 0.6 rise. 0.605 is less than 1% above 0.6, and 0.59 is below it: the rate is cut. 0.61 rises. 0.5 and
    # 0.4 do not: the rate is cut again.
    accuracies = [0.5, 0.6, 0.605, 0.59, 0.61, 0.5, 0.4, 0.3]
    rates = [epoch_rate(plateau, accuracies[:done]) for done in range(9)]
    assert rates == pytest.approx([0.06, 0.06, 0.06, 0.06, 0.03, 0.03, 0.03, 0.015, 0.015])

    assert epoch_rate(RECIPES["cnn-16-32"], [0.9, 0.9, 0.9]) == 1e-3  # a constant
