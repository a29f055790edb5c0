"""Models: shapes, precision and schedules are what the recipe says."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from kaggle_digits.models import build_model, compile_model
from kaggle_digits.recipes import RECIPES


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_images_become_float32_logits(recipe, precision):
    model = build_model(recipe, precision=precision)
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 10)
    logits = model(np.zeros((3, 28, 28, 1), np.float32))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    compute = "bfloat16" if precision == "mixed_bfloat16" else "float32"
    assert {layer.compute_dtype for layer in model.layers[:-1]} == {compute}
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.trainable_variables} == {"float32"}


def test_fast_has_the_parameters_of_its_layers():
    # 1·25·24, 24·9·48, 48·9·64, 4·4·64·128, 128·10 + 10; each normalisation has 4 values a channel.
    weights = 600 + 10_368 + 27_648 + 131_072 + 1_290
    assert build_model(RECIPES["fast"]).count_params() == weights + 4 * (24 + 48 + 64 + 128) == 172_034


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
