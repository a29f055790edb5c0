"""Start the TPU or the GPUs of a machine with TensorFlow."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from kaggle_digits.devices import import_tensorflow, is_installed, stderr_held_back
from kaggle_digits.errors import DeviceError


def find_tpu(*, must: bool, notes: list[str], sign: str | None) -> Any:
    """Return a TPUStrategy, or None if there is no TPU.

    Args:
        must: whether a TPU was asked for.
        notes: gets the reason why there is none.
        sign: the environment variable that shows that there should be one.

    Raises:
        DeviceError: a TPU was asked for, and there is none.
    """
    tf = import_tensorflow()
    with stderr_held_back():
        strategy = _start_tpu(tf)
    if not isinstance(strategy, Exception):
        return strategy
    if must:
        reason = str(strategy).partition("\n")[0].partition(". ")[0]
        jax = "; JAX is installed and may find it: --backend jax" if is_installed("jax") else ""
        raise DeviceError(
            f"--device tpu: TensorFlow {tf.__version__} finds no TPU here ({type(strategy).__name__}: {reason}). "
            f"Expected a TPU and a TensorFlow built for it, which Kaggle's TPU image lacks today{jax}. Use "
            "--device auto, or a GPU."
        ) from strategy
    notes.append(f"{sign} is set, but TensorFlow {tf.__version__} finds no TPU ({type(strategy).__name__})")
    return None


def _start_tpu(tf: ModuleType) -> Any:
    """Return a TPUStrategy, or the exception that TensorFlow raised.

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


def use_gpus(gpus: list[Any], notes: list[str]) -> tuple[Any, bool]:
    """Take the GPUs of this machine.

    It has not been tested on a GPU yet. To test it, run:
    ``kaggle-digits devices --self-test --device gpu --backend tensorflow``

    Args:
        gpus: the GPUs that TensorFlow found.
        notes: gets the reasons for the choice.

    Returns:
        a strategy for several GPUs, None for one, and whether all compute bfloat16 natively.
    """
    tf = import_tensorflow()
    notes.append(f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''} found")
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        notes.append("TensorFlow was in use before and keeps their whole memory")
    native = all(
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) >= (8, 0) for gpu in gpus
    )
    return mirror([f"GPU:{number}" for number in range(len(gpus))]), native


def mirror(devices: list[str]) -> Any:
    """Return a strategy that splits every batch over the devices, or None for a single one.

    Args:
        devices: TensorFlow device names, such as "GPU:0".
    """
    return import_tensorflow().distribute.MirroredStrategy(devices) if len(devices) > 1 else None
