"""Choose where to train and say why: on a TPU, on one or several GPUs, or on the CPU.

TensorFlow and JAX are imported inside the functions, once and quietly. If a device is asked for before anything imports
Keras, no banner reaches the user's terminal.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kaggle_digits.devices import (
    ASKED_FOR,
    choose_backend,
    import_backend,
    import_tensorflow,
    stderr_held_back,
    tpu_sign,
)
from kaggle_digits.errors import DeviceError
from kaggle_digits.recipe import Recipe

DEVICES = ("auto", "tpu", "gpu", "cpu")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Device:
    """Where to run, and why there.

    Args:
        kind: "tpu", "gpu" or "cpu".
        strategy: a ``tf.distribute`` strategy, a ``keras.distribution`` (JAX), or None for Keras' own single device.
        replicas: copies of the model that share a batch.
        precision: the Keras dtype policy to train with.
        reason: why this device was chosen, as one line for people.
        backend: "tensorflow" or "jax"; "scikit-learn" for classical methods.
    """

    kind: str
    strategy: Any
    replicas: int
    precision: str
    reason: str
    backend: str = "tensorflow"

    def __str__(self) -> str:
        backend = f"{self.backend} on " if self.backend == "jax" else ""
        replicas = f", {self.replicas} replicas" if self.replicas > 1 else ""
        return f"{backend}{self.kind}{replicas}, {self.precision} ({self.reason})"

    @property
    def place(self) -> tuple[str, int, str, str]:
        """Everything that affects the last digits of a result."""
        return self.kind, self.replicas, self.precision, self.backend

    @property
    def is_tensorflow_tpu(self) -> bool:
        """Whether TensorFlow trains on a TPU."""
        return self.kind == "tpu" and self.backend == "tensorflow"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the strategy's context. Models must be built, trained and used inside it."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """The exceptions that the backend raises when a device fails."""
        if self.backend == "jax":
            return (import_backend("jax").errors.JaxRuntimeError,)
        return (import_tensorflow().errors.OpError,)


def device_of(recipe: Recipe, requested: str = "auto", *, backend: str | None = None) -> Device:
    """Find the device for a recipe: ``resolve_device`` chooses it for a network, and classical methods run on the CPU.

    Raises:
        DeviceError: the requested device or backend is not there, or this recipe cannot use it.
    """
    if recipe.precision is not None:
        return resolve_device(requested, precision=recipe.precision, backend=backend)
    unfit = f"--device {requested}" if requested not in ("auto", "cpu") else f"--backend {backend}" if backend else ""
    if unfit:
        raise DeviceError(
            f"{unfit}: {recipe.name} is a classical method, which runs on this machine's CPU. Expected a network. "
            f"Leave {unfit.split()[0]} out."
        )
    return Device("cpu", None, 1, "float32", "a classical method", "scikit-learn")


def device_of_any(recipe: Recipe, requested: str = "auto", backend: str | None = None) -> Device:
    """Find the device for one of several recipes. The request applies only to networks."""
    return device_of(recipe, requested, backend=backend) if recipe.networks else device_of(recipe)


def resolve_device(requested: str = "auto", *, precision: str = "float32", backend: str | None = None) -> Device:
    """Find the best available device, or the requested one.

    With TensorFlow, a TPU is tried only if the environment shows a sign of one or if it was requested, because trying
    takes seconds.

    Args:
        requested: "auto", "tpu", "gpu" or "cpu". "auto" falls back from TPU to GPU to CPU.
        precision: the Keras dtype policy that the recipe asks for. "mixed_bfloat16" is granted if the hardware
            computes it natively; if not, float32 is used.
        backend: see ``devices.choose_backend``.

    Raises:
        DeviceError: the requested device is not there, or the backend cannot be used.
    """
    if requested not in DEVICES:
        raise DeviceError(
            f"--device {requested}: no such device. Expected one of {', '.join(DEVICES)}. Correct the name."
        )
    name, why = choose_backend(backend)
    names = {"tensorflow": "TensorFlow", "jax": "JAX"}
    notes = [f"{names[name]}: {why}"] if why and why != ASKED_FOR else []
    if name == "jax":
        kind, strategy, replicas, native = import_module("kaggle_digits.devices.jax").find_devices(requested, notes)
    else:
        kind, strategy, native = _find_tensorflow_device(requested, notes)
        replicas = strategy.num_replicas_in_sync if strategy else 1
    if precision == "mixed_bfloat16" and not native:
        precision = "float32"
        notes.append("float32, since it does not compute bfloat16 natively")
    return Device(kind, strategy, replicas, precision, "; ".join(dict.fromkeys(notes)), name)


def _find_tensorflow_device(requested: str, notes: list[str]) -> tuple[str, Any, bool]:
    """Return the kind of device, its strategy, and whether it computes bfloat16 natively."""
    tf = import_tensorflow()
    sign = tpu_sign()
    if requested == "tpu" or (requested == "auto" and sign):
        accelerators = import_module("kaggle_digits.devices.accelerators")
        if tpu := accelerators.find_tpu(must=requested == "tpu", notes=notes, sign=sign):
            notes.append("a TPU was found")
            return "tpu", tpu, True
    # If CUDA finds no driver, it says so on stderr. That matters only to a user who asked for a GPU.
    with contextlib.nullcontext() if requested == "gpu" else stderr_held_back():
        gpus = tf.config.list_physical_devices("GPU")
    if requested == "gpu" and not gpus:
        raise DeviceError(
            f"--device gpu: TensorFlow {tf.__version__} finds no GPU. Expected one with its driver and CUDA libraries. "
            "Check `nvidia-smi`, install tensorflow[and-cuda], or use --device cpu."
        )
    if gpus and requested != "cpu":
        return "gpu", *import_module("kaggle_digits.devices.accelerators").use_gpus(gpus, notes)
    if requested == "cpu":
        notes.append(ASKED_FOR)
    else:
        notes.append("no GPU visible to TensorFlow" if sign else "no TPU and no GPU found")
    # If there is a GPU, only a strategy keeps Keras on the CPU.
    return "cpu", tf.distribute.OneDeviceStrategy("/cpu:0") if gpus else None, _cpu_has_bfloat16()


def _cpu_has_bfloat16() -> bool:
    """Whether TensorFlow can use bfloat16 instructions of the CPU. Without them it emulates bfloat16, slowly.

    If ONEDNN_MAX_CPU_ISA names older instructions, oneDNN uses only these, and may refuse bfloat16.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    if not any(word in limit for word in ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10")):
        return False
    try:
        flags = CPUINFO.read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
