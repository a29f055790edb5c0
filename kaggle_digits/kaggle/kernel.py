"""Run the notebook on Kaggle's machines: push it, wait for it, and fetch the submission that it leaves."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kaggle_digits.errors import AccessError, DigitsError, InputError, KaggleError
from kaggle_digits.files import atomic_path
from kaggle_digits.kaggle.client import SITE, TIMEOUT, TOKEN_PAGE, TRANSIENT, Client, connect, polls, status_of
from kaggle_digits.kaggle.notebook import METADATA_FILE, build_kernel
from kaggle_digits.kaggle.records import SUBMISSIONS, free_name, load_record, save_record
from kaggle_digits.run import find_commit

log = logging.getLogger(__name__)

API = "kernels.KernelsApiService"
FAILED = ("error", "cancel requested", "cancel acknowledged")
STALE_PAUSES = (5.0,) * 12
"""Seconds between looks for the outputs of the latest push, while Kaggle still shows those of the one before."""
EARLY_LOOKS, MOST_FAILURES = 5, 60
"""After EARLY_LOOKS looks a state counts as that of the latest push. MOST_FAILURES failures in a row end the wait."""
SIGN_OF_LIFE_SECONDS = 60.0
"""The interval at which a kernel that is still running is reported."""


@dataclass(frozen=True)
class Kernel:
    """A pushed notebook.

    Args:
        name: "owner/slug".
        version: its number.
        url: the address of its page.
        build: the mark in the record of its submission.
        commit: the commit of the checkout that it was pushed from, or None.
    """

    name: str
    version: int
    url: str
    build: str
    commit: str | None


def push(*, device: str = "auto") -> Kernel:
    """Build the notebook and push it to the signed-in user's kernels, where it starts at once.

    Raises:
        AccessError: no credentials, or the kernel belongs to somebody else.
        InputError: the notebook cannot be built, or its metadata cannot be used.
        KaggleError: Kaggle refused the push, or left out a part of it.
    """
    build = secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as folder:
        build_kernel(Path(folder), device=device, owner=_user_name(), build=build)
        return _push_folder(Path(folder), build)


def fetch(kernel: Kernel) -> Path:
    """Wait for a kernel to finish and fetch its submission with its record.

    Args:
        kernel: a pushed kernel. Right after the push, Kaggle may still show the previous version as finished.

    Returns:
        the submission file, a new one in submissions/.

    Raises:
        KaggleError: the kernel failed, or its outputs are not those of this push.
    """
    for pause in (*STALE_PAUSES, None):
        _wait(kernel)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                _load_outputs(kernel, folder, ("submission.csv", "submission.json"))
            except KaggleError:
                if pause is None:
                    raise
            record = load_record(folder / "submission.json")
            if record and record["build"] == kernel.build:
                return _keep(folder / "submission.csv", record, kernel)
        if pause:
            log.info("%s: does not show the outputs of version %s yet; waiting", kernel.name, kernel.version)
            time.sleep(pause)
    raise KaggleError(
        f"{kernel.name}: its outputs are of another version. Expected those of version {kernel.version}. See "
        f"{kernel.url}, and fetch them there."
    )


def _keep(fetched: Path, record: dict[str, Any], kernel: Kernel) -> Path:
    """Keep a fetched submission and its record under a new name in submissions/."""
    target = free_name(Path(SUBMISSIONS) / f"{kernel.name.partition('/')[2]}-v{kernel.version}.csv")
    with atomic_path(target) as path:
        path.write_bytes(fetched.read_bytes())
    # The notebook cannot know the commit: there is no checkout where it runs.
    runs = [{**run, "commit": run["commit"] or kernel.commit} for run in record["runs"]]
    save_record(target, {**record, "file": target.name, "runs": runs, "upload": None})
    return target


def _user_name() -> str:
    """Return the name of the signed-in user, who owns the kernels that are pushed.

    Raises:
        AccessError: no credentials, Kaggle refused them, or they have no name.
    """
    client = connect()
    name = client.api.config_values.get("username")
    if not name:
        raise AccessError(
            f"Kaggle client {client.version}: {client.credentials} does not say whose it is. Expected a user name, "
            f"which a kernel needs. Make an access token at {TOKEN_PAGE}."
        )
    return name


def _push_folder(folder: Path, build: str) -> Kernel:
    """Push the notebook of a folder with its kernel-metadata.json, and start it.

    Raises:
        AccessError: no credentials, or the kernel belongs to somebody else.
        KaggleError: Kaggle refused it, or left out a part of it.
    """
    client = connect()
    name = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))["id"]
    # Every push makes a version and uses up accelerator time: it is not repeated.
    try:
        answer = client.call(
            f"push of {name}", lambda: client.api.kernels_push(str(folder)), repeat=False, denied=_kernel_denied(name)
        )
    except KaggleError as error:
        if type(error.__cause__) is ValueError:  # the client's own checks
            raise InputError(
                f"{METADATA_FILE}: {error.__cause__}. Expected what Kaggle accepts. Correct it."
            ) from error
        raise
    if answer.error:
        raise KaggleError(
            f"push of {name}: Kaggle answered {answer.error!r}. Expected a kernel of yours with a name of its own. "
            f"Check id and title in kernel-metadata.json against {SITE}/code."
        )
    left_out = [
        source
        for kind in ("tags", "dataset_sources", "competition_sources", "kernel_sources", "model_sources")
        for source in getattr(answer, f"invalid_{kind}", None) or []
    ]
    if left_out:
        raise KaggleError(
            f"push of {name}: Kaggle took it, but without {', '.join(left_out)}. Expected names that Kaggle knows. "
            f"Correct them in kernel-metadata.json; the version at {answer.url} cannot work."
        )
    return Kernel(name, answer.version_number, answer.url, build, find_commit())


def _wait(kernel: Kernel) -> None:
    """Wait until a kernel has run; log every change of its state, and once a minute that it is still running.

    Raises:
        AccessError: Kaggle does not know the kernel, or it is not the user's.
        KaggleError: it failed or was cancelled; the message has the end of its log.
    """
    client = connect()
    user, _, slug = kernel.name.partition("/")
    before, started, said, failures = "", time.monotonic(), 0.0, 0
    seen_at_work = False
    for look, _ in enumerate(polls(None)):
        try:
            state, failure = client.ask(
                f"state of {kernel.name}",
                f"{API}/GetKernelSessionStatus",
                {"userName": user, "kernelSlug": slug},
                _state_of,
                denied=_kernel_denied(kernel.name),
            )
        except DigitsError as error:
            status = status_of(error.__cause__)
            failures += 1
            # A new kernel may take a moment to become known, and a kernel keeps running while the network is down.
            if not (look < EARLY_LOOKS if status == 404 else status in (0, *TRANSIENT) and failures < MOST_FAILURES):
                raise
            log.info("%s Asking again.", error)
            continue
        failures = 0
        waited = time.monotonic() - started
        if state != before or waited - said > SIGN_OF_LIFE_SECONDS:
            log.info("%s, version %s: %s (%.0f s)", kernel.name, kernel.version, state, waited)
            before, said = state, waited
        seen_at_work = seen_at_work or state not in FAILED
        if state == "complete":
            return
        # Right after a push, Kaggle may still show how the previous version ended.
        if state in FAILED and (look >= EARLY_LOOKS or seen_at_work):
            end = ""
            with contextlib.suppress(DigitsError):  # no log is no reason to hide the failure
                _, end = _outputs(client, kernel)
            raise KaggleError(
                f"{kernel.name}: {state} ({failure or 'no reason given'}). See {kernel.url}"
                + (f"; its log ends: {end[-600:].strip()}" if end else "")
            )


def _load_outputs(kernel: Kernel, folder: Path, names: tuple[str, ...]) -> None:
    """Fetch files that a finished kernel left, each whole or not at all.

    Args:
        kernel: the pushed kernel.
        folder: the folder for the files; made if needed.
        names: names of the wanted files.

    Raises:
        KaggleError: the kernel did not leave one of them, or it cannot be fetched.
    """
    import requests

    client = connect()
    addresses, _ = _outputs(client, kernel)
    missing = [name for name in names if name not in addresses]
    if missing:
        raise KaggleError(
            f"{kernel.name}: left no {missing[0]} (it left {', '.join(sorted(addresses)) or 'nothing'}). Expected the "
            f"output of the notebook that `kaggle-digits kernel build` makes. See {kernel.url}"
        )
    for name in names:

        def fetch(address: str = addresses[name]) -> bytes:
            answer = requests.get(address, timeout=TIMEOUT)
            answer.raise_for_status()
            return answer.content

        with atomic_path(folder / name) as path:
            path.write_bytes(client.call(f"download of {name}", fetch, storage=True))


def _outputs(client: Client, kernel: Kernel) -> tuple[dict[str, str], str]:
    """Return the addresses of a kernel's plain output files, and its log as text."""
    user, _, slug = kernel.name.partition("/")
    addresses: dict[str, str] = {}
    text, token = "", ""
    while True:
        more, log_of_kernel, token = client.ask(
            f"outputs of {kernel.name}",
            f"{API}/ListKernelSessionOutput",
            {"userName": user, "kernelSlug": slug, "pageSize": 100, "pageToken": token},
            _files_of,
            denied=_kernel_denied(kernel.name),
        )
        addresses |= more
        text = text or _log_text(log_of_kernel)
        if not token:
            return addresses, text


