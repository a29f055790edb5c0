"""Serve a page to draw digits on, or to drop photographs on, from this computer to its own browser."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import logging
import secrets
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import segno
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kaggle_digits.digits import CLASSES, PIXELS
from kaggle_digits.errors import DataError, InputError
from kaggle_digits.export.web import build_page
from kaggle_digits.files import atomic_path, make_folder
from kaggle_digits.handwriting.photo import load_photos
from kaggle_digits.handwriting.reader import Reader, describe

log = logging.getLogger(__name__)

SECONDS = 60.0
"""Maximum seconds to wait for a picture to arrive."""


_WRONG = """<p id="wrong" hidden><label>That's wrong, it is a
      <select id="truth"><option value="">?</option>{}</select></label>
      <button id="keep" type="button">Keep it</button></p>
<output id="kept" class="hint"></output>
"""
_INVITATION = """<h2>On your own device</h2>
<p>Open {} or scan this code:</p>
<div class="code">{}</div>
"""


class _TooLargeError(DataError):
    """A picture has more bytes than the server accepts."""


def make_app(
    reader: Reader,
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    address: str | None = None,
    keep: Path | None = None,
) -> Starlette:
    """Build the server of the page, which also answers the page's requests.

    ``POST /digit`` takes a drawing of one digit, or of several in a row, as a picture file in its body, and
    ``POST /photo`` a photograph of a page. Both answer with what ``kaggle-digits recognize --json`` prints of the first
    page, how many ``pages`` there are, and for each digit the 784 ``pixels`` that the network saw. ``POST /why``
    answers like ``/digit``, with 784 more numbers, ``why``: above 0, a pixel speaks for the reading, and below 0
    against it, see ``occlusion``. ``POST /wrong-3`` keeps a drawing that is a 3. With the status 400, 403, 408 or 413
    they answer with an ``error``. All paths begin with the token, if there is one.

    Args:
        reader: reads the digits.
        host: the address under which the page will be opened. Requests under other names that lead here are refused,
            unless the server is open to all.
        token: if there is one, every address must begin with it, as in ``/abcdef``.
        address: what the page shows to those who want to open it on their own device.
        keep: the folder for drawings that were read wrongly, in class folders. Without it, nothing is written.
    """
    more, _, script = Path(__file__).with_name("pad.html").read_text(encoding="utf-8").partition("<script>\n")
    kept = "" if keep is None else ", except the drawings of which you say that they are read wrongly"
    where = (
        f"Nothing leaves this computer, and nothing is kept{kept}."
        if _is_this_computer(host)
        else f"Drawings and pictures are read by the computer that serves this page. It keeps nothing{kept}."
    )
    wrong = "" if keep is None else _WRONG.format("".join(f"<option>{digit}</option>" for digit in range(CLASSES)))
    invitation = (
        "" if address is None else _INVITATION.format(address, segno.make(address, micro=False).svg_inline(scale=5))
    )
    html = build_page(
        script.removesuffix("</script>\n"),
        where=where,
        what="Drop or paste a picture of handwritten digits here.",
        beside=wrong,
        more=more + invitation,
    )
    headers = {
        "Cache-Control": "no-store",
        # The page contains its style and script, draws its own pictures, and sends requests only to this server.
        "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:; media-src blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    no_token = "This address does not end as the one in the terminal does. Open that one."
    # Reading a picture may take a few hundred megabytes, so one is read at a time. At most eight large ones wait.
    one_at_a_time, large_bodies = asyncio.Lock(), asyncio.Semaphore(8)
    wrong_at: dict[str, float] = {}  # when each client gave a wrong token

    def answer(picture: bytes, path: str) -> dict[str, Any]:
        photo, *others = load_photos(picture, name="the picture")
        page = reader.read_pages([photo])[0] if path == "photo" else reader.read_drawing(photo)
        described = describe("", page) | {"pages": 1 + len(others)}
        for entry, digit in zip(described["digits"], page.digits, strict=True):
            entry["pixels"] = digit.pixels.tolist()
            if path == "why":
                entry["why"] = reader.explain(digit).ravel().round(4).tolist()
        return described

    def save(picture: bytes, digit: str) -> dict[str, Any]:
        most = 100_000  # bytes; a drawing of the page has a tenth of them
        if len(picture) > most or not picture.startswith(b"\x89PNG"):
            raise DataError(f"the drawing: {len(picture):,} bytes. Expected a PNG of at most {most:,}. Draw it here.")
        list(load_photos(picture, name="the picture"))  # or it is refused
        assert keep is not None
        try:
            with atomic_path(keep / digit / f"{datetime.now():%Y%m%d-%H%M%S-%f}.png") as partial:
                partial.write_bytes(picture)
        except OSError as error:
            log.error("%s: a drawing could not be kept (%s)", keep, error)
            raise DataError("The drawing could not be kept. Ask whoever started the program.") from error
        return {}

    def has_token(request: Request) -> bool:
        if token is None:
            return True
        client, now = request.client.host if request.client else "", time.monotonic()
        if now - wrong_at.get(client, -1.0) < 0.1:  # six letters are enough if nobody can try more than ten a second
            return False
        if secrets.compare_digest(request.path_params["token"].encode(), token.encode()):
            return True
        if len(wrong_at) > 10_000:
            wrong_at.clear()
        wrong_at[client] = now
        return False

    async def show_page(request: Request) -> Response:
        if not has_token(request):
            return PlainTextResponse(f"{no_token}\n", status_code=403, headers=headers)
        return HTMLResponse(html, headers=headers)

    def refuse(status: int, error: str) -> Response:
        return JSONResponse({"error": error}, status_code=status, headers=headers)

    async def answer_picture(request: Request) -> Response:
        if not has_token(request):
            return refuse(403, no_token)
        origin = request.headers.get("origin")
        if origin and origin.partition("://")[2] != request.headers.get("host"):
            return refuse(403, "Only this server's own page may send requests.")
        path = request.scope["path"].rpartition("/")[2]
        async with contextlib.AsyncExitStack() as held:
            try:
                picture = await _body(request, lambda: held.enter_async_context(large_bodies))
                async with one_at_a_time:
                    if path.startswith("wrong-"):
                        answered = await run_in_threadpool(save, picture, path[-1])
                    else:
                        answered = await run_in_threadpool(answer, picture, path)
            except ClientDisconnect:  # the page was closed, or gave the request up
                return Response(status_code=400)
            except TimeoutError:
                return refuse(408, f"the picture: not here after {SECONDS:.0f} s. Send it again.")
            except DataError as error:
                return refuse(413 if isinstance(error, _TooLargeError) else 400, str(error))
            return JSONResponse(answered, headers=headers)

    # The first prediction takes longer than the others, so it is made before the page opens.
    reader.classify(np.zeros((1, PIXELS), np.uint8))
    reader.find_ink(np.ones((64, 64), np.float32))
    # Older releases of Starlette make "[" of [::1]:8000.
    hosts = ["*"] if _is_open_to_all(host) else ["127.0.0.1", "localhost", "[::1]", "[", host, f"[{host}]"]
    start = "/{token}" if token else ""
    asked = ["digit", "why", "photo", *(f"wrong-{digit}" for digit in range(CLASSES) if keep)]
    routes = [Route(f"{start}/{path}", answer_picture, methods=["POST"]) for path in asked]
    if token:
        routes.append(Route(f"{start}/", show_page))
        routes.append(Route("/{token:path}", show_page, methods=["GET", "POST"]))  # refuses all others
    return Starlette(
        routes=[Route(start or "/", show_page), *routes],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


async def _body(request: Request, wait_for_memory: Callable[[], Awaitable[object]]) -> bytes:
    """Read the body of a request. A large one waits for memory, and this wait does not count.

    Raises:
        DataError: it is too large.
        TimeoutError: it did not arrive in time.
    """
    most = 20_000_000  # bytes of a picture
    # Browsers read the answer only after sending everything: drain up to this many bytes of a larger upload.
    most_read = 10 * most
    large = 1_000_000  # bytes; drawings on the page are smaller
    too_large = _TooLargeError("the picture: more than 20 MB. Expected 20 or less. Save it smaller.")
    if int(request.headers.get("content-length", 0)) > most_read:
        raise too_large
    body = bytearray()
    size, has_memory = 0, False
    async with asyncio.timeout(SECONDS) as limit:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most_read:
                raise too_large
            if size > most:
                body.clear()
                continue
            body += chunk
            if size > large and not has_memory:
                limit.reschedule(None)
                await wait_for_memory()
                has_memory = True
                limit.reschedule(asyncio.get_running_loop().time() + SECONDS)
    if size > most:
        raise too_large
    return bytes(body)


def _is_open_to_all(host: str) -> bool:
    return host in ("", "0", "0.0.0.0", "::")


def _own_address() -> str:
    """Return the address under which others in the same network reach this computer, or else its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        try:
            connection.connect(("192.0.2.1", 9))  # an unused address (RFC 5737). Nothing is sent
        except OSError:
            return socket.gethostname()
        return connection.getsockname()[0]


