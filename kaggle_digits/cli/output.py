"""Print progress and errors in characters that the terminal can show, and find the exit code."""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

from kaggle_digits.errors import DigitsError

ASCII = {"±": "+/-", "–": "-", "−": "-", "×": "x", "…": "...", "“": '"', "”": '"', "·": "."}
"""Replacements for characters that a terminal cannot show."""


STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals of a scheduler that ends a job, and of a terminal that is closed. Windows has only the first."""


class _Stopped(KeyboardInterrupt):
    """One of these signals, which ends the work like Ctrl+C. The argument is its number."""


def _stop(number: int, _: object) -> NoReturn:
    for each in STOPPING:  # a second one, as closed terminals send it, must not disturb the end
        signal.signal(each, signal.SIG_IGN)
    raise _Stopped(number)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Let ``STOPPING`` end the work like Ctrl+C. Ignored signals, as under nohup, stay ignored."""
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
    """Print to the terminal. Do nothing if it is gone."""
    if sys.stderr:
        with contextlib.suppress(OSError):
            print(fitted(text, sys.stderr), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a result."""
    print(fitted(text, sys.stdout), flush=True)


def fitted(text: str, stream: TextIO) -> str:
    """Break lines between words where they are longer than a terminal is wide. Files and pipes get them whole.

    If a line begins with a word and two spaces, the next lines are indented to the text after them.
    """
    if not stream or not stream.isatty():
        return text
    width = max(20, shutil.get_terminal_size().columns)
    lines = []
    for line in text.splitlines():
        if len(line) <= width:
            lines.append(line)
            continue
        head = re.match(r"\S+ {2,}", line)
        indent = " " * len(head[0] if head else "")
        lines += textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


class FittedHandler(logging.StreamHandler):
    """Logs to stderr, in lines that fit the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message."""
        return fitted(super().format(record), self.stream)


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
        say(" ".join(["Interrupted.", *getattr(error, "__notes__", [])]))
        return 128 + (error.args[0] if isinstance(error, _Stopped) else signal.SIGINT)
    return 0


def _drop_output() -> None:
    """Discard unprinted output. Otherwise Python tries again at its end, and complains."""
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


@contextlib.contextmanager
def kept_if_interrupted(note: str) -> Iterator[None]:
    """If the work is interrupted, also say what is kept and how to continue."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note(note)
        raise


class TrainingProgress:
    """Shows a training while it runs: a bar on a terminal, one line for each epoch elsewhere, and the time left.

    It is a ``learners.Progress``. Use it in a ``with`` statement. The training goes on if the terminal is gone.

    Args:
        quiet: whether to show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bar: Any = None
        self.task: Any = None
        self.shown = 0.0
        self.clock = _Clock()

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            with contextlib.suppress(OSError):
                self.bar.stop()

    def step(self, done: int, total: int) -> None:
        """Move the bar, which appears with the first step."""
        if self.quiet:
            return
        self.clock.tick(done / total)
        if not self.bar and sys.stderr and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), console=Console(stderr=True)
            )
            with contextlib.suppress(OSError):
                self.bar.start()
            self.task = self.bar.add_task("training", total=total)
        # Ten times a second is enough for people, and costs training nothing.
        if self.bar and (done == total or time.monotonic() - self.shown > 0.1):
            with contextlib.suppress(OSError):
                left = self.clock.left()
                self.bar.update(
                    self.task, completed=done, total=total, description=f"training, {left}" if left else "training"
                )
            self.shown = time.monotonic()

    def epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        """Print the metrics of an epoch."""
        if self.quiet:
            return
        left = self.clock.left()
        held_out = metrics.get("validation_accuracy")
        line = (
            f"epoch {metrics['epoch']}/{epochs}  loss {metrics['loss']:.4f}  accuracy {metrics['accuracy']:.2%}"
            + (f"  held out {held_out:.2%}" if held_out is not None else "")
            + f"  {metrics['seconds']:.1f} s"
            + (f", {left.removeprefix('about ')}" if left else "")
        )
        if not self.bar:
            say(line)
            return
        with contextlib.suppress(OSError):
            self.bar.console.print(line, highlight=False)


class _Clock:
    """Estimates the remaining time from the speed so far.

    Resumed work takes no time and must not count. It appears as a jump that is much larger than a step.
    """

    JUMP = 100
    """A jump this many times as large as the smallest step is resumed work, not progress."""

    def __init__(self) -> None:
        self.share = self.counted = self.seconds = 0.0
        self.least = 1.0
        self.last: float | None = None

    def tick(self, share: float) -> None:
        """Note that a share of all work is done, 0–1."""
        now, more = time.monotonic(), share - self.share
        if self.last is not None and 0 < more < self.JUMP * self.least:
            self.counted += more
            self.seconds += now - self.last
        if more > 0:
            self.least = min(self.least, more)
        self.share, self.last = share, now

    def left(self) -> str:
        """Say how long the rest will take; "" if that is not known yet, or nothing is left."""
        if not self.counted or self.seconds < 1 or self.share >= 1:
            return ""
        seconds = (1 - self.share) * self.seconds / self.counted
        if seconds >= 5400:
            return f"about {seconds / 3600:.1f} hours left"
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {max(1, seconds):.0f} s left"


def describe_counts(counts: list[int]) -> str:
    """Return how often each digit was predicted, for people."""
    return "  ".join(f"{digit}: {count:,}" for digit, count in enumerate(counts))
