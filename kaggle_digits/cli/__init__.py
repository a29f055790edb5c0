"""The command line, ``kaggle-digits VERB``.

Each verb is a function, with its options right above it, in the module of its family. Only the family of the verb that
was typed is imported, and whatever is slow to import is imported inside these functions, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from kaggle_digits.cli.options import Verb, path
from kaggle_digits.cli.output import FittedHandler, exit_code_of, print_anywhere
from kaggle_digits.devices.backend import collect_little
from kaggle_digits.digits import __version__
from kaggle_digits.errors import InputError, did_you_mean

VERBS = {
    "submit": "submission",
    "recipes": "training",
    "train": "training",
    "validate": "training",
    "predict": "submission",
    "compare": "training",
    "recognize": "handwriting",
    "pad": "handwriting",
    "report": "training",
    "export": "training",
    "devices": "training",
    "check": "submission",
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
    """Leave out a warning of TensorFlow. It takes several networks, each of which is traced anew, for a loop."""
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
