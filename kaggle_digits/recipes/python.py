"""Recipes of your own in Python: a file that builds a Keras network is run, and the network becomes a recipe.

So a recipe of your own is trained, resumed and kept like a built-in one.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import math
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from kaggle_digits.devices import start_backend, stderr_held_back
from kaggle_digits.digits import CLASSES, PIXELS, SIDE
from kaggle_digits.errors import InputError
from kaggle_digits.files import decode_text
from kaggle_digits.recipe import FieldError, Layer, Network, Recipe
from kaggle_digits.recipes import DEFAULTS, as_tuples, name_of
from kaggle_digits.recipes.fields import ONLY_IN_TRAINING, finish

log = logging.getLogger(__name__)

MODULE = "kaggle_digits_recipe"
"""Module name of a Python file while it runs."""
# Layers that may stand in front of a scaling: those that do not change values, and those that move them or leave some
# out.
SHAPING = ("Reshape", "Flatten", "Permute", "Identity")
MOVING = (
    *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomCrop", "CenterCrop", "Resizing"),
    *("Cropping2D", "ZeroPadding2D", "Dropout", "SpatialDropout2D"),
)


def load_python(file: Path, backend: str | None) -> Recipe:
    """Run a Python file, and return the recipe that it makes.

    Args:
        file: the file. It may import others from its folder. What it prints goes to stderr.
        backend: the backend for Keras, see ``devices.choose_backend``.

    Raises:
        InputError: it fails, or makes no recipe. The message names the line.
    """
    try:
        contents = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error}). Expected a recipe in Python. Check the path.") from error
    start_backend(backend)  # before the file does, so that Keras has the right backend
    import keras

    with stderr_held_back():  # CUDA complains here if there is no GPU
        keras.ops.zeros(())
    with contextlib.redirect_stdout(sys.stderr), _importing_beside(file):
        return _recipe_in(file, _run(file, contents))


def fold_scaling(layers: Sequence[Layer], given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Keep pixels from being scaled twice if a network begins with layers that scale them, and say so.

    A scaling gets pixels as they are, from 0 to 255, unless its numbers only make sense for values from 0 to 1. If only
    reshaping stands in front of it, it becomes the recipe's own scaling, else it stays a layer.

    Args:
        layers: the layers of the network.
        given: the author's settings. If they say how pixels are scaled, nothing changes.
        source: the name of the network in the message.

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
    # If pixels from 0 to 255 would become values that are further apart than 50, the scaling is for values from 0 to 1.
    most = 255.0 if abs(scale) * 255 <= 50 else 1.0  # the value of ink that the layer expects
    ends = sorted((offset, offset + scale * most))
    what = "" if moved else f", to values from {ends[0]:.4g} to {ends[1]:.4g}"
    gets = "them as they are, from 0 to 255" if most == 255 else "values from 0 to 1, for which its scaling is made"
    note = f"the network scales pixels itself{what}: it gets {gets}. {given.get('note', '')}".strip()
    log.info("%s: %s", source, note)
    if moved:
        return {"pixel_scale": 255.0 / most, "note": note}
    return {
        "layers": tuple(kept),
        "pixel_scale": _rounded(255.0 / most / scale),
        "pixel_offset": _rounded(-255.0 / most * offset / scale),
        "note": note,
    }


def _numbers_of(layer: Layer) -> tuple[list[float], list[float]] | None:
    """Return the factors of a layer, in ascending order, and its offsets; None if it does more than scale."""
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


def _run(file: Path, contents: bytes) -> dict[str, Any]:
    """Run a Python file and return its names.

    Raises:
        InputError: it failed. The message names its line.
    """
    module = sys.modules[MODULE] = types.ModuleType(MODULE)
    module.__file__ = str(file)
    try:  # as bytes, in which Python finds the encoding; but it does not know UTF-16
        source = decode_text(contents) if b"\0" in contents else contents
        exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))
        return dict(vars(module))
    except (Exception, SystemExit) as error:
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
            keras.saving.register_keras_serializable(package=name_of(file))(value)


def _recipe_in(file: Path, names: dict[str, Any]) -> Recipe:
    """Return the recipe that a file has defined, or makes with a function.

    Raises:
        InputError: there is none, or it is unclear which one.
    """
    import keras

    public = {name: value for name, value in names.items() if not name.startswith("_")}
    recipes = {name: value for name, value in public.items() if isinstance(value, Recipe)}
    if recipes:
        return _own(file, recipes[_only(file, "recipes", recipes, ("recipe",))])
    usual = ("network", "model", "build_model", "make_model", "create_model", "get_model")
    makers = {
        name: value
        for name, value in public.items()
        if inspect.isfunction(value) and value.__module__ == MODULE and _takes_nothing(value)
    }
    makers |= {name: value for name, value in public.items() if isinstance(value, keras.Model)}
    if not makers:
        raise InputError(
            f"{file}: defines no recipe. Expected a kaggle_digits.Network, or a function without parameters that "
            "returns a keras.Sequential. Add one."
        )
    made = makers[name := _only(file, "networks", makers, usual)]
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
        return from_keras(made, name=name_of(file), source=str(file))
    except InputError as error:
        raise InputError(f"{file}: {name}: {error}") from error
    except Exception as error:  # a network can make Keras raise anything
        raise InputError(
            f"{file}: {type(error).__name__}: {error}. Expected a network of plain data. Correct it."
        ) from error


def _own(file: Path, recipe: Recipe) -> Recipe:
    """Return a recipe that a file defines, checked, and with the file as its source."""
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    try:
        return finish(type(recipe), values | {"source": str(file)})
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
    read |= fold_scaling(layers, settings, settings.get("source", words["source"]))
    try:
        return finish(Network, {**read, **settings})
    except FieldError as error:
        raise InputError(str(error)) from error


def _flat(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the layers and operations of a network in order, including those of nested networks, and their inputs.

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
    except Exception:  # a user's function may raise anything for other arrays
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
    """Return an operation of a functional model, with its constants, as a function of arrays."""
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
        plain_activations = ("relu", "sigmoid", "softmax", "softplus", "softsign", "silu", "tanh")
        if name in plain_activations and _settings_of(layer) == _settings_of(type(layer)()):
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
        plain = as_tuples(json.loads(json.dumps(options)))
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
