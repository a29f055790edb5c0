"""Draw the pictures of README and documentation into docs/pictures.

    .venv/bin/python benchmarks/pictures.py --runs runs/fast-seed0 runs/fast-seed1 runs/fast-seed2

--runs are trainings of `fast` on the competition's data. Without it, only the pictures that need none are drawn. Digits
that are shown are those of the built-in sample, and pages are drawn by code, so no picture has any of the competition's
data in it. ``frontier.py`` draws the plot of accuracy against time.

terminal.png and pad.png need Debian's chromium and Playwright.
"""

from __future__ import annotations

import argparse
import csv
import html
import math
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from PIL import Image

from kaggle_digits.analysis.plots import BLUE, PALETTE, STYLE, plot_digits, plot_reliability
from kaggle_digits.data import find_source, load_train
from kaggle_digits.devices import import_backend
from kaggle_digits.digits import CLASSES, calibrate
from kaggle_digits.handwriting.reader import Reader, draw_overlay
from kaggle_digits.recipe import Network
from kaggle_digits.recipes import find_recipe
from kaggle_digits.run import MODEL_FILE, Run, read_run

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))
from drawn import STROKES, draw_page, put_on_desk  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
KINDS_FILE = HERE / "handwriting.csv"
CHROMIUM, DATA = "/usr/bin/chromium", "digit-recognizer.zip"
KINDS = {
    "desk": "a sheet on a desk",
    "mixed": "small zeros",
    "pale": "ink that fades",
    "touching": "touching digits",
    "colours": "pens of all colours",
    "sideways": "turned pages",
    "grid": "printed grids",
    "board": "chalk on a board",
    "sheet": "plain and ruled paper",
    "wild": "several of these at once",
    "thin": "the same with thin or faint pens",
}
"""What to call the kinds of pages in handwriting.csv."""

VERSIONS = 9
"""How many changed versions of a digit are shown."""


