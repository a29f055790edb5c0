"""Compare the networks of the package with ones that were trained again, or replace them.

    make networks DATA=digit-recognizer.zip
    .venv/bin/python benchmarks/package_network.py build/handwriting build/ink.npz --write

The same machine trains the same bytes. Another one rounds differently, so there the answers are compared: to the
sample's digits, and to pictures that ``compose`` makes of them. The kernels are stored in half precision, so that twice
as many weights fit.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from compose import Composer, Material

from kaggle_digits.data import find_source, load_test_rows, load_train
from kaggle_digits.devices import start_backend
from kaggle_digits.files import checksum, write_arrays
from kaggle_digits.handwriting.ink import NETWORK_FILE, InkFinder
from kaggle_digits.learners import PACKAGED_RUN, load_run
from kaggle_digits.run import MODEL_FILE, RUN_FILE, read_run
from kaggle_digits.strategy import device_of

SAME = 0.99
"""The share of answers that has to be the same on another machine."""


def package(run_folder: Path, out: Path) -> None:
    """Write the two files of the packaged run."""
    run = read_run(run_folder)
    with np.load(run_folder / MODEL_FILE) as saved:
        weights = dict(saved)
    halved = {name: weight.astype(np.float16) if weight.ndim > 1 else weight for name, weight in weights.items()}
    write_arrays(out / MODEL_FILE, halved, compressed=True)
    replace(run, folder=out, source=Path(run.source).name).with_checksums().save()


def same_digits(new: Path) -> float:
    """Return the share of the sample's digits that both networks read alike."""
    start_backend()
    sample = find_source("sample")
    pixels = np.concatenate([load_train(sample).pixels, load_test_rows(sample).pixels])
    read = [load_run(folder).predict(pixels).argmax(axis=1) for folder in (new, PACKAGED_RUN)]
    return float((read[0] == read[1]).mean())


def same_ink(new: Path) -> float:
    """Return how well the ink agrees that both networks find in composed pictures (Dice: 1 is the same)."""
    device = device_of(read_run(PACKAGED_RUN).recipe)
    material = Material.of(load_train(find_source("sample")).take(np.arange(200)))
    seeds = (np.random.default_rng([3, seed]) for seed in range(16))
    pictures = np.stack([Composer(material, 256, seed).compose().picture for seed in seeds]).astype(np.float32) / 255
    found, known = (np.asarray(InkFinder(device, file).network(pictures))[..., 0] > 0 for file in (new, NETWORK_FILE))
    return float(2 * (found & known).sum() / max(found.sum() + known.sum(), 1))


def main() -> int:
    """Compare or replace both networks, and return 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the run folder of the network that reads digits")
    parser.add_argument("ink", type=Path, help="the weights of the network that finds ink")
    parser.add_argument("--write", action="store_true", help="replace the networks of the package")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        package(options.run, folder)
        if options.write:
            shutil.copy(folder / MODEL_FILE, PACKAGED_RUN)
            shutil.copy(folder / RUN_FILE, PACKAGED_RUN)
            shutil.copy(options.ink, NETWORK_FILE)
            return 0
        differs = False
        for new, old, agree in (
            (folder / MODEL_FILE, PACKAGED_RUN / MODEL_FILE, lambda: same_digits(folder)),
            (options.ink, NETWORK_FILE, lambda: same_ink(options.ink)),
        ):
            if checksum(new) == checksum(old):
                print(f"{old.name}: the same bytes, SHA-256 {checksum(old)}")
                continue
            share = agree()
            differs |= share < SAME
            print(f"{old.name}: other bytes; {share:.2%} of the answers are the same, where {SAME:.0%} must be")
    return int(differs)


if __name__ == "__main__":
    raise SystemExit(main())
