"""Runs: what a run folder says of a training."""

from __future__ import annotations

import numpy as np
import pytest

from kaggle_digits.runs import Trace, trace_of


def test_trace_counts_seconds_from_the_start_of_the_training():
    first = {"seconds": 10.0, "curve": [[10, 2.0, 0.5], [20, 9.0, 0.8]], "losses": [2.0] * 20}
    second = {"seconds": 8.0, "curve": [[30, 4.0, 0.9]], "losses": [1.0] * 20}
    trace = trace_of({"epochs": [first, second]})
    assert trace.steps.tolist() == [10, 20, 30]
    assert trace.seconds.tolist() == [2.0, 9.0, 14.0]
    assert trace.accuracies.tolist() == [0.5, 0.8, 0.9]
    assert trace.losses.tolist() == [2.0] * 20 + [1.0] * 20


def test_epoch_without_a_measurement_is_no_hole():
    first = {"seconds": 1.0, "curve": [], "losses": [2.0] * 5}
    second = {"seconds": 1.0, "curve": [[10, 0.5, 0.9]], "losses": [1.0] * 5}
    assert trace_of({"epochs": [first, second]}).seconds.tolist() == [1.5]
    assert trace_of({"epochs": [first]}).steps.size == 0


def test_training_without_a_trace_has_none():
    assert trace_of({"epochs": [{"seconds": 1.0}]}) is None


@pytest.mark.parametrize(("target", "expected"), [(0.5, (10, 1.0)), (0.85, (30, 3.0)), (0.95, None)])
def test_target_is_reached_when_it_is_first_measured(target, expected):
    trace = Trace(np.array([10, 20, 30, 40]), np.arange(1.0, 5.0), np.array([0.5, 0.8, 0.9, 0.84]), np.ones(40))
    assert trace.reach(target) == expected
