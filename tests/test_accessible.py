"""Nothing on our pages hinders people with disabilities: the pad, the exported page, a report and the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import PHONE, answered, barriers, draw, needs_browser, opened

from kaggle_digits import cli
from kaggle_digits.export.formats import export
from kaggle_digits.learners import PACKAGED_RUN

SITE = Path(__file__).parent.parent / "docs/_build/html"
SIZES = {"desktop": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}

pytestmark = needs_browser


@pytest.mark.parametrize("size", SIZES)
def test_page_to_draw_on(browser, size):
    """``pad`` has the same page. ``test_pad`` looks at what it adds."""
    file = export(PACKAGED_RUN, "web", Path("digits.html").absolute(), data="sample").file
    with opened(browser, file.as_uri(), **SIZES[size]) as page:
        assert barriers(page) == []
        draw(page, 3)
        page.click("#why")
        answered(page)
        assert barriers(page) == []
        page.click("#clear")
        page.evaluate("strokes.push([[280, 280]]), changed()")
        answered(page)
        assert page.locator("#verdict").is_visible()
        assert barriers(page) == []


def test_report(browser):
    recipes = "random,naive-bayes,knn"
    assert cli.main(["compare", "--recipes", recipes, "--data", "sample", "--out", "compare"]) == 0
    for size in ("desktop", "dark"):
        with opened(browser, Path("compare/report.html").absolute().as_uri(), **SIZES[size]) as page:
            assert barriers(page) == []


@pytest.mark.skipif(not SITE.is_dir(), reason="the documentation is not built: `make docs` builds it")
@pytest.mark.parametrize("name", ["index", "tutorial", "how-to/page", "how-to/class", "benchmarks/recipes"])
def test_site(browser, name):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((SITE / f"{name}.html").as_uri())
        assert barriers(page) == []
