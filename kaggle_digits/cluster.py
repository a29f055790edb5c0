"""Train one model with several processes, on one machine or on many. JAX carries the numbers between them.

Every process runs the same command with its own number. Each works on its own rows of every batch. The first one keeps
the run folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kaggle_digits.backend import import_backend
from kaggle_digits.errors import DeviceError, InputError, TrainingError

PLATFORM = "auto"
"""As a coordinator, this word leaves address and numbers to the platform."""


@dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Args:
        coordinator: "host:port" of the first process, or "auto" if the platform (a TPU pod, SLURM, Open MPI) knows
            all three settings.
        processes: how many processes there are; None with "auto".
        process: the number of this process, counted from 0; None with "auto".
    """

    coordinator: str
    processes: int | None = None
    process: int | None = None


def find_cluster(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Cluster | None:
    """Return the processes to train with, or None if this process trains alone.

    Settings that are not given come from the environment.

    Args:
        coordinator: "host:port" or "auto"; None for ``$KDIGITS_COORDINATOR``.
        processes: how many processes there are; None for ``$KDIGITS_PROCESSES``.
        process: the number of this process, counted from 0; None for ``$KDIGITS_PROCESS``.

    Raises:
        InputError: the settings are incomplete, malformed, or do not fit together.
    """
    coordinator = coordinator or os.environ.get("KDIGITS_COORDINATOR") or None
    processes = _number("KDIGITS_PROCESSES") if processes is None else processes
    process = _number("KDIGITS_PROCESS") if process is None else process
    if coordinator is None and processes is None and process is None:
        return None
    if coordinator == PLATFORM and processes is None and process is None:
        return Cluster(PLATFORM)
    if coordinator is None or processes is None or process is None:
        raise InputError(
            f"coordinator {coordinator}, processes {processes}, process {process}: incomplete. Expected the address of "
            "the first process, how many there are, and the number of this one. Give --coordinator, --processes and "
            "--process, or KDIGITS_COORDINATOR, KDIGITS_PROCESSES and KDIGITS_PROCESS; or --coordinator auto alone."
        )
    if not re.fullmatch(r".+:[0-9]+", coordinator):
        raise InputError(
            f"--coordinator {coordinator}: not an address. Expected host:port of the first process. Add a free port."
        )
    if not 0 <= process < processes:
        raise InputError(
            f"--process {process}: there is no such process. Expected 0 to {processes - 1}, since there are "
            f"{processes}. Number them from 0."
        )
    return Cluster(coordinator, processes, process)


def join(cluster: Cluster) -> tuple[int, int]:
    """Meet the other processes. This has to happen before anything is computed.

    Returns:
        how many processes there are, and the number of this one, counted from 0.

    Raises:
        DeviceError: the processes could not meet.
    """
    jax = import_backend("jax")
    import keras

    if jax.distributed.is_initialized():
        return jax.process_count(), jax.process_index()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    address = None if cluster.coordinator == PLATFORM else cluster.coordinator
    try:
        keras.utils.set_random_seed(0)  # without one, Keras takes time to agree on a seed with the other processes
        keras.distribution.initialize(address, cluster.processes, cluster.process)
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"--coordinator {cluster.coordinator}: the processes could not meet ({str(error).splitlines()[0]}). "
            "Expected all of them to start within five minutes, and an address that each can reach. Check address, "
            "port and numbers, and start all again."
        ) from error
    return jax.process_count(), jax.process_index()


def from_first(data: bytes) -> bytes:
    """Return the data of the first process. Every process must call this.

    Args:
        data: the data of this process, which is used only if it is the first.
    """
    import numpy as np
    from jax.experimental import multihost_utils

    length = int(multihost_utils.broadcast_one_to_all(np.array(len(data), np.int32)))
    contents = np.zeros(length, np.uint8)
    contents[: len(data)] = np.frombuffer(data, np.uint8)[:length]
    return np.asarray(multihost_utils.broadcast_one_to_all(contents), np.uint8).tobytes()


def in_own_process(work: Callable[[], int]) -> int:
    """Do the work of this process in a child process.

    If the first process is lost, JAX ends the others on the spot, without an exception. The parent stays alive to say
    what happened. The output of JAX's C++ part is kept from the terminal.

    Args:
        work: does the work and returns an exit code. Nothing heavy may be imported before the call.

    Returns:
        the exit code.

    Raises:
        TrainingError: JAX or a signal ended the child.
    """
    done, tell = os.pipe()
    with tempfile.TemporaryFile() as noise:
        child = os.fork()
        if not child:
            code = 1
            try:
                code = _work_apart(work, noise.fileno(), tell)
            finally:  # whatever happens, the child must not go on to run the parent's code
                os._exit(code)
        os.close(tell)
        with _uninterrupted():  # Ctrl-C also reaches the child, which says what is kept
            _, status = os.waitpid(child, 0)
        # The child's work is done, even if JAX ended the child while it waited for the other processes to leave.
        if os.read(done, 1):
            return 0
        noise.seek(0)
        last = (noise.read().decode(errors="replace").strip().splitlines() or [""])[-1]
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    if name == "SIGABRT":
        raise TrainingError(
            f"several processes: JAX ended this one, as it does when another is lost or cannot be reached ({last}). "
            "Expected all processes to stay. See what the others said, and start all again with --resume; whole epochs "
            "are kept."
        )
    raise TrainingError(
        f"several processes: this one was ended by {name} ({last}). Check the memory of the machine, and start all "
        "again with --resume; whole epochs are kept."
    )


def _work_apart(work: Callable[[], int], noise: int, tell: int) -> int:
    """Do the work in the child. Python's own output goes where it went before, that of C++ into a file.

    Args:
        work: returns an exit code.
        noise: descriptor of the file for the output of C++.
        tell: descriptor of the pipe that gets a byte when the work is done.
    """
    if sys.platform == "linux":  # if the parent is killed, the child must end as well
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(number), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
        for number, stream in ((1, sys.stdout), (2, sys.stderr))
    )
    for number in (1, 2):
        os.dup2(noise, number)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    code = work()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code == 0:
        os.write(tell, b"!")
        import_backend("jax").distributed.shutdown()  # waits for the others, which would never come after a failure
    return code


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{variable}={text}: not a number. Expected a whole number. Correct or unset it.")
    return int(text)
