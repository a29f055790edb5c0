"""Talk to Kaggle: download the data, upload a submission and learn its score. The only module on the Kaggle client.

The client (``kaggle`` with ``kagglesdk``, 2.0.2 to 2.2.5) is imported inside the functions: its import already signs
in, prints, and may end the process. It finds the credentials itself; they are never read, logged or stored here.

Three requests make a submission: one asks for a place to upload to, one uploads, one creates the submission. The
last spends the daily allowance and is never repeated: when its answer is lost, the submission is looked for in the
list, by a marker in its description that is made of the file's contents.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import logging
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from kaggle_digits.config import (
    COMPETITION,
    TEST_ROWS,
    AccessError,
    DataError,
    DigitsError,
    KaggleError,
    SubmissionError,
    atomic_path,
    locked,
)
from kaggle_digits.connection import (
    PAUSES,
    SITE,
    TIMEOUT,
    TOKEN_PAGE,
    TRANSIENT,
    Client,
    competition_slug,
    status_of,
    submissions_page,
    wait_at_most,
)
from kaggle_digits.data import expected_rows, find_competition
from kaggle_digits.records import read_record, save_record, update_table
from kaggle_digits.submission import check_submission
from kaggle_digits.tables import BROKEN

log = logging.getLogger(__name__)

POLL_SECONDS = (1.0, 15.0)
"""First and longest pause between two looks at a score or a kernel."""
SCORING_SECONDS = 1800.0
EARLY_LOOKS, MOST_FAILURES = 5, 60
"""Looks at a kernel after which its state is taken for that of the last push; failed looks in a row that end the "
"wait."""
SIGN_OF_LIFE_SECONDS = 60.0
"""How often a kernel that goes on running is reported."""
LOST_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between looks for a submission whose making is in doubt: the list may lag behind."""
NEWEST = 50
"""How many of the newest submissions are searched for a file that was sent before."""
DATA_FILES = ("train.csv", "test.csv", "sample_submission.csv")


@dataclass(frozen=True)
class Submission:
    """What Kaggle says of a submission.

    Args:
        reference: Kaggle's number for it.
        state: "pending", "complete" or "error".
        date: when it was made, UTC, ISO 8601.
        public_score: accuracy on the public part of the test rows, as Kaggle writes it; None before it is scored.
        error: why Kaggle could not score it.
        url: its page.
    """

    reference: int
    state: str
    date: str
    public_score: str | None
    error: str | None
    url: str


@dataclass(frozen=True)
class Kernel:
    """A pushed notebook: "owner/slug", its version number, and its page."""

    name: str
    version: int
    url: str


def download(folder: Path, *, quiet: bool = True) -> Path:
    """Download the competition's zip into a folder; nothing is sent if a whole one is there.

    An interrupted download continues where it stopped. The zip appears under its name once it is whole.

    Args:
        folder: where to; made if needed.
        quiet: show no progress bar on stderr.

    Returns:
        the zip, not unpacked: ``data.find_source`` reads it in place.

    Raises:
        AccessError: no credentials, or the rules of the competition are not accepted.
        DataError: a damaged zip lies at that place.
        KaggleError: Kaggle failed.
    """
    slug = competition_slug()
    target = folder / f"{slug}.zip"
    if target.exists():
        _check_zip(target)
        return target
    client = _connect()
    loaded = folder / ".kaggle_digits-partial" / target.name
    _load_zip(client, slug, loaded, quiet=quiet)
    try:
        _check_zip(loaded)
    except DataError:
        # Client 2.0.2 continues any old part without asking whether it is of the same file: once more from the start.
        loaded.unlink()
        _load_zip(client, slug, loaded, quiet=quiet)
        _check_zip(loaded)
    loaded.replace(target)
    shutil.rmtree(loaded.parent)
    return target


def check_ready(rows: int) -> None:
    """Check, before work is spent on it, that a submission with this number of rows could be made now.

    Raises:
        AccessError: no credentials, or the rules of the competition are not accepted.
        SubmissionError: the competition wants another number of rows.
        KaggleError: no submissions are left, or Kaggle failed.
    """
    slug = competition_slug()
    if rows != _rows_of(slug, rows)[0]:
        raise SubmissionError(
            f"--upload: the test file has {rows} rows. Expected {TEST_ROWS}, as in the competition {slug}. Name its "
            "data with "
            "--data, or another competition with $KDIGITS_COMPETITION."
        )
    _check_limits(_connect(), slug)


def upload(file: Path, message: str, *, rows: int | None = None) -> Submission:
    """Check and submit a file. However often this is called or stopped, Kaggle scores its contents once.

    Only what Kaggle could not score is submitted again.

    Args:
        file: the submission.
        message: the description that Kaggle shows, behind a marker that is made of the file's contents.
        rows: of the test file; None looks for the data. The competition's own number is known.

    Returns:
        the new submission, or the one that was made of the same contents before.

    Raises:
        AccessError: no credentials, or the rules of the competition are not accepted.
        SubmissionError: Kaggle would not accept the file, or its record's name is taken by another, or it is being
            uploaded by another process.
        KaggleError: no submissions are left today, Kaggle failed, or its answer was lost and no submission is found.
    """
    slug = competition_slug()
    expected, counted_in = _rows_of(slug, rows)
    check_submission(file, rows=expected, counted_in=counted_in)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(file))
        except BlockingIOError as error:
            raise SubmissionError(
                f"{file}: is being uploaded by another process. Expected one at a time. Wait for the other."
            ) from error
        record = read_record(file)
        marker = f"[{record['sha256'][:12]}]"
        client = _connect()
        known = _known(client, slug, record, marker)
        if known and known.state != "error":
            log.info("%s: was submitted before, on %s; nothing new is sent.", file, known.date)
        else:
            left = _check_limits(client, slug)
            if left is not None:
                log.info("%s more submissions allowed today", left)
            token = _send_file(client, slug, file)
            before = record["upload"]
            # From here on it is in doubt, until Kaggle's answer is written down, whether there is a submission.
            _note(file, record, slug, message, "sent", known)
            known = _create(client, slug, file, token, f"{marker} {message}", marker, record, before)
        _note(file, record, slug, message, known.state, known)
        return known


def wait_for_score(file: Path, submission: Submission) -> Submission:
    """Ask until Kaggle has scored a submission, and keep the answer in the file's record.

    Raises:
        KaggleError: Kaggle could not score it, or took longer than half an hour.
    """
    slug = competition_slug()
    client = _connect()
    for _ in _polls(SCORING_SECONDS):
        if submission.state != "pending":
            break
        submission = _look_at(client, slug, submission)
    _note(file, read_record(file), slug, "", submission.state, submission)
    if submission.state == "error":
        raise KaggleError(
            f"{file}: Kaggle could not score submission {submission.reference} "
            f"({submission.error or 'no reason given'}). Expected a score. See {submission.url}"
        )
    if submission.state == "pending":
        raise KaggleError(
            f"{file}: submission {submission.reference} is not scored after {SCORING_SECONDS / 60:.0f} minutes. "
            "Expected a score. Repeat the command with --wait later: it sends nothing again."
        )
    return submission


def user_name() -> str:
    """Return the name of the signed-in user, who owns the kernels that are pushed.

    Raises:
        AccessError: no credentials, Kaggle refused them, or they have no name.
    """
    client = _connect()
    name = client.api.config_values.get("username")
    if not name:
        raise AccessError(
            f"Kaggle client {client.version}: {client.credentials} does not say whose it is. Expected a user name, "
            "which "
            f"a kernel needs. Make an access token at {TOKEN_PAGE}."
        )
    return name


def push_kernel(folder: Path) -> Kernel:
    """Push the notebook of a folder with its kernel-metadata.json, and start it.

    Raises:
        AccessError: no credentials, or the kernel belongs to somebody else.
        KaggleError: Kaggle refused it, or left out a part of it.
    """
    client = _connect()
    name = json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8"))["id"]
    # Every push makes a version and uses up accelerator time: it is not repeated.
    answer = client.call(
        f"push of {name}", lambda: client.api.kernels_push(str(folder)), repeat=False, denied=_kernel_denied(name)
    )
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
    return Kernel(name, answer.version_number, answer.url)


def wait_for_kernel(kernel: Kernel) -> None:
    """Wait until a kernel has run; log every change of its state, and once a minute that it goes on.

    Raises:
        AccessError: Kaggle does not know the kernel, or it is not the user's.
        KaggleError: it failed or was cancelled; the message has the end of its log.
    """
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

    client = _connect()
    request = ApiGetKernelSessionStatusRequest()
    request.user_name, request.kernel_slug = kernel.name.split("/")
    before, started, said, failures = "", time.monotonic(), 0.0, 0
    seen_at_work = False
    for look, _ in enumerate(_polls(None)):
        with client.services() as services:
            get = functools.partial(services.kernels.kernels_api_client.get_kernel_session_status, request)
            try:
                answer = client.call(f"state of {kernel.name}", get, denied=_kernel_denied(kernel.name))
            except DigitsError as error:
                status = status_of(error.__cause__)
                failures += 1
                # A new kernel may take a moment to be known; and it runs on while the network is away.
                if not (
                    _is_new_state(error)
                    or (status == 404 and look < EARLY_LOOKS)
                    or (status in (0, *TRANSIENT) and failures < MOST_FAILURES)
                ):
                    raise
                log.info("%s Asking again.", error)
                continue
        failures = 0
        state = answer.status.name.lower().replace("_", " ")
        waited = time.monotonic() - started
        if state != before or waited - said > SIGN_OF_LIFE_SECONDS:
            log.info("%s, version %s: %s (%.0f s)", kernel.name, kernel.version, state, waited)
            before, said = state, waited
        seen_at_work = seen_at_work or state in ("queued", "running")
        if state == "complete":
            return
        # Right after a push Kaggle may still show how the version before ended.
        if state not in ("queued", "running", "new script") and (look >= EARLY_LOOKS or seen_at_work):
            end = ""
            with contextlib.suppress(DigitsError):  # no log is no reason to hide the failure
                _, end = _outputs(client, kernel)
            raise KaggleError(
                f"{kernel.name}: {state} ({answer.failure_message or 'no reason given'}). Expected it to finish. See "
                f"{kernel.url}" + (f"; its log ends: {end[-600:].strip()}" if end else "")
            )


def load_outputs(kernel: Kernel, folder: Path, names: tuple[str, ...]) -> None:
    """Fetch files that a finished kernel left, each whole or not at all.

    Args:
        kernel: as pushed.
        folder: where to; made if needed.
        names: of the files wanted.

    Raises:
        KaggleError: the kernel did not leave one of them, or it cannot be fetched.
    """
    import requests

    client = _connect()
    addresses, _ = _outputs(client, kernel)
    missing = [name for name in names if name not in addresses]
    if missing:
        raise KaggleError(
            f"{kernel.name}: left no {missing[0]} but {', '.join(sorted(addresses)) or 'nothing'}. Expected the output "
            f"of the notebook that `kaggle-digits kernel build` makes. See {kernel.url}"
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
    from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

    addresses: dict[str, str] = {}
    request = ApiListKernelSessionOutputRequest()
    request.user_name, request.kernel_slug = kernel.name.split("/")
    request.page_size = 100
    text, token = "", ""
    with client.services() as services:
        ask = services.kernels.kernels_api_client.list_kernel_session_output
        while True:
            request.page_token = token
            what = f"outputs of {kernel.name}"
            answer = client.call(what, lambda: ask(request), denied=_kernel_denied(kernel.name))
            # A name is taken only if it is one: it comes from what ran in the kernel.
            addresses |= {
                file.file_name: file.url
                for file in answer.files or []
                if PurePosixPath(file.file_name).name == file.file_name
            }
            text = text or _log_text(answer.log or "")
            token = answer.next_page_token or ""
            if not token:
                return addresses, text


def _log_text(log_of_kernel: str) -> str:
    """Turn a kernel's log, JSON lines of pieces of output, into text; what is not JSON is text already."""
    try:
        return "".join(piece["data"] for piece in json.loads(log_of_kernel))
    except (ValueError, KeyError, TypeError):
        return log_of_kernel


