"""Measure what workers are worth, and what they cost.

    .venv/bin/python benchmarks/many.py --data digit-recognizer.zip

The time of five folds of ``mlp-784-300`` with two seeds, for one epoch: in this process, with one and with two workers
of Dask, and with two plain processes of Python that share nothing. Then the time that Dask takes for each of 1,000
empty pieces.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaggle_digits.analysis.cluster import ONE_THREAD, open_engine
from kaggle_digits.analysis.engine import Piece
from kaggle_digits.analysis.validate import compare_folds, fold_pieces
from kaggle_digits.data import find_source, load_train
from kaggle_digits.learners import Context
from kaggle_digits.recipes import RECIPES
from kaggle_digits.strategy import device_of

RECIPE = replace(RECIPES["mlp-784-300"], epochs=1)


def _prepare(data: str | None) -> None:
    global _rows  # each process reads them once
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    _rows = load_train(find_source(data))


def _train(piece: Piece) -> float | None:
    return replace(piece, context=replace(piece.context, device=device_of(piece.recipe))).train(_rows, None).accuracy


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="the competition's data")
    parser.add_argument("--pieces", type=int, default=1000, help="empty pieces")
    options = parser.parse_args()
    for workers in (None, 1, 2):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            with open_engine(workers=workers) as engine:
                validated: Any = compare_folds([RECIPE], Path(folder), data=options.data, repeat=2, engine=engine)
            seconds = time.perf_counter() - started
        what = f"{workers} workers" if workers else "in this process, all cores"
        print(f"{what}: {seconds:.1f} s, {validated[0][0].fields['mistakes']} mistakes", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pieces = [
            piece
            for seed in (0, 1)
            for piece in fold_pieces(RECIPE, Path(folder, str(seed)), 5, context=Context(seed=seed))
        ]
        started = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(2, _prepare, (options.data,)) as pool:
            pool.map(_train, pieces, chunksize=1)
        print(f"2 plain processes: {time.perf_counter() - started:.1f} s", flush=True)
    with open_engine(workers=2) as engine:
        started = time.perf_counter()
        futures = [engine.client.submit(lambda number: number, number, pure=False) for number in range(options.pieces)]
        engine.client.gather(futures)
        print(f"{options.pieces} empty pieces: {1000 * (time.perf_counter() - started) / options.pieces:.1f} ms each")


if __name__ == "__main__":
    main()
