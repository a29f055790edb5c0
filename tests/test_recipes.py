"""Recipes: each published network matches its publication, and a recipe is data."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from kaggle_digits.errors import InputError
from kaggle_digits.learners.images import to_images
from kaggle_digits.learners.layers import optimizer_class
from kaggle_digits.models import build_model, compile_model
from kaggle_digits.recipe import Milestones, Network, Plateau, to_json
from kaggle_digits.recipes import RECIPES, find_recipe
from kaggle_digits.recipes.fields import from_json

NETWORKS = {name: recipe for name, recipe in RECIPES.items() if isinstance(recipe, Network)}


def test_unknown_recipe_lists_those_there_are():
    said = rf"^best: no such recipe, nor a file .* in \.toml or \.py\. Expected one of {', '.join(RECIPES)}\. `kaggle"
    with pytest.raises(InputError, match=said):
        find_recipe("best")


@pytest.mark.parametrize(
    ("typed", "meant"), [("fsat", "fast"), ("Fast", "fast"), ("lenet5", "lenet-5"), ("lenet", "lenet-5"), ("kn", "knn")]
)
def test_mistyped_recipe_gets_a_suggestion(typed, meant):
    with pytest.raises(InputError, match=rf"\. Did you mean {meant}\? `kaggle-digits recipes` lists all\."):
        find_recipe(typed)


def test_unknown_epochs_are_refused():
    assert find_recipe("lenet-5", epochs=3).epochs == 3
    with pytest.raises(InputError, match=r"^--epochs 3: svm has no epochs\. .* Leave --epochs out\.$"):
        find_recipe("svm", epochs=3)


def test_every_published_system_is_there_with_source_and_figure():
    published = {
        "random": 0.103,
        "idm": 0.9946,
        "logistic-regression": 0.9169,
        "naive-bayes": 0.556,
        "svm": 0.9792,
        "knn": 0.9688,
        "random-forest": 0.97,
        "fc-200-100-20-linear": 0.9258,
        "cnn-25-50-bn": 0.9886,
        "bharadwaj-cnn": 0.98,
        "cnn-16-32": 0.98,
        "mlp-784-300": 0.91085,
        "mlp-784-300-sigmoid": 0.81285,
        "mlp-784-300-relu-output": 0.85014,
        "mlp-784-100": 0.91,
        "mlp-150-150": 0.86257,
        "resnet-192": 0.9964,
        "mlp-300-100-bn": 0.955,
    }
    assert {name: r.published_accuracy for name, r in RECIPES.items() if r.published_accuracy} == published
    assert len(RECIPES) >= 30
    for recipe in RECIPES.values():
        assert recipe.source
        assert recipe.published
    assert sum(recipe.published_seconds or 0 for recipe in RECIPES.values()) == pytest.approx(
        1803 + 1483 + 156 + 127 + 1.9
    )


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_survives_json(recipe):
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe


@pytest.mark.parametrize("recipe", NETWORKS.values(), ids=NETWORKS)
def test_every_optimizer_setting_that_keras_could_change_is_written_out(recipe):
    kind, settings = recipe.optimizer
    known = optimizer_class(kind)().get_config()
    # Settings that all Keras optimizers share need not be written out, nor amsgrad, which is off by default.
    shared = set(keras.optimizers.SGD().get_config()) - {"momentum", "nesterov"}
    assert set(known) - shared - {"amsgrad"} == set(settings) - shared


def test_mlp_784_300_is_as_published():
    recipe = RECIPES["mlp-784-300"]
    model = build_model(recipe)
    assert activations(recipe.name) == ["sigmoid", "sigmoid", "linear"]
    compile_model(model, recipe, steps=1)
    assert isinstance(model.loss, keras.losses.MeanSquaredError)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    assert (recipe.epochs, recipe.batch_size, recipe.pixel_offset, recipe.pixel_scale) == (10, 32, 0, 1)


def test_cnn_32_64_is_as_published():
    recipe = RECIPES["cnn-32-64"]
    model = build_model(recipe)
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


def dense(inputs: int, units: int) -> int:
    return inputs * units + units


def conv(channels: int, size: int, filters: int) -> int:
    return channels * size * size * filters + filters


# The numbers of parameters follow from the layers, published ones and ours. A normalised channel has 4.
SIZES = {
    "fast": 25 * 32 + 32 * 9 * 48 + 48 * 9 * 64 + 4 * 4 * 64 * 128 + 4 * (32 + 48 + 64 + 128) + dense(128, 10),
    "tiny": 25 * 8 + 8 * 9 * 16 + 16 * 9 * 16 + 16 * 9 * 20 + 4 * (8 + 16 + 16 + 20) + dense(2 * 2 * 20, 10),
    "mlp-784-300": dense(784, 784) + dense(784, 300) + dense(300, 10),
    "cnn-32-64": conv(1, 5, 32)
    + conv(32, 5, 32)
    + conv(32, 3, 64)
    + conv(64, 3, 64)
    + dense(7 * 7 * 64, 256)
    + dense(256, 10),
    "mlp-784-300-sigmoid": dense(784, 784) + dense(784, 300) + dense(300, 10),
    "mlp-784-100": dense(784, 784) + dense(784, 100) + dense(100, 10),
    "mlp-150-150": dense(784, 150) + dense(150, 150) + dense(150, 10),
    "fc-200-100-20": dense(784, 200) + dense(200, 100) + dense(100, 20) + dense(20, 10),
    "cnn-25-50-bn": conv(1, 3, 25) + conv(25, 3, 50) + 4 * 75 + dense(1250, 1024) + dense(1024, 128) + dense(128, 10),
    "bharadwaj-cnn": conv(1, 3, 32) + conv(32, 3, 64) + dense(1600, 128) + dense(128, 10),
    "cnn-16-32": conv(1, 5, 16) + conv(16, 5, 32) + dense(7 * 7 * 32, 10),
    "cnn-16-32-64": conv(1, 5, 16) + conv(16, 5, 32) + conv(32, 5, 64) + dense(7 * 7 * 64, 10),
    "lenet-5": conv(1, 5, 6) + conv(6, 5, 16) + dense(400, 120) + dense(120, 84) + dense(84, 10),
    "resnet-192": sum(
        conv(before, 5, width) + 4 * width + 2 * conv(width, 3, width) + conv(width, 1, width)
        for before, width in ((1, 32), (32, 64), (64, 128), (128, 192))
    )
    + dense(192 * 7 * 7, 256)
    + dense(256, 10),
    "mlp-300-100-bn": dense(784, 300) + dense(300, 100) + 4 * 400 + dense(100, 10),
}


@pytest.mark.parametrize("name", SIZES)
def test_network_has_the_parameters_of_its_layers(name):
    assert build_model(RECIPES[name]).count_params() == SIZES[name]


def activations(name: str) -> list[str]:
    layers = build_model(RECIPES[name]).layers
    return [layer.activation.__name__ for layer in layers if isinstance(layer, keras.layers.Dense)]


def test_activations_are_as_published():
    assert activations("mlp-784-300-sigmoid") == ["sigmoid"] * 3
    assert activations("mlp-784-300-relu-output") == ["sigmoid", "sigmoid", "relu"]
    assert activations("mlp-784-300-relu") == ["relu"] * 3
    assert activations("mlp-150-150") == activations("mlp-784-100") == ["sigmoid", "sigmoid", "linear"]
    assert activations("fc-200-100-20") == ["relu"] * 3 + ["linear"]
    assert activations("fc-200-100-20-linear") == ["linear"] * 4
    assert activations("lenet-5") == ["tanh", "tanh", "linear"]


def test_residual_network_is_as_published():
    kinds = [type(layer).__name__ for layer in build_model(RECIPES["resnet-192"]).layers]
    usual = ["Conv2D", "BatchNormalization", "ReLU", "Residual"]
    # In the second block the ReLU belongs to the convolution, so it comes before the normalisation.
    second = ["Conv2D", "BatchNormalization", "Residual", "MaxPooling2D"]
    assert kinds == [*usual, *second, *usual, *usual, "MaxPooling2D", "Flatten", "Dense", "Dense"]
    recipe = RECIPES["resnet-192"]
    assert recipe.optimizer == ("SGD", {"momentum": 0.5, "nesterov": False})
    assert recipe.learning_rate == Plateau(start=0.06, factor=0.5, patience=2, threshold=5e-5)
    assert (recipe.augmentation.rotation, recipe.augmentation.shift) == (10, pytest.approx(28 * 0.1))
    assert recipe.batch_size == 256


def test_settings_of_training_are_as_published():
    table = {
        "fc-200-100-20": (1e-3, 64, 20),
        "cnn-25-50-bn": (1e-3, 64, 20),
        "cnn-16-32": (1e-3, 50, 1),
        "cnn-16-32-64": (1e-3, 50, 1),
        "mlp-784-300-lr-0.001": (1e-3, 32, 10),
        "mlp-300-100-bn": (Milestones(start=0.01, factor=0.1, epochs=(0, 7, 14, 21)), 64, 28),
    }
    for name, settings in table.items():
        recipe = RECIPES[name]
        assert (recipe.learning_rate, recipe.batch_size, recipe.epochs) == settings, name
    reader = {name.removeprefix("bharadwaj-cnn"): r for name, r in NETWORKS.items() if name.startswith("bharadwaj")}
    assert {suffix: r.learning_rate for suffix, r in reader.items() if "lr" in suffix} == {
        "-lr-0.01": 1e-2,
        "-lr-0.0001": 1e-4,
    }
    assert {recipe.stop_at for recipe in reader.values()} == {0.98}
    assert reader["-decay-0.01"].optimizer[1]["weight_decay"] == 0.01
    dropouts = {
        suffix: [(index, options["rate"]) for index, (kind, options) in enumerate(recipe.layers) if kind == "Dropout"]
        for suffix, recipe in reader.items()
        if "dropout" in suffix
    }
    assert dropouts == {
        "-dropout-in": [(0, 0.2)],
        "-dropout-conv": [(4, 0.2)],
        "-dropout-0.2": [(0, 0.2), (5, 0.2)],
        "-dropout-0.5": [(0, 0.5), (5, 0.5)],
    }


def test_pixels_are_scaled_as_published():
    black, white = np.zeros((1, 784), np.uint8), np.full((1, 784), 255, np.uint8)
    for name, low, high in (
        ("fc-200-100-20", (0 - 0.1307) / 0.3081, (1 - 0.1307) / 0.3081),
        ("resnet-192", (0 - 0.1307) / 0.3081, (1 - 0.1307) / 0.3081),
        ("mlp-300-100-bn", -1, 1),
        ("cnn-16-32", 0, 1),
    ):
        recipe = RECIPES[name]
        assert to_images(black, recipe).max() == pytest.approx(low, rel=1e-5)
        assert to_images(white, recipe).min() == pytest.approx(high, rel=1e-5)
