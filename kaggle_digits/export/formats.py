"""Write a trained network as one file that needs nothing of this package: Keras' own format, ONNX, LiteRT or a page.

The file takes pixels from 0 to 255 and returns calibrated probabilities. Everything between the two is inside: upright
digits, scaling, averages over shifts and slants, several networks, and the temperature. Before a file is kept, the
runtime of its format reads it, and the result is compared with our own prediction. (For a page, Keras reads with its
rounded weights.)
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

from kaggle_digits.data import Source, find_source, load_test_rows, load_train
from kaggle_digits.devices import import_tensorflow, stderr_held_back
from kaggle_digits.digits import CLASSES, SIDE, calibrate
from kaggle_digits.errors import InputError, TrainingError
from kaggle_digits.files import atomic_path
from kaggle_digits.learners import load_run, read_finished
from kaggle_digits.learners.images import SURE
from kaggle_digits.learners.members import run_folders, temperature_of
from kaggle_digits.learners.upright import MIDDLE, find_columns
from kaggle_digits.recipe import Network, Recipe
from kaggle_digits.recipes.fields import ONLY_IN_TRAINING
from kaggle_digits.run import Run
from kaggle_digits.strategy import Device, resolve_device
from kaggle_digits.submission import check_free

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Format:
    """A format of files.

    Args:
        suffix: the end of the names of its files.
        lowest: the oldest versions with which its files were read. ``tests/test_export.py`` tries Keras' versions.
        modules: the modules that are needed to write and verify a file.
        read: predicts with a file, pixels (N, 28, 28) float32 → probabilities. The documentation has the same lines.
            None for a page, which only a browser reads. Then Keras reads with the page's rounded weights.
    """

    suffix: str
    lowest: str
    modules: tuple[str, ...]
    read: Callable[[Path, np.ndarray], np.ndarray] | None


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


FORMATS = {
    "keras": Format(".keras", "Keras 3.10", (), _read_keras),
    "onnx": Format(".onnx", "ONNX Runtime 1.15", ("tensorflow", "tf2onnx", "onnx", "onnxruntime"), _read_onnx),
    "litert": Format(".tflite", "LiteRT 1.2, or TensorFlow Lite 2.14", ("tensorflow", "ai_edge_litert"), _read_litert),
    "web": Format(".html", "a browser of 2022", (), None),
}


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Args:
        file: the file.
        networks: how many networks are in it.
        left_out: the names of members that are not networks and are left out.
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
        form: "keras", "onnx", "litert" or "web".
        out: the file to write. Its suffix is that of the format.
        data: where the rows to compare come from, see ``data.find_source``.
        overwrite: whether to replace an existing file.

    Raises:
        InputError: the run has no network, the file has another suffix or exists, or a package is missing.
        TrainingError: the file reads a digit differently. It is not kept.
    """
    suffix, modules = FORMATS[form].suffix, FORMATS[form].modules
    if out.suffix != suffix:
        raise InputError(f"{out}: is not named like a file for {form}. Expected a name ending in {suffix}.")
    check_free(out, overwrite=overwrite)
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"--format {form}: the package {module.replace('_', '-')} is missing. Install the extra [export], or "
                f"what it consists of for this format: pip install {' '.join(modules).replace('_', '-')}"
            )
    device = resolve_device("cpu", backend="tensorflow" if modules else None)  # TensorFlow writes ONNX and LiteRT
    all_runs = [read_finished(member) for member in run_folders(folder)]
    runs = [run for run in all_runs if run.recipe.networks]
    if not runs:
        raise InputError(
            f"{folder}: holds {all_runs[0].recipe.name}, which is not a network. Expected one. Name another run."
        )
    pixels = _rows_to_compare(find_source(data))
    read = [[load_run(part.folder, device).predict(pixels) for part in _networks(run)] for run in runs]
    ours = calibrate(np.mean([np.mean(of_run, axis=0) for of_run in read], axis=0), temperature_of(runs))
    model = _build_graph(runs, device)
    with atomic_path(out) as partial:
        try:
            read_file = FORMATS[form].read
            images = pixels.reshape(-1, SIDE, SIDE).astype(np.float32)
            if read_file:
                _write(model, form, partial)
                theirs = read_file(partial, images)
            else:
                theirs = _write_page(runs, device, model, images, partial)
        except InputError:  # a layer that the page does not know
            raise
        except Exception as error:  # whatever the converters and runtimes raise
            raise TrainingError(
                f"{out}: {form} does not take this network ({type(error).__name__}: {str(error)[:200]}). Expected "
                "layers that it knows. Try another format."
            ) from error
        difference = float(np.abs(theirs - ours).max())
        differing = int((theirs.argmax(axis=1) != ours.argmax(axis=1)).sum())
        most = 0.01  # the file rounds in single precision, as we do in most places
        if differing or not difference < most:
            raise TrainingError(
                f"{out}: reads {differing} of {len(pixels):,} digits differently than {folder}, and the largest "
                f"difference of a probability is {difference:.2g}. Expected none, and less than {most}. The file "
                "is not kept."
            )
    parts = [part for run in all_runs for part in run.recipe.members or (run.recipe,)]
    left_out = tuple(part.name for part in parts if not part.networks)
    return Export(out, len(parts) - len(left_out), left_out, len(pixels), difference)


