"""Describe the devices of this machine, and check that they compute the same as the CPU.

The check trains the same network from the same weights on the same rows on every device. Each device gets a process of
its own, ``python -m kaggle_digits.analysis.self_test BACKEND DEVICE``, because a process can have only one backend.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_digits.data import SAMPLE, find_source, load_train
from kaggle_digits.devices import BACKENDS, choose_backend, collect_little, import_backend, is_installed, version_of
from kaggle_digits.errors import DeviceError
from kaggle_digits.learners import Training, learner_of
from kaggle_digits.recipe import Network
from kaggle_digits.recipes import find_recipe
from kaggle_digits.strategy import Device, resolve_device
from kaggle_digits.submission import predict_digits

KINDS = ("tpu", "gpu", "cpu")
RECIPE, STEPS, PREDICTED, TOLERANCE = "cnn-16-32", 50, 1_100, 0.01
"""Recipe, number of steps and of predicted rows, and the allowed relative difference of a loss."""


def describe_devices(requested: str = "auto", backend: str | None = None) -> str:
    """Describe for people which device would be used, and why the others would not.

    Args:
        requested: "auto", "tpu", "gpu" or "cpu".
        backend: "tensorflow" or "jax"; None for ``devices.choose_backend`` to choose.

    Returns:
        lines of text.

    Raises:
        DeviceError: the requested device or backend is not there.
    """
    name, why = choose_backend(backend)
    # Recipes may ask for this precision, and the description says whether they get it.
    device = resolve_device(requested, precision="mixed_bfloat16", backend=backend)
    version = f"{name} {import_backend(name).__version__}, Keras {version_of('keras')}"
    lines = {
        "backend": version + (f" ({why})" if why else ""),
        "device": device.kind + (f", {device.replicas} replicas" if device.replicas > 1 else ""),
        "because": device.reason,
        "precision": f"{device.precision}, for recipes that allow it" if "16" in device.precision else "float32",
        "not used": "",
    }
    lines |= {f"  {kind}": _why_not(kind, device, requested, name) for kind in KINDS if kind != device.kind}
    for other in BACKENDS:
        if other != name:
            is_there = is_installed(other)
            lines[f"  {other}"] = (
                f"installed; --backend {other} selects it" if is_there else f"not installed: pip install {other}"
            )
    return "\n".join(f"{head:14}{text}".rstrip() for head, text in lines.items())


def _why_not(kind: str, used: Device, requested: str, backend: str) -> str:
    if requested != "auto":
        return f"not looked for: --device {requested} was asked for"
    if KINDS.index(kind) > KINDS.index(used.kind):
        return f"the {used.kind} is faster; --device {kind} selects it"
    try:
        resolve_device(kind, backend=backend)
    except DeviceError as error:
        return str(error).removeprefix(f"--device {kind}: ").partition(" Expected ")[0].rstrip(".")
    return f"available; --device {kind} selects it"


def self_test(requested: str = "auto", backend: str | None = None) -> tuple[str, bool]:
    """Train 50 steps on every device that is found, and compare the losses with those of the CPU.

    Args:
        requested: "auto" for every kind of device, or one kind to compare with the CPU.
        backend: the only backend to test; None for all that are installed.

    Returns:
        a table for people, and whether every device that was found passed. A requested device must be among them.
    """
    backends = [backend] if backend else [name for name in BACKENDS if is_installed(name)]
    kinds = [kind for kind in reversed(KINDS) if requested in ("auto", kind) or kind == "cpu"]
    reference: list[float] = []
    passed, kinds_found = True, set()
    rows = [("BACKEND", "DEVICE", "REPLICAS", "SECONDS", "LOSS OFF BY", "VERDICT")]
    for name, kind in itertools.product(backends, kinds):
        answer = _in_process(name, kind)
        if "error" in answer:
            is_missing = answer["missing"] and kind != "cpu"
            passed = passed and is_missing
            rows.append((name, kind, "", "", "", "none" if is_missing else f"failed: {answer['error']}"))
            continue
        kinds_found.add(kind)
        verdict, losses = "passed", np.array(answer["losses"])
        if not reference:
            verdict, reference = "the reference", answer["losses"]
        off = float("inf")
        if len(losses) == len(reference):
            off = float(np.max((np.abs(losses - reference) / reference)[9::10]))  # of every tenth step
        if not off <= TOLERANCE or len(answer["digits"]) != PREDICTED:  # it may be NaN
            verdict, passed = "FAILED", False
        rows.append((name, kind, str(answer["replicas"]), f"{answer['seconds']:.1f}", f"{off:.3%}", verdict))
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    lines = ["".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"\n{RECIPE} in float32, {STEPS} steps from the same weights; a loss may be off by {TOLERANCE:.0%}.")
    # A requested device must be available to at least one backend.
    return "\n".join(lines), passed and (requested == "auto" or requested in kinds_found)


def _in_process(backend: str, kind: str, *, timeout: float = 600) -> dict[str, Any]:
    """Test a device in a process of its own, and return the JSON that the process prints."""
    command = [sys.executable, "-m", "kaggle_digits.analysis.self_test", backend, kind]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:  # for example because another process holds the TPU
        return {"error": f"no answer in {timeout} s", "missing": False}
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return {"error": f"exit code {done.returncode}, {last}", "missing": False}


def write_start(recipe: Network, folder: Path) -> None:
    """Write a checkpoint to start from, with weights that are the same on every backend and device.

    Args:
        recipe: the network to train.
        folder: the run folder, which is made if needed.
    """
    from kaggle_digits.learners.resume import write_checkpoint
    from kaggle_digits.models import build_model, compile_model

    model = build_model(recipe)
    compile_model(model, recipe, steps=1)
    rng = np.random.default_rng(0)
    # Keras' default weights (Glorot and Bengio 2010), but drawn by one generator for all backends.
    for weight in model.trainable_variables:
        if len(weight.shape) > 1:
            fans = np.prod(weight.shape[:-2]) * (weight.shape[-2] + weight.shape[-1])
            limit = np.sqrt(6 / fans)
            weight.assign(rng.uniform(-limit, limit, weight.shape).astype(np.float32))
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder, model, [])


def _test_device(backend: str, kind: str) -> dict[str, Any]:
    device = resolve_device(kind, backend=backend)

    # Ask for full float32: by default, GPUs and TPUs round the numbers that they multiply.
    if backend == "jax":
        import_backend("jax").config.update("jax_default_matmul_precision", "float32")
    else:
        import_backend("tensorflow").config.experimental.enable_tensor_float_32_execution(False)
    from kaggle_digits.analysis.trace import Tracer  # with the backend that was chosen above

    (recipe,) = find_recipe(RECIPE, epochs=1).networks
    rows = load_train(find_source(SAMPLE))
    rows = rows.take(np.resize(np.arange(len(rows)), STEPS * recipe.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_start(recipe, Path(folder))
        training = Training(recipe=recipe, rows=rows, folder=Path(folder), seed=0, device=device, callbacks=[Tracer()])
        fitted = learner_of(recipe).fit(training)
        seconds = time.perf_counter() - started
    digits = predict_digits([fitted.predictor.probabilities(rows.pixels[:PREDICTED])]).tolist()
    return {"replicas": device.replicas, "seconds": seconds, "losses": fitted.epochs[0]["losses"], "digits": digits}


if __name__ == "__main__":
    collect_little()
    try:
        result = _test_device(*sys.argv[1:3])
    except DeviceError as error:
        result = {"error": str(error), "missing": True}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", "missing": False}
    print(json.dumps(result))
