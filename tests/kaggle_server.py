"""A loopback server that speaks the Kaggle client's protocol, with state and with faults on demand.

The real client uses it as its HTTP proxy, so it sees every host that the client contacts, and nothing leaves the
machine. It answers for two hosts. ``localhost`` is the API and expects credentials. ``storage.test`` stores files and
must never receive credentials. ``log`` keeps every request.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

API, STORAGE = "localhost", "storage.test"
SIGNATURE = "signature=never-to-be-shown"


@dataclass
class Fault:
    """What goes wrong when a request arrives: an error status, or a cut connection if the status is 0."""

    status: int = 0
    message: str = "out of order"
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    handle_first: bool = False  # carry out the request first, and only then fail
    hang: bool = False  # do not answer before the server closes; ``reached`` is set when the request arrives
    keep_bytes: int = 0  # send this many bytes of a file, then cut the connection
    html: bool = False  # answer 200 with a web page, as the login page of a public network does


class KaggleServer:
    """The state of the server; ``running`` serves it."""

    def __init__(self, archive: bytes = b"", *, user: str = "ada") -> None:
        self.archive, self.etag, self.user = archive, '"v1"', user
        self.log: list[tuple[str, str, dict[str, Any]]] = []
        self.hosts: set[str] = set()
        self.leaks: list[str] = []
        self.faults: dict[str, Fault] = {}
        self.delays: dict[str, float] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.reached, self.closing = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.uploads: dict[str, bytes] = {}
        self.submissions: list[dict[str, Any]] = []
        self.looks_until_listed = 0
        self.looks_until_scored = 1
        self.newest_hidden = 0
        self.outcome: dict[str, Any] = {"status": "COMPLETE", "publicScore": "0.99571"}
        self.limits: dict[str, Any] = {"numToday": 1, "numTotal": 9, "numAllowedNow": 4}
        self.pushes: list[dict[str, Any]] = []
        self.push_answer: dict[str, Any] = {}
        self.kernel_states = ["QUEUED", "RUNNING", "RUNNING", "COMPLETE"]
        self.kernel_failure = ""
        self.outputs: dict[str, bytes] = {}
        self.kernel_log = ""
        self.on_push: Any = None
        self.port = 0

    def names(self) -> list[str]:
        """Return the method names of the requests so far."""
        return [name for name, _, _ in self.log]

    # The API's methods. Each takes the body of a request and returns the body of the answer.

    def IntrospectToken(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"active": True, "username": self.user}

    def GetSubmissionLimits(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self.limits

    def StartSubmissionUpload(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        token = f"token-{len(self.log)}"
        return {"token": token, "createUrl": f"http://{STORAGE}/upload/{token}?{SIGNATURE}"}

    def CreateSubmission(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        submission = {
            "ref": 40_000_000 + len(self.submissions),
            "totalBytes": len(self.uploads[body["blobFileTokens"]]),
            "date": "2026-11-22T04:00:00.123Z",
            "description": body["submissionDescription"],
            "status": "PENDING",
            "looks": 0,
        }
        self.submissions.append(submission)
        return {"ref": submission["ref"]}

    def ListSubmissions(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if self.looks_until_listed > 0 and self.submissions:
            self.looks_until_listed -= 1
            return {}
        shown = [self._shown(submission) for submission in reversed(self.submissions)]
        if self.newest_hidden > 0 and len(shown) > 1:
            self.newest_hidden -= 1
            del shown[0]
        first = int(body.get("pageToken") or 0)
        last = first + min(body.get("pageSize", 20), 20)  # never more than 20, whatever the client asks for
        return {"submissions": shown[first:last], "nextPageToken": str(last) if last < len(shown) else ""}

    def GetSubmission(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        (submission,) = (submission for submission in self.submissions if submission["ref"] == body["ref"])
        submission["looks"] += 1
        if submission["looks"] > self.looks_until_scored:
            submission.update(self.outcome)
        return self._shown(submission)

    def SaveKernel(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.pushes.append(body)
        if self.on_push:
            self.on_push(body)
        url = f"https://www.kaggle.com/code/{body['slug']}"
        return {"url": url, "versionNumber": len(self.pushes), **self.push_answer}

    def GetKernelSessionStatus(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        state = self.kernel_states.pop(0) if len(self.kernel_states) > 1 else self.kernel_states[0]
        return {"status": state, "failureMessage": self.kernel_failure}

    def ListKernelSessionOutput(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        names = sorted(self.outputs)
        first = int(body.get("pageToken") or 0)  # one file per page
        files = [{"url": f"http://{STORAGE}/output/{n}?{SIGNATURE}", "fileName": n} for n in names[first : first + 1]]
        more = str(first + 1) if first + 1 < len(names) else ""
        return {"files": files, "log": self.kernel_log, "nextPageToken": more}

    def _shown(self, submission: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in submission.items() if name != "looks"}

    @contextlib.contextmanager
    def running(self) -> Iterator[KaggleServer]:
        handler = type("Handler", (_Handler,), {"kaggle": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # a client that goes away is part of the tests
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.closing.set()
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    kaggle: KaggleServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing; tests read ``KaggleServer.log`` instead."""

    def do_POST(self) -> None:
        body = self._body()
        # The last part of the path is the method's name. After a redirect the client sends a GET.
        self._serve(urlsplit(self.path).path.rpartition("/")[2], body)

    def do_GET(self) -> None:
        self._serve("GET " + urlsplit(self.path).path.split("/")[1], b"")

    def do_PUT(self) -> None:
        self._serve("PUT", self._body())

    def do_CONNECT(self) -> None:
        self.kaggle.hosts.add(self.path)
        self.send_error(403)

    def _serve(self, name: str, body: bytes) -> None:
        kaggle, host = self.kaggle, urlsplit(self.path).hostname or ""
        with kaggle.lock:
            kaggle.hosts.add(host)
            values = json.loads(body) if host == API and body else {"bytes": len(body), "headers": dict(self.headers)}
            kaggle.log.append((name, host, values))
            fault = kaggle.faults.get(name)
            if fault:
                fault.times -= 1
                if fault.times <= 0:
                    del kaggle.faults[name]
        if host == STORAGE and "Authorization" in self.headers:
            kaggle.leaks.append(name)
        if host == API and not self.headers.get("Authorization", "").startswith(("Basic ", "Bearer ")):
            return self._json(401, {"code": 401, "message": "Unauthenticated"})
        time.sleep(kaggle.delays.get(name, 0))
        if fault and not fault.keep_bytes:
            if fault.handle_first:
                self._answer(name, values, body)
            kaggle.reached.set()
            if fault.hang:
                kaggle.closing.wait(60)
                return self._cut()
            if fault.html:
                return self._send(200, b"<html>Please log in to this network</html>", {"Content-Type": "text/html"})
            if not fault.status:
                return self._cut()
            where = {"Location": f"http://{STORAGE}/elsewhere"} if fault.status == 302 else {}
            return self._json(fault.status, {"code": fault.status, "message": fault.message}, fault.headers | where)
        if name == "DownloadDataFiles":
            return self._send(302, b"", {"Location": f"http://{STORAGE}/files/digit-recognizer.zip?{SIGNATURE}"})
        if name == "GET files":
            return self._file(kaggle.archive, fault.keep_bytes if fault else None)
        answer = self._answer(name, values, body)
        return self._send(200, answer, {}) if isinstance(answer, bytes) else self._json(200, answer)

    def _answer(self, name: str, values: dict[str, Any], body: bytes) -> dict[str, Any] | bytes:
        with self.kaggle.lock:
            if name == "PUT":
                self.kaggle.uploads[urlsplit(self.path).path.rpartition("/")[2]] = body
                return {}
            if name == "GET output":
                return self.kaggle.outputs[urlsplit(self.path).path.rpartition("/")[2]]
            return self.kaggle.answers.get(name) or getattr(self.kaggle, name)(values)

    def _file(self, contents: bytes, keep: int | None) -> None:
        first = 0
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and self.headers.get("If-Range", self.kaggle.etag) == self.kaggle.etag:
            first = int(asked[len("bytes=") :].rstrip("-"))
        headers = {"Accept-Ranges": "bytes", "ETag": self.kaggle.etag, "Last-Modified": "Sun, 01 Nov 2026 01:00:00 GMT"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(contents) - 1}/{len(contents)}"
        self._send(206 if first else 200, contents[first:], headers, keep=keep)

    def _json(self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, contents: bytes, headers: dict[str, str], *, keep: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        self.wfile.write(contents[:keep])
        if keep is not None:
            time.sleep(0.2)  # give the client time to read what was sent
            self.kaggle.reached.set()
            self._cut()

    def _cut(self) -> None:
        """Reset the connection instead of closing it properly."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))
