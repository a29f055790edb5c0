"""Attacks: files from strangers run nothing and take no absurd memory; the page answers only whom it should."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from drawn import draw_page
from hostile import Touch, header, npz
from PIL import Image
from run_folder import write_run

from kaggle_digits.analysis import report
from kaggle_digits.analysis.html import write_page
from kaggle_digits.data import find_source, load_train
from kaggle_digits.errors import DataError, RunError, SubmissionError
from kaggle_digits.handwriting import pad
from kaggle_digits.handwriting.reader import Reader
from kaggle_digits.learners import PACKAGED_RUN, load_run
from kaggle_digits.recipes import RECIPES
from kaggle_digits.submission import check_submission

TOKEN = "kqwzrt"


# A run folder, a network or a table from a stranger


def lying(members: dict[str, bytes]) -> bytes:
    """Return an archive whose directory says that each member has the size that a reader expects."""
    whole = bytearray(npz(members | {f"{BIAS}.npy": header("(10,)") + bytes(40)}))
    entry = whole.index(b"PK\x01\x02")
    for at in (22, entry + 24):  # the size in front of the member, and in the directory
        whole[at : at + 4] = len(ZEROS).to_bytes(4, "little")
    return bytes(whole)


DENSE = replace(
    RECIPES["mlp-784-300"], name="dense", layers=(("Flatten", {}), ("Dense", {"units": 10, "activation": "linear"}))
)
KERNEL, BIAS = "1.Dense.0.kernel", "1.Dense.1.bias"
ZEROS = header("(784, 10)") + bytes(784 * 40)
HDF5 = b"\x89HDF\r\n\x1a\n" + b"../../etc/passwd" + bytes(500)
MODELS = {
    "pickle as the whole file": pickle.dumps(Touch()),
    "pickle as an array": npz({f"{KERNEL}.npy": pickle.dumps(Touch()), f"{BIAS}.npy": ZEROS}),
    "array of objects": npz({f"{KERNEL}.npy": header("(784, 10)", "|O") + pickle.dumps([Touch()]), f"{BIAS}.npy": b""}),
    "shape of 10^12": npz({f"{KERNEL}.npy": header("(1000000, 1000000)"), f"{BIAS}.npy": header("(10,)") + bytes(40)}),
    "zip bomb": npz({f"{KERNEL}.npy": header("(784, 10)") + bytes(2 * 10**8), f"{BIAS}.npy": b""}),
    "zip bomb that lies about its size": lying({f"{KERNEL}.npy": header("(784, 10)") + bytes(2 * 10**8)}),
    "zip bomb of bzip2": npz({f"{KERNEL}.npy": ZEROS + bytes(2 * 10**8), f"{BIAS}.npy": b""}, zipfile.ZIP_BZIP2),
    "member outside of the folder": npz({"../../was-run.npy": ZEROS, f"{BIAS}.npy": ZEROS}),
    "HDF5 that names another file": HDF5,
    "HDF5 in a zip, as Keras has it": npz({"model.weights.h5": HDF5, "config.json": b"{}"}),
    "link to another file": npz({f"{KERNEL}.npy": b"/etc/passwd", f"{BIAS}.npy": b"/etc/passwd"}),
}
LAYERS = [
    (("Lambda", {"function": "print"}), "Lambda: is no layer that only computes"),
    (("TFSMLayer", {"filepath": "elsewhere"}), "TFSMLayer: is no layer that only computes"),
    (("os.system", {"command": "touch was-run"}), "Keras has no layer os.system"),
    (("__class__", {}), "Keras has no layer __class__"),
    (("Dense", {"units": 10, "activation": "os.system"}), "activation"),
    (("Dense", {"units": 10, "activation": {"class_name": "os>system"}}), "activation is neither text nor a number"),
    (("Dense", {"units": 10**12}), "Dense is larger than any network for digits"),
    (("Conv2D", {"filters": 10, "kernel_size": 10**6, "padding": "same"}), "Conv2D is larger than any network"),
    (("ZeroPadding2D", {"padding": 10**6}), "ZeroPadding2D is larger than any network for digits"),
    (("UpSampling2D", {"size": 10**5}), "UpSampling2D is larger than any network for digits"),
    (("Dense", {"units": 11}), "the output has the shape"),
    (("Dense", {"units": "ten"}), "units"),
    (("Dense", {"units": 10, "unknown": 1}), "unknown"),
    (("MaxPooling2D", {"pool_size": 2, "strides": 0}), "MaxPooling2D: division by zero"),
    (("Cropping2D", {"cropping": -(10**9)}), "Cropping2D: "),
    (("Conv2D", {"filters": 1, "kernel_size": 99}), "Conv2D: "),
]


def memory(what: str) -> int:
    """Return the memory of this process in kilobytes: VmRSS now, or VmHWM at its peak."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1])


