"""Draw the accuracy of our recipes and of public ones against time. Writes benchmarks/frontier.csv and the plot.

    .venv/bin/python benchmarks/frontier.py --data digit-recognizer.zip --out frontier

All recipes train on the same 36,000 rows of train.csv and are scored on the same 6,000 others after the last epoch.
Nothing is chosen by these scores. Where the learning rate does not depend on how many epochs are still to come, the
accuracy after every epoch is drawn as well. (``ghouzam`` lowers its rate by the accuracy on a twentieth of the 36,000
rows, which it sets apart.)

Time includes start, reading the CSV files, training, and predicting 28,000 rows. Seconds alone mean nothing on another
machine, so there are two units: E, which ``main_job.epoch_seconds`` measures before and after every training (the
shortest counts for all), and the time of Keras' own example in the same run.

Finished trainings are kept in the folder of --out. Repeat a stopped command, and it goes on; only recipes that have
changed are trained again. ``kaggle-digits compare`` on the same folder makes its tables without training again, as far
as the recipes are in the package. Let nothing else run meanwhile.
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

from main_job import KERAS, epoch_seconds
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from kaggle_digits.analysis.compare import COMPARE_FRACTION
from kaggle_digits.analysis.plots import BLUE, PALETTE, STYLE
from kaggle_digits.analysis.report import compare_run_folder
from kaggle_digits.data import TrainingRows, find_source, load_train, split_rows
from kaggle_digits.files import atomic_path
from kaggle_digits.learners import Context
from kaggle_digits.recipe import Ensemble, Network, OneCycle, Recipe
from kaggle_digits.recipes import RECIPES, find_recipe
from kaggle_digits.strategy import device_of
from kaggle_digits.submission import TEST_ROWS
from kaggle_digits.train import train_run

HERE = Path(__file__).parent
CSV_FILE, PLOT_FILE = HERE / "frontier.csv", HERE.parent / "docs" / "pictures" / "frontier.png"
SCORED = 6_000
SHORT = 8
"""Trainings of up to this many epochs are repeated with three seeds."""

REPEATED = ("strong", "deotte")
"""These are repeated with three seeds, however long they take: they decide who is on top."""

RANGE = (0.25, 30.0)
"""From where to where our line is meant to be above all public recipes, in epochs of cnn-32-64."""

OURS = (
    # The networks of the ensembles get points of their own.
    *(RECIPES[name] for name in ("flash", "fast", "strong", "tiny")),
    # These lie between flash and fast: what `--recipe fast --epochs 3` and the like train.
    *(
        replace(RECIPES[name], name=f"{name}-{epochs}", summary=f"{name}, {epochs} epochs", epochs=epochs)  # type: ignore[type-var]
        for name, epochs in (("flash", 2), ("fast", 2), ("fast", 3))
    ),
)

LABELLED = {
    "flash": ("flash", (-36, 8)),
    "fast": ("fast", (-22, 12)),
    "strong": ("strong", (-8, 14)),
    "tiny": ("tiny, 7,586 parameters", (-66, -14)),
    "one-cycle-24-32": ("the 1.24 M-MAC network", (8, -4)),
    "keras-convnet": ("Keras' own example", (6, -2)),
    "ghouzam": ("notebook of 0.99671", (10, -8)),
    "deotte": ("one network of\nthe record of 0.99757", (10, 4)),
}
"""What the plot calls the recipes that it names, and how far from the last point, in points."""

PEERS = tuple(
    find_recipe(str(KERAS.with_name(f"{name}.toml"))) for name in ("one-cycle-24-32", KERAS.stem, "ghouzam", "deotte")
)
"""Public systems. Each file says whose it is. Try one: kaggle-digits submit --recipe benchmarks/peers/ghouzam.toml"""

ALL: dict[str, Recipe] = {recipe.name: recipe for recipe in (*OURS, *PEERS)}


def fixed_seconds(data: str) -> float:
    """Return the seconds that every ``submit`` takes besides training and predicting: start, reading, device."""
    command = [sys.executable, "-m", "kaggle_digits.submit", "--data", data, "--dry-run"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(
    recipe: Recipe, seed: int, rows: TrainingRows, held_out: TrainingRows, out: Path, *, overhead: float
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
            held_out=held_out,
            resume=True,
            context=Context(device=device_of(recipe), seed=seed, source="the competition"),
        )
        units = [before, epoch_seconds(rows)]
        runs = [[one.seed, one.epochs] for one in (run, *(each for each in run.members if each.recipe.networks))]
        found = {"settings": settings, "units": units, "overhead": overhead, "runs": runs}
        kept.write_text(json.dumps(found))
    return found


def points_of(recipe: Recipe, found: dict[str, Any], *, unit: float, held_out: int) -> list[dict[str, Any]]:
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
                    "seconds": round(spent + predicting, 1),
                    "time": round((spent + predicting) / unit, 3),
                    "accuracy": round(metrics["validation_accuracy"], 6),
                }
            )
        annealed = isinstance(trained, Network) and isinstance(trained.learning_rate, OneCycle)
        points += own[-1:] if annealed else own
    return points


def without_repeats(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points, with every training once: a network of an ensemble may also train alone."""
    return list({(point["recipe"], point["seed"], point["epoch"]): point for point in points}.values())


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
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    overhead = fixed_seconds(options.data)
    rows, held_out = split_rows(load_train(find_source(options.data)), fraction=COMPARE_FRACTION, seed=0)
    measured: list[tuple[Recipe, dict[str, Any]]] = []
    for name, recipe in ALL.items():
        short = isinstance(recipe, Network) and recipe.epochs <= SHORT
        for seed in range(3) if short or name in REPEATED else (0,):
            measured.append((recipe, measure(recipe, seed, rows, held_out, options.out, overhead=overhead)))
            print(name, "seed", seed, "is done", flush=True)
    unit = min(unit for _, found in measured for unit in found["units"])
    points = without_repeats(
        [point for recipe, found in measured for point in points_of(recipe, found, unit=unit, held_out=len(held_out))]
    )
    keras = max(point["seconds"] for point in points if point["recipe"] == KERAS.stem)
    for point in points:
        point["of_keras"] = round(point["seconds"] / keras, 3)
    print(f"E: {unit:.1f} s; Keras' own example: {keras:.0f} s")
    for at, accuracy, name, epoch in means_of(points):
        print(f"{name}, epoch {epoch}: {at:.2f} E, {at * unit / keras:.2f} of Keras' example, {accuracy:.2%}")
    with atomic_path(CSV_FILE) as path, path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(points[0]))
        writer.writeheader()
        writer.writerows(points)
    draw(points).savefig(PLOT_FILE, dpi=130)
    print("public recipes above our line:", peers_above(points) or "none")


if __name__ == "__main__":
    main()
