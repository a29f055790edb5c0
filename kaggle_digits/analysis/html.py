"""Write an HTML page of facts, tables and pictures, in light and dark, for screens, phones and print.

The page is one file, which contains its pictures. It has no scripts and fetches nothing. The template escapes
everything in it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kaggle_digits.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: its heading; "" for none.
        text: a sentence or two.
        head: the titles of a table's columns; none if there is no table.
        rows: the cells of each row. The last cell of a shorter row spans the missing ones.
        figures: pictures by their captions.
        starts_page: whether it starts a new sheet of paper.
    """

    title: str
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    starts_page: bool = False


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: its heading.
        lead: the most important result.
        facts: names and values.
        command: the command that makes it again; "" for none.
        sections: the rest.
        commit: the commit of this package; None if unknown.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    command: str = ""
    commit: str | None = None


def write_page(file: Path, page: Page) -> None:
    """Write a page, whole or not at all."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["png"] = _png
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    with atomic_path(file) as path:
        path.write_text(template.render(page=page) + "\n", encoding="utf-8")


def _png(figure: Figure) -> str:
    """Return a figure as PNG, in base64."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return base64.b64encode(stream.getvalue()).decode()
