"""The command line, ``kaggle-digits VERB``.

Each verb is a function, with its options right above it, in the module of its family. Only the family of the typed verb
is imported. Slow modules are imported inside the functions, which keeps ``--help`` quick.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from kaggle_digits.cli.output import FittedHandler, exit_code_of, print_anywhere
from kaggle_digits.devices import BACKENDS, collect_little
from kaggle_digits.digits import __version__
from kaggle_digits.errors import InputError, did_you_mean
from kaggle_digits.files import expand_home
from kaggle_digits.recipes import DEFAULT_RECIPE
from kaggle_digits.strategy import DEVICES

VERBS = {
    "submit": "submission",
    "recipes": "training",
    "train": "training",
    "validate": "training",
    "predict": "prediction",
    "compare": "training",
    "tune": "training",
    "recognize": "handwriting",
    "pad": "handwriting",
    "report": "training",
    "export": "training",
    "devices": "training",
    "check": "prediction",
    "download": "kaggle",
    "upload": "kaggle",
    "kernel": "kaggle",
}
"""The verbs, and the module of each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 1 the work failed, 2 the input is wrong, from 129 on interrupted."""
    print_anywhere()
    collect_little()
    arguments = sys.argv[1:] if arguments is None else arguments
    typed = next(iter(arguments), "")
    parser = build_parser([typed] if typed in VERBS else VERBS)
    if not arguments:
        parser.print_help(sys.stderr)
        parser.exit(InputError.exit_code)
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(format="%(message)s", handlers=[FittedHandler(sys.stderr)])
    logging.getLogger("tensorflow").addFilter(_is_not_about_retracing)
    logging.getLogger("kaggle_digits").setLevel(logging.WARNING if options.get("quiet") else logging.INFO)
    verb: Verb = options.pop("verb")
    return exit_code_of(lambda: verb.run(**options))


def _is_not_about_retracing(record: logging.LogRecord) -> bool:
    """Leave out a warning of TensorFlow, which takes the tracing of several networks for a loop."""
    return "retracing" not in record.getMessage()


class _Parser(argparse.ArgumentParser):
    """A parser that helps users who mistype a verb."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and end with exit code 2."""
        if mistyped := re.match(r"argument VERB: invalid choice: '(.*?)' \(choose", message):
            hint = did_you_mean(mistyped[1], VERBS) or " `kaggle-digits --help` describes them."
            message = f"{mistyped[1]}: no such verb. Expected one of {', '.join(VERBS)}.{hint}"
        super().error(message)


class _PrintCompletion(argparse.Action):
    """Print a shell's completion script, and end."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, shell: Any, __: object = None) -> None:
        import shtab

        from kaggle_digits.recipes import RECIPES

        verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        for action in (action for command in verbs.choices.values() for action in command._actions):
            if action.type is path or action.metavar == "PATH":
                action.complete = shtab.FILE
            elif action.dest == "recipe":
                action.choices = list(RECIPES)
        print(shtab.complete(parser, shell))
        parser.exit()


def build_parser(names: Iterable[str] = VERBS) -> argparse.ArgumentParser:
    """Build the parser of some verbs and their options."""
    parser = _Parser(
        prog="kaggle-digits",
        description="From train.csv and test.csv of Kaggle's digit-recognizer competition to a checked submission.csv.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        default=argparse.SUPPRESS,
        choices=("bash", "zsh", "tcsh"),
        help="print a completion script for your shell, as in: source <(kaggle-digits --print-completion bash)",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name in names:
        verb: Verb = getattr(import_module(f"kaggle_digits.cli.{VERBS[name]}"), name)
        command = verbs.add_parser(verb.name, help=verb.text, description=f"{verb.text[0].upper()}{verb.text[1:]}.")
        command.set_defaults(verb=verb)
        groups: dict[str, argparse._ArgumentGroup] = {}
        for option in verb.options:
            place: argparse.ArgumentParser | argparse._ArgumentGroup = command
            if option.group:
                title, text = option.group
                place = groups[title] = groups.get(title) or command.add_argument_group(title, text)
            place.add_argument(*option.names, **option.settings)
    return parser


# The type of a verb, the options that several verbs share, and the parsing of their values.

SEEDS = 2**32
"""Seeds are whole numbers below this, the range that NumPy, scikit-learn and Keras all accept."""


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
ENGINE = (
    option(
        "--workers", type=count, metavar="N", help="train N at a time, in processes with one thread each (needs dask)"
    ),
    option("--scheduler", metavar="ADDRESS", help="train on the workers of a Dask cluster, such as tcp://HOST:8786"),
)
TRAINING = (DATA, DEVICE, BACKEND, SEED, QUIET)
