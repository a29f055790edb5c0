"""Read recipes from TOML files. The built-in recipes are such files, too.

A recipe of your own is a file of the same form, or a Python file that builds a Keras network, see ``python``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import UserDict
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from kaggle_digits.errors import InputError, did_you_mean
from kaggle_digits.files import decode_text, expand_home, read_small
from kaggle_digits.recipe import Classical, Ensemble, FieldError, Layer, Network, Part, Recipe

DEFAULT_RECIPE = "fast"
FOLDER = Path(__file__).parent

DEFAULTS: dict[str, Any] = {
    "pixel_scale": 255.0,
    "loss": "crossentropy",
    "optimizer": ("Adam", {}),
    "learning_rate": 0.001,
    "epochs": 10,
    "batch_size": 128,
    "precision": "mixed_bfloat16",
}
"""Default settings of a network, which its file may replace."""


def load_recipe(file: Path) -> Recipe:
    """Read a recipe from a TOML file, which may come from anyone. It is named after the file.

    Raises:
        InputError: it is not a recipe. The message names the key.
    """
    try:
        values = tomllib.loads(decode_text(read_small(file)))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error}). Expected a recipe in TOML. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not readable as TOML: {error}. Correct that line.") from error
    try:
        return _read_recipe(values, name_of(file), str(file))
    except FieldError as error:
        raise InputError(f"{file}: {error}") from error


def name_of(file: Path) -> str:
    """Return the name of the recipe in a file."""
    return re.sub(r"[^\w.+-]+", "-", file.stem).strip("-.") or "own"


def _read_recipe(values: Mapping[str, Any], name: str, source: str) -> Recipe:
    kinds: dict[str, type[Recipe]] = {"Network": Network, "Classical": Classical, "Ensemble": Ensemble}
    kind = values.get("kind", "Network")
    if not isinstance(kind, str) or kind not in kinds:
        raise FieldError("kind", f"{kind!r}. Expected {', '.join(kinds)}.")
    fields: dict[str, Any] = {"name": name, "summary": "a recipe of your own", "source": source}
    fields |= DEFAULTS if kind == "Network" else {"pixel_scale": 255.0} if kind == "Classical" else {}
    for key, value in values.items():
        match key, value:
            case "kind", _:
                pass
            case "layers", list():
                fields[key] = tuple(_read_layer(f"layers[{number}]", layer) for number, layer in enumerate(value))
            case "optimizer" | "estimator", _:
                fields[key] = _read_layer(key, value)
            case "members", list():
                fields[key] = tuple(
                    _read_member(member, f"{name}-{number}", source) for number, member in enumerate(value, start=1)
                )
            case "augmentation" | "learning_rate", dict():
                fields[key] = _read_part(key, value, source)
            case _:
                fields[key] = as_tuples(value)
    if kind == "Network" and not {"pixel_scale", "pixel_offset"} & set(values) and fields.get("layers"):
        fields |= import_module("kaggle_digits.recipes.python").fold_scaling(fields["layers"], values, source)
    return _make(kinds[kind], fields, source)


def _make(kind: type[Part], fields: dict[str, Any], source: str) -> Any:
    """Make a recipe or a part of one, and check it unless its file comes with the package."""
    if Path(source).parent == FOLDER:  # Kaggle's TPU image may lack pydantic
        return kind(**fields)
    checked = import_module("kaggle_digits.recipes.fields")
    if not issubclass(kind, Recipe):
        return checked.build(kind, fields)
    checked.check_layers(fields)
    return checked.finish(kind, fields)


def _read_member(value: Any, name: str, source: str) -> Recipe:
    if isinstance(value, dict):
        return _read_recipe(value, name, source)
    if isinstance(value, str) and value in RECIPES:
        return RECIPES[value]
    hint = did_you_mean(value, RECIPES) if isinstance(value, str) else ""
    raise FieldError(
        "members", f"{value!r}. Expected the name of a built-in recipe, or a table with the layers of your own.{hint}"
    )


def _read_part(key: str, value: dict[str, Any], source: str) -> Part:
    kinds = {name: kind for name, kind in Part.find_kinds() if not issubclass(kind, Recipe)}
    kind = value.get("kind", "Augmentation" if key == "augmentation" else None)
    if not isinstance(kind, str) or kind not in kinds:
        raise FieldError(key, f"kind {kind!r}. Expected one of {', '.join(kinds)}.")
    try:
        return _make(kinds[kind], {name: as_tuples(part) for name, part in value.items() if name != "kind"}, source)
    except FieldError as error:
        raise FieldError(f"{key}.{error.name}", error.fault) from error


def _read_layer(key: str, value: Any) -> Layer:
    match value:
        case str():
            return value, {}
        case {"kind": str(kind), **options}:
            return kind, as_tuples(options)
    raise FieldError(key, f'{value!r}. Expected a name, or a table such as {{ kind = "Dense", units = 10 }}.')


class _BuiltIn(UserDict[str, Recipe]):
    """The built-in recipes by name, ours first. Each file is read when its recipe is first asked for."""

    def __getitem__(self, name: str) -> Recipe:
        if self.data[name] is None:
            self.data[name] = load_recipe(FOLDER / f"{name}.toml")
        return self.data[name]


_INDEX = tomllib.loads((FOLDER / "index.toml").read_text(encoding="utf-8"))
RECIPES = _BuiltIn(dict.fromkeys([*_INDEX["ours"], *_INDEX["published"]]))


def load_measured() -> dict[str, dict[str, Any]]:
    """Return what we measured for each recipe, by its name: "accuracy" as text, "seconds", and "parameters" or None.

    The seconds are those of training and of reading 6,000 rows on two cores. ``benchmarks/recipes_table.py`` makes the
    file.
    """
    return json.loads((FOLDER / "measured.json").read_text(encoding="utf-8"))


def find_recipe(name: str, *, epochs: int | None = None, backend: str | None = None) -> Recipe:
    """Return the recipe of that name, or from that file.

    Args:
        name: the name of a built-in recipe, or a file that ends in .toml or .py.
        epochs: the number of epochs for each of its networks; None for the recipe's own.
        backend: the backend for Keras, see ``devices.choose_backend``. Only a Python file needs it.

    Raises:
        InputError: there is no such recipe, its file is wrong, or it has no epochs.

    >>> find_recipe("mlp-784-300").epochs
    10
    """
    if name in RECIPES:
        recipe = RECIPES[name]
    elif name.endswith((".toml", ".py")):
        file = expand_home(name)
        if file.suffix == ".toml":
            recipe = load_recipe(file)
        else:
            recipe = import_module("kaggle_digits.recipes.python").load_python(file, backend)
        if recipe.name in RECIPES:
            raise InputError(
                f'{name}: the name "{recipe.name}" belongs to a built-in recipe. Rename the file, or give the recipe '
                "another name."
            )
    else:
        hint = did_you_mean(name, RECIPES) or f" Expected one of {', '.join(RECIPES)}."
        raise InputError(
            f"{name}: no such recipe, nor a file of your own that ends in .toml or .py.{hint} `kaggle-digits recipes` "
            "lists all."
        )
    if epochs is not None and not 1 <= epochs <= 1_000_000:
        raise InputError(f"--epochs: {epochs}. Expected 1 to 1,000,000.")
    return recipe if epochs is None else recipe.with_epochs(epochs)


def as_tuples(value: Any) -> Any:
    """Turn the lists in plain data into tuples."""
    if isinstance(value, dict):
        return {name: as_tuples(part) for name, part in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value
