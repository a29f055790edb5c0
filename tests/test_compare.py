"""Compare: all recipes use the same rows, a failure becomes a row, and a stopped comparison continues."""

from __future__ import annotations

import csv
import functools
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quick import KILLED_AT_EPOCH, QUICK_TOML

from kaggle_digits import cli
from kaggle_digits.analysis.compare import compare
from kaggle_digits.analysis.engine import Engine
from kaggle_digits.analysis.report import describe, format_accuracy
from kaggle_digits.cli.output import TrainingProgress
from kaggle_digits.data import find_source, load_train, split_rows
from kaggle_digits.errors import DeviceError, RunError
from kaggle_digits.files import locked, read_json
from kaggle_digits.recipes import RECIPES
from kaggle_digits.run import read_run
from kaggle_digits.strategy import device_of_any

QUICK = replace(
    RECIPES["cnn-16-32"],
    name="quick",
    layers=(("Conv2D", {"filters": 4, "kernel_size": 5, "strides": 4}), ("Flatten", {}), ("Dense", {"units": 10})),
    epochs=2,
    published_accuracy=0.9,
)
BROKEN = replace(QUICK, name="broken", loss="mse", optimizer=("SGD", {}), learning_rate=1e20, pixel_scale=1.0)
BAYES = RECIPES["naive-bayes"]


def run_folders(out: str = "out") -> list[str]:
    return sorted(folder.name for folder in Path(out, "runs").iterdir())


