"""Run the command line with short pauses: each one, ours or the Kaggle client's, takes at most 20 ms.

The pauses requested, in seconds, are written to the file named by $PAUSES_FILE, one per line.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from kaggle_digits.kaggle import client as connection

really_sleep = time.sleep


def sleep(seconds: float) -> None:
    with Path(os.environ["PAUSES_FILE"]).open("a") as stream:
        print(seconds, file=stream)
    really_sleep(min(seconds, 0.02))


if __name__ == "__main__":
    from kaggle_digits.cli import main

    time.sleep = sleep
    # Requests wait at most a second for an answer.
    connection.TIMEOUT = (1.0, 1.0)
    raise SystemExit(main())
