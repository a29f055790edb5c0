"""Run the command line, and kill this process when it is about to change the N-th file: ``killed.py N submit …``.

With N = 0 nothing is killed, and the number of changes is printed at the end. A change is whatever makes, opens for
writing, renames or removes a file below the working folder.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = ("os.mkdir", "os.rename", "os.remove")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(wanted: int) -> Callable[[], int]:
    """Count changes of files, and end the process without a word before the wanted one. Return what tells the count."""
    place = f"{Path.cwd()}{os.sep}"
    seen = 0

    def see(event: str, arguments: tuple) -> None:
        nonlocal seen
        if not (event in CHANGES or (event == "open" and arguments[2] & WRITING)):
            return
        if isinstance(arguments[0], int) or not str(Path(os.fsdecode(arguments[0])).absolute()).startswith(place):
            return
        seen += 1
        if seen == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)
    return lambda: seen


if __name__ == "__main__":
    from kaggle_digits.cli import main

    count = watch(int(sys.argv[1]))
    code = main(sys.argv[2:])
    print(f"changes {count()}")
    raise SystemExit(code)
