"""The fields of a recipe that a search may vary, and recipes with other values in them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kaggle_digits.errors import InputError, did_you_mean
from kaggle_digits.recipe import FieldError, Recipe, to_json
from kaggle_digits.recipes.fields import from_json
from kaggle_digits.train import check_recipe


@dataclass(frozen=True)
class Setting:
    """A field of a recipe that varies.

    Args:
        name: the field, such as learning_rate.peak or layers.0.filters.
        path: where it is in the recipe's JSON, such as ("layers", 0, 1, "filters").
        values: the values to try; of a range, its two ends.
        is_range: whether all values between these two may be tried.
        is_log: whether all orders of magnitude are equally likely.
    """

    name: str
    path: tuple[str | int, ...]
    values: tuple[Any, ...]
    is_range: bool = False
    is_log: bool = False

    @classmethod
    def parse(cls, text: str, recipe: Recipe) -> Setting:
        """Read a setting such as epochs=4..12, peak=0.003..0.03:log or batch_size=64,128,256.

        Raises:
            InputError: the recipe has no such field, it has several, or the values are none.
        """
        name, _, values = text.partition("=")
        fields = dict(fields_of(to_json(recipe)))
        found = [key for key in fields if key == name] or [key for key in fields if key.endswith(f".{name}")]
        if len(found) != 1:
            fault = f"stands for several fields: {', '.join(found)}. Name one of them." if found else "no such field."
            known = [*fields, *(key.rpartition(".")[2] for key in fields)]
            hint = "" if found else did_you_mean(name, known) or f" Expected one of {', '.join(fields)}."
            raise InputError(f"--vary {name}: {fault}{hint}")
        path, now = fields[found[0]]
        span, colon, scale = values.partition(":")
        is_range = ".." in span
        parts = tuple(map(_value, span.split("..") if is_range else span.split(",")))
        numbers = [part for part in parts if type(part) in (int, float)]
        is_right = len(set(parts)) == len(parts) > 1 and (scale == "log" if colon else True)
        if is_range:
            is_right = is_right and len(numbers) == 2 and numbers[0] < numbers[1]
            parts = tuple(map(float, numbers)) if isinstance(now, float) else parts
        if not is_right or (colon and (not is_range or numbers[0] <= 0)):
            raise InputError(
                f"--vary {text}: {values!r} is no range and no list of values. Expected FIELD=LOW..HIGH with LOW below "
                "HIGH, FIELD=LOW..HIGH:log with LOW above 0, or FIELD=A,B,C with different values."
            )
        return cls(found[0], path, parts, is_range, bool(colon))

    def suggest(self, trial: Any) -> Any:
        """Let a trial of Optuna choose a value."""
        if not self.is_range:
            return trial.suggest_categorical(self.name, self.values)
        is_whole = all(isinstance(end, int) for end in self.values)
        return (trial.suggest_int if is_whole else trial.suggest_float)(self.name, *self.values, log=self.is_log)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def fields_of(value: Any, name: str = "", path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the name of every field that may vary in the JSON of a recipe, with its path and its value."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], dict):  # a class and its arguments
        yield from fields_of(value[1], name, (*path, 1))
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in ("kind", "name", *Recipe.WORDS):
                yield from fields_of(part, f"{name}.{key}".lstrip("."), (*path, key))
    else:
        yield name, (path, value)


def with_values(recipe: Recipe, values: Mapping[Setting, Any], name: str) -> Recipe:
    """Return a recipe with other values in some fields.

    Raises:
        InputError: a field forbids its value.
    """
    fields = to_json(recipe) | {"name": name, "summary": f"found by tune, from {recipe.name}"}
    for setting, value in values.items():
        *before, last = setting.path
        functools.reduce(lambda part, key: part[key], before, fields)[last] = value
    try:
        made: Recipe = from_json(fields)
        check_recipe(made)
    except (FieldError, InputError) as error:
        shown = ", ".join(f"{setting.name}={value}" for setting, value in values.items())
        raise InputError(f"--vary: {shown} cannot be trained. {error}") from error
    return made


def to_toml(recipe: Recipe) -> str:
    """Return a recipe as a TOML file."""
    import tomli_w

    def plain(value: Any) -> Any:
        """Return a class and its arguments as one table, and leave out what TOML has no word for."""
        if isinstance(value, list):
            if len(value) == 2 and isinstance(value[1], dict):
                return {"kind": value[0]} | plain(value[1])
            return [plain(part) for part in value]
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items() if part is not None}
        return value

    fields = {name: value for name, value in to_json(recipe).items() if name not in ("name", "source")}
    return tomli_w.dumps(plain(fields))
