"""Export: a file of each format reads like the run, and needs nothing of this package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from run_folder import RESIDUAL, UPRIGHT, write_run, write_untrained

from kaggle_digits.analysis.predict import predict_submission
from kaggle_digits.cli import main
from kaggle_digits.data import find_source, load_test, load_train
from kaggle_digits.errors import InputError, TrainingError
from kaggle_digits.export import formats as exporting
from kaggle_digits.export.formats import export
from kaggle_digits.learners import PACKAGED_RUN, load_run
from kaggle_digits.recipe import Ensemble
from kaggle_digits.recipes import RECIPES
from kaggle_digits.run import member_folder, read_run
from kaggle_digits.submission import read_submission

GUIDE = (Path(__file__).parent.parent / "docs/how-to/export.md").read_text(encoding="utf-8")
PIXELS, *EXAMPLES = re.findall(r"```py\n(.*?)```", GUIDE, re.DOTALL)
LINES = dict(zip((form for form in exporting.FORMATS if form != "web"), EXAMPLES, strict=True))
BUILT_IN = [RECIPES[name] for name in ("fast", "stretched", "handwriting", "mlp-784-300")]


@pytest.mark.parametrize("recipe", [UPRIGHT, *BUILT_IN, RESIDUAL], ids=lambda recipe: recipe.name)
def test_every_part_of_a_recipe_is_in_the_file(recipe):
    """Upright digits, a common width, shifts, slants, one-hot estimates and residual blocks."""
    write_untrained(Path("run"), recipe)
    made = export(Path("run"), "keras", Path("out.keras"), data="sample")
    assert made.rows == 1000
    assert made.difference < 1e-3
    with zipfile.ZipFile("out.keras") as archive:
        assert b"kaggle_digits" not in archive.read("config.json")


@pytest.mark.parametrize("form", LINES)
def test_file_is_used_without_this_package_as_the_guide_says(form, capsys, tmp_path):
    file = f"digits{exporting.FORMATS[form].suffix}"
    assert main(["export", "--format", form, "--out", file, "--data", "sample"]) == 0
    assert "verified on 1,000 rows: all digits are the same" in capsys.readouterr().out
    code = f"{PIXELS}{LINES[form]}\nimport sys\nassert 'kaggle_digits' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[1]\n"


READ_BY_OLDER = """
import sys
import keras
import numpy as np
pixels, expected = (np.load(name) for name in ("pixels.npy", "expected.npy"))
for file in sys.argv[1:]:
    read = keras.saving.load_model(file, compile=False).predict(pixels, verbose=0)
    assert np.abs(read - expected[int(file[0])]).max() < 1e-3, file