LINUX = Path("/proc/self/clear_refs").exists()


@contextlib.contextmanager
def bounded(megabytes: int = 500) -> Iterator[None]:
    """Check that the memory of this process never grows by more. Only Linux tells."""
    if not LINUX:
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here on
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < megabytes * 1024


@pytest.mark.parametrize("attack", MODELS)
def test_a_strangers_network_runs_nothing_and_takes_no_memory(ledger, attack, cpu):
    run = write_run("run", DENSE)
    Path("run/model.npz").write_bytes(MODELS[attack])
    for device in (cpu, None):
        with ledger.attack("run folder with a hostile network"), bounded():
            with pytest.raises(RunError, match=r"^run/model.npz: cannot be loaded .* Train it again\.$"):
                load_run(run.folder, device)
            assert not Path("was-run").exists()


@pytest.mark.parametrize(("layer", "said"), LAYERS)
def test_a_strangers_layers_run_nothing_and_are_refused_before_they_take_memory(ledger, layer, said, cpu):
    run = write_run("run", replace(DENSE, layers=(("Flatten", {}), layer) if layer[0] == "Dense" else (layer,)))
    Path("run/model.npz").write_bytes(npz({f"{KERNEL}.npy": ZEROS}))
    with ledger.attack("run folder with hostile layers"), bounded():
        with pytest.raises(RunError, match=rf"^run: its recipe cannot be built \(.*{said}"):
            load_run(run.folder, cpu)
        assert not Path("was-run").exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"shift_averaging": 10**9},
        {"slant_averaging": 1e300},
        {"spread": 10**9},
        {"pixel_scale": 0},
        {"precision": "quadruple"},
        {"epochs": "many"},
        {"layers": 7},
        {"kind": "Ensemble", "members": []},
        {"kind": "__import__"},
        {"kind": "Recipe"},
        {"name": ["x"] * 10**5},
    ],
)
def test_impossible_values_of_a_recipe_are_refused(ledger, damage):
    run = write_run("run", DENSE, damage=damage)
    with ledger.attack("run folder with impossible values"), pytest.raises(RunError, match="not readable as a run"):
        load_run(run.folder)


def test_a_record_of_nested_lists_or_gigabytes_is_refused(ledger):
    run = write_run("run", DENSE)
    for contents in (b"[" * 10**6, b'{"a":' * 10**5, b" " * (2**26 + 1), b'{"seed": ' + b"9" * 10**5 + b"}"):
        Path("run/run.json").write_bytes(contents)
        unreadable = pytest.raises(RunError, match="not readable as a run")
        with ledger.attack("run record of absurd size"), bounded(300), unreadable:
            load_run(run.folder)


