"""Our recipes, and the table of all recipes.

A new recipe is a new row of data here, not new code. Every optimizer setting is written out, even if it is Keras'
default today. So is the order of the axes, which a user's Keras configuration may reverse.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaggle_digits.errors import InputError, did_you_mean
from kaggle_digits.files import expand_home
from kaggle_digits.published import PUBLISHED
from kaggle_digits.recipe import (
    FLATTEN,
    RELU,
    Augmentation,
    Classical,
    Ensemble,
    FieldError,
    Layer,
    Network,
    OneCycle,
    Recipe,
    Restyling,
    batch_norm,
    conv,
    dense,
    pool,
)

DEFAULT_RECIPE = "fast"
MEASURED_FILE = "measured.json"

# Our networks share a cross-entropy with smoothed labels, a one-cycle schedule, and a normalisation after each layer
# but the last, behind the pooling, where less is left to normalise. Filters come in multiples of 16, because CPUs are
# fastest with those. An image that a network is unsure of is read again in four shifts. Each recipe below says what it
# does differently.
_OURS: dict[str, Any] = {
    "source": "this project",
    "pixel_scale": 255.0,
    "loss": "crossentropy",
    "label_smoothing": 0.05,
    "least_steps": 250,
    "batch_size": 256,
    "precision": "mixed_bfloat16",
    "shift_averaging": 1,
}

_ADAMW = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
_LIGHT = Augmentation(rotation=8.0, scale=0.08, shear=0.1, shift=1.5)


def _cycle(peak: float) -> OneCycle:
    return OneCycle(peak=peak, warmup=0.2, start=0.04, end=0.001)


def _block(layer: Layer, *pooling: Layer) -> tuple[Layer, ...]:
    kind, options = layer
    return ((kind, {**options, "use_bias": False}), *pooling, batch_norm(1e-3), RELU)


_FAST = Network(
    name="fast",
    summary="accurate and quick; three convolutions and a dense layer with batch normalisation, Muon, light "
    "augmentation; averaged over shifts",
    layers=(
        *_block(conv(32, 5), pool()),
        *_block(conv(48, 3)),
        *_block(conv(64, 3), pool()),
        FLATTEN,
        *_block(dense(128)),
        dense(10),
    ),
    **_OURS,
    # Muon learns in six epochs what AdamW learns in eight.
    optimizer=("ConvMuon", {"weight_decay": 0.01, **_ADAMW, "muon_momentum": 0.95, "muon_rms": 0.2}),
    learning_rate=_cycle(0.01),
    epochs=6,
    augmentation=_LIGHT,
)

_STRETCHED = replace(
    _FAST,
    name="stretched",
    summary="fast on stretched digits; trained longer, with digits set upright and stretched to a common width; "
    "not averaged",
    epochs=8,
    deslant=True,
    spread=4.2,
    shift_averaging=0,
)

_FLASH = Network(
    name="flash",
    summary="the quickest; three convolutions, a short training without augmentation; averaged over shifts",
    **_OURS,
    # A further layer takes time to prepare, and so does AdamW or Muon. That matters in a training as short as this.
    layers=(
        *_block(conv(16, 5, strides=2)),
        *_block(conv(32, 3), pool()),
        *_block(conv(64, 3)),
        FLATTEN,
        dense(10),
    ),
    optimizer=("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}),
    learning_rate=OneCycle(peak=0.6, warmup=0.2, start=0.04, end=0.01),
    epochs=3,
)

_TINY = Network(
    name="tiny",
    summary="under 8,000 weights; four narrow convolutions, a long training; averaged over shifts",
    layers=(
        *_block(conv(8, 5), pool()),
        *_block(conv(16, 3)),
        *_block(conv(16, 3), pool()),
        *_block(conv(20, 3)),
        FLATTEN,
        dense(10),
    ),
    **{**_OURS, "label_smoothing": 0.02, "precision": "float32"},
    optimizer=("AdamW", {"weight_decay": 0.001, **_ADAMW}),
    learning_rate=_cycle(0.02),
    epochs=40,
    augmentation=replace(_LIGHT, shift=1.0),
)

# Nearest neighbours misread other digits than networks do. They help an average more than a third or fourth network
# does.
_IDM = Classical(
    name="idm",
    summary="distorted neighbours; the nearest neighbour of each digit, by how far an image must be distorted to "
    "look like it",
    source="Keysers et al. 2007, image distortion model",
    published="99.46% (60,000 rows)",
    published_accuracy=0.9946,
    note="Published: the three nearest among the 500 nearest by Euclidean distance, with digits as written. Here: the "
    "nearest of each digit among 25 candidates, probabilities in proportion to distance to the power of −8, and digits "
    "set upright and stretched to a common width. This is better in averages with networks.",
    deslant=True,
    spread=4.2,
    pixel_scale=255.0,
    estimator=("ImageDistortionModel", {"candidates": 25, "power": 8.0}),
)

# Networks that see the digits in different forms misread other digits. Averaging them gains more than averaging over
# seeds.
_STRONG = Ensemble(
    name="strong",
    summary="the most accurate; the average of fast and stretched, with idm where they are not sure",
    source="this project",
    members=(_FAST, _STRETCHED, _IDM),
)

_HANDWRITING = Network(
    name="handwriting",
    summary="for digits from elsewhere; five convolutions, which tell digits from letters and scribbles; averaged"
    " over slants",
    layers=(
        *_block(conv(32, 5), pool()),
        *_block(conv(48, 3)),
        *_block(conv(64, 3), pool()),
        *_block(conv(96, 3, padding="same")),
        *_block(conv(112, 3)),
        FLATTEN,
        dense(10),
    ),
    **{**_OURS, "shift_averaging": 0},
    optimizer=("AdamW", {"weight_decay": 0.01, **_ADAMW}),
    learning_rate=_cycle(0.01),
    epochs=30,
    augmentation=Restyling(rotation=10.0, scale=0.12, shear=0.12, shift=1.5, strokes=0.7, bend=0.4, pen=0.8, blur=0.8),
    drawn=0.4,
    slant_averaging=0.3,
)

_ALL: tuple[Recipe, ...] = (
    _FLASH,
    _FAST,
    _STRONG,
    _TINY,
    _HANDWRITING,
    _STRETCHED,
    _IDM,
    *PUBLISHED,
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Every recipe by its name: first ours, then the published ones."""


