"""Recipes of your own, from a file: data as TOML, or Python that builds a Keras network.

A TOML file has the names of ``recipe``'s classes. A Python file is run, in a process of its own, and what it makes is
turned into the same data. So a recipe of your own is trained, resumed and kept like a built-in one.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from kaggle_digits import CLASSES, PIXELS, SIDE
from kaggle_digits.backend import choose_backend, collect_little, import_backend
from kaggle_digits.errors import DeviceError, InputError, did_you_mean
from kaggle_digits.files import MOST_BYTES, decode_text, read_at_most
from kaggle_digits.recipe import (
    ONLY_IN_TRAINING,
    WORDS,
    Classical,
    Ensemble,
    FieldError,
    Layer,
    Network,
    Part,
    Recipe,
    build,
    from_json,
    is_plain,
    to_json,
)

log = logging.getLogger(__name__)

SUFFIXES = (".toml", ".py")
KINDS: dict[str, type[Recipe]] = {kind.__name__: kind for kind in (Network, Classical, Ensemble)}
DEFAULTS: dict[str, Any] = {
    "pixel_scale": 255.0,
    "loss": "crossentropy",
    "optimizer": ("Adam", {}),
    "learning_rate": 0.001,
    "epochs": 10,
    "batch_size": 128,
    "precision": "mixed_bfloat16",
}
"""What a network of your own is trained with, unless it says something else."""

MODULE = "kaggle_digits_recipe"
"""What a Python file is called while it runs."""
FUNCTIONS = ("network", "model", "build_model", "make_model", "create_model", "get_model")
"""If a Python file has several functions, the one with such a name makes the network."""

SHAPING = ("Reshape", "Flatten", "Permute", "Identity")
"""Layers in front of a scaling that do not change values, so that it does not matter which comes first."""
MOVING = (
    *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomCrop", "CenterCrop", "Resizing"),
    *("Cropping2D", "ZeroPadding2D", "Dropout", "SpatialDropout2D"),
)
"""Layers in front of a scaling that move values or leave some out."""
PLAIN_ACTIVATIONS = ("relu", "sigmoid", "softmax", "softplus", "softsign", "silu", "tanh")
"""Operations that do what the activation of the same name does, unless they have settings."""
FROM_0_TO_1 = 50
"""If pixels from 0 to 255 would become values that are further apart, a scaling was made for values from 0 to 1."""
SCALES_ITSELF = "the network scales pixels itself"

Place = tuple[str | int, ...]
"""Where something stands in a TOML file: the names of tables and keys, and the numbers of entries of lists, from 0."""


class _WrongError(Exception):
    """What is wrong in a file, and where."""

    def __init__(self, place: Place, fault: str) -> None:
        super().__init__(fault)
        self.place, self.fault = place, fault


def load_recipe(file: Path, built_in: Mapping[str, Recipe], *, backend: str | None = None) -> Recipe:
    """Load a recipe from a file.

    Args:
        file: its name ends in .toml or .py. A Python file is run, a TOML file only read.
        built_in: the recipes that the members of an ensemble may name.
        backend: what Keras will compute with, see ``backend.choose_backend``. A Python file with layers of its own is
            also run in this process.

    Raises:
        InputError: it is no recipe. The message names the line.
    """
    try:
        with file.open("rb") as stream:
            contents = read_at_most(stream, MOST_BYTES + 1)
        if len(contents) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        text = decode_text(contents) if file.suffix == ".toml" else ""  # Python files say themselves how to read them
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file}: cannot be read ({error}). Expected a recipe in TOML or Python. Check the path."
        ) from error
    recipe = _from_toml(file, text, built_in) if file.suffix == ".toml" else _from_python(file, backend)
    for network in recipe.networks:
        if network.note.startswith(SCALES_ITSELF):
            log.info("%s: %s", file, network.note)
    return recipe


def _name_of(file: Path) -> str:
    return re.sub(r"[^\w.+-]+", "-", file.stem).strip("-.") or "own"


def _from_toml(file: Path, text: str, built_in: Mapping[str, Recipe]) -> Recipe:
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not TOML: {error}. Correct that line.") from error
    try:
        return _read_recipe(values, (), _name_of(file), file, built_in)
    except _WrongError as error:
        raise InputError(f"{file}{_line(text, error.place)}: {error.fault}") from error


def _line(text: str, place: Place) -> str:
    """Say on which line of a TOML file something stands, if it stands there."""
    lines = dict(find_lines(text))
    for length in range(len(place), 0, -1):
        if place[:length] in lines:
            return f", line {lines[place[:length]]}"
    return ""


def _read_recipe(values: dict[str, Any], place: Place, name: str, file: Path, built_in: Mapping[str, Recipe]) -> Recipe:
    kind = values.get("kind", Network.__name__)
    if not isinstance(kind, str) or kind not in KINDS:
        raise _WrongError((*place, "kind"), f"kind: {kind!r}. Expected {', '.join(KINDS)}.")
    given = {key: value for key, value in values.items() if key != "kind"}
    read: dict[str, Any] = {"name": name, "summary": "a recipe of your own", "source": str(file)}
    read |= {Network: DEFAULTS, Classical: {"pixel_scale": DEFAULTS["pixel_scale"]}}.get(KINDS[kind], {})
    for key, value in given.items():
        at = (*place, key)
        match key, value:
            case "layers", list():
                read[key] = tuple(_read_layer(each, (*at, number)) for number, each in enumerate(value))
            case "optimizer" | "estimator", _:
                read[key] = _read_layer(value, at)
            case "members", list():
                read[key] = tuple(
                    _read_member(each, (*at, number), f"{name}-{number + 1}", file, built_in)
                    for number, each in enumerate(value)
                )
            case "augmentation" | "learning_rate", dict():
                read[key] = _read_part(value, at, "Augmentation" if key == "augmentation" else None)
            case _:
                read[key] = _as_tuples(value)
    if KINDS[kind] is Network and isinstance(read.get("layers"), tuple):
        read |= _fold_scaling(read["layers"], given)
    try:
        return _finished(KINDS[kind], read)
    except FieldError as error:
        raise _WrongError((*place, error.name), str(error)) from error


def _fold_scaling(layers: Sequence[Layer], given: Mapping[str, Any]) -> dict[str, Any]:
    """Keep pixels from being scaled twice if a network begins with layers that scale them.

    A scaling gets pixels as they are, from 0 to 255, unless its numbers only make sense for values from 0 to 1. If only
    reshaping stands in front of it, it becomes the recipe's own scaling, else it stays a layer.

    Args:
        layers: of the network.
        given: the settings that its author has given. If they say how pixels are scaled, nothing changes.

    Returns:
        the fields of the recipe that change: none if the network does not begin with a scaling.
    """
    if {"pixel_scale", "pixel_offset"} & set(given):
        return {}
    kept, scale, offset, found, moved = list(layers), 1.0, 0.0, False, False
    for layer in layers:
        if layer[0] in (*SHAPING, *MOVING):
            moved = moved or layer[0] in MOVING
            continue
        numbers = _numbers_of(layer)
        if numbers is None:
            break
        factors, offsets, found = *numbers, True
        if len(factors) > 1 or len(offsets) > 1:  # each pixel has a scaling of its own
            moved = True
        scale, offset = scale * factors[len(factors) // 2], offset * factors[0] + offsets[0]
        kept = [each for each in kept if each is not layer]
    if not found or not scale:
        return {}
    most = 255.0 if abs(scale) * 255 <= FROM_0_TO_1 else 1.0  # what the layer takes for ink
    ends = sorted((offset, offset + scale * most))
    what = "" if moved else f", to values from {ends[0]:.4g} to {ends[1]:.4g}"
    gets = "them as they are, from 0 to 255" if most == 255 else "values from 0 to 1, for which its scaling is made"
    note = f"{SCALES_ITSELF}{what}: it gets {gets}. {given.get('note', '')}".strip()
    if moved:
        return {"pixel_scale": 255.0 / most, "note": note}
    return {
        "layers": tuple(kept),
        "pixel_scale": _rounded(255.0 / most / scale),
        "pixel_offset": _rounded(-255.0 / most * offset / scale),
        "note": note,
    }


def _numbers_of(layer: Layer) -> tuple[list[float], list[float]] | None:
    """Return what a layer multiplies values by, in ascending order, and what it adds; None if it does more."""
    kind, options = layer
    if kind not in ("Rescaling", "Normalization") or set(options) - {"scale", "offset", "mean", "variance", "axis"}:
        return None
    try:
        if kind == "Normalization":
            deviation = float(options["variance"]) ** 0.5
            return [1 / deviation], [-float(options["mean"]) / deviation]
        lists = [options.get(name, usual) for name, usual in (("scale", 1.0), ("offset", 0.0))]
        scales, offsets = ([float(each) for each in (part if isinstance(part, tuple) else (part,))] for part in lists)
        if any(isinstance(part, str | bool) for part in lists) or not all(map(math.isfinite, (*scales, *offsets))):
            return None
        return (sorted(scales, key=abs), offsets) if scales and offsets else None
    except (TypeError, ValueError, LookupError, ArithmeticError):  # the check of all layers says what is wrong
        return None


def _rounded(value: float) -> float:
    """Round away what a factor such as 1/255 lost in binary."""
    return float(f"{value:.9g}") + 0.0


def _finished(kind: type[Recipe], fields: dict[str, Any]) -> Any:
    """Make a recipe of somebody's own.

    Raises:
        FieldError: a value cannot be used.
    """
    if not re.fullmatch(r"\w[\w.+-]*", str(fields["name"])):
        raise FieldError("name", f"{fields['name']!r}. Expected letters, digits, and dashes: files are named after it.")
    recipe = build(kind, fields)
    return replace(recipe, layers=_as_logits(recipe.layers, recipe.loss)) if isinstance(recipe, Network) else recipe


def _read_member(value: Any, place: Place, name: str, file: Path, built_in: Mapping[str, Recipe]) -> Recipe:
    if isinstance(value, dict):
        return _read_recipe(value, place, name, file, built_in)
    if value in built_in if isinstance(value, str) else False:
        return built_in[value]
    hint = did_you_mean(value, built_in) if isinstance(value, str) else ""
    raise _WrongError(
        place,
        f"members: {value!r}. Expected the name of a built-in recipe, or a table with the layers of your own.{hint}",
    )


def _read_part(value: dict[str, Any], place: Place, default: str | None) -> Part:
    kinds = {name: kind for name, kind in Part.find_kinds() if not issubclass(kind, Recipe)}
    kind = value.get("kind", default)
    if not isinstance(kind, str) or kind not in kinds:
        raise _WrongError(place, f"{place[-1]}: kind {kind!r}. Expected one of {', '.join(kinds)}.")
    try:
        given = {key: _as_tuples(each) for key, each in value.items() if key != "kind"}
        return build(kinds[kind], given)
    except FieldError as error:
        raise _WrongError((*place, error.name), str(error)) from error


def _read_layer(value: Any, place: Place) -> Layer:
    match value:
        case str():
            return value, {}
        case {"kind": str(kind), **options}:
            for name, option in options.items():
                if not (is_plain(option) or (str(name).endswith(ONLY_IN_TRAINING) and _is_object(option))):
                    raise _WrongError(place, f"{kind}: {name} is {option!r}. Expected a text, a number or a list.")
            return kind, _as_tuples(options)
    key = next(part for part in reversed(place) if isinstance(part, str))
    raise _WrongError(place, f'{key}: {value!r}. Expected a name, or a table such as {{ kind = "Dense", units = 10 }}.')


def _is_object(value: Any) -> bool:
    """Whether a value names one of Keras' own initializers, regularizers or constraints, with plain settings.

    With a "module" among the keys, Keras would import that module.
    """
    match value:
        case {"class_name": str(), "config": dict(config), **others} if not others:
            return all(map(is_plain, config.values()))
    return False


def _as_logits(layers: tuple[Layer, ...], loss: str) -> tuple[Layer, ...]:
    """Leave out a softmax at the end, because the loss computes it. The predictions are the same.

    Raises:
        FieldError: another activation is at the end, with which the loss would be wrong.
    """
    kind, options = layers[-1]
    activation = {"Softmax": "softmax", "Sigmoid": "sigmoid"}.get(kind, options.get("activation"))
    if loss != "crossentropy" or activation not in ("softmax", "sigmoid"):
        return layers
    if activation == "sigmoid":
        raise FieldError(
            "layers", "the last one has a sigmoid. Expected ten logits, or a softmax. Leave the sigmoid out."
        )
    if kind in ("Softmax", "Activation"):
        return layers[:-1]
    return (*layers[:-1], (kind, {**options, "activation": "linear"}))


def _as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_tuples(each) for name, each in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)|(?P<newline>\n)|(?P<sign>\[\[|\]\]|[\[\]{}=,.])
    |(?P<text>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\])*"|'[^']*')|(?P<word>[^\s\[\]{}=,.#"']+)""",
    re.DOTALL | re.VERBOSE,
)


