"""A real browser for tests of pages: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from drawn import STROKES, Stroke

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium: install it to test the page (on Debian: apt install chromium)"
)


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """Open a page. In the end, check that it had no errors and asked nobody but its own address."""
    with browser.new_context(**options) as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda each: asked.append(each.url))
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
        context.set_offline(address.startswith("file:"))
        page.goto(address)
        yield page
        # The browser also logs refused requests. Some tests provoke them, so status 400 is no trouble.
        assert [trouble for trouble in troubles if "status of 400" not in trouble] == []
        assert asked
        assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def barriers(page: Any) -> list[str]:
    """Return what hinders people with disabilities, as axe finds it: its serious and critical findings."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {node['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def wait_until(page: Any, condition: str) -> None:
    """Wait until a JavaScript condition holds. (Playwright's own wait needs eval, which the page's policy forbids.)"""
    deadline = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(30)


def answered(page: Any) -> None:
    """Wait until the last change is answered."""
    wait_until(page, "answered === changes && !asking")


def draw(page: Any, digit: int, **place: float) -> None:
    """Draw a digit with the mouse, see ``draw_strokes``."""
    draw_strokes(page, STROKES[digit], **place)


def draw_strokes(
    page: Any, strokes: list[Stroke], *, left: float = 0.15, share: float = 0.7, top: float = 0.15, lean: float = 0
) -> None:
    """Draw strokes with the mouse. Places and sizes are shares of the drawing area's side."""
    box = page.locator("#drawing").bounding_box()
    side = share * box["width"]
    x0, y0 = box["x"] + left * box["width"], box["y"] + top * box["height"]
    for stroke in strokes:
        points = [(x0 + side * (x + lean * (0.5 - y)), y0 + side * y) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()
    answered(page)


PHONE = {"viewport": {"width": 393, "height": 727}, "device_scale_factor": 2.75, "is_mobile": True, "has_touch": True}
