"""Tune: a search is checked before it starts, goes on where it stopped, and measures what it found on other folds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kaggle_digits.analysis.engine import Engine
from kaggle_digits.analysis.report import describe_search, report
from kaggle_digits.analysis.settings import Setting, to_toml
from kaggle_digits.analysis.tune import tune
from kaggle_digits.errors import InputError, RunError, TrainingError
from kaggle_digits.recipes import RECIPES, find_recipe

KNN, FLASH = RECIPES["knn"], RECIPES["flash"]
VARY = ["n_neighbors=1..9", "deslant=true,false"]


def files_of(folder: Path) -> dict[Path, int]:
    """Return the run folders' files and when they were written."""
    return {file: file.stat().st_mtime_ns for file in folder.rglob("model.npz")}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Return the folder and the result of a search, whose recipe to start from is bad on purpose."""
    folder = tmp_path_factory.mktemp("search") / "out"
    start = tmp_path_factory.mktemp("start") / "far.toml"
    start.write_text(to_toml(KNN).replace("n_neighbors = 5", "n_neighbors = 300"))
    found = tune(find_recipe(str(start)), ["n_neighbors=1,3,300"], folder, data="sample", trials=4, folds=2)
    return folder, found


def test_a_better_recipe_is_found_measured_on_other_folds_and_written(searched):
    folder, found = searched
    kept = json.loads((folder / "tune.json").read_text())
    del kept["checksum"]
    assert found == kept
    assert found["is_better"]
    assert found["fewer_mistakes"] > 100 > 3 * found["standard_error"] > 0
    best = find_recipe(str(folder / "best.toml"))
    assert best.settings()["estimator"][1]["n_neighbors"] in (1, 3)
    of_search = {trial["accuracy"] for trial in found["trials"]}
    assert not of_search & {each["accuracy"] for each in (*found["few"], *found["fresh"])}
    assert len({trial["accuracy"] for trial in found["trials"] if trial["values"] == {"estimator.n_neighbors": 1}}) <= 1


def test_the_report_shows_trials_and_what_was_found(searched, tmp_path):
    folder, found = searched
    page = report(folder, tmp_path / "page.html").read_text()
    assert describe_search(found) in page
    assert page.count("<img") >= 1
    assert "300" in page


def test_a_search_without_gain_says_so(workplace):
    found = tune(KNN, ["n_neighbors=4,5"], Path("out"), data="sample", trials=6, folds=2)
    assert not found["is_better"]
    assert describe_search(found).startswith("no better than where you started (")
    assert not Path("out/best.toml").exists()


def test_a_search_that_tries_nothing_new_says_so(workplace):
    with pytest.raises(TrainingError, match="or is the recipe that the search started from"):
        tune(KNN, ["n_neighbors=4,5"], Path("out"), data="sample", trials=1, folds=2)


def test_a_stopped_search_goes_on_and_chooses_as_if_it_had_not_been_stopped(workplace):
    calls = iter(range(7))

    def interrupted(recipe):
        if next(calls) == 6:
            raise KeyboardInterrupt
        return Engine().find_device(recipe)

    options = {"data": "sample", "trials": 4, "folds": 2}
    whole = tune(KNN, VARY, Path("whole"), **options)
    with pytest.raises(KeyboardInterrupt):
        tune(KNN, VARY, Path("stopped"), engine=Engine(find_device=interrupted), **options)
    before = files_of(Path("stopped"))
    assert before
    again = tune(KNN, VARY, Path("stopped"), **options)
    assert before.items() <= files_of(Path("stopped")).items()
    for trial in (*whole["trials"], *again["trials"]):
        del trial["seconds"]
    assert again["trials"] == whole["trials"]
    assert (again["fresh"], again["fewer_mistakes"]) == (whole["fresh"], whole["fewer_mistakes"])


def test_a_folder_with_another_search_is_left_alone(searched):
    folder, _ = searched
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(RunError, match="holds a search with another recipe, other settings, rows or folds"):
        tune(KNN, ["n_neighbors=1,3"], folder, data="sample", trials=5, folds=2)
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("peek=1..2", "--vary peek: no such field. Did you mean peak?"),
        ("filters=1..2", "--vary filters: stands for several fields: layers.0.filters, layers.3.filters"),
        ("epochs", "--vary epochs: '' is no range and no list of values. Expected FIELD=LOW..HIGH"),
        ("epochs=9..4", "--vary epochs=9..4: '9..4' is no range"),
        ("epochs=4,4", "--vary epochs=4,4: '4,4' is no range"),
        ("epochs=4..a", "--vary epochs=4..a: '4..a' is no range"),
        ("epochs=4..9:lag", "--vary epochs=4..9:lag: '4..9:lag' is no range"),
        ("peak=0..1:log", "--vary peak=0..1:log: '0..1:log' is no range"),
        ("epochs=4.5..9", "--vary: epochs=4.5 cannot be trained. epochs: 4.5. Expected a valid integer."),
        ("epochs=0..9", "--vary: epochs=0 cannot be trained. epochs: 0. Expected a number greater than or equal to 1."),
        ("label_smoothing=0..1", "--vary: label_smoothing=1.0 cannot be trained. label_smoothing: 1.0."),
        ("loss=mse,mae", "--vary: loss=mae cannot be trained. loss: 'mae'. Expected 'crossentropy' or 'mse'."),
        ("layers.0.filters=0..8", "--vary: layers.0.filters=0 cannot be trained."),
    ],
)
def test_what_cannot_vary_is_refused_before_anything_is_trained(workplace, vary, message):
    with pytest.raises(InputError) as refused:
        tune(FLASH, [vary], Path("out"), data="sample")
    assert str(refused.value).startswith(message)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "values", "is_range", "is_log"),
    [
        ("epochs=4..12", (4, 12), True, False),
        ("peak=0.003..1:log", (0.003, 1.0), True, True),
        ("warmup=0..1", (0.0, 1.0), True, False),
        ("batch_size=64,128,256", (64, 128, 256), False, False),
        ("precision=float32,mixed_bfloat16", ("float32", "mixed_bfloat16"), False, False),
    ],
)
def test_ranges_and_lists_are_read(text, values, is_range, is_log):
    found = Setting.parse(text, FLASH)
    assert (found.values, found.is_range, found.is_log) == (values, is_range, is_log)
    assert [type(value) for value in found.values] == [type(value) for value in values]


def test_ensembles_are_refused_and_so_is_a_missing_optuna(workplace, monkeypatch):
    with pytest.raises(InputError, match="an ensemble cannot be tuned"):
        tune(RECIPES["strong"], ["epochs=1..2"], Path("out"), data="sample")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError) as refused:
        tune(KNN, ["n_neighbors=1,3"], Path("out"), data="sample")
    assert str(refused.value) == (
        "optuna is not installed, and tune needs it. Install the extra tune, or what it consists of: pip install "
        "optuna tomli-w"
    )


@pytest.mark.parametrize("name", ["fast", "lenet-5", "svm", "cnn-25-50-bn"])
def test_a_recipe_as_toml_reads_back_as_the_same(workplace, name):
    Path("mine.toml").write_text(to_toml(RECIPES[name]))
    assert find_recipe("mine.toml").settings() == RECIPES[name].settings() | {"name": "mine"}
