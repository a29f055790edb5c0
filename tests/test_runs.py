"""Runs: what a run folder says of a training."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from run_folder import write_run

from kaggle_digits import run as runs
from kaggle_digits.data import Split, TrainingRows
from kaggle_digits.errors import InputError, RunError
from kaggle_digits.files import write_arrays
from kaggle_digits.kaggle.records import FORMAT, is_used, save_record, write_record
from kaggle_digits.kaggle.repeats import find_done
from kaggle_digits.learners.members import run_folders
from kaggle_digits.learners.resume import claim
from kaggle_digits.recipe import to_json
from kaggle_digits.recipes import RECIPES
from kaggle_digits.recipes.fields import from_json
from kaggle_digits.run import RowCounts, Run, Threshold, find_commit, mark_used, member_seed, read_run

OF_RUN = ("recipe", "seed", "commit", "held_out_rows", "held_out_accuracy")


@pytest.fixture
def run() -> Run:
    """Return a finished run of random guesses in the folder run."""
    return write_run("run", RECIPES["random"])


def test_what_a_recipe_did_not_say_has_its_default():
    fields = to_json(RECIPES["cnn-32-64"])
    for name in ("published_accuracy", "published_seconds", "note", "stop_at"):
        del fields[name]
    assert from_json(fields).layers == RECIPES["cnn-32-64"].layers


@pytest.mark.parametrize(
    "damage",
    [
        {"learning_rate": {"start": 0.1}},
        {"estimator": []},
        {"estimator": [[1]]},
        {"layers": 5},
        {"kind": "Milestones"},
        {"kind": "Abacus"},
        {"learning_rate": {"kind": "Augmentation"}},
    ],
)
def test_recipe_that_is_none_is_refused(damage):
    write_run(".", RECIPES["cnn-32-64"], damage=damage)
    with pytest.raises(RunError, match=r"^run.json: not readable as a run \("):
        read_run(Path())


def test_missing_pydantic_is_named(run, monkeypatch):
    file = Path("mine.csv")
    file.write_text("ImageId,Label\n1,7\n")
    write_record(file, [run.summary()])
    monkeypatch.setitem(sys.modules, "pydantic", None)  # Kaggle's TPU image may lack it
    for read in (lambda: read_run(run.folder), lambda: find_done(file, [run], 0)):
        with pytest.raises(InputError, match=r"^pydantic is not installed, .* pip install pydantic$"):
            read()


def wanted(folder: str, **changes: object) -> Run:
    return replace(write_run("template", RECIPES["random"], finished=False), folder=Path(folder), **changes)


def test_claim_says_how_a_folder_stands():
    with claim(wanted("run")) as (run, state):
        assert (run.folder, state) == (Path("run"), "fresh")
        run.save()
    with claim(wanted("run"), resume=True) as (run, state):
        assert state == "resumable"
        replace(run, finished=True).save()
    with claim(wanted("run", source="elsewhere"), resume=True) as (run, state):
        assert (state, run.source) == ("finished", "test")
    with pytest.raises(RunError, match="holds a run already"), claim(wanted("run")):
        pass


def test_claimed_folder_is_locked():
    with claim(wanted("run")):
        again = claim(wanted("run"), resume=True)
        with pytest.raises(RunError, match="is being trained by another process"), again:
            pass
    with claim(wanted("run"), resume=True):  # and free again
        pass


def test_numbered_claim_passes_by_what_is_not_its_own(run):
    (run,) = mark_used([run], Path("s.csv"))
    assert not is_used(run)  # a finished run is, once the record of a submission names it
    record = {"format": FORMAT, "file": "s.csv", "sha256": "", "build": None, "upload": None}
    for name in ("other", "run"):
        save_record(Path("s.csv"), record | {"runs": [dict.fromkeys(OF_RUN) | {"run": name}]})
        assert is_used(run) == (name == "run")
    write_run("run-2", RECIPES["knn"])  # another training
    Path("run-3").mkdir()
    Path("run-3/.run.partial.json").touch()
    Path("run-3/notes.txt").write_text("the user's own")
    Path("run-4").mkdir()
    Path("run-4/.run.partial.json").touch()  # what a kill left, which is taken over
    with claim(wanted("run"), is_spent=is_used) as one, claim(wanted("run"), is_spent=is_used) as two:
        found = [(claimed.run.folder.name, claimed.state) for claimed in (one, two)]
        assert found == [("run-4", "fresh"), ("run-5", "fresh")]
        one.run.save()
    with claim(wanted("run"), is_spent=is_used) as (again, state):
        assert (again.folder.name, state) == ("run-4", "resumable")
    assert Path("run-3/notes.txt").read_text() == "the user's own"


def test_run_that_was_only_described_does_not_predict(run):
    with pytest.raises(RunError, match=r"^run: only its run.json was read. Load it with load_run.$"):
        run.predict(np.zeros((1, 784), np.uint8))


def test_summary_says_what_a_record_keeps():
    run = replace(
        write_run("run", RECIPES["naive-bayes"]),
        seed=3,
        commit="c0ffee",
        versions={"numpy": "2"},
        rows=RowCounts(40, 8, checksum=0),
        epochs=[{"epoch": 1, "seconds": 1.5, "validation_accuracy": 0.75, "validation_seconds": 0.25}],
    )
    assert run.summary() == {
        "run": "run",
        "recipe": "naive-bayes",
        "seed": 3,
        "commit": "c0ffee",
        "versions": {"numpy": "2"},
        "device": {"kind": "cpu", "replicas": 1, "precision": "float32", "reason": "test", "backend": "tensorflow"},
        "epochs": 1,
        "training_rows": 40,
        "held_out_rows": 8,
        "held_out_accuracy": 0.75,
    }
    assert (run.seconds, run.validation_seconds) == (1.5, 0.25)


def test_summary_of_an_ensemble_counts_the_epochs_of_its_networks():
    run = write_run("run", RECIPES["strong"])
    members = [write_run(f"run/{n}-of-3", each) for n, each in enumerate(run.recipe.members, start=1)]
    for member in members:
        replace(member, epochs=[{"seconds": 1.0}] * (5 if member.recipe.networks else 1)).save()
    summary = run.summary()
    assert summary["epochs"] == 10
    found = [(each["recipe"], each["epochs"]) for each in summary["members"]]
    assert found == [("fast", 5), ("stretched", 5), ("idm", 1)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("file", "is a file. Expected a run folder, as `kaggle-digits train` leaves it. Name the folder."),
        ("none", "no run.json in it. Expected a run folder, as `kaggle-digits train --run none` leaves it."),
    ],
)
def test_what_is_no_run_folder_is_named(name, said):
    Path("file").touch()
    with pytest.raises(RunError, match=f"^{name}: {said}$"):
        read_run(Path(name))


def test_members_of_two_ensembles_in_one_folder_are_refused():
    Path("run").mkdir()
    for name in ("1-of-2", "2-of-2"):
        write_run(f"run/{name}", RECIPES["random"])
    assert run_folders(Path("run")) == [Path("run/1-of-2"), Path("run/2-of-2")]
    assert run_folders(Path("run/1-of-2")) == [Path("run/1-of-2")]
    write_run("run/2-of-3", RECIPES["random"])
    said = r"^run: holds members of ensembles of 2 and 3. Expected one ensemble. Name the run folders one by one.$"
    with pytest.raises(RunError, match=said):
        run_folders(Path("run"))
    for name in ("1-of-2", "2-of-2"):
        Path("run", name, "run.json").unlink()
    said = r"^run: 1-of-3, 3-of-3 of its members missing. Expected all. Repeat the .* the run folders one by one.$"
    with pytest.raises(RunError, match=said):
        run_folders(Path("run"))


def test_probabilities_that_are_missing_are_named(run):
    with pytest.raises(RunError) as caught:
        _ = run.probabilities
    assert str(caught.value).startswith("run/validation.npz: not readable ([Errno 2] No such file or directory: ")
    assert str(caught.value).endswith(
        "). Expected the probabilities of the held-out rows, which training wrote. Remove run and train it again."
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seed", "x", "FieldError: seed: 'x'"),
        ("temperature", 0, "ValueError: a temperature of 0"),
        ("temperature", -0.5, "ValueError: a temperature of -0.5"),
        ("temperature", "hot", "FieldError: temperature: 'hot'"),
        ("epochs", [7], "FieldError: epochs: 7"),
        *(
            ("epochs", [{name: "fast"}], "TypeError: metrics are not numbers")
            for name in ("seconds", "validation_seconds", "validation_accuracy")
        ),
    ],
)
def test_impossible_values_are_refused(run, name, value, said):
    fields = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps(fields | {name: value}))
    wrong = (
        rf"^run/run.json: not readable as a run \({said}.*\). Expected the file that training wrote. Train again into"
    )
    with pytest.raises(RunError, match=wrong):
        read_run(Path("run"))


def test_all_that_a_run_says_is_read_again(run):
    run = replace(
        run,
        devices_before=(replace(run.device, kind="gpu", reason="before"),),
        threshold=Threshold(0.9, 0.01, 0.02),
        temperature=0.7,
        epochs=[{"epoch": 1, "seconds": 1.5, "validation_seconds": 0.5, "validation_accuracy": 0.9}],
        submission="mine.csv",
    )
    run.save()
    assert read_run(Path("run")) == run


def test_training_that_goes_on_elsewhere_says_so(caplog):
    first = wanted("run")
    with claim(first) as (run, _):
        run.save()
    with claim(first, resume=True) as (run, state):
        assert (run.devices_before, state) == ((), "resumable")
    assert caplog.text == ""
    gpu = replace(first.device, kind="gpu", reason="a better one")
    with claim(replace(first, device=gpu), resume=True) as (run, state):
        assert (run.device, run.devices_before, state) == (gpu, (first.device,), "resumable")
        run.save()
    assert caplog.messages == [
        "run was begun on cpu, float32 (test) and goes on on gpu, float32 (a better one): the result will differ."
    ]
    with claim(replace(first, device=gpu), resume=True) as (run, _):
        assert run.devices_before == (first.device,)
    said = "run: holds a run with seed 0, and seed 3 was asked for. Name another folder, or repeat the settings"
    with pytest.raises(RunError, match=said), claim(replace(first, seed=3), resume=True):
        pass


def test_file_of_another_run_is_named(run):
    Path("run/model.npz").write_bytes(b"its own")
    run = run.with_checksums()
    run.verify("model.npz")
    run.verify("validation.npz")  # there is none
    Path("run/notes.txt").touch()
    run.verify("notes.txt")  # its checksum is not known
    Path("run/model.npz").write_bytes(b"another")
    said = (
        r"^run/model.npz: is not the file that run.json beside it belongs to \(the checksums differ\). Expected the "
        r"file that the same training wrote. It was .*: copy the whole folder again, or train again.$"
    )
    with pytest.raises(RunError, match=said):
        run.verify("model.npz")


def test_members_have_seeds_of_their_own():
    seeds = [member_seed(seed, member, 3) for seed in range(4) for member in (1, 2, 3)]
    assert seeds == list(range(12))
    assert member_seed(2**32 - 1, 3, 3) == 2**32 - 1  # what NumPy takes


def test_rows_are_told_by_their_pixels_and_their_labels():
    pixels, digits = np.zeros((3, 784), np.uint8), np.arange(3)
    rows = TrainingRows(pixels, digits)
    counts = RowCounts.of(rows, None)
    assert (counts.training, counts.held_out) == (3, 0)
    assert RowCounts.of(rows, rows.take(np.arange(2))) == replace(counts, held_out=2)
    assert RowCounts.of(TrainingRows(np.asfortranarray(pixels), digits), None) == counts
    others = RowCounts.of(TrainingRows(pixels + 1, digits), None), RowCounts.of(TrainingRows(pixels, digits + 1), None)
    assert len({counts, *others}) == 3


def test_commit_is_that_of_the_checkout(monkeypatch):
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    Path("kaggle_digits").mkdir()
    monkeypatch.setattr(runs, "__file__", str(Path("kaggle_digits/runs.py").resolve()))
    assert find_commit() is None  # installed, not a checkout
    git("init")
    assert find_commit() is None  # no commit yet
    Path("kaggle_digits/runs.py").touch()
    git("add", ".")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag is not a commit")
    assert find_commit() == git("rev-parse", "HEAD")
    Path("kaggle_digits/runs.py").write_text("changed")
    assert find_commit() == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert find_commit() is None  # no git


def test_probabilities_of_held_out_rows_and_predictions_are_returned(run):
    given = {"probabilities": np.full((2, 10), 0.1, np.float32), "digits": np.array([3, 4])}
    write_arrays(run.folder / "validation.npz", given)
    run = replace(run, rows=RowCounts(5, 2, 0), predictor=SimpleNamespace(probabilities=lambda pixels: pixels + 1))
    assert run.probabilities.tolist() == given["probabilities"].tolist()
    assert run.held_out_digits.tolist() == [3, 4]
    assert run.predict(np.array([1])).tolist() == [2]


def test_runs_of_2026_are_read(run):
    fields = json.loads((run.folder / "run.json").read_text())
    fields["device"]["processes"] = 1
    (run.folder / "run.json").write_text(json.dumps(fields))
    assert read_run(run.folder).device == run.device


def test_how_rows_were_divided_is_kept(run):
    replace(run, split=Split(seed=3, folds=5, fold=2)).save()
    assert read_run(run.folder).split == Split(seed=3, folds=5, fold=2)