def _is_this_computer(host: str) -> bool:
    """Whether only this computer can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        return False


def serve(make_reader: Callable[[], Reader], *, host: str, port: int, keep: Path | None = None) -> None:
    """Serve the page until interrupted.

    Args:
        make_reader: loads the reader, which takes a while. It is called once the port is open.
        host, port: the address to listen on; port 0 takes a free one. If others can reach it, the address that is
            printed, also as a QR code, ends with six letters, without which nothing is answered.
        keep: see ``make_app``.

    Raises:
        InputError: the address or port cannot be used, or nothing can be kept.
    """
    if keep:
        try:
            make_folder(keep)
            with tempfile.TemporaryFile(dir=keep):
                pass
        except OSError as error:
            raise InputError(
                f"--keep {keep}: cannot be written ({error.strerror}). Expected a folder. Name another one."
            ) from error
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # The address that is printed for :: is one of IPv4.
        both = host == "::" and socket.has_dualstack_ipv6()
        listening = socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"--host {host} --port {port}: cannot be used ({error}). Expected an address of this computer and a free "
            "port. Try --port 0."
        ) from error
    # Without letters and digits that look alike.
    token = None if _is_this_computer(host) else "".join(secrets.choice("abcdefghkmnpqrstuvwxyz") for _ in range(6))
    with listening:
        name, port = _own_address() if _is_open_to_all(host) else host, listening.getsockname()[1]
        address = f"http://{f'[{name}]' if ':' in name else name}:{port}{f'/{token}' if token else ''}"
        app = make_app(make_reader(), host=host, token=token, address=address if token else None, keep=keep)
        log.info("Open %s in your browser. Ctrl+C stops the server.", address)
        if token:
            code = io.StringIO()
            segno.make(address, micro=False).terminal(out=code, compact=True)
            log.info("%s", code.getvalue().rstrip())
        # Maximum number of connections. Further clients are asked to come back later.
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", limit_concurrency=600)
        uvicorn.Server(config).run(sockets=[listening])
