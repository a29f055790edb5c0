"""Recipes: the published networks are as published, and a recipe is data."""

from __future__ import annotations

import json
from dataclasses import asdict

import keras
import pytest

from kaggle_digits.config import DEFAULT_RECIPE, InputError
from kaggle_digits.models import build_model, compile_model
from kaggle_digits.recipes import RECIPES, find_recipe


def test_the_default_is_in_the_table():
    assert find_recipe(DEFAULT_RECIPE).name == DEFAULT_RECIPE


def test_unknown_recipe_lists_those_there_are():
    with pytest.raises(InputError) as caught:
        find_recipe("best")
    assert str(caught.value) == (
        f"best: no such recipe. Expected one of {', '.join(RECIPES)}. `kaggle-digits recipes` describes them."
    )


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_survives_json(recipe):
    from kaggle_digits.predict import recipe_of

    assert recipe_of({"recipe": json.loads(json.dumps(asdict(recipe)))}) == recipe


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_optimizer_setting_that_keras_could_change_is_written_out(recipe):
    kind, settings = recipe.optimizer
    known = getattr(keras.optimizers, kind)().get_config()
    # What all Keras optimizers share, and what is off unless asked for.
    shared = set(keras.optimizers.SGD().get_config()) - {"momentum", "nesterov"}
    assert set(known) - shared - {"amsgrad"} == set(settings) - shared


def test_mlp_784_300_is_as_published():
    recipe = RECIPES["mlp-784-300"]
    model = build_model(recipe)
    # 784·784 + 784, 784·300 + 300, 300·10 + 10
    assert model.count_params() == 615_440 + 235_500 + 3_010
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [(layer.units, layer.activation.__name__) for layer in dense] == [
        (784, "sigmoid"),
        (300, "sigmoid"),
        (10, "linear"),
    ]
    compile_model(model, recipe, steps=1)
    assert isinstance(model.loss, keras.losses.MeanSquaredError)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    assert (recipe.epochs, recipe.batch_size, recipe.pixel_offset, recipe.pixel_scale) == (10, 32, 0, 1)


def test_cnn_32_64_is_as_published():
    recipe = RECIPES["cnn-32-64"]
    model = build_model(recipe)
    # 1·25·32 + 32, 32·25·32 + 32, 32·9·64 + 64, 64·9·64 + 64, 7·7·64·256 + 256, 256·10 + 10
    assert model.count_params() == 832 + 25_632 + 18_496 + 36_928 + 803_072 + 2_570 == 887_530
    assert [type(layer).__name__ for layer in model.layers] == [
        *("Conv2D", "Conv2D", "MaxPooling2D", "Dropout") * 2,
        *("Flatten", "Dense", "Dropout", "Dense"),
    ]
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.25, 0.25, 0.5]
    compile_model(model, recipe, steps=1)
    assert isinstance(model.loss, keras.losses.MeanSquaredError)
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)
    config = model.optimizer.get_config()
    assert config["learning_rate"] == pytest.approx(1e-3)
    assert (config["rho"], config["epsilon"], config["momentum"], config["centered"]) == (0.9, 1e-8, 0.0, False)
    assert (recipe.epochs, recipe.batch_size, recipe.pixel_offset, recipe.pixel_scale) == (9, 42, 0, 1)
