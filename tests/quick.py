"""A recipe that trains in a moment, and a program that is killed at an epoch."""

from __future__ import annotations

from dataclasses import replace

from kaggle_digits.recipes import RECIPES

QUICK = replace(
    RECIPES["mlp-784-300"],
    name="quick",
    layers=(("Flatten", {}), ("Dense", {"units": 10})),
    pixel_scale=255.0,
    learning_rate=0.1,
    epochs=3,
)

QUICK_TOML = """
layers = ["Flatten", { kind = "Dense", units = 10 }]
loss = "mse"
optimizer = { kind = "SGD", momentum = 0.0, nesterov = false }
learning_rate = 0.1
epochs = 2
batch_size = 32
precision = "float32"
"""

KILLED_AT_EPOCH = """
import os, signal, sys
from kaggle_digits.cli import main
from kaggle_digits.cli.output import TrainingProgress
left = int(sys.argv[1])
def epoch(*all):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
TrainingProgress.epoch = epoch
main(sys.argv[2:])
"""
"""The command line, for ``python -c``, killed when so many epochs are done and saved. Their number comes first."""
