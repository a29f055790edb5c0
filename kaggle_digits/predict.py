"""Turn run folders and pixels into probabilities and digits."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_digits.config import CLASSES, PIXELS, SIDE, Classical, Ensemble, Network, Recipe, RunError
from kaggle_digits.moments import normalise_pixels, shift_rows
from kaggle_digits.recipes import RECIPES
from kaggle_digits.runs import MEMBER, Run, member_folders, read_run, recipe_of
from kaggle_digits.strategy import Device

BATCH_SIZE = 1024
SURE = 0.9
"""Images whose likeliest digit has this probability or more are not looked at again. Shifted ones change no digit then,
and a classical method could not, beside two networks or more."""

MODEL_FILE = "model.keras"
PACKAGED_RUN = Path(__file__).parent / "network"
"""The run folder of a small network that comes with the package, so that there is something to predict with."""


def load_run(folder: Path, device: Device) -> Run:
    """Load a finished run, a network inside the device's scope.

    Raises:
        RunError: not a run folder, or not finished.
    """
    record = read_run(folder)
    recipe = recipe_of(record)
    if not record["finished"]:
        trained, usual = map(_epochs, (recipe, RECIPES.get(recipe.name)))
        epochs = f" --epochs {trained[0]}" if usual and trained != usual else ""
        where = str(folder)
        if member := MEMBER.fullmatch(folder.name):
            where = f"{folder.parent} --member {member[1]}/{member[2]}"
        raise RunError(
            f"{folder}: its training is not finished. Expected a finished run. Continue it: kaggle-digits train "
            f"--recipe {recipe.name} --run {where} --resume{epochs}"
        )
    if isinstance(recipe, Classical):
        from kaggle_digits.baselines import load_estimator

        return Run(folder, recipe, record, load_estimator(folder, recipe))
    if isinstance(recipe, Ensemble):
        members = [load_run(member, device).model for member in member_folders(folder, recipe.size)]
        return Run(folder, recipe, record, members)
    assert isinstance(recipe, Network)
    return Run(folder, recipe, record, _load_network(folder / MODEL_FILE, recipe, device))


def _epochs(recipe: Recipe | None) -> list[int]:
    """Return how many epochs a network trains, or each of an ensemble's; [] if it is none."""
    members = recipe.members if isinstance(recipe, Ensemble) else [recipe]
    return [member.epochs for member in members if isinstance(member, Network)]


def _load_network(file: Path, recipe: Network, device: Device) -> Any:
    from kaggle_digits.models import build_model

    try:
        # Built anew, since the file remembers precision and replicas of the device that it was trained on.
        with device.scope():
            model = build_model(recipe, precision=device.precision)
            model.load_weights(file)
            return model
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{file}: cannot be loaded ({error}). Expected the network that training wrote. Train it again."
        ) from error


def normalise_for(recipe: Recipe, pixels: np.ndarray) -> np.ndarray:
    """Set digits upright and stretch them, if the recipe says so; see ``moments.normalise_pixels``."""
    return normalise_pixels(pixels, deslant=recipe.deslant, spread=recipe.spread) if recipe.normalises else pixels


