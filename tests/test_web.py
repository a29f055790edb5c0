"""The page of ``export --format web`` reads like the run, in a real browser, from a file and without a network."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from browser import PHONE, answered, draw, draw_strokes, needs_browser, opened, wait_until
from PIL import Image
from run_folder import RESIDUAL, UPRIGHT, write_untrained
from shapes import NO_DIGITS

import kaggle_digits
from kaggle_digits.data import find_source, load_train
from kaggle_digits.errors import InputError
from kaggle_digits.export.formats import export
from kaggle_digits.handwriting.photo import load_photos
from kaggle_digits.handwriting.reader import Reader
from kaggle_digits.learners import PACKAGED_RUN, load_run
from kaggle_digits.recipes import RECIPES

COMPETITION = os.environ.get("KDIGITS_DATA", "")
RUN = Path(os.environ.get("KDIGITS_RUN", PACKAGED_RUN)).resolve()  # to print the figures of another network
PACKAGE = Path(kaggle_digits.digits.__file__).parent
SCRIPTS = ("drawing.js", "rows.js", "network.js", "engine.js", "draw.js", "answer.js")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The page of a network."""
    return export(RUN, "web", tmp_path_factory.mktemp("page") / "digits.html", data="sample").file


def load_engine(page) -> None:
    """Run the worker's script in the page itself, as ``inPage``, so that a test can call it."""
    page.evaluate(
        """() => {
          const script = document.createElement("script"), code = by("engine").textContent.replace("onmessage =", "");
          script.textContent = `const inPage = (() => {${code}; return pixels => classify(MODEL, pixels); })();`;
          document.head.append(script);
        }"""
    )


