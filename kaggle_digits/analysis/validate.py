"""Cross-validation: every labelled row is predicted once, by a model that did not see it.

The folder of a validation holds a run folder for each fold, ``1-of-5`` and so on, so that ``predict`` can average them.
``validation.json`` keeps the figures, ``out_of_fold.csv`` the probabilities, ``mistakes.csv`` and ``mistakes.png`` the
rows that were misread, and ``labels.csv`` those whose label looks wrong.
"""

from __future__ import annotations

import csv
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_digits.analysis.engine import Engine, Piece
from kaggle_digits.data import Split, TrainingRows, find_source, fold_rows, load_train
from kaggle_digits.digits import CLASSES, accuracy, standard_error
from kaggle_digits.errors import RunError
from kaggle_digits.files import atomic_path, read_json, write_json
from kaggle_digits.learners import Context
from kaggle_digits.recipe import Recipe, to_json
from kaggle_digits.recipes.fields import from_json
from kaggle_digits.run import Run, device_to_json, find_commit, member_folder, member_seed

JSON_FILE, ROWS_FILE, MISTAKES_FILE = "validation.json", "out_of_fold.csv", "mistakes.csv"
PICTURE_FILE, LABELS_FILE = "mistakes.png", "labels.csv"
COMPARISON_FILE, PAIRS_FILE = "folds.json", "folds.csv"


