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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_digits.config import DeviceError, DigitsError, Network, Recipe, atomic_path, find_commit
from kaggle_digits.data import TrainingRows, find_source, load_train, split_rows
from kaggle_digits.plots import plot_confusion, plot_traces
from kaggle_digits.report import write_report
from kaggle_digits.runs import VALIDATION_FILE, Run, Trace, read_run, trace_of
from kaggle_digits.strategy import device_of
from kaggle_digits.train import train_run

if TYPE_CHECKING:
    from kaggle_digits.fit import Progress

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
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train every recipe with every seed, and write tables and a report.

    A stopped comparison continues where it was when it is repeated with the same folder; what failed is tried again.

    Args:
        recipes: what to compare.
        out: the folder to write.
        data: where the data lies, see ``data.find_source``.
        seeds: of the trainings; the first also decides which rows are held out.
        device: where to train.
        progress: is told of every step and epoch.

    Returns:
        the contents of compare.json: ``data``, ``rows``, ``seeds``, ``commit``, and in ``recipes`` one row for each as
        ``_row`` makes it.

    Raises:
        InputError: the data or the device cannot be used. What goes wrong with one recipe becomes its row's
            ``failed``, and the others go on.
    """
    seeds = list(seeds)
    source = find_source(data)
    rows, held_out = split_rows(load_train(source), fraction=HELD_OUT_FRACTION, seed=seeds[0])
    comparison: dict[str, Any] = {
        "data": source.name,
        "rows": {"training": len(rows), "held_out": len(held_out)},
        "seeds": seeds,
        "commit": find_commit(),
        "recipes": [],
    }
    folders: dict[str, list[Path]] = {}
    for recipe in recipes:
        runs: list[Run] = []
        failed = None
        try:
            for seed in seeds:
                folder = out / "runs" / f"{recipe.name}-seed{seed}"
                runs.append(_train(recipe, rows, held_out, folder, seed, device, source.name, progress))
        except DeviceError:
            raise
        except (DigitsError, MemoryError) as error:
            failed = str(error) or type(error).__name__
            log.error("%s failed: %s", recipe.name, failed)
        comparison["recipes"].append(_row(recipe, runs, failed, comparable=not source.is_sample))
        folders[recipe.name] = [run.folder for run in runs]
        _write_tables(out, comparison)
    _write_report(out, comparison, folders)
    return comparison


def _train(
    recipe: Recipe,
    rows: TrainingRows,
    held_out: TrainingRows,
    folder: Path,
    seed: int,
    device: str,
    source: str,
    progress: Progress | None,
) -> Run:
    log.info("%s, seed %d", recipe.name, seed)
    return train_run(
        recipe,
        rows,
        folder,
        seed=seed,
        device=device_of(recipe, device if isinstance(recipe, Network) else "auto"),
        source=source,
        held_out=held_out,
        resume=True,
        trace=True,
        progress=progress,
    )


def _row(recipe: Recipe, runs: Sequence[Run], failed: str | None, *, comparable: bool) -> dict[str, Any]:
    """Return one row of the comparison.

    Accuracies are correct / seen on the held-out rows, seconds and steps means over the seeds. ``until`` says for each
    target how many batches and seconds of training it took, None unless every seed got there; ``loss_spread`` is the
    standard deviation of the loss over the last 200 batches, from one batch to the next. ``difference`` is that to
    the published accuracy, None on the built-in sample, which is not ``comparable``.
    """
    row: dict[str, Any] = {
        name: getattr(recipe, name)
        for name in ("summary", "source", "published", "published_accuracy", "published_seconds")
    }
    row = {"recipe": recipe.name, "failed": failed, **row}
    if failed or not runs:
        return row
    accuracies = [run.record["epochs"][-1]["validation_accuracy"] for run in runs]
    mean, published = statistics.mean(accuracies), recipe.published_accuracy
    traces = [trace for run in runs if (trace := trace_of(run.record))]
    return row | {
        "accuracies": accuracies,
        "accuracy": mean,
        "accuracy_std": statistics.stdev(accuracies) if len(runs) > 1 else None,
        "difference": mean - published if comparable and published is not None else None,
        "train_seconds": statistics.mean(sum(e["seconds"] for e in run.record["epochs"]) for run in runs),
        "predict_seconds": statistics.mean(run.record["epochs"][-1]["validation_seconds"] for run in runs),
        "epochs": statistics.mean(len(run.record["epochs"]) for run in runs) if isinstance(recipe, Network) else None,
        "parameters": _parameters(runs[0]),
        "until": {f"{target:.0%}": _mean_reach(traces, target) for target in TARGETS},
        "loss_spread": statistics.mean(np.std(trace.losses[-LAST_BATCHES:], ddof=1) for trace in traces)
        if traces
        else None,
        "device": runs[0].record["device"],
    }


def _mean_reach(traces: Sequence[Trace], target: float) -> dict[str, float] | None:
    """Return mean batches and seconds until an accuracy, None unless every training got there."""
    reached = [found for trace in traces if (found := trace.reach(target))]
    if not traces or len(reached) < len(traces):
        return None
    batches, seconds = zip(*reached, strict=True)
    return {"batches": statistics.mean(batches), "seconds": statistics.mean(seconds)}


def _parameters(run: Run) -> int:
    """Count the numbers that a network or a classical method has learned."""
    if isinstance(run.recipe, Network):
        return run.model.count_params()
    return sum(array.size for array in run.model.values())


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


def _write_report(out: Path, comparison: dict[str, Any], folders: dict[str, list[Path]]) -> None:
    traces = {name: [t for run in runs if (t := trace_of(read_run(run)))] for name, runs in folders.items()}
    traced = {name: found for name, found in traces.items() if found}
    confusions = {}
    for name, runs in folders.items():
        saved = [dict(np.load(run / VALIDATION_FILE)) for run in runs]
        if saved:
            probabilities = np.concatenate([one["probabilities"] for one in saved])
            confusions[name] = plot_confusion(probabilities, np.concatenate([one["digits"] for one in saved]))
    write_report(out / REPORT_FILE, comparison, plot_traces(traced) if traced else None, confusions)
