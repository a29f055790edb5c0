"""Check that every link inside the built documentation leads somewhere: to a file, and to an anchor in it.

.venv/bin/python docs/check_links.py docs/_build/html
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {"", "top"}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember where the tag leads, and what leads to it."""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src"):
                self.links.add(value or "")


def broken_links(site: Path) -> list[str]:
    """Return every link that leads nowhere, with the page that it is on."""
    pages = {file.resolve(): Page(file) for file in site.rglob("*.html")}
    broken = []
    for file, page in pages.items():
        for link in sorted(page.links):
            path, anchor = urldefrag(link)
            if urlparse(link).scheme:
                continue
            target = (file.parent / unquote(urlparse(path).path)).resolve() if path else file
            found = pages[target].anchors if target in pages else {anchor}
            if not target.exists() or unquote(anchor) not in found:
                broken.append(f"{file.relative_to(site.resolve())}: {link}")
    return broken


if __name__ == "__main__":
    wrong = broken_links(Path(sys.argv[1]))
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))
