"""Time the main job, measure its accuracy, and print the rows of the documentation's table.

    .venv/bin/python benchmarks/main_job.py --data digit-recognizer.zip --recipes fast --seeds 0 1 2

Seconds alone mean nothing on another machine. So time is also given in epochs of ``cnn-32-64`` (float32, batch 86,
42,000 rows). Part of such an epoch is timed on this machine right before and after every run. Accuracy is that of the
last weights, on held-out rows of train.csv, different ones for every seed. Nothing is chosen by it. Let nothing else
run meanwhile.

With --keep, run folders and files are kept in that folder. Then you can stop the benchmark and repeat the command: it
starts the interrupted run again, and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaggle_digits.data import TrainingRows, find_source, load_train
from kaggle_digits.recipes import RECIPES

BATCH_SIZE, ALL_ROWS = 86, 42_000


STEPS, PARTS = 120, 8
"""An epoch of cnn-32-64 is timed by a quarter of it: 120 steps, in 8 calls of Keras' fit. TensorFlow computes each call
on both cores or on one, at random, so a single call could be off by a third."""


def epoch_seconds(rows: TrainingRows) -> float:
    """Estimate the seconds of one epoch of cnn-32-64, without loading and building, from a quarter of it.

    Args:
        rows: labelled rows, 10,320 or more.

    Returns:
        seconds for an epoch of 42,000 rows.
    """
    import numpy as np

    from kaggle_digits.data import one_hot
    from kaggle_digits.strategy import resolve_device

    resolve_device("cpu")
    from kaggle_digits.learners.models import build_model, compile_model
    from kaggle_digits.learners.preprocess import to_images

    recipe = replace(RECIPES["cnn-32-64"], batch_size=BATCH_SIZE)
    model = build_model(recipe)
    compile_model(model, recipe, steps=1)
    taken = rows.take(np.arange(BATCH_SIZE * STEPS))
    images, labels = to_images(taken.pixels, recipe), one_hot(taken.digits)
    # This traces the network, which is not timed.
    model.fit(images[:BATCH_SIZE], labels[:BATCH_SIZE], batch_size=BATCH_SIZE, verbose=0)
    started = time.perf_counter()
    for part in zip(np.split(images, PARTS), np.split(labels, PARTS), strict=True):
        model.fit(*part, batch_size=BATCH_SIZE, verbose=0, shuffle=False)
    seconds = time.perf_counter() - started
    assert np.isfinite(model.get_weights()[0]).all()
    return seconds / len(taken) * ALL_ROWS


def run_submit(data: str, recipe: str, seed: int, folder: Path) -> tuple[float, float]:
    """Run the whole command in a new process, and return its seconds and its held-out accuracy, 0–1."""
    name = f"{recipe}-seed{seed}"
    for left in (folder / f"{name}.csv", folder / f"{name}.json"):
        left.unlink(missing_ok=True)
    shutil.rmtree(folder / "runs" / name, ignore_errors=True)
    command = [sys.executable, "-m", "kaggle_digits.submit", "--data", data, "--recipe", recipe, "--seed", str(seed)]
    started = time.perf_counter()
    subprocess.run([*command, "--out", f"{name}.csv"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    record = json.loads((folder / f"runs/{name}/run.json").read_text())
    return seconds, record["epochs"][-1]["validation_accuracy"]


def measure(data: str, recipe: str, seed: int, folder: Path, rows: TrainingRows) -> dict[str, Any]:
    """Run the whole command between two measurements of an epoch, or read the figures of an earlier call."""
    kept = folder / f"{recipe}-seed{seed}.measured.json"
    settings = RECIPES[recipe].settings()
    if not kept.exists() or json.loads(kept.read_text())["settings"] != settings:
        before = epoch_seconds(rows)
        seconds, accuracy = run_submit(data, recipe, seed, folder)
        epoch = (before + epoch_seconds(rows)) / 2
        found = {"seconds": seconds, "epoch_seconds": epoch, "epochs": seconds / epoch, "accuracy": accuracy}
        kept.write_text(json.dumps({**found, "settings": settings}))
    return json.loads(kept.read_text())


def main() -> None:
    """Print one row per recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the competition's data")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="a folder to keep runs and files in")
    options = parser.parse_args()
    data = str(Path(options.data).resolve())
    rows = load_train(find_source(data))
    print("| recipe | seeds | held-out accuracy, mean ± sd | whole command | in epochs of cnn-32-64 |", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for recipe in options.recipes:
            found = [measure(data, recipe, seed, folder, rows) for seed in options.seeds]
            accuracies = [100 * each["accuracy"] for each in found]
            spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
            print(
                f"| `{recipe}` | {len(accuracies)} | {statistics.mean(accuracies):.2f}{spread} % "
                f"| {statistics.mean(each['seconds'] for each in found):.0f} s "
                f"| {', '.join(format(each['epochs'], '.2f') for each in found)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
