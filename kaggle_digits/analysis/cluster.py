"""Train pieces on the workers of a Dask cluster, on this machine or elsewhere.

A worker gets the rows once. It sends the files of each finished run back, so no disk is shared. If a worker dies, Dask
trains its piece on another one. Each piece computes with one thread, so that the number of workers changes no figure.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kaggle_digits.analysis.engine import Engine, Piece
from kaggle_digits.data import TrainingRows
from kaggle_digits.digits import __version__
from kaggle_digits.errors import DeviceError, InputError, TrainingError
from kaggle_digits.files import atomic_path
from kaggle_digits.learners import Progress
from kaggle_digits.learners.resume import remove_checkpoints
from kaggle_digits.recipe import Recipe
from kaggle_digits.run import RUN_FILE, Run, read_run
from kaggle_digits.strategy import Device, device_of

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""A piece that has failed this many times is given up."""

ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
"""With 1 in these variables, TensorFlow, JAX, NumPy and scikit-learn compute with one thread. They read them once."""


@dataclass(frozen=True)
class Cluster(Engine):
    """Trains pieces on workers.

    Args:
        find_device: returns None.
        progress: receives every finished piece.
        client: the client of a Dask cluster.
        find_there: says where a worker trains a recipe. It is sent to the workers.
    """

    client: Any = None
    find_there: Callable[[Recipe], Device] = device_of

    @property
    def width(self) -> int:
        """How many pieces are trained at the same time."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def train(
        self, pieces: Sequence[Piece], rows: TrainingRows, held_out: TrainingRows | None = None, *, keep: bool = False
    ) -> Iterator[Run | Exception]:
        """Train pieces, see ``Engine.train``. A piece that is finished here is not sent."""
        assert not keep  # workers send files, and nothing that predicts
        from distributed import as_completed

        results: dict[int, Run | Exception] = {
            number: run for number, piece in enumerate(pieces) if (run := piece.finished(rows, held_out))
        }
        # Rows that are a result of a task are made again if the only worker that has them dies. Scattered ones are not.
        submit = functools.partial(self.client.submit, pure=False)
        there = submit(_pass_on, rows, held_out)
        network = next((piece.recipe for piece in pieces if piece.recipe.networks), None)
        futures = {
            submit(_train_piece, piece, there, network, self.find_there, __version__, retries=ATTEMPTS - 1): number
            for number, piece in enumerate(pieces)
            if number not in results
        }
        done = as_completed(list(futures))
        for number in range(len(pieces)):
            while number not in results:
                future = next(done)
                finished = futures.pop(future)
                results[finished] = _receive(pieces[finished], future)
                log.info("%s is done; %d to go", pieces[finished], len(futures))
                if self.progress:
                    self.progress.step(len(pieces) - len(futures), len(pieces))
            yield results.pop(number)


def _pass_on(*data: Any) -> Any:
    return data


def _version() -> str:
    return __version__


def _train_piece(
    piece: Piece, data: Any, network: Recipe | None, find_device: Callable[[Recipe], Device], version: str
) -> dict[str, bytes]:
    """Train a piece on a worker, and return the files of its run folder. Other pieces may be a network."""
    if version != __version__:
        raise DeviceError(_other_version(f"process {os.getpid()} on {platform.node()}", __version__, version))
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    if network:
        find_device(network)  # before scikit-learn imports pandas, see ``devices.import_backend``
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        context = replace(piece.context, device=find_device(piece.recipe))
        replace(piece, folder=run, context=context).train(*data)
        return {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}


def _receive(piece: Piece, future: Any) -> Run | Exception:
    """Write the files of a finished piece, or return the reason why it failed.

    Raises:
        DeviceError, OSError: the other pieces would fail as well.
    """
    try:
        files: dict[str, bytes] = future.result()
    except (DeviceError, OSError):
        raise
    except Exception as error:  # whatever a piece raises; also that its workers died
        why = "the worker that trained it died each time" if type(error).__name__ == "KilledWorker" else str(error)
        return TrainingError(f"{piece}: failed {ATTEMPTS} times: {why or type(error).__name__}")
    finally:
        future.release()
    # run.json comes last, and declares the run finished.
    for name in sorted(files, key=lambda name: (Path(name).name == RUN_FILE, -len(Path(name).parts))):
        with atomic_path(piece.folder / name) as path:
            path.write_bytes(files[name])
    remove_checkpoints(piece.folder)
    return read_run(piece.folder)


@contextmanager
def open_engine(
    find_device: Callable[[Recipe], Device] = device_of,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Iterator[Engine]:
    """Start workers on this machine, or connect to a Dask cluster, and yield an engine.

    Args:
        find_device, progress: see ``Engine``.
        workers: how many processes to start; None trains in this process.
        scheduler: the address of a scheduler, such as tcp://HOST:8786.

    Raises:
        InputError: Dask is not installed, the scheduler does not answer, or its workers cannot be used.
    """
    if not workers and not scheduler:
        yield Engine(find_device, progress)
        return
    if workers and scheduler:
        raise InputError(
            "--workers starts workers here, and --scheduler uses those of a cluster. Leave one of them out."
        )
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(
            "distributed is not installed, and --workers and --scheduler need it. Install the extra cluster, or what "
            "it consists of: pip install distributed"
        ) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a worker that dies is replaced, and nothing is lost
    with ExitStack() as stack:
        settings = {"admin.large-graph-warning-threshold": "1GB", "worker.profile.enabled": False}
        stack.enter_context(dask.config.set({f"distributed.{name}": value for name, value in settings.items()}))
        if scheduler:
            client = stack.enter_context(_connect(scheduler))
        else:
            options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **options)
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        yield Cluster(lambda _: None, progress, client, find_there=find_device)


def _connect(scheduler: str) -> Any:
    """Connect to a scheduler, and check its workers."""
    from distributed import Client

    def refused(fault: str) -> InputError:
        return InputError(f"--scheduler {scheduler}: {fault}")

    with ExitStack() as stack:
        try:
            client = stack.enter_context(Client(scheduler, timeout=10))
        except (OSError, ValueError) as error:
            raise refused(
                f"does not answer ({type(error).__name__}). Expected the address of a Dask scheduler, such as "
                "tcp://HOST:8786. Start one with `dask scheduler`, and workers with `dask worker`."
            ) from error
        try:
            client.wait_for_workers(1, timeout=10)
        except TimeoutError as error:
            raise refused(
                "has no workers. Expected at least one within 10 seconds. Start some: dask worker "
                f"{scheduler} --nworkers auto --nthreads 1"
            ) from error
        versions = client.run(_version, on_error="return")
        for worker, state in client.scheduler_info(n_workers=-1)["workers"].items():
            if versions.get(worker) != __version__:
                raise refused(_other_version(worker, versions.get(worker), __version__))
            if state["nthreads"] != 1:
                raise refused(
                    f"the worker {worker} has {state['nthreads']} threads. Expected 1, because a training takes a "
                    "whole process. Start it with --nthreads 1, and as many as there are cores with --nworkers."
                )
        stack.pop_all()
    return client


def _other_version(worker: str, found: object, expected: str) -> str:
    has = f"has kaggle_digits {found}" if isinstance(found, str) else f"has another kaggle_digits, or none ({found!r})"
    return f"the worker {worker} {has}. Expected {expected}, as here. Install that version there."
