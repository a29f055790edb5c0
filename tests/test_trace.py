"""Traces: a callback measures a training from batch to batch, and changes nothing about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from quick import QUICK

from kaggle_digits.analysis.compare import first_reached
from kaggle_digits.analysis.trace import Tracer
from kaggle_digits.data import Split, find_source, load_train
from kaggle_digits.learners import Context
from kaggle_digits.run import Run
from kaggle_digits.train import train_run

LONG = replace(QUICK, batch_size=8, epochs=2)


def train(folder: str, **options: object) -> Run:
    rows, held_out = Split(fraction=0.1, seed=0).of(load_train(find_source("sample")).take(np.arange(200)))
    return train_run(LONG, rows, folder, held_out=held_out, context=Context(seed=3), **options)


def test_trace_measures_within_the_first_epoch_and_changes_nothing():
    measured = iter(np.arange(0.5, 1, 0.01))
    plain, traced = train("plain"), train("traced", callbacks=[Tracer(lambda _: next(measured))])
    np.testing.assert_array_equal(plain.probabilities, traced.probabilities)
    first, second = traced.epochs
    # 180 rows are 23 batches. After batch 10, the next one is due whenever their number has grown by a tenth.
    assert [step for step, _, _ in first["curve"]] == [10, 11, 13, 15, 17, 19, 21]
    assert [accuracy for _, _, accuracy in first["curve"]] == pytest.approx(np.arange(0.5, 0.57, 0.01))
    assert second["curve"] == []
    for metrics in traced.epochs:
        assert len(metrics["losses"]) == 23
        assert np.mean(metrics["losses"]) == pytest.approx(metrics["loss"], abs=1e-4)
    assert "losses" not in plain.epochs[0]


@pytest.mark.parametrize(
    ("target", "expected"), [(0.5, (2, 4.0)), (0.75, (3, 9.0)), (0.9, (4, 14.0)), (0.98, (6, 18.0)), (0.99, None)]
)
def test_seconds_count_from_the_start_and_the_end_of_an_epoch_counts(target, expected):
    first = {"seconds": 10.0, "curve": [[2, 4.0, 0.5], [3, 9.0, 0.8]], "losses": [2.0] * 3, "validation_accuracy": 0.8}
    second = {"seconds": 8.0, "curve": [[1, 4.0, 0.9]], "losses": [1.0] * 3, "validation_accuracy": 0.98}
    assert first_reached([first, second], target) == expected
