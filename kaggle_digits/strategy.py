"""Choose where to train and say why: on a TPU, on one or several GPUs, or on the CPU.

TensorFlow and JAX are imported inside the functions, once and quietly. If a device is asked for before anything imports
Keras, no banner reaches the user's terminal.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from kaggle_digits.backend import (
    ASKED_FOR,
    choose_backend,
    import_backend,
    import_tensorflow,
    is_installed,
    stderr_held_back,
    tpu_sign,
)
from kaggle_digits.errors import DeviceError
from kaggle_digits.recipe import Recipe

DEVICES = ("auto", "tpu", "gpu", "cpu")
CPUINFO = Path("/proc/cpuinfo")
TPU_STEPS_PER_EXECUTION = 32
"""TensorFlow takes this many steps on a TPU before it returns to the host."""


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
        """What decides on the last digits of a result."""
        return self.kind, self.replicas, self.precision, self.backend

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
    if recipe.precision is None:
        unfit = (
            f"--device {requested}" if requested not in ("auto", "cpu") else f"--backend {backend}" if backend else ""
        )
        if unfit:
            raise DeviceError(
                f"{unfit}: {recipe.name} is a classical method, which runs on this machine's CPU. Expected a "
                f"network. Leave {unfit.split()[0]} out."
            )
        return Device("cpu", None, 1, "float32", "a classical method", "scikit-learn")
    return resolve_device(requested, precision=recipe.precision, backend=backend)


def device_of_any(recipe: Recipe, requested: str = "auto", backend: str | None = None) -> Device:
    """Find the device for one of several recipes. What is requested is meant for the networks among them."""
    return device_of(recipe, requested, backend=backend) if recipe.networks else device_of(recipe)


def resolve_device(requested: str = "auto", *, precision: str = "float32", backend: str | None = None) -> Device:
    """Find the best device there is, or the requested one.

    With TensorFlow, a TPU is tried only if the environment shows a sign of one or if it was requested, because trying
    takes seconds.

    Args:
        requested: "auto", "tpu", "gpu" or "cpu". "auto" falls back from TPU to GPU to CPU.
        precision: the Keras dtype policy that the recipe asks for. "mixed_bfloat16" is granted if the hardware
            computes it natively; if not, float32 is used.
        backend: see ``backend.choose_backend``.

    Raises:
        DeviceError: the requested device is not there, or the backend cannot be used.
    """
    if requested not in DEVICES:
        raise DeviceError(
            f"--device {requested}: no such device. Expected one of {', '.join(DEVICES)}. Correct the name."
        )
    name, why = choose_backend(backend)
    if name == "jax":
        return _resolve_jax(requested, precision, [f"JAX: {why}"] if why != ASKED_FOR else [])
    return _resolve_tensorflow(requested, precision, [f"TensorFlow: {why}"] if why and why != ASKED_FOR else [])


def _resolve_jax(requested: str, precision: str, notes: list[str]) -> Device:
    jax = import_backend("jax")
    import keras

    if requested == "cpu":  # without this, JAX also takes hold of GPUs
        jax.config.update("jax_platforms", "cpu")
    # A plugin that finds no driver says so on stderr. That matters only to a user who asked for the device.
    with contextlib.nullcontext() if requested in ("tpu", "gpu") else stderr_held_back():
        try:
            found = jax.devices() if requested == "auto" else jax.devices(requested)
        except RuntimeError as error:
            raise DeviceError(
                f"--device {requested}: JAX {jax.__version__} finds no "
                f"{'device' if requested == 'auto' else requested.upper()} "
                f"({str(error).splitlines()[0].partition('. ')[0]}). Expected one, and a JAX that supports it. "
                "Run pip install jax[tpu] or jax[cuda12], or use --device cpu."
            ) from error
    # Keras imports TensorFlow to set its seed as well. Import it here, quietly, and only once JAX holds its devices:
    # TensorFlow might take them.
    if is_installed("tensorflow"):
        with stderr_held_back():
            importlib.import_module("tensorflow")
    kind = found[0].platform
    if kind == "cpu":
        notes.append(ASKED_FOR if requested == "cpu" else "no TPU or GPU visible to it")
        native = False  # XLA's CPU code converts every bfloat16 to float32 and back
    else:  # tested on one GPU only; to test several, or a TPU: kaggle-digits devices --self-test --backend jax
        notes.append(f"{len(found)} {kind.upper()}{'s' if len(found) > 1 else ''} found")
        native = kind == "tpu" or all(_at_least_ampere(device) for device in found)
    strategy = None
    if len(found) > 1:
        names = [f"{device.platform}:{device.id}" for device in found]
        strategy = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    return _device(Device(kind, strategy, len(found), precision, "", "jax"), native=native, notes=notes)


def _at_least_ampere(device: Any) -> bool:
    """Whether a GPU that JAX found is one of NVIDIA's with bfloat16. Other GPUs give their capability in words."""
    try:
        return float(device.compute_capability) >= 8
    except (AttributeError, ValueError):
        return False


