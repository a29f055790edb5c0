"""Download the competition's data, upload a submission, and learn its score.

A submission takes three requests: one asks for a place to upload to, one uploads the file, and one creates the
submission. The last one counts towards the daily limit and is never repeated. If its answer is lost, we look for the
submission in Kaggle's list, by a marker in its description that is made from the file's contents.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import shutil
import time
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from kaggle_digits.errors import DataError, DigitsError, KaggleError, SubmissionError
from kaggle_digits.files import BROKEN, locked
from kaggle_digits.kaggle.client import (
    PAUSES,
    TIMEOUT,
    TRANSIENT,
    Client,
    competition_slug,
    connect,
    polls,
    status_of,
    submissions_page,
)
from kaggle_digits.kaggle.records import read_record, save_record
from kaggle_digits.submission import TEST_ROWS, check_submission, expected_rows
from kaggle_digits.tables import COMPETITION
from kaggle_digits.tables.find import find_competition

log = logging.getLogger(__name__)

API = "competitions.CompetitionApiService"
SCORING_SECONDS = 1800.0
LOST_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between looks for a submission that may or may not have been made. Kaggle's list may lag behind."""
PAGE_SIZE = 100
DATA_FILES = ("train.csv", "test.csv", "sample_submission.csv")


@dataclass(frozen=True)
class Submission:
    """What Kaggle says about a submission.

    Args:
        reference: Kaggle's number for it.
        state: "pending", "complete" or "error".
        date: when it was made, UTC, ISO 8601.
        public_score: accuracy on the public part of the test rows, as Kaggle writes it; None before it is scored.
        error: why Kaggle could not score it.
        url: the address of its page.
    """

    reference: int
    state: str
    date: str
    public_score: str | None
    error: str | None
    url: str


def download(folder: Path, *, quiet: bool = True) -> Path:
    """Download the competition's zip into a folder, unless a whole one is already there.

    An interrupted download continues where it stopped. The zip appears under its name once it is whole.

    Args:
        folder: the folder for the zip; made if needed.
        quiet: whether to hide the progress bar on stderr.

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
    client = connect()
    loaded = folder / ".kaggle_digits-partial" / target.name
    _load_zip(client, slug, loaded, quiet=quiet)
    try:
        _check_zip(loaded)
    except DataError:
        # Client 2.0.2 continues any partial file, even one of another zip. Download once more from the start.
        loaded.unlink()
        _load_zip(client, slug, loaded, quiet=quiet)
        try:
            _check_zip(loaded)
        except DataError as error:
            loaded.unlink()
            raise KaggleError(
                f"download of {slug}: the file that came is not the competition's zip. Try again later."
            ) from error
    loaded.replace(target)
    shutil.rmtree(loaded.parent)
    return target


def check_ready(rows: int) -> None:
    """Check that a submission with this many rows could be made now, before work is spent on it.

    Raises:
        AccessError: no credentials, or the rules of the competition are not accepted.
        SubmissionError: the competition wants another number of rows.
        KaggleError: no submissions are left, or Kaggle failed.
    """
    slug = competition_slug()
    if rows != _rows_of(slug, rows)[0]:
        raise SubmissionError(
            f"--upload: the test file has {rows} rows. Expected {TEST_ROWS}, as in the competition {slug}. Name its "
            "data with --data, or another competition with $KDIGITS_COMPETITION."
        )
    _check_limits(connect(), slug)


def upload(file: Path, message: str, *, rows: int | None = None) -> Submission:
    """Check and submit a file. Kaggle scores its contents only once, however often this is called or stopped.

    Contents that Kaggle could not score are submitted again, but only after the user was told about the failure.

    Args:
        file: the submission.
        message: the description that Kaggle shows, after a marker that is made from the file's contents.
        rows: the number of rows in the test file; None looks for the data. The number for digit-recognizer is known.

    Returns:
        the new submission, or the one that was made of the same contents before.

    Raises:
        AccessError: no credentials, or the rules of the competition are not accepted.
        SubmissionError: Kaggle would not accept the file, the name of its record is taken by another file, or another
            process is uploading it.
        KaggleError: no submissions are left today, Kaggle failed, or its answer was lost and no submission is found.
    """
    slug = competition_slug()
    expected, counted_in = _rows_of(slug, rows)
    check_submission(file, rows=expected, counted_in=counted_in)
    busy = SubmissionError(f"{file}: is being uploaded by another process. Expected one at a time. Wait for the other.")
    with locked(file, busy):
        contents, record = file.read_bytes(), read_record(file)
        if record["sha256"] != hashlib.sha256(contents).hexdigest():
            raise SubmissionError(f"{file}: was changed while it was read. Repeat the command.")
        if slug == COMPETITION and (reason := record.get("not_for_upload")):
            raise SubmissionError(
                f"{file}: cannot be uploaded: {reason}. Expected predictions for the test.csv of {slug}. Predict that "
                "file."
            )
        marker = f"[{record['sha256'][:12]}]"
        client = connect()
        before = record["upload"]
        known = _known(client, slug, before, marker)
        # If the user was already told about the failure, the same contents are submitted again.
        again = known and known.state == "error" and _was_told(before, known)
        if known and not again:
            log.info("%s: was submitted before, on %s; nothing new is sent.", file, known.date)
        else:
            left = _check_limits(client, slug)
            if left is not None:
                log.info("%s more %s allowed today", left, "submission" if left == 1 else "submissions")
            token = _send_file(client, slug, file, contents)
            # From here until Kaggle's answer is written down, it is uncertain whether there is a submission.
            _note(file, record, slug, message, "sent", known)
            try:
                reference = _create(client, slug, file.name, token, f"{marker} {message}")
            except DigitsError:  # Kaggle has refused the request, so nothing is uncertain
                save_record(file, {**record, "upload": before})
                raise
            known = _new(reference, slug) if reference else _lost(client, slug, file, marker, known)
        _note(file, record, slug, message, known.state, known)
        return known


def wait_for_score(file: Path, submission: Submission) -> Submission:
    """Wait until Kaggle has scored a submission, and keep the answer in the file's record.

    Raises:
        KaggleError: Kaggle could not score it, or took longer than half an hour.
    """
    slug = competition_slug()
    client = connect()
    for _ in polls(SCORING_SECONDS):
        if submission.state != "pending":
            break
        submission = _look_at(client, slug, submission)
    record = read_record(file)
    if record["upload"] and record["upload"]["reference"] == submission.reference:  # may be another file by now
        _note(file, record, slug, "", submission.state, submission)
    if submission.state == "error":
        raise KaggleError(
            f"{file}: Kaggle could not score submission {submission.reference} "
            f"({submission.error or 'no reason given'}). See {submission.url}"
        )
    if submission.state == "pending":
        raise KaggleError(
            f"{file}: submission {submission.reference} is not scored after {SCORING_SECONDS / 60:.0f} minutes. "
            "Repeat the command with --wait later: it does not submit the file again."
        )
    return submission


def _note(
    file: Path, record: dict[str, Any], slug: str, message: str, state: str, submission: Submission | None = None
) -> None:
    """Write the state of the submission into the file's record."""
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


