"""Find the devices that JAX computes on."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from kaggle_digits.devices import ASKED_FOR, import_backend, is_installed, stderr_held_back
from kaggle_digits.errors import DeviceError


def find_devices(requested: str, notes: list[str]) -> tuple[str, Any, int, bool]:
    """Find the best devices that JAX sees, or the requested ones.

    Args:
        requested: "auto", "tpu", "gpu" or "cpu".
        notes: gets the reasons for the choice.

    Returns:
        the kind; a ``keras.distribution`` for several devices, or None; how many there are; and whether they compute
        bfloat16 natively.

    Raises:
        DeviceError: JAX sees no such device.
    """
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
    distribution = None
    if len(found) > 1:
        names = [f"{device.platform}:{device.id}" for device in found]
        distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    return kind, distribution, len(found), native


def _at_least_ampere(device: Any) -> bool:
    """Whether a GPU that JAX found is one of NVIDIA's with bfloat16. Other GPUs give their capability in words."""
    try:
        return float(device.compute_capability) >= 8
    except (AttributeError, ValueError):
        return False
