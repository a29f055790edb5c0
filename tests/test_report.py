"""Reports: one page about a run, an ensemble, a validation or a comparison, which fetches nothing."""

from __future__ import annotations

import html
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import needs_browser, opened
from matplotlib.figure import Figure
from quick import QUICK as THREE_EPOCHS

from kaggle_digits import recipes
from kaggle_digits.analysis import plots
from kaggle_digits.analysis.occlusion import nearest_rows, occlusion_map
from kaggle_digits.analysis.schedule import learning_rates
from kaggle_digits.cli import main
from kaggle_digits.data import TrainingRows, find_source, load_train
from kaggle_digits.models import learning_rate_of
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
    assert "<h1>quick, seed 0</h1>" in page
    assert "<dd>1,365 to train on, 72 held out, of sample</dd>" in page
    parts = ("During training", "What is read as what", "Worst mistakes, and why", "Labels of the submission")
    assert not [part for part in parts if f"<h2>{part}" not in page]
    command = re.search(r"<code>(.*?)</code>", page)[1]
    assert command == "kaggle-digits train --recipe quick --run again --data sample --seed 0"
    assert main(command.split()[1:]) == 0
    assert Path("again/model.npz").read_bytes() == Path("runs/sample-a/model.npz").read_bytes()


def write_data(folder: Path, digits_csv: tuple[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("train", "test"), digits_csv, strict=True):
        (folder / f"{name}.csv").write_text(text)


@pytest.mark.parametrize(
    "made_by", [["train", "--run"], ["validate", "--folds", "2", "--out"]], ids=lambda made: made[0]
)
def test_page_without_the_data_or_with_others_says_what_is_missing(digits_csv, made_by):
    write_data(Path("competition"), digits_csv)
    assert main([*made_by, "run", "--recipe", "quick", "--data", "competition"]) == 0
    for data in ([], ["--data", "nowhere"]):
        shutil.rmtree("competition", ignore_errors=True)
        assert main(["report", "run", *data]) == 0
        place = data[-1] if data else "competition"
        assert f"The training rows were not found at {place}, nor where data usually is." in read("run/report.html")
    lines = digits_csv[0].splitlines()
    write_data(Path("competition"), ("\n".join([lines[0], *lines[:0:-1]]) + "\n", digits_csv[1]))
    assert main(["report", "run"]) == 0
    assert "The rows of competition are others than those of the training" in read("run/report.html")


@pytest.mark.parametrize("where", ["here", "below", "elsewhere", "moved"])
def test_data_is_found_again_wherever_it_and_the_run_are(digits_csv, monkeypatch, tmp_path, where):
    """Found in the current folder, in ./data, or named; reported on from here, from elsewhere, or after a move."""
    project = Path("project")
    folder = {"below": project / "data", "elsewhere": Path("store")}.get(where, project)
    project.mkdir()
    write_data(folder, digits_csv)
    monkeypatch.chdir(project)
    named = ["--data", "../store"] if where == "elsewhere" else []
    assert main(["submit", "--recipe", "quick", "--out", "a.csv", *named]) == 0
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "work/project/runs/a"
    if where == "moved":
        (tmp_path / "work/project").rename(tmp_path / "renamed")
        run = tmp_path / "renamed/runs/a"
    assert main(["report", str(run)]) == 0
    shown = read(str(run / "report.html"))
    assert "Worst mistakes, and why" in shown
    command = html.unescape(re.search(r"<code>(.*?)</code>", shown)[1])
    again = shlex.split(command)[1:]
    assert main([*again[:4], str(tmp_path / "again"), *again[5:]]) == 0
    assert (tmp_path / "again/model.npz").read_bytes() == (run / "model.npz").read_bytes()


def test_mistakes_have_the_numbers_of_their_rows(monkeypatch):
    titles = []
    monkeypatch.setattr(plots, "plot_digits", lambda pixels, given, **_: titles.extend(given) or Figure())
    assert main(["train", "--recipe", "quick", "--data", "sample", "--run", "run"]) == 0
    assert main(["report", "run"]) == 0
    digits = load_train(find_source("sample")).digits
    assert titles
    for title in titles:
        number, label = re.match(r"row ([0-9,]+)\nis ([0-9])\n", title).groups()
        assert digits[int(number.replace(",", "")) - 1] == int(label)


def test_summary_of_a_changed_recipe_claims_no_number_of_epochs():
    assert not [recipe.name for recipe in RECIPES.values() if "epoch" in recipe.summary]
    assert main(["train", "--recipe", "flash", "--epochs", "1", "--data", "sample", "--run", "run"]) == 0
    assert main(["report", "run"]) == 0
    assert "<dt>Epochs</dt><dd>1</dd>" in read("run/report.html")


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
        assert "kaggle-digits: c/compare.json: not readable (" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["report", "empty"]) == 2
    assert "empty: nothing to report on in it. Expected run.json, validation.json" in capsys.readouterr().err


def test_pages_about_a_validation_and_comparisons():
    assert main(["validate", "--recipe", "quick", "--folds", "2", "--data", "sample", "--out", "v"]) == 0
    assert main(["report", "v"]) == 0
    page = read("v/report.html")
    assert "of 1,437 rows right, each with a model that did not see it: " in page
    assert not [part for part in ("<h2>Folds", "<h2>Digits", "in the first fold</h2>") if part not in page]
    assert main(["compare", "--recipes", "quick,naive-bayes", "--folds", "2", "--data", "sample", "--out", "c"]) == 0
    assert main(["report", "c"]) == 0
    shown = read("c/report.html")
    assert "<td>quick − naive-bayes</td>" in shown
    assert re.search("<td[^>]*>(no clear difference|(quick|naive-bayes) reads more right)</td>", shown)
    assert not re.search(r"[0-9]e-[0-9]", shown)
    assert main(["compare", "--recipes", "quick", "--data", "sample", "--out", "d"]) == 0
    written = read("d/report.html")
    assert main(["report", "d", "--out", "d.html"]) == 0
    assert read("d.html") == written
    recipes = "quick,naive-bayes,random"
    assert main(["compare", "--recipes", recipes, "--data", "sample", "--out", "e"]) == 0
    sheet, others = read("e/report.html").split('<h2 class="next">')
    better = re.findall(r"<td>(\S+) − (\S+)</td>", sheet)
    (best, second), (_, worst) = better
    assert ({best, second}, worst) == ({"quick", "naive-bayes"}, "random")
    assert f"<h2>Mistakes of {best} and {second}</h2>" in sheet
    assert re.search(f"<figcaption>misread by {second}, but not by {best}: [0-9]+ of [0-9]+</figcaption>", sheet)
    assert others.count("<figure>") == 3


@needs_browser
def test_page_fits_a_phone_and_is_dark_if_wanted(browser):
    assert main(["train", "--recipe", "two", "--data", "sample", "--run", "two"]) == 0
    assert main(["report", "two"]) == 0
    colours = []
    for scheme in ("light", "dark"):
        address, size = Path("two/report.html").resolve().as_uri(), {"width": 390, "height": 800}
        with opened(browser, address, viewport=size, color_scheme=scheme) as tab:  # which asks nobody else
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390
            edges = tab.evaluate("[...document.images].map(image => image.getBoundingClientRect().right)")
            assert max(edges) <= 390  # no picture is cut
            colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(22, 24, 27)"]


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