def find_recipe(name: str, *, epochs: int | None = None, backend: str | None = None) -> Recipe:
    """Return the recipe of that name, or from that file.

    Args:
        name: the name of the recipe, or a file that ends in .toml or .py, see ``own``.
        epochs: the number of epochs for each of its networks; None for the recipe's own.
        backend: what Keras will compute with, see ``own.load_recipe``.

    Raises:
        InputError: there is no such recipe, its file is wrong, or it has no epochs.

    >>> find_recipe("mlp-784-300").epochs
    10
    """
    from kaggle_digits.own import SUFFIXES, load_recipe  # takes a moment to import, which --help need not wait for

    if name in RECIPES:
        recipe = RECIPES[name]
    elif name.endswith(SUFFIXES):
        recipe = load_recipe(expand_home(name), RECIPES, backend=backend)
        if recipe.name in RECIPES:
            raise InputError(
                f'{name}: the name "{recipe.name}" belongs to a built-in recipe. Rename the file, or give the recipe '
                "another name."
            )
    else:
        hint = did_you_mean(name, RECIPES) or f" Expected one of {', '.join(RECIPES)}."
        raise InputError(
            f"{name}: no such recipe, nor a file of your own that ends in {' or '.join(SUFFIXES)}.{hint} "
            "`kaggle-digits recipes` lists all."
        )
    try:
        return recipe if epochs is None else recipe.with_epochs(epochs)
    except FieldError as error:
        raise InputError(f"--{error}") from error


def load_measured() -> dict[str, dict[str, Any]]:
    """Return what we measured for each recipe, by its name: "accuracy" as text, "seconds", and "parameters" or None.

    The seconds are those of training and of reading 6,000 rows on two cores. ``benchmarks/recipes_table.py`` makes the
    file.
    """
    return json.loads(Path(__file__).with_name(MEASURED_FILE).read_text(encoding="utf-8"))
