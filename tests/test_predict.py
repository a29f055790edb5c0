"""Predict: each row gets one digit whatever the batch size, probabilities are valid, and run folders are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from run_folder import write_run

from kaggle_digits import cli
from kaggle_digits.data import find_source, load_test
from kaggle_digits.errors import RunError
from kaggle_digits.learners import PACKAGED_RUN, load_run
from kaggle_digits.learners.checks import safe_layers
from kaggle_digits.learners.images import SURE, to_images
from kaggle_digits.learners.upright import normalise_pixels
from kaggle_digits.models import build_model, network_predictor
from kaggle_digits.recipe import Network
from kaggle_digits.recipes import RECIPES
from kaggle_digits.run import read_run
from kaggle_digits.strategy import Device
from kaggle_digits.submission import predict_digits

PLAIN = replace(RECIPES["fast"], shift_averaging=0)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_model(RECIPES["fast"])


@pytest.mark.parametrize("rows", [0, 1, 5, 64, 130])
@pytest.mark.parametrize(("batch_size", "replicas"), [(1, 1), (7, 1), (64, 1), (1024, 1), (64, 8)])
def test_every_row_gets_its_own_prediction(model, rows, batch_size, replicas):
    pixels = np.random.default_rng(rows).integers(0, 256, (rows, 784)).astype(np.uint8)
    device = Device("cpu", None, replicas, "float32", "test")
    probabilities = network_predictor(model, PLAIN, device=device, batch_size=batch_size).probabilities(pixels)
    assert probabilities.shape == (rows, 10)
    if rows:
        logits = np.concatenate([model(to_images(row[None], PLAIN)).numpy() for row in pixels])
        np.testing.assert_allclose(probabilities, keras.ops.softmax(logits), atol=1e-4)


def test_images_are_scaled_as_the_recipe_says():
    recipe = replace(PLAIN, pixel_offset=51.0, pixel_scale=102.0)
    pixels = (np.arange(784) % 256).astype(np.uint8)[None]
    images = to_images(pixels, recipe)
    assert (images.shape, images.dtype) == ((1, 28, 28, 1), np.float32)
    np.testing.assert_allclose(images.reshape(784), (pixels[0] - 51.0) / 102.0, rtol=1e-6)


class _Constant:
    """A stand-in for a network that gives ``network_predictor`` chosen outputs."""

    def __init__(self, outputs: list[list[float]]) -> None:
        self.outputs = np.array(outputs, np.float32)

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        assert len(images) >= len(self.outputs)  # some only fill the batch
        return np.resize(self.outputs, (len(images), 10))


def test_shift_averaging_asks_for_the_image_and_its_four_neighbours(model):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 784)).astype(np.uint8)
    images = pixels.reshape(5, 28, 28)
    each = []
    for down, right in ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)):
        moved = np.zeros_like(images)
        for y in range(28):
            for x in range(28):
                if 0 <= y - down < 28 and 0 <= x - right < 28:
                    moved[:, y, x] = images[:, y - down, x - right]
        each.append(network_predictor(model, PLAIN).probabilities(moved.reshape(5, 784)))
    averaged = network_predictor(model, replace(PLAIN, shift_averaging=2)).probabilities(pixels)
    np.testing.assert_allclose(averaged, np.mean(each, axis=0), rtol=1e-5)


def test_outputs_of_squared_error_become_probabilities_with_the_same_order():
    outputs = [[0.1, 1.2, -0.1, 0, 0, 0, 0, 0, 0, 1.1], [-3.0, *[-1.0] * 8, -2.0], [0.0] * 10]
    predictor = network_predictor(_Constant(outputs), RECIPES["mlp-784-300"])
    probabilities = predictor.probabilities(np.zeros((3, 784), np.uint8))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert probabilities.min() >= 0
    # The first row minus its minimum is 0.2, 1.3, 0, six times 0.1, 1.2; the sum is 3.3.
    np.testing.assert_allclose(probabilities[0, [0, 1, 2, 3, 9]], np.array([0.2, 1.3, 0, 0.1, 1.2]) / 3.3, rtol=1e-5)
    np.testing.assert_allclose(probabilities[2], 0.1)


def test_several_runs_are_averaged_before_the_arg_max():
    first = np.array([[0.6, 0.4, 0.0]])
    second = np.array([[0.1, 0.5, 0.4]])
    assert predict_digits([first]).tolist() == [0]
    assert predict_digits([first, second]).tolist() == [1]
    assert predict_digits([first]).dtype == np.int64


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"recipe": {"name": "x"}}', "\0", "[" * 100_000])
def test_damaged_run_json_is_refused(workplace, content):
    Path("run").mkdir()
    Path("run/run.json").write_text(content)
    with pytest.raises(RunError, match=r"run.json: not readable as a run"):
        read_run(Path("run"))


def test_damaged_model_is_refused(workplace, cpu):
    write_run("run", RECIPES["fast"])
    network_predictor(build_model(RECIPES["fast"]), RECIPES["fast"]).save(Path("run"))
    whole = Path("run/model.npz").read_bytes()
    assert load_run(Path("run"), cpu).predictor.parameters == 175_722
    for damaged in (b"", b"not a model", whole[: len(whole) // 2], whole[:-90_000] + bytes(5000) + whole[-85_000:]):
        Path("run/model.npz").write_bytes(damaged)
        with pytest.raises(RunError, match=r"model.npz: cannot be loaded .* Train it again\.$"):
            load_run(Path("run"), cpu)
    network_predictor(build_model(RECIPES["flash"]), RECIPES["flash"]).save(Path("run"))
    with pytest.raises(RunError, match=r"model.npz: cannot be loaded \(it holds other arrays than expected"):
        load_run(Path("run"), cpu)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if isinstance(recipe, Network)])
def test_every_recipe_of_ours_passes_as_a_strangers(name):
    safe_layers(RECIPES[name])


def test_network_of_the_package_is_small_and_read_without_naming_a_run(cpu, capsys):
    files = sorted(PACKAGED_RUN.iterdir())
    assert [file.name for file in files] == ["model.npz", "run.json"]
    assert sum(file.stat().st_size for file in files) <= 400_000
    run = read_run(PACKAGED_RUN)
    assert (run.finished, run.source) == (True, "digit-recognizer.zip")
    assert run.rows.training + run.rows.held_out == 42_000
    assert cli.main(["predict", "--data", "sample", "--out", "out.csv"]) == 0
    probabilities = load_run(PACKAGED_RUN, cpu).predict(load_test(find_source("sample")))
    read = np.loadtxt("sample-out.csv", delimiter=",", skiprows=1, dtype=int)[:, 1]
    # The command may compute in bfloat16, this predictor in float32.
    assert (read == predict_digits([probabilities])).mean() > 0.99


class _Corner:
    """A stand-in for a network: the first pixel is its logit for 0, the last for 1; it remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.shown.append(len(images))
        logits = np.full((len(images), 10), -50.0, np.float32)
        logits[:, 0], logits[:, 1] = images[:, 0, 0, 0], images[:, 27, 27, 0]
        return logits


