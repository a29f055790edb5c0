"""Train the network that finds the ink of digits in pictures, which comes with the package.

    .venv/bin/python benchmarks/package_ink.py --data digit-recognizer.zip --out ink.npz

It is trained on pictures that ``compose`` makes of 6,000 rows; a tenth of train.csv is held out. At the end it prints
how well the map of pictures of held-out rows agrees with the truth (Dice: 1 is perfect). Nothing is chosen by that. The
kernels are stored in half precision. The same machine makes the same file.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import tensorflow as tf
from compose import Composer, Material

from kaggle_digits.data import TrainingRows, find_source, load_train, split_rows
from kaggle_digits.files import write_arrays
from kaggle_digits.handwriting.ink import build_network

SIDE = 256
"""The side in pixels of the pictures."""


def _prepare(rows: TrainingRows) -> None:
    global _material  # each process prepares it once
    _material = Material.of(rows)


def _compose(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    composed = Composer(_material, SIDE, np.random.default_rng([seed, number])).compose()
    return composed.picture, composed.maps


def compose(rows: TrainingRows, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures (count, SIDE, SIDE, 3) and their maps (count, SIDE, SIDE, 2), uint8."""
    pictures, maps = (np.empty((count, SIDE, SIDE, channels), np.uint8) for channels in (3, 2))
    with multiprocessing.get_context("spawn").Pool(initializer=_prepare, initargs=(rows,)) as pool:
        composed = pool.imap(functools.partial(_compose, seed), range(count), chunksize=20)
        for number, (picture, of_picture) in enumerate(composed):
            pictures[number], maps[number] = picture, of_picture
    return pictures, maps


def batches(pictures: np.ndarray, maps: np.ndarray, *, size: int, epochs: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """Yield batches of pictures, each turned by quarters, inverted or with its colours exchanged at random."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in np.split(rng.permutation(len(pictures) // size * size), len(pictures) // size):
            views, of_views = [], []
            for row in rows:
                turns = int(rng.integers(0, 4)) if rng.random() < 0.4 else 0
                picture = 255 - pictures[row] if rng.random() < 0.1 else pictures[row]
                picture = picture[:, :, rng.permutation(3)] if rng.random() < 0.3 else picture
                views.append(np.rot90(picture, turns))
                of_views.append(np.rot90(maps[row], turns))
            yield np.stack(views), np.stack(of_views)


def loss_of(logits: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """Return cross-entropy, in which ink counts twice, plus half of 1 - Dice. Other writing counts half."""
    weights = [1.0, 0.5]
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(truth, logits)
    found = tf.sigmoid(logits)
    both, each = tf.reduce_sum(found * truth, [1, 2]), tf.reduce_sum(found + truth, [1, 2])
    dice = (2 * both + 50) / (each + 50)
    return tf.reduce_mean(entropy * (1 + truth) * weights) + 0.5 * tf.reduce_mean((1 - dice) * weights)


def train(pictures: np.ndarray, maps: np.ndarray, *, epochs: int, seed: int) -> keras.Model:
    """Train the network. (Keras' own loop takes twice as long on a CPU.)"""
    size = 8
    steps = len(pictures) // size * epochs
    keras.utils.set_random_seed(seed)
    network = build_network()
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 20, warmup_target=0.0035, warmup_steps=steps // 20
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-3, clipnorm=1.0)

    @tf.function(autograph=False)
    def step(views: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(network(tf.cast(views, tf.float32) / 255, training=True), tf.cast(truth, tf.float32) / 255)
        weights = network.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    mean, started = 0.0, time.perf_counter()
    for number, batch in enumerate(batches(pictures, maps, size=size, epochs=epochs, seed=seed), start=1):
        loss = float(step(*batch))
        mean = loss if number == 1 else 0.98 * mean + 0.02 * loss
        if number % 100 == 0:
            print(f"step {number} of {steps}  loss {mean:.4f}  {time.perf_counter() - started:.0f} s", flush=True)
    return network


def main() -> None:
    """Train, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="the competition's data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=6000, help="rows that the pictures are made of")
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=240, help="pictures to measure the result on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, others = split_rows(load_train(find_source(options.data)), fraction=0.1, seed=0)
    pictures, maps = compose(rows.take(np.arange(min(len(rows), options.rows))), options.pictures, seed=options.seed)
    held_out = compose(others, options.held_out, seed=options.seed + 1)
    network = train(pictures, maps, epochs=options.epochs, seed=options.seed)
    stored = {str(number): np.asarray(weight) for number, weight in enumerate(network.get_weights())}
    halved = {name: each.astype(np.float16) if each.ndim > 1 else each for name, each in stored.items()}
    write_arrays(options.out, halved, compressed=True)
    found = network.predict(held_out[0].astype(np.float32) / 255, batch_size=16, verbose=0) > 0
    for channel, what in enumerate(("ink of digits", "other writing")):
        one, other = found[..., channel], held_out[1][..., channel] > 127
        print(f"{what}: Dice {2 * (one & other).sum() / (one.sum() + other.sum()):.4f}")


if __name__ == "__main__":
    main()