print(keras.__version__)
"""
LIKE_A_STRANGERS = replace(
    RECIPES["mlp-784-300"],
    layers=(
        *(("Reshape", {"target_shape": (28, 28)}), ("LSTM", {"units": 4, "return_sequences": True})),
        *(("GRU", {"units": 4, "return_sequences": True}), ("LayerNormalization", {})),
        *(("Reshape", {"target_shape": (28, 2, 2)}), ("LeakyReLU", {}), ("PReLU", {}), ("Dropout", {"rate": 0.1})),
        ("SeparableConv2D", {"filters": 4, "kernel_size": 3, "padding": "same"}),
        *(
            ("DepthwiseConv2D", {"kernel_size": 1}),
            ("AveragePooling2D", {"pool_size": 2}),
            ("GlobalAveragePooling2D", {}),
        ),
        ("Dense", {"units": 10, "activation": "softmax"}),
    ),
)


def test_file_is_read_by_keras_older_versions():
    """The oldest version of Keras that this package promises, and that of Kaggle's own image."""
    folders = [Path(sys.prefix) / "keras" / version for version in ("3.10.0", "3.13.2")]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("older versions of Keras are not at hand: `make test` installs them")
    pixels = load_train(find_source("sample")).pixels[:20]
    files, expected = [], []
    for number, recipe in enumerate([RECIPES["stretched"], RECIPES["handwriting"], RESIDUAL, LIKE_A_STRANGERS]):
        run = write_untrained(Path(f"run{number}"), recipe)
        files.append(str(export(run, "keras", Path(f"{number}.keras"), data="sample").file))
        expected.append(load_run(run).predict(pixels))
    np.save("pixels.npy", pixels.reshape(-1, 28, 28).astype(np.float32))
    np.save("expected.npy", np.stack(expected))
    for folder in folders:
        command, environment = [sys.executable, "-c", READ_BY_OLDER, *files], os.environ | {"PYTHONPATH": str(folder)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.strip() == folder.name


def test_file_says_what_it_needs():
    onnx = pytest.importorskip("onnx")
    for form in ("keras", "onnx"):
        export(PACKAGED_RUN, form, Path(f"digits.{form}"), data="sample")
    with zipfile.ZipFile("digits.keras") as archive:
        assert json.loads(archive.read("metadata.json"))["needs"] == "Keras 3.10 or newer"
    stored = onnx.load("digits.onnx")
    assert {entry.key: entry.value for entry in stored.metadata_props}["needs"] == "ONNX Runtime 1.15 or newer"
    assert stored.ir_version <= 8  # what ONNX Runtime 1.15 and older ones read


def test_networks_of_an_ensemble_are_averaged_and_others_left_out(capsys):
    recipe = Ensemble(name="three", summary="", source="", members=RECIPES["strong"].members)
    write_run("three", recipe)
    for number, member in enumerate(recipe.members, start=1):
        folder = member_folder(Path("three"), number, 3)
        if member.networks:
            write_untrained(folder, member, seed=number)
        else:
            write_run(folder, member)
    assert main(["export", "--run", "three", "--format", "keras", "--out", "three.keras", "--data", "sample"]) == 0
    assert "three.keras: 2 networks, averaged, without idm, which is not a network; " in capsys.readouterr().out
    pixels = load_train(find_source("sample")).pixels[:50]
    both = [load_run(member_folder(Path("three"), number, 3)).predict(pixels) for number in (1, 2)]
    read = keras.saving.load_model("three.keras").predict(pixels.reshape(-1, 28, 28).astype(np.float32), verbose=0)
    assert np.allclose(read, np.mean(both, axis=0), atol=1e-3)


def test_several_runs_in_a_file_read_what_predict_reads(monkeypatch):
    """Their temperatures differ, so that averages of calibrated probabilities would have other arg-maxes."""
    for number, temperature in ((1, 0.2), (2, 4.0)):
        folder = member_folder(Path("both"), number, 2)
        write_untrained(folder, RECIPES["mlp-784-300"], seed=number)
        replace(read_run(folder), temperature=temperature).save()
    made = export(Path("both"), "keras", Path("both.keras"), data="sample")
    assert (made.networks, made.difference < 1e-3) == (2, True)
    predict_submission([Path("both")], Path("a.csv"), data="sample")
    pixels = load_test(find_source("sample")).reshape(-1, 28, 28).astype(np.float32)
    read = keras.saving.load_model("both.keras").predict(pixels, verbose=0)
    assert read_submission(Path("sample-a.csv")).digits == read.argmax(axis=1).tolist()


def test_file_that_reads_differently_is_not_kept(monkeypatch):
    blind = replace(exporting.FORMATS["keras"], read=lambda file, pixels: np.eye(10)[np.zeros(len(pixels), int)])
    monkeypatch.setitem(exporting.FORMATS, "keras", blind)
    with pytest.raises(TrainingError, match=r"out\.keras: reads [0-9]+ of 1,000 digits differently than"):
        export(PACKAGED_RUN, "keras", Path("out.keras"), data="sample")
    assert list(Path().iterdir()) == []


def test_wrong_names_runs_and_missing_packages_are_refused(monkeypatch):
    with pytest.raises(InputError, match=r"out\.onnx: is not named like a file for keras. Expected a name ending in"):
        export(PACKAGED_RUN, "keras", Path("out.onnx"))
    Path("out.keras").write_text("mine")
    with pytest.raises(InputError, match=r"out\.keras: exists already"):
        export(PACKAGED_RUN, "keras", Path("out.keras"))
    monkeypatch.setitem(exporting.FORMATS, "onnx", replace(exporting.FORMATS["onnx"], modules=("no_such_module",)))
    with pytest.raises(InputError, match=r"--format onnx: the package no-such-module is missing\. Install the extra"):
        export(PACKAGED_RUN, "onnx", Path("out.onnx"))
    assert main(["train", "--recipe", "naive-bayes", "--run", "bayes", "--data", "sample"]) == 0
    with pytest.raises(InputError, match="bayes: holds naive-bayes, which is not a network"):
        export(Path("bayes"), "keras", Path("other.keras"), data="sample")
