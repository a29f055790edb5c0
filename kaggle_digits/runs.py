"""The run folder: what one training hands over to everything after it.

It holds ``run.json`` (what was trained, where, and what came of it), ``model.npz`` (the weights of a network, or what a
classical method has learned, as plain arrays), and ``validation.npz`` if rows were held out. An ensemble holds the run
folders of its members instead of a model. The files may come from anyone: reading them runs no code.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kaggle_digits import CLASSES
from kaggle_digits.arrays import read_arrays
from kaggle_digits.errors import RunError
from kaggle_digits.files import checksum, locked, numbered_names, partial_name, read_json, write_json
from kaggle_digits.recipe import Recipe, build, from_json, to_json
from kaggle_digits.records import load_record, record_path
from kaggle_digits.strategy import Device

if TYPE_CHECKING:
    from kaggle_digits.data import TrainingRows
    from kaggle_digits.learners import Predictor

log = logging.getLogger(__name__)

RUN_FILE, MODEL_FILE = "run.json", "model.npz"
VALIDATION_FILE, CHECKPOINT_FILES = "validation.npz", ("checkpoint.npz", "checkpoint-before.npz")
"""The checkpoints of the last epoch and of the one before it."""

MEMBER = re.compile(r"([0-9]+)-of-([0-9]+)")
"""The name of a member's run folder."""


@dataclass(frozen=True)
class Threshold:
    """The probability from which on a digit counts as sure, and what that was found to mean.

    Args:
        value: the least probability, 0–1.
        unsure_digits: the share of held-out digits below it.
        sure_letters: the share of letters at or above it, in fonts that were not trained on.
    """

    value: float
    unsure_digits: float
    sure_letters: float


