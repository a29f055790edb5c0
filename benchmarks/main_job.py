"""Time the main job and measure its accuracy: prints the rows of the README's table.

    .venv/bin/python benchmarks/main_job.py --data digit-recognizer.zip --recipes fast --seeds 0 1 2

Time is also given in epochs of ``cnn-32-64`` (float32, batch 42, 42,000 rows), measured on this machine right before:
seconds alone mean nothing on another one. Accuracy is on held-out rows of train.csv, other rows for every seed, of the
last weights; nothing is chosen by it. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kaggle_digits.recipes import RECIPES


def epoch_seconds(data: str) -> float:
    """Return the seconds of one epoch of cnn-32-64 on all rows, without loading and building."""
    import numpy as np

    from kaggle_digits.data import find_source, load_train, one_hot
    from kaggle_digits.strategy import resolve_device

    resolve_device("cpu")
    from kaggle_digits.models import build_model, compile_model
    from kaggle_digits.predict import to_images

    recipe = RECIPES["cnn-32-64"]
    rows = load_train(find_source(data))
    model = build_model(recipe)
    compile_model(model, recipe, steps=1)
    images, labels = to_images(rows.pixels, recipe), one_hot(rows.digits)
    model.fit(images[:42], labels[:42], batch_size=42, verbose=0)  # tracing is not part of the epoch
    started = time.perf_counter()
    model.fit(images, labels, batch_size=recipe.batch_size, verbose=0, shuffle=False)
    assert np.isfinite(model.get_weights()[0]).all()
    return time.perf_counter() - started


def run_submit(data: str, recipe: str, seed: int) -> tuple[float, float]:
    """Run the whole command in a process of its own; return its seconds and its held-out accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "kaggle_digits.submit",
            "--data",
            data,
            "--recipe",
            recipe,
            "--seed",
            str(seed),
        ]
        started = time.perf_counter()
        subprocess.run([*command, "--out", "out.csv"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        record = json.loads((Path(folder) / "runs/out/run.json").read_text())
        return seconds, record["epochs"][-1]["validation_accuracy"]


def main() -> None:
    """Print one row per recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the competition's data")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    data = str(Path(options.data).resolve())
    epoch = epoch_seconds(data)
    print(f"one epoch of cnn-32-64: {epoch:.1f} s", flush=True)
    print("| recipe | seeds | held-out accuracy, mean ± sd | whole command | in epochs of cnn-32-64 |", flush=True)
    for recipe in options.recipes:
        results = [run_submit(data, recipe, seed) for seed in options.seeds]
        seconds = statistics.mean(seconds for seconds, _ in results)
        accuracies = [100 * accuracy for _, accuracy in results]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        print(
            f"| `{recipe}` | {len(accuracies)} | {statistics.mean(accuracies):.2f}{spread} % | {seconds:.0f} s "
            f"| {seconds / epoch:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
