"""Train a recipe into a run folder, resumable after every epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import platform
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import kaggle_digits
from kaggle_digits.backend import import_backend
from kaggle_digits.calibration import fit_temperature
from kaggle_digits.config import (
    PIXELS,
    Classical,
    DigitsError,
    Ensemble,
    Network,
    Recipe,
    RunError,
    TrainingError,
    atomic_path,
    find_commit,
)
from kaggle_digits.data import TrainingRows, split_rows
from kaggle_digits.predict import (
    accuracy,
    average_members,
    load_run,
    normalise_for,
    predict_probabilities,
    to_images,
)
from kaggle_digits.runs import (
    CHECKPOINT_FILE,
    RUN_FILE,
    VALIDATION_FILE,
    Run,
    describe_rows,
    find_difference,
    lock_run,
    member_folders,
    member_seed,
    read_run,
    write_run,
)
from kaggle_digits.strategy import Device, device_of

if TYPE_CHECKING:
    from kaggle_digits.fit import Progress

log = logging.getLogger(__name__)

TUNING_FRACTION = 0.05
"""Share of the training rows that a recipe with a plateau or an early end decides on."""


def train_run(
    recipe: Recipe,
    rows: TrainingRows,
    folder: Path,
    *,
    seed: int,
    device: Device,
    source: str,
    held_out: TrainingRows | None = None,
    resume: bool = False,
    trace: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train a recipe and leave a run folder.

    The order of the rows and their augmentation depend on the seed and the epoch only. On one CPU the same seed
    gives the same weights bit for bit, also when the training was interrupted and resumed.

    A recipe whose learning rate or end depends on an accuracy measures it on a part of ``rows`` that it then does not
    train on, so that nothing is ever chosen by the accuracy on ``held_out``, which is reported.

    Of several processes that train together, the first keeps the folder; the others write nothing.

    Args:
        recipe: what to train.
        rows: rows to train on.
        folder: the run folder; must not hold a run unless ``resume``.
        seed: of everything random.
        device: where to train.
        source: where the rows come from, for the record.
        held_out: rows to measure accuracy on, of a network after every epoch; never trained on.
        resume: continue the run in ``folder``; a folder with no run is started, a finished run is returned.
        trace: measure a network also within its first epoch, see ``fit.fit_network``.
        progress: is told of every step and epoch of a network.

    Returns:
        the finished run.

    Raises:
        RunError: the folder holds a run and ``resume`` is off, or a run of another recipe, seed or data, or is being
            trained by another process.
        TrainingError: the training failed.
    """
    first = device.process == 0
    with lock_run(folder) if first else contextlib.nullcontext():
        record = _start_record(recipe, rows, seed=seed, device=device, source=source, held_out=held_out)
        finished = first and _take_folder(folder, recipe, record, resume=resume)
        if device.processes > 1:
            finished = _agree(device, record, finished=finished)
        if finished:
            alone = device.processes == 1
            return (
                load_run(folder, device) if alone else Run(folder, recipe, read_run(folder) if first else record, None)
            )
        if first:
            write_run(folder, record)
        model: Any
        if isinstance(recipe, Ensemble):
            model = _train_members(recipe, rows, folder, record, device=device, held_out=held_out, progress=progress)
            if not first:
                return Run(folder, recipe, record, model)
            probabilities = _average_members(folder, recipe, record, model, held_out)
        elif isinstance(recipe, Network):
            from kaggle_digits.fit import fit_network, save_network

            tuning = None
            if recipe.tunes:
                rows, tuning = split_rows(rows, fraction=TUNING_FRACTION, seed=seed)
            with _together(device):
                model, record["epochs"], probabilities = fit_network(
                    recipe,
                    rows,
                    folder,
                    seed=seed,
                    device=device,
                    tuning=tuning,
                    held_out=held_out,
                    trace=trace,
                    progress=progress,
                )
            record["parameters"] = model.count_params()
            if not first:
                return Run(folder, recipe, record, model)
            save_network(folder, model)
        else:
            assert isinstance(recipe, Classical)
            from kaggle_digits.baselines import fit_estimator, save_estimator

            started = time.perf_counter()
            images = to_images(normalise_for(recipe, rows.pixels), recipe).reshape(-1, PIXELS)
            model = fit_estimator(recipe, images, rows.digits, seed=seed)
            metrics: dict[str, Any] = {"epoch": 1, "seconds": round(time.perf_counter() - started, 3)}
            probabilities = None
            if held_out:
                started = time.perf_counter()
                probabilities = predict_probabilities(model, recipe, held_out.pixels)
                metrics["validation_accuracy"] = accuracy(probabilities, held_out.digits)
                metrics["validation_seconds"] = round(time.perf_counter() - started, 3)
            record["epochs"] = [metrics]
            record["parameters"] = sum(array.size for array in model.values())
            save_estimator(folder, model)
        if held_out:
            assert probabilities is not None
            with atomic_path(folder / VALIDATION_FILE) as path:
                np.savez_compressed(path, probabilities=probabilities, digits=held_out.digits)
            record["temperature"] = round(fit_temperature(probabilities, held_out.digits), 4)
        record["finished"] = True
        write_run(folder, record)
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        return Run(folder, recipe, record, model)


