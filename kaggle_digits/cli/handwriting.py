"""Verbs that read your own handwriting: recognize, pad."""

from __future__ import annotations

import json as _json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kaggle_digits.cli.options import BACKEND, ONE_RUN, index, option, path, probability, verb
from kaggle_digits.errors import InputError
from kaggle_digits.files import atomic_path

if TYPE_CHECKING:
    from kaggle_digits.handwriting.reader import Reader

log = logging.getLogger(__name__)


@verb(
    "read the digits in photographs and scans of your own handwriting",
    option(
        "pictures",
        nargs="+",
        type=path,
        metavar="IMAGE|FOLDER",
        help="pages, or single digits named NUMBER_LABEL.png",
    ),
    ONE_RUN,
    BACKEND,
    option("--json", action="store_true", help="print one line of JSON for each picture, for scripts"),
    option(
        "--single",
        action="store_true",
        help="every picture holds exactly one digit (assumed if the file names carry labels)",
    ),
    option(
        "--threshold",
        type=probability,
        metavar="P",
        help="print ? for a digit with a probability below P (default: 0.9)",
    ),
    option("--overlay", type=path, metavar="FILE.png", help="draw what was read on the picture"),
    option("--mistakes", type=path, metavar="FILE.png", help="draw the worst mistakes in pictures with labels"),
    option("--force", action="store_true", help="replace FILE.png if it exists"),
)
def recognize(
    *,
    pictures: list[Path],
    run: Path | None,
    backend: str | None,
    json: bool,
    single: bool,
    threshold: float | None,
    overlay: Path | None,
    mistakes: Path | None,
    force: bool,
) -> None:
    """Print the digits that are written on pictures."""
    from kaggle_digits.handwriting import reader
    from kaggle_digits.submission import check_free

    threshold = reader.THRESHOLD if threshold is None else threshold
    files = reader.find_pictures(pictures)
    labels = reader.find_labels(files)
    if overlay and len(files) > 1:
        raise InputError(f"--overlay: {len(files)} pictures were given. Expected one. Draw on one at a time.")
    if mistakes and labels is None:
        raise InputError("--mistakes: the pictures have no labels. Expected names like 0012_7.png. Leave it out.")
    for wanted in filter(None, (overlay, mistakes)):
        if wanted.suffix.lower() != ".png":
            raise InputError(f"{wanted}: is not named like a PNG file. Expected a name ending in .png. Change it.")
        check_free(wanted, overwrite=force)
    digits = reader.read_files(files, _load_reader(run, backend), single=single or labels is not None)
    for file, found in zip(files, digits, strict=True):
        if json:
            print(_json.dumps(reader.describe(str(file), found, threshold=threshold)))
        elif labels is None:
            lines = reader.text_of(found, threshold=threshold) or ["(no digits found)"]
            print("\n".join(lines if len(files) == 1 else [f"{file}:", *(f"  {line}" for line in lines)]))
    if labels is not None and not json:
        print(reader.tabulate(digits, labels, threshold=threshold))
    if overlay:
        _save(overlay, reader.draw_overlay(files[0], digits[0], threshold=threshold).save)
    if mistakes and labels is not None:
        _save(mistakes, reader.plot_mistakes(digits, labels).savefig)


@verb(
    "serve a page in your browser to draw digits on, or to drop photographs on",
    ONE_RUN,
    BACKEND,
    option("--host", default="127.0.0.1", metavar="ADDRESS", help="the address to listen on (default: %(default)s)"),
    option("--port", type=index, default=8000, metavar="N", help="its port; 0 takes a free one (default: %(default)s)"),
)
def pad(*, run: Path | None, backend: str | None, host: str, port: int) -> None:
    """Serve the page."""
    try:
        from kaggle_digits.handwriting.pad import serve
    except ImportError as error:
        raise InputError(
            f"pad: the package {error.name} is missing. Install the extra [pad]: pip install 'kaggle-digits[pad]'"
        ) from error
    serve(lambda: _load_reader(run, backend), host=host, port=port)


def _load_reader(run: Path | None, backend: str | None) -> Reader:
    from kaggle_digits.handwriting.reader import Reader

    return Reader(run, backend=backend) if run else Reader(backend=backend)


def _save(file: Path, save: Callable[[Path], None]) -> None:
    with atomic_path(file) as partial:
        save(partial)
    log.info("Wrote %s", file)
