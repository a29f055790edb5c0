"""Time how fast a loaded run predicts test.csv, and a single image of it.

    .venv/bin/kaggle-digits train --recipe fast --data digit-recognizer.zip --run fast
    .venv/bin/python benchmarks/prediction.py --data digit-recognizer.zip --run fast

Everything from pixels to probabilities counts. The first prediction, during which TensorFlow traces the network, is
printed separately. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from kaggle_digits.data import find_source, load_test
from kaggle_digits.learners import load_run
from kaggle_digits.run import read_run
from kaggle_digits.strategy import device_of

REPEATS = 9


def main() -> None:
    """Predict several times, and print the seconds of the first time, and median and range of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the competition's data")
    parser.add_argument("--run", required=True, type=Path, help="a run folder")
    options = parser.parse_args()
    pixels = load_test(find_source(options.data))
    device = device_of(read_run(options.run).recipe)
    run = load_run(options.run, device)
    for rows in (len(pixels), 1):
        seconds = []
        for _ in range(1 + REPEATS):
            started = time.perf_counter()
            run.predict(pixels[:rows])
            seconds.append(time.perf_counter() - started)
        first, *others = seconds
        print(
            f"{run.recipe.name}, {device.precision}, {rows:,} rows: {statistics.median(others):.3g} s (median of "
            f"{REPEATS}; {min(others):.3g} to {max(others):.3g}; the first time {first:.3g})"
        )


if __name__ == "__main__":
    main()