def _write_page(runs: Sequence[Run], device: Device, model: keras.Model, images: np.ndarray, file: Path) -> np.ndarray:
    """Write the page of a model. Return the probabilities that the model has with the weights of the page."""
    from kaggle_digits.export.web import as_on_page, write_page

    threshold = max((run.threshold.value for run in runs if run.threshold), default=0.9)
    networks = [_networks(run) for run in runs]
    write_page(file, networks, device, temperature=temperature_of(runs), threshold=threshold)
    model.set_weights([part if part.ndim == 1 else as_on_page(part) for part in model.get_weights()])
    return np.asarray(model.predict(images, verbose=0))


def _rows_to_compare(source: Source) -> np.ndarray:
    """Return up to 1,000 rows, (N, 784) uint8: test rows, and if there are too few, training rows as well."""
    most = 1000
    pixels = load_test_rows(source, alone=True).pixels
    if len(pixels) < most and (source.is_sample or "train" in source.tables):
        pixels = np.concatenate([pixels, load_train(source).pixels])
    return pixels[:most]


def _networks(run: Run) -> list[Run]:
    """Return the trainings of networks that a run consists of. Other members of an ensemble are left out."""
    return [part for part in run.members or [run] if part.recipe.networks]


def _build_graph(runs: Sequence[Run], device: Device) -> keras.Model:
    """Build a model of Keras' own layers and operations: pixels (N, 28, 28), 0–255 → the mean (N, 10) of all runs."""
    import keras
    from keras import ops

    pixels = keras.Input((SIDE, SIDE), name="pixels")
    mean = _mean([_mean([_read(network, pixels, device) for network in _networks(run)]) for run in runs])
    logarithms = ops.log(ops.maximum(mean, 1e-12))
    return keras.Model(pixels, ops.softmax(logarithms / temperature_of(runs), axis=-1), name="digits")


def _mean(values: Sequence[Any]) -> Any:
    return sum(values[1:], values[0]) / len(values)


def _read(run: Run, pixels: Any, device: Device) -> Any:
    """Return the probabilities (N, 10) of a network, before calibration."""
    from keras import layers, ops

    from kaggle_digits.models import load_network

    recipe = cast(Network, run.recipe)
    network = [_for_use(layer) for layer in load_network(run, device).layers]
    if recipe.normalises:
        pixels = _normalise(recipe, pixels)

    def probabilities(pixels: Any) -> Any:
        outputs = layers.Reshape((SIDE, SIDE, 1))((pixels - recipe.pixel_offset) / recipe.pixel_scale)
        for layer in network:
            outputs = layer(outputs)
        return _shares(outputs) if recipe.loss == "mse" else ops.softmax(outputs, axis=-1)

    def averaged(pixels: Any) -> Any:
        most = recipe.slant_averaging
        slants = (-most, -most / 2, most / 2, most) if most else ()
        return _mean([probabilities(version) for version in (pixels, *(_slant(pixels, slant) for slant in slants))])

    read = averaged(pixels)
    if distance := recipe.shift_averaging:
        ways = ((distance, 0), (-distance, 0), (0, distance), (0, -distance))
        unsure = ops.max(read, axis=-1, keepdims=True) < SURE
        read = ops.where(unsure, _mean([read, *(averaged(_shift(pixels, *way)) for way in ways)]), read)
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
        if type(layer).__name__.endswith(("Dropout", "GaussianNoise", "Dropout1D", "Dropout2D")):
            return images  # it does nothing once a network is trained
        outputs = copy(images)
        copy.set_weights(layer.get_weights())
        return outputs

    return use


