"""Verbs that read your own handwriting: recognize, pad."""

from __future__ import annotations

import json as _json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kaggle_digits.cli import BACKEND, ONE_RUN, QUIET, index, option, path, probability, verb
from kaggle_digits.cli.output import show
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
        help="pages; or single digits, with --single or --labelled",
    ),
    ONE_RUN,
    BACKEND,
    option("--json", action="store_true", help="print one line of JSON for each picture, for scripts"),
    option(
        "--single",
        action="store_true",
        help="every picture holds exactly one digit",
    ),
    option(
        "--labelled",
        action="store_true",
        help="print the accuracy: every picture holds one digit, which its name tells (NUMBER_LABEL.png, or "
        "LABEL_NUMBER.png) or its folder (0 to 9)",
    ),
    option(
        "--threshold",
        type=probability,
        metavar="P",
        help="print ? for a digit with a probability below P (default: what the run was measured to need, else 0.9)",
    ),
    option("--overlay", type=path, metavar="FILE.png", help="draw what was read on the picture"),
    option(
        "--why", action="store_true", help="with --overlay, also colour what speaks for each reading and against it"
    ),
    option("--mistakes", type=path, metavar="FILE.png", help="draw the worst mistakes, with --labelled"),
    option("--force", action="store_true", help="replace FILE.png if it exists"),
    QUIET,
)
def recognize(
    *,
    pictures: list[Path],
    run: Path | None,
    backend: str | None,
    json: bool,
    single: bool,
    labelled: bool,
    threshold: float | None,
    overlay: Path | None,
    why: bool,
    mistakes: Path | None,
    force: bool,
    quiet: bool,  # noqa: ARG001
) -> None:
    """Print the digits that are written on pictures."""
    from kaggle_digits.handwriting import reader
    from kaggle_digits.submission import check_free

    found = reader.find_pictures(pictures, labelled=labelled)
    files, labels = found.files, found.labels
    if overlay and len(files) > 1:
        raise InputError(f"--overlay: {len(files)} pictures were given. Expected one. Draw on one at a time.")
    if why and not overlay:
        raise InputError("--why: is drawn on the picture. Expected --overlay FILE.png as well. Add it.")
    if mistakes and labels is None:
        raise InputError("--mistakes: without --labelled, no mistake can be told. Add --labelled, or leave it out.")
    for wanted in filter(None, (overlay, mistakes)):
        if wanted.suffix.lower() != ".png":
            raise InputError(f"{wanted}: is not named like a PNG file. Expected a name ending in .png. Change it.")
        check_free(wanted, overwrite=force)
    loaded = _load_reader(run, backend, threshold)
    read = reader.read_files(files, loaded, single=single or labelled)
    if overlay and len(read[0]) > 1:
        raise InputError(f"--overlay: {files[0]} has {len(read[0])} pages. Expected one. Save one page as a picture.")
    for file, pages in zip(files, read, strict=True):
        if json:
            for number, page in enumerate(pages, start=1):
                more = {"page": number} if len(pages) > 1 else {}
                print(_json.dumps(reader.describe(str(file), page) | more))
        elif labels is None:
            for number, page in enumerate(pages, start=1):
                lines = reader.to_lines(page)
                title = f"{file}, page {number}:" if len(pages) > 1 else f"{file}:"
                several = len(files) > 1 or len(pages) > 1
                show("\n".join([title, *(f"  {line}" for line in lines)] if several else lines))
    first = [pages[0] for pages in read]
    if labels is not None and not json:
        show(reader.tabulate(first, labels))
    if overlay:
        _save(overlay, reader.draw_overlay(files[0], first[0], explain=loaded.explain if why else None).save)
    if mistakes and labels is not None:
        _save(mistakes, reader.plot_mistakes(first, labels).savefig)


@verb(
    "serve a page in your browser to draw digits on, or to drop photographs on",
    ONE_RUN,
    BACKEND,
    option("--host", default="127.0.0.1", metavar="ADDRESS", help="the address to listen on (default: %(default)s)"),
    option("--port", type=index, default=8000, metavar="N", help="its port; 0 takes a free one (default: %(default)s)"),
    option(
        "--keep",
        type=path,
        metavar="DIR",
        help="keep the drawings that somebody on the page calls misread, for recognize --labelled",
    ),
)
def pad(*, run: Path | None, backend: str | None, host: str, port: int, keep: Path | None) -> None:
    """Serve the page."""
    try:
        from kaggle_digits.handwriting.pad import serve
    except ImportError as error:
        raise InputError(
            f"pad: the package {error.name} is missing. Install the extra [pad], or what "
            "it consists of: pip install segno starlette uvicorn"
        ) from error
    serve(lambda: _load_reader(run, backend), host=host, port=port, keep=keep)


def _load_reader(run: Path | None, backend: str | None, threshold: float | None = None) -> Reader:
    from kaggle_digits.handwriting.reader import Reader
    from kaggle_digits.learners import PACKAGED_RUN

    return Reader(run or PACKAGED_RUN, threshold=threshold, backend=backend)


def _save(file: Path, save: Callable[[Path], None]) -> None:
    with atomic_path(file) as partial:
        save(partial)
    log.info("Wrote %s", file)
