"""Constants, the recipe type and the error tree: what every other module may use.

Errors
------
``DigitsError``          base of everything this package raises on purpose; exit code 1
├── ``InputError``       what the user gave is wrong; exit code 2
│   ├── ``DataError``        a data file
│   ├── ``SubmissionError``  a submission file
│   ├── ``RunError``         a run folder
│   ├── ``DeviceError``      a device that is not there
│   └── ``AccessError``      Kaggle does not let this user in
├── ``TrainingError``    the training itself failed
└── ``KaggleError``      Kaggle refused, failed, or could not be reached

Each message has three parts: what arrived and where, what was expected, what to do next.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: there, two processes are not kept apart
    fcntl = None  # type: ignore[assignment]

SIDE = 28
PIXELS = SIDE * SIDE
CLASSES = 10
COMPETITION = "digit-recognizer"
TEST_ROWS = 28_000
"""Rows of the competition's test.csv, expected of a submission when the test file is not at hand."""

DEFAULT_RECIPE = "fast"
SAMPLE = "sample"
"""The word that names the built-in data."""


class DigitsError(Exception):
    """Say what went wrong in one paragraph; base of all errors raised on purpose."""

    exit_code = 1


class InputError(DigitsError):
    """The input is wrong; the command line ends with exit code 2."""

    exit_code = 2


class DataError(InputError):
    """A data file is missing or malformed."""


class SubmissionError(InputError):
    """A submission file is malformed, or would overwrite another."""


class RunError(InputError):
    """A run folder is missing, unfinished, or belongs to another training."""


class DeviceError(InputError):
    """The device that was asked for is not there."""


class AccessError(InputError):
    """Kaggle does not let this user in: no credentials, rules not accepted, a wrong name."""


class TrainingError(DigitsError):
    """The training itself failed."""


class KaggleError(DigitsError):
    """Kaggle refused, failed, or could not be reached."""


Layer = tuple[str, dict[str, Any]]
"""A Keras layer as data: its class name in ``keras.layers`` and its arguments."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Say how far a training image may be moved; every value is drawn anew for each image and epoch.

    Args:
        rotation: degrees, drawn from ±rotation.
        scale: fraction; each axis is stretched by a factor from 1 ± scale of its own.
        shear: horizontal shift per row as a fraction, drawn from ±shear.
        shift: pixels, drawn from ±shift on each axis.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Restyling(Augmentation):
    """Say also how far a training digit may be written in another way, before it is moved.

    Args:
        strokes: the share of the ones, sevens and nines that get what MNIST's writers leave out: flag, foot, bar,
            serif, tail.
        bend: pixels, drawn from ±bend at the nodes of a smooth displacement of all points.
        pen: pixels by which the outline of the strokes moves out or in, drawn from ±pen.
        blur: the weight of a pixel's neighbours, drawn from 0 to blur.
    """

    strokes: float = 0.0
    bend: float = 0.0
    pen: float = 0.0
    blur: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Raise the learning rate linearly to ``peak``, then lower it along half a cosine, step by step.

    Args:
        peak: the highest learning rate.
        warmup: the fraction of all steps spent rising.
        start, end: first and last learning rate, as fractions of the peak.

    Source: Smith and Topin 2018, arXiv 1708.07120, with the cosine descent that is now usual.
    """

    peak: float
    warmup: float
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Milestones:
    """Multiply the learning rate by ``factor`` at the start of each of the given epochs.

    Args:
        start: before the first milestone.
        factor: of each step.
        epochs: counted from 0; a milestone at 0 acts before the first step.
    """

    start: float
    factor: float
    epochs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Multiply the learning rate by ``factor`` when the accuracy on tuning rows has stopped rising.

    Args:
        start: the first learning rate.
        factor: of each step.
        patience: epochs without a rise before a step; counted anew after each.
        threshold: a rise is an accuracy above the best so far times 1 + threshold.
    """

    start: float
    factor: float
    patience: int
    threshold: float


LearningRate = float | OneCycle | Milestones | Plateau
SCHEDULES = (OneCycle, Milestones, Plateau)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Say what to train and how; a row of the table in ``recipes``. What all kinds of recipes share.

    Args:
        name: as given to ``--recipe``.
        summary: one line for people.
        source: where the method and its settings come from.
        published: the author's figure, in the author's terms.
        published_accuracy: that figure as correct / seen, where it is an accuracy on unseen digits; else None.
        published_seconds: what the author's training and prediction took, where known.
        note: where this had to differ from what was published.
        deslant: set every digit upright before anything else, see ``moments.normalise_pixels``.
        spread: pixels; above 0 digits are stretched sideways to a common width, see there.
        pixel_offset, pixel_scale: images = (pixels − pixel_offset) / pixel_scale.
        validation_fraction: share of the rows held out, stratified, to measure accuracy.
        retrain: train again on all rows, held-out ones included, before predicting.
    """

    name: str
    summary: str
    source: str
    published: str = "none"
    published_accuracy: float | None = None
    published_seconds: float | None = None
    note: str = ""
    deslant: bool = False
    spread: float = 0.0
    pixel_offset: float = 0.0
    pixel_scale: float = 1.0
    validation_fraction: float = 0.05
    retrain: bool = False

    @property
    def normalises(self) -> bool:
        """Whether digits are changed by the moments of their ink."""
        return self.deslant or self.spread > 0


