"""From ``train.csv`` and ``test.csv`` of Kaggle's digit-recognizer competition to a checked ``submission.csv``.

The files become arrays (``data``). A recipe says what to train and how (``recipe``, ``recipes``); a strategy says where
(``strategy``). A learner turns recipe and rows into a trained predictor in a run folder (``models``, ``train``,
``run``). The arg-max of every prediction becomes a line of the submission file (``submission``), which is checked, and
uploaded if the user asks for it (``kaggle``). ``submit`` is the whole job. ``digits`` has the vocabulary.

Importing this package is quick: the names in ``__all__`` are imported when they are first used.
"""

from importlib import import_module

from kaggle_digits.digits import __version__ as __version__

_MODULES = {
    "data": ("TrainingRows", "find_source", "load_test", "load_train", "split_rows"),
    "digits": ("CLASSES", "PIXELS", "SIDE", "one_hot"),
    "errors": ("DigitsError",),
    "handwriting.page": ("Digit", "Page"),
    "handwriting.reader": ("Reader", "read_picture"),
    "kaggle.records": ("write_checked",),
    "learners": ("Context", "load_run"),
    "recipes.python": ("from_keras",),
    "recipe": ("Classical", "Ensemble", "Network"),
    "recipes": ("RECIPES", "find_recipe"),
    "run": ("Run",),
    "strategy": ("device_of",),
    "submission": ("check_submission", "predict_digits"),
    "submit": ("make_submission", "plan_submission"),
    "train": ("train_run",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)  # the next time it is found at once
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