def find_lines(text: str) -> Iterator[tuple[Place, int]]:
    """Yield where every table, key and entry of a list stands in a TOML file, and its line, counted from 1.

    The standard library's parser does not say it.

    Args:
        text: valid TOML.

    >>> list(find_lines("epochs = 3\\nlayers = [\\n 'Flatten',\\n]"))
    [(('epochs',), 1), (('layers',), 2), (('layers', 0), 3)]
    """
    tokens: list[tuple[str, str, int]] = []
    line = 1
    for match in TOKEN.finditer(text):
        kind, found = match.lastgroup or "", match.group()
        if kind == "sign" and len(found) == 2:  # which brackets belong together is seen below
            tokens += [("sign", found[0], line)] * 2
        elif kind != "space":
            tokens.append((kind, found, line))
        line += found.count("\n")
    tokens.append(("newline", "", line))
    position = 0
    entries: dict[Place, int] = {}

    def peek() -> str:
        return tokens[position][1] if tokens[position][0] == "sign" else ""

    def read_key() -> Place:
        nonlocal position
        key: list[str] = []
        while tokens[position][0] in ("word", "text") or peek() == ".":
            if peek() != ".":
                kind, word, _ = tokens[position]
                key.append(word[1:-1] if kind == "text" else word)
            position += 1
        return tuple(key)

    def read_pair(place: Place) -> Iterator[tuple[Place, int]]:
        nonlocal position
        at = tokens[position][2]
        key = (*place, *read_key())
        yield key, at
        position += 1  # =
        yield from read_value(key)

    def read_value(place: Place) -> Iterator[tuple[Place, int]]:
        nonlocal position
        opened = peek()
        if opened not in ("[", "{"):
            while tokens[position][0] != "newline" and peek() not in (",", "]", "}"):
                position += 1
            return
        position += 1
        number = 0
        while peek() not in ("]", "}"):
            if tokens[position][0] == "newline" or peek() == ",":
                position += 1
            elif opened == "{":
                yield from read_pair(place)
            else:
                yield (*place, number), tokens[position][2]
                yield from read_value((*place, number))
                number += 1
        position += 1

    table: Place = ()
    while position < len(tokens):
        if tokens[position][0] == "newline":
            position += 1
        elif peek() == "[":
            at, depth = tokens[position][2], 0
            while peek() == "[":
                position, depth = position + 1, depth + 1
            table = read_key()
            position += depth
            # A table below a list of tables belongs to the list's last entry.
            place: Place = ()
            for level, name in enumerate(table, start=1):
                place = (*place, name)
                if depth == 2 and level == len(table):
                    entries[place] = entries.get(place, -1) + 1
                if place in entries:
                    yield place, at
                    place = (*place, entries[place])
            table = place
            yield table, at
        else:
            yield from read_pair(table)