def _shares(outputs: Any) -> Any:
    """Turn estimates of one-hot labels into probabilities, as ``models`` does."""
    from keras import ops

    shifted = outputs - ops.min(outputs, axis=-1, keepdims=True)
    total = ops.sum(shifted, axis=-1, keepdims=True)
    return ops.where(total > 0, shifted / ops.maximum(total, 1e-30), 1 / CLASSES)


def _normalise(recipe: Recipe, pixels: Any) -> Any:
    """As ``learners.upright.normalise_pixels``, in operations of Keras."""
    from keras import ops

    y, x = (np.mgrid[:SIDE, :SIDE] - MIDDLE).astype(np.float32)[:, None]  # (1, 28, 28) each
    ink = ops.sum(pixels, axis=(1, 2), keepdims=True)
    sums = [ops.sum(pixels * weights, axis=(1, 2), keepdims=True) for weights in (x, y, x * x, x * y, y * y)]
    moments = [total / ops.maximum(ink, 1.0) for total in sums]
    first, stretch = find_columns(ops, ink, moments, y[:, :, :1], deslant=recipe.deslant, spread=recipe.spread)
    return ops.round(_read_columns(pixels, first + stretch * (x + np.float32(MIDDLE)), ops))


def _read_columns(pixels: Any, columns: Any, maths: Any) -> Any:
    """Read each row at some columns, bilinearly: a pixel at distance d weighs 1 − d. NumPy or Keras does the maths."""
    from keras import ops

    side = np.arange(SIDE, dtype=np.float32)
    weights = maths.maximum(1.0 - maths.abs(maths.expand_dims(columns, -1) - side), 0.0)  # (…, row, to, from)
    return ops.sum(ops.expand_dims(pixels, 2) * weights, axis=-1)


def _slant(pixels: Any, slant: float) -> Any:
    """Shift each row sideways, the further the farther it is from the middle."""
    side = np.arange(SIDE)
    columns = slant * (side - MIDDLE)[:, None] + side
    return _read_columns(pixels, columns[None].astype(np.float32), np)


def _shift(pixels: Any, down: int, right: int) -> Any:
    """Move images. Pixels from outside count as paper."""
    from keras import layers

    most, form = max(abs(down), abs(right)), {"data_format": "channels_last"}
    framed = layers.ZeroPadding2D(most, **form)(layers.Reshape((SIDE, SIDE, 1))(pixels))
    cropping = ((most - down, most + down), (most - right, most + right))
    return layers.Reshape((SIDE, SIDE))(layers.Cropping2D(cropping, **form)(framed))


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
            # ONNX's exporter asks for the shape. Without it, the model must have been called before.
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
            onnx.helper.set_model_props(stored, {"needs": f"{FORMATS[form].lowest} or newer"})
            onnx.save(stored, file)


def _simplify(file: Path) -> None:
    """Rewrite a .keras file so that older versions of Keras read it as well.

    Each version adds arguments to layers and initializers, which older ones refuse. What a trained network does not
    need is left out: initializers, regularizers, constraints, and arguments that have their default values.
    """
    with zipfile.ZipFile(file) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()}
    metadata = json.loads(contents["metadata.json"]) | {"needs": f"{FORMATS['keras'].lowest} or newer"}
    contents["metadata.json"] = json.dumps(metadata).encode()
    contents["config.json"] = json.dumps(_without_extras(json.loads(contents["config.json"]))).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)


def _without_extras(node: Any) -> Any:
    """Return a part of a ``config.json`` of Keras without what only newer versions know."""
    import keras

    if isinstance(node, list):
        return [_without_extras(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {name: _without_extras(part) for name, part in node.items()}
    if isinstance(node.get("config"), dict) and "class_name" in node:
        is_operation = str(node.get("module")).startswith("keras.src.ops")  # older ones do not take a name
        kind = getattr(keras.layers, node["class_name"], None)
        parameters = inspect.signature(kind.__init__).parameters.values() if kind else ()
        defaults = {given.name: given.default for given in parameters if given.default is not given.empty}
        node["config"] = {
            name: value
            for name, value in node["config"].items()
            if not (value is None and defaults.get(name) is None)
            and not name.endswith(ONLY_IN_TRAINING)
            and not (is_operation and name == "name")
            and (name == "data_format" or name not in defaults or value != defaults[name])
        }
    return node
