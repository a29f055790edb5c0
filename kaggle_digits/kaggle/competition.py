"""Download the competition's data, upload a submission, and learn its score.

A submission takes three requests: one asks for a place to upload to, one uploads the file, and one creates the
submission. The last one counts towards the daily limit and is never repeated. If its answer is lost, we look for the
submission in Kaggle's list, by a marker in its description that is made from the file's contents.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
import zipfile
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import requests

from kaggle_digits.errors import DataError, DigitsError, KaggleError, SubmissionError
from kaggle_digits.files import BROKEN, locked, make_folder, publish
from kaggle_digits.kaggle.client import Client, competition_slug, connect, polls, status_of, submissions_page
from kaggle_digits.kaggle.records import read_record, save_record
from kaggle_digits.submission import TEST_ROWS, check_submission, expected_rows
from kaggle_digits.tables import COMPETITION
from kaggle_digits.tables.find import find_competition

log = logging.getLogger(__name__)

LOST_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between checks whether a submission was made. Kaggle's list may lag behind."""


@dataclass(frozen=True)
class Submission:
    """What Kaggle says about a submission.

    Args:
        reference: Kaggle's number for it; None in a record of the first one, before Kaggle has answered.
        state: "pending", "complete" or "error"; in a record also "sent".
        date: when it was made, UTC, ISO 8601.
        url: the address of its page.
        public_score: accuracy on the public part of the test rows, as Kaggle writes it; None before it is scored.
        error: why Kaggle could not score it.
    """

    reference: int | None
    state: str
    date: str
    url: str
    public_score: str | None = None
    error: str | None = None


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
    client, what = connect(), f"download of {slug}"
    partial = folder / ".kaggle_digits-partial" / target.name
    make_folder(partial.parent)
    # Client 2.0.2 continues any partial file, even one of another zip. So a damaged zip is downloaded once more.
    for is_last in (False, True):
        answer = client.ask(what, "competitions.DownloadDataFiles", {"competitionName": slug}, None)

        def transfer(answer: Any = answer) -> None:
            client.api.download_file(answer, str(partial), None, quiet, resume=True)

        client.call(what, transfer, repeat=False, storage=True)  # the client itself retries a broken transfer
        try:
            _check_zip(partial)
            break
        except DataError as error:
            partial.unlink()
            if is_last:
                raise KaggleError(
                    f"{what}: the file that came is not the competition's zip. Try again later."
                ) from error
    publish(partial, target)
    shutil.rmtree(partial.parent)
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
        submission = _find_known(client, slug, before, marker)
        # The same contents are submitted again only if the record shows that the user knows about the failure.
        was_told = before and before["state"] in ("error", "sent")
        if submission and not (
            submission.state == "error" and was_told and before["reference"] == submission.reference
        ):
            log.info("%s: was submitted before, on %s; nothing new is sent.", file, submission.date)
            message = before["message"] if before and before["competition"] == slug else message
        else:
            left = _check_limits(client, slug)
            if left is not None:
                log.info("%s more %s allowed today", left, "submission" if left == 1 else "submissions")
            token = _send_file(client, slug, file, contents)
            # From here until Kaggle's answer is written down, it is uncertain whether there is a submission.
            earlier = submission.reference if submission else None
            _note(file, record, slug, message, Submission(earlier, "sent", _now(), submissions_page(slug)))
            try:
                submission = _create(client, slug, file.name, token, f"{marker} {message}")
            except DigitsError:  # Kaggle has refused the request, so nothing is uncertain
                save_record(file, {**record, "upload": before})
                raise
            submission = submission or _find(client, slug, marker, LOST_PAUSES, after=earlier or 0)
            if not submission:
                raise KaggleError(
                    f"{file}: Kaggle's answer was lost, and the submission is not in the list {sum(LOST_PAUSES):.0f} s "
                    f"later. See {submissions_page(slug)}. If it is missing there too, repeat the command: it looks "
                    "again before it sends anything."
                )
        _note(file, record, slug, message, submission)
        return submission


def wait_for_score(file: Path, submission: Submission) -> Submission:
    """Wait until Kaggle has scored a submission, and keep the answer in the file's record.

    Raises:
        KaggleError: Kaggle could not score it, or took longer than half an hour.
    """
    slug = competition_slug()
    client = connect()
    longest = 1800.0
    for _ in polls(longest):
        if submission.state != "pending":
            break
        submission = _look_at(client, slug, submission)
    record = read_record(file)
    if record["upload"] and record["upload"]["reference"] == submission.reference:  # may be another file by now
        _note(file, record, slug, record["upload"]["message"], submission)
    if submission.state == "error":
        raise KaggleError(
            f"{file}: Kaggle could not score submission {submission.reference} "
            f"({submission.error or 'no reason given'}). See {submission.url}"
        )
    if submission.state == "pending":
        raise KaggleError(
            f"{file}: submission {submission.reference} is not scored after {longest / 60:.0f} minutes. Repeat the "
            "command with --wait later: it does not submit the file again."
        )
    return submission


def _note(file: Path, record: dict[str, Any], slug: str, message: str, submission: Submission) -> None:
    """Write what is known of the submission into the file's record."""
    save_record(file, record | {"upload": {**asdict(submission), "competition": slug, "message": message}})