def locate(recipe: Recipe, part: Recipe, place: Place) -> str:
    """Say where something in a recipe, or in one of its members, stands: the file and perhaps the line."""
    file = Path(part.source)
    if file.suffix != ".toml" or not file.is_file():
        return part.source if file.suffix in SUFFIXES else part.name
    member = () if recipe is part else ("members", recipe.members.index(part))
    return f"{file}{_line(decode_text(file.read_bytes()), (*member, *place))}"


def to_toml(recipe: Recipe) -> str:
    """Return a built-in recipe as TOML, to start from. Its members stand there by their names."""
    lines = [f"# {recipe.name}, as this package has it. Name the file as you like: the recipe is named after it."]
    if not isinstance(recipe, Network):
        lines.append(f"kind = {_to_toml(type(recipe).__name__)}")
    lines.append(f"summary = {_to_toml(f'made from {recipe.name}')}")
    if recipe.members:
        return "\n".join([*lines, f"members = {_to_toml([member.name for member in recipe.members])}", ""])
    for field in fields(recipe):
        name, value = field.name, getattr(recipe, field.name)
        if name == "name" or name in WORDS or value is None or (value == field.default and name not in DEFAULTS):
            continue
        if name == "layers":
            lines += ["layers = [", *(f"  {_layer_to_toml(layer)}," for layer in value), "]"]
        elif name in ("optimizer", "estimator"):
            lines.append(f"{name} = {_layer_to_toml(value)}")
        else:
            lines.append(f"{name} = {_to_toml(to_json(value))}")
    return "\n".join([*lines, ""])


