"""Cross-validation: every labelled row is predicted once, by a model that did not see it.

The folder of a validation holds a run folder for each fold, ``1-of-5`` and so on, so that ``predict`` can average them.
``validation.json`` keeps the figures, ``out_of_fold.csv`` the probabilities, ``mistakes.csv`` and ``mistakes.png`` the
rows that were misread, and ``labels.csv`` those whose label looks wrong.
"""

from __future__ import annotations

import csv
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_digits.data import Split, TrainingRows, find_source, fold_rows, load_train
from kaggle_digits.devices import free_memory
from kaggle_digits.digits import CLASSES, accuracy, standard_error
from kaggle_digits.errors import RunError
from kaggle_digits.files import atomic_path, read_json, write_json
from kaggle_digits.learners import Context, Progress, part_of
from kaggle_digits.recipe import Recipe, to_json
from kaggle_digits.recipes.fields import from_json
from kaggle_digits.run import Run, device_to_json, find_commit, member_folder, member_seed
from kaggle_digits.strategy import Device, device_of
from kaggle_digits.train import check_recipe, train_run

log = logging.getLogger(__name__)

JSON_FILE, ROWS_FILE, MISTAKES_FILE = "validation.json", "out_of_fold.csv", "mistakes.csv"
PICTURE_FILE, LABELS_FILE = "mistakes.png", "labels.csv"
COMPARISON_FILE, PAIRS_FILE = "folds.json", "folds.csv"


@dataclass(frozen=True)
class Validation:
    """What cross-validation found.

    Args:
        folder: of its files.
        recipe: what was trained.
        fields: the contents of ``validation.json``.
        digits: (N,) int64, the labels of all rows.
        probabilities: (N, 10) of the rows, the mean over the repeats.
        right: (N,) float64, 0–1, the share of the repeats in which each row was read right.
    """

    folder: Path
    recipe: Recipe
    fields: dict[str, Any]
    digits: np.ndarray
    probabilities: np.ndarray
    right: np.ndarray


def validate(
    recipe: Recipe,
    out: Path,
    *,
    data: str | None = None,
    folds: int = 5,
    repeat: int = 1,
    seed: int = 0,
    find_device: Callable[[Recipe], Device] = device_of,
    progress: Progress | None = None,
) -> Validation:
    """Cross-validate a recipe, and write what it is worth.

    A validation that was stopped goes on if it is repeated with the same folder.

    Args:
        recipe: what to train.
        out: the folder to write.
        data: where the data is, see ``data.find_source``.
        folds: parts of the rows, each of which is held out once.
        repeat: how often to do it all, with other folds and seeds.
        seed: of the folds and the trainings. The same seed makes the same folds for every recipe.
        find_device: says where to train a recipe.
        progress: is told of every step and epoch.

    Raises:
        InputError: the data or the device cannot be used, or there are too few rows.
        RunError: the folder holds another validation.
        TrainingError: a training failed.
    """
    source = find_source(data)
    rows = load_train(source)
    check_folder(out, recipe, rows, folds=folds, seed=seed)
    device = find_device(recipe)
    log.info("Device: %s", device)
    context = Context(device, seed, source.name_for(out), None, progress)
    return validate_on(rows, recipe, out, folds=folds, repeat=repeat, context=context)


def validate_on(
    rows: TrainingRows, recipe: Recipe, out: Path, *, folds: int, repeat: int, context: Context
) -> Validation:
    """Cross-validate a recipe on rows, and write what it is worth, see ``validate``."""
    found = []
    for number in range(repeat):
        own = replace(context, seed=context.seed + number, progress=part_of(context.progress, number, repeat))
        folder = out if number == 0 else out / f"repeat-{number + 1}"
        found.append(cross_validate(recipe, rows, folder, folds, context=own))
    probabilities = [gather(runs, rows, seed=context.seed + number) for number, runs in enumerate(found)]
    fields = _summary(recipe, rows, probabilities, [run for runs in found for run in runs])
    fields |= {"folds": folds, "seed": context.seed, "data": context.source, "commit": find_commit()}
    right = np.mean([each.argmax(axis=1) == rows.digits for each in probabilities], axis=0)
    validation = Validation(out, recipe, fields, rows.digits, np.mean(probabilities, axis=0), right)
    _write(validation, rows)
    return validation


