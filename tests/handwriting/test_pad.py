"""Pad: the page to draw on works in a real browser, Debian's Chromium, at the sizes of a desktop and a phone."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from browser import PHONE, answered, barriers, draw, needs_browser, opened, wait_until
from drawn import STROKES, draw_page
from PIL import Image, ImageDraw

from kaggle_digits import cli
from kaggle_digits.handwriting.pad import make_app
from kaggle_digits.handwriting.reader import Reader
from kaggle_digits.learners import PACKAGED_RUN

ROWS = ["2718", "31415", "90"]


@contextmanager
def served(reader: Reader, **options: Any) -> Iterator[str]:
    """Serve the page on the loopback interface with the real server, and yield its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(reader, **options)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(Reader(PACKAGED_RUN)) as address:
        yield address


def png(brightness: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.rint(255 * brightness).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def post(address: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict]:
    request = urllib.request.Request(address, body, headers or {})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else {"error": text.decode()}


@pytest.fixture(params=["desktop", "phone"])
def page(request, browser, address):
    """Open the page in the browser."""
    sizes = {"desktop": {"viewport": {"width": 1280, "height": 900}}, "phone": PHONE}
    with opened(browser, address, **sizes[request.param]) as page:
        yield page


@needs_browser
def test_each_digit_that_is_drawn_is_read(page):
    phone = page.viewport_size["width"] < 500
    for digit in (2, 5, 8) if phone else range(10):
        draw(page, digit)
        assert page.inner_text("#digit").rstrip("?") == str(digit)
        shares = [float(text.split()[0]) for text in page.locator("#bars li span:last-child").all_inner_texts()]
        assert np.argmax(shares) == digit
        assert sum(shares) == pytest.approx(100, abs=0.5)
        dark = page.evaluate(
            "[...document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data]"
            ".filter((v, i) => i % 4 === 0 && v < 128).length"
        )
        assert 20 < dark < 300
        page.click("#clear")
        answered(page)
        assert page.inner_text("#digit") == "–"


@needs_browser
def test_digits_that_are_drawn_in_a_row_are_read(page):
    for place, digit in enumerate((2, 0, 2, 5)):
        draw(page, digit, left=0.02 + 0.25 * place, share=0.22)
    assert page.inner_text("#digit").replace("?", "") == "2025"


@needs_browser
def test_the_page_says_why_until_the_drawing_changes(page):
    is_coloured = """(() => {
      const {data} = by("seen").getContext("2d").getImageData(0, 0, 28, 28);
      return data.some((value, i) => i % 4 === 0 && value > data[i + 2] + 60);
    })()"""
    draw(page, 7)
    answered(page)
    assert not page.evaluate(is_coloured)
    page.click("#why")
    wait_until(page, "!by('reasons').hidden")
    assert page.evaluate(is_coloured)
    page.click("#clear")
    answered(page)
    assert not page.evaluate(is_coloured)
    assert page.is_disabled("#why")


@needs_browser
def test_a_sheet_that_is_uploaded_is_read_with_boxes(page, tmp_path):
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(png(draw_page(ROWS, seed=4, ruling="squared")))
    page.set_input_files("#file", sheet)
    wait_until(page, "document.getElementById('text').textContent !== ''")
    assert page.inner_text("#text").split() == ROWS
    green = page.evaluate(
        "(() => { const c = document.getElementById('page'), d = c.getContext('2d').getImageData(0, 0, c.width, "
        "c.height).data; let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i + 1] > d[i] + 60; return n; })()"
    )
    assert green > 500
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width == 0  # the page does not scroll sideways
    with Image.open(sheet) as image:
        image.save(tmp_path / "sheet.tif")  # which the browser cannot show
    page.evaluate("document.getElementById('text').textContent = ''")
    page.set_input_files("#file", tmp_path / "sheet.tif")
    wait_until(page, "document.getElementById('text').textContent !== ''")
    assert page.inner_text("#text").split() == ROWS
    assert page.locator("#page").is_hidden()


@needs_browser
def test_a_file_that_is_no_picture_is_reported_on_the_page(page, tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("no picture")
    with page.expect_response("**/photo") as response:
        page.set_input_files("#file", file)
    assert response.value.status == 400
    wait_until(page, "document.getElementById('problem').textContent.startsWith('the picture: not a picture')")


@needs_browser
def test_the_keyboard_draws_undoes_and_clears(page):
    page.focus("#drawing")
    page.keyboard.press("Space")
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    answered(page)
    assert page.inner_text("#digit").rstrip("?") == "1"
    page.keyboard.press("Control+z")
    answered(page)
    assert page.inner_text("#digit") == "–"
    draw(page, 3)
    page.keyboard.press("Escape")
    answered(page)
    assert page.inner_text("#digit") == "–"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "clear"


@needs_browser
def test_clearing_while_the_pen_is_down_ends_the_stroke(page):
    box = page.locator("#drawing").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 150)
    page.keyboard.press("Escape")
    page.mouse.move(box["x"] + 150, box["y"] + 50)
    page.mouse.up()
    answered(page)
    assert page.inner_text("#digit") == "–"
    draw(page, 4)
    assert page.inner_text("#digit").rstrip("?") == "4"


@needs_browser
def test_pictures_are_dropped_and_pasted(page):
    contents = list(png(draw_page(["42"], seed=5)))
    for event, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate("document.getElementById('text').textContent = ''")
        page.evaluate(
            "([contents, event, holder]) => { const data = new DataTransfer(); data.items.add(new File([new "
            "Uint8Array(contents)], 'a.png', {type: 'image/png'})); window.dispatchEvent(new (event === 'drop' ? "
            "DragEvent : ClipboardEvent)(event, {[holder]: data, cancelable: true})); }",
            [contents, event, holder],
        )
        wait_until(page, "document.getElementById('text').textContent === '42'")


@needs_browser
def test_a_misread_drawing_is_kept_for_those_who_asked_for_it(browser, tmp_path, capsys):
    kept = tmp_path / "misread"
    with served(Reader(PACKAGED_RUN), keep=kept) as address:
        with opened(browser, address) as page:
            assert "except the drawings" in page.inner_text("p.hint >> nth=0")
            draw(page, 4)
            page.select_option("#truth", "4")
            page.click("#keep")
            wait_until(page, "by('kept').textContent === 'Thank you. That drawing is kept as a 4.'")
            assert page.locator("#wrong").is_hidden()
        assert post(f"{address}/wrong-5", b"no picture")[0] == 400
        assert post(f"{address}/wrong-5", png(np.random.default_rng(0).random((400, 400))))[0] == 400
        assert post(f"{address}/wrong-x", png(np.ones((9, 9))))[0] == 404
    (file,) = kept.rglob("*.*")
    assert file.parent.name == "4"
    assert cli.main(["recognize", str(kept), "--labelled"]) == 0
    assert "1 of 1" in capsys.readouterr().out
    assert cli.main(["pad", "--port", "0", "--keep", str(file)]) == 2
    assert f"--keep {file}: cannot be written (File exists). Expected a folder." in capsys.readouterr().err


@needs_browser
def test_others_see_where_drawings_go_and_how_to_join(browser):
    options = {"host": "192.0.2.7", "token": "kqwzrt", "address": "http://192.0.2.7:8000/kqwzrt"}
    with served(Reader(PACKAGED_RUN), **options) as address, opened(browser, f"{address}/kqwzrt") as page:
        assert page.inner_text("p.hint >> nth=0").startswith("Drawings and pictures are read by the computer that")
        assert "http://192.0.2.7:8000/kqwzrt" in page.inner_text("body")
        width = page.evaluate("document.querySelector('.code path').getBoundingClientRect().width")
        assert width > 100  # a phone can scan it
        assert barriers(page) == []
        draw(page, 7)
        assert page.inner_text("#digit") == "7"


def test_a_digit_is_answered_in_a_tenth_of_a_second(address):
    canvas = Image.new("L", (280, 280), 255)
    for stroke in STROKES[5]:
        ImageDraw.Draw(canvas).line([(280 * x, 280 * y) for x, y in stroke], fill=20, width=24, joint="curve")
    drawing = png(np.asarray(canvas, np.float32) / 255)
    durations = []
    for _ in range(10):
        # CPU time of all threads, including the server's. Tests that run in parallel would distort wall time.
        started = time.process_time()
        status, answer = post(f"{address}/digit", drawing)
        durations.append(time.process_time() - started)
        assert (status, answer["text"]) == (200, ["5"])
        (digit,) = answer["digits"]
        assert (digit["digit"], digit["sure"], len(digit["pixels"])) == (5, True, 784)
    assert min(durations) < 0.1  # what other processes do makes the others longer


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "the picture: not a picture that can be read."),
        (b"\x89PNG", 400, "the picture: not a picture that can be read."),
        (bytes(20_000_001), 413, "the picture: more than 20 MB. Expected 20 or less. Save it smaller."),
        (png(np.zeros((1, 1))), 400, "the picture: 1 × 1 pixels."),
        (png(np.zeros((7200, 7200))), 400, "the picture: 7200 × 7200 pixels, 52 million. Expected at most 50 million."),
    ],
)
def test_bodies_that_are_refused(address, body, status, error):
    for path in ("digit", "photo"):
        code, answer = post(f"{address}/{path}", body)
        assert code == status
        assert answer["error"].startswith(error)


