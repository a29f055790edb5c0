"""How Sphinx builds the documentation. ``make docs`` copies what lies elsewhere into this folder, and runs it."""

from __future__ import annotations

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

# The notebook runs on the built-in sample.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"exclude-members": "__init__, __new__"}
napoleon_google_docstring = True

# sphinx-argparse has no answer when a link is looked up everywhere; MyST says so for each link.
suppress_warnings = ["myst.domains"]
