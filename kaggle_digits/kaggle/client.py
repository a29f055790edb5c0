"""Sign in and call Kaggle's client: hold back its output, retry passing failures, and explain lasting ones.

Only this module imports the client (``kaggle`` with ``kagglesdk``, 2.0.2 to 2.2.5). It does so inside functions,
because importing the client already signs in, prints, and may end the process. The client finds the credentials itself.
They are never logged or stored here, and read only to say why a kaggle.json cannot be used. Kaggle's own texts are
shown to the user, but never its addresses, which may be signed.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
import importlib.metadata
import io
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from kaggle_digits.errors import AccessError, DigitsError, KaggleError
from kaggle_digits.files import expand_home
from kaggle_digits.tables import COMPETITION

log = logging.getLogger(__name__)

SITE = "https://www.kaggle.com"
TOKEN_PAGE = f"{SITE}/settings/api"
TIMEOUT = (30.0, 120.0)
"""Seconds to wait for a connection, and for the next bytes of an answer."""


def competition_slug() -> str:
    """Return the competition's short name: digit-recognizer, or what $KDIGITS_COMPETITION says (a name or address).

    Raises:
        AccessError: the variable holds something else.
    """
    return slug_of(os.environ.get("KDIGITS_COMPETITION") or COMPETITION, "$KDIGITS_COMPETITION")


def slug_of(name: str, where: str) -> str:
    """Return the short name of a competition, given that name, "c/name", or the competition's address.

    Raises:
        AccessError: ``name`` is something else. The message says ``where`` it was found.

    >>> slug_of("https://www.kaggle.com/competitions/digit-recognizer/overview", "here")
    'digit-recognizer'
    """
    try:
        path = urlsplit(name).path
    except ValueError:  # an address with an unclosed bracket
        path = ""
    slug = next((part for part in path.split("/") if part not in ("", "c", "competitions")), "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", slug):
        raise AccessError(
            f"{where}: {name!r}. Expected the short name of a competition, as in {COMPETITION}, or its address. "
            "Correct it."
        )
    return slug


def submissions_page(slug: str) -> str:
    """Return the address of the page that lists the user's submissions to a competition."""
    return f"{SITE}/competitions/{slug}/submissions"