def _is_new_state(error: DigitsError) -> bool:
    """Whether the client failed over the name of a state that it does not know: the work is not done yet."""
    return isinstance(error.__cause__, KeyError)


def _kernel_denied(name: str) -> str:
    return (
        f"Expected {name} to be a kernel of yours. A wrong name and somebody else's private kernel get this same "
        f"answer. Compare the id in kernel-metadata.json with {SITE}/code."
    )


def _note(
    file: Path, record: dict[str, Any], slug: str, message: str, state: str, submission: Submission | None = None
) -> None:
    """Keep in the file's record, and in the table of its folder, how the submission stands."""
    before = record["upload"]
    same = before and submission and before["reference"] in (None, submission.reference)
    record["upload"] = {
        "competition": slug,
        "message": before["message"] if same else message,
        "state": state,
        "reference": submission.reference if submission else None,
        "date": submission.date if submission else _now(),
        "public_score": submission.public_score if submission else None,
        "error": submission.error if submission else None,
        "url": submission.url if submission else None,
    }
    save_record(file, record)
    update_table(file.parent)


def _rows_of(slug: str, rows: int | None) -> tuple[int, str]:
    """Return how many rows a competition wants, and where that number comes from."""
    if slug == COMPETITION:
        return TEST_ROWS, "test.csv"
    if rows is not None:
        return rows, "test.csv"
    source = find_competition()
    return expected_rows(None if source and source.is_sample else source)


