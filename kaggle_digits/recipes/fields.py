"""Check the values of a recipe against the types and ranges of its fields."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from kaggle_digits.errors import InputError, did_you_mean
from kaggle_digits.recipe import FieldError, Layer, Network, Part, Recipe

T = TypeVar("T")

ONLY_IN_TRAINING = ("_initializer", "_regularizer", "_constraint")
"""Options of layers with these endings do not matter once a network is trained. Keras builds objects from them."""


def from_json(value: Any) -> Any:
    """Turn the JSON of a recipe back into the recipe, and check every value.

    Raises:
        ValueError, TypeError: it is not the JSON of a recipe.
    """
    if isinstance(value, dict):
        if value.get("kind") == "options":
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


def build(kind: type[T], fields: Mapping[str, Any]) -> T:
    """Make a dataclass of values that may come from anyone, and check their types.

    Raises:
        FieldError: a value is of another type or out of range, or a field is missing or unknown.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in fields:
        if name not in known:
            hint = did_you_mean(name, known) or f" Expected some of {', '.join(known)}."
            raise FieldError(name, f"no such key here.{hint}")
    for name, field in known.items():
        if name not in fields and dataclasses.MISSING is field.default is field.default_factory:
            raise FieldError(name, "is missing.")
    made = kind(**fields)
    check_fields(made)
    if isinstance(made, Recipe) and not made.pixel_scale:
        raise FieldError("pixel_scale", "0. Expected another number, by which pixels are divided.")
    return made


def check_fields(value: object) -> None:
    """Check that the fields of a dataclass have the types and the ranges of their annotations.

    Raises:
        FieldError: one of them does not.
        InputError: pydantic is missing, as perhaps in Kaggle's TPU image.
    """
    try:
        from pydantic import ValidationError
    except ImportError as error:
        raise InputError(
            "pydantic is not installed, and the values of a recipe or run cannot be checked without it. Install it: "
            "pip install pydantic"
        ) from error

    for name, adapter in _adapters(type(value)).items():  # type: ignore[arg-type]
        try:
            adapter.validate_python(getattr(value, name), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            wanted = first["msg"].removeprefix("Input should be ")
            wanted = f"a number {wanted}" if wanted.startswith(("greater", "less")) else wanted
            raise FieldError(name, f"{repr(first['input'])[:40]}. Expected {wanted}.") from error


@functools.cache
def _adapters(kind: type) -> dict[str, Any]:
    """Return what pydantic needs to check each field of a dataclass."""
    from pydantic import TypeAdapter

    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(kind)}


def finish(kind: type[T], fields: Mapping[str, Any]) -> T:
    """Make a user's recipe.

    Raises:
        FieldError: a value cannot be used.
    """
    if not re.fullmatch(r"\w[\w.+-]*", str(fields["name"])):
        raise FieldError("name", f"{fields['name']!r}. Expected letters, digits, and dashes: files are named after it.")
    recipe = build(kind, fields)
    if isinstance(recipe, Network):
        if not recipe.layers:
            raise FieldError("layers", "is empty. Expected at least a Flatten and a Dense of ten units.")
        return replace(recipe, layers=_as_logits(recipe.layers, recipe.loss))
    return recipe


def check_layers(fields: Mapping[str, Any]) -> None:
    """Check that the layers, the optimizer and the estimator of a recipe, as a file has them, are plain data.

    Raises:
        FieldError: one of them has an option that might run code.
    """
    named = [(f"layers[{number}]", layer) for number, layer in enumerate(fields.get("layers", ()))]
    for name, (kind, options) in [
        *named,
        *((name, fields[name]) for name in ("optimizer", "estimator") if name in fields),
    ]:
        for option, value in options.items():
            if not (is_plain(value) or (str(option).endswith(ONLY_IN_TRAINING) and _is_object(value))):
                raise FieldError(name, f"{kind}: {option} is {value!r}. Expected a text, a number or a list.")


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


def is_plain(value: Any) -> bool:
    """Whether an option of a layer is text, a number, nothing, or a list of these, and so runs no code."""
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    return isinstance(value, str | int | float | None)


def _is_object(value: Any) -> bool:
    """Whether a value names one of Keras' own initializers, regularizers or constraints, with plain settings.

    With a "module" among the keys, Keras would import that module.
    """
    match value:
        case {"class_name": str(), "config": dict(config), **others} if not others:
            return all(map(is_plain, config.values()))
    return False
