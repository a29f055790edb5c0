"""Serve a page to draw digits on, or to drop photographs on, from this computer to its own browser."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kaggle_digits.digits import PIXELS
from kaggle_digits.errors import DataError, InputError
from kaggle_digits.handwriting.reader import Reader, describe, read_picture

log = logging.getLogger(__name__)

MOST_BYTES = 20_000_000
"""A picture has at most this many bytes."""

MOST_READ = 10 * MOST_BYTES
"""So far a larger one is read and thrown away, because a browser listens for the answer only when it has sent all."""

SMALL_BYTES, LARGE_BODIES = 1_000_000, 8
"""Eight pictures of more than a million bytes are in memory at once, and no more. What the page draws is smaller."""

MOST_CONNECTIONS = 600
"""Who comes while this many others are connected is asked to come back later."""

SECONDS = 60.0
"""A picture must arrive within these seconds, or the server stops waiting for it."""

NO_TOKEN = "The token is missing from the address. Open the address that the terminal shows."
PAGE = Path(__file__).with_name("pad.html")
HEADERS = {
    "Cache-Control": "no-store",
    # The page contains its style and script, draws its own pictures, and sends requests only to this server.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class _TooLargeError(DataError):
    """A picture has more bytes than the server accepts."""


def make_app(reader: Reader, *, host: str = "127.0.0.1", token: str | None = None) -> Starlette:
    """Build the server of the page, which also answers the page's requests. It writes no picture to disk.

    ``POST /digit`` takes a picture file with one digit as its body, ``POST /photo`` one with a page of digits. Both
    answer with what ``kaggle-digits recognize --json`` prints of the first page, how many ``pages`` there are, and for
    each digit the 784 ``pixels`` that the network saw. ``POST /why`` answers like ``/digit``, with 784 more numbers,
    ``why``: above 0, a pixel speaks for the reading, and below 0 against it, see ``occlusion``. With the status 400,
    403, 408 or 413 they answer with an ``error``.

    Args:
        reader: reads the digits.
        host: the address under which the page will be opened. Requests under other names that lead here are refused,
            unless the server is open to all.
        token: if there is one, every request must have it in its address, as in ``/?token=…``.
    """
    page = PAGE.read_text(encoding="utf-8")
    # Pictures are read one after another, because each may take a few hundred megabytes, and only some of those that
    # wait for it are in memory.
    one_at_a_time, places = asyncio.Lock(), asyncio.Semaphore(LARGE_BODIES)

    def answer(picture: bytes, what: str) -> dict[str, Any]:
        page, *others = read_picture(picture, reader=reader, single=what != "/photo", name="the picture")
        described = describe("", page) | {"pages": 1 + len(others)}
        for entry, digit in zip(described["digits"], page.digits, strict=True):
            entry["pixels"] = digit.pixels.tolist()
            if what == "/why":
                entry["why"] = reader.explain(digit).ravel().round(4).tolist()
        return described

    def is_let_in(request: Request) -> bool:
        return token is None or secrets.compare_digest(request.query_params.get("token", "").encode(), token.encode())

    async def show_page(request: Request) -> Response:
        if not is_let_in(request):
            return PlainTextResponse(f"{NO_TOKEN}\n", status_code=403, headers=HEADERS)
        return HTMLResponse(page, headers=HEADERS)

    def refuse(status: int, error: str) -> Response:
        return JSONResponse({"error": error}, status_code=status, headers=HEADERS)

    async def answer_picture(request: Request) -> Response:
        if not is_let_in(request):
            return refuse(403, NO_TOKEN)
        origin = request.headers.get("origin")
        if origin and origin.partition("://")[2] != request.headers.get("host"):
            return refuse(403, "Only this server's own page may send requests.")
        async with contextlib.AsyncExitStack() as held:
            try:
                picture = await _body(request, lambda: held.enter_async_context(places))
                async with one_at_a_time:
                    answered = await run_in_threadpool(answer, picture, request.scope["path"])
            except ClientDisconnect:  # the page was closed, or gave the request up
                return Response(status_code=400)
            except TimeoutError:
                return refuse(408, f"the picture: not here after {SECONDS:.0f} s. Send it again.")
            except DataError as error:
                return refuse(413 if isinstance(error, _TooLargeError) else 400, str(error))
            return JSONResponse(answered, headers=HEADERS)

    # The first prediction takes longer than the others, so it is made before the page opens.
    reader.classify(np.zeros((1, PIXELS), np.uint8))
    hosts = (
        ["*"] if _is_open_to_all(host) else ["127.0.0.1", "localhost", "[::1]", "[", host]
    )  # "[": what older releases of Starlette make of [::1]:8000
    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/digit", answer_picture, methods=["POST"]),
            Route("/why", answer_picture, methods=["POST"]),
            Route("/photo", answer_picture, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


async def _body(request: Request, take_place: Callable[[], Awaitable[object]]) -> bytes:
    """Read the body of a request. A large one waits for a place, which counts as no time.

    Raises:
        DataError: it is too large.
        TimeoutError: it did not arrive in time.
    """
    too_large = _TooLargeError(
        f"the picture: more than {MOST_BYTES // 1_000_000} MB. Expected {MOST_BYTES // 1_000_000} or less. Save it "
        "smaller."
    )
    if int(request.headers.get("content-length", 0)) > MOST_READ:
        raise too_large
    body = bytearray()
    size, has_place = 0, False
    async with asyncio.timeout(SECONDS) as limit:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MOST_READ:
                raise too_large
            if size > MOST_BYTES:
                body.clear()
                continue
            body += chunk
            if size > SMALL_BYTES and not has_place:
                limit.reschedule(None)
                await take_place()
                has_place = True
                limit.reschedule(asyncio.get_running_loop().time() + SECONDS)
    if size > MOST_BYTES:
        raise too_large
    return bytes(body)


def _is_open_to_all(host: str) -> bool:
    return host in ("", "0", "0.0.0.0", "::")


def _own_address() -> str:
    """Return the address under which others in the same network reach this computer, or else its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # an address of nobody (RFC 5737). Nothing is sent
        except OSError:
            return socket.gethostname()
        return asked.getsockname()[0]


def _is_this_computer(host: str) -> bool:
    """Whether only this computer can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        return False


def serve(make_reader: Callable[[], Reader], *, host: str, port: int) -> None:
    """Serve the page until interrupted.

    Args:
        make_reader: loads the reader, which takes a while. It is called once the port is open.
        host, port: the address to listen on; port 0 takes a free one. If others can reach it, the address that is
            printed carries a token, without which nothing is answered.

    Raises:
        InputError: the address or port cannot be used.
    """
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"--host {host} --port {port}: cannot be used ({error}). Expected an address of this computer and a free "
            "port. Try --port 0."
        ) from error
    token = None if _is_this_computer(host) else secrets.token_urlsafe()
    with listening:
        app = make_app(make_reader(), host=host, token=token)
        named = _own_address() if _is_open_to_all(host) else host
        shown = f"[{named}]" if ":" in named else named
        log.info(
            "Open http://%s:%d%s in your browser. Ctrl+C stops the server.",
            shown,
            listening.getsockname()[1],
            f"/?token={token}" if token else "",
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, lifespan="off", limit_concurrency=MOST_CONNECTIONS
            )
        )
        server.run(sockets=[listening])
