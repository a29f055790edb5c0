"""Network: every row counts once in every epoch, whatever the batch size and the number of replicas."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pytest

from kaggle_digits.digits import one_hot
from kaggle_digits.learners.images import Batches, share_batches, to_images
from kaggle_digits.models import build_model, compile_model
from kaggle_digits.recipes import RECIPES
from kaggle_digits.strategy import resolve_device
from kaggle_digits.train import fit_batches, make_step


@pytest.mark.parametrize("rows", [1, 7, 42, 100, 130])
@pytest.mark.parametrize("batch_size", [1, 42, 64])
@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 8])
def test_mean_over_each_batch_is_that_over_its_real_rows(rows, batch_size, replicas):
    taken, weights = share_batches(rows, batch_size, replicas=replicas)
    assert taken.shape[1] % replicas == 0
    assert taken.shape == weights.shape == (math.ceil(rows / batch_size), taken.shape[1])
    # Every row has a weight in exactly one place, and the order of the rows is kept.
    np.testing.assert_array_equal(taken[weights > 0], np.arange(rows))
    losses = np.random.default_rng(0).random(rows)
    for step, (places, weight) in enumerate(zip(taken, weights, strict=True)):
        expected = losses[step * batch_size : (step + 1) * batch_size].mean()
        # Under a strategy Keras takes the mean over each replica's share, then the mean over the replicas.
        shares = (losses[places] * weight).reshape(replicas, -1)
        assert shares.mean(axis=1).mean() == pytest.approx(expected)


def test_batches_that_fit_are_plain():
    taken, weights = share_batches(128, 32)
    np.testing.assert_array_equal(taken.ravel(), np.arange(128))
    assert (weights == 1).all()


class _Means(keras.callbacks.Callback):
    """A callback that remembers the loss reported after each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[tuple[int, float]] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        assert logs
        self.losses.append((batch, logs["loss"]))


def test_loop_of_our_own_trains_as_keras_does():
    recipe = replace(RECIPES["tiny"], label_smoothing=0.1)
    rng = np.random.default_rng(0)
    taken, weights = share_batches(40, 16)
    pixels, digits = rng.integers(0, 256, (40, 784)).astype(np.uint8), rng.integers(0, 10, 40)
    images, labels = to_images(pixels[taken.ravel()], recipe), one_hot(digits[taken.ravel()])
    batches = Batches(images, labels, weights.ravel(), 16)
    models, told = [], (_Means(), _Means())
    for callback in told:
        keras.utils.set_random_seed(0)
        models.append(build_model(recipe))
        compile_model(models[-1], recipe, steps=3)
        if callback is told[0]:
            found = fit_batches(make_step(models[0], resolve_device("cpu")), batches, [callback])
        else:
            options = {"batch_size": 16, "shuffle": False, "verbose": 0, "callbacks": [callback]}
            kept = models[1].fit(images, labels, sample_weight=batches.weights, **options)
    assert found == pytest.approx({name: values[0] for name, values in kept.history.items()}, rel=1e-5)
    assert [batch for batch, _ in told[0].losses] == [0, 1, 2]
    np.testing.assert_allclose(told[0].losses, told[1].losses, rtol=1e-5)
    for own, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=1e-6)