def _rows_of(slug: str, rows: int | None) -> tuple[int, str]:
    """Return how many rows a competition wants, and where that number comes from."""
    if slug == COMPETITION:
        return TEST_ROWS, "test.csv"
    if rows is not None:
        return rows, "test.csv"
    source = find_competition()
    return expected_rows(None if source and source.is_sample else source)


def _load_zip(client: Client, slug: str, file: Path, *, quiet: bool) -> None:
    """Download the competition's zip, or the missing part of it. The client itself retries a broken transfer."""
    what = f"download of {slug}"
    answer = client.ask(what, f"{API}/DownloadDataFiles", {"competitionName": slug}, None)
    transfer = functools.partial(client.api.download_file, answer, str(file), None, quiet, resume=True)
    try:
        client.call(what, transfer, repeat=False, storage=True)
    except KaggleError as error:
        if isinstance(error.__cause__, ValueError):  # client 2.0.2 received other bytes than Kaggle announced
            raise KaggleError(
                f"{what}: not the file that Kaggle announced ({error.__cause__}). Expected the whole file. Repeat the "
                "command."
            ) from error
        raise


def _check_limits(client: Client, slug: str) -> int | None:
    """Return how many submissions are left today, or None if Kaggle does not say."""

    def read(answer: dict[str, Any]) -> tuple[int, int, int, bool]:
        today, total, allowed = (int(answer.get(name, 0)) for name in ("numToday", "numTotal", "numAllowedNow"))
        return today, total, allowed, bool(answer.get("limitedByTotal"))

    what = f"submission limits of {slug}"
    today, total, allowed, by_total = client.ask(what, f"{API}/GetSubmissionLimits", {"competitionName": slug}, read)
    if not total:  # a user who never submitted is on no team yet, and all numbers are 0
        return None
    if not allowed:
        cap = "the competition's total limit" if by_total else "today's limit"
        when = "No more can be made." if by_total else "Try again after midnight UTC."
        raise KaggleError(
            f"{slug}: {today} submissions made today, {total} in all, and {cap} is reached. Expected at least one to "
            f"be left. {when} Nothing was sent."
        )
    return allowed


def _send_file(client: Client, slug: str, file: Path, contents: bytes) -> str:
    """Upload a file and return its token.

    Nothing is submitted yet, so both requests may be repeated. They are repeated together, because a broken upload may
    leave half a file at the place that Kaggle gave.
    """
    import requests

    what = f"upload of {file.name}"
    request = {
        "competitionName": slug,
        "fileName": file.name,
        "contentLength": len(contents),
        "lastModifiedEpochSeconds": int(file.stat().st_mtime),
    }

    def put(address: str) -> None:
        answer = requests.put(address, data=contents, timeout=TIMEOUT, allow_redirects=False)
        if answer.status_code not in (200, 201):
            raise requests.HTTPError(response=answer)

    pauses = iter(PAUSES)
    while True:
        token, address = client.ask(what, f"{API}/StartSubmissionUpload", request, itemgetter("token", "createUrl"))
        try:
            client.call(what, functools.partial(put, address), repeat=False, storage=True)
            return token
        except KaggleError as error:
            pause = next(pauses, None)
            status = status_of(error.__cause__)
            if pause is None or status not in (0, 308, *TRANSIENT):
                raise
            log.info("%s: %s; trying again in %.0f s", what, status or type(error.__cause__).__name__, pause)
        time.sleep(pause)


