"""Fit: every row once in every epoch, whatever the batch, the replicas and the processes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kaggle_digits.fit import share_batches


@pytest.mark.parametrize("rows", [1, 7, 42, 100, 130])
@pytest.mark.parametrize("batch_size", [1, 42, 64])
@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 8])
def test_mean_over_each_batch_is_that_over_its_real_rows(rows, batch_size, replicas):
    taken, weights = share_batches(rows, batch_size, replicas=replicas)
    assert taken.shape[1] % replicas == 0
    assert taken.shape == weights.shape == (math.ceil(rows / batch_size), taken.shape[1])
    # Every row has weight in one place only, in its order.
    np.testing.assert_array_equal(taken[weights > 0], np.arange(rows))
    losses = np.random.default_rng(0).random(rows)
    for step, (places, weight) in enumerate(zip(taken, weights, strict=True)):
        expected = losses[step * batch_size : (step + 1) * batch_size].mean()
        # As Keras does under a strategy: the mean over each replica's share, then over the replicas.
        shares = (losses[places] * weight).reshape(replicas, -1)
        assert shares.mean(axis=1).mean() == pytest.approx(expected)


def test_processes_share_every_batch_without_overlap():
    whole = share_batches(100, 42, replicas=6)
    parts = [share_batches(100, 42, replicas=6, processes=3, process=number) for number in range(3)]
    for index in (0, 1):
        np.testing.assert_array_equal(np.concatenate([part[index] for part in parts], axis=1), whole[index])


def test_batches_that_fit_are_plain():
    taken, weights = share_batches(128, 32)
    np.testing.assert_array_equal(taken.ravel(), np.arange(128))
    assert (weights == 1).all()
