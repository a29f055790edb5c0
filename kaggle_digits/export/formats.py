"""Write a trained network as one file that needs nothing of this package: Keras' own format, ONNX or LiteRT.

The file takes pixels from 0 to 255 and returns calibrated probabilities. Everything between the two is inside: upright
digits, scaling, averages over shifts and slants, several networks, and the temperature. Before a file is kept, the
runtime of its format reads it, and the result is compared with our own prediction.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kaggle_digits.data import find_source, load_test_rows, load_train
from kaggle_digits.devices import import_tensorflow, stderr_held_back
from kaggle_digits.digits import CLASSES, SIDE, calibrate
from kaggle_digits.errors import InputError, TrainingError
from kaggle_digits.files import atomic_path
from kaggle_digits.learners import load_run, read_finished
from kaggle_digits.learners.ensemble import EnsemblePredictor
from kaggle_digits.learners.images import SURE
from kaggle_digits.learners.members import run_folders, temperature_of
from kaggle_digits.learners.upright import MIDDLE, NARROWEST, STEEPEST, WIDEST
from kaggle_digits.recipe import Network, Recipe
from kaggle_digits.recipes.fields import ONLY_IN_TRAINING
from kaggle_digits.run import Predictor, Run
from kaggle_digits.strategy import Device, resolve_device
from kaggle_digits.submission import check_free

if TYPE_CHECKING:
    import keras

NEEDED: dict[str, tuple[str, ...]] = {
    "keras": (),
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
}
"""The formats, and the modules that each needs to be written and verified."""
LOWEST = {"keras": "Keras 3.10", "onnx": "ONNX Runtime 1.15", "litert": "LiteRT 1.2, or TensorFlow Lite 2.14"}
"""The oldest versions with which files of each format were read. ``tests/test_export.py`` tries Keras' versions."""
SUFFIXES = {"keras": ".keras", "onnx": ".onnx", "litert": ".tflite"}
ROWS = 1000
"""An exported file is compared with our own prediction on this many rows."""
MOST_DIFFERENCE = 0.01
"""No probability may differ by more: the file rounds in single precision, as we do in most places."""
IDLE = ("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "SpatialDropout1D", "SpatialDropout2D")
"""Layers that do nothing once a network is trained."""


@dataclass(frozen=True)
class Export:
    """What was exported.

    Args:
        file: the file.
        networks: how many networks are in it.
        left_out: names of members that are no networks, and are not in it.
        rows: how many rows were compared.
        difference: the largest difference of a probability from our own.
    """

    file: Path
    networks: int
    left_out: tuple[str, ...]
    rows: int
    difference: float


def export(folder: Path, form: str, out: Path, *, data: str | None = None, overwrite: bool = False) -> Export:
    """Export a run, verify the file, and keep it if it reads every digit like the run.

    Args:
        folder: a run folder, or a folder of members.
        form: "keras", "onnx" or "litert".
        out: the file to write. Its suffix is that of the format.
        data: where the rows to compare come from, see ``data.find_source``.
        overwrite: whether to replace an existing file.

    Raises:
        InputError: the run has no network, the file has another suffix or exists, or a package is missing.
        TrainingError: the file reads a digit differently. It is not kept.
    """
    if out.suffix != SUFFIXES[form]:
        raise InputError(f"{out}: is not named like a file for {form}. Expected a name ending in {SUFFIXES[form]}.")
    check_free(out, overwrite=overwrite)
    for module in NEEDED[form]:
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"--format {form}: the package {module.replace('_', '-')} is missing. Install the extra [export], or "
                f"what it consists of for this format: pip install {' '.join(NEEDED[form]).replace('_', '-')}"
            )
    device = resolve_device("cpu", backend="tensorflow")
    found = [read_finished(each) for each in run_folders(folder)]
    runs = [run for run in found if run.recipe.networks]
    if not runs:
        raise InputError(
            f"{folder}: holds {found[0].recipe.name}, which is not a network. Expected one. Name another run."
        )
    pixels = _rows_to_compare(data)
    read = [_networks_of(run, device).probabilities(pixels) for run in runs]
    ours = calibrate(np.mean(read, axis=0), temperature_of(runs))
    model = build_graph(runs, device)
    with atomic_path(out) as partial:
        try:
            _write(model, form, partial)
            theirs = READERS[form](partial, pixels.reshape(-1, SIDE, SIDE).astype(np.float32))
        except Exception as error:  # whatever the converters and runtimes raise
            raise TrainingError(
                f"{out}: {form} does not take this network ({type(error).__name__}: {str(error)[:200]}). Expected "
                "layers that it knows. Try another format."
            ) from error
        difference = float(np.abs(theirs - ours).max())
        differing = int((theirs.argmax(axis=1) != ours.argmax(axis=1)).sum())
        if differing or not difference < MOST_DIFFERENCE:
            raise TrainingError(
                f"{out}: reads {differing} of {len(pixels):,} digits differently than {folder}, and the largest "
                f"difference of a probability is {difference:.2g}. Expected none, and less than {MOST_DIFFERENCE}. The "
                "file is not kept."
            )
    return Export(
        file=out,
        networks=sum(len(run.recipe.networks) for run in runs),
        left_out=tuple(part.name for run in found for part in run.recipe.members or (run.recipe,) if not part.networks),
        rows=len(pixels),
        difference=difference,
    )