@dataclass(frozen=True)
class RowCounts:
    """What tells one set of training rows from another.

    Args:
        training, held_out: how many rows there are.
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
        seed: of everything random.
        source: where the rows came from.
        rows: how many rows there were.
        device: where the training ran.
        versions: the versions of the libraries that took part.
        commit: the commit of this package; None if it was installed from elsewhere.
        finished: whether the training has ended.
        devices_before: where earlier parts of a resumed training ran.
        parameters: how many numbers were learned.
        epochs: the metrics of each epoch; a method without epochs has one entry.
        temperature: calibrates the probabilities; None if no rows were held out.
        threshold: where a network that was trained on what is not a digit stops being sure; else None.
        checksums: SHA-256 of the model and of the probabilities, by the names of their files.
        submission: the submission file that was made with the run, or was about to be made; or None.
        predictor: the trained form, if it was loaded.
    """

    folder: Path
    recipe: Recipe
    seed: int
    source: str
    rows: RowCounts
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
    predictor: Predictor | None = field(default=None, compare=False, repr=False)

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

    @property
    def is_used(self) -> bool:
        """Whether a submission was made with it. It is, once the record of the file names it; that is written last."""
        record = load_record(record_path(Path(self.submission))) if self.submission else None
        folders = [run.get(name) for run in record["runs"] for name in ("run", "measured_by")] if record else []
        return str(self.folder) in folders

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Predict the probability of every digit for every row.

        Args:
            pixels: (N, 784) uint8 or float32, 0–255.

        Returns:
            (N, 10) float32 or float64; rows sum to 1.

        Raises:
            RunError: only the description of the run was read, see ``predict.load_run``.
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
            "rows": dataclasses.asdict(self.rows),
            "device": device_to_json(self.device),
            "threshold": self.threshold and dataclasses.asdict(self.threshold),
            "devices_before": [device_to_json(device) for device in self.devices_before],
        }
        if not self.devices_before:
            del fields["devices_before"]
        write_json(self.folder / RUN_FILE, fields)

    def summary(self) -> dict[str, Any]:
        """Return, as JSON, what the record of a submission says about the run."""
        members = [member.summary() for member in self.members]
        epochs = len(self.epochs)
        if members:  # a member that is no network has no epochs
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

    def with_checksums(self) -> Run:
        """Return the run with the checksums of the files that now lie in its folder."""
        files = [self.folder / name for name in (MODEL_FILE, VALIDATION_FILE)]
        return replace(self, checksums={file.name: checksum(file) for file in files if file.exists()})

    def verify(self, name: str) -> None:
        """Check that a file of the folder is the one that belongs to this run, if the checksum is known.

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


def device_to_json(device: Device) -> dict[str, Any]:
    """Return, as JSON, where a training ran."""
    fields = dataclasses.asdict(replace(device, strategy=None))
    del fields["strategy"]
    return fields


def _device_from_json(fields: dict[str, Any]) -> Device:
    fields = {name: value for name, value in fields.items() if name != "processes"}  # runs of 2026 have it
    return build(Device, fields | {"strategy": None})


def read_run(folder: Path) -> Run:
    """Read the ``run.json`` of a run folder.

    Raises:
        RunError: there is none, or training did not write it.
    """
    if folder.is_file():
        raise RunError(
            f"{folder}: is a file. Expected a run folder, as `kaggle-digits train` leaves it. Name the folder."
        )
    try:
        fields = read_json(folder / RUN_FILE)
        recipe = from_json(fields.pop("recipe"))
        fields["rows"] = build(RowCounts, fields["rows"])
        fields["device"] = _device_from_json(fields["device"])
        fields["devices_before"] = tuple(map(_device_from_json, fields.get("devices_before", ())))
        if fields.get("threshold") is not None:
            fields["threshold"] = build(Threshold, fields["threshold"])
        run = build(Run, fields | {"folder": folder, "recipe": recipe, "predictor": None}, Predictor=object)
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
    """Return the run folder of one of the members that train into a folder. Members count from 1."""
    return folder / f"{member}-of-{members}"


def member_folders(folder: Path, members: int) -> list[Path]:
    """Return the run folders of all members that train into a folder."""
    return [member_folder(folder, member, members) for member in range(1, members + 1)]


def member_seed(seed: int, member: int, members: int) -> int:
    """Return the seed of a member. No two members have the same one, not even in different ensembles of one size.

    >>> [member_seed(1, member, 3) for member in (1, 2, 3)]
    [3, 4, 5]
    """
    return (seed * members + member - 1) % 2**32


def run_folders(folder: Path) -> list[Path]:
    """Return the run folders that a folder stands for: itself, or those of all its members.

    Raises:
        RunError: members are missing, or belong to ensembles of different sizes.
    """
    found = [] if (folder / RUN_FILE).exists() else [file.parent.name for file in folder.glob(f"*/{RUN_FILE}")]
    members = [match for name in found if (match := MEMBER.fullmatch(name))]
    if not members:
        return [folder]
    sizes = {int(match[2]) for match in members}
    if len(sizes) > 1:
        raise RunError(
            f"{folder}: holds members of ensembles of {' and '.join(map(str, sorted(sizes)))}. Expected one ensemble. "
            "Name the run folders one by one."
        )
    wanted = member_folders(folder, max(sizes))
    missing = [path.name for path in wanted if not (path / RUN_FILE).exists()]
    if missing:
        raise RunError(
            f"{folder}: {', '.join(missing)} of its members missing. Expected all. Train them with --member, or name "
            "the run folders one by one."
        )
    return wanted


State = Literal["fresh", "resumable", "finished"]


class Claim(NamedTuple):
    """A run folder that this process has to itself: what to train into it or has been trained, and how it stands."""

    run: Run
    state: State


@contextmanager
def claim(wanted: Run, *, resume: bool = False, numbered: bool = False) -> Iterator[Claim]:
    """Lock the folder of a run, made if need be, and decide once what it holds.

    Args:
        wanted: the training that is about to start, with the folder to train into.
        resume: take up the same training if the folder holds it.
        numbered: take up the same training only until a submission was made with it, see ``Run.is_used``. If the
            folder holds something else or is in use, take the next of name-2, name-3 and so on.

    Raises:
        RunError: the folder holds another training, or this one and ``resume`` is off, or another process has it.
    """
    with ExitStack() as stack:
        for folder in numbered_names(wanted.folder) if numbered else (wanted.folder,):
            is_ours = not numbered or (folder / RUN_FILE).exists() or _is_free(folder)
            try:
                if is_ours:
                    stack.enter_context(_locked_folder(folder))
                    claimed = _decide(replace(wanted, folder=folder), resume=resume or numbered)
                    if not (numbered and claimed.run.is_used):
                        break
            except RunError:
                if not numbered:
                    raise
            stack.pop_all().close()
        yield claimed


def _is_free(folder: Path) -> bool:
    """Whether a folder holds nothing but what a kill has left while the first run.json was written."""
    return not folder.exists() or (
        folder.is_dir() and {file.name for file in folder.iterdir()} <= {partial_name(Path(RUN_FILE))}
    )


def _locked_folder(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    busy = RunError(
        f"{folder}: is being trained by another process. Expected a folder of its own for each training. Name another "
        "one, or wait for the other process."
    )
    return locked(folder, busy)


def _decide(wanted: Run, *, resume: bool) -> Claim:
    folder = wanted.folder
    if not (folder / RUN_FILE).exists():  # without a run.json nobody knows what a checkpoint belongs to
        remove_checkpoints(folder)
        return Claim(wanted, "fresh")
    if not resume:
        raise RunError(
            f"{folder}: holds a run already. Expected a new folder. Name another one, or continue it with --resume."
        )
    found = read_run(folder)
    if difference := find_difference(found, wanted):
        raise RunError(f"{folder}: {difference} Name another folder, or repeat the settings of the first run.")
    if found.finished:
        return Claim(found, "finished")
    if found.device.place == wanted.device.place:
        return Claim(replace(wanted, devices_before=found.devices_before), "resumable")
    log.warning("%s was begun on %s and goes on on %s: the result will differ.", folder, found.device, wanted.device)
    return Claim(replace(wanted, devices_before=(*found.devices_before, found.device)), "resumable")


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a training that has ended, or that nobody knows any more."""
    for name in CHECKPOINT_FILES:
        (folder / name).unlink(missing_ok=True)


