"""Muon: kernels move along all directions alike, and other weights as with AdamW."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from conftest import needs_bfloat16

from kaggle_digits.learners.layers import ConvMuon, orthogonalized


@pytest.mark.parametrize("shape", [(25, 32), (432, 64), (1024, 128), (128, 10), (3, 3)])
def test_singular_values_come_near_1_and_singular_vectors_stay(shape):
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.normal(size=(shape[0], min(shape))))[0]
    right = np.linalg.qr(rng.normal(size=(shape[1], min(shape))))[0]
    values = np.geomspace(1, 0.05, min(shape))
    made = keras.ops.convert_to_numpy(orthogonalized(keras.ops.convert_to_tensor((left * values) @ right.T, "float32")))
    turned = left.T @ made @ right
    assert np.diag(turned).min() > 0.6
    assert np.diag(turned).max() < 1.3
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=2e-3)


@needs_bfloat16
def test_short_floats_do_not_let_it_diverge():
    """GPUs and TPUs may multiply with the eight bits of bfloat16."""
    matrix = np.random.default_rng(0).normal(size=(432, 64)) * np.geomspace(1, 1e-4, 64)
    made = orthogonalized(keras.ops.convert_to_tensor(matrix, "bfloat16"))
    values = np.linalg.svd(keras.ops.convert_to_numpy(keras.ops.cast(made, "float32")), compute_uv=False)
    assert np.median(values) > 0.6
    assert values.max() < 1.5


def test_kernels_get_updates_of_the_chosen_size_and_other_weights_those_of_adamw():
    rng = np.random.default_rng(1)
    shapes = [(5, 5, 1, 32), (3, 3, 32, 48), (1024, 128), (48,)]
    start, gradients = ([rng.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(2))
    moved = {}
    for name, optimizer in (
        ("muon", ConvMuon(0.01, weight_decay=0.0, muon_momentum=0.9, muon_rms=0.3)),
        ("adamw", keras.optimizers.AdamW(0.01, weight_decay=0.0)),
    ):
        variables = [keras.Variable(value) for value in start]
        optimizer.build(variables)
        for _ in range(2):
            optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients], variables)
        moved[name] = [np.array(variable) - before for variable, before in zip(variables, start, strict=True)]
    for update, gradient in zip(moved["muon"][:3], gradients, strict=False):
        rms = 2 * 0.01 * 0.3  # two steps of learning rate times muon_rms; singular values are 1 only about
        assert np.sqrt(np.mean(update**2)) == pytest.approx(rms, rel=0.2)
        assert (update * gradient).sum() < 0
    np.testing.assert_array_equal(moved["muon"][3], moved["adamw"][3])


def test_no_gradient_moves_nothing_and_weights_decay_as_with_adamw():
    assert not keras.ops.convert_to_numpy(orthogonalized(keras.ops.zeros((5, 3)))).any()
    variable = keras.Variable(np.full((4, 3), 2.0, np.float32))
    optimizer = ConvMuon(0.1, weight_decay=0.5)
    optimizer.build([variable])
    optimizer.apply([keras.ops.zeros((4, 3))], [variable])
    np.testing.assert_allclose(np.array(variable), 2 * (1 - 0.1 * 0.5), rtol=1e-6)


def test_settings_come_back():
    optimizer = ConvMuon(0.02, weight_decay=0.1, muon_momentum=0.8, muon_rms=0.4)
    assert ConvMuon.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
