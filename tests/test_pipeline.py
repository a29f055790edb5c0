"""Submit: one command does the whole job, from real handwriting to a checked file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from quick import QUICK as THREE_EPOCHS
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB

from kaggle_digits import cli, recipes
from kaggle_digits import submit as main_job
from kaggle_digits.analysis.predict import predict_submission
from kaggle_digits.data import find_source, load_test, load_train
from kaggle_digits.kaggle import records
from kaggle_digits.learners import load_run
from kaggle_digits.recipes import RECIPES, find_recipe
from kaggle_digits.run import read_run
from kaggle_digits.submission import check_submission

QUICK = replace(THREE_EPOCHS, epochs=2, retrain=False)
SUBMIT = ("submit", "--data", "sample", "--recipe")
TRAIN = ("train", "--data", "sample", "--recipe")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "quick", QUICK)
    monkeypatch.setitem(recipes.RECIPES, "quick-retrain", replace(QUICK, name="quick-retrain", retrain=True))


def interrupt(monkeypatch, *command: str, when=lambda metrics: True) -> None:
    """Run a command, and press Ctrl+C when an epoch has ended."""

    def epoch(self, metrics, epochs):
        if when(metrics):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli.output.TrainingProgress, "epoch", epoch)
        assert cli.main([*command]) == 130


def test_default_recipe_reads_handwriting(workplace):
    done = subprocess.run(
        [sys.executable, "-m", "kaggle_digits.submit", "--data", "sample"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    file = Path("submissions/sample-fast-seed0.csv")
    assert sum(check_submission(file, rows=360)) == 360
    digits = load_digits().target  # the package never uses those of the test rows
    truth = train_test_split(digits, test_size=0.2, stratify=digits, random_state=0)[1]
    # The recipe is made for 42,000 rows. On 1,365 rows it takes only 30 steps, hence the low floor.
    assert (pd.read_csv(file)["Label"].to_numpy() == truth).mean() >= 0.9
    for line in ("source  sample: 1,437 training rows", "recipe  fast, seed 0", "device  ", "time    ", "labels  0: "):
        assert f"\n{line}" in f"\n{done.stdout}"
    assert done.stdout.endswith(
        "file    submissions/sample-fast-seed0.csv, 360 rows, checked\n"
        "        made from the built-in sample: it cannot be uploaded\n"
    )
    assert "Traceback" not in done.stderr
    assert done.stderr.count("epoch ") == RECIPES["fast"].epochs


def test_result_is_honest(capsys):
    plan = main_job.plan_submission(data="sample", recipe="quick")
    result = main_job.make_submission(plan)
    with np.load(result.runs[0].folder / "validation.npz") as held_out:
        correct = (held_out["probabilities"].argmax(axis=1) == held_out["digits"]).mean()
    assert result.accuracy == correct
    assert result.standard_error == pytest.approx((correct * (1 - correct) / 72) ** 0.5)
    assert set(plan.seconds) == {"load", "start"}
    assert set(result.seconds) == {"load", "start", "train", "predict", "write"}
    assert result.runs[0].submission == "submissions/sample-quick-seed0.csv"
    assert sum(result.label_counts) == 360
    assert capsys.readouterr().out == ""


def test_dry_run_writes_nothing(workplace, capsys):
    dry_run = [*SUBMIT, "quick-retrain", "--device", "cpu", "--dry-run"]
    assert cli.main([*dry_run, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["training_rows"], planned["held_out_rows"], planned["done_before"]) == (1365, 72, False)
    assert cli.main(dry_run) == 0
    assert list(workplace.iterdir()) == []
    assert capsys.readouterr().out == (
        "Would train quick-retrain for 2 epochs on 1,365 rows of sample, then again on all rows,\n"
        "measure it on 72 held-out rows, and predict 360 rows.\n"
        "device  cpu, float32 (asked for)\n"
        "file    submissions/sample-quick-retrain-seed0.csv\n"
    )


@pytest.mark.parametrize(
    "job", [["quick"], ["quick", "--folds", "3"], ["quick-retrain"], ["quick-retrain", "--out", "mine.csv"]]
)
def test_finished_job_is_not_done_again(capsys, caplog, job):
    command = [*SUBMIT, *job]
    assert cli.main([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    file = Path(first["file"])
    before = file.stat().st_mtime_ns
    caplog.clear()
    assert cli.main([*command, "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert (first["done_before"], second["done_before"]) == (False, True)
    for name in ("file", "held_out_accuracy", "label_counts", "runs"):
        assert second[name] == first[name]
    assert cli.main(command) == 0
    said = f"This job is done: {file} has its predictions. For another training, add "
    assert capsys.readouterr().out.startswith(said)
    assert file.stat().st_mtime_ns == before
    assert "epoch" not in caplog.text
    assert len(list(file.parent.glob("*.csv"))) == 1


def test_job_is_done_anew_if_anything_of_it_has_changed(competition, capsys):
    command = ["submit", "--recipe", "quick", "--data", str(competition), "--folds", "2"]
    assert cli.main(command) == 0, capsys.readouterr().err
    lines = (competition / "test.csv").read_text().splitlines()
    (competition / "test.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert cli.main(command) == 0  # other rows to predict
    assert cli.main([*command, "--seed", "1"]) == 0
    Path("submissions/quick-seed1-2folds.csv").write_text("ImageId,Label\n")  # somebody has changed it
    assert cli.main([*command, "--seed", "1"]) == 0
    assert sorted(file.name for file in Path("submissions").glob("*.csv")) == [
        *("quick-seed0-2folds-2.csv", "quick-seed0-2folds.csv"),
        *("quick-seed1-2folds-2.csv", "quick-seed1-2folds.csv"),
    ]


def test_folds_need_no_hold_out(competition):
    """Of 40 rows, 5% cannot be held out with every digit on both sides. Folds do not need that."""
    assert cli.main(["submit", "--recipe", "quick", "--data", str(competition), "--out", "a.csv"]) == 2
    assert cli.main(["submit", "--recipe", "quick", "--data", str(competition), "--folds", "2", "--out", "a.csv"]) == 0
    assert sum(check_submission(Path("a.csv"), rows=13)) == 13  # under the name that was asked for


def test_retraining_uses_all_rows_but_measures_on_held_out_ones_and_its_end_says_what_comes_next(caplog):
    caplog.set_level("INFO")
    assert cli.main([*SUBMIT, "quick-retrain"]) == 0
    measured, used = Path("runs/sample-quick-retrain-seed0"), read_run(Path("runs/sample-quick-retrain-seed0-all-rows"))
    assert used.submission == "submissions/sample-quick-retrain-seed0.csv"
    assert (used.rows.training, used.rows.held_out) == (1437, 0)
    assert (measured / "validation.npz").exists()
    assert not (used.folder / "validation.npz").exists()
    assert caplog.text.endswith(
        "What you may do next:\n"
        "upload  kaggle-digits download; then kaggle-digits submit --recipe quick-retrain\n"
        "report  kaggle-digits report runs/sample-quick-retrain-seed0\n"
        "better  kaggle-digits submit --recipe quick-retrain --folds 5 --data sample\n"
    )


def test_second_run_gets_a_new_name_and_the_same_digits():
    for more in ([], ["--force"]):
        assert cli.main([*SUBMIT, "quick", *more]) == 0
    first, second = (Path("submissions") / f"sample-quick-seed0{end}.csv" for end in ("", "-2"))
    assert first.read_bytes() == second.read_bytes()


def test_named_file_is_not_overwritten_unless_forced(capsys):
    Path("sample-mine.csv").write_text("mine")
    arguments = [*SUBMIT, "quick", "--out", "mine.csv"]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("kaggle-digits: sample-mine.csv: exists already. Expected a new name.")
    assert Path("sample-mine.csv").read_text() == "mine"
    assert not Path("runs").exists()
    assert cli.main([*arguments, "--force"]) == 0
    assert sum(check_submission(Path("sample-mine.csv"), rows=360)) == 360


def test_interrupted_job_continues_when_repeated(monkeypatch, capsys, caplog):
    interrupt(monkeypatch, *SUBMIT, "quick")
    stopped = capsys.readouterr()
    assert stopped.out == ""
    assert stopped.err.endswith(
        "Interrupted. Whole epochs of a network are kept in runs/. Repeat the command to continue.\n"
    )
    assert not Path("submissions").exists()

    assert cli.main([*SUBMIT, "quick"]) == 0
    finished = capsys.readouterr()
    assert "Continuing the interrupted job with the training in runs/sample-quick-seed0" in caplog.messages
    assert "epoch 2/2" in finished.err
    assert "epoch 1/2" not in finished.err
    assert [p.name for p in Path("runs").iterdir()] == ["sample-quick-seed0"]


def test_interrupt_while_retraining_does_not_repeat_what_came_before(monkeypatch, capsys):
    interrupt(monkeypatch, *SUBMIT, "quick-retrain", when=lambda metrics: "validation_accuracy" not in metrics)
    capsys.readouterr()
    assert cli.main([*SUBMIT, "quick-retrain"]) == 0
    assert capsys.readouterr().err.count("epoch ") == 1
    assert sorted(p.name for p in Path("runs").iterdir()) == [
        *("sample-quick-retrain-seed0", "sample-quick-retrain-seed0-all-rows"),
    ]


def test_training_is_not_lost_when_the_submission_cannot_be_written(monkeypatch, capsys):
    def disk_full(*arguments, **options):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_submission", disk_full)
        assert cli.main([*SUBMIT, "quick"]) == 1
    capsys.readouterr()
    assert cli.main([*SUBMIT, "quick"]) == 0
    assert "epoch " not in capsys.readouterr().err
    assert [p.name for p in Path("runs").iterdir()] == ["sample-quick-seed0"]


def test_training_can_be_resumed_by_the_verb_train(monkeypatch, capsys):
    arguments = [*TRAIN, "quick", "--run", "r"]
    interrupt(monkeypatch, *arguments)
    assert capsys.readouterr().err.endswith(
        "Interrupted. Whole epochs of a network are kept in r. Continue with --resume.\n"
    )
    assert cli.main(arguments) == 2
    assert "r: holds a run already." in capsys.readouterr().err
    assert cli.main([*arguments, "--resume"]) == 0
    finished = capsys.readouterr()
    assert "epoch 1/2" not in finished.err
    assert "epoch 2/2" in finished.err
    assert finished.out.startswith("r: quick, held-out accuracy ")


def test_train_and_predict_do_the_same_as_submit(competition):
    assert cli.main([*SUBMIT, "quick", "--seed", "3", "--out", "sample-a.csv"]) == 0
    assert cli.main([*TRAIN, "quick", "--seed", "3", "--run", "b"]) == 0
    assert cli.main(["predict", "--data", "sample", "--run", "b", "--out", "sample-b.csv"]) == 0
    assert Path("sample-a.csv").read_bytes() == Path("sample-b.csv").read_bytes()
    # What a network of the sample predicts is marked, whatever the rows are.
    assert cli.main(["predict", "--data", str(competition), "--run", "b", "--out", "mine.csv"]) == 0
    assert sorted(p.name for p in Path().glob("*.csv")) == ["sample-a.csv", "sample-b.csv", "sample-mine.csv"]


def test_classical_recipe_goes_all_the_way_without_tensorflow(workplace):
    code = (
        "import sys\n"
        "from kaggle_digits.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "sys.exit('imported TensorFlow' if {'tensorflow', 'keras'} & set(sys.modules) else code)"
    )
    arguments = ["submit", "--data", "sample", "--recipe", "naive-bayes"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "\nrecipe  naive-bayes, seed 0\ndevice  cpu, float32 (a classical method)\n" in done.stdout
    read = pd.read_csv("submissions/sample-naive-bayes-seed0.csv")["Label"].to_numpy()
    source = load_train(find_source("sample"))
    expected = GaussianNB().fit(source.pixels / 255, source.digits).predict(load_test(find_source("sample")) / 255)
    np.testing.assert_array_equal(read, expected)
    record = json.loads(Path("submissions/sample-naive-bayes-seed0.json").read_text())["runs"][0]
    assert (record["recipe"], record["epochs"], record["held_out_rows"]) == ("naive-bayes", 1, 72)
    # The run trained on all rows predicts. The run trained without the held-out rows gives the accuracy.
    names = ("runs/sample-naive-bayes-seed0-all-rows", "runs/sample-naive-bayes-seed0")
    assert (record["run"], record["measured_by"], record["training_rows"]) == (*names, 1437)


@pytest.mark.parametrize("others", [["quick", "--seed", "2"], ["naive-bayes"]], ids=["seed", "method"])
def test_runs_are_averaged(cpu, others):
    assert cli.main([*TRAIN, "quick", "--run", "1"]) == 0
    assert cli.main([*TRAIN, *others, "--run", "2"]) == 0
    assert cli.main(["predict", "--data", "sample", "--run", "1", "--run", "2", "--out", "sample-both.csv"]) == 0
    pixels = load_test(find_source("sample"))
    total = sum(load_run(Path(folder), cpu).predict(pixels) for folder in ("1", "2"))
    np.testing.assert_array_equal(pd.read_csv("sample-both.csv")["Label"], total.argmax(axis=1))


def test_other_number_of_epochs(capsys):
    assert cli.main([*TRAIN, "quick", "--epochs", "3", "--run", "run"]) == 0
    assert len(read_run(Path("run")).epochs) == 3
    assert cli.main([*TRAIN, "quick", "--run", "run", "--resume"]) == 2
    assert "holds a run of quick with other settings than the recipe has now." in capsys.readouterr().err
    assert cli.main([*SUBMIT, "quick", "--epochs", "1", "--dry-run"]) == 0
    assert "Would train quick for 1 epochs on 1,365 rows of sample,\n" in capsys.readouterr().out
    assert cli.main([*SUBMIT, "bharadwaj-cnn", "--dry-run"]) == 0
    assert "for at most 20 epochs on" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["train", "--recipe", "quick", "--epochs", "0", "--run", "new"])


def test_relu_everywhere_reads_only_zeros():
    """The published recipe leaves pixels unscaled, so its first steps are so large that every unit dies."""
    dying = find_recipe("mlp-784-300-relu", epochs=2)
    result = main_job.make_submission(main_job.plan_submission(dying, data="sample"))
    assert result.label_counts == [360, *[0] * 9]


def test_weak_network_is_not_taken_for_one_that_sees_wrong_images(caplog):
    """It is as unsure of the rows that were held out as of those that it predicts."""
    assert cli.main([*TRAIN, "quick", "--epochs", "1", "--run", "weak"]) == 0
    made = predict_submission([Path("weak")], Path("a.csv"), data="sample")
    assert made.unsure > 0.2 * made.rows
    assert cli.main(["predict", "--run", "weak", "--data", "sample", "--out", "b.csv"]) == 0
    assert "certainty" not in caplog.text


def test_predict_says_when_it_is_unsure_of_many_rows(competition, caplog):
    """Noise is no digit."""
    assert cli.main(["predict", "--data", str(competition), "--out", "noise.csv"]) == 0
    assert "rows are read with less than 90% certainty. Of the rows held out in training it was 0.9%." in caplog.text
    assert "Usually the images are transposed" in caplog.text