def find_difference(found: Run, wanted: Run) -> str | None:
    """Say in what a run differs from the one that is wanted, or return None."""
    name = wanted.recipe.name
    if found.recipe.name != name:
        return f"holds a run of {found.recipe.name}, and {name} was asked for."
    if found.recipe.settings() != wanted.recipe.settings():
        return f"holds a run of {name} with other settings than the recipe has now."
    if found.seed != wanted.seed:
        return f"holds a run with seed {found.seed}, and seed {wanted.seed} was asked for."
    if found.rows != wanted.rows:
        return f"holds a run on other rows ({found.rows}; now {wanted.rows})."
    return None


def mark_used(runs: Iterable[Run], submission: Path) -> list[Run]:
    """Note in run folders which submission file is made with them, see ``Run.is_used``.

    Returns:
        the runs with the note.
    """
    noted = [replace(run, submission=str(submission)) for run in runs]
    for run in noted:
        run.save()
    return noted


@dataclass(frozen=True)
class Trace:
    """How a traced training went, measured at K of its S steps.

    Args:
        steps: (K,) int64, steps taken.
        seconds: (K,) float64, spent on training until then; measuring is not counted.
        accuracies: (K,) float64, on the held-out rows.
        losses: (S,) float64, of every step's batch.
    """

    steps: np.ndarray
    seconds: np.ndarray
    accuracies: np.ndarray
    losses: np.ndarray

    def reach(self, target: float) -> tuple[int, float] | None:
        """Return the steps and seconds until an accuracy was first measured, or None."""
        reached = np.flatnonzero(self.accuracies >= target)
        return (int(self.steps[reached[0]]), float(self.seconds[reached[0]])) if reached.size else None


def trace_of(epochs: list[dict[str, Any]]) -> Trace | None:
    """Collect the trace in the metrics of a run, ends of epochs included, or return None if it was not traced."""
    if not all("curve" in metrics for metrics in epochs):
        return None
    points: dict[int, tuple[float, float]] = {}
    losses: list[float] = []
    before = 0.0
    for metrics in epochs:
        points |= {step: (before + seconds, accuracy) for step, seconds, accuracy in metrics["curve"]}
        losses += metrics["losses"]
        before += metrics["seconds"]
        if "validation_accuracy" in metrics:
            points.setdefault(len(losses), (before, metrics["validation_accuracy"]))
    seconds, accuracies = np.array(list(points.values()), float).reshape(-1, 2).T
    return Trace(np.array(list(points), np.int64), seconds, accuracies, np.array(losses, float))


def find_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, or None if it is installed.

    A changed checkout has "-dirty" behind its commit.
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