def cross_validate(
    recipe: Recipe, rows: TrainingRows, folder: Path, folds: int, *, context: Context, keep: bool = False
) -> list[Run]:
    """Train on all folds but one, for each of them, and predict that one.

    Args:
        recipe: what to train.
        rows: all labelled rows.
        folder: gets a run folder for each fold, 1-of-5 and so on. What is there already is not trained again.
        folds: how many folds.
        context: where to train. Its seed is that of the folds; each training gets one of its own.
        keep: whether the runs are to predict. Some methods keep all rows for that.

    Returns:
        the finished runs.
    """
    runs = []
    for fold in range(folds):
        log.info("%s: fold %d of %d", recipe.name, fold + 1, folds)
        split = Split(seed=context.seed, folds=folds, fold=fold)
        own = replace(
            context,
            seed=member_seed(context.seed, fold + 1, folds),
            split=split,
            progress=part_of(context.progress, fold, folds),
        )
        place = member_folder(folder, fold + 1, folds)
        runs.append(train_piece(recipe, *split.of(rows), place, own, keep=keep))
    return runs


def train_piece(
    recipe: Recipe,
    rows: TrainingRows,
    held_out: TrainingRows,
    folder: Path,
    context: Context,
    *,
    keep: bool = False,
    callbacks: Sequence[Any] = (),
) -> Run:
    """Train one of many pieces of work, unless that is done already, and free the memory that it took.

    Args:
        recipe, rows, held_out, folder, context, callbacks: see ``train.train_run``.
        keep: whether the run is to predict; else only its figures are kept.
    """
    run = train_run(recipe, rows, folder, held_out=held_out, context=context, resume=True, callbacks=callbacks)
    run = run if keep else replace(run, predictor=None)
    free_memory()
    return run


def check_folder(out: Path, recipe: Recipe, rows: TrainingRows, *, folds: int, seed: int) -> None:
    """Check that a folder holds no validation of another kind.

    Raises:
        RunError: it does, or its file is damaged.
    """
    wanted = {"folds": folds, "seed": seed, "rows": len(rows)}
    try:
        found = read_json(out / JSON_FILE)
        same = {name: found[name] for name in wanted} == wanted
        if same and from_json(found["recipe"]).settings() == recipe.settings():
            return
    except FileNotFoundError:
        return
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(
            f"{out / JSON_FILE}: not readable as a validation ({type(error).__name__}: {error}). Expected the file "
            "that validate wrote. Name another folder."
        ) from error
    raise RunError(
        f"{out}: holds a validation of other settings, rows or folds. Expected the same ones. Name another folder."
    )


def gather(runs: Sequence[Run], rows: TrainingRows, *, seed: int) -> np.ndarray:
    """Put together what the runs of all folds have read in the rows that they did not see.

    Returns:
        (N, 10), in the order of the rows.
    """
    fold = fold_rows(rows, len(runs), seed=seed)
    probabilities = np.empty((len(rows), CLASSES))
    for number, run in enumerate(runs):
        probabilities[fold == number] = run.probabilities
    return probabilities


def _summary(
    recipe: Recipe, rows: TrainingRows, probabilities: Sequence[np.ndarray], runs: Sequence[Run]
) -> dict[str, Any]:
    accuracies = [accuracy(each, rows.digits) for each in probabilities]
    mean = float(np.mean(accuracies))
    by_fold = [run.accuracy or 0.0 for run in runs]
    read = [each.argmax(axis=1) for each in probabilities]
    return {
        "recipe": to_json(recipe),
        "repeat": len(probabilities),
        "rows": len(rows),
        "accuracy": mean,
        "standard_error": standard_error(mean, len(rows)),
        "accuracies": accuracies,
        "fold_accuracies": by_fold,
        "fold_std": float(np.std(by_fold, ddof=1)),
        "digit_accuracies": [
            float(np.mean([(each[rows.digits == digit] == digit).mean() for each in read])) if present else None
            for digit, present in enumerate(np.bincount(rows.digits, minlength=CLASSES) > 0)
        ],
        "mistakes": round((1 - mean) * len(rows)),
        "seconds": round(sum(run.seconds + run.validation_seconds for run in runs), 1),
        "parameters": runs[0].parameters,
        "device": device_to_json(runs[0].device),
        "versions": runs[0].versions,
    }


