"""What a recipe is, and how JSON keeps it.

A recipe says what to train and how, as data: ``recipes`` and ``published`` are tables of them. There are three kinds,
``Network``, ``Classical`` and ``Ensemble``. Each answers for itself what others ask of it. How a kind is trained is the
matter of a learner; ``learners.learner_of`` knows which one.
"""

from __future__ import annotations

import builtins
import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

from kaggle_digits import SIDE
from kaggle_digits.errors import InputError, did_you_mean

T = TypeVar("T")

Layer = tuple[str, dict[str, Any]]
"""A class of Keras or scikit-learn as data: its name and its arguments."""

PRECISIONS = ("float32", "mixed_bfloat16")
"""Keras' names of the precisions that are used."""

SMALLEST_BATCH = 32
"""Batches do not become smaller than this on small data: batch normalisation needs some rows."""

MOST = 1e30
"""No number of a recipe or of a run is as large as this."""

LIMITS: dict[str, tuple[float, float]] = {
    "pixel_offset": (-MOST, MOST),
    "spread": (0, SIDE),
    "validation_fraction": (0.001, 0.999),
    "label_smoothing": (0, 0.999),
    "epochs": (1, 1_000_000),
    "batch_size": (1, 1_000_000),
    "least_steps": (0, 1_000_000),
    "stop_at": (0, 2),
    "drawn": (0, 10),
    "shift_averaging": (0, SIDE - 1),
    "slant_averaging": (0, SIDE - 1),
    "learning_rate": (0, MOST),
    "peak": (0, MOST),
    "warmup": (0, 1),
    "start": (0, MOST),
    "end": (0, 1000),
    "factor": (0, 1000),
    "patience": (1, 1_000_000),
    "rotation": (0, 180),
    "scale": (0, 0.9),
    "shear": (0, 5),
    "shift": (0, SIDE),
    "strokes": (0, 1),
    "bend": (0, SIDE),
    "pen": (0, SIDE / 2),
    "blur": (0, 10),
}
"""The least and the greatest value of numbers in recipes, by name."""

ONLY_IN_TRAINING = ("_initializer", "_regularizer", "_constraint")
"""Options of layers with these endings do not matter once a network is trained. Keras builds objects from them."""

LOSSES = ("crossentropy", "mse")
CHOICES = {"precision": PRECISIONS, "loss": LOSSES}
"""What may stand under a name that stands for one of a few things."""

WORDS = {"summary", "source", "published", "published_accuracy", "published_seconds", "note"}
"""What people read about a recipe. None of it changes the training."""


class FieldError(ValueError):
    """A value of a recipe, or of a part of one, that cannot be used.

    Args:
        name: of the field.
        fault: what is wrong with it, and what was expected.
    """

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(f"{name}: {fault}")
        self.name, self.fault = name, fault


class Part:
    """A recipe or a part of one. Its JSON names the class as "kind", so that nobody has to guess it from the keys."""

    def __post_init__(self) -> None:
        """Refuse values with which nothing can be trained or predicted."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name in LIMITS and isinstance(value, int | float):
                least, greatest = LIMITS[field.name]
                if not least <= value <= greatest:
                    raise FieldError(field.name, f"{value}. Expected {least:,} to {greatest:,}.")
            if field.name in CHOICES and value not in CHOICES[field.name]:
                raise FieldError(field.name, f"{value!r}. Expected {' or '.join(CHOICES[field.name])}.")

    @classmethod
    def find_kinds(cls) -> Iterator[tuple[str, type[Part]]]:
        """Yield the name of every kind of part that has been imported, and its class."""
        for kind in cls.__subclasses__():
            yield kind.__name__, kind
            yield from kind.find_kinds()


OPTIONS = "options"
"""The kind of a JSON object that holds a layer's options, one of which is called kind."""


def to_json(value: Any) -> Any:
    """Turn a recipe, or anything in one, into what JSON can keep."""
    if isinstance(value, Part):
        named = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}  # type: ignore[arg-type]
        return {"kind": type(value).__name__} | to_json(named)
    if isinstance(value, dict):
        plain = {name: to_json(part) for name, part in value.items()}
        return {"kind": OPTIONS, "options": plain} if "kind" in plain else plain
    return [to_json(part) for part in value] if isinstance(value, tuple | list) else value


