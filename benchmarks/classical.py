"""Time the six classical methods of scikit-learn on the whole competition: trained on 42,000 rows, predicting 28,000.

    .venv/bin/python benchmarks/classical.py --data digit-recognizer.zip

For each method it prints the seconds to train and to predict, beside the seconds that the author of the published
comparison needed. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import time

from kaggle_digits.data import find_source, load_test, load_train
from kaggle_digits.digits import PIXELS
from kaggle_digits.learners.classical import estimate_probabilities, fit_estimator
from kaggle_digits.learners.images import to_images
from kaggle_digits.recipe import Classical
from kaggle_digits.recipes import RECIPES


def main() -> None:
    """Print one row per method, and a last row with the sum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the competition's data")
    source = find_source(parser.parse_args().data)
    rows, test_pixels = load_train(source), load_test(source)
    total = 0.0
    print("| recipe | train (s) | predict (s) | published, both (s) |")
    for recipe in RECIPES.values():
        if not isinstance(recipe, Classical) or recipe.source != RECIPES["svm"].source:
            continue
        started = time.perf_counter()
        images = to_images(rows.pixels, recipe).reshape(-1, PIXELS)
        learned = fit_estimator(recipe, images, rows.digits, seed=0)
        trained = time.perf_counter()
        estimate_probabilities(recipe, learned, to_images(test_pixels, recipe).reshape(-1, PIXELS))
        ended = time.perf_counter()
        total += ended - started
        published = f"{recipe.published_seconds:,g}" if recipe.published_seconds else ""
        print(f"| `{recipe.name}` | {trained - started:.1f} | {ended - trained:.1f} | {published} |", flush=True)
    print(f"| all | {total:.1f} | | {sum(r.published_seconds or 0 for r in RECIPES.values()):,g} |")


if __name__ == "__main__":
    main()