def suspect_labels(probabilities: np.ndarray, digits: np.ndarray) -> np.ndarray | None:
    """Return the rows whose label looks wrong, the most suspicious first.

    A label looks wrong if another digit is read at least as surely as that digit usually is where it is the label. Only
    a good network can judge that: the mistakes of others say nothing about labels.

    Args:
        probabilities: (N, 10), of networks that did not see the rows.
        digits: (N,) int64, the labels.

    Returns:
        (M,) int64, numbers of rows; None if less than 97% of the rows are read as their labels say.

    Source: the confident joint of Northcutt et al. 2021, arXiv 1911.00068.
    """
    if accuracy(probabilities, digits) < 0.97:
        return None
    usual = np.array(
        [probabilities[digits == digit, digit].mean() if (digits == digit).any() else 2 for digit in range(CLASSES)]
    )
    sure = np.where(probabilities >= usual, probabilities, -1)
    other = sure.argmax(axis=1)
    wrong = np.flatnonzero((sure.max(axis=1) >= 0) & (other != digits))
    margin = probabilities[wrong, other[wrong]] - probabilities[wrong, digits[wrong]]
    return wrong[np.argsort(-margin, kind="stable")]


def _write(found: Validation, rows: TrainingRows) -> None:
    from kaggle_digits.analysis.plots import plot_worst  # takes two seconds to import

    probabilities, digits = found.probabilities, found.digits
    read, certainty = probabilities.argmax(axis=1), probabilities.max(axis=1)
    # The row of train.csv below its header is row 1.
    head = ("row", "label", "read", "certainty")

    def cells(row: Any) -> tuple[int, int, int, str]:
        return int(row) + 1, int(digits[row]), int(read[row]), f"{certainty[row]:.4f}"

    wrong = np.flatnonzero(read != digits)
    wrong = wrong[np.argsort(-certainty[wrong], kind="stable")]
    _write_csv(found.folder / MISTAKES_FILE, head, map(cells, wrong))
    suspects = suspect_labels(probabilities, digits)
    _write_csv(found.folder / LABELS_FILE, head, map(cells, [] if suspects is None else suspects))
    columns = (*head, "right", *(f"p{digit}" for digit in range(CLASSES)))
    all_rows = (
        (*cells(row), f"{found.right[row]:.4g}", *(f"{p:.6f}" for p in probabilities[row]))
        for row in range(len(digits))
    )
    _write_csv(found.folder / ROWS_FILE, columns, all_rows)
    with atomic_path(found.folder / PICTURE_FILE) as path:
        plot_worst(rows.pixels, probabilities, digits, most=60).savefig(path, dpi=110)
    write_json(found.folder / JSON_FILE, found.fields)