def _layer_to_toml(layer: Layer) -> str:
    kind, options = layer
    return _to_toml({"kind": kind, **options}) if options else _to_toml(kind)


def _to_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_to_toml(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # what JSON and TOML write alike


def _from_python(file: Path, backend: str | None) -> Recipe:
    """Run a Python file in a process of its own, and return the recipe that it makes."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "recipe.json"
        command = [sys.executable, "-m", "kaggle_digits.own", str(file), str(answer)]
        environment = os.environ | ({"KERAS_BACKEND": backend} if backend else {})
        # What the file prints is not what the command was asked for.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, check=False
            ).returncode
            said.seek(0)
            printed = said.read()
        if not answer.exists():
            last = (printed.strip().splitlines() or [f"exit code {code}"])[-1]
            raise InputError(f"{file}: ended before it had made a recipe ({last}). Run it with Python to see why.")
        made = json.loads(answer.read_text(encoding="utf-8"))
    if "fault" in made:
        raise InputError(made["fault"])
    try:
        recipe = from_json(made["recipe"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: {error}") from error
    if any(">" in kind for network in recipe.networks for kind, _ in network.layers):
        import_backend(choose_backend(backend)[0])
        with contextlib.redirect_stdout(sys.stderr), _importing_beside(file):
            _register_layers(file, _run(file))
    return recipe


def _run(file: Path) -> dict[str, Any]:
    """Run a Python file and return its names.

    Raises:
        InputError: it failed. The message names its line.
    """
    contents = file.read_bytes()
    module = sys.modules[MODULE] = types.ModuleType(MODULE)
    module.__file__ = str(file)
    try:  # as bytes, in which Python finds the encoding; but it does not know UTF-16
        source = decode_text(contents) if b"\0" in contents else contents
        exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))
        return dict(vars(module))
    except Exception as error:
        raise InputError(f"{_line_of(file, error)}: {type(error).__name__}: {error}. Correct it.") from error


@contextlib.contextmanager
def _importing_beside(file: Path) -> Iterator[None]:
    """Let a Python file import other files from its folder."""
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _line_of(file: Path, error: BaseException) -> str:
    frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = frames[-1] if frames else getattr(error, "lineno", None)
    return f"{file}, line {line}" if line else str(file)


def _register_layers(file: Path, names: dict[str, Any]) -> None:
    """Make Keras know the layers that a file defines, by names that a run folder can keep."""
    import keras

    for value in names.values():
        is_layer = inspect.isclass(value) and issubclass(value, keras.layers.Layer) and value.__module__ == MODULE
        if is_layer and ">" not in keras.saving.get_registered_name(value):
            keras.saving.register_keras_serializable(package=_name_of(file))(value)


def _recipe_in(file: Path, names: dict[str, Any]) -> Recipe:
    """Return the recipe that a file has defined, or makes with a function.

    Raises:
        InputError: there is none, or it cannot be said which one.
    """
    public = {name: value for name, value in names.items() if not name.startswith("_")}
    recipes = {name: value for name, value in public.items() if isinstance(value, Recipe)}
    if recipes:
        return _own(file, recipes[_only(file, "recipes", recipes, ("recipe",))])
    makers = {
        name: value
        for name, value in public.items()
        if inspect.isfunction(value) and value.__module__ == MODULE and _takes_nothing(value)
    }
    if "keras" in sys.modules:
        makers |= {name: value for name, value in public.items() if isinstance(value, sys.modules["keras"].Model)}
    if not makers:
        raise InputError(
            f"{file}: defines no recipe. Expected a kaggle_digits.Network, or a function without parameters that "
            "returns a keras.Sequential. Add one."
        )
    made = makers[name := _only(file, "networks", makers, FUNCTIONS)]
    try:
        made = made() if inspect.isfunction(made) else made
    except Exception as error:
        raise InputError(f"{_line_of(file, error)}: {type(error).__name__}: {error}. Correct it.") from error
    if isinstance(made, Recipe):
        return _own(file, made)
    if made is None:
        raise InputError(f"{file}: {name} returns nothing. Expected a network. End it with return and the network.")
    _register_layers(file, names)
    try:
        return from_keras(made, name=_name_of(file), source=str(file))
    except InputError as error:
        raise InputError(f"{file}: {name}: {error}") from error


def _own(file: Path, recipe: Recipe) -> Recipe:
    """Return a recipe that a file defines, checked, and with the file as its source."""
    if type(recipe) not in KINDS.values():
        raise InputError(f"{file}: defines a {type(recipe).__name__}. Expected {', '.join(KINDS)}.")
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    try:
        return _finished(type(recipe), values | {"source": str(file)})
    except FieldError as error:
        raise InputError(f"{file}: {error}") from error


def _takes_nothing(function: Callable[..., Any]) -> bool:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return all(each.default is not inspect.Parameter.empty or each.kind in kinds for each in parameters)


def _only(file: Path, what: str, found: dict[str, Any], usual: Sequence[str]) -> str:
    name = next((name for name in usual if name in found), next(iter(found)) if len(found) == 1 else None)
    if name is None:
        raise InputError(
            f"{file}: several {what} ({', '.join(found)}). Expected one, or one that is called "
            f"{' or '.join(usual[:2])}. Rename it, or put an underscore before the names of the others."
        )
    return name


def from_keras(model: Any, **settings: Any) -> Network:
    """Turn a Keras network into a recipe, which trains it from new weights.

    If the network is compiled, its optimizer, learning rate and loss are used. A softmax at its end is left out: the
    loss computes it, and predictions are the same.

    Args:
        model: a ``keras.Sequential``, or a functional model that is a chain of layers, for images (28, 28, 1),
            (28, 28) or (784,), with ten outputs.
        settings: those of ``Network``; ``epochs`` and ``batch_size`` above all. ``pixel_scale`` is 255 by default, so
            the network gets values from 0 to 1. A network that begins with a scaling of its own gets pixels as they
            are, and the recipe's ``note`` says so.

    Raises:
        InputError: it is no such network, or has something that a recipe cannot keep.
    """
    import keras

    functional = isinstance(model, keras.Model) and hasattr(model, "outputs") and type(model) is keras.Model
    if not (isinstance(model, keras.Sequential) or functional or type(model).__name__ == "Functional"):
        raise InputError(
            f"a {type(model).__name__}. Expected a keras.Sequential, or a functional keras.Model that is a chain of "
            "layers. Build one of its layers."
        )
    if not model.built:
        model.build((None, SIDE, SIDE, 1))
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(f"has {len(model.inputs)} inputs and {len(model.outputs)} outputs. Expected one of each.")
    shape = tuple(model.input_shape[1:])
    if shape not in {(SIDE, SIDE, 1), (SIDE, SIDE), (PIXELS,)}:
        raise InputError(f"takes images of the shape {shape}. Expected ({SIDE}, {SIDE}, 1). Change its input.")
    if tuple(model.output_shape[1:]) != (CLASSES,):
        raise InputError(f"returns values of the shape {model.output_shape[1:]}. Expected ({CLASSES},), one per digit.")
    layers: list[Layer] = [] if len(shape) == 3 else [("Reshape", {"target_shape": shape})]
    leads = True  # nothing but scalings so far
    for layer, before in _flat(model):
        scaling = _scaling_of(layer, before) if leads else None
        layers.append(scaling or _layer_of(layer))
        leads = leads and layers[-1][0] in (*SHAPING, *MOVING, "Rescaling")
    given = dict(DEFAULTS)
    if model.compiled and model.optimizer:
        given |= _compiled_with(model)
    words = {"name": model.name, "summary": "a network of your own", "source": "keras.Sequential"}
    read = {**words, **given, "layers": tuple(layers)}
    read |= _fold_scaling(layers, settings)
    if str(read.get("note", "")).startswith(SCALES_ITSELF):
        log.info("%s", read["note"])
    try:
        return _finished(Network, {**read, **settings})
    except FieldError as error:
        raise InputError(str(error)) from error


def _flat(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the layers and operations of a network in order, those of networks inside it included, and their inputs.

    Raises:
        InputError: the network branches, or uses a layer twice.
    """
    import keras

    chain: list[tuple[Any, Any]] = []
    tensor = model.outputs[0]
    while tensor is not model.inputs[0]:
        operation, node, _ = tensor._keras_history
        before = operation._inbound_nodes[node].input_tensors
        if len(before) != 1:
            raise InputError(
                f"branches: {operation.name} takes {len(before)} inputs. Expected a chain of layers. Put the part that "
                "branches into a layer class of your own in the file; the guide to own recipes shows one."
            )
        if any(operation is other for other, _ in chain):
            raise InputError(f"uses the layer {operation.name} twice. Expected a chain of layers. Make two of it.")
        tensor = before[0]
        chain.append((operation, tensor))
    for operation, before in reversed(chain):
        if isinstance(operation, keras.Sequential) or type(operation).__name__ == "Functional":
            yield from _flat(operation)
        elif not isinstance(operation, keras.layers.InputLayer):
            yield operation, before


def _scaling_of(layer: Any, before: Any) -> Layer | None:
    """Return a layer or operation that multiplies and adds, as a Rescaling; None if it does something else.

    Args:
        layer: a layer of Keras, or an operation such as a division.
        before: its symbolic input.
    """
    import keras
    import numpy as np

    kinds = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Lambda)
    is_own = isinstance(layer, keras.layers.Layer) and not type(layer).__module__.startswith("keras.")
    if isinstance(layer, keras.layers.Layer) and not (isinstance(layer, kinds) or (is_own and not layer.weights)):
        return None
    if isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.scale) == np.ndim(layer.offset) == 0:
        return "Rescaling", {"scale": float(layer.scale), "offset": float(layer.offset)}
    used = layer if isinstance(layer, keras.layers.Layer) else _operation_of(layer, before)
    shape = (1, *before.shape[1:])
    any_pixels = np.random.default_rng(0).uniform(0, 255, shape)
    try:
        at_0, at_1, at_255, noise = (
            np.asarray(keras.ops.convert_to_numpy(used(values.astype(np.float32))), np.float64)
            for values in (np.zeros(shape), np.ones(shape), np.full(shape, 255.0), any_pixels)
        )
    except Exception:  # whatever somebody's function does to arrays of another kind
        return None
    scale, offset = (at_255 - at_0) / 255, at_0
    if at_0.shape != shape or not (
        np.allclose(at_1, scale + offset, rtol=1e-4, atol=1e-6)
        and np.allclose(noise, scale * any_pixels + offset, rtol=1e-4, atol=1e-4 * np.abs(at_255).max())
    ):
        return None
    if np.ptp(scale) <= 1e-6 * np.abs(scale).max() and np.ptp(offset) <= 1e-6 * max(1e-9, np.abs(offset).max()):
        return "Rescaling", {"scale": _rounded_6(scale.ravel()[0]), "offset": _rounded_6(offset.ravel()[0])}
    if len(shape) == 2:  # each pixel has a scaling of its own
        return "Rescaling", {"scale": tuple(scale[0].tolist()), "offset": tuple(offset[0].tolist())}
    return None