def read_on(page, pixels: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Read images on the page. Return their probabilities (N, 10) and the milliseconds of each."""
    results = page.evaluate(
        """images => Array.from({length: images.length / 1568}, (_, k) => {
          const hex = images.slice(1568 * k, 1568 * (k + 1)).match(/../g), started = performance.now();
          const read = inPage(Uint8Array.from(hex, value => parseInt(value, 16)));
          return [...read, performance.now() - started];
        })""",
        pixels.astype(np.uint8).tobytes().hex(),
    )
    values = np.array(results)
    return values[:, :10], values[:, 10].tolist()


@needs_browser
@pytest.mark.parametrize("rows", ["sample", "competition"])
def test_images_are_read_as_in_python_and_quickly(browser, file, rows, ledger):
    if rows == "competition" and not COMPETITION.endswith(".zip"):
        pytest.skip("needs the competition's data: set KDIGITS_DATA to digit-recognizer.zip")
    known = load_train(find_source(COMPETITION if rows == "competition" else "sample"))
    count = len(ledger.times(300, 1000))
    pixels = known.pixels[:count]
    assert len(pixels) == count
    with opened(browser, file.as_uri()) as page:
        load_engine(page)
        read, milliseconds = read_on(page, pixels)
    durations = sorted(milliseconds)
    ours = Reader(RUN).classify(pixels)
    print(f"{rows}: difference {np.abs(read - ours).max():.5f}, {median(durations):.1f} ms an image")
    assert (read.argmax(axis=1) == ours.argmax(axis=1)).all()
    assert np.abs(read - ours).max() <= 0.002
    assert durations[100] < 60  # about 22 on a quiet computer; the tests run two at a time
    assert file.stat().st_size <= 700_000


OTHERS = replace(
    RECIPES["mlp-784-300"],
    name="others",
    layers=(
        ("Conv2D", {"filters": 6, "kernel_size": [5, 4], "strides": [2, 1], "padding": "same", "activation": "elu"}),
        ("AveragePooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}),
        *(("SpatialDropout2D", {"rate": 0.1}), ("LeakyReLU", {"negative_slope": 0.1})),
        ("Conv2D", {"filters": 5, "kernel_size": 3, "activation": "silu"}),
        ("MaxPooling2D", {"pool_size": 2, "padding": "same"}),
        *(("BatchNormalization", {"scale": False}), ("Activation", {"activation": "softplus"}), ("Flatten", {})),
        *(("Dense", {"units": 9, "activation": "tanh"}), ("GaussianNoise", {"stddev": 0.1})),
        ("Dense", {"units": 10, "activation": "softmax"}),
    ),
)


@needs_browser
@pytest.mark.parametrize(
    "recipe",
    [UPRIGHT, OTHERS, RESIDUAL, *(RECIPES[name] for name in ("stretched", "lenet-5", "mlp-784-300"))],
    ids=lambda recipe: recipe.name,
)
def test_every_part_of_a_recipe_is_on_the_page(browser, recipe):
    write_untrained(Path("run"), recipe)
    file = export(Path("run"), "web", Path("page.html").absolute(), data="sample").file
    pixels = load_train(find_source("sample")).pixels[:20]
    with opened(browser, file.as_uri()) as page:
        load_engine(page)
        read, _ = read_on(page, pixels)
    assert np.abs(read - load_run(Path("run")).predict(pixels)).max() <= 0.002


def reading_of(page) -> str:
    return page.inner_text("#digit")


def picture_on(page) -> bytes:
    return base64.b64decode(page.evaluate("drawOn(small).toDataURL().split(',')[1]"))


def reading_in_python(reader: Reader, page) -> str:
    """Return how ``pad`` reads the drawing on a page: it sends the same picture to the same function."""
    (photo,) = load_photos(picture_on(page))
    digits = reader.read_drawing(photo).digits
    if not any(found.sure or found.probabilities.max() >= 0.5 for found in digits):
        return "–"
    return "".join(f"{found.digit}{'' if found.sure else '?'}" for found in digits)


@needs_browser
@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_drawings_are_read_as_the_pad_reads_them(browser, file, count):
    """A third are rows of digits that may touch."""
    reader, rng, differing = Reader(RUN), np.random.default_rng(count), []
    with opened(browser, file.as_uri()) as page:
        for number in range(count):
            digits = rng.integers(0, 10, 1 if number % 3 else int(rng.integers(2, 5))).tolist()
            share = rng.uniform(0.3, 0.75) if len(digits) == 1 else rng.uniform(0.2, 0.9 / len(digits))
            for place, digit in enumerate(digits):
                left = 0.05 + place * share * rng.uniform(0.85, 1) + (rng.uniform(0, 0.2) if len(digits) == 1 else 0)
                draw(page, digit, left=left, share=share, top=rng.uniform(0.1, 0.2), lean=rng.normal(0, 0.2))
            (photo,) = load_photos(picture_on(page))
            expected = "".join(
                f"{found.digit}{'' if found.sure else '?'}" for found in reader.read_drawing(photo).digits
            )
            if reading_of(page) != expected:
                differing.append((digits, reading_of(page), expected))
            page.click("#clear")
            answered(page)
    assert differing == []


@needs_browser
def test_shapes_that_are_no_digits_are_hardly_ever_sure(browser, file):
    reader, sure = Reader(RUN), []
    with opened(browser, file.as_uri()) as page:
        for name, strokes in NO_DIGITS.items():
            draw_strokes(page, strokes, left=0 if "edge" in name else 0.15)
            assert reading_of(page) == reading_in_python(reader, page), name
            assert page.locator("#verdict").is_visible() == (reading_of(page) == "–")
            if re.search(r"\d(?!\?)", reading_of(page)):
                sure.append(name)
            page.click("#clear")
            answered(page)
    assert set(sure) <= {"heart", "house", "spiral"}, "of 24; before spots and faces were told, it was five"


@needs_browser
def test_the_first_answer_comes_at_once(browser, file):
    """The question is asked as soon as the page has loaded, before the browser has compiled anything."""
    milliseconds = []
    for _ in range(5):
        with opened(browser, file.as_uri()) as page:
            page.evaluate(
                """() => {
                  const usual = show;
                  show = answer => { usual(answer); window.shown ??= performance.now(); };
                  strokes.push([[280, 80], [280, 480]]);
                  changed();
                }"""
            )
            page.wait_for_timeout(1000)  # asking more often would take the processor from the page
            wait_until(page, "window.shown !== undefined")
            loaded = "performance.getEntriesByType('navigation')[0].loadEventEnd"
            milliseconds.append(page.evaluate(f"shown - {loaded}"))
            assert reading_of(page) == "1"
    print(f"first answer {median(milliseconds):.0f} ms after the page has loaded")
    assert min(milliseconds) < 900  # about 300 on a quiet computer; the tests run two at a time


@needs_browser
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_page_explains_reads_a_picture_and_takes_the_keyboard(browser, file, size, tmp_path):
    with opened(browser, file.as_uri(), **({} if size == "desktop" else PHONE)) as page:
        draw(page, 3)
        assert reading_of(page) == "3"
        page.click("#why")
        wait_until(page, "!by('reasons').hidden")
        picture = tmp_path / "four.png"
        picture.write_bytes(picture_on(page))
        with Image.open(picture) as image:  # chalk on a board, in uneven light
            board = 200 - 0.6 * np.asarray(image.convert("L"), np.float32) + np.linspace(0, 40, 280, dtype=np.float32)
        Image.fromarray(board.clip(0, 255).astype(np.uint8)).save(picture)
        page.click("#clear")
        answered(page)
        page.set_input_files("#file", picture)
        wait_until(page, "by('digit').textContent === '3'")
        assert page.is_disabled("#why")
        Image.new("L", (90, 90), 255).save(picture)
        page.set_input_files("#file", picture)
        wait_until(page, "!by('verdict').hidden")
        picture.write_text("no picture")
        page.set_input_files("#file", picture)
        wait_until(page, "by('problem').textContent.startsWith('The browser cannot show this file.')")
        page.focus("#drawing")
        for key in ("Space", *["ArrowDown"] * 12, "Space"):
            page.keyboard.press(key)
        answered(page)
        assert reading_of(page) == "1"
        assert page.inner_text("#pen") == "Pen up, 50 % from the left, 68 % from the top."
        page.keyboard.press("Control+z")
        answered(page)
        assert reading_of(page) == "–"


@needs_browser
def test_the_page_fits_narrow_screens_and_a_finger_draws(browser, file):
    sizes = {"viewport": {"width": 320, "height": 640}, "color_scheme": "dark", "has_touch": True, "is_mobile": True}
    with opened(browser, file.as_uri(), **sizes) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        box = page.locator("#drawing").bounding_box()
        page.touchscreen.tap(box["x"] + 100, box["y"] + 100)
        answered(page)
        assert page.evaluate("strokes.length") == 1
        assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light dark"
        unnamed = page.evaluate(
            """[...document.querySelectorAll("button, canvas[tabindex], section, ol")]
              .filter(each => !each.textContent.trim() && !each.ariaLabel).map(each => each.outerHTML)"""
        )
        assert unnamed == []


@needs_browser
def test_no_request_can_leave_the_page(browser, file):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(file.as_uri())
        refused = page.evaluate(
            """() => {
              const refused = [];
              addEventListener("securitypolicyviolation", event => refused.push(event.effectiveDirective));
              new Image().src = "https://example.org/a.png";
              document.body.append(Object.assign(document.createElement("script"), {src: "https://example.org/a.js"}));
              return fetch("https://example.org/").catch(() => new Promise(done => setTimeout(done, 200, refused)));
            }"""
        )
    assert sorted(refused) == ["connect-src", "img-src", "script-src-elem"]
    text = file.read_text(encoding="utf-8")
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert not re.search(r"https?://", text)


def test_a_layer_that_the_page_does_not_know_is_named():
    recipe = replace(
        RECIPES["mlp-784-300"], layers=(("Flatten", {}), ("LayerNormalization", {}), ("Dense", {"units": 10}))
    )
    write_untrained(Path("run"), recipe)
    with pytest.raises(InputError, match="the page cannot compute the layer LayerNormalization as it is here"):
        export(Path("run"), "web", Path("page.html"), data="sample")
    assert not Path("page.html").exists()


@pytest.mark.parametrize(
    "layer", [("Conv2D", {"filters": 4, "kernel_size": 3, "activation": "softmax"}), ("Softmax", {"axis": 1})]
)
def test_a_softmax_over_images_is_refused(layer):
    write_untrained(Path("run"), replace(RECIPES["lenet-5"], layers=(layer, ("Flatten", {}), ("Dense", {"units": 10}))))
    with pytest.raises(InputError, match="--format web: the page cannot compute"):
        export(Path("run"), "web", Path("page.html"), data="sample")


def test_nothing_is_written_twice():
    """No six lines stand in two places, among the scripts, styles and pages here and of ``pad``."""
    files = [*(PACKAGE / "export").glob("*.*s*"), PACKAGE / "export/page.html", PACKAGE / "handwriting/pad.html"]
    seen: dict[tuple[str, ...], str] = {}
    for file in sorted(files):
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        for place in range(len(lines) - 5):
            passage = tuple(lines[place : place + 6])
            assert passage not in seen, (seen.get(passage), f"{file.name}: {passage[0]}")
            seen[passage] = f"{file.name}: {passage[0]}"