def from_json(value: Any) -> Any:
    """Turn the JSON of a recipe back into the recipe, whatever today's tables say of it.

    Raises:
        ValueError, TypeError: it is not the JSON of a recipe.
    """
    if isinstance(value, dict):
        if value.get("kind") == OPTIONS:
            return {name: from_json(part) for name, part in value["options"].items()}
        parts = {name: from_json(part) for name, part in value.items()}
        if "kind" not in parts:
            return parts
        kind = parts.pop("kind")
        kinds = dict(Part.find_kinds())
        if kind not in kinds or kinds[kind] is Recipe:
            raise ValueError(f"{kind!r} is no kind of recipe, nor of a part of one")
        return build(kinds[kind], parts)
    return tuple(from_json(part) for part in value) if isinstance(value, list) else value


def build(kind: type[T], fields: dict[str, Any], **others: type) -> T:
    """Make a dataclass of values that may come from anyone, each of which must be of the type of its field.

    Args:
        kind: the dataclass.
        fields: its values, by name.
        others: types that its annotations name and that only type checkers import.

    Raises:
        FieldError: a value is of another type or out of range, or a field is missing or unknown.
    """
    hints = typing.get_type_hints(kind, localns=others)
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name, value in fields.items():
        if name not in known:
            hint = did_you_mean(name, known) or f" Expected some of {', '.join(known)}."
            raise FieldError(name, f"no such key here.{hint}")
        if not _fits(value, hints[name]):
            raise FieldError(name, f"{repr(value)[:40]}. Expected {_describe(hints[name])}.")
    for name, field in known.items():
        if name not in fields and dataclasses.MISSING is field.default is field.default_factory:
            raise FieldError(name, f"is missing. Expected {_describe(hints[name])}.")
    return kind(**fields)


def _describe(hint: Any) -> str:
    """Say for people what a field may hold."""
    if words := TYPES.get(hint):
        return words
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(hint) if part is not types.NoneType)
    if isinstance(hint, type) and issubclass(hint, Part):
        return f"a table of {', '.join(field.name for field in dataclasses.fields(hint))}"  # type: ignore[arg-type]
    return "a list" if typing.get_origin(hint) in (tuple, list) else "another kind of value"


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of the type that a field is annotated with. Numbers must be finite."""
    if hint is Any:
        return True
    parts = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Union | types.UnionType:
            return any(_fits(value, part) for part in parts)
        case builtins.tuple if parts[-1] is Ellipsis:
            return isinstance(value, tuple) and all(_fits(each, parts[0]) for each in value)
        case builtins.tuple:
            return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
        case builtins.list:
            return isinstance(value, list) and all(_fits(each, parts[0]) for each in value)
        case builtins.dict:
            return isinstance(value, dict) and all(_fits(each, parts[1]) for each in value.values())
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool) and abs(value) < MOST
    return isinstance(value, hint)


TYPES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Layer: "the name of a class and its arguments",
    tuple[Layer, ...]: "a list of layers",
}
"""What people call the types of the fields of recipes."""


@dataclass(frozen=True, kw_only=True)
class Augmentation(Part):
    """How far a training image may be moved. Every value is drawn anew for each image and epoch.

    Args:
        rotation: degrees, drawn from ±rotation.
        scale: fraction; each axis is stretched by a factor of its own from 1 ± scale.
        shear: sideways shift from row to row, in pixels, drawn from ±shear.
        shift: pixels, drawn from ±shift for each axis.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Restyling(Augmentation):
    """How far a training digit may also be written in another way before it is moved.

    Args:
        strokes: share of the ones, sevens and nines that get a stroke which MNIST's writers leave out: a flag or a
            foot, a bar or a serif, a tail.
        bend: pixels, drawn from ±bend at the nodes of a smooth displacement of all points.
        pen: pixels by which the outline of the strokes moves out or in, drawn from ±pen.
        blur: weight of a pixel's neighbours, drawn from 0 to blur.
    """

    strokes: float = 0.0
    bend: float = 0.0
    pen: float = 0.0
    blur: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OneCycle(Part):
    """A learning rate that rises linearly to ``peak`` and then falls along half a cosine, step by step.

    Args:
        peak: the highest learning rate.
        warmup: fraction of all steps that are spent rising.
        start, end: first and last learning rate, as fractions of the peak.

    Source: Smith and Topin 2018, arXiv 1708.07120, with the cosine descent that is usual today.
    """

    peak: float
    warmup: float
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Milestones(Part):
    """A learning rate that is multiplied by ``factor`` at the start of certain epochs.

    Args:
        start: the rate before the first milestone.
        factor: of each milestone.
        epochs: the milestones, counted from 0. A milestone at 0 acts before the first step.
    """

    start: float
    factor: float
    epochs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Plateau(Part):
    """A learning rate that is multiplied by ``factor`` whenever the accuracy on tuning rows has stopped rising.

    Args:
        start: the first learning rate.
        factor: of each cut.
        patience: epochs without a rise before a cut, counted anew after each cut.
        threshold: an accuracy counts as a rise if it is above the best so far times 1 + threshold.
    """

    start: float
    factor: float
    patience: int
    threshold: float