def _rounded_6(value: float) -> float:
    """Round away what single precision adds. A scale is more likely the inverse of a short number than one itself."""
    inverse = float(f"{1 / value:.6g}") if value else 0.0
    return 1 / inverse if inverse else float(value)


def _operation_of(operation: Any, before: Any) -> Any:
    """Return a function of arrays for an operation of a functional model, with the constants that it was given."""
    import keras

    (output,) = operation._inbound_nodes[-1].output_tensors
    return keras.Function(before, output)


def _settings_of(operation: Any) -> dict[str, Any]:
    """Return the plain settings of an operation, such as a limit or a slope."""
    return {name: value for name, value in vars(operation).items() if name[:1] != "_" and name != "name"}


def _layer_of(layer: Any) -> Layer:
    import keras

    if not isinstance(layer, keras.layers.Layer):
        name = type(layer).__name__.lower()
        if name in PLAIN_ACTIVATIONS and _settings_of(layer) == _settings_of(type(layer)()):
            return "Activation", {"activation": name}
        raise InputError(f"has the operation {layer.name} between layers. Expected layers. Write it as a layer.")
    options = layer.get_config()
    policy = layer.dtype_policy.name
    if policy != keras.config.dtype_policy().name:
        raise InputError(f"the layer {layer.name} computes in {policy}. Expected the default. Set precision instead.")
    left_out = {"name", "dtype"} | ({"trainable"} if layer.trainable else set())
    options = {name: value for name, value in options.items() if name not in left_out}
    kind = type(layer).__name__
    if not type(layer).__module__.startswith("keras."):
        kind = keras.saving.get_registered_name(type(layer))
        if ">" not in kind:
            raise InputError(
                f"the layer {layer.name} is a {kind}, which the file does not define. Expected Keras' own layers, and "
                "classes in the file itself. Move the class there."
            )
    try:
        plain = _as_tuples(json.loads(json.dumps(options)))
    except TypeError as error:
        raise InputError(f"the layer {layer.name} has an option that is not plain data ({error}).") from error
    for name, value in plain.items():
        if isinstance(value, dict) and not name.endswith(ONLY_IN_TRAINING):
            raise InputError(
                f"the layer {layer.name} has the option {name} = {value.get('class_name', value)}. Expected a name, as "
                "in activation='relu'. Write it as a layer of its own."
            )
    return kind, plain


