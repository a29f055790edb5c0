"""From ``train.csv`` and ``test.csv`` of Kaggle's digit-recognizer competition to a checked ``submission.csv``.

The files become arrays (``data``). A recipe says what to train and how (``recipe``, ``recipes``); a strategy says where
(``strategy``). A learner turns recipe and rows into a trained predictor in a run folder (``learners``, ``train``,
``runs``). The arg-max of every prediction becomes a line of the submission file (``predict``, ``submission``), which is
checked, and uploaded if the user asks for it (``kaggle``). ``pipeline`` is the whole job.

========================== ============================================ ===========================================
word                       means                                        shape, dtype, range
========================== ============================================ ===========================================
``pixels``                 rows as Kaggle ships them                    (N, 784) uint8, 0–255, ink is bright
``images``                 what models eat                              (N, 28, 28, 1) float32, scaled by the recipe
``digits``                 the class as a number                        (N,) int64, 0–9
``labels``                 one-hot ``digits``                           (N, 10) float32
``logits, probabilities``  model output                                 (N, 10) float32
========================== ============================================ ===========================================

Importing this package is quick: the names in ``__all__`` are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ finds, for type checkers
    from kaggle_digits.data import TrainingRows, find_source, load_test, load_train, one_hot, split_rows
    from kaggle_digits.errors import DigitsError
    from kaggle_digits.handwriting.page import Digit, Page
    from kaggle_digits.handwriting.reader import Reader, read_picture
    from kaggle_digits.own import from_keras
    from kaggle_digits.pipeline import make_submission, plan_submission
    from kaggle_digits.predict import load_run, predict_digits, write_checked
    from kaggle_digits.recipe import Classical, Ensemble, Network
    from kaggle_digits.recipes import RECIPES, find_recipe
    from kaggle_digits.runs import Run
    from kaggle_digits.submission import check_submission
    from kaggle_digits.train import train_run

__version__ = "0.1.0"

SIDE = 28
"""Pixels along each side of an image."""
PIXELS = SIDE * SIDE
"""Pixels in an image, and columns of ``pixels``."""
CLASSES = 10
"""The ten digits."""

__all__ = [
    "CLASSES",
    "PIXELS",
    "RECIPES",
    "SIDE",
    "Classical",
    "Digit",
    "DigitsError",
    "Ensemble",
    "Network",
    "Page",
    "Reader",
    "Run",
    "TrainingRows",
    "check_submission",
    "find_recipe",
    "find_source",
    "from_keras",
    "load_run",
    "load_test",
    "load_train",
    "make_submission",
    "one_hot",
    "plan_submission",
    "predict_digits",
    "read_picture",
    "split_rows",
    "train_run",
    "write_checked",
]

_MODULES = {
    "data": ("TrainingRows", "find_source", "load_test", "load_train", "one_hot", "split_rows"),
    "errors": ("DigitsError",),
    "handwriting.page": ("Digit", "Page"),
    "handwriting.reader": ("Reader", "read_picture"),
    "own": ("from_keras",),
    "pipeline": ("make_submission", "plan_submission"),
    "predict": ("load_run", "predict_digits", "write_checked"),
    "recipe": ("Classical", "Ensemble", "Network"),
    "recipes": ("RECIPES", "find_recipe"),
    "runs": ("Run",),
    "submission": ("check_submission",),
    "train": ("train_run",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value  # the next time it is found at once
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