@dataclass(frozen=True, kw_only=True)
class Classical(Recipe):
    """A classical method on the 784 pixels.

    Args:
        estimator: its name in ``baselines`` and its settings.
    """

    estimator: Layer


@dataclass(frozen=True, kw_only=True)
class Network(Recipe):
    """A Keras network.

    Args:
        layers: the Sequential network without its input, ending in ten logits.
        loss: "crossentropy" (on logits) or "mse" (on one-hot labels).
        label_smoothing: share of every label that is spread over all classes; for cross-entropy.
        optimizer: Keras class name and all its settings, since Keras has changed defaults under its users.
        learning_rate: constant, or a schedule over the whole training.
        epochs: passes over the training rows, at most.
        stop_at: end after the first epoch that reaches this accuracy on tuning rows.
        batch_size: rows per step, over all replicas.
        augmentation: random changes of the training images, or None.
        precision: "float32", or "mixed_bfloat16" where the device computes it natively.
        shift_averaging: pixels; above 0 the probabilities of images that it is not sure of are averages over the image
            and its shifts by so many up, down, left and right.
        slant_averaging: above 0 they are averages over the image and four slants of it, to the left and to the right by
            so many pixels sideways per row, and by half of it: digits from elsewhere lean otherwise.
    """

    layers: tuple[Layer, ...]
    loss: str
    label_smoothing: float = 0.0
    optimizer: Layer
    learning_rate: LearningRate
    epochs: int
    stop_at: float | None = None
    batch_size: int
    augmentation: Augmentation | None = None
    precision: str = "float32"
    shift_averaging: int = 0
    slant_averaging: float = 0.0

    @property
    def averages(self) -> bool:
        """Whether the probabilities are averages over several images made of one."""
        return bool(self.shift_averaging or self.slant_averaging)

    @property
    def tunes(self) -> bool:
        """Whether an accuracy decides on the training: it needs rows that are neither trained on nor reported."""
        return self.stop_at is not None or isinstance(self.learning_rate, Plateau)


@dataclass(frozen=True, kw_only=True)
class Ensemble(Recipe):
    """Networks, each with a seed of its own, whose probabilities are averaged, and perhaps a classical method.

    A classical method that errs on other digits than networks do takes long for an image: it is asked only about those
    that the networks are not sure of. So, unlike a network, it does not read the held-out rows when it is trained as a
    member.

    Which rows are held out and how pixels are scaled is the members' to say, who must agree in it.

    Args:
        members: recipes of the table, at least one of them a network; one may be there several times.
    """

    members: tuple[Network | Classical, ...]

    def __post_init__(self) -> None:
        assert self.networks, f"{self.name}: no network among its members"
        for name in ("pixel_offset", "pixel_scale", "validation_fraction", "retrain", "precision"):
            alike = self.networks if name == "precision" else self.members
            values = {getattr(member, name) for member in alike}
            assert len(values) == 1, f"{self.name}: its members' {name} differ: {values}"
            if name != "precision":
                object.__setattr__(self, name, values.pop())

    @property
    def networks(self) -> tuple[Network, ...]:
        """Those of its members that are networks."""
        return tuple(member for member in self.members if isinstance(member, Network))

    @property
    def size(self) -> int:
        """How many members."""
        return len(self.members)

    @property
    def precision(self) -> str:
        """That of the networks."""
        return self.networks[0].precision


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error.

    A reader, or a kill at any moment, sees the old file or the whole new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed name, so that what a kill leaves is overwritten by the next try; the suffix is kept, since NumPy and
    # Keras choose the format by it.
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: DigitsError | None = None) -> Iterator[None]:
    """Keep a file or folder to this process; the lock ends with the process, however that ends.

    Args:
        path: must exist.
        busy: raised if another process has it; None waits for the other.
    """
    if not fcntl:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            raise busy or error from error
        yield
    finally:
        os.close(handle)


def numbered_names(path: Path) -> Iterator[Path]:
    """Yield ``path``, then name-2, name-3 … without end.

    >>> names = numbered_names(Path("runs/fast.csv"))
    >>> [next(names).name for _ in range(3)]
    ['fast.csv', 'fast-2.csv', 'fast-3.csv']
    """
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def find_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with "-dirty" if changed; None if installed."""
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