@pytest.mark.parametrize("pack", [lambda bomb: gzip.compress(bomb, 1), lambda bomb: npz({"submission.csv": bomb})])
def test_a_submission_that_unpacks_to_gigabytes_is_refused(ledger, pack):
    Path("submission.csv").write_bytes(pack(bytes(300 * 10**6)))
    too_large = pytest.raises(SubmissionError, match="more than 67,108,864 bytes")
    with ledger.attack("submission that is a bomb"), bounded(250), too_large:
        check_submission(Path("submission.csv"))


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"\n", None),
        (b"00\n", "row 2 .line 3. is too short: 1 values"),
        (b"0", "a line of more than 1,048,576 bytes"),
        (b"0,", "a line of more than 1,048,576 bytes"),
        (b"0," * 4999 + b"0\n", "row 2 .line 3. is too long: 5000 values"),
    ],
    ids=["lines", "short rows", "number", "values", "long rows"],
)
def test_a_table_that_unpacks_to_gigabytes_is_refused(ledger, contents, said):
    head = ",".join(["label", *(f"pixel{i}" for i in range(784))]).encode() + b"\n"
    row = b"5," + b"0," * 783 + b"9\n"
    with gzip.open("train.csv.gz", "wb", 1) as stream:
        stream.write(head + row)
        for _ in range(200):
            stream.write(contents * (10**6 // len(contents)))
    with ledger.attack("table that is a bomb"), bounded(900):
        if contents == b"\n":  # it is a table of one row, with blank lines at the end
            assert len(load_train(find_source("train.csv.gz"))) == 1
            return
        with pytest.raises(DataError, match=said):
            load_train(find_source("train.csv.gz"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
@pytest.mark.parametrize(("size", "pages"), [((7000, 7000), 1), ((100_000, 500), 1), ((4000, 2500), 20)])
def test_a_picture_that_is_a_bomb_takes_less_than_a_gigabyte(ledger, size, pages):
    """50 million pixels with colours and transparency, which take 200 kB in a file, or 200 million on all pages."""
    stream = io.BytesIO()
    image = Image.new("RGBA" if pages == 1 else "P", size, "white")
    if pages == 1:
        image.save(stream, "PNG")
    else:
        image.putpalette([255, 0, 0] * 256)
        image.save(stream, "TIFF", compression="tiff_lzw", save_all=True, append_images=[image] * (pages - 1))
    code = (
        "import sys\n"
        "from kaggle_digits.handwriting.photo import load_photos\n"
        "print(sum(1 for _ in load_photos(sys.stdin.buffer.read(), name='bomb')))\n"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"  # the peak, in kilobytes
    )
    with ledger.attack("picture that is a bomb"):
        read = subprocess.run([sys.executable, "-c", code], input=stream.getvalue(), capture_output=True, check=True)
        count, peak = map(int, read.stdout.split())
        assert count == pages
        assert peak < 2**20


def test_a_report_runs_no_name(ledger):
    """A name of data or of a recipe may hold what a browser would run."""
    evil = "<script>document.title='was-run'</script><img src=x onerror=\"alert(1)\">'"
    comparison = {"recipes": [{"recipe": evil, "failed": evil}], "commit": evil, "data": evil, "test": None}
    comparison["rows"] = {"training": 1, "held_out": 1}
    readings = {evil: (np.eye(10)[None, :2], np.array([0, 2]))}
    with ledger.attack("report with names that are scripts"):
        write_page(Path("report.html"), report.comparison_page(comparison, readings, None))
        text = Path("report.html").read_text()
        assert text.count("was-run") >= 4
        assert "<script" not in text
        assert "<img src=x" not in text
        assert '"alert(1)"' not in text


# The page


class Served:
    """The real server of the page, on the loopback interface."""

    def __init__(self, **options: str) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        app = pad.make_app(Reader(PACKAGED_RUN), **options)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.listening.close()

    def posting(self, header: str) -> socket.socket:
        """Begin to post a photo, with a header of one's own."""
        client = socket.create_connection(("127.0.0.1", self.port), 10)
        client.sendall(f"POST /photo HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n\r\n".encode())
        return client

    def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, bytes]:
        """Send a request exactly as it is written, and return the status and the body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with contextlib.closing(Served()) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    with contextlib.closing(Served(host="0.0.0.0", token=TOKEN)) as server:
        yield server


def png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.rint(255 * picture).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


FIVE = png(draw_page(["5"], size=200, pen=14))
LARGE = png(np.random.default_rng(0).random((1100, 1100)))
"""1.2 MB of noise, with no digit."""


@pytest.mark.parametrize("host", ["elsewhere.example", "127.0.0.1.elsewhere.example", "localhost@evil", "169.254.1.1"])
def test_other_names_for_this_computer_are_refused(ledger, served, host):
    with ledger.attack("page: a name of another host"):
        assert {served.ask(path, body, {"Host": host})[0] for path, body in (("/", None), ("/digit", FIVE))} == {400}


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_requests_of_other_pages_are_refused(ledger, served, origin):
    with ledger.attack("page: a request of another page"):
        assert {served.ask(path, FIVE, {"Origin": origin})[0] for path in ("/digit", "/photo")} == {403}


@pytest.mark.parametrize(
    "path",
    [
        *("/../etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd", "/pad.html", "/%2e%2e/pad.py", "/digit/../../x"),
        *("/?file=/etc/passwd", "/photo", "/digit", "/\\..\\x", "/%00"),
    ],
)
def test_nothing_but_the_page_is_served(ledger, served, path):
    with ledger.attack("page: a path to another file"):
        status, body = served.ask(path)
        assert status in (400, 404, 405) or (path.startswith("/?") and b"<canvas" in body)
        assert b"root:" not in body
        assert b"import" not in body or path.startswith("/?")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(ledger, served, method):
    with ledger.attack("page: another method"):
        assert served.ask("/digit", b"x", method=method)[0] == 405


def test_oversized_bodies_are_refused_before_they_are_read(ledger, served):
    with ledger.attack("page: an oversized body", 2), bounded(100):
        with served.posting("Content-Length: 99999999999") as client:
            assert b" 413 " in client.recv(100)
        with served.posting("Transfer-Encoding: chunked") as client:
            for _ in range(250):  # megabytes, which the server throws away
                client.sendall(b"f4240\r\n" + bytes(1_000_000) + b"\r\n")
            assert b" 413 " in client.recv(100)
    assert served.ask("/digit", FIVE)[0] == 200


@pytest.mark.parametrize("length", ["-1", "x", "1e9", ""])
def test_a_length_that_is_none_is_refused(ledger, served, length):
    with ledger.attack("page: a length that is none"), served.posting(f"Content-Length: {length}") as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100).split()[1] == b"400"


def test_a_slow_body_is_given_up_and_does_not_keep_others_waiting(ledger, served, monkeypatch):
    monkeypatch.setattr(pad, "SECONDS", 1.0)
    with ledger.attack("page: a slow body", 20), contextlib.ExitStack() as held:
        clients = [held.enter_context(served.posting("Content-Length: 5000000")) for _ in range(20)]
        for client in clients:
            client.sendall(bytes(1_000_001))
        status, body = served.ask("/digit", FIVE)
        assert (status, json.loads(body)["text"]) == (200, ["5"])
        assert served.ask("/photo", LARGE)[0] == 200  # it waits for a place until slow ones are given up
        for client in clients:
            client.settimeout(30)
            assert b" 408 " in client.recv(100)


def test_200_clients_at_once_are_all_answered_in_bounded_memory(ledger, served):
    assert len(LARGE) > 1_000_000  # bytes, from which on a picture waits for memory
    large = len(ledger.times(10, 50))  # 8 are in memory at once
    bodies = [("/photo", LARGE)] * large + [("/digit", FIVE)] * (200 - large)
    with ledger.attack("page: 200 clients at once", 200), bounded(1500):
        with ThreadPoolExecutor(200) as clients:
            answers = list(clients.map(lambda each: served.ask(*each), bodies))
        assert {status for status, _ in answers} == {200}
        assert {tuple(json.loads(body)["text"]) for _, body in answers[large:]} == {("5",)}


@pytest.mark.parametrize("start", ["", "/wrong", f"/{TOKEN}x", f"/{TOKEN.upper()}", "/%ff", f"/x/../{TOKEN}"])
def test_only_with_the_token_something_is_answered(ledger, guarded, start):
    with ledger.attack("page: no token, or a wrong one", 3):
        status, body = guarded.ask(start or "/")
        assert (status, b"canvas" in body) == (403, False)
        assert {guarded.ask(f"{start}/{path}", FIVE)[0] for path in ("digit", "photo")} == {403}
    time.sleep(0.15)  # a client that gave a wrong one waits for a tenth of a second
    assert guarded.ask(f"/{TOKEN}")[0] == 200
    status, body = guarded.ask(f"/{TOKEN}/digit", FIVE, {"Host": f"class.example:{guarded.port}"})
    assert (status, json.loads(body)["text"]) == (200, ["5"])


def test_nobody_tries_out_all_addresses(ledger, guarded):
    """22 letters at six places are 113 million addresses. At ten a second, to try half of them takes nine weeks."""
    with ledger.attack("page: addresses tried out", 20):
        with ThreadPoolExecutor(20) as clients:
            tried = [f"abcd{k:02d}" for k in range(19)]
            assert list(clients.map(lambda start: guarded.ask(f"/{start}")[0], tried)) == [403] * 19
        assert guarded.ask(f"/{TOKEN}")[0] == 403  # too soon: not even compared
    time.sleep(0.15)
    assert guarded.ask(f"/{TOKEN}/")[0] == 200


@pytest.mark.parametrize(("host", "asks"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_an_address_that_others_can_reach_carries_a_token(host, asks):
    command = [sys.executable, "-m", "kaggle_digits", "pad", "--port", "0", "--host", host]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        line = next(line for line in child.stderr if line.startswith("Open"))
        address = line.split()[1]
        port = int(address.split(":")[2].partition("/")[0])
        status = []
        for path in ("/", address.partition(str(port))[2] or "/"):
            time.sleep(0.15)  # a client that gave a wrong one waits for a tenth of a second
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", path)
            status.append(connection.getresponse().status)
            connection.close()
        child.send_signal(2)
        child.stderr.read()
    assert bool(re.search(r":\d+/[a-z]{6}$", address)) == asks
    assert status == ([403, 200] if asks else [200, 200])


@pytest.mark.skipif(not LINUX, reason="only Linux tells the peak of the memory from now on")
def test_the_peak_of_memory_is_measured():
    """Otherwise the bounds above would mean nothing."""
    with pytest.raises(AssertionError), bounded(50):
        np.ones(4 * 10**7)  # 320 MB, more than can become free meanwhile


def test_hosts_are_told_from_this_computer():
    assert all(map(pad._is_this_computer, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(pad._is_this_computer, ("0.0.0.0", "::", "", "192.168.1.5", "example.org")))