def to_images(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Scale pixels as the recipe says.

    Args:
        pixels: (N, 784) uint8 or float32, 0–255.
        recipe: its pixel_offset and pixel_scale are used.

    Returns:
        (N, 28, 28, 1) float32.
    """
    scaled = pixels.astype(np.float32)
    scaled -= np.float32(recipe.pixel_offset)  # in place: 28,000 images are 88 MB
    scaled /= np.float32(recipe.pixel_scale)
    return scaled.reshape(-1, SIDE, SIDE, 1)


def predict_probabilities(
    model: Any, recipe: Recipe, pixels: np.ndarray, *, device: Device | None = None, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """Predict the probability of every digit for every row.

    Args:
        model: a network of this recipe, what its method has learned, or those of an ensemble.
        recipe: says how to scale pixels, and what its output means.
        pixels: (N, 784) uint8 or float32, 0–255.
        device: whose scope the model was built in, if it was.
        batch_size: rows at once; has no influence on the number of rows returned.

    Returns:
        (N, 10) float32 or float64, rows sum to 1. Networks trained on squared error put out estimates of the one-hot
        label instead of logits; these are shifted to start at 0 and divided by their sum, which keeps the arg-max.
    """
    if not len(pixels):
        return np.empty((0, CLASSES), np.float32)
    if isinstance(recipe, Ensemble):
        members = list(zip(model, recipe.members, strict=True))

        def read_by(member: int, rows: slice | np.ndarray) -> np.ndarray:
            return predict_probabilities(*members[member], pixels[rows], device=device, batch_size=batch_size)

        return average_members(recipe, read_by)
    if recipe.normalises:
        pixels, recipe = normalise_for(recipe, pixels), replace(recipe, deslant=False, spread=0.0)
    if isinstance(recipe, Network) and recipe.averages:
        plain = replace(recipe, shift_averaging=0, slant_averaging=0.0)

        def read(images: np.ndarray) -> np.ndarray:
            return predict_probabilities(model, plain, images, device=device, batch_size=batch_size)

        probabilities = np.mean([read(pixels), *map(read, _slanted(pixels, recipe.slant_averaging))], axis=0)
        unsure = probabilities.max(axis=1) < SURE
        if recipe.shift_averaging and unsure.any():
            shifted = _shifted(pixels[unsure], recipe.shift_averaging)
            probabilities[unsure] = np.mean([probabilities[unsure], *map(read, shifted)], axis=0)
        return probabilities
    if isinstance(recipe, Classical):
        from kaggle_digits.baselines import estimate_probabilities

        return estimate_probabilities(recipe, model, to_images(pixels, recipe).reshape(-1, PIXELS))
    assert isinstance(recipe, Network)
    # Every batch has the same shape, and divides by the number of replicas: pad, predict, cut.
    batch_size = min(batch_size, len(pixels))
    batch_size += -batch_size % (device.replicas if device else 1)
    padding = np.zeros((-len(pixels) % batch_size, PIXELS), pixels.dtype)
    images = to_images(np.concatenate([pixels, padding]), recipe)
    with device.scope() if device else contextlib.nullcontext():
        if device and device.replicas > 1:
            outputs = model.predict(images, batch_size=batch_size, verbose=0)
        else:  # Keras' own loop at random computes all on one core, see ``fit``, and is slow for a single image
            starts = range(0, len(images), batch_size)
            outputs = np.concatenate([model.predict_on_batch(images[s : s + batch_size]) for s in starts])
    outputs = outputs[: len(pixels)]
    if recipe.loss == "mse":
        shifted = outputs - outputs.min(axis=1, keepdims=True)
        total = shifted.sum(axis=1, keepdims=True)
        # All ten equal: nothing is known.
        return np.divide(shifted, total, out=np.full_like(shifted, 1 / CLASSES), where=total > 0)
    raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def average_members(ensemble: Ensemble, read_by: Callable[[int, slice | np.ndarray], np.ndarray]) -> np.ndarray:
    """Average the probabilities of an ensemble's networks, and of all its members where the networks are not sure.

    Args:
        ensemble: of these members.
        read_by: returns the probabilities (N, 10) of a member, counted from 0, for some of the rows.

    Returns:
        (N, 10), rows sum to 1.
    """
    networks = [member for member, recipe in enumerate(ensemble.members) if isinstance(recipe, Network)]
    others = [member for member in range(ensemble.size) if member not in networks]
    each = [read_by(member, slice(None)) for member in networks]
    probabilities = np.mean(each, axis=0)
    unsure = np.flatnonzero(probabilities.max(axis=1) < SURE)
    if others and unsure.size:
        read = [own[unsure] for own in each] + [read_by(member, unsure) for member in others]
        probabilities[unsure] = np.mean(read, axis=0)
    return probabilities


def _shifted(pixels: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Yield the pixels moved down, up, right and left by that distance; what comes in is paper."""
    images = pixels.reshape(-1, SIDE, SIDE)
    framed = np.pad(images, ((0, 0), (distance, distance), (distance, distance)))
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        top, left = distance - down * distance, distance - right * distance
        yield framed[:, top : top + SIDE, left : left + SIDE].reshape(-1, PIXELS)


def _slanted(pixels: np.ndarray, most: float) -> Iterator[np.ndarray]:
    """Yield the pixels leant to the left and to the right by that many pixels per row, if any, and by half of it."""
    for slant in (-most, -most / 2, most / 2, most) if most else ():
        first = np.tile(slant * (np.arange(SIDE) - (SIDE - 1) / 2), (len(pixels), 1))
        yield shift_rows(pixels, first)


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


def accuracy(probabilities: np.ndarray, digits: np.ndarray) -> float:
    """Return correct / seen, over all rows.

    Args:
        probabilities: (N, 10).
        digits: (N,), the truth.

    >>> accuracy(np.eye(10)[[1, 2, 3, 4]], np.array([1, 2, 3, 9]))
    0.75
    """
    return float((probabilities.argmax(axis=1) == digits).mean())
