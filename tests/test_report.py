"""Reports: one page about a run, an ensemble, a validation or a comparison, which fetches nothing."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from quick import QUICK as THREE_EPOCHS

from kaggle_digits import recipes
from kaggle_digits.cli import main
from kaggle_digits.data import TrainingRows, find_source, load_train
from kaggle_digits.learners.models import learning_rate_of, learning_rates
from kaggle_digits.occlusion import nearest_rows, occlusion_map
from kaggle_digits.recipe import Ensemble, Milestones
from kaggle_digits.recipes import RECIPES

QUICK = replace(THREE_EPOCHS, epochs=2, retrain=False)
TWO = Ensemble(name="two", summary="two quick ones", source="test", members=(QUICK, replace(QUICK, name="again")))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for recipe in (QUICK, TWO):
        monkeypatch.setitem(recipes.RECIPES, recipe.name, recipe)


def read(file: str) -> str:
    """Return the text of a page, which holds all that it shows."""
    page = Path(file).read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=[\"'](?!data:)|url\(", page) == []
    assert "<script" not in page
    return page


def test_page_about_a_run_says_what_was_trained_and_shows_why_it_errs(capsys):
    assert main(["submit", "--recipe", "quick", "--data", "sample", "--out", "a.csv"]) == 0
    assert main(["report", "runs/sample-a"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "runs/sample-a/report.html"
    page = read("runs/sample-a/report.html")
    for shown in (
        "<h1>quick, seed 0</h1>",
        "of 72 held-out rows right, which played no part in training.",
        "<dd>1,365 to train on, 72 held out, of sample</dd>",
        "<h2>During training</h2>",
        "<h2>What is read as what, and how surely</h2>",
        "<h2>Worst mistakes, and why</h2>",
        "<h2>Labels of the submission</h2>",
    ):
        assert shown in page
    command = re.search(r"<code>(.*?)</code>", page)[1]
    assert command == "kaggle-digits train --recipe quick --run again --data sample --seed 0"
    assert main(command.split()[1:]) == 0
    assert Path("again/model.npz").read_bytes() == Path("runs/sample-a/model.npz").read_bytes()


def test_page_without_the_data_says_what_is_missing(digits_csv):
    competition = Path("competition")
    competition.mkdir()
    for name, text in zip(("train", "test"), digits_csv, strict=True):
        (competition / f"{name}.csv").write_text(text)
    assert main(["train", "--recipe", "quick", "--data", str(competition), "--run", "run"]) == 0
    shutil.rmtree(competition)
    assert main(["report", "run"]) == 0
    assert f"The training rows were not found at {competition}. Name them with --data to see them." in read(
        "run/report.html"
    )


def test_page_about_an_ensemble_lists_its_members():
    assert main(["train", "--recipe", "two", "--data", "sample", "--run", "two"]) == 0
    assert main(["report", "two", "--out", "two.html"]) == 0
    page = read("two.html")
    assert "<h2>Members</h2>" in page
    assert "<td>1-of-2</td><td>quick</td>" in page
    assert main(["report", "two", "--out", "two.html"]) == 2  # exists


def test_pages_about_members_and_damaged_files(capsys):
    assert main(["submit", "--recipe", "quick", "--folds", "2", "--data", "sample", "--out", "a.csv"]) == 0
    assert main(["report", "runs/sample-a"]) == 0
    assert "<h1>2 members in sample-a</h1>" in read("runs/sample-a/report.html")
    Path("c").mkdir()
    for text in ("{", '{"recipes": [{}]}', "[]"):
        Path("c/compare.json").write_text(text)
        assert main(["report", "c"]) == 2
        assert "kaggle-digits: c/compare.json: cannot be reported on (" in capsys.readouterr().err


def test_pages_about_a_validation_and_comparisons():
    assert main(["validate", "--recipe", "quick", "--folds", "2", "--data", "sample", "--out", "v"]) == 0
    assert main(["report", "v"]) == 0
    page = read("v/report.html")
    for shown in (
        "<h2>Folds</h2>",
        "<h2>Digits</h2>",
        "in the first fold</h2>",
        "of 1,437 rows right, each by a network",
    ):
        assert shown in page
    assert main(["compare", "--recipes", "quick,naive-bayes", "--folds", "2", "--data", "sample", "--out", "c"]) == 0
    assert main(["report", "c"]) == 0
    assert "<td>quick − naive-bayes</td>" in read("c/report.html")
    assert main(["compare", "--recipes", "quick", "--data", "sample", "--out", "d"]) == 0
    written = read("d/report.html")
    assert main(["report", "d", "--out", "d.html"]) == 0
    assert read("d.html") == written


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium: install it to look at the page")
def test_page_fits_a_phone_and_is_dark_if_wanted():
    assert main(["train", "--recipe", "two", "--data", "sample", "--run", "two"]) == 0
    assert main(["report", "two"]) == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        colours = []
        for scheme in ("light", "dark"):
            tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
            requests: list[str] = []
            tab.on("request", lambda request, requests=requests: requests.append(request.url))
            tab.goto(Path("two/report.html").resolve().as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390
            assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
            colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        browser.close()
    assert colours == ["rgb(255, 255, 255)", "rgb(22, 24, 27)"]


def test_folder_without_anything_is_refused(capsys):
    Path("empty").mkdir()
    assert main(["report", "empty"]) == 2
    assert "empty: nothing to report on in it. Expected run.json, validation.json, folds.json, compare.json" in (
        capsys.readouterr().err
    )


def test_occlusion_finds_the_part_that_decides():
    """A reader that looks at one pixel only is explained by that pixel."""

    def predict(pixels: np.ndarray) -> np.ndarray:
        sure = pixels[:, 10 * 28 + 7] / 255
        return np.stack([1 - sure, sure, *[np.zeros(len(pixels))] * 8], axis=1)

    pixels = np.full(784, 255, np.uint8)
    contributions = occlusion_map(predict, pixels)
    wanted = np.zeros((28, 28))
    wanted[8:13, 5:10] = 1  # the patches of 5 × 5 that hide the pixel
    assert np.array_equal(contributions, wanted)
    assert np.array_equal(occlusion_map(predict, pixels, 0), -wanted)
    assert not occlusion_map(predict, np.zeros(784, np.uint8)).any()


@pytest.mark.parametrize("name", ["fast", "idm"])
def test_nearest_training_image_of_a_training_image_is_itself(name):
    rows = load_train(find_source("sample"))
    assert nearest_rows(RECIPES[name], rows.pixels[5:6], rows)[0, 0] == 5
    moved = np.roll(rows.pixels[5].reshape(28, 28), 1, axis=1).reshape(1, 784)
    others = TrainingRows(np.delete(rows.pixels, 5, axis=0), np.delete(rows.digits, 5))
    assert others.digits[nearest_rows(RECIPES[name], moved, others)[0, 0]] == rows.digits[5]


def test_learning_rates_are_those_of_keras():
    fast = RECIPES["fast"]
    schedule = learning_rate_of(fast, fast.epochs * 100)
    wanted = [float(schedule(step)) for step in range(3 * 100)]
    assert np.allclose(learning_rates(fast, 25_600, [0.0] * 3), wanted, rtol=1e-5)
    falling = replace(fast, learning_rate=Milestones(start=0.1, factor=0.5, epochs=(1,)))
    assert learning_rates(falling, 25_600, [0.0] * 2).tolist() == [0.1] * 100 + [0.05] * 100
