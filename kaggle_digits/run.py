"""The run folder: the results of a training, for everything that comes after it.

It holds ``run.json`` (what was trained, where, and with what result), ``model.npz`` (the weights of a network, or what
a classical method has learned, as plain arrays), and ``validation.npz`` if rows were held out. An ensemble holds the
run folders of its members instead of a model. The files may come from anyone: reading them runs no code.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kaggle_digits.data import Split, TrainingRows
from kaggle_digits.digits import CLASSES
from kaggle_digits.errors import RunError
from kaggle_digits.files import checksum, read_arrays, read_json, write_json
from kaggle_digits.recipe import Recipe, to_json
from kaggle_digits.strategy import Device

RUN_FILE, MODEL_FILE, VALIDATION_FILE = "run.json", "model.npz", "validation.npz"

MEMBER = re.compile(r"([0-9]+)-of-([0-9]+)")
"""Name of the run folder of an ensemble member, or of a fold."""


class Predictor(Protocol):
    """The trained form of a recipe, bound to its recipe and its device."""

    @property
    def parameters(self) -> int | None:
        """The number of learned parameters, or None for a method without them."""

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Predict the probability of every digit for every row.

        Args:
            pixels: (N, 784) uint8 or float32, 0–255.

        Returns:
            (N, 10) float32 or float64; rows sum to 1.
        """

    def save(self, folder: Path) -> None:
        """Write the trained form into a run folder."""


@dataclass(frozen=True)
class Threshold:
    """The probability from which on a digit is sure, and its measured effects.

    Args:
        value: the smallest probability of a sure digit, 0–1.
        unsure_digits: the share of held-out digits below it.
        sure_letters: the share of letters at or above it, in fonts that were not trained on.
    """

    value: float
    unsure_digits: float
    sure_letters: float