@dataclass(frozen=True)
class Client:
    """The Kaggle client, signed in; ``api`` is None before.

    Args:
        api: its ``KaggleApi``.
        version: the version of the client.
        credentials: which credentials it found, in words.
        kernel_advice: what the user can do if Kaggle denies a kernel. With "" the errors are about the competition.
    """

    api: Any
    version: str
    credentials: str
    kernel_advice: str = ""

    def ask(
        self, what: str, method: str, fields: dict[str, Any], read: Callable[[Any], Any] | None, *, repeat: bool = True
    ) -> Any:
        """Send one request of Kaggle's SDK, and read the answer as JSON.

        The client's own functions hide which request failed, and differ between versions. The SDK's types of answers
        fail on a state that they do not know, and fill in what is missing.

        Args:
            what, repeat: as in ``call``.
            method: an area of the SDK and a method, as in "competitions.GetSubmission".
            fields: the fields of the request, as in JSON.
            read: turns the answer's JSON into the result. If it raises an exception, the answer counts as not
                understood. None returns the answer as it comes, for a file.
        """
        area, name = method.split(".")
        service = {"competitions": "Competition", "kernels": "Kernels"}[area]

        def send() -> Any:
            from kagglesdk.common.types.http_redirect import HttpRedirect

            types = importlib.import_module(f"kagglesdk.{area}.types.{service.lower()}_api_service")
            # SDK 0.1.20 has no type for the question about limits. It has the same one field as this one.
            request_type = getattr(types, f"Api{name}Request", None) or types.ApiDownloadDataFilesRequest
            with self.api.build_kaggle_client() as services:
                # Asked for a redirect, the SDK returns the HTTP answer as it comes.
                answer = services.http_client().call(
                    f"{area}.{service}ApiService", name, request_type.from_dict(fields), HttpRedirect
                )
                return read(answer.json()) if read else answer

        return self.call(what, send, repeat=repeat)

    def call(self, what: str, action: Callable[[], Any], *, repeat: bool = True, storage: bool = False) -> Any:
        """Call the client with its output held back and a timeout. Retry passing failures, and explain lasting ones.

        Args:
            what: what is requested, for messages.
            action: the call. It may make further calls, which are then repeated together.
            repeat: whether the request may reach Kaggle more than once.
            storage: whether the call transfers a file, from or to an address that Kaggle gave.

        Raises:
            AccessError, KaggleError: explained for the user; the cause is what the client raised.
        """
        pauses = iter((1.0, 2.0, 4.0, 8.0) if repeat else ())
        while True:
            try:
                with _guarded():
                    return action()
            except (OSError, DigitsError) as error:
                cause = error.__cause__ if isinstance(error, DigitsError) else error
                if not isinstance(cause, requests.RequestException):  # a full disk, for example
                    raise
                pause = next(pauses, None)
                wait = pause and (_retry_after(cause) or pause)
                if not wait or wait > 120 or not is_passing(cause):  # a longer wait is left to the user
                    raise (error if error is not cause else self._explain(what, cause, storage=storage)) from cause
                log.info("%s: %s; trying again in %.0f s", what, _said(cause), wait)
            except Exception as error:
                # The client's parsing is not guarded, and may raise anything.
                raise KaggleError(
                    f"{what}: client {self.version} does not understand Kaggle's answer ({type(error).__name__}: "
                    f"{error}). Try again, or update the client: pip install -U kaggle"
                ) from error
            time.sleep(wait)

    def _explain(self, what: str, error: requests.RequestException, *, storage: bool) -> DigitsError:
        slug, status, said = competition_slug(), status_of(error), _said(error)
        rules, answered = f"{SITE}/competitions/{slug}/rules", f"{what}: Kaggle answered {said}."
        if not isinstance(error, requests.HTTPError):
            return KaggleError(
                f"{what}: no whole answer from Kaggle ({said}). Expected a network that reaches {SITE}. Check whether "
                "it wants you to log in, and $HTTPS_PROXY if you need one. Then repeat the command."
            )
        if storage:
            return KaggleError(
                f"{what}: Kaggle's storage answered {said}. Its addresses are valid only for a short time. Repeat the "
                "command."
            )
        if status == 401:
            return AccessError(
                f"{what}: Kaggle refused {self.credentials} ({said}; client {self.version}). Expected credentials that "
                f"are valid today. Make new ones at {TOKEN_PAGE}. A new legacy key invalidates the old one. An access "
                "token belongs in $KAGGLE_API_TOKEN or ~/.kaggle/access_token, not in kaggle.json."
            )
        if status in (403, 404):
            advice = self.kernel_advice or (
                f"Expected a user who has joined the competition {slug!r}. Accept its rules in a browser, since no "
                f"program can: {rules}. Kaggle may want a verified phone number first ({SITE}/settings), and gives "
                "the same answer for a misspelt name or a closed competition."
            )
            return AccessError(f"{answered} {advice}")
        if status == 429:
            wait = _retry_after(error)
            wait_words = f"{wait:.0f} s" if wait else "a few minutes"
            return KaggleError(f"{answered} Expected fewer requests. Wait {wait_words}, then repeat the command.")
        if status >= 500:
            return KaggleError(f"{answered} Repeat the command in a few minutes.")
        if self.kernel_advice:
            return KaggleError(
                f"{answered} Expected a kernel that it can run. See {SITE}/code, and how many of your weekly hours are "
                f"left: {SITE}/settings."
            )
        return KaggleError(
            f"{answered} Expected a user who has joined ({rules}) and has submissions left today "
            f"({submissions_page(slug)}). Check both, then repeat the command."
        )