def _rows_to_compare(data: str | None) -> np.ndarray:
    """Return up to ``ROWS`` rows, (N, 784) uint8: test rows, and if there are too few, training rows as well."""
    source = find_source(data)
    pixels = load_test_rows(source, alone=True).pixels
    if len(pixels) < ROWS and (source.is_sample or "train" in source.tables):
        pixels = np.concatenate([pixels, load_train(source).pixels])
    return pixels[:ROWS]


def _networks_of(run: Run, device: Device) -> Predictor:
    """Return what predicts with the networks of a run alone. An ensemble also asks other methods."""
    if not run.recipe.members:
        return cast(Predictor, load_run(run.folder, device).predictor)
    return EnsemblePredictor([_networks_of(member, device) for member in _members(run)], [])


def _members(run: Run) -> list[Run]:
    return [member for member in run.members if member.recipe.networks]


def build_graph(runs: Sequence[Run], device: Device) -> keras.Model:
    """Build a Keras model of everything between pixels and probabilities.

    Args:
        runs: finished runs, which are averaged.
        device: where to load them.

    Returns:
        a model, pixels (N, 28, 28) float32 from 0 to 255 → probabilities (N, 10) float32. It consists of Keras' own
        layers and operations.
    """
    import keras
    from keras import ops

    pixels = keras.Input((SIDE, SIDE), name="pixels")
    logarithms = ops.log(ops.maximum(_mean([_read(run, pixels, device) for run in runs]), 1e-12))
    return keras.Model(pixels, ops.softmax(logarithms / temperature_of(runs), axis=-1), name="digits")


