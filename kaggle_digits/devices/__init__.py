"""Choose Keras' backend, TensorFlow or JAX, and import it without the messages that it prints.

Keras fixes its backend when it is first imported, so the choice has to come before that.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

from kaggle_digits.errors import DeviceError

log = logging.getLogger(__name__)

BACKENDS = ("tensorflow", "jax")
ASKED_FOR = "asked for"


def choose_backend(requested: str | None = None) -> tuple[str, str]:
    """Return the backend to use, and why.

    A backend that the user names comes first. Without one, JAX is used if the machine has a TPU that JAX can use and
    this TensorFlow cannot, as on Kaggle today, or if TensorFlow is not installed. In all other cases it is TensorFlow.
    If Keras is imported already, its backend cannot change. This imports nothing.

    Args:
        requested: "tensorflow", "jax", or None.

    Returns:
        the name, and the reason in words for people. The reason is "" for the default.

    Raises:
        DeviceError: there is no such backend, it is not installed, or Keras already runs on another one.
    """
    set_by_user = os.environ.get("KERAS_BACKEND")
    sign = tpu_sign()
    running = sys.modules["keras"].backend.backend() if "keras" in sys.modules else None
    if requested:
        name, reason, source = requested, ASKED_FOR, f"--backend {requested}"
    elif set_by_user and not running:
        name, reason, source = set_by_user, "KERAS_BACKEND is set", f"KERAS_BACKEND={set_by_user}"
    elif running:
        name, reason, source = running, "" if running == BACKENDS[0] else "Keras runs on it already", "Keras"
    elif sign and not tensorflow_has_tpu() and jax_has_tpu():
        name, reason, source = "jax", f"{sign} is set, this TensorFlow has no TPU support, and JAX has", sign
    elif is_installed("jax") and not is_installed("tensorflow"):
        name, reason, source = "jax", "TensorFlow is not installed", "the default"
    else:
        name, reason, source = "tensorflow", "", "the default"
    if name not in BACKENDS:
        raise DeviceError(f"{source}: no such backend here. Expected one of {', '.join(BACKENDS)}. Correct the name.")
    if running and running != name:
        raise DeviceError(
            f"{source}: Keras runs on {running} in this process already. Expected a process that has not imported "
            "Keras yet. Start a new one."
        )
    if not is_installed(name):
        raise DeviceError(f"{source}: {name} is not installed. Install it: pip install {name}")
    return name, reason


def tpu_sign() -> str | None:
    """Return the name of the environment variable that shows that there is a TPU, or None.

    Machines with a TPU have one of these set: Kaggle's, Colab's, or one that points to a TPU elsewhere.
    """
    return next((name for name in ("ISTPUVM", "COLAB_TPU_1VM", "TPU_NAME") if os.environ.get(name)), None)


def tensorflow_has_tpu() -> bool:
    """Whether the installed TensorFlow is a build with TPU support."""
    return bool(version_of("tensorflow-tpu") or version_of("tf-nightly-tpu"))


def jax_has_tpu() -> bool:
    """Whether JAX is installed along with the library that it needs for a TPU."""
    return is_installed("jax") and (is_installed("libtpu") or bool(os.environ.get("TPU_LIBRARY_PATH")))


def is_installed(name: str) -> bool:
    """Whether a module can be imported, whatever the name of the distribution it came in."""
    return importlib.util.find_spec(name) is not None


def version_of(distribution: str) -> str | None:
    """Return the version of a distribution without importing it, or None if it is not installed."""
    from importlib import metadata  # slow to import

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def import_backend(name: str) -> ModuleType:
    """Import a backend, and Keras on it, without the banner that their C++ parts write to stderr.

    A process that needs both calls this before it imports pandas, which reads tables. On Macs with Apple silicon,
    TensorFlow 2.21 can hang in training if pandas or pyarrow was imported first (keras-team/keras#23083).

    Args:
        name: the backend, as ``choose_backend`` returns it.

    Returns:
        the module ``tensorflow`` or ``jax``.
    """
    os.environ["KERAS_BACKEND"] = name
    if name not in sys.modules or "keras" not in sys.modules:
        early = name == "tensorflow" and name not in sys.modules and {"pandas", "pyarrow"} & sys.modules.keys()
        if sys.platform == "darwin" and early:
            log.warning("%s was imported before TensorFlow, so training may hang. Find the device first.", *early)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        # By default TensorFlow uses oneDNN only with AVX-512. Without oneDNN, CPUs with AVX2 train up to twice as long.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        # TensorFlow and Keras import these if they are installed, which takes a third of their start-up time. They are
        # only needed for Keras' wrappers for scikit-learn, the conversion of JAX programs, and galleries of images.
        unused = ("sklearn", "jax", "matplotlib") if name == "tensorflow" else ()
        with stderr_held_back(), _left_out(*unused), _uncollected():
            importlib.import_module(name)
            importlib.import_module("keras")
    return sys.modules[name]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pause garbage collection during the import, because it would scan all modules again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def collect_little() -> None:
    """Collect garbage rarely in this process, and not at its end. Call it only in a process of the package's own.

    TensorFlow keeps 300,000 objects. Scanning them takes a second while a network is prepared, and another one at the
    end.
    """
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)


@contextlib.contextmanager
def _left_out(*names: str) -> Iterator[None]:
    """Make modules appear not to be installed, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def start_backend(requested: str | None = None) -> ModuleType:
    """Choose a backend and import it, see ``choose_backend`` and ``import_backend``."""
    return import_backend(choose_backend(requested)[0])


def import_tensorflow() -> ModuleType:
    """Import TensorFlow, and Keras on it, and return the module ``tensorflow``."""
    return import_backend("tensorflow")


def free_memory() -> None:
    """Free the memory of a finished training, and return it to the system.

    Python notices late that a network is no longer used, because its parts refer to each other, and glibc keeps freed
    memory for later. A comparison of ten recipes would grow by more than 100 MB.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems have no such function
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def stderr_held_back() -> Iterator[None]:
    """Hold back the output of the block to file descriptor 2, and print it only if the block fails."""
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