def connect() -> Client:
    """Import the client, which signs in by itself, and say which credentials it found.

    Raises:
        AccessError: there is no client, it found no credentials, or Kaggle refused them.
        KaggleError: Kaggle could not be reached.
    """
    try:
        version = importlib.metadata.version("kaggle")
    except importlib.metadata.PackageNotFoundError as error:
        raise AccessError("The Kaggle client is not installed. Install it: pip install kaggle") from error
    hint = (
        "Expected an access token in $KAGGLE_API_TOKEN or ~/.kaggle/access_token, or a legacy key in "
        f"~/.kaggle/kaggle.json. {_explain_key_file()}Make one at {TOKEN_PAGE}."
    )

    def sign_in() -> Any:
        # The import signs in. From 2.2.4 on it hides why it failed, so a second attempt has to show the reason.
        import kaggle

        if not kaggle.api.config_values.get("auth_method"):
            kaggle.api.authenticate()
        return kaggle.api

    try:
        api = Client(None, version, "your access token").call("signing in", sign_in)
    except SystemExit:  # how older clients say that there are none
        api = None
    except DigitsError as error:
        if isinstance(error.__cause__, OSError):  # raised by requests: Kaggle refused, or did not answer
            raise
        # A credentials file holds something else. The client does not say which file, or what it holds.
        raise AccessError(f"Kaggle client {version}: cannot read the credentials it found. {hint}") from error
    method = str(api and api.config_values.get("auth_method"))
    if "None" in method:
        raise AccessError(
            f"Kaggle client {version}: found no credentials that Kaggle accepts; a token that has expired counts as "
            f"none. {hint}"
        )
    kinds = {"LEGACY_API_KEY": "your legacy key", "OAUTH": "your login"}
    credentials = next((words for kind, words in kinds.items() if kind in method), "your access token")
    return Client(api, version, credentials)


def _explain_key_file() -> str:
    """Say what is wrong with a kaggle.json that cannot be used, or return ""."""
    for folder in (os.environ.get("KAGGLE_CONFIG_DIR") or "~/.kaggle", "~/.config/kaggle"):
        file = expand_home(folder) / "kaggle.json"
        if not file.is_file():
            if misnamed := sorted(path for path in file.parent.glob("kaggle*.json*") if path.is_file()):
                return f"{misnamed[0]} is there but has another name. Rename it to kaggle.json. "
            continue
        try:
            contents = file.read_bytes()
            key = json.loads(contents.decode("utf-8"))
        except OSError as error:
            return f"{file} is there but cannot be read ({error.strerror}). Check its permissions. "
        except ValueError:
            reason = "is no whole JSON file; it may be cut off"
            if contents.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                reason = "starts with a byte-order mark, which an editor has put there"
            return f"{file} is there but {reason}. Download it again, and do not edit it. "
        if not (isinstance(key, dict) and key.get("username") and key.get("key")):
            return f"{file} is there but holds no username and key. Download it again. "
    return ""


def polls(longest: float) -> Iterator[None]:
    """Yield at once, and then after growing pauses that add up to ``longest`` seconds."""
    pause, waited = 1.0, 0.0
    while waited <= longest:
        yield
        time.sleep(pause)
        waited += pause
        pause = min(1.5 * pause, 15.0)


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Hold back what the client prints (in verbose mode even the credentials), and give its requests a timeout.

    The client would wait for ever. It has no setting for a timeout, and opens its own sessions, the first one while it
    is imported. So the timeout is set in requests itself during a call.
    """
    send = HTTPAdapter.send

    def send_and_wait(*arguments: Any, **options: Any) -> Any:
        return send(*arguments, **{**options, "timeout": options.get("timeout") or TIMEOUT})

    HTTPAdapter.send = send_and_wait  # type: ignore[method-assign]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        HTTPAdapter.send = send  # type: ignore[method-assign]


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status that an error carries, or 0."""
    response = getattr(error, "response", None)
    # Compared with None, because a response with a status of 400 or more is false.
    return 0 if response is None else response.status_code


def is_passing(error: BaseException | None) -> bool:
    """Return whether a request that failed with this error may succeed later."""
    # With 308 the storage says that it lacks a part of the file.
    return not isinstance(error, requests.HTTPError) or status_of(error) in (308, 429, 500, 502, 503, 504)


def _said(error: requests.RequestException) -> str:
    """Return the status and message of Kaggle's answer, but never its address, which may be signed."""
    response = error.response
    if not isinstance(error, requests.HTTPError) or response is None:
        return type(error).__name__
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = str(response.reason)
    return f"{response.status_code}, {message.strip().rstrip('.')!r}"


def _retry_after(error: requests.RequestException) -> float:
    """Return how many seconds Kaggle asks to wait, or 0 if it does not say, or names a date."""
    asked = "" if error.response is None else error.response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0.0
