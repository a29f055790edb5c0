"""Damaged files: the error names the file and what to do, or the last good checkpoint is taken, and that is said."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quick import QUICK
from test_faults import after_each_epoch

from kaggle_digits import cli, recipes

OTHER = replace(QUICK, name="other", layers=(("AveragePooling2D", {"pool_size": 2}), *QUICK.layers))
TRAIN = ("train", "--data", "sample", "--device", "cpu", "--recipe")
DAMAGES = ("cut", "emptied", "bit flipped", "part zeroed", "of another seed", "of another recipe")


def damaged(whole: bytes, how: str, others: dict[str, bytes], draw: random.Random) -> bytes:
    """Return the contents of a file after some damage."""
    if how in others:
        return others[how]
    place = draw.randrange(len(whole) - 1)
    if how == "cut":
        return whole[:place]
    if how == "emptied":
        return b""
    if how == "bit flipped":
        return whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :]
    return whole[:place] + bytes(min(500, len(whole) - place)) + whole[place + 500 :]


@pytest.fixture
def runs(monkeypatch) -> None:
    """Leave the run folders of trainings that are finished, or were stopped after their second epoch."""
    monkeypatch.setitem(recipes.RECIPES, "quick", QUICK)
    monkeypatch.setitem(recipes.RECIPES, "other", OTHER)

    def interrupt(epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    runs = {"mine": ("quick", "0"), "of another seed": ("quick", "1"), "of another recipe": ("other", "0")}
    for name, (recipe, seed) in runs.items():
        assert cli.main([*TRAIN, recipe, "--seed", seed, "--run", f"finished/{name}"]) == 0
        with after_each_epoch(monkeypatch, interrupt):
            assert cli.main([*TRAIN, recipe, "--seed", seed, "--run", f"stopped/{name}"]) == 130


@pytest.mark.parametrize("name", ["run.json", "model.npz"])
def test_a_damaged_file_of_a_finished_run_is_named(ledger, runs, name, capsys):
    draw = random.Random(0)
    predict = ["predict", "--data", "sample", "--run", "finished/mine", "--out", "sample-mine.csv", "--force"]
    file = Path("finished/mine", name)
    whole = file.read_bytes()
    others = {other: Path("finished", other, name).read_bytes() for other in DAMAGES[4:]}
    assert cli.main(predict) == 0
    expected = Path("sample-mine.csv").read_bytes()
    for how in DAMAGES:
        for _ in ledger.times(1, 20):
            file.write_bytes(damaged(whole, how, others, draw))
            Path("sample-mine.csv").unlink(missing_ok=True)
            Path("sample-mine.json").unlink(missing_ok=True)
            with ledger.fault(f"{name}: {how}"):
                code = cli.main(predict)
                error = capsys.readouterr().err.splitlines()[-1]
                if code:
                    # Where run.json is that of another run, the model beside it is the one that does not match.
                    assert error.startswith(f"kaggle-digits: finished/mine/{'model.npz' if how in others else name}: ")
                    assert error.endswith(("rain again into a new folder.", "or train again.", "Train it again."))
                    assert code == 2
                else:  # the bit has no meaning, like the case of a letter in a hexadecimal number
                    assert Path("sample-mine.csv").read_bytes() == expected
                    assert how == "bit flipped"
    file.write_bytes(whole)


@pytest.mark.parametrize("name", ["checkpoint.npz", "checkpoint-before.npz", "run.json"])
def test_a_stopped_training_with_a_damaged_file_goes_on_or_says_why_not(ledger, runs, name, capsys, caplog):
    draw = random.Random(1)
    with np.load("finished/mine/model.npz") as saved:
        expected = dict(saved)
    others = {
        other: file.read_bytes() for other in DAMAGES[4:] if (file := Path("stopped", other, name)) and file.exists()
    }
    for how in DAMAGES:
        for _ in ledger.times(1, 10):
            shutil.copytree("stopped/mine", "again")
            whole = Path("again", name).read_bytes()
            Path("again", name).write_bytes(damaged(whole, how, others, draw))
            with ledger.fault(f"{name}: {how}"):
                caplog.clear()
                code = cli.main([*TRAIN, "quick", "--run", "again", "--resume"])
                error = capsys.readouterr().err.splitlines()[-1]
                if code:
                    assert code == 2
                    assert name == "run.json"
                    assert error.startswith("kaggle-digits: again")
                else:
                    with np.load("again/model.npz") as saved:
                        for key, array in saved.items():
                            np.testing.assert_array_equal(array, expected[key])
                    if name == "checkpoint.npz" and "checkpoint-before.npz" not in caplog.text:
                        assert how == "bit flipped"  # in what has no meaning: a date, an attribute of the file
            shutil.rmtree("again")
