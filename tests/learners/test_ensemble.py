"""Ensembles: a recipe like others, whose networks are run folders of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_folder import write_run

from kaggle_digits import cli, recipes
from kaggle_digits import submit as main_job
from kaggle_digits.data import find_source, load_test, load_train, split_rows
from kaggle_digits.errors import RunError
from kaggle_digits.learners import classical, load_run
from kaggle_digits.learners.classical import estimate_probabilities
from kaggle_digits.learners.upright import normalise_pixels
from kaggle_digits.recipe import Ensemble, to_json
from kaggle_digits.recipes import RECIPES, find_recipe
from kaggle_digits.recipes.fields import from_json
from kaggle_digits.run import read_run
from kaggle_digits.submission import check_submission

SINGLE = replace(
    RECIPES["mlp-784-300"],
    name="single",
    layers=(("Flatten", {}), ("Dense", {"units": 10})),
    pixel_scale=255.0,
    learning_rate=0.1,
    epochs=2,
    retrain=False,
)
TRIO = Ensemble(name="trio", summary="three of them", source="test", members=(SINGLE,) * 3)
NAMES = ["1-of-3", "2-of-3", "3-of-3"]


@pytest.fixture(autouse=True)
def trio(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "single", SINGLE)
    monkeypatch.setitem(recipes.RECIPES, "trio", TRIO)


def add(monkeypatch, name: str, *members) -> Ensemble:
    """Add an ensemble to the recipes."""
    made = Ensemble(name=name, summary="several of them", source="test", members=members)
    monkeypatch.setitem(recipes.RECIPES, name, made)
    return made


def held_out_probabilities(folder: Path) -> np.ndarray:
    with np.load(folder / "validation.npz") as saved:
        return saved["probabilities"]


def test_submit_averages_networks_that_differ_in_their_seeds():
    result = main_job.make_submission(main_job.plan_submission(data="sample", recipe="trio", seed=2))
    folder = Path("runs/sample-trio-seed2")
    assert sum(check_submission(Path("submissions/sample-trio-seed2.csv"), rows=360)) == 360
    assert sorted(path.name for path in folder.iterdir()) == [*NAMES, "run.json", "validation.npz"]
    records = [read_run(folder / name) for name in NAMES]
    assert [record.seed for record in records] == [6, 7, 8]
    assert {record.recipe.name for record in records} == {"single"}
    each = [held_out_probabilities(folder / name) for name in NAMES]
    assert not np.array_equal(each[0], each[1])
    np.testing.assert_allclose(held_out_probabilities(folder), np.mean(each, axis=0), rtol=1e-6)
    with np.load(folder / "validation.npz") as saved:
        assert result.accuracy == (np.mean(each, axis=0).argmax(axis=1) == saved["digits"]).mean()
    # Three times 784 · 10 + 10.
    assert read_run(folder).parameters == 23_550


def test_predict_takes_the_ensemble_as_one_run_whose_record_names_the_members(cpu):
    main_job.make_submission(main_job.plan_submission(data="sample", recipe="trio"))
    (run,) = json.loads(Path("submissions/sample-trio-seed0.json").read_text())["runs"]
    assert (run["recipe"], run["epochs"]) == ("trio", 6)
    found = [(member["recipe"], member["seed"], member["epochs"]) for member in run["members"]]
    assert found == [("single", seed, 2) for seed in (0, 1, 2)]
    assert cli.main(["predict", "--run", "runs/sample-trio-seed0", "--data", "sample", "--out", "again.csv"]) == 0
    first = Path("submissions/sample-trio-seed0.csv").read_bytes()
    assert Path("sample-again.csv").read_bytes() == first
    assert len(load_run(Path("runs/sample-trio-seed0"), cpu).predictor.networks) == 3
    # Averaging all networks of the ensemble is averaging the ensemble.
    runs = [argument for name in NAMES for argument in ("--run", f"runs/sample-trio-seed0/{name}")]
    assert cli.main(["predict", *runs, "--data", "sample", "--out", "singly.csv"]) == 0
    assert Path("sample-singly.csv").read_bytes() == first


def test_interrupted_ensemble_goes_on_with_the_network_it_was_at(monkeypatch, capsys):
    assert cli.main(["submit", "--data", "sample", "--recipe", "trio", "--out", "whole.csv"]) == 0
    seen = []

    def epoch(self, metrics, epochs):
        seen.append(metrics["epoch"])
        if len(seen) == 3:  # the first of the second network
            raise KeyboardInterrupt

    again = ["submit", "--data", "sample", "--recipe", "trio", "--out", "stopped.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(cli.output.TrainingProgress, "epoch", epoch)
        assert cli.main(again) == 130
    capsys.readouterr()
    assert cli.main(again) == 0
    assert capsys.readouterr().err.count("epoch ") == 3  # one of the second network, two of the third
    assert Path("sample-stopped.csv").read_bytes() == Path("sample-whole.csv").read_bytes()


def test_each_network_sees_digits_in_its_own_form(monkeypatch, cpu):
    duo = add(monkeypatch, "duo", SINGLE, replace(SINGLE, name="upright", deslant=True))
    assert cli.main(["train", "--recipe", "duo", "--data", "sample", "--run", "run"]) == 0
    assert read_run(Path("run/2-of-2")).recipe.deslant
    pixels = load_test(find_source("sample"))[:50]
    run = load_run(Path("run"), cpu)
    assert run.recipe == duo
    single = load_run(Path("run/1-of-2"), cpu).predict(pixels)
    # Its network without what the recipe does with pixels.
    other = load_run(Path("run/2-of-2"), cpu).predictor.model.probabilities(normalise_pixels(pixels, deslant=True))
    np.testing.assert_allclose(run.predict(pixels), (single + other) / 2, rtol=1e-5)


def test_classical_member_is_asked_where_the_networks_are_not_sure(monkeypatch, cpu):
    surer = replace(SINGLE, loss="crossentropy", learning_rate=0.5, epochs=10)
    mixed = add(monkeypatch, "mixed", surer, RECIPES["idm"], surer)
    pixels = load_test(find_source("sample"))
    asked = []

    def predict_and_count(recipe, learned, images):
        asked.append(len(images))
        return estimate_probabilities(recipe, learned, images)

    monkeypatch.setattr(classical, "estimate_probabilities", predict_and_count)
    assert cli.main(["submit", "--data", "sample", "--recipe", "mixed"]) == 0
    folder = Path("runs/sample-mixed-seed0")
    run = load_run(folder, cpu)
    assert read_run(folder).recipe == mixed
    assert [read_run(path).recipe.name for path in sorted(folder.glob("*-of-3"))] == ["single", "idm", "single"]
    each = [load_run(path, cpu).predict(pixels) for path in sorted(folder.glob("*-of-3"))]
    networks = (each[0] + each[2]) / 2
    sure = networks.max(axis=1) >= 0.9
    assert 0.1 < sure.mean() < 0.9
    expected = np.where(sure[:, None], networks, sum(each) / 3)
    np.testing.assert_allclose(run.predict(pixels), expected, rtol=1e-5)
    # So it is with the held-out rows.
    assert "validation_accuracy" not in read_run(folder / "2-of-3").epochs[-1]
    held_out = split_rows(load_train(find_source("sample")), fraction=mixed.validation_fraction, seed=0)[1]
    first, third = (held_out_probabilities(folder / name) for name in ("1-of-3", "3-of-3"))
    second = load_run(folder / "2-of-3", cpu).predict(held_out.pixels)
    networks = (first + third) / 2
    unsure = networks.max(axis=1, keepdims=True) < 0.9
    assert asked[0] == unsure.sum()
    assert 0 < unsure.sum() < len(held_out)
    expected = np.where(unsure, (first + second + third) / 3, networks)
    np.testing.assert_allclose(held_out_probabilities(folder), expected, rtol=1e-5)
    assert [member.epochs for member in find_recipe("mixed", epochs=5).networks] == [5, 5]


def test_classical_member_is_in_the_plan_and_runs_where_it_can(monkeypatch, capsys):
    add(monkeypatch, "mixed", SINGLE, SINGLE, RECIPES["idm"])
    mixed = ["--recipe", "mixed", "--data", "sample"]
    assert cli.main(["submit", *mixed, "--dry-run"]) == 0
    assert "Would train mixed, 2 networks for 2 + 2 epochs and idm, on " in capsys.readouterr().out
    assert cli.main(["train", *mixed, "--run", "run", "--backend", "tensorflow"]) == 0
    network, method, all_three = (read_run(Path("run") / name) for name in ("1-of-3", "3-of-3", "."))
    assert (network.device.backend, method.device.backend) == ("tensorflow", "scikit-learn")
    assert all_three.device == network.device
    assert (network.parameters, all_three.parameters) == (7_850, 15_700)


def test_ensemble_without_a_network_is_refused():
    write_run("run", TRIO, damage={"members": [to_json(RECIPES["idm"])]})
    with pytest.raises(RunError, match="members: there is no network among them"):
        read_run(Path("run"))


@pytest.mark.parametrize(
    ("recipe", "epochs", "ending"),
    [("uneven", None, "--resume"), ("uneven", 2, "--resume --epochs 2"), ("fast", 2, "--resume --epochs 2")],
)
def test_advice_to_go_on_names_epochs_that_are_not_the_recipes_own(monkeypatch, cpu, recipe, epochs, ending):
    add(monkeypatch, "uneven", SINGLE, replace(SINGLE, name="shorter", epochs=1))
    write_run("run", find_recipe(recipe, epochs=epochs), finished=False)
    with pytest.raises(RunError, match=f"kaggle-digits train --recipe {recipe} --run run {ending}$"):
        load_run(Path("run"), cpu)


def test_members_agree_in_how_pixels_are_scaled():
    with pytest.raises(ValueError, match="members: their pixel_scale differs"):
        Ensemble(name="bad", summary="", source="test", members=(SINGLE, replace(SINGLE, pixel_scale=1.0)))


def test_comparison_has_one_row_for_it():
    assert cli.main(["compare", "--recipes", "single,trio", "--data", "sample", "--out", "out", "--repeat", "2"]) == 0
    single, trio = json.loads(Path("out/compare.json").read_text())["recipes"]
    assert (trio["recipe"], trio["failed"], trio["parameters"]) == ("trio", None, 3 * single["parameters"])
    assert len(trio["accuracies"]) == 2


def test_words_are_no_settings_and_epochs_are_the_members():
    assert from_json(json.loads(json.dumps(to_json(TRIO)))).settings() == TRIO.settings()
    assert replace(TRIO, members=(replace(SINGLE, summary="others"),) * 3).settings() == TRIO.settings()
    assert [member.epochs for member in find_recipe("trio", epochs=5).members] == [5, 5, 5]
    assert find_recipe("trio", epochs=5).settings() != TRIO.settings()
