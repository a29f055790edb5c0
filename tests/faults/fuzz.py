"""Fuzz a reader of files, guided by the coverage of its code: ``python tests/faults/fuzz.py TARGET EXECUTIONS FOLDER``.

What was found to be interesting is kept in the folder. A fault, more than 5 seconds for one file, or 1 GB more than
before end it with an exit code other than 0; the file lies in the folder, too.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]
MOST_SECONDS = 5
"""Of the processor, for one file: the machine may do other things."""


def main(name: str, executions: int, folder: Path) -> None:
    """Fuzz a target."""
    import atheris

    with atheris.instrument_imports(include=["kaggle_digits", "PIL"], enable_loader_override=False):
        from targets import TARGETS, prepare
    prepare()
    target = TARGETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
        target.read(seed)  # what is loaded once is loaded now
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 + 1024

    def read(contents: bytes) -> None:
        started = time.process_time()
        target.read(contents)
        if time.process_time() - started > MOST_SECONDS:
            raise TimeoutError(f"more than {MOST_SECONDS} s")

    limits = ["-timeout=60", f"-rss_limit_mb={most}", f"-max_len={target.longest}", f"-runs={executions}"]
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", f"-artifact_prefix={folder}/", str(folder)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