def _load_zip(client: Client, slug: str, file: Path, *, quiet: bool) -> None:
    """Download the competition's zip, or what is missing of it; the client repeats a broken transfer by itself."""
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

    request = ApiDownloadDataFilesRequest()
    request.competition_name = slug
    with client.services() as services:
        ask = services.competitions.competition_api_client.download_data_files
        answer = client.call(f"download of {slug}", lambda: ask(request))
        transfer = functools.partial(client.api.download_file, answer, str(file), None, quiet, resume=True)
        try:
            client.call(f"download of {slug}", transfer, repeat=False, storage=True)
        except KaggleError as error:
            if isinstance(error.__cause__, ValueError):  # client 2.0.2: other bytes than were announced
                raise KaggleError(
                    f"download of {slug}: what came is not what was announced ({error.__cause__}). Expected the whole "
                    "file. "
                    "Repeat the command."
                ) from error
            raise


def _check_limits(client: Client, slug: str) -> int | None:
    ask = getattr(client.api, "competition_get_submission_limits", None)
    if ask is None:
        log.info("Client %s cannot ask how many submissions are left today; newer ones can.", client.version)
        return None
    limits = client.call(f"submission limits of {slug}", lambda: ask(slug))
    # Who never submitted is on no team yet, and all numbers are 0.
    if limits.num_allowed_now == 0 and limits.num_total > 0:
        cap = "the competition's limit for all time" if limits.limited_by_total else "today's limit"
        when = "No more can be made." if limits.limited_by_total else "Try again after midnight UTC."
        raise KaggleError(
            f"{slug}: {limits.num_today} submissions made today, {limits.num_total} in all, and {cap} is reached. "
            f"Expected at least one to be left. {when} Nothing was sent."
        )
    return limits.num_allowed_now if limits.num_total else None


