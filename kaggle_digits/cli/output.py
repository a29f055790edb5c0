"""What the terminal shows: progress, errors and exit codes, in characters that it can show."""

from __future__ import annotations

import codecs
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from kaggle_digits.errors import DigitsError

ASCII = {"±": "+/-", "–": "-", "−": "-", "×": "x", "…": "...", "“": '"', "”": '"', "·": "."}
"""Replacements for characters that a terminal cannot show."""


class _Stopped(KeyboardInterrupt):
    """SIGTERM, by which schedulers end a job: it ends like Ctrl+C."""


def _stop(*_: object) -> NoReturn:
    raise _Stopped


def exit_code_of(work: Callable[[], object]) -> int:
    """Do the work of a verb, say what went wrong, and return the exit code."""
    in_main_thread = threading.current_thread() is threading.main_thread()  # others cannot be told
    before = signal.signal(signal.SIGTERM, _stop) if in_main_thread else None
    try:
        work()
        sys.stdout.flush()
    except DigitsError as error:
        print(f"kaggle-digits: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # as in `kaggle-digits recipes | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written to
        print(
            f"kaggle-digits: {error}. Expected a file that can be read or written. Check its permissions and the space "
            "left on the disk.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt as error:
        print("Interrupted.", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(error, _Stopped) else signal.SIGINT)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
    return 0


def print_anywhere() -> None:
    """Replace characters that a terminal or a pipe cannot show, so that output never fails because of them."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        signs = error.object[error.start : error.end]
        plain = "".join(ASCII.get(sign, sign) for sign in signs)
        return plain.encode("ascii", "backslashreplace").decode("ascii"), error.end

    codecs.register_error("kaggle_digits", replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="kaggle_digits")


class TrainingProgress:
    """Shows a training while it runs: a bar on a terminal, one line for each epoch elsewhere.

    It is a ``learners.Progress``. Use it in a ``with`` statement.
    """

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.shown = 0.0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def step(self, done: int, total: int) -> None:
        """Move the bar, which appears with the first step."""
        if not self.bar and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task("training", total=total)
        # Ten times a second is enough for people, and costs training nothing.
        if self.bar and (done == total or time.monotonic() - self.shown > 0.1):
            self.bar.update(self.task, completed=done, total=total)
            self.shown = time.monotonic()

    def epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        """Print the metrics of an epoch."""
        held_out = metrics.get("validation_accuracy")
        line = (
            f"epoch {metrics['epoch']}/{epochs}  loss {metrics['loss']:.4f}  accuracy {metrics['accuracy']:.2%}"
            + (f"  held-out accuracy {held_out:.2%}" if held_out is not None else "")
            + f"  {metrics['seconds']:.1f} s"
        )
        if self.bar:
            self.bar.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)
