"""What the terminal shows: progress, errors and exit codes, in characters that it can show."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from kaggle_digits.errors import DigitsError

ASCII = {"±": "+/-", "–": "-", "−": "-", "×": "x", "…": "...", "“": '"', "”": '"', "·": "."}
"""Replacements for characters that a terminal cannot show."""


STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""The signals by which a scheduler ends a job, and a terminal that is closed. Windows has only the first."""


class _Stopped(KeyboardInterrupt):
    """One of these signals: it ends the work like Ctrl+C. Its argument is its number."""


def _stop(number: int, _: object) -> NoReturn:
    for each in STOPPING:  # a second one, as closed terminals send it, must not disturb the end
        signal.signal(each, signal.SIG_IGN)
    raise _Stopped(number)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Let ``STOPPING`` end the work like Ctrl+C. What is ignored, as under nohup, stays ignored."""
    if threading.current_thread() is not threading.main_thread():  # only this thread receives signals
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str) -> None:
    """Print to the terminal. If it is gone, nobody is there to read the text."""
    if sys.stderr:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def exit_code_of(work: Callable[[], object]) -> int:
    """Do the work of a verb, say what went wrong, and return the exit code."""
    with _stoppable():
        return _exit_code_of(work)


def _exit_code_of(work: Callable[[], object]) -> int:
    try:
        work()
        if sys.stdout:
            sys.stdout.flush()
    except DigitsError as error:
        say(f"kaggle-digits: {error}")
        return error.exit_code
    except BrokenPipeError:  # as in `kaggle-digits recipes | head`: the reader has seen enough
        _drop_output()
        return 1
    except OSError as error:  # a full disk, a folder that may not be written to
        say(
            f"kaggle-digits: {error}. Expected a file that can be read or written. Check its permissions and the space "
            "left on the disk."
        )
        _drop_output()
        return 1
    except KeyboardInterrupt as error:
        say("Interrupted.")
        return 128 + (error.args[0] if isinstance(error, _Stopped) else signal.SIGINT)
    return 0


def _drop_output() -> None:
    """Throw away what cannot be printed, or Python tries again when it ends, and complains."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


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

    It is a ``learners.Progress``. Use it in a ``with`` statement. The training goes on if the terminal is gone.
    """

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.shown = 0.0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            with contextlib.suppress(OSError):
                self.bar.stop()

    def step(self, done: int, total: int) -> None:
        """Move the bar, which appears with the first step."""
        if not self.bar and sys.stderr and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True))
            with contextlib.suppress(OSError):
                self.bar.start()
            self.task = self.bar.add_task("training", total=total)
        # Ten times a second is enough for people, and costs training nothing.
        if self.bar and (done == total or time.monotonic() - self.shown > 0.1):
            with contextlib.suppress(OSError):
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
        if not self.bar:
            say(line)
            return
        with contextlib.suppress(OSError):
            self.bar.console.print(line, highlight=False)
