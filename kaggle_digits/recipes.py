"""Our recipes, and the table of all recipes.

A new recipe is a new row of data here, not new code. Every optimizer setting is written out, also where it equals
today's default in Keras, and so is the order of the axes, which a user's Keras configuration may reverse.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaggle_digits.errors import InputError
from kaggle_digits.published import PUBLISHED
from kaggle_digits.recipe import (
    FLATTEN,
    RELU,
    Augmentation,
    Classical,
    Ensemble,
    Layer,
    Network,
    OneCycle,
    Recipe,
    Restyling,
    batch_norm,
    conv,
    dense,
    dropout,
    pool,
)

DEFAULT_RECIPE = "fast"
MEASURED_FILE = "measured.json"

# What they share, but for what flash and tiny say: a cross-entropy with smoothed labels, AdamW on a one-cycle schedule,
# and a normalisation after each layer, behind the pooling, where less is left to normalise. Filters come in multiples
# of 16: CPUs are fastest with those.
_OURS: dict[str, Any] = {
    "source": "this project",
    "pixel_scale": 255.0,
    "loss": "crossentropy",
    "label_smoothing": 0.05,
    "optimizer": ("AdamW", {"weight_decay": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}),
    "precision": "mixed_bfloat16",
}


def _cycle(peak: float) -> OneCycle:
    return OneCycle(peak=peak, warmup=0.2, start=0.04, end=0.001)


def _block(layer: Layer, *pooling: Layer) -> tuple[Layer, ...]:
    kind, options = layer
    return ((kind, {**options, "use_bias": False}), *pooling, batch_norm(1e-3), RELU)


_SMALL = Network(
    name="small",
    summary="four convolutions with batch normalisation, one-cycle schedule, light augmentation",
    layers=(
        *_block(conv(32, 5), pool()),
        *_block(conv(32, 3)),
        *_block(conv(64, 3), pool()),
        *(*_block(conv(64, 3)), FLATTEN),
        dense(10),
    ),
    **_OURS,
    learning_rate=_cycle(0.01),
    epochs=6,
    batch_size=256,
    augmentation=Augmentation(rotation=8.0, scale=0.08, shear=0.1, shift=1.5),
)

_FAST = replace(_SMALL, name="fast", summary=f"digits set upright, {_SMALL.summary}", epochs=7, deslant=True)

_STRETCHED = replace(
    _FAST,
    name="stretched",
    summary="fast in 16 epochs, its upright digits stretched to one width",
    epochs=16,
    spread=4.2,
)

_WRITTEN = replace(
    _SMALL,
    name="written",
    summary="fast in 16 epochs, of digits as written, averaged over shifts",
    epochs=16,
    shift_averaging=1,
)

_FLASH = replace(
    _SMALL,
    name="flash",
    summary="three convolutions, three epochs, no augmentation: a good submission in a quarter of a minute",
    # Every layer, and AdamW, would take a while to prepare, which counts here.
    layers=(
        *_block(conv(16, 5, strides=2)),
        *_block(conv(32, 3), pool()),
        *(*_block(conv(64, 3)), FLATTEN),
        dense(10),
    ),
    optimizer=("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}),
    learning_rate=OneCycle(peak=0.6, warmup=0.2, start=0.04, end=0.01),
    epochs=3,
    augmentation=None,
)

_TINY = replace(
    _SMALL,
    name="tiny",
    summary="four narrow convolutions, less than 8,000 parameters, many epochs",
    layers=(
        *_block(conv(8, 5), pool()),
        *_block(conv(16, 3)),
        *_block(conv(16, 3), pool()),
        *(*_block(conv(20, 3)), FLATTEN),
        dense(10),
    ),
    label_smoothing=0.02,
    optimizer=("AdamW", {"weight_decay": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}),
    learning_rate=_cycle(0.02),
    epochs=40,
    augmentation=Augmentation(rotation=8.0, scale=0.08, shear=0.1, shift=1.0),
    precision="float32",
)

_POOLED_ONCE = replace(
    _SMALL,
    name="pooled-once",
    summary="six convolutions of which only the first is pooled, and dropout, 24 epochs, digits also bent a little and "
    "written with other pens, averaged over shifts",
    layers=(
        *_block(conv(32, 5), pool()),
        *_block(conv(64, 3, padding="same")),
        *_block(conv(64, 3)),
        *_block(conv(64, 3)),
        *_block(conv(96, 3)),
        *(*_block(conv(96, 3)), FLATTEN, dropout(0.3)),
        dense(10),
    ),
    learning_rate=_cycle(0.006),
    epochs=24,
    augmentation=Restyling(rotation=12.0, scale=0.12, shear=0.2, shift=2.0, bend=0.6, pen=0.4),
    shift_averaging=1,
)

# Nearest neighbours err on other digits than networks do: as one more member they help an average more than a third or
# fourth network does.
_IDM = Classical(
    name="idm",
    summary="the nearest neighbour of each digit, by how far an image must be distorted to look like it",
    source="Keysers et al. 2007, image distortion model",
    published="99.46 % (60,000 rows)",
    published_accuracy=0.9946,
    note="Published: the three nearest of the 500 nearest by Euclidean distance, digits as written. Here each digit's "
    "nearest of 25, for probabilities as distance to the power of −8, and digits upright and of one width: in averages "
    "with networks that is better.",
    deslant=True,
    spread=4.2,
    pixel_scale=255.0,
    estimator=("ImageDistortionModel", {"candidates": 25, "power": 8.0}),
)

# Networks that are built otherwise, or see digits in another form, err on other digits: such averages gain more than
# those over seeds.
_STRONG = Ensemble(
    name="strong",
    summary="written and stretched, averaged, and idm where they are not sure",
    source="this project",
    members=(_WRITTEN, _STRETCHED, _IDM),
)

_CHAMPION = Ensemble(
    name="champion",
    summary="pooled-once, written and stretched, averaged, and idm where they are not sure",
    source="this project",
    members=(_POOLED_ONCE, _WRITTEN, _STRETCHED, _IDM),
)

_HANDWRITING = replace(
    _SMALL,
    name="handwriting",
    summary="five convolutions for digits written elsewhere: extra strokes, bends, other pens, averaged over slants",
    layers=(
        *_block(conv(32, 5), pool()),
        *_block(conv(48, 3)),
        *_block(conv(64, 3), pool()),
        *_block(conv(80, 3, padding="same")),
        *(*_block(conv(96, 3)), FLATTEN),
        dense(10),
    ),
    epochs=30,
    augmentation=Restyling(rotation=10.0, scale=0.12, shear=0.12, shift=1.5, strokes=0.7, bend=0.4, pen=0.8, blur=0.8),
    slant_averaging=0.3,
)

_ALL: tuple[Recipe, ...] = (
    *(_FLASH, _FAST, _STRONG, _CHAMPION, _TINY, _HANDWRITING),
    *(_WRITTEN, _STRETCHED, _POOLED_ONCE, _IDM),
    *PUBLISHED,
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Every recipe by its name: first ours, then the published ones."""


def find_recipe(name: str, *, epochs: int | None = None) -> Recipe:
    """Return the recipe of that name.

    Args:
        name: of the recipe.
        epochs: instead of the recipe's own number, for each of its networks.

    Raises:
        InputError: there is no such recipe, or it has no epochs. The message lists the recipes.

    >>> find_recipe("mlp-784-300").epochs
    10
    """
    if name not in RECIPES:
        raise InputError(
            f"{name}: no such recipe. Expected one of {', '.join(RECIPES)}. `kaggle-digits recipes` describes them."
        )
    recipe = RECIPES[name]
    return recipe if epochs is None else recipe.with_epochs(epochs)


def load_measured() -> dict[str, str]:
    """Return, for each recipe, the accuracy that we measured. ``benchmarks/recipes_table.py`` makes the file."""
    return json.loads(Path(__file__).with_name(MEASURED_FILE).read_text(encoding="utf-8"))