LearningRate = float | OneCycle | Milestones | Plateau


@dataclass(frozen=True, kw_only=True)
class Recipe(Part):
    """What to train and how. This class holds what all kinds of recipes share.

    Args:
        name: as given to ``--recipe``.
        summary: one line for people.
        source: where the method and its settings come from.
        published: the author's figure, in the author's words.
        published_accuracy: the same figure as correct / seen, if it is an accuracy on unseen digits; else None.
        published_seconds: seconds that the author's training and prediction took, if known.
        note: where the recipe had to differ from what was published.
        deslant: whether every digit is set upright first, see ``learners.preprocess.normalise_pixels``.
        spread: pixels; above 0, digits are stretched sideways to a common width, see there.
        pixel_offset, pixel_scale: images = (pixels − pixel_offset) / pixel_scale.
        validation_fraction: share of the rows that is held out, stratified, to measure accuracy.
        retrain: whether to train again on all rows, the held-out ones included, before predicting.
    """

    members: ClassVar[tuple[Recipe, ...]] = ()
    """The recipes that this one averages. Only an ensemble has some."""

    precision: ClassVar[str | None] = None
    """The Keras dtype policy to train with; None for a recipe that does without Keras and its devices."""

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pixel_scale:
            raise FieldError("pixel_scale", "0. Expected another number, by which pixels are divided.")

    @property
    def normalises(self) -> bool:
        """Whether digits are changed by the moments of their ink."""
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
        """Return, as JSON, everything that decides on the training."""
        settings = _without_words(to_json(self))
        if self.members:
            settings["members"] = [_without_words(member) for member in settings["members"]]
        return settings

    def for_rows(self, rows: int) -> Self:  # noqa: ARG002
        """Return the recipe as it trains on so many rows."""
        return self

    def describe(self) -> str:
        """Return its name and how long it trains, for people."""
        return self.name


def _without_words(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in WORDS}


@dataclass(frozen=True, kw_only=True)
class Classical(Recipe):
    """A classical method on the 784 pixels.

    Args:
        estimator: its name in ``learners.classical`` and its settings.
    """

    estimator: Layer

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_layer("estimator", self.estimator)