def _mean(values: Sequence[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values) if len(values) > 1 else total


def _read(run: Run, pixels: Any, device: Device) -> Any:
    """Return the probabilities (N, 10) of a run's networks, before calibration."""
    from keras import layers, ops

    from kaggle_digits.models import load_network

    if run.recipe.members:
        return _mean([_read(member, pixels, device) for member in _members(run)])
    recipe, model = cast(Network, run.recipe), load_network(run, device)
    network = [_for_use(layer) for layer in model.layers]
    if recipe.normalises:
        pixels = _normalise(recipe, pixels)

    def probabilities(pixels: Any) -> Any:
        outputs = layers.Reshape((SIDE, SIDE, 1))((pixels - recipe.pixel_offset) / recipe.pixel_scale)
        for layer in network:
            outputs = layer(outputs)
        return _shares(outputs) if recipe.loss == "mse" else ops.softmax(outputs, axis=-1)

    def slanted(pixels: Any) -> Any:
        if not recipe.slant_averaging:
            return probabilities(pixels)
        most = recipe.slant_averaging
        slants = (_slant(pixels, slant) for slant in (-most, -most / 2, most / 2, most))
        return _mean([probabilities(each) for each in (pixels, *slants)])

    read = slanted(pixels)
    if distance := recipe.shift_averaging:
        shifted = [
            slanted(_shift(pixels, *way)) for way in ((distance, 0), (-distance, 0), (0, distance), (0, -distance))
        ]
        unsure = ops.max(read, axis=-1, keepdims=True) < SURE
        read = ops.where(unsure, _mean([read, *shifted]), read)
    return read


def _for_use(layer: keras.layers.Layer) -> Callable[[Any], Any]:
    """Return a copy of a trained layer that is made of Keras' own classes only."""
    import keras

    from kaggle_digits.learners.layers import BatchNormalization, Residual

    if isinstance(layer, Residual):
        first, second, side = map(_for_use, (layer.first, layer.second, layer.side))
        return lambda images: keras.ops.relu(second(first(images)) + side(images))
    kind = keras.layers.BatchNormalization if isinstance(layer, BatchNormalization) else type(layer)
    if not kind.__module__.startswith("keras."):
        raise InputError(
            f"the layer {kind.__name__} is code of your own, which no file can hold. Expected Keras' own layers. Build "
            "the network of those."
        )
    copy = kind.from_config(layer.get_config() | {"name": None})

    def use(images: Any) -> Any:
        if type(layer).__name__ in IDLE:
            return images
        outputs = copy(images)
        copy.set_weights(layer.get_weights())
        return outputs

    return use


def _shares(outputs: Any) -> Any:
    """As ``learners.network`` turns estimates of one-hot labels into probabilities."""
    from keras import ops

    shifted = outputs - ops.min(outputs, axis=-1, keepdims=True)
    total = ops.sum(shifted, axis=-1, keepdims=True)
    return ops.where(total > 0, shifted / ops.maximum(total, 1e-30), 1 / CLASSES)


def _normalise(recipe: Recipe, pixels: Any) -> Any:
    """As ``learners.preprocess.normalise_pixels``, in operations of Keras."""
    from keras import ops

    side = np.arange(SIDE, dtype=np.float32)
    across, down = (side - MIDDLE).reshape(1, 1, SIDE), (side - MIDDLE).reshape(1, SIDE, 1)

    def mean(weights: np.ndarray) -> Any:
        return ops.sum(pixels * weights.astype(np.float32), axis=(1, 2), keepdims=True) / ops.maximum(ink, 1.0)

    ink = ops.sum(pixels, axis=(1, 2), keepdims=True)
    mean_x, mean_y = mean(across), mean(down)
    xx = mean(across**2) - mean_x * mean_x
    xy = mean(across * down) - mean_x * mean_y
    yy = mean(down**2) - mean_y * mean_y
    slant: Any = 0.0 * ink
    if recipe.deslant:
        slant = ops.where(yy > 0.1, xy / ops.maximum(yy, 0.1), 0.0)
        slant = ops.clip(slant, -STEEPEST, STEEPEST)
    stretch: Any = 0.0 * ink + 1.0
    if recipe.spread:
        variance = ops.maximum(xx - 2 * slant * xy + slant * slant * yy, 0.0)
        stretch = ops.where(ink > 0, ops.clip(ops.sqrt(variance) / recipe.spread, NARROWEST, WIDEST), 1.0)
    below = (0.0 - mean_y) + down.astype(np.float32)  # NumPy's array must come last, or NumPy would take the difference
    first = (1 - stretch) * (mean_x + MIDDLE) + slant * below
    columns = first + stretch * side.reshape(1, 1, SIDE)  # (N, 28, 28): where each pixel is read in its row
    # Bilinear: a pixel at distance d weighs 1 − d.
    weights = ops.relu(1.0 - ops.abs(ops.expand_dims(columns, -1) - side.reshape(1, 1, 1, SIDE)))
    return ops.round(ops.sum(weights * ops.expand_dims(pixels, 2), axis=-1))


def _slant(pixels: Any, slant: float) -> Any:
    """Shift each row sideways, the further the farther it is from the middle."""
    from keras import ops

    side = np.arange(SIDE)
    columns = slant * (side - MIDDLE)[:, None] + side
    weights = np.maximum(0, 1 - np.abs(columns[:, :, None] - side)).astype(np.float32)  # (row, to, from)
    return ops.sum(ops.expand_dims(pixels, 2) * weights[None], axis=-1)


def _shift(pixels: Any, down: int, right: int) -> Any:
    """Move images. Pixels from outside count as paper."""
    from keras import layers

    padding = ((max(0, down), max(0, -down)), (max(0, right), max(0, -right)))
    cropping = ((max(0, -down), max(0, down)), (max(0, -right), max(0, right)))
    images = layers.Reshape((SIDE, SIDE, 1))(pixels)
    images = layers.ZeroPadding2D(padding, data_format="channels_last")(images)
    images = layers.Cropping2D(cropping, data_format="channels_last")(images)
    return layers.Reshape((SIDE, SIDE))(images)


def _write(model: keras.Model, form: str, file: Path) -> None:
    """Write a model, without what the converters print."""
    import keras

    with contextlib.redirect_stdout(None), stderr_held_back(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "keras":
            model.save(file)
            _simplify(file)
            return
        try:
            # ONNX's exporter asks for the shape. Without it, it wants the model to have been called.
            shape = [keras.InputSpec(shape=(None, SIDE, SIDE), dtype="float32", name="pixels")]
            model.export(file, format=form, verbose=False, **({"input_signature": shape} if form == "onnx" else {}))
        except ValueError:
            if form != "litert":
                raise
            # Keras before 3.13 does not know this format.
            converter = import_tensorflow().lite.TFLiteConverter.from_keras_model(model)
            file.write_bytes(converter.convert())
        if form == "onnx":
            import onnx

            stored = onnx.load(file)
            onnx.helper.set_model_props(stored, {"needs": f"{LOWEST[form]} or newer"})
            onnx.save(stored, file)


def _simplify(file: Path) -> None:
    """Rewrite a .keras file so that older versions of Keras read it as well.

    Each version adds arguments to layers and initializers, which older ones refuse. What a trained network does not
    need is left out: initializers, regularizers, constraints, and arguments that have their default values.
    """
    with zipfile.ZipFile(file) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()}
    metadata = json.loads(contents["metadata.json"]) | {"needs": f"{LOWEST['keras']} or newer"}
    contents["metadata.json"] = json.dumps(metadata).encode()
    contents["config.json"] = json.dumps(_without_extras(json.loads(contents["config.json"]))).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)


