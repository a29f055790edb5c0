"""Time the main job, measure its accuracy, and print the rows of the documentation's table.

    .venv/bin/python benchmarks/main_job.py --data digit-recognizer.zip --recipes fast --seeds 0 1 2

Seconds alone mean nothing on another machine. So time is also given in two units, which are measured in the same call.
E is an epoch of ``cnn-32-64``, see ``epoch_seconds``. The other is the whole command with Keras' own example, which
trains for 15 epochs. Accuracy is that of the last weights, on held-out rows of train.csv, different ones for every
seed. Nothing is chosen by it. Let nothing else run meanwhile.

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
from kaggle_digits.recipes import RECIPES, find_recipe

KERAS = Path(__file__).parent / "peers" / "keras-convnet.toml"
BATCH_SIZE, ALL_ROWS = 86, 42_000
STEPS, TIMES = 40, 3
"""E is told from the fastest of three times this many of its 489 steps."""


def epoch_seconds(rows: TrainingRows) -> float:
    """Measure E: the seconds of one epoch of cnn-32-64, float32, batch 86, without loading and building.

    Our own loop trains it, because Keras' ``fit`` leaves a core idle at random. The fastest of three parts counts: what
    else a machine does makes a part slower, and never faster.

    Args:
        rows: labelled rows, 3,440 or more.

    Returns:
        seconds for an epoch of 42,000 rows.
    """
    import numpy as np

    from kaggle_digits.digits import one_hot
    from kaggle_digits.strategy import resolve_device

    device = resolve_device("cpu")
    from kaggle_digits.learners.images import Batches, to_images
    from kaggle_digits.models import build_model, compile_model
    from kaggle_digits.train import fit_batches, make_step

    recipe = replace(RECIPES["cnn-32-64"], batch_size=BATCH_SIZE)
    model = build_model(recipe)
    compile_model(model, recipe, steps=1)
    taken = rows.take(np.arange(BATCH_SIZE * STEPS))
    images, labels = to_images(taken.pixels, recipe), one_hot(taken.digits)
    weights = np.ones(len(taken), np.float32)
    step = make_step(model, device)
    step(images[:BATCH_SIZE], labels[:BATCH_SIZE], weights[:BATCH_SIZE])  # traces the network
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        fit_batches(step, Batches(images, labels, weights, BATCH_SIZE), [])
        seconds.append(time.perf_counter() - started)
    assert np.isfinite(model.get_weights()[0]).all()
    return min(seconds) / len(taken) * ALL_ROWS


def run_submit(data: str, recipe: str, seed: int, folder: Path) -> tuple[float, float]:
    """Run the whole command in a new process, and return its seconds and its held-out accuracy, 0–1."""
    name = f"{Path(recipe).stem}-seed{seed}"
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
    """Run the whole command between two measurements of E, or read the figures of an earlier call."""
    kept = folder / f"{Path(recipe).stem}-seed{seed}.measured.json"
    settings = find_recipe(recipe).settings()
    if not kept.exists() or json.loads(kept.read_text())["settings"] != settings:
        before = epoch_seconds(rows)
        seconds, accuracy = run_submit(data, recipe, seed, folder)
        epoch = min(before, epoch_seconds(rows))
        found = {"seconds": seconds, "epoch_seconds": epoch, "epochs": seconds / epoch, "accuracy": accuracy}
        kept.write_text(json.dumps({**found, "settings": settings}))
    return json.loads(kept.read_text())


def main() -> None:
    """Print one row per recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the competition's data")
    parser.add_argument(
        "--recipes", nargs="+", default=["flash", "fast", "strong", "tiny"], help="names, or files of your own"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="a folder to keep runs and files in")
    options = parser.parse_args()
    data = str(Path(options.data).resolve())
    rows = load_train(find_source(data))
    print("| recipe | seeds | held-out accuracy, mean ± sd | whole command | in E | of Keras' example |", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        keras = measure(data, str(KERAS.resolve()), 0, folder, rows)["seconds"]
        for recipe in options.recipes:
            named = recipe if recipe in RECIPES else str(Path(recipe).resolve())
            found = [measure(data, named, seed, folder, rows) for seed in options.seeds]
            accuracies = [100 * each["accuracy"] for each in found]
            spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
            print(
                f"| `{recipe}` | {len(accuracies)} | {statistics.mean(accuracies):.2f}{spread}% "
                f"| {statistics.mean(each['seconds'] for each in found):.0f} s "
                f"| {', '.join(format(each['epochs'], '.2f') for each in found)} "
                f"| {', '.join(format(each['seconds'] / keras, '.2f') for each in found)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
