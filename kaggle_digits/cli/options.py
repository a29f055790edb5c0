"""What a verb is, the options that several verbs share, and how the values of options are parsed."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_digits.devices.backend import BACKENDS
from kaggle_digits.files import expand_home
from kaggle_digits.recipes import DEFAULT_RECIPE
from kaggle_digits.strategy import DEVICES

SEEDS = 2**32
"""Seeds are whole numbers from 0 to one less than this, the range that NumPy, scikit-learn and Keras all accept."""


@dataclass(frozen=True)
class Option:
    """An argument of a verb, as ``argparse.ArgumentParser.add_argument`` takes it.

    Args:
        names: the names of the argument.
        settings: all other arguments of ``add_argument``.
        group: title and text of its group in ``--help``, or None.
    """

    names: tuple[str, ...]
    settings: dict[str, Any]
    group: tuple[str, str] | None = None


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Args:
        run: does the work; takes the options by name.
        text: what it does, for ``--help``.
        options: the options that it takes.
    """

    run: Callable[..., None]
    text: str
    options: tuple[Option, ...]

    @property
    def name(self) -> str:
        """The word for it on the command line."""
        return self.run.__name__


def verb(text: str, *options: Option) -> Callable[[Callable[..., None]], Verb]:
    """Turn the function below into a verb. Its parameters are the options."""
    return lambda run: Verb(run, text, options)


def option(*names: str, group: tuple[str, str] | None = None, **settings: Any) -> Option:
    """Return an option, as ``add_argument`` takes it."""
    return Option(names, settings, group)


def path(text: str) -> Path:
    """Parse a path, in which ~ is the home folder."""
    return expand_home(text)


def seed(text: str) -> int:
    """Parse a seed."""
    if not (text.isascii() and text.isdigit() and int(text) < SEEDS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {SEEDS - 1}")
    return int(text)


def count(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def index(text: str) -> int:
    """Parse a whole number of 0 or more."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def probability(text: str) -> float:
    """Parse a probability."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def several(text: str) -> int:
    """Parse a number of folds."""
    number = count(text)
    if number < 2:
        raise argparse.ArgumentTypeError("1 fold leaves nothing to train on")
    return number


DATA = option(
    "--data",
    metavar="PATH",
    help="a folder, the competition's zip, a CSV file, or the word sample; by default the first found among "
    "$KDIGITS_DATA, Kaggle's mounts, ./data and the download cache, else sample",
)
BACKEND = option(
    "--backend",
    choices=BACKENDS,
    help="what computes under Keras (default: $KERAS_BACKEND if set, JAX on a TPU that only JAX can use, else "
    "TensorFlow)",
)
DEVICE = option("--device", choices=DEVICES, default="auto", help="where to train (default: %(default)s)")
SEED = option("--seed", type=seed, default=0, metavar="N", help="same seed, same result (default: %(default)s)")
RECIPE = option(
    "--recipe",
    default=DEFAULT_RECIPE,
    metavar="NAME|FILE",
    help="see the verb recipes; or a .toml or .py of your own (default: %(default)s)",
)
EPOCHS = option("--epochs", type=count, metavar="N", help="the number of epochs, instead of the recipe's own")
ONE_RUN = option("--run", type=path, metavar="DIR", help="a run folder (default: the package's small network)")
FORCE = option("--force", action="store_true", help="replace FILE if it exists")
MESSAGE = option(
    "-m",
    "--message",
    metavar="TEXT",
    help="the description of the submission, with --upload (default: recipe, seed and accuracy)",
)
QUIET = option("--quiet", action="store_true", help="print only results, warnings and errors")
JSON = option("--json", action="store_true", help="print the result as one line of JSON, for scripts")
TRAINING = (DATA, DEVICE, BACKEND, SEED, QUIET)
