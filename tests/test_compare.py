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

from kaggle_digits import cli
from kaggle_digits.analysis.compare import compare
from kaggle_digits.analysis.report import describe, format_accuracy
from kaggle_digits.data import find_source, load_train, split_rows
from kaggle_digits.errors import DeviceError, RunError
from kaggle_digits.files import locked, read_json
from kaggle_digits.recipes import RECIPES
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
    checksums = set()
    for name in run_folders():
        with np.load(f"out/runs/{name}/validation.npz") as saved:
            np.testing.assert_array_equal(saved["digits"], held_out.digits)
        checksums.add(json.loads(Path(f"out/runs/{name}/run.json").read_text())["rows"]["checksum"])
    assert len(checksums) == 1

    quick, bayes = comparison["recipes"]
    records = [json.loads(Path(f"out/runs/quick-seed{seed}/run.json").read_text()) for seed in (3, 4)]
    accuracies = [record["epochs"][-1]["validation_accuracy"] for record in records]
    assert quick["accuracies"] == accuracies
    assert quick["accuracy"] == pytest.approx(np.mean(accuracies))
    assert quick["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert quick["train_seconds"] == pytest.approx(
        np.median([sum(epoch["seconds"] for epoch in record["epochs"]) for record in records])
    )
    # 1·25·4 + 4 and 6·6·4·10 + 10.
    assert quick["parameters"] == 104 + 1450
    losses = [[loss for epoch in record["epochs"] for loss in epoch["losses"]] for record in records]
    assert len(losses[0]) == 2 * -(-len(training) // 50)
    assert quick["loss_spread"] == pytest.approx(np.mean([np.std(one[-200:], ddof=1) for one in losses]))
    assert set(quick["until"]) == {"95%", "97%", "98%"}
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
    assert "batches_until_95" in rows[0]
    page = Path("out/report.html").read_text(encoding="utf-8")
    for row in comparison["recipes"]:
        assert row["recipe"] in page
        assert format_accuracy(row) in page


def test_difference_is_to_the_published_figure(tmp_path, digits_csv, monkeypatch):
    monkeypatch.setattr("kaggle_digits.analysis.compare.LIKE_PUBLISHED", 1000)
    (tmp_path / "train.csv").write_text(digits_csv[0])
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
        assert not [word for word in ("<th>published", "55.6%", "difference</th>", "Networks are") if word in page]
        assert " ± " in capsys.readouterr().out  # one training has a standard error


def test_failing_recipe_is_a_row_and_the_others_go_on(monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "broken", BROKEN)
    assert cli.main(["compare", "--recipes", "broken,naive-bayes", "--data", "sample", "--out", "out"]) == 1
    captured = capsys.readouterr()
    broken, bayes = json.loads(Path("out/compare.json").read_text())["recipes"]
    assert broken["failed"].startswith("broken: the loss became ")
    assert bayes["failed"] is None
    assert captured.err.splitlines()[-1] == (
        "kaggle-digits: broken: failed, for the reasons above; the others are done. Repeat the command to try again."
    )
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
        compare([QUICK], Path("out"), data="sample", find_device=on_gpu)
    # Recipes of scikit-learn run on the CPU, so the missing GPU does not matter to them.
    assert compare([BAYES], Path("out"), data="sample", find_device=on_gpu)["recipes"][0]["failed"] is None


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_compare import BAYES, QUICK
from kaggle_digits.analysis.compare import compare
class Killer:
    def step(self, done, total):
        pass
    def epoch(self, metrics, epochs):
        self.epochs = getattr(self, "epochs", 0) + 1
        if self.epochs == 3:
            os.kill(os.getpid(), signal.SIGKILL)
compare([BAYES, QUICK], Path("out"), data="sample", seeds=[0, 1], progress=Killer())
"""


def test_stopped_comparison_continues_where_it_was():
    done = subprocess.run([sys.executable, "-c", KILLED, str(Path(__file__).parent)], capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # The tables already hold what was finished.
    assert [row["recipe"] for row in json.loads(Path("out/compare.json").read_text())["recipes"]] == ["naive-bayes"]
    kept = {path: path.stat().st_mtime_ns for path in Path("out/runs").glob("*/model.*")}
    assert len(kept) == 3

    epochs = []

    class Watcher:
        def step(self, done: int, total: int) -> None:
            pass

        def epoch(self, metrics: dict, of: int) -> None:
            epochs.append(metrics["epoch"])

    resumed = compare([BAYES, QUICK], Path("out"), data="sample", seeds=[0, 1], progress=Watcher())
    # The second training had finished one of its two epochs.
    assert epochs == [2]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    whole = compare([BAYES, QUICK], Path("whole"), data="sample", seeds=[0, 1])
    for one, other in zip(resumed["recipes"], whole["recipes"], strict=True):
        assert one["accuracies"] == other["accuracies"]
        assert one["loss_spread"] == other["loss_spread"]


def test_recipes_and_seeds_can_be_added():
    first = compare([BAYES], Path("out"), data="sample")
    before = Path("out/runs/naive-bayes-seed0/model.npz").stat().st_mtime_ns
    comparison = compare([RECIPES["random"]], Path("out"), data="sample", seeds=[0, 1])
    assert [row["recipe"] for row in comparison["recipes"]] == ["random", "naive-bayes"]
    assert comparison["recipes"][1] == first["recipes"][0]
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "Which digits are read as which: naive-bayes" in page
    assert "Which digits are read as which: random" in page
    assert len(compare([BAYES], Path("out"), data="sample", seeds=[0, 1])["recipes"][0]["accuracies"]) == 2
    assert Path("out/runs/naive-bayes-seed0/model.npz").stat().st_mtime_ns == before


def test_comparison_on_other_rows_is_not_touched(tmp_path, digits_csv):
    compare([BAYES], Path("out"), data="sample")
    before = Path("out/compare.json").read_bytes()
    with pytest.raises(RunError) as caught:
        compare([RECIPES["random"]], Path("out"), data="sample", seeds=[1])
    assert str(caught.value).startswith("out: holds a comparison on other rows ({'training': 1231, 'held_out': 206,")
    assert str(caught.value).endswith(
        "Expected the same data and the same first seed. Name another folder, or repeat the settings of the first "
        "comparison."
    )
    assert Path("out/compare.json").read_bytes() == before
    assert run_folders() == ["naive-bayes-seed0"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": 1}'])
def test_damaged_comparison_is_refused(content):
    Path("out").mkdir()
    Path("out/compare.json").write_text(content)
    with pytest.raises(
        RunError, match=r"^out(/compare\.json: not readable as a comparison|: holds a comparison on other)"
    ):
        compare([BAYES], Path("out"), data="sample")
    assert Path("out/compare.json").read_text() == content


def test_two_comparisons_do_not_share_a_folder():
    Path("out").mkdir()
    with locked(Path("out")), pytest.raises(RunError) as caught:
        compare([BAYES], Path("out"), data="sample")
    assert str(caught.value) == (
        "out: is being written by another comparison. Expected a folder for each. Name another one."
    )


def test_unforeseen_failure_is_a_row_too(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr("kaggle_digits.learners.classical.fit_estimator", fail)
    comparison = compare([BAYES, QUICK], Path("out"), data="sample")
    assert [row["failed"] for row in comparison["recipes"]] == ["ValueError: no such thing", None]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--recipes", "best"], "best: no such recipe, nor a file of your own"),
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
