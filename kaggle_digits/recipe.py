"""What to train and how, as data: the kinds of recipes.

``recipes`` reads them from TOML files. A learner trains them, see ``learners.learner_of``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from kaggle_digits.digits import SIDE
from kaggle_digits.errors import InputError

Layer = tuple[str, dict[str, Any]]
"""A class of Keras or scikit-learn as data: its name and its arguments."""


class Range(NamedTuple):
    """The smallest and the largest value of a field. ``recipes.fields.check_fields`` enforces it."""

    least: float
    greatest: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Add the range to pydantic's schema of a number."""
        return handler(source) | {"ge": self.least, "le": self.greatest, "allow_inf_nan": False}


Count = Annotated[int, Range(1, 1_000_000)]
Rate = Annotated[float, Range(0, 1e30)]
Share = Annotated[float, Range(0, 1)]


class Part:
    """A recipe or a part of one. Its JSON and its TOML name the class as "kind"."""

    @classmethod
    def find_kinds(cls) -> Iterator[tuple[str, type[Part]]]:
        """Yield the name of every kind of part that has been imported, and its class."""
        for kind in cls.__subclasses__():
            yield kind.__name__, kind
            yield from kind.find_kinds()


@dataclass(frozen=True, kw_only=True)
class Augmentation(Part):
    """How far a training image may be moved. Every value is drawn anew for each image and epoch.

    Args:
        rotation: degrees, drawn from ±rotation.
        scale: fraction; each axis is stretched by a factor of its own from 1 ± scale.
        shear: sideways shift from row to row, in pixels, drawn from ±shear.
        shift: pixels, drawn from ±shift for each axis.
    """

    rotation: Annotated[float, Range(0, 180)] = 0.0
    scale: Annotated[float, Range(0, 0.9)] = 0.0
    shear: Annotated[float, Range(0, 5)] = 0.0
    shift: Annotated[float, Range(0, SIDE)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Restyling(Augmentation):
    """How much the style of a training digit may also change, before it is moved.

    Args:
        strokes: share of the ones, sevens and nines that get a stroke which MNIST's writers leave out: a flag or a
            foot, a bar or a serif, a tail.
        bend: pixels, drawn from ±bend at the nodes of a smooth displacement of all points.
        pen: pixels by which the outline of the strokes moves out or in, drawn from ±pen.
        blur: weight of a pixel's neighbours, drawn from 0 to blur.
    """

    strokes: Share = 0.0
    bend: Annotated[float, Range(0, SIDE)] = 0.0
    pen: Annotated[float, Range(0, SIDE / 2)] = 0.0
    blur: Annotated[float, Range(0, 10)] = 0.0


@dataclass(frozen=True, kw_only=True)
class OneCycle(Part):
    """A learning rate that rises linearly to ``peak`` and then falls along half a cosine, step by step.

    Args:
        peak: the highest learning rate.
        warmup: fraction of all steps that are spent rising.
        start, end: first and last learning rate, as fractions of the peak.

    Source: Smith and Topin 2018, arXiv 1708.07120, with the cosine descent that is usual today.
    """

    peak: Rate
    warmup: Share
    start: Rate
    end: Annotated[float, Range(0, 1000)]


@dataclass(frozen=True, kw_only=True)
class Milestones(Part):
    """A learning rate that is multiplied by ``factor`` at the start of certain epochs.

    Args:
        start: the rate before the first milestone.
        factor: the factor at each milestone.
        epochs: the milestones, counted from 0. A milestone at 0 acts before the first step.
    """

    start: Rate
    factor: Annotated[float, Range(0, 1000)]
    epochs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Plateau(Part):
    """A learning rate that is multiplied by ``factor`` whenever the accuracy on tuning rows has stopped rising.

    Args:
        start: the first learning rate.
        factor: the factor of each cut.
        patience: epochs without a rise before a cut, counted anew after each cut.
        threshold: an accuracy counts as a rise if it is above the best so far times 1 + threshold.
    """

    start: Rate
    factor: Annotated[float, Range(0, 1000)]
    patience: Count
    threshold: Rate


@dataclass(frozen=True, kw_only=True)
class Recipe(Part):
    """What all kinds of recipes share.

    Args:
        name: as given to ``--recipe``.
        summary: one line for people.
        source: where the method and its settings come from.
        published: the author's figure, in the author's words.
        published_accuracy: the same figure as correct / seen, if it is an accuracy on unseen digits; else None.
        published_seconds: seconds that the author's training and prediction took, if known.
        note: how the recipe had to differ from what was published.
        deslant: whether every digit is set upright first, see ``learners.upright.normalise_pixels``.
        spread: pixels; above 0, digits are stretched sideways to a common width, see the same function.
        pixel_offset, pixel_scale: images = (pixels − pixel_offset) / pixel_scale.
        validation_fraction: share of the rows that is held out, stratified, to measure accuracy.
        retrain: whether to train again on all rows, the held-out ones included, before predicting.
    """

    members: ClassVar[tuple[Recipe, ...]] = ()
    """The recipes that this one averages. Only an ensemble has some."""

    precision: ClassVar[str | None] = None
    """The Keras dtype policy to train with; None for a recipe without Keras."""

    WORDS: ClassVar = {"summary", "source", "published", "published_accuracy", "published_seconds", "note"}
    """The fields that people read. None of them changes the training."""

    name: str
    summary: str
    source: str
    published: str = "none"
    published_accuracy: float | None = None
    published_seconds: float | None = None
    note: str = ""
    deslant: bool = False
    spread: Annotated[float, Range(0, SIDE)] = 0.0
    pixel_offset: Annotated[float, Range(-1e30, 1e30)] = 0.0
    pixel_scale: Annotated[float, Range(-1e30, 1e30)] = 1.0
    validation_fraction: Annotated[float, Range(0.001, 0.999)] = 0.05
    retrain: bool = False

    @property
    def normalises(self) -> bool:
        """Whether digits are set upright or stretched."""
        return self.deslant or self.spread > 0

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that it trains."""
        return tuple(network for member in self.members for network in member.networks)

    def with_epochs(self, epochs: int) -> Self:
        """Return the recipe with another number of epochs for each of its networks.

        Raises:
            InputError: it has no network, and so no epochs.
        """
        raise InputError(f"--epochs {epochs}: {self.name} has no epochs. Expected a network. Leave --epochs out.")

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the training, as JSON."""
        plain = {name: value for name, value in to_json(self).items() if name not in self.WORDS}
        return plain | ({"members": [member.settings() for member in self.members]} if self.members else {})

    def for_rows(self, rows: int) -> Self:  # noqa: ARG002
        """Return the recipe adapted to this number of training rows."""
        return self

    def describe(self) -> str:
        """Return its name and how long it trains, for people."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class Classical(Recipe):
    """A classical method on the 784 pixels.

    Args:
        estimator: its name in ``learners.classical`` and its settings.
    """

    estimator: Layer


@dataclass(frozen=True, kw_only=True)
class Network(Recipe):
    """A Keras network.

    Args:
        layers: the Sequential network without its input; the last layer gives ten logits.
        loss: "crossentropy" (of the logits) or "mse" (to one-hot labels).
        label_smoothing: share of every label that is spread over all classes; for cross-entropy.
        optimizer: the class name of a Keras optimizer, or ConvMuon, and all of its settings, because Keras has changed
            its defaults before.
        learning_rate: a constant, or a schedule over the whole training.
        epochs: passes over the training rows, at most.
        stop_at: the training ends after the first epoch that reaches this accuracy on tuning rows.
        batch_size: rows per step, over all replicas.
        least_steps: the minimum number of optimizer steps. With few rows, batches become smaller first, then epochs are
            added. Batch normalisation and one-cycle schedules learn nothing in a few dozen steps.
        augmentation: random changes of the training images, or None.
        drawn: the number of drawn images to add, as a share of the training rows, see ``learners.drawing``. They are
            letters, signs, scribbles and parts of digits, which teach the network to be unsure, and some digits.
        precision: "float32", or "mixed_bfloat16" on devices that compute it natively.
        shift_averaging: pixels; above 0, an image that the network is unsure of is also shifted up, down, left and
            right by this distance, and the probabilities are averaged.
        slant_averaging: pixels sideways per row; above 0, probabilities are averaged over the image and four slanted
            copies: by this much and by half as much, to each side. Digits from elsewhere lean differently.
    """

    layers: tuple[Layer, ...]
    loss: Literal["crossentropy", "mse"]
    label_smoothing: Annotated[float, Range(0, 0.999)] = 0.0
    optimizer: Layer
    learning_rate: Rate | OneCycle | Milestones | Plateau
    epochs: Count
    stop_at: Annotated[float, Range(0, 2)] | None = None
    batch_size: Count
    least_steps: Annotated[int, Range(0, 1_000_000)] = 0
    augmentation: Augmentation | None = None
    drawn: Annotated[float, Range(0, 10)] = 0.0
    precision: Literal["float32", "mixed_bfloat16"] = "float32"  # type: ignore[misc]
    shift_averaging: Annotated[int, Range(0, SIDE - 1)] = 0
    slant_averaging: Annotated[float, Range(0, SIDE - 1)] = 0.0

    @property
    def tunes(self) -> bool:
        """Whether the training depends on an accuracy. That is measured on rows that are not trained on or reported."""
        return self.stop_at is not None or isinstance(self.learning_rate, Plateau)

    @property
    def networks(self) -> tuple[Network, ...]:
        """The recipe itself."""
        return (self,)

    def with_epochs(self, epochs: int) -> Self:
        """Return the recipe with exactly this number of epochs, for any number of rows."""
        return replace(self, epochs=epochs, least_steps=0)

    def for_rows(self, rows: int) -> Self:
        """Return the recipe adapted to this number of training rows, see ``least_steps``.

        Batches have 32 rows or more, because batch normalisation needs some.

        >>> from kaggle_digits.recipes import find_recipe
        >>> [(few.batch_size, few.epochs) for few in map(find_recipe("flash").for_rows, (42_000, 5_000, 500))]
        [(256, 3), (60, 3), (32, 16)]
        """
        if self.epochs * math.ceil(rows / self.batch_size) >= self.least_steps:
            return self
        batch_size = min(self.batch_size, max(32, self.epochs * rows // self.least_steps))
        epochs = math.ceil(self.least_steps / math.ceil(rows / batch_size))
        return replace(self, batch_size=batch_size, epochs=max(self.epochs, epochs))

    def describe(self) -> str:
        """Return its name and how long it trains, for people."""
        return f"{self.name} for{' at most' if self.stop_at is not None else ''} {self.epochs} epochs"


@dataclass(frozen=True, kw_only=True)
class Ensemble(Recipe):
    """Networks whose probabilities are averaged, each with a seed of its own, and perhaps a classical method.

    A classical method misreads other digits than networks do, but is slow. So it reads only the images that the
    networks are unsure of, and no held-out rows when it is trained as a member.

    The members decide which rows are held out and how pixels are scaled, so they must agree on both.

    Args:
        members: the recipes, at least one of them a network. A recipe may occur several times.

    Raises:
        FieldError: the members cannot be averaged.
    """

    members: tuple[Recipe, ...] = ()  # type: ignore[misc]

    def __post_init__(self) -> None:
        if not self.networks:
            raise FieldError("members", "there is no network among them. Expected at least one.")
        if nested := [member.name for member in self.members if member.members]:
            raise FieldError("members", f"{nested[0]} is an ensemble. Expected its members, one by one.")
        for name in ("pixel_offset", "pixel_scale", "validation_fraction", "retrain", "precision"):
            values = {getattr(part, name) for part in (self.networks if name == "precision" else self.members)}
            if len(values) > 1:
                shown = " and ".join(map(str, values))
                raise FieldError(
                    "members", f"their {name} differs: {shown}. Expected the same. Set {name} alike in all."
                )
            if name != "precision":
                object.__setattr__(self, name, values.pop())

    @property
    def precision(self) -> str:  # type: ignore[override]
        """The precision of its networks."""
        return self.networks[0].precision

    def with_epochs(self, epochs: int) -> Self:
        """Return the recipe with another number of epochs for each of its networks."""
        return replace(self, members=tuple(m.with_epochs(epochs) if m.networks else m for m in self.members))

    def for_rows(self, rows: int) -> Self:
        """Return the recipe with its members adapted to this number of training rows."""
        return replace(self, members=tuple(member.for_rows(rows) for member in self.members))

    def describe(self) -> str:
        """Return its name and how long it trains, for people."""
        lengths = " + ".join(str(network.epochs) for network in self.networks)
        others = "".join(f" and {member.name}" for member in self.members if not member.networks)
        return f"{self.name}, {len(self.networks)} networks for {lengths} epochs{others},"


class FieldError(ValueError):
    """An unusable value in a recipe, or in a part of one.

    Args:
        name: the name of the field.
        fault: what is wrong with it, and what was expected.
    """

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(f"{name}: {fault}")
        self.name, self.fault = name, fault


def to_json(value: Any) -> Any:
    """Turn a recipe, or any part of one, into values for JSON."""
    if isinstance(value, Part):
        named = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}  # type: ignore[arg-type]
        return {"kind": type(value).__name__} | to_json(named)
    if isinstance(value, dict):
        plain = {name: to_json(part) for name, part in value.items()}
        return {"kind": "options", "options": plain} if "kind" in plain else plain  # a layer has an argument "kind"
    return [to_json(part) for part in value] if isinstance(value, tuple | list) else value
