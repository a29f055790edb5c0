"""Frontier benchmark: the public recipes are as published, and the line shows the best accuracy so far."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kaggle_digits.models import build_model, epoch_rate
from kaggle_digits.recipes import RECIPES


@pytest.fixture(scope="module")
def frontier():
    benchmarks = str(Path(__file__).parent.parent / "benchmarks")
    sys.path.insert(0, benchmarks)
    try:
        import frontier
    finally:
        sys.path.remove(benchmarks)
    return frontier


def test_peers_have_the_parameters_that_were_published(frontier):
    sizes = {peer.name: build_model(peer).count_params() for peer in frontier.PEERS}
    assert sizes == {"one-cycle-24-32": 215_194, "keras-convnet": 34_826, "ghouzam": 887_530, "deotte": 327_242}


def test_record_lowers_its_learning_rate_by_a_twentieth_each_epoch(frontier):
    (deotte,) = (peer for peer in frontier.PEERS if peer.name == "deotte")
    rates = [epoch_rate(deotte, [0.0] * done) for done in range(45)]
    assert rates == pytest.approx([1e-3 * 0.95**epoch for epoch in range(45)])


def test_line_rises_with_the_means_over_seeds(frontier):
    trained = [("quick", 0.2, 0.98), ("quick", 0.4, 0.99), ("worse", 1.0, 0.97), ("slow", 2.0, 0.995)]
    points = [{"recipe": name, "epoch": 1, "time": time, "accuracy": accuracy} for name, time, accuracy in trained]
    times, accuracies = frontier.best_so_far(points)
    assert times == pytest.approx([0.3, 2.0])
    assert accuracies == pytest.approx([0.985, 0.995])


def test_peers_above_the_line_are_found(frontier):
    points = [
        {"recipe": recipe, "who": who, "epoch": 1, "time": time, "accuracy": accuracy}
        for recipe, who, time, accuracy in [
            ("ours", "ours", 0.2, 0.98),
            ("better", "ours", 3.0, 0.99),
            ("sooner", "public", 0.24, 0.99),
            ("below", "public", 2.9, 0.98),
            ("above", "public", 2.8, 0.985),
            ("luck", "public", 4.0, 0.985),
            ("luck", "public", 4.2, 0.993),
            ("later", "public", 31.0, 0.995),
        ]
    ]
    assert frontier.peers_above(points) == [("above", 1)]


def test_file_that_is_drawn_has_points_of_every_recipe_and_nothing_public_above_our_line(frontier):
    types = {"seed": int, "epoch": int, "seconds": float, "time": float, "of_keras": float, "accuracy": float}
    with frontier.CSV_FILE.open(encoding="utf-8", newline="") as stream:
        drawn = [{name: types.get(name, str)(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    assert {point["recipe"] for point in drawn} >= set(frontier.ALL)
    assert frontier.peers_above(drawn) == []


def test_networks_of_an_ensemble_are_drawn_under_their_names(frontier):
    strong = RECIPES["strong"]
    mixed = replace(strong, members=(RECIPES["idm"], *strong.networks))
    metrics = {"epoch": 1, "seconds": 50.0, "validation_seconds": 6.0, "validation_accuracy": 0.99}
    found = {"overhead": 22.0, "runs": [[0, [metrics]], [1, [metrics]], [2, [metrics]]]}
    points = frontier.points_of(mixed, found, unit=100.0, held_out=6_000)
    drawn = [(point["recipe"], point["seed"], point["time"]) for point in points]
    assert drawn == [("strong", 0, 1.0), ("fast", 1, 1.0), ("stretched", 2, 1.0)]


def test_training_that_is_found_twice_is_drawn_once(frontier):
    points = [{"recipe": name, "seed": seed, "epoch": 1} for name, seed in (("one", 0), ("two", 0), ("one", 0))]
    assert frontier.without_repeats(points) == points[:2]
