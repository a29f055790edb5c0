"""Measure how well handwriting is read, and print the figures that the README gives.

    .venv/bin/python benchmarks/handwriting.py --digits handwriting/digits --sheets handwriting/sheets \\
        --data digit-recognizer.zip

--digits is a folder of single digits named NUMBER_LABEL.png. --sheets is a folder of pages, with a table truth.csv that
has the columns file, row and text. The calibration error is measured on the held-out rows of train.csv, each half with
the temperature that was found on the other half. This script chooses nothing by any of these figures. But earlier,
settings of ``learners.augment`` and ``handwriting.page`` were chosen on these digits and sheets.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from kaggle_digits.calibration import accuracy, calibrate, calibration_error, fit_temperature
from kaggle_digits.data import find_source, load_train, split_rows
from kaggle_digits.handwriting.reader import (
    Reader,
    find_pictures,
    read_files,
    tabulate,
)
from kaggle_digits.plots import plot_reliability
from kaggle_digits.predict import PACKAGED_RUN


def print_digits(reader: Reader, folder: Path) -> None:
    """Print the accuracy, and the share of digits above the threshold."""
    found = find_pictures([folder], labelled=True)
    assert found.labels is not None
    pages = [page for (page,) in read_files(found.files, reader, single=True)]
    print("\n".join(tabulate(pages, found.labels).splitlines()[:2]))


def print_sheets(reader: Reader, folder: Path) -> None:
    """Print how many digits were found, missed, found where there is none, and how many are right and in order."""
    truth: dict[str, list[str]] = {}
    with (folder / "truth.csv").open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            truth.setdefault(line["file"], []).append(line["text"])
    found = missed = wrong = right = sure = 0
    started = time.perf_counter()
    pages = [page for (page,) in read_files([folder / name for name in truth], reader, single=False)]
    seconds = time.perf_counter() - started
    for page, rows in zip(pages, truth.values(), strict=True):
        expected, read = "".join(rows), "".join(str(digit.digit) for digit in page.digits)
        found += len(read)
        in_rows = [len(row) for row in page.text] == [len(row) for row in rows]
        changes = difflib.SequenceMatcher(None, expected, read, autojunk=False).get_opcodes()
        for what, start, end, first, last in changes:
            missed += max(0, (end - start) - (last - first))
            wrong += max(0, (last - first) - (end - start))
            right += end - start if what == "equal" and in_rows else 0
        sure += sum(digit.sure for digit in page.digits)
    total = sum(len(row) for rows in truth.values() for row in rows)
    print(
        f"{len(truth)} sheets: {total} digits, {found} found, {missed} missed, {wrong} too many; {right / total:.2%} "
        f"right and in order, {sure / total:.2%} sure; {seconds / len(truth):.2f} s each"
    )


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
        f"({100 * calibration_error(predicted, held_out.digits):.2f} before), temperature {reader.temperature}"
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
    parser.add_argument("--sheets", type=Path, help="a folder of pages, with truth.csv")
    parser.add_argument("--data", help="the competition's data")
    parser.add_argument(
        "--reliability", type=Path, metavar="FILE.png", help="draw certainty against accuracy; with --data"
    )
    parser.add_argument("--photo", type=Path, help="a large photograph to time the command on")
    options = parser.parse_args()
    reader = Reader(options.run)
    print(f"threshold {reader.threshold}, as the run has it: {reader.run.threshold}")
    if options.digits:
        print_digits(reader, options.digits)
    if options.sheets:
        print_sheets(reader, options.sheets)
    if options.data:
        print_calibration(reader, options.data, options.reliability)
    if options.photo:
        print_time(options.photo)


if __name__ == "__main__":
    main()
