"""Train any recipe into a run folder. A stopped training goes on from its last whole epoch."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import kaggle_digits
from kaggle_digits.arrays import write_arrays
from kaggle_digits.backend import import_backend
from kaggle_digits.calibration import calibrate, find_threshold, fit_temperature
from kaggle_digits.data import find_source, load_train, split_rows
from kaggle_digits.errors import InputError
from kaggle_digits.learners import Fitted, Training, learner_of, part_of
from kaggle_digits.own import locate
from kaggle_digits.predict import load_run
from kaggle_digits.recipe import FieldError, Recipe
from kaggle_digits.recipes import RECIPES
from kaggle_digits.runs import (
    VALIDATION_FILE,
    RowCounts,
    Run,
    Threshold,
    claim,
    find_commit,
    member_folder,
    member_folders,
    member_seed,
    remove_checkpoints,
)
from kaggle_digits.strategy import Device, device_of, device_of_any

if TYPE_CHECKING:
    from kaggle_digits.data import TrainingRows
    from kaggle_digits.learners import Progress

log = logging.getLogger(__name__)

LETTERS = 2000
"""On this many drawn letters the threshold of a network is measured."""


def train_run(
    recipe: Recipe,
    rows: TrainingRows,
    folder: str | Path,
    *,
    held_out: TrainingRows | None = None,
    seed: int = 0,
    device: Device | None = None,
    source: str = "unknown",
    resume: bool = False,
    numbered: bool = False,
    trace: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train a recipe and leave a run folder.

    On one CPU the same seed gives the same weights bit for bit, also if the training was stopped and resumed.

    Args:
        recipe: what to train.
        rows: the rows to train on.
        folder: the run folder.
        held_out: rows to measure accuracy on. They are never trained on and decide on nothing.
        seed: of everything random.
        device: where to train; None finds the best device for the recipe.
        source: where the rows come from, for the record.
        resume: continue the same training if the folder holds it. A finished run is returned.
        numbered: take the next free one of folder, folder-2, folder-3 and so on, see ``runs.claim``.
        trace: whether to measure a network also within its first epoch, see ``learners.Training``.
        progress: is told of every step and epoch of a network.

    Returns:
        the finished run, with its predictor.

    Raises:
        RunError: the folder holds another training, or this one and ``resume`` is off, or another process has it.
        TrainingError: the training failed.
    """
    device = device or device_of(recipe)
    if RECIPES.get(recipe.name) != recipe:
        _check_own(recipe)
    wanted = describe_run(recipe, Path(folder), seed=seed, device=device, source=source)
    wanted = replace(wanted, rows=RowCounts.of(rows, held_out))
    with claim(wanted, resume=resume, numbered=numbered) as (run, state):
        if numbered and state != "fresh":
            log.info("Continuing the interrupted job with the training in %s", run.folder)
        if state == "finished":
            return load_run(run.folder, device)
        run.save()
        weights = [sum(network.epochs for network in member.networks) or 1 for member in recipe.members]
        members = [
            _train_member(run, number, rows, held_out=held_out, progress=part_of(progress, number - 1, weights))
            for number in range(1, len(recipe.members) + 1)
        ]
        with _refused(recipe):
            fitted = learner_of(recipe).fit(
                Training(
                    recipe=recipe,
                    rows=rows,
                    held_out=held_out,
                    folder=run.folder,
                    seed=seed,
                    device=device,
                    members=members,
                    trace=trace,
                    progress=progress,
                )
            )
        return _write(_finish(run, fitted, members, held_out), fitted, held_out)


def describe_run(recipe: Recipe, folder: Path, *, seed: int, device: Device, source: str) -> Run:
    """Return a run as it stands before its training, without its rows."""
    return Run(
        folder=folder,
        recipe=recipe,
        seed=seed,
        source=source,
        rows=RowCounts(0, 0, 0),
        device=device,
        versions=_versions(device),
        commit=find_commit(),
    )