def _send_file(client: Client, slug: str, file: Path) -> str:
    """Upload a file and return its token. Nothing is submitted yet: both requests are repeated, together.

    A place that a broken upload has left half full is not used again.
    """
    import requests
    from kagglesdk.competitions.types.competition_api_service import ApiStartSubmissionUploadRequest

    request = ApiStartSubmissionUploadRequest()
    request.competition_name = slug
    request.file_name = file.name
    request.content_length = file.stat().st_size
    request.last_modified_epoch_seconds = int(file.stat().st_mtime)
    what = f"upload of {file.name}"

    def put(address: str) -> None:
        answer = requests.put(address, data=file.read_bytes(), timeout=TIMEOUT, allow_redirects=False)
        if answer.status_code not in (200, 201):
            raise requests.HTTPError(response=answer)

    pauses = iter(PAUSES)
    while True:
        with client.services() as services:
            start = functools.partial(services.competitions.competition_api_client.start_submission_upload, request)
            place = client.call(what, start)
        try:
            client.call(what, functools.partial(put, place.create_url), repeat=False, storage=True)
            return place.token
        except KaggleError as error:
            pause = next(pauses, None)
            status = status_of(error.__cause__)
            if pause is None or status not in (0, 308, *TRANSIENT):
                raise
            log.info("%s: %s; trying again in %.0f s", what, status or type(error.__cause__).__name__, pause)
        time.sleep(pause)


