"""How Sphinx builds the documentation. ``make docs`` copies what lies elsewhere into this folder, and runs it."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

import kaggle_digits

project = "kaggle_digits"
author = "The kaggle_digits authors"
version = release = kaggle_digits.digits.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxarg.ext"]
exclude_patterns = ["_build", "benchmarks/faults-table.md"]
html_theme = "furo"
smartquotes = False
html_title = f"kaggle_digits {version}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["style.css"]

myst_heading_anchors = 3

# `make tutorial` runs the notebook on the data of the competition.
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"exclude-members": "__init__, __new__"}
napoleon_google_docstring = True

# sphinx-argparse has no answer when a link is looked up everywhere; MyST says so for each link.
suppress_warnings = ["myst.domains"]


def setup(app: Sphinx) -> None:
    """Correct what hinders people with disabilities: Sphinx's headings in the sidebar have no level."""
    app.connect("build-finished", add_levels)


def add_levels(app: Sphinx, error: Exception | None) -> None:
    """Give a level to each heading that is not one by its tag."""
    for file in Path(app.outdir).rglob("*.html") if not error else ():
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(r'role="heading"(?! aria)', 'role="heading" aria-level="2"', text), encoding="utf-8")
