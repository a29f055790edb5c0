"""Train recipes on the same rows, score them on the same held-out rows, and put their figures side by side.

The folder of a comparison holds a run folder for every recipe and seed. ``compare.csv`` and ``compare.json`` are
rewritten after every recipe, and ``report.html`` is written at the end.
"""

from __future__ import annotations

import itertools
import logging
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_digits.analysis.engine import Engine, Piece
from kaggle_digits.analysis.html import write_page
from kaggle_digits.analysis.report import COMPARE_FILE, REPORT_FILE, compare_run_folder, page_of_comparison
from kaggle_digits.analysis.validate import readable, write_csv
from kaggle_digits.data import Split, TrainingRows, find_source, load_test_rows, load_train
from kaggle_digits.digits import standard_error
from kaggle_digits.errors import DataError, DigitsError, RunError
from kaggle_digits.files import locked, make_folder, read_json, write_json
from kaggle_digits.learners import Context
from kaggle_digits.recipe import Recipe
from kaggle_digits.run import RowCounts, Run, device_to_json, find_commit

log = logging.getLogger(__name__)

COMPARE_FRACTION = 1 / 7
"""Share of the rows that is held out, as in MNIST with 60,000 rows to train on and 10,000 to score.

Of the competition's 42,000 rows, 36,000 are trained on and 6,000 are held out."""


