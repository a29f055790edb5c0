"""Choose where to train: a TPU, one or several GPUs, or the CPU, and say why.

TensorFlow is imported inside the functions, once and quietly: call ``import_tensorflow`` before anything imports
Keras, and no banner reaches the user's terminal.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kaggle_digits.config import Classical, DeviceError, Network, Recipe

log = logging.getLogger(__name__)

DEVICES = ("auto", "tpu", "gpu", "cpu")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Device:
    """Where to run, and why there.

    Args:
        kind: "tpu", "gpu" or "cpu".
        strategy: a ``tf.distribute`` strategy, or None for Keras' own single device.
        replicas: copies of the model that share a batch.
        precision: the Keras dtype policy to train with.
        reason: one line for people.
    """

    kind: str
    strategy: Any
    replicas: int
    precision: str
    reason: str

    def __str__(self) -> str:
        replicas = f", {self.replicas} replicas" if self.replicas > 1 else ""
        return f"{self.kind}{replicas}, {self.precision} ({self.reason})"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Enter the strategy: models must be built and loaded inside."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()


def device_of(recipe: Recipe, requested: str = "auto") -> Device:
    """Find where to run a recipe: a network as ``resolve_device`` says, a classical method on the CPU.

    Raises:
        DeviceError: the requested device is not there, or not for this recipe.
    """
    if isinstance(recipe, Classical):
        if requested not in ("auto", "cpu"):
            raise DeviceError(
                f"--device {requested}: {recipe.name} is a method of scikit-learn. Expected auto or cpu. Leave "
                "--device out."
            )
        device = Device("cpu", None, 1, "float32", "scikit-learn")
        log.info("Device: %s", device)
        return device
    assert isinstance(recipe, Network)
    return resolve_device(requested, precision=recipe.precision)


def resolve_device(requested: str = "auto", *, precision: str = "float32") -> Device:
    """Find the best device there is, or the one asked for.

    A TPU is tried only when the environment shows a sign of one or when it was asked for, since trying costs
    seconds.

    Args:
        requested: "auto", "tpu", "gpu" or "cpu". "auto" falls back from TPU to GPU to CPU.
        precision: what the recipe wants. "mixed_bfloat16" is granted where the hardware computes it natively,
            else float32 is used.

    Raises:
        DeviceError: the requested device is not there.
    """
    if requested not in DEVICES:
        raise DeviceError(
            f"--device {requested}: no such device. Expected one of {', '.join(DEVICES)}. Correct the name."
        )
    tf = import_tensorflow()
    notes = []
    sign = next((name for name in ("ISTPUVM", "TPU_NAME") if os.environ.get(name)), None)
    if requested == "tpu" or (requested == "auto" and sign):
        with _stderr_held_back():
            strategy = _start_tpu(tf)
        if not isinstance(strategy, Exception):
            return _device("tpu", strategy, precision, native=True, notes=["a TPU was found"])
        if requested == "tpu":
            reason = str(strategy).partition("\n")[0].partition(". ")[0]
            raise DeviceError(
                f"--device tpu: TensorFlow {tf.__version__} finds no TPU here ({type(strategy).__name__}: {reason}). "
                "Expected a TPU and a TensorFlow built for it; Kaggle's TPU image has none today. Use --device auto, "
                "or a GPU."
            ) from strategy
        notes.append(f"{sign} is set, but TensorFlow {tf.__version__} finds no TPU ({type(strategy).__name__})")
    # Where CUDA finds no driver it says so on stderr: news only to who asked for a GPU.
    with contextlib.nullcontext() if requested == "gpu" else _stderr_held_back():
        gpus = tf.config.list_physical_devices("GPU")
    if requested == "gpu" and not gpus:
        raise DeviceError(
            f"--device gpu: TensorFlow {tf.__version__} finds no GPU. Expected one with its driver and CUDA libraries. "
            "Check `nvidia-smi`, install tensorflow[and-cuda], or use --device cpu."
        )
    if gpus and requested != "cpu":
        notes.append(f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''} found")
        try:
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            notes.append("TensorFlow was in use before and keeps their whole memory")
        native = all(
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) >= (8, 0) for gpu in gpus
        )
        return _device("gpu", mirror([f"GPU:{i}" for i in range(len(gpus))]), precision, native=native, notes=notes)
    if requested == "cpu":
        notes.append("asked for")
    else:
        notes.append("no GPU visible to TensorFlow" if sign else "no sign of a TPU and no GPU visible to TensorFlow")
    # Beside a GPU, only a strategy keeps Keras on the CPU.
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0") if gpus else None
    return _device("cpu", strategy, precision, native=_cpu_has_bfloat16(), notes=notes)


def mirror(devices: list[str]) -> Any:
    """Return a strategy that splits every batch over the devices, or None for a single one.

    Args:
        devices: TensorFlow device names, such as "GPU:0".
    """
    return import_tensorflow().distribute.MirroredStrategy(devices) if len(devices) > 1 else None


def import_tensorflow() -> ModuleType:
    """Import TensorFlow and Keras without the banner that their C++ part writes to stderr.

    Returns:
        the module ``tensorflow``.

    Raises:
        DeviceError: Keras is set to another backend.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise DeviceError(
            f"KERAS_BACKEND={backend}: this version trains on the TensorFlow backend only. Unset KERAS_BACKEND, or "
            "set it to tensorflow."
        )
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with _stderr_held_back():
            importlib.import_module("tensorflow")
            importlib.import_module("keras")
    return sys.modules["tensorflow"]


def _start_tpu(tf: ModuleType) -> Any:
    """Return a TPUStrategy, or what TensorFlow raised instead."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME") or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    # Without a TPU, initialisation raises NotFoundError, which is an OpError and not a RuntimeError; and a TPU_NAME is
    # looked up on the network, where anything may be missing.
    except (ValueError, RuntimeError, OSError, ImportError, tf.errors.OpError) as error:
        return error


def _device(kind: str, strategy: Any, precision: str, *, native: bool, notes: list[str]) -> Device:
    if precision == "mixed_bfloat16" and not native:
        precision = "float32"
        notes = [*notes, "float32, since it does not compute bfloat16 natively"]
    replicas = strategy.num_replicas_in_sync if strategy else 1
    device = Device(kind, strategy, replicas, precision, "; ".join(notes))
    log.info("Device: %s", device)
    return device


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has bfloat16 instructions; without them TensorFlow emulates it, slowly."""
    try:
        flags = CPUINFO.read_text()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextlib.contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and let it through if the block fails."""
    sys.stderr.flush()
    keep = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(keep, held.read())
            raise
        finally:
            os.dup2(keep, 2)
            os.close(keep)
