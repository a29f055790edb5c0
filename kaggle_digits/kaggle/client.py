"""Sign in and call Kaggle's client: hold back its output, retry passing failures, and explain lasting ones.

Only this module imports the client (``kaggle`` with ``kagglesdk``, 2.0.2 to 2.2.5). It does so inside functions,
because importing the client already signs in, prints, and may end the process. The client finds the credentials itself.
They are never logged or stored here, and read only to say why a kaggle.json cannot be used. Kaggle's own texts are
shown to the user, but never its addresses, which may be signed.
"""

from __future__ import annotations

import codecs
import contextlib
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

from kaggle_digits.errors import AccessError, DigitsError, KaggleError
from kaggle_digits.files import expand_home
from kaggle_digits.tables import COMPETITION

log = logging.getLogger(__name__)

SITE = "https://www.kaggle.com"
TOKEN_PAGE = f"{SITE}/settings/api"
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts at a request or an upload that may be repeated."""
LONGEST_PAUSE = 120.0
"""If Kaggle asks to wait for more seconds than this, we give up instead."""
TIMEOUT = (30.0, 120.0)
"""Seconds to wait for a connection, and for the next bytes of an answer."""
TRANSIENT = (429, 500, 502, 503, 504)
POLL_SECONDS = (1.0, 15.0)
"""First and longest pause, in seconds, between two looks at a score or a kernel."""


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
    parts = [part for part in path.split("/") if part not in ("", "c", "competitions")]
    slug = parts[0] if parts else ""
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
    """

    api: Any
    version: str
    credentials: str

    def ask(
        self,
        what: str,
        method: str,
        fields: dict[str, Any],
        read: Callable[[Any], Any] | None,
        *,
        repeat: bool = True,
        denied: str | None = None,
    ) -> Any:
        """Send one request of Kaggle's protocol over the client's HTTP session.

        The client's own functions hide which request failed, differ between versions, and fail on states that they do
        not know.

        Args:
            what, repeat, denied: as in ``call``.
            method: a method of the protocol, as in "competitions.CompetitionApiService/GetSubmission".
            fields: the fields of the request, as in JSON.
            read: turns the answer's JSON into the result. If it raises an exception, the answer counts as not
                understood. None returns the answer as it comes, for a file.
        """
        from kagglesdk.common.types.http_redirect import HttpRedirect

        class Body:
            @staticmethod
            def to_dict(_: Body) -> dict[str, Any]:
                return fields

        class Json:
            @staticmethod
            def prepare_from(response: Any) -> Any:
                return read(response.json()) if read else response

        with self.api.build_kaggle_client() as services:
            send = services.http_client().call
            kind = Json if read else HttpRedirect  # the client streams only the answers of its own file types
            return self.call(what, lambda: send(*method.split("/"), Body(), kind), repeat=repeat, denied=denied)

    def call(
        self,
        what: str,
        action: Callable[[], Any],
        *,
        repeat: bool = True,
        denied: str | None = None,
        storage: bool = False,
    ) -> Any:
        """Call the client with its output held back. Retry passing failures, and explain lasting ones.

        Args:
            what: what is requested, for messages.
            action: the call.
            repeat: whether the request may reach Kaggle more than once.
            denied: what the user can do about the statuses 403 and 404. None gives the advice for competitions.
            storage: whether the call transfers a file, from or to an address that Kaggle gave.

        Raises:
            AccessError, KaggleError: explained for the user; the cause is what the client raised.
        """
        import requests

        pauses = iter(PAUSES if repeat else ())
        while True:
            try:
                with _guarded():
                    return action()
            except requests.HTTPError as error:
                pause = next(pauses, None)
                wait = _retry_after(error) or pause
                if pause is None or wait is None or status_of(error) not in TRANSIENT or wait > LONGEST_PAUSE:
                    raise self._explain(what, error, denied, storage=storage) from error
                reason = _said(error)
            except requests.RequestException as error:
                wait, reason = next(pauses, None), type(error).__name__
                if wait is None:
                    raise KaggleError(
                        f"{what}: no whole answer from Kaggle ({reason}). Expected a network that reaches {SITE}. "
                        "Check whether it wants you to log in, and $HTTPS_PROXY if you need one. Then repeat the "
                        "command."
                    ) from error
            except (OSError, DigitsError):  # a full disk
                raise
            except Exception as error:
                # The client does not guard its parsing, and raises what it likes.
                raise KaggleError(
                    f"{what}: client {self.version} does not understand Kaggle's answer ({type(error).__name__}: "
                    f"{error}). Try again, or update the client: pip install -U kaggle"
                ) from error
            log.info("%s: %s; trying again in %.0f s", what, reason, wait)
            time.sleep(wait)

    def _explain(self, what: str, error: Exception, denied: str | None, *, storage: bool) -> DigitsError:
        status, said = status_of(error), _said(error)
        if storage:
            return KaggleError(
                f"{what}: Kaggle's storage answered {said}. Its addresses are valid only for a short time. Repeat the "
                "command."
            )
        slug = competition_slug()
        rules = f"{SITE}/competitions/{slug}/rules"
        if status == 401:
            return AccessError(
                f"{what}: Kaggle refused {self.credentials} ({said}; client {self.version}). Expected credentials that "
                f"are valid today. Make new ones at {TOKEN_PAGE}. A new legacy key invalidates the old one. An access "
                "token belongs in $KAGGLE_API_TOKEN or ~/.kaggle/access_token, not in kaggle.json."
            )
        if status in (403, 404):
            return AccessError(
                f"{what}: Kaggle answered {said}. "
                + (
                    denied
                    or f"Expected a user who has joined the competition {slug!r}. Accept its rules in a browser, "
                    f"since no program can: {rules}. Kaggle may want a verified phone number first ({SITE}/settings), "
                    "and gives the same answer for a misspelt name or a closed competition."
                )
            )
        if status == 429:
            return KaggleError(
                f"{what}: Kaggle answered {said}. Expected fewer requests. Wait "
                f"{f'{_retry_after(error):.0f} s' if _retry_after(error) else 'a few minutes'}, then repeat the "
                "command."
            )
        if status < 500 and denied:
            return KaggleError(
                f"{what}: Kaggle answered {said}. Expected a kernel that it can run. See {SITE}/code, and how many of "
                f"your weekly hours are left: {SITE}/settings."
            )
        if status < 500:
            return KaggleError(
                f"{what}: Kaggle answered {said}. Expected a user who has joined ({rules}) and has submissions left "
                f"today ({submissions_page(slug)}). Check both, then repeat the command."
            )
        return KaggleError(f"{what}: Kaggle answered {said}. Repeat the command in a few minutes.")


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
    missing = AccessError(
        f"Kaggle client {version}: found no credentials that Kaggle accepts; a token that has expired counts as none. "
        f"{hint}"
    )

    def sign_in() -> Any:
        # The import signs in. From 2.2.4 on it hides why it failed, so a second attempt has to show the reason.
        import kaggle

        if not kaggle.api.config_values.get("auth_method"):
            kaggle.api.authenticate()
        return kaggle.api

    try:
        api = Client(None, version, "your access token").call("signing in", sign_in)
    except SystemExit as error:
        raise missing from error
    except DigitsError as error:
        if isinstance(error.__cause__, OSError):  # raised by requests: Kaggle refused, or did not answer
            raise
        # A credentials file holds something else. The client does not say which file, or what it holds.
        raise AccessError(f"Kaggle client {version}: cannot read the credentials it found. {hint}") from error
    method = str(api.config_values.get("auth_method"))
    if "None" in method:
        raise missing
    found = {"LEGACY_API_KEY": "your legacy key", "OAUTH": "your login"}
    credentials = next((words for name, words in found.items() if name in method), "your access token")
    return Client(api, version, credentials)


