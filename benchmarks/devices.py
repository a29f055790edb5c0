"""Does a network learn the same on one device, on several, and with either backend?

    .venv/bin/python benchmarks/devices.py
    .venv/bin/python benchmarks/devices.py --sgd
    .venv/bin/python benchmarks/devices.py --overhead

The script trains cnn-32-64 for 200 steps on virtual devices of this CPU, in float32, without dropout, on pixels from 0
to 1, always from the same initial weights. It prints how far the loss is from that of one TensorFlow device, at the
worst of every tenth step. There are two such figures: for the mean loss since the start, as Keras reports it, and for
the loss of the single batch. The exit code is 1 if the mean is off by more than 1% and by more than rounding explains,
or if predicting 1,100 rows at batch 1,024 does not return 1,100 rows.

At first the recipe's RMSprop doubles every difference with each step, even one of rounding. The row "rounded" shows how
much: it is TensorFlow on one device again, from weights changed in their last digit. --sgd takes plain SGD instead,
which does not amplify differences.

--overhead measures how long an epoch takes under a strategy of one device, in pairs with an epoch without a strategy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

# name → backend, number of devices
PLACES = {
    "TensorFlow": ("tensorflow", 1),
    "TensorFlow, rounded": ("tensorflow", 1),
    "TensorFlow, 2 mirrored": ("tensorflow", 2),
    "TensorFlow, 4 mirrored": ("tensorflow", 4),
    "JAX": ("jax", 1),
    "JAX, 8 devices": ("jax", 8),
}
PREDICTED = 1_100


def train_here(recipe_name: str, steps: int, sgd: bool, place: str) -> dict[str, Any]:
    """Train in this process, and return the losses and the shape of the predictions."""
    from kaggle_digits.analysis.self_test import write_start
    from kaggle_digits.data import find_source, load_train
    from kaggle_digits.learners.resume import CHECKPOINT_FILES
    from kaggle_digits.recipes import RECIPES
    from kaggle_digits.strategy import resolve_device

    backend, devices = PLACES[place]
    device = mirrored(devices) if devices > 1 and backend == "tensorflow" else None
    device = device or resolve_device("cpu", backend=backend)
    from kaggle_digits.learners import Training, learner_of

    recipe = RECIPES[recipe_name]
    layers = tuple(layer for layer in recipe.layers if layer[0] != "Dropout")
    recipe = replace(recipe, layers=layers, epochs=1, pixel_scale=255.0, augmentation=None, precision="float32")
    rows = load_train(find_source("sample"))
    rows = rows.take(np.resize(np.arange(len(rows)), steps * recipe.batch_size))
    if sgd:
        recipe = replace(recipe, optimizer=("SGD", {"momentum": 0.0}), learning_rate=0.01)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_start(recipe, folder)
        if "rounded" in place:
            change_last_digits(folder / CHECKPOINT_FILES[0])
        from kaggle_digits.analysis.trace import Tracer  # with the backend of this process

        started = time.perf_counter()
        training = Training(recipe=recipe, rows=rows, folder=folder, seed=0, device=device, callbacks=[Tracer()])
        fitted = learner_of(recipe).fit(training)
        seconds = time.perf_counter() - started
    shape = list(fitted.predictor.probabilities(rows.pixels[:PREDICTED]).shape)
    return {"replicas": device.replicas, "losses": fitted.epochs[0]["losses"], "predicted": shape, "seconds": seconds}


def change_last_digits(checkpoint: Path) -> None:
    """Replace every weight of a checkpoint by one of the two float32 numbers next to it."""
    with np.load(checkpoint) as saved:
        values = dict(saved)
    rng = np.random.default_rng(1)
    for name, value in values.items():
        if value.dtype == np.float32 and value.ndim > 1:
            values[name] = np.nextafter(value, rng.choice([-9, 9], value.shape).astype(np.float32))
    np.savez(checkpoint, **values)


def mirrored(count: int) -> Any:
    """Split the CPU into logical devices, and return them under a MirroredStrategy."""
    from kaggle_digits.devices import import_tensorflow
    from kaggle_digits.devices.accelerators import mirror
    from kaggle_digits.strategy import Device

    tf = import_tensorflow()
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    return Device("cpu", mirror([f"CPU:{i}" for i in range(count)]), count, "float32", "virtual devices")


def train_elsewhere(recipe: str, steps: int, sgd: bool, place: str) -> dict[str, Any]:
    """Train in a new process, and return what it reports."""
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={PLACES[place][1]}"}
    environment.pop("KERAS_BACKEND", None)
    command = [sys.executable, __file__, "--recipe", recipe, "--steps", str(steps), *["--sgd"] * sgd, "--here", place]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare_places(recipe: str, steps: int, sgd: bool, places: list[str]) -> bool:
    """Print a row for each place, and return whether all places agree with the first."""
    print(f"{recipe}{' with SGD' if sgd else ''}, {steps} steps\n")
    print("| where | replicas | mean loss off by | loss of the batch | rows | seconds |\n|---|---|---|---|---|---|")
    expected: np.ndarray | None = None
    good, allowed = True, 0.01
    for place in places:
        result = train_elsewhere(recipe, steps, sgd, place)
        losses = np.array(result["losses"])
        # Row 0 is the mean loss since the start, row 1 the loss of the batch.
        curves = np.stack([np.cumsum(losses) / np.arange(1, len(losses) + 1), losses])[:, 9::10]
        expected = curves if expected is None else expected
        off = np.max(np.abs(curves - expected) / expected, axis=1)
        if "rounded" in place:
            allowed = max(allowed, off[0])
        good = good and off[0] <= allowed and result["predicted"] == [PREDICTED, 10]
        shown = f"{result['predicted'][0]}", f"{result['seconds']:.0f}"
        cells = [place, str(result["replicas"]), f"{off[0]:.2%}", f"{off[1]:.2%}", *shown]
        print(f"| {' | '.join(cells)} |", flush=True)
    return good


def measure_overhead(pairs: int = 7) -> None:
    """Print how much longer an epoch takes under a strategy of one device than without."""
    from kaggle_digits.data import find_source, load_train
    from kaggle_digits.devices import import_tensorflow
    from kaggle_digits.digits import one_hot
    from kaggle_digits.learners.images import to_images
    from kaggle_digits.models import build_model, compile_model
    from kaggle_digits.recipes import RECIPES
    from kaggle_digits.strategy import Device, resolve_device

    tf = import_tensorflow()
    recipe = RECIPES["cnn-32-64"]
    rows = load_train(find_source("sample"))
    places = [
        resolve_device("cpu"),
        Device("cpu", tf.distribute.OneDeviceStrategy("/cpu:0"), 1, "float32", "one device"),
    ]
    models = []
    for device in places:
        with device.scope():
            models.append(build_model(recipe))
            compile_model(models[-1], recipe, steps=1)

    def epoch(number: int) -> float:
        started = time.perf_counter()
        with places[number].scope():
            models[number].fit(
                to_images(rows.pixels, recipe), one_hot(rows.digits), batch_size=recipe.batch_size, verbose=0
            )
        return time.perf_counter() - started

    ratios = []
    for pair in range(-1, pairs):  # the first pair compiles, and is not counted
        order = (0, 1) if pair % 2 else (1, 0)
        taken = {number: epoch(number) for number in order}
        if pair >= 0:
            ratios.append(taken[1] / taken[0])
            print(f"without {taken[0]:.2f} s, under a strategy {taken[1]:.2f} s", flush=True)
    print(f"median ratio of {pairs} pairs: {statistics.median(ratios):.3f}")


def main() -> int:
    """Compare the places, or measure the overhead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="cnn-32-64")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--places", nargs="+", default=list(PLACES), metavar="PLACE")
    parser.add_argument("--sgd", action="store_true", help="use plain SGD instead of the recipe's optimizer")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(train_here(options.recipe, options.steps, options.sgd, options.here)))
        return 0
    if options.overhead:
        measure_overhead()
        return 0
    return 0 if compare_places(options.recipe, options.steps, options.sgd, options.places) else 1


if __name__ == "__main__":
    raise SystemExit(main())