def sample_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return pixels and digits of the built-in sample."""
    rows = load_train(find_source("sample"))
    return rows.pixels, rows.digits


def draw_augmentation() -> Figure:
    """Draw one digit, and what two kinds of augmentation make of it."""
    import_backend("tensorflow")
    from kaggle_digits.learners.images import augment_pixels
    from kaggle_digits.learners.restyle import restyle_pixels

    pixels, digits = sample_digits()
    rng = np.random.default_rng(0)
    shown, titles = [], []
    for digit, name in ((7, "fast"), (7, "handwriting")):
        one = pixels[digits == digit][:1]
        augmentation = find_recipe(name).augmentation  # type: ignore[attr-defined]
        many = np.repeat(one, VERSIONS, axis=0)
        if name == "handwriting":
            many = restyle_pixels(many, np.full(VERSIONS, digit), augmentation, rng)
        shown += [one, augment_pixels(many, augmentation, rng)]
        titles += ["as written", *[f"in {name}"] * VERSIONS]
    return plot_digits(np.concatenate(shown), titles, columns=1 + VERSIONS)


@rc_context(STYLE)
def draw_learning_rate() -> Figure:
    """Draw the learning rate of three recipes, step by step."""
    import_backend("tensorflow")
    from kaggle_digits.models import learning_rate_of

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for name in ("flash", "fast", "stretched"):
        recipe = find_recipe(name)
        assert isinstance(recipe, Network)
        steps = recipe.epochs * math.ceil(39_900 / recipe.batch_size)
        schedule = learning_rate_of(recipe, steps)
        rates = np.array([float(schedule(step)) for step in range(steps)])  # type: ignore[operator]
        axes.plot(rates / rates.max(), label=f"{name}: {recipe.epochs} epochs, peak {rates.max():.2g}")
    axes.set(xlabel="steps of 256 rows", ylabel="learning rate, share of its peak")
    axes.legend()
    axes.grid()
    return figure


@rc_context(STYLE)
def draw_filters(run: Run) -> Figure:
    """Draw the filters of the first convolution."""
    with np.load(run.folder / MODEL_FILE) as saved:
        weights = saved["0.Conv2D.0.kernel"]
    figure = Figure(figsize=(8, 1.5), layout="constrained")
    scheme = LinearSegmentedColormap.from_list("filters", [PALETTE[1], "white", BLUE])
    for axes, image in zip(figure.subplots(2, 16).ravel(), np.moveaxis(weights[:, :, 0], -1, 0), strict=True):
        most = np.abs(image).max()
        axes.imshow(image, cmap=scheme, vmin=-most, vmax=most)
        axes.axis("off")
    figure.suptitle("first convolution of fast, 32 filters of 5 × 5: blue wants ink, orange wants paper", fontsize=9)
    return figure


@rc_context(STYLE)
def draw_per_digit(runs: list[Run]) -> Figure:
    """Draw the held-out accuracy of each digit, over all runs, with one standard error."""
    digits = np.concatenate([run.held_out_digits for run in runs])
    right = np.concatenate([run.probabilities.argmax(axis=1) for run in runs]) == digits
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for digit in range(CLASSES):
        own = right[digits == digit]
        # Wilson's interval of one standard error, which stays below 100%.
        rows, share = len(own), own.mean()
        middle, half = (share + 0.5 / rows) / (1 + 1 / rows), np.sqrt(share * (1 - share) / rows + 0.25 / rows**2)
        low, high = middle - half / (1 + 1 / rows), middle + half / (1 + 1 / rows)
        axes.errorbar(digit, share, [[share - low], [high - share]], fmt="o", color=BLUE, capsize=3)
    axes.set(
        xticks=range(CLASSES),
        xlabel="digit",
        ylabel="held-out accuracy",
        title=f"{runs[0].recipe.name}, {len(runs)} seeds, {len(digits):,} rows in all; bars: one standard error",
    )
    axes.set_ylim(top=1.0005)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.grid(axis="y")
    return figure


@rc_context(STYLE)
def draw_kinds() -> Figure:
    """Draw what of each kind of handwriting is right, marked by a ?, and wrong without one."""
    with KINDS_FILE.open(encoding="utf-8", newline="") as stream:
        kinds = [kind for kind in csv.DictReader(stream) if kind["kind"] in KINDS]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    names = [f"{KINDS[kind['kind']]} ({kind['digits']})" for kind in kinds][::-1]
    right, silent = (np.array([float(kind[name]) for kind in kinds])[::-1] for name in ("right", "silent"))
    for start, width, colour, label in (
        (0 * right, right, BLUE, "right"),
        (right, 100 - right - silent, PALETTE[5], "unsure: shown as ?"),
        (100 - silent, silent, PALETTE[1], "wrong, missing or invented"),
    ):
        axes.barh(names, width, left=start, color=colour, label=label)
    axes.set(xlim=(80, 100), xlabel="share of digits, % (the axis starts at 80)")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def draw_desk(folder: Path) -> Path:
    """Draw a photograph of a sheet on a desk, and return the file."""
    page = draw_page(["31415926", "27182818", "14142135"], size=70, pen=6, seed=3, ruling="ruled")
    picture, _ = put_on_desk(page, desk=0.3, turn=8, seed=1)
    file = folder / "photo.png"
    Image.fromarray(np.rint(255 * picture).astype(np.uint8)).save(file)
    return file


@rc_context(STYLE)
def draw_steps() -> Figure:
    """Draw a photograph, the ink that is found in it, and what is read."""
    page = draw_page(["8305 271", "4691 835"], size=70, pen=4, seed=7, ruling="squared", gap=0.8)
    picture, _ = put_on_desk(page, desk=0.3, turn=-6, seed=2)
    height, width = picture.shape
    y, x = np.mgrid[:height, :width]
    picture = np.clip(picture * (1 - 0.5 / (1 + np.exp((0.9 * x + y - 0.9 * width) / 8))), 0, 1).astype(np.float32)
    reader = Reader()
    ink, read = reader.find_ink(picture), reader.read_page(picture)
    figure = Figure(figsize=(10, 2.3), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    first.imshow(picture, cmap="gray", vmin=0, vmax=1)
    second.imshow(1 - np.stack([0.3 * ink.digits, 0.8 * ink.digits, 0.4 * ink.digits], axis=2))
    third.imshow(picture, cmap="gray", vmin=0, vmax=1.6)
    for digit in read.digits:
        left, top, right, bottom = digit.box
        colour = PALETTE[2] if digit.sure else PALETTE[1]
        third.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=colour))
        third.text(left, top - 4, f"{digit.digit}{'' if digit.sure else '?'}", color=colour)
    for axes, title in zip((first, second, third), ("photograph", "ink of digits", "what is read"), strict=True):
        axes.set(title=title, xticks=[], yticks=[])
    return figure


def draw_overlay_of(photo: Path) -> Image.Image:
    """Draw what the packaged network reads on a photograph."""
    from kaggle_digits.handwriting.photo import load_photos

    (page,) = Reader().read_pages(load_photos(photo))
    return draw_overlay(photo, page)


TERMINAL = """<body style="margin:0;background:#1e2127;color:#dcdfe4;font:15px/1.45 'DejaVu Sans Mono',monospace;
width:1120px"><div style="background:#2b2f37;padding:9px 14px"><span style="color:#e06c75">●</span>
<span style="color:#e5c07b">●</span> <span style="color:#98c379">●</span></div><pre style="margin:0;padding:14px 18px;
white-space:pre-wrap;font:inherit">{}</pre></body>"""