@dataclass(frozen=True)
class RowCounts:
    """Numbers that identify a set of training rows.

    Args:
        training, held_out: the numbers of rows.
        checksum: CRC-32 of the training rows.
    """

    training: int
    held_out: int
    checksum: int

    @classmethod
    def of(cls, rows: TrainingRows, held_out: TrainingRows | None) -> RowCounts:
        """Count the rows of a training."""
        digits, pixels = np.ascontiguousarray(rows.digits), np.ascontiguousarray(rows.pixels)
        checksum = zlib.crc32(pixels.data, zlib.crc32(digits.data))
        return cls(len(rows), len(held_out) if held_out else 0, checksum)

    def __str__(self) -> str:
        return f"{self.training:,} rows and {self.held_out:,} held out, checksum {self.checksum}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training, as its ``run.json`` describes it.

    Each field except ``folder`` and ``predictor`` is a key of ``run.json``. A new one needs a default, or older run
    folders cannot be read. ``train`` fills it in.

    Args:
        folder: the run folder.
        recipe: what was trained.
        seed: the seed for everything random.
        source: where the rows came from.
        rows: the numbers of rows.
        split: how they were divided into those to train on and those held out; None if that is not known.
        device: where the training ran.
        versions: the versions of the libraries that took part.
        commit: the commit of this package; None if it was installed from elsewhere.
        finished: whether the training has ended.
        devices_before: where earlier parts of a resumed training ran.
        parameters: how many numbers were learned.
        epochs: the metrics of each epoch; a method without epochs has one entry.
        temperature: calibrates the probabilities; None if no rows were held out.
        threshold: when a digit is sure; None for a network that was trained on digits only.
        checksums: SHA-256 of the model and of the probabilities, by file name.
        submission: the submission file that was made with the run, or was about to be made; or None.
        predictor: the trained form, if it was loaded.
    """

    folder: Path
    recipe: Recipe
    seed: int
    source: str
    rows: RowCounts
    split: Split | None = None
    device: Device
    versions: dict[str, str]
    commit: str | None
    finished: bool = False
    devices_before: tuple[Device, ...] = ()
    parameters: int | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    temperature: float | None = None
    threshold: Threshold | None = None
    checksums: dict[str, str] = field(default_factory=dict)
    submission: str | None = None
    predictor: Any = field(default=None, compare=False, repr=False)

    @property
    def accuracy(self) -> float | None:
        """Correct / seen on the held-out rows, with the last weights; None if no rows were held out."""
        return self.epochs[-1].get("validation_accuracy") if self.epochs else None

    @property
    def seconds(self) -> float:
        """Seconds spent on training."""
        return sum(epoch["seconds"] for epoch in self.epochs)

    @property
    def validation_seconds(self) -> float:
        """Seconds that the last prediction of the held-out rows took."""
        return self.epochs[-1].get("validation_seconds", 0.0) if self.epochs else 0.0

    @property
    def probabilities(self) -> np.ndarray:
        """The probabilities (N, 10) of the held-out rows.

        Raises:
            RunError: there are none, or the file is damaged.
        """
        return self._validation("probabilities")

    @property
    def held_out_digits(self) -> np.ndarray:
        """The true digits (N,) of the held-out rows; raises what ``probabilities`` raises."""
        return self._validation("digits")

    @property
    def members(self) -> list[Run]:
        """The runs of the recipe's members, without their trained forms; most recipes have none.

        Raises:
            RunError: a member's run folder is missing or damaged.
        """
        return [read_run(folder) for folder in member_folders(self.folder, len(self.recipe.members))]

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Predict the probability of every digit for every row.

        Args:
            pixels: (N, 784) uint8 or float32, 0–255.

        Returns:
            (N, 10) float32 or float64; rows sum to 1.

        Raises:
            RunError: only the description of the run was read, see ``learners.load_run``.
        """
        if self.predictor is None:
            raise RunError(f"{self.folder}: only its {RUN_FILE} was read. Load it with load_run.")
        return self.predictor.probabilities(pixels)

    def save(self) -> None:
        """Write ``run.json``, whole or not at all."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        del fields["folder"], fields["predictor"]
        fields |= {
            "recipe": to_json(self.recipe),
            "rows": asdict(self.rows),
            "split": self.split and asdict(self.split),
            "device": device_to_json(self.device),
            "threshold": self.threshold and asdict(self.threshold),
            "devices_before": [device_to_json(device) for device in self.devices_before],
        }
        if not self.devices_before:
            del fields["devices_before"]
        write_json(self.folder / RUN_FILE, fields)

    def summary(self) -> dict[str, Any]:
        """Return the run's entry in the record of a submission, as JSON."""
        members = [member.summary() for member in self.members]
        epochs = len(self.epochs)
        if members:  # a member that is not a network has no epochs
            epochs = sum(m["epochs"] for m, recipe in zip(members, self.recipe.members, strict=True) if recipe.networks)
        summary = {
            "run": str(self.folder),
            "recipe": self.recipe.name,
            "seed": self.seed,
            "commit": self.commit,
            "versions": self.versions,
            "device": device_to_json(self.device),
            "epochs": epochs,
            "training_rows": self.rows.training,
            "held_out_rows": self.rows.held_out,
            "held_out_accuracy": self.accuracy,
        }
        return summary | {"members": members} if members else summary

    def with_checksums(self) -> Run:
        """Return the run with the checksums of the files that now lie in its folder."""
        files = [self.folder / name for name in (MODEL_FILE, VALIDATION_FILE)]
        return replace(self, checksums={file.name: checksum(file) for file in files if file.exists()})

    def verify(self, name: str) -> None:
        """Compare a file of the folder with its checksum, if that is known.

        Raises:
            RunError: it is another file, or damaged.
        """
        file = self.folder / name
        if name in self.checksums and file.exists() and checksum(file) != self.checksums[name]:
            raise RunError(
                f"{file}: is not the file that {RUN_FILE} beside it belongs to (the checksums differ). Expected the "
                "file that the same training wrote. It was damaged or exchanged: copy the whole folder again, or train "
                "again."
            )

    def _validation(self, name: str) -> np.ndarray:
        file, rows = self.folder / VALIDATION_FILE, self.rows.held_out
        self.verify(VALIDATION_FILE)
        try:
            return read_arrays(file, {"probabilities": ((rows, CLASSES), "f"), "digits": ((rows,), "iu")})[name]
        except (OSError, ValueError) as error:
            raise RunError(
                f"{file}: not readable ({error}). Expected the probabilities of the held-out rows, which training "
                f"wrote. Remove {self.folder} and train it again."
            ) from error


