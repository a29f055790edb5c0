"""Train recipes on the same rows, score them on the same held-out rows, and put their figures side by side.

The folder of a comparison holds a run folder for every recipe and seed, ``compare.csv`` and ``compare.json``, which
are written anew after every recipe, and at the end ``report.html``.
"""

from __future__ import annotations

import csv
import json
import logging
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_digits.data import find_source, load_train, split_rows
from kaggle_digits.errors import DeviceError, DigitsError, RunError
from kaggle_digits.files import atomic_path, locked
from kaggle_digits.plots import plot_confusion, plot_traces
from kaggle_digits.recipe import Recipe
from kaggle_digits.report import write_report
from kaggle_digits.runs import RowCounts, Run, Trace, device_to_json, find_commit, read_run, trace_of
from kaggle_digits.strategy import device_of
from kaggle_digits.train import train_run

if TYPE_CHECKING:
    from kaggle_digits.learners import Progress

log = logging.getLogger(__name__)

HELD_OUT_FRACTION = 1 / 7
"""As in MNIST, 60,000 rows to train on and 10,000 to score: of the competition's 42,000 rows 36,000 and 6,000."""
TARGETS = (0.95, 0.97, 0.98)
LAST_BATCHES = 200
CSV_FILE, JSON_FILE, REPORT_FILE = "compare.csv", "compare.json", "report.html"