def _resolve_tensorflow(requested: str, precision: str, notes: list[str]) -> Device:
    tf = import_tensorflow()
    sign = tpu_sign()
    if requested == "tpu" or (requested == "auto" and sign):
        with stderr_held_back():
            strategy = _start_tpu(tf)
        if not isinstance(strategy, Exception):
            return _tensorflow_device("tpu", strategy, precision, native=True, notes=[*notes, "a TPU was found"])
        if requested == "tpu":
            reason = str(strategy).partition("\n")[0].partition(". ")[0]
            jax = "; JAX is installed and may find it: --backend jax" if is_installed("jax") else ""
            raise DeviceError(
                f"--device tpu: TensorFlow {tf.__version__} finds no TPU here ({type(strategy).__name__}: {reason}). "
                f"Expected a TPU and a TensorFlow built for it, which Kaggle's TPU image lacks today{jax}. Use "
                "--device auto, or a GPU."
            ) from strategy
        notes.append(f"{sign} is set, but TensorFlow {tf.__version__} finds no TPU ({type(strategy).__name__})")
    # If CUDA finds no driver, it says so on stderr. That matters only to a user who asked for a GPU.
    with contextlib.nullcontext() if requested == "gpu" else stderr_held_back():
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
        # Not tested on a GPU yet. To test it, run: kaggle-digits devices --self-test --device gpu --backend tensorflow
        return _tensorflow_device(
            "gpu", mirror([f"GPU:{i}" for i in range(len(gpus))]), precision, native=native, notes=notes
        )
    if requested == "cpu":
        notes.append(ASKED_FOR)
    else:
        notes.append("no GPU visible to TensorFlow" if sign else "no TPU and no GPU found")
    # If there is a GPU, only a strategy keeps Keras on the CPU.
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0") if gpus else None
    return _tensorflow_device("cpu", strategy, precision, native=_cpu_has_bfloat16(), notes=notes)


def mirror(devices: list[str]) -> Any:
    """Return a strategy that splits every batch over the devices, or None for a single one.

    Args:
        devices: TensorFlow device names, such as "GPU:0".
    """
    return import_tensorflow().distribute.MirroredStrategy(devices) if len(devices) > 1 else None


def _start_tpu(tf: ModuleType) -> Any:
    """Return a TPUStrategy, or what TensorFlow raised instead.

    This follows TensorFlow's documentation and has only been run without a TPU. To test it on one, run
    ``kaggle-digits devices --self-test --device tpu --backend tensorflow``.
    """
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME") or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    # Without a TPU, initialisation raises NotFoundError, which is an OpError and not a RuntimeError. A TPU_NAME is
    # looked up on the network, which may fail in many ways.
    except (ValueError, RuntimeError, OSError, ImportError, tf.errors.OpError) as error:
        return error


def _tensorflow_device(kind: str, strategy: Any, precision: str, *, native: bool, notes: list[str]) -> Device:
    replicas = strategy.num_replicas_in_sync if strategy else 1
    return _device(Device(kind, strategy, replicas, precision, ""), native=native, notes=notes)


def _device(device: Device, *, native: bool, notes: list[str]) -> Device:
    """Return the device with a precision that it computes natively, and with the notes as its reason."""
    precision = device.precision
    if precision == "mixed_bfloat16" and not native:
        precision = "float32"
        notes = [*notes, "float32, since it does not compute bfloat16 natively"]
    return replace(device, precision=precision, reason="; ".join(dict.fromkeys(notes)))


def _cpu_has_bfloat16() -> bool:
    """Whether TensorFlow can use bfloat16 instructions of the CPU. Without them it emulates bfloat16, slowly.

    If ONEDNN_MAX_CPU_ISA names older instructions, oneDNN uses only these, and may refuse bfloat16.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    if not any(word in limit for word in ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10")):
        return False
    try:
        flags = CPUINFO.read_text()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
