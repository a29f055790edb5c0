"""Draw the accuracy of our recipes and of public ones against time. Writes benchmarks/frontier.csv and the plot.

    .venv/bin/python benchmarks/frontier.py --data digit-recognizer.zip --out frontier

All recipes train on the same 36,000 rows of train.csv and are scored on the same 6,000 others after the last epoch.
Nothing is chosen by these scores. Where the learning rate does not depend on how many epochs are still to come, the
accuracy after every epoch is drawn as well. (``ghouzam`` lowers its rate by the accuracy on a twentieth of the 36,000
rows, which it sets apart.)

Time includes start, reading the CSV files, training, and predicting 28,000 rows. Seconds alone mean nothing on another
machine, so the unit is an epoch of ``cnn-32-64`` (float32, batch 86, 42,000 rows). Part of such an epoch is timed right
before and after every training. Keras' ``fit`` leaves a core idle at random, so single measurements differ by a tenth
and more. The mean of all of them is the unit for all trainings.

Finished trainings are kept in the folder of --out. Repeat a stopped command, and it goes on. ``kaggle-digits compare``
on the same folder makes its tables without training again, as far as the recipes are in the package. --recipes measures
only the recipes it names; the others keep their points in frontier.csv. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from main_job import epoch_seconds
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from kaggle_digits.data import TEST_ROWS, TrainingRows, find_source, load_train, split_rows
from kaggle_digits.files import atomic_path
from kaggle_digits.plots import BLUE, PALETTE, STYLE
from kaggle_digits.recipe import (
    FLATTEN,
    RELU,
    Augmentation,
    Ensemble,
    Milestones,
    Network,
    OneCycle,
    Plateau,
    conv,
    dense,
    dropout,
    pool,
)
from kaggle_digits.recipes import RECIPES
from kaggle_digits.report import COMPARE_FRACTION, compare_run_folder
from kaggle_digits.strategy import device_of
from kaggle_digits.train import train_run

HERE = Path(__file__).parent
CSV_FILE, PLOT_FILE = HERE / "frontier.csv", HERE.parent / "docs" / "pictures" / "frontier.png"
SCORED = 6_000
SHORT = 8
"""Trainings of up to this many epochs are repeated with three seeds."""

REPEATED = ("strong", "champion", "deotte")
"""These are repeated with three seeds, however long they take: they decide who is on top."""

RANGE = (0.25, 30.0)
"""From where to where our line is meant to be above all public recipes, in epochs of cnn-32-64."""

OURS = (
    # The networks of the ensembles get points of their own.
    *(RECIPES[name] for name in ("flash", "fast", "strong", "champion", "tiny")),
    # These lie between flash and fast: what `--recipe fast --epochs 3` and the like train.
    *(
        replace(RECIPES[name], name=f"{name}-{epochs}", summary=f"{name}, {epochs} epochs", epochs=epochs)  # type: ignore[type-var]
        for name, epochs in (("flash", 2), ("fast", 2), ("fast", 3))
    ),
)

LABELLED = {
    "flash": ("flash", (-36, 8)),
    "fast": ("fast", (-4, 12)),
    "strong": ("strong", (-8, 14)),
    "champion": ("champion", (-12, 12)),
    "tiny": ("tiny, 7,586 parameters", (-30, -14)),
    "one-cycle-24-32": ("the 1.24 M-MAC network", (8, -4)),
    "keras-convnet": ("Keras' own example", (6, -2)),
    "ghouzam": ("notebook of 0.99671", (10, -8)),
    "deotte": ("one network of\nthe record of 0.99757", (10, 4)),
}
"""What the plot calls the recipes that it names, and how far from the last point, in points."""

SHARED: dict[str, Any] = {"pixel_scale": 255.0, "loss": "crossentropy"}
ADAM: dict[str, Any] = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}

# In the record's network, a ReLU and then a normalisation follow each convolution.
NORM = ("BatchNormalization", {"momentum": 0.99, "epsilon": 1e-3})

PEERS = (
    Network(
        name="one-cycle-24-32",
        summary="the 1.24 M-MAC network, 3 epochs",
        source="tuomaso/train_mnist_fast",
        layers=(
            *(conv(24, 5), pool(), RELU),
            *(conv(32, 3), pool(), RELU),
            *(FLATTEN, dense(256, "relu")),
            dense(10),
        ),
        **SHARED,
        optimizer=("Adam", {"beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-8}),
        # PyTorch's one-cycle starts at 1/25 of the peak, ends at 1/10,000 of the start, and rises along a cosine. Ours
        # rises along a line. The author does not shuffle.
        learning_rate=OneCycle(peak=0.01, warmup=0.3, start=0.04, end=4e-6),
        epochs=3,
        batch_size=256,
    ),
    Network(
        name="keras-convnet",
        summary="Keras' own example, 15 epochs",
        source="keras-io, mnist_convnet",
        layers=(
            *(conv(32, 3, activation="relu"), pool()),
            *(conv(64, 3, activation="relu"), pool()),
            *(FLATTEN, dropout(0.5)),
            dense(10),
        ),
        **SHARED,
        optimizer=("Adam", ADAM),
        learning_rate=1e-3,
        epochs=15,
        batch_size=128,
    ),
    Network(
        name="ghouzam",
        summary="the Kaggle notebook of 0.99671, 30 epochs",
        source="Y. Ghouzam, Introduction to CNN Keras",
        layers=RECIPES["cnn-32-64"].layers,  # type: ignore[attr-defined]
        **SHARED,
        optimizer=("RMSprop", {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-8, "centered": False}),
        # The author's rate never falls below 1e-5, which it would reach after seven cuts.
        learning_rate=Plateau(start=1e-3, factor=0.5, patience=3, threshold=1e-4),
        epochs=30,
        batch_size=86,
        augmentation=Augmentation(rotation=10.0, scale=0.1, shift=2.8),
        precision="mixed_bfloat16",
    ),
    Network(
        name="deotte",
        summary="one network of the record of 0.99757, 45 epochs",
        source="C. Deotte, 25 Million Images",
        layers=(
            *(conv(32, 3), RELU, NORM, conv(32, 3), RELU, NORM),
            *(conv(32, 5, strides=2, padding="same"), RELU, NORM, dropout(0.4)),
            *(conv(64, 3), RELU, NORM, conv(64, 3), RELU, NORM),
            *(conv(64, 5, strides=2, padding="same"), RELU, NORM, dropout(0.4)),
            *(conv(128, 4), RELU, NORM, FLATTEN, dropout(0.4)),
            dense(10),
        ),
        **SHARED,
        optimizer=("Adam", ADAM),
        learning_rate=Milestones(start=1e-3, factor=0.95, epochs=tuple(range(1, 45))),
        epochs=45,
        batch_size=64,
        augmentation=Augmentation(rotation=10.0, scale=0.1, shift=2.8),
        precision="mixed_bfloat16",
    ),
)

ALL: dict[str, Network | Ensemble] = {recipe.name: recipe for recipe in (*OURS, *PEERS)}  # type: ignore[misc]


def fixed_seconds(data: str) -> float:
    """Return the seconds that every ``submit`` takes besides training and predicting: start, reading, device."""
    command = [sys.executable, "-m", "kaggle_digits.submit", "--data", data, "--dry-run"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(
    recipe: Network | Ensemble, seed: int, rows: TrainingRows, held_out: TrainingRows, out: Path, *, overhead: float
) -> dict[str, Any]:
    """Train a recipe between two measurements of the unit, unless an earlier call did.

    Args:
        recipe, seed: what to train.
        rows, held_out: the rows to train on, and those to score.
        out: the folder of finished trainings.
        overhead: seconds that every ``submit`` takes besides training and predicting.

    Returns:
        the settings, the units (seconds of an epoch of cnn-32-64, before and after), the overhead, and the epochs of
        every network. A file in the folder keeps the same.
    """
    kept = out / f"{recipe.name}-seed{seed}.units.json"
    settings = recipe.settings()
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    if not found or found["settings"] != settings:
        before = epoch_seconds(rows)
        run = train_run(
            recipe,
            rows,
            compare_run_folder(out, recipe.name, seed),
            seed=seed,
            device=device_of(recipe),
            source="the competition",
            held_out=held_out,
            resume=True,
        )
        units = [before, epoch_seconds(rows)]
        runs = [[one.seed, one.epochs] for one in (run, *(each for each in run.members if each.recipe.networks))]
        found = {"settings": settings, "units": units, "overhead": overhead, "runs": runs}
        kept.write_text(json.dumps(found))
    return found


def points_of(recipe: Network | Ensemble, found: dict[str, Any], *, unit: float, held_out: int) -> list[dict[str, Any]]:
    """Return the points of a training and, for an ensemble, those of its networks.

    Args:
        recipe: what was trained.
        found: the return value of ``measure``.
        unit: seconds of an epoch of cnn-32-64.
        held_out: number of rows that were scored.

    Returns:
        a point for every epoch after which a user could stop. These are all epochs, unless the learning rate depends on
        how many are still to come; then it is only the last.
    """
    points = []
    for number, (run_seed, epochs) in enumerate(found["runs"]):
        trained = recipe.networks[number - 1] if isinstance(recipe, Ensemble) and number else recipe
        spent, own = found["overhead"], []
        for metrics in epochs:
            spent += metrics["seconds"]
            predicting = metrics["validation_seconds"] * TEST_ROWS / held_out
            own.append(
                {
                    "recipe": trained.name,
                    "who": "ours" if recipe in OURS else "public",
                    "what": trained.summary,
                    "seed": run_seed,
                    "epoch": metrics["epoch"],
                    "time": round((spent + predicting) / unit, 3),
                    "accuracy": round(metrics["validation_accuracy"], 6),
                }
            )
        annealed = isinstance(trained, Network) and isinstance(trained.learning_rate, OneCycle)
        points += own[-1:] if annealed else own
    return points


def load_points() -> list[dict[str, Any]]:
    """Return the points of frontier.csv, except those of recipes that are neither measured here nor in an ensemble."""
    members = {member.name for recipe in OURS if isinstance(recipe, Ensemble) for member in recipe.networks}
    types: dict[str, Any] = {"seed": int, "epoch": int, "time": float, "accuracy": float}
    with CSV_FILE.open(encoding="utf-8", newline="") as stream:
        points = [{name: types.get(name, str)(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    return [point for point in points if point["recipe"] in ALL or point["recipe"] in members]


def replaced(points: list[dict[str, Any]], by: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points, with every training in ``by`` instead of an earlier one of the same recipe and seed.

    The new points come last. A network may be a member of two ensembles, with the same seed.
    """
    trained = {(point["recipe"], point["seed"]) for point in by}
    return [point for point in points if (point["recipe"], point["seed"]) not in trained] + by