def _write_csv(file: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_path(file) as path, path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        writer.writerows(rows)


@dataclass(frozen=True)
class Pair:
    """How two recipes differ on the same rows.

    Args:
        first, second: their names.
        only_first, only_second: how many rows only one of them reads right; with repeats, reads right more often.
        difference: accuracy of the first minus that of the second.
        standard_error: of the difference, paired.
        p: the probability of a difference like this, or a greater one, if both were equally good. It covers which rows
            were drawn, not the seeds of the trainings.

    Source: McNemar 1947, in its exact form; with repeats, the normal approximation of the paired differences.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    difference: float
    standard_error: float
    p: float


def compare_pair(first: Validation, second: Validation) -> Pair:
    """Compare two recipes by the rows that only one of them reads right."""
    from scipy.stats import binomtest, norm

    differences = first.right - second.right
    only_first, only_second = int((differences > 0).sum()), int((differences < 0).sum())
    difference, error = float(differences.mean()), float(differences.std() / math.sqrt(len(differences)))
    if not only_first + only_second:
        p = 1.0
    elif first.fields.get("repeat", 1) == second.fields.get("repeat", 1) == 1:
        p = float(binomtest(only_first, only_first + only_second).pvalue)
    else:
        p = float(2 * norm.sf(abs(difference) / error)) if error else 0.0
    return Pair(first.recipe.name, second.recipe.name, only_first, only_second, difference, error, p)


def format_p(p: float) -> str:
    """Return a probability of chance for people.

    >>> format_p(6.4e-11), format_p(0.0312)
    ('p < 0.001', 'p = 0.031')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def verdict(better: str | None) -> str:
    """Say which of two recipes is better, given what ``find_better`` says."""
    return f"{better} reads more right" if better else "no clear difference"


def find_better(pairs: Sequence[Pair], *, level: float = 0.05) -> list[str | None]:
    """Say for each pair which recipe is better, or None if that is not clear.

    With many pairs, some differ by chance. The level is that of all of them together.

    Source: Holm 1979.
    """
    better: list[str | None] = [None] * len(pairs)
    for rank, number in enumerate(sorted(range(len(pairs)), key=lambda each: pairs[each].p)):
        pair = pairs[number]
        if pair.p > level / (len(pairs) - rank):
            break
        better[number] = pair.first if pair.difference > 0 else pair.second
    return better


def compare_folds(
    recipes: Sequence[Recipe],
    out: Path,
    *,
    data: str | None = None,
    folds: int = 5,
    repeat: int = 1,
    seed: int = 0,
    find_device: Callable[[Recipe], Device] = device_of,
    progress: Progress | None = None,
) -> tuple[list[Validation], list[Pair]]:
    """Cross-validate several recipes on the same folds, and say which of two is better.

    Each gets a folder of its own in ``out``. ``folds.json`` and ``folds.csv`` hold the figures of all.

    Args:
        recipes: what to compare.
        out: the folder to write.
        data, folds, repeat, seed, find_device, progress: as in ``validate``.

    Returns:
        what was found for each recipe, and for each two of them.

    Raises:
        InputError, RunError, TrainingError: as in ``validate``.
    """
    source = find_source(data)
    rows = load_train(source)
    devices = find_devices(recipes, find_device)
    found = []
    for number, (recipe, device) in enumerate(zip(recipes, devices, strict=True)):
        place = out / recipe.name
        check_folder(place, recipe, rows, folds=folds, seed=seed)
        context = Context(device, seed, source.name_for(out), None, part_of(progress, number, len(recipes)))
        found.append(validate_on(rows, recipe, place, folds=folds, repeat=repeat, context=context))
    pairs = [compare_pair(first, second) for first, second in itertools.combinations(found, 2)]
    write_json(
        out / COMPARISON_FILE,
        {"recipes": [each.recipe.name for each in found], "pairs": [asdict(pair) for pair in pairs]},
    )
    columns = ("accuracy", "standard_error", "fold_std", "mistakes", "seconds", "parameters")
    table = ([each.recipe.name, *(each.fields[name] for name in columns)] for each in found)
    _write_csv(out / PAIRS_FILE, ("recipe", *columns), table)
    return found, pairs


def find_devices(recipes: Sequence[Recipe], find_device: Callable[[Recipe], Device]) -> list[Device]:
    """Find where each recipe is trained, say so, and check that recipes of somebody's own can be.

    Raises:
        InputError: one of them cannot.
    """
    devices = [find_device(recipe) for recipe in recipes]
    for place in {str(device): None for device in devices if device.backend != "scikit-learn"}:
        log.info("Device: %s", place)
    for recipe in recipes:
        check_recipe(recipe)
    return devices


def load_validation(folder: Path) -> Validation:
    """Load what cross-validation has left in a folder.

    Raises:
        RunError: it holds no validation, or a file in it is damaged.
    """
    try:
        fields = read_json(folder / JSON_FILE)
        recipe = from_json(fields["recipe"])
        with (folder / ROWS_FILE).open(encoding="utf-8", newline="") as stream:
            table = np.array([[float(cell) for cell in row] for row in list(csv.reader(stream))[1:]])
        count, folds = int(fields["rows"]), int(fields["folds"])
        if not isinstance(recipe, Recipe) or table.shape != (count, 5 + CLASSES) or not np.isfinite(table).all():
            raise ValueError(f"a table of {table.shape}, where {count:,} rows were expected")
        digits = table[:, 1].astype(np.int64)
        if not (digits.min() >= 0 and digits.max() < CLASSES and folds > 1):
            raise ValueError("labels that are no digits")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise RunError(
            f"{folder}: not readable as a validation ({type(error).__name__}: {error}). Expected the files that "
            "`kaggle-digits validate` leaves. Repeat the command that made them."
        ) from error
    return Validation(folder, recipe, fields, digits, table[:, 5:], table[:, 4])