def _state_of(answer: dict[str, Any]) -> tuple[str, str]:
    """Read the state of a kernel in words, and why it failed."""
    state = str(answer.get("status", "QUEUED")).removeprefix("KERNEL_WORKER_STATUS_")
    return state.lower().replace("_", " "), answer.get("failureMessage") or ""


def _files_of(answer: dict[str, Any]) -> tuple[dict[str, str], str, str]:
    """Read the addresses of output files, the log, and the token of the next page."""
    files = {file["fileName"]: file["url"] for file in answer.get("files") or []}
    # Only plain file names are taken, because code that ran in the kernel chose them.
    plain = {name: address for name, address in files.items() if PurePosixPath(name).name == name}
    return plain, answer.get("log") or "", answer.get("nextPageToken") or ""


def _log_text(log_of_kernel: str) -> str:
    """Turn a kernel's log, a JSON list of pieces of output, into text. A log that is not JSON is text already."""
    try:
        return "".join(piece["data"] for piece in json.loads(log_of_kernel))
    except (ValueError, KeyError, TypeError):
        return log_of_kernel


def _kernel_denied(name: str) -> str:
    return (
        f"Expected {name} to be a kernel of yours. A wrong name and somebody else's private kernel get this same "
        f"answer. Compare the id in kernel-metadata.json with {SITE}/code."
    )
