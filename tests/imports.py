"""Run the command line until a backend is imported, and say whether pandas or pyarrow came before it.

Exit codes: 10 the backend came first, 11 it came after pandas or pyarrow; else that of the command, which needs none.
"""

from __future__ import annotations

import importlib.abc
import os
import sys

before = []


class Watch(importlib.abc.MetaPathFinder):
    """Sees each first import, and finds nothing itself."""

    def find_spec(self, name: str, *_: object) -> None:
        if sys._getframe(1).f_code.co_filename.endswith("importlib/util.py"):  # only asks whether it is installed
            return
        if name in ("tensorflow", "jax"):
            print(f"{name} was imported after {before}", file=sys.stderr, flush=True)
            os._exit(11 if before else 10)
        if name in ("pandas", "pyarrow"):
            before.append(name)


if __name__ == "__main__":
    sys.meta_path.insert(0, Watch())
    from kaggle_digits.cli import main

    raise SystemExit(main())