def _defaults_of(layer: str) -> dict[str, Any]:
    """Return the default values of the arguments of one of Keras' layers."""
    import keras

    kind = getattr(keras.layers, layer, None)
    parameters = inspect.signature(kind.__init__).parameters.values() if kind else ()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def _without_extras(node: Any) -> Any:
    """Return a part of a ``config.json`` of Keras without what only newer versions know."""
    if isinstance(node, list):
        return [_without_extras(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {name: _without_extras(part) for name, part in node.items()}
    if isinstance(node.get("config"), dict) and "class_name" in node:
        is_operation = str(node.get("module")).startswith("keras.src.ops")  # older ones do not take a name
        defaults = _defaults_of(node["class_name"])
        node["config"] = {
            name: value
            for name, value in node["config"].items()
            if not (value is None and defaults.get(name) is None)
            and not name.endswith(ONLY_IN_TRAINING)
            and not (is_operation and name == "name")
            and (name == "data_format" or name not in defaults or value != defaults[name])
        }
    return node


def _read_keras(file: Path, pixels: np.ndarray) -> np.ndarray:
    import keras

    return np.asarray(keras.saving.load_model(file, compile=False).predict(pixels, verbose=0))


def _read_onnx(file: Path, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


def _read_litert(file: Path, pixels: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    with stderr_held_back():
        interpreter = Interpreter(str(file))
        given, returned = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
        interpreter.resize_tensor_input(given, pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given, pixels)
        interpreter.invoke()
    return interpreter.get_tensor(returned)


READERS: dict[str, Callable[[Path, np.ndarray], np.ndarray]] = {
    "keras": _read_keras,
    "onnx": _read_onnx,
    "litert": _read_litert,
}
"""What predicts with a file of each format. The same lines stand in the documentation."""