def test_an_empty_drawing_has_no_digit(address):
    assert post(f"{address}/digit", png(np.ones((560, 560)))) == (
        200,
        {"file": "", "text": [], "digits": [], "left_out": [], "turned": 0, "too_small": False, "pages": 1},
    )


def test_other_names_and_other_pages_may_not_ask(address):
    """A foreign page whose host name resolves to 127.0.0.1 (DNS rebinding) cannot talk to this server."""
    blank = png(np.ones((28, 28)))
    assert post(f"{address}/digit", blank, {"Host": "elsewhere.example"})[0] == 400
    status, answer = post(f"{address}/digit", blank, {"Origin": "https://elsewhere.example"})
    assert (status, answer["error"]) == (403, "Only this server's own page may send requests.")
    assert post(f"{address}/digit", blank, {"Origin": address})[0] == 200


def test_a_client_that_goes_away_does_no_harm(address, caplog):
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"POST /photo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf")
    assert post(f"{address}/digit", png(draw_page(["3"], size=200, pen=14)))[1]["text"] == ["3"]
    assert "Exception" not in caplog.text


def test_the_page_may_ask_nobody_else(address):
    with urllib.request.urlopen(address) as answer:
        policy = answer.headers["Content-Security-Policy"]
        text = answer.read().decode()
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "http" not in text


def test_nothing_that_was_sent_is_written(address, workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    post(f"{address}/photo", png(draw_page(["42"], seed=5)))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_verb_serves_on_this_computer_only_and_ends_quietly(workplace):
    command = [sys.executable, "-m", "kaggle_digits", "pad", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as served:
        assert served.stderr is not None
        try:
            line = next(line for line in served.stderr if line.startswith("Open"))
            address = line.split()[1]
            assert address.startswith("http://127.0.0.1:")
            assert post(f"{address}/digit", png(draw_page(["7"], size=200, pen=14)))[1]["text"] == ["7"]
        finally:
            served.send_signal(2)
        rest = served.stderr.read()
    assert served.returncode in (0, 130)
    assert "Traceback" not in rest
    assert list(Path().iterdir()) == []


def test_a_port_that_is_taken_is_named(address, capsys):
    port = address.rpartition(":")[2]
    assert cli.main(["pad", "--port", port]) == 2
    assert f"kaggle-digits: --host 127.0.0.1 --port {port}: cannot be used (" in capsys.readouterr().err
