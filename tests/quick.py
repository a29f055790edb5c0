"""A recipe that trains in a moment."""

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
