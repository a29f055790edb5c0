"""Does a network learn the same on one device, on several, with either backend, and in several processes?

    .venv/bin/python benchmarks/devices.py
    .venv/bin/python benchmarks/devices.py --overhead

Trains cnn-32-64 for 200 steps in float32, without dropout and on pixels from 0 to 1, from one set of initial weights,
on virtual devices of this CPU, and prints how far each loss curve is from that of one TensorFlow device at every tenth
step. Ends with exit code 1 if that is more than 1 %, or if 130 rows predicted at batch 64 are not 130.

With --overhead, the time of an epoch under a strategy of one device, in pairs with the time without.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

# name → backend, devices of a process, processes
PLACES = {
    "TensorFlow": ("tensorflow", 1, 1),
    "TensorFlow, 2 mirrored": ("tensorflow", 2, 1),
    "TensorFlow, 4 mirrored": ("tensorflow", 4, 1),
    "JAX": ("jax", 1, 1),
    "JAX, 8 devices": ("jax", 8, 1),
    "JAX, 2 processes": ("jax", 1, 2),
    "JAX, 3 processes": ("jax", 1, 3),
}
PREDICTED = 130


def train_here(recipe_name: str, steps: int, place: str, cluster_words: list[str]) -> dict[str, Any]:
    """Train in this process and return losses and the shape of what was predicted."""
    from kaggle_digits.cluster import find_cluster
    from kaggle_digits.data import find_source, load_train
    from kaggle_digits.devices import train_steps
    from kaggle_digits.predict import predict_probabilities
    from kaggle_digits.recipes import RECIPES
    from kaggle_digits.strategy import resolve_device

    backend, devices, _ = PLACES[place]
    cluster = find_cluster(cluster_words[0], *map(int, cluster_words[1:])) if cluster_words else None
    device = mirrored(devices) if devices > 1 and backend == "tensorflow" else None
    device = device or resolve_device("cpu", backend=backend, cluster=cluster)
    recipe = RECIPES[recipe_name]
    layers = tuple(layer for layer in recipe.layers if layer[0] != "Dropout")
    recipe = replace(recipe, layers=layers, epochs=1, pixel_scale=255.0, augmentation=None, precision="float32")
    rows = load_train(find_source("sample"))
    rows = rows.take(np.resize(np.arange(len(rows)), steps * recipe.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        losses, model = train_steps(recipe, rows, device, Path(folder))
        seconds = time.perf_counter() - started
    shape = []
    if device.processes == 1:
        probabilities = predict_probabilities(model, recipe, rows.pixels[:PREDICTED], device=device, batch_size=64)
        shape = list(probabilities.shape)
    return {"replicas": device.replicas, "losses": losses, "predicted": shape, "seconds": seconds}


def mirrored(count: int) -> Any:
    """Cut the CPU into logical devices, and return them under a MirroredStrategy."""
    from kaggle_digits.backend import import_tensorflow
    from kaggle_digits.strategy import Device, mirror

    tf = import_tensorflow()
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    return Device("cpu", mirror([f"CPU:{i}" for i in range(count)]), count, "float32", "virtual devices")


def train_elsewhere(recipe: str, steps: int, place: str) -> dict[str, Any]:
    """Train in processes of their own, and return what the first says."""
    _, devices, processes = PLACES[place]
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    environment.pop("KERAS_BACKEND", None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, __file__, "--recipe", recipe, "--steps", str(steps), "--here", place]
    started = [
        subprocess.Popen(
            [*command, *([address, str(processes), str(number)] if processes > 1 else [])],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(processes)
    ]
    answers = [process.communicate()[0] for process in started]
    assert not any(process.returncode for process in started), place
    results = [json.loads(answer.splitlines()[-1]) for answer in answers]
    assert all(result["losses"] == results[0]["losses"] for result in results), "the processes disagree"
    return results[0]


def compare_places(recipe: str, steps: int, places: list[str]) -> bool:
    """Print a row for each place, and return whether all agree with the first."""
    print(f"{recipe}, {steps} steps\n{'':26}{'replicas':>9}{'off by':>10}{'rows':>6}{'seconds':>9}")
    expected: np.ndarray | None = None
    good = True
    for place in places:
        result = train_elsewhere(recipe, steps, place)
        losses = np.array(result["losses"])[9::10]
        expected = losses if expected is None else expected
        off = float(np.max(np.abs(losses - expected) / expected))
        several = PLACES[place][2] > 1
        good = good and off <= 0.01 and (several or result["predicted"] == [PREDICTED, 10])
        rows = "" if several else str(result["predicted"][0])
        print(f"{place:26}{result['replicas']:>9}{off:>10.4%}{rows:>6}{result['seconds']:>9.1f}", flush=True)
    return good


def measure_overhead(pairs: int = 7) -> None:
    """Print how much longer an epoch takes under a strategy of one device."""
    from kaggle_digits.backend import import_tensorflow
    from kaggle_digits.data import find_source, load_train, one_hot
    from kaggle_digits.models import build_model, compile_model
    from kaggle_digits.predict import to_images
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
    for pair in range(-1, pairs):  # the first compiles
        order = (0, 1) if pair % 2 else (1, 0)
        taken = {number: epoch(number) for number in order}
        if pair >= 0:
            ratios.append(taken[1] / taken[0])
            print(f"without {taken[0]:.2f} s, under a strategy {taken[1]:.2f} s", flush=True)
    print(f"median ratio of {pairs} pairs: {statistics.median(ratios):.3f}")


def main() -> int:
    """Compare, or measure the overhead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="cnn-32-64")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--places", nargs="+", default=list(PLACES), metavar="PLACE")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(train_here(options.recipe, options.steps, options.here[0], options.here[1:])))
        return 0
    if options.overhead:
        measure_overhead()
        return 0
    return 0 if compare_places(options.recipe, options.steps, options.places) else 1


if __name__ == "__main__":
    raise SystemExit(main())