def _create(client: Client, slug: str, name: str, token: str, description: str) -> int:
    """Send the one request that is never repeated.

    Returns:
        the reference of the submission, or 0 if Kaggle's answer was lost.

    Raises:
        AccessError, KaggleError: Kaggle refused.
    """
    request = {"competitionName": slug, "blobFileTokens": token, "submissionDescription": description}
    try:
        return client.ask(
            f"submission of {name}",
            f"{API}/CreateSubmission",
            request,
            lambda answer: int(answer["ref"]),
            repeat=False,
        )
    except DigitsError as error:
        if 400 <= status_of(error.__cause__) < 500:
            raise
        log.info("%s Looking for the submission in the list.", error)
        return 0


def _lost(client: Client, slug: str, file: Path, marker: str, before: Submission | None) -> Submission:
    """Look for the submission whose answer was lost. An older one with the same contents does not count."""
    found = _find(client, slug, marker, LOST_PAUSES, after=before.reference if before else 0)
    if not found:
        raise KaggleError(
            f"{file}: Kaggle's answer was lost, and the submission is not in the list {sum(LOST_PAUSES):.0f} s later. "
            f"See {submissions_page(slug)}. If it is missing there too, repeat the command: it looks again before it "
            "sends anything."
        )
    return found


def _known(client: Client, slug: str, upload: dict[str, Any] | None, marker: str) -> Submission | None:
    """Return the newest submission with the same contents, from the file's record or from Kaggle's list."""
    if not upload or upload["competition"] != slug:
        return _find(client, slug, marker, ())
    if upload["state"] == "sent":
        log.info("An earlier call was stopped, or lost its answer; looking for its submission for a minute")
        found = _find(client, slug, marker, LOST_PAUSES, after=upload["reference"] or 0)
        return found or (_find(client, slug, marker, ()) if upload["reference"] else None)
    fields = ("reference", "state", "date", "public_score", "error", "url")
    submission = Submission(**{name: upload[name] for name in fields})
    return _look_at(client, slug, submission) if submission.state == "pending" else submission


def _was_told(upload: dict[str, Any] | None, submission: Submission) -> bool:
    """Return whether the record shows that the user knows about the failure of a submission."""
    return bool(upload and upload["state"] in ("error", "sent") and upload["reference"] == submission.reference)


def _find(client: Client, slug: str, marker: str, pauses: tuple[float, ...], *, after: int = 0) -> Submission | None:
    """Look for the newest submission with a marker and a reference above ``after``, now and after every pause."""

    def read(answer: dict[str, Any]) -> tuple[Submission | None, str]:
        listed = answer.get("submissions") or []
        ours = (one for one in listed if int(one["ref"]) > after and marker in (one.get("description") or ""))
        return next((_submission(one, slug) for one in ours), None), answer.get("nextPageToken") or ""

    for pause in (*pauses, None):
        page = ""
        while True:
            request = {"competitionName": slug, "pageSize": PAGE_SIZE, "pageToken": page}
            found, page = client.ask(f"list of submissions to {slug}", f"{API}/ListSubmissions", request, read)
            if found:
                return found
            if not page:
                break
        if pause:
            time.sleep(pause)
    return None


def _look_at(client: Client, slug: str, submission: Submission) -> Submission:
    """Ask once for the state of a submission. One that Kaggle does not know yet is returned unchanged."""
    what = f"score of submission {submission.reference}"
    request = {"ref": submission.reference}
    try:
        return client.ask(what, f"{API}/GetSubmission", request, lambda answer: _submission(answer, slug))
    except DigitsError as error:
        if status_of(error.__cause__) == 404:
            return submission
        raise


def _submission(answer: dict[str, Any], slug: str) -> Submission:
    """Read a submission. Any state other than complete and error counts as pending, whatever its name."""
    state = str(answer.get("status")).lower().rpartition("_")[2]
    date = str(answer["date"]).partition(".")[0].rstrip("Z") + "Z" if answer.get("date") else _now()
    return Submission(
        int(answer["ref"]),
        state if state in ("complete", "error") else "pending",
        date,
        str(answer.get("publicScore") or "") or None,
        (answer.get("errorDescription") or "").strip() or None,
        # Anything after a question mark may be a signature.
        (answer.get("url") or submissions_page(slug)).partition("?")[0],
    )


def _new(reference: int, slug: str) -> Submission:
    return Submission(reference, "pending", _now(), None, None, submissions_page(slug))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