def means_of(points: list[dict[str, Any]]) -> list[tuple[float, float, str, int]]:
    """Return mean time, mean accuracy, recipe and epoch, for every epoch of every recipe, over its seeds, by time."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for point in points:
        groups.setdefault((point["recipe"], point["epoch"]), []).append(point)
    return sorted(
        (statistics.mean(p["time"] for p in group), statistics.mean(p["accuracy"] for p in group), *which)
        for which, group in groups.items()
    )


def best_so_far(points: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Return the times at which the best mean over seeds so far is beaten, and the new best accuracies."""
    times, accuracies = [], []
    for at, accuracy, *_ in means_of(points):
        if not accuracies or accuracy > accuracies[-1]:
            times.append(at)
            accuracies.append(accuracy)
    return times, accuracies


def peers_above(points: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return recipe and epoch of every public mean above our line, at times from RANGE[0] to RANGE[1]."""
    times, accuracies = best_so_far([point for point in points if point["who"] == "ours"])
    return [
        (recipe, epoch)
        for at, accuracy, recipe, epoch in means_of([point for point in points if point["who"] == "public"])
        if RANGE[0] <= at <= RANGE[1]
        and accuracy > max((ours for time, ours in zip(times, accuracies, strict=True) if time <= at), default=0.0)
    ]


@rc_context(STYLE)
def draw(points: list[dict[str, Any]]) -> Figure:
    """Draw our recipes, each training and their mean, public ones after every epoch, and our best so far as a line."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="time of the whole job, in epochs of cnn-32-64",
        ylabel=f"accuracy on {SCORED:,} held-out rows",
        title="Blue: our recipes, each training and their mean. Other colours: public systems, after each epoch",
    )
    times, accuracies = best_so_far([point for point in points if point["who"] == "ours"])
    errors = [1 - accuracy for accuracy in accuracies]
    axes.step([*times, 40.0], [*errors, errors[-1]], where="post", color=BLUE, linewidth=1.5)
    others = itertools.cycle(PALETTE[1:5])
    for name in dict.fromkeys(point["recipe"] for point in points):
        own = [point for point in points if point["recipe"] == name]
        means = means_of(own)
        at, accuracy = means[-1][:2]
        if own[0]["who"] == "ours":
            axes.plot([p["time"] for p in own], [1 - p["accuracy"] for p in own], ".", color=BLUE, alpha=0.4)
            axes.plot(at, 1 - accuracy, "o", color=BLUE)
            colour = BLUE
        else:
            colour = next(others)
            axes.plot([m[0] for m in means], [1 - m[1] for m in means], ".-", color=colour, linewidth=0.8, markersize=4)
        if name in LABELLED:
            text, offset = LABELLED[name]
            place = {"xytext": offset, "textcoords": "offset points", "va": "center"}
            axes.annotate(text, (at, 1 - accuracy), color=colour, fontsize=9, **place)
    ticks = (0.05, 0.02, 0.01, 0.005, 0.003, 0.002)
    axes.set_yticks(ticks, [f"{1 - error:.1%}" for error in ticks])
    at_times = (0.2, 0.5, 1, 2, 5, 10, 20)
    axes.set_xticks(at_times, [f"{time:g}" for time in at_times])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set(xlim=(0.13, 40), ylim=(0.06, 0.0018))
    axes.grid()
    return figure