def _train_members(
    ensemble: Ensemble,
    rows: TrainingRows,
    folder: Path,
    record: dict[str, Any],
    *,
    device: Device,
    held_out: TrainingRows | None,
    progress: Progress | None,
) -> list[Any]:
    """Train the members of an ensemble one after another, each into a run folder of its own; return them.

    A classical one does not read the held-out rows: it takes long, and is asked about a few of them only.
    """
    models = []
    folders = member_folders(folder, ensemble.size)
    for number, (member, own_folder) in enumerate(zip(ensemble.members, folders, strict=True), start=1):
        if isinstance(member, Classical) and device.process:
            continue  # the first of several processes trains it alone
        run = train_run(
            member,
            rows,
            own_folder,
            seed=member_seed(record["seed"], number, ensemble.size),
            device=device_of(member) if isinstance(member, Classical) else device,
            source=record["source"],
            held_out=held_out if isinstance(member, Network) else None,
            resume=True,
            progress=progress,
        )
        log.info("%s: %d of %d, %s, is trained", ensemble.name, number, ensemble.size, member.name)
        models.append(run.model)
    return models


def _average_members(
    folder: Path, ensemble: Ensemble, record: dict[str, Any], models: list[Any], held_out: TrainingRows | None
) -> np.ndarray | None:
    """Sum up the records of an ensemble's members, and average their probabilities of the held-out rows."""
    folders = member_folders(folder, ensemble.size)
    records = [read_run(member) for member in folders]
    networks = [own for own, member in zip(records, ensemble.members, strict=True) if isinstance(member, Network)]
    # The rows that a classical method keeps are no parameters.
    record["parameters"] = sum(own["parameters"] for own in networks)
    # They may have been trained elsewhere, one by one.
    record |= {name: networks[0][name] for name in ("device", "versions", "commit")}
    metrics: dict[str, Any] = {
        "epoch": 1,
        "seconds": round(sum(epoch["seconds"] for member in records for epoch in member["epochs"]), 3),
    }
    record["epochs"] = [metrics]
    if not held_out:
        return None
    pixels = held_out.pixels

    def read_by(member: int, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(ensemble.members[member], Network):
            return _held_out_probabilities(folders[member] / VALIDATION_FILE)[rows]
        return predict_probabilities(models[member], ensemble.members[member], pixels[rows])

    started = time.perf_counter()
    probabilities = average_members(ensemble, read_by)
    metrics["validation_accuracy"] = accuracy(probabilities, held_out.digits)
    seconds = sum(own["epochs"][-1].get("validation_seconds", 0.0) for own in networks)
    metrics["validation_seconds"] = round(seconds + time.perf_counter() - started, 3)
    return probabilities


def _held_out_probabilities(file: Path) -> np.ndarray:
    try:
        with np.load(file) as saved:
            return saved["probabilities"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{file}: not readable ({type(error).__name__}). Expected the probabilities of the held-out rows, which "
            f"training wrote. Remove {file.parent} and train it again."
        ) from error


def _take_folder(folder: Path, recipe: Recipe, record: dict[str, Any], *, resume: bool) -> bool:
    """Make sure that a run folder is free or holds this very run; return whether that is finished.

    Raises:
        RunError: it holds another run, or this one and ``resume`` is off.
    """
    if not (folder / RUN_FILE).exists():  # without a run.json nobody knows what a checkpoint is of
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        return False
    if not resume:
        raise RunError(
            f"{folder}: holds a run already. Expected a new folder. Name another one, or continue it with --resume."
        )
    previous = read_run(folder)
    differing = find_difference(previous, recipe, record["seed"], record["rows"])
    if differing:
        raise RunError(f"{folder}: {differing} Name another folder, or repeat the settings of the first run.")
    if not previous["finished"]:
        _note_change_of_device(folder, previous, record)
    return previous["finished"]


@contextlib.contextmanager
def _together(device: Device) -> Iterator[None]:
    """Say what it means when something fails in one of several processes: JAX has no error of its own for it."""
    try:
        yield
    except Exception as error:
        if device.processes == 1 or isinstance(error, DigitsError):
            raise
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise TrainingError(
            f"process {device.process} of {device.processes} cannot go on ({reason[:200]}). Expected all processes to "
            "stay. Most likely another one was lost: see what it said. Start all again with --resume; whole epochs are "
            "kept."
        ) from error


def _agree(device: Device, record: dict[str, Any], *, finished: bool) -> bool:
    """Compare this process with the first one; return whether that has finished the run already.

    Raises:
        RunError: they were started to train different things.
    """
    mine = {"recipe": record["recipe"], "seed": record["seed"], "rows": record["rows"]}
    with _together(device):
        answer = json.loads(device.from_first(json.dumps({"finished": finished, **mine}).encode()))
    differing = [name for name, value in mine.items() if answer[name] != json.loads(json.dumps(value))]
    if differing:
        raise RunError(
            f"process {device.process}: has another {' and '.join(differing)} than the first. Expected the same "
            "command and the same data for all. Start all again."
        )
    return answer["finished"]


def _note_change_of_device(folder: Path, previous: dict[str, Any], record: dict[str, Any]) -> None:
    """Say and record that a run goes on elsewhere than it was begun."""
    # Runs from before there was a choice do not name the backend.
    before, now = ({"backend": "tensorflow", **found["device"]} for found in (previous, record))
    if any(before[name] != now[name] for name in ("kind", "replicas", "precision", "backend")):
        record["devices_before"] = [*previous.get("devices_before", []), previous["device"]]
        log.warning(
            "%s was begun on %s and goes on on %s: the result will differ.",
            folder,
            previous["device"],
            record["device"],
        )


def _start_record(
    recipe: Recipe, rows: TrainingRows, *, seed: int, device: Device, source: str, held_out: TrainingRows | None
) -> dict[str, Any]:
    return {
        "finished": False,
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "source": source,
        "rows": describe_rows(rows, held_out),
        "device": {
            "kind": device.kind,
            "replicas": device.replicas,
            "precision": device.precision,
            "backend": device.backend,
            "processes": device.processes,
            "reason": device.reason,
        },
        "versions": _versions(recipe),
        "commit": find_commit(),
        "submission": None,
        "parameters": None,
        "epochs": [],
    }


def _versions(recipe: Recipe) -> dict[str, str]:
    versions = {
        "kaggle_digits": kaggle_digits.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    if isinstance(recipe, Classical):
        libraries = {}
        for name in ("scikit-learn", "scikit-learn-intelex"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                libraries[name] = importlib.metadata.version(name)
        return versions | libraries
    import keras

    backend = keras.backend.backend()
    return versions | {"keras": keras.__version__, backend: import_backend(backend).__version__}