def test_all_are_trained_and_scored_on_the_same_rows():
    comparison = compare([QUICK, BAYES], Path("out"), data="sample", seeds=[3, 4])
    training, held_out = split_rows(load_train(find_source("sample")), fraction=1 / 7, seed=3)
    rows = comparison["rows"]
    assert (rows["training"], rows["held_out"], rows["split_seed"]) == (len(training), len(held_out), 3)
    assert run_folders() == ["naive-bayes-seed3", "naive-bayes-seed4", "quick-seed3", "quick-seed4"]
    runs = [read_run(Path("out/runs", name)) for name in run_folders()]
    assert all(np.array_equal(run.held_out_digits, held_out.digits) for run in runs)
    assert len({run.rows.checksum for run in runs}) == 1

    quick, bayes = comparison["recipes"]
    accuracies = [run.epochs[-1]["validation_accuracy"] for run in runs[2:]]
    assert quick["accuracies"] == accuracies
    assert quick["accuracy"] == pytest.approx(np.mean(accuracies))
    assert quick["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert quick["train_seconds"] == pytest.approx(np.median([run.seconds for run in runs[2:]]))
    # 1·25·4 + 4 and 6·6·4·10 + 10.
    assert quick["parameters"] == 104 + 1450
    losses = [[loss for epoch in run.epochs for loss in epoch["losses"]] for run in runs[2:]]
    assert len(losses[0]) == 2 * -(-len(training) // 50)
    assert quick["loss_spread"] == pytest.approx(np.mean([np.std(of_run[-200:], ddof=1) for of_run in losses]))
    # Published figures do not apply to the sample, so there is no difference to show.
    assert (quick["difference"], bayes["difference"]) == (None, None)
    assert (bayes["loss_spread"], bayes["until"]) == (None, {"95%": None, "97%": None, "98%": None})
    # Ten class shares, and for each class the means and variances of 784 pixels.
    assert bayes["parameters"] == 10 + 2 * 7840


def test_device_is_named_once(caplog):
    caplog.set_level("INFO")
    compare([BAYES, replace(QUICK, epochs=1), replace(QUICK, name="again", epochs=1)], Path("out"), data="sample")
    assert [record.getMessage().partition(" ")[0] for record in caplog.records].count("Device:") == 1


def test_files_say_the_same_as_the_answer():
    comparison = compare([QUICK, BAYES], Path("out"), data="sample")
    assert read_json(Path("out/compare.json")) == comparison
    with Path("out/compare.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["recipe"] for row in rows] == ["quick", "naive-bayes"]
    assert float(rows[0]["accuracy"]) == comparison["recipes"][0]["accuracy"]
    assert (rows[1]["batches_until_95"], rows[1]["epochs"]) == ("", "")
    page = Path("out/report.html").read_text(encoding="utf-8")
    for row in comparison["recipes"]:
        assert row["recipe"] in page
        assert format_accuracy(row) in page


def test_difference_is_to_the_published_figure(tmp_path, digits_csv, monkeypatch):
    (tmp_path / "train.csv").write_text(digits_csv[0])
    many = load_train(find_source("sample")).take(np.resize(np.arange(1437), 40_000))  # as many as published ones use
    monkeypatch.setattr("kaggle_digits.analysis.compare.load_train", lambda source: many)
    row = compare([BAYES], Path("out"), data=str(tmp_path / "train.csv"))["recipes"][0]
    assert row["difference"] == pytest.approx(row["accuracy"] - 0.556)
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert f"{100 * row['difference']:+.2f}" in page
    assert "<th>published</th><th>difference</th>" in page


def test_published_figures_are_not_shown_beside_those_of_other_data(tmp_path, digits_csv, capsys):
    (tmp_path / "train.csv").write_text(digits_csv[0])
    for data, out in (("sample", "a"), (str(tmp_path / "train.csv"), "b")):
        assert cli.main(["compare", "--recipes", "naive-bayes", "--data", data, "--out", out]) == 0
        page = Path(out, "report.html").read_text(encoding="utf-8")
        assert not [word for word in ("<th>published", "55.6%", "difference</th>") if word in page]
        assert " ± " in capsys.readouterr().out  # one training has a standard error


def test_failing_recipe_is_a_row_and_the_others_go_on(monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "broken", BROKEN)
    assert cli.main(["compare", "--recipes", "broken,naive-bayes", "--data", "sample", "--out", "out"]) == 1
    captured = capsys.readouterr()
    broken, bayes = json.loads(Path("out/compare.json").read_text())["recipes"]
    assert broken["failed"].startswith("broken: the loss became ")
    assert bayes["failed"] is None
    assert captured.err.splitlines()[-1].startswith("kaggle-digits: broken: failed, for the reasons above")
    assert f"failed: {broken['failed']}" in captured.out
    assert "failed: broken: the loss became " in Path("out/report.html").read_text(encoding="utf-8")


def test_only_failures_still_give_tables_and_a_report():
    comparison = compare([BROKEN], Path("out"), data="sample")
    assert comparison["recipes"][0]["failed"]
    assert Path("out/report.html").exists()
    assert Path("out/compare.csv").read_text().startswith("recipe,failed,")


def test_missing_device_is_an_error_and_no_row():
    on_gpu = functools.partial(device_of_any, requested="gpu")
    with pytest.raises(DeviceError):
        compare([QUICK], Path("out"), data="sample", engine=Engine(on_gpu))
    # Recipes of scikit-learn run on the CPU, so the missing GPU does not matter to them.
    assert compare([BAYES], Path("out"), data="sample", engine=Engine(on_gpu))["recipes"][0]["failed"] is None


def test_stopped_comparison_continues_where_it_was(monkeypatch):
    Path("mine.toml").write_text(QUICK_TOML, encoding="utf-8")
    command = ["compare", "--recipes", "naive-bayes,mine.toml", "--repeat", "2", "--data", "sample", "--out"]
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_EPOCH, "3", *command, "out"], check=False)
    assert killed.returncode == -signal.SIGKILL
    # The tables already hold what was finished.
    assert [row["recipe"] for row in read_json(Path("out/compare.json"))["recipes"]] == ["naive-bayes"]
    kept = {path: path.stat().st_mtime_ns for path in Path("out/runs").glob("*/model.*")}
    assert len(kept) == 3
    epochs = []
    monkeypatch.setattr(TrainingProgress, "epoch", lambda self, metrics, of: epochs.append(metrics["epoch"]))
    assert cli.main([*command, "out"]) == 0
    assert epochs == [2]  # the second training had finished one of its two epochs
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert cli.main([*command, "whole"]) == 0
    resumed, whole = (read_json(Path(out, "compare.json"))["recipes"] for out in ("out", "whole"))
    for name in ("accuracies", "loss_spread"):
        assert [row[name] for row in resumed] == [row[name] for row in whole]


def test_recipes_and_seeds_can_be_added():
    first = compare([BAYES], Path("out"), data="sample")
    before = Path("out/runs/naive-bayes-seed0/model.npz").stat().st_mtime_ns
    comparison = compare([RECIPES["random"]], Path("out"), data="sample", seeds=[0, 1])
    assert [row["recipe"] for row in comparison["recipes"]] == ["random", "naive-bayes"]
    assert comparison["recipes"][1] == first["recipes"][0]
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert all(f"Which digits are read as which: {name}" in page for name in ("naive-bayes", "random"))
    assert len(compare([BAYES], Path("out"), data="sample", seeds=[0, 1])["recipes"][0]["accuracies"]) == 2
    assert Path("out/runs/naive-bayes-seed0/model.npz").stat().st_mtime_ns == before


def test_comparison_on_other_rows_is_not_touched(tmp_path, digits_csv):
    compare([BAYES], Path("out"), data="sample")
    before = Path("out/compare.json").read_bytes()
    with pytest.raises(RunError) as caught:
        compare([RECIPES["random"]], Path("out"), data="sample", seeds=[1])
    assert str(caught.value).startswith("out: holds a comparison on other rows ({'training': 1231, 'held_out': 206,")
    assert Path("out/compare.json").read_bytes() == before
    assert run_folders() == ["naive-bayes-seed0"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": 1}'])
def test_damaged_comparison_is_refused(content):
    Path("out").mkdir()
    Path("out/compare.json").write_text(content)
    with pytest.raises(RunError, match=r"^out(/compare\.json: not readable|: holds a comparison on other)"):
        compare([BAYES], Path("out"), data="sample")
    assert Path("out/compare.json").read_text() == content


def test_two_comparisons_do_not_share_a_folder():
    Path("out").mkdir()
    with locked(Path("out")), pytest.raises(RunError, match=r"^out: is being written by another comparison"):
        compare([BAYES], Path("out"), data="sample")


def test_unforeseen_failure_is_a_row_too(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr("kaggle_digits.learners.classical.fit_estimator", fail)
    comparison = compare([BAYES, QUICK], Path("out"), data="sample")
    assert [row["failed"] for row in comparison["recipes"]] == ["ValueError: no such thing", None]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--recipes", "fast,"], ": no such recipe, nor a file of your own"),
        (["--recipes", "fast", "--seed", "4294967295", "--repeat", "2"], "--repeat 2: needs the seeds 4294967295 to"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_trained(capsys, arguments, fault):
    assert cli.main(["compare", *arguments, "--data", "sample", "--out", "out"]) == 2
    assert capsys.readouterr().err.startswith(f"kaggle-digits: {fault}")
    assert not Path("out").exists()


def test_table_for_a_terminal():
    row = {
        "recipe": "knn",
        "failed": None,
        "summary": "five nearest neighbours",
        "seeds": [0],
        "published": "96.88%",
        "published_accuracy": 0.9688,
        "accuracy": 0.965,
        "accuracy_std": None,
        "standard_error": 0.0024,
        "difference": -0.0038,
        "train_seconds": 0.04,
        "predict_seconds": 3.26,
        "parameters": 28_260_000,
    }
    failed = {"recipe": "svm", "failed": "no memory"}
    rows = {"training": 36_000, "held_out": 6_000}
    assert describe({"data": "d.zip", "rows": rows, "recipes": [row, failed]}).splitlines() == [
        "Trained on the same 36,000 rows of d.zip and scored on the same 6,000 held-out rows, which played no part in "
        "training. ± is the standard error, where there is one training.",
        "recipe n       accuracy  theirs  train s  read s     weights",
        "knn    1  96.50 ± 0.24%  96.88%      0.0     3.3  28,260,000",
        "svm     failed: no memory",
    ]
    longest = {**row, "recipe": max(RECIPES, key=len), "seeds": list(range(10)), "parameters": 4_394_794}
    lines = describe({"data": "d.zip", "rows": rows, "recipes": [longest]}).splitlines()
    assert max(map(len, lines[1:])) <= 80