def shoot_terminal(data: Path, out: Path) -> None:
    """Run the main job beside the data, and take a picture of what a terminal shows of it."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / DATA).symlink_to(data.resolve())
        done = subprocess.run(
            [sys.executable, "-m", "kaggle_digits.submit", "--data", DATA],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 300})
        page.set_content(TERMINAL.format(f"<b>$ make submit ARGS='--data {DATA}'</b>\n{html.escape(text)}"))
        page.screenshot(path=out, full_page=True)
        browser.close()


def shoot_pad(photo: Path, out: Path) -> None:
    """Take a picture of the page that has read a photograph."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "kaggle_digits", "pad", "--port", str(port)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        while f":{port} in your browser" not in server.stderr.readline():
            assert server.poll() is None
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1120, "height": 760})
            page.goto(f"http://127.0.0.1:{port}/")
            box = page.locator("#drawing").bounding_box()
            assert box
            for stroke in STROKES[2]:
                for number, (x, y) in enumerate(stroke):
                    page.mouse.move(
                        box["x"] + box["width"] * (0.2 + 0.6 * x), box["y"] + box["height"] * (0.2 + 0.6 * y)
                    )
                    if number == 0:
                        page.mouse.down()
                page.mouse.up()
            page.locator("#digit", has_text="2").wait_for()
            page.set_input_files("#file", photo)
            page.wait_for_selector("#text:not(:empty)")
            page.screenshot(path=out, full_page=True)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Draw all pictures that can be drawn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="trainings of fast on the competition's data")
    parser.add_argument("--data", type=Path, help="the competition's data, for the picture of the terminal")
    options = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    runs = [read_run(folder) for folder in options.runs]
    figures: dict[str, Callable[[], Figure]] = {
        "augmentation": draw_augmentation,
        "learning_rate": draw_learning_rate,
        "handwriting": draw_kinds,
        "ink": draw_steps,
    }
    if runs:
        figures |= {
            "filters": lambda: draw_filters(runs[0]),
            "per_digit": lambda: draw_per_digit(runs),
            "reliability": lambda: plot_reliability(
                np.concatenate([calibrate(run.probabilities, run.temperature or 1.0) for run in runs]),
                np.concatenate([run.held_out_digits for run in runs]),
            ),
        }
    for name, draw in figures.items():
        draw().savefig(PICTURES / f"{name}.png", dpi=130)
    with tempfile.TemporaryDirectory() as folder:
        photo = draw_desk(Path(folder))
        draw_overlay_of(photo).save(PICTURES / "overlay.png", optimize=True)
        shoot_pad(photo, PICTURES / "pad.png")
    if options.data:
        shoot_terminal(options.data, PICTURES / "terminal.png")


if __name__ == "__main__":
    main()