def _rows_of(slug: str, rows: int | None) -> tuple[int, str]:
    """Return how many rows a competition wants, and where that number comes from."""
    if slug == COMPETITION:
        return TEST_ROWS, "test.csv"
    if rows is not None:
        return rows, "test.csv"
    source = find_competition()
    return expected_rows(None if source and source.is_sample else source)


def _check_limits(client: Client, slug: str) -> int | None:
    """Return how many submissions are left today, or None if Kaggle does not say."""

    def read(answer: dict[str, Any]) -> list[int]:
        return [int(answer.get(name, 0)) for name in ("numToday", "numTotal", "numAllowedNow", "limitedByTotal")]

    what, request = f"submission limits of {slug}", {"competitionName": slug}
    today, total, allowed, by_total = client.ask(what, "competitions.GetSubmissionLimits", request, read)
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
    what = f"upload of {file.name}"
    request = {
        "competitionName": slug,
        "fileName": file.name,
        "contentLength": len(contents),
        "lastModifiedEpochSeconds": int(file.stat().st_mtime),
    }

    def send() -> str:
        read = itemgetter("token", "createUrl")
        token, address = client.ask(what, "competitions.StartSubmissionUpload", request, read, repeat=False)

        def put() -> None:
            answer = requests.put(address, data=contents, allow_redirects=False)
            if answer.status_code not in (200, 201):
                raise requests.HTTPError(response=answer)

        client.call(what, put, repeat=False, storage=True)
        return token

    return client.call(what, send)


def _create(client: Client, slug: str, name: str, token: str, description: str) -> Submission | None:
    """Send the one request that is never repeated. Return None if Kaggle's answer was lost.

    Raises:
        AccessError, KaggleError: Kaggle refused.
    """

    def read(answer: dict[str, Any]) -> Submission:
        return Submission(int(answer["ref"]), "pending", _now(), submissions_page(slug))

    request = {"competitionName": slug, "blobFileTokens": token, "submissionDescription": description}
    try:
        return client.ask(f"submission of {name}", "competitions.CreateSubmission", request, read, repeat=False)
    except DigitsError as error:
        if 400 <= status_of(error.__cause__) < 500:
            raise
        log.info("%s Looking for the submission in the list.", error)
        return None


def _find_known(client: Client, slug: str, upload: dict[str, Any] | None, marker: str) -> Submission | None:
    """Return the newest submission with the same contents, from the file's record or from Kaggle's list."""
    if not upload or upload["competition"] != slug:
        return _find(client, slug, marker)
    if upload["state"] == "sent":
        log.info("An earlier call was stopped, or lost its answer; looking for its submission for a minute")
        newer = _find(client, slug, marker, LOST_PAUSES, after=upload["reference"] or 0)
        return newer or (_find(client, slug, marker) if upload["reference"] else None)
    submission = Submission(**{field.name: upload[field.name] for field in fields(Submission)})
    return _look_at(client, slug, submission) if submission.state == "pending" else submission


def _find(
    client: Client, slug: str, marker: str, pauses: tuple[float, ...] = (), *, after: int = 0
) -> Submission | None:
    """Look for the newest submission with a marker and a reference above ``after``, now and after every pause."""

    def read(answer: dict[str, Any]) -> tuple[Submission | None, str]:
        listed = answer.get("submissions") or []
        ours = (entry for entry in listed if int(entry["ref"]) > after and marker in (entry.get("description") or ""))
        return next((_read_submission(entry, slug) for entry in ours), None), answer.get("nextPageToken") or ""

    for pause in (0.0, *pauses):
        if pause:
            time.sleep(pause)
        page = ""
        while True:
            request = {"competitionName": slug, "pageSize": 100, "pageToken": page}
            what = f"list of submissions to {slug}"
            submission, page = client.ask(what, "competitions.ListSubmissions", request, read)
            if submission:
                return submission
            if not page:
                break
    return None


def _look_at(client: Client, slug: str, submission: Submission) -> Submission:
    """Ask once for the state of a submission. One that Kaggle does not know yet is returned unchanged."""
    what, request = f"score of submission {submission.reference}", {"ref": submission.reference}
    try:
        return client.ask(what, "competitions.GetSubmission", request, lambda answer: _read_submission(answer, slug))
    except DigitsError as error:
        if status_of(error.__cause__) == 404:
            return submission
        raise


def _read_submission(answer: dict[str, Any], slug: str) -> Submission:
    """Read a submission. Any state other than complete and error counts as pending, whatever its name."""
    state = str(answer.get("status")).lower().rpartition("_")[2]
    return Submission(
        int(answer["ref"]),
        state if state in ("complete", "error") else "pending",
        str(answer["date"]).partition(".")[0].rstrip("Z") + "Z" if answer.get("date") else _now(),
        # Anything after a question mark may be a signature.
        (answer.get("url") or submissions_page(slug)).partition("?")[0],
        str(answer.get("publicScore") or "") or None,
        (answer.get("errorDescription") or "").strip() or None,
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_zip(path: Path) -> None:
    names_wanted = ("train.csv", "test.csv", "sample_submission.csv")
    try:
        with zipfile.ZipFile(path) as archive:
            broken, names = archive.testzip(), archive.namelist()
    except BROKEN as error:
        broken, names = str(error), []
    missing = [name for name in names_wanted[:2] if name not in names]
    if broken or missing:
        raise DataError(
            f"{path}: {f'damaged ({broken})' if broken else f'holds no {missing[0]}'}. Expected the competition's zip, "
            f"with {', '.join(names_wanted)}. Remove it, and download again."
        )