def train_on(
    data: str | None,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    member: tuple[int, int] | None = None,
    device: str = "auto",
    backend: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Read the data, hold some rows out, and train a recipe, or one of several members, on the rest.

    Args:
        data: where the data lies, see ``data.find_source``.
        recipe: what to train.
        folder: the run folder, or the folder that the members' run folders lie in.
        seed: of everything random.
        member: (I, N) trains one of N, counted from 1: a member of an ensemble, or the same recipe with a seed of its
            own. All members leave out the same rows.
        device, backend: where to train. A classical member runs where it can.
        resume: continue the training in the folder.
        progress: is told of every step and epoch of a network.

    Raises:
        InputError: the data or the device cannot be used, or the ensemble has another number of members.
        RunError, TrainingError: as ``train_run``.
    """
    split_seed, is_scored = seed, True
    if member:
        number, count = member
        folder, seed = member_folder(folder, number, count), member_seed(seed, number, count)
        if recipe.members:
            if count != len(recipe.members):
                raise InputError(
                    f"--member {number}/{count}: {recipe.name} has {len(recipe.members)} members. Expected "
                    f"I/{len(recipe.members)}. Correct it, or leave it out to train all."
                )
            recipe = recipe.members[number - 1]
            is_scored = bool(recipe.networks)
            if not is_scored:  # one command can train all members, whatever they run on
                device, backend = "auto", None
    source = find_source(data)
    rows, held_out = split_rows(load_train(source), fraction=recipe.validation_fraction, seed=split_seed)
    place = device_of(recipe, device, backend=backend)
    log.info("Device: %s", place)
    return train_run(
        recipe,
        rows,
        folder,
        held_out=held_out if is_scored else None,
        seed=seed,
        device=place,
        source=source.name_for(folder),
        resume=resume,
        progress=progress,
    )


def check_recipes(recipes: Sequence[Recipe], device: str = "auto", backend: str | None = None) -> None:
    """Say where networks will be trained, and check that recipes of somebody's own can be, before the first one is.

    Raises:
        InputError: one of them cannot.
    """
    places = {str(device_of_any(recipe, device, backend)): None for recipe in recipes if recipe.networks}
    for place in places:
        log.info("Device: %s", place)
    for recipe in recipes:
        if RECIPES.get(recipe.name) != recipe:
            _check_own(recipe)


def _check_own(recipe: Recipe) -> None:
    """Check that a recipe of somebody's own can be trained, before anything is written.

    Raises:
        InputError: Keras or scikit-learn do not take it. The message says where that stands in the recipe's file.
    """
    for part in recipe.members or (recipe,):
        try:
            learner_of(part).check(part)
        except FieldError as error:
            name, _, number = error.name.partition(".")
            place = (name, int(number)) if number else (name,)
            raise InputError(f"{locate(recipe, part, place)}: {error.fault}") from error


def _train_member(
    run: Run, number: int, rows: TrainingRows, *, held_out: TrainingRows | None, progress: Progress | None
) -> Run:
    """Train a member of a recipe, counted from 1, into a run folder of its own.

    A member without networks takes long for an image, so it does not read the held-out rows.
    """
    members = run.recipe.members
    member = members[number - 1]
    trained = train_run(
        member,
        rows,
        member_folders(run.folder, len(members))[number - 1],
        held_out=held_out if member.networks else None,
        seed=member_seed(run.seed, number, len(members)),
        device=run.device if member.networks else device_of(member),
        source=run.source,
        resume=True,
        progress=progress,
    )
    log.info("%s: %d of %d, %s, is trained", run.recipe.name, number, len(members), member.name)
    return trained


def _finish(run: Run, fitted: Fitted, members: list[Run], held_out: TrainingRows | None) -> Run:
    """Return the finished run."""
    for member in members:
        if member.recipe.networks:  # it may have been trained elsewhere, by an earlier command
            run = replace(run, device=member.device, versions=member.versions, commit=member.commit)
            break
    temperature = threshold = None
    if held_out and fitted.probabilities is not None:
        temperature = round(fit_temperature(fitted.probabilities, held_out.digits), 4)
        threshold = _find_threshold(run, fitted, temperature)
    return replace(
        run,
        finished=True,
        parameters=fitted.predictor.parameters,
        epochs=fitted.epochs,
        temperature=temperature,
        threshold=threshold,
        predictor=fitted.predictor,
    )


def _find_threshold(run: Run, fitted: Fitted, temperature: float) -> Threshold | None:
    """Measure how surely letters are taken for digits, if the recipe has learned that they are none."""
    if fitted.probabilities is None or not any(network.drawn for network in run.recipe.networks):
        return None
    from kaggle_digits.learners.drawing import HELD_OUT_FONTS, draw_letters

    letters = draw_letters(LETTERS, HELD_OUT_FONTS, np.random.default_rng(run.seed))
    read = fitted.predictor.probabilities(letters)
    return Threshold(*find_threshold(calibrate(fitted.probabilities, temperature), calibrate(read, temperature)))


def _write(run: Run, fitted: Fitted, held_out: TrainingRows | None) -> Run:
    """Write all that a run folder holds; ``run.json`` comes last and declares it finished."""
    fitted.predictor.save(run.folder)
    if held_out and fitted.probabilities is not None:
        arrays = {"probabilities": fitted.probabilities, "digits": held_out.digits}
        write_arrays(run.folder / VALIDATION_FILE, arrays, compressed=True)
    run = run.with_checksums()
    run.save()
    remove_checkpoints(run.folder)
    return run


@contextlib.contextmanager
def _refused(recipe: Recipe) -> Iterator[None]:
    """Say that a recipe of somebody's own cannot be trained, as with values that layers take and cannot use."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError) as error:
        if RECIPES.get(recipe.name) == recipe:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(lines[:2]))[:200]
        raise InputError(
            f"{recipe.source}: cannot be trained ({type(error).__name__}: {told}). Expected layers and settings that "
            "Keras can compute. Correct them."
        ) from error


def _versions(device: Device) -> dict[str, str]:
    """Return the versions of what takes part in a training."""
    versions = {
        "kaggle_digits": kaggle_digits.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    if device.backend == "scikit-learn":
        for name in ("scikit-learn", "scikit-learn-intelex"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[name] = importlib.metadata.version(name)
        return versions
    import keras

    return versions | {"keras": keras.__version__, device.backend: import_backend(device.backend).__version__}