@dataclass(frozen=True)
class Validation:
    """The result of cross-validation.

    Args:
        folder: the folder of its files.
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
    engine: Engine | None = None,
) -> Validation:
    """Cross-validate a recipe, and write its figures.

    To continue a stopped validation, repeat it with the same folder.

    Args:
        recipe: what to train.
        out: the folder to write.
        data: where the data is, see ``data.find_source``.
        folds: parts of the rows, each of which is held out once.
        repeat: how often to do this, each time with other folds and seeds.
        seed: the seed for the folds and the trainings. The same seed makes the same folds for every recipe.
        engine: trains the pieces, see ``cluster.open_engine``; None trains them here, one after another.

    Raises:
        InputError: the data or the device cannot be used, or there are too few rows.
        RunError: the folder holds another validation.
        TrainingError: a training failed.
    """
    source = find_source(data)
    context = Context(seed=seed, source=source.name_for(out))
    load = functools.partial(load_train, source)
    return validate_all({out: recipe}, load, engine, folds=folds, repeat=repeat, context=context)[0]


def validate_all(
    recipes: Mapping[Path, Recipe],
    load: Callable[[], TrainingRows],
    engine: Engine | None,
    *,
    folds: int,
    repeat: int,
    context: Context,
) -> list[Validation]:
    """Cross-validate recipes on the same rows and folds, each in the folder that is its key, see ``validate``.

    The rows are loaded when the devices are found, see ``devices.import_backend``.
    """
    engine = engine or Engine()
    devices, rows = engine.find_devices([*recipes.values()]), load()
    for out, recipe in recipes.items():
        _check_folder(out, recipe, rows, folds=folds, seed=context.seed)
    pieces = []
    for device, (out, recipe) in zip(devices, recipes.items(), strict=True):
        for number in range(repeat):
            folder = out if number == 0 else out / f"repeat-{number + 1}"
            own = replace(context, device=device, seed=context.seed + number)
            pieces += fold_pieces(recipe, folder, folds, context=own)
    trained = finished(engine.train(pieces, rows))
    validations = []
    for out, recipe in recipes.items():
        runs, readings = [], []
        for number in range(repeat):
            fold = fold_rows(rows, folds, seed=context.seed + number)
            probabilities = np.empty((len(rows), CLASSES))
            for held_out, run in enumerate(itertools.islice(trained, folds)):
                runs.append(run)
                probabilities[fold == held_out] = run.probabilities
            readings.append(probabilities)
        right = np.mean([probabilities.argmax(axis=1) == rows.digits for probabilities in readings], axis=0)
        fields = _summary(recipe, rows, readings, runs)
        fields |= {"folds": folds, "seed": context.seed, "data": context.source, "commit": find_commit()}
        validations.append(Validation(out, recipe, fields, rows.digits, np.mean(readings, axis=0), right))
        _write(validations[-1], rows.pixels)
    return validations


def fold_pieces(recipe: Recipe, folder: Path, folds: int, *, context: Context) -> list[Piece]:
    """Return a training for each fold, on all other folds.

    Args:
        recipe: what to train.
        folder: gets a run folder for each fold, 1-of-5 and so on. Existing runs are not trained again.
        folds: how many folds.
        context: where to train. Its seed is that of the folds; each training has its own.
    """
    return [
        Piece(
            recipe,
            member_folder(folder, fold + 1, folds),
            replace(
                context,
                seed=member_seed(context.seed, fold + 1, folds),
                split=Split(seed=context.seed, folds=folds, fold=fold),
            ),
        )
        for fold in range(folds)
    ]


def finished(runs: Iterable[Run | Exception]) -> Iterator[Run]:
    """Yield the runs of an engine, and raise the first failure."""
    for run in runs:
        if isinstance(run, Exception):
            raise run
        yield run


def _check_folder(out: Path, recipe: Recipe, rows: TrainingRows, *, folds: int, seed: int) -> None:
    """Check that a folder holds no validation of another kind."""
    file = out / JSON_FILE
    if not file.exists():
        return
    with readable(file):
        kept = read_json(file)
        is_same = (kept["folds"], kept["seed"], kept["rows"]) == (folds, seed, len(rows))
        is_same = is_same and from_json(kept["recipe"]).settings() == recipe.settings()
    if not is_same:
        raise RunError(
            f"{out}: holds a validation of other settings, rows or folds. Expected the same ones. Name another folder."
        )


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Say which file or folder is damaged if reading it fails.

    Raises:
        RunError: it does.
    """
    try:
        yield
    except (OSError, LookupError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise RunError(
            f"{file}: not readable ({type(error).__name__}: {error}). Expected what this version of kaggle-digits "
            "writes there. Repeat the command that made it, or name another folder."
        ) from error


def _summary(recipe: Recipe, rows: TrainingRows, readings: Sequence[np.ndarray], runs: Sequence[Run]) -> dict[str, Any]:
    accuracies = [accuracy(probabilities, rows.digits) for probabilities in readings]
    mean = float(np.mean(accuracies))
    by_fold = [run.accuracy or 0.0 for run in runs]
    read = [probabilities.argmax(axis=1) for probabilities in readings]
    of_digits = [rows.digits == digit for digit in range(CLASSES)]
    return {
        "recipe": to_json(recipe),
        "repeat": len(readings),
        "rows": len(rows),
        "accuracy": mean,
        "standard_error": standard_error(mean, len(rows)),
        "accuracies": accuracies,
        "fold_accuracies": by_fold,
        "fold_std": float(np.std(by_fold, ddof=1)),
        "digit_accuracies": [
            float(np.mean([(digits[own] == digit).mean() for digits in read])) if own.any() else None
            for digit, own in enumerate(of_digits)
        ],
        "mistakes": round((1 - mean) * len(rows)),
        "seconds": round(sum(run.seconds + run.validation_seconds for run in runs), 1),
        "parameters": runs[0].parameters,
        "device": device_to_json(runs[0].device),
        "versions": runs[0].versions,
    }


def suspect_labels(probabilities: np.ndarray, digits: np.ndarray) -> np.ndarray | None:
    """Return the rows whose label looks wrong, the most suspicious first.

    A label looks wrong if another digit is read at least as surely as that digit is on rows with its own label. Only a
    good network can judge labels.

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


def _write(validation: Validation, pixels: np.ndarray) -> None:
    from kaggle_digits.analysis.plots import plot_worst, surest_mistakes  # takes two seconds to import

    folder, probabilities, digits = validation.folder, validation.probabilities, validation.digits
    read, certainty = probabilities.argmax(axis=1), probabilities.max(axis=1)
    head = ("row", "label", "read", "certainty")

    def cells(row: Any) -> tuple[int, int, int, str]:
        return int(row) + 1, int(digits[row]), int(read[row]), f"{certainty[row]:.4f}"  # row 1 is below the header

    write_csv(folder / MISTAKES_FILE, head, map(cells, surest_mistakes(probabilities, digits)))
    suspects = suspect_labels(probabilities, digits)
    write_csv(folder / LABELS_FILE, head, map(cells, [] if suspects is None else suspects))
    write_csv(
        folder / ROWS_FILE,
        (*head, "right", *(f"p{digit}" for digit in range(CLASSES))),
        (
            (*cells(row), f"{validation.right[row]:.4g}", *(f"{p:.6f}" for p in probabilities[row]))
            for row in range(len(digits))
        ),
    )
    with atomic_path(folder / PICTURE_FILE) as path:
        plot_worst(pixels, probabilities, digits, most=60).savefig(path, dpi=110)
    write_json(folder / JSON_FILE, validation.fields)


def write_csv(file: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, whole or not at all."""
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


def compare_pair(first: tuple[str, np.ndarray], second: tuple[str, np.ndarray]) -> Pair:
    """Compare two recipes by the rows that only one of them reads right.

    Args:
        first, second: the name, and (N,) how often each row is read right: 0 or 1, or a share with repeats.
    """
    from scipy.stats import binomtest, norm

    differences = first[1] - second[1]
    only_first, only_second = int((differences > 0).sum()), int((differences < 0).sum())
    difference, error = float(differences.mean()), float(differences.std() / math.sqrt(len(differences)))
    if not only_first + only_second:
        p = 1.0
    elif np.isin(differences, (-1, 0, 1)).all():
        p = float(binomtest(only_first, only_first + only_second).pvalue)
    else:
        p = float(2 * norm.sf(abs(difference) / error)) if error else 0.0
    return Pair(first[0], second[0], only_first, only_second, difference, error, p)


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
    for rank, number in enumerate(sorted(range(len(pairs)), key=lambda index: pairs[index].p)):
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
    engine: Engine | None = None,
) -> tuple[list[Validation], list[Pair]]:
    """Cross-validate several recipes on the same folds, and say which of each pair is better.

    Each gets a folder of its own in ``out``. ``folds.json`` and ``folds.csv`` hold the figures of all.

    Args:
        recipes: what to compare.
        out: the folder to write.
        data, folds, repeat, seed, engine: as in ``validate``.

    Returns:
        the result for each recipe, and for each pair.

    Raises:
        InputError, RunError, TrainingError: as in ``validate``.
    """
    source = find_source(data)
    context = Context(seed=seed, source=source.name_for(out))
    named = {out / recipe.name: recipe for recipe in recipes}
    load = functools.partial(load_train, source)
    validations = validate_all(named, load, engine, folds=folds, repeat=repeat, context=context)
    pairs = [compare_pair(*two) for two in itertools.combinations([(v.recipe.name, v.right) for v in validations], 2)]
    fields = {"recipes": [recipe.name for recipe in recipes], "pairs": [asdict(pair) for pair in pairs]}
    write_json(out / COMPARISON_FILE, fields)
    columns = ("accuracy", "standard_error", "fold_std", "mistakes", "seconds", "parameters")
    table = ([found.recipe.name, *(found.fields[name] for name in columns)] for found in validations)
    write_csv(out / PAIRS_FILE, ("recipe", *columns), table)
    return validations, pairs


def load_validation(folder: Path) -> Validation:
    """Load the result of cross-validation from a folder.

    Raises:
        RunError: it holds no validation, or a file in it is damaged.
    """
    with readable(folder):
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
    return Validation(folder, recipe, fields, digits, table[:, 5:], table[:, 4])