def compare(
    recipes: Sequence[Recipe],
    out: Path,
    *,
    data: str | None = None,
    seeds: Iterable[int] = (0,),
    device: str = "auto",
    backend: str | None = None,
    shard: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train every recipe with every seed, and write tables and a report.

    A stopped comparison continues where it was when it is repeated with the same folder, and further recipes and
    seeds can be added to it; what failed is tried again.

    Args:
        recipes: what to compare.
        out: the folder to write.
        data: where the data lies, see ``data.find_source``.
        seeds: of the trainings; the first also decides which rows are held out.
        device, backend: where to train the networks.
        shard: (I, N): train only the I-th of N parts, counted from 1, and write no table. N processes on N machines
            with one folder share the work so; the call without a shard then finds everything trained.
        progress: is told of every step and epoch.

    Returns:
        the contents of compare.json. ``rows`` says what was trained and scored on; ``recipes`` holds one row for each
        recipe of the folder, those of this call first: its name, ``settings``, ``seeds`` and what is published;
        ``failed``, the reason, or None. If it did not fail, ``accuracies`` on the held-out rows, one a seed, their
        mean and standard deviation (None for one); median seconds to train, and to predict the held-out rows;
        ``parameters``, numbers learned; ``until``, for each target the median batches and seconds of training
        until it was first measured, None unless every training got there; ``loss_spread``, the standard deviation of
        the loss from batch to batch over the last 200.

    Raises:
        InputError: the data or the device cannot be used, or the folder holds a comparison on other rows.
    """
    seeds = list(seeds)
    source = find_source(data)
    rows, held_out = split_rows(load_train(source), fraction=HELD_OUT_FRACTION, seed=seeds[0])
    comparison: dict[str, Any] = {
        "data": source.name,
        "rows": asdict(RowCounts.of(rows, held_out)) | {"split_seed": seeds[0]},
        "commit": find_commit(),
    }
    out.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[Run]] = {recipe.name: [] for recipe in recipes}
    failures: dict[str, str] = {}

    def train(recipe: Recipe, seed: int) -> None:
        log.info("%s, seed %d", recipe.name, seed)
        where = (device, backend) if recipe.networks else ("auto", None)
        try:
            run = train_run(
                recipe,
                rows,
                run_folder(out, recipe.name, seed),
                seed=seed,
                device=device_of(recipe, where[0], backend=where[1]),
                source=source.name,
                held_out=held_out,
                resume=True,
                trace=True,
                progress=progress,
            )
            runs[recipe.name].append(replace(run, predictor=None))  # the figures are enough
        except (DeviceError, OSError):  # the next would fail, too
            raise
        except Exception as error:
            failures[recipe.name] = str(error) if isinstance(error, DigitsError) else f"{type(error).__name__}: {error}"
            log.error("%s failed: %s", recipe.name, failures[recipe.name])

    part, parts = shard
    if parts > 1:
        for recipe, seed in [(recipe, seed) for recipe in recipes for seed in seeds][part - 1 :: parts]:
            train(recipe, seed)
        return comparison | {"recipes": [], "failures": failures}
    busy = RunError(f"{out}: is being written by another comparison. Expected a folder for each. Name another one.")
    with locked(out, busy):
        kept = _load_rows(out, comparison["rows"])
        done = {recipe.name: kept.pop(recipe.name, None) for recipe in recipes}
        for recipe in recipes:
            for seed in seeds:
                if recipe.name not in failures:
                    train(recipe, seed)
            done[recipe.name] = _row(
                recipe, seeds, runs[recipe.name], failures.get(recipe.name), comparable=not source.is_sample
            )
            comparison["recipes"] = [row for row in (*done.values(), *kept.values()) if row]
            _write_tables(out, comparison)
        _write_report(out, comparison)
    return comparison


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Return where a comparison keeps one training."""
    return out / "runs" / f"{name}-seed{seed}"


def _load_rows(out: Path, rows: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Return the rows by recipe that a folder holds already.

    Raises:
        RunError: they come from other training or held-out rows.
    """
    try:
        found = json.loads((out / JSON_FILE).read_text(encoding="utf-8"))
        if found["rows"] == rows:
            return {row["recipe"]: row for row in found["recipes"]}
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError) as error:
        raise RunError(
            f"{out / JSON_FILE}: not readable as a comparison ({type(error).__name__}: {error}). Expected the file "
            "that compare wrote. Name another folder."
        ) from error
    raise RunError(
        f"{out}: holds a comparison on other rows ({found['rows']}, now {rows}). Expected the same data and the same "
        "first seed. Name another folder, or repeat the settings of the first comparison."
    )


def _row(
    recipe: Recipe, seeds: Sequence[int], runs: Sequence[Run], failed: str | None, *, comparable: bool
) -> dict[str, Any]:
    """Return one row of the comparison, as ``compare`` describes it."""
    words = ("summary", "source", "published", "published_accuracy", "published_seconds")
    row = {
        "recipe": recipe.name,
        "failed": failed,
        **{name: getattr(recipe, name) for name in words},
        "settings": recipe.settings(),
        "seeds": list(seeds),
    }
    if failed:
        return row
    accuracies = [run.accuracy or 0.0 for run in runs]
    mean, published = statistics.mean(accuracies), recipe.published_accuracy
    traces = [trace for run in runs if (trace := trace_of(run.epochs))]
    return row | {
        "accuracies": accuracies,
        "accuracy": mean,
        "accuracy_std": statistics.stdev(accuracies) if len(runs) > 1 else None,
        "difference": mean - published if comparable and published is not None else None,
        "train_seconds": statistics.median(run.seconds for run in runs),
        "predict_seconds": statistics.median(run.validation_seconds for run in runs),
        "epochs": statistics.mean(len(run.epochs) for run in runs) if recipe in recipe.networks else None,
        "parameters": runs[0].parameters,
        "until": {f"{target:.0%}": _reach(traces, target) for target in TARGETS},
        "loss_spread": statistics.mean(np.std(trace.losses[-LAST_BATCHES:], ddof=1) for trace in traces)
        if traces
        else None,
        "device": device_to_json(runs[0].device),
    }


def _reach(traces: Sequence[Trace], target: float) -> dict[str, float] | None:
    """Return median batches and seconds until an accuracy, None unless every training got there."""
    reached = [found for trace in traces if (found := trace.reach(target))]
    if not traces or len(reached) < len(traces):
        return None
    batches, seconds = zip(*reached, strict=True)
    return {"batches": statistics.median(batches), "seconds": statistics.median(seconds)}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without lists and tables in it, for the CSV."""
    kept = {name: value for name, value in row.items() if not isinstance(value, list | dict)}
    for target, found in row.get("until", {}).items():
        for unit in ("batches", "seconds"):
            kept[f"{unit}_until_{target.rstrip('%')}"] = found[unit] if found else None
    return kept


def _write_tables(out: Path, comparison: dict[str, Any]) -> None:
    with atomic_path(out / JSON_FILE) as path:
        path.write_text(json.dumps(comparison, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    flat = [_flat(row) for row in comparison["recipes"]]
    columns = max((list(row) for row in flat), key=len)
    with atomic_path(out / CSV_FILE) as path, path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(flat)


def _write_report(out: Path, comparison: dict[str, Any]) -> None:
    traces: dict[str, list[Trace]] = {}
    confusions = {}
    for row in comparison["recipes"]:
        if row["failed"]:
            continue
        name = row["recipe"]
        runs = [read_run(run_folder(out, name, seed)) for seed in row["seeds"]]
        if found := [trace for run in runs if (trace := trace_of(run.epochs))]:
            traces[name] = found
        probabilities = np.concatenate([run.probabilities for run in runs])
        confusions[name] = plot_confusion(probabilities, np.concatenate([run.held_out_digits for run in runs]))
    write_report(out / REPORT_FILE, comparison, plot_traces(traces) if traces else None, confusions)