def _compiled_with(model: Any) -> dict[str, Any]:
    """Return the settings that a network was compiled with."""
    import keras

    options = model.optimizer.get_config()
    rate = options.pop("learning_rate")
    if not isinstance(rate, float):
        raise InputError(
            "is compiled with a schedule of Keras. Expected a learning rate that is a number. Return a "
            "kaggle_digits.Network with a OneCycle or Milestones of kaggle_digits.recipe."
        )
    if options.get("use_ema"):
        raise InputError("is compiled with use_ema, which is not supported. Leave it out.")
    loss = model.loss if isinstance(model.loss, str) else keras.losses.serialize(model.loss)
    name = loss if isinstance(loss, str) else loss["config"]["name"]
    smoothing = 0.0 if isinstance(loss, str) else loss["config"].get("label_smoothing", 0.0)
    losses = {"categorical_crossentropy": "crossentropy", "sparse_categorical_crossentropy": "crossentropy"}
    losses |= {"mse": "mse", "mean_squared_error": "mse"}
    if name not in losses:
        raise InputError(f"is compiled with the loss {name}. Expected one of {', '.join(losses)}.")
    return {
        "optimizer": (
            type(model.optimizer).__name__,
            {name: value for name, value in options.items() if name != "name" and value is not None},
        ),
        "learning_rate": float(f"{rate:.6g}"),  # Keras keeps it as float32
        "loss": losses[name],
        "label_smoothing": smoothing,
    }


def _main() -> None:
    collect_little()
    file, answer = map(Path, sys.argv[1:])
    try:
        if b"keras" in file.read_bytes().replace(b"\0", b""):
            with contextlib.suppress(DeviceError):  # the file says so itself
                import_backend(choose_backend()[0])  # sooner than the file would
        with _importing_beside(file):
            made = json.dumps({"recipe": to_json(_recipe_in(file, _run(file)))})
    except InputError as error:
        made = json.dumps({"fault": str(error)})
    except Exception as error:  # whatever a network can do to Keras
        made = json.dumps({"fault": f"{file}: {type(error).__name__}: {error}. Expected a network of plain data."})
    answer.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    _main()