@dataclass(frozen=True, kw_only=True)
class Network(Recipe):
    """A Keras network.

    Args:
        layers: the Sequential network without its input; the last layer gives ten logits.
        loss: "crossentropy" (of the logits) or "mse" (to one-hot labels).
        label_smoothing: share of every label that is spread over all classes; for cross-entropy.
        optimizer: the class name of one of Keras' optimizers, or ConvMuon, and all of its settings, because Keras has
            changed defaults under its users.
        learning_rate: a constant, or a schedule over the whole training.
        epochs: passes over the training rows, at most.
        stop_at: the training ends after the first epoch that reaches this accuracy on tuning rows.
        batch_size: rows per step, over all replicas.
        least_steps: optimizer steps of a training, at least. With few rows, batches become smaller for it, and then
            epochs more. Batch normalisation and one-cycle schedules learn nothing in a few dozen steps.
        augmentation: random changes of the training images, or None.
        drawn: images that are drawn in addition to the training rows, as a share of their number: letters, signs,
            scribbles and parts of digits, of which the network learns to be unsure, and some digits, see
            ``learners.drawing``.
        precision: "float32", or "mixed_bfloat16" on devices that compute it natively.
        shift_averaging: pixels; above 0, the probabilities of an image that the network is unsure of are averaged over
            the image and its shifts up, down, left and right by that distance.
        slant_averaging: pixels sideways per row; above 0, probabilities are averaged over the image and four slants of
            it, two to each side, the steeper by that much. Digits from elsewhere lean differently.
    """

    layers: tuple[Layer, ...]
    loss: str
    label_smoothing: float = 0.0
    optimizer: Layer
    learning_rate: LearningRate
    epochs: int
    stop_at: float | None = None
    batch_size: int
    least_steps: int = 0
    augmentation: Augmentation | None = None
    drawn: float = 0.0
    precision: str = "float32"  # type: ignore[misc]
    shift_averaging: int = 0
    slant_averaging: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers:
            raise FieldError("layers", "is empty. Expected at least a Flatten and a Dense of ten units.")
        for name, layers in (("optimizer", (self.optimizer,)), ("layers", self.layers)):
            for layer in layers:
                _check_layer(name, layer)
        if not isinstance(self.learning_rate, LearningRate | int):
            raise FieldError("learning_rate", f"{self.learning_rate!r}. Expected a number or a schedule.")

    @property
    def tunes(self) -> bool:
        """Whether an accuracy decides on the training. It is measured on rows that are not trained on or reported."""
        return self.stop_at is not None or isinstance(self.learning_rate, Plateau)

    @property
    def networks(self) -> tuple[Network, ...]:
        """The recipe itself."""
        return (self,)

    def with_epochs(self, epochs: int) -> Self:
        """Return the recipe with another number of epochs, whatever the number of rows."""
        return replace(self, epochs=epochs, least_steps=0)

    def for_rows(self, rows: int) -> Self:
        """Return the recipe as it trains on so many rows, see ``least_steps``.

        >>> from kaggle_digits.recipes import find_recipe
        >>> [(few.batch_size, few.epochs) for few in map(find_recipe("flash").for_rows, (42_000, 5_000, 500))]
        [(256, 3), (60, 3), (32, 16)]
        """
        if self.epochs * math.ceil(rows / self.batch_size) >= self.least_steps:
            return self
        batch_size = min(self.batch_size, max(SMALLEST_BATCH, self.epochs * rows // self.least_steps))
        epochs = math.ceil(self.least_steps / math.ceil(rows / batch_size))
        return replace(self, batch_size=batch_size, epochs=max(self.epochs, epochs))

    def describe(self) -> str:
        """Return its name and how long it trains, for people."""
        return f"{self.name} for{' at most' if self.stop_at is not None else ''} {self.epochs} epochs"


@dataclass(frozen=True, kw_only=True)
class Ensemble(Recipe):
    """Networks whose probabilities are averaged, each with a seed of its own, and perhaps a classical method.

    A classical method errs on other digits than networks do, but takes long for an image. It is asked only about those
    images that the networks are unsure of. For the same reason it does not read the held-out rows when it is trained as
    a member.

    The members decide which rows are held out and how pixels are scaled, so they must agree on it.

    Args:
        members: the recipes, at least one of them a network. A recipe may be there several times.
    """

    members: tuple[Recipe, ...] = ()  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.networks:
            raise FieldError("members", "there is no network among them. Expected at least one.")
        if nested := [member.name for member in self.members if member.members]:
            raise FieldError("members", f"{nested[0]} is an ensemble. Expected its members, one by one.")
        for name in ("pixel_offset", "pixel_scale", "validation_fraction", "retrain", "precision"):
            values = {getattr(each, name) for each in (self.networks if name == "precision" else self.members)}
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
        """Return the recipe as its members train on so many rows."""
        return replace(self, members=tuple(member.for_rows(rows) for member in self.members))

    def describe(self) -> str:
        """Return its name and how long it trains, for people."""
        lengths = " + ".join(str(network.epochs) for network in self.networks)
        others = "".join(f" and {member.name}" for member in self.members if not member.networks)
        return f"{self.name}, {len(self.networks)} networks for {lengths} epochs{others},"


def _check_layer(name: str, layer: Any) -> None:
    """Raise an error unless a value of this field is the name of a class and its arguments."""
    match layer:
        case (str(), dict()):
            return
    raise FieldError(name, f"{layer!r}. Expected the name of a class and its arguments.")


def is_plain(value: Any) -> bool:
    """Whether an option of a layer is text, a number, nothing, or a list of these, and so runs no code."""
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    return isinstance(value, str | int | float | None)


def conv(filters: int, kernel_size: int, **options: object) -> Layer:
    """Return a convolution. ``options`` are Keras' own."""
    return "Conv2D", {"filters": filters, "kernel_size": kernel_size, "data_format": "channels_last", **options}


def dense(units: int, activation: str = "linear", **options: object) -> Layer:
    """Return a dense layer. ``options`` are Keras' own."""
    return "Dense", {"units": units, "activation": activation, **options}


def pool(kind: str = "MaxPooling2D") -> Layer:
    """Return a pooling that halves height and width."""
    return kind, {"pool_size": 2, "strides": 2, "data_format": "channels_last"}


def dropout(rate: float) -> Layer:
    """Return a dropout layer."""
    return "Dropout", {"rate": rate}


def batch_norm(epsilon: float = 1e-5) -> Layer:
    """Return a batch normalisation."""
    return "BatchNormalization", {"momentum": 0.9, "epsilon": epsilon}


FLATTEN: Layer = ("Flatten", {"data_format": "channels_last"})
RELU: Layer = ("ReLU", {})
