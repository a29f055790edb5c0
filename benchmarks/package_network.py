"""Make the network that comes with the package from a run folder.

    kaggle-digits train --recipe handwriting --data digit-recognizer.zip --run network
    .venv/bin/python benchmarks/package_network.py network

The kernels are stored in half precision, so that twice as many weights fit.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from kaggle_digits.files import write_arrays
from kaggle_digits.learners import PACKAGED_RUN
from kaggle_digits.run import MODEL_FILE, read_run


def main() -> None:
    """Write the two files of the packaged run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run folder of a network")
    options = parser.parse_args()
    run = read_run(options.run)
    with np.load(options.run / MODEL_FILE) as saved:
        weights = dict(saved)
    halved = {name: weight.astype(np.float16) if weight.ndim > 1 else weight for name, weight in weights.items()}
    write_arrays(PACKAGED_RUN / MODEL_FILE, halved, compressed=True)
    replace(run, folder=PACKAGED_RUN, source=Path(run.source).name).with_checksums().save()
    print(sum(file.stat().st_size for file in PACKAGED_RUN.iterdir()), "bytes")


if __name__ == "__main__":
    main()
