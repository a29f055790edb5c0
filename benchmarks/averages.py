"""Compare averages of raw and of calibrated probabilities of several recipes, on rows that none of them saw.

    .venv/bin/kaggle-digits compare --recipes flash,fast,knn --folds 5 --data digit-recognizer.zip --out folds
    .venv/bin/python benchmarks/averages.py folds

The temperature of each half of a fold is fitted on its other half, so no row calibrates itself.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from kaggle_digits.analysis.validate import COMPARISON_FILE, Validation, load_validation
from kaggle_digits.data import TrainingRows, fold_rows
from kaggle_digits.digits import calibrate, fit_temperature
from kaggle_digits.files import read_json


def calibrated(found: Validation) -> np.ndarray:
    """Return the out-of-fold probabilities of a recipe, calibrated, (N, 10)."""
    digits, seed = found.digits, found.fields["seed"]
    fold = fold_rows(TrainingRows(np.zeros((len(digits), 1)), digits), found.fields["folds"], seed=seed)
    half = np.random.default_rng(seed).integers(0, 2, len(digits))
    probabilities = np.empty_like(found.probabilities)
    for number, part in itertools.product(range(found.fields["folds"]), (0, 1)):
        other, own = (fold == number) & (half != part), (fold == number) & (half == part)
        temperature = fit_temperature(found.probabilities[other], digits[other])
        probabilities[own] = calibrate(found.probabilities[own], temperature)
    return probabilities


def main() -> None:
    """Print the mistakes of both averages for all pairs and triples of recipes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what compare --folds has left")
    folder = parser.parse_args().folder
    found = [load_validation(folder / name) for name in read_json(folder / COMPARISON_FILE)["recipes"]]
    digits = found[0].digits
    forms = {each.recipe.name: (each.probabilities, calibrated(each)) for each in found}
    for count in (1, 2, 3):
        for names in itertools.combinations(forms, count):
            raw, after = (
                np.mean([forms[name][form] for name in names], axis=0).argmax(axis=1) != digits for form in (0, 1)
            )
            differences = raw.astype(int) - after
            error = differences.std() * len(digits) ** 0.5
            print(f"{' + '.join(names):45} {raw.sum():6} {after.sum():6} {differences.sum():+6} ± {error:.0f}")


if __name__ == "__main__":
    main()