def compare(
    recipes: Sequence[Recipe],
    out: Path,
    *,
    data: str | None = None,
    seeds: Iterable[int] = (0,),
    on_test: bool = False,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Train every recipe with every seed, and write tables and a report.

    To continue a stopped comparison, repeat it with the same folder. Recipes and seeds can be added in the same way. A
    training that failed is tried again.

    Args:
        recipes: what to compare.
        out: the folder to write.
        data: where the data is, see ``data.find_source``.
        seeds: the seeds of the trainings. The first one also decides which rows are held out.
        on_test: train on all training rows and score on the test rows, which must have labels, instead of held-out
            ones. Most published figures are of this kind, on MNIST's own files.
        engine: trains the pieces, see ``cluster.open_engine``; None trains them here, one after another.

    Returns:
        the contents of compare.json. ``rows`` says which rows were trained on and scored. ``recipes`` holds one row for
        each recipe in the folder, those of this call first. Each row has the recipe's name, what is published about it,
        its ``settings``, its ``seeds``, and the reason why it ``failed``, or None. A row that did not fail also has:
        ``accuracies`` on the held-out rows, one per seed, with their mean and standard deviation (None for one seed);
        the median seconds to train, and to predict the held-out rows; ``parameters``, the count of numbers learned;
        ``until``, for each target the median batches and seconds of training until that accuracy was first measured
        (None unless every training reached it); and ``loss_spread``, the standard deviation of the loss from batch to
        batch over the last 200 batches.

    Raises:
        InputError: the data or the device cannot be used, or the folder holds a comparison on other rows.
    """
    seeds = list(seeds)
    source = find_source(data)
    engine = engine or Engine()
    devices = engine.find_devices(recipes)
    rows = all_rows = load_train(source)
    split = None if on_test else Split(fraction=COMPARE_FRACTION, seed=seeds[0])
    if split:
        rows, held_out = split.of(all_rows)
    else:
        test = load_test_rows(source)
        if test.digits is None:
            raise DataError(
                f"--test: the test rows of {source} have no labels. Expected labels to score on, as in MNIST's own "
                "files. Leave --test out to score on held-out rows."
            )
        held_out = TrainingRows(test.pixels, test.digits)
    # Published figures are those of MNIST or of the competition, which have 40,000 rows or more.
    comparable = not source.is_sample and len(rows) + len(held_out) >= 40_000
    comparison: dict[str, Any] = {
        "data": source.name_for(out),
        "rows": asdict(RowCounts.of(rows, held_out)) | {"split_seed": split.seed if split else None},
        "commit": find_commit(),
    }
    make_folder(out)
    busy = RunError(f"{out}: is being written by another comparison. Expected a folder for each. Name another one.")
    with locked(out, busy):
        kept = _load_rows(out, comparison["rows"])
        done = {recipe.name: kept.pop(recipe.name, None) for recipe in recipes}
        pieces = [
            Piece(
                recipe,
                compare_run_folder(out, recipe.name, seed),
                Context(device, seed, source.name_for(out), split),
                is_traced=recipe.networks == (recipe,),
            )
            for recipe, device in zip(recipes, devices, strict=True)
            for seed in seeds
        ]
        trained = engine.train(pieces, *((rows, held_out) if on_test else (all_rows,)))
        for recipe in recipes:
            found = list(itertools.islice(trained, len(seeds)))
            failures = [each for each in found if isinstance(each, Exception)]
            failure = None
            if failures:
                known = isinstance(failures[0], DigitsError)
                failure = str(failures[0]) if known else f"{type(failures[0]).__name__}: {failures[0]}"
                log.error("%s failed: %s", recipe.name, failure)
            runs = [each for each in found if isinstance(each, Run)]
            done[recipe.name] = _row(recipe, seeds, runs, failure, comparable=comparable)
            comparison["recipes"] = [row for row in (*done.values(), *kept.values()) if row]
            _write_tables(out, comparison)
        write_page(out / REPORT_FILE, page_of_comparison(out, held_out))
    return comparison


def _load_rows(out: Path, rows: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Return the rows of compare.json by recipe, or nothing if the folder holds no comparison yet."""
    file = out / COMPARE_FILE
    if not file.exists():
        return {}
    with readable(file):
        kept = read_json(file)
        if kept["rows"] == rows:
            return {row["recipe"]: row for row in kept["recipes"]}
    raise RunError(
        f"{out}: holds a comparison on other rows ({kept['rows']}, now {rows}). Expected the same data and the same "
        "first seed. Name another folder, or repeat the settings of the first comparison."
    )


def _row(
    recipe: Recipe, seeds: Sequence[int], runs: Sequence[Run], failed: str | None, *, comparable: bool
) -> dict[str, Any]:
    """Return one row of the comparison, as ``compare`` describes it, or the reason why the recipe failed."""
    published = ("published", "published_accuracy", "published_seconds")
    row: dict[str, Any] = {
        "recipe": recipe.name,
        "failed": failed,
        "summary": recipe.summary,
        "source": recipe.source,
        **{name: getattr(recipe, name) if comparable else None for name in published},
        "settings": recipe.settings(),
        "seeds": list(seeds),
    }
    if failed:
        return row
    accuracies = [run.accuracy or 0.0 for run in runs]
    mean, published_accuracy = statistics.mean(accuracies), row["published_accuracy"]
    traced = [run.epochs for run in runs if all("curve" in metrics for metrics in run.epochs)]
    losses = [[loss for metrics in epochs for loss in metrics["losses"]] for epochs in traced]
    return row | {
        "accuracies": accuracies,
        "accuracy": mean,
        "accuracy_std": statistics.stdev(accuracies) if len(runs) > 1 else None,
        "standard_error": standard_error(mean, runs[0].rows.held_out),
        "difference": None if published_accuracy is None else mean - published_accuracy,
        "train_seconds": statistics.median(run.seconds for run in runs),
        "predict_seconds": statistics.median(run.validation_seconds for run in runs),
        "epochs": statistics.mean(len(run.epochs) for run in runs) if recipe in recipe.networks else None,
        "parameters": runs[0].parameters,
        "until": {f"{target:.0%}": _reach(traced, target) for target in (0.95, 0.97, 0.98)},
        "loss_spread": statistics.mean(np.std(of_run[-200:], ddof=1) for of_run in losses) if traced else None,
        "device": device_to_json(runs[0].device),
    }


def _reach(traced: Sequence[list[dict[str, Any]]], target: float) -> dict[str, float] | None:
    """Return the median batches and seconds until an accuracy, or None unless every training reached it."""
    reached = [found for epochs in traced if (found := first_reached(epochs, target))]
    if not traced or len(reached) < len(traced):
        return None
    batches, seconds = zip(*reached, strict=True)
    return {"batches": statistics.median(batches), "seconds": statistics.median(seconds)}


def first_reached(epochs: list[dict[str, Any]], target: float) -> tuple[int, float] | None:
    """Return the steps and seconds of training until an accuracy was first measured, or None.

    Args:
        epochs: the metrics of a traced run. The accuracy at the end of each epoch counts as well.
        target: the accuracy, 0–1.
    """
    steps, seconds = 0, 0.0
    for metrics in epochs:
        for step, after, reached in metrics["curve"]:
            if reached >= target:
                return steps + step, seconds + after
        steps += len(metrics["losses"])
        seconds += metrics["seconds"]
        if metrics.get("validation_accuracy", 0.0) >= target:
            return steps, seconds
    return None


def _write_tables(out: Path, comparison: dict[str, Any]) -> None:
    """Write the results as JSON, and as CSV with one value in each cell, where "until" has columns of its own."""
    write_json(out / COMPARE_FILE, comparison)
    flat: list[dict[str, Any]] = []
    for row in comparison["recipes"]:
        cells = {name: value for name, value in row.items() if not isinstance(value, list | dict)}
        for target, reached in row.get("until", {}).items():
            for unit in ("batches", "seconds"):
                cells[f"{unit}_until_{target.rstrip('%')}"] = reached and reached[unit]
        flat.append(cells)
    columns = max((list(cells) for cells in flat), key=len)
    write_csv(out / "compare.csv", columns, ([cells.get(name) for name in columns] for cells in flat))
