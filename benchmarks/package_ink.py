"""Train the network that finds the ink of digits in pictures, which comes with the package.

    .venv/bin/python benchmarks/package_ink.py --data digit-recognizer.zip --out ink.npz

It is trained on pictures that ``compose`` makes of training rows; a tenth of train.csv is held out. At the
end it prints how well the map of pictures of held-out rows agrees with the truth (Dice: 1 is perfect). Nothing is
chosen by that. The kernels are stored in half precision. The same machine makes the same file.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
from pathlib import Path

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
from compose import Composer, Material

from kaggle_digits.data import TrainingRows, find_source, load_train, split_rows
from kaggle_digits.files import write_arrays
from kaggle_digits.handwriting.ink import build_network

SIDE = 256
"""The side in pixels of the pictures."""


def _compose(material: Material, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    composed = Composer(material, SIDE, np.random.default_rng([seed, number])).compose()
    return composed.picture, composed.maps


def compose(rows: TrainingRows, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures (count, SIDE, SIDE, 3) and their maps (count, SIDE, SIDE, 2), uint8."""
    material = Material.of(rows)
    pictures, maps = (np.empty((count, SIDE, SIDE, channels), np.uint8) for channels in (3, 2))
    with multiprocessing.get_context("fork").Pool() as pool:
        composed = pool.imap(functools.partial(_compose, material, seed), range(count), chunksize=20)
        for number, (picture, of_picture) in enumerate(composed):
            pictures[number], maps[number] = picture, of_picture
    return pictures, maps


class Views(keras.utils.PyDataset):
    """Batches of pictures, each turned by quarters, inverted or with its colours exchanged at random."""

    def __init__(self, pictures: np.ndarray, maps: np.ndarray, *, size: int, seed: int) -> None:
        super().__init__()
        self.pictures, self.maps, self.size, self.seed, self.epoch = pictures, maps, size, seed, 0

    def __len__(self) -> int:
        return len(self.pictures) // self.size

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.pictures))
        rng = np.random.default_rng([self.seed, self.epoch, batch])
        pictures, maps = [], []
        for index in np.sort(order[batch * self.size : (batch + 1) * self.size]):
            turns = int(rng.integers(0, 4)) if rng.random() < 0.4 else 0
            picture = np.rot90(self.pictures[index], turns)
            picture = 255 - picture if rng.random() < 0.1 else picture
            pictures.append(picture[:, :, rng.permutation(3)] if rng.random() < 0.3 else picture)
            maps.append(np.rot90(self.maps[index], turns))
        return np.stack(pictures).astype(np.float32) / 255, np.stack(maps).astype(np.float32) / 255

    def on_epoch_end(self) -> None:
        self.epoch += 1


def loss(truth: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Return cross-entropy, in which ink counts twice, plus half of 1 - Dice. Other writing counts half."""
    ops = keras.ops
    weights = ops.array([1.0, 0.5])
    entropy = ops.maximum(logits, 0) - logits * truth + ops.log1p(ops.exp(-ops.abs(logits)))
    found = ops.sigmoid(logits)
    both, each = ops.sum(found * truth, (1, 2)), ops.sum(found + truth, (1, 2))
    dice = (2 * both + 50) / (each + 50)
    return ops.mean(entropy * (1 + truth) * weights) + 0.5 * ops.mean((1 - dice) * weights)


def main() -> None:
    """Train, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="the competition's data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=7000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--held-out", type=int, default=240, help="pictures to measure the result on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, held_out = split_rows(load_train(find_source(options.data)), fraction=0.1, seed=0)
    pictures, maps = compose(rows.take(np.arange(min(len(rows), 6000))), options.pictures, seed=options.seed)
    keras.utils.set_random_seed(options.seed)
    views = Views(pictures, maps, size=8, seed=options.seed)
    steps = len(views) * options.epochs
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps * 19 // 20, warmup_target=0.0035, warmup_steps=steps // 20)
    network = build_network()
    network.compile(keras.optimizers.AdamW(rate, weight_decay=1e-3, clipnorm=1.0), loss)
    network.fit(views, epochs=options.epochs, verbose=2)
    stored = {str(number): np.asarray(weight) for number, weight in enumerate(network.get_weights())}
    halved = {name: each.astype(np.float16) if each.ndim > 1 else each for name, each in stored.items()}
    write_arrays(options.out, halved, compressed=True)
    pictures, maps = compose(held_out, options.held_out, seed=options.seed + 1)
    found = network.predict(pictures.astype(np.float32) / 255, batch_size=16, verbose=0) > 0
    for channel, what in enumerate(("ink of digits", "other writing")):
        one, other = found[..., channel], maps[..., channel] > 127
        print(f"{what}: Dice {2 * (one & other).sum() / (one.sum() + other.sum()):.4f}")


if __name__ == "__main__":
    main()
