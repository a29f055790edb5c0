"""Learners: each kind of recipe has its learner, and a new kind needs only a module and one line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
import toy_learner

from kaggle_digits import cli, learners, recipes
from kaggle_digits.recipes import RECIPES, find_recipe
from kaggle_digits.run import read_run


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_learner(name):
    assert importlib.util.find_spec(learners.LEARNERS[type(find_recipe(name))])


def test_a_fourth_kind_needs_its_module_and_one_line(monkeypatch, capsys):
    toy = toy_learner.Constant(name="constant", summary="always the same", source="test", certainty=0.5)
    monkeypatch.setitem(recipes.RECIPES, "constant", toy)
    monkeypatch.setitem(learners.LEARNERS, toy_learner.Constant, "toy_learner")
    assert cli.main(["submit", "--data", "sample", "--recipe", "constant", "--out", "one.csv"]) == 0
    assert "held-out accuracy" in capsys.readouterr().out
    assert pd.read_csv("sample-one.csv")["Label"].nunique() == 1
    # The run folder names the kind and suffices to predict.
    stored = json.loads(Path("runs/sample-one/run.json").read_text())["recipe"]
    assert (stored["kind"], stored["certainty"]) == ("Constant", 0.5)
    assert read_run(Path("runs/sample-one")).recipe == toy
    assert cli.main(["predict", "--run", "runs/sample-one", "--data", "sample", "--out", "two.csv"]) == 0
    assert Path("sample-two.csv").read_bytes() == Path("sample-one.csv").read_bytes()
    assert cli.main(["compare", "--recipes", "constant,random", "--data", "sample", "--out", "both"]) == 0
    assert "constant" in capsys.readouterr().out
