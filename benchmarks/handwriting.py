"""Measure how well handwriting is read, and print the figures that the documentation gives.

    .venv/bin/python benchmarks/handwriting.py --digits handwriting/digits \\
        --pages handwriting/photos handwriting/sheets --data digit-recognizer.zip --write

--digits is a folder of single digits named NUMBER_LABEL.png. --pages are folders of pages named KIND_NUMBER, with a
table truth.csv that has the columns file, row and text. --write keeps the figures of the pages in
benchmarks/handwriting.csv. The calibration error is measured on the held-out rows of train.csv, each half with the
temperature that was found on the other half. This script chooses nothing by any of these figures. But earlier, settings
of ``learners.images`` and ``handwriting.page`` were chosen on these digits and pages. --rapidocr names the Python of
an environment with rapidocr-onnxruntime, whose figures are printed beside ours.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from compose import Composer, Material

from kaggle_digits.analysis.calibration import calibration_error
from kaggle_digits.analysis.plots import plot_reliability
from kaggle_digits.data import find_source, load_train, split_rows
from kaggle_digits.digits import accuracy, calibrate, fit_temperature
from kaggle_digits.handwriting.page import UNSURE
from kaggle_digits.handwriting.reader import Reader, find_pictures, read_files, read_picture, tabulate
from kaggle_digits.learners import PACKAGED_RUN

KINDS_FILE = Path(__file__).with_name("handwriting.csv")

RAPIDOCR = """
import json, sys
from rapidocr_onnxruntime import RapidOCR
read = RapidOCR()
for file in sys.argv[1:]:
    lines = read(file)[0] or []
    print(json.dumps("".join(sign for _, text, _ in lines for sign in text if sign in "0123456789")))
"""
"""A program for another environment: reads pictures with RapidOCR, and prints the digits of each."""


def print_digits(reader: Reader, folder: Path) -> None:
    """Print the accuracy, and the share of digits above the threshold."""
    found = find_pictures([folder], labelled=True)
    assert found.labels is not None
    pages = [page for (page,) in read_files(found.files, reader, single=True)]
    print("\n".join(tabulate(pages, found.labels).splitlines()[:2]))


def count_edits(truth: str, read: str) -> tuple[int, int]:
    """Count the edits between what is written and what was read, and those among them that no ? shows.

    >>> count_edits("123", "1?3"), count_edits("123", "13"), count_edits("123", "1234")
    ((1, 0), (1, 1), (1, 1))
    """
    costs = [(missing, missing) for missing in range(len(truth) + 1)]
    for sign in read:
        shown = (1, 0) if sign == UNSURE else (1, 1)
        before, costs = costs, [_plus(costs[0], shown)]
        for place, digit in enumerate(truth):
            changed = before[place] if digit == sign else _plus(before[place], shown)
            costs.append(min(changed, _plus(before[place + 1], shown), _plus(costs[place], (1, 1))))
    return costs[-1]


def _plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def read_truth(folder: Path) -> dict[str, str]:
    """Return what is written on each picture of a folder."""
    truth: dict[str, str] = {}
    with (folder / "truth.csv").open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            truth[line["file"]] = truth.get(line["file"], "") + line["text"]
    return truth


def print_rapidocr(python: Path, folders: list[Path]) -> None:
    """Print for each folder how many digits RapidOCR reads right. It says of none that it is unsure."""
    for folder in folders:
        truth = read_truth(folder)
        command = [python, "-c", RAPIDOCR, *(folder / name for name in truth)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        edits = [
            count_edits(text, json.loads(line))[0]
            for text, line in zip(truth.values(), done.stdout.splitlines(), strict=True)
        ]
        print(f"RapidOCR, {folder.name}: {100 - 100 * sum(edits) / sum(map(len, truth.values())):.2f}% right")


def print_pages(reader: Reader, folders: list[Path]) -> list[dict[str, Any]]:
    """Print for each kind of page how many digits are right, and how many wrong without a ?. Return the same."""
    sums: dict[str, list[int]] = {}
    total = [0] * 4
    started, pages = time.perf_counter(), 0
    for folder in folders:
        for name, text in read_truth(folder).items():
            (page,) = read_picture(folder / name, reader=reader)
            pages += 1
            best = "".join(str(digit.digit) for digit in page.digits)
            figures = (len(text), *count_edits(text, "".join(page.text)), count_edits(text, best)[0])
            kind = name.rpartition("_")[0] if folder.name != "thin" else "thin"
            sums[kind], total = (
                [before + figure for before, figure in zip(each, figures, strict=True)]
                for each in (sums.get(kind, [0] * 4), total)
            )
    sums["all"] = total
    rows = [
        {
            "kind": kind,
            "digits": digits,
            "right": f"{100 - 100 * edits / digits:.2f}",
            "silent": f"{100 * silent / digits:.2f}",
        }
        for kind, (digits, edits, silent, _) in sums.items()
    ]
    for row, (digits, _, _, guessed) in zip(rows, sums.values(), strict=True):
        print(
            f"{row['kind']:9} {digits:5} digits: {row['right']}% right, {row['silent']}% wrong without a ?; "
            f"{100 - 100 * guessed / digits:.2f}% of the best guesses right"
        )
    print(f"{(time.perf_counter() - started) / pages:.2f} s a page")
    return rows


def print_composed(reader: Reader, data: str, count: int) -> None:
    """Print how well composed pages are read: digits of rows that no network was trained on. Choose by these."""
    _, held_out = split_rows(load_train(find_source(data)), fraction=0.1, seed=0)
    material = Material.of(held_out.take(np.arange(1500)))
    total = right = silent = 0
    for number in range(count):
        composed = Composer(material, 640, np.random.default_rng([55, number])).compose()
        page = reader.read_page(composed.picture.astype(np.float32) / 255)
        middles = np.array([np.reshape(digit.box, (2, 2)).mean(axis=0) for digit in page.digits]).reshape(-1, 2)
        free = np.ones(len(middles), bool)
        for place, height, digit in zip(composed.places, composed.heights, composed.digits, strict=True):
            away = np.where(free, np.hypot(*(middles - place).T), np.inf) if len(middles) else np.array([np.inf])
            nearest = int(away.argmin())
            found = page.digits[nearest] if away[nearest] < height / 2 else None
            if found:
                free[nearest] = False
            if min(place) > 12 and max(place) < 628:
                total += 1
                right += bool(found and found.sure and found.digit == digit)
                silent += not found or (found.sure and found.digit != digit)
        silent += sum(bool(unused) and digit.sure for unused, digit in zip(free, page.digits, strict=True))
    print(f"{count} composed pages, {total} digits: {right / total:.2%} right, {silent / total:.2%} wrong without a ?")


def print_calibration(reader: Reader, data: str, plot: Path | None) -> None:
    """Print accuracy and calibration error on the held-out rows of the reader's run."""
    run = reader.run
    _, held_out = split_rows(load_train(find_source(data)), fraction=run.recipe.validation_fraction, seed=run.seed)
    assert len(held_out) == run.rows.held_out
    predicted = run.predict(held_out.pixels)
    half = np.random.default_rng(0).random(len(held_out)) < 0.5
    calibrated = np.empty(predicted.shape)
    for part in (half, ~half):
        calibrated[part] = calibrate(predicted[part], fit_temperature(predicted[~part], held_out.digits[~part]))
    print(
        f"{len(held_out):,} held-out rows: {accuracy(predicted, held_out.digits):.2%} right, calibration error "
        f"{100 * calibration_error(calibrated, held_out.digits):.2f} points "
        f"({100 * calibration_error(predicted, held_out.digits):.2f} before), temperature {run.temperature}"
    )
    if plot:
        plot_reliability(calibrated, held_out.digits).savefig(plot, dpi=100)