def _create(
    client: Client,
    slug: str,
    file: Path,
    token: str,
    description: str,
    marker: str,
    record: dict[str, Any],
    before: dict[str, Any] | None,
) -> Submission:
    """Send the one request that is never repeated; where it is refused, the record is as it was ``before``."""
    from kagglesdk.competitions.types.competition_api_service import ApiCreateSubmissionRequest

    request = ApiCreateSubmissionRequest()
    request.competition_name = slug
    request.blob_file_tokens = token
    request.submission_description = description
    try:
        with client.services() as services:
            create = services.competitions.competition_api_client.create_submission
            reference = client.call(f"submission of {file.name}", lambda: create(request), repeat=False).ref
    except DigitsError as error:
        if 400 <= status_of(error.__cause__) < 500:
            # Kaggle has read the request and said no: nothing is in doubt.
            save_record(file, {**record, "upload": before})
            raise
        log.info("%s Looking for the submission in the list.", error)
        reference = 0
    if reference:
        return Submission(reference, "pending", _now(), None, None, submissions_page(slug))
    found = _find(client, slug, marker, LOST_PAUSES, after=record["upload"]["reference"] or 0)
    if not found:
        raise KaggleError(
            f"{file}: Kaggle's answer was lost, and the submission is not in the list {sum(LOST_PAUSES):.0f} s later. "
            f"Expected to find it there. See {submissions_page(slug)}; if it is missing there too, repeat the command: "
            "it looks again before it sends anything."
        )
    return found


def _known(client: Client, slug: str, record: dict[str, Any], marker: str) -> Submission | None:
    """Return the newest submission of the same contents, from the file's record or from Kaggle's list."""
    upload = record["upload"]
    if not upload or upload["competition"] != slug:
        return _find(client, slug, marker, ())
    if upload["state"] == "sent":
        # A call was stopped after it sent the creating request: it may have arrived, or will yet.
        return _find(client, slug, marker, LOST_PAUSES, after=upload["reference"] or 0) or _find(
            client, slug, marker, ()
        )
    recorded = {name: upload[name] for name in ("reference", "state", "date", "public_score", "error", "url")}
    submission = Submission(**recorded)
    return _look_at(client, slug, submission) if submission.state == "pending" else submission


def _find(client: Client, slug: str, marker: str, pauses: tuple[float, ...], *, after: int = 0) -> Submission | None:
    """Look for the newest submission with a marker and a reference above ``after``, now and after every pause."""
    for pause in (*pauses, None):
        listed = client.call(
            f"list of submissions to {slug}",
            lambda: client.api.competition_submissions(slug, page_number=1, page_size=NEWEST),
        )
        for answer in listed or []:
            if answer and answer.ref > after and marker in (answer.description or ""):
                return _submission(answer, slug)
        if pause:
            time.sleep(pause)
    return None


