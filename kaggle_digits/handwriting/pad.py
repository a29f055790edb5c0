"""Serve a page to draw digits on, or to drop photographs on, from this computer to its own browser."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from kaggle_digits import PIXELS
from kaggle_digits.errors import DataError, InputError
from kaggle_digits.handwriting.reader import Reader, describe, read_picture

log = logging.getLogger(__name__)

MOST_BYTES = 20_000_000
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


def make_app(reader: Reader, *, host: str = "127.0.0.1") -> Starlette:
    """Build the server of the page, which also answers the page's requests. It writes no picture to disk.

    ``POST /digit`` takes a picture file with one digit as its body, ``POST /photo`` one with a page of digits. Both
    answer with what ``kaggle-digits recognize --json`` prints of the first page, how many ``pages`` there are, and for
    each digit the 784 ``pixels`` that the network saw. With the status 400, 403 or 413 they answer with an ``error``.

    Args:
        reader: reads the digits.
        host: the address under which the page will be opened. Requests under other names that lead here are refused,
            unless the server is open to all.
    """
    page = PAGE.read_text(encoding="utf-8")
    one_at_a_time = threading.Lock()

    def answer(picture: bytes, *, single: bool) -> dict[str, Any]:
        # One at a time, because each may take a few hundred megabytes.
        with one_at_a_time:
            page, *others = read_picture(picture, reader=reader, single=single, name="the picture")
        described = describe("", page) | {"pages": 1 + len(others)}
        for entry, digit in zip(described["digits"], page.digits, strict=True):
            entry["pixels"] = digit.pixels.tolist()
        return described

    async def show_page(_: Request) -> Response:
        return HTMLResponse(page, headers=HEADERS)

    async def answer_picture(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin and origin.partition("://")[2] != request.headers.get("host"):
            return JSONResponse(
                {"error": "Only this server's own page may send requests."}, status_code=403, headers=HEADERS
            )
        try:
            picture = await _body(request)
            answered = await run_in_threadpool(answer, picture, single=request.scope["path"] == "/digit")
        except ClientDisconnect:  # the page was closed, or gave the request up
            return Response(status_code=400)
        except DataError as error:
            status = 413 if isinstance(error, _TooLargeError) else 400
            return JSONResponse({"error": str(error)}, status_code=status, headers=HEADERS)
        return JSONResponse(answered, headers=HEADERS)

    # The first prediction takes longer than the others, so it is made before the page opens.
    reader.classify(np.zeros((1, PIXELS), np.uint8))
    open_to_all = host in ("", "0", "0.0.0.0", "::")
    hosts = (
        ["*"] if open_to_all else ["127.0.0.1", "localhost", "[::1]", "[", host]
    )  # "[": what older releases of Starlette make of [::1]:8000
    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/digit", answer_picture, methods=["POST"]),
            Route("/photo", answer_picture, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise _TooLargeError(
                f"the picture: more than {MOST_BYTES // 1_000_000} MB. Expected {MOST_BYTES // 1_000_000} or less. "
                "Save it smaller."
            )
    return bytes(body)


def serve(make_reader: Callable[[], Reader], *, host: str, port: int) -> None:
    """Serve the page until interrupted.

    Args:
        make_reader: loads the reader, which takes a while. It is called once the port is open.
        host, port: the address to listen on; port 0 takes a free one.

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
    with listening:
        app = make_app(make_reader(), host=host)
        shown = f"[{host}]" if ":" in host else host
        log.info("Open http://%s:%d in your browser. Ctrl+C stops the server.", shown, listening.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        server.run(sockets=[listening])