def print_time(photo: Path) -> None:
    """Print how long the whole command takes on one photograph, and how long importing TensorFlow takes."""
    for what, command in (
        ("import tensorflow", ["-c", "import tensorflow"]),
        (f"recognize {photo.name}", ["-m", "kaggle_digits", "recognize", str(photo)]),
    ):
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
        print(f"{what}: {sorted(seconds)[1]:.1f} s, median of 3")


def main() -> None:
    """Print the figures that the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=PACKAGED_RUN)
    parser.add_argument("--digits", type=Path, help="a folder of single digits with labels in their names")
    parser.add_argument("--pages", nargs="+", type=Path, help="folders of pages, with truth.csv")
    parser.add_argument(
        "--rapidocr", type=Path, metavar="PYTHON", help="a Python with rapidocr-onnxruntime, to compare"
    )
    parser.add_argument("--write", action="store_true", help=f"write the figures of the pages into {KINDS_FILE.name}")
    parser.add_argument("--data", help="the competition's data")
    parser.add_argument("--composed", type=int, metavar="N", help="read N composed pages instead; with --data")
    parser.add_argument(
        "--reliability", type=Path, metavar="FILE.png", help="draw certainty against accuracy; with --data"
    )
    parser.add_argument("--photo", type=Path, help="a large photograph to time the command on")
    options = parser.parse_args()
    reader = Reader(options.run)
    print(f"threshold {reader.threshold}, as the run has it: {reader.run.threshold}")
    if options.digits:
        print_digits(reader, options.digits)
    if options.pages:
        rows = print_pages(reader, options.pages)
        if options.rapidocr:
            print_rapidocr(options.rapidocr, options.pages)
        if options.write:
            with KINDS_FILE.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    if options.data and options.composed:
        print_composed(reader, options.data, options.composed)
    elif options.data:
        print_calibration(reader, options.data, options.reliability)
    if options.photo:
        print_time(options.photo)


if __name__ == "__main__":
    main()