def _look_at(client: Client, slug: str, submission: Submission) -> Submission:
    """Ask once how a submission stands; one that Kaggle does not know yet, or in a state new to us, is pending."""
    from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest

    request = ApiGetSubmissionRequest()
    request.ref = submission.reference
    with client.services() as services:
        get = services.competitions.competition_api_client.get_submission
        try:
            answer = client.call(f"score of submission {submission.reference}", lambda: get(request))
        except DigitsError as error:
            if status_of(error.__cause__) == 404 or _is_new_state(error):
                return submission
            raise
    return _submission(answer, slug)


def _submission(answer: Any, slug: str) -> Submission:
    date = answer.date.isoformat(timespec="seconds") + "Z" if answer.date else _now()
    return Submission(
        answer.ref,
        answer.status.name.lower(),
        date,
        answer.public_score or None,
        (answer.error_description or "").strip() or None,
        # Anything after a question mark may be a signature.
        (answer.url or submissions_page(slug)).partition("?")[0],
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _polls(longest: float | None) -> Iterator[None]:
    """Yield now and after pauses that grow, for as long as is worth waiting."""
    pause, waited = POLL_SECONDS[0], 0.0
    while longest is None or waited <= longest:
        yield
        time.sleep(pause)
        waited += pause
        pause = min(1.5 * pause, POLL_SECONDS[1])


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            broken, names = archive.testzip(), archive.namelist()
    except BROKEN as error:
        broken, names = str(error), []
    missing = [name for name in DATA_FILES[:2] if name not in names]
    if broken or missing:
        raise DataError(
            f"{path}: {f'damaged ({broken})' if broken else f'holds no {missing[0]}'}. Expected the competition's zip, "
            f"with {', '.join(DATA_FILES)}. Remove it, and download again."
        )


def _connect() -> Client:
    """Import the client, which signs in by itself, and say which credentials it found.

    Raises:
        AccessError: there is no client, it found no credentials, or Kaggle refused them.
        KaggleError: Kaggle could not be reached.
    """
    try:
        version = importlib.metadata.version("kaggle")
    except importlib.metadata.PackageNotFoundError as error:
        raise AccessError(
            "The Kaggle client is not installed. Expected the package kaggle. Install it: pip install kaggle"
        ) from error
    hint = (
        "Expected an access token in $KAGGLE_API_TOKEN or ~/.kaggle/access_token, or a legacy key in "
        f"~/.kaggle/kaggle.json. Make one at {TOKEN_PAGE}."
    )
    missing = AccessError(
        f"Kaggle client {version}: found no credentials that Kaggle accepts; a token that has expired counts as none. "
        f"{hint}"
    )

    def sign_in() -> Any:
        # The import signs in; from 2.2.4 on it hides why it could not, so that the second try has to tell.
        import kaggle

        if not kaggle.api.config_values.get("auth_method"):
            kaggle.api.authenticate()
        return kaggle.api

    try:
        api = Client(None, version, "your access token").call("signing in", sign_in)
    except SystemExit as error:
        raise missing from error
    except DigitsError as error:
        if isinstance(error.__cause__, OSError):  # what requests raises: an answer, or none
            raise
        # A file with something else in it; which, and what, is the client's secret.
        raise AccessError(f"Kaggle client {version}: cannot read the credentials it found. {hint}") from error
    method = str(api.config_values.get("auth_method"))
    if "None" in method:
        raise missing
    wait_at_most(api)
    found = {"LEGACY_API_KEY": "your legacy key", "OAUTH": "your login"}
    credentials = next((words for name, words in found.items() if name in method), "your access token")
    return Client(api, version, credentials)