def _explain_key_file() -> str:
    """Say what is wrong with a kaggle.json that is there and cannot be used, or return ""."""
    folders = [expand_home(os.environ.get("KAGGLE_CONFIG_DIR") or "~/.kaggle"), expand_home("~/.config/kaggle")]
    for folder in folders:
        file = folder / "kaggle.json"
        if file.is_file():
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
        elif misnamed := [each for each in sorted(folder.glob("kaggle*.json*")) if each.is_file()]:
            return f"{misnamed[0]} is there but has another name. Rename it to kaggle.json. "
    return ""


def polls(longest: float | None) -> Iterator[None]:
    """Yield at once, and then after growing pauses that add up to ``longest`` seconds. None goes on for ever."""
    pause, waited = POLL_SECONDS[0], 0.0
    while longest is None or waited <= longest:
        yield
        time.sleep(pause)
        waited += pause
        pause = min(1.5 * pause, POLL_SECONDS[1])


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Hold back what the client prints (in verbose mode even the credentials), and give its requests a timeout.

    The client has no setting for a timeout, and would wait for ever.
    """
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def send_and_wait(*arguments: Any, **options: Any) -> Any:
        options["timeout"] = options.get("timeout") or TIMEOUT
        return send(*arguments, **options)

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


def _said(error: Exception) -> str:
    """Return the status and message of Kaggle's answer, but never its address, which may be signed."""
    response = error.response  # type: ignore[attr-defined]
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = str(response.reason)
    return f"{response.status_code}, {message.strip().rstrip('.')!r}"


def _retry_after(error: Exception) -> float | None:
    """Return how many seconds Kaggle asks to wait, or None if it asks nothing, or names a date."""
    asked = error.response.headers.get("Retry-After", "")  # type: ignore[attr-defined]
    return float(asked) if asked.isdigit() else None
