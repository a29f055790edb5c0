"""Turn run folders and pixels into probabilities and digits."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kaggle_digits.config import CLASSES, SIDE, Augmentation, OneCycle, Recipe, RunError
from kaggle_digits.strategy import Device

BATCH_SIZE = 1024
RUN_FILE, MODEL_FILE, VALIDATION_FILE = "run.json", "model.keras", "validation.npz"


@dataclass(frozen=True)
class Run:
    """A finished run folder, loaded.

    Args:
        folder: where it lies.
        recipe: what was trained.
        record: the contents of run.json.
        model: the trained network, images → logits.
    """

    folder: Path
    recipe: Recipe
    record: dict[str, Any]
    model: keras.Model


def load_run(folder: Path, device: Device) -> Run:
    """Load a finished run inside the device's scope.

    Raises:
        RunError: not a run folder, or not finished.
    """
    record = read_record(folder)
    recipe = recipe_of(record)
    if not record["finished"]:
        raise RunError(
            f"{folder}: its training is not finished. Expected a finished run. Continue it: kaggle-digits train "
            f"--recipe {recipe.name} --run {folder} --resume"
        )
    try:
        with device.scope():
            model = keras.saving.load_model(folder / MODEL_FILE, compile=False)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{folder / MODEL_FILE}: cannot be loaded ({error}). Expected the network that training wrote. Train it "
            "again."
        ) from error
    return Run(folder, recipe, record, model)


def read_record(folder: Path) -> dict[str, Any]:
    """Read a run folder's run.json.

    Raises:
        RunError: there is none, or it is not one of ours.
    """
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        recipe_of(record)
        [record[name] for name in ("finished", "epochs", "seed", "rows", "source", "device", "submission")]
    except FileNotFoundError as error:
        raise RunError(
            f"{folder}: no {RUN_FILE} in it. Expected a run folder, as `kaggle-digits train --run {folder}` leaves it."
        ) from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RunError(
            f"{folder / RUN_FILE}: not readable as a run ({type(error).__name__}: {error}). Expected the file that "
            "training wrote. Train again into a new folder."
        ) from error
    return record


def recipe_of(record: dict[str, Any]) -> Recipe:
    """Rebuild the recipe of a run.json, so that a run does not depend on today's table."""
    fields = dict(record["recipe"])
    fields["layers"] = tuple((kind, options) for kind, options in fields["layers"])
    fields["optimizer"] = tuple(fields["optimizer"])
    if isinstance(fields["learning_rate"], dict):
        fields["learning_rate"] = OneCycle(**fields["learning_rate"])
    if fields["augmentation"]:
        fields["augmentation"] = Augmentation(**fields["augmentation"])
    return Recipe(**fields)


def to_images(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Scale pixels as the recipe says.

    Args:
        pixels: (N, 784) uint8 or float32, 0–255.
        recipe: its pixel_offset and pixel_scale are used.

    Returns:
        (N, 28, 28, 1) float32.
    """
    scaled = (pixels.astype(np.float32) - np.float32(recipe.pixel_offset)) / np.float32(recipe.pixel_scale)
    return scaled.reshape(-1, SIDE, SIDE, 1)


def predict_probabilities(
    model: keras.Model, recipe: Recipe, pixels: np.ndarray, *, replicas: int = 1, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """Predict the probability of every digit for every row.

    Args:
        model: a network of this recipe.
        recipe: says how to scale pixels, and what its output means.
        pixels: (N, 784) uint8, 0–255.
        replicas: of the strategy the model was built under.
        batch_size: rows at once; has no influence on the number of rows returned.

    Returns:
        (N, 10) float32, rows sum to 1. Networks trained on squared error put out estimates of the one-hot label
        instead of logits; these are shifted to start at 0 and divided by their sum, which keeps the arg-max.
    """
    if not len(pixels):
        return np.empty((0, CLASSES), np.float32)
    images = to_images(pixels, recipe)
    # Every batch has the same shape, and divides by the number of replicas: pad, predict, cut.
    batch_size = min(batch_size, len(images))
    batch_size += -batch_size % replicas
    padding = np.zeros((-len(images) % batch_size, *images.shape[1:]), np.float32)
    outputs = model.predict(np.concatenate([images, padding]), batch_size=batch_size, verbose=0)[: len(images)]
    if recipe.loss == "mse":
        shifted = outputs - outputs.min(axis=1, keepdims=True)
        total = shifted.sum(axis=1, keepdims=True)
        # All ten equal: nothing is known.
        return np.divide(shifted, total, out=np.full_like(shifted, 1 / CLASSES), where=total > 0)
    raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def predict_digits(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Average the probabilities of one or several runs and take the likeliest digit.

    Args:
        probabilities: one (N, 10) array per run.

    Returns:
        (N,) int64, 0–9.

    >>> predict_digits([np.eye(10)[[3, 7]]]).tolist()
    [3, 7]
    """
    return np.mean(probabilities, axis=0).argmax(axis=1).astype(np.int64)