def main() -> None:
    """Measure the recipes, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the competition's data")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to keep the runs")
    parser.add_argument("--recipes", nargs="+", default=list(ALL), choices=ALL, help="measure only these")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    overhead = fixed_seconds(options.data)
    rows, held_out = split_rows(load_train(find_source(options.data)), fraction=COMPARE_FRACTION, seed=0)
    measured: list[tuple[Network | Ensemble, dict[str, Any]]] = []
    for name in options.recipes:
        recipe = ALL[name]
        short = isinstance(recipe, Network) and recipe.epochs <= SHORT
        for seed in range(3) if short or name in REPEATED else (0,):
            measured.append((recipe, measure(recipe, seed, rows, held_out, options.out, overhead=overhead)))
            print(name, "seed", seed, "is done", flush=True)
    unit = statistics.mean(
        u for file in options.out.glob("*.units.json") for u in json.loads(file.read_text())["units"]
    )
    points: list[dict[str, Any]] = []
    for recipe, found in measured:
        own = points_of(recipe, found, unit=unit, held_out=len(held_out))
        points = replaced(points, own)
        last = [point for point in own if point["recipe"] == recipe.name][-1]
        print(recipe.name, last["seed"], last["time"], last["accuracy"])
    if len(options.recipes) < len(ALL):
        points = replaced(load_points(), points)
    with atomic_path(CSV_FILE) as path, path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(points[0]))
        writer.writeheader()
        writer.writerows(points)
    draw(points).savefig(PLOT_FILE, dpi=130)
    print("public recipes above our line:", peers_above(points) or "none")


if __name__ == "__main__":
    main()
