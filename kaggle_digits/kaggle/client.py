"""Sign in and call Kaggle's client: its output held back, passing failures repeated, lasting ones explained.

The only module that imports the client (``kaggle`` with ``kagglesdk``, 2.0.2 to 2.2.5), and that inside the
functions: its import already signs in, prints, and may end the process. It finds the credentials itself; they are never
read, logged or stored here. Kaggle's own texts are passed on to the user, its addresses never: they may be signed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kaggle_digits.data import COMPETITION
from kaggle_digits.errors import AccessError, DigitsError, KaggleError

log = logging.getLogger(__name__)

SITE = "https://www.kaggle.com"
TOKEN_PAGE = f"{SITE}/settings/api"
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries of a request that may be repeated, and between looks for a lost submission."""
LONGEST_PAUSE = 120.0
"""Seconds that Kaggle may ask to wait for before we give up instead."""
TIMEOUT = (30.0, 120.0)
"""Seconds to wait for a connection, and for the next bytes of an answer."""
TRANSIENT = (429, 500, 502, 503, 504)
POLL_SECONDS = (1.0, 15.0)
"""First and longest pause between two looks at a score or a kernel."""


def competition_slug() -> str:
    """Return the competition's short name: digit-recognizer, or what $KDIGITS_COMPETITION says (a name or address).

    Raises:
        AccessError: the variable holds something else.
    """
    return slug_of(os.environ.get("KDIGITS_COMPETITION") or COMPETITION, "$KDIGITS_COMPETITION")


def slug_of(name: str, where: str) -> str:
    """Return the short name of a competition that is given as such, as "c/name", or as its address.

    Raises:
        AccessError: it is something else; the message says where it stands.

    >>> slug_of("https://www.kaggle.com/competitions/digit-recognizer/overview", "here")
    'digit-recognizer'
    """
    try:
        path = urlsplit(name).path
    except ValueError:  # an address with half a bracket
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
    """Return the address of a competition's page of one's own submissions."""
    return f"{SITE}/competitions/{slug}/submissions"


@dataclass(frozen=True)
class Client:
    """The Kaggle client, signed in; ``api`` is None before.

    Args:
        api: its ``KaggleApi``.
        version: of the client.
        credentials: which ones it found, in words.
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

        The client's own functions hide which request failed, differ between versions, and fail over states that they
        do not know.

        Args:
            what, repeat, denied: as in ``call``.
            method: of the protocol, as in "competitions.CompetitionApiService/GetSubmission".
            fields: of the request, as in JSON.
            read: turns the answer's JSON into what is wanted; what it raises counts as an answer not understood. None
                gives the answer as it comes, for a file.
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
        """Call the client with its output held back; repeat what failed in passing; explain what failed for good.

        Args:
            what: what is asked for, for messages.
            action: the call.
            repeat: whether the request may reach Kaggle more than once.
            denied: what a user does about 403 and 404; None for what helps with competitions.
            storage: whether it is a file that is fetched or left, at an address that Kaggle gave.

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
                        "Check it, for a login page too, and $HTTPS_PROXY if you need one; then repeat the command."
                    ) from error
            except (OSError, DigitsError):  # a full disk
                raise
            except Exception as error:
                # The client does not guard its parsing, and raises what it likes.
                raise KaggleError(
                    f"{what}: client {self.version} does not understand Kaggle's answer ({type(error).__name__}: "
                    f"{error}). Expected one that it knows. Try again, or update the client: pip install -U kaggle"
                ) from error
            log.info("%s: %s; trying again in %.0f s", what, reason, wait)
            time.sleep(wait)

    def _explain(self, what: str, error: Exception, denied: str | None, *, storage: bool) -> DigitsError:
        status, said = status_of(error), _said(error)
        if storage:
            return KaggleError(
                f"{what}: Kaggle's storage answered {said}. Expected to be let in; its addresses hold for a short "
                "time. Repeat the command."
            )
        slug = competition_slug()
        rules = f"{SITE}/competitions/{slug}/rules"
        if status == 401:
            return AccessError(
                f"{what}: Kaggle refused {self.credentials} ({said}; client {self.version}). Expected credentials that "
                f"are valid today. Make new ones at {TOKEN_PAGE}. A new legacy key ends the old one, and an access "
                "token belongs into $KAGGLE_API_TOKEN or ~/.kaggle/access_token, not into kaggle.json."
            )
        if status in (403, 404):
            return AccessError(
                f"{what}: Kaggle answered {said}. "
                + (
                    denied
                    or f"Expected a user who has joined the competition {slug!r}. Accept its rules in a browser, as no "
                    f"program can: {rules}. Kaggle may want a verified phone number first ({SITE}/settings), and gives "
                    "the same answer for a misspelt name or a closed competition."
                )
            )
        if status == 429:
            return KaggleError(
                f"{what}: Kaggle answered {said}. Expected fewer requests. Wait "
                f"{f'{_retry_after(error):.0f} s' if _retry_after(error) else 'some minutes'}, then repeat the command."
            )
        if status < 500 and denied:
            return KaggleError(
                f"{what}: Kaggle answered {said}. Expected a kernel that it can run. See {SITE}/code, and what is left "
                "of "
                f"your weekly hours at {SITE}/settings."
            )
        if status < 500:
            return KaggleError(
                f"{what}: Kaggle answered {said}. Expected a user who has joined ({rules}) and has submissions left "
                f"today ({submissions_page(slug)}). Check both, then repeat the command."
            )
        return KaggleError(f"{what}: Kaggle answered {said}. Expected it to work. Repeat the command in some minutes.")


def connect() -> Client:
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
    found = {"LEGACY_API_KEY": "your legacy key", "OAUTH": "your login"}
    credentials = next((words for name, words in found.items() if name in method), "your access token")
    return Client(api, version, credentials)


def polls(longest: float | None) -> Iterator[None]:
    """Yield now and after pauses that grow, for as long as is worth waiting."""
    pause, waited = POLL_SECONDS[0], 0.0
    while longest is None or waited <= longest:
        yield
        time.sleep(pause)
        waited += pause
        pause = min(1.5 * pause, POLL_SECONDS[1])


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Hold back what the client prints (in verbose mode the credentials), and let its requests give up after a time.

    The client has no setting for that, and would wait for ever.
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
    """Return the HTTP status that an error carries, or 0. A response of 400 and more is false as a truth value."""
    response = getattr(error, "response", None)
    return 0 if response is None else response.status_code


def _said(error: Exception) -> str:
    """Return status and message of Kaggle's answer; never its address, which may be signed."""
    response = error.response  # type: ignore[attr-defined]
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = str(response.reason)
    return f"{response.status_code}, {message.strip().rstrip('.')!r}"


def _retry_after(error: Exception) -> float | None:
    """Return the seconds that Kaggle asks to wait, if it does, and in seconds."""
    asked = error.response.headers.get("Retry-After", "")  # type: ignore[attr-defined]
    return float(asked) if asked.isdigit() else None