def test_only_images_that_are_not_sure_are_shifted():
    recipe = replace(PLAIN, pixel_scale=1.0, shift_averaging=1)
    pixels = np.zeros((3, 784), np.uint8)
    pixels[0, 0], pixels[1, 783], pixels[2, 0] = 5, 5, 2
    model = _Corner()
    probabilities = network_predictor(model, recipe).probabilities(pixels)
    sure, unsure = (np.exp(x) / (np.exp(x) + 1) for x in (5.0, 2.0))
    assert sure >= SURE > unsure
    # A shift by one pixel empties the corner.
    np.testing.assert_allclose(probabilities[:, 0], [sure, 1 - sure, (unsure + 4 * 0.5) / 5], rtol=1e-4)
    assert model.shown == [4, 1, 1, 1, 1]  # one fills the batch


def test_slant_averaging_asks_for_the_image_and_four_slants_of_it(model):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 784)).astype(np.uint8)
    images = pixels.reshape(5, 28, 28).astype(float)
    each = []
    for slant in (0.0, -0.2, -0.1, 0.1, 0.2):
        leant = np.zeros_like(images)
        for y in range(28):
            at = np.arange(28) + slant * (y - 13.5)
            for n in range(5):
                leant[n, y] = np.interp(at, np.arange(-1, 29), np.pad(images[n, y], 1), left=0, right=0)
        each.append(network_predictor(model, PLAIN).probabilities(leant.reshape(5, 784).astype(np.float32)))
    averaged = network_predictor(model, replace(PLAIN, slant_averaging=0.2)).probabilities(pixels)
    np.testing.assert_allclose(averaged, np.mean(each, axis=0), rtol=1e-4)


def test_network_that_normalises_sees_normalised_digits(model):
    pixels = load_test(find_source("sample"))[:20]
    normalised = normalise_pixels(pixels, deslant=True, spread=4.0)
    assert (normalised != pixels).any(axis=1).all()
    np.testing.assert_array_equal(
        network_predictor(model, replace(PLAIN, deslant=True, spread=4.0)).probabilities(pixels),
        network_predictor(model, PLAIN).probabilities(normalised),
    )