def device_to_json(device: Device) -> dict[str, Any]:
    """Return where a training ran, as JSON."""
    fields = asdict(replace(device, strategy=None))
    del fields["strategy"]
    return fields


def read_run(folder: Path) -> Run:
    """Read the ``run.json`` of a run folder.

    Raises:
        RunError: there is none, or training did not write it.
    """
    if folder.is_file():
        raise RunError(
            f"{folder}: is a file. Expected a run folder, as `kaggle-digits train` leaves it. Name the folder."
        )
    from kaggle_digits.recipes.fields import build, from_json

    def device_of(fields: dict[str, Any]) -> Device:
        fields = {name: value for name, value in fields.items() if name != "processes"}  # runs of 2026 have it
        return build(Device, fields | {"strategy": None})

    try:
        fields = read_json(folder / RUN_FILE)
        recipe = from_json(fields.pop("recipe"))
        fields["rows"] = build(RowCounts, fields["rows"])
        fields["device"] = device_of(fields["device"])
        fields["devices_before"] = tuple(map(device_of, fields.get("devices_before", ())))
        for name, kind in (("threshold", Threshold), ("split", Split)):
            if fields.get(name) is not None:
                fields[name] = build(kind, fields[name])
        run = build(Run, fields | {"folder": folder, "recipe": recipe})
        measured = ("seconds", "validation_seconds", "validation_accuracy")
        if not all(isinstance(epoch.get(name, 0), int | float) for epoch in run.epochs for name in measured):
            raise TypeError("metrics are not numbers")
        if run.temperature is not None and run.temperature <= 0:
            raise ValueError(f"a temperature of {run.temperature}")
    except FileNotFoundError as error:
        raise RunError(
            f"{folder}: no {RUN_FILE} in it. Expected a run folder, as `kaggle-digits train --run {folder}` leaves it."
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise RunError(
            f"{folder / RUN_FILE}: not readable as a run ({type(error).__name__}: {error}). Expected the file that "
            "training wrote. Train again into a new folder."
        ) from error
    return run


def member_folder(folder: Path, member: int, members: int) -> Path:
    """Return the run folder of one of the members in a folder. Members count from 1."""
    return folder / f"{member}-of-{members}"


def member_folders(folder: Path, members: int) -> list[Path]:
    """Return the run folders of all members in a folder."""
    return [member_folder(folder, member, members) for member in range(1, members + 1)]


def member_seed(seed: int, member: int, members: int) -> int:
    """Return the seed of a member. Members of different ensembles of the same size also have different seeds.

    >>> [member_seed(1, member, 3) for member in (1, 2, 3)]
    [3, 4, 5]
    """
    return (seed * members + member - 1) % 2**32


def mark_used(runs: Iterable[Run], submission: Path) -> list[Run]:
    """Note in run folders which submission file is made with them, and return the runs with the note."""
    noted = [replace(run, submission=str(submission)) for run in runs]
    for run in noted:
        run.save()
    return noted


def find_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, or None if it is installed.

    If files were changed, "-dirty" is appended.
    """
    package = Path(__file__).parent
    if not (package.parent / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):  # no git, or no commit yet
        return None
    return described.stdout.strip()
