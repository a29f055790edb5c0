"""Cross-validation: every labelled row is read once, by a network that did not see it, and the figures follow."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quick import KILLED_AT_EPOCH, QUICK_TOML
from quick import QUICK as THREE_EPOCHS

from kaggle_digits import recipes
from kaggle_digits.analysis.validate import (
    Pair,
    Validation,
    compare_pair,
    find_better,
    load_validation,
    suspect_labels,
    validate,
)
from kaggle_digits.cli import main
from kaggle_digits.data import find_source, fold_rows, load_train
from kaggle_digits.errors import RunError
from kaggle_digits.run import read_run

QUICK = replace(THREE_EPOCHS, epochs=2, retrain=False)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "quick", QUICK)


def table(file: str) -> list[dict[str, str]]:
    with Path(file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_row_is_read_by_the_network_that_did_not_see_it(capsys):
    assert main(["validate", "--recipe", "quick", "--folds", "3", "--data", "sample", "--out", "v"]) == 0
    printed = capsys.readouterr().out
    rows = load_train(find_source("sample"))
    fold, found = fold_rows(rows, 3, seed=0), table("v/out_of_fold.csv")
    assert [int(row["row"]) for row in found] == list(range(1, len(rows) + 1))
    assert [int(row["label"]) for row in found] == rows.digits.tolist()
    probabilities = np.array([[float(row[f"p{digit}"]) for digit in range(10)] for row in found])
    for number in range(3):
        run = read_run(Path(f"v/{number + 1}-of-3"))
        assert run.rows.training == (fold != number).sum()
        assert np.array_equal(run.held_out_digits, rows.digits[fold == number])
        assert np.allclose(probabilities[fold == number], run.probabilities, atol=1e-6)
    right = probabilities.argmax(axis=1) == rows.digits
    fields = json.loads(Path("v/validation.json").read_text())
    assert fields["accuracy"] == pytest.approx(right.mean())
    assert fields["standard_error"] == pytest.approx(math.sqrt(right.mean() * (1 - right.mean()) / len(rows)))
    by_fold = [right[fold == number].mean() for number in range(3)]
    assert fields["fold_accuracies"] == pytest.approx(by_fold)
    assert fields["fold_std"] == pytest.approx(np.std(by_fold, ddof=1))
    assert fields["digit_accuracies"][8] == pytest.approx(right[rows.digits == 8].mean())
    wrong = table("v/mistakes.csv")
    assert {int(row["row"]) - 1 for row in wrong} == set(np.flatnonzero(~right))
    assert [row["certainty"] for row in wrong] == sorted((row["certainty"] for row in wrong), reverse=True)
    assert Path("v/mistakes.png").read_bytes().startswith(b"\x89PNG")
    assert f"{(~right).sum()} mistakes" in printed
    loaded = load_validation(Path("v"))
    assert np.allclose(loaded.probabilities, probabilities)
    assert main(["predict", "--run", "v", "--data", "sample", "--out", "averaged.csv"]) == 0


@pytest.mark.parametrize("verb", ["validate", "submit"])
def test_killed_job_goes_on_and_ends_with_the_same_figures(verb):
    Path("mine.toml").write_text(QUICK_TOML, encoding="utf-8")
    options = [verb, "--recipe", "mine.toml", "--folds", "2", "--data", "sample", "--out"]
    suffix, result = {"validate": ("", "{}/out_of_fold.csv"), "submit": (".csv", "sample-{}.csv")}[verb]
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_EPOCH, "3", *options, f"a{suffix}"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [main([*options, f"{name}{suffix}"]) for name in "ab"] == [0, 0]
    assert Path(result.format("a")).read_bytes() == Path(result.format("b")).read_bytes()
    if verb == "submit":  # the folder of the killed job was taken up
        assert sorted(path.name for path in Path("runs").iterdir()) == ["sample-a", "sample-b"]


def test_repeats_have_other_folds_and_other_seeds():
    found = validate(QUICK, Path("v"), data="sample", folds=2, repeat=2)
    assert len(found.fields["accuracies"]) == 2
    assert found.fields["accuracy"] == pytest.approx(np.mean(found.fields["accuracies"]))
    seeds = [
        read_run(Path(folder)).seed for folder in ("v/1-of-2", "v/2-of-2", "v/repeat-2/1-of-2", "v/repeat-2/2-of-2")
    ]
    assert len(set(seeds)) == 4


def test_folder_of_another_validation_is_refused():
    validate(QUICK, Path("v"), data="sample", folds=2)
    for changed in ({"folds": 3}, {"seed": 1}, {"recipe": replace(QUICK, epochs=1)}):
        options = {"recipe": QUICK, "folds": 2, "data": "sample"} | changed
        with pytest.raises(RunError, match="v: holds a validation of other settings, rows or folds"):
            validate(options.pop("recipe"), Path("v"), **options)
    Path("v/validation.json").write_text("{")
    with pytest.raises(RunError, match=r"v/validation\.json: not readable"):
        validate(QUICK, Path("v"), data="sample", folds=2)


def test_submission_of_folds_is_the_average_of_its_networks():
    assert main(["submit", "--recipe", "quick", "--folds", "2", "--data", "sample"]) == 0
    assert main(["predict", "--run", "runs/sample-quick-seed0-2folds", "--data", "sample", "--out", "p.csv"]) == 0
    assert Path("sample-p.csv").read_bytes() == Path("submissions/sample-quick-seed0-2folds.csv").read_bytes()
    record = json.loads(Path("submissions/sample-quick-seed0-2folds.json").read_text())
    assert [run["run"] for run in record["runs"]] == [f"runs/sample-quick-seed0-2folds/{n}-of-2" for n in (1, 2)]
    assert main(["submit", "--recipe", "quick", "--folds", "2", "--data", "sample", "--force"]) == 0  # a new job
    assert Path("runs/sample-quick-seed0-2folds-2/2-of-2/run.json").exists()


def test_recipes_are_compared_on_the_same_rows(capsys):
    options = ["--recipes", "quick,naive-bayes", "--folds", "2", "--data", "sample", "--out", "c"]
    assert main(["compare", *options]) == 0
    first, second = (load_validation(Path("c") / name) for name in ("quick", "naive-bayes"))
    pair = json.loads(Path("c/folds.json").read_text())["pairs"][0]
    is_right = [found.probabilities.argmax(axis=1) == found.digits for found in (first, second)]
    assert pair["only_first"] == (is_right[0] & ~is_right[1]).sum()
    assert pair["difference"] == pytest.approx(is_right[0].mean() - is_right[1].mean())
    assert "quick − naive-bayes: " in capsys.readouterr().out
    assert [row["recipe"] for row in table("c/folds.csv")] == ["quick", "naive-bayes"]
    assert main(["compare", *options, "--test"]) == 2


def test_mcnemar_counts_the_rows_that_only_one_reads_right():
    def reads(right: list[bool]) -> Validation:
        digits = np.zeros(len(right), np.int64)
        probabilities = np.eye(10)[[0 if is_right else 1 for is_right in right]]
        return Validation(Path(), QUICK, {}, digits, probabilities, np.array(right, float))

    # 9 rows only the first reads right, 1 only the second, 90 both: 11/512 by hand for 1 or fewer, or 9 or more, of 10
    first = reads([True] * 9 + [False] + [True] * 90)
    second = reads([False] * 9 + [True] + [True] * 90)
    pair = compare_pair(("first", first.right), ("second", second.right))
    assert (pair.only_first, pair.only_second) == (9, 1)
    assert pair.difference == pytest.approx(0.08)
    assert pair.p == pytest.approx(11 / 512)
    assert pair.standard_error == pytest.approx(np.std([1] * 9 + [-1] + [0] * 90) / 10)
    assert compare_pair(("first", first.right), ("first", first.right)).p == 1


def test_wrong_labels_are_suspected():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, 2000)
    probabilities = np.full((2000, 10), 0.01)
    probabilities[np.arange(2000), truth] = 0.91
    labels = truth.copy()
    flipped = rng.choice(2000, 20, replace=False)
    labels[flipped] = (labels[flipped] + 1) % 10
    assert set(suspect_labels(probabilities, labels)) == set(flipped)
    assert len(suspect_labels(probabilities, truth)) == 0


def test_network_that_misreads_many_does_not_judge_labels(capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    read = np.where(rng.random(2000) < 0.1, (labels + 1) % 10, labels)  # a tenth is misread, and surely
    assert suspect_labels(np.eye(10)[read] * 0.99 + 0.001, labels) is None
    assert main(["validate", "--recipe", "naive-bayes", "--folds", "2", "--data", "sample", "--out", "v"]) == 0
    assert "labels    not judged, since too many rows are misread: v/labels.csv" in capsys.readouterr().out
    assert len(Path("v/labels.csv").read_text().splitlines()) == 1


def test_several_pairs_share_the_level_of_significance():
    def pair(p: float) -> Pair:
        return Pair("a", "b", 2, 1, 0.01, 0.01, p)

    assert find_better([pair(0.04)]) == ["a"]
    assert find_better([pair(0.04), pair(0.001)]) == ["a", "a"]  # 0.001 < 0.05 / 2, then 0.04 < 0.05
    assert find_better([pair(0.03), pair(0.03)]) == [None, None]


def test_damaged_validation_is_named():
    validate(QUICK, Path("v"), data="sample", folds=2)
    whole = {name: Path("v", name).read_text() for name in ("validation.json", "out_of_fold.csv")}
    for name, damaged in (
        ("out_of_fold.csv", whole["out_of_fold.csv"][:-500]),
        ("out_of_fold.csv", whole["out_of_fold.csv"].replace("\n1,", "\n1,x", 1)),
        ("validation.json", '{"rows": 3}'),
    ):
        for intact, text in whole.items():
            Path("v", intact).write_text(text)
        Path("v", name).write_text(damaged)
        assert main(["report", "v"]) == 2


def test_a_job_with_another_seed_takes_a_new_folder():
    options = ["submit", "--recipe", "quick", "--folds", "2", "--data", "sample", "--out", "a.csv", "--force"]
    assert main(options) == 0
    Path("sample-a.json").unlink()  # as if the job had been stopped before the record was written
    assert main([*options, "--seed", "1"]) == 0
    assert Path("runs/sample-a-2").exists()
