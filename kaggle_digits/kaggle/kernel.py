"""Run the notebook on Kaggle's machines: push it, wait for it, and fetch the submission that it leaves."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import secrets
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import requests

from kaggle_digits.errors import AccessError, DigitsError, InputError, KaggleError
from kaggle_digits.files import atomic_path
from kaggle_digits.kaggle.client import SITE, TOKEN_PAGE, Client, connect, is_passing, polls, status_of
from kaggle_digits.kaggle.notebook import METADATA_FILE, build_kernel
from kaggle_digits.kaggle.records import SUBMISSIONS, free_name, load_record, save_record
from kaggle_digits.run import find_commit

log = logging.getLogger(__name__)


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
    client = connect()
    owner = client.api.config_values.get("username")
    if not owner:
        raise AccessError(
            f"Kaggle client {client.version}: {client.credentials} does not say whose it is. Expected a user name, "
            f"which a kernel needs. Make an access token at {TOKEN_PAGE}."
        )
    build = secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as folder:
        _, metadata = build_kernel(Path(folder), device=device, owner=owner, build=build)
        name = json.loads(metadata.read_text(encoding="utf-8"))["id"]
        client, what = _with_advice(client, name), f"push of {name}"
        try:
            # Every push makes a version and uses up accelerator time: it is not repeated.
            answer = client.call(what, lambda: client.api.kernels_push(folder), repeat=False)
        except KaggleError as error:
            if type(error.__cause__) is ValueError:  # the client's own checks
                raise InputError(
                    f"{METADATA_FILE}: {error.__cause__}. Expected what Kaggle accepts. Correct it."
                ) from error
            raise
    if answer.error:
        raise KaggleError(
            f"{what}: Kaggle answered {answer.error!r}. Expected a kernel of yours with a name of its own. Check id "
            f"and title in {METADATA_FILE} against {SITE}/code."
        )
    kinds = ("tags", "dataset_sources", "competition_sources", "kernel_sources", "model_sources")
    if left_out := [name for kind in kinds for name in getattr(answer, f"invalid_{kind}", None) or []]:
        raise KaggleError(
            f"{what}: Kaggle took it, but without {', '.join(left_out)}. Expected names that Kaggle knows. Correct "
            f"them in {METADATA_FILE}; the version at {answer.url} cannot work."
        )
    return Kernel(name, answer.version_number, answer.url, build, find_commit())


def fetch(kernel: Kernel) -> Path:
    """Wait for a kernel to finish and fetch its submission with its record.

    Args:
        kernel: a pushed kernel. Right after the push, Kaggle may still show the previous version as finished.

    Returns:
        the submission file, a new one in submissions/.

    Raises:
        KaggleError: the kernel failed, or its outputs are not those of this push.
    """
    client = _with_advice(connect(), kernel.name)
    pause, looks = 5.0, 13  # Kaggle may still show the outputs of the version before for a minute
    for look in range(looks):
        if look:
            log.info("%s: does not show the outputs of version %s yet; waiting", kernel.name, kernel.version)
            time.sleep(pause)
        _wait(client, kernel)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                _load_outputs(client, kernel, folder)
            except KaggleError:
                if look == looks - 1:
                    raise
            record = load_record(folder / "submission.json")
            if record and record["build"] == kernel.build:
                target = free_name(Path(SUBMISSIONS) / f"{kernel.name.partition('/')[2]}-v{kernel.version}.csv")
                with atomic_path(target) as path:
                    path.write_bytes((folder / "submission.csv").read_bytes())
                # The notebook cannot know the commit: there is no checkout where it runs.
                runs = [{**run, "commit": run["commit"] or kernel.commit} for run in record["runs"]]
                save_record(target, {**record, "file": target.name, "runs": runs, "upload": None})
                return target
    raise KaggleError(
        f"{kernel.name}: its outputs are of another version. Expected those of version {kernel.version}. See "
        f"{kernel.url}, and fetch them there."
    )


def _wait(client: Client, kernel: Kernel) -> None:
    """Wait until a kernel has run; log every change of its state, and once a minute that it is still running.

    Raises:
        AccessError: Kaggle does not know the kernel, or it is not the user's.
        KaggleError: it failed or was cancelled; the message has the end of its log.
    """
    user, _, slug = kernel.name.partition("/")
    request = {"userName": user, "kernelSlug": slug}

    def read(answer: dict[str, Any]) -> tuple[str, str]:
        state = str(answer.get("status", "QUEUED")).removeprefix("KERNEL_WORKER_STATUS_")
        return state.lower().replace("_", " "), answer.get("failureMessage") or ""

    before, started, logged_at, failures = "", time.monotonic(), 0.0, 0
    is_of_this_push = False
    for look, _ in enumerate(polls(math.inf)):
        # Kaggle may not know a new kernel yet, or still show how the version before ended.
        is_early = look < 5
        try:
            state, failure = client.ask(f"state of {kernel.name}", "kernels.GetKernelSessionStatus", request, read)
        except DigitsError as error:
            cause, failures = error.__cause__, failures + 1
            # A kernel keeps running while the network is down.
            if not (is_early if status_of(cause) == 404 else is_passing(cause) and failures < 60):
                raise
            log.info("%s Asking again.", error)
            continue
        failures, waited = 0, time.monotonic() - started
        if state != before or waited - logged_at > 60:
            log.info("%s, version %s: %s (%.0f s)", kernel.name, kernel.version, state, waited)
            before, logged_at = state, waited
        if state == "complete":
            return
        has_failed = state in ("error", "cancel requested", "cancel acknowledged")
        is_of_this_push = is_of_this_push or not has_failed
        if has_failed and (is_of_this_push or not is_early):
            end = ""
            with contextlib.suppress(DigitsError):  # a missing log must not hide the failure
                _, end = _list_outputs(client, kernel)
            raise KaggleError(
                f"{kernel.name}: {state} ({failure or 'no reason given'}). See {kernel.url}"
                + (f"; its log ends: {end[-600:].strip()}" if end else "")
            )


def _load_outputs(client: Client, kernel: Kernel, folder: Path) -> None:
    """Fetch the submission and the record that a finished kernel left."""
    addresses, _ = _list_outputs(client, kernel)
    for name in ("submission.csv", "submission.json"):
        if name not in addresses:
            raise KaggleError(
                f"{kernel.name}: left no {name} (it left {', '.join(sorted(addresses)) or 'nothing'}). Expected the "
                f"output of the notebook that `kaggle-digits kernel build` makes. See {kernel.url}"
            )

        def fetch(address: str = addresses[name]) -> bytes:
            answer = requests.get(address)
            answer.raise_for_status()
            return answer.content

        (folder / name).write_bytes(client.call(f"download of {name}", fetch, storage=True))


def _list_outputs(client: Client, kernel: Kernel) -> tuple[dict[str, str], str]:
    """Return the addresses of a kernel's plain output files, and its log as text."""

    def read(answer: dict[str, Any]) -> tuple[dict[str, str], str, str]:
        files = {file["fileName"]: file["url"] for file in answer.get("files") or []}
        return files, answer.get("log") or "", answer.get("nextPageToken") or ""

    user, _, slug = kernel.name.partition("/")
    request = {"userName": user, "kernelSlug": slug, "pageSize": 100, "pageToken": ""}
    addresses: dict[str, str] = {}
    text = ""
    while True:
        what = f"outputs of {kernel.name}"
        files, part, request["pageToken"] = client.ask(what, "kernels.ListKernelSessionOutput", request, read)
        # Only plain file names are taken, because code that ran in the kernel chose them.
        addresses |= {name: address for name, address in files.items() if PurePosixPath(name).name == name}
        text = text or part
        if not request["pageToken"]:
            break
    with contextlib.suppress(ValueError, KeyError, TypeError):  # a log that is not JSON is text already
        text = "".join(piece["data"] for piece in json.loads(text))
    return addresses, text


def _with_advice(client: Client, name: str) -> Client:
    """Return a client whose errors explain what may be wrong with a kernel."""
    return replace(
        client,
        kernel_advice=f"Expected {name} to be a kernel of yours. A wrong name and somebody else's private kernel get "
        f"this same answer. Compare the id in {METADATA_FILE} with {SITE}/code.",
    )
